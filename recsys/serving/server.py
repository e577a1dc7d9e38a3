"""The process: one that listens, answers, swaps bundles on SIGHUP, and ends on SIGTERM without dropping a request."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recsys.exceptions import InvalidInputError, RecsysWarning
from recsys.serving.app import create_app
from recsys.serving.security import check_address
from recsys.serving.service import Service
from recsys.serving.settings import Settings

__all__ = ["serve"]

# While a batch is computed, what arrives must be read. Python lets threads alternate every 5 ms, half of what an answer
# should take.
_SWITCH_INTERVAL = 0.0005
# Seconds that a connection has, when listening ends, to send what it was opened for.
_LAST_WORDS = 0.5


def serve(settings: Settings, host: str, port: int, tell: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT.

    Parameters
    ----------
    settings : Settings
    host : str
        Where to listen.
    port : int
        0: any that is free.
    tell : callable
        Told of the address, when it is open.

    Raises
    ------
    InvalidInputError
        If others could reach the service and there is no key, or it cannot listen there.
    PersistenceError
        If there is no bundle.
    """
    if hasattr(signal, "SIGHUP"):
        # It would end a process that does not listen yet, which is about to read the bundle anyway.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    check_address(host, settings.api_key)
    # What a request names that is not there is the client's affair, not the log's.
    warnings.filterwarnings("ignore", category=RecsysWarning)
    app = create_app(settings)
    service: Service = app.state.service
    listening = _listen(host, port)
    address, actual = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    bundle = service.held.bundle
    told = f"Serving {bundle.model} ({bundle.n_items} items, {bundle.n_users} users) at http://{shown}:{actual}"
    config = uvicorn.Config(
        app,
        http=_Connection,
        log_config=_logging(),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=math.ceil(settings.timeout),
        timeout_graceful_shutdown=math.ceil(settings.timeout) + 5,
    )
    # What is there now stays: looking through it again and again would delay answers.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    _Server(config, service, listening, lambda: tell(told)).run(sockets=[listening])


def _logging() -> dict[str, Any]:
    """uvicorn's, heeded by this package as well."""
    own = {"recsys": LOGGING_CONFIG["loggers"]["uvicorn"]}
    return {**LOGGING_CONFIG, "loggers": {**LOGGING_CONFIG["loggers"], **own}}


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise InvalidInputError(
            f"Listening at {host}, port {port}, failed: {error}; expected a free port of this machine: name another."
        ) from error


class _Connection(HttpToolsProtocol):
    """uvicorn's, which is closed where no head of a request comes, or the rest of one: nobody keeps it for nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._look = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle, self.cycle)

    def _close_if_idle(self, before: Any) -> None:
        """Close it, if nothing was asked since the last look, at which all was answered."""
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.close()
        else:
            self._look_again()


class _Server(uvicorn.Server):
    """uvicorn's, with signals of our own, that ends without dropping what was sent before."""

    def __init__(
        self, config: uvicorn.Config, service: Service, listening: socket.socket, on_start: Callable[[], object]
    ) -> None:
        super().__init__(config)
        self._service, self._on_start = service, on_start
        # What is connected, but not yet accepted, would go with the last handle of the socket.
        self._queue = listening.dup()
        self._queue.setblocking(False)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._service.reload)
        self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM, tell clients to leave, and only then stop listening; at once on a second one, or on SIGINT."""
        if sig != signal.SIGTERM or self._loop is None or self._service.is_closing:
            super().handle_exit(sig, frame)
            return
        self._service.is_closing = True
        self._loop.call_soon_threadsafe(self._loop.call_later, self._service.settings.drain, self._end)

    def _end(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, hear out who is connected by then, and end."""
        self._service.is_closing = True
        for server in self.servers:
            server.close()
        await self._accept_the_rest()
        loop = asyncio.get_running_loop()
        end = loop.time() + _LAST_WORDS
        # uvicorn closes those that have asked for nothing yet.
        while not self.force_exit and loop.time() < end and self._is_anybody_silent():
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    def _is_anybody_silent(self) -> bool:
        return any(isinstance(each, _Connection) and each.cycle is None for each in self.server_state.connections)

    async def _accept_the_rest(self) -> None:
        accepted = []
        try:
            while True:
                accepted.append(self._queue.accept()[0])
        except OSError:
            # Nobody waits any more, or nobody else can be let in.
            self._queue.close()

        def connection() -> _Connection:
            return _Connection(self.config, self.server_state, self.lifespan.state)

        for each in accepted:
            await asyncio.get_running_loop().connect_accepted_socket(connection, each)

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

from recsys.exceptions import InvalidInputError, RecsysWarning
from recsys.serving.app import create_app
from recsys.serving.security import check_address
from recsys.serving.service import Service
from recsys.serving.settings import Settings

__all__ = ["serve"]

# While a batch is computed, what arrives must be read. Python lets threads alternate every 5 ms, half of what an answer
# should take.
_SWITCH_INTERVAL = 0.0005


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
        log_config=_logging(),
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=math.ceil(settings.timeout) + 5,
    )
    # What is there now stays: looking through it again and again would delay answers.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    _Server(config, service, lambda: tell(told)).run(sockets=[listening])


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


class _Server(uvicorn.Server):
    """uvicorn's, with signals of our own."""

    def __init__(self, config: uvicorn.Config, service: Service, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._service, self._on_start = service, on_start
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

"""What a service may be told: where its bundles are, who may change it, and how much it takes on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from recsys.exceptions import InvalidInputError, InvalidTypeError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Settings of a service.

    Attributes
    ----------
    bundle : Path
        What `model.export` wrote; it is served first, and read again on SIGHUP.
    root : Path, default=None
        The folder whose bundles `POST /bundle` may switch to, by plain name. None: to none.
    api_key : str, default=None
        What must come with a request that changes state. None: anybody who reaches the server may change it.
    max_users, max_k, max_items : int
        Users of one request, items of one list, items named or changed by one request.
    max_body : int
        Bytes of a request's body.
    max_batch : int
        Users who are answered together.
    max_wait : float
        Seconds that a request may be expected to wait; beyond that it is refused at once (503).
    timeout : float
        Seconds within which a request is answered, or else given up (504).
    drain : float
        Seconds between SIGTERM and the end of listening: `/readyz` tells, connections are asked to close.

    Raises
    ------
    InvalidInputError
        If a limit is no such number, or the key cannot be sent.

    Examples
    --------
    >>> Settings(Path("bundle"), max_users=5).max_users
    5
    """

    bundle: Path
    root: Path | None = None
    api_key: str | None = None
    max_users: int = 64
    max_k: int = 200
    max_items: int = 1000
    max_body: int = 2**20
    max_batch: int = 64
    max_wait: float = 0.05
    timeout: float = 5.0
    drain: float = 1.0

    def __post_init__(self) -> None:
        for name in ("max_users", "max_k", "max_items", "max_body", "max_batch"):
            value = getattr(self, name)
            if type(value) is not int:
                raise InvalidTypeError(f"`{name}` is {value!r}; expected a whole number.")
            if value < 1:
                raise InvalidInputError(f"`{name}` is {value}; expected at least 1.")
        for name in ("max_wait", "timeout", "drain"):
            value = getattr(self, name)
            if type(value) not in (int, float):
                raise InvalidTypeError(f"`{name}` is {value!r}; expected a number of seconds.")
            if not 0 <= value < math.inf or (name == "timeout" and not value):
                least = "more than 0" if name == "timeout" else "0 or more"
                raise InvalidInputError(f"`{name}` is {value}; expected a finite number of seconds, {least}.")
        key = self.api_key
        if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
            raise InvalidInputError(
                "`api_key` is empty, or holds what a header cannot; expected printable characters of ASCII, without "
                "blanks at the ends."
            )

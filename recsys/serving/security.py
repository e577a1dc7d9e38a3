"""Who may change what is served, and what every answer tells a browser."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping

from recsys.exceptions import InvalidInputError

__all__ = ["HEADERS", "READING", "check_address", "why_refused"]

# Scripts, styles and data from this server alone, and nothing around it.
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(?::[0-9]*)?")
# What changes nothing, beside GET.
READING = {"/recommend", "/similar", "/reach", "/explain"}


def check_address(host: str, api_key: str | None) -> None:
    """Refuse to serve without a key whoever is not on this machine.

    Parameters
    ----------
    host : str
        The name or address to listen at.
    api_key : str or None

    Raises
    ------
    InvalidInputError
        If there is no key, and `host` is not a loopback address, or is unknown.

    Examples
    --------
    >>> check_address("127.0.0.1", None)
    >>> check_address("0.0.0.0", "a long secret")
    """
    if api_key is not None:
        return
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)} if host else {"0.0.0.0"}
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(f"`host` is {host!r}, which cannot be found ({error}); expected an address.") from error
    if not all(_is_loopback(address) for address in found):
        raise InvalidInputError(
            f"`host` is {host!r}, which others can reach, and there is no API key: they could change what is served; "
            f"expected a key in a file or in RECSYS_API_KEY, or a loopback address such as 127.0.0.1."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def why_refused(
    method: str, path: str, headers: Mapping[bytes, bytes], api_key: bytes | None
) -> tuple[int, str] | None:
    """Why a request may not be answered, as a status and a sentence; None if it may.

    What changes nothing may come from anybody. Of the rest, a service with a key wants it, in ``X-API-Key`` or as
    ``Authorization: Bearer``, compared in constant time; one without, which listens on this machine alone, refuses what
    a page of another site could make a browser send: another ``Host`` (a name that was pointed here) or ``Origin``.

    Parameters
    ----------
    method, path : str
    headers : mapping of bytes to bytes
        Names in lower case.
    api_key : bytes or None

    Returns
    -------
    tuple of (int, str), or None

    Examples
    --------
    >>> why_refused("POST", "/recommend", {}, b"secret")
    >>> why_refused("PUT", "/items", {b"x-api-key": b"guess"}, b"secret")
    (401, 'This changes what is served; expected the API key in X-API-Key or as Authorization: Bearer.')
    """
    if method in ("GET", "HEAD", "OPTIONS") or (method == "POST" and path in READING):
        return None
    if api_key is not None:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = [headers.get(b"x-api-key", b""), token.strip() if scheme.lower() == b"bearer" else b""]
        if any(hmac.compare_digest(each, api_key) for each in given):
            return None
        return 401, "This changes what is served; expected the API key in X-API-Key or as Authorization: Bearer."
    host = headers.get(b"host", b"").decode("latin-1")
    if not _is_loopback(_host_name(host)):
        return 403, f"This changes what is served, and was sent to the host {host!r}; expected localhost."
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and origin.partition("://")[2] != host:
        return 403, f"This changes what is served, and came from a page of {origin!r}; expected none, or one from here."
    return None


def _host_name(host: str) -> str:
    """The name in a header, which has no user and no zone."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").lower() if found else ""

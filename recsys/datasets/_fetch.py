"""Bring an archive into the data home: download, check, unpack, and only then show it."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pooch

from recsys.exceptions import DatasetError, InvalidInputError, InvalidTypeError

__all__ = ["FETCH_ERRORS", "fetch_archive", "pooch_log", "publish", "resolve_data_home", "unpack", "workspace"]

# What network, disk or a damaged archive raises: requests' exceptions are OSErrors, a bad checksum is a ValueError.
FETCH_ERRORS = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)

_RETRIES = 2
# Seconds to connect and between two pieces: an unreachable server must not hold its caller for minutes.
_TIMEOUT = (5, 15)


def resolve_data_home(data_home: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the data sets.

    Parameters
    ----------
    data_home : path-like or None
        What the caller asked for. None: the environment variable ``RECSYS_DATA_HOME``, else a per-user cache folder.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InvalidTypeError
        If `data_home` is no path.
    InvalidInputError
        If it is empty text.
    """
    if data_home is None:
        data_home = os.environ.get("RECSYS_DATA_HOME") or pooch.os_cache("recsys")
    if not isinstance(data_home, (str, os.PathLike)):
        raise InvalidTypeError(f"`data_home` is {data_home!r}; expected the path of a folder, or None.")
    if data_home == "":
        raise InvalidInputError(
            "`data_home` is ''; expected the path of a folder, or None: for the current folder write '.'."
        )
    return Path(data_home).expanduser()


def fetch_archive(url: str, known_hash: str | None, folder: str, home: Path, *, verbose: bool) -> None:
    """Download a zip archive and leave the `folder` that it holds in `home`.

    Parameters
    ----------
    url : str
        Address of the archive.
    known_hash : str or None
        Its checksum, as ``"md5:..."``. None: the archive's own CRCs must do.
    folder : str
        The top folder inside the archive.
    home : pathlib.Path
        Where that folder goes; made if need be.
    verbose : bool
        Show progress.

    Raises
    ------
    DatasetError
        If the archive is not what it should be.
    OSError, ValueError
        If it cannot be had: one of `FETCH_ERRORS`.
    """
    base, _, name = url.rpartition("/")
    with workspace(home, folder) as work:
        store = pooch.create(path=work, base_url=f"{base}/", registry={name: known_hash}, retry_if_failed=_RETRIES)
        with ExitStack() as stack, pooch_log(verbose):
            # pooch leaves the connection of a download that breaks off open.
            def close_later(response: Any, **_: object) -> None:
                stack.callback(response.close)

            downloader = pooch.HTTPDownloader(
                progressbar=verbose, chunk_size=1 << 20, timeout=_TIMEOUT, hooks={"response": close_later}
            )
            archive = Path(store.fetch(name, downloader=downloader))
        unpack(archive, work / "unpacked")
        if not (work / "unpacked" / folder).is_dir():
            raise DatasetError(f"{url} holds no folder {folder}/; it is not the archive that was expected.")
        publish(work / "unpacked" / folder, home / folder)


@contextmanager
def workspace(home: Path, folder: str) -> Iterator[Path]:
    """Lend a hidden folder inside `home`, on the disk of its destination, and remove it afterwards."""
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder}-", dir=home) as work:
        yield Path(work)


def publish(source: Path, target: Path) -> None:
    """Rename the finished folder `source` to `target`; where another process was faster, keep its work."""
    try:
        os.replace(source, target)
    except OSError:
        if not target.is_dir() or not any(target.iterdir()):
            raise


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip archive, refusing it whole if any member would land outside `target`.

    Parameters
    ----------
    archive : pathlib.Path
        The zip file.
    target : pathlib.Path
        Folder to unpack into; made if need be.

    Raises
    ------
    DatasetError
        If a member is a link, or has an absolute name or one with "..".
    """
    with zipfile.ZipFile(archive) as content:
        members = content.infolist()
        for member in members:
            if not _stays_inside(member):
                raise DatasetError(
                    f"{archive.name} holds {member.filename!r}, which would be written outside its folder; "
                    "nothing was unpacked. Do not use this archive."
                )
        for member in members:
            path = target.joinpath(*PurePosixPath(member.filename).parts)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with content.open(member) as source, path.open("xb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def _stays_inside(member: zipfile.ZipInfo) -> bool:
    # Backslashes and drives count as Windows reads them, on every system.
    windows = PureWindowsPath(member.filename)
    absolute = windows.drive or windows.root or PurePosixPath(member.filename).is_absolute()
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    return not (absolute or is_link or ".." in windows.parts or "\\" in member.filename)


@contextmanager
def pooch_log(verbose: bool) -> Iterator[logging.Logger]:
    """Lend the log on which pooch tells of downloads; unless `verbose` it shows warnings only."""
    logger = pooch.get_logger()
    # Not the logger's own level: pooch's is in no tree of loggers, and keeps asking the level it had at first.
    handler = logger.handlers[0]
    before = handler.level
    handler.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield logger
    finally:
        handler.setLevel(before)

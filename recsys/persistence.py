"""Save and load fitted models: a directory of JSON and safetensors, written atomically, never unpickled.

::

    model/
        manifest.json                 schema version, class, parameters, names and SHA-256 of the files below
        state-<token>.json            everything that is not an array
        arrays-<token>.safetensors    every array

A save writes its content files under fresh names and then replaces the manifest in one rename. Whoever loads sees the
manifest of before or of after, and the files it names, so a crash leaves the old model or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import mmap
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from recsys._packing import load_arrays, pack, persistent, unpack
from recsys.exceptions import CorruptModelError, InvalidTypeError, PersistenceError, SchemaVersionError, examples

__all__ = [
    "NO_MODELS",
    "SCHEMA_VERSION",
    "load",
    "persistent",
    "read_directory",
    "read_manifest",
    "refuse_other_kind",
    "write_directory",
]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"

# The names that a save gives its files; no other file is ever removed.
CONTENT = re.compile(r"(arrays-[0-9a-f]{16}\.safetensors|state-[0-9a-f]{16}\.json|manifest-[0-9a-f]{16}\.tmp)")


# What is saved as models are: what it is, and what loads it.
NO_MODELS = {"Bundle": ("a bundle", "recsys.retrieval.load_bundle"), "ItemIndex": ("an index", "ItemIndex.load")}

# Files of this many bytes are worth a mapping.
MAPPED_FROM = 2**26
# Bytes that are read at a time where not all are kept.
_PART = 2**18


def write_directory(path: str | os.PathLike[str], state: dict[str, Any], header: dict[str, Any]) -> None:
    """Write `state` into the directory `path`, atomically.

    Parameters
    ----------
    path : path-like
        A directory; made if it is not there. A model that it holds is replaced in one step.
    state : dict
        Arrays, CSR matrices, JSON values, lists, tuples and dicts of these, and persistent objects.
    header : dict
        Stands in the manifest: what a reader must know before it reads the rest. No arrays.

    Raises
    ------
    PersistenceError
        If something cannot be stored or written, or `path` is a file or a directory of other content.
    """
    from safetensors.numpy import save

    directory = _as_path(path)
    _refuse_foreign(directory)
    arrays: dict[str, np.ndarray] = {}
    in_header: dict[str, np.ndarray] = {}
    packed, packed_header = pack(state, "", arrays), pack(header, "", in_header)
    if in_header:
        raise PersistenceError(f"`header` holds arrays: {examples(in_header)}; expected them in `state`: move them.")
    token = secrets.token_hex(8)
    contents = {f"arrays-{token}.safetensors": save(arrays), f"state-{token}.json": _json(packed)}
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **packed_header,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    manifest["checksum"] = _checksum(manifest)
    try:
        _commit(directory, contents, f"manifest-{token}.tmp", _json(manifest, indent=1))
    except OSError as error:
        raise PersistenceError(
            f"Writing to {directory} failed: {error}; a model that was there still loads, and nothing half-written is "
            f"left. Mend the cause and save again."
        ) from error


def read_directory(
    path: str | os.PathLike[str], mapped_from: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `write_directory` wrote, checking every byte against the manifest.

    Parameters
    ----------
    path : path-like
    mapped_from : int, default=None
        Leave arrays in their file, if it has at least so many bytes: they are read-only views of a mapping of it, whose
        bytes were checked. A save never changes a file, it writes a new one and removes the old, which lives as long as
        it is mapped. None: read them.

    Returns
    -------
    state : dict
    header : dict
        The manifest.

    Raises
    ------
    PersistenceError
        If there is no model at `path`, or it holds what this release does not have.
    CorruptModelError
        If a file is missing, truncated or altered.
    SchemaVersionError
        If the model was written by a newer release.
    """
    manifest = read_manifest(path)
    while True:
        try:
            return _read_state(Path(path), manifest, mapped_from), manifest
        except CorruptModelError:
            # A save meanwhile replaces the manifest and then removes the files of the old one.
            fresh = read_manifest(path)
            if fresh["checksum"] == manifest["checksum"]:
                raise
            manifest = fresh


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check the manifest of a saved model alone.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict

    Raises
    ------
    PersistenceError, CorruptModelError, SchemaVersionError
        As in `read_directory`.
    """
    file = _as_path(path) / MANIFEST
    try:
        manifest = json.loads(_read(file)[0])
        # How it is made holds for every schema version, so that a newer model is told from an altered one.
        checksum = _checksum(manifest) if _is_manifest(manifest) else None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PersistenceError(
            f"There is no saved model at {Path(path)}: {MANIFEST} is missing; expected a directory that `save` wrote."
        ) from error
    # Nested too deep: no manifest that `save` wrote.
    except (ValueError, RecursionError) as error:
        raise CorruptModelError(
            f"{file} is not valid JSON: the model was truncated or altered; restore it or save it again."
        ) from error
    if checksum is None:
        raise CorruptModelError(f"{file} is no manifest of a saved model; expected one that `save` wrote.")
    if manifest.get("checksum") != checksum:
        raise CorruptModelError(f"{file} was altered: its checksum does not match; restore it or save the model again.")
    version = manifest["schema_version"]
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"The model at {Path(path)} has schema version {version}, written by recsys "
            f"{manifest.get('recsys_version', '?')}; this release reads up to {SCHEMA_VERSION}: upgrade recsys."
        )
    # A manifest is data: its names never lead out of the directory.
    outside = [name for name in manifest["files"] if not CONTENT.fullmatch(name)]
    if outside:
        raise CorruptModelError(f"{file} names {examples(outside)}; expected plain names of files that `save` wrote.")
    try:
        header: dict[str, Any] = unpack(manifest, {}, _public_class)
    # What a class makes of values that it never wrote.
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CorruptModelError(
            f"{file} matches its checksum but describes no model ({type(error).__name__}: {error}); expected what "
            f"`save` wrote."
        ) from error
    return header


def refuse_other_kind(path: str | os.PathLike[str], is_kin: Callable[[Any], bool]) -> None:
    """Refuse to save over what is of another kind: a model over an index, say.

    Parameters
    ----------
    path : path-like
    is_kin : callable
        Whether a saved class may be replaced.

    Raises
    ------
    PersistenceError
        If what is saved at `path` may not be.
    SchemaVersionError
        If a newer release wrote it.
    """
    directory = _as_path(path)
    try:
        held = read_manifest(directory).get("class")
    except SchemaVersionError:
        raise
    except PersistenceError:
        # Nothing is there, or nothing that can be read: `write_directory` looks closer.
        return
    if not is_kin(held):
        raise PersistenceError(f"`path` ({directory}) holds a saved {held}; expected a directory of its own.")


def load(path: str | os.PathLike[str]) -> Any:
    """Load a model that `save` wrote.

    Parameters
    ----------
    path : path-like
        The directory.

    Returns
    -------
    estimator
        The fitted model, of the class that was saved.

    Raises
    ------
    PersistenceError
        If there is no model at `path`, or its class is unknown to this release.
    CorruptModelError
        If a file is missing, truncated or altered.
    SchemaVersionError
        If the model was written by a newer release.

    Examples
    --------
    >>> import pandas as pd, recsys, tempfile
    >>> X = pd.DataFrame({"user_id": ["ann", "bob"], "item_id": ["tea", "tea"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recsys.Popularity().fit(X).save(folder)
    ...     model = recsys.load(folder)
    >>> model
    Popularity()
    """
    # Importing the class makes known what its state is made of: it comes before the state.
    _model_class(read_manifest(path), path)
    state, manifest = read_directory(path)
    cls, parameters = _model_class(manifest, path), manifest.get("parameters")
    try:
        return cls._from_saved(parameters, state)
    except TypeError as error:
        raise CorruptModelError(
            f"The model at {Path(path)} has the parameters {parameters!r}, which are not those of a {cls.__name__}; "
            f"expected what `save` wrote."
        ) from error


def _public_class(name: Any) -> Any:
    """The class of a public name of this package, imported with all that its state is made of; None where unknown."""
    import recsys

    return getattr(recsys, name) if isinstance(name, str) and name in recsys.__all__ else None


def _model_class(manifest: dict[str, Any], path: str | os.PathLike[str]) -> Any:
    name = manifest.get("class")
    cls = _public_class(name)
    if isinstance(name, str) and name in NO_MODELS:
        what, load_it = NO_MODELS[name]
        raise PersistenceError(f"{Path(path)} holds {what}, not a model: load it with `{load_it}`.")
    if not hasattr(cls, "_from_saved") or inspect.isabstract(cls):
        raise PersistenceError(
            f"The model at {Path(path)} is of class {name!r}, which this release does not have; expected one of "
            f"`recsys`: upgrade recsys, or load it with the package that saved it."
        )
    return cls


def _read_state(directory: Path, manifest: dict[str, Any], mapped_from: int | None) -> dict[str, Any]:
    contents: dict[str, Any] = {}
    for name, expected in manifest["files"].items():
        try:
            content, checksum = _read(directory / name, mapped_from if name.startswith("arrays") else None)
        except FileNotFoundError as error:
            raise CorruptModelError(f"{name} is missing from {directory}: copy the whole directory.") from error
        if checksum != expected:
            raise CorruptModelError(
                f"{name} in {directory} was truncated or altered: its checksum does not match; restore it or save the "
                f"model again."
            )
        contents[name.partition("-")[0]] = content
    try:
        return dict(unpack(json.loads(contents["state"]), load_arrays(contents["arrays"]), _public_class))
    # What a class makes of values that it never wrote can fail in any way.
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CorruptModelError(
            f"The files in {directory} match their checksums but are no model ({type(error).__name__}: {error}); "
            f"expected what `save` wrote."
        ) from error


def _read(file: Path, mapped_from: int | None = None) -> tuple[Any, str]:
    """The content of a file, and its checksum."""
    try:
        if mapped_from is not None and file.stat().st_size >= max(mapped_from, 1):
            with open(file, "rb") as stream:
                # Not of the mapping, of which all would be in the memory of the process then.
                digest = hashlib.sha256()
                while part := stream.read(_PART):
                    digest.update(part)
                return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), digest.hexdigest()
        content = file.read_bytes()
        return content, hashlib.sha256(content).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise PersistenceError(f"{file} cannot be read: {error}; expected a file that `save` wrote.") from error


def _is_manifest(value: Any) -> bool:
    if not isinstance(value, dict) or type(value.get("schema_version")) is not int:
        return False
    return isinstance(value.get("files"), dict)


def _checksum(manifest: dict[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(_json(body)).hexdigest()


def _json(value: Any, indent: int | None = None) -> bytes:
    text = json.dumps(value, indent=indent, sort_keys=indent is None, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _as_path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidTypeError(f"`path` is {path!r}; expected the name of a directory, as text or a Path.")
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(path)
    except (OSError, ValueError) as error:
        raise PersistenceError(f"`path` ({path!r}) cannot be looked at: {error}; expected another name.") from error
    return Path(path)


def _refuse_foreign(directory: Path) -> None:
    """Refuse to save over a file, or among files that belong to somebody else."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise PersistenceError(f"`path` is the file {directory}; expected the name of a directory: choose another.")
    names = {file.name for file in directory.iterdir()}
    leftovers = {name for name in names if CONTENT.fullmatch(name)}
    # A model may have other files beside it; one whose manifest is damaged, or was never written, may not.
    ours = bool(leftovers) and not names - leftovers - {MANIFEST}
    with contextlib.suppress(OSError, ValueError):
        ours = ours or _is_manifest(json.loads((directory / MANIFEST).read_bytes()))
    if names and not ours:
        raise PersistenceError(
            f"`path` ({directory}) holds files that are no saved model: {examples(sorted(names))}; expected a new or "
            f"empty directory, or one that `save` wrote: choose another."
        )


def _commit(directory: Path, contents: dict[str, bytes], draft: str, manifest: bytes) -> None:
    """Write the content files and then, in one rename, the manifest that names them; undo what fails before."""
    with contextlib.ExitStack() as undo:
        missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
        for folder in reversed(missing):
            # What another process made meanwhile is not this one's to remove.
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                undo.callback(_remove_empty, folder)
        replaced = _named_files(directory)
        undo.callback(_remove_unnamed, directory, [*contents, draft])
        for name, content in contents.items():
            _write_synced(directory / name, content)
        _write_synced(directory / draft, manifest)
        _sync_directory(directory)
        os.replace(directory / draft, directory / MANIFEST)
        undo.pop_all()
    _sync_directory(directory)
    # Files that a killed save left are an hour old at least: younger ones may belong to a save that is under way.
    old = [file.name for file in directory.iterdir() if CONTENT.fullmatch(file.name) and _age(file) > 3600]
    _remove_unnamed(directory, [*replaced, *old])


def _write_synced(file: Path, content: bytes) -> None:
    with open(file, "xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_directory(directory: Path) -> None:
    # Windows cannot open a directory; its rename is durable without.
    with contextlib.suppress(PermissionError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _named_files(directory: Path) -> set[str]:
    """The content files of the model that is there now; none where its manifest cannot be read."""
    try:
        return set(read_manifest(directory)["files"])
    except PersistenceError:
        return set()


def _remove_unnamed(directory: Path, names: Iterable[str]) -> None:
    """Remove these files, unless the model that is there now names them."""
    for name in set(names) - _named_files(directory):
        with contextlib.suppress(OSError):
            (directory / name).unlink()


def _remove_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()


def _age(file: Path) -> float:
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return 0.0

"""Fitted values as JSON and named arrays, and back: what a saved model is made of."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from recsys.exceptions import PersistenceError

__all__ = ["load_arrays", "pack", "persistent", "unpack"]

# The keys by which JSON stands for what it has no form for.
MARKERS = frozenset({"__array__", "__csr__", "__tuple__", "__dict__", "__class__"})

_DTYPES = {
    "BOOL": "?",
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    **{f"{sign}{8 * size}": f"<{code}{size}" for sign, code in (("I", "i"), ("U", "u")) for size in (1, 2, 4, 8)},
}

SCALARS = {type(None), bool, int, float, str}

T = TypeVar("T", bound=type)

# Classes whose instances may stand in a fitted attribute, by name; filled by `persistent`.
_CLASSES: dict[str, Any] = {}


def persistent(cls: T) -> T:
    """Class decorator: instances may be part of a saved model.

    Parameters
    ----------
    cls : type
        It offers ``to_state()``, a dict of arrays, JSON values and further persistent objects, and the class method
        ``from_state(state)``, its inverse.

    Returns
    -------
    type
        `cls`.
    """
    _CLASSES[cls.__name__] = cls
    return cls


def pack(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Turn a value into JSON, moving its arrays into `arrays` under their path."""
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        value = value.item()
    if type(value) in SCALARS:
        return value
    if isinstance(value, np.ndarray):
        return {"__array__": _put(value, path, arrays)}
    if _is_csr(value):
        names = [_put(getattr(value, part), f"{path}.{part}", arrays) for part in ("data", "indices", "indptr")]
        return {"__csr__": names, "shape": [int(n) for n in value.shape]}
    if isinstance(value, (list, tuple)):
        items: list[Any] = list(value)
        if not set(map(type, items)) <= SCALARS:
            items = [pack(item, f"{path}[{i}]", arrays) for i, item in enumerate(items)]
        return {"__tuple__": items} if isinstance(value, tuple) else items
    if isinstance(value, dict) and all(type(key) is str for key in value):
        packed = {key: pack(item, f"{path}.{key}" if path else key, arrays) for key, item in value.items()}
        return {"__dict__": packed} if MARKERS & packed.keys() else packed
    name = type(value).__name__
    if _CLASSES.get(name) is type(value):
        return {"__class__": name, "state": pack(value.to_state(), path, arrays)}
    raise PersistenceError(
        f"`{path}` is of type {name}, which cannot be stored; expected numbers, strings, None, numeric arrays, CSR "
        f"matrices, or lists, tuples and dicts (with text for keys) of these. Nothing was written."
    )


def _is_csr(value: Any) -> bool:
    # Only who has such a matrix pays for the import.
    if getattr(value, "format", None) != "csr":
        return False
    from scipy import sparse

    return isinstance(value, (sparse.csr_matrix, sparse.csr_array))


def _put(array: np.ndarray, path: str, arrays: dict[str, np.ndarray]) -> str:
    """Take up an array under the name `path`, or the nearest one that is free; return the name."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise PersistenceError(
            f"`{path}` is an array of dtype {array.dtype}, which cannot be stored; expected booleans, integers or "
            f"floats of at most 64 bits: convert it. Nothing was written."
        )
    while path in arrays:
        path += "'"
    arrays[path] = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    return path


def unpack(value: Any, arrays: dict[str, np.ndarray], find: Callable[[str], Any]) -> Any:
    """The inverse of `pack`; `find` looks for classes that are not imported yet, and returns None for unknown ones."""
    if isinstance(value, list):
        return [unpack(item, arrays, find) for item in value]
    if not isinstance(value, dict):
        return value
    if "__array__" in value:
        return arrays[value["__array__"]]
    if "__csr__" in value:
        from scipy import sparse

        data, indices, indptr = (arrays[name] for name in value["__csr__"])
        matrix = sparse.csr_matrix((data, indices, indptr), shape=tuple(value["shape"]))
        # An index out of bounds would read memory that is not the matrix's.
        matrix.check_format(full_check=True)
        return matrix
    if "__tuple__" in value:
        return tuple(unpack(item, arrays, find) for item in value["__tuple__"])
    if "__class__" in value:
        cls = _CLASSES.get(value["__class__"]) or find(value["__class__"])
        if cls is None:
            raise PersistenceError(
                f"The model holds a {value['__class__']!r}, which this release does not have: upgrade recsys."
            )
        return cls.from_state(unpack(value["state"], arrays, find))
    return {key: unpack(item, arrays, find) for key, item in value.get("__dict__", value).items()}


def load_arrays(content: bytes | mmap.mmap) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file: copies out of bytes, views of a mapping. Only who writes needs the package."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    arrays: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        dtype, (begin, end) = np.dtype(_DTYPES[entry["dtype"]]), entry["data_offsets"]
        values = np.frombuffer(content, dtype, (end - begin) // dtype.itemsize, start + begin) if end > begin else ()
        array = np.asarray(values, dtype).reshape(entry["shape"])
        arrays[name] = array.copy() if isinstance(content, bytes) else array
    return arrays

"""What each model found in each split, kept in a directory, so that a run that was interrupted goes on."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from recsys.evaluation.report import environment
from recsys.evaluation.scenario import Split
from recsys.exceptions import InvalidInputError, InvalidTypeError, PersistenceError, examples
from recsys.persistence import MANIFEST, read_directory, write_directory

__all__ = ["Store", "fingerprint"]

# The name of a folder of one result.
ENTRY = re.compile(r"[0-9a-f]{16}")


class Store:
    """Results in a directory, each in a folder named by all that it depends on.

    Whatever of that is another one has another name, so it is not found and is computed. Nothing is unpickled:
    a folder is what `recsys.persistence` writes and checks, in one step.

    Parameters
    ----------
    path : path-like
        Made if it is not there.
    settings : dict
        Of the evaluator, as far as results depend on them.
    frames : dict of str to DataFrame or None
        The rows and features that all results depend on.

    Raises
    ------
    InvalidTypeError
        If `path` is no path.
    PersistenceError
        If it is a file, a directory of other content, or cannot be made.
    """

    def __init__(self, path: Any, settings: dict[str, Any], frames: dict[str, Any]) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidTypeError(
                f"`store` is {path!r}; expected the name of a directory, as text or a Path, or None."
            )
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            others = sorted(entry.name for entry in self.path.iterdir() if not ENTRY.fullmatch(entry.name))
        # A name that no file can have is a ValueError.
        except (OSError, ValueError) as error:
            raise PersistenceError(
                f"`store` ({self.path}) cannot be used: {error}; expected a directory that can be written: choose "
                f"another."
            ) from error
        if others:
            raise PersistenceError(
                f"`store` ({self.path}) holds what no evaluator wrote: {examples(others)}; expected a new or empty "
                f"directory, or one that was used before: choose another."
            )
        self.shared = {
            "settings": fingerprint(settings, "its settings"),
            **{name: fingerprint(frame, f"`data.{name}`") for name, frame in frames.items()},
            "environment": environment(),
        }

    def identity(self, name: str, model: Any, seed: int, split: Split) -> dict[str, Any]:
        """All that one result depends on.

        Raises
        ------
        InvalidInputError
            If a parameter of the model cannot be told from another.
        """
        parameters = model.get_params() if hasattr(model, "get_params") else vars(model)
        # The seed takes its place.
        told = {key: value for key, value in parameters.items() if key != "random_state"}
        functions = [key for key, value in told.items() if callable(value) and not isinstance(value, type)]
        if functions:
            raise InvalidInputError(
                f"`store` cannot tell whether a function is still the same, and model {name!r} has "
                f"{examples(functions)}; expected values: make it an estimator, or leave `store` out."
            )
        return {
            **self.shared,
            "model": name,
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "code": _code(type(model)),
            "parameters": fingerprint(told, f"the parameters of model {name!r}"),
            "scenario": split.name,
            "split": split.hash,
            "seed": int(seed),
        }

    def read(self, identity: dict[str, Any], users: pd.Index) -> tuple[pd.DataFrame, dict[str, Any]] | None:
        """The metrics of the users and the costs, or None where nothing is kept.

        Raises
        ------
        PersistenceError
            If what is kept was truncated or altered.
        """
        folder = self._folder(identity)
        if not (folder / MANIFEST).exists():
            return None
        try:
            state, manifest = read_directory(folder)
            if manifest.get("result_of") != identity:
                raise PersistenceError(f"{folder} is of something else.")
            columns = dict(zip(state["columns"], state["values"], strict=True))
            columns["user_id"] = users.take(columns["user_id"])
            return pd.DataFrame(columns), manifest["cost"]
        except (PersistenceError, KeyError, TypeError, ValueError) as error:
            raise PersistenceError(
                f"`store` holds a damaged result, {folder} ({identity['model']} in {identity['scenario']}, seed "
                f"{identity['seed']}): {error} Remove that folder, and it is computed again."
            ) from error

    def write(self, identity: dict[str, Any], users: pd.Index, found: pd.DataFrame, cost: dict[str, Any]) -> None:
        """Keep a result, in one step.

        Raises
        ------
        PersistenceError
            If it cannot be written.
        """
        values: list[Any] = []
        for name, column in found.items():
            if name == "user_id":
                # Their places, as labels may be anything.
                values.append(users.get_indexer(pd.Index(column)))
            else:
                values.append(column.to_numpy() if pd.api.types.is_numeric_dtype(column.dtype) else column.tolist())
        state = {"columns": [str(name) for name in found.columns], "values": values}
        write_directory(self._folder(identity), state, {"result_of": identity, "cost": cost})

    def _folder(self, identity: dict[str, Any]) -> Path:
        text = json.dumps(identity, sort_keys=True, ensure_ascii=True)
        return self.path / hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(value: Any, name: str) -> str:
    """A hash of values, the same in every process.

    Parameters
    ----------
    value : object
        Of frames the labels, dtypes and values count.
    name : str
        What an error calls it.

    Raises
    ------
    InvalidInputError
        If it holds what has no hash, such as a function without a name.

    Examples
    --------
    >>> fingerprint([1, "a"], "`x`") == fingerprint([1, "a"], "`x`") != fingerprint([1, "b"], "`x`")
    True
    """
    if isinstance(value, pd.DataFrame):
        frame = value if isinstance(value.index, pd.RangeIndex) else value.reset_index()
        # Column by column: how pandas keeps equal ones together may differ.
        value = [(str(label), str(column.dtype), np.asarray(column)) for label, column in frame.items()]
    try:
        return str(joblib.hash(value, hash_name="sha1"))
    # What has no form in bytes says so in any way.
    except Exception as error:
        raise InvalidInputError(
            f"`store` cannot tell {name} from others ({error}); expected values that can be pickled: use such, or "
            f"leave `store` out."
        ) from error


def _code(cls: type) -> str:
    """A hash of the source of this package, and of the files of a class and its bases: what computes a result."""
    files = set(Path(__file__).parents[1].rglob("*.py"))
    for base in cls.__mro__:
        # What was typed in has no file.
        with suppress(TypeError, OSError):
            files.add(Path(inspect.getfile(base)))
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file()):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]

"""The tree of errors and warnings.

::

    RecsysError
    ├── InvalidInputError (ValueError)       an argument or a frame is not what was expected
    │   ├── InvalidTypeError (TypeError)     ... it is not even of the right type
    │   └── ColdStartError                   on_cold="raise" and nothing is known of a user
    ├── DatasetError                         a data set cannot be found, fetched or trusted
    └── PersistenceError                     a model cannot be saved or loaded
        ├── CorruptModelError                a file is missing, truncated or altered
        └── SchemaVersionError               written by a newer release
    RecsysWarning (UserWarning)
    ├── ColdStartWarning                     users were answered with the popularity prior
    └── DataWarning                          data was accepted, but deserves a look
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ColdStartError",
    "ColdStartWarning",
    "CorruptModelError",
    "DataWarning",
    "DatasetError",
    "InvalidInputError",
    "InvalidTypeError",
    "PersistenceError",
    "RecsysError",
    "RecsysWarning",
    "SchemaVersionError",
]


class RecsysError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidInputError(RecsysError, ValueError):
    """An argument or a frame is not what was expected."""


class InvalidTypeError(InvalidInputError, TypeError):
    """An argument is of a type that cannot be used here."""


class ColdStartError(InvalidInputError):
    """Nothing is known of a user and ``on_cold="raise"`` was asked for."""


class DatasetError(RecsysError):
    """A data set cannot be found, fetched or trusted."""


class PersistenceError(RecsysError):
    """A model cannot be saved or loaded."""


class CorruptModelError(PersistenceError):
    """A file of a saved model is missing, truncated or altered."""


class SchemaVersionError(PersistenceError):
    """A model was written by a newer release than this one."""


class RecsysWarning(UserWarning):
    """Base of every warning this package issues."""


class ColdStartWarning(RecsysWarning):
    """Users of whom nothing is known were answered with the popularity prior."""


class DataWarning(RecsysWarning):
    """Data was accepted but deserves a look."""


def examples(values: Iterable[object], limit: int = 3) -> str:
    """Name at most `limit` offending values, for use in a message.

    Parameters
    ----------
    values : iterable
        The values to name.
    limit : int, default=3
        How many to name before writing "...".

    Returns
    -------
    str
        For example ``"'a', 'b', 'c', ..."``.

    Examples
    --------
    >>> examples([1, 2, 3, 4])
    '1, 2, 3, ...'
    """
    head: list[str] = []
    for value in values:
        if len(head) == limit:
            return ", ".join([*head, "..."])
        item = getattr(value, "item", None)
        head.append(repr(item() if callable(item) and getattr(value, "ndim", None) == 0 else value))
    return ", ".join(head)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the nearest known name, or list them all.

    Parameters
    ----------
    name : str
        What was given.
    known : iterable of str
        What would have been valid.

    Returns
    -------
    str
        A sentence to append to an error message.

    Examples
    --------
    >>> did_you_mean("n_factor", ["n_factors", "alpha"])
    "Did you mean 'n_factors'?"
    """
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known names: {', '.join(map(repr, options))}."

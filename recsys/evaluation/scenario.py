"""One scenario of an evaluation: its rows, the check that nothing leaks, and who is hot or cold in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys._kinds import without_arrow
from recsys.exceptions import InvalidInputError, InvalidTypeError, examples
from recsys.interactions import as_frame, read_pairs
from recsys.vocabulary import Vocabulary

__all__ = ["Split", "check_leaks", "entity_groups"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Times = npt.NDArray[Any]

GROUPS = ["hot", "few-shot", "cold-start"]
ROLES = ("train", "validation", "revealed", "test")


def no_rows() -> Rows:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """One scenario: who learns from what, and is asked for what.

    Attributes
    ----------
    name : str
        The scenario, such as "user-cold k=5".
    train, test : ndarray of int64
        Row positions, ascending.
    revealed : ndarray of int64
        Rows shown to the fitted model as first interactions, when it is asked for recommendations.
    validation : ndarray of int64
        Rows neither learned from nor tested; like train rows they are masked from the lists.
    candidates : pandas.Index, DataFrame or None
        Ids of the items to rank, or a frame of ``user_id`` and ``item_id``, where users rank different ones; None: the
        whole catalogue.
    cold : {"user", "item", "both"} or None
        Which side of the test rows must be absent from the train rows.
    order : {"user", "all"} or None
        Test rows are not older than the other rows of the same user, or than all other rows.
    seed : int or None
        As `random_state` of the splitter it gives this split again; None where nothing is random.
    hash : str
        Two people with the same hash ran the same rows of the same pairs, in the same roles.
    """

    name: str
    train: Rows
    test: Rows
    revealed: Rows = field(default_factory=no_rows)
    validation: Rows = field(default_factory=no_rows)
    candidates: pd.Index | pd.DataFrame | None = None
    cold: Literal["user", "item", "both"] | None = None
    order: Literal["user", "all"] | None = None
    seed: int | None = None
    hash: str = ""

    def __post_init__(self) -> None:
        for name, known in (("cold", ("user", "item", "both")), ("order", ("user", "all"))):
            if getattr(self, name) not in (None, *known):
                raise InvalidInputError(f"`{name}` is {getattr(self, name)!r}; expected None or one of {known}.")

    def __repr__(self) -> str:
        sizes = {part: len(getattr(self, part)) for part in ROLES}
        parts = ", ".join(f"{part}={size}" for part, size in sizes.items() if size)
        return f"Split({self.name!r}, {parts} rows, seed={self.seed}, hash={self.hash!r})"


@dataclass(frozen=True)
class Coded:
    """The rows of `X` as codes, and their times where they matter."""

    users: Vocabulary
    user: Rows
    items: Vocabulary
    item: Rows
    times: Times

    @classmethod
    def read(cls, X: Any, groups: Any = None, *, timed_by: str = "") -> Coded:
        """Check `X`, and `groups` as well where `timed_by` names who needs it."""
        pairs = read_pairs(as_frame(X))
        times = _times(groups, len(pairs), timed_by) if timed_by else no_rows()
        return cls(*Vocabulary.from_values(pairs.users), *Vocabulary.from_values(pairs.items), times)

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def digest(self) -> bytes:
        parts: list[bytes] = []
        for vocabulary, codes in ((self.users, self.user), (self.items, self.item)):
            parts += [_label_bytes(vocabulary.ids), codes.astype("<i8").tobytes()]
        return _sha256(parts)

    def split(self, name: str, roles: Mapping[str, Mask], **rest: Any) -> Split:
        """A `Split` of the rows that have a role ("train", "test", "revealed", "validation"), and its hash."""
        rows: dict[str, Any] = {role: np.flatnonzero(mask) for role, mask in roles.items()}
        made = Split(name=name, **rows, **rest)
        parts = [getattr(made, role).astype("<i8").tobytes() for role in ROLES]
        chosen = made.candidates
        if chosen is None:
            parts.append(b"")
        elif isinstance(chosen, pd.DataFrame):
            parts += [_label_bytes(pd.Index(chosen[column])) for column in chosen]
        else:
            parts.append(_label_bytes(chosen))
        return replace(made, hash=_sha256([self.digest, *parts]).hex()[:12])


def check_leaks(X: Any, split: Split, groups: Any = None) -> None:
    """Raise if a split lets a model see what it is tested on.

    Checked are: the parts share no row; no test pair is in another part, as another row; users or items meant
    to be cold are not learned from; in a split by time, nothing learned from or revealed is newer than the
    oldest test row (of the same user, or of all).

    Parameters
    ----------
    X : DataFrame or array-like of shape (n, >= 2)
        What was split.
    split : Split
    groups : array-like of shape (n,), optional
        Timestamps; needed if ``split.order`` is not None.

    Raises
    ------
    InvalidInputError
        If anything leaks, or a row is out of range; it names what.
    InvalidTypeError
        If `split` is no `Split`, or its parts are no positions of rows.

    Examples
    --------
    >>> X = np.array([[1, 10], [2, 11], [1, 10]])
    >>> check_leaks(X, Split("mine", np.array([0]), np.array([1])))
    >>> check_leaks(X, Split("mine", np.array([0]), np.array([2])))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    recsys.exceptions.InvalidInputError: Split 'mine' leaks: 1 test pairs are in other parts too, such as user 1 and...
    """
    if not isinstance(split, Split):
        raise InvalidTypeError(f"`split` is of type {type(split).__name__}; expected a Split, as from `splits`.")
    data = Coded.read(X, groups, timed_by=f"split {split.name!r}" if split.order else "")
    parts = {part: np.asarray(getattr(split, part)) for part in ROLES}
    for part, rows in parts.items():
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise InvalidTypeError(f"`{part}` of split {split.name!r} is {rows!r}; expected the positions of rows.")
        if len(rows) and (rows.min() < 0 or rows.max() >= len(data)):
            raise InvalidInputError(
                f"Split {split.name!r} has {part} rows from {rows.min()} to {rows.max()}; expected positions in "
                f"the {len(data)} rows of `X`: is it the `X` that was split?"
            )
    used = np.bincount(np.concatenate(list(parts.values())), minlength=len(data))
    if used.max() > 1:
        raise _leak(split, f"{int((used > 1).sum())} rows are used twice (rows {examples(np.flatnonzero(used > 1))})")
    others = np.concatenate([parts["train"], parts["validation"], parts["revealed"]])
    pair = data.user * len(data.items) + data.item
    twice = parts["test"][np.isin(pair[parts["test"]], pair[others])]
    if len(twice):
        pairs = f"user {examples(data.users.decode(data.user[twice[:1]]))}"
        pairs += f" and item {examples(data.items.decode(data.item[twice[:1]]))}"
        raise _leak(
            split,
            f"{len(twice)} test pairs are in other parts too, such as {pairs}; drop repetitions of pairs",
        )
    _check_cold(data, split, parts)
    _check_order(data, split, parts["test"], others)


def _check_cold(data: Coded, split: Split, parts: dict[str, Rows]) -> None:
    sides = {"user": ["user"], "item": ["item"], "both": ["user", "item"]}.get(split.cold or "", [])
    for side in sides:
        code, ids = (data.user, data.users) if side == "user" else (data.item, data.items)
        # Revealed rows are of new users, and tell of items.
        of_revealed = parts["revealed"]
        held_out = np.concatenate([parts["test"], of_revealed]) if side == "user" else parts["test"]
        learned = parts["train"] if side == "user" else np.concatenate([parts["train"], of_revealed])
        both = np.intersect1d(code[held_out], code[np.concatenate([learned, parts["validation"]])])
        if len(both):
            raise _leak(split, f"{len(both)} {side}s meant to be cold are in train: {examples(ids.decode(both))}")


def _check_order(data: Coded, split: Split, test: Rows, others: Rows) -> None:
    if split.order is None or not len(test) or not len(others):
        return
    # A split of all rows by time is one of a single user's.
    owner = data.user if split.order == "user" else np.zeros(len(data), dtype=np.int64)
    order = np.lexsort((data.times[test], owner[test]))
    owners, first = np.unique(owner[test][order], return_index=True)
    oldest = np.full(int(owner.max()) + 1, -1)
    oldest[owners] = test[order][first]
    limit = oldest[owner[others]]
    newer = others[(limit >= 0) & (data.times[others] > data.times[limit])]
    if len(newer):
        raise _leak(split, f"{len(newer)} rows are newer than what is tested (rows {examples(newer)})")


def _leak(split: Split, what: str) -> InvalidInputError:
    return InvalidInputError(f"Split {split.name!r} leaks: {what}.")


def entity_groups(train: Any, test: Any, revealed: Any = None) -> pd.DataFrame:
    """Tell which users and items of the test rows are hot, given the train rows.

    Parameters
    ----------
    train, test : DataFrame or array-like of shape (n, >= 2)
        Column 0 holds users, column 1 items; the rows learned from and the rows tested.
    revealed : DataFrame or array-like of shape (n, >= 2), optional
        Rows shown to the model after `fit`.

    Returns
    -------
    DataFrame of shape (n_test, 2)
        Categorical columns "user" and "item", row by row as in `test`: "hot" (in the train rows), "few-shot"
        (users in the revealed rows only) or "cold-start".

    Raises
    ------
    InvalidInputError
        If ids of `train` and `test` are of different kinds (numbers and text).

    Examples
    --------
    >>> train, test = np.array([[1, 10], [2, 11]]), np.array([[1, 11], [3, 10], [2, 12]])
    >>> entity_groups(train, test)
             user        item
    0         hot         hot
    1  cold-start         hot
    2         hot  cold-start
    """
    known = read_pairs(as_frame(train, "train"), "train")
    asked = read_pairs(as_frame(test, "test"), "test")
    shown = None if revealed is None or not len(revealed) else read_pairs(as_frame(revealed, "revealed"), "revealed")
    codes: dict[str, npt.NDArray[np.int8]] = {}
    for side in ("user", "item"):
        vocabulary, _ = Vocabulary.from_values(getattr(known, f"{side}s"))
        ids = getattr(asked, f"{side}s")
        hint = vocabulary.mismatch(ids)
        if hint:
            raise InvalidInputError(f"The {side}s of `test` cannot match those of `train`.{hint}")
        codes[side] = np.where(vocabulary.encode(ids) >= 0, 0, 2).astype(np.int8)
    if shown is not None:
        met = Vocabulary.from_values(shown.users)[0].encode(asked.users) >= 0
        codes["user"][met & (codes["user"] == 2)] = 1
    index = test.index if isinstance(test, pd.DataFrame) else None
    groups = {side: pd.Categorical.from_codes(code, categories=pd.Index(GROUPS)) for side, code in codes.items()}
    return pd.DataFrame(groups, index=index)


def _times(groups: Any, n: int, who: str) -> Times:
    """Timestamps as numbers, checked."""
    if groups is None:
        raise InvalidInputError(f"`groups` is None, but {who} needs the timestamp of each row: pass them as `groups`.")
    values = without_arrow(pd.Series(groups)) if isinstance(groups, (pd.Series, pd.Index)) else np.asarray(groups)
    if values.dtype == np.float16:
        values = values.astype(np.float64)
    if values.ndim != 1 or len(values) != n:
        raise InvalidInputError(f"`groups` has shape {values.shape}; expected one timestamp per row of `X`, ({n},).")
    index = pd.Index(values)
    if index.isna().any():
        where = examples(np.flatnonzero(index.isna()))
        raise InvalidInputError(f"`groups` holds missing timestamps (rows {where}); expected one in every row.")
    if isinstance(index, pd.DatetimeIndex):
        return index.asi8
    if index.dtype.kind not in "iuf":
        raise InvalidTypeError(
            f"`groups` has dtype {index.dtype}; expected timestamps, as numbers or datetimes: use pd.to_datetime."
        )
    # What pandas keeps as an extension becomes plain; large unsigned numbers stay what they are.
    times: Times = index.to_numpy(dtype={"i": np.int64, "u": np.uint64, "f": np.float64}[index.dtype.kind])
    if not np.isfinite(times).all():
        where = examples(np.flatnonzero(~np.isfinite(times)))
        raise InvalidInputError(f"`groups` holds infinite timestamps (rows {where}); expected finite ones.")
    return times


def _label_bytes(ids: pd.Index) -> bytes:
    return "\x1f".join(map(str, ids.tolist())).encode()


def _sha256(parts: Iterable[bytes]) -> bytes:
    """Hash of several pieces; their lengths count, so that none can pass for part of another."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()

"""Reads the arguments of a request: k, context, candidates, exclusions, new interactions."""

from __future__ import annotations

import warnings
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys._records import read_k
from recsys._sparse import Csr, empty_csr, to_csr
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError, examples
from recsys.features import ID_NAMES, EncodedFeatures, FeatureEncoder
from recsys.interactions import TARGET_NAMES, Pairs, read_pairs, read_target
from recsys.vocabulary import Vocabulary, as_ids

__all__ = [
    "Catalogue",
    "allowed_items",
    "excluded_items",
    "read_context",
    "read_k",
    "read_request_history",
]

Mask: TypeAlias = "npt.NDArray[np.bool_]"


class Catalogue(Protocol):
    """What finds the codes of labels: a Vocabulary, or the labels of an index."""

    def encode(self, ids: Any, /) -> npt.NDArray[np.int64]:
        """Codes; -1 where a label is unknown."""

    def mismatch(self, ids: pd.Index, /) -> str:
        """A hint, where labels are of another kind than those known here; else ""."""

    def __len__(self) -> int: ...


def read_context(context: Any, n: int, encoder: FeatureEncoder | None) -> EncodedFeatures | None:
    """Encode the context of n queries; None where the model was fitted without."""
    if encoder is None:
        if context is not None:
            raise InvalidInputError(
                "`context` was given, but `X` had no context columns in fit; expected None: fit with them first."
            )
        return None
    if context is None:
        return EncodedFeatures.empty(n, encoder.fields)
    if isinstance(context, dict):
        context = pd.DataFrame([context]).iloc[np.zeros(n, dtype=np.int64)]
    if not isinstance(context, pd.DataFrame):
        raise InvalidTypeError(
            f"`context` is of type {type(context).__name__}; expected a DataFrame of one row a user, or a dict for all."
        )
    if len(context) != n:
        raise InvalidInputError(
            f"`context` has {len(context)} rows for {n} users; expected one row a user: pass a dict if all share one."
        )
    return encoder.transform(context, "context")


def read_request_history(
    interactions: Any, ids: pd.Index, items: Vocabulary, names: tuple[str, str], min_rating: float | None
) -> Csr:
    """What happened since fit, a row for each of `ids`; explicit zeros where something was only seen.

    Rows of users who are not asked for are left out; items that are not in the catalogue say nothing and warn. A column
    ``rating`` is read like `y` of fit; without it every row is a positive.
    """
    pairs = _read_pair_frame(interactions, "interactions", names)
    if pairs is None:
        return empty_csr(len(ids), len(items))
    targets = [name for name in interactions.columns if name != "rating" and str(name).lower() in TARGET_NAMES]
    if targets:
        raise InvalidInputError(
            f"`interactions` has the column {examples(targets)}, which is a target; expected a target in the column "
            f"'rating' alone: rename or drop yours."
        )
    rating = interactions["rating"] if "rating" in interactions.columns else None
    weights = read_target(rating, len(pairs), min_rating, "interactions['rating']")
    asked, row_of = Vocabulary.from_values(ids)
    users, codes = asked.encode(pairs.users), items.encode(pairs.items)
    if not (users >= 0).any():
        raise InvalidInputError(
            f"`interactions` has no row of any user asked for (its users: {examples(pairs.users)}; asked: "
            f"{examples(ids)}); expected theirs: pass None where there are none.{asked.mismatch(pairs.users)}"
        )
    lost = (users >= 0) & (codes < 0)
    if lost.any():
        unknown = pairs.items[lost].unique()
        warnings.warn(
            f"`interactions` names {len(unknown)} items that are not in the catalogue: {examples(unknown)}; they say "
            f"nothing about their users. Add them with `add_items`.{items.mismatch(unknown)}",
            DataWarning,
            stacklevel=4,
        )
    kept = (users >= 0) & (codes >= 0)
    one_each = to_csr(users[kept], codes[kept], weights[kept], (len(asked), len(items)))
    return one_each if len(asked) == len(ids) else one_each[row_of]


def allowed_items(
    candidates: Any, items: Catalogue, ids: pd.Index, names: tuple[str, str] = ID_NAMES
) -> tuple[Mask | None, Csr | None]:
    """The items that alone may be recommended: a mask over the catalogue, or pairs; None where all may.

    The columns of pairs are found by `names`, and else by their order.
    """
    return _read_items(candidates, "candidates", items, ids, names)


def excluded_items(
    exclude: Any, items: Catalogue, ids: pd.Index, names: tuple[str, str] = ID_NAMES
) -> tuple[Mask | None, Csr | None]:
    """The items that may not be recommended: a mask over the catalogue, or pairs; None where all may.

    The columns of pairs are found by `names`, and else by their order.
    """
    return _read_items(exclude, "exclude", items, ids, names)


def _read_items(
    given: Any, argument: str, items: Catalogue, ids: pd.Index, names: tuple[str, str]
) -> tuple[Mask | None, Csr | None]:
    if given is None:
        return None, None
    if isinstance(given, pd.DataFrame):
        return None, _item_pairs(given, argument, items, ids, names)
    mask = np.zeros(len(items), dtype=bool)
    mask[_item_codes(given, argument, items)] = True
    return mask, None


def _item_codes(labels: Any, argument: str, items: Catalogue) -> npt.NDArray[np.int64]:
    index = as_ids(labels, argument)
    codes = items.encode(index)
    unknown = index[codes < 0].unique()
    if not len(unknown):
        return codes
    none_known, hint = not (codes >= 0).any(), items.mismatch(unknown)
    # Excluding what is not there is no mistake, unless it is of another type; a list of candidates without one is.
    if none_known and (hint or argument == "candidates"):
        raise InvalidInputError(
            f"`{argument}` names no item of the catalogue, but {examples(unknown)}; expected its items.{hint}"
        )
    if argument == "candidates":
        _warn_unknown(unknown, hint)
    return codes[codes >= 0]


def _warn_unknown(candidates: pd.Index, hint: str = "") -> None:
    warnings.warn(
        f"`candidates` names {len(candidates)} items that are not in the catalogue: {examples(candidates)}; they "
        f"cannot be recommended. Add them with `add_items`.{hint}",
        DataWarning,
        stacklevel=6,
    )


def _item_pairs(frame: pd.DataFrame, argument: str, items: Catalogue, ids: pd.Index, names: tuple[str, str]) -> Csr:
    pairs = _read_pair_frame(frame, argument, names)
    if pairs is None:
        return empty_csr(len(ids), len(items))
    asked, row_of = Vocabulary.from_values(ids)
    users, codes = asked.encode(pairs.users), items.encode(pairs.items)
    sides: tuple[tuple[Catalogue, npt.NDArray[np.int64], pd.Index, str], ...] = (
        (asked, users, pairs.users, "user asked for"),
        (items, codes, pairs.items, "item"),
    )
    for known, found, labels, whom in sides:
        if (found < 0).all() and (hint := known.mismatch(labels)):
            raise InvalidInputError(f"`{argument}` names no {whom}, but {examples(labels)}; expected such.{hint}")
    lost = pairs.items[(users >= 0) & (codes < 0)].unique()
    if argument == "candidates" and len(lost):
        _warn_unknown(lost)
    kept = (users >= 0) & (codes >= 0)
    ones = np.ones(int(kept.sum()), dtype=np.float32)
    return to_csr(users[kept], codes[kept], ones, (len(asked), len(items)))[row_of]


def _read_pair_frame(frame: Any, argument: str, names: tuple[str, str]) -> Pairs | None:
    """Users and items of a frame: the columns of these names, or else the first two; None where it has no rows."""
    if not isinstance(frame, pd.DataFrame):
        raise InvalidTypeError(
            f"`{argument}` is of type {type(frame).__name__}; expected a DataFrame of users and items, as `X` in fit."
        )
    if not len(frame):
        return None
    named = all(name in frame.columns for name in names)
    misplaced = [
        name for name, other in zip(names, frame.columns, strict=False) if name != other and name in frame.columns
    ]
    if misplaced and not named:
        raise InvalidInputError(
            f"`{argument}` has the columns {examples(frame.columns)}, of which {examples(misplaced)} is not in the "
            f"place that it had in fit; expected {examples(names)}, or users first and items second: rename yours."
        )
    return read_pairs(frame[list(names)] if named else frame.iloc[:, :2], argument)

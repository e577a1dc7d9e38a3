"""Groups of test rows: hot and cold, and by request by history, by popularity, by what is known of users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.evaluation.evaluation import OVERALL
from recsys.evaluation.metrics import Codes
from recsys.evaluation.scenario import GROUPS, entity_groups
from recsys.exceptions import InvalidInputError, InvalidTypeError, did_you_mean, examples

__all__ = ["BINS", "HISTORY", "POPULARITY", "attribute_groups", "check_groups", "group_name", "row_groups"]

HISTORY, POPULARITY = "history", "popularity"
_HISTORY_STARTS = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500])
# The bins of both, from little to much.
BINS = {
    HISTORY: ["0", "1", "2-4", "5-9", "10-19", "20-49", "50-99", "100-199", "200-499", "500+"],
    POPULARITY: ["new", "tail", "mid", "head"],
}
# More groups than these are better cut into bins.
MOST_VALUES = 20


def group_name(name: str, value: Any) -> str:
    """What a group is called: "history=5-9", "gender=F"."""
    return f"{name}={value}"


def check_groups(groups: Any) -> list[str]:
    """The names of groups as a list; whether users have such attributes is for `attribute_groups` to say."""
    if (
        isinstance(groups, str)
        or not isinstance(groups, Sequence)
        or not all(isinstance(name, str) and name for name in groups)
    ):
        raise InvalidTypeError(
            f"`groups` is {groups!r}; expected a sequence of names, such as ('history', 'popularity', 'gender')."
        )
    if len(set(groups)) != len(groups):
        raise InvalidInputError(f"`groups` is {groups!r}; expected each name once.")
    return list(groups)


def attribute_groups(groups: Sequence[str], users: pd.DataFrame | None, asked: pd.Series) -> dict[str, pd.Series]:
    """The columns of `users` among the groups, as categories, indexed by the users of the interactions.

    Parameters
    ----------
    groups : sequence of str
    users : DataFrame or None
        Ids in the column user_id or in the index, each once.
    asked : Series
        The users of the interactions.

    Returns
    -------
    dict of str to Series

    Raises
    ------
    InvalidInputError
        If a column is missing, has no value for any of the users, or more than 20 different ones, or two groups would
        have one name.
    """
    found: dict[str, pd.Series] = {}
    for name in groups:
        if name in BINS:
            continue
        frame = pd.DataFrame() if users is None else users
        if "user_id" in frame.columns:
            frame = frame.set_index("user_id")
        if name not in frame.columns:
            raise InvalidInputError(
                f"`groups` holds {name!r}, no column of `data.users`. {did_you_mean(name, [*BINS, *frame.columns])}"
            )
        try:
            values = frame[name].reindex(asked.unique()).astype("category")
        except TypeError as error:
            raise InvalidTypeError(
                f"Column {name!r} of `data.users` holds values that are no labels ({error}); expected one label a "
                f"user: leave it out of `groups`."
            ) from error
        values = values.cat.remove_unused_categories()
        kinds = values.cat.categories
        if not len(kinds):
            raise InvalidInputError(
                f"Column {name!r} of `data.users` tells of no user of the interactions: it is of "
                f"{examples(frame.index[frame[name].notna()])}, they are {examples(values.index)}; expected the same "
                f"ids."
            )
        if len(kinds) > MOST_VALUES:
            raise InvalidInputError(
                f"Column {name!r} of `data.users` has {len(kinds)} different values ({examples(kinds)}); expected at "
                f"most {MOST_VALUES} for `groups`: cut them into bins with pandas.cut."
            )
        found[name] = values
    called = pd.Index([group_name(name, value) for name, values in found.items() for value in values.cat.categories])
    if not called.is_unique:
        raise InvalidInputError(
            f"`groups` gives two groups one name, {examples(called[called.duplicated()].unique())}; expected values of "
            f"`data.users` that differ as text too: rename a column or a value."
        )
    return found


def row_groups(
    names: Sequence[str],
    train: pd.DataFrame,
    test: pd.DataFrame,
    revealed: pd.DataFrame | None,
    attributes: dict[str, pd.Series],
) -> Iterator[tuple[str, pd.DataFrame]]:
    """All test rows, and those of each group that has any.

    Parameters
    ----------
    names : sequence of str
        Beside hot, few-shot and cold-start: "history" (by the train rows of the user), "popularity" (by the train rows
        of the item) and keys of `attributes`.
    train, test, revealed : DataFrame with columns user_id, item_id
    attributes : dict of str to Series
        As from `attribute_groups`.

    Yields
    ------
    name : str
    rows : DataFrame
    """
    yield OVERALL, test
    labels = {"": _temperature(train, test, revealed)}
    for name in names:
        if name == HISTORY:
            labels[name] = _history(train, test)
        elif name == POPULARITY:
            labels[name] = _popularity(train, test)
        else:
            known = attributes[name].cat
            labels[name] = _categorical(known.codes.loc[test["user_id"]].to_numpy(), known.categories)
    for name, label in labels.items():
        for code, value in enumerate(label.categories):
            rows = test[label.codes == code]
            if len(rows):
                yield (group_name(name, value) if name else value), rows


def _temperature(train: pd.DataFrame, test: pd.DataFrame, revealed: pd.DataFrame | None) -> pd.Categorical:
    """The colder of a row's user and item."""
    sides = entity_groups(train, test, revealed)
    return _categorical(np.maximum(sides["user"].cat.codes.to_numpy(), sides["item"].cat.codes.to_numpy()), GROUPS)


def _history(train: pd.DataFrame, test: pd.DataFrame) -> pd.Categorical:
    n = _train_rows(train, test, "user_id")
    return _categorical(np.searchsorted(_HISTORY_STARTS, n, side="right") - 1, BINS[HISTORY])


def _popularity(train: pd.DataFrame, test: pd.DataFrame) -> pd.Categorical:
    """Thirds of the test rows of items with train rows; rows of equally popular items stay together."""
    n = _train_rows(train, test, "item_id")
    known = n > 0
    codes = np.zeros(len(n), dtype=np.int64)
    place = pd.Series(n[known]).rank().to_numpy() - 0.5
    codes[known] = 1 + (3 * place // max(len(place), 1)).astype(np.int64)
    return _categorical(codes, BINS[POPULARITY])


def _train_rows(train: pd.DataFrame, test: pd.DataFrame, column: str) -> Codes:
    """How many train rows the user or item of each test row has."""
    return np.asarray(test[column].map(train[column].value_counts()).fillna(0), dtype=np.int64)


def _categorical(codes: npt.NDArray[np.integer], categories: pd.Index | list[str]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories=pd.Index(categories))

"""Splitters of new users and new items: what is theirs alone; `test_splits` has what all promise."""

from __future__ import annotations

import re
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys.evaluation import ItemColdHotSplit, Split
from recsys.exceptions import InvalidInputError, InvalidTypeError


def make(n_users: int = 30, n_items: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    users, items = np.nonzero(rng.random((n_users, n_items)) < 0.3)
    return pd.DataFrame({"user_id": users, "item_id": items + 100}).sample(frac=1, random_state=0, ignore_index=True)


def ranked(split: Split) -> set[Any]:
    assert isinstance(split.candidates, pd.Index)
    assert split.candidates.is_unique
    return set(split.candidates)


@pytest.mark.parametrize("seed", range(4))
def test_cold_and_hot_items_against_the_sets_they_should_be(seed: int) -> None:
    X = make()
    cold, hot, everything = ItemColdHotSplit(random_state=seed).splits(X)
    items = np.unique(X["item_id"])
    drawn = np.random.default_rng(seed).permutation(items)
    of_validation, new, known = drawn[:4], drawn[4:8], drawn[8:]
    item = X["item_id"].to_numpy()
    assert ranked(cold) == set(new)
    assert ranked(everything) == {*new, *known}
    assert ranked(hot) == set(item[cold.train]) <= set(known)

    rows = np.flatnonzero(np.isin(item, known))
    n = round(0.1 * len(rows))
    assert len(cold.train) == len(rows) - 2 * n
    assert set(item[cold.train]) <= set(known)
    assert cold.test.tolist() == np.flatnonzero(np.isin(item, new)).tolist()
    assert len(everything.test) == len(cold.test) + n
    assert set(hot.test) == {row for row in set(everything.test) - set(cold.test) if item[row] in ranked(hot)}
    assert set(np.flatnonzero(np.isin(item, of_validation))) <= set(cold.validation)
    assert len(cold.validation) == np.isin(item, of_validation).sum() + n
    for split in (hot, everything):
        assert split.train.tolist() == cold.train.tolist()
        assert split.validation.tolist() == cold.validation.tolist()
    assert not set(cold.train) & {*cold.validation, *everything.test}


def test_the_order_of_the_rows_chooses_no_items() -> None:
    X = make()
    one, other = (next(iter(ItemColdHotSplit(random_state=0).splits(frame))) for frame in (X, X[::-1]))
    assert ranked(one) == ranked(other)


def test_labels_of_any_kind_have_an_order() -> None:
    X = make()
    X["item_id"] = np.where(X["item_id"] < 120, X["item_id"], "i" + X["item_id"].astype(str)).astype(object)
    split = next(iter(ItemColdHotSplit(random_state=0).splits(X)))
    assert len(ranked(split)) == 4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"test_size": 0}, "`test_size` is 0; expected a share"),
        ({"validation_size": 1.0}, "`validation_size` is 1.0; expected a share"),
        ({"test_size": 0.6, "validation_size": 0.4}, "`test_size` + `validation_size` is 1; expected a sum below 1"),
    ],
)
def test_shares_that_leave_nothing_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        ItemColdHotSplit(**parameters)


def test_too_few_items_or_rows_are_refused() -> None:
    few_items = pd.DataFrame({"user_id": np.arange(8), "item_id": np.arange(8) % 4})
    with pytest.raises(InvalidInputError, match="`X` has 4 items; expected more, to hold out some for validation and"):
        next(iter(ItemColdHotSplit().splits(few_items)))
    few_rows = pd.DataFrame({"user_id": [1, 2, 3], "item_id": [1, 2, 3]})
    with pytest.raises(InvalidInputError, match="`X` has 1 rows of hot items; expected more"):
        next(iter(ItemColdHotSplit(test_size=0.3, validation_size=0.3).splits(few_rows)))
    mixed = few_rows.assign(item_id=np.array([1, uuid.UUID(int=1), 2], dtype=object))
    with pytest.raises(InvalidTypeError, match=r"The items of `X` have no order .*; expected labels of one type"):
        next(iter(ItemColdHotSplit().splits(mixed)))

"""Leaks are found, whoever made the split; hot and cold entities are told apart; hashes say what was run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys.evaluation import RandomSplit, Split, check_leaks, entity_groups
from recsys.exceptions import InvalidInputError, InvalidTypeError

X = pd.DataFrame({"user_id": [1, 1, 1, 2, 2, 3], "item_id": [10, 11, 12, 10, 11, 13]})
TIMES = [1, 2, 3, 1, 5, 4]


def rows(*positions: int) -> Any:
    return np.array(positions, dtype=np.int64)


@pytest.mark.parametrize(
    "split",
    [
        Split("random", rows(0, 3, 5), rows(1, 2, 4)),
        Split("user-cold", rows(0, 1, 2, 5), rows(4), revealed=rows(3), cold="user"),
        Split("item-cold", rows(0, 1, 3, 4), rows(2, 5), cold="item"),
        Split("last", rows(0, 1, 3), rows(2, 4), order="user"),
        Split("time", rows(0, 1, 3), rows(2, 4, 5), order="all"),
        Split("with validation", rows(0, 1), rows(4, 5), validation=rows(2, 3)),
    ],
    ids=lambda split: split.name,
)
def test_what_does_not_leak_passes(split: Split) -> None:
    check_leaks(X, split, TIMES)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split("s", rows(0, 1), rows(1, 2)), r"Split 's' leaks: 1 rows are used twice \(rows 1\)"),
        (Split("s", rows(0), rows(2), revealed=rows(2)), r"1 rows are used twice \(rows 2\)"),
        (Split("s", rows(0), rows(2), validation=rows(0)), r"1 rows are used twice \(rows 0\)"),
        (Split("s", rows(0, 3), rows(4), cold="user"), "1 users meant to be cold are in train: 2"),
        (Split("s", rows(3), rows(1), revealed=rows(4), cold="user"), "1 users meant to be cold are in train: 2"),
        (Split("s", rows(0), rows(4), validation=rows(3), cold="user"), "1 users meant to be cold are in train: 2"),
        (Split("s", rows(0, 1), rows(3, 4), cold="item"), "2 items meant to be cold are in train: 10, 11"),
        (Split("s", rows(5), rows(3), revealed=rows(0), cold="item"), "1 items meant to be cold are in train: 10"),
        (Split("s", rows(0, 2), rows(1), order="user"), r"1 rows are newer than what is tested \(rows 2\)"),
        (Split("s", rows(0, 4), rows(2, 5), order="all"), r"1 rows are newer than what is tested \(rows 4\)"),
        (Split("s", rows(0), rows(1), revealed=rows(2), order="user"), "1 rows are newer than what is tested"),
        (Split("s", rows(0), rows(6)), "test rows from 6 to 6; expected positions in the 6 rows of `X`"),
        (Split("s", rows(-1), rows(0)), "train rows from -1 to -1"),
    ],
)
def test_leaks_are_found(split: Split, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_leaks(X, split, TIMES)


@pytest.mark.parametrize("part", ["train", "validation", "revealed"])
def test_a_repeated_pair_leaks(part: str) -> None:
    twice = pd.DataFrame({"user_id": ["ann", "bob", "ann"], "item_id": ["tea", "tea", "tea"]})
    parts: dict[str, Any] = {"train": rows(1), part: rows(0)}
    with pytest.raises(
        InvalidInputError, match="1 test pairs are in other parts too, such as user 'ann' and item 'tea'"
    ):
        check_leaks(twice, Split("s", test=rows(2), **parts))


def test_a_tie_in_time_is_no_leak() -> None:
    check_leaks(X, Split("s", rows(0), rows(1), order="all"), [2, 2, 2, 2, 2, 2])


def test_a_split_by_time_cannot_be_checked_without_times() -> None:
    with pytest.raises(InvalidInputError, match="`groups` is None, but split 's' needs the timestamp of each row"):
        check_leaks(X, Split("s", rows(0), rows(1), order="user"))


@pytest.mark.parametrize("split", [None, (rows(0), rows(1)), "random"])
def test_what_is_no_split_is_refused(split: Any) -> None:
    with pytest.raises(InvalidTypeError, match=f"`split` is of type {type(split).__name__}; expected a Split"):
        check_leaks(X, split)


def test_groups_of_entities() -> None:
    train = pd.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"]})
    test = pd.DataFrame({"user_id": ["a", "c", "d", "b"], "item_id": ["y", "x", "z", "z"]}, index=[5, 6, 7, 8])
    revealed = pd.DataFrame({"user_id": ["c", "a"], "item_id": ["z", "z"]})
    groups = entity_groups(train, test, revealed)
    assert groups.index.tolist() == [5, 6, 7, 8]
    assert groups["user"].tolist() == ["hot", "few-shot", "cold-start", "hot"]
    # What is revealed of an item was not learned from.
    assert groups["item"].tolist() == ["hot", "hot", "cold-start", "cold-start"]
    assert groups["user"].cat.categories.tolist() == ["hot", "few-shot", "cold-start"]
    assert entity_groups(train, test)["user"].tolist() == ["hot", "cold-start", "cold-start", "hot"]
    assert entity_groups(train, test, revealed.iloc[:0]).equals(entity_groups(train, test))


def test_groups_need_ids_of_one_kind() -> None:
    with pytest.raises(InvalidInputError, match=r"The users of `test` cannot match those of `train`\. They are text"):
        entity_groups(X, X.astype({"user_id": str}))


def test_hashes_are_of_the_rows_and_of_the_pairs() -> None:
    def hashed(frame: pd.DataFrame, seed: int = 0) -> str:
        return next(RandomSplit(test_size=0.5, random_state=seed).splits(frame)).hash

    assert hashed(X) == hashed(X.copy())
    assert len({hashed(X, seed) for seed in range(5)}) > 1
    assert hashed(X) != hashed(X.assign(item_id=X["item_id"] + 1))
    assert hashed(X) != hashed(X[::-1])
    # The dtype is how a machine stores a label, not what it says.
    assert hashed(X) == hashed(X.astype("int32")) == hashed(X.astype(object)) == hashed(X.astype("category"))


def test_hashes_are_the_same_everywhere_and_for_ever() -> None:
    numbers, text = (next(RandomSplit(random_state=0).splits(frame)).hash for frame in (X, "u" + X.astype(str)))
    assert (numbers, text) == ("02379f72a1c8", "7e836ff409ba")


def test_repr_says_the_sizes() -> None:
    split = Split("mine", rows(0, 1), rows(2), seed=3, hash="abc")
    assert repr(split) == "Split('mine', train=2, test=1 rows, seed=3, hash='abc')"


def test_times_must_be_times() -> None:
    split = Split("s", rows(0), rows(1), order="user")
    with pytest.raises(InvalidInputError, match=r"`groups` has shape \(2,\); expected one timestamp per row of `X`"):
        check_leaks(X, split, [1, 2])
    with pytest.raises(InvalidInputError, match=r"`groups` holds missing timestamps \(rows 1\)"):
        check_leaks(X, split, [1, None, 3, 4, 5, 6])
    with pytest.raises(InvalidInputError, match=r"`groups` holds infinite timestamps \(rows 2\); expected finite ones"):
        check_leaks(X, split, [1, 2, np.inf, 4, 5, 6])
    with pytest.raises(InvalidTypeError, match="expected timestamps, as numbers or datetimes"):
        check_leaks(X, split, list("abcdef"))

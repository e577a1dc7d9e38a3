"""Splitters: what they promise, on random data, and their life as `cv` of scikit-learn."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV, cross_validate

from recsys.evaluation import (
    BothColdSplit,
    GlobalTimeSplit,
    ItemColdHotSplit,
    ItemColdSplit,
    LeaveLastOut,
    RandomSplit,
    SparseSubset,
    Split,
    UserColdSplit,
    check_leaks,
)
from recsys.exceptions import InvalidInputError, InvalidTypeError

ALL: list[Any] = [
    RandomSplit(test_size=0.2, by="user", n_splits=2, random_state=0),
    RandomSplit(test_size=0.2, validation_size=0.2, n_splits=2, random_state=0),
    LeaveLastOut(),
    LeaveLastOut(n_last=2, n_negatives=5, random_state=0),
    GlobalTimeSplit(),
    GlobalTimeSplit(drop_cold=True),
    UserColdSplit(random_state=0),
    UserColdSplit(k=(0, 3, "all"), reveal="first", random_state=0),
    UserColdSplit(k=(0, 3), query_size="rest", random_state=0),
    ItemColdSplit(random_state=0),
    ItemColdSplit(items="newest", k=(0, 2), hot_test_size=0.1, random_state=0),
    ItemColdHotSplit(random_state=0),
    BothColdSplit(k=(0, 2), random_state=0),
    SparseSubset(random_state=0),
    SparseSubset(by="item", random_state=0),
]


def make(seed: int = 0, n_users: int = 20, n_items: int = 30, density: float = 0.4) -> tuple[pd.DataFrame, pd.Series]:
    """Distinct pairs of text ids in random order, with times that tie."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((n_users, n_items)) < density)
    order = rng.permutation(len(users))
    X = pd.DataFrame({"user_id": users[order], "item_id": items[order]})
    X["user_id"], X["item_id"] = "u" + X["user_id"].astype(str), "i" + X["item_id"].astype(str)
    return X, pd.Series(rng.integers(0, 15, len(X)), name="timestamp")


@pytest.mark.parametrize("splitter", ALL, ids=repr)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_leaks_and_rows_are_ascending_positions(splitter: Any, seed: int) -> None:
    X, times = make(seed)
    splits = list(splitter.splits(X, groups=times))
    assert splits
    for split in splits:
        check_leaks(X, split, times)
        for part in (split.train, split.validation, split.revealed, split.test):
            assert part.dtype == np.int64
            assert (np.diff(part) > 0).all()
        assert len(split.train)
        assert len(split.test)
        assert len(split.hash) == 12
    assert len({split.name for split in splits}) == (1 if isinstance(splitter, RandomSplit) else len(splits))
    assert len({split.hash for split in splits}) == len(splits)


def test_dates_of_any_year_are_ordered() -> None:
    X = np.array([[1, 10], [1, 11], [2, 10], [2, 12]])
    times = pd.DatetimeIndex(np.array(["2500-01-01", "1400-01-01", "2600-01-01", "1500-01-01"], dtype="datetime64[s]"))
    [split] = GlobalTimeSplit(test_size=0.5).splits(X, groups=times)
    assert split.test.tolist() == [0, 2]
    large = np.array([2**63 + 5, 2**63 - 1, 2**64 - 1, 5], dtype=np.uint64)
    halves = np.array([5.5, 1.5, 6.5, 2.5], dtype=np.float16)
    for stamps in (large, halves, pd.Series(pd.arrays.ArrowExtensionArray(pa.array(halves)))):
        [split] = GlobalTimeSplit(test_size=0.5).splits(X, groups=stamps)
        assert split.test.tolist() == [0, 2]
        check_leaks(X, split, stamps)


@pytest.mark.parametrize("splitter", ALL, ids=repr)
def test_the_same_seed_gives_the_same_split_from_frames_and_arrays(splitter: Any) -> None:
    X, times = make()
    first, again = (list(splitter.splits(X, groups=times)) for _ in range(2))
    from_array = list(splitter.splits(X.to_numpy(), groups=times.to_numpy()))
    dates = pd.to_datetime(times, unit="s")
    by_date = list(splitter.splits(X, groups=dates))
    by_arrow = list(splitter.splits(X, groups=pd.Index(dates.astype("timestamp[ns][pyarrow]"))))
    for other in (again, from_array, by_date, by_arrow):
        assert [split.hash for split in other] == [split.hash for split in first]
    for split in first:
        if split.seed is not None:
            alone = type(splitter)(**{**vars(splitter), "random_state": split.seed})
            assert split.hash in [found.hash for found in alone.splits(X, groups=times)]


@pytest.mark.parametrize("splitter", ALL, ids=repr)
def test_scikit_learns_face_agrees_with_splits(splitter: Any) -> None:
    X, times = make()
    pairs = list(splitter.split(X, groups=times))
    assert len(pairs) == splitter.get_n_splits(X)
    splits = list(splitter.splits(X, groups=times))
    if isinstance(splitter, ItemColdSplit):
        # Scikit-learn's face leaves out where the whole catalogue is ranked.
        splits = [split for split in splits if split.candidates is not None]
    if isinstance(splitter, ItemColdHotSplit):
        # It shows where all items are ranked together.
        splits = splits[2:]
    for (train, test), split in zip(pairs, splits, strict=True):
        assert sorted({*split.train, *split.revealed}) == train.tolist()
        assert split.test.tolist() == test.tolist()


def test_random_sizes_and_seeds() -> None:
    X, _ = make()
    n = len(X)
    first, second = RandomSplit(validation_size=0.1, n_splits=2, random_state=4).splits(X)
    assert len(first.test) == len(first.validation) == -(-n // 10)
    assert len(first.train) + len(first.validation) + len(first.test) == n
    assert (first.seed, second.seed) == (4, 5)
    assert first.hash != second.hash
    drawn = next(RandomSplit(random_state=np.random.RandomState(0)).splits(X)).seed
    assert drawn is not None
    assert next(RandomSplit(random_state=drawn).splits(X)).seed == drawn
    assert next(RandomSplit().splits(X)).seed != next(RandomSplit().splits(X)).seed


@pytest.mark.parametrize("splitter", [UserColdSplit, ItemColdSplit, BothColdSplit])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_shuffle_of_entities_by_the_same_seed_is_not_undone(splitter: Any, seed: int) -> None:
    n = 4000
    # Each is in one row, and the first are the most popular, say.
    X = pd.DataFrame({"user_id": np.arange(n), "item_id": np.arange(n)}).sample(frac=1, random_state=seed)
    split = next(splitter(random_state=seed).splits(X))
    left_out = np.setdiff1d(np.arange(n), X["user_id"].iloc[split.train])
    assert len(left_out) >= n // 10
    assert abs(left_out.mean() - n / 2) < 4 * n / np.sqrt(12 * len(left_out))


@pytest.mark.parametrize("splitter", [RandomSplit, SparseSubset, partial(RandomSplit, by="user")])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_shuffle_by_the_same_seed_is_not_undone(splitter: Any, seed: int) -> None:
    n = 4000
    X = pd.DataFrame({"user_id": np.arange(n) // 20, "item_id": np.arange(n)})
    shuffled = X.sample(frac=1, random_state=seed)
    [split] = splitter(test_size=0.1, random_state=seed).splits(shuffled)
    held_out = shuffled.iloc[np.concatenate([split.test, split.validation])]
    assert len(held_out) == n // 10
    # Places of the rows as they came: drawn at random from all, within four standard errors.
    assert abs(held_out["item_id"].mean() - n / 2) < 4 * n / np.sqrt(12 * len(held_out))
    within = held_out["item_id"] % 20
    assert abs(within.mean() - 9.5) < 4 * 20 / np.sqrt(12 * len(held_out))


def test_a_share_is_not_rounded_up_for_a_rounding_error() -> None:
    X = np.column_stack([np.zeros(100, dtype=int), np.arange(100)])
    assert 0.07 * 100 > 7
    assert len(next(RandomSplit(test_size=0.07, random_state=0).splits(X)).test) == 7


@given(st.floats(0.01, 0.99), st.integers(2, 200))
def test_a_share_is_rounded_up(size: float, n: int) -> None:
    X = np.column_stack([np.zeros(n, dtype=int), np.arange(n)])
    expected = int(np.ceil(round(size * n, 9)))
    splitter = RandomSplit(test_size=size, random_state=0)
    if expected == n:
        with pytest.raises(InvalidInputError, match=f"`X` has {n} rows; expected more"):
            next(splitter.splits(X))
    else:
        assert len(next(splitter.splits(X)).test) == expected


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5).filter(lambda counts: max(counts) > 1),
    st.sampled_from([0.1, 0.2, 0.29, 0.5]),
    st.sampled_from([0.0, 0.1, 0.3, 0.45]),
)
def test_shares_of_each_user_are_recboles(counts: list[int], test_size: float, validation_size: float) -> None:
    users = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    X = np.column_stack([users, np.arange(len(users))])
    [split] = RandomSplit(test_size=test_size, validation_size=validation_size, by="user", random_state=0).splits(X)
    assert split.name == "random by user"
    for user, n in enumerate(counts):
        # From the last part to the first, as RecBole hands out the rows of a user; the first is left the rest.
        sizes = [0, int(round(validation_size * n, 9)), int(round(test_size * n, 9))]
        sizes[0] = n - sum(sizes)
        for part, share in ((2, test_size), (1, validation_size)):
            if sizes[0] > 1 and share > 0 and sizes[part] == 0:
                sizes[part], sizes[0] = 1, sizes[0] - 1
        found = [(users[rows] == user).sum() for rows in (split.train, split.validation, split.test)]
        assert found == sizes


def test_every_row_of_a_user_is_as_likely_tested() -> None:
    X = np.column_stack([np.repeat([0, 1], 5), np.arange(10)])
    splits = RandomSplit(test_size=0.2, by="user", n_splits=2000, random_state=0).splits(X)
    drawn = np.array([split.test for split in splits])
    times = np.bincount(drawn.ravel(), minlength=10)
    # Within four standard errors.
    assert np.abs(times - 400).max() < 4 * np.sqrt(2000 * 0.2 * 0.8)
    assert abs(np.mean(drawn[:, 0] == drawn[:, 1] - 5) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 2000)


def test_users_with_one_row_each_cannot_be_split() -> None:
    with pytest.raises(
        InvalidInputError, match=r"`X` has 1 row.s. a user at most, which leaves none to test with shares of 0.1, 0; "
    ):
        next(RandomSplit(by="user", random_state=0).splits(np.array([[1, 1], [2, 1]])))
    X = np.column_stack([np.repeat(np.arange(5), 4), np.arange(20)])
    with pytest.raises(
        InvalidInputError, match=r"4 row.s. a user at most, .* of 0.2, 0.75; expected users with more, or"
    ):
        next(RandomSplit(test_size=0.2, validation_size=0.75, by="user", random_state=0).splits(X))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=30), st.integers(1, 3))
def test_leave_last_out_against_a_loop(rows: list[tuple[int, int]], n_last: int) -> None:
    users, times = np.array(rows).T
    X = np.column_stack([users, np.arange(len(users))])
    expected: list[int] = []
    for user in set(users.tolist()):
        # Sorting is stable: of equal times the later row is the newer one.
        of_user = sorted(np.flatnonzero(users == user).tolist(), key=lambda row: int(times[row]))
        if len(of_user) > n_last:
            expected += of_user[-n_last:]
    splitter = LeaveLastOut(n_last=n_last)
    if not expected:
        with pytest.raises(InvalidInputError, match=f"no user with more than {n_last} rows"):
            next(splitter.splits(X, groups=times))
        return
    [split] = splitter.splits(X, groups=times)
    assert split.test.tolist() == sorted(expected)
    assert split.train.tolist() == sorted(set(range(len(rows))) - set(expected))
    assert (split.name, split.seed, split.order) == ("leave-last-out", None, "user")


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30))
def test_global_time_against_a_loop(times: list[int]) -> None:
    X = np.column_stack([np.arange(len(times)) % 3, np.arange(len(times))])
    [split] = GlobalTimeSplit(test_size=0.3).splits(X, groups=times)
    order = sorted(range(len(times)), key=lambda row: times[row])
    n_test = -(-3 * len(times) // 10)
    assert split.test.tolist() == sorted(order[-n_test:])
    assert split.order == "all"


@pytest.mark.parametrize("reveal", ["random", "first"])
@pytest.mark.parametrize("query_size", [0.5, 0.25, "rest"])
def test_user_cold_keeps_one_query_set_and_nested_reveals(reveal: Any, query_size: Any) -> None:
    X, times = make(density=0.3)
    user = X["user_id"].to_numpy()
    splits = list(
        UserColdSplit(k=(0, 1, 2, 5), reveal=reveal, query_size=query_size, random_state=0).splits(X, groups=times)
    )
    cold = set(user[splits[0].test])
    assert len(cold) == 4
    assert {split.cold for split in splits} == {"user"}
    for split, k in zip(splits, (0, 1, 2, 5), strict=True):
        assert split.name == ("user-cold" if reveal == "random" else "user-cold first") + f" k={k}"
        assert split.train.tolist() == splits[0].train.tolist() == np.flatnonzero(~np.isin(user, list(cold))).tolist()
        assert split.test.tolist() == splits[0].test.tolist()
        assert set(split.revealed) <= set(splits[-1].revealed)
        for label in cold:
            n = int((user == label).sum())
            n_query = n - min(5, n - 1) if query_size == "rest" else int(np.ceil(query_size * n))
            assert (user[split.test] == label).sum() == n_query
            assert (user[split.revealed] == label).sum() == min(k, n - n_query)
            if reveal == "first" and k:
                of_user = np.flatnonzero(user == label)
                oldest = of_user[np.argsort(times.to_numpy()[of_user], kind="stable")]
                assert sorted(oldest[: min(k, n - n_query)]) == split.revealed[user[split.revealed] == label].tolist()


def test_user_cold_reveals_all_there_is() -> None:
    X, _ = make()
    few, everything = UserColdSplit(k=(1000, "all"), random_state=0).splits(X)
    assert few.revealed.tolist() == everything.revealed.tolist()
    assert len(everything.train) + len(everything.revealed) + len(everything.test) == len(X)


def test_item_cold_ranks_among_the_cold_and_among_all() -> None:
    X, _ = make()
    narrow, wide = ItemColdSplit(test_size=0.25, random_state=0).splits(X)
    assert narrow.candidates is not None
    assert wide.candidates is None
    assert set(narrow.candidates) == set(X["item_id"].iloc[narrow.test])
    assert len(narrow.candidates) == int(np.ceil(0.25 * X["item_id"].nunique()))
    # The ids come back with the dtype they had.
    assert narrow.candidates.dtype == pd.Index(X["item_id"]).dtype
    assert narrow.test.tolist() == wide.test.tolist()
    assert (narrow.name, wide.name) == ("item-cold (cold candidates)", "item-cold (whole catalogue)")


def test_item_cold_tests_hot_rows_too_where_all_items_are_ranked() -> None:
    X, _ = make()
    narrow, wide = ItemColdSplit(test_size=0.25, hot_test_size=0.1, random_state=0).splits(X)
    assert narrow.train.tolist() == wide.train.tolist()
    hot = np.setdiff1d(wide.test, narrow.test)
    assert narrow.candidates is not None
    assert len(hot) == int(np.ceil(0.1 * (len(X) - len(narrow.test))))
    assert not X["item_id"].iloc[hot].isin(narrow.candidates).any()
    assert len(narrow.train) + len(wide.test) == len(X)
    for split in (narrow, wide):
        check_leaks(X, split)


def test_the_newest_items_are_those_seen_first_last() -> None:
    X, times = make(3)
    found = {split.name: split for split in ItemColdSplit(items="newest", k=(0, 2)).splits(X, groups=times)}
    first: dict[str, tuple[int, int]] = {}
    for row, (item, time) in enumerate(zip(X["item_id"], times, strict=True)):
        first[item] = min(first.get(item, (10**9, 0)), (time, row))
    newest = sorted(first, key=lambda item: first[item])[-6:]
    for split in found.values():
        assert set(X["item_id"].iloc[split.test]) == set(newest)
    none, two = (found[f"item-cold newest k={k} (cold candidates)"] for k in (0, 2))
    assert none.candidates is not None
    assert set(none.candidates) == set(newest)
    assert none.test.tolist() == two.test.tolist()
    assert not X["item_id"].iloc[none.train].isin(newest).any()
    assert (none.cold, two.cold) == ("item", None)
    # With k = 2, the first two rows of each in time are learned from, and never tested.
    for item in newest:
        rows = sorted(np.flatnonzero(X["item_id"] == item), key=lambda row: (times[row], row))
        assert sorted(rows[:2]) == [row for row in two.train if X["item_id"][row] == item]
        assert sorted(rows[2:]) == [row for row in two.test if X["item_id"][row] == item]


def test_new_users_meet_new_items() -> None:
    X, _ = make(1)
    none, three = BothColdSplit(k=(0, 3), random_state=2).splits(X)
    assert none.candidates is not None
    users, items = set(X["user_id"].iloc[none.test]), set(none.candidates)
    assert (len(items), none.cold, len(none.revealed)) == (6, "both", 0)
    for row, (user, item) in enumerate(X.itertuples(index=False)):
        assert (row in none.test) == (user in users and item in items)
        if row in none.train:
            assert user not in users
            assert item not in items
    assert three.test.tolist() == none.test.tolist()
    revealed = X.iloc[three.revealed]
    assert revealed["user_id"].isin(users).sum() == 3 * len(users)
    assert not revealed["item_id"].isin(items).any()
    leaky = dataclasses.replace(none, train=np.append(none.train, none.test[:1]), test=none.test[1:])
    with pytest.raises(InvalidInputError, match="users meant to be cold are in train"):
        check_leaks(X, leaky)


@pytest.mark.parametrize("by", ["user", "item"])
def test_the_sparse_subset_is_of_those_with_few_train_rows(by: Any) -> None:
    X, _ = make(4, density=0.3)
    [split] = SparseSubset(by=by, quantile=0.3, random_state=0).splits(X)
    column = X[f"{by}_id"]
    counts = column.iloc[split.train].value_counts()
    few = set(counts[counts <= np.quantile(counts, 0.3)].index)
    held_out = np.sort(np.concatenate([split.test, split.validation]))
    assert len(held_out) == -(-len(X) // 5)
    assert split.test.tolist() == [row for row in held_out if column[row] in few]
    assert 0 < len(split.test) < len(held_out)


def test_a_validation_part_by_splitting_the_train_rows() -> None:
    X, times = make()
    [outer] = LeaveLastOut().splits(X, groups=times)
    [inner] = LeaveLastOut().splits(X.iloc[outer.train], groups=times.iloc[outer.train])
    validation = outer.train[inner.test]
    [both] = LeaveLastOut(n_last=2).splits(X, groups=times)
    assert sorted([*outer.test, *validation]) == both.test.tolist()


class CountingRecommender(BaseEstimator):
    """Scores a fold by its sizes."""

    def __init__(self, weight: int = 1) -> None:
        self.weight = weight

    def fit(self, X: pd.DataFrame, y: Any = None) -> CountingRecommender:
        self.n_train_ = len(X)
        return self

    def score(self, X: pd.DataFrame, y: Any = None) -> float:
        return self.weight * self.n_train_ + len(X)


@pytest.mark.parametrize("splitter", ALL, ids=repr)
def test_scikit_learn_takes_them_as_cv(splitter: Any) -> None:
    X, times = make()
    sizes = [len(train) + len(test) for train, test in splitter.split(X, groups=times)]
    found = cross_validate(CountingRecommender(), X, cv=splitter, groups=times)
    assert found["test_score"].tolist() == sizes
    search = GridSearchCV(CountingRecommender(), {"weight": [1, 2]}, cv=splitter).fit(X, groups=times)
    assert search.best_params_ == {"weight": 2}
    assert search.n_splits_ == len(sizes)
    assert repr(clone(search).cv) == repr(splitter)


def test_scikit_learns_metadata_routing_brings_the_groups() -> None:
    X, times = make()
    with sklearn.config_context(enable_metadata_routing=True):
        found = cross_validate(CountingRecommender(), X, cv=LeaveLastOut(), params={"groups": times})
    assert found["test_score"].tolist() == [len(X)]


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 2))
def test_negatives_are_distinct_items_that_the_user_has_not_met(seed: int, n: int, n_last: int) -> None:
    X, times = make(seed, n_users=6, n_items=12, density=0.5)
    met = X.groupby("user_id")["item_id"].agg(set)
    n_met = met.str.len()
    tested = met.index[(n_met > n_last) & (X["item_id"].nunique() - n_met >= n)]
    splitter = LeaveLastOut(n_last=n_last, n_negatives=n, random_state=seed)
    if not len(tested):
        with pytest.raises(InvalidInputError, match=f"`n_negatives` is {n}, more than any user|has no user with more"):
            next(splitter.splits(X, groups=times))
        return
    [split] = splitter.splits(X, groups=times)
    assert split.name == f"leave-last-out ({n_last} + {n} sampled)"
    assert isinstance(split.candidates, pd.DataFrame)
    test = X.iloc[split.test]
    for user, items in split.candidates.groupby("user_id")["item_id"]:
        wanted = set(test.loc[test["user_id"] == user, "item_id"])
        assert wanted <= set(items)
        assert len(items) == items.nunique() == n_last + n
        assert (set(items) - wanted).isdisjoint(met[user])
    assert set(split.candidates["user_id"]) == set(tested)
    [plain] = LeaveLastOut(n_last=n_last).splits(X, groups=times)
    of_tested = X["user_id"].isin(tested).to_numpy()
    np.testing.assert_array_equal(split.test, plain.test[of_tested[plain.test]])
    assert split.hash != plain.hash


def test_every_set_of_negatives_is_as_likely() -> None:
    # The user has met 3 of 7 items: 6 pairs of the other four.
    X = pd.DataFrame({"user_id": [0] * 3 + [1] * 4, "item_id": [1, 3, 6, 0, 2, 4, 5]})
    drawn = np.zeros((7, 7))
    for seed in range(600):
        [split] = LeaveLastOut(n_negatives=2, random_state=seed).splits(X, groups=np.arange(7))
        assert isinstance(split.candidates, pd.DataFrame)
        of_first = split.candidates.query("user_id == 0")["item_id"].to_numpy()
        drawn[tuple(np.sort(of_first[1:]))] += 1
    counts = drawn[drawn > 0]
    assert len(counts) == 6
    # The statistic is below 20.5 but for one case in a thousand.
    assert ((counts - 100) ** 2 / 100).sum() < 20.5


def test_repr_is_how_to_make_it() -> None:
    assert repr(LeaveLastOut(n_last=2)) == "LeaveLastOut(n_last=2, n_negatives=None, random_state=None)"
    assert repr(UserColdSplit(k=(1, "all"), random_state=3)) == (
        "UserColdSplit(test_size=0.2, k=(1, 'all'), query_size=0.5, reveal='random', random_state=3)"
    )


@pytest.mark.parametrize(
    ("splitter", "parameters", "message"),
    [
        (RandomSplit, {"test_size": 1.0}, "`test_size` is 1.0; expected a share between 0 and 1, exclusive"),
        (
            RandomSplit,
            {"test_size": 0.5, "validation_size": 0.5},
            "`test_size` . `validation_size` is 1; expected a sum",
        ),
        (RandomSplit, {"validation_size": -0.1}, "`validation_size` is -0.1"),
        (RandomSplit, {"by": "item"}, "`by` is 'item'; expected 'user', or None for rows of all users alike"),
        (RandomSplit, {"n_splits": 0}, "`n_splits` is 0; expected an integer of 1 or more"),
        (LeaveLastOut, {"n_last": 0}, "`n_last` is 0"),
        (LeaveLastOut, {"n_negatives": 0}, "`n_negatives` is 0; expected an integer of 1 or more"),
        (GlobalTimeSplit, {"test_size": 0}, "`test_size` is 0"),
        (UserColdSplit, {"k": None}, "`k` is None; expected distinct numbers"),
        (UserColdSplit, {"k": ()}, r"`k` is \(\); expected distinct numbers"),
        (UserColdSplit, {"k": (1, 1)}, "`k` is .1, 1.; expected distinct numbers"),
        (UserColdSplit, {"k": (-1,)}, "`k` is -1; expected an integer of 0 or more"),
        (UserColdSplit, {"reveal": "last"}, "`reveal` is 'last'; expected 'random' or 'first'"),
        (UserColdSplit, {"query_size": 2.0}, "`query_size` is 2.0"),
        (UserColdSplit, {"k": (1, "all"), "query_size": "rest"}, "`k` holds 'all', of which `query_size`='rest'"),
        (ItemColdSplit, {"test_size": -1}, "`test_size` is -1"),
        (ItemColdSplit, {"items": "oldest"}, "`items` is 'oldest'; expected 'random' or 'newest'"),
        (ItemColdSplit, {"k": (0, 0)}, r"`k` is \(0, 0\); expected distinct numbers"),
        (BothColdSplit, {"k": np.array(3)}, r"`k` is array\(3\); expected distinct numbers"),
        (BothColdSplit, {"item_test_size": 1}, "`item_test_size` is 1; expected a share"),
        (SparseSubset, {"by": "row"}, "`by` is 'row'; expected 'user' or 'item'"),
        (SparseSubset, {"quantile": 0}, "`quantile` is 0; expected a share"),
        (Split, {"name": "x", "train": [], "test": [], "cold": "users"}, "`cold` is 'users'; expected None or one of"),
        (Split, {"name": "x", "train": [], "test": [], "order": "time"}, "`order` is 'time'; expected None or one of"),
    ],
)
def test_bad_parameters_are_refused_at_once(splitter: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        splitter(**parameters)


@pytest.mark.parametrize(
    ("splitter", "parameters", "message"),
    [
        (RandomSplit, {"test_size": "10%"}, "`test_size` is '10%'; expected a share between 0 and 1"),
        (RandomSplit, {"n_splits": 2.0}, "`n_splits` is 2.0; expected an integer"),
        (LeaveLastOut, {"n_negatives": True}, "`n_negatives` is True; expected an integer"),
        (LeaveLastOut, {"random_state": "a"}, "`random_state` is 'a'; expected a number, a RandomState or None"),
        (UserColdSplit, {"k": (1.5,)}, "`k` is 1.5; expected an integer"),
        (UserColdSplit, {"k": ("every",)}, "`k` is 'every'; expected an integer"),
        (UserColdSplit, {"k": [[1]]}, r"`k` is \[1\]; expected an integer"),
        (UserColdSplit, {"query_size": "half"}, "`query_size` is 'half'"),
    ],
)
def test_parameters_of_a_wrong_type_are_refused_at_once(
    splitter: Any, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidTypeError, match=message):
        splitter(**parameters)


@pytest.mark.parametrize("splitter", [LeaveLastOut(), GlobalTimeSplit(), UserColdSplit(reveal="first")], ids=repr)
def test_times_are_needed(splitter: Any) -> None:
    X, _ = make()
    with pytest.raises(InvalidInputError, match=f"`groups` is None, but {type(splitter).__name__} needs the timestamp"):
        next(splitter.split(X))


def test_too_little_data_is_refused() -> None:
    X = np.array([[1, 10], [1, 11]])
    with pytest.raises(InvalidInputError, match="`X` has 1 users; expected more, to hold out 1 and learn from others"):
        next(UserColdSplit().splits(X))
    with pytest.raises(InvalidInputError, match="`X` has 1 items; expected more"):
        next(ItemColdSplit().splits(np.array([[1, 10], [2, 10]])))
    with pytest.raises(InvalidInputError, match="`random_state` is -1; expected an integer of 0 or more"):
        next(RandomSplit(random_state=-1).splits(X))
    with pytest.raises(InvalidInputError, match="`random_state` is 4294967296; expected a number up to 4294967295"):
        next(RandomSplit(random_state=2**32).splits(X))
    with pytest.raises(InvalidInputError, match="the last split would be that of 4294967296; expected a number up to"):
        next(RandomSplit(n_splits=2, random_state=2**32 - 1).splits(X))
    assert next(RandomSplit(random_state=2**32 - 1).splits(X)).seed == 2**32 - 1
    with pytest.raises(InvalidTypeError, match="`random_state` is 'a'; expected a number, a RandomState or None"):
        next(RandomSplit(random_state="a").splits(X))
    with pytest.raises(ValueError, match="0 sample"):
        next(RandomSplit().splits(pd.DataFrame({"user_id": [], "item_id": []})))

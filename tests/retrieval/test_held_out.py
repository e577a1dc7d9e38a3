"""Who judges the share of a ranker, what they show, and what is left to learn from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recsys import FeatureTable, Popularity
from recsys._fields import Field
from recsys._sparse import Csr, find_entries, pattern, positives
from recsys._state import FEW_SHOT, HOT, WARM
from recsys.features import EncodedFeatures
from recsys.interactions import ContextRows
from recsys.retrieval._held_out import HeldOut, held_out


@pytest.fixture(scope="module")
def model() -> Popularity:
    """300 users of 40 items; every third has an age, every tenth row was only seen."""
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers(0, 300 * 40, 4000))
    X = pd.DataFrame({"user_id": rows // 40, "item_id": rows % 40})
    y = np.where(rng.random(len(X)) < 0.1, 0, 1)
    ages = pd.DataFrame({"age": np.where(np.arange(300) % 3 == 0, 30.0, np.nan)}, index=pd.RangeIndex(300))
    users = FeatureTable(ages.loc[np.unique(X["user_id"])].rename_axis("user_id"))
    return Popularity().fit(X, y, user_features=users)


@pytest.fixture(scope="module")
def held(model: Popularity) -> HeldOut:
    return held_out(model.history_, model.user_features_, None, np.random.default_rng(1))


def test_nothing_is_lost_and_nothing_comes_twice(model: Popularity, held: HeldOut) -> None:
    liked = pattern(positives(model.history_))
    known = held.judges[HOT]
    left = pattern(positives(held.history))
    whole = left.toarray()
    whole[known.batch.codes] += pattern(known.wanted).toarray()
    newcomers = np.flatnonzero((np.diff(held.history.indptr) == 0) & (np.diff(liked.indptr) > 0))
    few = held.judges[FEW_SHOT]
    whole[newcomers] += pattern(few.wanted).toarray() + pattern(few.batch.history).toarray()
    np.testing.assert_array_equal(whole, liked.toarray())


def test_known_users_keep_the_most_of_what_they_have(model: Popularity, held: HeldOut) -> None:
    judges = held.judges[HOT]
    counts = np.diff(positives(model.history_).indptr)[judges.batch.codes]
    np.testing.assert_array_equal(np.diff(judges.wanted.indptr), np.maximum(counts // 10, 1))
    np.testing.assert_array_equal(np.diff(judges.batch.history.indptr), counts - np.maximum(counts // 10, 1))
    assert judges.batch.trained.all()
    assert (judges.batch.path == HOT).all()
    # What was only seen stays, as it is.
    some = judges.batch.codes
    zeros = [int((history[some].data == 0).sum()) for history in (model.history_, held.history)]
    assert zeros[0] == zeros[1] > 100


def test_new_users_are_unknown_and_show_little(model: Popularity, held: HeldOut) -> None:
    few = held.judges[FEW_SHOT]
    assert len(few.batch) == int((np.diff(positives(model.history_).indptr) >= 2).sum()) // 10
    assert (few.batch.codes == -1).all()
    assert not few.batch.trained.any()
    shown, wanted = np.diff(few.batch.history.indptr), np.diff(few.wanted.indptr)
    assert shown.max() == 5
    np.testing.assert_array_equal(shown, np.minimum((shown + wanted) // 2, 5))
    # Only ten of them have an age: too few to tell anything.
    assert WARM not in held.judges


def test_warm_users_show_nothing_but_features(model: Popularity) -> None:
    told = EncodedFeatures(Csr(np.ones((len(model.users_), 1), np.float32)), (Field("age", "numeric", 0, 1),))
    judges = held_out(model.history_, told, None, np.random.default_rng(1)).judges
    assert judges[WARM].batch.history.nnz == 0
    shown = judges[FEW_SHOT].batch.history + judges[FEW_SHOT].wanted
    np.testing.assert_array_equal(judges[WARM].wanted.toarray(), shown.toarray())


def test_judges_are_asked_in_the_context_of_what_they_want(model: Popularity) -> None:
    liked = positives(model.history_).tocoo()
    # The context is the parity of the item, in one column of two values.
    encoded = EncodedFeatures(Csr(np.eye(2, dtype=np.float32)[liked.col % 2]), (Field("half", "categorical", 0, 2),))
    rows = ContextRows(liked.row.astype(np.int64), liked.col.astype(np.int64), encoded)
    plain = held_out(model.history_, model.user_features_, None, np.random.default_rng(1))
    told = held_out(model.history_, model.user_features_, rows, np.random.default_rng(1))
    for path in (HOT, FEW_SHOT):
        judges = told.judges[path]
        assert judges.batch.context is not None
        parity = np.asarray(judges.batch.context.matrix.argmax(axis=1)).ravel()
        wanted = judges.wanted.tocoo()
        np.testing.assert_array_equal(wanted.col % 2, parity[wanted.row])
        assert np.diff(judges.wanted.indptr).min() >= 1
        assert judges.wanted.nnz == plain.judges[path].wanted.nnz
    assert find_entries(plain.history, rows.users, rows.items)[1].sum() == positives(plain.history).nnz


def test_nobody_judges_who_has_one_positive() -> None:
    model = Popularity().fit(pd.DataFrame({"user_id": [1, 2, 3], "item_id": ["a", "a", "b"]}))
    found = held_out(model.history_, model.user_features_, None, np.random.default_rng(0))
    assert found.judges == {}
    np.testing.assert_array_equal(found.history.toarray(), model.history_.toarray())

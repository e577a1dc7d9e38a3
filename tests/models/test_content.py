from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from recsys import EASE, ContentEASE, ContentKNN, FeatureTable, Popularity
from recsys._sparse import with_constant
from recsys.base import BaseRecommender
from recsys.datasets import make_movielens_like
from recsys.evaluation import ItemColdSplit, UserColdSplit, paired_bootstrap, ranking_metrics
from recsys.exceptions import ColdStartWarning
from recsys.models import content
from recsys.models._content_graphs import KEEP_RATES


def tables(data: Any) -> dict[str, FeatureTable]:
    return {"user_features": FeatureTable(data.users), "item_features": FeatureTable(data.items)}


def ndcg_at_10(model: BaseRecommender, X: pd.DataFrame, split: Any) -> Any:
    test = X.iloc[split.test]
    revealed = X.iloc[split.revealed] if len(split.revealed) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        found = model.recommend(test["user_id"].unique(), 10, interactions=revealed, candidates=split.candidates)
    return ranking_metrics(found, test, 10, ("NDCG",))["NDCG@10"].sort_index().to_numpy()


@cache
def fitted(kind: type[BaseRecommender], splitter: Any, ml: Any) -> tuple[BaseRecommender, pd.DataFrame, list[Any]]:
    X = ml.interactions[["user_id", "item_id"]]
    splits = list(splitter.splits(X))
    model = kind(random_state=0) if kind is ContentEASE else kind()
    return model.fit(X.iloc[splits[0].train], **tables(ml)), X, splits


class Hashable:
    """A data set that may be a key of a cache."""

    def __init__(self, data: Any) -> None:
        self.interactions, self.users, self.items = data.interactions, data.users, data.items


@pytest.fixture(scope="module")
def ml(ml_100k: Any) -> Hashable:
    return Hashable(ml_100k)


@pytest.mark.parametrize("rival", [Popularity, EASE])
@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_few_shot_users_are_served_better(rival: type[BaseRecommender], k: int, ml: Any) -> None:
    splitter = UserColdSplit(k=(1, 2, 5, 10), random_state=0)
    ours, X, splits = fitted(ContentEASE, splitter, ml)
    theirs, _, _ = fitted(rival, splitter, ml)
    [split] = [split for split in splits if split.name.endswith(f"k={k}")]
    better = paired_bootstrap(ndcg_at_10(ours, X, split), ndcg_at_10(theirs, X, split), random_state=0)
    assert better.low > 0


def test_warm_items_are_ranked_better_than_by_neighbours(ml: Any) -> None:
    splitter = ItemColdSplit(random_state=0)
    ours, X, splits = fitted(ContentEASE, splitter, ml)
    theirs, _, _ = fitted(ContentKNN, splitter, ml)
    better = paired_bootstrap(ndcg_at_10(ours, X, splits[0]), ndcg_at_10(theirs, X, splits[0]), random_state=0)
    assert better.low > 0
    assert isinstance(ours, ContentEASE)
    assert 0.2 < ours.content_score_ < 0.5
    assert set(ours.content_weights_) >= {"genres", "year", "title"}


def world(n: int = 60) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Two groups of users who mostly like the items of theirs; every eighth item is warm."""
    rng = np.random.default_rng(0)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    kept = (rng.random(len(user)) < np.where(user % 2 == item % 2, 0.4, 0.1)) & (item % 8 != 7)
    X = pd.DataFrame({"user_id": user[kept], "item_id": item[kept]})
    users = pd.DataFrame(
        {"club": np.where(np.arange(n) % 2, "tennis", "chess")}, index=pd.RangeIndex(n, name="user_id")
    )
    items = pd.DataFrame({"kind": np.where(np.arange(n) % 2, "ball", "board")}, index=pd.RangeIndex(n, name="item_id"))
    return X, users, items


def make(**params: Any) -> ContentEASE:
    return ContentEASE(**({"n_factors": 60, "l2": 5.0, "attribute_l2": 1.0, "random_state": 0} | params))


def test_without_attributes_a_user_of_all_is_asked_with_the_last_rate_and_one_of_little_with_the_first() -> None:
    X, _, _ = world()
    model = make().fit(X)
    mean = X.groupby("user_id").size().mean()
    assert model.mean_history_ == pytest.approx(mean)
    rates = [
        {float(KEEP_RATES[place]): shares.round(6).tolist() for place, _, shares in model._blends(np.array([n]))}
        for n in (0, int(1e6))
    ]
    assert rates == [{}, {0.5: [1.0]}]
    # Halfway between two rates on a logarithmic scale, each has half.
    n = mean / (1 / np.sqrt(0.03 * 0.1) - 1)
    halves = {place: float(shares[0]) for place, _, shares in model._blends(np.array([n]))}
    assert halves == pytest.approx({1: 0.5, 2: 0.5}, abs=1e-6)


def test_shares_of_rates_add_up() -> None:
    model = make().fit(world()[0])
    lengths = np.arange(200)
    total = np.zeros(200)
    for _, rows, shares in model._blends(lengths):
        total[rows] += shares
    np.testing.assert_allclose(total, lengths > 0, atol=1e-6)


def test_all_factors_are_the_regression_itself() -> None:
    """With as many factors as items nothing is lost: a warm user scores a ridge regression on the attributes."""
    X, users, _ = world()
    model = make(n_factors=100).fit(X, user_features=FeatureTable(users))
    new = pd.DataFrame({"club": ["chess"]}, index=pd.Index(["new"], name="user_id"))
    hot = X["item_id"].unique()
    scores = model.predict(
        pd.DataFrame({"user_id": "new", "item_id": hot}).astype({"user_id": object}), user_features=new
    )
    table = np.zeros((60, 60))
    table[X["user_id"], X["item_id"]] = 1
    n = table.sum(1)
    weights = n**-0.5 / np.mean(n**-0.5)
    chess = (np.arange(60) % 2 == 0).astype(float)
    design = np.column_stack([chess, 1 - chess, np.ones(60)])
    gram = design.T @ (weights[:, None] * design)
    penalties = np.diag([1.0, 1.0, 1e-6 * gram[-1, -1]])
    coefficients = np.linalg.solve(gram + penalties, design.T @ (weights[:, None] * table))
    np.testing.assert_allclose(scores, (coefficients[0] + coefficients[2])[hot], atol=1e-4)


def test_explanations_name_history_attributes_and_the_average() -> None:
    X, users, items = world()
    model = make().fit(X, user_features=FeatureTable(users), item_features=FeatureTable(items))
    asked = pd.DataFrame({"user_id": [0, 1], "item_id": [7, 2]})
    explained = model.explain(asked)
    np.testing.assert_allclose(
        explained.groupby("row")["contribution"].sum(), model.predict(asked), rtol=1e-4, atol=1e-5
    )
    mine = explained[explained["row"] == 0]
    assert set(mine.loc[mine["source"] == "history", "field"]) == set(X.loc[X["user_id"] == 0, "item_id"])
    assert mine.loc[mine["source"] != "history", ["source", "field"]].values.tolist() == [
        ["user", "club"],
        ["prior", "average user"],
    ]


def test_a_new_item_is_known_by_its_content_as_target_and_in_a_history() -> None:
    X, users, items = world()
    model = make().fit(X, user_features=FeatureTable(users), item_features=FeatureTable(items))
    model.add_items(pd.DataFrame({"kind": ["ball", "board"]}, index=pd.Index([100, 101], name="item_id")))
    pairs = pd.DataFrame({"user_id": np.repeat(np.arange(20), 2), "item_id": [100, 101] * 20})
    ball, board = model.predict(pairs).reshape(-1, 2).T
    assert ((ball > board) == (np.arange(20) % 2 == 1)).mean() >= 0.95
    hot = np.sort(X["item_id"].unique())
    asked = pd.DataFrame({"user_id": "new", "item_id": hot}).astype({"user_id": object})
    leads = []
    for item in (100, 101):
        scores = model.predict(asked, interactions=pd.DataFrame({"user_id": ["new"], "item_id": [item]}))
        leads.append(scores[hot % 2 == 1].mean() - scores[hot % 2 == 0].mean())
    assert leads[0] > leads[1]


def test_items_of_little_evidence_lean_on_their_content() -> None:
    X, _, items = world()
    # Item 7 of the odd group is liked by one user of the even group.
    X = pd.concat([X, pd.DataFrame({"user_id": [0], "item_id": [7]})])
    with_content = make().fit(X, item_features=FeatureTable(items))
    without = make().fit(X)
    odd = pd.DataFrame({"user_id": np.arange(1, 40, 2), "item_id": 7})
    even = pd.DataFrame({"user_id": np.arange(2, 40, 2), "item_id": 7})
    assert with_content.predict(odd).mean() > with_content.predict(even).mean()
    assert without.predict(odd).mean() < without.predict(even).mean()


def test_held_out_items_are_stretched_until_they_come_half_as_often_as_with_their_own_vectors(ml: Any) -> None:
    X = ml.interactions[["user_id", "item_id"]]
    judges = []

    class Kept(content._Judge):
        def scale(self, predictions: list[Any]) -> float:
            judges.append((self, predictions))
            return super().scale(predictions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "_Judge", Kept)
        model = ContentEASE(n_factors=32, random_state=0).fit(X, **tables(ml))
    [(judge, predictions)] = judges
    assert model.content_scale_ > 1
    hot = np.flatnonzero(model.item_counts_)
    own, stretched, plain = 0, 0, 0
    for fold, (users, shown, _), predicted in zip(judge.folds, judge.parts, predictions, strict=True):
        others = np.setdiff1d(hot, fold)
        from_content = users @ model._undamped(predicted).T
        for row, user in enumerate(users):
            unseen = np.setdiff1d(others, shown[row].indices)
            bar = np.sort(model.item_vectors_[unseen] @ user)[-10]
            own += int((model.item_vectors_[fold] @ user > bar).sum())
            plain += int((from_content[row] > bar).sum())
            stretched += int((model.content_scale_ * from_content[row] > bar).sum())
    # The factors of items that have few interactions are mixed with content after the scale was found.
    assert stretched == pytest.approx(own / 2, rel=0.1)
    assert plain < own / 2


def test_vectors_of_takers_are_the_ridge_regression_of_who_has_an_item(ml: Any) -> None:
    X = ml.interactions[["user_id", "item_id"]]
    seen = []

    class Kept(ContentEASE):
        def _vectors_of_takers(self, data: Any, hot: Any) -> Any:
            found = super()._vectors_of_takers(data, hot)
            seen.append((self._users_of(data.matrix, with_constant(data.user_features.matrix)), data.matrix, found))
            return found

    Kept(n_factors=16, random_state=0).fit(X, **tables(ml))
    [(users, matrix, found)] = seen
    weights = np.diff(matrix.indptr) ** -0.5
    reference = Ridge(alpha=0.3 * len(users), fit_intercept=False)
    reference.fit(users, (matrix > 0).toarray(), sample_weight=weights / weights.mean())
    lengths = np.linalg.norm(found), np.linalg.norm(reference.coef_)
    np.testing.assert_allclose(found / lengths[0], reference.coef_ / lengths[1], atol=1e-5)


@pytest.mark.parametrize("price", [[1.0, 2.0, 3.0, 4.0, 5.0], [1.0] + [np.nan] * 4])
def test_items_without_content_do_not_stretch_others(price: list[float]) -> None:
    data = make_movielens_like(n_users=60, n_items=40, n_interactions=900, random_state=0)
    known = pd.DataFrame({"item_id": range(1, 6), "price": price})
    model = ContentEASE(n_factors=8, random_state=0)
    model.fit(data.interactions[["user_id", "item_id"]], item_features=known)
    # Rounding errors of what nothing is known of are no predictions.
    assert 1 <= model.content_scale_ < 10
    hot = model.item_vectors_.copy()
    model.add_items(pd.DataFrame({"item_id": [900, 901], "price": [1.5, 4.0]}))
    assert np.linalg.norm(model.item_vectors_[-2:], axis=1).max() < np.linalg.norm(hot, axis=1).max()


def test_added_items_are_the_same_whatever_the_number_of_threads() -> None:
    data = make_movielens_like(n_users=300, n_items=900, n_interactions=20_000, random_state=0)
    items = data.items[["item_id", "year", "genres"]]
    new = items.head(400).assign(item_id=np.arange(5000, 5400))
    model = ContentEASE(n_factors=16, random_state=0)
    model.fit(data.interactions[["user_id", "item_id"]], item_features=items)
    found = []
    for n in (1, 2):
        with threadpool_limits(n):
            found.append(copy.deepcopy(model).add_items(new).item_vectors_)
    np.testing.assert_array_equal(found[0], found[1])


def test_warm_items_alone_are_stretched() -> None:
    X, users, items = world()
    model = make().fit(X, user_features=FeatureTable(users), item_features=FeatureTable(items))
    model.content_scale_ = 3.0
    before = model.item_vectors_.copy()
    new = pd.DataFrame({"kind": ["ball"]}, index=pd.Index([100], name="item_id"))
    model.add_items(new)
    np.testing.assert_array_equal(model.item_vectors_[:-1], before)
    model.content_scale_ = 1.0
    model.add_items(new.set_axis([101]))
    np.testing.assert_allclose(model.item_vectors_[-2], 3 * model.item_vectors_[-1], rtol=1e-5)


def test_items_are_similar_as_their_scores_go_together(ml: Any) -> None:
    X = ml.interactions[["user_id", "item_id"]]
    model = ContentEASE(n_factors=40, random_state=0).fit(X, **tables(ml))
    items = model.items_.ids
    asked = items[np.argsort(-model.item_counts_)[:50]]
    grid = pd.MultiIndex.from_product([model.users_.ids, asked]).to_frame(index=False, name=["user_id", "item_id"])
    scores = model.predict(grid).reshape(-1, 50).astype(float)
    expected = np.corrcoef(scores, rowvar=False)
    found = model.similar_items(asked, k=len(items) - 1).pivot(
        index="item_id", columns="similar_item_id", values="score"
    )
    others = ~np.eye(50, dtype=bool)
    # Not to the last digit: items in a history have a share of their vectors from content.
    np.testing.assert_allclose(found.loc[asked, asked].to_numpy()[others], expected[others], atol=0.02)


def test_users_who_differ_a_little_tell_items_apart() -> None:
    X = pd.DataFrame({"user_id": np.repeat(np.arange(1000), 4), "item_id": list("abcd") * 1000})
    few = (X["user_id"] < 2) & X["item_id"].isin(["a", "b"]) | (X["user_id"] >= 998) & X["item_id"].isin(["c", "d"])
    model = ContentEASE(random_state=0).fit(X[~few])
    found = model.similar_items(["a"], k=3).set_index("similar_item_id")["score"]
    assert found.index[0] == "b"
    assert found["b"] > 0.99
    assert found["c"] < 0


def test_a_penalty_of_nothing_leaves_no_singular_system() -> None:
    X, users, _ = world()
    twice = users.assign(again=users["club"])
    scores = [
        ContentEASE(l2=5.0, attribute_l2=l2, random_state=0).fit(X, user_features=twice).predict(X)
        for l2 in (1e-20, 1e-9)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)


def test_users_who_are_all_alike_leave_the_vectors_as_they_are() -> None:
    X = pd.DataFrame({"user_id": np.repeat(range(5), 3), "item_id": list("abc") * 5})
    model = ContentEASE(random_state=0).fit(X)
    assert np.isfinite(model.similar_items(["a"], k=2)["score"]).all()
    np.testing.assert_allclose(model.predict(X), 1, atol=0.3)


def test_a_large_catalogue_is_served_from_factors(monkeypatch: pytest.MonkeyPatch, ml: Any) -> None:
    splitter = UserColdSplit(k=(2, 10), random_state=0)
    X = ml.interactions[["user_id", "item_id"]]
    few, many = splitter.splits(X)
    monkeypatch.setattr(content, "DENSE_ITEMS", 100)
    monkeypatch.setattr(content, "LANDMARKS", 300)
    model = ContentEASE(n_factors=64, random_state=0).fit(X.iloc[few.train], **tables(ml))
    popularity = Popularity().fit(X.iloc[few.train], **tables(ml))
    for split in (few, many):
        ours, theirs = ndcg_at_10(model, X, split), ndcg_at_10(popularity, X, split)
        assert paired_bootstrap(ours, theirs, random_state=0).low > 0


@pytest.mark.parametrize(
    "X",
    [
        pd.DataFrame({"user_id": [1], "item_id": ["a"]}),
        pd.DataFrame({"user_id": [1, 1, 1], "item_id": ["a", "b", "c"]}),
        pd.DataFrame({"user_id": [1, 2, 3], "item_id": ["a", "a", "a"]}),
        pd.DataFrame({"user_id": [1, 1, 2, 3], "item_id": ["a", "b", "a", "b"]}),
    ],
    ids=["one interaction", "one user", "one item", "a user with everything"],
)
@pytest.mark.parametrize(
    "items",
    [
        pd.DataFrame({"kind": ["x", "y", "x"], "same": 1.0}, index=list("abz")),
        pd.DataFrame({"kind": ["x", "y", "x"], "copy": ["x", "y", "x"]}, index=list("abz")),
        pd.DataFrame({"kind": [None, None, None], "number": np.nan}, index=list("abz")),
    ],
    ids=["a constant field", "the same field twice", "no values"],
)
def test_little_and_degenerate_data(X: pd.DataFrame, items: pd.DataFrame) -> None:
    users = pd.DataFrame({"age": [30.0, 30.0, 30.0, 30.0]}, index=[1, 2, 3, 4])
    model = make().fit(X, user_features=FeatureTable(users), item_features=FeatureTable(items))
    found = model.recommend([1, 2, 3, 4], k=5, exclude_seen=False, on_cold="popular")
    assert np.isfinite(found["score"]).all()
    assert len(found) == 4 * len(model.items_)
    assert np.isfinite(model.item_vectors_).all()


def test_two_fits_agree_bit_for_bit_whatever_the_threads() -> None:
    data = make_movielens_like(n_users=300, n_items=400, n_interactions=12_000, random_state=0)
    X = data.interactions[["user_id", "item_id"]]
    first = make(n_factors=32).fit(X, **tables(data))
    with threadpool_limits(1):
        second = make(n_factors=32).fit(X, **tables(data))
    for name in ("item_vectors_", "history_vectors_", "attribute_vectors_"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("random_state", range(8))
def test_users_who_are_nearly_alike_can_be_told_apart(random_state: int) -> None:
    # What these two differ in is less than rounding to single precision leaves of what they have in common.
    X = pd.DataFrame({"user_id": [1, 1, 1, 9, 9], "item_id": ["a", "b", "z", "a", "new"]})
    ages = FeatureTable(pd.DataFrame({"age": [30.0] * 4}, index=[1, 2, 3, 4]))
    kinds = FeatureTable(pd.DataFrame({"kind": ["x"] * 3, "same": 1.0}, index=list("abz")))
    model = ContentEASE(n_factors=16, random_state=random_state).fit(X, user_features=ages, item_features=kinds)
    assert np.isfinite(model.item_vectors_).all()
    assert model.recommend([1], 1)["item_id"].tolist() == ["new"]

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from recsys import MatrixFactorization, Popularity
from recsys.exceptions import ColdStartWarning, InvalidInputError


def world(seed: int = 0, n_users: int = 30, n_items: int = 20) -> tuple[pd.DataFrame, pd.Series]:
    """Two groups of users who like the items of theirs, with weights; some rows are only seen."""
    rng = np.random.default_rng(seed)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(n_users), np.arange(n_items), indexing="ij"))
    kept = rng.random(len(user)) < np.where(user % 2 == item % 2, 0.5, 0.1)
    X = pd.DataFrame({"user_id": 100 + user[kept], "item_id": [f"i{i}" for i in item[kept]]})
    return X, pd.Series(rng.choice([0.0, 1.0, 2.5, 5.0], len(X)))


def make(**params: Any) -> MatrixFactorization:
    return MatrixFactorization(**({"n_factors": 4, "alpha": 3.0, "l2": 0.5, "random_state": 0} | params))


def exact_users(model: MatrixFactorization) -> Any:
    """Weighted ridge regression of the dense rows on the item factors, user by user."""
    weights = model.history_.toarray().astype(np.float64)
    items = model.item_factors_.astype(np.float64)
    answer = np.zeros((len(weights), items.shape[1]))
    for user, row in enumerate(weights):
        confidence = 1 + model.alpha * row
        system = items.T @ (confidence[:, None] * items) + model.l2 * np.eye(items.shape[1])
        pull = model.l2 * model.user_intercept_
        answer[user] = np.linalg.solve(system, items.T @ (confidence * (row > 0)) + pull)
    return answer


@pytest.mark.parametrize(("alpha", "l2"), [(3.0, 0.5), (0.0, 1.0), (1000.0, 1.0), (1.0, 1e4), (1.0, 0.01)])
def test_users_are_the_weighted_least_squares_of_the_last_half_step(alpha: float, l2: float) -> None:
    model = make(alpha=alpha, l2=l2).fit(*world())
    np.testing.assert_allclose(model.user_factors_, exact_users(model), rtol=2e-3, atol=1e-5)


def test_scores_are_inner_products() -> None:
    X, y = world()
    model = make().fit(X, y)
    users, items = model.users_.encode(X["user_id"]), model.items_.encode(X["item_id"])
    expected = (model.user_factors_[users] * model.item_factors_[items]).sum(1)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-5, atol=1e-6)


def test_a_large_penalty_leaves_nothing_and_alpha_zero_counts_all_pairs_alike() -> None:
    X, y = world()
    assert np.abs(make(l2=1e6).fit(X, y).predict(X)).max() < 1e-3
    # With alpha = 0 weights do not matter: only who has what does.
    positive = y > 0
    first = make(alpha=0.0).fit(X[positive], y[positive])
    second = make(alpha=0.0).fit(X[positive], y[positive] * 7)
    np.testing.assert_array_equal(first.predict(X), second.predict(X))


@pytest.mark.parametrize(("name", "value"), [("l2", 0.0), ("alpha", -1.0), ("n_factors", 0), ("max_iter", 0)])
def test_impossible_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"'{name}' parameter of MatrixFactorization"):
        make(**{name: value}).fit(*world())


def test_a_known_history_folds_in_to_the_stored_factors() -> None:
    X, y = world()
    model = make().fit(X, y)
    # New users with the histories of known ones; their weights are those of `y` in column 2.
    rows = X[y > 0].assign(rating=y[y > 0])
    clicks = rows.assign(user_id=rows["user_id"] + 1000)
    known = rows["user_id"].unique()
    new = model.user_vectors(known + 1000, interactions=clicks)
    np.testing.assert_allclose(new, model.user_vectors(known), rtol=1e-4, atol=1e-6)
    found = model.recommend(known + 1000, k=3, interactions=clicks, exclude_seen=True)
    assert (found["path"] == "few-shot").all()


def test_few_shot_users_are_answered_after_items_were_added() -> None:
    model = make().fit(*world())
    before = model.user_vectors([1], interactions=pd.DataFrame({"user_id": [1], "item_id": ["i2"]}))
    model.add_items(["new"])
    clicks = pd.DataFrame({"user_id": [1, 1], "item_id": ["i2", "new"]})
    np.testing.assert_array_equal(model.user_vectors([1], interactions=clicks), before)
    assert model.predict(pd.DataFrame({"user_id": [100], "item_id": ["new"]})).tolist() == [0.0]


def test_explanations_sum_to_predictions() -> None:
    X, y = world()
    model = make().fit(X, y)
    model.add_items(["new"])
    asked = pd.DataFrame({"user_id": [100, 101, 7, 8, 100, 100], "item_id": ["i1", "i2", "i3", "i4", "new", "i5"]})
    clicks = pd.DataFrame({"user_id": [7, 7], "item_id": ["i1", "new"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        scores = model.predict(asked, interactions=clicks)
    told = model.explain(asked, interactions=clicks)
    np.testing.assert_allclose(told.groupby("row")["contribution"].sum(), scores, rtol=1e-3, atol=1e-5)
    hot = told[told["row"] == 0]
    assert hot["source"].value_counts().to_dict()["prior"] == 1
    hot = hot[hot["source"] == "history"]
    liked = X[(X["user_id"] == 100) & (y > 0)]
    assert set(hot["field"]) == set(liked["item_id"])
    weight = dict(zip(hot["field"], hot["weight"], strict=True))
    for item, rating in zip(liked["item_id"], y[liked.index], strict=True):
        assert weight[item] == pytest.approx(1 + 3 * rating)
    assert told[told["row"] == 3]["source"].tolist() == ["prior"]


def test_partial_fit_learns_of_new_users_and_items() -> None:
    # Enough rounds to converge: fits of fewer differ between seeds as well.
    X, y = world()
    liked = X[y > 0]
    first = liked["user_id"] < 120
    model = make(max_iter=45).fit(liked[first])
    more = pd.concat([liked[~first], pd.DataFrame({"user_id": [100, 102, 104, 106], "item_id": ["fresh"] * 4})])
    model.partial_fit(more)
    assert len(model.user_factors_) == len(model.users_) == 30
    assert len(model.item_factors_) == len(model.items_) == 21
    np.testing.assert_allclose(model.user_factors_, exact_users(model), rtol=2e-3, atol=1e-5)
    # Of the group that took it, those who have not; and the other group.
    others = np.array([user for user in liked["user_id"].unique() if user not in (100, 102, 104, 106)])
    scores = model.predict(pd.DataFrame({"user_id": others, "item_id": "fresh"}))
    assert scores[others % 2 == 0].mean() > 2 * scores[others % 2 == 1].mean()
    anew = make(max_iter=45).fit(pd.concat([liked[first], more]))
    hot = pd.DataFrame(
        {"user_id": np.repeat(liked["user_id"].unique(), 20), "item_id": [f"i{i}" for i in range(20)] * 30}
    )
    assert np.corrcoef(model.predict(hot), anew.predict(hot))[0, 1] > 0.999


def test_tells_groups_apart_where_popularity_does_not() -> None:
    X, y = world()
    held = np.random.default_rng(1).random(len(X)) < 0.2
    train = X[~held], y[~held]
    assert make(l2=5.0).fit(*train).score(X[held], y[held]) > Popularity().fit(*train).score(X[held], y[held])


def test_two_fits_agree_bit_for_bit() -> None:
    X, y = world()
    first, second, other = make().fit(X, y), make().fit(X, y), make(random_state=1).fit(X, y)
    np.testing.assert_array_equal(first.user_factors_, second.user_factors_)
    np.testing.assert_array_equal(first.item_factors_, second.item_factors_)
    assert not np.array_equal(first.item_factors_, other.item_factors_)
    seeded = make(random_state=np.random.RandomState(0)).fit(X, y)
    np.testing.assert_array_equal(first.item_factors_, seeded.item_factors_)


def features(X: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Attributes that tell the groups, of known users and items and of one new user and item of each group."""
    users, items = [*sorted(X["user_id"].unique()), 900, 901], [*sorted(X["item_id"].unique()), "n0", "n1"]
    return {
        "user_features": pd.DataFrame({"club": [["chess", "darts"][u % 2] for u in users]}, index=users),
        "item_features": pd.DataFrame({"kind": [["board", "bar"][int(i[1:]) % 2] for i in items]}, index=items),
    }


@pytest.mark.parametrize("loss", ["als", "bpr"])
def test_warm_users_and_items_are_of_their_group(loss: str) -> None:
    X, y = world()
    model = make(loss=loss, feature_l2=1.0).fit(X[y > 0], **features(X))
    asked = pd.DataFrame({"user_id": np.repeat([900, 901], 20), "item_id": [f"i{i}" for i in range(20)] * 2})
    scores = model.predict(asked).reshape(2, 20)
    even = np.arange(20) % 2 == 0
    assert scores[0, even].mean() > scores[0, ~even].mean()
    assert scores[1, ~even].mean() > scores[1, even].mean()
    hot = np.sort(X.loc[y > 0, "user_id"].unique())
    warm = pd.DataFrame({"user_id": np.tile(hot, 2), "item_id": np.repeat(["n0", "n1"], len(hot))})
    of_items = model.predict(warm).reshape(2, -1)
    assert (of_items[0] > of_items[1])[hot % 2 == 0].mean() > 0.7
    assert (of_items[1] > of_items[0])[hot % 2 == 1].mean() > 0.7
    # The same features that join later give the same vectors.
    later = features(X)["item_features"].loc[["n0", "n1"]].set_axis(["m0", "m1"])
    model.add_items(later)
    vectors = model.item_vectors(["n0", "n1", "m0", "m1"])
    np.testing.assert_array_equal(vectors[:2], vectors[2:])


def test_als_with_features_is_at_the_optimum_of_its_users() -> None:
    X, y = world()
    model = make(max_iter=60).fit(X, y, **features(X))
    weights, items = model.history_.toarray().astype(np.float64), model.item_factors_.astype(np.float64)
    means = model.user_features_.matrix @ model.user_coefficients_ + model.user_intercept_
    counted = np.asarray((model.history_ > 0).sum(axis=0)).ravel() > 0
    for user, row in enumerate(weights):
        if not (row > 0).any():
            np.testing.assert_allclose(model.user_factors_[user], means[user], rtol=1e-5)
            continue
        confidence = np.where(row > 0, 1 + 3 * row, 0)
        system = items[counted].T @ items[counted] + items.T @ np.diag(3 * row) @ items + 0.5 * np.eye(4)
        expected = np.linalg.solve(system, items.T @ confidence + 0.5 * means[user])
        np.testing.assert_allclose(model.user_factors_[user], expected, rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("loss", ["als", "bpr"])
def test_explanations_with_features_sum_to_predictions(loss: str) -> None:
    X, y = world()
    model = make(loss=loss).fit(X, y, **features(X))
    asked = pd.DataFrame({"user_id": [100, 900, 7, 101, 7], "item_id": ["i1", "i2", "i3", "n0", "n1"]})
    clicks = pd.DataFrame({"user_id": [7, 7], "item_id": ["i1", "n0"]})
    told = model.explain(asked, interactions=clicks)
    scores = model.predict(asked, interactions=clicks)
    np.testing.assert_allclose(told.groupby("row")["contribution"].sum(), scores, rtol=1e-3, atol=1e-5)
    assert set(told.loc[told["row"] == 1, "field"]) == {"club", "average user"}
    assert set(told.loc[told["row"] == 2, "field"]) == {"i1", "n0", "average user"}
    own = told[(told["row"] == 0) & (told["field"] == "id")]
    assert len(own) == (loss == "bpr")


def test_bpr_answers_short_histories_and_agrees_with_itself() -> None:
    X, y = world()
    model = make(loss="bpr", max_iter=30).fit(X[y > 0])
    twin = make(loss="bpr", max_iter=30).fit(X[y > 0])
    np.testing.assert_array_equal(model.user_factors_, twin.user_factors_)
    clicks = pd.DataFrame({"user_id": [1, 2], "item_id": ["i2", "i3"]})
    asked = pd.DataFrame({"user_id": np.repeat([1, 2], 20), "item_id": [f"i{i}" for i in range(20)] * 2})
    scores = model.predict(asked, interactions=clicks).reshape(2, 20)
    even = np.arange(20) % 2 == 0
    assert scores[0, even].mean() - scores[0, ~even].mean() > scores[1, even].mean() - scores[1, ~even].mean()


def test_partial_fit_after_another_number_of_factors_starts_afresh() -> None:
    X, y = world()
    model = make().fit(X, y).set_params(n_factors=6)
    model.partial_fit(X, y)
    assert model.item_factors_.shape[1] == 6
    np.testing.assert_allclose(model.user_factors_, exact_users(model), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("loss", ["als", "bpr"])
def test_newer_features_of_a_hot_user_count(loss: str) -> None:
    X, y = world()
    told = features(X)
    model = make(loss=loss, feature_l2=1.0).fit(X, y, **told)
    newer = told["user_features"].loc[[100]].assign(club="darts")
    asked = X[X["user_id"].isin([100, 102])].head(6)
    before, after = model.predict(asked), model.predict(asked, user_features=newer)
    of_user = (asked["user_id"] == 100).to_numpy()
    assert (before[of_user] != after[of_user]).all()
    np.testing.assert_allclose(before[~of_user], after[~of_user], rtol=1e-5)
    parts = model.explain(asked, user_features=newer).groupby("row")["contribution"].sum()
    np.testing.assert_allclose(parts, after, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(model.predict(asked, user_features=told["user_features"]), before)


def test_the_threads_of_blas_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user_id": rng.integers(0, 700, 20_000), "item_id": rng.integers(0, 1300, 20_000)})
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(make(n_factors=32, max_iter=2).fit(X))
    np.testing.assert_array_equal(found[0].user_factors_, found[1].user_factors_)
    np.testing.assert_array_equal(found[0].item_gram_, found[1].item_gram_)


@pytest.mark.parametrize(("params", "weight"), [({}, 1e20), ({"loss": "bpr", "learning_rate": 1e20}, 1.0)])
def test_what_single_precision_does_not_hold_is_refused(params: dict[str, Any], weight: float) -> None:
    X, _ = world()
    with pytest.raises(InvalidInputError, match=r"too small for these weights|factors are not finite"):
        make(**params).fit(X, np.full(len(X), weight))

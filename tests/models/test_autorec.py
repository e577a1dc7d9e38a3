from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from recsys import EASE, FeatureTable, Popularity
from recsys._sparse import Csr
from recsys.base import BaseRecommender
from recsys.exceptions import InvalidInputError
from recsys.models._als import als_half_step
from recsys.models.autorec import AutoRec, _solve
from tests.models.worlds import assert_better, movielens_like, ndcg_at_10

N = 40
KINDS: dict[str, dict[str, Any]] = {
    "user": {},
    "item": {"kind": "item"},
    "multinomial": {"loss": "multinomial"},
    "variational": {"loss": "multinomial", "kl_weight": 0.02},
    "ratings": {"unobserved_weight": 0.0},
    "ratings by item": {"unobserved_weight": 0.0, "kind": "item"},
}
every = pytest.mark.parametrize("kind", KINDS)
RANKING = ["user", "item", "multinomial", "variational"]
ranking = pytest.mark.parametrize("kind", RANKING)


def world(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Users like half of the items of their parity; features tell the parity. The last two of each are warm."""
    rng = np.random.default_rng(seed)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(N), np.arange(N), indexing="ij"))
    kept = (user % 2 == item % 2) & (rng.random(len(user)) < 0.5) & (user < N - 2) & (item < N - 2)
    X = pd.DataFrame({"user_id": user[kept], "item_id": [f"i{i}" for i in item[kept]]})
    parity = np.arange(N) % 2
    users = pd.DataFrame({"club": np.where(parity, "tennis", "chess")}, index=pd.Index(np.arange(N), name="user_id"))
    items = pd.DataFrame(
        {"genres": [["ball", "loud"] if odd else ["calm"] for odd in parity], "price": 5.0 + parity},
        index=pd.Index([f"i{i}" for i in range(N)], name="item_id"),
    )
    return X, users, items


def make(kind: str = "user", **params: Any) -> AutoRec:
    small = {"n_factors": 8, "l2": 0.1, "max_iter": 40, "learning_rate": 0.01, "random_state": 0}
    return AutoRec(**(small | KINDS[kind] | params))


def fitted(kind: str = "user", y: Any = None, **params: Any) -> AutoRec:
    X, users, items = world()
    told = {"user_features": FeatureTable(users), "item_features": FeatureTable(items)}
    return make(kind, **params).fit(X, y, **told)


def parity(found: pd.DataFrame) -> Any:
    return found["item_id"].str[1:].astype(int).to_numpy() % 2


@ranking
def test_hot_few_shot_and_warm_users_get_the_items_of_their_parity(kind: str) -> None:
    model = fitted(kind)
    clicks = pd.DataFrame({"user_id": [900, 901], "item_id": ["i4", "i5"]})
    hot = world()[0]["item_id"].unique()
    found = model.recommend([2, 3, 900, 901, N - 2, N - 1], k=8, interactions=clicks, candidates=hot)
    assert found["path"].astype(str).unique().tolist() == ["hot", "few-shot", "warm"]
    np.testing.assert_array_equal(parity(found), np.tile(np.repeat([0, 1], 8), 3))


@ranking
def test_warm_and_added_items_go_to_the_users_of_their_parity(kind: str) -> None:
    model = fitted(kind)
    late = pd.DataFrame({"genres": [["calm"], ["ball", "loud"]], "price": [5.0, 6.0]}, index=["i100", "i101"])
    model.add_items(late)
    users = list(range(N - 2))
    for items in (["i38", "i39"], ["i100", "i101"]):
        found = model.recommend(users, k=1, candidates=items)
        np.testing.assert_array_equal(parity(found), np.arange(N - 2) % 2)
    # What content says of an item does not depend on when it came.
    pairs = pd.DataFrame({"user_id": users * 2, "item_id": ["i38"] * len(users) + ["i100"] * len(users)})
    warm, added = model.predict(pairs).reshape(2, -1)
    np.testing.assert_allclose(added, warm, rtol=1e-5, atol=1e-6)


def test_by_user_the_score_is_the_formula() -> None:
    model = fitted()
    X, _, _ = world()
    network = {name: weights.numpy().astype(np.float64) for name, weights in model.network_.state_dict().items()}
    history = model.history_.toarray()
    lengths = (history > 0).sum(1)
    z = history / np.sqrt(np.maximum(lengths, 1))[:, None] @ model.history_vectors_ + network["bias"]
    z += model.user_features_.matrix @ network["attributes"] + np.log1p(lengths)[:, None] * network["evidence"]
    expected = np.tanh(z) @ model.item_vectors_[:, :-1].T + model.item_vectors_[:, -1]
    asked = model.users_.encode(X["user_id"]), model.items_.encode(X["item_id"])
    np.testing.assert_allclose(model.predict(X), expected[asked], rtol=1e-4, atol=1e-5)
    # A hot item has the share n / (n + 1) of its vector from the network.
    counts = (history > 0).sum(0)[model.columns_]
    learned = np.column_stack([network["outputs"], network["biases"]])
    from_content = model.item_vectors_[model.columns_] * (counts + 1)[:, None] - learned * counts[:, None]
    items = model.item_features_.take(model.columns_)
    np.testing.assert_allclose(from_content, model._from_content(items)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_by_item_users_are_those_of_alternating_least_squares(weight: float) -> None:
    model = fitted("item", unobserved_weight=weight)
    hot = np.diff(model.history_.T.tocsr().indptr) > 0
    history = Csr(model.history_)[:, hot]
    expected = np.asarray(model.user_features_.matrix @ model.readout_["coefficients"]) + model.readout_["intercept"]
    solved = als_half_step(
        history,
        model.item_vectors_[hot],
        alpha=(1 - weight) / weight,
        regularization=5 * model.l2 / weight,
        prior=expected.astype(np.float32),
        solver="cholesky",
    )
    some = np.diff(history.indptr) > 0
    np.testing.assert_allclose(model.user_vectors_[some], solved[some], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model.user_vectors_[~some], expected[~some], rtol=1e-5)


@given(seed=st.integers(0, 500), weight=st.sampled_from([0.0, 0.3, 1.0]), l2=st.sampled_from([0.1, 10.0]))
def test_the_regression_on_codes_is_that_of_a_loop_over_users(seed: int, weight: float, l2: float) -> None:
    rng = np.random.default_rng(seed)
    items = rng.standard_normal((6, 3)).astype(np.float32)
    targets = (rng.random((4, 6)) < 0.4) * rng.integers(1, 6, (4, 6)).astype(np.float32)
    prior = rng.standard_normal((4, 3)).astype(np.float32)
    found = _solve(Csr(targets), items, items.T @ items, prior, weight, l2)
    for row in range(4):
        confidence = np.where(targets[row] > 0, 1, weight)
        system = items.T.astype(np.float64) @ (confidence[:, None] * items) + l2 * np.eye(3)
        expected = np.linalg.solve(system, items.T @ targets[row] + l2 * prior[row])
        if not targets[row].any():
            expected = prior[row]
        np.testing.assert_allclose(found[row], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["ratings", "ratings by item"])
def test_without_weight_on_unseen_items_ratings_are_predicted(kind: str) -> None:
    X, _, _ = world()
    rng = np.random.default_rng(0)
    # Items of i0 to i19 are good, the others bad; who rates is of no account.
    good = X["item_id"].str[1:].astype(int) < 20
    y = np.where(good, 4.5, 1.5) + rng.choice([-0.5, 0.5], len(X))
    held = rng.random(len(X)) < 0.2
    for scale in (1.0, 1e20):
        model = make(kind, max_iter=60).fit(X[~held], y[~held] * scale)
        known = X["item_id"].isin(X.loc[~held, "item_id"])
        error = (model.predict(X[held & known]).astype(np.float64) / scale - y[held & known]) ** 2
        assert np.sqrt(error.mean()) < 1.0
        assert np.sqrt(np.mean((y[held & known] - y.mean()) ** 2)) > 1.4


@pytest.mark.parametrize("kind", ["user", "item", "multinomial"])
def test_weights_do_not_matter_otherwise(kind: str) -> None:
    X, _, _ = world()
    y = np.random.default_rng(0).choice([1e-30, 1.0, 1e30], len(X))
    np.testing.assert_array_equal(make(kind, max_iter=3).fit(X, y).predict(X), make(kind, max_iter=3).fit(X).predict(X))


@every
def test_explanations_sum_to_predictions(kind: str) -> None:
    X, _, _ = world()
    model = fitted(kind, y=np.arange(len(X)) % 5 + 1.0)
    model.add_items(["bare"])
    clicks = pd.DataFrame({"user_id": [900, 0], "item_id": ["i4", "i6"]})
    asked = pd.DataFrame({"user_id": [0, 1, 900, N - 2, 0, N - 1], "item_id": ["i0", "i2", "i9", "i5", "i38", "bare"]})
    scores = model.predict(asked, interactions=clicks)
    told = model.explain(asked, interactions=clicks)
    sums = told.groupby("row")["contribution"].sum().reindex(range(len(asked)), fill_value=0)
    np.testing.assert_allclose(sums, scores, rtol=1e-3, atol=1e-5)
    encoded = KINDS[kind].get("kind", "user")
    assert set(told["source"]) == {encoded, "prior"}
    fields = {"club"} if encoded == "user" else {"genres", "price"}
    assert set(told["field"]) == {"history", "number of interactions", "average", "bias"} | fields
    assert (told["weight"] > 0).all()


def test_histories_of_few_tell_more_than_nothing_of_features() -> None:
    model = fitted()
    asked = pd.DataFrame({"user_id": [N - 2, N - 2], "item_id": ["i0", "i1"]})
    told = model.explain(asked)
    club = told[told["field"] == "club"].set_index("row")["contribution"]
    # A chess player is drawn to even items by that and by nothing else.
    assert club[0] > club[1]
    assert "history" not in set(told["field"])


def test_multinomial_by_item_is_refused_in_words() -> None:
    with pytest.raises(InvalidInputError, match='`loss` is "multinomial" with `kind` "item"; expected kind="user"'):
        make(kind="multinomial", max_iter=1).set_params(kind="item").fit(world()[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [("kind", "both"), ("loss", "bpr"), ("n_factors", 0), ("l2", 0.0), ("unobserved_weight", 1.5), ("dropout", 1.0)],
)
def test_impossible_parameters_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"'{name}' parameter of AutoRec"):
        AutoRec(**{name: value}).fit(world()[0])


@every
def test_two_fits_agree_bit_for_bit(kind: str) -> None:
    first, second, other = fitted(kind), fitted(kind), fitted(kind, random_state=1)
    np.testing.assert_array_equal(first.item_vectors_, second.item_vectors_)
    np.testing.assert_array_equal(first.user_vectors([0, 7, N - 1]), second.user_vectors([0, 7, N - 1]))
    assert first.loss_curve_ == second.loss_curve_
    assert len(first.loss_curve_) == first.n_iter_ == 40
    assert not np.array_equal(first.item_vectors_, other.item_vectors_)


@ranking
def test_partial_fit_grows_and_keeps_what_was_learned(kind: str) -> None:
    X, users, items = world()
    held = np.random.default_rng(1).random(len(X)) < 0.2
    told: dict[str, Any] = {"user_features": FeatureTable(users), "item_features": FeatureTable(items)}
    model = make(kind).fit(X[~held], **told)
    before = model.score(X[held])
    day2 = pd.DataFrame({"user_id": [0, 2, 4, 6, 1000], "item_id": ["fresh"] * 4 + ["i2"]})
    calm = pd.DataFrame({"genres": [["calm"]], "price": [5.0]}, index=["fresh"])
    model.partial_fit(day2, item_features=calm)
    assert model.n_iter_ == 13
    assert len(model.item_vectors_) == len(model.items_) == N + 1
    assert model.score(X[held]) > before - 0.1
    even, odd = model.predict(pd.DataFrame({"user_id": [8, 9], "item_id": ["fresh", "fresh"]}))
    assert even > odd
    assert (model.recommend([1000], k=5)["path"] == "hot").all()


SMALL = pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3, 4], "item_id": ["a", "b", "a", "c", "b", "c", "d"]})
COLOURS = pd.DataFrame({"kind": ["x", "y", "x", "y", "x"]}, index=pd.Index(list("abcde"), name="item_id"))
AGES = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0, 5.0]}, index=pd.Index([1, 2, 3, 4, 5], name="user_id"))
LITTLE: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "no features": (SMALL, {}),
    "features of users": (SMALL, {"user_features": AGES}),
    "features of items": (SMALL, {"item_features": COLOURS}),
    "no value in a field": (SMALL, {"item_features": COLOURS.assign(kind=np.nan)}),
    "constant features": (SMALL, {"item_features": COLOURS.assign(kind="x"), "user_features": AGES.assign(age=7.0)}),
    "features of equal rank": (SMALL, {"item_features": COLOURS.assign(same=COLOURS["kind"])}),
    "one user": (SMALL[:2], {}),
    "one item": (SMALL[SMALL["item_id"] == "a"], {"item_features": COLOURS}),
    "one interaction": (SMALL[:1], {"item_features": COLOURS, "user_features": AGES}),
    "a user with all items": (pd.DataFrame({"user_id": [1] * 4 + [2], "item_id": [*"abcd", "a"]}), {}),
}


@every
@pytest.mark.parametrize("title", LITTLE)
def test_little_data(kind: str, title: str) -> None:
    X, told = LITTLE[title]
    model = make(kind, max_iter=3).fit(X, **{name: FeatureTable(frame) for name, frame in told.items()})
    found = model.recommend(X["user_id"].unique(), k=10, exclude_seen=False)
    assert len(found) == X["user_id"].nunique() * len(model.items_)
    assert np.isfinite(found["score"]).all()
    sums = model.explain(X).groupby("row")["contribution"].sum()
    np.testing.assert_allclose(sums, model.predict(X), rtol=1e-3, atol=1e-5)


def test_divergence_is_told_and_leaves_finite_predictions() -> None:
    X, _, _ = world()
    with pytest.warns(ConvergenceWarning, match=r"diverged in epoch \d.*lower `learning_rate`") as caught:
        model = make(learning_rate=1e30).fit(X)
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    assert model.n_iter_ < 40
    assert np.isfinite(model.predict(X)).all()


@cache
def trained(kind: str) -> BaseRecommender:
    ml, train, _, _ = movielens_like()
    models = {"EASE": EASE(), "Popularity": Popularity(), "user": AutoRec(random_state=0)}
    model = models.get(kind) or AutoRec(random_state=0, **KINDS[kind])
    told = {"user_features": FeatureTable(ml.users), "item_features": FeatureTable(ml.items)}
    fitted: BaseRecommender = model.fit(train, **told)
    return fitted


def test_beats_popularity_for_warm_users() -> None:
    _, train, of_new_users, _ = movielens_like()
    told = {"candidates": train["item_id"].unique()}
    assert_better(*(ndcg_at_10(trained(kind), of_new_users, **told) for kind in ("user", "Popularity")))


@pytest.mark.parametrize("kind", ["user", "item"])
@pytest.mark.parametrize("n_shown", [2, 5])
def test_beats_popularity_for_few_shot_users(kind: str, n_shown: int) -> None:
    _, train, of_new_users, _ = movielens_like()
    shown = of_new_users.groupby("user_id").cumcount() < n_shown
    told = {"interactions": of_new_users[shown], "candidates": train["item_id"].unique()}
    assert_better(*(ndcg_at_10(trained(name), of_new_users[~shown], **told) for name in (kind, "Popularity")))


@pytest.mark.parametrize("kind", ["user", "item"])
def test_beats_models_without_features_for_warm_items(kind: str) -> None:
    _, _, _, of_new_items = movielens_like()
    told = {"candidates": of_new_items["item_id"].unique()}
    assert_better(*(ndcg_at_10(trained(name), of_new_items, **told) for name in (kind, "EASE")))


@pytest.mark.parametrize("changed", [{"n_factors": 6}, {"kind": "item"}])
@pytest.mark.parametrize("told", [True, False])
def test_partial_fit_after_another_shape_starts_afresh(changed: dict[str, Any], told: bool) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user_id": rng.integers(0, 30, 200), "item_id": rng.integers(0, 20, 200)})
    users = FeatureTable(pd.DataFrame({"age": rng.random(30)}, index=pd.RangeIndex(30, name="user_id")))
    features = {"user_features": users} if told else {}
    model = AutoRec(n_factors=4, max_iter=3, random_state=0).fit(X, **features)
    model.set_params(**changed).partial_fit(X.head(5))
    fresh = AutoRec(**{"n_factors": 4, "max_iter": 1, "random_state": 0} | changed).fit(X, **features)
    np.testing.assert_allclose(model.predict(X), fresh.predict(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n_rows", "expected"), [(200, 25), (40_000, 1250)])
def test_an_epoch_of_many_rows_has_few_steps(n_rows: int, expected: int) -> None:
    targets = Csr(np.ones((n_rows, 1), dtype=np.float32))
    assert AutoRec()._recipe(targets, warm=False).batch_size == expected
    # A softmax takes rows times columns at once, so its steps stay small.
    assert AutoRec(loss="multinomial")._recipe(targets, warm=False).batch_size == min(expected, 512)
    assert AutoRec(batch_size=7)._recipe(targets, warm=False).batch_size == 7

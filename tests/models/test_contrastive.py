from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from recsys import ContentEASE, ContentKNN, ContrastiveRecommender, FeatureTable, Popularity, load
from recsys.base import BaseRecommender
from recsys.datasets import make_movielens_like
from recsys.exceptions import InvalidInputError
from tests.models.worlds import assert_better, movielens_like, ndcg_at_10, sums_to_predictions, two_groups

N = 32


def make(**params: Any) -> ContrastiveRecommender:
    return ContrastiveRecommender(
        **({"n_factors": 8, "max_iter": 12, "learning_rate": 0.01, "random_state": 0} | params)
    )


def fitted(*, context: bool = False, **params: Any) -> ContrastiveRecommender:
    X, users, items = two_groups(N, context=context)
    return make(**params).fit(X, user_features=FeatureTable(users), item_features=FeatureTable(items))


@pytest.mark.parametrize("context", [False, True])
def test_explanations_sum_to_predictions(context: bool) -> None:
    model = fitted(context=context, tower_weight=0.5)
    model.add_items(pd.DataFrame({"genres": [["ball"]]}, index=["late"]))
    X = pd.DataFrame({"user_id": [0, 7, 500, 600, 0, 0], "item_id": ["i2", "i1", "i3", "i5", "i7", "late"]})
    if context:
        X["daytime"] = ["morning", "evening", None, "morning", "noon", "evening"]
    clicks = pd.DataFrame({"user_id": [500, 0], "item_id": ["i1", "late"]})
    explained = sums_to_predictions(model, X, interactions=clicks)
    in_history = explained["source"] == "history"
    fields = {row: set(part["source"] + " " + part["field"]) for row, part in explained[~in_history].groupby("row")}
    of_user = {"user club", "user age", "prior average user"} | ({"user daytime"} if context else set())
    of_item = {"item id", "item genres", "prior average item"}
    of_history = {"user history", "user similar users", "user fields together"}
    assert fields[0] == {"user id"} | of_history | of_user | of_item
    # Without a history there is nobody to compare with; the context is corrected for all the same.
    assert fields[1] == of_user | of_item | ({"user fields together"} if context else set())
    assert fields[2] == {"prior average user"} | of_history | of_item
    assert fields[3] == {"prior popularity"}
    # A warm item has no id to speak of; an unseen value of the context tells nothing.
    assert fields[4] == {"user id"} | of_history | (of_user - {"user daytime"}) | (of_item - {"item id"})
    assert fields[5] == {"user id"} | of_history | of_user | (of_item - {"item id"})
    assert explained["weight"].between(0, 1).all()
    # The items of the history are told one by one.
    assert set(explained.loc[in_history & (explained["row"] == 2), "field"]) == {"i1"}


def test_explanation_of_unknown_items_and_without_features() -> None:
    model = fitted()
    told = pd.DataFrame({"genres": [["calm"]]}, index=pd.Index(["unheard"], name="item_id"))
    X = pd.DataFrame({"user_id": [0, 1], "item_id": ["unheard", "unheard of"]})
    sums_to_predictions(model, X, item_features=told)
    bare = make(max_iter=3).fit(two_groups(N)[0])
    explained = sums_to_predictions(bare, two_groups(N)[0][:20])
    of_fields = explained[explained["source"] != "history"]
    names = {"id", "history", "similar users", "fields together", "average user", "average item"}
    assert set(of_fields["field"]) == names


def test_warm_items_and_users_of_the_right_group_come_first() -> None:
    # The penalties of thousands of users would drown what 28 are like.
    model = fitted(l2=30.0, attribute_l2=3.0)
    warm = [f"i{i}" for i in range(N) if i % 8 == 7]
    model.add_items(pd.DataFrame({"genres": [["board", "calm"]]}, index=["even"]))
    # All warm items of the data are of the odd group; the added one is of the even group.
    X = pd.DataFrame({"user_id": np.repeat([0, 2, 1, 3], 5), "item_id": [*warm, "even"] * 4})
    scores = model.predict(X).reshape(4, 5)
    assert (scores[:2, 4:] > scores[:2, :4]).all()
    assert (scores[2:, 4:] < scores[2:, :4]).all()
    found = model.recommend([7, 15], k=10, exclude=["even"])
    assert (found["path"] == "warm").all()
    assert (found["item_id"].str[1:].astype(int) % 2 == 1).all()
    few = model.recommend(
        [900], k=5, exclude=["even"], interactions=pd.DataFrame({"user_id": [900, 900], "item_id": ["i0", "i2"]})
    )
    assert (few["item_id"].str[1:].astype(int) % 2 == 0).all()


@cache
def trained(kind: type[BaseRecommender]) -> BaseRecommender:
    ml, train, _, _ = movielens_like()
    model = make(n_factors=32, max_iter=15, learning_rate=0.005) if kind is ContrastiveRecommender else kind()
    fitted: BaseRecommender = model.fit(
        train, user_features=FeatureTable(ml.users), item_features=FeatureTable(ml.items)
    )
    return fitted


def test_beats_popularity_for_warm_users() -> None:
    _, train, of_new_users, _ = movielens_like()
    allowed = {"candidates": train["item_id"].unique()}
    scores = [ndcg_at_10(trained(kind), of_new_users, **allowed) for kind in (ContrastiveRecommender, Popularity)]
    assert_better(*scores)


@pytest.mark.parametrize("n_shown", [2, 5])
def test_beats_popularity_for_few_shot_users(n_shown: int) -> None:
    _, train, of_new_users, _ = movielens_like()
    shown = of_new_users.groupby("user_id").cumcount() < n_shown
    told = {"interactions": of_new_users[shown], "candidates": train["item_id"].unique()}
    wanted = of_new_users[~shown]
    assert_better(*(ndcg_at_10(trained(kind), wanted, **told) for kind in (ContrastiveRecommender, Popularity)))


def test_beats_content_neighbours_for_warm_items() -> None:
    _, _, _, of_new_items = movielens_like()
    told = {"candidates": of_new_items["item_id"].unique()}
    assert_better(*(ndcg_at_10(trained(kind), of_new_items, **told) for kind in (ContrastiveRecommender, ContentKNN)))


def test_context_decides_the_item() -> None:
    model = fitted(context=True)
    X = two_groups(N)[0]
    hot = X["item_id"].unique()
    for user in (0, 1):
        asked = pd.DataFrame({"daytime": ["morning", "evening"]})
        found = model.recommend([user, user], k=3, context=asked, candidates=hot, exclude_seen=False)
        item = found["item_id"].str[1:].astype(int).to_numpy()
        assert (item % 2 == user).all()
        assert (item[:3] % 4 < 2).all()
        assert (item[3:] % 4 >= 2).all()
    unknown = model.recommend([0], k=5, exclude_seen=False)
    assert (unknown["item_id"].str[1:].astype(int) % 2 == 0).all()


def test_partial_fit_grows_and_keeps_what_was_learned() -> None:
    X, users, items = two_groups(N)
    told: dict[str, Any] = {"user_features": FeatureTable(users), "item_features": FeatureTable(items)}
    held = np.random.default_rng(1).random(len(X)) < 0.2
    model = make(max_iter=30).fit(X[~held], **told)
    before = model.score(X[held])
    day2 = pd.DataFrame({"user_id": [0, 2, 4, 6, 1000], "item_id": ["fresh"] * 4 + ["i2"]})
    model.partial_fit(day2, item_features=pd.DataFrame({"genres": [["calm"]]}, index=["fresh"]))
    assert model.n_iter_ == 10
    assert model.towers_ is not None
    assert len(model.towers_.user_ids) == len(model.users_) == N + 1
    assert len(model.towers_.item_ids) == len(model.items_) == len(model.item_vectors_) == N + 1
    assert model.score(X[held]) > before - 0.1
    even, odd = model.predict(pd.DataFrame({"user_id": [8, 9], "item_id": ["fresh", "fresh"]}))
    assert even > odd
    assert (model.recommend([1000], k=5)["path"] == "hot").all()


@pytest.mark.parametrize("context", [False, True])
def test_early_stopping(context: bool) -> None:
    model = fitted(context=context, early_stopping=True, n_iter_no_change=2, max_iter=8, validation_fraction=0.2)
    assert 1 <= model.n_iter_ <= 8
    assert len(model.loss_curve_) == model.n_iter_
    again = fitted(context=context, early_stopping=True, n_iter_no_change=2, max_iter=8, validation_fraction=0.2)
    np.testing.assert_array_equal(model.item_vectors_, again.item_vectors_)


SMALL = pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3, 4], "item_id": ["a", "b", "a", "c", "b", "c", "d"]})
KINDS = pd.DataFrame({"kind": ["x", "y", "x", "y", "x"]}, index=pd.Index(list("abcde"), name="item_id"))
NOTHING = pd.DataFrame({"kind": [np.nan] * 5}, index=KINDS.index)
ZEROS = pd.DataFrame({"kind": [np.zeros(3)] * 5}, index=KINDS.index)
AGES = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0, 5.0]}, index=pd.Index([1, 2, 3, 4, 5], name="user_id"))


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize(
    ("X", "told"),
    [
        (SMALL, {}),
        (SMALL, {"user_features": AGES}),
        (SMALL, {"item_features": KINDS}),
        (SMALL, {"item_features": NOTHING}),
        (SMALL, {"item_features": ZEROS}),
        (SMALL, {"item_features": KINDS.assign(other=np.nan)}),
        (SMALL[:2], {}),
        (SMALL[SMALL["item_id"] == "a"], {"item_features": KINDS}),
        (SMALL[:1], {}),
        (SMALL[:1], {"item_features": KINDS, "user_features": AGES}),
        (SMALL.assign(daytime=np.nan), {}),
    ],
    ids=[
        "no features",
        "features of users alone",
        "features of items alone",
        "no value in a field",
        "a vector of zeros",
        "no value in one of two fields",
        "one user",
        "one item",
        "one interaction",
        "one interaction, many warm items",
        "no value in the context",
    ],
)
def test_little_data(X: pd.DataFrame, told: dict[str, Any], early_stopping: bool) -> None:
    model = make(max_iter=3, early_stopping=early_stopping)
    model.fit(X, **{name: FeatureTable(frame) for name, frame in told.items()})
    assert np.isfinite(sums_to_predictions(model, X)["contribution"]).all()
    assert np.isfinite(model.item_vectors_).all()
    found = model.recommend(X["user_id"].unique(), k=10, exclude_seen=False)
    assert len(found) == X["user_id"].nunique() * len(model.items_)
    assert 1 <= model.n_iter_ <= 3


def test_without_positives_there_is_nothing_to_learn() -> None:
    with pytest.raises(InvalidInputError, match="none of the 7 rows of `X` a positive"):
        make().fit(SMALL, np.zeros(7))


def test_constant_ratings_are_positives() -> None:
    first, second = make(max_iter=3).fit(SMALL), make(max_iter=3).fit(SMALL, np.full(7, 3.0))
    np.testing.assert_array_equal(first.item_vectors_, second.item_vectors_)


@pytest.mark.parametrize("learning_rate", [1e6, 1e2])
def test_divergence_is_told_and_leaves_finite_predictions(learning_rate: float) -> None:
    ml = make_movielens_like(200, 120, 4000, random_state=0)
    X = ml.interactions[["user_id", "item_id"]]
    model = make(learning_rate=learning_rate, max_iter=6)
    with pytest.warns(ConvergenceWarning, match=r"diverged in epoch \d.*lower `learning_rate`") as caught:
        model.fit(X, user_features=FeatureTable(ml.users), item_features=FeatureTable(ml.items))
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    assert model.n_iter_ < 6
    assert np.isfinite(model.predict(X)).all()


def test_a_sample_of_the_catalogue_is_enough() -> None:
    model = fitted(n_negatives=6, max_iter=30)
    found = model.recommend(range(6), k=8)
    right = found["item_id"].str[1:].astype(int) % 2 == found["user_id"] % 2
    assert right.mean() > 0.9


@pytest.mark.parametrize("context", [False, True])
def test_saved_and_loaded_it_answers_the_same(context: bool, tmp_path: Path) -> None:
    model = fitted(context=context)
    model.add_items(pd.DataFrame({"genres": [["ball"]]}, index=["late"]))
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    users = [0, 7, 900]
    clicks = pd.DataFrame({"user_id": [900], "item_id": ["late"]})
    pd.testing.assert_frame_equal(
        loaded.recommend(users, interactions=clicks), model.recommend(users, interactions=clicks)
    )
    X = two_groups(N, context=context)[0]
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    # It can go on learning, just as the original.
    np.testing.assert_array_equal(loaded.partial_fit(X[:50]).predict(X), model.partial_fit(X[:50]).predict(X))


def test_two_fits_agree_bit_for_bit() -> None:
    first, second, other = fitted(), fitted(), fitted(random_state=1)
    np.testing.assert_array_equal(first.item_vectors_, second.item_vectors_)
    np.testing.assert_array_equal(first.user_vectors([0, 7]), second.user_vectors([0, 7]))
    assert first.loss_curve_ == second.loss_curve_
    assert not np.array_equal(first.item_vectors_, other.item_vectors_)


def test_threads_do_not_change_what_is_predicted() -> None:
    ml = make_movielens_like(400, 300, 9000, random_state=0)
    X = ml.interactions[["user_id", "item_id"]]
    model = make(n_factors=64, max_iter=1).fit(X, user_features=FeatureTable(ml.users))
    found = []
    before = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        with threadpool_limits(n):
            found.append(model.user_vectors(X["user_id"].unique()))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])


def test_a_random_state_is_drawn_from() -> None:
    state = np.random.RandomState(0)
    first, second = fitted(random_state=state), fitted(random_state=state)
    np.testing.assert_array_equal(first.item_vectors_, fitted().item_vectors_)
    assert not np.array_equal(first.item_vectors_, second.item_vectors_)


def test_without_its_parts_it_is_the_closed_form() -> None:
    X, users, _ = two_groups(N)
    told: dict[str, Any] = {"user_features": FeatureTable(users)}
    # With as many dimensions as there are items, and no content to choose, nothing depends on what is drawn.
    bare = make(n_factors=N, memory_weight=0, residual=False, tower_weight=0).fit(X, **told)
    closed = ContentEASE(n_factors=N, l2=bare.l2, attribute_l2=bare.attribute_l2).fit(X, **told)
    pairs = pd.DataFrame({"user_id": [0, 7, 500, 3], "item_id": ["i2", "i4", "i3", "i1"]})
    clicks = pd.DataFrame({"user_id": [500], "item_id": ["i1"]})
    expected = closed.predict(pairs, interactions=clicks)
    np.testing.assert_allclose(bare.predict(pairs, interactions=clicks), expected, rtol=1e-3, atol=1e-5)
    assert bare.towers_ is None
    assert bare.residual_ is None
    assert bare.memory_ is None
    assert bare.tower_vectors_.shape == (len(bare.items_), 0)
    assert set(bare.explain(pairs, interactions=clicks)["field"]) == set(
        closed.explain(pairs, interactions=clicks)["field"]
    )


@pytest.mark.parametrize(
    "switches", [{"memory_weight": 0}, {"residual": False}, {"tower_weight": 0}, {"tower_weight": 1}], ids=str
)
def test_each_part_has_a_switch(switches: dict[str, Any], tmp_path: Path) -> None:
    with_all, without = fitted(), fitted(**switches)
    pairs = pd.DataFrame({"user_id": [0, 1, 500, 500], "item_id": ["i2", "i1", "i3", "i7"]})
    told = {"interactions": pd.DataFrame({"user_id": [500, 500], "item_id": ["i1", "i5"]})}
    assert not np.allclose(with_all.predict(pairs, **told), without.predict(pairs, **told))
    fields = set(sums_to_predictions(without, pairs, **told)["field"])
    # What weighs nothing is left out.
    beside_towers = switches.get("tower_weight") != 1
    assert ("similar users" in fields) == ("memory_weight" not in switches and beside_towers)
    assert ("fields together" in fields) == ("residual" not in switches and beside_towers)
    assert ("average item" in fields) == (switches.get("tower_weight") != 0)
    without.add_items(pd.DataFrame({"genres": [["ball"]]}, index=["late"]))
    without.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(pairs, **told), without.predict(pairs, **told))
    # What is switched off comes with the next fit, and goes with it.
    X = two_groups(N)[0]
    without.set_params(**make().get_params()).partial_fit(X[:20])
    assert without.towers_ is not None
    assert without.residual_ is not None
    without.set_params(**switches).partial_fit(X[:20])
    assert hasattr(without, "tower_history_") == (switches.get("tower_weight") != 0)
    assert (without.towers_ is None) == (switches.get("tower_weight") == 0)


def test_the_more_is_known_of_a_user_the_less_others_say() -> None:
    ml, _, of_new_users, _ = movielens_like()
    model = trained(ContrastiveRecommender)
    history = of_new_users[of_new_users["user_id"] == of_new_users["user_id"].value_counts().index[0]]
    weights: dict[str, list[float]] = {"similar users": [], "fields together": []}
    for n in (1, 4, 16):
        asked = history.tail(1)
        told = model.explain(asked, interactions=history.head(n), user_features=FeatureTable(ml.users))
        for field, found in weights.items():
            found.append(told.loc[told["field"] == field, "weight"].item())
    assert isinstance(model, ContrastiveRecommender)
    evidence = np.array([1, 4, 16]) / (np.array([1, 4, 16]) + model.mean_history_ / 4)
    beside_towers = (1 - model.fitted_weights_["towers"]) * (1 - evidence) ** 2
    assert 0 < model.fitted_weights_["towers"] < 1
    np.testing.assert_allclose(weights["fields together"], beside_towers, rtol=1e-5)
    np.testing.assert_allclose(weights["similar users"], model.fitted_weights_["memory"] * beside_towers, rtol=1e-5)


def test_a_field_weighs_what_it_does_in_both_parts() -> None:
    model = fitted()
    asked = pd.DataFrame({"user_id": [7], "item_id": ["i1"]})
    told = model.explain(asked).set_index("field")["weight"]
    model.fitted_weights_ = model.fitted_weights_ | {"towers": 1.0}
    gates = model.explain(asked).set_index("field")["weight"]
    model.fitted_weights_ = model.fitted_weights_ | {"towers": 0.25}
    # A user without a history: the closed form heeds all that is told of it.
    both = model.explain(asked).set_index("field")["weight"]
    assert both["club"] == pytest.approx(0.75 + 0.25 * gates["club"])
    assert both["genres"] == pytest.approx(0.25 * gates["genres"])
    assert both["average user"] == pytest.approx(0.75)
    assert told["club"] != both["club"]


def test_the_share_of_the_towers_is_found_where_it_is_not_given() -> None:
    assert fitted(tower_weight=0.3).fitted_weights_["towers"] == 0.3
    # Of the context the closed form knows nothing.
    assert fitted(context=True).fitted_weights_["towers"] > 0.5
    ml, train, _, _ = movielens_like()
    model = make(n_factors=32, max_iter=1).fit(train, user_features=FeatureTable(ml.users))
    assert model.fitted_weights_["towers"] == 0.2


def test_the_bias_of_warm_items_alone_is_raised() -> None:
    model = fitted()
    assert model.warm_shift_ >= 0
    before, warm = model.tower_vectors_.copy(), model.item_counts_ == 0
    shift, model.warm_shift_ = model.warm_shift_, model.warm_shift_ + 2
    model.add_items(pd.DataFrame({"genres": [["ball"]]}, index=pd.Index(["new"], name="item_id")))
    after = model.tower_vectors_[:-1]
    np.testing.assert_allclose(after[~warm], before[~warm], rtol=1e-5)
    np.testing.assert_allclose(after[warm, :-1], before[warm, :-1], rtol=1e-5)
    np.testing.assert_allclose(after[warm, -1], before[warm, -1] + 2, rtol=1e-4)
    asked = pd.DataFrame({"user_id": [0, 1], "item_id": ["new", "i7"]})
    sums_to_predictions(model, asked)
    assert shift == fitted().warm_shift_
    X, users, _ = two_groups(N)
    assert make().fit(X, user_features=FeatureTable(users)).warm_shift_ == 0

"""TwoStageRecommender: what its score is made of, how the share of the ranker is chosen, diversity, exploration."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import recsys
from recsys import (
    EASE,
    BaseRecommender,
    ContentKNN,
    DemographicKNN,
    LightGBMRecommender,
    MatrixFactorization,
    Popularity,
    TwoStageRecommender,
)
from recsys.evaluation.beyond_accuracy import intra_list_diversity
from recsys.exceptions import ColdStartWarning, CorruptModelError, InvalidInputError
from recsys.retrieval import two_stage
from tests.contract.suite import World, assert_close, checkerboard, fit, make_world, new_items, product
from tests.test_persistence import _rewrite


def make(**parameters: Any) -> TwoStageRecommender:
    """Vectors retrieve, EASE ranks."""
    stages = {"retriever": MatrixFactorization(n_factors=4, l2=1.0), "ranker": EASE(l2=10.0)}
    return TwoStageRecommender(**{"random_state": 0, "n_candidates": 8, "ranker_weight": 0.4, **stages, **parameters})


def scores_of(model: BaseRecommender, users: Any) -> np.ndarray:
    """Scores of the catalogue, (n_users, n_items)."""
    found: np.ndarray = model.predict(product(list(users), model.items_.ids)).reshape(len(users), -1)
    return found


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def by_hand(model: TwoStageRecommender, user: int, weight: float) -> np.ndarray:
    """The definition, for one user, from what both stages answer when they are asked alone."""
    first, second = (scores_of(stage, [user])[0].astype(float) for stage in (model.retriever_, model.ranker_))
    liked = model.history_[model.users_.encode(pd.Index([user]))].toarray()[0] > 0
    order = np.argsort(-first, kind="stable")
    last = np.flatnonzero(np.cumsum(~liked[order]) == model.n_candidates_)
    inside = order[: last[0] + 1] if len(last) else order
    fresh = inside[~liked[inside]]
    score = np.zeros(len(first))
    counts = np.bincount(model.history_.tocoo().col[model.history_.data > 0], minlength=len(first))
    share = np.where(counts > 0, weight, 0.0)
    for part, values in ((1 - share, first), (share, second)):
        score[inside] += part[inside] * (values[inside] - values[fresh].mean()) / values[fresh].std()
    score[inside] += model.exploration_ / np.sqrt(1 + counts[inside])
    outside = np.setdiff1d(order, inside)
    score[outside] = score[inside].min() - 1 + (first[outside] - first[inside].min()) / first[fresh].std()
    return score


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("exploration", [0.0, 0.7])
def test_the_score_is_its_definition(world: World, weight: float, exploration: float) -> None:
    model = make(ranker_weight=weight, exploration=exploration)
    fit(model, world)
    users = world.hot_users[:12]
    expected = np.stack([by_hand(model, user, weight) for user in users])
    np.testing.assert_allclose(scores_of(model, users), expected, rtol=1e-3, atol=1e-3)


def test_a_share_of_0_is_the_retriever_and_does_not_ask_the_ranker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(ranker_weight=0)
    fit(model, world)
    assert isinstance(model.retriever_, MatrixFactorization)

    def refuse(*_: Any) -> Any:
        raise AssertionError("the ranker was asked")

    monkeypatch.setattr(model.ranker_, "_score_pairs", refuse)
    monkeypatch.setattr(model.ranker_, "_batch_scorer", refuse)
    found = model.recommend(world.hot_users, k=30)
    pd.testing.assert_series_equal(found["item_id"], model.retriever_.recommend(world.hot_users, k=30)["item_id"])


def test_a_share_of_1_is_the_ranker_among_the_candidates(world: World) -> None:
    # Rows that were only seen count as candidates, but are not recommended: here are none.
    model = make(ranker_weight=1).fit(world.X[world.y > 0])
    for user in world.hot_users:
        proposed = model.retriever_.recommend([user], k=8)["item_id"]
        expected = model.ranker_.recommend([user], k=8, candidates=proposed)["item_id"].tolist()
        found = model.recommend([user], k=30)["item_id"].tolist()
        assert found[:8] == expected
        rest = model.retriever_.recommend([user], k=30)["item_id"].tolist()[8:]
        assert found[8:] == rest


def test_the_stages_are_what_they_are_alone(world: World) -> None:
    model = make(ranker=LightGBMRecommender(n_estimators=5, min_child_samples=5, n_factors=2, random_state=3))
    fit(model, world)
    for stage, alone in (
        (model.retriever_, MatrixFactorization(n_factors=4, l2=1.0, random_state=model.retriever_.random_state)),
        (model.ranker_, LightGBMRecommender(n_estimators=5, min_child_samples=5, n_factors=2, random_state=3)),
    ):
        fit(alone, world)
        assert stage.get_params() == alone.get_params()
        np.testing.assert_array_equal(stage.predict(world.X), alone.predict(world.X))


def test_the_ranker_is_asked_for_the_candidates_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(n_candidates=3)
    fit(model, world)
    asked: list[int] = []
    score_pairs = model.ranker_._score_pairs

    def counted(batch: Any, rows: Any, items: Any) -> Any:
        asked.append(len(rows))
        return score_pairs(batch, rows, items)

    monkeypatch.setattr(model.ranker_, "_score_pairs", counted)
    users = world.hot_users[:4]
    model.recommend(users)
    n_liked = int((model.history_[model.users_.encode(users)].data > 0).sum())
    assert 4 * 3 <= sum(asked) <= 4 * 3 + n_liked


class Noise(Popularity):
    """Scores that say nothing."""

    def _item_vectors(self) -> Any:
        rng = np.random.default_rng(3)
        return rng.normal(size=(len(self.items_), 1 + len(self.group_keys_))).astype(np.float32)


def test_the_share_chosen_leaves_out_who_says_nothing() -> None:
    world = make_world(n_users=200, n_items=60)
    good = EASE(l2=10.0)
    by_noise = TwoStageRecommender(retriever=good, ranker=Noise(), random_state=0).fit(world.X, world.y)
    assert by_noise.ranker_weight_[0] <= 0.3
    from_noise = TwoStageRecommender(retriever=Noise(), ranker=good, random_state=0).fit(world.X, world.y)
    assert from_noise.ranker_weight_[0] >= 0.7
    more = make_world(n_users=200, n_items=60, seed=5)
    alone = clone(good).fit(world.X, world.y).score(more.X, more.y)
    for model in (by_noise, from_noise):
        assert model.score(more.X, more.y) >= alone - 0.01


def test_each_kind_of_user_has_a_share_of_its_own() -> None:
    # Attributes tell all of a new user; of known ones, the history does.
    world = make_world(n_users=400, n_items=40)
    model = TwoStageRecommender(retriever=EASE(l2=10.0), ranker=DemographicKNN(n_neighbors=50), random_state=0)
    fit(model, world)
    hot, _, warm = model.ranker_weight_
    # The prior, which is all that EASE has for them, is the same for everybody.
    assert warm >= 0.6
    assert hot < warm
    strangers = world.users.iloc[:2].set_axis(pd.Index([9000, 9001], name="user_id"))
    found = model.recommend(strangers.index, k=5, user_features=strangers)
    assert (found["path"] == "warm").all()
    assert ((found["item_id"] + found["user_id"]) % 2 == 0).mean() >= 0.9


def test_on_new_items_the_ranker_is_not_heard(world: World) -> None:
    first, second = make(n_candidates=30), make(n_candidates=30, ranker=Noise())
    for model in (first, second):
        fit(model, world)
        model.add_items(new_items())
    X = product(world.hot_users.tolist(), world.warm_items.append(pd.Index([600, 601])))
    np.testing.assert_array_equal(first.predict(X), second.predict(X))
    assert abs(first.predict(world.X) - second.predict(world.X)).max() > 0.5
    told = second.explain(X)
    assert_close(told.groupby("row")["contribution"].sum(), second.predict(X))


def test_where_nothing_can_be_held_out_both_count_the_same() -> None:
    X = pd.DataFrame({"user_id": [1, 2, 3], "item_id": ["a", "a", "b"]})
    model = TwoStageRecommender(retriever=EASE(), ranker=Popularity(), random_state=0).fit(X)
    assert model.ranker_weight_.tolist() == [0.5, 0.5, 0.5]


def test_a_partial_fit_keeps_the_share_that_was_chosen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(ranker_weight=None)
    fit(model, world)
    chosen = model.ranker_weight_.copy()
    monkeypatch.setattr(two_stage, "held_out", None)
    more = make_world(seed=3)
    model.partial_fit(more.X, more.y)
    np.testing.assert_array_equal(model.ranker_weight_, chosen)
    model.set_params(ranker_weight=0.2).partial_fit(more.X, more.y)
    assert model.ranker_weight_.tolist() == [0.2, 0.2, 0.2]


def test_a_share_is_chosen_again_for_another_ranker_and_where_one_was_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.7, 0.9])
    monkeypatch.setattr(TwoStageRecommender, "_chosen_weight", lambda *_: np.full(3, next(shares)))
    more = make_world(seed=3)
    model = make(ranker_weight=0.2)
    fit(model, world)
    assert model.chosen_for_ == []
    model.set_params(ranker_weight=None).partial_fit(more.X, more.y)
    assert model.ranker_weight_.tolist() == [0.7] * 3
    model.partial_fit(more.X, more.y)
    assert model.ranker_weight_.tolist() == [0.7] * 3
    model.set_params(ranker=ContentKNN()).partial_fit(more.X, more.y)
    assert model.ranker_weight_.tolist() == [0.9] * 3
    assert model.chosen_for_ == ["MatrixFactorization", "ContentKNN"]


def test_a_partial_fit_goes_on_with_stages_of_the_same_class(world: World) -> None:
    model, alone = make(), MatrixFactorization(n_factors=4, l2=1.0)
    fit(model, world)
    alone.set_params(random_state=model.retriever_.random_state)
    fit(alone, world)
    more = make_world(seed=3)
    model.set_params(ranker=ContentKNN()).partial_fit(more.X, more.y)
    alone.partial_fit(more.X, more.y)
    np.testing.assert_array_equal(model.retriever_.predict(more.X), alone.predict(more.X))
    assert isinstance(model.ranker_, ContentKNN)
    assert np.isfinite(model.predict(more.X)).all()


def test_items_that_join_do_not_change_what_others_score(world: World) -> None:
    model = make(exploration=0.5)
    fit(model, world)
    before = scores_of(model, world.hot_users)
    model.add_items(new_items())
    after = scores_of(model, world.hot_users)
    assert_close(after[:, :-2], before)
    assert model.evidence_[-2:].tolist() == [0, 0]
    assert model.retriever_.items_ is model.items_


# Diversity.


def test_lists_are_diverse_by_maximal_marginal_relevance(world: World) -> None:
    model = make(diversity=0.6, n_candidates=20)
    fit(model, world)
    plain = copy.deepcopy(model)
    plain.diversity_ = 0.0
    found, expected = (each.recommend(world.hot_users, k=5) for each in (model, plain))
    content = model.retriever_._item_embeddings()
    varied, alike = (
        intra_list_diversity(model.items_.encode(pd.Index(lists["item_id"])).reshape(-1, 5), content).mean()
        for lists in (found, expected)
    )
    assert varied > 1.2 * alike
    # The first is the best; scores stay those of `predict`, ranks are the list's.
    assert found[found["rank"] == 1]["item_id"].tolist() == expected[expected["rank"] == 1]["item_id"].tolist()
    assert_close(found["score"], model.predict(found[["user_id", "item_id"]]))
    assert found.groupby("user_id", sort=False)["rank"].apply(list).tolist() == [[1, 2, 3, 4, 5]] * len(world.hot_users)
    assert (found.groupby("user_id")["score"].diff().dropna() > 0).any()


def test_diverse_lists_keep_to_filters_and_never_pad(world: World) -> None:
    model = make(diversity=0.6)
    fit(model, world)
    everything = model.recommend([1000], k=100)
    plain = model.set_params(diversity=0).recommend([1000], k=100)
    assert sorted(everything["item_id"]) == sorted(plain["item_id"])
    found = model.recommend([1000, 1001], k=10, candidates=[1, 2, 3, 4], exclude=[2], exclude_seen=False)
    assert found.groupby("user_id")["item_id"].apply(sorted).tolist() == [[1, 3, 4], [1, 3, 4]]


def test_the_score_of_a_diverse_model_is_that_of_its_lists(world: World) -> None:
    model = make(diversity=0.9, n_candidates=30)
    fit(model, world)
    more = make_world(seed=5)
    wanted = more.X[more.y > 0]
    values = []
    for user, rows in wanted.groupby("user_id"):
        mine = model.recommend([user])["item_id"].tolist()
        gain = sum(1 / np.log2(rank + 2) for rank, item in enumerate(mine) if item in set(rows["item_id"]))
        values.append(gain / sum(1 / np.log2(rank + 2) for rank in range(min(10, len(rows)))))
    assert model.score(more.X, more.y) == pytest.approx(np.mean(values))


# Exploration.


def test_exploration_lifts_items_of_little_evidence(world: World) -> None:
    plain, bold = make(n_candidates=12), make(n_candidates=12, exploration=3.0)
    for model in (plain, bold):
        fit(model, world)
    lists = [model.recommend(world.hot_users, k=5) for model in (plain, bold)]
    evidence = [plain.evidence_[plain.items_.encode(pd.Index(found["item_id"]))].mean() for found in lists]
    assert evidence[1] < evidence[0]
    # Nobody becomes a candidate by it.
    proposed = plain.retriever_.recommend(world.hot_users, k=12)
    assert len(lists[1].merge(proposed, on=["user_id", "item_id"])) == len(lists[1])
    told = bold.explain(lists[1][["user_id", "item_id"]])
    bonus = told[told["field"] == "exploration"]
    counts = bold.evidence_[bold.items_.encode(pd.Index(bonus["item_id"]))]
    np.testing.assert_allclose(bonus["contribution"], 3 / np.sqrt(1 + counts), rtol=1e-5)


# Parameters and files.


def test_parameters_of_stages_are_parameters(world: World) -> None:
    model = make()
    assert model.get_params()["retriever__n_factors"] == 4
    model.set_params(retriever__n_factors=3, ranker__l2=5.0)
    fit(model, world)
    assert model.retriever_.get_params()["n_factors"] == 3
    assert model.ranker_.get_params()["l2"] == 5.0
    # The templates stay as they are.
    assert not hasattr(model.retriever, "users_")
    assert clone(model).get_params()["ranker__l2"] == 5.0
    with pytest.raises(InvalidInputError, match=r"MatrixFactorization has no parameter 'n_factor'\. Did you mean"):
        model.set_params(retriever__n_factor=3)
    with pytest.raises(InvalidInputError, match="TwoStageRecommender has no parameter 'retreiver__l2'"):
        model.set_params(retreiver__l2=3)


def test_stages_without_a_seed_get_the_seed_of_the_whole(world: World) -> None:
    first, again, other = (make(random_state=seed) for seed in (1, 1, 2))
    for model in (first, again, other):
        fit(model, world)
    assert first.retriever_.get_params()["random_state"] == again.retriever_.get_params()["random_state"]
    assert first.retriever_.get_params()["random_state"] != other.retriever_.get_params()["random_state"]
    np.testing.assert_array_equal(first.predict(world.X), again.predict(world.X))
    own = make(retriever=MatrixFactorization(random_state=7))
    assert fit(own, world) is own
    assert own.retriever_.get_params()["random_state"] == 7


def test_stages_that_are_not_given_are_the_defaults(world: World) -> None:
    model = TwoStageRecommender(ranker_weight=0.5, random_state=0)
    retriever, ranker = (model._template(name, 3) for name in ("retriever", "ranker"))
    assert type(retriever).__name__ == "ContrastiveRecommender"
    assert type(ranker).__name__ == "LightGBMRecommender"
    assert retriever.get_params()["random_state"] == ranker.get_params()["random_state"] == 3


def test_two_stages_can_be_a_stage(world: World, tmp_path: Path) -> None:
    model = TwoStageRecommender(
        retriever=make(), ranker=ContentKNN(), n_candidates=6, ranker_weight=0.3, random_state=0
    )
    fit(model, world)
    assert set(model.get_params()) >= {"retriever__ranker__l2"}
    model.save(tmp_path / "model")
    loaded = recsys.load(tmp_path / "model")
    for each in (model, loaded):
        each.add_items(new_items())
    pd.testing.assert_frame_equal(loaded.recommend(world.hot_users, k=40), model.recommend(world.hot_users, k=40))
    assert loaded.retriever_.ranker_.items_ is loaded.items_
    assert_close(model.explain(world.X.head(9)).groupby("row")["contribution"].sum(), model.predict(world.X.head(9)))


def test_what_both_stages_share_is_saved_once(world: World, tmp_path: Path) -> None:
    model = make()
    fit(model, world)
    model.save(tmp_path / "model")
    state, header = recsys.persistence.read_directory(tmp_path / "model")
    assert not {"users_", "items_", "history_"} & set(vars(state["retriever_"]))
    assert header["parameters"]["ranker"].get_params() == {"l2": 10.0, "min_rating": None}
    loaded = recsys.load(tmp_path / "model")
    assert loaded.ranker_.history_ is loaded.history_
    np.testing.assert_array_equal(loaded.predict(world.X), model.predict(world.X))
    assert type(loaded.retriever) is MatrixFactorization
    assert not hasattr(loaded.retriever, "users_")


def test_a_manifest_whose_stages_are_made_up_is_refused(world: World, tmp_path: Path) -> None:
    model = make()
    fit(model, world)
    model.save(tmp_path / "model")
    made_up = {"__class__": "EASE", "state": {"parameters": {"penalty": 1}, "state": {}}}
    _rewrite(tmp_path / "model", lambda manifest: manifest["parameters"].update(ranker=made_up))
    with pytest.raises(CorruptModelError, match=r"describes no model .*EASE has no parameter 'penalty'"):
        recsys.load(tmp_path / "model")


# Refusals.


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ranker": "EASE"}, "The 'ranker' parameter of TwoStageRecommender must be an instance of .*BaseRecommender"),
        ({"retriever": EASE}, "The 'retriever' parameter of TwoStageRecommender must be an instance of"),
        ({"n_candidates": 0}, r"The 'n_candidates' parameter of TwoStageRecommender must be an int in the range \[1"),
        ({"ranker_weight": 1.5}, r"The 'ranker_weight' parameter of TwoStageRecommender must be a float in the range"),
        ({"diversity": -0.1}, "The 'diversity' parameter of TwoStageRecommender must be a float in the range"),
        ({"exploration": 1e39}, "The 'exploration' parameter of TwoStageRecommender must be a float in the range"),
        ({"exploration": -1.0}, "The 'exploration' parameter of TwoStageRecommender must be a float in the range"),
        ({"ranker": EASE(l2=-1.0)}, "The 'l2' parameter of EASE must be"),
        ({"ranker": EASE(min_rating=3.0)}, r"`ranker` has min_rating=3.0; expected None: set that of TwoStage"),
        ({"retriever": Popularity(half_life=9.0)}, r"`retriever` has half_life=9.0; expected None: leave it out"),
        (
            {"retriever": ContentKNN(), "diversity": 0.1},
            "`diversity` is 0.1, but ContentKNN, the retriever, has no item vectors .*choose such, or diversity=0",
        ),
    ],
)
def test_bad_parameters_are_refused_before_any_fit(
    world: World, parameters: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a stage was fitted")

    monkeypatch.setattr(MatrixFactorization, "_fit", refuse)
    with pytest.raises(ValueError, match=message):
        make(**parameters).fit(world.X, world.y)


def test_any_model_may_retrieve_without_diversity() -> None:
    world, answer = checkerboard()
    model = TwoStageRecommender(retriever=ContentKNN(), ranker=EASE(l2=10.0), ranker_weight=0.5, n_candidates=4)
    fit(model, world)
    assert model.recommend(answer.index, k=1)["item_id"].tolist() == answer.tolist()
    # More are recommended than are proposed.
    assert len(model.recommend([1000], k=9)) == 9


def test_cold_users_get_the_prior_of_the_whole(world: World) -> None:
    model = make(exploration=1.0)
    fit(model, world)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        np.testing.assert_array_equal(scores_of(model, [7000])[0], model.popularity_)


def test_importing_it_loads_neither_torch_nor_lightgbm_nor_faiss() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from recsys.retrieval import TwoStageRecommender; TwoStageRecommender()\n"
        "sys.exit(bool({'torch', 'lightgbm', 'faiss'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_features_reach_both_stages() -> None:
    world = make_world()
    model = TwoStageRecommender(retriever=ContentKNN(), ranker=DemographicKNN(n_neighbors=5), ranker_weight=0.5)
    fit(model, world)
    assert model._uses_user_features
    assert model.ranker_.user_features_ is model.user_features_
    told = model.explain(pd.DataFrame({"user_id": [int(world.warm_users[0])], "item_id": [3]}))
    assert set(told["source"]) >= {"user", "prior"}

"""Every estimator: what `fit` and `partial_fit` learn, that they repeat, and what a saved model remembers."""

from __future__ import annotations

import copy
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import recsys
from recsys import FeatureTable
from recsys.exceptions import ColdStartWarning
from tests.contract.suite import (
    CASES,
    CLOSED_FORM,
    NAMES,
    World,
    assert_close,
    fit,
    fitted,
    make_world,
    new_items,
    new_users,
    parameters_of,
    product,
)

ROOT = Path(__file__).resolve().parents[2]
every = pytest.mark.parametrize("name", NAMES)

# Run in a process of its own: load each model, answer, and leave the answers in files.
ANSWER = """
import sys, warnings
from pathlib import Path
import numpy as np, pandas as pd
from recsys import load
warnings.simplefilter("error")
folder = Path(sys.argv[1])
X = pd.read_json(folder / "X.json", convert_axes=False)
for path in sorted(folder.glob("*.model")):
    model = load(path)
    found = model.recommend(X["user_id"].unique(), k=8)
    similar = model.similar_items([3, 4], k=4)
    assert "pickle" not in "".join(file.name for file in path.iterdir())
    np.savez(
        path.with_suffix(".npz"),
        scores=model.predict(X),
        **{name: found[name].to_numpy() for name in ("user_id", "item_id", "score", "rank")},
        similar=similar["similar_item_id"].to_numpy(),
        path=found["path"].astype(str).to_numpy(dtype="U8"),
    )
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what every model, saved here, answers in a new process."""
    folder = tmp_path_factory.mktemp("saved")
    for name in NAMES:
        model, world = fitted(name)
        model.save(folder / f"{name}.model")
        world.X.head(50).to_json(folder / "X.json")
    done = subprocess.run([sys.executable, "-c", ANSWER, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@every
def test_a_saved_model_answers_the_same_in_a_new_process(name: str, answers: Path) -> None:
    model, world = fitted(name)
    X = world.X.head(50)
    found = model.recommend(X["user_id"].unique(), k=8)
    with np.load(answers / f"{name}.npz", allow_pickle=False) as loaded:
        for column in ("user_id", "item_id", "score", "rank"):
            np.testing.assert_array_equal(loaded[column], found[column])
        np.testing.assert_array_equal(loaded["scores"], model.predict(X))
        np.testing.assert_array_equal(loaded["similar"], model.similar_items([3, 4], k=4)["similar_item_id"])
        assert loaded["path"].tolist() == found["path"].tolist()


@every
@pytest.mark.parametrize("context", [False, True])
def test_a_loaded_model_does_all_that_the_saved_one_did(name: str, context: bool, tmp_path: Path) -> None:
    model, _ = fitted(name, context)
    model.save(tmp_path / "model")
    loaded = recsys.load(tmp_path / "model")
    assert type(loaded) is type(model)
    assert parameters_of(loaded) == parameters_of(model)
    assert sorted(vars(loaded)) == sorted(vars(model))
    more = make_world(context=context, seed=3)
    for each in (model, loaded):
        each.add_items(new_items())
        each.partial_fit(more.X, more.y, user_features=new_users())
    np.testing.assert_array_equal(loaded.predict(more.X), model.predict(more.X))
    pd.testing.assert_frame_equal(loaded.recommend([1000, 1001], k=50), model.recommend([1000, 1001], k=50))


@every
def test_same_seed_same_bits(name: str) -> None:
    first, world = fitted(name)
    second = fit(CASES[name].make(), world)
    np.testing.assert_array_equal(first.predict(world.X), second.predict(world.X))
    pd.testing.assert_frame_equal(first.recommend(world.hot_users, k=30), second.recommend(world.hot_users, k=30))
    again = fit(second, world)
    np.testing.assert_array_equal(first.predict(world.X), again.predict(world.X))


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_the_order_of_rows_is_irrelevant(name: str) -> None:
    model, world = fitted(name)
    order = np.random.default_rng(7).permutation(len(world.X))
    shuffled = World(world.X.iloc[order], world.y.iloc[order], world.users[::-1], world.items[::-1])
    other = fit(CASES[name].make(), shuffled)
    assert_close(other.predict(world.X), model.predict(world.X))


@every
def test_the_order_of_rows_is_irrelevant_where_it_names_nobody_earlier(name: str) -> None:
    world = make_world()
    user, item = world.X["user_id"], world.X["item_id"]
    # Rows that a user or an item first appears in stay in front: the codes are the same then, and so are the seeds'.
    first = ~user.duplicated() | ~item.duplicated()
    front, rest = np.flatnonzero(first), np.flatnonzero(~first)
    ordered, shuffled = np.append(front, rest), np.append(front, np.random.default_rng(7).permutation(rest))
    models = [CASES[name].make().fit(world.X.iloc[rows], world.y.iloc[rows]) for rows in (ordered, shuffled)]
    assert_close(models[0].predict(world.X), models[1].predict(world.X))


@every
def test_repeated_rows_of_one_pair_are_one_positive(name: str) -> None:
    X = pd.DataFrame({"user_id": [1, 1, 1, 2, 3], "item_id": ["a", "a", "b", "a", "b"]})
    model = CASES[name].make().fit(X)
    np.testing.assert_allclose(model.popularity_, [2 / 3, 2 / 3], rtol=1e-6)
    assert model.history_.nnz == 4


def _parts(world: World) -> tuple[World, World]:
    """The world of users below 1030 first, and then the rest, with items that are new in it."""
    early = (world.X["user_id"] < 1030) & (world.X["item_id"] < 26)
    parts = []
    for rows in (early, ~early):
        X, y = world.X[rows], world.y[rows]
        known = early if rows is early else early | rows
        users, items = world.X.loc[known, "user_id"].unique(), world.X.loc[known, "item_id"].unique()
        parts.append(World(X, y, world.users.loc[users], world.items.loc[items]))
    return parts[0], parts[1]


@every
def test_partial_fit_grows(name: str) -> None:
    world = make_world()
    first, second = _parts(world)
    model = fit(CASES[name].make(), first)
    n_users, n_items = len(model.users_), len(model.items_)
    assert fit_more(model, second) is model
    assert len(model.users_) == len(world.hot_users) > n_users
    assert len(model.items_) == len(world.hot_items) > n_items
    # Codes are for good.
    assert model.users_.ids[:n_users].tolist() == first.X["user_id"].unique().tolist()
    late = int(world.X["user_id"].max())
    assert model.recommend([late], k=1)["path"].tolist() == ["hot"]
    # Both days count as seen.
    assert model.recommend(world.hot_users, k=1000).merge(world.X, on=["user_id", "item_id"]).empty
    assert np.isfinite(model.predict(world.X)).all()
    assert model.history_.nnz == len(world.X)


def fit_more(model: recsys.BaseRecommender, world: World) -> recsys.BaseRecommender:
    return model.partial_fit(
        world.X, world.y, user_features=FeatureTable(world.users), item_features=FeatureTable(world.items)
    )


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_partial_fit_is_fit_on_the_union(name: str) -> None:
    world = make_world()
    early = world.X["user_id"] < 1030
    # Encoders learn from the items of the first day: all of them have interactions then.
    assert set(world.X.loc[early, "item_id"]) == set(world.hot_items)
    items = FeatureTable(world.items)
    model = CASES[name].make().fit(world.X[early], world.y[early], item_features=items)
    model.partial_fit(world.X[~early], world.y[~early])
    expected = CASES[name].make().fit(world.X, world.y, item_features=items)
    assert_close(model.predict(world.X), expected.predict(world.X))
    assert_close(model.popularity_[model.items_.encode(expected.items_.ids)], expected.popularity_)


@every
def test_partial_fit_on_nothing_fitted_is_fit(name: str) -> None:
    model, world = fitted(name)
    other = fit_more(CASES[name].make(), world)
    np.testing.assert_array_equal(other.predict(world.X), model.predict(world.X))


@every
def test_partial_fit_learns_from_the_new_rows(name: str) -> None:
    model, world = fitted(name)
    crowd = pd.DataFrame({"user_id": 8000 + np.arange(60), "item_id": 600})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        model.partial_fit(crowd)
        assert model.recommend(["someone"], k=1)["item_id"].tolist() == [600]
    assert model.popularity_[model.items_.encode([600])[0]] > 0.5
    assert len(model.users_) == len(world.users) + 60


@every
def test_fit_forgets_what_was_fitted_before(name: str) -> None:
    model, world = fitted(name, context=True)
    plain = make_world(seed=2)
    again = model.fit(plain.X.to_numpy(), plain.y)
    fresh = CASES[name].make().fit(plain.X.to_numpy(), plain.y)
    assert sorted(vars(again)) == sorted(vars(fresh))
    assert again.n_features_in_ == 2
    np.testing.assert_array_equal(again.predict(plain.X.to_numpy()), fresh.predict(plain.X.to_numpy()))
    assert len(world.X.columns) == 3


@every
def test_fit_changes_neither_parameters_nor_data(name: str) -> None:
    world = make_world(context=True)
    model = CASES[name].make()
    parameters = parameters_of(clone(model))
    before = copy.deepcopy((world.X, world.y, world.users, world.items))
    frames = {"user_features": world.users, "item_features": world.items}
    model.fit(world.X, world.y, **frames)
    model.partial_fit(world.X, world.y, **frames)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        clicks, strangers, novelties = world.X.iloc[:, :2].head(3), new_users(), new_items()
        model.predict(world.X, user_features=world.users, item_features=world.items, interactions=clicks)
        model.recommend([1000, 5000], user_features=strangers, candidates=clicks, exclude=clicks)
        model.add_items(novelties)
    assert parameters_of(model) == parameters_of(clone(model)) == parameters
    for frame, expected in zip((world.X, world.users, world.items), (before[0], before[2], before[3]), strict=True):
        pd.testing.assert_frame_equal(frame, expected)
    pd.testing.assert_series_equal(world.y, before[1])
    pd.testing.assert_frame_equal(clicks, world.X.iloc[:3, :2])
    pd.testing.assert_frame_equal(strangers, new_users())
    pd.testing.assert_frame_equal(novelties, new_items())


@every
def test_min_rating(name: str) -> None:
    world = make_world()
    model = CASES[name].make().set_params(min_rating=3).fit(world.X, world.y)
    expected = CASES[name].make().fit(world.X, world.y.where(world.y >= 3, 0))
    assert 0 < (world.y >= 3).sum() < (world.y > 0).sum()
    np.testing.assert_array_equal(model.predict(world.X), expected.predict(world.X))
    # Below the bar is seen nevertheless.
    assert model.recommend(world.hot_users, k=1000).merge(world.X, on=["user_id", "item_id"]).empty
    clicks = pd.DataFrame({"user_id": [6000, 6000], "item_id": [2, 3], "rating": [2, 4]})
    one = model.recommend([6000], k=30, interactions=clicks)
    other = model.recommend([6000], k=30, interactions=clicks.iloc[1:], exclude=[2])
    assert one["item_id"].tolist() == other["item_id"].tolist()
    assert model.score(world.X, world.y) == expected.score(world.X, world.y.where(world.y >= 3, 0))


@every
def test_parameters_set_after_a_fit_wait_for_the_next(name: str) -> None:
    others: dict[str, dict[object, object]] = {
        "n_factors": {},
        "n_neighbors": {},
        "loss": {"als": "bpr", "bpr": "als", "squared": "multinomial"},
        "kind": {"user": "item", "item": "user"},
    }
    world, model = make_world(), CASES[name].make()
    model.set_params(**CASES[name].battery).fit(world.X, world.y, item_features=world.items)
    clicks = pd.DataFrame({"user_id": [6000, 6000, 1000], "item_id": [2, 3, 4]})
    before = model.recommend([1000, 6000], k=8, interactions=clicks)
    why = model.explain(clicks, interactions=clicks)
    told = {key: value for key, value in model.get_params().items() if key in others or type(value) is float}
    for key, value in told.items():
        other = others[key].get(value, 3) if key in others else (value + 0.5) / 2
        model.set_params(**{key: other})
        pd.testing.assert_frame_equal(model.recommend([1000, 6000], k=8, interactions=clicks), before)
        pd.testing.assert_frame_equal(model.explain(clicks, interactions=clicks), why)
        model.set_params(**{key: value})
    for key in told.keys() & {"n_factors", "kind"}:
        model.set_params(**{key: others[key].get(told[key], 3)}).partial_fit(world.X, world.y)
        assert np.isfinite(model.predict(world.X)).all()


@every
def test_context_columns_of_any_kind(name: str) -> None:
    world = make_world()
    X = world.X.assign(
        hour=np.arange(len(world.X)) % 24,
        place=pd.Categorical(np.where(world.X["item_id"] % 3, "home", "work")),
        when=pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(world.X)), unit="h"),
    )
    X.loc[X.index[::5], "place"] = None
    model = CASES[name].make().fit(X, world.y)
    assert model.n_features_in_ == 5
    assert np.isfinite(model.predict(X)).all()
    found = model.recommend([1000], k=3, context={"hour": 7, "place": "home", "when": None})
    assert len(found) == 3


@every
def test_working_memory_is_respected(name: str) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user_id": rng.integers(0, 100, 3000), "item_id": rng.integers(0, 400, 3000)})
    model = CASES[name].make().fit(X)
    users = np.tile(X["user_id"].unique(), 200)
    answers, peaks = [], []
    for budget in (1, 8):
        tracemalloc.start()
        try:
            answers.append(model.recommend(users, k=1, working_memory=budget))
            peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        finally:
            tracemalloc.stop()
    # All scores together are 30 MiB, and what they are ranked by more; users, histories and answers are below 15.
    assert peaks[0] < 1 + 15
    assert peaks[1] < 8 + 15
    assert answers[0]["item_id"].equals(answers[1]["item_id"])
    assert_close(answers[0]["score"], answers[1]["score"])


@every
def test_predict_takes_rows_in_any_order_and_number(name: str) -> None:
    model, world = fitted(name)
    X = product([1000, 1001, 1002], model.items_.ids)
    scores = model.predict(X)
    order = np.random.default_rng(0).permutation(len(X))
    assert_close(model.predict(X.iloc[order]), scores[order])
    assert_close(model.predict(pd.concat([X, X])), np.tile(scores, 2))
    assert_close(model.predict(X.iloc[[5]]), scores[[5]])
    assert len(world.hot_users) == len(model.users_) - len(world.warm_users)

"""scikit-learn's own battery over every estimator, and its model selection on data with string ids and features."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from recsys import EASE, ContentKNN, FeatureTable, Popularity
from recsys.base import BaseRecommender
from recsys.exceptions import InvalidInputError, InvalidTypeError
from tests.contract.suite import BATTERY, CASES, NAMES, World, class_name, make_world, parameters_of

ROOT = Path(__file__).resolve().parents[2]
every = pytest.mark.parametrize("name", NAMES)

with_checks: Callable[[Callable[..., None]], Callable[..., None]] = parametrize_with_checks(BATTERY)

# One check skips itself unless SCIPY_ARRAY_API was set before SciPy was imported.
ARRAY_API = """
from sklearn.utils.estimator_checks import estimator_checks_generator
from tests.contract.suite import BATTERY
for estimator in BATTERY:
    for subject, check in estimator_checks_generator(estimator):
        if "array_api" in check.func.__name__:
            check(subject)
"""


# The battery asks for users whom it did not fit; they get the prior and the warning that says so.
@pytest.mark.filterwarnings("ignore::recsys.exceptions.ColdStartWarning")
@with_checks
def test_battery(estimator: BaseRecommender, check: Any) -> None:
    check(estimator)


def test_array_api_checks_in_a_process_of_their_own() -> None:
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    command = [sys.executable, "-W", "error", "-W", "ignore::UserWarning", "-c", ARRAY_API]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@every
def test_the_whole_battery_applies(name: str) -> None:
    tags = sklearn.utils.get_tags(CASES[name].make())
    assert tags.input_tags.two_d_array
    assert not tags.no_validation
    assert not tags._skip_test
    assert not tags.non_deterministic


@pytest.fixture(scope="module")
def text_world() -> World:
    """The small world with ids of text, and warm users and items."""
    world = make_world(n_users=60, n_items=40)
    X = pd.DataFrame({"user_id": "u" + world.X["user_id"].astype(str), "item_id": "i" + world.X["item_id"].astype(str)})
    users = world.users.set_axis(pd.Index("u" + world.users.index.astype(str), name="user_id"))
    items = world.items.set_axis(pd.Index("i" + world.items.index.astype(str), name="item_id"))
    return World(X, world.y, users, items)


def tables(world: World) -> dict[str, FeatureTable]:
    return {"user_features": FeatureTable(world.users), "item_features": FeatureTable(world.items)}


def test_grid_search_finds_the_better_model(text_world: World) -> None:
    search = GridSearchCV(EASE(), {"l2": [1e-3, 30.0]}, cv=KFold(3, shuffle=True, random_state=0))
    search.fit(text_world.X, text_world.y, **tables(text_world))
    assert search.best_params_ == {"l2": 30.0}
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()
    assert search.best_score_ > search.cv_results_["mean_test_score"].min() + 0.02
    # The best model was fitted again on everything, features included.
    best = search.best_estimator_
    assert len(best.items_) == len(text_world.items)
    found = best.recommend(["u1000"], k=3)
    assert found["item_id"].str.startswith("i").all()
    np.testing.assert_array_equal(search.predict(text_world.X), best.predict(text_world.X))


@every
def test_cross_validation_by_rows_beats_chance(name: str, text_world: World) -> None:
    model = CASES[name].make()
    cv = KFold(3, shuffle=True, random_state=0)
    result = cross_validate(model, text_world.X, text_world.y, cv=cv, params=tables(text_world), return_estimator=True)
    assert result["test_score"].shape == (3,)
    assert result["test_score"].mean() > chance(text_world, cv)
    assert [len(fitted.items_) for fitted in result["estimator"]] == [len(text_world.items)] * 3
    by_hand = []
    for train, test in cv.split(text_world.X):
        fitted = clone(model).fit(text_world.X.iloc[train], text_world.y.iloc[train], **tables(text_world))
        by_hand.append(fitted.score(text_world.X.iloc[test], text_world.y.iloc[test]))
    np.testing.assert_array_equal(result["test_score"], by_hand)


def chance(world: World, cv: Any) -> float:
    """Mean NDCG@10 over the folds of a model that knows what was seen, and recommends the rest at random."""
    rng = np.random.default_rng(0)
    scores = []
    for train, test in cv.split(world.X):
        noise = world.X.iloc[train].assign(item_id=rng.choice(world.items.index, len(train)))
        scores.append(Popularity().fit(noise).score(world.X.iloc[test], world.y.iloc[test]))
    return float(np.mean(scores))


@every
def test_group_k_fold_by_user(name: str, text_world: World) -> None:
    folds: dict[str, Any] = {"groups": text_world.X["user_id"], "cv": GroupKFold(3)}
    scores = cross_val_score(CASES[name].make(), text_world.X, text_world.y, params=tables(text_world), **folds)
    prior = cross_val_score(Popularity(), text_world.X, text_world.y, **folds)
    assert np.isfinite(scores).all()
    if CASES[name].uses_user_features:
        # Every user of the test fold is warm: known by features alone.
        assert scores.mean() > prior.mean() + 0.05
    else:
        # Nobody of the test fold is known: all get the prior.
        np.testing.assert_allclose(scores, prior, atol=1e-9)


@every
def test_group_k_fold_by_item(name: str, text_world: World) -> None:
    cv = GroupKFold(3)
    groups = text_world.X["item_id"]
    told = cross_val_score(
        CASES[name].make(), text_world.X, text_world.y, groups=groups, cv=cv, params=tables(text_world)
    )
    untold = cross_val_score(CASES[name].make(), text_world.X, text_world.y, groups=groups, cv=cv)
    # Without features, nobody can recommend an item of the test fold.
    np.testing.assert_array_equal(untold, 0)
    if CASES[name].uses_item_features:
        assert told.min() > 0.1


@every
def test_pipeline(name: str, text_world: World) -> None:
    X = text_world.X.assign(session=np.arange(len(text_world.X)))
    pipeline = Pipeline(
        [("pairs", FunctionTransformer(lambda X: X[["user_id", "item_id"]])), ("model", CASES[name].make())]
    )
    pipeline.fit(X, text_world.y, **{f"model__{key}": table for key, table in tables(text_world).items()})
    alone = CASES[name].make().fit(text_world.X, text_world.y, **tables(text_world))
    np.testing.assert_array_equal(pipeline.predict(X), alone.predict(text_world.X))
    assert pipeline.score(X, text_world.y) == alone.score(text_world.X, text_world.y)
    assert pipeline[-1].items_ == alone.items_


def test_search_inside_a_pipeline(text_world: World) -> None:
    pipeline = Pipeline([("model", EASE())])
    search = GridSearchCV(pipeline, {"model__l2": [1e-3, 30.0]}, cv=KFold(3, shuffle=True, random_state=0))
    search.fit(text_world.X, text_world.y)
    assert search.best_params_ == {"model__l2": 30.0}


def test_metadata_routing(text_world: World) -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        model = ContentKNN().set_fit_request(item_features=True, user_features=False)
        search = GridSearchCV(model, {"n_neighbors": [2, 50]}, cv=KFold(3, shuffle=True, random_state=0))
        search.fit(text_world.X, text_world.y, item_features=FeatureTable(text_world.items))
    assert search.best_params_ == {"n_neighbors": 50}
    assert search.best_estimator_.item_encoder_ is not None


@every
def test_clone_is_unfitted_and_equal(name: str) -> None:
    model = CASES[name].make()
    other = clone(model)
    assert other is not model
    assert parameters_of(other) == parameters_of(model)
    again = clone(model.fit(*pairs()))
    assert vars(again).keys() == vars(other).keys()
    assert parameters_of(again) == parameters_of(other)


def pairs() -> tuple[pd.DataFrame, pd.Series]:
    world = make_world()
    return world.X, world.y


@every
def test_a_sliced_frame_of_features_is_an_error_that_names_the_mend(name: str) -> None:
    # As many users as rows: model selection takes the rows of the fold from the features, too.
    X = pd.DataFrame({"user_id": [f"u{i}" for i in range(40)], "item_id": ["a", "b", "c", "d"] * 10})
    users = pd.DataFrame({"age": np.arange(40.0)}, index=pd.Index(X["user_id"][::-1], name="user_id"))
    message = r"has exactly as many rows as `X` \(20\) and lacks 20 of its ids; .* pass FeatureTable\(frame\) instead"
    cv = KFold(2)
    with pytest.raises(InvalidInputError, match=message):
        cross_validate(CASES[name].make(), X, cv=cv, params={"user_features": users}, error_score="raise")
    told = {"user_features": FeatureTable(users)}
    assert np.isfinite(cross_validate(CASES[name].make(), X, cv=cv, params=told)["test_score"]).all()


@every
def test_unknown_parameters_suggest_the_nearest(name: str) -> None:
    model = CASES[name].make()
    with pytest.raises(
        InvalidInputError, match=f"^{class_name(name)} has no parameter 'min_ratings'. Did you mean 'min_rating'"
    ):
        model.set_params(min_ratings=3)
    with pytest.raises(
        InvalidTypeError, match=f"^{class_name(name)} has no parameter 'min_ratings'. Did you mean 'min_rating'"
    ):
        type(model)(min_ratings=3)
    with pytest.raises(TypeError):
        type(model)(3)
    with pytest.raises(InvalidInputError, match=r"no parameter 'zzz'. Known names: .*'min_rating'"):
        model.set_params(zzz=1)
    assert parameters_of(model) == parameters_of(CASES[name].make())


@every
def test_parameters_are_checked_in_fit(name: str) -> None:
    model = CASES[name].make().set_params(min_rating="three")
    assert model.get_params()["min_rating"] == "three"
    with pytest.raises(
        ValueError, match=f"The 'min_rating' parameter of {class_name(name)} must be .* Got 'three' instead"
    ):
        model.fit(*pairs())

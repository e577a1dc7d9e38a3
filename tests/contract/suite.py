"""What the contract suite runs over: every estimator, quickly configured, and small worlds with known answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

from recsys import (
    EASE,
    AutoRec,
    ContentEASE,
    ContentKNN,
    ContrastiveRecommender,
    DeepFM,
    DemographicKNN,
    FeatureTable,
    LightGBMRecommender,
    MatrixFactorization,
    Popularity,
    TwoStageRecommender,
)
from recsys.base import BaseRecommender
from recsys.vectors import VectorRecommender


@dataclass(frozen=True)
class Case:
    """An estimator and what may be expected of it."""

    make: Callable[[], BaseRecommender]
    # Answers users of different taste differently.
    personal: bool = True
    # Answers who is cold without a warning.
    knows_everybody: bool = False
    # A function of the set of rows: neither their order nor the days they came on matter.
    closed_form: bool = False
    uses_user_features: bool = False
    uses_item_features: bool = False
    uses_context: bool = False
    # Parameters of scikit-learn's battery, which fits noise a hundred times.
    battery: dict[str, Any] = field(default_factory=dict)


# To add a model, add its line; what follows a dash tells cases of one class apart.
CASES = {
    "Popularity": Case(Popularity, personal=False, knows_everybody=True, closed_form=True),
    # Which of equally similar users are neighbours follows their order.
    "DemographicKNN": Case(partial(DemographicKNN, n_neighbors=5), personal=False, uses_user_features=True),
    "EASE": Case(partial(EASE, l2=10.0), closed_form=True),
    "ContentEASE": Case(
        partial(ContentEASE, n_factors=16, l2=10.0, attribute_l2=1.0, random_state=0),
        uses_user_features=True,
        uses_item_features=True,
    ),
    # Which of equally similar items are neighbours follows their order, unless all are.
    "ContentKNN": Case(ContentKNN, uses_item_features=True),
    "ContentKNN-all": Case(partial(ContentKNN, n_neighbors=100), closed_form=True, uses_item_features=True),
    "MatrixFactorization": Case(
        partial(MatrixFactorization, n_factors=4, alpha=5.0, l2=1.0, random_state=0),
        uses_user_features=True,
        uses_item_features=True,
    ),
    "MatrixFactorization-bpr": Case(
        partial(MatrixFactorization, loss="bpr", n_factors=4, l2=1.0, random_state=0),
        uses_user_features=True,
        uses_item_features=True,
    ),
    "LightGBMRecommender": Case(
        partial(
            LightGBMRecommender,
            n_estimators=30,
            learning_rate=0.05,
            min_child_samples=5,
            n_factors=2,
            n_jobs=1,
            random_state=0,
        ),
        uses_user_features=True,
        uses_item_features=True,
        uses_context=True,
        battery={"n_estimators": 2, "n_folds": 2},
    ),
    "AutoRec": Case(
        partial(AutoRec, n_factors=16, l2=0.1, max_iter=50, random_state=0),
        uses_user_features=True,
        uses_item_features=True,
        battery={"max_iter": 2},
    ),
    "AutoRec-item": Case(
        partial(AutoRec, kind="item", n_factors=16, l2=0.1, max_iter=50, random_state=0),
        uses_user_features=True,
        uses_item_features=True,
        battery={"max_iter": 2},
    ),
    "DeepFM": Case(
        partial(DeepFM, n_factors=16, max_iter=20, batch_size=512, random_state=0),
        uses_user_features=True,
        uses_item_features=True,
        uses_context=True,
        battery={"max_iter": 2},
    ),
    "ContrastiveRecommender": Case(
        partial(ContrastiveRecommender, n_factors=16, max_iter=30, random_state=0),
        uses_user_features=True,
        uses_item_features=True,
        uses_context=True,
        battery={"max_iter": 2},
    ),
    # Stages are made anew for each: parameters of theirs are set.
    "TwoStageRecommender": Case(
        lambda: TwoStageRecommender(
            retriever=ContentEASE(n_factors=16, l2=10.0, attribute_l2=1.0),
            ranker=LightGBMRecommender(n_estimators=30, learning_rate=0.05, min_child_samples=5, n_factors=2, n_jobs=1),
            random_state=0,
        ),
        uses_user_features=True,
        uses_item_features=True,
        uses_context=True,
        battery={"ranker__n_estimators": 2, "ranker__n_folds": 2},
    ),
    # Fewer candidates than items, a ranker that knows less than the retriever, a bonus.
    "TwoStageRecommender-few": Case(
        lambda: TwoStageRecommender(
            retriever=MatrixFactorization(n_factors=4, alpha=5.0, l2=1.0),
            ranker=EASE(l2=10.0),
            n_candidates=8,
            ranker_weight=0.4,
            exploration=0.01,
            random_state=0,
        ),
        uses_user_features=True,
        uses_item_features=True,
    ),
}
NAMES = list(CASES)
BATTERY = [case.make().set_params(**case.battery) for case in CASES.values()]
RETRIEVERS = [name for name in NAMES if isinstance(CASES[name].make(), VectorRecommender)]
PERSONAL = [name for name in NAMES if CASES[name].personal]
CLOSED_FORM = [name for name in NAMES if CASES[name].closed_form]


def parameters_of(model: BaseRecommender) -> dict[str, Any]:
    """The parameters of a model and of the models among them, which stand for themselves as their class."""
    told = model.get_params(deep=True).items()
    return {key: type(value) if isinstance(value, BaseRecommender) else value for key, value in told}


def class_name(name: str) -> str:
    """The class of a case."""
    return name.partition("-")[0]


@dataclass(frozen=True)
class World:
    """Interactions and features; the last users and items of the feature frames have no interactions."""

    X: pd.DataFrame
    y: pd.Series
    users: pd.DataFrame
    items: pd.DataFrame

    @property
    def hot_users(self) -> pd.Index:
        hot: pd.Index = pd.Index(self.X["user_id"].unique())
        return hot

    @property
    def hot_items(self) -> pd.Index:
        hot: pd.Index = pd.Index(self.X["item_id"].unique())
        return hot

    @property
    def warm_users(self) -> pd.Index:
        warm: pd.Index = self.users.index[~self.users.index.isin(self.X["user_id"])]
        return warm

    @property
    def warm_items(self) -> pd.Index:
        warm: pd.Index = self.items.index[~self.items.index.isin(self.X["item_id"])]
        return warm


def make_world(*, context: bool = False, seed: int = 0, n_users: int = 40, n_items: int = 30) -> World:
    """Two groups of users who mostly like the items of their group; every tenth user and item is warm.

    Users are 1000, 1001, ... and items 0, 1, ...; even ones form a group. Every user has interactions with y = 0.
    """
    rng = np.random.default_rng(seed)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(n_users), np.arange(n_items), indexing="ij"))
    same = user % 2 == item % 2
    drawn = rng.random(len(user)) < np.where(same, 0.5, 0.15)
    hot = (user % 10 != 9) & (item % 10 != 9)
    rows = rng.permutation(np.flatnonzero(drawn & hot))
    user, item, same = user[rows], item[rows], same[rows]
    X = pd.DataFrame({"user_id": 1000 + user, "item_id": item})
    if context:
        # In the morning group 0 is served, in the evening group 1.
        morning = (item % 2 == 0) ^ (rng.random(len(item)) < 0.1)
        X["daytime"] = np.where(morning, "morning", "evening")
    liked = rng.integers(1, 6, len(user))
    y = pd.Series(np.where(rng.random(len(user)) < 0.1, 0, liked).astype(float), name="rating")
    return World(X, y, _user_frame(np.arange(n_users), rng), _item_frame(np.arange(n_items), rng))


def _user_frame(codes: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    age = np.where(codes % 2 == 0, 20.0, 50.0) + rng.integers(0, 10, len(codes))
    age[codes % 7 == 3] = np.nan
    club = np.where(codes % 2 == 0, "chess", "tennis")
    return pd.DataFrame({"age": age, "club": club}, index=pd.Index(1000 + codes, name="user_id"))


def _item_frame(codes: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    genres = [["board", "calm"] if code % 2 == 0 else ["ball"] for code in codes]
    price = np.where(codes % 2 == 0, 5.0, 15.0) + rng.random(len(codes))
    return pd.DataFrame({"genres": genres, "price": price}, index=pd.Index(codes, name="item_id"))


def new_users() -> pd.DataFrame:
    """Features of users whom `fit` never saw: 5000 of group 0, 5001 of group 1."""
    return _user_frame(np.array([4000, 4001]), np.random.default_rng(1))


def new_items() -> pd.DataFrame:
    """Features of items that `fit` never saw: 600 of group 0, 601 of group 1."""
    return _item_frame(np.array([600, 601]), np.random.default_rng(1))


def checkerboard(n: int = 20) -> tuple[World, pd.Series]:
    """Users like every other item, save one that is withheld: the answer, an item for each user."""
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    kept = (user % 2 == item % 2) & (user != item)
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user_id": 1000 + user[kept], "item_id": item[kept]})
    y = pd.Series(np.ones(len(X)))
    answer = pd.Series(np.arange(n), index=pd.Index(1000 + np.arange(n), name="user_id"), name="item_id")
    return World(X, y, _user_frame(np.arange(n), rng), _item_frame(np.arange(n), rng)), answer


def fit(model: BaseRecommender, world: World) -> BaseRecommender:
    """Fit with all that the world has."""
    return model.fit(world.X, world.y, user_features=FeatureTable(world.users), item_features=FeatureTable(world.items))


@cache
def _fitted(name: str, context: bool) -> tuple[BaseRecommender, World]:
    world = make_world(context=context)
    return fit(CASES[name].make(), world), world


def fitted(name: str, context: bool = False) -> tuple[BaseRecommender, World]:
    """A fitted model of its own for the caller, and its world, which is shared: do not change it."""
    model, world = _fitted(name, context)
    return copy.deepcopy(model), world


def product(users: list[int], items: pd.Index) -> pd.DataFrame:
    """Every user with every item, items running fastest."""
    return pd.DataFrame({"user_id": np.repeat(np.array(users), len(items)), "item_id": np.tile(items, len(users))})


def assert_close(actual: Any, expected: Any) -> None:
    """Scores of one pair may come from products of other shapes, which differ in the last bits."""
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)

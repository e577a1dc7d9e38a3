"""Small worlds that tests of several models share, and how well their answers are ranked there."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from recsys._sparse import Csr
from recsys.base import BaseRecommender
from recsys.datasets import make_movielens_like
from recsys.evaluation.metrics import hit_matrix, ndcg
from recsys.evaluation.statistics import paired_bootstrap
from recsys.exceptions import ColdStartWarning


def two_groups(n: int, *, context: bool = False, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Two groups of n users who like the items of theirs, n as well; every eighth user and item is warm."""
    rng = np.random.default_rng(seed)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(n), np.arange(n), indexing="ij"))
    kept = (user % 2 == item % 2) & (user % 8 != 7) & (item % 8 != 7) & (rng.random(len(user)) < 0.6)
    X = pd.DataFrame({"user_id": user[kept], "item_id": [f"i{i}" for i in item[kept]]})
    if context:
        X["daytime"] = np.where(item[kept] % 4 < 2, "morning", "evening")
    club = np.where(np.arange(n) % 2 == 0, "chess", "tennis")
    users = pd.DataFrame({"club": club, "age": rng.uniform(20, 60, n)}, index=pd.RangeIndex(n, name="user_id"))
    genres = [["board", "calm"] if i % 2 == 0 else ["ball"] for i in range(n)]
    items = pd.DataFrame({"genres": genres}, index=pd.Index([f"i{i}" for i in range(n)], name="item_id"))
    return X, users, items


@cache
def movielens_like() -> tuple[Any, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Features; interactions to train on; those of held-out users; those of held-out items with trained users."""
    ml = make_movielens_like(900, 200, 30_000, random_state=0)
    X, rng = ml.interactions[["user_id", "item_id"]], np.random.default_rng(0)
    new_user = X["user_id"].isin(rng.permutation(ml.users["user_id"])[:300])
    new_item = X["item_id"].isin(rng.permutation(ml.items["item_id"])[:60])
    return ml, X[~new_user & ~new_item], X[new_user & ~new_item], X[~new_user & new_item]


def ndcg_at_10(model: BaseRecommender, wanted: pd.DataFrame, **told: Any) -> Any:
    """NDCG@10 of each user of `wanted`, in the order of their ids."""
    users, codes = np.unique(wanted["user_id"], return_inverse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        found = model.recommend(users, k=10, **told)
    lists = np.full((len(users), 10), -1)
    lists[np.searchsorted(users, found["user_id"]), found["rank"] - 1] = model.items_.encode(found["item_id"])
    truth = np.zeros((len(users), len(model.items_)), dtype=np.float32)
    truth[codes, model.items_.encode(wanted["item_id"])] = 1
    return ndcg(hit_matrix(lists, Csr(truth)), truth.sum(1).astype(np.int64), 10)


def assert_better(better: Any, worse: Any) -> None:
    """The paired interval of the difference is above zero."""
    assert paired_bootstrap(better, worse, random_state=0).low > 0


def sums_to_predictions(model: BaseRecommender, X: pd.DataFrame, **told: Any) -> pd.DataFrame:
    """The explanation of `X`, whose contributions add up to the predictions."""
    explained = model.explain(X, **told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        scores = model.predict(X, **told)
    sums = explained.groupby("row")["contribution"].sum()
    assert sums.index.tolist() == list(range(len(X)))
    np.testing.assert_allclose(sums, scores, rtol=1e-4, atol=1e-4)
    return explained

"""Every model lives through little data and through features that say nothing, or say it twice."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from recsys import FeatureTable
from recsys.exceptions import ColdStartWarning
from tests.contract.suite import CASES, NAMES

every = pytest.mark.parametrize("name", NAMES)

LITTLE = {
    "one interaction": pd.DataFrame({"user_id": [1], "item_id": ["a"]}),
    "one user who has everything": pd.DataFrame({"user_id": [1, 1, 1], "item_id": ["a", "b", "z"]}),
    "a catalogue of one item": pd.DataFrame({"user_id": [1, 2, 3], "item_id": ["a", "a", "a"]}),
    "an item with one interaction": pd.DataFrame({"user_id": [1, 1, 2, 3, 3], "item_id": ["a", "b", "a", "a", "z"]}),
}
FEATURES = {
    "constant": pd.DataFrame({"kind": ["x", "x", "x"], "same": 1.0}, index=list("abz")),
    "the same twice": pd.DataFrame({"kind": ["x", "y", "x"], "copy": ["x", "y", "x"]}, index=list("abz")),
    "no values": pd.DataFrame({"kind": [None, None, None], "number": np.nan}, index=list("abz")),
    "vectors of rank one": pd.DataFrame({"vector": [[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0]]}, index=list("abz")),
}


@every
@pytest.mark.parametrize("data", LITTLE)
@pytest.mark.parametrize("features", FEATURES)
def test_scores_are_finite(name: str, data: str, features: str) -> None:
    X = LITTLE[data]
    items = FEATURES[features]
    if data == "a catalogue of one item":
        items = items.loc[["a"]]
    users = pd.DataFrame({"age": [30.0, 30.0, 30.0, 30.0]}, index=[1, 2, 3, 4])
    model = CASES[name].make().set_params(**CASES[name].battery)
    model.fit(X, user_features=FeatureTable(users), item_features=FeatureTable(items))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        found = model.recommend([1, 2, 3, 4, 5], k=5, exclude_seen=False)
        told = model.explain(pd.DataFrame({"user_id": [1, 4], "item_id": ["a", "a"]}))
    assert len(found) == 5 * len(model.items_)
    assert np.isfinite(found["score"]).all()
    assert np.isfinite(told["contribution"]).all()
    model.partial_fit(pd.DataFrame({"user_id": [9, 9], "item_id": ["a", "new"]}))
    assert np.isfinite(model.recommend([9], k=5, exclude_seen=False)["score"]).all()


@every
def test_weights_of_any_size_give_finite_scores(name: str) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"user_id": rng.integers(0, 8, 40), "item_id": rng.integers(0, 6, 40)}).drop_duplicates()
    for size in (1e-6, 1e6):
        model = CASES[name].make().set_params(**CASES[name].battery).fit(X, np.full(len(X), size))
        assert np.isfinite(model.recommend(range(8), k=6, exclude_seen=False)["score"]).all()

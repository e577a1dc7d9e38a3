"""The table that requests are scored with is made once, and again when the catalogue or the model changes."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pandas as pd
import pytest

from recsys import ContrastiveRecommender, MatrixFactorization, vectors
from recsys.vectors import VectorRecommender

X = pd.DataFrame({"user_id": ["ann", "ann", "bob", "bob", "cid"], "item_id": ["tea", "ale", "tea", "rum", "ale"]})


def fitted() -> list[VectorRecommender]:
    models = [MatrixFactorization(n_factors=2, random_state=0), ContrastiveRecommender(max_iter=2, random_state=0)]
    return [model.fit(X) for model in models]


def scores(model: VectorRecommender) -> pd.DataFrame:
    found = model.recommend(["ann", "bob"], k=9, exclude_seen=False)
    pairs = found[["user_id", "item_id"]]
    np.testing.assert_allclose(found["score"], model.predict(pairs), rtol=1e-5, atol=1e-6)
    return found


@pytest.mark.parametrize("model", fitted(), ids=lambda model: type(model).__name__)
def test_a_table_is_kept_until_the_catalogue_or_the_model_changes(model: VectorRecommender) -> None:
    scores(model)
    table = vectors._tables[model][1]
    np.testing.assert_array_equal(table[: len(model.items_), :], model.item_vectors()[:, :-1])
    assert not table[len(model.items_) :].any()
    scores(model)
    assert vectors._tables[model][1] is table
    model.add_items(["gin"])
    assert set(scores(model)["item_id"]) == {"tea", "ale", "rum", "gin"}
    grown = vectors._tables[model][1]
    assert grown is not table
    before = scores(model)["score"]
    model.partial_fit(pd.DataFrame({"user_id": ["bob", "dan"], "item_id": ["gin", "gin"]}))
    assert not before.equals(scores(model)["score"])


def test_a_copy_has_a_table_of_its_own_and_none_outlives_its_model() -> None:
    model = fitted()[0]
    other = copy.copy(model)
    other.add_items(["gin"])
    assert len(scores(other)) == 8
    assert len(scores(model)) == 6
    held = len(vectors._tables)
    del other
    gc.collect()
    assert len(vectors._tables) == held - 1

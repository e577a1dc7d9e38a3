from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from recsys._fields import Field
from recsys._sparse import Csr
from recsys.features import EncodedFeatures
from recsys.interactions import ContextRows, TrainingData
from recsys.nn import stopping
from recsys.nn.stopping import _HeldOut, best_n_epochs
from recsys.nn.towers import Towers
from recsys.nn.training import Recipe

RECIPE = Recipe(
    learning_rate=0.02, batch_size=None, id_dropout=0.5, field_dropout=0.1, contrast_weight=0.5, n_negatives=1000
)


def world(n: int = 40, *, context: bool = False, seed: int = 0) -> TrainingData:
    """Two groups of users who like the items of their group, told by a feature of both."""
    rng = np.random.default_rng(seed)
    liked = (np.arange(n)[:, None] % 2 == np.arange(n) % 2) & (rng.random((n, n)) < 0.5)
    features = EncodedFeatures(
        Csr(np.eye(2, dtype=np.float32)[np.arange(n) % 2]), (Field("group", "categorical", 0, 2),)
    )
    users, items = np.nonzero(liked)
    rows = ContextRows(users, items, features.take(items)) if context else None
    return TrainingData(Csr(liked.astype(np.float32)), features, features, rows)


def new_towers(data: TrainingData) -> Towers:
    context = data.context is not None
    n_users, n_items = data.matrix.shape
    fields = len(data.user_features.fields)
    columns = data.user_features.n_columns
    return Towers(
        {
            "users": n_users,
            "items": n_items,
            "user_columns": columns,
            "item_columns": columns,
            "context_columns": 2 * context,
            "user_fields": fields,
            "item_fields": fields,
            "context_fields": int(context),
            "factors": 4,
        },
        0,
    )


def dense(matrix: Csr) -> Any:
    return matrix.toarray() > 0


@pytest.mark.parametrize("context", [False, True])
def test_parts_do_not_overlap_and_training_sees_none(context: bool) -> None:
    data = world(context=context)
    held = _HeldOut(data, 0.2, np.random.default_rng(0))
    parts = [dense(part) for part in (held.train.matrix, held.users, held.items, held.pairs)]
    assert np.sum(parts, axis=0).max() == 1
    assert all(part.any() for part in parts)
    # Only the new items of new users are in no part: nothing is known of either.
    rest = dense(data.matrix) & ~np.any(parts, axis=0)
    assert not rest[~held.user_out].any()
    assert not rest[:, np.setdiff1d(np.arange(40), held.cold_items)].any()
    train, users, items, pairs = parts
    assert not train[held.user_out].any()
    assert not train[:, held.cold_items].any()
    assert not users[~held.user_out].any()
    assert not np.delete(items, held.cold_items, axis=1).any()
    assert not pairs[held.user_out].any()
    if context:
        rows = held.train.context
        assert rows is not None
        assert train[rows.users, rows.items].all()
        assert len(rows.users) == len(rows.features) == train.sum()
        np.testing.assert_array_equal(rows.features.matrix.indices, rows.items % 2)


@pytest.mark.parametrize("context", [False, True])
def test_score_is_that_of_perfect_and_of_useless_towers(context: bool) -> None:
    data = world(context=context)
    held = _HeldOut(data, 0.2, np.random.default_rng(0))
    towers = new_towers(held.train)
    with torch.no_grad():
        for weights in towers.parameters():
            weights.zero_()
        useless = held.score(towers)
        # Users and items of a group share a direction, told by their features alone.
        for table in (towers.user_columns, towers.item_columns):
            table[:, :2] = 20 * torch.eye(2)
    assert useless < 0.5
    # Every item of the group ranks before the others, in an order that knows nothing of who took which.
    assert held.score(towers) > useless + 0.1


class Script:
    """A trainer whose epochs score as told."""

    values: Iterator[float]
    losses: Iterator[float]

    def __init__(self, *_: object) -> None:
        self.n_epochs = 0

    def epoch(self) -> float:
        return next(type(self).losses)

    def swap_averages(self) -> None:
        """There are none."""


@pytest.mark.parametrize(
    ("values", "patience", "max_epochs", "best"),
    [
        ([0.1, 0.2, 0.3, 0.2, 0.2, 0.9], 2, 10, 3),
        ([0.1, 0.2, 0.3, 0.2, 0.2, 0.9], 3, 6, 6),
        ([0.5, 0.4, 0.3], 2, 3, 1),
        ([0.1, 0.2, 0.3, 0.4], 1, 3, 3),
        ([0.3, 0.3, 0.3], 5, 3, 1),
    ],
)
def test_patience(
    values: list[float], patience: int, max_epochs: int, best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, Script.losses = iter(values), iter([1.0] * 10)
    monkeypatch.setattr(stopping, "Trainer", Script)
    monkeypatch.setattr(_HeldOut, "score", lambda *_: next(scores))
    assert best_n_epochs(world(), new_towers, RECIPE, max_epochs, patience, 0.2, 0) == best


def test_divergence_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, Script.losses = iter([0.1, 0.2, 0.3]), iter([1.0, 1.0, np.nan])
    monkeypatch.setattr(stopping, "Trainer", Script)
    monkeypatch.setattr(_HeldOut, "score", lambda *_: next(scores))
    assert best_n_epochs(world(), new_towers, RECIPE, 10, 5, 0.2, 0) == 2


@pytest.mark.parametrize("context", [False, True])
def test_same_seed_same_answer(context: bool) -> None:
    data = world(context=context)
    first, second = (best_n_epochs(data, new_towers, RECIPE, 6, 2, 0.2, 0) for _ in range(2))
    assert 1 <= first == second <= 6


@pytest.mark.parametrize(("shape", "fraction"), [((1, 1), 0.5), ((1, 3), 0.001), ((2, 2), 0.999)])
def test_too_little_to_hold_out(shape: tuple[int, int], fraction: float) -> None:
    nothing = EncodedFeatures.empty
    data = TrainingData(Csr(np.ones(shape, dtype=np.float32)), nothing(shape[0]), nothing(shape[1]), None)
    assert best_n_epochs(data, new_towers, RECIPE, 4, 2, fraction, 0) == 4

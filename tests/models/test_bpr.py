"""Pairwise ranking: one step by hand, and what many of them reach."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys._sparse import Csr
from recsys.models._bpr import bpr_epoch, pool_histories


def start(n: int, d: int, seed: int) -> tuple[Any, Any]:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32) / 10
    return vectors, np.zeros(n, dtype=np.float32)


def test_one_pair_is_one_step_of_adagrad() -> None:
    matrix = Csr(np.array([[1, 0]], dtype=np.float32))
    users, items = start(1, 3, 0), start(2, 3, 1)
    users[0][:, -1] = 1
    x, y = users[0].astype(np.float64), items[0].astype(np.float64)
    # Only item 0 is hot, so every draw is the positive itself: nothing moves, and there is no loss.
    rng = np.random.default_rng(0)
    assert bpr_epoch(matrix, users, items, learning_rate=0.1, l2=0.3, rng=rng) == 0
    np.testing.assert_array_equal(users[0], x.astype(np.float32))
    # Two users with an item each: whatever is drawn against user 0's is item 1, or it is left out.
    matrix = Csr(np.array([[1, 0], [0, 1]], dtype=np.float32))
    users = start(2, 3, 0)
    users[0][:, -1] = 1
    x = users[0].astype(np.float64)
    drawn = np.random.default_rng(5)
    drawn.permutation(2)
    against = drawn.integers(0, 2, 2)
    expected_x, loss, kept = x.copy(), 0.0, 0
    for user in (0, 1):
        if against[user] == user:
            continue
        kept += 1
        difference = y[user] - y[against[user]]
        margin = x[user] @ difference
        loss += np.log1p(np.exp(-margin))
        gradient = -difference / (1 + np.exp(margin)) + 0.3 * x[user]
        gradient[-1] = 0
        expected_x[user] -= 0.1 * gradient / np.sqrt((gradient**2).mean() + 1e-8)
    assert kept
    items = (y.astype(np.float32), np.zeros(2, dtype=np.float32))
    found = bpr_epoch(matrix, users, items, learning_rate=0.1, l2=0.3, rng=np.random.default_rng(5))
    np.testing.assert_allclose(users[0], expected_x, rtol=1e-4)
    np.testing.assert_allclose(found, loss / kept, rtol=1e-5)
    assert (users[0][:, -1] == 1).all()


def test_epochs_lower_the_loss_and_rank_the_groups_apart() -> None:
    user, item = np.meshgrid(np.arange(40), np.arange(30), indexing="ij")
    rng = np.random.default_rng(0)
    matrix = Csr(((user % 2 == item % 2) & (rng.random(user.shape) < 0.5)).astype(np.float32))
    users, items = start(40, 5, 0), start(30, 5, 1)
    users[0][:, -1] = 1
    losses = [bpr_epoch(matrix, users, items, learning_rate=0.1, l2=0.1, rng=rng) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]
    scores = users[0] @ items[0].T
    same = user % 2 == item % 2
    assert scores[same].mean() > scores[~same].mean() + 2


def test_pooled_histories() -> None:
    history, items = Csr(np.array([[0, 3, 1, 0], [0, 0, 0, 0]], dtype=np.float32)), start(4, 3, 0)[0]
    expected = [(items[1] + items[2]) / np.sqrt(2), np.zeros(3)]
    np.testing.assert_allclose(pool_histories(history, items), expected, rtol=1e-5)

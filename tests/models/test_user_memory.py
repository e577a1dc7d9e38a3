from __future__ import annotations

import numpy as np
import pytest
from sklearn import config_context

from recsys._sparse import Csr
from recsys.models import _user_memory
from recsys.models._user_memory import LEAST, MOST, OWN, SHARPNESS, UserMemory

N_USERS, N_ITEMS = 30, 20


def world(seed: int = 0) -> tuple[Csr, np.ndarray, np.ndarray]:
    """Histories, and vectors of users and items whose inner products are about probabilities."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(N_ITEMS, 4)).astype(np.float32) * 0.3
    users = rng.normal(size=(N_USERS, 4)).astype(np.float32) * 0.5
    taken = rng.random((N_USERS, N_ITEMS)) < np.clip(users @ items.T + 0.3, 0.05, 0.9)
    taken[:, 0] = True
    return Csr(taken.astype(np.float32)), users, items


def learn(seed: int = 0) -> UserMemory:
    return UserMemory.learn(*world(seed), np.random.RandomState(0))


def by_hand(histories: np.ndarray, left_out: list[int], seed: int = 0) -> np.ndarray:
    """The posterior of the module's docstring, one user after the other."""
    matrix, users, _ = world(seed)
    found = []
    for history, itself in zip(histories, left_out, strict=True):
        logs = np.full(N_USERS, -np.inf)
        for user in range(N_USERS):
            if user != itself:
                taken = np.clip(
                    (1 - OWN) * users[user] @ world(seed)[2].T + OWN * matrix[user].toarray()[0], LEAST, MOST
                )
                logs[user] = SHARPNESS * np.log(taken / taken.sum())[history > 0].sum()
        weights = np.exp(logs - logs.max())
        found.append(weights / weights.sum())
    return np.array(found)


def test_attention_is_the_posterior_of_a_mixture_of_users() -> None:
    memory = learn()
    rng = np.random.default_rng(1)
    histories = (rng.random((6, N_ITEMS)) < 0.2).astype(np.float32)
    histories[:, 1] = 1
    left_out = [-1, -1, 3, 29, 0, -1]
    expected = by_hand(histories, left_out) @ memory.tastes
    np.testing.assert_allclose(memory.attend(Csr(histories), np.array(left_out)), expected, rtol=2e-4, atol=1e-6)


def test_tastes_are_shares_of_what_users_take() -> None:
    matrix, users, items = world()
    memory = learn()
    np.testing.assert_array_equal(memory.users, np.arange(N_USERS))
    # Half is what the model scores, half what the user has, as near as four dimensions come to it.
    taken = np.clip((1 - OWN) * users @ items.T + OWN * matrix.toarray(), LEAST, MOST)
    own = 2 * memory.tastes * taken.sum(1, keepdims=True) - users
    gram = items.T @ items
    ridge = np.linalg.solve(gram + 0.1 * np.trace(gram) / 4 * np.eye(4), (matrix @ items).T).T
    np.testing.assert_allclose(own, ridge, rtol=1e-3, atol=1e-4)


def test_a_user_does_not_remember_itself() -> None:
    memory = learn()
    history = Csr(world()[0][[5]])
    alone = memory.attend(history, np.array([5]))
    others = UserMemory(
        np.delete(memory.users, 5), memory.items, np.delete(memory.keys, 5, 0), np.delete(memory.tastes, 5, 0)
    )
    np.testing.assert_allclose(alone, others.attend(history, np.array([-1])), rtol=1e-5)
    assert not np.allclose(alone, memory.attend(history, np.array([-1])))


def test_one_user_alone_remembers_nobody() -> None:
    matrix, users, items = world()
    memory = UserMemory.learn(matrix[:1], users[:1], items, np.random.RandomState(0))
    found = memory.attend(Csr(matrix[[0, 1]]), np.array([0, -1]))
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1], memory.tastes[0], rtol=1e-6)


def test_chunks_answer_the_same() -> None:
    memory, (matrix, _, _) = learn(), world()
    whole = memory.attend(matrix, np.arange(N_USERS))
    with config_context(working_memory=1e-3):
        np.testing.assert_allclose(memory.attend(matrix, np.arange(N_USERS)), whole, rtol=1e-5, atol=1e-7)


def test_new_items_say_nothing() -> None:
    memory, (matrix, _, _) = learn(), world()
    grown = memory.grown(N_ITEMS + 2)
    longer = Csr(np.column_stack([matrix.toarray(), np.ones((N_USERS, 2), np.float32)]))
    nobody = np.full(N_USERS, -1)
    np.testing.assert_array_equal(grown.attend(longer, nobody), memory.attend(matrix, nobody))


@pytest.mark.parametrize("name", ["MOST_USERS", "MOST_PAIRS"])
def test_memory_is_limited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_user_memory, name, {"MOST_USERS": 7, "MOST_PAIRS": 7 * N_ITEMS}[name])
    memory = learn()
    assert len(memory.users) == len(memory.keys) == len(memory.tastes) == 7
    assert (np.diff(memory.users) > 0).all()


def test_only_popular_items_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_user_memory, "MOST_ITEMS", 5)
    counts = np.bincount(world()[0].indices, minlength=N_ITEMS)
    speaking = np.flatnonzero(learn().items.any(1))
    assert len(speaking) == 5
    assert counts[speaking].min() >= np.delete(counts, speaking).max()

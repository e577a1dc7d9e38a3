from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys._fields import Field
from recsys._sparse import Csr
from recsys.features import EncodedFeatures
from recsys.interactions import ContextRows, TrainingData
from recsys.nn.deepfm import DeepFMNet
from recsys.nn.pairs import DeepFMTrainer, PairRecipe, PairSampler, group_softmax
from recsys.nn.towers import FieldBags

N = 24
RECIPE = PairRecipe(learning_rate=0.02, batch_size=256, n_negatives=3, id_dropout=0.2, dropout=0.1, l2=1e-4)


def one_hot(codes: np.ndarray, n: int) -> EncodedFeatures:
    return EncodedFeatures(Csr(np.eye(n, dtype=np.float32)[codes]), (Field("kind", "categorical", 0, n),))


def brute_softmax(
    positives: np.ndarray,
    rows: np.ndarray,
    negatives: np.ndarray,
    negative_rows: np.ndarray,
    weights: np.ndarray,
    n_items: int,
) -> float:
    losses = []
    for score, row in zip(positives, rows, strict=True):
        mine = negatives[negative_rows == row]
        rest = n_items * np.exp(mine).mean() if len(mine) else 0.0
        losses.append(np.log(np.exp(score) + rest) - score)
    return float(np.average(losses, weights=weights[rows]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 8), st.integers(0, 12))
def test_group_softmax_is_the_formula(seed: int, n_positives: int, n_negatives: int) -> None:
    rng = np.random.default_rng(seed)
    positives, negatives = rng.normal(0, 3, n_positives), rng.normal(0, 3, n_negatives)
    rows, negative_rows = rng.integers(3, size=n_positives), rng.integers(3, size=n_negatives)
    weights = rng.uniform(0.5, 2, 3)
    found = group_softmax(
        torch.from_numpy(positives).float(),
        torch.from_numpy(rows),
        torch.from_numpy(negatives).float(),
        torch.from_numpy(negative_rows),
        torch.from_numpy(weights).float(),
        50,
    )
    expected = brute_softmax(positives, rows, negatives, negative_rows, weights, 50)
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_group_softmax_of_large_scores_is_finite() -> None:
    scores, rows = torch.tensor([500.0, -500.0], requires_grad=True), torch.tensor([0, 0])
    loss = group_softmax(scores, rows, torch.tensor([400.0, -400.0]), rows, torch.ones(1), 10)
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def checkerboard(*, context: bool = False, features: bool = True) -> TrainingData:
    """Users like every other item, save a quarter of them; the last two items are cold."""
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(N), np.arange(N - 2), indexing="ij"))
    kept = (user % 2 == item % 2) & ((user + item) % 8 != 0)
    user, item = user[kept], item[kept]
    matrix = Csr((np.ones(len(user), np.float32), (user, item)), shape=(N, N))
    nothing = EncodedFeatures.empty(N)
    told = ContextRows(user, item, one_hot(item % 4 // 2, 2)) if context else None
    sides = (one_hot(np.arange(N) % 3, 3), one_hot(np.arange(N) % 2, 2)) if features else (nothing, nothing)
    return TrainingData(matrix, *sides, told)


def new_net(data: TrainingData, seed: int = 0) -> DeepFMNet:
    sizes = {
        "users": N,
        "items": N,
        "factors": 4,
        "user_columns": data.user_features.n_columns,
        "item_columns": data.item_features.n_columns,
        "context_columns": data.context.features.n_columns if data.context else 0,
        "user_fields": len(data.user_features.fields),
        "item_fields": len(data.item_features.fields),
        "context_fields": len(data.context.features.fields) if data.context else 0,
    }
    return DeepFMNet(sizes, [8, 8], seed)


def pairs_of(matrix: Any) -> set[tuple[int, int]]:
    coo = matrix.tocoo()
    return set(zip(coo.row.tolist(), coo.col.tolist(), strict=True))


@pytest.mark.parametrize("context", [False, True])
def test_every_positive_is_a_target_once_an_epoch_and_never_in_its_own_history(context: bool) -> None:
    sampler, rng = PairSampler(checkerboard(context=context), n_negatives=3), np.random.default_rng(0)
    wanted = pairs_of(sampler.targets)
    known = pairs_of(sampler.problem.known)
    for _ in range(3):
        seen: list[tuple[int, int]] = []
        for step in sampler.batches(20, rng):
            batch = sampler.complete(step, rng)
            n = batch.n_positives
            targets = list(zip(batch.rows[:n].tolist(), batch.items[:n].tolist(), strict=True))
            seen += [(int(batch.queries[row]), item) for row, item in targets]
            owner = np.repeat(np.arange(len(batch.queries)), batch.lengths)
            shown = set(zip(owner.tolist(), batch.history.tolist(), strict=True))
            assert not shown & set(targets)
            users = sampler.problem.query_users[batch.queries]
            assert {(int(users[row]), item) for row, item in shown} <= known
            negatives = zip(batch.queries[batch.rows[n:]].tolist(), batch.items[n:].tolist(), strict=True)
            assert not set(negatives) & wanted
            assert batch.items.max() < N - 2
        assert len(seen) == len(wanted)
        assert set(seen) == wanted


def test_histories_are_empty_full_and_between() -> None:
    sampler, rng = PairSampler(checkerboard(), n_negatives=1), np.random.default_rng(0)
    lengths = np.concatenate(
        [sampler.complete(step, rng).lengths for _ in range(100) for step in sampler.batches(10**6, rng)]
    )
    # Half of what a user has, four or five items, are the targets of a group.
    assert set(range(5)) <= set(lengths.tolist())
    assert 0.1 < (lengths == 0).mean() < 0.5


def test_a_user_with_many_positives_is_several_queries() -> None:
    matrix = Csr(np.ones((1, 100), np.float32))
    data = TrainingData(matrix, EncodedFeatures.empty(1), EncodedFeatures.empty(100), None)
    _, starts, queries = PairSampler(data, 1).deal(np.random.default_rng(0))
    assert queries.tolist() == [0] * 4
    assert np.diff(starts).tolist() == [25] * 4
    single = TrainingData(Csr(np.ones((1, 1), np.float32)), EncodedFeatures.empty(1), EncodedFeatures.empty(1), None)
    assert np.diff(PairSampler(single, 1).deal(np.random.default_rng(0))[1]).tolist() == [1]


def test_negatives_are_half_popular_half_even_and_their_excess_is_told() -> None:
    matrix = Csr(np.array([[1, 1, 0, 0]] * 3 + [[0, 1, 1, 0]], dtype=np.float32))
    sampler = PairSampler(TrainingData(matrix, EncodedFeatures.empty(4), EncodedFeatures.empty(4), None), 1)
    drawn = np.bincount(sampler._draw(40_000, np.random.default_rng(0)), minlength=4) / 40_000
    expected = 0.5 * np.array([3, 4, 1, 0]) / 8 + 0.5 * np.array([1, 1, 1, 0]) / 3
    np.testing.assert_allclose(drawn, expected, atol=0.01)
    np.testing.assert_allclose(np.exp(sampler.log_excess[:3]), expected[:3] * 3, rtol=1e-5)


def train(data: TrainingData, n_epochs: int = 3, seed: int = 0, recipe: PairRecipe = RECIPE) -> tuple[Any, list[float]]:
    net = new_net(data)
    trainer = DeepFMTrainer(net, PairSampler(data, recipe.n_negatives), recipe, seed)
    losses = [trainer.epoch() for _ in range(n_epochs)]
    trainer.swap_averages()
    return net, losses


@pytest.mark.parametrize("context", [False, True])
def test_same_seed_same_bits(context: bool) -> None:
    data = checkerboard(context=context)
    (first, losses), (second, again), (other, _) = (train(data, seed=seed) for seed in (0, 0, 1))
    assert losses == again
    for name, weights in first.named_parameters():
        assert torch.equal(weights, second.get_parameter(name))
    assert not torch.equal(first.get_parameter("items"), other.get_parameter("items"))


def test_learns_the_checkerboard_and_leaves_cold_items_alone() -> None:
    data = checkerboard()
    net, losses = train(data, 40)
    assert losses[-1] < losses[0]
    fresh = new_net(data)
    for table in ("items", "history_ids"):
        assert torch.equal(fresh.get_parameter(table)[-2:], net.get_parameter(table)[-2:])
        assert not torch.equal(fresh.get_parameter(table)[:-2], net.get_parameter(table)[:-2])
    everything, hot = torch.arange(N), torch.arange(N) < N - 2
    with torch.no_grad():
        items = net.item_fields(FieldBags(data.item_features), everything, hot)
        table = net.history_vectors(items, everything, hot)
        ids = torch.tensor([0, 0]), torch.tensor([False, False])
        history = table, torch.tensor([2, 4, 3, 5]), torch.tensor([2, 2])
        nobody = FieldBags(data.user_features.take([-1, -1])), FieldBags(EncodedFeatures.empty(2))
        users = net.halves(net.user_fields(ids, *nobody, history), "user")[0]
        scores = net.grid(users, net.halves(items, "item")[0], net.workspace(2 * N)).numpy()
    even = np.arange(N) % 2 == 0
    assert scores[0, even].min() > scores[0, ~even].max()
    assert scores[1, ~even].min() > scores[1, even].max()


def test_global_state_is_left_alone() -> None:
    before = torch.get_rng_state().tolist(), torch.is_grad_enabled()
    train(checkerboard(context=True))
    assert (torch.get_rng_state().tolist(), torch.is_grad_enabled()) == before


def test_dropped_units_are_as_many_as_said_and_the_rest_makes_up_for_them() -> None:
    data = checkerboard()
    trainer = DeepFMTrainer(new_net(data), PairSampler(data, 1), RECIPE, 0)
    kept = trainer._kept(4000)
    assert kept is not None
    for values in kept:
        assert values.shape == (4000, 8)
        assert float((values == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
        assert float(values.mean()) == pytest.approx(1, abs=0.01)


def test_steps_that_diverge_leave_no_trace_in_the_averages() -> None:
    data = checkerboard()
    net = new_net(data)
    trainer = DeepFMTrainer(net, PairSampler(data, 3), RECIPE, 0)
    assert np.isfinite(trainer.epoch())
    started = [average.clone() for average in trainer.averages]
    assert np.isfinite(trainer.epoch())
    with torch.no_grad():
        net.get_parameter("items")[0] = torch.nan
    assert not np.isfinite(trainer.epoch())
    assert all(torch.equal(a, b) for a, b in zip(trainer.averages, started, strict=True))

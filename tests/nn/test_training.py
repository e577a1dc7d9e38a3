from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys._fields import Field
from recsys._sparse import Csr, empty_csr
from recsys.features import EncodedFeatures
from recsys.interactions import ContextRows, TrainingData
from recsys.nn.towers import Towers
from recsys.nn.training import Problem, Recipe, Trainer

RECIPE = Recipe(
    learning_rate=0.02, batch_size=8, id_dropout=0.5, field_dropout=0.1, contrast_weight=0.5, n_negatives=1000
)
SAMPLED = Recipe(
    learning_rate=0.02, batch_size=8, id_dropout=0.5, field_dropout=0.1, contrast_weight=0.5, n_negatives=8
)
N = 24


def one_hot(codes: np.ndarray, n: int) -> EncodedFeatures:
    return EncodedFeatures(Csr(np.eye(n, dtype=np.float32)[codes]), (Field("kind", "categorical", 0, n),))


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


def new_towers(data: TrainingData, seed: int = 0) -> Towers:
    context = data.context
    return Towers(
        {
            "users": data.matrix.shape[0],
            "items": data.matrix.shape[1],
            "user_columns": data.user_features.n_columns,
            "item_columns": data.item_features.n_columns,
            "context_columns": context.features.n_columns if context else 0,
            "user_fields": len(data.user_features.fields),
            "item_fields": len(data.item_features.fields),
            "context_fields": len(context.features.fields) if context else 0,
            "factors": 8,
        },
        seed,
    )


def train(data: TrainingData, recipe: Recipe = RECIPE, n_epochs: int = 3, seed: int = 0) -> tuple[Towers, list[float]]:
    towers = new_towers(data)
    trainer = Trainer(towers, Problem(data), recipe, seed)
    losses = [trainer.epoch() for _ in range(n_epochs)]
    trainer.swap_averages()
    return towers, losses


def dense(matrix: Csr) -> np.ndarray:
    return np.asarray(matrix.toarray()) > 0


def test_what_is_shown_and_what_is_to_be_found_make_up_what_is_known() -> None:
    data = checkerboard()
    problem, rng = Problem(data), np.random.default_rng(0)
    queries = rng.permutation(len(problem.query_users))
    for _ in range(50):
        shown, targets = problem.draw(queries, rng)
        known = dense(data.matrix)[problem.query_users[queries]]
        assert not (dense(shown) & dense(targets)).any()
        np.testing.assert_array_equal(dense(shown) | dense(targets), known)
        assert dense(targets).any(axis=1).all()


def test_with_context_the_targets_are_what_was_found_in_it_and_not_shown() -> None:
    data = checkerboard(context=True)
    assert data.context is not None
    problem, rng = Problem(data), np.random.default_rng(0)
    situation = data.context.features.matrix.indices
    queries = rng.permutation(len(problem.query_users))
    assert len(queries) == len(set(zip(data.context.users.tolist(), situation.tolist(), strict=True)))
    known = dense(data.matrix)[problem.query_users[queries]]
    expected = np.zeros_like(known)
    for at, query in enumerate(queries):
        row = problem.context_row[query]
        same = (data.context.users == problem.query_users[query]) & (situation == situation[row])
        expected[at, data.context.items[same]] = True
    for _ in range(20):
        shown, targets = problem.draw(queries, rng)
        np.testing.assert_array_equal(dense(targets), expected & ~dense(shown))
        assert dense(targets).any(axis=1).all()
        assert not (dense(shown) & dense(targets)).any()
        assert not (dense(shown) & ~known).any()


@pytest.mark.parametrize("context", [False, True])
def test_histories_have_every_size_and_short_ones_often(context: bool) -> None:
    problem, rng = Problem(checkerboard(context=context)), np.random.default_rng(0)
    queries = np.zeros(4000, dtype=np.int64)
    shown, _ = problem.draw(queries, rng)
    known = len(dense(problem.known)[problem.query_users[0]].nonzero()[0])
    most = known - 1
    sizes = np.bincount(np.diff(shown.indptr), minlength=most + 1) / 4000
    assert len(sizes) == most + 1
    assert (sizes > 0).all()
    # Each of 0, 1, 2, 5, 10 comes in half of the draws one time in five; the other half is spread evenly.
    evenly = 0.5 / (most + 1)
    few = [size for size in (0, 1, 2, 5) if size < most]
    np.testing.assert_allclose(sizes[few], 0.1 + evenly, atol=0.03)
    # What is too short for 5 or 10 shows all there is.
    rest = 0.1 * sum(size > most for size in (5, 10))
    np.testing.assert_allclose(sizes[3], evenly + (rest if most == 3 else 0), atol=0.03)


def test_every_item_is_shown_as_often_as_others() -> None:
    problem, rng = Problem(checkerboard()), np.random.default_rng(0)
    shown, _ = problem.draw(np.zeros(6000, dtype=np.int64), rng)
    counts = np.bincount(shown.indices, minlength=N)
    liked = dense(problem.known)[problem.query_users[0]]
    assert not counts[~liked].any()
    np.testing.assert_allclose(counts[liked] / counts[liked].mean(), 1, atol=0.1)


def test_a_user_with_one_interaction_is_asked_without_history() -> None:
    data = TrainingData(Csr([[0, 1.0]], dtype=np.float32), EncodedFeatures.empty(1), EncodedFeatures.empty(2), None)
    shown, targets = Problem(data).draw(np.zeros(100, dtype=np.int64), np.random.default_rng(0))
    assert shown.nnz == 0
    assert targets.toarray().tolist() == [[0, 1]] * 100


def test_users_without_positives_are_not_asked() -> None:
    data = checkerboard()
    matrix = data.matrix.copy()
    matrix.data[matrix.indptr[3] : matrix.indptr[4]] = 0
    matrix.eliminate_zeros()
    problem = Problem(TrainingData(matrix, data.user_features, data.item_features, None))
    assert problem.query_users.tolist() == [user for user in range(N) if user != 3]


@pytest.mark.parametrize("recipe", [RECIPE, SAMPLED], ids=["full", "sampled"])
def test_cold_items_are_left_alone(recipe: Recipe) -> None:
    data = checkerboard()
    problem = Problem(data)
    assert problem.hot.tolist() == list(range(N - 2))
    trainer = Trainer(new_towers(data), problem, recipe, 0)
    assert trainer.sampled == (recipe is SAMPLED)
    for _ in range(20):
        codes, negatives, _ = trainer._candidates(*problem.draw(np.arange(8), trainer.rng))
        assert set(negatives) <= set(codes)
        assert codes.max() < N - 2
    fresh, (trained, _) = new_towers(data), train(data, recipe)
    for name in ("item_ids", "history_ids"):
        assert torch.equal(fresh.get_parameter(name)[-2:], trained.get_parameter(name)[-2:])
        assert not torch.equal(fresh.get_parameter(name)[:-2], trained.get_parameter(name)[:-2])


def test_expected_draws_are_the_chances_of_the_sample() -> None:
    data = checkerboard()
    trainer = Trainer(new_towers(data), Problem(data), SAMPLED, 0)
    empty = empty_csr(1, N)
    hits, told = np.zeros(N), np.zeros(N)
    for _ in range(3000):
        codes, negatives, log_expected = trainer._candidates(empty, empty)
        np.testing.assert_array_equal(codes, negatives)
        hits[negatives] += 1
        told[negatives] = log_expected.exp().numpy()
    np.testing.assert_allclose(hits / 3000, told, atol=0.04)


def gap(towers: Towers, data: TrainingData) -> float:
    """How much better a user without id, shown two items, is thought to like the held-out items of the same colour."""
    problem = Problem(data)
    with torch.no_grad():
        everything = torch.arange(N)
        vectors, _, _ = towers.items(problem.items, everything, problem.item_counts, with_ids=True)
        table = towers.history_vectors(everything, vectors, problem.item_counts > 0)
        rows = torch.stack([everything % 2, everything % 2 + 2], 1).reshape(-1)
        nobody = everything, torch.zeros(N), torch.zeros(N, dtype=torch.bool)
        users, _, _ = towers.users(nobody, problem.users, problem.context, (table, rows, torch.full((N,), 2)))
        scores = (users @ vectors[:, :-1].T)[:, 4 : N - 2]
    same = everything[:, None] % 2 == everything[None, 4 : N - 2] % 2
    return float(scores[same].mean() - scores[~same].mean())


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("recipe", [RECIPE, SAMPLED], ids=["full", "sampled"])
def test_learns_the_checkerboard(recipe: Recipe, features: bool) -> None:
    data = checkerboard(features=features)
    towers, losses = train(data, recipe, 40)
    assert losses[-1] < losses[0]
    assert gap(towers, data) > 1 > gap(new_towers(data), data)


@pytest.mark.parametrize("recipe", [RECIPE, SAMPLED], ids=["full", "sampled"])
@pytest.mark.parametrize("context", [False, True])
def test_same_seed_same_bits(recipe: Recipe, context: bool) -> None:
    data = checkerboard(context=context)
    (first, losses), (second, again), (other, _) = (train(data, recipe, seed=seed) for seed in (0, 0, 1))
    assert losses == again
    for name, weights in first.named_parameters():
        assert torch.equal(weights, second.get_parameter(name))
    assert not torch.equal(first.item_ids, other.item_ids)


def test_global_state_is_left_alone() -> None:
    def state() -> tuple[object, ...]:
        _, keys, position, *_ = np.random.mtrand._rand.get_state(legacy=True)
        numpy_state = (np.asarray(keys).tobytes(), position)
        return torch.get_rng_state().tolist(), numpy_state, torch.get_num_threads(), torch.is_grad_enabled()

    before = state()
    train(checkerboard(context=True), SAMPLED)
    assert state() == before


def test_averages_are_exchanged_with_the_weights() -> None:
    data = checkerboard()
    towers = new_towers(data)
    trainer = Trainer(towers, Problem(data), RECIPE, 0)
    fresh = towers.item_ids.detach().clone()
    assert torch.equal(trainer.averages[0], next(iter(towers.parameters())))
    trainer.epoch()
    trained = towers.item_ids.detach().clone()
    trainer.swap_averages()
    averaged = towers.item_ids.detach().clone()
    trainer.swap_averages()
    assert torch.equal(towers.item_ids, trained)
    # What was averaged lies between where training began and where it got.
    assert 0 < torch.linalg.norm(averaged - fresh) < torch.linalg.norm(trained - fresh)


def test_steps_that_diverge_leave_no_trace_in_the_averages() -> None:
    data = checkerboard()
    towers = new_towers(data)
    trainer = Trainer(towers, Problem(data), RECIPE, 0)
    assert np.isfinite(trainer.epoch())
    started = [average.clone() for average in trainer.averages]
    assert np.isfinite(trainer.epoch())
    with torch.no_grad():
        towers.item_ids[0] = torch.nan
    assert not np.isfinite(trainer.epoch())
    assert all(torch.equal(a, b) for a, b in zip(trainer.averages, started, strict=True))

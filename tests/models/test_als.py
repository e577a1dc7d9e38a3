from __future__ import annotations

import tracemalloc
from typing import Any
from unittest import mock

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys._sparse import Csr
from recsys.exceptions import InvalidInputError
from recsys.models import _als, _als_systems
from recsys.models._als import als_directions, als_half_step, als_loss, pad_rows
from recsys.models._als_systems import pair_products


def random_matrix(seed: int, shape: tuple[int, int], density: float = 0.2) -> Csr:
    """Weights from 0.5 to 5; rows of all lengths, the first and the last without positives."""
    rng = np.random.default_rng(seed)
    filled = rng.random(shape) < density * rng.uniform(0, 2, (shape[0], 1))
    filled[[0, -1]] = False
    return Csr(np.where(filled, rng.uniform(0.5, 5, shape), 0).astype(np.float32))


def random_vectors(seed: int, n: int, f: int) -> Any:
    return np.random.default_rng(seed).standard_normal((n, f)).astype(np.float32)


def exact(matrix: Csr, fixed: Any, alpha: float, regularization: float) -> Any:
    """Row by row: the normal equations of Hu et al., equation 4, with the dense confidence matrix."""
    dense, fixed = matrix.toarray().astype(np.float64), fixed.astype(np.float64)
    answer = np.zeros((len(dense), fixed.shape[1]))
    for u, weights in enumerate(dense):
        confidence = np.diag(1 + alpha * weights)
        system = fixed.T @ confidence @ fixed + regularization * np.eye(fixed.shape[1])
        answer[u] = np.linalg.solve(system, fixed.T @ confidence @ (weights > 0))
    return answer


def exact_with_prior(matrix: Csr, fixed: Any, prior: Any, counted: Any, alpha: float, regularization: float) -> Any:
    """Row by row, drawn towards `prior`; where they are no positives, only the columns of `counted` matter."""
    dense, fixed = matrix.toarray().astype(np.float64), fixed.astype(np.float64)
    answer = np.zeros((len(dense), fixed.shape[1]))
    for u, weights in enumerate(dense):
        if not weights.any():
            continue
        system = fixed[counted].T @ fixed[counted] + regularization * np.eye(fixed.shape[1])
        system += fixed.T @ np.diag(alpha * weights) @ fixed
        confidence = np.where(weights > 0, 1 + alpha * weights, 0)
        answer[u] = np.linalg.solve(system, fixed.T @ confidence + regularization * prior[u])
    return answer


def gradient_steps(matrix: Csr, fixed: Any, start: Any, alpha: float, regularization: float, steps: int) -> Any:
    """Row by row: the textbook conjugate gradient method."""
    dense, fixed = matrix.toarray().astype(np.float64), fixed.astype(np.float64)
    answer = start.astype(np.float64)
    for u, weights in enumerate(dense):
        if not weights.any():
            answer[u] = 0
            continue
        confidence = np.diag(1 + alpha * weights)
        system = fixed.T @ confidence @ fixed + regularization * np.eye(fixed.shape[1])
        residual = fixed.T @ confidence @ (weights > 0) - system @ answer[u]
        direction = residual.copy()
        for _ in range(steps):
            length = residual @ residual / (direction @ system @ direction)
            answer[u] += length * direction
            new = residual - length * (system @ direction)
            direction = new + (new @ new) / (residual @ residual) * direction
            residual = new
    return answer


def loss_by_hand(matrix: Csr, users: Any, items: Any, alpha: float, regularization: float) -> float:
    weights, users, items = matrix.toarray().astype(np.float64), users.astype(np.float64), items.astype(np.float64)
    errors = (1 + alpha * weights) * ((weights > 0) - users @ items.T) ** 2
    return float(errors.sum() + regularization * (np.sum(users**2) + np.sum(items**2)))


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few entries: rows are cut into many blocks, long ones into pieces, systems into batches."""
    monkeypatch.setattr(_als_systems, "BLOCK_BYTES", 4 * 5 * 12)


@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(2, 40), st.integers(1, 30)),
    st.integers(1, 9),
    st.sampled_from([0.0, 1.0, 20.0]),
    st.sampled_from([0.1, 5.0]),
)
def test_cholesky_is_the_exact_solution(
    seed: int, shape: tuple[int, int], f: int, alpha: float, regularization: float
) -> None:
    matrix, fixed = random_matrix(seed, shape), random_vectors(seed, shape[1], f)
    got = als_half_step(matrix, fixed, alpha=alpha, regularization=regularization, solver="cholesky")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact(matrix, fixed, alpha, regularization), rtol=2e-3, atol=2e-4)


@given(st.integers(0, 10_000), st.tuples(st.integers(2, 40), st.integers(1, 30)), st.integers(0, 3))
def test_gradient_steps_are_those_of_the_textbook(seed: int, shape: tuple[int, int], steps: int) -> None:
    matrix, fixed, start = random_matrix(seed, shape), random_vectors(seed, shape[1], 6), random_vectors(1, shape[0], 6)
    got = als_half_step(matrix, fixed, start, alpha=2.0, regularization=1.0, cg_steps=steps)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, gradient_steps(matrix, fixed, start, 2.0, 1.0, steps), rtol=2e-3, atol=2e-4)


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("seed", range(5))
def test_cut_into_small_blocks_and_pieces(seed: int) -> None:
    matrix, fixed = random_matrix(seed, (40, 60), 0.4), random_vectors(seed, 60, 5)
    padded = pad_rows(matrix, 5)
    lengths = [block.columns.shape[1] for block in padded.blocks]
    assert min(lengths) < padded.slots < max(lengths)
    got = als_half_step(matrix, fixed, alpha=3.0, regularization=1.0, solver="cholesky")
    np.testing.assert_allclose(got, exact(matrix, fixed, 3.0, 1.0), rtol=2e-3, atol=2e-4)


@given(st.integers(0, 10_000), st.integers(1, 200), st.tuples(st.integers(1, 40), st.integers(1, 30)))
def test_shares_cover_every_row(seed: int, share: int, shape: tuple[int, int]) -> None:
    matrix, fixed, start = (
        random_matrix(seed, shape, 0.4),
        random_vectors(seed, shape[1], 5),
        random_vectors(1, shape[0], 5),
    )
    with mock.patch.object(_als, "SHARE", share):
        got = als_half_step(matrix, fixed, start, alpha=3.0, regularization=1.0, n_jobs=2)
    np.testing.assert_allclose(got, gradient_steps(matrix, fixed, start, 3.0, 1.0, 3), rtol=2e-3, atol=2e-4)


@given(st.integers(0, 10_000), st.integers(0, 200), st.integers(1, 70), st.sampled_from(["C", "F"]))
def test_products_of_pairs(seed: int, n_pairs: int, width: int, order: Any) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((n, width)).astype(np.float32, order=order) for n in (7, 3))
    at_a, at_b = rng.integers(0, 7, n_pairs), rng.integers(0, 3, n_pairs)
    before = faiss.omp_get_max_threads()
    got = pair_products(a, at_a, b, at_b, np.full(n_pairs, np.nan, dtype=np.float32))
    np.testing.assert_allclose(got, (a[at_a] * b[at_b]).sum(axis=1), rtol=1e-4, atol=1e-4)
    assert faiss.omp_get_max_threads() == before


def test_many_gradient_steps_reach_the_exact_solution_and_stay() -> None:
    matrix, fixed = random_matrix(0, (50, 40)), random_vectors(0, 40, 8)
    steps = als_half_step(matrix, fixed, alpha=2.0, regularization=1.0, cg_steps=100)
    np.testing.assert_allclose(steps, exact(matrix, fixed, 2.0, 1.0), rtol=1e-4, atol=1e-5)


def test_known_answer() -> None:
    # One factor: x = sum(c y) / (sum(y^2) + sum((c - 1) y^2) + l2), by hand for c = 1 + 2 r.
    matrix = Csr(np.array([[1, 2, 0], [0, 0, 0]], dtype=np.float32))
    fixed = np.array([[1], [2], [3]], dtype=np.float32)
    expected = (3 * 1 + 5 * 2) / (14 + 2 * 1 + 4 * 4 + 0.5)
    for solver in ("cg", "cholesky"):
        got = als_half_step(matrix, fixed, alpha=2.0, regularization=0.5, solver=solver)
        assert got[0, 0] == pytest.approx(expected, rel=1e-6)
        assert got[1, 0] == 0


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_rows_without_positives_are_exactly_zero(solver: Any) -> None:
    matrix, fixed, start = random_matrix(0, (20, 30)), random_vectors(0, 30, 4), random_vectors(1, 20, 4)
    matrix.data[matrix.indptr[5] : matrix.indptr[6]] = 0
    got = als_half_step(matrix, fixed, start, alpha=1.0, regularization=1.0, solver=solver)
    empty: Any = ~(matrix.toarray() > 0).any(axis=1)
    assert empty[[0, 5, 19]].all()
    assert not got[empty].any()
    assert got[~empty].any(axis=1).all()
    nothing = Csr(np.zeros((3, 30), dtype=np.float32))
    assert als_half_step(nothing, fixed, alpha=1.0, regularization=1.0, solver=solver).tolist() == [[0.0] * 4] * 3
    nobody = Csr(np.zeros((0, 30), dtype=np.float32))
    assert als_half_step(nobody, fixed, alpha=1.0, regularization=1.0, solver=solver).shape == (0, 4)


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_an_explicit_zero_is_no_positive(solver: Any) -> None:
    matrix, fixed = random_matrix(0, (20, 30)), random_vectors(0, 30, 4)
    matrix.data[::3] = 0
    without = matrix.copy()
    without.eliminate_zeros()
    got = als_half_step(matrix, fixed, alpha=1.0, regularization=1.0, solver=solver)
    expected = als_half_step(without, fixed, alpha=1.0, regularization=1.0, solver=solver)
    np.testing.assert_array_equal(got, expected)
    users = random_vectors(1, 20, 4)
    losses = [als_loss(each, users, fixed, alpha=1.0, regularization=1.0) for each in (matrix, without)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_the_same_bits_again_and_on_any_number_of_threads(solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, fixed, start = random_matrix(0, (900, 400)), random_vectors(0, 400, 32), random_vectors(1, 900, 32)
    before = start.copy()
    monkeypatch.setattr(_als, "SHARE", 5_000)

    def solve(n_jobs: int | None) -> bytes:
        answer = als_half_step(matrix, fixed, start, alpha=1.0, regularization=1.0, solver=solver, n_jobs=n_jobs)
        return answer.tobytes()

    assert {solve(n_jobs) for n_jobs in (1, 2, 3, 3)} == {solve(None)}
    np.testing.assert_array_equal(start, before)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 4.0]))
def test_loss_is_that_of_the_dense_matrix(seed: int, alpha: float) -> None:
    matrix, users, items = random_matrix(seed, (12, 17)), random_vectors(seed, 12, 3), random_vectors(1, 17, 3)
    got = als_loss(matrix, users, items, alpha=alpha, regularization=0.7)
    assert got == pytest.approx(loss_by_hand(matrix, users, items, alpha, 0.7), rel=1e-9)


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_every_half_step_lowers_the_loss(solver: Any) -> None:
    by_user = random_matrix(0, (150, 90))
    by_item = by_user.T.tocsr()
    users, items = random_vectors(0, 150, 8) / 10, random_vectors(1, 90, 8) / 10
    settings: dict[str, Any] = {"alpha": 3.0, "regularization": 2.0}
    losses = [als_loss(by_user, users, items, **settings)]
    for _ in range(8):
        users = als_half_step(by_user, items, users, solver=solver, **settings)
        losses.append(als_loss(by_user, users, items, **settings))
        items = als_half_step(by_item, users, items, solver=solver, **settings)
        losses.append(als_loss(by_user, users, items, **settings))
    assert (np.diff(losses) < 1e-6 * losses[0]).all()
    assert losses[-1] < 0.6 * losses[0]


def test_padding_loses_and_adds_nothing() -> None:
    matrix = random_matrix(0, (300, 80))
    padded = pad_rows(matrix, 4_096)
    assert len(padded.blocks) > 5
    dense = np.zeros(matrix.shape, dtype=np.float32)
    for block in padded.blocks:
        assert block.columns.size <= padded.slots
        for row, columns, weights in zip(block.rows, block.columns, block.weights, strict=True):
            dense[row, columns[weights > 0]] = weights[weights > 0]
    np.testing.assert_array_equal(dense, matrix.toarray())
    slots = sum(block.columns.size for block in padded.blocks)
    assert slots < 1.2 * matrix.nnz


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_a_very_long_row_takes_no_more_memory(solver: Any) -> None:
    n, f = 800_000, 16
    rng = np.random.default_rng(0)
    fixed = rng.standard_normal((n, f), dtype=np.float32)
    matrix = Csr(np.ones((1, n), dtype=np.float32))
    settings: dict[str, Any] = {"alpha": 1.0, "regularization": 1.0, "solver": solver}
    tracemalloc.start()
    got = als_half_step(matrix, fixed, cg_steps=30, **settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * _als_systems.BLOCK_BYTES < fixed.nbytes
    expected = np.linalg.solve(
        2 * fixed.T.astype(np.float64) @ fixed + np.eye(f), 2 * fixed.sum(axis=0, dtype=np.float64)
    )
    np.testing.assert_allclose(got[0], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_priors_draw_and_columns_that_do_not_count(solver: Any) -> None:
    matrix, fixed = random_matrix(3, (25, 30)), random_vectors(1, 30, 4)
    prior, counted = random_vectors(2, 25, 4), np.arange(30) % 3 > 0
    gram = fixed[counted].T @ fixed[counted]
    settings: dict[str, Any] = {"alpha": 2.0, "regularization": 3.0, "prior": prior, "gram": gram}
    got = als_half_step(matrix, fixed, solver=solver, cg_steps=40, **settings)
    expected = exact_with_prior(matrix, fixed, prior, counted, 2.0, 3.0)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_directions_give_the_scores_part_by_part() -> None:
    matrix, fixed = random_matrix(3, (25, 30)), random_vectors(1, 30, 4)
    prior, targets = random_vectors(2, 25, 4), random_vectors(4, 25, 4)
    towards = als_directions(matrix, fixed, targets, alpha=2.0, regularization=3.0)
    solved = als_half_step(matrix, fixed, alpha=2.0, regularization=3.0, prior=prior, solver="cholesky")
    solved = np.where(matrix.toarray().any(axis=1, keepdims=True), solved, prior)
    confidence = np.where(matrix.toarray() > 0, 1 + 2 * matrix.toarray(), 0)
    parts = confidence * (towards @ fixed.T)
    scores = parts.sum(axis=1) + 3 * (towards * prior).sum(axis=1)
    np.testing.assert_allclose(scores, (solved * targets).sum(axis=1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_any_type_of_number(solver: Any) -> None:
    matrix, fixed = random_matrix(3, (25, 30)), random_vectors(1, 30, 4)
    settings: dict[str, Any] = {"alpha": 2.0, "regularization": 3.0, "solver": solver}
    expected = als_half_step(matrix, fixed, gram=fixed.T @ fixed, **settings)
    got = als_half_step(matrix.astype(np.float64), fixed, gram=(fixed.T @ fixed).astype(np.float64), **settings)
    np.testing.assert_array_equal(got, expected)


def test_bad_input() -> None:
    matrix, fixed = random_matrix(0, (20, 30)), random_vectors(0, 30, 4)
    solver: Any = "lu"
    with pytest.raises(InvalidInputError, match="`solver` is 'lu'; expected 'cg' or 'cholesky'"):
        als_half_step(matrix, fixed, alpha=1.0, regularization=1.0, solver=solver)
    with pytest.raises(InvalidInputError, match=r"have the shapes \(20, 30\), \(29, 4\), None and None; expected"):
        als_half_step(matrix, fixed[1:], alpha=1.0, regularization=1.0)
    with pytest.raises(InvalidInputError, match=r"have the shapes \(20, 30\), \(30, 4\), \(20, 5\) and None; expected"):
        als_half_step(matrix, fixed, random_vectors(0, 20, 5), alpha=1.0, regularization=1.0)
    with pytest.raises(InvalidInputError, match=r"The regularisation \(`l2`\) is too small for these weights"):
        als_half_step(matrix, np.zeros_like(fixed), alpha=1.0, regularization=0.0, solver="cholesky")
    matrix.data[3] = -1
    with pytest.raises(InvalidInputError, match=r"`matrix` has the weight -1.0; expected no negative ones"):
        pad_rows(matrix, 4)


def test_without_regularisation_gradients_stay_finite() -> None:
    matrix = random_matrix(0, (20, 30))
    fixed = np.zeros((30, 4), dtype=np.float32)
    assert not als_half_step(matrix, fixed, alpha=1.0, regularization=0.0).any()

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recsys._sparse import Csr
from recsys.exceptions import InvalidInputError
from recsys.models._dropout_ease import (
    DropoutEASE,
    FactorEASE,
    attribute_ridge,
    leading_basis,
    refuse_if_too_large,
    user_weights,
)

N_USERS, N_ITEMS, N_ATTRIBUTES = 60, 12, 4
L2, ATTRIBUTE_L2 = 3.0, 2.0

Doubles = npt.NDArray[np.float64]


def problem() -> tuple[Csr, Csr, npt.NDArray[np.float32]]:
    """Interactions, attributes with a constant, and weights of the users."""
    rng = np.random.default_rng(0)
    matrix = Csr((rng.random((N_USERS, N_ITEMS)) < 0.3).astype(np.float32))
    attributes = np.column_stack([rng.random((N_USERS, N_ATTRIBUTES - 1)), np.ones(N_USERS)])
    return matrix, Csr(attributes.astype(np.float32)), user_weights(matrix)


def marginalised(keep: float) -> tuple[Doubles, Doubles]:
    """The regression in which each interaction is kept with probability q: history and attribute parts."""
    sparse_matrix, sparse_attributes, weights = problem()
    x, f = sparse_matrix.toarray().astype(float), sparse_attributes.toarray().astype(float)
    w = np.diag(weights.astype(float))
    gram, cross, inner = x.T @ w @ x, f.T @ w @ x, f.T @ w @ f
    penalties = np.append(np.full(N_ATTRIBUTES - 1, ATTRIBUTE_L2), 1e-6 * inner[-1, -1])
    upper = keep**2 * gram + np.diag(keep * (1 - keep) * np.diag(gram) + keep**2 * L2)
    system = np.block([[upper, keep * cross.T], [keep * cross, inner + np.diag(penalties)]])
    right = np.vstack([keep * gram, cross])
    answer = np.zeros_like(right)
    for item in range(N_ITEMS):
        # The item's own interaction is no input of its regression.
        others = np.delete(np.arange(len(system)), item)
        answer[others, item] = np.linalg.solve(system[np.ix_(others, others)], right[others, item])
    return answer[:N_ITEMS], answer[N_ITEMS:]


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(0, 40), st.floats(0.1, 30))
@settings(max_examples=60, deadline=None)
def test_attributes_are_regressed_on_by_the_normal_equations(seed: int, n: int, n_codes: int, l2: float) -> None:
    rng = np.random.default_rng(seed)
    # A category of many codes, most of them alone; a set, whose members meet; a column of nothing; the constant.
    codes = np.eye(n_codes + 1, dtype=np.float32)[rng.integers(0, n_codes + 1, n), :n_codes]
    members = (rng.random((n, 3)) < 0.4) * rng.random(3)
    f = np.hstack([codes, members, np.zeros((n, 1)), np.ones((n, 1))]).astype(np.float32)
    x, w = (rng.random((n, 5)) < 0.4).astype(np.float32), rng.uniform(0.1, 2, n).astype(np.float32)
    gram = (f.T * w.astype(float)) @ f
    penalties = np.append(np.full(f.shape[1] - 1, l2), 1e-6 * max(gram[-1, -1], 1))
    right = (f.T * w.astype(float)) @ x
    coefficients, cross = attribute_ridge(Csr(x), Csr(f), w, l2)
    np.testing.assert_allclose(cross, right, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(coefficients, np.linalg.solve(gram + np.diag(penalties), right), rtol=1e-3, atol=1e-4)


def test_users_without_attributes_have_the_constant_alone() -> None:
    matrix, attributes, weights = problem()
    ones = Csr(attributes[:, -1])
    coefficients, _ = attribute_ridge(matrix, ones, weights, ATTRIBUTE_L2)
    expected = np.average(matrix.toarray(), axis=0, weights=weights)
    np.testing.assert_allclose(coefficients, expected[None], rtol=1e-4)


@pytest.mark.parametrize("keep", [0.01, 0.1, 0.5, 1.0])
def test_it_is_the_regression_on_histories_that_lose_interactions(keep: float) -> None:
    matrix, attributes, weights = problem()
    expected, cross = attribute_ridge(matrix, attributes, weights, ATTRIBUTE_L2)
    gram = (matrix.T @ sparse.diags_array(weights) @ matrix).toarray()
    solved = DropoutEASE.solve((gram - cross.T @ expected).astype(np.float32), gram.diagonal(), L2, keep)
    by_history, by_attributes = marginalised(keep)
    x, f = matrix.toarray(), attributes.toarray()
    told = f @ expected
    scores = told + solved.apply_transposed((x - keep * told).T.astype(np.float32)).T
    np.testing.assert_allclose(scores, x @ by_history + f @ by_attributes, atol=2e-3 if keep < 0.1 else 2e-4)
    np.testing.assert_allclose(solved.apply(np.eye(N_ITEMS, dtype=np.float32)), by_history, atol=2e-3, rtol=1e-3)


def test_both_products_are_with_one_matrix_of_no_diagonal() -> None:
    rng = np.random.default_rng(1)
    root = rng.standard_normal((9, 9)).astype(np.float32)
    gram = root @ root.T
    kept = gram.copy()
    solved = DropoutEASE.solve(gram, gram.diagonal(), 1.0, 0.3)
    np.testing.assert_array_equal(gram, kept)
    eye = np.eye(9, dtype=np.float32)
    np.testing.assert_allclose(solved.apply(eye), solved.apply_transposed(eye).T, atol=1e-4)
    np.testing.assert_allclose(np.diag(solved.apply(eye)), 0, atol=1e-4)


def test_a_singular_system_is_refused() -> None:
    gram = np.full((3, 3), 100, dtype=np.float32)
    with pytest.raises(InvalidInputError, match=r"`l2` is 1e-12, too small for this data: .* raise it"):
        DropoutEASE.solve(gram, gram.diagonal(), 1e-12, 1.0)


def test_weights_are_by_the_root_of_the_length_and_1_in_the_mean() -> None:
    matrix, _, weights = problem()
    lengths = np.diff(matrix.indptr)
    np.testing.assert_allclose(weights.sum(), np.count_nonzero(lengths), rtol=1e-5)
    hot = lengths > 0
    np.testing.assert_allclose(weights[hot] * np.sqrt(lengths[hot]), (weights * np.sqrt(lengths)).max(), rtol=1e-5)


def test_attributes_that_tell_nothing_leave_the_weighted_popularity() -> None:
    matrix, _, weights = problem()
    constant = Csr(np.ones((N_USERS, 1), dtype=np.float32))
    expected, _ = attribute_ridge(matrix, constant, weights, 1.0)
    np.testing.assert_allclose(expected[0], np.average(matrix.toarray(), axis=0, weights=weights), rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 5, 40, 99])
def test_the_basis_is_that_of_the_leading_eigenvectors(rank: int) -> None:
    rng = np.random.default_rng(0)
    orthonormal, _ = np.linalg.qr(rng.standard_normal((40, 40)))
    values = 2.0 ** -np.arange(40)
    operator = ((orthonormal * values) @ orthonormal.T).astype(np.float32)
    vectors, found = leading_basis(lambda x: operator @ x, 40, rank, np.random.RandomState(0))
    rank = min(rank, 40)
    assert vectors.shape == (40, rank)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(rank), atol=1e-5)
    np.testing.assert_allclose(found, values[:rank], atol=1e-5)
    some = min(rank, 8)
    np.testing.assert_allclose(np.abs((vectors[:, :some] * orthonormal[:, :some]).sum(0)), 1, atol=1e-3)
    assert (vectors[np.abs(vectors).argmax(0), np.arange(rank)] > 0).all()


def test_with_a_factor_an_item_it_is_the_ridge_regression_that_may_predict_itself() -> None:
    matrix, attributes, weights = problem()
    expected, cross = attribute_ridge(matrix, attributes, weights, ATTRIBUTE_L2)
    weighed = Csr(sparse.diags_array(np.sqrt(weights)) @ matrix).astype(np.float32)
    gram = (weighed.T @ weighed).toarray()
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((N_ITEMS, N_ITEMS)).astype(np.float32)
    solve = FactorEASE.solver(factors, weighed, cross, expected, gram.diagonal(), L2)
    residual = (gram - cross.T @ expected).astype(np.float64)
    for keep in (0.1, 0.5):
        system = residual + np.diag((1 - keep) / keep * gram.diagonal() + L2)
        answer = np.linalg.solve(system, residual) / keep
        found = solve(keep).apply(np.eye(N_ITEMS, dtype=np.float32))
        np.testing.assert_allclose(found, answer, atol=2e-3)


def test_more_items_than_memory_are_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PHYS_PAGES": 2**18, "SC_PAGE_SIZE": 2**12}[name])
    refuse_if_too_large(8000)
    with pytest.raises(InvalidInputError, match=r"about 1\.5 GiB for 10000 items .* the machine has 1\.0 GiB; .* drop"):
        refuse_if_too_large(10_000)

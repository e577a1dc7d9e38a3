from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge

from recsys._sparse import Csr, empty_csr
from recsys.nn import readout
from recsys.nn.readout import PENALTIES, exposure_shift, ridge_readout


def case(n: int, p: int, noise: float = 0.5, seed: int = 0) -> tuple[Csr, Any, Any]:
    rng = np.random.default_rng(seed)
    content = np.where(rng.random((n, p)) < 0.5, rng.standard_normal((n, p)), 0).astype(np.float32)
    truth = rng.standard_normal((p, 3))
    vectors = content @ truth + noise * rng.standard_normal((n, 3)) + 2
    return sparse.csr_matrix(content), vectors.astype(np.float32), rng.uniform(0.1, 1, n).astype(np.float32)


def ridge(content: Any, targets: Any, weights: Any, penalty: float) -> Any:
    model = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky")
    return model.fit(content.astype(np.float64), targets, sample_weight=weights).coef_.T


@pytest.mark.parametrize(("n", "p"), [(40, 6), (12, 30), (8, 8), (1, 4)])
def test_coefficients_are_those_of_scikit_learn(n: int, p: int) -> None:
    content, vectors, weights = case(n, p)
    coefficients, intercept, penalty, _ = ridge_readout(content, vectors, weights, seed=0)
    assert coefficients.dtype == intercept.dtype == np.float32
    assert penalty in PENALTIES
    mean = np.average(vectors, axis=0, weights=weights)
    np.testing.assert_allclose(intercept, mean, rtol=1e-5)
    expected = ridge(content.toarray(), vectors - mean, weights, penalty)
    np.testing.assert_allclose(coefficients, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("noise", [0.01, 3.0, 30.0])
def test_penalty_has_the_least_error_of_items_left_out(noise: float) -> None:
    content, vectors, weights = case(30, 8, noise)
    dense = content.toarray()
    targets = vectors - np.average(vectors, axis=0, weights=weights)
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for i in range(30):
            rest = np.arange(30) != i
            fitted = ridge(dense[rest], targets[rest], weights[rest], penalty)
            error += weights[i] * ((targets[i] - dense[i] @ fitted) ** 2).sum()
        errors.append(error)
    assert ridge_readout(content, vectors, weights, seed=0)[2] == PENALTIES[int(np.argmin(errors))]


def test_noise_asks_for_a_larger_penalty() -> None:
    penalties = [ridge_readout(*case(30, 8, noise), seed=0)[2] for noise in (0.01, 30.0)]
    assert penalties == [PENALTIES[0], PENALTIES[-1]]


def test_large_matrices_are_decomposed_at_random_but_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    low = rng.standard_normal((200, 4)) @ rng.standard_normal((4, 80))
    content = sparse.csr_matrix(low.astype(np.float32))
    vectors = (low[:, :3] + 0.1 * rng.standard_normal((200, 3))).astype(np.float32)
    weights = rng.uniform(0.1, 1, 200).astype(np.float32)
    exact = ridge_readout(content, vectors, weights, seed=0)
    monkeypatch.setattr(readout, "EXACT", 64)
    drawn, again = (ridge_readout(content, vectors, weights, seed=0) for _ in range(2))
    # Eight components hold all of a matrix of rank four.
    np.testing.assert_allclose(drawn[0], exact[0], rtol=1e-3, atol=1e-4)
    assert drawn[2] == exact[2]
    np.testing.assert_array_equal(drawn[0], again[0])


@pytest.mark.parametrize(
    "content",
    [
        empty_csr(3, 0),
        empty_csr(3, 2),
        # A vector field that is 0 for everyone is stored as zeros.
        Csr((np.zeros(3, np.float32), ([0, 1, 2], [0, 1, 0])), shape=(3, 2)),
    ],
)
def test_empty_content_leaves_the_mean(content: Csr) -> None:
    vectors = np.array([[1.0], [2.0], [6.0]], dtype=np.float32)
    weights = np.array([1.0, 1.0, 2.0], dtype=np.float32)
    coefficients, intercept, penalty, _ = ridge_readout(content, vectors, weights, seed=0)
    assert coefficients.shape == (content.shape[1], 1)
    assert not coefficients.any()
    assert intercept.tolist() == [3.75]
    assert penalty == 0


def test_rows_left_out_are_predicted_by_the_others() -> None:
    content, vectors, weights = case(30, 8)
    found = ridge_readout(content, vectors, weights, seed=0)
    dense, targets = content.toarray(), vectors - found.intercept
    for i in (0, 7, 29):
        rest = np.arange(30) != i
        expected = dense[i] @ ridge(dense[rest], targets[rest], weights[rest], found.penalty) + found.intercept
        np.testing.assert_allclose(found.left_out[i], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_shift_lets_warm_items_come_up_half_as_often(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, vectors = (rng.standard_normal((n, 4)).astype(np.float32) for n in (40, 60))
    users[:, -1] = 1
    left_out = (0.3 * vectors + 0.1 * rng.standard_normal((60, 4)) - [0, 0, 0, 1]).astype(np.float32)
    seen = Csr((rng.random((40, 60)) < 0.2).astype(np.float32))
    shift = exposure_shift(users, seen, vectors, left_out)
    assert shift > 0
    own, shifted = 0, 0
    for user, row in zip(users, seen.toarray(), strict=True):
        bar = np.sort((vectors @ user)[row == 0])[-10]
        own += int((vectors @ user > bar).sum())
        shifted += int((left_out @ user + shift > bar).sum())
    assert abs(shifted - own // 2) <= 2


def test_a_shift_is_never_down_and_few_items_have_none() -> None:
    rng = np.random.default_rng(0)
    users, vectors = (rng.standard_normal((n, 4)).astype(np.float32) for n in (40, 60))
    assert exposure_shift(users, empty_csr(40, 60), vectors, 5 * vectors) == 0
    assert exposure_shift(users, empty_csr(40, 10), vectors[:10], vectors[:10] - 9) == 0
    everything = Csr(np.ones((40, 60), dtype=np.float32))
    assert np.isfinite(exposure_shift(users, everything, vectors, vectors - 9))

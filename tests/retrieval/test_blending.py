"""Candidates, scores on one scale and maximal marginal relevance, beside loops that say the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys._sparse import Csr
from recsys.retrieval._blending import candidate_mask, diversified, moments
from recsys.topk import TopK, top_k

seeds = st.integers(0, 2**32 - 1)


def candidates_by_loop(scores: np.ndarray, seen: np.ndarray, n: int, n_known: int) -> np.ndarray:
    """Down each row's order until n known columns that are not seen have come; all where there are fewer."""
    mask = np.zeros(scores.shape, dtype=bool)
    for row, values in enumerate(scores):
        if (~seen[row, :n_known]).sum() < n:
            mask[row] = True
            continue
        found = 0
        for column in np.lexsort((np.arange(len(values)), -values)):
            if found == n:
                break
            mask[row, column] = True
            found += column < n_known and not seen[row, column]
    return mask


@given(seeds, st.integers(1, 9), st.integers(1, 12), st.integers(0, 3))
def test_candidates_are_those_of_a_loop(seed: int, n: int, n_known: int, n_more: int) -> None:
    rng = np.random.default_rng(seed)
    # Of few values, so that many are equal.
    scores = rng.integers(0, 5, (4, n_known + n_more)).astype(np.float32)
    seen = rng.random(scores.shape) < 0.3
    found = candidate_mask(scores, Csr(seen.astype(np.float32)), n, n_known)
    np.testing.assert_array_equal(found, candidates_by_loop(scores, seen, n, n_known))


def test_an_explicit_zero_of_the_history_counts() -> None:
    history = Csr((np.zeros(1, np.float32), np.array([0]), np.array([0, 1])), shape=(1, 3))
    mask = candidate_mask(np.array([[3, 2, 1]], dtype=np.float32), history, 1, 3)
    assert mask.tolist() == [[True, True, False]]


@given(seeds)
def test_standardised_scores_have_mean_0_and_deviation_1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(3), [5, 40, 7])
    scores = (rng.normal(size=len(rows)) * [1e-3, 1, 1e4][seed % 3] + 5).astype(np.float32)
    values = moments(scores, rows, 3).standardise(scores, rows)
    for row in range(3):
        expected = scores[rows == row].astype(np.float64)
        expected = (expected - expected.mean()) / expected.std()
        np.testing.assert_allclose(values[rows == row], expected, atol=2e-3)
        assert values[rows == row].std() == pytest.approx(1, abs=1e-3)


def test_equal_scores_are_not_spread_by_their_rounding() -> None:
    scores = np.array([0.1, np.nextafter(np.float32(0.1), np.float32(1)), 7, 7], dtype=np.float32)
    rows = np.array([0, 0, 1, 1])
    found = moments(scores, rows, 3)
    assert found.scale.tolist() == [1, 1, 1]
    assert abs(found.standardise(scores, rows)).max() < 1e-6
    assert found.mean[2] == 0


def mmr_by_loop(pool: TopK, vectors: np.ndarray, diversity: float, k: int) -> list[list[int]]:
    """The definition of Carbonell and Goldstein, item by item."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    lists = []
    for columns, values, length in zip(*pool, strict=True):
        left = list(range(length))
        span = (values[:length].min(), values[:length].max()) if length else (0, 0)
        chosen: list[int] = []
        while left and len(chosen) < k:

            def worth(
                i: int, columns: np.ndarray = columns, values: np.ndarray = values, span: tuple[float, float] = span
            ) -> float:
                relevance = (values[i] - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.0
                alike = [float(units[columns[i]] @ units[columns[j]]) for j in chosen]  # noqa: B023
                return float((1 - diversity) * relevance - diversity * max([0.0, *alike]))

            best = max(left, key=lambda i: (round(worth(i), 5), -i))
            chosen.append(best)
            left.remove(best)
        lists.append([int(columns[i]) for i in chosen])
    return lists


@given(seeds, st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.integers(1, 12))
def test_mmr_is_that_of_a_loop(seed: int, diversity: float, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(15, 3)).astype(np.float32)
    vectors[3] = 0
    scores = rng.normal(size=(6, 15)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    scores[5, 2:] = -np.inf
    pool = top_k(scores, 10)
    found = diversified(pool, vectors, diversity, k)
    expected = mmr_by_loop(pool, vectors, diversity, k)
    assert [row[:length].tolist() for row, length in zip(found.columns, found.lengths, strict=True)] == expected
    for row in range(len(scores)):
        length = found.lengths[row]
        np.testing.assert_array_equal(found.values[row, :length], scores[row, found.columns[row, :length]])
        assert (found.columns[row, length:] == -1).all()
        assert (found.values[row, length:] == -np.inf).all()


def test_without_diversity_the_list_is_the_head_of_the_pool() -> None:
    rng = np.random.default_rng(0)
    pool = top_k(rng.integers(0, 4, (5, 20)).astype(np.float32), 12)
    found = diversified(pool, rng.normal(size=(20, 2)).astype(np.float32), 0.0, 4)
    np.testing.assert_array_equal(found.columns, pool.columns[:, :4])
    np.testing.assert_array_equal(found.values, pool.values[:, :4])


def test_nobody_to_diversify_for() -> None:
    found = diversified(top_k(np.zeros((0, 4), np.float32), 3), np.ones((4, 2), np.float32), 0.5, 2)
    assert found.columns.shape == (0, 2)

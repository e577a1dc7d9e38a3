"""Accuracy metrics against their definitions, written out as loops, and against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import average_precision_score, ndcg_score

from recsys.evaluation.metrics import (
    average_precision,
    hit_matrix,
    hit_rate,
    mrr,
    ndcg,
    precision,
    recall,
    recall_calibrated,
)
from recsys.exceptions import InvalidInputError, InvalidTypeError

Array = npt.NDArray[Any]

METRICS: dict[str, Callable[[Array, Array, int], Array]] = {
    "HR": lambda hits, n, k: hit_rate(hits, k),
    "Recall": recall,
    "RecallCalibrated": recall_calibrated,
    "Precision": lambda hits, n, k: precision(hits, k),
    "NDCG": ndcg,
    "MRR": lambda hits, n, k: mrr(hits, k),
    "MAP": average_precision,
}
NORMALISED = ["HR", "RecallCalibrated", "NDCG", "MRR", "MAP"]


def by_definition(hits: list[bool], n: int, k: int) -> dict[str, float]:
    """One user's metrics, as the table of definitions has them."""
    hits = hits[:k]
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, n) + 1))
    return {
        "HR": float(len(ranks) > 0),
        "Recall": len(ranks) / n,
        "RecallCalibrated": len(ranks) / min(k, n),
        "Precision": len(ranks) / k,
        "NDCG": sum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        "MRR": 1 / ranks[0] if ranks else 0.0,
        "MAP": sum(sum(hits[:rank]) / rank for rank in ranks) / min(k, n),
    }


@st.composite
def judged_lists(draw: st.DrawFn) -> tuple[Array, Array, int]:
    """Hits, n_relevant and k of some users; k may be below and above the length of the lists."""
    n_users, n_ranks = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    row = st.lists(st.booleans(), min_size=n_ranks, max_size=n_ranks)
    hits = np.array(draw(st.lists(row, min_size=n_users, max_size=n_users)))
    missed = draw(st.lists(st.integers(0, 9), min_size=n_users, max_size=n_users))
    return hits, np.maximum(hits.sum(axis=1) + missed, 1), draw(st.integers(1, 12))


def test_known_answers() -> None:
    # Hits at ranks 1 and 3 of 4, three relevant items, K = 4.
    hits, n = np.array([[True, False, True, False]]), np.array([3])
    assert hit_rate(hits) == [1.0]
    assert recall(hits, n) == [2 / 3]
    assert recall_calibrated(hits, n, k=2) == [0.5]
    assert precision(hits) == [0.5]
    assert ndcg(hits, n) == pytest.approx([(1 + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2)])
    assert mrr(hits) == [1.0]
    assert average_precision(hits, n) == pytest.approx([(1 + 2 / 3) / 3])


@given(judged_lists())
def test_equal_to_a_loop_over_the_definitions(case: tuple[Array, Array, int]) -> None:
    hits, n, k = case
    expected = [by_definition(row, int(count), k) for row, count in zip(hits.tolist(), n, strict=True)]
    for name, metric in METRICS.items():
        values = metric(hits, n, k)
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, [user[name] for user in expected], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_equal_to_a_loop_for_thousands_of_users(k: int) -> None:
    rng = np.random.default_rng(k)
    hits = rng.random((3000, 10)) < rng.random((3000, 1))
    n = np.maximum(hits.sum(axis=1) + rng.integers(0, 30, 3000), 1)
    expected = [by_definition(row, int(count), k) for row, count in zip(hits.tolist(), n, strict=True)]
    for name, metric in METRICS.items():
        np.testing.assert_allclose(metric(hits, n, k), [user[name] for user in expected], rtol=1e-12, err_msg=name)


@given(n=st.integers(1, 200), k=st.integers(1, 100))
def test_a_perfect_ranker_scores_exactly_one(n: int, k: int) -> None:
    hits = np.arange(k)[None, :] < n
    for name in NORMALISED:
        assert METRICS[name](hits, np.array([n]), k).tolist() == [1.0], name
    assert recall(hits, [n], k).tolist() == [min(n, k) / n]
    assert precision(hits, k).tolist() == [min(n, k) / k]


@given(judged_lists())
def test_bounded_and_blind_to_padding_and_to_the_order_of_users(case: tuple[Array, Array, int]) -> None:
    hits, n, k = case
    padded = np.pad(hits, ((0, 0), (0, 3)))
    for name, metric in METRICS.items():
        values = metric(hits, n, k)
        assert ((values >= 0) & (values <= 1)).all(), name
        assert values.tolist() == metric(padded, n, k).tolist(), name
        assert values[::-1].tolist() == metric(hits[::-1], n[::-1], k).tolist(), name


@given(judged_lists(), st.integers(1, 7))
def test_a_hit_that_moves_up_never_costs(case: tuple[Array, Array, int], rank: int) -> None:
    hits, n, k = case
    rank = min(rank, hits.shape[1] - 1)
    better = hits.copy()
    swap = hits[:, rank] & ~hits[:, rank - 1]
    better[swap, rank - 1], better[swap, rank] = True, False
    for name, metric in METRICS.items():
        assert (metric(better, n, k) >= metric(hits, n, k) - 1e-12).all(), name


@pytest.mark.parametrize("k", [1, 3, 10, 25])
def test_ndcg_and_map_agree_with_scikit_learn(k: int) -> None:
    rng = np.random.default_rng(0)
    relevant = rng.random((300, 25)) < 0.2
    relevant[:, 0] |= ~relevant.any(axis=1)
    scores = rng.random((300, 25))
    ranking = np.argsort(-scores, axis=1)
    hits, n = np.take_along_axis(relevant, ranking, axis=1), relevant.sum(axis=1)
    assert ndcg(hits, n, k).mean() == pytest.approx(ndcg_score(relevant, scores, k=k), rel=1e-12)
    # Over the whole catalogue, MAP is scikit-learn's average precision.
    whole = [average_precision_score(user, score) for user, score in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(average_precision(hits, n), whole, rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_no_user_is_no_value(name: str) -> None:
    values = METRICS[name](np.empty((0, 3), dtype=bool), np.empty(0, dtype=np.int64), 3)
    assert values.shape == (0,)


@pytest.mark.parametrize(
    ("hits", "n", "k", "message"),
    [
        ([[1, 0]], [1], 2, "`hits` has dtype int64 and shape .1, 2.; expected bool"),
        ([True, False], [1], 2, "expected bool of shape .n_users, n_ranks."),
        ([[True]], [0], 1, "`n_relevant` is below 1 for 1 users .rows 0.*leave these users out"),
        ([[True]], [1, 1], 1, "`n_relevant` has dtype int64 and shape .2,.; expected integers of shape .1,."),
        ([[True]], [1.0], 1, "`n_relevant` has dtype float64"),
        ([[True, True]], [1], 2, "more hits than `n_relevant` allows .rows 0."),
        ([[True]], [1], 0, "`k` is 0; expected a positive integer"),
    ],
)
def test_bad_input_is_refused(hits: Any, n: Any, k: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ndcg(np.array(hits), n, k)


@pytest.mark.parametrize("k", [True, 2.0, "10"])
def test_k_is_an_integer(k: Any) -> None:
    with pytest.raises(InvalidTypeError, match=r"`k` is .*; expected a positive integer"):
        hit_rate([[True]], k)


@st.composite
def lists_and_relevance(draw: st.DrawFn) -> tuple[Array, Array]:
    """Padded lists of distinct codes, and a dense relevance matrix."""
    n_users, n_items = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    codes = [draw(st.permutations(range(n_items)))[: draw(st.integers(0, n_items))] for _ in range(n_users)]
    lists = np.array([[*row, *[-1] * (n_items - len(row))] for row in codes], dtype=np.int64)
    cells = st.lists(st.booleans(), min_size=n_users * n_items, max_size=n_users * n_items)
    return lists, np.array(draw(cells)).reshape(n_users, n_items)


@given(lists_and_relevance(), st.sampled_from([sparse.csr_array, sparse.csr_matrix, sparse.coo_array]))
def test_hit_matrix_is_a_look_up(case: tuple[Array, Array], kind: Any) -> None:
    lists, relevant = case
    expected = [[code >= 0 and relevant[user, code] for code in row] for user, row in enumerate(lists.tolist())]
    assert hit_matrix(lists, kind(relevant.astype(float))).tolist() == expected


def test_hit_matrix_ignores_stored_zeros_and_leaves_its_argument_alone() -> None:
    # Unsorted columns, one explicit zero.
    relevant = sparse.csr_array((np.array([1.0, 0.0, 1.0]), np.array([2, 1, 0]), np.array([0, 3])), shape=(1, 3))
    before = relevant.indices.tolist(), relevant.data.tolist()
    assert hit_matrix([[0, 1, 2]], relevant).tolist() == [[True, False, True]]
    assert (relevant.indices.tolist(), relevant.data.tolist()) == before


def test_hit_matrix_without_any_relevant_item() -> None:
    assert hit_matrix([[0, 1], [-1, -1]], sparse.csr_array((2, 2))).tolist() == [[False, False], [False, False]]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[0, 1]], "`recommended` has 1 rows and `relevant` 2; expected one per user"),
        ([[0, 3], [0, 1]], "codes from 0 to 3; expected them from 0 to 2 for a catalogue of 3 items, or -1"),
        ([[0, -2], [0, 1]], "codes from -2 to 1"),
        ([[0, 1], [2, 2]], "an item twice in 1 lists .rows 1."),
        ([[0.0], [1.0]], "`recommended` has dtype float64 and shape .2, 1.; expected integer codes"),
        ([0, 1], "expected integer codes of shape .n_users, n_ranks."),
    ],
)
def test_hit_matrix_refuses(lists: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        hit_matrix(lists, sparse.csr_array(np.eye(2, 3)))


@pytest.mark.parametrize(
    ("relevant", "told"),
    [
        ([[1, 0]], "list;"),
        (None, "NoneType;"),
        (np.array([[0, 1]]), "ndarray and dtype int64;"),
        (np.array([[0.5, np.nan]]), "ndarray and dtype float64;"),
        (sparse.csr_array([[1j, 0]]), "csr_array and dtype complex128;"),
    ],
)
def test_hit_matrix_needs_a_sparse_matrix_or_a_mask(relevant: Any, told: str) -> None:
    with pytest.raises(InvalidTypeError, match=f"`relevant` is of type {told} expected a sparse matrix of numbers"):
        hit_matrix([[0, 1]], relevant)


def test_hit_matrix_takes_a_mask_and_refuses_nan_and_other_shapes() -> None:
    assert hit_matrix([[1, 0]], np.array([[False, True]])).tolist() == [[True, False]]
    with pytest.raises(InvalidInputError, match="`relevant` holds NaN; expected 0 where there is nothing: fill it in"):
        hit_matrix([[0, 1]], sparse.csr_array([[1.0, np.nan]]))
    with pytest.raises(InvalidInputError, match=r"`relevant` has shape .2,.; expected .n_users, n_items."):
        hit_matrix([[0, 1]], np.array([True, False]))
    with pytest.raises(InvalidInputError, match=r"`recommended` is no array .*; expected integer codes of shape"):
        hit_matrix([[0], [0, 1]], np.array([[True, False]]))

"""Metrics of scores: expected over ties as by all permutations, and as scikit-learn has it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import ndcg_score

from recsys.evaluation import hit_matrix, score_metrics
from recsys.evaluation.ranking import METRICS
from recsys.exceptions import InvalidInputError, InvalidTypeError
from recsys.topk import top_k

Array = npt.NDArray[Any]
NAMES = list(METRICS)


def generated(rng: np.random.Generator, n_users: int, n_items: int) -> tuple[Array, Array]:
    """Scores with many ties, some items no candidates, and what is relevant."""
    scores = rng.integers(0, rng.integers(1, 5), (n_users, n_items)).astype(float)
    scores[rng.random(scores.shape) < 0.15] = -np.inf
    relevant = rng.random(scores.shape) < rng.uniform(0.1, 0.9)
    relevant[np.arange(n_users), rng.integers(0, n_items, n_users)] = True
    return scores, relevant


def over_all_orders(scores: Array, relevant: Array, k: int) -> dict[str, float]:
    """The mean of one user's metrics over all permutations of items with equal scores."""
    levels = [np.flatnonzero(scores == level) for level in np.unique(scores)[::-1] if level > -np.inf]
    orders = [
        np.concatenate([*map(np.asarray, order), []]).astype(int)
        for order in itertools.product(*(itertools.permutations(level) for level in levels))
    ]
    lists = np.full((len(orders), len(scores)), -1)
    for row, order in zip(lists, orders, strict=True):
        row[: len(order)] = order
    hits = np.where(lists >= 0, relevant[lists], False)
    n = np.full(len(orders), relevant.sum())
    return {f"{name}@{k}": METRICS[name](hits, n, k).mean() for name in NAMES}


def test_expected_is_the_mean_over_all_orders() -> None:
    rng = np.random.default_rng(0)
    n_tied = 0
    for _ in range(150):
        scores, relevant = generated(rng, n_users=4, n_items=int(rng.integers(1, 7)))
        cuts = [1, 2, 3, 5, 9]
        found = score_metrics(scores, relevant, cuts, NAMES, ties="expected")
        assert found.columns.tolist() == [f"{name}@{k}" for k in cuts for name in NAMES]
        for row in range(4):
            for k in cuts:
                expected = over_all_orders(scores[row], relevant[row], k)
                assert found.loc[row, list(expected)].to_dict() == pytest.approx(expected, abs=1e-12)
        n_tied += (found != score_metrics(scores, relevant, cuts, NAMES)).any(axis=1).sum()
    assert n_tied > 200


def test_one_level_of_many_items_is_a_draw_without_replacement() -> None:
    # 3 of 1,000 equal items are relevant: P(no hit in 10) = C(997, 10) / C(1000, 10).
    scores, relevant = np.zeros((1, 1000)), np.zeros((1, 1000))
    relevant[0, [5, 500, 999]] = 1
    found = score_metrics(scores, relevant, 10, NAMES, ties="expected").iloc[0]
    assert found["HR@10"] == pytest.approx(1 - 990 * 989 * 988 / (1000 * 999 * 998))
    assert found["Recall@10"] == pytest.approx(0.01)
    assert found["Precision@10"] == pytest.approx(0.003)
    none_before = [(999 - r + 1) * (998 - r + 1) / (999 * 998) for r in range(1, 11)]
    assert found["MRR@10"] == pytest.approx(sum(3 / 1000 * none / r for r, none in enumerate(none_before, start=1)))
    assert found["MAP@10"] == pytest.approx(sum(3 / 1000 * (1 + (r - 1) * 2 / 999) / r for r in range(1, 11)) / 3)


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 14))
def test_ndcg_is_that_of_scikit_learn(seed: int, n_items: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores, relevant = generated(rng, 5, n_items + 1)
    scores[np.isinf(scores)] = -1.0
    ours = score_metrics(scores, relevant, k, ["NDCG"], ties="expected")["NDCG@" + str(k)]
    theirs = [ndcg_score([one], [two], k=k) for one, two in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 50))
def test_without_ties_nothing_changes_to_the_last_bit(seed: int, n_items: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores, relevant = generated(rng, 6, n_items)
    scores += rng.permuted(np.tile(np.arange(n_items) / 64, (6, 1)), axis=1) / n_items
    expected = score_metrics(scores, relevant, k, NAMES, ties="expected")
    catalogue = score_metrics(scores, sparse.coo_array(relevant), k, NAMES)
    pd.testing.assert_frame_equal(expected, catalogue, check_exact=True)


def test_in_catalogue_order_lists_are_those_of_the_best() -> None:
    scores, relevant = generated(np.random.default_rng(1), 50, 20)
    hits = hit_matrix(top_k(scores, 5).columns, sparse.csr_array(relevant))
    found = score_metrics(scores, relevant, 5, NAMES)
    for name in NAMES:
        assert found[f"{name}@5"].tolist() == METRICS[name](hits, relevant.sum(axis=1), 5).tolist()
    whole = np.where(np.isinf(scores), -9, scores).astype(np.int64)
    assert score_metrics(whole, relevant, 5)["MRR@5"].between(0, 1).all()


def test_weights_count_once_and_zeros_not_at_all() -> None:
    scores = np.array([[1.0, 1.0, 0.0]])
    relevant = sparse.coo_array(([2.0, 3.0, 0.0], ([0, 0, 0], [1, 1, 2])), shape=(1, 3))
    for ties, hit in (("catalogue", 0.0), ("expected", 0.5)):
        assert score_metrics(scores, relevant, 1, ["Recall"], ties=ties).loc[0, "Recall@1"] == hit


def test_what_cannot_be_judged_is_refused() -> None:
    scores, relevant = np.zeros((2, 3)), np.eye(2, 3)
    with pytest.raises(InvalidInputError, match=r"`ties` is 'expcted'\. Did you mean 'expected'"):
        score_metrics(scores, relevant, ties="expcted")
    with pytest.raises(InvalidInputError, match=r"`relevant` has shape \(2, 2\); expected \(2, 3\), as `scores` has"):
        score_metrics(scores, np.eye(2))
    with pytest.raises(InvalidInputError, match=r"`relevant` holds nothing for 1 users \(rows 1\)"):
        score_metrics(scores, np.eye(2, 3) * [[1], [0]])
    with pytest.raises(InvalidInputError, match="`scores` holds NaN in 1 rows"):
        score_metrics(scores * [[1], [np.nan]], relevant, ties="expected")
    for wrong in (np.zeros(3), np.zeros((2, 0)), np.array([["a"]])):
        with pytest.raises(InvalidInputError, match=r"`scores` has dtype .* expected numbers of shape"):
            score_metrics(wrong, relevant)
    with pytest.raises(InvalidTypeError, match=r"`k` is 1\.5"):
        score_metrics(scores, relevant, 1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, [["a", "b", "c"]] * 2, [[1], [1, 2]], np.ones((2, 3, 1)), np.full((2, 3), {})])
def test_what_holds_no_numbers_is_refused_as_relevant(wrong: Any) -> None:
    with pytest.raises(
        InvalidInputError, match=r"`relevant` is no matrix of numbers .*; expected one of shape \(2, 3\)"
    ):
        score_metrics(np.zeros((2, 3)), wrong)


def test_unknown_relevance_is_not_taken_for_a_hit() -> None:
    with pytest.raises(InvalidInputError, match="`relevant` holds NaN; expected 0 where an item is not relevant"):
        score_metrics(np.zeros((1, 2)), np.array([[1, np.nan]]))


def test_scores_of_rows_of_unequal_length_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"`scores` is no array .*; expected numbers of shape"):
        score_metrics([[1.0, 2.0], [1.0]], np.eye(2))


def test_nothing_to_find_is_a_plain_zero() -> None:
    found = score_metrics([[1.0, 1.0, -np.inf]], [[0, 0, 1]], k=3, metrics=["MRR"], ties="expected").to_numpy()
    assert found == 0
    assert not np.signbit(found)

"""Coverage, exposure, novelty and diversity against loops and known answers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recsys.evaluation.beyond_accuracy import (
    cold_exposure,
    coverage,
    gini,
    intra_list_diversity,
    novelty,
    popularity_lift,
)
from recsys.exceptions import InvalidInputError

Array = npt.NDArray[Any]
N_ITEMS = 7


@st.composite
def padded_lists(draw: st.DrawFn) -> Array:
    rows = [
        draw(st.permutations(range(N_ITEMS)))[: draw(st.integers(0, N_ITEMS))] for _ in range(draw(st.integers(1, 5)))
    ]
    return np.array([[*row, *[-1] * (N_ITEMS - len(row))] for row in rows], dtype=np.int64)


@given(padded_lists())
def test_exposure_against_loops(lists: Array) -> None:
    counts = [int((lists == item).sum()) for item in range(N_ITEMS)]
    total = sum(counts)
    is_cold = np.arange(N_ITEMS) % 3 == 0
    assert coverage(lists, N_ITEMS) == pytest.approx(sum(count > 0 for count in counts) / N_ITEMS)
    if total == 0:
        assert math.isnan(gini(lists, N_ITEMS))
        assert math.isnan(cold_exposure(lists, is_cold))
        return
    # The Gini index is half the mean absolute difference of two items, relative to the mean.
    differences = sum(abs(a - b) for a, b in itertools.product(counts, counts))
    assert gini(lists, N_ITEMS) == pytest.approx(differences / (2 * N_ITEMS * total), abs=1e-12)
    assert cold_exposure(lists, is_cold) == pytest.approx(sum(np.array(counts)[is_cold]) / total)


def test_gini_of_equal_and_of_single_exposure() -> None:
    assert gini([[0, 1], [2, 3]], 4) == 0.0
    assert gini([[3], [3], [3]], 4) == 0.75


@given(padded_lists())
def test_novelty_and_popularity_lift_against_loops(lists: Array) -> None:
    counts, n_users = np.array([8, 5, 3, 2, 1, 1, 0]), 8
    history = np.arange(len(lists) * N_ITEMS).reshape(len(lists), N_ITEMS) % 3 == 0
    history[0] = False
    novelties = novelty(lists, counts, n_users)
    lifts = popularity_lift(
        lists, counts, sparse.csr_matrix(history * np.linspace(1, 5, history.size).reshape(history.shape))
    )
    for user, row in enumerate(lists.tolist()):
        items = [item for item in row if item >= 0]
        if not items:
            assert math.isnan(novelties[user])
            assert math.isnan(lifts[user])
            continue
        shares = [max(int(counts[item]), 1) / n_users for item in items]
        assert novelties[user] == pytest.approx(sum(-math.log2(share) for share in shares) / len(items), abs=1e-12)
        if user == 0:
            assert math.isnan(lifts[user])
        else:
            own = counts[history[user]].mean()
            assert lifts[user] == pytest.approx(counts[items].mean() / own - 1)


@pytest.mark.parametrize("as_sparse", [False, True])
@given(lists=padded_lists(), seed=st.integers(0, 99))
def test_diversity_against_a_loop_over_pairs(as_sparse: bool, lists: Array, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(N_ITEMS, 3)).round(1)
    vectors[0] = 0.0
    values = intra_list_diversity(lists, sparse.csr_matrix(vectors) if as_sparse else vectors)
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(lengths > 0, lengths, 1)[:, None]
    for user, row in enumerate(lists.tolist()):
        items = [item for item in row if item >= 0]
        if len(items) < 2:
            assert math.isnan(values[user])
        else:
            pairs = [1 - unit[a] @ unit[b] for a, b in itertools.combinations(items, 2)]
            assert values[user] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_codes_beyond_the_catalogue_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="codes from 0 to 5; expected them from 0 to 4"):
        coverage([[0, 5]], n_items=5)
    with pytest.raises(InvalidInputError, match="expected them from 0 to 1 for a catalogue of 2 items"):
        novelty([[2]], item_counts=[1, 1], n_users=2)

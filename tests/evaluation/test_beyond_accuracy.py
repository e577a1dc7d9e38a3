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
from recsys.exceptions import InvalidInputError, InvalidTypeError

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


@pytest.mark.parametrize("n_items", [0, -1])
def test_a_catalogue_has_items(n_items: int) -> None:
    for measure in (coverage, gini):
        with pytest.raises(InvalidInputError, match=f"`n_items` is {n_items}; expected an integer of 1 or more"):
            measure([[-1]], n_items)


@pytest.mark.parametrize("n_items", ["3", 3.0, None, True])
def test_the_size_of_a_catalogue_is_an_integer(n_items: Any) -> None:
    for measure in (coverage, gini):
        with pytest.raises(InvalidTypeError, match=r"`n_items` is .*; expected an integer of 1 or more"):
            measure([[0]], n_items)


@pytest.mark.parametrize("lists", [None, "ab", {0: [1]}, [["a"]]])
def test_what_is_no_lists_is_refused(lists: Any) -> None:
    for measure in (coverage, gini):
        with pytest.raises(InvalidInputError, match=r"`recommended` has dtype .*; expected integer codes of shape"):
            measure(lists, 3)


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"`recommended` is no array .*; expected integer codes of shape"):
        coverage([[0], [1, 2]], 3)


@pytest.mark.parametrize("is_cold", [[0, 2], [0.0, 1.0, 0.0], ["a", "b", "c"], [[True, False, True]], True])
def test_the_mask_of_cold_items_is_bool(is_cold: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"`is_cold` has dtype .* and shape .*; expected bool of shape"):
        cold_exposure([[0]], is_cold)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, -2], r"`item_counts` holds -2 \(items 1\); expected numbers of users, from 0"),
        ([1.0, float("nan")], r"`item_counts` holds nan \(items 1\)"),
        ([float("inf"), 1.0], r"`item_counts` holds inf \(items 0\)"),
        ([[1, 2]], r"`item_counts` has dtype int64 and shape \(1, 2\); expected numbers of shape \(n_items,\)"),
        (3, r"`item_counts` has dtype int64 and shape \(\)"),
        (["a", "b"], "`item_counts` has dtype <U1"),
        ([[1], [1, 2]], r"`item_counts` is no array \(.*\); expected numbers of shape \(n_items,\)"),
    ],
)
def test_counts_of_users_are_counts(counts: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        novelty([[0]], counts, 4)
    with pytest.raises(InvalidInputError, match=message):
        popularity_lift([[0]], counts, sparse.csr_array([[1, 0]]))


def test_no_item_is_known_to_more_users_than_there_are() -> None:
    with pytest.raises(InvalidInputError, match=r"`item_counts` holds 5.0 \(items 1\), more than `n_users`, 4;"):
        novelty([[0]], [4, 5], 4)
    with pytest.raises(InvalidInputError, match="`n_users` is 0; expected an integer of 1 or more"):
        novelty([[0]], [0, 0], 0)
    with pytest.raises(InvalidTypeError, match=r"`n_users` is 4\.5; expected an integer of 1 or more"):
        novelty([[0]], [4, 4], 4.5)  # type: ignore[arg-type]


def test_a_history_has_a_row_a_list_and_a_column_an_item() -> None:
    for shape in ((1, 3), (2, 2)):
        with pytest.raises(InvalidInputError, match=r"`history` has shape .*; expected \(1, 2\): a row for each list"):
            popularity_lift([[0]], [6, 2], sparse.csr_array(np.ones(shape)))
    with pytest.raises(InvalidInputError, match="`history` holds NaN; expected 0 where there is nothing"):
        popularity_lift([[0]], [6, 2], sparse.csr_array([[1, np.nan]]))
    with pytest.raises(InvalidTypeError, match="`history` is of type list; expected a sparse matrix of numbers"):
        popularity_lift([[0]], [6, 2], [[1, 1]])
    assert popularity_lift([[0]], [6, 2], np.array([[True, True]])).tolist() == [0.5]


@pytest.mark.parametrize("as_sparse", [False, True])
@pytest.mark.parametrize("size", [1e200, 1e308, 1e-200, 5e-324])
def test_diversity_does_not_depend_on_the_size_of_vectors(size: float, as_sparse: bool) -> None:
    alike, apart = np.array([[size], [size]]), np.array([[size, 0.0], [0.0, 1.0]])
    kind: Any = sparse.csr_array if as_sparse else np.asarray
    assert intra_list_diversity([[0, 1]], kind(alike)).tolist() == [0.0]
    assert intra_list_diversity([[0, 1]], kind(apart)).tolist() == [1.0]


def test_diversity_leaves_its_argument_alone() -> None:
    vectors = sparse.csr_array((np.array([3.0, 0.0, 4.0]), np.array([1, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    assert intra_list_diversity([[0, 1]], vectors).tolist() == [0.0]
    assert vectors.data.tolist() == [3.0, 0.0, 4.0]
    assert intra_list_diversity([[0, 1]], np.empty((2, 0))).tolist() == [1.0]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0], [np.nan]], r"`item_vectors` holds NaN or infinity \(items 1\); expected finite numbers"),
        (sparse.csr_array([[np.inf], [1.0]]), r"`item_vectors` holds NaN or infinity \(items 0\)"),
        ([1.0, 2.0], r"`item_vectors` has dtype float64 and shape \(2,\); expected numbers of shape"),
        ([["a"], ["b"]], r"`item_vectors` is no matrix of numbers \(could not convert"),
        ([[1], [1, 2]], "`item_vectors` is no matrix of numbers"),
        (None, r"`item_vectors` has dtype float64 and shape \(\)"),
    ],
)
def test_vectors_are_rows_of_finite_numbers(vectors: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        intra_list_diversity([[0, 1]], vectors)


def test_a_narrow_number_of_items_does_not_overflow() -> None:
    narrow: Any = np.uint8(200)
    assert gini([[0, 1], [0, 2]], narrow) == gini([[0, 1], [0, 2]], 200) == 0.9875

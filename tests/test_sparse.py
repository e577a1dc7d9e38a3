"""Operations on CSR matrices, against the same operations on dense arrays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from recsys._sparse import Csr, distinct_rows, empty_csr, find_entries, pattern, positives, take_rows, to_csr

Entries = list[tuple[int, int, int]]

N_ROWS, N_COLUMNS = 5, 4
ENTRIES = st.lists(st.tuples(st.integers(0, N_ROWS - 1), st.integers(0, N_COLUMNS - 1), st.integers(0, 3)), max_size=30)


def _matrix(entries: Entries) -> tuple[Csr, npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The matrix, its dense values, and which cells are stored."""
    array = np.array(entries, dtype=np.int64).reshape(-1, 3)
    matrix = to_csr(array[:, 0], array[:, 1], array[:, 2].astype(np.float32), (N_ROWS, N_COLUMNS))
    dense, stored = np.zeros((N_ROWS, N_COLUMNS), dtype=np.float32), np.zeros((N_ROWS, N_COLUMNS), dtype=bool)
    for row, column, weight in entries:
        dense[row, column] += weight
        stored[row, column] = True
    return matrix, dense, stored


def _stored(matrix: Csr) -> npt.NDArray[np.bool_]:
    cells = np.zeros(matrix.shape, dtype=bool)
    cells[np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices] = True
    return cells


@given(ENTRIES)
def test_to_csr_sums_pairs_and_keeps_zeros(entries: Entries) -> None:
    matrix, dense, stored = _matrix(entries)
    assert matrix.dtype == np.float32
    assert matrix.toarray().tolist() == dense.tolist()
    assert _stored(matrix).tolist() == stored.tolist()
    assert matrix.nnz == stored.sum()
    assert all(np.diff(matrix.indices[a:b]).min(initial=1) > 0 for a, b in pairwise(matrix.indptr))


@given(ENTRIES, st.lists(st.integers(-1, N_ROWS - 1)))
def test_take_rows_leaves_row_minus_one_empty(entries: Entries, rows: list[int]) -> None:
    matrix, dense, stored = _matrix(entries)
    taken = take_rows(matrix, np.array(rows, dtype=np.int64))
    assert taken.shape == (len(rows), N_COLUMNS)
    assert taken.dtype == np.float32
    nothing = [0.0] * N_COLUMNS
    assert taken.toarray().tolist() == [dense[row].tolist() if row >= 0 else nothing for row in rows]
    assert _stored(taken).tolist() == [stored[row].tolist() if row >= 0 else [False] * N_COLUMNS for row in rows]


@given(ENTRIES)
def test_positives_drops_zeros_from_a_copy(entries: Entries) -> None:
    matrix, dense, stored = _matrix(entries)
    kept = positives(matrix)
    assert kept.toarray().tolist() == dense.tolist()
    assert _stored(kept).tolist() == (dense > 0).tolist()
    assert matrix.nnz == stored.sum()


@given(ENTRIES)
def test_pattern_is_one_where_anything_is_stored(entries: Entries) -> None:
    matrix, dense, stored = _matrix(entries)
    ones = pattern(matrix)
    assert ones.toarray().tolist() == stored.astype(float).tolist()
    assert ones.dtype == np.float32
    assert matrix.toarray().tolist() == dense.tolist()


def test_empty_matrices_have_their_shape() -> None:
    for shape in ((0, 0), (3, 0), (0, 3), (2, 3)):
        matrix = empty_csr(*shape)
        assert matrix.shape == shape
        assert matrix.nnz == 0
        assert matrix.dtype == np.float32
    assert take_rows(empty_csr(0, 3), np.array([-1, -1])).toarray().tolist() == [[0.0] * 3] * 2


def test_distinct_rows_agree_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    codes, dense = rng.integers(0, 4, 80), rng.integers(0, 2, (80, 2)).astype(np.float32)
    first, which = distinct_rows(codes, Csr(dense))
    seen: dict[tuple[float, ...], int] = {}
    for code, row in zip(codes, dense, strict=True):
        seen.setdefault((code, *row), len(seen))
    expected = [seen[(code, *row)] for code, row in zip(codes, dense, strict=True)]
    assert which.tolist() == expected
    assert first.tolist() == [expected.index(i) for i in range(len(seen))]
    # A stored zero is a value, and not the same as none.
    stored = Csr((np.zeros(1, np.float32), np.array([0]), np.array([0, 1, 1])), shape=(2, 1))
    assert distinct_rows(np.array([5, 5]), stored)[1].tolist() == [0, 1]
    assert distinct_rows(np.zeros(0, np.int64), None)[0].tolist() == []
    alone, of_code = distinct_rows(codes, None)
    np.testing.assert_array_equal(codes[alone][of_code], codes)


@given(st.integers(0, 100))
def test_stored_places_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = (rng.random((5, 6)) < rng.random()).astype(np.float32)
    rows, columns = rng.integers(0, 5, 20), rng.integers(0, 6, 20)
    matrix = Csr(dense)
    at, found = find_entries(matrix, rows, columns)
    np.testing.assert_array_equal(found, dense[rows, columns] > 0)
    np.testing.assert_array_equal(matrix.indices[at[found]], columns[found])

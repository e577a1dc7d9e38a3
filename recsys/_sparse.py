"""Small operations on CSR matrices that SciPy does not offer, or not without losing explicit zeros."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

__all__ = [
    "Csr",
    "distinct_rows",
    "empty_csr",
    "find_entries",
    "keep",
    "pattern",
    "positives",
    "random_places",
    "take_rows",
    "to_csr",
    "unit_rows",
    "with_constant",
]

Csr = sparse.csr_matrix


def to_csr(
    rows: npt.NDArray[np.integer],
    columns: npt.NDArray[np.integer],
    weights: npt.NDArray[np.float32],
    shape: tuple[int, int],
) -> Csr:
    """Sum the weights of each pair; a pair that weighs nothing stays as an explicit zero.

    Parameters
    ----------
    rows, columns : ndarray of shape (n,), int
    weights : ndarray of shape (n,), float32
    shape : tuple of int

    Returns
    -------
    scipy.sparse.csr_matrix of `shape`, float32
        With sorted indices and no duplicates.

    Examples
    --------
    >>> to_csr(np.array([0, 0]), np.array([1, 1]), np.array([1, 2], np.float32), (1, 2)).toarray()
    array([[0., 3.]], dtype=float32)
    """
    matrix = Csr((weights, (rows, columns)), shape=shape, dtype=np.float32)
    matrix.sum_duplicates()
    return matrix


def empty_csr(n_rows: int, n_columns: int) -> Csr:
    """A matrix of float32 in which nothing is stored.

    Parameters
    ----------
    n_rows, n_columns : int

    Returns
    -------
    scipy.sparse.csr_matrix of shape (n_rows, n_columns), float32

    Examples
    --------
    >>> empty_csr(2, 0).shape
    (2, 0)
    """
    nothing = np.zeros(0, dtype=np.int64)
    return to_csr(nothing, nothing, np.zeros(0, dtype=np.float32), (n_rows, n_columns))


def take_rows(matrix: Csr, rows: npt.NDArray[np.integer]) -> Csr:
    """Rows of a matrix, in which row -1 is empty.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m)
    rows : ndarray of shape (k,), int
        From -1 to n - 1.

    Returns
    -------
    scipy.sparse.csr_matrix of shape (k, m)

    Examples
    --------
    >>> take_rows(Csr(np.eye(2)), np.array([-1, 1])).toarray()
    array([[0., 0.],
           [0., 1.]])
    """
    known = rows >= 0
    taken = matrix[rows[known]]
    lengths = np.zeros(len(rows) + 1, dtype=taken.indptr.dtype)
    lengths[1:][known] = np.diff(taken.indptr)
    return Csr((taken.data, taken.indices, np.cumsum(lengths)), shape=(len(rows), matrix.shape[1]))


def positives(matrix: Csr) -> Csr:
    """A copy without explicit zeros.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m)

    Returns
    -------
    scipy.sparse.csr_matrix of shape (n, m)

    Examples
    --------
    >>> matrix = to_csr(np.array([0, 0]), np.array([0, 1]), np.array([0, 5], np.float32), (1, 2))
    >>> matrix.nnz, positives(matrix).nnz
    (2, 1)
    """
    copied = matrix.copy()
    copied.eliminate_zeros()
    return copied


def pattern(matrix: Csr) -> Csr:
    """Ones where a value is stored, be it zero.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m)

    Returns
    -------
    scipy.sparse.csr_matrix of shape (n, m), float32

    Examples
    --------
    >>> pattern(to_csr(np.array([0, 0]), np.array([0, 1]), np.array([0, 5], np.float32), (1, 3))).toarray()
    array([[1., 1., 0.]], dtype=float32)
    """
    ones = np.ones(matrix.nnz, dtype=np.float32)
    return Csr((ones, matrix.indices, matrix.indptr), shape=matrix.shape)


def keep(matrix: Csr, kept: npt.NDArray[np.bool_]) -> Csr:
    """The entries that a mask keeps.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m)
    kept : ndarray of shape (nnz,), bool
        Explicit zeros count as entries.

    Returns
    -------
    scipy.sparse.csr_matrix of shape (n, m)

    Examples
    --------
    >>> keep(Csr(np.array([[1, 2], [0, 3]])), np.array([False, True, True])).toarray()
    array([[0, 2],
           [0, 3]])
    """
    starts = np.concatenate([[0], np.cumsum(kept)])
    return Csr((matrix.data[kept], matrix.indices[kept], starts[matrix.indptr]), shape=matrix.shape)


def random_places(matrix: Csr, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The place of each entry in a random order of its row.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m)
    rng : Generator

    Returns
    -------
    ndarray of shape (nnz,), int64
        From 0 to the length of the row - 1.

    Examples
    --------
    >>> places = random_places(Csr(np.ones((2, 3))), np.random.default_rng(0))
    >>> np.sort(places.reshape(2, 3), axis=1)
    array([[0, 1, 2],
           [0, 1, 2]])
    """
    lengths = np.diff(matrix.indptr)
    order = np.argsort(np.repeat(np.arange(len(lengths)), lengths) + rng.random(matrix.nnz))
    places = np.empty(matrix.nnz, dtype=np.int64)
    places[order] = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], lengths)
    return places


def find_entries(
    matrix: Csr, rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Look places up.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m)
        With sorted indices.
    rows, columns : ndarray of shape (k,), int

    Returns
    -------
    at : ndarray of shape (k,), int64
        Where each place is in ``matrix.data``; of no meaning where it is not stored.
    found : ndarray of shape (k,), bool
        Whether it is stored.

    Examples
    --------
    >>> find_entries(Csr(np.array([[1, 0], [0, 3]])), np.array([1, 1]), np.array([1, 0]))[1]
    array([ True, False])
    """
    if not matrix.nnz:
        return np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=bool)
    stored = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * matrix.shape[1] + matrix.indices
    asked = rows.astype(np.int64) * matrix.shape[1] + columns
    # In order, neighbours are looked up in the same corner of memory.
    order = np.argsort(asked)
    at = np.empty(len(asked), dtype=np.int64)
    at[order] = np.minimum(np.searchsorted(stored, asked[order]), len(stored) - 1)
    return at, stored[at] == asked


def unit_rows(matrix: Csr) -> Csr:
    """Rows of length 1, where they are not empty.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m)

    Returns
    -------
    scipy.sparse.csr_matrix of shape (n, m), float64

    Examples
    --------
    >>> unit_rows(Csr(np.array([[3.0, 4.0], [0.0, 0.0]]))).toarray()
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1), dtype=np.float64)).ravel()
    return Csr(sparse.diags_array(1 / np.maximum(norms, 1e-12)) @ matrix)


def with_constant(matrix: Csr) -> Csr:
    """A last column of ones.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m)

    Returns
    -------
    scipy.sparse.csr_matrix of shape (n, m + 1)

    Examples
    --------
    >>> with_constant(Csr(np.array([[0.0, 2.0]]))).toarray()
    array([[0., 2., 1.]])
    """
    return Csr(sparse.hstack([matrix, Csr(np.ones((matrix.shape[0], 1), dtype=np.float32))], format="csr"))


def distinct_rows(
    codes: npt.NDArray[np.integer], matrix: Csr | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the distinct pairs of a code and a row.

    Parameters
    ----------
    codes : ndarray of shape (n,), int
    matrix : scipy.sparse.csr_matrix of shape (n, m) or None
        None: the codes alone count.

    Returns
    -------
    first : ndarray of int64
        Where each distinct pair comes first, ascending.
    which : ndarray of shape (n,), int64
        The position in `first` of each pair.

    Examples
    --------
    >>> distinct_rows(np.array([7, 7, 7]), Csr(np.array([[1.0], [2.0], [1.0]])))
    (array([0, 1]), array([0, 1, 0]))
    """
    which = pd.factorize(codes)[0].astype(np.int64)
    if matrix is not None:
        # Equal rows have equal products with one random vector, unequal ones almost surely not; stored zeros count.
        vector = np.random.default_rng(0).standard_normal(matrix.shape[1])
        for product in (matrix.astype(np.float64) @ vector, pattern(matrix).astype(np.float64) @ vector):
            key = pd.factorize(product)[0]
            which = pd.factorize(which * (key.max(initial=0) + 1) + key)[0].astype(np.int64)
    first = np.empty(which.max(initial=-1) + 1, dtype=np.int64)
    # Written from the end, so that the first of equals stays.
    first[which[::-1]] = np.arange(len(which))[::-1]
    return first, which

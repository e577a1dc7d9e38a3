"""Segments: rows of vectors, and their exact top-k of some queries. Imports NumPy and FAISS alone.

FAISS picks its kernel by the number of queries and of threads, so the last bits of its scores, and with them the order
of near ties, change from call to call. Here FAISS finds every row that may belong to the top-k given its rounding, and
those few are scored again in double precision: a query has one answer, whatever it is asked together with.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Answer",
    "LARGEST",
    "Pairs",
    "Selection",
    "aligned_copy",
    "best_first",
    "exact_top_k",
    "inner_products",
    "lengths_of",
    "slack_of",
]

Bools: TypeAlias = npt.NDArray[np.bool_]
Codes: TypeAlias = npt.NDArray[np.int64]
Doubles: TypeAlias = npt.NDArray[np.float64]
Floats: TypeAlias = npt.NDArray[np.float32]

# Scores that FAISS returns at a time (12 bytes each, and scratch).
_FETCHED = 2**20
# Numbers multiplied at a time: what the cache of a core holds in both precisions.
_MULTIPLIED = 2**15
# Numbers of allowed vectors that are copied side by side, where several queries share that work.
_COPIED = 2**24
_SHARED_BY = 4
# Beyond this share of rows it is faster to skip those that are not allowed than to gather the others.
_NEARLY_ALL = 0.8

_CACHE_LINE = 64

# The largest of float32.
LARGEST = float(np.finfo(np.float32).max)
_EPSILON = float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)

# Its type stubs do not know all that is called here.
_faiss: Any = None


def faiss() -> Any:
    """The module, imported when it is first needed."""
    global _faiss
    if _faiss is None:
        _faiss = import_module("faiss")
    return _faiss


class Answer(NamedTuple):
    """The best rows of each query, best first.

    Attributes
    ----------
    codes : ndarray of shape (n_queries, k), int64
        -1 where there are no more.
    scores : ndarray of shape (n_queries, k), float32
        -inf there.
    """

    codes: Codes
    scores: Floats


class Pairs(NamedTuple):
    """What each query may not find: the rows of a CSR matrix.

    Attributes
    ----------
    indptr : ndarray of shape (n_queries + 1,), int
    indices : ndarray of shape (n_pairs,), int
        Ascending within a query.
    """

    indptr: npt.NDArray[np.integer]
    indices: npt.NDArray[np.integer]

    def of(self, queries: Codes) -> Pairs:
        """The pairs of some queries."""
        lengths = np.diff(self.indptr)[queries]
        ends = np.cumsum(lengths)
        at = np.repeat(self.indptr[queries] + lengths - ends, lengths) + np.arange(lengths.sum())
        return Pairs(np.concatenate([[0], ends]), self.indices[at])

    def listed(self, codes: Codes) -> Bools:
        """Whether each of `codes`, (n_queries, m), is among the pairs of its query."""
        width = int(max(codes.max(initial=0), self.indices.max(initial=0))) + 2
        rows = np.repeat(np.arange(len(codes)), np.diff(self.indptr))
        # Shifted by one, so that -1 is no pair of the query before.
        keys = np.append(rows * width + self.indices + 1, -1)
        asked = np.arange(len(codes))[:, None] * width + codes + 1
        return np.asarray(keys[np.searchsorted(keys[:-1], asked)] == asked)


class Selection:
    """The rows of a segment that may be found, in the forms that FAISS wants.

    Parameters
    ----------
    mask : ndarray of shape (n_rows,), bool
    """

    def __init__(self, mask: Bools) -> None:
        self.mask = mask
        self.n_allowed = int(np.count_nonzero(mask))
        # FAISS keeps addresses: what it reads must be made once, whoever asks first.
        self._making = threading.Lock()
        self._rows: Codes | None = None
        self._bits: npt.NDArray[np.uint8] | None = None
        self._bitmap: Any = None
        self._array: Any = None

    @property
    def rows(self) -> Codes:
        """Their numbers, ascending."""
        with self._making:
            if self._rows is None:
                self._rows = np.flatnonzero(self.mask)
            return self._rows

    @property
    def bitmap(self) -> Any:
        """A selector that is asked row by row."""
        with self._making:
            if self._bitmap is None:
                # Kept, as the selector reads it where it is.
                self._bits = np.packbits(self.mask, bitorder="little")
                self._bitmap = faiss().IDSelectorBitmap(len(self._bits), faiss().swig_ptr(self._bits))
            return self._bitmap

    @property
    def selector(self) -> Any:
        """The faster selector of a scan."""
        if self.n_allowed > _NEARLY_ALL * len(self.mask):
            return self.bitmap
        rows = self.rows
        with self._making:
            if self._array is None:
                self._array = faiss().IDSelectorArray(self.n_allowed, faiss().swig_ptr(rows))
            return self._array


def _aligned(n: int, d: int) -> Floats:
    """Room for vectors that begins where a cache line does: batches are scanned up to a sixth faster then."""
    room = np.empty(4 * n * d + _CACHE_LINE, dtype=np.uint8)
    start = -room.ctypes.data % _CACHE_LINE
    return room[start : start + 4 * n * d].view(np.float32).reshape(n, d)


def aligned_copy(*parts: Floats) -> Floats:
    """Vectors, one part after the other, copied to such a place."""
    return np.concatenate(parts, out=_aligned(sum(map(len, parts)), parts[0].shape[1]))


def scan(vectors: Floats, queries: Floats, size: int, selection: Selection | None) -> tuple[Floats, Codes]:
    """FAISS's scores and rows of the `size` best, which are at most as many as are allowed."""
    if selection is not None and len(queries) >= _SHARED_BY and selection.n_allowed * vectors.shape[1] <= _COPIED:
        copied = _aligned(selection.n_allowed, vectors.shape[1])
        scores, positions = scan(vectors.take(selection.rows, 0, copied, "clip"), queries, size, None)
        return scores, selection.rows[positions]
    scores = np.empty((len(queries), size), dtype=np.float32)
    rows = np.empty((len(queries), size), dtype=np.int64)
    module, pointer = faiss(), faiss().swig_ptr
    module.knn_inner_product(
        pointer(queries),
        pointer(vectors),
        vectors.shape[1],
        len(queries),
        len(vectors),
        size,
        pointer(scores),
        pointer(rows),
        None if selection is None else selection.selector,
    )
    return scores, rows


def exact_top_k(
    vectors: Floats, queries: Floats, k: int, slack: Doubles, selection: Selection | None, pairs: Pairs | None
) -> Answer:
    """The rows of largest inner product; ties by row.

    Parameters
    ----------
    vectors : ndarray of shape (n_rows, d), float32
    queries : ndarray of shape (n_queries, d), float32
    k : int
    slack : ndarray of shape (n_queries,), float64
        What `slack_of` says.
    selection : Selection or None
        The rows that may be found; None: all.
    pairs : Pairs or None
        The rows that each query may not find.

    Returns
    -------
    Answer of min(k, as many as are allowed) columns
    """
    n_allowed = len(vectors) if selection is None else selection.n_allowed
    k = min(k, n_allowed)
    # One more than is asked for shows where the k-th score ends.
    size = min(k + 1, n_allowed)
    if not k or pairs is not None or size * len(queries) > _FETCHED:
        return _widening_top_k(vectors, queries, k, slack, selection, pairs)
    scores, rows = scan(vectors, queries, size, selection)
    found = best_first(rows[:, :k], inner_products(queries, vectors, rows[:, :k]))
    if size > k and (is_open := scores[:, k - 1] - slack <= scores[:, k]).any():
        again = np.flatnonzero(is_open)
        wider = _widening_top_k(vectors, queries[again], k, slack[again], selection, None)
        found = Answer(found.codes.copy(), found.scores.copy())
        found.codes[again], found.scores[again] = wider
    return found


def _widening_top_k(
    vectors: Floats, queries: Floats, k: int, slack: Doubles, selection: Selection | None, pairs: Pairs | None
) -> Answer:
    """As `exact_top_k`, by fetching more where that does not tell yet."""
    n_allowed = len(vectors) if selection is None else selection.n_allowed
    answer = Answer(np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, dtype=np.float32))
    fetch = np.full(len(queries), k + 1 if k else 0) + (0 if pairs is None else np.diff(pairs.indptr))
    fetch = np.minimum(fetch, n_allowed)
    while len(pending := np.flatnonzero(fetch)):
        # Queries that need about as many rows, as many of them as fit the memory.
        alike = pending[fetch[pending] < 2 * fetch[pending].min()]
        size = int(fetch[alike].max())
        part = alike[: max(1, _FETCHED // size)]
        scores, rows = scan(vectors, queries[part], size, selection)
        end = scores[:, -1].copy()
        if pairs is not None:
            is_listed = pairs.of(part).listed(rows)
            scores[is_listed], rows[is_listed] = -np.inf, -1
        worst = np.partition(scores, size - k, axis=1)[:, size - k] - slack[part]
        # What FAISS left out may be as good as the k-th: ask these for more.
        is_open = (end >= worst) & (size < n_allowed)
        fetch[part] = np.where(is_open, min(4 * size, n_allowed), 0)
        rows[(scores < worst[:, None]) | is_open[:, None]] = -1
        rows = _leftmost(rows)
        scores = inner_products(queries[part], vectors, rows)
        scores[rows < 0] = -np.inf
        best = best_first(rows, scores)
        n_found = min(k, rows.shape[1])
        answer.codes[part, :n_found], answer.scores[part, :n_found] = best.codes[:, :k], best.scores[:, :k]
    return answer


def _leftmost(rows: Codes) -> Codes:
    """The rows of each query that are not -1, moved to the left, and no more columns than that takes."""
    is_void = rows < 0
    width = rows.shape[1] - int(is_void.sum(axis=1).min(initial=rows.shape[1]))
    order = np.argsort(is_void, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(rows, order, axis=1)


def inner_products(queries: Floats, vectors: Floats, rows: Codes) -> Floats:
    """Of each query with its rows, (n_queries, m): summed in double precision, in an order that nothing else changes.

    Where a row is -1 it is that of any row.
    """
    if rows.size * vectors.shape[1] <= _MULTIPLIED:
        # A single query: every call counts.
        right = vectors.take(rows, axis=0, mode="clip").astype(np.float64)
        return np.asarray(np.einsum("nd,nmd->nm", queries.astype(np.float64), right), dtype=np.float32)
    products = np.empty(rows.shape, dtype=np.float32)
    width = max(1, _MULTIPLIED // vectors.shape[1])
    step = max(1, width // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        left = queries[start : start + step].astype(np.float64)
        for column in range(0, rows.shape[1], width):
            part = (slice(start, start + step), slice(column, column + width))
            at = rows[part]
            right = vectors.take(at.ravel(), axis=0, mode="clip").astype(np.float64).reshape(*at.shape, -1)
            products[part] = np.einsum("nd,nmd->nm", left, right)
    return products


def best_first(codes: Codes, scores: Floats) -> Answer:
    """Sort each query's rows, (n_queries, m), best first, ties by code."""
    is_sorted = scores[:, 1:] < scores[:, :-1]
    if is_sorted.all():
        return Answer(codes, scores)
    mixed = ~is_sorted.all(axis=1)
    codes, scores = codes.copy(), scores.copy()
    order = np.lexsort((codes[mixed], -scores[mixed]), axis=1)
    codes[mixed] = np.take_along_axis(codes[mixed], order, axis=1)
    scores[mixed] = np.take_along_axis(scores[mixed], order, axis=1)
    return Answer(codes, scores)


def lengths_of(vectors: Floats) -> Doubles:
    """Euclidean lengths, in double precision."""
    squares: Doubles = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares)


def slack_of(lengths: Doubles, longest: float, d: int) -> Doubles:
    """By how much two scores of a query may be wrong together, at most.

    A sum of d rounded products is off by at most (d / 2) eps |q| |v| in any order (Higham, "Accuracy and Stability of
    Numerical Algorithms", section 3.1), and by less than tiny where a product underflows.
    """
    return np.asarray((d + 2) * (_EPSILON * longest * lengths + _TINY))

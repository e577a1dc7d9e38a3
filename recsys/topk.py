"""Exact top-k of dense scores: chunk by chunk, masked, ties broken by catalogue order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from joblib import effective_n_jobs
from sklearn import get_config
from threadpoolctl import OpenBLASController, ThreadpoolController

from recsys._sparse import Csr
from recsys.exceptions import InvalidInputError, InvalidTypeError, examples

__all__ = ["TopK", "row_chunks", "run_on_threads", "single_threaded_blas", "top_k", "top_k_chunks"]

Codes = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Task = TypeVar("Task")

# Scores of a chunk are worked on while they are in the cache, but in no fewer rows than a matrix product likes.
CHUNK_BYTES = 4 * 2**20
CHUNK_ROWS = 64
# The most that a score (float32) takes with its masks, in bytes, and a candidate for the top k besides, measured.
BYTES_PER_SCORE = 26
BYTES_PER_CANDIDATE = 40
# Columns a block: the longer, the fewer maxima to sort, the shorter, the fewer candidates that are none.
BLOCK_COLUMNS = 32


class TopK(NamedTuple):
    """The best columns of each row, best first.

    Attributes
    ----------
    columns : ndarray of shape (n, min(k, m)), int64
        -1 beyond the length of a row.
    values : ndarray of shape (n, min(k, m)), the dtype of the scores
        -inf beyond the length of a row.
    lengths : ndarray of shape (n,), int64
        How many columns a row could return.
    """

    columns: Codes
    values: Scores
    lengths: Codes


def top_k(scores: Scores, k: int) -> TopK:
    """Find the k highest scores of each row, in descending order; ties go to the lower column.

    Columns are dealt to blocks; at least k scores reach the k-th highest of the blocks' maxima, and so do the top k.
    Only these few are sorted.

    Parameters
    ----------
    scores : ndarray of shape (n, m), float
        ``-inf`` marks what must not be returned. Not changed.
    k : int
        At least 1.

    Returns
    -------
    TopK

    Raises
    ------
    InvalidTypeError
        If `scores` is no array of floats or `k` no whole number.
    InvalidInputError
        If `scores` is not two-dimensional or holds NaN, or `k` is below 1.

    Examples
    --------
    >>> columns, values, lengths = top_k(np.array([[1.0, 3.0, 3.0, -np.inf], [-np.inf, 2.0, -np.inf, -np.inf]]), k=2)
    >>> columns, lengths
    (array([[ 1,  2],
           [ 1, -1]]), array([2, 1]))
    >>> values
    array([[  3.,   3.],
           [  2., -inf]])
    """
    _check_k(k)
    if not isinstance(scores, np.ndarray) or scores.dtype.kind != "f":
        kind = scores.dtype if isinstance(scores, np.ndarray) else type(scores).__name__
        raise InvalidTypeError(f"`scores` is of type {kind}; expected an array of floats.")
    if scores.ndim != 2:
        raise InvalidInputError(f"`scores` has {scores.ndim} dimensions; expected one row of scores a query.")
    n, m = scores.shape
    k = min(k, m)
    if n == 0 or k == 0:
        return _nothing(n, k, scores.dtype)
    mask = _candidates(scores, k)
    found = np.flatnonzero(mask)
    ends = np.searchsorted(found, np.arange(n + 1) * m)
    crowded = np.flatnonzero(np.diff(ends) > _most_candidates(m, k))
    if len(crowded):
        del found
        mask[crowded] = _exactly_k(scores[crowded], k)
        found = np.flatnonzero(mask)
        ends = np.searchsorted(found, np.arange(n + 1) * m)
    return _sorted_candidates(scores, found, ends, k)


def _check_k(k: Any) -> None:
    if isinstance(k, bool) or not isinstance(k, Integral):
        raise InvalidTypeError(f"`k` is {k!r}; expected a whole number, at least 1.")
    if k < 1:
        raise InvalidInputError(f"`k` is {k}; expected at least 1.")


def _nothing(n: int, k: int, dtype: npt.DTypeLike) -> TopK:
    return TopK(np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, dtype), np.zeros(n, np.int64))


def _most_candidates(m: int, k: int) -> int:
    return min(m, 2 * k + 16)


def _candidates(scores: Scores, k: int) -> Mask:
    """Mark a superset of the top k of each row, most often a small one; never -inf."""
    n, m = scores.shape
    n_blocks = max(4 * k, m // BLOCK_COLUMNS)
    if 2 * n_blocks > m:
        _refuse_nan(scores)
        return _exactly_k(scores, k)
    # Block j has the columns j, j + n_blocks, ...: the maxima are taken of whole stretches of a row, and neighbours in
    # the catalogue, which are often alike, are in different blocks.
    whole = m - m % n_blocks
    maxima = scores[:, :whole].reshape(n, -1, n_blocks).max(axis=1)
    rest = maxima[:, : m - whole]
    np.maximum(rest, scores[:, whole:], out=rest)
    _refuse_nan(maxima)
    return scores >= _kth_largest(maxima, k)[:, None]


def _refuse_nan(scores: Scores) -> None:
    nan = np.isnan(scores)
    if nan.any():
        rows = np.flatnonzero(nan.any(axis=1))
        raise InvalidInputError(
            f"`scores` holds NaN in {len(rows)} rows ({examples(rows)}); expected numbers, -inf for what must not be "
            f"returned: if a model made them it has diverged, fit it with more regularisation or smaller steps."
        )


def _kth_largest(scores: Scores, k: int) -> Scores:
    """The k-th largest of each row, or the lowest finite number where that is -inf."""
    # Negated, for a partition slows down tenfold where it meets many -inf at the low end.
    negated = -scores
    negated.partition(k - 1, axis=1)
    kth: Scores = np.maximum(-negated[:, k - 1], np.finfo(scores.dtype).min)
    return kth


def _exactly_k(scores: Scores, k: int) -> Mask:
    """Mark the top k of each row, fewer where fewer are above -inf."""
    kth = _kth_largest(scores, k)[:, None]
    mask: Mask = scores > kth
    room = k - np.count_nonzero(mask, axis=1)
    tied = scores == kth
    mask |= tied & (np.cumsum(tied, axis=1, dtype=np.int32) <= room[:, None])
    return mask


def _sorted_candidates(scores: Scores, found: Codes, ends: Codes, k: int) -> TopK:
    """Sort candidates, given by their ascending positions in the raveled scores and their bounds in each row."""
    n, m = scores.shape
    counts = np.diff(ends)
    rows = np.repeat(np.arange(n), counts)
    places = np.arange(len(found)) - ends[rows]
    columns = np.full((n, max(k, int(counts.max()))), -1, dtype=np.int64)
    negated = np.full(columns.shape, np.inf, dtype=scores.dtype)
    columns[rows, places] = found - rows * m
    negated[rows, places] = -scores[rows, columns[rows, places]]
    # Stable, and columns ascend: ties stay in the order of the columns.
    order = np.argsort(negated, axis=1, kind="stable")[:, :k]
    values = -np.take_along_axis(negated, order, axis=1)
    return TopK(np.take_along_axis(columns, order, axis=1), values, np.minimum(counts, k))


def top_k_chunks(
    score_chunk: Callable[[slice], Scores],
    n_rows: int,
    n_columns: int,
    k: int,
    *,
    exclude: Csr | None = None,
    allowed: Mask | None = None,
    candidates: Csr | None = None,
    n_jobs: int | None = None,
    working_memory: float | None = None,
) -> TopK:
    """Top-k of scores that are computed chunk by chunk under a memory budget.

    Parameters
    ----------
    score_chunk : callable
        Takes a slice of rows and returns their scores, (n, n_columns) float32. The array is written to if it owns its
        data: return no array that is needed again. With `n_jobs` it is called from several threads.
    n_rows, n_columns : int
        Shape of all the scores together.
    k : int
        At least 1.
    exclude : scipy.sparse.csr_matrix of shape (n_rows, n_columns), default=None
        Stored entries, whatever their values, are never returned.
    allowed : ndarray of shape (n_columns,), bool, default=None
        The columns that may be returned.
    candidates : scipy.sparse.csr_matrix of shape (n_rows, n_columns), default=None
        Stored entries alone may be returned.
    n_jobs : int, default=None
        Threads, as in scikit-learn; the answer is the same bit for bit whatever their number.
    working_memory : float, default=None
        MiB for the scores of all chunks in work and what is derived from them; not for the answer, nor for what
        `score_chunk` needs besides. One row at least is always scored. None: scikit-learn's ``working_memory`` setting.

    Returns
    -------
    TopK
        Of min(k, n_columns) columns.

    Raises
    ------
    InvalidTypeError, InvalidInputError
        If an argument is not what is described here, or a score is NaN.

    Examples
    --------
    >>> users, items = np.array([[1.0], [-1.0]], dtype=np.float32), np.array([[1.0], [2.0], [3.0]], dtype=np.float32)
    >>> seen = Csr(np.array([[0, 0, 1], [0, 0, 0]]))
    >>> top_k_chunks(lambda rows: users[rows] @ items.T, 2, 3, k=2, exclude=seen).columns
    array([[1, 0],
           [0, 1]])
    """
    _check_k(k)
    for name, pairs in (("exclude", exclude), ("candidates", candidates)):
        if pairs is not None and pairs.shape != (n_rows, n_columns):
            raise InvalidInputError(f"`{name}` has the shape {pairs.shape}; expected {(n_rows, n_columns)}.")
    if allowed is not None and (allowed.dtype != bool or allowed.shape != (n_columns,)):
        raise InvalidInputError(
            f"`allowed` is {allowed.dtype} of shape {allowed.shape}; expected bool of shape ({n_columns},)."
        )
    budget = _budget(working_memory)
    # The rows of a chunk depend on the budget but not on the threads: scores may differ in the last bit by chunk size.
    row_bytes = BYTES_PER_SCORE * n_columns + BYTES_PER_CANDIDATE * _most_candidates(n_columns, k)
    size = max(CHUNK_ROWS, CHUNK_BYTES // (4 * max(n_columns, 1)))
    size = max(1, min(size, budget // max(row_bytes, 1)))
    at_a_time = max(1, budget // max(size * row_bytes, 1))
    answer = _nothing(n_rows, min(k, n_columns), np.float32)

    def work(rows: slice) -> None:
        scores = score_chunk(rows)
        if scores.shape != (rows.stop - rows.start, n_columns):
            raise InvalidInputError(
                f"`score_chunk` returned the shape {scores.shape}; expected {(rows.stop - rows.start, n_columns)}."
            )
        scores = np.require(scores, np.float32, ["C", "W", "O"])
        _mask(scores, rows, exclude, allowed, candidates)
        answer.columns[rows], answer.values[rows], answer.lengths[rows] = top_k(scores, k)

    chunks = [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]
    run_on_threads(work, chunks, min(at_a_time, effective_n_jobs(n_jobs)))
    return answer


def _budget(working_memory: Any) -> int:
    """The budget in bytes."""
    if working_memory is None:
        working_memory = get_config()["working_memory"]
    if isinstance(working_memory, bool) or not isinstance(working_memory, Real):
        raise InvalidTypeError(f"`working_memory` is {working_memory!r}; expected a number of MiB, or None.")
    budget = float(working_memory) * 2**20
    if not 0 < budget < float("inf"):
        raise InvalidInputError(f"`working_memory` is {working_memory}; expected a finite number of MiB above 0.")
    return int(budget)


def _mask(scores: Scores, rows: slice, exclude: Csr | None, allowed: Mask | None, candidates: Csr | None) -> None:
    """Put -inf where nothing may be returned."""
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    flat = scores.reshape(-1)
    if candidates is not None:
        entries = _entries(candidates, rows)
        kept = flat[entries]
        flat.fill(-np.inf)
        flat[entries] = kept
    if exclude is not None:
        flat[_entries(exclude, rows)] = -np.inf


def _entries(matrix: Csr, rows: slice) -> Codes:
    """The positions of the stored entries of some rows in the raveled dense matrix of these rows."""
    bounds = matrix.indptr[rows.start : rows.stop + 1]
    starts = np.arange(len(bounds) - 1, dtype=np.int64) * matrix.shape[1]
    return np.repeat(starts, np.diff(bounds)) + matrix.indices[bounds[0] : bounds[-1]]


def row_chunks(n: int, width: int) -> Iterator[slice]:
    """Cut n rows into slices, each of which fits scikit-learn's working memory as float32 with room to copy."""
    size = max(1, int(get_config()["working_memory"] * 2**20) // (8 * max(width, 1)))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def run_on_threads(function: Callable[[Task], None], tasks: Sequence[Task], n_jobs: int | None) -> None:
    """Call a function with each task on `n_jobs` threads, BLAS keeping to the thread that called it.

    Parameters
    ----------
    function : callable
        Must release the lock of the interpreter to gain from threads, as NumPy does.
    tasks : sequence
    n_jobs : int or None
        As in scikit-learn: None is 1, -1 all cores.

    Examples
    --------
    >>> squares = [0, 0, 0]
    >>> run_on_threads(lambda i: squares.__setitem__(i, i * i), range(3), n_jobs=2)
    >>> squares
    [0, 1, 4]
    """
    n_threads = min(effective_n_jobs(n_jobs), len(tasks))
    with single_threaded_blas():
        if n_threads <= 1:
            for task in tasks:
                function(task)
            return
        with ThreadPoolExecutor(n_threads) as pool:
            # The results are None; going through them raises what a task raised.
            for _ in pool.map(function, tasks):
                pass


@cache
def _blas_pools() -> tuple[ThreadpoolController, ThreadpoolController]:
    """Libraries with one pool for the process, and those on OpenMP, in which every thread has its own limit."""
    libraries = ThreadpoolController().select(user_api="blas")
    own = libraries.select(threading_layer="openmp")
    others = [library.filepath for library in libraries.lib_controllers if library not in own.lib_controllers]
    return libraries.select(filepath=others), own


_blas_lock = threading.Lock()
_blas_holders = 0
_blas_limit: Any = None


def _lift_claims() -> None:
    # Since 3.7 threadpoolctl heeds one thread alone, the first to set a limit, until that one says that it is done.
    lift_claim = getattr(OpenBLASController, "clear_controlling_thread", None)
    if lift_claim is not None:
        lift_claim(force=True)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS to one thread: its sums then come in one order, and it leaves the cores to our own threads.

    The limit is the whole process's: contexts may overlap in time on several threads, and the last to leave lifts it.
    BLAS on OpenMP has a limit for each thread: of such, that of the thread that calls.

    Examples
    --------
    >>> with single_threaded_blas():
    ...     product = np.eye(2) @ np.eye(2)
    """
    global _blas_holders, _blas_limit
    with _blas_lock:
        if _blas_holders == 0:
            _lift_claims()
            _blas_limit = _blas_pools()[0].limit(limits=1)
        _blas_holders += 1
    try:
        own_limit = _blas_pools()[1].limit(limits=1)
        try:
            yield
        finally:
            own_limit.restore_original_limits()
    finally:
        with _blas_lock:
            _blas_holders -= 1
            if _blas_holders == 0:
                _lift_claims()
                _blas_limit.restore_original_limits()
                _lift_claims()

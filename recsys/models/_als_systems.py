"""Solvers of the linear systems of alternating least squares, for many rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys._sparse import Csr
from recsys.exceptions import InvalidInputError

__all__ = ["Block", "System", "gather", "make_system", "pair_products", "solve_by_gradients", "solve_exactly"]

Floats = npt.NDArray[np.float32]
Vectors = npt.NDArray[Any]

# What a block gathers at once: no more than a core's share of the last cache.
BLOCK_BYTES = 8 * 2**20
# Below this squared residual a row is solved; its further steps would divide noise by noise.
TINY = 1e-20


class Block(NamedTuple):
    """Rows of about the same length, padded with entries of weight 0: `rows` (b,), the others (b, longest)."""

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.integer]
    weights: Floats


class System(NamedTuple):
    """What the rows of one half step have in common."""

    fixed: Floats
    gram: Floats
    alpha: float
    # `regularization` times the prior means, or None where they are 0.
    pull: Floats | None


def make_system(
    fixed: Floats,
    gram: Floats | None,
    alpha: float,
    regularization: float,
    prior: Floats | None = None,
) -> System:
    """The system of a half step: its arguments are those of `als_half_step`."""
    fixed = np.ascontiguousarray(fixed, dtype=np.float32)
    gram = fixed.T @ fixed if gram is None else gram.astype(np.float32, copy=False)
    penalised = gram + np.float32(regularization) * np.eye(fixed.shape[1], dtype=np.float32)
    pull = None if prior is None else np.float32(regularization) * prior
    return System(fixed, penalised, alpha, pull)


def gather(vectors: Vectors, at: npt.NDArray[np.integer], scratch: Vectors) -> Vectors:
    """``vectors[at]``, in the memory of `scratch`: fresh memory would cost several times what the copy does.

    Parameters
    ----------
    vectors : ndarray of shape (n, n_factors)
    at : ndarray of int
        Valid: this is not checked.
    scratch : ndarray of shape (>= at.size, n_factors)
        Of the type of the vectors; it is written over.

    Returns
    -------
    ndarray of shape (*at.shape, n_factors)

    Examples
    --------
    >>> gather(np.eye(2), np.array([[1, 0]]), np.empty((5, 2)))
    array([[[0., 1.],
            [1., 0.]]])
    """
    # mode="clip" spares a copy of the output.
    found = np.take(vectors, at.ravel(), axis=0, out=scratch[: at.size], mode="clip")
    return found.reshape(*at.shape, -1)


def pair_products(
    a: Floats, at_a: npt.NDArray[np.int64], b: Floats, at_b: npt.NDArray[np.int64], products: Floats
) -> Floats:
    """Inner products of pairs of rows, ``a[at_a[e]] @ b[at_b[e]]``, without a copy of the rows, on one thread.

    Parameters
    ----------
    a : ndarray of shape (n, n_factors), float32
    at_a : ndarray of shape (n_pairs,), int64
        Valid: this is not checked; so with `at_b`.
    b : ndarray of shape (m, n_factors), float32
    at_b : ndarray of shape (n_pairs,), int64
    products : ndarray of shape (n_pairs,), float32
        It is written over.

    Returns
    -------
    ndarray of shape (n_pairs,), float32
        `products`.

    Examples
    --------
    >>> a, b = np.eye(2, dtype=np.float32), np.array([[2, 3]], dtype=np.float32)
    >>> pair_products(a, np.array([1, 0]), b, np.array([0, 0]), np.empty(2, dtype=np.float32))
    array([3., 2.], dtype=float32)
    """
    import faiss

    arrays = [np.ascontiguousarray(array) for array in (a, at_a, b, at_b)]
    places = [faiss.swig_ptr(array) for array in (*arrays, products)]
    n_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        faiss.pairwise_indexed_inner_product(a.shape[1], len(products), *places)  # type: ignore[attr-defined]
    finally:
        faiss.omp_set_num_threads(n_threads)
    return products


def solve_by_gradients(system: System, positives: Csr, rows: slice, x: Floats, steps: int) -> Floats:
    """Conjugate gradient steps from `x`, which is changed, for consecutive rows of a matrix."""
    starts = positives.indptr[rows.start : rows.stop + 1]
    entries = slice(starts[0], starts[-1])
    extra = np.float32(system.alpha) * positives.data[entries]
    # Of the shape of these rows: each pass writes what it weighs the columns' vectors by into its data.
    part = Csr((extra.copy(), positives.indices[entries], starts - starts[0]), shape=(len(x), len(system.fixed)))
    of_rows = np.repeat(np.arange(len(x)), np.diff(starts))
    of_columns = part.indices.astype(np.int64)
    ones = np.ones(len(system.fixed), dtype=np.float32)

    def multiply(p: Floats) -> Floats:
        inner = pair_products(p, of_rows, system.fixed, of_columns, part.data)
        inner *= extra
        return np.asarray(part @ system.fixed + p @ system.gram)

    def curvature(p: Floats) -> Floats:
        inner = pair_products(p, of_rows, system.fixed, of_columns, part.data)
        inner *= inner
        inner *= extra
        return np.asarray(part @ ones + _dots(p @ system.gram, p))

    # b - A x: a positive adds c - (c - 1) x.y times its vector.
    inner = pair_products(x, of_rows, system.fixed, of_columns, part.data)
    np.subtract(1, inner, out=inner)
    inner *= extra
    inner += 1
    residual = np.asarray(part @ system.fixed - x @ system.gram)
    if system.pull is not None:
        residual += system.pull[rows]
    return _conjugate_gradients(multiply, curvature, x, residual, steps)


def _dots(a: Floats, b: Floats) -> Floats:
    """Inner products of the rows of two matrices."""
    dots: Floats = np.einsum("bf,bf->b", a, b)
    return dots


def _conjugate_gradients(
    multiply: Callable[[Floats], Floats],
    curvature: Callable[[Floats], Floats],
    x: Floats,
    residual: Floats,
    steps: int,
) -> Floats:
    """Steps of the conjugate gradient method on every row of `x` at once; changes `x` and `residual`.

    `multiply` does so with A, `curvature` gives p'Ap: all that the last step asks for, in half the passes.
    """
    direction = residual.copy()
    squared = _dots(residual, residual)
    for left in reversed(range(steps)):
        image = multiply(direction) if left else None
        curved = curvature(direction) if image is None else _dots(direction, image)
        open_ = (squared > TINY) & (curved > 0)
        length = np.divide(squared, curved, out=np.zeros_like(squared), where=open_)[:, None]
        x += length * direction
        if image is None:
            break
        residual -= length * image
        previous, squared = squared, _dots(residual, residual)
        direction *= np.divide(squared, previous, out=np.zeros_like(squared), where=open_)[:, None]
        direction += residual
    return x


def solve_exactly(system: System, block: Block, scratch: Floats, targets: Floats | None = None) -> Floats:
    """Cholesky factors of a batch of rows at a time, so that their matrices take no more than a block.

    The right-hand sides are those of the normal equations or, where given, `targets`, one a row of the matrix.
    """
    n_factors = system.fixed.shape[1]
    size = max(1, BLOCK_BYTES // (4 * n_factors**2))
    answer = np.empty((len(block.rows), n_factors), dtype=np.float32)
    for start in range(0, len(block.rows), size):
        batch = slice(start, start + size)
        part = Block(block.rows[batch], block.columns[batch], block.weights[batch])
        matrix, target = _normal_equations(system, part, scratch)
        if targets is not None:
            target = targets[part.rows]
        try:
            factor = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError as error:
            raise InvalidInputError(
                "The regularisation (`l2`) is too small for these weights: the system of a row is singular; raise it, "
                "or lower the weights (`y`, `alpha`)."
            ) from error
        answer[batch] = _substitute(factor, target)
    return answer


def _normal_equations(system: System, block: Block, scratch: Floats) -> tuple[Floats, Floats]:
    """A (b, n_factors, n_factors) and b (b, n_factors), summed over pieces of the columns that fit `scratch`."""
    n_rows, longest = block.columns.shape
    matrix = np.repeat(system.gram[None], n_rows, axis=0)
    target = np.zeros((n_rows, 1, system.fixed.shape[1]), dtype=np.float32)
    step = max(1, len(scratch) // n_rows)
    for start in range(0, longest, step):
        weights = block.weights[:, start : start + step]
        vectors = gather(system.fixed, block.columns[:, start : start + step], scratch)
        extra = np.float32(system.alpha) * weights
        matrix += (vectors * extra[:, :, None]).transpose(0, 2, 1) @ vectors
        target += (extra + (weights > 0))[:, None] @ vectors
    if system.pull is not None:
        target[:, 0] += system.pull[block.rows]
    return matrix, target[:, 0]


def _substitute(factor: Floats, target: Floats) -> Floats:
    """Solve ``L L' x = target`` for lower triangular L, (b, f, f), column by column for the whole batch."""
    x = target.copy()
    for j in range(x.shape[1]):
        x[:, j] /= factor[:, j, j]
        x[:, j + 1 :] -= factor[:, j + 1 :, j] * x[:, j, None]
    for j in reversed(range(x.shape[1])):
        x[:, j] /= factor[:, j, j]
        x[:, :j] -= factor[:, j, :j] * x[:, j, None]
    return x

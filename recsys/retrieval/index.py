"""ItemIndex: the catalogue in FAISS, and its exact top-k by inner product.

FAISS picks its kernel by the number of queries and of threads, so the last bits of its scores, and with them the order
of near ties, change from call to call. Here FAISS finds every item that may belong to the top-k given its rounding, and
those few are scored again in double precision: a query has one answer, whatever it is asked together with.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys._requests import excluded_items, read_k
from recsys._sparse import Csr
from recsys.exceptions import (
    CorruptModelError,
    InvalidInputError,
    InvalidTypeError,
    PersistenceError,
    examples,
)
from recsys.persistence import read_directory, read_manifest, refuse_other_kind, write_directory
from recsys.vectors import VectorRecommender
from recsys.vocabulary import Vocabulary, as_ids

if TYPE_CHECKING:
    import faiss

__all__ = ["ItemIndex"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Codes: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]

# Scores that FAISS returns at a time (12 bytes each, and scratch), and numbers multiplied at a time.
_FETCHED = 2**20
_MULTIPLIED = 2**19

_EPSILON = float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)


class ItemIndex:
    r"""Items and their vectors, searched for the largest inner products :math:`\langle q, v_i \rangle`.

    The search is exact. Ties go to the item that comes first in `ids`, as in a model's `recommend`.

    Parameters
    ----------
    ids : array-like of shape (n_items,) or Vocabulary
        Distinct labels of any kind.
    vectors : array-like of shape (n_items, n_dimensions)
        Copied as float32, never changed.
    metric : {"dot"}, default="dot"
        What makes an item near: the inner product.

    Attributes
    ----------
    items : Vocabulary
        The labels, in the order of `ids`.
    n_dimensions : int
    metric : str

    Raises
    ------
    InvalidInputError
        If there are no items, a label comes twice, or `vectors` are not finite numbers, one row an id.

    References
    ----------
    .. [1] M. Douze et al., "The Faiss library", 2024, arXiv 2401.08281.

    Examples
    --------
    >>> index = ItemIndex(["tea", "milk", "salt"], [[1, 0], [1, 1], [0, 1]])
    >>> index.search([[2, 1]], k=2)
       query item_id  score  rank
    0      0    milk    3.0     1
    1      0     tea    2.0     2
    """

    def __init__(self, ids: Any, vectors: Any, *, metric: Literal["dot"] = "dot") -> None:
        import faiss

        if metric != "dot":
            raise InvalidInputError(f"`metric` is {metric!r}; expected 'dot', the inner product.")
        items = Vocabulary(ids)
        if not len(items):
            raise InvalidInputError("`ids` is empty; expected at least one item.")
        array = _as_vectors(vectors)
        if len(array) != len(items):
            raise InvalidInputError(f"`vectors` has {len(array)} rows for {len(items)} ids; expected one row an id.")
        index = faiss.IndexFlatIP(array.shape[1])
        index.add(array)
        self._adopt(items, index, metric)

    def _adopt(self, items: Vocabulary, index: faiss.IndexFlatIP, metric: str) -> None:
        self.items, self.metric, self.n_dimensions = items, metric, int(index.d)
        self._index = index
        self._vectors = _stored_vectors(index)
        self._longest = float(_lengths(self._vectors).max())

    @classmethod
    def from_model(cls, model: VectorRecommender) -> ItemIndex:
        """Index the catalogue of a model, as it is now.

        Searching for ``model.user_vectors(users)`` gives the model's own `recommend`.

        Parameters
        ----------
        model : VectorRecommender
            Fitted.

        Returns
        -------
        ItemIndex

        Raises
        ------
        InvalidTypeError
            If the scores of the model are no inner products.

        Examples
        --------
        >>> from recsys import Popularity
        >>> X = pd.DataFrame({"user_id": ["ann", "bob", "bob"], "item_id": ["tea", "tea", "milk"]})
        >>> model = Popularity().fit(X)
        >>> index = ItemIndex.from_model(model)
        >>> index.search(model.user_vectors(["ann"]), queries=["ann"], exclude=X)
          query item_id  score  rank
        0   ann    milk    0.5     1
        """
        if not isinstance(model, VectorRecommender):
            name = model.__name__ if isinstance(model, type) else type(model).__name__
            raise InvalidTypeError(
                f"`model` is {name}; expected a fitted model whose score is an inner product, one with `user_vectors` "
                f"and `item_vectors`; ask other models with their own `recommend`."
            )
        vectors = model.item_vectors()
        return cls(model.items_, vectors)

    def search(self, vectors: Any, k: int = 10, *, queries: Any = None, exclude: Any = None) -> pd.DataFrame:
        """The k items of largest inner product with each vector.

        Parameters
        ----------
        vectors : array-like of shape (n_queries, n_dimensions)
            For example a model's ``user_vectors(users)``.
        k : int, default=10
            How many items; fewer come back where fewer are left.
        queries : array-like of shape (n_queries,), default=None
            What to call each query, for example the users. None: 0, 1, 2, ...
        exclude : array-like of item ids, or DataFrame, default=None
            Items that may not be found: by anyone, or pair by pair (query, item). With users as `queries` and the `X`
            of `fit` here, nobody finds what they have seen.

        Returns
        -------
        DataFrame
            Columns ``query``, ``item_id``, ``score`` (float32) and ``rank`` (from 1): queries in the order given, the
            best item first.

        Raises
        ------
        InvalidInputError
            If an argument is not what is described here.
        """
        k = min(read_k(k), len(self.items))
        array = _as_vectors(vectors, self.n_dimensions)
        labels = as_ids(np.arange(len(array)) if queries is None else queries, "queries")
        if len(labels) != len(array):
            raise InvalidInputError(
                f"`queries` has {len(labels)} labels for {len(array)} vectors; expected one label a vector."
            )
        forbidden, excluded = excluded_items(exclude, self.items, labels)
        rows, codes, scores = self._top_k(array, k, forbidden, excluded)
        return pd.DataFrame(
            {
                "query": labels.take(rows),
                "item_id": self.items.decode(codes),
                "score": scores,
                "rank": _ranks(rows),
            }
        )

    def _top_k(
        self, vectors: Floats, k: int, forbidden: Bools | None, excluded: Csr | None
    ) -> tuple[Codes, Codes, Floats]:
        """The rows of the answer: number of the query, code of the item, score."""
        n_allowed = len(self.items) if forbidden is None else int(np.count_nonzero(~forbidden))
        params = None if forbidden is None else _selection(~forbidden)
        slack = self._slack(vectors)
        # One more than is asked for shows where the k-th score ends.
        fetch = np.full(len(vectors), k + 1) + (0 if excluded is None else np.diff(excluded.indptr))
        fetch = np.minimum(fetch, n_allowed)
        found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
        while len(pending := np.flatnonzero(fetch)):
            # Queries that need about as many items, as many of them as fit the memory.
            alike = pending[fetch[pending] < 2 * fetch[pending].min()]
            size = int(fetch[alike].max())
            rows = alike[: max(1, _FETCHED // size)]
            scores, codes = self._index.search(vectors[rows], size, params=params)
            end = scores[:, -1].copy()
            if excluded is not None:
                scores[_is_listed(excluded[rows], codes)] = -np.inf
            kth = np.partition(scores, size - k, axis=1)[:, size - k] if k <= size else np.float32(-np.inf)
            worst = np.nextafter((kth - slack[rows]).astype(np.float32), np.float32(-np.inf))
            # What FAISS left out may be as good as the k-th: ask these for more.
            open_ended = (end >= worst) & (size < n_allowed)
            fetch[rows] = np.where(open_ended, min(4 * size, n_allowed), 0)
            good = (scores >= worst[:, None]) & (scores > -np.inf) & ~open_ended[:, None]
            row, column = np.nonzero(good)
            found.append(self._best(vectors, rows[row], codes[row, column], k))
        all_rows, all_codes, all_scores = map(np.concatenate, zip(*found, strict=True))
        order = np.argsort(all_rows, kind="stable")
        return all_rows[order], all_codes[order], all_scores[order]

    def _best(self, vectors: Floats, rows: Codes, codes: Codes, k: int) -> tuple[Codes, Codes, Floats]:
        """Score candidates anew, and keep the k best of each row, best first, ties by code."""
        scores = _inner_products(vectors, rows, self._vectors, codes)
        order = np.lexsort((codes, -scores, rows))
        order = order[_ranks(rows[order]) <= k]
        return rows[order], codes[order], scores[order]

    def _slack(self, vectors: Floats) -> npt.NDArray[np.float64]:
        """By how much two scores of a query may be wrong together, at most.

        A sum of d rounded products is off by at most (d / 2) eps |q| |v| in any order (Higham, "Accuracy and Stability
        of Numerical Algorithms", section 3.1), and by less than tiny where a product underflows.
        """
        largest = _lengths(vectors) * self._longest
        if (largest > np.finfo(np.float32).max).any():
            raise InvalidInputError(
                f"`vectors` are too long: inner products of up to {largest.max():.3g} may overflow float32; expected "
                f"shorter ones: scale them down."
            )
        return np.asarray((self.n_dimensions + 2) * (_EPSILON * largest + _TINY))

    def save(self, path: Any) -> None:
        """Save the index into a directory, atomically; `ItemIndex.load` reads it.

        Parameters
        ----------
        path : path-like
            A directory that is new, empty, or holds a saved index, which is replaced.

        Raises
        ------
        PersistenceError
            If something cannot be stored, or `path` holds anything else, a model for example; nothing is written then.
        """
        import faiss

        refuse_other_kind(path, lambda held: held == type(self).__name__)
        state = {"items": self.items, "faiss": faiss.serialize_index(self._index)}
        header = {
            "class": type(self).__name__,
            "faiss_version": faiss.__version__,
            "parameters": {"metric": self.metric},
        }
        write_directory(path, state, header)

    @classmethod
    def load(cls, path: Any) -> ItemIndex:
        """Load an index that `save` wrote.

        Parameters
        ----------
        path : path-like
            The directory.

        Returns
        -------
        ItemIndex

        Raises
        ------
        PersistenceError
            If there is no index at `path`.
        CorruptModelError
            If a file is missing, truncated or altered.
        SchemaVersionError
            If the index was written by a newer release.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ItemIndex(["tea", "milk"], [[1, 0], [0, 1]]).save(folder)
        ...     ItemIndex.load(folder)
        ItemIndex(2 items, 2 dimensions, metric='dot')
        """
        import faiss

        # Before the rest is read, and of what was read: a save may come between.
        _refuse_other_class(read_manifest(path), path)
        state, manifest = read_directory(path)
        _refuse_other_class(manifest, path)
        try:
            index = faiss.deserialize_index(state["faiss"])
        except RuntimeError as error:
            raise CorruptModelError(
                f"FAISS {faiss.__version__} cannot read the index in {Path(path)}, which FAISS "
                f"{manifest.get('faiss_version')} wrote: {error}"
            ) from error
        if not isinstance(index, faiss.IndexFlatIP) or index.ntotal != len(state["items"]):
            raise CorruptModelError(
                f"The index in {Path(path)} is a {type(index).__name__} of {index.ntotal} vectors for "
                f"{len(state['items'])} ids; expected an IndexFlatIP of one vector an id."
            )
        loaded = cls.__new__(cls)
        loaded._adopt(state["items"], index, manifest["parameters"]["metric"])
        return loaded

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"ItemIndex({len(self)} items, {self.n_dimensions} dimensions, metric={self.metric!r})"


def _as_vectors(values: Any, n_dimensions: int | None = None) -> Floats:
    """Check vectors and return them as float32 in C order; the same array where it is that already."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidInputError(f"`vectors` is no array: {error}; expected rows of the same length.") from error
    if array.dtype.kind not in "iuf":
        raise InvalidTypeError(f"`vectors` is of dtype {array.dtype}; expected a dense array of real numbers.")
    if array.ndim != 2:
        raise InvalidInputError(
            f"`vectors` has shape {array.shape}; expected (n, n_dimensions): pass a single vector v as [v]."
        )
    if n_dimensions is not None and array.shape[1] != n_dimensions:
        raise InvalidInputError(
            f"`vectors` has {array.shape[1]} dimensions; expected {n_dimensions}, like the vectors in the index: pass "
            f"vectors of the model that was indexed."
        )
    if not array.shape[1]:
        raise InvalidInputError(f"`vectors` has shape {array.shape}; expected at least one dimension.")
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(floats).all(axis=1)
    if bad.any():
        raise InvalidInputError(
            f"`vectors` holds NaN or values beyond float32 in {int(bad.sum())} rows: {examples(np.flatnonzero(bad))}; "
            f"expected finite numbers: if they are a model's, it has diverged, fit it again."
        )
    return floats


def _lengths(vectors: Floats) -> npt.NDArray[np.float64]:
    """Euclidean lengths, in double precision."""
    squares: npt.NDArray[np.float64] = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    return np.sqrt(squares)


def _stored_vectors(index: faiss.IndexFlatIP) -> Floats:
    """The vectors inside a FAISS index: a view, valid while the index lives and does not change."""
    import faiss

    view: Floats = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    view.flags.writeable = False
    return view


def _selection(allowed: Bools) -> Any:
    # Its type stubs do not know these constructors.
    faiss: Any = import_module("faiss")
    return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")))


def _is_listed(pairs: Csr, codes: Codes) -> Bools:
    """Whether each of `codes`, (n, m), is stored in its row of `pairs`, which has sorted indices."""
    n_items = pairs.shape[1]
    rows = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    keys = np.append(rows * n_items + pairs.indices, -1)
    asked = np.arange(len(codes))[:, None] * n_items + codes
    return np.asarray(keys[np.searchsorted(keys[:-1], asked)] == asked)


def _inner_products(queries: Floats, rows: Codes, vectors: Floats, codes: Codes) -> Floats:
    """The inner product of each pair: summed in double precision, in an order that the other pairs do not change."""
    products = np.empty(len(rows), dtype=np.float32)
    step = max(1, _MULTIPLIED // vectors.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        left, right = queries[rows[part]].astype(np.float64), vectors[codes[part]].astype(np.float64)
        products[part] = np.einsum("nd,nd->n", left, right)
    return products


def _ranks(groups: Codes) -> Codes:
    """The position of each element in its group, from 1; the groups are in ascending order."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups) + 1


def _refuse_other_class(manifest: dict[str, Any], path: Any) -> None:
    if manifest.get("class") != ItemIndex.__name__:
        raise PersistenceError(
            f"{Path(path)} holds a saved {manifest.get('class')}; expected an ItemIndex: load a model with "
            f"`recsys.load`, and index it with `ItemIndex.from_model`."
        )

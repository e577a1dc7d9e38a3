"""ItemIndex: the catalogue in FAISS, which apps search while items come and go."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys._requests import read_k
from recsys.exceptions import InvalidInputError, InvalidTypeError
from recsys.retrieval import _storage
from recsys.retrieval._approximate import Compression, perturbed, recall_of
from recsys.retrieval._arguments import check_choice, read_restrictions, read_target
from recsys.retrieval._changing import ChangingIndex, State
from recsys.retrieval._labels import Labels
from recsys.retrieval._metadata import read_metadata
from recsys.retrieval._segments import Bools, Codes, Floats, Pairs
from recsys.retrieval._snapshot import Snapshot
from recsys.vectors import VectorRecommender
from recsys.vocabulary import Vocabulary, as_ids

__all__ = ["ItemIndex"]

Kind: TypeAlias = Literal["auto", "exact", "ivf", "hnsw"]
Metric: TypeAlias = Literal["dot", "cosine"]

_KINDS = ("auto", "exact", "ivf", "hnsw")
_METRICS = ("dot", "cosine")
_COMPRESSIONS = (None, "sq8", "pq")


class ItemIndex(ChangingIndex):
    r"""Items and their vectors, searched for the largest inner products :math:`\langle q, v_i \rangle`, or cosines.

    Exact search has one answer for a query, whatever is asked at the same time: scores are sums in double precision,
    and ties go to the item that joined first, as in a model's `recommend`. The approximate kinds may miss items, but
    the scores of those they find are exact, and filtered or not, `k` items come back wherever there are `k`.

    Searches and changes may come from any number of threads. A search sees the index before a change or after it, and
    never waits for one; changes wait for each other. A change copies what changed since the last `compact`, which
    happens by itself when that is more than a tenth of the index and more than 1024 items; it takes as long as building
    the index did.

    Parameters
    ----------
    ids : array-like of shape (n_items,) or Vocabulary
        Distinct labels of any kind.
    vectors : array-like of shape (n_items, n_dimensions)
        Copied as float32, never changed.
    metric : {"dot", "cosine"}, default="dot"
        What makes an item near: the inner product, or that of the vectors scaled to length 1. The cosine with a vector
        of zeros is 0.
    kind : {"auto", "exact", "ivf", "hnsw"}, default="auto"
        How to search. "exact": every vector. "ivf": those of the nearest of some lists, found by k-means. "hnsw":
        along a graph of neighbours, built slowly, searched fast; removed items stand in its way until `compact`.
        "auto": "exact" up to 6.4 million numbers (100,000 vectors of 64: about a millisecond a query on a core) or for
        a `recall_target` of 1, and "ivf" beyond. Fewer than 1024 items are always searched exactly.
    recall_target : float, default=0.99
        Which share of the 10 best items an approximate kind is to find on average, measured when it is built: so far it
        looks. Where that is as much work as a scan, exact search it is, and a `DataWarning` says so unless `kind` is
        "auto".
    compression : {None, "sq8", "pq"}, default=None
        What an approximate kind looks at, before it scores what it found by the vectors themselves: them, a byte a
        number, or a byte for four numbers (product quantisation).
    queries : array-like of shape (n_queries, n_dimensions), default=None
        What recall is measured on, for example users' vectors. None: items' vectors with noise of half their length.
    metadata : DataFrame, default=None
        What `where` filters by: one row an id, named in the column ``item_id`` or in the frame's index. Columns are
        numbers, dates, text, or lists of text or whole numbers; None and NaN are missing values.

    Attributes
    ----------
    items : Vocabulary
        The labels, in the order in which they joined.
    n_dimensions : int
    metric : str
    kind : str
        As it was given.
    is_exact : bool
        Whether a search looks at every vector.

    Raises
    ------
    InvalidInputError
        If there are no items, a label comes twice, or another argument is not what is described here.

    References
    ----------
    .. [1] M. Douze et al., "The Faiss library", 2024, arXiv 2401.08281.
    .. [2] Y. Malkov, D. Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
       Navigable Small World graphs", IEEE TPAMI 42(4), 2020.

    Examples
    --------
    >>> about = pd.DataFrame({"price": [3, 1, 1]}, index=["tea", "milk", "salt"])
    >>> index = ItemIndex(["tea", "milk", "salt"], [[1, 0], [1, 1], [0, 1]], metadata=about)
    >>> index.search([[2, 1]], k=2)
       query item_id  score  rank
    0      0    milk    3.0     1
    1      0     tea    2.0     2
    >>> index.search([[2, 1]], where={"price": {"<": 3}}, exclude=["milk"])
       query item_id  score  rank
    0      0    salt    1.0     1
    """

    def __init__(
        self,
        ids: Any,
        vectors: Any,
        *,
        metric: Metric = "dot",
        kind: Kind = "auto",
        recall_target: float = 0.99,
        compression: Compression = None,
        queries: Any = None,
        metadata: pd.DataFrame | None = None,
    ) -> None:
        check_choice("metric", metric, _METRICS)
        check_choice("kind", kind, _KINDS)
        check_choice("compression", compression, _COMPRESSIONS)
        if compression is not None and kind == "exact":
            raise InvalidInputError(
                f"`compression` is {compression!r} for `kind` 'exact'; expected None: exact search needs the vectors."
            )
        items = Vocabulary(ids)
        if not len(items):
            raise InvalidInputError("`ids` is empty; expected at least one item.")
        self.metric, self.kind, self.compression = metric, kind, compression
        self.recall_target = read_target(recall_target)
        array = self._read_rows(items.ids, vectors)
        self.n_dimensions = int(array.shape[1])
        self._queries = None if queries is None else self._read_queries(queries, "queries").copy()
        base = self._build(array, read_metadata(metadata, items.ids))
        self._adopt(State(Labels.of(items), Snapshot.of(base)))

    @classmethod
    def from_model(cls, model: VectorRecommender, **options: Any) -> ItemIndex:
        """Index the catalogue of a model, as it is now.

        Exact search for ``model.user_vectors(users)`` gives the model's own `recommend`.

        Parameters
        ----------
        model : VectorRecommender
            Fitted.
        **options
            Those of the class: `kind`, `metadata` and others.

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
        return cls(model.items_, vectors, **options)

    @property
    def items(self) -> Vocabulary:
        """The labels, in the order in which they joined."""
        return self._state.labels.items

    @property
    def is_exact(self) -> bool:
        """Whether a search looks at every vector."""
        return self._state.snapshot.base.structure is None

    def search(
        self,
        vectors: Any,
        k: int = 10,
        *,
        queries: Any = None,
        where: Any = None,
        candidates: Any = None,
        exclude: Any = None,
    ) -> pd.DataFrame:
        """The k nearest items of each vector.

        Parameters
        ----------
        vectors : array-like of shape (n_queries, n_dimensions)
            For example a model's ``user_vectors(users)``.
        k : int, default=10
            How many items; fewer come back where fewer are left.
        queries : array-like of shape (n_queries,), default=None
            What to call each query, for example the users. None: 0, 1, 2, ...
        where : dict, default=None
            A filter of the metadata, such as ``{"year": {">=": 1990}, "genres": {"in": ["Comedy", "War"]}}``; all that
            it can say is in `recsys.retrieval.filters`.
        candidates : array-like of item ids, default=None
            The items that alone may be found.
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
        state = self._state
        k = read_k(k)
        array = self._read_queries(vectors)
        names = as_ids(np.arange(len(array)) if queries is None else queries, "queries")
        if len(names) != len(array):
            raise InvalidInputError(
                f"`queries` has {len(names)} labels for {len(array)} vectors; expected one label a vector."
            )
        allowed, pairs = read_restrictions(candidates, exclude, state.labels, names)
        places, scores = state.snapshot.search(array, k, where=where, allowed=allowed, pairs=pairs)
        rows, columns = np.nonzero(places >= 0)
        return pd.DataFrame(
            {
                "query": names.take(rows),
                "item_id": state.labels.decode(places[rows, columns]),
                "score": scores[rows, columns],
                "rank": columns + 1,
            }
        )

    def search_arrays(
        self, vectors: Any, k: int = 10, *, where: Any = None, candidates: Any = None, exclude: Any = None
    ) -> tuple[npt.NDArray[Any], Floats, Codes]:
        """The same as arrays, for those who count microseconds.

        Parameters
        ----------
        vectors : array-like of shape (n_queries, n_dimensions)
        k : int, default=10
        where, candidates, exclude
            As in `search`; the queries are called 0, 1, 2, ...

        Returns
        -------
        labels : ndarray of shape (n_queries, m)
            m is k, or less where there are not as many.
        scores : ndarray of shape (n_queries, m), float32
            Best first; -inf beyond what was found.
        lengths : ndarray of shape (n_queries,), int64
            How many each query found: labels further on mean nothing.

        Raises
        ------
        InvalidInputError
            If an argument is not what is described here.

        Examples
        --------
        >>> labels, scores, lengths = ItemIndex(["tea", "milk"], [[1, 0], [1, 1]]).search_arrays([[2, 1]])
        >>> labels[0, : lengths[0]].tolist(), scores.tolist()
        (['milk', 'tea'], [[3.0, 2.0]])
        """
        state = self._state
        k = read_k(k)
        array = self._read_queries(vectors)
        allowed: Bools | None = None
        pairs: Pairs | None = None
        if candidates is not None or exclude is not None:
            allowed, pairs = read_restrictions(candidates, exclude, state.labels, pd.RangeIndex(len(array)))
        places, scores = state.snapshot.search(array, k, where=where, allowed=allowed, pairs=pairs)
        return state.labels.take(places), scores, (places >= 0).sum(axis=1)

    def measure_recall(self, queries: Any = None, k: int = 10) -> float:
        """The share of the exact answer that a search finds.

        Parameters
        ----------
        queries : array-like of shape (n_queries, n_dimensions), default=None
            None: items' vectors with noise of half their length.
        k : int, default=10

        Returns
        -------
        float
            The mean over the queries of how many of the k best items are found, over k; 1 for exact search.

        Raises
        ------
        InvalidInputError
            If an argument is not what is described here.

        Examples
        --------
        >>> ItemIndex(["tea", "milk"], [[1, 0], [1, 1]]).measure_recall()
        1.0
        """
        snapshot, k = self._state.snapshot, read_k(k)
        asked = perturbed(snapshot.base.vectors) if queries is None else self._read_queries(queries, "queries")
        return recall_of(snapshot.search(asked, k), snapshot.search(asked, k, exact=True))

    def save(self, path: Any) -> None:
        """Save the index into a directory, atomically; `ItemIndex.load` reads it.

        What is saved is the index at one moment; it may be searched and changed meanwhile.

        Parameters
        ----------
        path : path-like
            A directory that is new, empty, or holds a saved index, which is replaced.

        Raises
        ------
        PersistenceError
            If something cannot be stored, or `path` holds anything else, a model for example; nothing is written then.
        """
        labels, snapshot = self._state
        names = ("metric", "kind", "recall_target", "compression")
        _storage.write(path, {name: getattr(self, name) for name in names}, labels, snapshot, self._queries)

    @classmethod
    def load(cls, path: Any) -> ItemIndex:
        """Load an index that `save` wrote.

        Every byte is checked. The vectors of a large index stay in their file, which is mapped into memory: the system
        reads and forgets them as it likes, and processes share them.

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
        parameters, labels, snapshot, queries = _storage.read(path)
        loaded = cls.__new__(cls)
        vars(loaded).update(parameters)
        loaded.n_dimensions = int(snapshot.base.vectors.shape[1])
        loaded._queries = queries
        loaded._adopt(State(labels, snapshot))
        return loaded

    def __len__(self) -> int:
        return self._state.snapshot.n_items

    def __repr__(self) -> str:
        structure = self._state.snapshot.base.structure
        kind = "" if structure is None else f", kind={structure.kind!r}"
        return f"ItemIndex({len(self)} items, {self.n_dimensions} dimensions, metric={self.metric!r}{kind})"

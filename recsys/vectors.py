"""Recommenders whose score is an inner product of a user's and an item's vector: what an index can serve."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from recsys._asked import AskedItems, AskedUsers, Parts
from recsys._graphs import Value
from recsys._state import COLD, Codes, Features, Floats, OnCold
from recsys.base import BaseRecommender
from recsys.exceptions import PersistenceError
from recsys.interactions import UserBatch
from recsys.topk import row_chunks
from recsys.vocabulary import as_ids

__all__ = ["VectorRecommender"]

# A multiple of what the kernels of BLAS take at a time.
COLUMNS_A_KERNEL = 64

# The parts of a model's item vectors, and the table made of them when it was last asked.
_tables: WeakKeyDictionary[VectorRecommender, tuple[tuple[Floats, ...], Floats]] = WeakKeyDictionary()


class VectorRecommender(BaseRecommender):
    """Base of models whose score is an inner product; see the hooks `_user_vectors` and `_item_parts`."""

    def user_vectors(
        self,
        users: Any,
        *,
        user_features: Features = None,
        interactions: Any = None,
        context: Any = None,
        on_cold: OnCold = "features",
    ) -> Floats:
        """Vectors whose inner products with `item_vectors` are exactly the scores, those of the prior included.

        Parameters
        ----------
        users, user_features, interactions, context, on_cold
            As in `recommend`.

        Returns
        -------
        ndarray of shape (n_users, n_dimensions + 1), float32
            The last dimension is 1 for cold users, whose other dimensions are 0.
        """
        check_is_fitted(self)
        ids = as_ids(users, "users")
        batch, _ = self._batch(ids, user_features, interactions, context, on_cold)
        if on_cold == "features":
            self._warn_cold(batch, ids)
        cold = batch.path == COLD
        width = sum(part.shape[1] for part in self._item_parts())
        vectors = np.zeros((len(batch), width + 1), dtype=np.float32)
        vectors[cold, -1] = 1
        if not cold.all():
            vectors[~cold, :-1] = self._user_vectors(batch.take(np.flatnonzero(~cold)))
        return vectors

    def item_vectors(self, items: Any = None) -> Floats:
        """Vectors of items; the last dimension is their popularity, the prior.

        Parameters
        ----------
        items : array-like of shape (n,), default=None
            Items of the catalogue. None: all of it, in catalogue order.

        Returns
        -------
        ndarray of shape (n, n_dimensions + 1), float32

        Raises
        ------
        InvalidInputError
            If an item is not in the catalogue.
        """
        check_is_fitted(self)
        vectors = np.column_stack([self._item_vectors(), self.popularity_])
        return vectors if items is None else vectors[self._known_items(items)]

    def export(
        self,
        path: Any,
        *,
        metadata: pd.DataFrame | None = None,
        include_users: bool = True,
        kind: Literal["exact", "auto", "ivf", "hnsw"] = "exact",
        recall_target: float = 0.99,
    ) -> None:
        """Write what serving needs into a directory, atomically; `recsys.retrieval.load_bundle` serves it.

        A bundle answers as `recommend` does, in a process that imports NumPy, FAISS and ONNX Runtime alone. To write
        one takes the package `onnx` (the extra ``export``), to serve it `onnxruntime` (the extra ``serve``).

        Parameters
        ----------
        path : path-like
            A directory that is new, empty, or holds a bundle, which is replaced.
        metadata : DataFrame, default=None
            What `where` filters items by, as in `ItemIndex`: one row an item, named in the column ``item_id`` or in the
            frame's index.
        include_users : bool, default=True
            Whether users of `fit` are known to the bundle, with their histories and features. If not, everybody is
            asked for by features and interactions, and nobody's history is in the files.
        kind : {"exact", "auto", "ivf", "hnsw"}, default="exact"
            How items are searched, as in `ItemIndex`: "exact" looks at every item and answers as `recommend` does, the
            others may miss some, and pay from about 100,000 items on.
        recall_target : float, default=0.99
            Which share of the 10 best items the others are to find on average, measured on users of `fit`.

        Raises
        ------
        PersistenceError
            If something cannot be exported or written, or `path` holds anything else; nothing is written then.
        InvalidInputError
            If the metadata are not what is described here.

        Examples
        --------
        >>> import tempfile
        >>> from recsys import Popularity
        >>> from recsys.retrieval import load_bundle
        >>> model = Popularity().fit(pd.DataFrame({"user_id": ["ann", "bob", "bob"], "item_id": ["tea", "tea", "ale"]}))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.export(folder)
        ...     bundle = load_bundle(folder)
        >>> bundle.recommend(["ann"])
        [Recommended(user_id='ann', path='hot', item_ids=['ale'], scores=[0.5])]
        """
        from recsys.retrieval._export import export_bundle

        check_is_fitted(self)
        export_bundle(self, path, metadata, include_users, kind, recall_target)

    def _batch_scorer(self) -> Callable[[UserBatch], Floats]:
        n, table = len(self.popularity_), self._item_table()
        return lambda batch: (self._user_vectors(batch) @ table.T)[:, :n]

    def _item_table(self) -> Floats:
        """The item vectors and rows of zeros below, kept until a part is replaced: requests are many."""
        parts = self._item_parts()
        kept = _tables.get(self)
        if kept is not None and len(kept[0]) == len(parts) and all(map(operator.is_, kept[0], parts)):
            return kept[1]
        n = len(parts[0])
        # BLAS rounds the last columns of a product in its own way: with some more, items that are alike score alike.
        table = np.zeros((n + -n % COLUMNS_A_KERNEL, sum(part.shape[1] for part in parts)), dtype=np.float32)
        np.concatenate(parts, axis=1, out=table[:n])
        _tables[self] = parts, table
        return table

    def _item_vectors(self) -> Floats:
        """Vectors of the whole catalogue, (n_items, n_dimensions)."""
        parts = self._item_parts()
        return parts[0] if len(parts) == 1 else np.column_stack(parts)

    def _score_batch(self, batch: UserBatch) -> Floats:
        return self._batch_scorer()(batch)

    def _score_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> Floats:
        scores = self.popularity_[items]
        told = np.flatnonzero(batch.path != COLD)
        if not len(told):
            return scores
        batch, position = batch.take(told), np.full(len(batch), -1)
        position[told] = np.arange(len(told))
        rows = position[rows]
        item_vectors = self._item_table()
        order = np.argsort(rows, kind="stable")
        for queries in row_chunks(len(batch), item_vectors.shape[1]):
            at = order[slice(*np.searchsorted(rows[order], [queries.start, queries.stop]))]
            users = self._user_vectors(batch.take(queries))
            for part in row_chunks(len(at), item_vectors.shape[1]):
                i = at[part]
                scores[i] = np.einsum("nd,nd->n", users[rows[i] - queries.start], item_vectors[items[i]])
        return scores

    def _similarity(self, items: Codes) -> Floats:
        """Cosine of the item vectors."""
        vectors = self._item_embeddings()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        return np.asarray(unit[items] @ unit.T, dtype=np.float32)

    def _item_embeddings(self) -> Floats:
        """Hook: the part of the item vectors that tells items apart by taste, their leading dimensions."""
        return self._item_vectors()

    @abstractmethod
    def _user_vectors(self, batch: UserBatch) -> Floats:
        """Hook: vectors of users who are not cold, (n_users, n_dimensions)."""

    @abstractmethod
    def _item_parts(self) -> tuple[Floats, ...]:
        """Hook: vectors of the whole catalogue, fitted arrays of shape (n_items, d), put one beside the other."""

    def _user_graph(self, asked: AskedUsers) -> Value:
        """Hook: what `_user_vectors` computes, as a graph of what is asked; a model without it cannot be exported."""
        raise PersistenceError(
            f"{type(self).__name__} cannot be exported: it does not describe its user side; expected a model with "
            f"`_user_graph`, as those of recsys have: implement it, or serve the model itself."
        )

    def _item_graph(self, asked: AskedItems) -> dict[str, Value]:
        """Hook: what `_items_appended` gives new items, as a graph of what is told of them.

        ``vectors`` are their rows of `_item_parts`, side by side; what each table of items in `_user_graph` gets of
        them goes by the name that it has there.
        """
        raise PersistenceError(
            f"{type(self).__name__} cannot be exported: it does not describe how items join; expected a model with "
            f"`_item_graph`, as those of recsys have: implement it, or serve the model itself."
        )

    def _user_parts(self, asked: AskedUsers) -> Parts:
        """Hook: what `_explain_pairs` tells, as a graph.

        A score is the sum of the inner products of the parts of its user with the vector of the item, and of those of
        the parts of its item, if there are any, with the vector of the user.
        """
        raise PersistenceError(
            f"{type(self).__name__} cannot be exported: it does not describe what its scores are the sum of; expected "
            f"a model with `_user_parts`, as those of recsys have: implement it, or serve the model itself."
        )

    def _item_parts_graph(self, asked: AskedItems) -> Parts | None:
        """Hook: the parts of items; None where users have all."""
        return None

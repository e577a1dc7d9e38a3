"""What a ranker sees of a user and an item: features that are learned from the interactions that are visible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys._sparse import Csr, pattern, take_rows, unit_rows, with_constant
from recsys.features import EncodedFeatures
from recsys.interactions import TrainingData
from recsys.models._als_systems import gather
from recsys.models._ranking_factors import KEEP_RATES, complete, content_map, fold_in, item_factors, mean_contexts
from recsys.persistence import persistent

__all__ = ["PairFeatures", "PairTable", "Queries", "START"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# After so many interactions an item's vector is half its own and half what its content tells.
CONTENT_EVIDENCE = 1.0
# The feature that ranks best alone: taste, relative to the user's other scores.
START = 1
# Scores are rounded to multiples of this: what is left of the order in which sums are added must not lead a pair to the
# other side of a split, nor split pairs that are alike.
GRID = 2.0**-18
# Sets of at most so many members get a column a member; items and histories are compared in at most so many fields.
MAX_MEMBERS, MAX_SIMILARITIES = 24, 6
# Values of a table, and vectors of pairs, that are in memory at a time.
TABLE_VALUES, PAIRS = 2**20, 2**12


class Queries(NamedTuple):
    """Who is asked for: n users, each in a context.

    Attributes
    ----------
    history : scipy.sparse.csr_matrix of shape (n, n_items)
        Its pattern counts.
    features : EncodedFeatures of n users
    context : EncodedFeatures of n rows or None
    """

    history: Csr
    features: EncodedFeatures
    context: EncodedFeatures | None

    def take(self, rows: Codes | slice) -> Queries:
        """Some of these queries."""
        index = np.arange(self.history.shape[0])[rows]
        context = None if self.context is None else self.context.take(index)
        return Queries(self.history[index], self.features.take(index), context)


class PairTable(NamedTuple):
    """Features of all pairs of n queries and all items, in the order in which they stand here.

    Attributes
    ----------
    of_pairs : ndarray of shape (n_features_of_pairs, n, n_items), float32
    of_queries : ndarray of shape (n, n_features_of_queries), float32
    of_items : ndarray of shape (n_items, n_features_of_items), float32

    Examples
    --------
    >>> of_pairs, of_queries, of_items = np.array([[[1, 2]], [[3, 4]]]), np.array([[5]]), np.array([[6], [7]])
    >>> PairTable(of_pairs, of_queries, of_items).values()
    array([[[1, 3, 5, 6],
            [2, 4, 5, 7]]])
    """

    of_pairs: Floats
    of_queries: Floats
    of_items: Floats

    def values(self) -> Floats:
        """All features of each pair, (n, n_items, n_features)."""
        (n_pairs, n, n_items), n_queries = self.of_pairs.shape, self.of_queries.shape[1]
        values = np.empty((n, n_items, n_pairs + n_queries + self.of_items.shape[1]), self.of_pairs.dtype)
        values[:, :, :n_pairs] = np.moveaxis(self.of_pairs, 0, 2)
        values[:, :, n_pairs : n_pairs + n_queries] = self.of_queries[:, None]
        values[:, :, n_pairs + n_queries :] = self.of_items
        return values


@persistent
@dataclass(frozen=True, eq=False)
class PairFeatures:
    """Features of pairs of a user and an item, as learned from what is visible.

    Taste is the score of a linear model that completes histories, dropout EASE, solved in the space of implicit ALS
    factors; it comes as it is, relative to the user's other scores, and for the item as its content tells. Beside it
    stand what attributes alone say, the score of ALS itself, how alike item and history are in each field, what is
    known of the history, and attributes, context and metadata themselves. Factors, popularity and contexts of an item
    without interactions are predicted from its content by ridge regression.

    Attributes
    ----------
    columns : list of tuple of str
        Source ("user", "item" or "history") and name of each feature.
    arrays : dict of str to ndarray
        What was learned: of items ``counts``, ``own`` (factors), ``seen`` (logarithm of the popularity) and
        ``own_contexts``; with content's share in them ``factors``, ``content``, ``expected`` and ``contexts``; their
        own columns, ``items``; and the coefficients behind all that.
    blocks : list of scipy.sparse.csr_matrix
        The items' rows of each field in which they are compared with histories, of length 1.

    Examples
    --------
    >>> nothing = EncodedFeatures.empty(2)
    >>> matrix = Csr(np.array([[1, 1], [1, 0]], dtype=np.float32))
    >>> data = TrainingData(matrix, nothing, nothing, None)
    >>> features = PairFeatures.fit(data, n_factors=1, rng=np.random.default_rng(0))
    >>> pairs = features.pairs(Queries(matrix, nothing, None), np.array([0, 1]), np.array([0, 1]))
    >>> pairs[:, features.columns.index(("history", "length"))].round(2)
    array([1.1 , 0.69], dtype=float32)
    """

    columns: list[tuple[str, str]]
    arrays: dict[str, Any]
    blocks: list[Csr]

    @classmethod
    def fit(
        cls, data: TrainingData, n_factors: int, rng: np.random.Generator, n_jobs: int | None = None
    ) -> PairFeatures:
        """Learn from what is visible.

        Parameters
        ----------
        data : TrainingData
            With a positive at the least.
        n_factors : int
        rng : Generator
        n_jobs : int, default=None
            Threads, as in scikit-learn.

        Returns
        -------
        PairFeatures
        """
        matrix = pattern(data.matrix)
        counts = np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.float64)
        hot = counts > 0
        n_users, n_items = int(np.count_nonzero(np.diff(matrix.indptr))), int(np.count_nonzero(hot))
        factors, gram = item_factors(matrix, n_factors, rng, n_jobs)
        popularity = np.where(hot, np.log(np.maximum(counts, 1) * n_items / counts.sum()), np.nan)
        contexts = mean_contexts(data.context, len(counts))
        targets = np.hstack([factors, np.nan_to_num(popularity)[:, None], contexts])
        arrays = {
            "counts": counts,
            "own": factors,
            "gram": gram,
            "seen": popularity,
            "own_contexts": contexts,
            "content_map": content_map(data.item_features.matrix, targets, counts),
            "history_mean": np.array(matrix.nnz / n_users),
            **complete(matrix, with_constant(data.user_features.matrix), factors),
        }
        names = _names(data.user_features, data.item_features, None if data.context is None else data.context.features)
        return cls(names, arrays, []).with_items(data.item_features)

    def with_items(self, features: EncodedFeatures) -> PairFeatures:
        """The same for a catalogue that has grown.

        Parameters
        ----------
        features : EncodedFeatures of n_items
            Of the whole catalogue, the new items last.

        Returns
        -------
        PairFeatures
        """
        old, n_new = self.arrays, len(features) - len(self.arrays["counts"])
        counts = np.append(old["counts"], np.zeros(n_new))
        own = np.pad(old["own"], ((0, n_new), (0, 0)))
        own_contexts = np.pad(old["own_contexts"], ((0, n_new), (0, 0)))
        seen = np.append(old["seen"], np.full(n_new, np.nan))
        predicted = features.matrix @ old["content_map"][:-1] + old["content_map"][-1]
        n_factors = own.shape[1]
        share = (counts / (counts + CONTENT_EVIDENCE))[:, None]
        arrays = old | {
            "counts": counts,
            "own": own,
            "seen": seen,
            "own_contexts": own_contexts,
            "factors": share * own + (1 - share) * predicted[:, :n_factors],
            "content": predicted[:, :n_factors],
            "expected": predicted[:, n_factors],
            "contexts": share * own_contexts + (1 - share) * predicted[:, n_factors + 1 :],
            "items": _field_columns(features, members=True)[1],
        }
        compared = features.fields[:MAX_SIMILARITIES]
        return PairFeatures(self.columns, arrays, [unit_rows(features.block(field)) for field in compared])

    def tables(self, queries: Queries) -> Iterator[tuple[slice, PairTable]]:
        """Describe all pairs of queries and items, some queries at a time.

        Parameters
        ----------
        queries : Queries of n users

        Yields
        ------
        rows : slice
            Of the queries.
        table : PairTable
            Of these. Its features of pairs are written over by the next: do not keep them. Those of items are always
            the same.
        """
        n_queries, n_items = queries.history.shape
        of_items, of_queries = self._item_columns(), self._query_columns(queries)
        n_products = len(self.columns) - of_queries.shape[1] - of_items.shape[1]
        size = max(1, TABLE_VALUES // (n_items * n_products))
        buffer = np.empty((n_products, min(size, n_queries), n_items), dtype=np.float32)
        for start in range(0, n_queries, size):
            rows = slice(start, min(start + size, n_queries))
            of_pairs = buffer[:, : rows.stop - rows.start]
            for position, (users, items, shift) in enumerate(self._products(queries.take(rows))):
                # A product of sparse rows is quicker than one of columns.
                products = (items @ users.T).T if isinstance(items, Csr) else users @ items.T
                of_pairs[position] = _rounded(products + shift[:, None])
            yield rows, PairTable(of_pairs, of_queries[rows], of_items)

    def pairs(self, queries: Queries, rows: Codes, items: Codes) -> Floats:
        """Describe some pairs.

        Parameters
        ----------
        queries : Queries of n users
        rows, items : ndarray of shape (n_pairs,), int64
            The query and the item of each pair; rows ascend.

        Returns
        -------
        ndarray of shape (n_pairs, n_features), float32
        """
        values = np.empty((len(rows), len(self.columns)), dtype=np.float32)
        n_queries = queries.history.shape[0]
        widest = max([self.arrays["own"].shape[1], *(block.shape[1] for block in self.blocks)])
        size = max(1, TABLE_VALUES // widest)
        first = values.shape[1] - (of_items := self._item_columns()).shape[1]
        values[:, first:] = of_items[items]
        for start in range(0, n_queries, size):
            some = queries.take(slice(start, start + size))
            at = slice(*np.searchsorted(rows, [start, start + size]))
            local = rows[at] - start
            for position, (users, vectors, shift) in enumerate(self._products(some)):
                values[at, position] = _rounded(_inner_products(users, vectors, local, items[at]) + shift[local])
            values[at, position + 1 : first] = self._query_columns(some)[local]
        return values

    def _products(self, queries: Queries) -> Iterator[tuple[Doubles, Doubles | Csr, Doubles]]:
        """What depends on user and item at once, one feature after the other: vectors whose inner products it is.

        Yields
        ------
        users : ndarray of shape (n, d)
        items : ndarray or scipy.sparse.csr_matrix of shape (n_items, d)
        shift : ndarray of shape (n,)
            To be added for all items of a user.
        """
        learned = self.arrays
        history, attributes = pattern(queries.history), with_constant(queries.features.matrix)
        lengths = np.diff(history.indptr)
        nothing = np.zeros(len(lengths))
        expected = attributes @ learned["attributes"][0]
        users = expected + self._heard(history, attributes)
        items = learned["factors"] @ learned["projection"]
        yield users, items, nothing
        yield _standardised(users, items, learned["counts"] > 0)
        yield users, learned["content"] @ learned["projection"], nothing
        yield expected, items, nothing
        yield fold_in(history, learned["factors"], learned["gram"]), learned["factors"], nothing
        shares = np.repeat(1 / np.maximum(lengths, 1), lengths)
        mean = Csr((shares, history.indices, history.indptr), shape=history.shape)
        unknown = np.where(lengths == 0, np.nan, 0)
        for block in self.blocks:
            yield (mean @ block).toarray(), block, unknown
        if queries.context is not None and learned["contexts"].shape[1]:
            yield queries.context.matrix.toarray().astype(np.float64), learned["contexts"], nothing

    def _heard(self, history: Csr, attributes: Csr) -> Doubles:
        """What histories say beyond what attributes lead to expect; users between two keep rates get a blend."""
        learned = self.arrays
        lengths = np.diff(history.indptr)
        keep = lengths / (lengths + learned["history_mean"])
        place = np.interp(np.log(np.maximum(keep, KEEP_RATES[0] / 2)), np.log(KEEP_RATES), np.arange(len(KEEP_RATES)))
        summed = history @ learned["factors"]
        heard = np.zeros((len(lengths), learned["projection"].shape[1]))
        for rate, completion in enumerate(learned["completions"]):
            share = np.maximum(0, 1 - np.abs(place - rate)) * (lengths > 0)
            heard += share[:, None] * (summed @ completion - attributes @ learned["attributes"][1 + rate])
        return heard

    def _query_columns(self, queries: Queries) -> Floats:
        lengths = np.diff(queries.history.indptr)
        taste = pattern(queries.history).astype(np.float64) @ np.nan_to_num(self.arrays["seen"])
        mean = np.divide(taste, lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)
        columns = [np.log1p(lengths)[:, None], mean[:, None], _field_columns(queries.features)[1]]
        if queries.context is not None:
            columns.append(_field_columns(queries.context)[1])
        return np.hstack(columns).astype(np.float32)

    def _item_columns(self) -> Floats:
        columns = [self.arrays[name] for name in ("seen", "expected", "items")]
        return np.column_stack(columns).astype(np.float32)

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        columns = [list(column) for column in self.columns]
        return {"columns": columns, "arrays": self.arrays, "blocks": self.blocks}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PairFeatures:
        """The inverse of `to_state`."""
        return cls([(source, name) for source, name in state["columns"]], state["arrays"], state["blocks"])


def _rounded(scores: Doubles) -> Floats:
    """Scores to the nearest point of the grid; changes them."""
    scores /= GRID
    np.rint(scores, out=scores)
    scores *= GRID
    return scores.astype(np.float32)


def _standardised(users: Doubles, items: Doubles, hot: npt.NDArray[np.bool_]) -> tuple[Doubles, Doubles, Doubles]:
    """Scores of each user less their mean over hot items, in units of their spread; 0 where they do not differ.

    Mean and spread of inner products follow from the mean and the covariance of the items' vectors.
    """
    told = items[hot]
    centre = told.mean(0)
    values, basis = np.linalg.eigh((told - centre).T @ (told - centre) / len(told))
    spread = np.linalg.norm(users @ basis * np.sqrt(np.maximum(values, 0)), axis=1)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > GRID)
    return users * scale[:, None], items, -(users @ centre) * scale


def _inner_products(users: Doubles, items: Doubles | Csr, rows: Codes, columns: Codes) -> Doubles:
    """``users[row] @ items[column]`` of pairs, (n_pairs,)."""
    found = np.empty(len(rows))
    of_users, of_items = (np.empty((PAIRS, vectors.shape[1]), vectors.dtype) for vectors in (users, items))
    for start in range(0, len(rows), PAIRS):
        at = slice(start, start + PAIRS)
        if isinstance(items, Csr):
            taken, some = take_rows(items, columns[at]), rows[at]
            pair = np.repeat(np.arange(len(some)), np.diff(taken.indptr))
            found[at] = np.bincount(pair, users[some[pair], taken.indices] * taken.data, minlength=len(some))
        else:
            left, right = gather(users, rows[at], of_users), gather(items, columns[at], of_items)
            found[at] = np.einsum("ij,ij->i", left, right)
    return found


def _names(users: EncodedFeatures, items: EncodedFeatures, context: EncodedFeatures | None) -> list[tuple[str, str]]:
    """Source and name of each feature, in the order in which `PairFeatures` makes them."""
    names = [("history", "taste"), ("history", "taste"), ("history", "taste for content"), ("user", "attributes")]
    names += [("history", "factors"), *(("history", field.name) for field in items.fields[:MAX_SIMILARITIES])]
    if context is not None and context.n_columns:
        names.append(("user", "context"))
    names += [("history", "length"), ("history", "popularity")]
    for features in (users, context):
        if features is not None:
            names += [("user", name) for name in _field_columns(features.take([]))[0]]
    names += [("item", "popularity"), ("item", "popularity of its content")]
    return names + [("item", name) for name in _field_columns(items.take([]), members=True)[0]]


def _field_columns(features: EncodedFeatures, members: bool = False) -> tuple[list[str], Doubles]:
    """Fields as columns, and the name of each: a number's place among its knots, a category's code, a set's members."""
    names, columns = [], [np.zeros((len(features), 0))]
    for position, field in enumerate(features.fields):
        if field.kind in ("numeric", "categorical"):
            values = (features.block(field) @ np.arange(field.stop - field.start, dtype=np.float64))[:, None]
        elif members and field.kind == "multi_hot" and field.stop - field.start <= MAX_MEMBERS:
            values = (features.block(field).toarray() > 0).astype(np.float64)
        else:
            continue
        values[~features.present[:, position]] = np.nan
        names += [field.name] * values.shape[1]
        columns.append(values)
    return names, np.hstack(columns)

"""What a ranker sees of a user and an item: features that are learned from the interactions that are visible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.linear_model import Ridge

from recsys._sparse import Csr, pattern, take_rows, unit_rows, with_constant
from recsys.features import EncodedFeatures
from recsys.interactions import ContextRows, TrainingData
from recsys.models._als import als_factors, pad_rows
from recsys.models._dropout_ease import FactorEASE, attribute_ridge, user_weights
from recsys.persistence import persistent

__all__ = ["PairFeatures", "Queries", "START", "fold_in"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Implicit ALS: confidence of a positive above that of other pairs, rounds, and the penalty, as a share of the geometric
# mean of how many interactions users and items have.
ALPHA, ALS_ROUNDS, ALS_L2 = 1.0, 6, 0.15
# Completion of histories: shares of a history that it is solved for, and penalties a mean number of interactions.
KEEP_RATES = np.array([0.03, 0.15, 0.5])
EASE_L2, ATTRIBUTE_L2 = 2.0, 2.0
# The penalty of what content predicts; vectors are trusted half, and an item's is half its own and half its content's,
# after so many interactions.
CONTENT_L2, TRUSTED_EVIDENCE, CONTENT_EVIDENCE = 5.0, 10.0, 1.0
# The feature that ranks best alone: taste, relative to the user's other scores.
START = 1
# Scores are rounded to multiples of this: what is left of the order in which sums are added must not lead a pair to the
# other side of a split, nor split pairs that are alike.
GRID = 2.0**-18
# Sets of at most so many members get a column a member; items and histories are compared in at most so many fields.
MAX_MEMBERS, MAX_SIMILARITIES = 24, 6
# Systems of linear equations, values of a table, and vectors of pairs, that are in memory at a time.
SYSTEMS, TABLE_VALUES, PAIRS = 256, 2**20, 2**12


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
        l2 = ALS_L2 * int(matrix.nnz) / np.sqrt(n_users * n_items)
        factors = _factorise(matrix, n_factors, l2, rng, n_jobs)
        popularity = np.where(hot, np.log(np.maximum(counts, 1) * n_items / counts.sum()), np.nan)
        contexts = _mean_contexts(data.context, len(counts))
        targets = np.hstack([factors, np.nan_to_num(popularity)[:, None], contexts])
        arrays = {
            "counts": counts,
            "own": factors,
            "gram": factors.T @ factors + l2 * np.eye(n_factors),
            "seen": popularity,
            "own_contexts": contexts,
            "content_map": _readout(data.item_features.matrix, targets, counts),
            "history_mean": np.array(matrix.nnz / n_users),
            **_complete(matrix, with_constant(data.user_features.matrix), factors),
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

    def tables(self, queries: Queries) -> Iterator[tuple[slice, Floats]]:
        """Describe all pairs of queries and items, some queries at a time.

        Parameters
        ----------
        queries : Queries of n users

        Yields
        ------
        rows : slice
            Of the queries.
        values : ndarray of shape (n_rows, n_items, n_features), float32
            Written over by the next: do not keep it.
        """
        n_queries, n_items = queries.history.shape
        size = max(1, TABLE_VALUES // (n_items * len(self.columns)))
        buffer = np.empty((min(size, n_queries), n_items, len(self.columns)), dtype=np.float32)
        of_items = self._item_columns()
        first = buffer.shape[2] - of_items.shape[1]
        buffer[:, :, first:] = of_items
        for start in range(0, n_queries, size):
            rows = slice(start, min(start + size, n_queries))
            some = queries.take(rows)
            values = buffer[: rows.stop - rows.start]
            for position, (users, items, shift) in enumerate(self._products(some)):
                # A product of sparse rows is quicker than one of columns.
                products = (items @ users.T).T if isinstance(items, Csr) else users @ items.T
                values[:, :, position] = _rounded(products + shift[:, None])
            values[:, :, position + 1 : first] = self._query_columns(some)[:, None]
            yield rows, values

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
    for start in range(0, len(rows), PAIRS):
        at = slice(start, start + PAIRS)
        if isinstance(items, Csr):
            taken, some = take_rows(items, columns[at]), rows[at]
            pair = np.repeat(np.arange(len(some)), np.diff(taken.indptr))
            found[at] = np.bincount(pair, users[some[pair], taken.indices] * taken.data, minlength=len(some))
        else:
            found[at] = np.einsum("ij,ij->i", users[rows[at]], items[columns[at]])
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


def fold_in(history: Csr, factors: Doubles, gram: Doubles) -> Doubles:
    r"""Exact ALS vectors of histories, in double precision.

    Each minimises :math:`\sum_i c_i (p_i - x^\top y_i)^2 + \lambda \|x\|^2`, where :math:`p_i = 1` and
    :math:`c_i = 1 + \alpha` for the items of the history, 0 and 1 for the others. `als_half_step` does the same in
    single precision, whose rounding depends on who is solved for together.

    Parameters
    ----------
    history : scipy.sparse.csr_matrix of shape (n, n_items)
        Its pattern counts.
    factors : ndarray of shape (n_items, n_factors), float64
    gram : ndarray of shape (n_factors, n_factors), float64
        :math:`Y^\top Y + \lambda I`, of the items that the vectors are to tell apart.

    Returns
    -------
    ndarray of shape (n, n_factors), float64
        0 for rows without a history.

    References
    ----------
    Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, section 4.

    Examples
    --------
    >>> fold_in(Csr(np.array([[1, 0], [0, 0]])), np.eye(2), 1.5 * np.eye(2))
    array([[0.8, 0. ],
           [0. , 0. ]])
    """
    n_factors = factors.shape[1]
    answer = np.zeros((history.shape[0], n_factors))
    # In coordinates in which the Gram matrix is the identity, a short history is solved for as many unknowns as it has
    # items: (I + a S'S)^-1 S' = S' (I + a SS')^-1.
    root = np.linalg.cholesky(gram)
    whitened = np.linalg.solve(root, factors.T).T
    for block in pad_rows(pattern(history), n_factors).blocks:
        for start in range(0, len(block.rows), SYSTEMS):
            part = slice(start, start + SYSTEMS)
            seen = whitened[block.columns[part]]
            seen *= block.weights[part, :, None]
            turned = seen.transpose(0, 2, 1)
            if seen.shape[1] < n_factors:
                systems = np.eye(seen.shape[1]) + ALPHA * (seen @ turned)
                solved = turned @ np.linalg.solve(systems, np.ones((len(seen), seen.shape[1], 1)))
            else:
                systems = np.eye(n_factors) + ALPHA * (turned @ seen)
                solved = np.linalg.solve(systems, seen.sum(1)[..., None])
            answer[block.rows[part]] = (1 + ALPHA) * solved[..., 0]
    found: Doubles = np.linalg.solve(root.T, answer.T).T
    return found


def _factorise(matrix: Csr, n_factors: int, l2: float, rng: np.random.Generator, n_jobs: int | None) -> Doubles:
    """ALS vectors of items, exact for the last vectors of users."""
    users, _ = als_factors(
        matrix, n_factors, alpha=ALPHA, regularization=l2, n_rounds=ALS_ROUNDS, rng=rng, n_jobs=n_jobs
    )
    # Items of the same users get the same vector.
    exact = users.astype(np.float64)
    return fold_in(matrix.T.tocsr(), exact, exact.T @ exact + l2 * np.eye(n_factors))


def _complete(matrix: Csr, attributes: Csr, factors: Doubles) -> dict[str, Doubles]:
    """Dropout EASE in the space of the factors: what attributes, and what items in a history, say of all items."""
    left, singular, right = np.linalg.svd(factors, full_matrices=False)
    kept = singular > 1e-4 * max(singular[0], 1e-9)
    basis = left[:, kept].astype(np.float32)
    projection = right[kept].T / singular[kept]
    weights = user_weights(matrix)
    weighed = Csr(sparse.diags_array(np.sqrt(weights)) @ matrix).astype(np.float32)
    counts = np.asarray(weighed.multiply(weighed).sum(axis=0), dtype=np.float32).ravel()
    evidence = int(matrix.nnz) / int(np.count_nonzero(counts))
    expected, cross = attribute_ridge(matrix, attributes, weights, ATTRIBUTE_L2 * evidence)
    solve = FactorEASE.solver(basis, weighed, cross, expected, counts, EASE_L2 * evidence)
    told, completions = [(expected @ basis).astype(np.float64)], []
    for keep in KEEP_RATES:
        history = solve(keep).apply(basis)
        told.append((keep * (expected @ history)).astype(np.float64))
        # As histories enter as sums of factors, the map from these to the basis is all there is to keep.
        completions.append(projection @ (basis.T @ history))
    return {"projection": projection, "attributes": np.stack(told), "completions": np.stack(completions)}


def _readout(content: Csr, targets: Doubles, counts: npt.NDArray[Any]) -> Doubles:
    """A ridge regression from content to targets; coefficients, and the intercept as the last row."""
    known = np.flatnonzero(counts)
    trust = counts[known] / (counts[known] + TRUSTED_EVIDENCE)
    if not content[known].nnz:
        return np.vstack([np.zeros((content.shape[1], targets.shape[1])), np.average(targets[known], 0, trust)])
    ridge = Ridge(CONTENT_L2, solver="sparse_cg", tol=1e-6)
    ridge.fit(content[known].astype(np.float64), targets[known], sample_weight=trust)
    return np.vstack([ridge.coef_.T, ridge.intercept_])


def _mean_contexts(context: ContextRows | None, n_items: int) -> Doubles:
    """The mean context in which each item was taken, less that of all."""
    if context is None:
        return np.zeros((n_items, 0))
    n, matrix = len(context.items), context.features.matrix.astype(np.float64)
    gather = Csr((np.ones(n), (context.items, np.arange(n))), shape=(n_items, n))
    overall = np.asarray(matrix.sum(0)).reshape(1, -1) / n
    counts = np.asarray(gather.sum(1)).reshape(-1, 1)
    means: Doubles = ((gather @ matrix).toarray() + overall) / (counts + 1) - overall
    return means


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

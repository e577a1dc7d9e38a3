"""ContentEASE: the strongest closed form we know, for hot, few-shot and warm users and for hot and warm items."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import linalg, sparse
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from recsys._sparse import Csr, pattern, positives, with_constant
from recsys.evaluation.metrics import hit_matrix, ndcg
from recsys.interactions import TrainingData, UserBatch
from recsys.models._als import als_factors
from recsys.models._content_graphs import DAMPING, FORECAST, KEEP_RATES, ContentGraphs
from recsys.models._dropout_ease import (
    DropoutEASE,
    FactorEASE,
    attribute_ridge,
    leading_basis,
    refuse_if_too_large,
    user_weights,
)
from recsys.models._kernel_ridge import KernelRidge, choose_mixture, kernel_terms
from recsys.nn.readout import EXPOSED, EXPOSURE
from recsys.topk import row_chunks, single_threaded_blas, top_k

__all__ = ["ContentEASE"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Beyond so many hot items the Gram matrix is that of ALS factors; its regularisation and rounds.
DENSE_ITEMS, ALS_L2, ALS_ROUNDS = 20_000, 30.0, 10
# What users who have an item are like counts so much for it beside what other items say of it; and the penalty of the
# regression that finds it, relative to how much users vary.
TAKERS, TAKERS_L2 = 0.5, 0.3
# An item's vector is half its own and half its content's, and half trusted, after so many interactions.
CONTENT_EVIDENCE, TRUSTED_EVIDENCE = 1.0, 10.0
# A prediction that is shorter than this share of an item's own vector tells nothing.
LEAST_TOLD = 1e-3
# The weights of content are judged on so many folds of so many items, and users, at the most.
JUDGE_FOLDS, JUDGE_ITEMS, JUDGE_USERS = 5, 2000, 1000
LANDMARKS = 4096
# Directions in which users vary less than this, relative to where they vary most, are no more scaled up.
LEAST_VARIANCE = 1e-6
# What rounding to single precision leaves of the variance of users who are alike, relative to their vectors.
ROUNDING = 1e-12
# More is not told from this: nothing is learned.
LARGEST_L2 = 1e12


class ContentEASE(ContentGraphs):
    r"""Dropout EASE with attributes, and content that finds the place of new items: all in closed form.

    Users: a linear autoencoder learns to complete histories of which each interaction is kept with probability q, while
    attributes are always seen [1]_. A user of attributes f and history h scores

    .. math:: f a + (h - q f a) B_q, \qquad q = \min\Bigl(\frac12, \frac{|h|}{|h| + \bar n}\Bigr),

    what attributes say, and what the history says beyond what they would lead to expect; :math:`\bar n` is the mean
    history of hot users. One formula goes from popularity, through conditional probabilities, towards EASE [2]_. It is
    solved for a few q, blended between, and factorised, so that the score is an inner product.

    Items: a kernel ridge regression from content, fields and products of fields weighed by how well held-out items are
    ranked, finds the vectors of warm items; a hot item seen n times counts n / (n + 10) in it. What it learns is half
    the vectors of the autoencoder, in which nothing tells of an item by itself, and half those of a regression of who
    has it on the vectors of users: having an item tells of new ones like it. Regressions predict less than there is:
    vectors of warm items are stretched until held-out items are among the best ten half as often as they are with
    vectors of their own. An item seen n times has the share 1 / (n + 1) of its vector from content.

    Parameters
    ----------
    n_factors : int, default=256
        Dimensions of the vectors.
    l2 : float, default=300.0
        Ridge penalty of the autoencoder. It counts in interactions: small data want a smaller one. Of 30 users in two
        groups, with 5 or 6 interactions each, little more than popularity is learned at 300, and the groups at 30.
    attribute_l2 : float, default=300.0
        Ridge penalty of the users' attributes, which counts in users.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.
    random_state : int, RandomState instance or None, default=None
        Seeds the factorisation and the choice of folds.

    Attributes
    ----------
    item_vectors_ : ndarray of shape (n_items, n_factors), float32
        The cosine of two is the correlation of the items' scores over users.
    history_vectors_ : ndarray of shape (5, n_items, n_factors), float32
        What an item in a history adds to its user's vector, one block a keep rate.
    attribute_vectors_ : ndarray of shape (6, n_attributes + 1, n_factors), float32
        What attributes add, and then by keep rate what the history is expected to add; the last row is everybody's.
    mean_history_ : float
        :math:`\bar n`.
    content_map_ : KernelRidge or None
        None where there are no item features.
    content_weights_ : dict of str to float
        The weight of each field and product of fields of items; empty where there are none.
    content_score_ : float
        NDCG@10 of held-out items, ranked among those of their fold, with these weights; NaN where there are none.
    content_scale_ : float
        What the vectors of warm items are stretched by.

    References
    ----------
    .. [1] H. Steck, "Autoencoders that don't overfit towards the Identity", NeurIPS 2020.
    .. [2] H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

    Examples
    --------
    >>> X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": ["tea", "milk", "tea", "milk", "tea"]})
    >>> ContentEASE(l2=1.0, random_state=0).fit(X).recommend([3], k=1)["item_id"].tolist()
    ['milk']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "l2": [Interval(Real, 0, LARGEST_L2, closed="right")],
        "attribute_l2": [Interval(Real, 0, LARGEST_L2, closed="right")],
        "min_rating": [Real, None],
        "random_state": ["random_state"],
    }

    _uses_user_features = True

    def __init__(
        self,
        *,
        n_factors: int = 256,
        l2: float = 300.0,
        attribute_l2: float = 300.0,
        min_rating: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_factors = n_factors
        self.l2 = l2
        self.attribute_l2 = attribute_l2
        self.min_rating = min_rating
        self.random_state = random_state

    def _fit(self, data: TrainingData, warm: bool) -> None:
        # Sums of one thread come in one order: the same seed gives the same bits, on a busy machine too.
        with single_threaded_blas():
            self._fit_closed_form(data, check_random_state(self.random_state))

    def _fit_closed_form(self, data: TrainingData, rng: np.random.RandomState) -> None:
        self.item_counts_ = np.bincount(data.matrix.indices, minlength=data.matrix.shape[1]).astype(np.float32)
        hot = np.flatnonzero(self.item_counts_)
        matrix = pattern(data.matrix)[:, hot]
        lengths = np.diff(matrix.indptr)
        self.mean_history_ = float(lengths.mean(where=lengths > 0)) if lengths.any() else 1.0
        self._solve(matrix, with_constant(data.user_features.matrix), rng)
        # What has been learned of hot items goes to their places in the catalogue.
        n_items = len(self.item_counts_)
        self.item_vectors_ = _spread(self.item_vectors_, hot, n_items, axis=0)
        self.history_vectors_ = _spread(self.history_vectors_, hot, n_items, axis=1)
        self._map_content(data, hot, rng)
        self._fill_from_content(np.arange(n_items))

    def _solve(self, matrix: Csr, attributes: Csr, rng: np.random.RandomState) -> None:
        """The regressions of hot items: item vectors, history vectors and attribute vectors."""
        weights = user_weights(matrix)
        expected, cross = attribute_ridge(matrix, attributes, weights, self.attribute_l2)
        weighed = Csr(sparse.diags_array(np.sqrt(weights)) @ matrix).astype(np.float32)
        counts = np.asarray(weighed.multiply(weighed).sum(axis=0), dtype=np.float32).ravel()
        if matrix.shape[1] <= DENSE_ITEMS:
            refuse_if_too_large(matrix.shape[1])
            gram = np.asfortranarray((weighed.T @ weighed).toarray(), dtype=np.float32)
            residual = gram - cross.T @ expected
            solve: Any = partial(DropoutEASE.solve, residual, counts, self.l2)
            longest = solve(KEEP_RATES[-1])
            basis = self._basis(longest, gram, expected, attributes, rng)
        else:
            n_factors = min(self.n_factors, *matrix.shape)
            settings: Any = {"alpha": 1.0, "regularization": ALS_L2, "n_rounds": ALS_ROUNDS, "rng": rng}
            basis = np.linalg.qr(als_factors(matrix, n_factors, **settings)[1])[0].astype(np.float32)
            solve = FactorEASE.solver(basis, weighed, cross, expected, counts, self.l2)
            longest = solve(KEEP_RATES[-1])
        self.item_vectors_ = basis
        told = expected @ basis
        history = []
        for keep in KEEP_RATES:
            solved = longest if keep == KEEP_RATES[-1] else solve(keep)
            history.append(solved.apply(basis))
        self.history_vectors_ = np.stack(history)
        # By keep rate, the part of the history that attributes lead to expect.
        foreseen = [np.float32(keep) * (expected @ vectors) for keep, vectors in zip(KEEP_RATES, history, strict=True)]
        self.attribute_vectors_ = np.stack([told, *foreseen])
        self._balance(matrix, attributes)

    def _balance(self, matrix: Csr, attributes: Csr) -> None:
        """Turn and scale all vectors, scores unchanged, until those of users vary alike in all directions.

        The cosine of two items is then the correlation of their scores over users.
        """
        users = self._users_of(matrix, attributes)[np.diff(matrix.indptr) > 0]
        variances, basis = np.linalg.eigh(np.cov(users, rowvar=False, ddof=0).reshape(2 * users.shape[1:]))
        if variances[-1] <= ROUNDING * np.square(users).sum(1).mean():
            # All users are alike.
            return
        spread = np.sqrt(np.maximum(variances, variances[-1] * LEAST_VARIANCE))
        self.item_vectors_ = np.asarray(self.item_vectors_ @ (basis * spread), dtype=np.float32)
        to_users = basis / spread
        self.history_vectors_ = np.asarray(self.history_vectors_ @ to_users, dtype=np.float32)
        self.attribute_vectors_ = np.asarray(self.attribute_vectors_ @ to_users, dtype=np.float32)

    def _basis(
        self, solved: DropoutEASE, gram: Floats, expected: Floats, attributes: Csr, rng: np.random.RandomState
    ) -> Floats:
        """The directions in which the scores of hot users vary most."""
        by_attributes = (attributes.T @ attributes).toarray().astype(np.float32)

        def apply(vectors: Floats) -> Floats:
            by_history = solved.apply_transposed(gram @ solved.apply(vectors))
            return np.asarray(by_history + expected.T @ (by_attributes @ (expected @ vectors)), dtype=np.float32)

        return leading_basis(apply, len(gram), self.n_factors, rng)[0]

    def _map_content(self, data: TrainingData, hot: Codes, rng: np.random.RandomState) -> None:
        self.content_map_: KernelRidge | None = None
        self.content_weights_: dict[str, float] = {}
        self.content_score_ = float("nan")
        self.content_scale_ = 1.0
        self.mean_log_count_ = 0.0
        features = data.item_features.take(hot)
        if not features.matrix.nnz:
            return
        counts = self.item_counts_[hot, None]
        logs = np.log(counts)
        self.mean_log_count_ = float(logs.mean())
        vectors = (1 - TAKERS) * self.item_vectors_[hot] + TAKERS * self._vectors_of_takers(data, hot)
        damped = vectors / counts**DAMPING
        targets = np.column_stack([damped, logs - self.mean_log_count_]).astype(np.float32)
        trust = (counts / (counts + np.float32(TRUSTED_EVIDENCE))).ravel()
        # Of items without content nothing can be predicted.
        judged = np.sort(rng.permutation(np.flatnonzero(np.diff(features.matrix.indptr)))[:JUDGE_ITEMS])
        parts = np.array_split(rng.permutation(len(judged)), min(JUDGE_FOLDS, len(judged)))
        folds = [np.sort(part) for part in parts]
        judge = _Judge(self, data, hot[judged], folds, rng)
        found = choose_mixture(features.take(judged), targets[judged], trust[judged], folds, judge)
        mixture, self.content_score_, predictions = found
        if predictions:
            self.content_scale_ = judge.scale(predictions)
        names = [field.name for field in features.fields]
        terms = [" × ".join(names[field] for field in term) for term in kernel_terms(len(names))]
        self.content_weights_ = {
            term: float(weight) for term, weight in zip(terms, mixture.weights, strict=True) if weight
        }
        landmarks = np.sort(rng.permutation(len(hot))[:LANDMARKS])
        by_rate = [vectors[hot] for vectors in self.history_vectors_]
        self.content_map_ = KernelRidge.fit(mixture, features, np.column_stack([targets, *by_rate]), trust, landmarks)

    def _vectors_of_takers(self, data: TrainingData, hot: Codes) -> Floats:
        """The item vectors that tell best who has an item, by ridge regression on the vectors of users.

        Those of the autoencoder leave out what a user's own interaction with an item says: that finds the item itself,
        but new ones like it as well.
        """
        matrix = pattern(data.matrix)
        users = self._users_of(matrix, with_constant(data.user_features.matrix))
        weights = user_weights(matrix)
        roots = np.sqrt(weights)
        users *= roots[:, None]
        # In double precision: users who are nearly alike have a mean that dwarfs what they differ in, and the penalty.
        system = np.diag(np.full(users.shape[1], TAKERS_L2 * np.count_nonzero(weights)))
        for rows in row_chunks(len(users), 2 * users.shape[1]):
            part = users[rows].astype(np.float64)
            system += part.T @ part
        right = Csr(sparse.diags_array(roots) @ matrix[:, hot]).T @ users
        vectors = linalg.solve(system, right.T, assume_a="pos").T
        # They are shrunk, and shall be as long as the others, all in all.
        longer = np.linalg.norm(self.item_vectors_[hot]) / max(float(np.linalg.norm(vectors)), 1e-30)
        return np.asarray(longer * vectors, dtype=np.float32)

    def _undamped(self, predicted: Floats) -> Floats:
        """Item vectors from what the ridge regression predicts: damped vectors, and a forecast of the count."""
        forecast = np.exp(FORECAST * predicted[:, -1:] + DAMPING * self.mean_log_count_)
        return np.asarray(predicted[:, :-1] * forecast, dtype=np.float32)

    def _fill_from_content(self, items: Codes) -> None:
        """Give items the share of their vectors that comes from content."""
        if self.content_map_ is None or not len(items):
            return
        own = self.item_counts_[items] / (self.item_counts_[items] + np.float32(CONTENT_EVIDENCE))
        predicted = self.content_map_.predict(self.item_features_.take(items))
        width = self.item_vectors_.shape[1]
        vectors, history = self.item_vectors_.copy(), self.history_vectors_.copy()
        # That nobody has taken a warm item yet says nothing of it; that few have taken a hot one does.
        stretched = np.where(self.item_counts_[items, None] > 0, np.float32(1), np.float32(self.content_scale_))
        from_content = stretched * self._undamped(predicted[:, : width + 1])
        vectors[items] = own[:, None] * vectors[items] + (1 - own[:, None]) * from_content
        by_rate = predicted[:, width + 1 :].reshape(len(items), len(KEEP_RATES), width).swapaxes(0, 1)
        history[:, items] = own[:, None] * history[:, items] + (1 - own[:, None]) * by_rate
        self.item_vectors_, self.history_vectors_ = vectors, history

    def _items_appended(self) -> None:
        n_known, n_items = len(self.item_counts_), len(self.items_)
        added = n_items - n_known
        self.item_counts_ = np.pad(self.item_counts_, (0, added))
        self.item_vectors_ = np.pad(self.item_vectors_, ((0, added), (0, 0)))
        self.history_vectors_ = np.pad(self.history_vectors_, ((0, 0), (0, added), (0, 0)))
        self._fill_from_content(np.arange(n_known, n_items))

    def _item_parts(self) -> tuple[Floats, ...]:
        return (self.item_vectors_,)

    def _user_vectors(self, batch: UserBatch) -> Floats:
        return self._users_of(pattern(batch.history), with_constant(batch.features.matrix))

    def _users_of(self, history: Csr, attributes: Csr) -> Floats:
        """Vectors of users by what they have and are."""
        vectors = np.asarray(attributes @ self.attribute_vectors_[0], dtype=np.float32)
        for place, rows, shares in self._blends(np.diff(history.indptr)):
            expected = attributes[rows] @ self.attribute_vectors_[1 + place]
            vectors[rows] += shares[:, None] * (history[rows] @ self.history_vectors_[place] - expected)
        return vectors

    def _blends(self, lengths: npt.NDArray[np.integer]) -> list[tuple[int, Codes, Floats]]:
        """For each keep rate the users who heed it, and how much; those without a history heed none."""
        keep = lengths / (lengths + self.mean_history_)
        place = np.interp(
            np.log(np.maximum(keep, KEEP_RATES[0] / 2)), np.log(KEEP_RATES), np.arange(len(KEEP_RATES), dtype=float)
        )
        found = []
        for rate in range(len(KEEP_RATES)):
            share = np.maximum(0, 1 - np.abs(place - rate)) * (lengths > 0)
            rows = np.flatnonzero(share)
            if len(rows):
                found.append((rate, rows, share[rows].astype(np.float32)))
        return found

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        return self._explain_against(batch, rows, self.item_vectors_[items])

    def _explain_against(self, batch: UserBatch, rows: Codes, vectors: Floats) -> pd.DataFrame:
        """What the parts of users' vectors contribute to inner products with `vectors`, one a row."""
        attributes, history = with_constant(batch.features.matrix)[rows], pattern(batch.history)[rows]
        by_attribute = self.attribute_vectors_[0] @ vectors.T
        names = [field.name for field in batch.features.fields]
        field_of = np.repeat(np.arange(len(names)), [field.stop - field.start for field in batch.features.fields])
        field_of = np.append(field_of, len(names))
        row_a = np.repeat(np.arange(len(rows)), np.diff(attributes.indptr))
        row_h = np.repeat(np.arange(len(rows)), np.diff(history.indptr))
        told = by_attribute[attributes.indices, row_a] * attributes.data
        heard = np.zeros(len(row_h), dtype=np.float32)
        for place, some, shares in self._blends(np.diff(history.indptr)):
            share = np.zeros(len(rows), dtype=np.float32)
            share[some] = shares
            expected = self.attribute_vectors_[1 + place][attributes.indices]
            told -= share[row_a] * attributes.data * np.einsum("nd,nd->n", expected, vectors[row_a])
            own = self.history_vectors_[place][history.indices]
            heard += share[row_h] * np.einsum("nd,nd->n", own, vectors[row_h])
        frame = pd.DataFrame(
            {
                "row": row_a,
                "source": np.where(field_of[attributes.indices] < len(names), "user", "prior"),
                "field": np.array([*names, "average user"], dtype=object)[field_of[attributes.indices]],
                "weight": np.float32(1),
                "contribution": told,
            }
        )
        by_field = frame.groupby(["row", "source", "field"], as_index=False, sort=False).agg(
            weight=("weight", "first"), contribution=("contribution", "sum")
        )
        of_history = pd.DataFrame(
            {
                "row": row_h,
                "source": "history",
                "field": self.items_.decode(history.indices),
                "weight": np.float32(1),
                "contribution": heard,
            }
        )
        return pd.concat([by_field, of_history], ignore_index=True)


class _Judge:
    """How well held-out items are ranked by users who have not seen them, and how often they come among the best."""

    def __init__(
        self, model: ContentEASE, data: TrainingData, items: Codes, folds: list[Codes], rng: np.random.RandomState
    ) -> None:
        active = np.flatnonzero(np.diff(data.matrix.indptr))
        users = np.sort(rng.permutation(active)[:JUDGE_USERS])
        history = pattern(data.matrix)[users]
        attributes = with_constant(data.user_features.matrix)[users]
        self.model = model
        self.folds = [items[fold] for fold in folds]
        # Of each fold the vectors of users, what they were shown, and what of the fold they are to find.
        self.parts: list[tuple[Floats, Csr, Csr]] = []
        for fold in self.folds:
            held_out = np.zeros(history.shape[1], dtype=np.float32)
            held_out[fold] = 1
            wanted = history[:, fold]
            some = np.flatnonzero(np.diff(wanted.indptr))
            shown = positives(Csr(history[some] @ sparse.diags_array(1 - held_out)))
            self.parts.append((model._users_of(shown, attributes[some]), shown, wanted[some]))

    def __call__(self, predictions: list[Floats]) -> float:
        """NDCG@10 among the items of a fold, the mean over folds."""
        values = []
        for (users, _, wanted), predicted in zip(self.parts, predictions, strict=True):
            if len(users):
                found = top_k(users @ self.model._undamped(predicted).T, 10)[0]
                values.append(ndcg(hit_matrix(found, wanted), np.diff(wanted.indptr).astype(np.int64), 10).mean())
        return float(np.mean(values)) if values else 0.0

    def scale(self, predictions: list[Floats]) -> float:
        """What to multiply predictions with, 1 or more: see `ContentEASE`."""
        vectors, counts = self.model.item_vectors_, self.model.item_counts_
        n_own, needed = 0, [np.zeros(0, dtype=np.float32)]
        for fold, (users, shown, _), predicted in zip(self.folds, self.parts, predictions, strict=True):
            others = np.setdiff1d(np.flatnonzero(counts), fold)
            if len(others) < EXPOSED:
                return 1.0
            told, lengths = self.model._undamped(predicted), np.linalg.norm(vectors[fold], axis=1)
            # What is much shorter is rounding: others tell nothing of the item.
            told[np.linalg.norm(told, axis=1) < LEAST_TOLD * lengths] = 0
            for rows in row_chunks(len(users), len(others)):
                scores = users[rows] @ vectors[others].T
                scores[pattern(shown[rows][:, others]).toarray() > 0] = -np.inf
                bar = np.partition(scores, -EXPOSED, axis=1)[:, -EXPOSED, None]
                n_own += int(np.count_nonzero(users[rows] @ vectors[fold].T > bar))
                found = users[rows] @ told.T
                with np.errstate(over="ignore"):
                    ratio = np.maximum(bar, 0) / np.maximum(found, np.finfo(np.float32).tiny)
                needed.append(ratio[found > 0])
        ratios = np.concatenate(needed)
        at = min(int(EXPOSURE * n_own), len(ratios)) - 1
        return max(1.0, float(np.partition(ratios, at)[at])) if at >= 0 else 1.0


def _spread(values: Floats, places: Codes, n: int, axis: int) -> Floats:
    """An array with `values` at some places of an axis and 0 elsewhere."""
    shape = list(values.shape)
    shape[axis] = n
    spread = np.zeros(shape, dtype=np.float32)
    spread[(slice(None),) * axis + (places,)] = values
    return spread

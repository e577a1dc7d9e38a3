"""Matrix factorisation of implicit feedback, with features as priors of the factors."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from recsys._asked import AskedItems, AskedUsers, ItemTable, Parts
from recsys._graphs import Value
from recsys._sparse import Csr, keep, random_places
from recsys.exceptions import InvalidInputError
from recsys.features import EncodedFeatures
from recsys.interactions import TrainingData, UserBatch
from recsys.models._als import als_directions, als_half_step
from recsys.models._bpr import bpr_epoch, pool_histories
from recsys.models._feature_prior import FeaturePrior
from recsys.topk import single_threaded_blas
from recsys.vectors import VectorRecommender

__all__ = ["MatrixFactorization"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Conjugate gradient steps of the priors: a round moves them a little, at the end they are to be exact.
STEPS_A_ROUND, STEPS_AT_THE_END = 3, 100
# With "bpr", the lengths of the histories that the map from histories to users' vectors learns from.
SHOWN = np.array([0, 1, 2, 5, 10, 20, 50, 2**31])


class MatrixFactorization(VectorRecommender):
    r"""Matrix factorisation of implicit feedback: weighted least squares or pairwise ranking, with features as priors.

    The score is :math:`x_u^\top y_i`. With ``loss="als"`` (iALS) it minimises

    .. math:: \sum_{ui} c_{ui} (p_{ui} - x_u^\top y_i)^2
        + \lambda \Big(\sum_u \|x_u - m_u\|^2 + \sum_i \|y_i - m_i\|^2\Big)

    over all pairs of users and items that have positives, where :math:`p_{ui}` is 1 for positives and 0 elsewhere and
    :math:`c_{ui} = 1 + \alpha r_{ui}` with the weight :math:`r_{ui}` of a positive (its `y`), 0 elsewhere [1]_. Users
    and items are solved for in turn, by conjugate gradients [2]_ while they still move and exactly at the end, so that
    a user's vector is what folding in the same history gives. A few-shot user costs one small linear system.

    Features are priors: vectors are drawn towards a linear function of the features of their owner,
    :math:`m_u = A^\top f_u + a` and :math:`m_i = B^\top g_i + b`, that is learned along with them [3]_. A warm user or
    item has this mean as its vector. Without features, users are drawn towards their common mean and items towards 0,
    so that a warm item scores 0.

    With ``loss="bpr"`` it ranks each positive above items drawn at random, :math:`\sum \log(1 + e^{-(s_{ui} -
    s_{uj})})`, by stochastic gradients, with a bias an item [4]_. What maps features, and the histories of new users,
    to vectors is then regressed on the vectors that were learned.

    Parameters
    ----------
    n_factors : int, default=96
    loss : {"als", "bpr"}, default="als"
    max_iter : int, default=15
        Rounds; each solves for all users and all items, or passes over the positives twice. A third of them in
        `partial_fit`.
    alpha : float, default=1.7
        How much more a positive of weight 1 counts than an unobserved pair; with "als".
    l2 : float, default=29.0
        The regularisation :math:`\lambda`; with "bpr" a tenth of it. It counts in interactions: the vector of a user or
        item that has far fewer of them stays near its prior. Small data want a smaller one: of 50 users with 8
        interactions each, nothing is learned at 30, and the most at about 3.
    feature_l2 : float, default=40.0
        The penalty of the maps A and B, against one for each user or item: they minimise
        :math:`\sum_u \|x_u - m_u\|^2 + \mu \|A\|^2`, and likewise for items.
    learning_rate : float, default=0.1
        Of "bpr".
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.
    random_state : int, RandomState instance or None, default=None
        Seeds the initial factors and the draws.

    Attributes
    ----------
    user_factors_ : ndarray of shape (n_users, n_factors), float32
        Those of users without positives are their prior means. With "bpr" one more dimension, which is 1.
    item_factors_ : ndarray of shape (n_items, n_factors), float32
        Likewise; with "bpr" one more dimension, the bias.
    user_coefficients_, item_coefficients_ : ndarray of shape (n_columns, n_factors), float32
        The maps A and B from encoded features.
    user_intercept_, item_intercept_ : ndarray of shape (n_factors,), float32

    References
    ----------
    .. [1] Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
       section 4.
    .. [2] G. Takács, I. Pilászy, D. Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback
       Collaborative Filtering", RecSys 2011.
    .. [3] D. Agarwal, B.-C. Chen, "Regression-based Latent Factor Models", KDD 2009, section 2.
    .. [4] S. Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009, section 4.

    Examples
    --------
    >>> X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": ["tea", "milk", "tea", "milk", "tea"]})
    >>> MatrixFactorization(n_factors=2, l2=0.1, random_state=0).fit(X).recommend([3], k=1)["item_id"].tolist()
    ['milk']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "loss": [StrOptions({"als", "bpr"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "l2": [Interval(Real, 0, None, closed="neither")],
        "feature_l2": [Interval(Real, 0, None, closed="neither")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "min_rating": [Real, None],
        "random_state": ["random_state"],
    }

    _uses_user_features = True

    user_factors_: Floats
    item_factors_: Floats

    def __init__(
        self,
        *,
        n_factors: int = 96,
        loss: Literal["als", "bpr"] = "als",
        max_iter: int = 15,
        alpha: float = 1.7,
        l2: float = 29.0,
        feature_l2: float = 40.0,
        learning_rate: float = 0.1,
        min_rating: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_factors = n_factors
        self.loss = loss
        self.max_iter = max_iter
        self.alpha = alpha
        self.l2 = l2
        self.feature_l2 = feature_l2
        self.learning_rate = learning_rate
        self.min_rating = min_rating
        self.random_state = random_state

    def _fit(self, data: TrainingData, warm: bool) -> None:
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
        self.fitted_loss_, self.fitted_alpha_, self.fitted_l2_ = self.loss, float(self.alpha), float(self.l2)
        users, items = (self._start(axis, data.matrix.shape[axis], warm, rng) for axis in (0, 1))
        # What was fitted before is near its optimum: a third of the rounds moves it to the new one.
        n_rounds = max(1, self.max_iter // 3) if warm else self.max_iter
        # Sums of one thread come in one order: the same seed gives the same bits, whatever the threads.
        with single_threaded_blas(), np.errstate(over="ignore", invalid="ignore"):
            if self.loss == "als":
                self._alternate(data, users, items, n_rounds)
            else:
                self._descend(data, users, items, n_rounds, rng)
        if not (np.isfinite(self.user_factors_).all() and np.isfinite(self.item_factors_).all()):
            raise InvalidInputError(
                f"The factors are not finite: the weights, up to {data.matrix.data.max(initial=0):g}, or a parameter "
                f"are too large for single precision; expected weights such as ratings: scale `y`, or lower `alpha` "
                f"(it is {self.alpha}), `l2` ({self.l2}) or `learning_rate` ({self.learning_rate})."
            )

    def _start(self, axis: int, n: int, warm: bool, rng: np.random.Generator) -> Floats:
        """The factors of an earlier fit, and small random ones for who is new."""
        width = self.n_factors + (self.loss == "bpr")
        factors = (rng.standard_normal((n, width)) / 100).astype(np.float32)
        if warm:
            old = (self.user_factors_, self.item_factors_)[axis]
            if old.shape[1] == width:
                factors[: len(old)] = old
        return factors

    def _alternate(self, data: TrainingData, users: Floats, items: Floats, n_rounds: int) -> None:
        by_user, by_item = data.matrix, data.matrix.T.tocsr()
        hot_users, hot_items = _hot(data.matrix)
        user_prior = FeaturePrior(data.user_features.matrix[hot_users], self.n_factors, self.feature_l2)
        item_prior = FeaturePrior(data.item_features.matrix[hot_items], self.n_factors, self.feature_l2)
        means_of_items = None
        for _ in range(n_rounds):
            means = user_prior.means(data.user_features.matrix)
            users = als_half_step(by_user, items, users, alpha=self.alpha, regularization=self.l2, prior=means)
            user_prior.refine(users[hot_users], STEPS_A_ROUND)
            items = als_half_step(by_item, users, items, alpha=self.alpha, regularization=self.l2, prior=means_of_items)
            if data.item_features.n_columns:
                item_prior.refine(items[hot_items], STEPS_A_ROUND)
                means_of_items = item_prior.means(data.item_features.matrix)
        user_prior.refine(users[hot_users], STEPS_AT_THE_END)
        self._keep(data, items, hot_items, user_prior, item_prior)
        self.user_factors_ = self._fold_in(data.matrix, data.user_features)

    def _descend(
        self, data: TrainingData, users: Floats, items: Floats, n_rounds: int, rng: np.random.Generator
    ) -> None:
        hot_users, hot_items = _hot(data.matrix)
        users[:, -1] = 1
        paces = [np.zeros(len(vectors), dtype=np.float32) for vectors in (users, items)]
        for _ in range(2 * n_rounds):
            bpr_epoch(
                data.matrix,
                (users, paces[0]),
                (items, paces[1]),
                learning_rate=self.learning_rate,
                l2=self.l2 / 10,
                rng=rng,
            )
        # What the first of a history, any number of them, say of the user whose vector the whole led to.
        known = data.matrix[hot_users]
        lengths, places = np.diff(known.indptr), random_places(known, rng)
        shown = keep(known, places < np.repeat(rng.choice(SHOWN, len(lengths)), lengths))
        pooled = sparse.csr_matrix(pool_histories(shown, items))
        inputs = sparse.hstack([data.user_features.matrix[hot_users], pooled], format="csr")
        user_prior = FeaturePrior(inputs, users.shape[1], self.feature_l2)
        user_prior.refine(users[hot_users], STEPS_AT_THE_END)
        item_prior = FeaturePrior(data.item_features.matrix[hot_items], items.shape[1], self.feature_l2)
        self._keep(data, items, hot_items, user_prior, item_prior)
        self.user_factors_ = self._fold_in(data.matrix, data.user_features)
        self.user_factors_[hot_users] = users[hot_users]

    def _keep(
        self, data: TrainingData, items: Floats, hot: Codes, user_prior: FeaturePrior, item_prior: FeaturePrior
    ) -> None:
        n_columns = data.user_features.n_columns
        self.user_coefficients_, self.history_coefficients_ = np.split(user_prior.coefficients, [n_columns])
        self.user_intercept_ = user_prior.intercept
        if data.item_features.n_columns:
            item_prior.refine(items[hot], STEPS_AT_THE_END)
        self.item_coefficients_, self.item_intercept_ = item_prior.coefficients, item_prior.intercept
        factors = self._item_means(data.item_features)
        factors[hot] = items[hot]
        self.item_factors_ = factors
        # Only what could be met counts as not taken.
        self.item_gram_ = items[hot].T @ items[hot]

    def _item_means(self, features: EncodedFeatures) -> Floats:
        """Where items without positives are; the intercept is 0 where there are no features."""
        return np.asarray(features.matrix @ self.item_coefficients_ + self.item_intercept_, dtype=np.float32)

    def _user_means(self, features: EncodedFeatures) -> Floats:
        return np.asarray(features.matrix @ self.user_coefficients_ + self.user_intercept_, dtype=np.float32)

    def _fold_in(self, history: Csr, features: EncodedFeatures) -> Floats:
        """The vectors of users with these histories and features."""
        means = self._user_means(features)
        if self.fitted_loss_ == "bpr":
            pooled = pool_histories(history, self.item_factors_)
            return np.asarray(means + pooled @ self.history_coefficients_, dtype=np.float32)
        vectors = als_half_step(
            history,
            self.item_factors_,
            None,
            alpha=self.fitted_alpha_,
            regularization=self.fitted_l2_,
            prior=means,
            gram=self.item_gram_,
            solver="cholesky",
        )
        without = np.diff(history.indptr) == 0
        vectors[without] = means[without]
        return vectors

    def _items_appended(self) -> None:
        new = self.item_features_.take(np.arange(len(self.item_factors_), len(self.items_)))
        self.item_factors_ = np.concatenate([self.item_factors_, self._item_means(new)])

    def _user_vectors(self, batch: UserBatch) -> Floats:
        vectors = np.empty((len(batch), self.item_factors_.shape[1]), dtype=np.float32)
        vectors[batch.trained] = self.user_factors_[batch.codes[batch.trained]]
        holds = self._as_in_fit(batch)
        newer = np.flatnonzero(batch.trained & ~holds)
        if self.fitted_loss_ == "bpr" and len(newer):
            # Of the user's own vector, which no regression gives, only the mean moves.
            before = self.user_features_.take(batch.codes[newer])
            vectors[newer] += self._user_means(batch.features.take(newer)) - self._user_means(before)
        new = np.flatnonzero(~(batch.trained if self.fitted_loss_ == "bpr" else holds))
        if len(new):
            vectors[new] = self._fold_in(batch.history[new], batch.features.take(new))
        return vectors

    def _user_graph(self, asked: AskedUsers) -> Value:
        """What `_user_vectors` computes: `_fold_in`, and with "bpr" what users have beyond their means."""
        graph, history = asked.graph, asked.history
        table = asked.of_items("item_factors", self.item_factors_)
        means = asked.features.product(self.user_coefficients_) + self.user_intercept_
        if self.fitted_loss_ == "als":
            seen, extra, matrix = self._system_graph(asked, table)
            target = ((extra + history.is_entry).expand(1) @ seen).squeeze(1) + means * self.fitted_l2_
            solved = graph.solve(matrix, target.as_type(np.float64).expand(2), self.item_factors_.shape[1])
            return graph.where(history.lengths, solved.squeeze(2).as_type(np.float32), means)
        pooled = history.pattern.product(table) / graph.apply("Sqrt", history.lengths.at_least(1.0))
        folded = means + pooled @ self.history_coefficients_
        if not asked.with_known:
            return folded
        beyond = self.user_factors_ - self._user_means(self.user_features_)
        return graph.where(asked.trained, means + graph.take(beyond, asked.known.at_least(0)).squeeze(1), folded)

    def _system_graph(self, asked: AskedUsers, table: ItemTable) -> tuple[Value, Value, Value]:
        """Vectors of the items of histories, what their weights are beyond 1, and the matrices of the systems."""
        seen, extra = asked.history.gather(table), asked.history.values * self.fitted_alpha_
        common = self.item_gram_ + np.float32(self.fitted_l2_) * np.eye(len(self.item_gram_), dtype=np.float32)
        # Weights that drown the rest leave the system singular, as `_fold_in` finds: there is no answer.
        longest, least = np.square(self.item_factors_).sum(axis=1).max(), np.trace(common) / np.finfo(np.float32).eps
        extra = asked.graph.where((extra.sum(1) * float(longest)).exceeds(float(least)), float("nan"), extra)
        return seen, extra, ((seen * extra.expand(2)).transpose(0, 2, 1) @ seen + common).as_type(np.float64)

    def _user_parts(self, asked: AskedUsers) -> Parts:
        """What `_explain_pairs` tells: each part of a target solved for by itself."""
        graph, history, parts = asked.graph, asked.history, Parts(asked.graph)
        table, fields = asked.of_items("item_factors", self.item_factors_), self.user_features_.fields
        means = [(history.lengths * 0.0 + self.user_intercept_).expand(1)]
        present = [history.lengths * 0.0 + 1.0]
        if fields:
            means.insert(0, asked.features.by_field(self.user_coefficients_, fields))
            present.insert(0, asked.features.present(fields))
        names = [*(("user", field.name) for field in fields), ("prior", "average user")]
        vectors = graph.concat(means, 1)
        if self.fitted_loss_ == "als":
            seen, extra, matrix = self._system_graph(asked, table)
            weights = extra + history.is_entry
            targets = graph.concat([vectors * self.fitted_l2_, seen * weights.expand(2)], 1)
            columns = targets.transpose(0, 2, 1).as_type(np.float64)
            solved = graph.solve(matrix, columns, len(self.item_gram_)).transpose(0, 2, 1).as_type(np.float32)
            has_history = history.lengths.expand(2)
            vectors = graph.where(has_history, solved.columns(0, len(names)), vectors)
            heard = solved.columns(len(names), None)
        else:
            weights = history.is_entry / graph.apply("Sqrt", history.lengths.at_least(1.0))
            heard = weights.expand(2) * (history.gather(table) @ self.history_coefficients_)
        parts.add(names, vectors, graph.concat(present, 1))
        if self.fitted_loss_ == "bpr" and asked.with_known:
            beyond = (self._user_graph(asked) - vectors.sum(1).squeeze(1) - heard.sum(1).squeeze(1)) * asked.trained
            parts.add([("user", "id")], beyond.expand(1), asked.trained)
        parts.add([], heard, weights)
        return parts

    def _item_graph(self, asked: AskedItems) -> dict[str, Value]:
        """What `_item_means` computes."""
        means = asked.features.product(self.item_coefficients_) + self.item_intercept_
        return {"vectors": means, "item_factors": means}

    def _item_parts(self) -> tuple[Floats, ...]:
        return (self.item_factors_,)

    def _item_embeddings(self) -> Floats:
        return self.item_factors_[:, : self.item_factors_.shape[1] - (self.fitted_loss_ == "bpr")]

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        """What the history, the features and the average user add; with "bpr", the user's own vector beyond them."""
        asked, targets = batch.take(rows), self.item_factors_[items]
        history, lengths = asked.history, np.diff(asked.history.indptr)
        row = np.repeat(np.arange(len(rows)), lengths)
        if self.fitted_loss_ == "als":
            # x_u solves A x = sum of c_uj y_j over the history + l2 m_u: it is linear in each of these.
            towards = als_directions(
                history,
                self.item_factors_,
                targets,
                alpha=self.fitted_alpha_,
                regularization=self.fitted_l2_,
                gram=self.item_gram_,
            )
            weights, pulls = 1 + self.fitted_alpha_ * history.data, np.float32(self.fitted_l2_) * towards
        else:
            towards, pulls = targets @ self.history_coefficients_.T, targets
            weights = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
        parts = [
            _told(
                row,
                "history",
                self.items_.decode(history.indices),
                weights * np.einsum("nd,nd->n", towards[row], self.item_factors_[history.indices]),
                weights,
            )
        ]
        everyone = np.arange(len(rows))
        for at, field in enumerate(asked.features.fields):
            vectors = asked.features.block(field) @ self.user_coefficients_[field.start : field.stop]
            told = np.flatnonzero(asked.features.present[:, at])
            parts.append(_told(told, "user", field.name, np.einsum("nd,nd->n", vectors[told], pulls[told])))
        parts.append(_told(everyone, "prior", "average user", pulls @ self.user_intercept_))
        if self.fitted_loss_ == "bpr":
            own = self._user_vectors(asked) - self._fold_in(history, asked.features)
            known = np.flatnonzero(asked.trained)
            parts.append(_told(known, "user", "id", np.einsum("nd,nd->n", own[known], targets[known])))
        return pd.concat(parts, ignore_index=True)


def _hot(matrix: Csr) -> tuple[Codes, Codes]:
    """The users and the items that have positives."""
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    return np.flatnonzero(np.diff(matrix.indptr)), np.flatnonzero(counts)


def _told(row: Codes, source: str, field: Any, contribution: Any, weight: Any = 1.0) -> pd.DataFrame:
    """Rows of an explanation."""
    values = {"row": row, "source": source, "field": field, "weight": weight, "contribution": contribution}
    return pd.DataFrame(values, index=range(len(row))).astype({"weight": np.float32, "contribution": np.float32})

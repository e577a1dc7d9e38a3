"""Ranking metrics as scikit-learn's `scoring`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from recsys._requests import read_k
from recsys.base import BaseRecommender
from recsys.evaluation.metrics import Values
from recsys.evaluation.ranking import METRICS
from recsys.evaluation.scores import EXPECTED_METRICS, read_ties, tied_ranks
from recsys.exceptions import InvalidInputError, InvalidTypeError, did_you_mean
from recsys.topk import row_chunks, single_threaded_blas

__all__ = ["make_ranking_scorer"]


def make_ranking_scorer(metric: str = "NDCG", *, k: int = 10, ties: str = "catalogue") -> RankingScorer:
    """A scorer for `cross_validate`, `GridSearchCV` and whatever else takes `scoring`.

    It asks the model for the k best items of every user who has positives in the rows that it is given, without what
    the user has seen in `fit`, and returns the mean of the metric over these users. To a model that uses context, a
    user in each context is one. With ``metric="NDCG"`` and ``k=10`` it is the model's own `score`.

    Parameters
    ----------
    metric : str, default="NDCG"
        HR, Recall, RecallCalibrated, Precision, NDCG, MRR or MAP, in whatever case.
    k : int, default=10
        The length of the lists.
    ties : {"catalogue", "expected"}, default="catalogue"
        How items with equal scores are ranked, as in `score_metrics`: in catalogue order, or in all orders, each as
        likely as the others.

    Returns
    -------
    RankingScorer
        A function of a fitted recommender, or a pipeline that ends with one, and of `X` and `y`.

    Raises
    ------
    InvalidInputError
        If the metric or `ties` is unknown, or `k` is below 1.

    Examples
    --------
    >>> from sklearn.model_selection import cross_validate
    >>> from recsys import EASE
    >>> from recsys.datasets import make_movielens_like
    >>> from recsys.evaluation import RandomSplit
    >>> X = make_movielens_like(n_users=60, n_items=30, n_interactions=900, random_state=0).interactions
    >>> scoring = {name: make_ranking_scorer(name, k=5) for name in ("Recall", "MRR")}
    >>> cv = RandomSplit(test_size=0.2, n_splits=3, random_state=0)
    >>> found = cross_validate(EASE(l2=10), X[["user_id", "item_id"]], scoring=scoring, cv=cv)
    >>> found["test_Recall"].shape, bool((found["test_MRR"] > 0).all())
    ((3,), True)
    """
    if not isinstance(metric, str):
        raise InvalidTypeError(f"`metric` is {metric!r}; expected a name, such as 'NDCG'.")
    names = {name.lower(): name for name in METRICS}
    name, _, cut = metric.partition("@")
    if cut.isdigit() and name.lower() in names:
        raise InvalidInputError(f"`metric` is {metric!r}; expected a name without a cut: pass {name!r} and k={cut}.")
    if metric.lower() not in names:
        raise InvalidInputError(f"`metric` is {metric!r}. {did_you_mean(metric.lower(), names)}")
    return RankingScorer(names[metric.lower()], read_k(k), read_ties(ties))


@dataclass(frozen=True)
class RankingScorer:
    """What `make_ranking_scorer` returns.

    Attributes
    ----------
    metric : str
    k : int
    ties : str
    """

    metric: str
    k: int
    ties: str = "catalogue"

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """The mean over the users of `X` with positives; 0 where there are none."""
        if isinstance(estimator, Pipeline):
            X, estimator = estimator[:-1].transform(X), estimator[-1]
        if not isinstance(estimator, BaseRecommender):
            raise InvalidTypeError(
                f"`estimator` is a {type(estimator).__name__}; expected a recommender, or a pipeline that ends in one."
            )
        if self.ties == "expected":
            values = self._expected(estimator, X, y)
        else:
            hits, n_relevant = estimator._hits(X, y, self.k)
            values = METRICS[self.metric](hits, n_relevant, self.k)
        return float(values.mean()) if len(values) else 0.0

    def _expected(self, estimator: BaseRecommender, X: Any, y: Any) -> Values:
        """The mean of each user's metric over the orders of equal scores."""
        score, seen, relevant = estimator._judged(X, y)
        values = np.zeros(seen.shape[0])
        with single_threaded_blas():
            for rows in row_chunks(*seen.shape):
                scores = np.require(score(rows), np.float32, ["W", "O"])
                known, liked = seen[rows], relevant[rows]
                scores[np.repeat(np.arange(len(scores)), np.diff(known.indptr)), known.indices] = -np.inf
                ranks = tied_ranks(scores, liked, self.k)
                values[rows] = EXPECTED_METRICS[self.metric](ranks, np.diff(liked.indptr).astype(np.int64), self.k)
        return values

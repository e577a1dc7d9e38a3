"""Ranking metrics as scikit-learn's `scoring`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sklearn.pipeline import Pipeline

from recsys._requests import read_k
from recsys.base import BaseRecommender
from recsys.evaluation.ranking import METRICS
from recsys.exceptions import InvalidInputError, InvalidTypeError, did_you_mean

__all__ = ["make_ranking_scorer"]


def make_ranking_scorer(metric: str = "NDCG", *, k: int = 10) -> RankingScorer:
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

    Returns
    -------
    RankingScorer
        A function of a fitted recommender, or a pipeline that ends with one, and of `X` and `y`.

    Raises
    ------
    InvalidInputError
        If the metric is unknown, or `k` is below 1.

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
    if metric.lower() not in names:
        raise InvalidInputError(f"`metric` is {metric!r}. {did_you_mean(metric.lower(), names)}")
    return RankingScorer(names[metric.lower()], read_k(k))


@dataclass(frozen=True)
class RankingScorer:
    """What `make_ranking_scorer` returns.

    Attributes
    ----------
    metric : str
    k : int
    """

    metric: str
    k: int

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """The mean over the users of `X` with positives; 0 where there are none."""
        if isinstance(estimator, Pipeline):
            X, estimator = estimator[:-1].transform(X), estimator[-1]
        if not isinstance(estimator, BaseRecommender):
            raise InvalidTypeError(
                f"`estimator` is a {type(estimator).__name__}; expected a recommender, or a pipeline that ends in one."
            )
        hits, n_relevant = estimator._hits(X, y, self.k)
        return float(METRICS[self.metric](hits, n_relevant, self.k).mean()) if len(n_relevant) else 0.0

"""Learning to rank with gradient boosted trees, on features that never see their own target."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import effective_n_jobs
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from recsys._state import COLD
from recsys.base import BaseRecommender
from recsys.interactions import TrainingData, UserBatch
from recsys.models._ranking_features import START, PairFeatures, PairTable, Queries
from recsys.models._ranking_table import RankingTable, ranking_table
from recsys.models._tree_scores import TreeScores
from recsys.persistence import persistent
from recsys.topk import single_threaded_blas

__all__ = ["LightGBMRecommender"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Of the logistic regression on one feature.
NEWTON_STEPS = 8
# Threads wait for each other after every step: fewer pairs than that are not worth one more.
PAIRS_A_THREAD = 20_000
# Pairs that are described at a time.
PAIRS_AT_A_TIME = 2**18
# LightGBM takes queries of up to 10,000 pairs.
MAX_NEGATIVES = 500


@persistent
class Trees:
    """Boosted trees that are kept as LightGBM's own text, and what they start from: a multiple of one feature.

    Parameters
    ----------
    text : str
        What ``Booster.model_to_string`` wrote.
    slope : float
        The start is so many times the feature `START`.
    """

    def __init__(self, text: str, slope: float) -> None:
        # LightGBM ends the process over a text that is cut short.
        if not isinstance(text, str) or not text.rstrip().endswith("pandas_categorical:null"):
            raise ValueError("the text of the trees is cut short; expected what LightGBM wrote")
        self.text = text
        self.slope = slope
        try:
            self._compiled = TreeScores.from_text(text)
            # It ends the process over an altered tree too, where it is told sizes: it reads in threads then.
            self._booster = lightgbm.Booster(model_str=re.sub(r"\ntree_sizes=.*", "", text, count=1))
        except (lightgbm.basic.LightGBMError, KeyError, ValueError) as error:
            raise ValueError(f"the text of the trees is none that LightGBM wrote: {error}") from error

    def __deepcopy__(self, memo: dict[int, Any]) -> Trees:
        return Trees(self.text, self.slope)

    def scores(self, values: Floats, n_threads: int) -> Floats:
        """Scores of pairs, (n,), of their features (n, n_features)."""
        if self._compiled is None:
            grown = np.asarray(self._booster.predict(values, raw_score=True, num_threads=n_threads), dtype=np.float64)
        else:
            grown = self._compiled.of_pairs(values, n_threads)
        return np.asarray(grown + self.slope * values[:, START], dtype=np.float32)

    def table_scores(self, tables: Iterable[tuple[slice, PairTable]], n_threads: int) -> Iterator[tuple[slice, Floats]]:
        """Scores of each table of pairs, (n, n_items); all tables are of the same items."""
        of_items = None
        for rows, table in tables:
            if self._compiled is None:
                values = table.values()
                scores = self.scores(values.reshape(-1, values.shape[2]), n_threads).reshape(values.shape[:2])
            else:
                n_pairs, n_queries = len(table.of_pairs), table.of_queries.shape[1]
                if of_items is None:
                    of_items = self._compiled.masks(table.of_items, first=n_pairs + n_queries)
                of_queries = self._compiled.masks(table.of_queries, first=n_pairs)
                grown = self._compiled.of_table(table.of_pairs, of_queries, of_items, n_threads)
                scores = np.asarray(grown + self.slope * table.of_pairs[START], dtype=np.float32)
            yield rows, scores

    def contributions(self, values: Floats) -> Doubles:
        """The part that each feature has in each score, and that of none; (n, n_features + 1)."""
        parts = np.array(self._booster.predict(values, pred_contrib=True, num_threads=1), dtype=np.float64)
        parts[:, START] += self.slope * values[:, START]
        return parts

    def weights(self) -> Doubles:
        """The share of each feature in what all splits have gained, and 1 for the start, (n_features,)."""
        gains = np.asarray(self._booster.feature_importance("gain"), dtype=np.float64)
        shares: Doubles = gains / max(gains.sum(), np.finfo(np.float64).tiny)
        shares[START] += 1
        return shares

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        return {"text": self.text, "slope": self.slope}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Trees:
        """The inverse of `to_state`."""
        return cls(state["text"], state["slope"])


class LightGBMRecommender(BaseRecommender):
    r"""Learning to rank: boosted trees over features of user-item pairs, trained with LambdaRank.

    A pair is described by the score of a linear model that completes histories (dropout EASE [1]_ in the space of
    implicit ALS factors [2]_) and by the ALS score; by the same with an item's factors as predicted from its content;
    by what the user's attributes alone say; by how alike the item and the history are, field by field; by popularity,
    as seen and as expected of the content; and by attributes, metadata and context as they are. The trees start from
    the first of these, standardised, and add what the others know better: they minimise LambdaRank's loss [3]_ with
    LightGBM [4]_.

    No feature sees its own target: positives are split into folds, and those of a fold are described by what is learned
    from the other folds. In each fold some items are hidden and half of the histories are cut short, so that the same
    trees answer hot, few-shot and warm users and items. Each positive is ranked against `n_negatives` items, drawn
    uniformly from those that have positives and are not the user's; a user brings at most 20 positives, and at most
    10,000 users are ranked in a fold. Where there is nothing to rank (one item, say), the score is the popularity.

    `partial_fit` fits everything anew.

    Parameters
    ----------
    n_estimators : int, default=150
        Trees.
    num_leaves : int, default=8
        Of a tree.
    learning_rate : float, default=0.078
        What a tree counts, 1 at the most.
    min_child_samples : int, default=100
        Pairs in a leaf, at the least.
    n_negatives : int, default=11
        Negatives a positive, 500 at the most.
    n_factors : int, default=64
        Dimensions of the ALS factors.
    n_folds : int, default=4
        Folds of the positives; the features are learned once a fold, and once from everything.
    n_jobs : int, default=-1
        Threads, as in scikit-learn; the result is the same bit for bit whatever their number.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.
    random_state : int, RandomState instance or None, default=None
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    features_ : PairFeatures
        What was learned from all interactions: it describes the pairs that are asked for.
    trees_ : Trees or None
        The trees, as LightGBM's own text. None: the score is the popularity.

    References
    ----------
    .. [1] H. Steck, "Autoencoders that don't overfit towards the Identity", NeurIPS 2020.
    .. [2] Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
    .. [3] C. Burges, "From RankNet to LambdaRank to LambdaMART: An Overview", MSR-TR-2010-82, section 7.
    .. [4] G. Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017.

    Examples
    --------
    >>> users, items = np.divmod(np.arange(400), 20)
    >>> same = (users % 2 == items % 2) & (users != items)
    >>> X = pd.DataFrame({"user_id": users[same], "item_id": items[same]})
    >>> model = LightGBMRecommender(min_child_samples=5, n_factors=4, random_state=0).fit(X)
    >>> model.recommend([6, 7], k=1)["item_id"].tolist()
    [6, 7]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "num_leaves": [Interval(Integral, 2, 131_072, closed="both")],
        "learning_rate": [Interval(Real, 0, 1, closed="right")],
        "min_child_samples": [Interval(Integral, 1, 2**31 - 1, closed="both")],
        "n_negatives": [Interval(Integral, 1, MAX_NEGATIVES, closed="both")],
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "n_jobs": [Interval(Integral, 1, None, closed="left"), Interval(Integral, None, -1, closed="right"), None],
        "min_rating": [Real, None],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
    }

    _uses_user_features = True
    _uses_context = True

    features_: PairFeatures
    trees_: Trees | None

    def __init__(
        self,
        *,
        n_estimators: int = 150,
        num_leaves: int = 8,
        learning_rate: float = 0.078,
        min_child_samples: int = 100,
        n_negatives: int = 11,
        n_factors: int = 64,
        n_folds: int = 4,
        n_jobs: int | None = -1,
        min_rating: float | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_estimators = n_estimators
        self.num_leaves = num_leaves
        self.learning_rate = learning_rate
        self.min_child_samples = min_child_samples
        self.n_negatives = n_negatives
        self.n_factors = n_factors
        self.n_folds = n_folds
        self.n_jobs = n_jobs
        self.min_rating = min_rating
        self.random_state = random_state
        self.verbose = verbose

    def _fit(self, data: TrainingData, warm: bool) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        table, self.features_ = ranking_table(
            data,
            n_factors=self.n_factors,
            n_folds=self.n_folds,
            n_negatives=self.n_negatives,
            seed=seed,
            n_jobs=self.n_jobs,
        )
        self.trees_ = self._grow(table, seed)

    def _grow(self, table: RankingTable, seed: int) -> Trees | None:
        """Train the trees; None where there is nothing to rank."""
        from tqdm import tqdm

        if not len(table.labels):
            return None
        parameters = {
            "objective": "lambdarank",
            "num_leaves": self.num_leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_child_samples,
            "num_threads": self._n_threads(len(table.labels)),
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        slope = _slope(table)
        rows = lightgbm.Dataset(
            table.values,
            table.labels,
            group=table.groups,
            init_score=slope * table.values[:, START].astype(np.float64),
            params={"verbosity": -1},
        )
        with tqdm(total=self.n_estimators, desc=type(self).__name__, disable=not self.verbose) as bar:
            booster = lightgbm.train(parameters, rows, self.n_estimators, callbacks=[lambda _: bar.update()])
        # How many threads grew the trees is no part of the model.
        return Trees(re.sub(r"\[num_threads: \d+\]", "[num_threads: 0]", booster.model_to_string()), slope)

    def _n_threads(self, n_pairs: int) -> int:
        """How many threads such a number of pairs is worth."""
        return min(int(effective_n_jobs(self.n_jobs)), 1 + n_pairs // PAIRS_A_THREAD)

    def _items_appended(self) -> None:
        self.features_ = self.features_.with_items(self.item_features_)

    def _score_batch(self, batch: UserBatch) -> Floats:
        scores = np.empty((len(batch), len(self.items_)), dtype=np.float32)
        if self.trees_ is None:
            scores[:] = self.popularity_
            return scores
        with single_threaded_blas():
            tables = self.features_.tables(_queries(batch))
            for rows, found in self.trees_.table_scores(tables, self._n_threads(scores.size)):
                scores[rows] = found
        return scores

    def _score_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> Floats:
        """Scores of pairs alone: trees are dear, and the catalogue may be large."""
        scores = self.popularity_[items]
        told = np.flatnonzero(batch.path[rows] != COLD)
        if self.trees_ is None or not len(told):
            return scores
        order = told[np.argsort(rows[told], kind="stable")]
        for start in range(0, len(order), PAIRS_AT_A_TIME):
            at = order[start : start + PAIRS_AT_A_TIME]
            asked, position = np.unique(rows[at], return_inverse=True)
            with single_threaded_blas():
                values = self.features_.pairs(_queries(batch.take(asked)), position, items[at])
                scores[at] = self.trees_.scores(values, self._n_threads(len(at)))
        return scores

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        """Shapley values of the trees, exact; the weight of a field is its share of what all splits have gained."""
        if self.trees_ is None:
            return _told(self.popularity_[items, None], np.ones(1), [("prior", "popularity")])
        order = np.argsort(rows, kind="stable")
        with single_threaded_blas():
            values = self.features_.pairs(_queries(batch), rows[order], items[order])
        parts = np.empty((len(rows), values.shape[1] + 1))
        parts[order] = self.trees_.contributions(values)
        weights = np.append(self.trees_.weights(), 1)
        return _told(parts, weights, [*self.features_.columns, ("prior", "average pair")])


def _slope(table: RankingTable) -> float:
    """How the log odds of a positive rise with the feature that the trees start from: a logistic regression."""
    x, y = table.values[:, START].astype(np.float64), table.labels
    design = np.column_stack([x, np.ones_like(x)])
    found = np.array([0.0, np.log(y.mean() / (1 - y.mean()))])
    for _ in range(NEWTON_STEPS):
        expected = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        curvature = (design * (expected * (1 - expected))[:, None]).T @ design + np.diag([1.0, 1e-3])
        found += np.linalg.solve(curvature, design.T @ (y - expected) - [found[0], 0.0])
    return max(float(found[0]), 0.0)


def _queries(batch: UserBatch) -> Queries:
    """What the features have to know of a batch."""
    return Queries(batch.history, batch.features, batch.context)


def _told(parts: npt.NDArray[Any], weights: npt.NDArray[Any], columns: list[tuple[str, str]]) -> pd.DataFrame:
    """One row a pair and field that has weight, the features of a field taken together."""
    names = list(dict.fromkeys(columns))
    together = np.zeros((len(columns), len(names)))
    together[np.arange(len(columns)), [names.index(column) for column in columns]] = 1
    heeded = weights @ together
    kept = np.flatnonzero(heeded > 0)
    n = len(parts)
    return pd.DataFrame(
        {
            "row": np.repeat(np.arange(n), len(kept)),
            "source": np.tile(np.array([source for source, _ in names], dtype=object)[kept], n),
            "field": np.tile(np.array([field for _, field in names], dtype=object)[kept], n),
            "weight": np.tile(heeded[kept].astype(np.float32), n),
            "contribution": (parts @ together)[:, kept].ravel().astype(np.float32),
        }
    )

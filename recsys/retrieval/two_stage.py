"""TwoStageRecommender: one model proposes candidates, another orders them, and both have a say in the score."""

from __future__ import annotations

import copy
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from recsys._sparse import find_entries
from recsys._state import HOT, WARM, EstimatorState
from recsys.base import BaseRecommender
from recsys.evaluation.metrics import hit_matrix, ndcg
from recsys.exceptions import InvalidInputError
from recsys.interactions import ContextRows, TrainingData, UserBatch
from recsys.retrieval._blending import Moments, diversified
from recsys.retrieval._held_out import HeldOut, Judges, held_out
from recsys.retrieval._proposals import Proposals, as_known_to, proposer
from recsys.topk import CHUNK_ROWS, TopK, row_chunks, top_k
from recsys.vectors import VectorRecommender

__all__ = ["TwoStageRecommender"]

Codes = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Scorer = Callable[[UserBatch], Floats]

STAGES = ("retriever", "ranker")
# What both stages know as the whole does: it is kept, and saved, once.
SHARED = (
    "id_names_",
    "users_",
    "items_",
    "user_encoder_",
    "item_encoder_",
    "context_encoder_",
    "user_features_",
    "item_features_",
    "history_",
    "popularity_",
    "n_features_in_",
    "feature_names_in_",
)
# Shares of the ranker that are tried.
SHARES = np.linspace(0, 1, 11)
# The share where there is too little to try any.
EVEN = 0.5
# So many standard deviations an item that is no candidate is below the last one that is.
GAP = 1.0
# A bonus that leaves room for scores in single precision.
MOST_EXPLORATION = 1e12
# Users are scored in parts of so many scores: what is derived from them takes several times their memory.
CELLS = 2**17


class TwoStageRecommender(BaseRecommender):
    r"""A retriever proposes candidates for each user, a ranker orders them [1]_.

    The candidates of a user are the best items of the retriever, down to the `n_candidates`-th that is not in the
    user's history. Of these the score is

    .. math:: s_{ui} = (1 - w) \, z(r_{ui}) + w \, z(f_{ui}) + \frac{\epsilon}{\sqrt{1 + n_i}}

    with the scores r of the retriever and f of the ranker, both standardised: z takes mean and standard deviation of
    the user's candidates outside the history. All other items come below, in the order of the retriever. So the score
    of a pair does not depend on what is asked for, `predict` has one for every pair, and more than `n_candidates` items
    can be recommended. Items that join with `add_items` are candidates where the retriever puts them above the last of
    the others, whose scores they do not change. The retriever scores the whole catalogue, exactly, the ranker the
    candidates alone.

    The share w is chosen, if it is not given: both stages are fitted on a part of the interactions, and of
    :math:`0, 0.1, \dots, 1` the share wins that gives those held out the best NDCG@10, for known users, for new ones
    with up to five interactions and for new ones with features alone. Then both are fitted on everything: choosing
    takes as long again as fitting.

    On items without interactions the ranker is not heard, w is 0: what is held out has none of them, so that no share
    can be chosen for them, and rankers that learn from negatives push them down.

    The last term explores: items with little evidence, :math:`n_i` users who have item i, get a bonus, as a bandit adds
    the uncertainty of an arm to its mean [2]_: the standard deviation of a mean of :math:`n_i` observations and one of
    the prior. It is a part of the score, the same at each call, and no item gets into the candidates by it.

    Parameters
    ----------
    retriever : BaseRecommender, default=None
        Any model; with `diversity`, one of vectors. None: a `ContrastiveRecommender`.
    ranker : BaseRecommender, default=None
        Any model; one that can score single pairs, such as `LightGBMRecommender` or `DeepFM`, is asked for the
        candidates alone, others for the catalogue. None: a `LightGBMRecommender`.
    n_candidates : int, default=200
        Candidates a user.
    ranker_weight : float, default=None
        The share w of the ranker in the score of candidates, from 0 to 1. None: chosen.
    diversity : float, default=0.0
        From 0 to 1, how much a list shuns items that are like earlier ones by the cosine of the retriever's item
        vectors: maximal marginal relevance [3]_ over the best `n_candidates`. `score` and `rank` of `recommend` no
        longer agree then: scores are those of `predict`, ranks those of the list.
    exploration : float, default=0.0
        The bonus :math:`\epsilon` of an item without interactions, in standard deviations of scores.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0. The stages have none of their own.
    random_state : int, RandomState instance or None, default=None
        Of what is held out, and of stages whose own is None.

    Attributes
    ----------
    retriever_, ranker_ : BaseRecommender
        The fitted stages: models of their own, which can be asked alone.
    ranker_weight_ : ndarray of shape (3,), float64
        The share w for known users ("hot"), new ones with interactions ("few-shot") and with features alone ("warm").
    chosen_for_ : list of str
        The classes of the stages for which the share was chosen; empty where it was given. `partial_fit` chooses again
        where they are others.
    n_items_fitted_ : int
        Items of the catalogue in `fit`.
    evidence_ : ndarray of shape (n_items,), float32
        How many users have an item among their positives.

    References
    ----------
    .. [1] P. Covington, J. Adams, E. Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016.
    .. [2] P. Auer, N. Cesa-Bianchi, P. Fischer, "Finite-time Analysis of the Multiarmed Bandit Problem", Machine
       Learning 47, 2002.
    .. [3] J. Carbonell, J. Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
       Summaries", SIGIR 1998.

    Examples
    --------
    >>> from recsys import EASE, ContentKNN
    >>> users, items = np.divmod(np.arange(400), 20)
    >>> same = (users % 2 == items % 2) & (users != items)
    >>> X = pd.DataFrame({"user_id": users[same], "item_id": items[same]})
    >>> model = TwoStageRecommender(retriever=EASE(l2=10.0), ranker=ContentKNN(), n_candidates=5, random_state=0)
    >>> model.fit(X).recommend([6, 7], k=1)["item_id"].tolist()
    [6, 7]
    >>> model.set_params(retriever__l2=20.0).retriever
    EASE(l2=20.0)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "retriever": [BaseRecommender, None],
        "ranker": [BaseRecommender, None],
        "n_candidates": [Interval(Integral, 1, None, closed="left")],
        "ranker_weight": [Interval(Real, 0, 1, closed="both"), None],
        "diversity": [Interval(Real, 0, 1, closed="both")],
        "exploration": [Interval(Real, 0, MOST_EXPLORATION, closed="both")],
        "min_rating": [Real, None],
        "random_state": ["random_state"],
    }

    retriever_: BaseRecommender
    ranker_: BaseRecommender

    def __init__(
        self,
        *,
        retriever: BaseRecommender | None = None,
        ranker: BaseRecommender | None = None,
        n_candidates: int = 200,
        ranker_weight: float | None = None,
        diversity: float = 0.0,
        exploration: float = 0.0,
        min_rating: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.retriever = retriever
        self.ranker = ranker
        self.n_candidates = n_candidates
        self.ranker_weight = ranker_weight
        self.diversity = diversity
        self.exploration = exploration
        self.min_rating = min_rating
        self.random_state = random_state

    @property
    def _uses_user_features(self) -> bool:  # type: ignore[override]  # as the stages do
        return self.retriever_._uses_user_features or self.ranker_._uses_user_features

    @property
    def _uses_context(self) -> bool:  # type: ignore[override]  # as the stages do
        return self.retriever_._uses_context or self.ranker_._uses_context

    def _fit(self, data: TrainingData, warm: bool) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        stages = [self._template(name, seed) for name in STAGES]
        self._check_diversity(stages[0])
        self.n_candidates_ = int(self.n_candidates)
        self.diversity_, self.exploration_ = float(self.diversity), float(self.exploration)
        self.n_items_fitted_ = data.matrix.shape[1]
        self.evidence_ = np.bincount(data.matrix.indices, minlength=data.matrix.shape[1]).astype(np.float32)
        if self.ranker_weight is not None:
            self.ranker_weight_ = np.full(3, float(self.ranker_weight))
            self.chosen_for_: list[str] = []
        else:
            stage_names = [type(stage).__name__ for stage in stages]
            # What was chosen for other stages, or given, says nothing of these.
            if not warm or stage_names != self.chosen_for_:
                self.ranker_weight_ = self._chosen_weight(stages, data.context, np.random.default_rng(seed))
            self.chosen_for_ = stage_names
        for name, stage in zip(STAGES, stages, strict=True):
            before = getattr(self, f"{name}_", None) if warm else None
            goes_on = type(before) is type(stage)
            if goes_on:
                stage.__dict__.update({key: value for key, value in vars(before).items() if key.endswith("_")})
            self._share_with(stage)
            stage._learn(data.context, goes_on)
            setattr(self, f"{name}_", stage)

    def _template(self, name: str, seed: int) -> BaseRecommender:
        """An unfitted stage that may be fitted here."""
        stage: BaseRecommender = clone(getattr(self, name) or _default_stage(name))
        stage._validate_params()
        # Both are read where `fit` reads its rows, once for both stages.
        for read_with_rows, instead in (
            ("min_rating", "set that of TwoStageRecommender"),
            ("half_life", "leave it out"),
        ):
            if getattr(stage, read_with_rows, None) is not None:
                raise InvalidInputError(
                    f"`{name}` has {read_with_rows}={getattr(stage, read_with_rows)!r}; expected None: {instead}."
                )
        if stage.get_params(deep=False).get("random_state", 0) is None:
            stage.set_params(random_state=seed)
        return stage

    def _check_diversity(self, retriever: BaseRecommender) -> None:
        if self.diversity and not isinstance(retriever, VectorRecommender):
            raise InvalidInputError(
                f"`diversity` is {self.diversity}, but {type(retriever).__name__}, the retriever, has no item vectors "
                f"to tell which items are alike; expected a model of inner products: choose such, or diversity=0."
            )

    def _share_with(self, stage: BaseRecommender) -> None:
        """Let a stage know all that was read in `fit`."""
        stage.__dict__.update({name: value for name, value in vars(self).items() if name in SHARED})

    def _chosen_weight(
        self, stages: list[BaseRecommender], context: ContextRows | None, rng: np.random.Generator
    ) -> Doubles:
        """The share of the ranker with which held-out interactions are ranked best, for each kind of user."""
        held = held_out(self.history_, self.user_features_, context, rng)
        if not held.judges:
            return np.full(3, EVEN)
        retriever, ranker = [self._tried(stage, held, context) for stage in stages]
        values = {
            path: self._values_of_shares(retriever, ranker, judges)
            for path, judges in held.judges.items()
            if path != WARM or retriever._uses_user_features or ranker._uses_user_features
        }
        # Where too few new users could be held out, known ones tell most.
        return np.array([SHARES[values.get(path, values[HOT]).argmax()] for path in range(3)])

    def _tried(self, stage: BaseRecommender, held: HeldOut, context: ContextRows | None) -> BaseRecommender:
        """A stage that is fitted without what is held out."""
        stage = clone(stage)
        self._share_with(stage)
        stage.history_ = held.history
        if context is not None:
            kept = np.flatnonzero(find_entries(held.history, context.users, context.items)[1])
            context = ContextRows(context.users[kept], context.items[kept], context.features.take(kept))
        stage._learn(context, False)
        return stage

    def _values_of_shares(self, retriever: BaseRecommender, ranker: BaseRecommender, judges: Judges) -> Doubles:
        """The sum of NDCG@10 over users for each of `SHARES`."""
        n_items = judges.wanted.shape[1]
        values, propose = np.zeros(len(SHARES)), proposer(retriever, ranker, self.n_candidates_, n_items)
        for part in row_chunks(len(judges.batch), 4 * n_items):
            batch, wanted = judges.batch.take(part), judges.wanted[part]
            n_wanted = np.diff(wanted.indptr).astype(np.int64)
            found = propose(batch, np.ones(len(batch)))
            scores = np.full(found.retrieved.shape, -np.inf, dtype=np.float32)
            for place, share in enumerate(SHARES):
                blended = found.blended(np.full(len(batch), share), retriever.popularity_ > 0)
                scores[found.rows[found.fresh], found.items[found.fresh]] = blended[found.fresh]
                values[place] += ndcg(hit_matrix(top_k(scores, 10).columns, wanted), n_wanted, 10).sum()
        return values

    def _items_appended(self) -> None:
        self.evidence_ = np.pad(self.evidence_, (0, len(self.items_) - len(self.evidence_)))
        for name in STAGES:
            # This may be a shallow copy, whose stages are those of another.
            stage = copy.copy(getattr(self, f"{name}_"))
            self._share_with(stage)
            stage._items_appended()
            setattr(self, f"{name}_", stage)

    def _batch_scorer(self) -> Scorer:
        propose = self._proposer()

        def score(batch: UserBatch) -> Floats:
            scores = np.empty((len(batch), len(self.items_)), dtype=np.float32)
            n_rows = max(CHUNK_ROWS, CELLS // scores.shape[1])
            for start in range(0, len(batch), n_rows):
                part = batch.take(slice(start, start + n_rows))
                weights = self.ranker_weight_[part.path]
                scores[start : start + n_rows] = self._blended(propose(part, weights), weights)
            return scores

        return score

    def _proposer(self) -> Callable[[UserBatch, Doubles], Proposals]:
        return proposer(self.retriever_, self.ranker_, self.n_candidates_, self.n_items_fitted_)

    def _score_batch(self, batch: UserBatch) -> Floats:
        return self._batch_scorer()(batch)

    def _blended(self, found: Proposals, weights: Doubles) -> Floats:
        """The score of every item: a blend for candidates, and for the others the retriever's, moved below."""
        inside = found.blended(weights, self.evidence_ > 0)
        inside += self._bonus(found.items)
        known = found.items < self.n_items_fitted_
        starts = np.searchsorted(found.rows[known], np.arange(len(weights)))
        bar = np.minimum.reduceat(found.retrieved[found.rows, found.items][known], starts)
        floor = np.minimum.reduceat(inside[known], starts) - np.float32(GAP)
        scores: Floats = found.retrieved - bar[:, None]
        scores /= found.first.scale.astype(np.float32)[:, None]
        scores += floor[:, None]
        scores[found.rows, found.items] = inside
        return scores

    def _bonus(self, items: Codes) -> Floats:
        return np.asarray(np.float32(self.exploration_) / np.sqrt(1 + self.evidence_[items]))

    def _lists(self, search: Callable[[int], TopK], k: int) -> TopK:
        if not self.diversity_:
            return search(k)
        assert isinstance(self.retriever_, VectorRecommender)
        return diversified(search(max(k, self.n_candidates_)), self.retriever_._item_embeddings(), self.diversity_, k)

    def _similarity(self, items: Codes) -> Floats:
        return self.retriever_._similarity(items)

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        """What both stages tell, in the measure in which their scores count, and what standardising takes away."""
        asked, at = np.unique(rows, return_inverse=True)
        batch = batch.take(asked)
        weights = self.ranker_weight_[batch.path]
        found = self._proposer()(batch, weights)
        inside = np.zeros(found.retrieved.shape, dtype=bool)
        inside[found.rows, found.items] = True
        candidate = inside[at, items]
        ranked = np.where(candidate & (self.evidence_[items] > 0), weights[at], 0.0)
        told = [
            _scaled(self.retriever_, batch, at, items, 1 - ranked, found.first),
            _scaled(self.ranker_, batch, at, items, ranked, found.second),
        ]
        moved = -(1 - ranked) * (found.first.mean / found.first.scale)[at]
        moved -= ranked * (found.second.mean / found.second.scale)[at]
        lowered = self._blended(found, weights)[at, items] - found.retrieved[at, items] / found.first.scale[at]
        told.append(_constant("prior", "average candidate", np.where(candidate, moved, lowered)))
        if self.exploration_:
            told.append(_constant("item", "exploration", np.where(candidate, self._bonus(items), 0.0)))
        frame = pd.concat([part for part in told if len(part)], ignore_index=True)
        together = frame.groupby(["row", "source", "field"], as_index=False, sort=False, dropna=False).sum()
        return together.astype({"weight": np.float32, "contribution": np.float32})

    def _fitted_state(self) -> dict[str, Any]:
        state = super()._fitted_state()
        for name in STAGES:
            if f"{name}_" in state:
                stage = copy.copy(state[f"{name}_"])
                for shared in SHARED:
                    vars(stage).pop(shared, None)
                state[f"{name}_"] = stage
        return state

    @classmethod
    def _from_saved(cls, parameters: dict[str, Any], state: dict[str, Any]) -> EstimatorState:
        model = super()._from_saved(parameters, state)
        assert isinstance(model, TwoStageRecommender)
        model._reconnect()
        return model

    def _reconnect(self) -> None:
        """Give the stages, and theirs, what was saved once."""
        for stage in [vars(self)[f"{name}_"] for name in STAGES if f"{name}_" in vars(self)]:
            self._share_with(stage)
            if isinstance(stage, TwoStageRecommender):
                stage._reconnect()


def _default_stage(name: str) -> BaseRecommender:
    """The model of a stage that was not given; torch and lightgbm are loaded only then."""
    if name == "retriever":
        from recsys.models.contrastive import ContrastiveRecommender

        return ContrastiveRecommender()
    from recsys.models.lightgbm import LightGBMRecommender

    return LightGBMRecommender()


def _scaled(
    stage: BaseRecommender, batch: UserBatch, rows: Codes, items: Codes, shares: Doubles, scores: Moments
) -> pd.DataFrame:
    """An explanation of pairs by a stage, as far as the stage counts in their score."""
    told = np.flatnonzero(shares)
    frame = stage._explain_all(as_known_to(stage, batch), rows[told], items[told])
    at = told[frame["row"].to_numpy(np.int64)]
    return frame.assign(
        row=at,
        weight=frame["weight"] * shares[at],
        contribution=frame["contribution"] * (shares / scores.scale[rows])[at],
    )


def _constant(source: str, field: str, parts: Doubles) -> pd.DataFrame:
    """One field of every pair."""
    return pd.DataFrame(
        {"row": np.arange(len(parts)), "source": source, "field": field, "weight": 1.0, "contribution": parts}
    )

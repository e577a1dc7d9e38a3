"""The idea of this package: one model for hot, warm and few-shot users and items."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from recsys._explanations import told_fields
from recsys._sparse import Csr, pattern, with_constant
from recsys._state import FEW_SHOT
from recsys.evaluation.metrics import hit_matrix, ndcg
from recsys.interactions import TrainingData, UserBatch
from recsys.models._contrastive_graphs import HALF_EVIDENCE, ContrastiveGraphs
from recsys.models._spreads import covariance, rescaling, spread_of
from recsys.models._tower_part import JUDGE_USERS, with_one
from recsys.models._user_memory import UserMemory
from recsys.models.content import LARGEST_L2
from recsys.nn.residual import BATCH, ResidualTower, train_residual
from recsys.nn.towers import FieldBags, bags_of, sizes_of
from recsys.nn.training import Problem, few_threads
from recsys.topk import row_chunks, single_threaded_blas, top_k

__all__ = ["ContrastiveRecommender"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Shares of the towers that are tried. Smaller ones would serve users no better, and warm items worse.
TOWER_SHARES = (0.2, 0.35, 0.5, 0.75, 1.0)


class ContrastiveRecommender(ContrastiveGraphs):
    r"""Contrastive cold-start model with adaptive feature fusion, which stands on the closed form.

    What is known of a user is told by four parts, each in the share that the evidence gives it. All of it is one inner
    product with the vectors of items. Of n interactions, and a mean of :math:`\bar n`, there is evidence of
    :math:`w = n / (n + \bar n / 4)`; what is learned of others has :math:`(1 - w)^2` to say:

    - `ContentEASE` completes attributes and history, linearly and in closed form. An item seen n times has the share
      1 / (n + 1) of its vector from content.
    - A memory of training users tells what those have whose history this may be. It is attended to by how likely that
      is: the optimum of a contrast of histories with users [1]_, in closed form. Its share is `memory_weight` times
      that; of users without a history it says nothing.
    - A network corrects both, from gated fields: attributes, context and history. It learns what they leave to say of
      histories of which a random part is shown. It says nothing of users without a history, unless `X` has context.
    - Two towers, with `tower_weight` of the scores, in a space of their own. A user has the fields id, attributes,
      context and history; an item has id and metadata. A gate weighs each field of each entity, knowing which are
      present and how much evidence is behind them. Training shows histories of random sizes, hides ids and fields at
      random, and minimises a softmax over the catalogue, once for items as they are and once for their content alone,
      plus a contrast that draws an item's content towards its id [2]_. Then a ridge regression in closed form reads out
      what hot items have learned from their content; an item seen n times has the share 1 / (n + 1) of its vector from
      there. The bias of warm items is raised until they would come up half as often as if they were hot: see
      `nn.readout.exposure_shift`.

    This is a reconstruction: the equations of [3]_ are not public.

    Parameters
    ----------
    n_factors : int, default=256
        Dimensions of the vectors of the closed form.
    n_tower_factors : int, default=128
        Dimensions of the towers' vectors.
    l2, attribute_l2 : float, default=260.0, 300.0
        Penalties of the closed form, as in `ContentEASE`.
    memory_weight : float, default=0.35
        Share of what is remembered of other users, for those of whom little is known; with 0 none are remembered.
    residual : bool, default=True
        Whether a network corrects what the closed form and the memory tell.
    tower_weight : float, default=None
        Share of the towers in the spread of scores; with 0 none are trained. None: of five shares, from 0.2 up, that
        which best completes training users of whom a random part is shown, by NDCG@10.
    max_iter : int, default=22
        Epochs of the towers: passes over all users (with context: over all users in each context); a third of them in
        `partial_fit`.
    learning_rate : float, default=0.0062
        Of Adam, for the towers.
    batch_size : int, default=None
        Queries in a step. None: an eighth of them, up to 512.
    id_dropout, field_dropout : float, default=0.42, 0.1
        How often a user's id, or a field of a user or item, is hidden in training.
    contrast_weight : float, default=0.3
        Weight of the contrast of content with ids.
    n_negatives : int, default=10000
        Catalogues with more hot items are sampled, so many draws a step, with correction; smaller ones are taken whole.
    early_stopping : bool, default=False
        Find the number of epochs, up to `max_iter`, on held-out new users, new items and interactions of known users,
        then train on everything for as long. Takes more than twice the time.
    validation_fraction : float, default=0.1
        Of users, of items and of interactions; with `early_stopping`.
    n_iter_no_change : int, default=5
        Epochs without improvement before stopping; with `early_stopping`.
    shrink, perturb : float, default=0.4, 0.1
        `partial_fit` starts from `shrink` times the towers' old embeddings plus `perturb` times fresh ones [4]_, and
        from all else of them as it is; the closed form is solved, and memory and correction are learned, again.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.
    random_state : int, RandomState instance or None, default=None
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    item_vectors_, history_vectors_, attribute_vectors_, mean_history_, content_map_, content_weights_, \
    content_score_, content_scale_
        As in `ContentEASE`.
    memory_ : UserMemory or None
        Whom the model remembers.
    residual_ : ResidualTower or None
        The network that corrects.
    fitted_weights_ : dict of str to float
        ``memory`` and ``towers``: the shares of the last fit.
    towers_ : Towers or None
        Both towers.
    tower_vectors_ : ndarray of shape (n_items, n_tower_factors + 1), float32
        The towers' vectors of the catalogue; the last dimension is the bias. Without towers they have none.
    n_iter_ : int
        Epochs of the towers in the last fit.
    loss_curve_ : list of float
        The mean loss of each epoch of the towers.
    readout_penalty_ : float
        The ridge penalty that the readout has chosen by leave-one-out error.
    warm_shift_ : float
        What is added to the towers' bias of warm items; 0 where items have no features.

    References
    ----------
    .. [1] A. van den Oord, Y. Li, O. Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018.
    .. [2] Y. Wei et al., "Contrastive Learning for Cold-Start Recommendation", MM 2021, section 3.
    .. [3] "Contrastive Learning for Cold Start Recommendation with Adaptive Feature Fusion", arXiv 2502.03664.
    .. [4] J. Ash, R. Adams, "On Warm-Starting Neural Network Training", NeurIPS 2020, section 4.

    Examples
    --------
    >>> users, items = ["ann", "bob", "cid", "dan"], ["tea", "ale", "jam", "rum", "gin"]
    >>> X = pd.DataFrame({"user_id": users * 2, "item_id": ["tea", "ale"] * 2 + ["jam", "rum"] * 2})
    >>> kinds = pd.DataFrame({"kind": ["soft", "hard", "soft", "hard", "hard"]}, index=items)
    >>> model = ContrastiveRecommender(n_factors=8, l2=1.0, max_iter=20, random_state=0).fit(X, item_features=kinds)
    >>> model.recommend(["bob"], k=1)["item_id"].tolist()
    ['gin']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "n_tower_factors": [Interval(Integral, 1, None, closed="left")],
        "l2": [Interval(Real, 0, LARGEST_L2, closed="right")],
        "attribute_l2": [Interval(Real, 0, LARGEST_L2, closed="right")],
        "memory_weight": [Interval(Real, 0, 1, closed="both")],
        "residual": ["boolean"],
        "tower_weight": [Interval(Real, 0, 1, closed="both"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "id_dropout": [Interval(Real, 0, 1, closed="left")],
        "field_dropout": [Interval(Real, 0, 1, closed="left")],
        "contrast_weight": [Interval(Real, 0, None, closed="left")],
        "n_negatives": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "shrink": [Interval(Real, 0, 1, closed="both")],
        "perturb": [Interval(Real, 0, None, closed="left")],
        "min_rating": [Real, None],
        "random_state": ["random_state"],
        "verbose": ["boolean"],
    }

    _uses_context = True

    def __init__(
        self,
        *,
        n_factors: int = 256,
        n_tower_factors: int = 128,
        l2: float = 260.0,
        attribute_l2: float = 300.0,
        memory_weight: float = 0.35,
        residual: bool = True,
        tower_weight: float | None = None,
        max_iter: int = 22,
        learning_rate: float = 0.0062,
        batch_size: int | None = None,
        id_dropout: float = 0.42,
        field_dropout: float = 0.1,
        contrast_weight: float = 0.3,
        n_negatives: int = 10_000,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        shrink: float = 0.4,
        perturb: float = 0.1,
        min_rating: float | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            n_factors=n_factors, l2=l2, attribute_l2=attribute_l2, min_rating=min_rating, random_state=random_state
        )
        self.n_tower_factors = n_tower_factors
        self.memory_weight = memory_weight
        self.residual = residual
        self.tower_weight = tower_weight
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.id_dropout = id_dropout
        self.field_dropout = field_dropout
        self.contrast_weight = contrast_weight
        self.n_negatives = n_negatives
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.shrink = shrink
        self.perturb = perturb
        self.verbose = verbose

    def _fit(self, data: TrainingData, warm: bool) -> None:
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(2**31 - 1))
        self.fitted_weights_ = {
            "memory": float(self.memory_weight),
            "towers": 1.0 if self.tower_weight is None else float(self.tower_weight),
        }
        problem = Problem(data)
        with single_threaded_blas():
            self._fit_closed_form(data, rng)
            self._fit_evidence(data, problem, rng, seed)
        if self.tower_weight != 0:
            self._fit_towers(data, problem, warm, seed)
            self.tower_covariance_ = covariance(self.tower_vectors_[np.flatnonzero(self.item_counts_)])
            if self.tower_weight is None:
                with single_threaded_blas():
                    self.fitted_weights_["towers"] = self._best_share(data, problem, seed)
        else:
            self._without_towers()

    def _fit_evidence(self, data: TrainingData, problem: Problem, rng: np.random.RandomState, seed: int) -> None:
        """What is learned of users on top of the closed form: what those like them have, and a correction."""
        attributes = with_constant(data.user_features.matrix)
        users = self._users_of(problem.known, attributes)
        self.item_covariance_ = covariance(self.item_vectors_[np.flatnonzero(self.item_counts_)])
        self.memory_: UserMemory | None = None
        if self.memory_weight:
            self.memory_ = UserMemory.learn(problem.known, users, self.item_vectors_, rng)
        self.residual_: ResidualTower | None = None
        if self.residual:
            sizes = sizes_of(data, self.item_vectors_.shape[1])
            tower = ResidualTower(sizes, seed)

            def closed_form(shown: Csr, users: Codes) -> tuple[Floats, Floats]:
                found = self._from_evidence(shown, attributes[users], users)
                return found.mixed, found.correction

            with few_threads(BATCH * self.n_factors**2):
                train_residual(tower, problem, closed_form, self.item_vectors_, seed)
            self.residual_ = tower

    def _without_towers(self) -> None:
        self.towers_, self.n_iter_ = None, 0
        self.loss_curve_: list[float] = []
        self.readout_penalty_ = self.warm_shift_ = 0.0
        self.tower_vectors_ = np.zeros((len(self.items_), 0), dtype=np.float32)
        for name in ("readout_", "readout_intercept_", "tower_history_", "tower_covariance_"):
            self.__dict__.pop(name, None)

    def _best_share(self, data: TrainingData, problem: Problem, seed: int) -> float:
        """The share of the towers with which partly shown histories are completed best, without the users' ids."""
        rng = np.random.default_rng(seed)
        # Where there are few, each is asked more than once.
        n_queries = len(problem.query_users)
        queries = np.repeat(rng.permutation(n_queries)[:JUDGE_USERS], -(-JUDGE_USERS // n_queries))
        shown, targets = problem.draw(queries, rng)
        # Of attributes alone those who were trained on tell too much.
        told = np.flatnonzero(np.diff(shown.indptr) > 0) if data.context is None else np.arange(len(queries))
        if not len(told):
            return TOWER_SHARES[0]
        queries, shown, targets = queries[told], shown[told], targets[told]
        users, n = problem.query_users[queries], len(queries)
        context = None if data.context is None else data.context.features.take(problem.context_row[queries])
        path = np.full(n, FEW_SHOT, dtype=np.int8)
        features = data.user_features.take(users)
        found = self._told(UserBatch(users, np.zeros(n, dtype=bool), shown, features, path, context))
        values = np.zeros(len(TOWER_SHARES))
        for rows in row_chunks(n, len(self.item_counts_)):
            closed = found.closed[rows] @ self.item_vectors_.T
            towers = found.towers[rows] @ self.tower_vectors_.T
            hidden = pattern(shown[rows]).toarray() > 0
            wanted = targets[rows]
            n_wanted = np.diff(wanted.indptr).astype(np.int64)
            for place, share in enumerate(TOWER_SHARES):
                scores = np.where(hidden, -np.inf, (1 - share) * closed + share * towers).astype(np.float32)
                values[place] += ndcg(hit_matrix(top_k(scores, 10)[0], wanted), n_wanted, 10).sum()
        return TOWER_SHARES[int(values.argmax())]

    def _items_appended(self) -> None:
        super()._items_appended()
        if self.memory_ is not None:
            self.memory_ = self.memory_.grown(len(self.items_))
        if self.towers_ is None:
            self.tower_vectors_ = np.zeros((len(self.items_), 0), dtype=np.float32)
        else:
            self._place_in_towers()

    def _item_parts(self) -> tuple[Floats, ...]:
        return self.item_vectors_, self.tower_vectors_

    def _item_embeddings(self) -> Floats:
        return self.item_vectors_

    def _user_vectors(self, batch: UserBatch) -> Floats:
        share = np.float32(self.fitted_weights_["towers"])
        # Whatever the number of threads, the same bits.
        with single_threaded_blas(), few_threads(0):
            told = self._told(batch)
        return np.column_stack([(1 - share) * told.closed, share * told.towers])

    def _from_evidence(self, history: Csr, attributes: Csr, codes: Codes) -> _Evidence:
        """What attributes and history tell of users, by the closed form and by the memory of others."""
        lengths = np.diff(history.indptr).astype(np.float32)
        evidence = lengths / (lengths + np.float32(HALF_EVIDENCE * self.mean_history_))
        room: Floats = ((1 - evidence) ** 2)[:, None]
        base = self._users_of(history, attributes)
        share = np.where(lengths > 0, np.float32(self.fitted_weights_["memory"]), 0).reshape(-1, 1) * room
        remembered = np.zeros_like(base)
        if self.memory_ is not None:
            told = np.flatnonzero(share)
            remembered[told] = self.memory_.attend(history[told], codes[told])
        spread, of_others = (spread_of(vectors, self.item_covariance_) for vectors in (base, remembered))
        remembered *= rescaling(of_others, spread)
        share *= (remembered != 0).any(axis=1, keepdims=True)
        # A correction needs something to start from; attributes alone are linear, and the closed form has them.
        correction = room
        if self.context_encoder_ is None:
            correction = np.where(lengths[:, None] > 0, room, np.float32(0))
        return _Evidence(correction, share, remembered, (1 - share) * base + share * remembered)

    def _told(self, batch: UserBatch) -> _Told:
        """All that is known of users, in shares that follow the evidence."""
        history = pattern(batch.history)
        known = self._from_evidence(history, with_constant(batch.features.matrix), batch.codes)
        corrected = np.zeros_like(known.mixed)
        if self.residual_ is not None:
            with torch.no_grad():
                found = self.residual_(FieldBags(batch.features), bags_of(batch.context, len(batch)), history)
            corrected = known.correction * found.numpy()
        closed = known.mixed + corrected
        if self.towers_ is None:
            # Its share is 0.
            nothing, one = np.zeros((len(batch), 0), np.float32), np.ones((len(batch), 1), np.float32)
            return _Told(closed, nothing, known, corrected, one)
        towers = with_one(self._tower_users(batch)[0])
        scale = rescaling(spread_of(towers, self.tower_covariance_), spread_of(closed, self.item_covariance_))
        return _Told(closed, scale * towers, known, corrected, scale)

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        """Of the towers, half of the inner product is told by the user's fields, half and the bias by the item's.

        A field that both parts heed weighs what it does in each, times the shares of the parts.
        """
        share = self.fitted_weights_["towers"]
        with single_threaded_blas(), few_threads(0):
            told = self._told(batch)
        vectors = np.float32(1 - share) * self.item_vectors_[items]
        memory = told.known.share[rows]
        closed = self._explain_against(batch, rows, (1 - memory) * vectors)
        closed["weight"] *= (1 - share) * (1 - memory)[closed["row"].to_numpy(), 0]
        added = [memory * told.known.remembered[rows], told.corrected[rows]]
        weights = (1 - share) * np.column_stack([memory, told.known.correction[rows] * (self.residual_ is not None)])
        told_by = np.column_stack([np.einsum("nd,nd->n", part, vectors) for part in added])
        names = ["similar users", "fields together"]
        parts = [closed, told_fields("user", names, weights, told_by)]
        if self.towers_ is not None:
            towers = pd.concat([self._explain_users(batch, rows, items), self._explain_items(batch, rows, items)])
            towers["weight"] *= share
            towers["contribution"] *= share * told.scale[rows][towers["row"].to_numpy(), 0]
            parts.append(towers)
        frame = pd.concat(parts, ignore_index=True)
        return frame.groupby(["row", "source", "field"], as_index=False, sort=False).agg(
            weight=("weight", "sum"), contribution=("contribution", "sum")
        )


class _Evidence(NamedTuple):
    """What attributes and history tell of n users.

    Attributes
    ----------
    correction, share : ndarray of shape (n, 1), float32
        What the correction is multiplied with, and the share of the memory: the less there is of a user, the more.
    remembered, mixed : ndarray of shape (n, d), float32
        What the memory tells, and all in all.
    """

    correction: Floats
    share: Floats
    remembered: Floats
    mixed: Floats


class _Told(NamedTuple):
    """The vectors of n users, and how they came about.

    Attributes
    ----------
    closed, towers : ndarray of shape (n, d) and (n, t + 1), float32
        The two parts of a user's vector, before they get their shares.
    known : _Evidence
    corrected : ndarray of shape (n, d), float32
        What the network adds.
    scale : ndarray of shape (n, 1), float32
        What the towers' scores are multiplied with, so that theirs spread as the others do.
    """

    closed: Floats
    towers: Floats
    known: _Evidence
    corrected: Floats
    scale: Floats

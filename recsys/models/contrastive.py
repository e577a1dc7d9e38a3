"""The idea of this package: one model for hot, warm and few-shot users and items."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from recsys._explanations import told_fields
from recsys._sparse import positives
from recsys._state import HOT
from recsys.features import EncodedFeatures
from recsys.interactions import TrainingData, UserBatch
from recsys.nn.readout import exposure_shift, ridge_readout
from recsys.nn.stopping import best_n_epochs
from recsys.nn.towers import ITEM_NORM, FieldBags, Towers, bags_of, sizes_of
from recsys.nn.training import Problem, Recipe, Trainer, batch_size_of, few_threads, run_epochs
from recsys.vectors import VectorRecommender

__all__ = ["ContrastiveRecommender"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# An item's vector is half tower, half readout of its content after this many interactions; readouts learn from items
# that have had many times more.
READOUT_EVIDENCE, TRUSTED_EVIDENCE = 1.0, 10.0
# Users by whom it is judged how often warm items come up.
JUDGE_USERS = 1000


class ContrastiveRecommender(VectorRecommender):
    r"""Contrastive cold-start model with adaptive feature fusion.

    Two towers over fields. A user has the fields id, attributes, context and history; an item has id and metadata. A
    gate weighs each field of each entity, knowing which are present and how much evidence is behind them, so that the
    same network answers hot, warm and few-shot users and items. The score is :math:`\langle u, v_i \rangle + b_i`.

    Training shows histories of random sizes, hides ids and fields at random, and minimises a softmax over the catalogue
    [1]_, once for items as they are and once for their content alone, plus a contrast that draws an item's content
    towards its id [2]_. Then a ridge regression in closed form reads out what hot items have learned from their
    content; an item seen n times has the share 1 / (n + 1) of its vector from there, a warm item all of it. The bias of
    warm items is raised until they would come up half as often as if they were hot: see `nn.readout.exposure_shift`.

    This is a reconstruction: the equations of [3]_ are not public.

    Parameters
    ----------
    n_factors : int, default=128
        Dimensions of the vectors.
    max_iter : int, default=38
        Epochs: passes over all users (with context: over all users in each context); a third of them in `partial_fit`.
    learning_rate : float, default=0.0062
        Of Adam.
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
        `partial_fit` starts from `shrink` times the old weights plus `perturb` times fresh ones [4]_.
    min_rating : float, default=None
        Rows of `y` below it are no positives. None: rows that are not above 0.
    random_state : int, RandomState instance or None, default=None
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    towers_ : Towers
        The network.
    item_vectors_ : ndarray of shape (n_items, n_factors + 1), float32
        Vectors of the catalogue; the last dimension is the bias.
    n_iter_ : int
        Epochs of the last fit.
    loss_curve_ : list of float
        The mean loss of each epoch.
    readout_penalty_ : float
        The ridge penalty that the readout has chosen by leave-one-out error.
    warm_shift_ : float
        What is added to the bias of warm items; 0 where items have no features.

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
    >>> model = ContrastiveRecommender(n_factors=8, max_iter=50, random_state=0).fit(X, item_features=kinds)
    >>> model.recommend(["bob"], k=1)["item_id"].tolist()
    ['gin']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
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

    _uses_user_features = True
    _uses_context = True

    towers_: Towers
    readout_: Floats
    readout_intercept_: Floats

    def __init__(
        self,
        *,
        n_factors: int = 128,
        max_iter: int = 38,
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
        self.n_factors = n_factors
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
        self.min_rating = min_rating
        self.random_state = random_state
        self.verbose = verbose

    def _fit(self, data: TrainingData, warm: bool) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        recipe = Recipe(
            self.learning_rate,
            self.batch_size,
            self.id_dropout,
            self.field_dropout,
            self.contrast_weight,
            self.n_negatives,
        )
        n_epochs = max(1, self.max_iter // 3) if warm else self.max_iter
        problem = Problem(data)
        with few_threads(batch_size_of(recipe, problem) * len(problem.hot) * self.n_factors):
            towers = self._train(data, problem, recipe, n_epochs, warm, seed)
        self.towers_ = towers
        left_out = self._read_out(data, seed)
        self._items_appended()
        if left_out is not None:
            self.warm_shift_ = self._find_shift(data, left_out, seed)
            self._items_appended()

    def _train(
        self, data: TrainingData, problem: Problem, recipe: Recipe, n_epochs: int, warm: bool, seed: int
    ) -> Towers:
        if self.early_stopping and not warm:
            n_epochs = best_n_epochs(
                data,
                lambda part: self._new_towers(part, seed),
                recipe,
                n_epochs,
                self.n_iter_no_change,
                self.validation_fraction,
                seed,
            )
        towers = self._new_towers(data, seed)
        # Another width starts afresh.
        if warm and self.towers_.sizes["factors"] == self.n_factors:
            _start_from(towers, self.towers_, self.shrink, self.perturb)
        trainer = Trainer(towers, problem, recipe, seed)
        bar = type(self).__name__ if self.verbose else None
        self.loss_curve_ = run_epochs(trainer, n_epochs, self.learning_rate, bar)
        self.n_iter_ = len(self.loss_curve_)
        trainer.swap_averages()
        return towers

    def _new_towers(self, data: TrainingData, seed: int) -> Towers:
        towers = Towers(sizes_of(data, self.n_factors), seed)
        counts = np.bincount(data.matrix.indices, minlength=data.matrix.shape[1])
        towers.start_biases(torch.from_numpy(counts).float())
        return towers

    def _read_out(self, data: TrainingData, seed: int) -> Floats | None:
        """Learn what content says; the vectors of hot items so predicted, each without itself, or None."""
        self.warm_shift_ = 0.0
        counts = np.bincount(data.matrix.indices, minlength=data.matrix.shape[1]).astype(np.float32)
        self.item_counts_ = counts
        hot = np.flatnonzero(counts)
        width = self.n_factors + 1
        if not len(hot):
            self.readout_ = np.zeros((data.item_features.n_columns, width), dtype=np.float32)
            self.readout_intercept_, self.readout_penalty_ = np.zeros(width, dtype=np.float32), 0.0
            return None
        vectors, _, _ = self._tower_items(data.item_features.take(hot), hot)
        trust = counts[hot] / (counts[hot] + TRUSTED_EVIDENCE)
        found = ridge_readout(data.item_features.matrix[hot], vectors, trust, seed)
        self.readout_, self.readout_intercept_, self.readout_penalty_, left_out = found
        return left_out if found.penalty else None

    def _find_shift(self, data: TrainingData, left_out: Floats, seed: int) -> float:
        active = np.flatnonzero(np.diff(data.matrix.indptr))
        codes = np.sort(np.random.default_rng(seed).permutation(active)[:JUDGE_USERS])
        hot, n = np.flatnonzero(self.item_counts_), len(codes)
        context = None if data.context is None else EncodedFeatures.empty(n, data.context.features.fields)
        path = np.full(n, HOT, dtype=np.int8)
        batch = UserBatch(
            codes, np.ones(n, dtype=bool), data.matrix[codes], data.user_features.take(codes), path, context
        )
        return exposure_shift(self._user_vectors(batch), data.matrix[codes][:, hot], self.item_vectors_[hot], left_out)

    def _tower_items(self, features: EncodedFeatures, items: Codes) -> tuple[Floats, Floats, Floats]:
        counts = torch.from_numpy(self.item_counts_[items])
        with torch.no_grad():
            found = self.towers_.items(FieldBags(features), self._id_rows(items), counts, with_ids=True)
        vectors, weights, values = (part.numpy() for part in found)
        return vectors, weights, values

    def _items_appended(self) -> None:
        counts = np.zeros(len(self.items_), dtype=np.float32)
        counts[: len(self.item_counts_)] = self.item_counts_
        self.item_counts_ = counts
        everything = np.arange(len(counts))
        tower, _, _ = self._tower_items(self.item_features_, everything)
        content = np.asarray(self.item_features_.matrix @ self.readout_) + self.readout_intercept_
        content[:, -1] += self._shift(counts)
        share = self._tower_share(counts)
        self.item_vectors_ = (share * tower + (1 - share) * content).astype(np.float32)
        with torch.no_grad():
            vectors, hot = torch.from_numpy(self.item_vectors_), torch.from_numpy(counts > 0)
            self.history_vectors_ = self.towers_.history_vectors(self._id_rows(everything), vectors, hot).numpy()

    def _id_rows(self, items: Codes) -> torch.Tensor:
        """Rows of the towers' tables; items that came later have none, and no interactions that would let it count."""
        return torch.from_numpy(np.minimum(items, len(self.towers_.item_ids) - 1))

    def _tower_share(self, counts: Floats) -> Floats:
        share: Floats = counts / (counts + np.float32(READOUT_EVIDENCE))
        return share[:, None]

    def _shift(self, counts: Floats) -> Floats:
        """That nobody has taken a warm item yet says nothing of it; that few have taken a hot one does."""
        return np.where(counts > 0, np.float32(0), np.float32(self.warm_shift_))

    def _item_vectors(self) -> Floats:
        return self.item_vectors_

    def _item_embeddings(self) -> Floats:
        return self.item_vectors_[:, :-1]

    def _user_vectors(self, batch: UserBatch) -> Floats:
        vectors, _, _ = self._tower_users(batch)
        return np.column_stack([vectors, np.ones(len(batch), dtype=np.float32)])

    def _tower_users(self, batch: UserBatch) -> tuple[Floats, Floats, Floats]:
        # Users who joined without training have no id to speak of.
        known = (batch.codes >= 0) & (batch.path == HOT) & (batch.codes < len(self.towers_.user_ids))
        counts = np.zeros(len(batch), dtype=np.float32)
        counts[known] = np.diff(positives(self.history_[batch.codes[known]]).indptr)
        ids = (
            torch.from_numpy(np.where(known, batch.codes, 0)),
            torch.from_numpy(counts),
            torch.from_numpy(known),
        )
        history = (
            torch.from_numpy(self.history_vectors_),
            torch.from_numpy(batch.history.indices.astype(np.int64)),
            torch.from_numpy(np.diff(batch.history.indptr).astype(np.int64)),
        )
        with torch.no_grad():
            found = self.towers_.users(ids, FieldBags(batch.features), bags_of(batch.context, len(batch)), history)
        vectors, weights, values = (part.numpy() for part in found)
        return vectors, weights, values

    def _explain_pairs(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        """Half of the inner product is told by the user's fields, half and the bias by the item's."""
        return pd.concat([self._explain_users(batch, rows, items), self._explain_items(batch, rows, items)])

    def _explain_users(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        vectors, weights, values = self._tower_users(batch)
        weighed = weights[..., None] * values
        fused = weighed.sum(1)
        # Squashing scales a vector as a whole, and its fields with it.
        scale = np.linalg.norm(vectors, axis=1) / np.maximum(np.linalg.norm(fused, axis=1), np.finfo(np.float32).tiny)
        parts = np.einsum("nfd,nd->nf", weighed[rows], self.item_vectors_[items, :-1]) * scale[rows, None] / 2
        names = ["id", *(field.name for field in batch.features.fields)]
        names += [] if batch.context is None else [field.name for field in batch.context.fields]
        return told_fields("user", [*names, "history"], weights[rows], parts)

    def _explain_items(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        users, _, _ = self._tower_users(batch)
        # Against [u / 2, 1] an item vector gives half of the inner product and the whole bias.
        against = np.column_stack([users[rows] / 2, np.ones(len(rows), dtype=np.float32)])
        features = self.item_features_.take(items)
        _, weights, values = self._tower_items(features, items)
        weighed = weights[..., None] * values
        fused = weighed.sum(1)[:, :-1]
        weighed[..., :-1] *= (ITEM_NORM / np.sqrt((fused**2).sum(1) + 1))[:, None, None]
        share = self._tower_share(self.item_counts_)[items]
        parts = share * np.einsum("nfd,nd->nf", weighed, against)
        weights = share * weights
        for position, field in enumerate(features.fields, start=1):
            block = np.asarray(features.block(field) @ self.readout_[field.start : field.stop])
            parts[:, position] += (1 - share[:, 0]) * np.einsum("nd,nd->n", block, against)
            weights[:, position] += (1 - share[:, 0]) * features.present[:, position - 1]
        told = told_fields("item", ["id", *(field.name for field in features.fields)], weights, parts)
        shift = self._shift(self.item_counts_[items])
        prior = (1 - share) * (against @ self.readout_intercept_ + shift)[:, None]
        return pd.concat([told, told_fields("prior", ["average item"], 1 - share, prior)])


def _start_from(towers: Towers, old: Towers, shrink: float, perturb: float) -> None:
    """Shrink the old embeddings and perturb them with the fresh ones; new rows stay fresh, gates stay as old."""
    with torch.no_grad():
        for name, weights in towers.named_parameters():
            before = old.get_parameter(name)
            if name.endswith(("_ids", "_columns")):
                weights[: len(before)] = shrink * before + perturb * weights[: len(before)]
            else:
                weights.copy_(before)

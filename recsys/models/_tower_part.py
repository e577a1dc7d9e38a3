"""The towers of `ContrastiveRecommender`: a network beside the closed form, in a space of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from recsys._explanations import told_fields
from recsys._sparse import positives
from recsys._state import HOT
from recsys.features import EncodedFeatures
from recsys.interactions import TrainingData, UserBatch
from recsys.models.content import ContentEASE
from recsys.nn.readout import exposure_shift, ridge_readout
from recsys.nn.stopping import best_n_epochs
from recsys.nn.towers import ITEM_NORM, FieldBags, Towers, bags_of, sizes_of
from recsys.nn.training import Problem, Recipe, Trainer, batch_size_of, few_threads, run_epochs

__all__ = ["TowerPart", "with_one"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# An item's vector is half tower, half readout of its content after this many interactions; readouts learn from items
# that have had many times more.
READOUT_EVIDENCE, TRUSTED_EVIDENCE = 1.0, 10.0
# Users by whom it is judged how often warm items come up, and how far the towers are to be heeded.
JUDGE_USERS = 1000


class TowerPart(ContentEASE):
    """Trains towers, places the catalogue and users in their space, and explains their scores.

    Its parameters and attributes are described where they are used: in `ContrastiveRecommender`.
    """

    n_tower_factors: int
    max_iter: int
    learning_rate: float
    batch_size: int | None
    id_dropout: float
    field_dropout: float
    contrast_weight: float
    n_negatives: int
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    shrink: float
    perturb: float
    verbose: bool

    towers_: Towers | None
    tower_vectors_: Floats
    readout_: Floats
    readout_intercept_: Floats

    def _fit_towers(self, data: TrainingData, problem: Problem, warm: bool, seed: int) -> None:
        recipe = Recipe(
            self.learning_rate,
            self.batch_size,
            self.id_dropout,
            self.field_dropout,
            self.contrast_weight,
            self.n_negatives,
        )
        n_epochs = max(1, self.max_iter // 3) if warm else self.max_iter
        with few_threads(batch_size_of(recipe, problem) * len(problem.hot) * self.n_tower_factors):
            towers = self._train(data, problem, recipe, n_epochs, warm, seed)
        self.towers_ = towers
        left_out = self._read_out(data, seed)
        self._place_in_towers()
        if left_out is not None:
            self.warm_shift_ = self._find_shift(data, left_out, seed)
            self._place_in_towers()

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
        old = self.towers_ if warm else None
        if old is not None and old.sizes["factors"] == self.n_tower_factors:
            _start_from(towers, old, self.shrink, self.perturb)
        trainer = Trainer(towers, problem, recipe, seed)
        bar = type(self).__name__ if self.verbose else None
        self.loss_curve_ = run_epochs(trainer, n_epochs, self.learning_rate, bar, n_frames=5)
        self.n_iter_ = len(self.loss_curve_)
        trainer.swap_averages()
        return towers

    def _new_towers(self, data: TrainingData, seed: int) -> Towers:
        towers = Towers(sizes_of(data, self.n_tower_factors), seed)
        counts = np.bincount(data.matrix.indices, minlength=data.matrix.shape[1])
        towers.start_biases(torch.from_numpy(counts).float())
        return towers

    def _read_out(self, data: TrainingData, seed: int) -> Floats | None:
        """Learn what content says; the vectors of hot items so predicted, each without itself, or None."""
        self.warm_shift_ = 0.0
        counts = self.item_counts_
        hot = np.flatnonzero(counts)
        width = self.n_tower_factors + 1
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
        users = with_one(self._tower_users(batch)[0])
        return exposure_shift(users, data.matrix[codes][:, hot], self.tower_vectors_[hot], left_out)

    def _tower_items(self, features: EncodedFeatures, items: Codes) -> tuple[Floats, Floats, Floats]:
        assert self.towers_ is not None
        counts = torch.from_numpy(self.item_counts_[items])
        with torch.no_grad():
            found = self.towers_.items(FieldBags(features), self._id_rows(items), counts, with_ids=True)
        vectors, weights, values = (part.numpy() for part in found)
        return vectors, weights, values

    def _place_in_towers(self) -> None:
        """Give the catalogue its vectors in the towers' space."""
        assert self.towers_ is not None
        counts = self.item_counts_
        everything = np.arange(len(counts))
        tower, _, _ = self._tower_items(self.item_features_, everything)
        content = np.asarray(self.item_features_.matrix @ self.readout_) + self.readout_intercept_
        content[:, -1] += self._shift(counts)
        share = self._tower_share(counts)
        self.tower_vectors_ = (share * tower + (1 - share) * content).astype(np.float32)
        with torch.no_grad():
            vectors, hot = torch.from_numpy(self.tower_vectors_), torch.from_numpy(counts > 0)
            self.tower_history_ = self.towers_.history_vectors(self._id_rows(everything), vectors, hot).numpy()

    def _id_rows(self, items: Codes) -> torch.Tensor:
        """Rows of the towers' tables; items that came later have none, and no interactions that would let it count."""
        assert self.towers_ is not None
        return torch.from_numpy(np.minimum(items, len(self.towers_.item_ids) - 1))

    def _tower_share(self, counts: Floats) -> Floats:
        share: Floats = counts / (counts + np.float32(READOUT_EVIDENCE))
        return share[:, None]

    def _shift(self, counts: Floats) -> Floats:
        """That nobody has taken a warm item yet says nothing of it; that few have taken a hot one does."""
        return np.where(counts > 0, np.float32(0), np.float32(self.warm_shift_))

    def _tower_users(self, batch: UserBatch) -> tuple[Floats, Floats, Floats]:
        assert self.towers_ is not None
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
            torch.from_numpy(self.tower_history_),
            torch.from_numpy(batch.history.indices.astype(np.int64)),
            torch.from_numpy(np.diff(batch.history.indptr).astype(np.int64)),
        )
        with torch.no_grad():
            found = self.towers_.users(ids, FieldBags(batch.features), bags_of(batch.context, len(batch)), history)
        vectors, weights, values = (part.numpy() for part in found)
        return vectors, weights, values

    def _explain_users(self, batch: UserBatch, rows: Codes, items: Codes) -> pd.DataFrame:
        vectors, weights, values = self._tower_users(batch)
        weighed = weights[..., None] * values
        fused = weighed.sum(1)
        # Squashing scales a vector as a whole, and its fields with it.
        scale = np.linalg.norm(vectors, axis=1) / np.maximum(np.linalg.norm(fused, axis=1), np.finfo(np.float32).tiny)
        parts = np.einsum("nfd,nd->nf", weighed[rows], self.tower_vectors_[items, :-1]) * scale[rows, None] / 2
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


def with_one(vectors: Floats) -> Floats:
    """Vectors with a last dimension of 1, for the bias."""
    return np.column_stack([vectors, np.ones(len(vectors), dtype=np.float32)])


def _start_from(towers: Towers, old: Towers, shrink: float, perturb: float) -> None:
    """Shrink the old embeddings and perturb them with the fresh ones; new rows stay fresh, all else stays as old."""
    with torch.no_grad():
        for name, weights in towers.named_parameters():
            before = old.get_parameter(name)
            if name.endswith(("_ids", "_columns")):
                weights[: len(before)] = shrink * before + perturb * weights[: len(before)]
            else:
                weights.copy_(before)

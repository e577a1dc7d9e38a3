"""Early stopping where it matters: on users and items that training has not seen, and on users it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from recsys._sparse import Csr, pattern, positives
from recsys.evaluation.metrics import hit_matrix, ndcg
from recsys.features import EncodedFeatures
from recsys.interactions import ContextRows, TrainingData
from recsys.nn.towers import FieldBags, Towers, bags_of
from recsys.nn.training import Problem, Recipe, Trainer
from recsys.topk import top_k

__all__ = ["best_n_epochs"]

# How many interactions of a held-out user are shown when the others are to be found.
REVEALED = (0, 1, 2, 5, 10)


def best_n_epochs(
    data: TrainingData,
    new_towers: Callable[[TrainingData], Towers],
    recipe: Recipe,
    max_epochs: int,
    patience: int,
    fraction: float,
    seed: int,
) -> int:
    """The number of epochs after which held-out entities are served best.

    A share of the users, of the items and of the other interactions is held out. After each epoch the mean is taken of
    three NDCG@10: of held-out users of whom 0, 1, 2, 5 or 10 interactions are revealed, of held-out items ranked among
    themselves, and of held-out interactions of known users.

    Parameters
    ----------
    data : TrainingData
    new_towers : callable
        Builds untrained towers for some data.
    recipe : Recipe
    max_epochs, patience : int
        Stop after `patience` epochs without improvement.
    fraction : float
        Share of users, items and interactions to hold out.
    seed : int

    Returns
    -------
    int
        From 1 to `max_epochs`; `max_epochs` where there is too little data to hold any out.
    """
    rng = np.random.default_rng(seed)
    held = _HeldOut(data, fraction, rng)
    if not held.train.matrix.nnz or not (held.users.nnz or held.items.nnz or held.pairs.nnz):
        return max_epochs
    towers = new_towers(held.train)
    trainer = Trainer(towers, Problem(held.train), recipe, seed)
    best, best_epoch = -1.0, 1
    for epoch in range(1, max_epochs + 1):
        if not np.isfinite(trainer.epoch()):
            break
        trainer.swap_averages()
        value = held.score(towers)
        trainer.swap_averages()
        if value > best:
            best, best_epoch = value, epoch
        elif epoch - best_epoch >= patience:
            break
    return best_epoch


class _HeldOut:
    """Training data without the users, items and pairs that are to be found."""

    def __init__(self, data: TrainingData, fraction: float, rng: np.random.Generator) -> None:
        n_users, n_items = data.matrix.shape
        matrix = pattern(data.matrix)
        self.user_out = rng.random(n_users) < fraction
        item_out = rng.random(n_items) < fraction
        pair_out = rng.random(matrix.nnz) < fraction
        row = np.repeat(np.arange(n_users), np.diff(matrix.indptr))
        of_users, of_items = self.user_out[row], item_out[matrix.indices]
        self.users = _only(matrix, of_users & ~of_items)
        self.items = _only(matrix, ~of_users & of_items)
        self.pairs = _only(matrix, ~of_users & ~of_items & pair_out)
        train = _only(data.matrix, ~of_users & ~of_items & ~pair_out)
        context = data.context
        if context is not None:
            kept = np.flatnonzero(np.asarray(train[context.users, context.items]).ravel() > 0)
            context = ContextRows(context.users[kept], context.items[kept], context.features.take(kept))
        self.train = replace(data, matrix=train, context=context)
        self.cold_items = np.flatnonzero(item_out)
        self.order = rng.random(self.users.nnz)

    def score(self, towers: Towers) -> float:
        """The mean NDCG@10 of the three groups that have anything to find."""
        counts = np.bincount(self.train.matrix.indices, minlength=self.train.matrix.shape[1]).astype(np.float32)
        all_items = torch.arange(len(counts))
        with torch.no_grad():
            bags = FieldBags(self.train.item_features)
            items = towers.items(bags, all_items, torch.from_numpy(counts), with_ids=True)[0]
            table = towers.history_vectors(all_items, items, torch.from_numpy(counts > 0))
        found = [self._new_users(towers, items, table, counts)]
        known = pattern(self.train.matrix)
        found.append(self._ndcg(towers, items, table, known, self.pairs, counts > 0))
        cold = np.zeros(len(counts), dtype=bool)
        cold[self.cold_items] = True
        found.append(self._ndcg(towers, items, table, known, self.items, cold))
        values = [value for value in found if not np.isnan(value)]
        return float(np.mean(values)) if values else 0.0

    def _new_users(
        self, towers: Towers, items: torch.Tensor, table: torch.Tensor, counts: npt.NDArray[np.float32]
    ) -> float:
        lengths = np.diff(self.users.indptr)
        row = np.repeat(np.arange(len(lengths)), lengths)
        place = np.empty(self.users.nnz, dtype=np.int64)
        place[np.argsort(row + self.order)] = np.arange(self.users.nnz) - np.repeat(self.users.indptr[:-1], lengths)
        half = lengths[row] // 2
        wanted = _only(self.users, place >= half)
        values = [
            self._ndcg(towers, items, table, _only(self.users, place < np.minimum(k, half)), wanted, counts > 0)
            for k in REVEALED
        ]
        return float(np.mean(values))

    def _ndcg(
        self,
        towers: Towers,
        items: torch.Tensor,
        table: torch.Tensor,
        shown: Csr,
        wanted: Csr,
        candidates: npt.NDArray[np.bool_],
    ) -> float:
        """Mean NDCG@10 of users whose history is `shown`, without their ids; NaN where nothing is wanted."""
        users = np.flatnonzero(np.diff(wanted.indptr))
        if not len(users):
            return float("nan")
        shown, wanted, n = shown[users], wanted[users], len(users)
        nobody = torch.zeros(n, dtype=torch.long), torch.zeros(n), torch.zeros(n, dtype=torch.bool)
        lengths = torch.from_numpy(np.diff(shown.indptr).astype(np.int64))
        history = table, torch.from_numpy(shown.indices.astype(np.int64)), lengths
        told = self.train.context
        context = None if told is None else EncodedFeatures.empty(n, told.features.fields)
        with torch.no_grad():
            bags = FieldBags(self.train.user_features.take(users))
            vectors = towers.users(nobody, bags, bags_of(context, n), history)[0]
            scores = (vectors @ items[:, :-1].T + items[:, -1]).numpy()
        scores[:, ~candidates] = -np.inf
        scores[np.repeat(np.arange(n), np.diff(shown.indptr)), shown.indices] = -np.inf
        hits = hit_matrix(top_k(scores, 10)[0], wanted)
        return float(ndcg(hits, np.diff(wanted.indptr).astype(np.int64), 10).mean())


def _only(matrix: Csr, kept: npt.NDArray[np.bool_]) -> Csr:
    chosen = matrix.copy()
    chosen.data = np.where(kept, chosen.data, 0)
    return positives(chosen)

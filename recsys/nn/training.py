"""Training the towers as they will be used: histories of any size, ids and fields that may be missing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from recsys._sparse import Csr, distinct_rows, keep, pattern, positives, random_places, to_csr
from recsys.features import EncodedFeatures
from recsys.interactions import TrainingData
from recsys.nn.losses import catalogue_softmax, content_contrast, sampled_softmax
from recsys.nn.towers import FieldBags, Towers, bags_of

__all__ = [
    "ATTRIBUTE_NORM",
    "Problem",
    "Recipe",
    "Trainer",
    "batch_size_of",
    "few_threads",
    "random_part",
    "run_epochs",
]

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Half of the histories have one of these sizes, the others any share of what is known.
HISTORY_SIZES = np.array([0, 1, 2, 5, 10])
# Content is seen with values missing, histories with the ids of items missing.
VALUE_DROPOUT, HISTORY_ID_DROPOUT = 0.3, 0.2
# Attributes of users are few and repeat, so their embeddings are held back: Adam's steps of unit size let a component
# grow to 1 over the decay, and so the whole to about this norm, whatever the number of dimensions.
ATTRIBUTE_NORM = 1.13
# Weights are averaged over the last hundred steps or so.
AVERAGING = 0.99
# Items in one contrast of content with ids.
CONTRAST_SIZE = 512
# Fewer multiplications than these in a product of matrices are one thread's work.
WORTH_THREADS = 10**8


@dataclass(frozen=True)
class Recipe:
    """The parameters of training; see `ContrastiveRecommender`."""

    learning_rate: float
    batch_size: int | None
    id_dropout: float
    field_dropout: float
    contrast_weight: float
    n_negatives: int


class Problem:
    """What is learned from, laid out for batches of queries.

    A query is a user or, with context, a user in one context; its targets are the items found there.

    Parameters
    ----------
    data : TrainingData

    Attributes
    ----------
    known : scipy.sparse.csr_matrix of shape (n_users, n_items)
        Ones for positives.
    query_users : ndarray of shape (n_queries,), int64
    query_targets : scipy.sparse.csr_matrix of shape (n_queries, n_items) or None
        None: all that is known of the user and not shown as history.
    hot : ndarray of shape (n_hot,), int64
        Items with positives: the others are neither targets nor negatives.
    """

    def __init__(self, data: TrainingData) -> None:
        self.known = pattern(data.matrix)
        self.item_counts = torch.from_numpy(np.bincount(data.matrix.indices, minlength=data.matrix.shape[1])).float()
        self.user_counts = torch.from_numpy(np.diff(data.matrix.indptr)).float()
        self.hot = np.flatnonzero(self.item_counts.numpy() > 0)
        self.users, self.items = FieldBags(data.user_features), FieldBags(data.item_features)
        self.query_targets: Csr | None = None
        self.context = bags_of(None, self.known.shape[0])
        self.query_users = np.flatnonzero(np.diff(self.known.indptr))
        self.context_row = self.query_users
        if data.context is not None and len(data.context.users):
            self._group_by_context(data.context.users, data.context.items, data.context.features)

    def _group_by_context(self, users: Codes, items: Codes, features: EncodedFeatures) -> None:
        first, query = distinct_rows(users, features.matrix)
        shape = (len(first), self.known.shape[1])
        self.query_targets = pattern(to_csr(query, items, np.ones(len(items), dtype=np.float32), shape))
        self.query_users = users[first]
        self.context = FieldBags(features)
        self.context_row = first

    def draw(self, queries: Codes, rng: np.random.Generator) -> tuple[Csr, Csr]:
        """Choose what is shown of each query's user and what is to be found.

        Parameters
        ----------
        queries : ndarray of shape (n,), int64
        rng : Generator

        Returns
        -------
        shown, targets : scipy.sparse.csr_matrix of shape (n, n_items)
            Without a common entry; every query has a target.
        """
        known = self.known[self.query_users[queries]]
        if self.query_targets is None:
            chosen = random_part(known, np.diff(known.indptr) - 1, rng)
            return keep(known, chosen), keep(known, ~chosen)
        targets = self.query_targets[queries]
        # The history may hold items of this context as well, as it will when asked; one target is never in it.
        others = positives(known - keep(targets, random_places(targets, rng) == 0))
        shown = keep(others, random_part(others, np.diff(others.indptr), rng))
        return shown, positives(targets - targets.minimum(shown))


def random_part(matrix: Csr, most: npt.NDArray[np.integer], rng: np.random.Generator) -> Mask:
    """Choose entries at random: half of the rows have 0, 1, 2, 5 or 10 of them, the others any share.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, m)
    most : ndarray of shape (n,), int
        Entries of each row, at the most.
    rng : Generator

    Returns
    -------
    ndarray of shape (nnz,), bool

    Examples
    --------
    >>> chosen = random_part(Csr(np.ones((1, 9))), np.array([2]), np.random.default_rng(0))
    >>> len(chosen), int(chosen.sum()) <= 2
    (9, True)
    """
    places, n = random_places(matrix, rng), matrix.shape[0]
    few, share = rng.choice(HISTORY_SIZES, n), np.floor(rng.random(n) * (most + 1))
    sizes = np.minimum(np.where(rng.random(n) < 0.5, few, share), most)
    return np.asarray(places < np.repeat(sizes, np.diff(matrix.indptr)))


def batch_size_of(recipe: Recipe, problem: Problem) -> int:
    """How many queries a step has: an eighth of them, up to 512, where it is not said.

    Parameters
    ----------
    recipe : Recipe
    problem : Problem

    Returns
    -------
    int
    """
    return recipe.batch_size or min(512, max(1, -(-len(problem.query_users) // 8)))


@contextmanager
def few_threads(multiplications: float) -> Iterator[None]:
    """Hold torch to one thread where its products are small: several would wait for each other, and spin.

    Parameters
    ----------
    multiplications : float
        In the largest product.

    Examples
    --------
    >>> with few_threads(1000):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    if multiplications < WORTH_THREADS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Epochs(Protocol):
    """A trainer as `run_epochs` sees it."""

    def epoch(self) -> float:
        """Pass once over the data; the mean loss, not finite if training has diverged."""


def run_epochs(
    trainer: _Epochs, n_epochs: int, learning_rate: float, bar: str | None, n_frames: int = 4
) -> list[float]:
    """Train for some epochs, or until training diverges, which is told in a warning.

    Parameters
    ----------
    trainer : object
        With a method ``epoch()`` that returns the mean loss; where that is not finite, it has gone back to the weights
        of an earlier epoch.
    n_epochs : int
    learning_rate : float
        For the warning.
    bar : str or None
        The name of a progress bar. None: show none.
    n_frames : int, default=4
        How far the caller of `fit` is, whose line the warning names: through `_train`, `_fit`, `_learn` and `fit`.

    Returns
    -------
    list of float
        The mean loss of each epoch that went well.
    """
    from tqdm import tqdm

    losses: list[float] = []
    for _ in tqdm(range(n_epochs), desc=bar, disable=bar is None):
        loss = trainer.epoch()
        if not np.isfinite(loss):
            warnings.warn(
                f"Training diverged in epoch {len(losses) + 1}: the loss is {loss}. The weights of an earlier epoch "
                f"are kept; lower `learning_rate` (it is {learning_rate}).",
                ConvergenceWarning,
                stacklevel=2 + n_frames,
            )
            break
        losses.append(loss)
    return losses


class Trainer:
    """Stochastic gradient descent on the towers.

    Parameters
    ----------
    towers : Towers
        Trained in place.
    problem : Problem
    recipe : Recipe
    seed : int
    """

    def __init__(self, towers: Towers, problem: Problem, recipe: Recipe, seed: int) -> None:
        self.towers = towers
        self.problem = problem
        self.recipe = recipe
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.batch_size = batch_size_of(recipe, problem)
        attributes = [towers.user_columns]
        others = [weights for weights in towers.parameters() if all(weights is not known for known in attributes)]
        decay = towers.user_columns.shape[1] ** 0.5 / ATTRIBUTE_NORM
        groups: list[dict[str, Any]] = [{"params": others}, {"params": attributes, "weight_decay": decay}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=0.0)
        self.averages = [weights.detach().clone() for weights in towers.parameters()]
        # Averages that a whole epoch of finite losses started from: training falls back to them if it diverges.
        self.sound = [average.clone() for average in self.averages]
        self.n_steps = 0
        n_hot = len(problem.hot)
        self.sampled = n_hot > recipe.n_negatives
        # Half by popularity, so that hard negatives are met, half uniform, so that the tail is.
        share = problem.item_counts[problem.hot].double() ** 0.75
        self.draw_shares = (0.5 * share / share.sum().clamp(min=1e-12) + 0.5 / max(n_hot, 1)).float()

    def epoch(self) -> float:
        """Pass once over the queries.

        Returns
        -------
        float
            The mean loss; not finite if training has diverged. The averages are then back where an earlier epoch
            started from them and went well.
        """
        before = [average.clone() for average in self.averages]
        order = self.rng.permutation(len(self.problem.query_users))
        losses = []
        for start in range(0, len(order), self.batch_size):
            loss = self._loss(order[start : start + self.batch_size])
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                self.averages = self.sound
                return losses[-1]
            self.optimizer.step()
            self.n_steps += 1
            pace = min(AVERAGING, self.n_steps / (self.n_steps + 9))
            torch._foreach_lerp_(self.averages, [weights.detach() for weights in self.towers.parameters()], 1 - pace)
        self.sound = before
        return float(np.mean(losses)) if losses else 0.0

    def swap_averages(self) -> None:
        """Exchange the weights with their averages."""
        with torch.no_grad():
            for weights, average in zip(self.towers.parameters(), self.averages, strict=True):
                kept = weights.clone()
                weights.copy_(average)
                average.copy_(kept)

    def _loss(self, queries: Codes) -> Tensor:
        problem, towers = self.problem, self.towers
        shown, targets = problem.draw(queries, self.rng)
        codes, negatives, log_expected = self._candidates(shown, targets)
        position = np.full(problem.known.shape[1], -1)
        position[codes] = np.arange(len(codes))
        items = torch.from_numpy(codes)
        counts = problem.item_counts[items]
        bags = problem.items.take(items)
        kept = {
            "values": self._survivors((len(bags.values),), VALUE_DROPOUT),
            "item_fields": self._survivors((len(codes), bags.n_fields), self.recipe.field_dropout),
        }
        vectors, _, _ = towers.items(bags, items, counts, with_ids=True, kept=kept)
        content, _, _ = towers.items(bags, items, counts, with_ids=False, kept=kept)
        table = towers.history_vectors(items, vectors, self._survivors((len(codes),), HISTORY_ID_DROPOUT))
        users = self._users(queries, table, torch.from_numpy(position[shown.indices]), shown)
        score = self._sampled_loss if self.sampled else self._full_loss
        loss = score(users, vectors, shown, targets, position, negatives, log_expected)
        if problem.items.n_fields:
            # The content view learns to answer the same users, who are not to be pulled towards it.
            loss = loss + score(users.detach(), content, shown, targets, position, negatives, log_expected)
            loss = loss + self.recipe.contrast_weight * self._contrast(content, items, counts)
        return loss

    def _candidates(self, shown: Csr, targets: Csr) -> tuple[Codes, Codes, Tensor]:
        """The items of this step, which of them are negatives of all, and how often those are expected."""
        hot, n = self.problem.hot, self.recipe.n_negatives
        if not self.sampled:
            return hot, hot, torch.zeros(len(hot))
        drawn = torch.multinomial(self.draw_shares, n, replacement=True, generator=self.generator)
        unique = torch.unique(drawn)
        # An item is in the sample unless n draws miss it.
        expected = -torch.expm1(n * torch.log1p(-self.draw_shares[unique].double()))
        negatives = hot[unique.numpy()]
        codes = np.unique(np.concatenate([negatives, shown.indices, targets.indices]))
        return codes.astype(np.int64), negatives, torch.log(expected).float()

    def _users(self, queries: Codes, table: Tensor, rows: Tensor, shown: Csr) -> Tensor:
        problem, n = self.problem, len(queries)
        codes = torch.from_numpy(problem.query_users[queries])
        bags = problem.users.take(codes)
        context = problem.context.take(torch.from_numpy(problem.context_row[queries]))
        known = self._survivors((n,), self.recipe.id_dropout)
        kept = {"user_fields": self._survivors((n, bags.n_fields + context.n_fields), self.recipe.field_dropout)}
        lengths = torch.from_numpy(np.diff(shown.indptr).astype(np.int64))
        ids = (codes, problem.user_counts[codes], known)
        vectors, _, _ = self.towers.users(ids, bags, context, (table, rows, lengths), kept)
        return vectors

    def _full_loss(self, users: Tensor, items: Tensor, shown: Csr, targets: Csr, position: Codes, *_: object) -> Tensor:
        shape = (len(users), len(items))
        scores = users @ items[:, :-1].T + items[:, -1]
        return catalogue_softmax(scores, _dense(targets, position, shape), _dense(shown, position, shape) > 0)

    def _sampled_loss(
        self,
        users: Tensor,
        items: Tensor,
        shown: Csr,
        targets: Csr,
        position: Codes,
        negatives: Codes,
        log_expected: Tensor,
    ) -> Tensor:
        rows = torch.from_numpy(np.repeat(np.arange(len(users)), np.diff(targets.indptr)))
        hits = items[torch.from_numpy(position[targets.indices])]
        found = (users[rows] * hits[:, :-1]).sum(1) + hits[:, -1]
        sample = items[torch.from_numpy(position[negatives])]
        scores = users @ sample[:, :-1].T + sample[:, -1]
        place = np.full(len(position), -1)
        place[negatives] = np.arange(len(negatives))
        hidden = _dense(shown, place, tuple(scores.shape)) + _dense(targets, place, tuple(scores.shape)) > 0
        return sampled_softmax(found, rows, scores, log_expected, hidden)

    def _contrast(self, content: Tensor, items: Tensor, counts: Tensor) -> Tensor:
        size = min(CONTRAST_SIZE, len(items))
        chosen = torch.multinomial(counts.clamp(min=1e-3).sqrt(), size, generator=self.generator)
        return content_contrast(content[chosen, :-1], self.towers.item_ids[items[chosen], :-1])

    def _survivors(self, shape: tuple[int, ...], dropout: float) -> Tensor:
        return torch.rand(shape, generator=self.generator) >= dropout


def _dense(matrix: Csr, place: Codes, shape: tuple[int, ...]) -> Tensor:
    """Ones where the matrix has entries whose column has a place, 0 elsewhere."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    columns = place[matrix.indices]
    dense = np.zeros(shape, dtype=np.float32)
    dense[rows[columns >= 0], columns[columns >= 0]] = 1
    return torch.from_numpy(dense)

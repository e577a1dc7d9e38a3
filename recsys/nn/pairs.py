"""Training DeepFM: steps of pairs, each positive once an epoch, and a softmax against negatives of its query."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from recsys._sparse import Csr
from recsys.interactions import TrainingData
from recsys.nn.deepfm import DeepFMNet
from recsys.nn.training import ATTRIBUTE_NORM, Problem

__all__ = ["DeepFMTrainer", "PairBatch", "PairRecipe", "PairSampler", "group_softmax"]

Codes = npt.NDArray[np.int64]

# Half of the histories have about so many interactions, the others any share of what is known.
HISTORY_SIZES = np.array([0.0, 1.0, 2.0, 5.0, 10.0])
# A query has at most so many targets: a user with more is several, each with a history of its own.
MOST_TARGETS = 32
# Half of the negatives are drawn by popularity, so that hard ones are met, half evenly, so that the tail is.
BY_POPULARITY = 0.5
# How often the id of an item is hidden, in a pair and in all histories of a step.
ITEM_ID_DROPOUT, HISTORY_ID_DROPOUT = 0.2, 0.2
# The weights are averaged over the last hundred steps or so, every tenth step.
AVERAGING, AVERAGED_STEPS = 0.9, 10


@dataclass(frozen=True)
class PairRecipe:
    """The parameters of training; see `DeepFM`."""

    learning_rate: float
    batch_size: int
    n_negatives: int
    id_dropout: float
    dropout: float
    l2: float


@dataclass(frozen=True)
class PairBatch:
    """Pairs of one step, and the histories of its queries.

    Attributes
    ----------
    queries : ndarray of shape (n_queries,), int64
    rows, items : ndarray of shape (n_pairs,), int64
        The position in `queries` and the item of each pair, those of positives first.
    n_positives : int
    history : ndarray of int64
        Items of the histories, query after query.
    lengths : ndarray of shape (n_queries,), int64
        How many of them each query has.
    """

    queries: Codes
    rows: Codes
    items: Codes
    n_positives: int
    history: Codes
    lengths: Codes


class PairSampler:
    """Cuts an epoch into steps: each positive is a target once, with negatives and without itself in the history.

    A query is a user, or a user in one context. Its targets are dealt at random into groups of up to 32 (without
    context into two at least), and the history of a group is drawn from what else the user has.

    Parameters
    ----------
    data : TrainingData
    n_negatives : int
        Drawn for each positive; those that are positives of the same query are left out.

    Attributes
    ----------
    problem : Problem
    targets : scipy.sparse.csr_matrix of shape (n_queries, n_items)
    """

    def __init__(self, data: TrainingData, n_negatives: int) -> None:
        self.problem = Problem(data)
        self.n_negatives = n_negatives
        self.has_context = self.problem.query_targets is not None
        self.targets: Csr = self.problem.known[self.problem.query_users]
        if self.problem.query_targets is not None:
            self.targets = self.problem.query_targets
        counts = np.bincount(self.targets.indices, minlength=self.targets.shape[1])
        n_hot = max(int(np.count_nonzero(counts)), 1)
        share = BY_POPULARITY * counts / max(counts.sum(), 1) + (1 - BY_POPULARITY) * (counts > 0) / n_hot
        # How much oftener an item is a negative than if all hot ones were drawn evenly.
        self.log_excess = np.log(np.maximum(share * n_hot, 1e-12)).astype(np.float32)
        # Between one user one vote and one interaction one vote.
        self.weights = (1 / np.sqrt(np.maximum(np.diff(self.targets.indptr), 1))).astype(np.float32)

    def deal(self, rng: np.random.Generator) -> tuple[Codes, Codes, Codes]:
        """Deal the targets of all queries into groups.

        Parameters
        ----------
        rng : Generator

        Returns
        -------
        order : ndarray of shape (n_targets,), int64
            Positions in ``targets.indices``, group after group.
        starts : ndarray of shape (n_groups + 1,), int64
            Where each group starts in `order`.
        queries : ndarray of shape (n_groups,), int64
        """
        lengths = np.diff(self.targets.indptr)
        row = np.repeat(np.arange(len(lengths)), lengths)
        order = np.argsort(row + rng.random(len(row)))
        fewest = 1 if self.has_context else 2
        n_groups = np.minimum(np.maximum(-(-lengths // MOST_TARGETS), fewest), lengths)
        place = np.arange(len(row)) - np.repeat(self.targets.indptr[:-1], lengths)
        group = (np.cumsum(n_groups) - n_groups)[row] + place * n_groups[row] // lengths[row]
        starts = np.searchsorted(group, np.arange(n_groups.sum() + 1))
        return order, starts, np.repeat(np.arange(len(lengths)), n_groups)

    def batches(self, n_targets: int, rng: np.random.Generator) -> list[tuple[Codes, Codes, Codes]]:
        """Cut an epoch into steps of about so many targets: of each the queries, rows and target items."""
        order, starts, queries = self.deal(rng)
        groups = rng.permutation(len(queries))
        sizes = np.diff(starts)[groups]
        step = (np.cumsum(sizes) - sizes) // n_targets
        cuts = np.flatnonzero(np.diff(step, prepend=-1, append=step[-1] + 1))
        found = []
        for start, stop in pairwise(cuts):
            some, many = groups[start:stop], sizes[start:stop]
            shift = starts[some] - (np.cumsum(many) - many)
            at = order[np.arange(many.sum()) + np.repeat(shift, many)]
            items = self.targets.indices[at].astype(np.int64)
            found.append((queries[some], np.repeat(np.arange(len(some)), many), items))
        return found

    def complete(self, step: tuple[Codes, Codes, Codes], rng: np.random.Generator) -> PairBatch:
        """Draw the negatives and the histories of a step.

        Parameters
        ----------
        step : tuple
            Queries, rows of the targets, target items.
        rng : Generator

        Returns
        -------
        PairBatch
        """
        queries, rows, items = step
        known = self.problem.known[self.problem.query_users[queries]]
        n_items = known.shape[1]
        lengths = np.diff(known.indptr)
        row = np.repeat(np.arange(len(queries)), lengths)
        keys = row * n_items + known.indices
        others = np.ones(len(keys), dtype=bool)
        others[np.searchsorted(keys, rows * n_items + items)] = False
        n_others = np.bincount(row[others], minlength=len(queries))
        few = rng.choice(HISTORY_SIZES, len(queries)) / np.maximum(n_others, 1)
        rate = np.where(rng.random(len(queries)) < 0.5, few, rng.random(len(queries)))
        shown = others & (rng.random(len(keys)) < rate[row])
        drawn = np.repeat(rows, self.n_negatives)
        negatives = self._draw(len(drawn), rng)
        wanted = self.targets[queries] if self.has_context else known
        found = np.repeat(np.arange(len(queries)), np.diff(wanted.indptr)) * n_items + wanted.indices
        drawn_keys = drawn * n_items + negatives
        missed = found[np.minimum(np.searchsorted(found, drawn_keys), len(found) - 1)] != drawn_keys
        return PairBatch(
            queries,
            np.concatenate([rows, drawn[missed]]),
            np.concatenate([items, negatives[missed]]),
            len(items),
            known.indices[shown].astype(np.int64),
            np.bincount(row[shown], minlength=len(queries)),
        )

    def _draw(self, n: int, rng: np.random.Generator) -> Codes:
        hot = self.problem.hot
        popular = self.targets.indices[rng.integers(len(self.targets.indices), size=n)]
        return np.where(rng.random(n) < BY_POPULARITY, popular, hot[rng.integers(len(hot), size=n)])


class DeepFMTrainer:
    """Stochastic gradient descent on the network.

    The loss is a softmax of each positive against the negatives of its query, which its other targets share. The scores
    of negatives are lowered by the logarithm of how much oftener they are drawn than evenly, so that how they are drawn
    does not bend what is learned.

    Parameters
    ----------
    net : DeepFMNet
        Trained in place.
    sampler : PairSampler
    recipe : PairRecipe
    seed : int
    """

    def __init__(self, net: DeepFMNet, sampler: PairSampler, recipe: PairRecipe, seed: int) -> None:
        self.net, self.sampler, self.recipe = net, sampler, recipe
        self.rng = np.random.default_rng(seed)
        tables, attributes = net.lookup_tables, net.get_parameter("user_columns")
        others = [w for w in net.parameters() if all(w is not table for table in (*tables, attributes))]
        decay = net.sizes["factors"] ** 0.5 / ATTRIBUTE_NORM
        self.optimizers: list[torch.optim.Optimizer] = [
            # A step moves the rows of the tables that it has met, and no others.
            torch.optim.SparseAdam(tables, lr=recipe.learning_rate),
            torch.optim.Adam(others, lr=recipe.learning_rate),
            # Attributes are few and repeat, so their vectors are held back.
            torch.optim.AdamW([attributes], lr=recipe.learning_rate, weight_decay=decay),
        ]
        self.log_excess = torch.from_numpy(sampler.log_excess)
        self.averages = [weights.detach().clone() for weights in net.parameters()]
        # Averages that a whole epoch of finite losses started from: training falls back to them if it diverges.
        self.sound = [average.clone() for average in self.averages]
        self.n_steps = 0

    def epoch(self) -> float:
        """Pass once over the positives.

        Returns
        -------
        float
            The mean loss; not finite if training has diverged. The averages are then back where an earlier epoch
            started from them and went well.
        """
        before = [average.clone() for average in self.averages]
        steps = self.sampler.batches(max(1, self.recipe.batch_size // (1 + self.recipe.n_negatives)), self.rng)
        losses = []
        for step in steps:
            losses.append(self.step(self.sampler.complete(step, self.rng)))
            if not np.isfinite(losses[-1]):
                self.averages = self.sound
                return losses[-1]
        self._average()
        self.sound = before
        return float(np.mean(losses))

    def step(self, batch: PairBatch) -> float:
        """Take one step of gradient descent, none where the loss is not finite.

        Parameters
        ----------
        batch : PairBatch

        Returns
        -------
        float
            The loss before the step.
        """
        loss = self._loss(batch)
        value = float(loss.detach())
        if not np.isfinite(value):
            return value
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(loss)
        for optimizer in self.optimizers:
            optimizer.step()
        self.n_steps += 1
        if self.n_steps % AVERAGED_STEPS == 0:
            self._average()
        return value

    def _average(self) -> None:
        n = self.n_steps / AVERAGED_STEPS
        pace = min(AVERAGING, n / (n + 1))
        torch._foreach_lerp_(self.averages, [weights.detach() for weights in self.net.parameters()], 1 - pace)

    def swap_averages(self) -> None:
        """Exchange the weights with their averages."""
        with torch.no_grad():
            for weights, average in zip(self.net.parameters(), self.averages, strict=True):
                kept = weights.clone()
                weights.copy_(average)
                average.copy_(kept)

    def _loss(self, batch: PairBatch) -> Tensor:
        places, at = np.unique(np.concatenate([batch.items, batch.history]), return_inverse=True)
        users, items, penalty = self._halves(batch, places, at[len(batch.items) :])
        rows, columns = torch.from_numpy(batch.rows), torch.from_numpy(at[: len(batch.items)])
        # With its id or as its content alone: both views of an item learn from the same users.
        columns = columns + len(places) * ~self._survivors(len(columns), ITEM_ID_DROPOUT)
        scores = self.net.pairs(users.index_select(0, rows), items.index_select(0, columns), self._kept(len(rows)))
        n = batch.n_positives
        negatives = scores[n:] - self.log_excess[torch.from_numpy(batch.items[n:])]
        n_hot, weights = len(self.sampler.problem.hot), torch.from_numpy(self.sampler.weights[batch.queries])
        loss = group_softmax(scores[:n], rows[:n], negatives, rows[n:], weights, n_hot)
        return loss + self.recipe.l2 * penalty

    def _halves(self, batch: PairBatch, places: Codes, history: Codes) -> tuple[Tensor, Tensor, Tensor]:
        """The halves of the users, those of the items with ids and then without, and what `l2` weighs."""
        problem, net = self.sampler.problem, self.net
        codes = torch.from_numpy(places)
        of_items = net.item_fields(problem.items.take(codes), codes, torch.ones(len(codes), dtype=torch.bool))
        table = net.history_vectors(of_items, codes, self._survivors(len(codes), HISTORY_ID_DROPOUT))
        users = torch.from_numpy(problem.query_users[batch.queries])
        context = problem.context.take(torch.from_numpy(problem.context_row[batch.queries]))
        ids = users, self._survivors(len(users), self.recipe.id_dropout)
        shown = table, torch.from_numpy(history), torch.from_numpy(batch.lengths)
        of_users = net.user_fields(ids, problem.users.take(users), context, shown)
        squares = [(values * values).sum() / len(values) for values in (*of_users, *of_items)]
        return net.halves(of_users, "user")[0], torch.cat(net.halves(of_items, "item")), torch.stack(squares).sum()

    def _kept(self, n: int) -> list[Tensor] | None:
        # A random byte a unit is much cheaper than a random float.
        n_dropped = min(round(256 * self.recipe.dropout), 255)
        if not n_dropped:
            return None
        scale = 256 / (256 - n_dropped)
        drawn = (self.rng.integers(256, size=(n, width), dtype=np.uint8) for width in self.net.hidden)
        return [torch.from_numpy((values >= n_dropped) * np.float32(scale)) for values in drawn]

    def _survivors(self, n: int, dropout: float) -> Tensor:
        return torch.from_numpy(self.rng.random(n) >= dropout)


def group_softmax(
    positives: Tensor, rows: Tensor, negatives: Tensor, negative_rows: Tensor, weights: Tensor, n_items: int
) -> Tensor:
    r"""Softmax cross-entropy of each positive against the negatives of its query.

    .. math:: -\log \frac{e^{s_p}}{e^{s_p} + \frac{N}{n} \sum_{j=1}^n e^{s_j}}

    with the n negatives of the query, which stand for a catalogue of N items.

    Parameters
    ----------
    positives, negatives : Tensor of shape (n_positives,) and (n_negatives,)
        Their scores; those of negatives lowered by the logarithm of how much oftener they are drawn than evenly.
    rows, negative_rows : Tensor of shape (n_positives,) and (n_negatives,)
        The query of each.
    weights : Tensor of shape (n_queries,)
        How much a positive of each query counts.
    n_items : int

    Returns
    -------
    Tensor, scalar
        The weighted mean over positives; 0 for one whose query has no negatives.

    References
    ----------
    Y. Bengio, J.-S. Senécal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
    Model", IEEE Transactions on Neural Networks, 2008.

    Examples
    --------
    Two negatives of a catalogue of three, and a positive that scores like them: one in four.

    >>> scores, rows = torch.zeros(2), torch.tensor([0, 0])
    >>> round(group_softmax(scores[:1], rows[:1], scores, rows, torch.ones(1), 3).exp().item(), 4)
    4.0
    """
    n_queries, weight = len(weights), weights[rows]
    n = torch.bincount(negative_rows, minlength=n_queries)
    top = torch.zeros(n_queries).scatter_reduce(0, negative_rows, negatives.detach(), "amax", include_self=False)
    total = torch.zeros(n_queries).index_add(0, negative_rows, torch.exp(negatives - top[negative_rows]))
    # Where there are no negatives the logarithm is far below any score, and finite.
    normaliser = top + torch.log(total.clamp(min=1e-30)) + torch.log(n_items / n.clamp(min=1))
    return (weight * functional.softplus(normaliser[rows] - positives)).sum() / weight.sum()

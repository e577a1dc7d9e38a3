r"""What a network adds to vectors of users that a closed form gives: a correction, which starts at nothing.

The vectors v of items stay as they are, and so does what the closed form knows: the network sees a random part h of
each history and learns what the vectors u of the closed form leave to say of the rest, by squares,

.. math:: \sum_u \frac{1}{\sqrt{n_u}} \sum_{i \notin h} \bigl(x_{ui} - a_u \, (u + r(h, f)) \cdot v_i\bigr)^2.

How many interactions are still to come cannot be known from a part and ought not to be learned: the factor
:math:`a_u` fits the scale of each user's scores to what they have, before the correction. The sum over the catalogue
is a quadratic form, so that its cost does not grow with the number of items.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn import functional

from recsys._asked import AskedUsers
from recsys._graphs import Value
from recsys._sparse import Csr
from recsys.features import Field
from recsys.nn.fusion import GatedFusion
from recsys.nn.towers import HISTORY, FieldBags, embedded
from recsys.nn.training import Problem
from recsys.persistence import persistent

__all__ = ["ResidualTower", "train_residual"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

WIDTH, DROPOUT = 256, 0.5
# Queries in a step; steps at the least, and one epoch; the learning rate falls from this to a fiftieth of it.
BATCH, LEAST_STEPS, LEARNING_RATE = 256, 150, 0.001
LEAST_RATE = 0.02
# Scales of scores are fitted between these.
LEAST_SCALE, MOST_SCALE = 0.05, 20.0
SMALL = 0.05


@persistent
class ResidualTower(nn.Module):
    """A layer of hidden units over gated fields: attributes, context and history.

    Parameters
    ----------
    sizes : dict of str to int
        ``items``, ``user_columns``, ``context_columns``, ``user_fields``, ``context_fields``, as in `Towers`, and
        ``factors``, the width of what comes out.
    seed : int

    Examples
    --------
    >>> from recsys.nn.towers import bags_of
    >>> names = ["items", "user_columns", "context_columns", "user_fields", "context_fields"]
    >>> tower = ResidualTower(dict.fromkeys(names, 0) | {"items": 2, "factors": 3}, seed=0)
    >>> nobody = bags_of(None, 1)
    >>> tower(nobody, nobody, Csr(np.ones((1, 2)))).tolist()
    [[0.0, 0.0, 0.0]]
    """

    def __init__(self, sizes: dict[str, int], seed: int) -> None:
        super().__init__()
        self.sizes, self.seed = sizes, seed
        generator = torch.Generator().manual_seed(seed)

        def table(n: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(n, WIDTH, generator=generator) * SMALL)

        self.history_ids = table(sizes["items"])
        self.user_columns = table(sizes["user_columns"])
        self.context_columns = table(sizes["context_columns"])
        n_fields = sizes["user_fields"] + sizes["context_fields"]
        self.gates = GatedFusion(n_fields + 1, WIDTH, {n_fields: HISTORY})
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        self.out = nn.Parameter(torch.zeros(WIDTH, sizes["factors"]))

    def forward(self, bags: FieldBags, context: FieldBags, history: Csr) -> Tensor:
        """Correct vectors of users.

        Parameters
        ----------
        bags, context : FieldBags of n users
        history : scipy.sparse.csr_matrix of shape (n, n_items)
            Items that joined later say nothing.

        Returns
        -------
        Tensor of shape (n, factors)
        """
        known = history[:, : len(self.history_ids)]
        lengths = torch.from_numpy(np.diff(known.indptr).astype(np.int64))
        rows, starts = (
            torch.from_numpy(known.indices.astype(np.int64)),
            torch.from_numpy(known.indptr[:-1].astype(np.int64)),
        )
        heard = functional.embedding_bag(rows, self.history_ids, starts, mode="sum")
        heard = heard * lengths.clamp(min=1).rsqrt().unsqueeze(1)
        fields = [bags.embed(self.user_columns), context.embed(self.context_columns), heard.unsqueeze(1)]
        present = torch.cat([bags.present, context.present, (lengths > 0).unsqueeze(1)], 1)
        evidence = torch.zeros(present.shape)
        evidence[:, -1] = torch.log1p(lengths.float())
        _, fused = self.gates(torch.cat(fields, 1), present, evidence)
        hidden = torch.tanh(fused + self.bias)
        return functional.dropout(hidden, DROPOUT, self.training) @ self.out

    def graph(self, asked: AskedUsers, fields: Sequence[Field], context_fields: Sequence[Field]) -> Value:
        """What `forward` computes, as a graph."""
        weights = {name: weight.detach().numpy() for name, weight in self.named_parameters()}
        graph, history = asked.graph, asked.history.exported.pattern.below(len(self.history_ids))
        lengths = history.lengths
        heard = history.product(weights["history_ids"]) / graph.apply("Sqrt", lengths.at_least(1.0))
        values, present = embedded(asked, fields, context_fields, weights)
        uncounted = [found * 0.0 for found in present]
        _, fused = self.gates.graph(
            graph.concat([*values, heard.expand(1)], 1),
            graph.concat([*present, lengths.exceeds(0.0)], 1),
            graph.concat([*uncounted, graph.apply("Log", lengths + 1.0)], 1),
        )
        return graph.apply("Tanh", fused + weights["bias"]) @ weights["out"]

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        arrays = {name.replace(".", "/"): value.numpy() for name, value in self.state_dict().items()}
        return {"sizes": self.sizes, "seed": self.seed, "arrays": arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ResidualTower:
        """The inverse of `to_state`."""
        tower = cls(state["sizes"], state["seed"])
        arrays = {name.replace("/", "."): torch.from_numpy(np.array(value)) for name, value in state["arrays"].items()}
        tower.load_state_dict(arrays)
        return tower.eval()


def train_residual(
    tower: ResidualTower,
    problem: Problem,
    closed_form: Callable[[Csr, Codes], tuple[Floats, Floats]],
    item_vectors: Floats,
    seed: int,
) -> list[float]:
    """Train a correction by steps of Adam.

    Parameters
    ----------
    tower : ResidualTower
        Trained in place.
    problem : Problem
    closed_form : callable
        From what is shown of some queries and their users' codes to the vectors of the closed form, (n, factors), and
        the weight of the correction, (n, 1).
    item_vectors : ndarray of shape (n_items, factors), float32
    seed : int

    Returns
    -------
    list of float
        The mean loss of each epoch. Where one is not finite, which is told in a warning, the tower says nothing.
    """
    rng = np.random.default_rng(seed)
    hot = torch.from_numpy(item_vectors[problem.hot])
    gram, vectors = hot.T @ hot, torch.from_numpy(item_vectors)
    optimizer = torch.optim.Adam(tower.parameters(), lr=LEARNING_RATE)
    queries = problem.query_users
    n_steps = -(-len(queries) // BATCH)
    n_epochs = max(1, -(-LEAST_STEPS // n_steps))
    curve, step = [], 0
    tower.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(n_epochs):
            order, losses = rng.permutation(len(queries)), []
            for start in range(0, len(order), BATCH):
                chosen = order[start : start + BATCH]
                for group in optimizer.param_groups:
                    group["lr"] = LEARNING_RATE * max(LEAST_RATE, 1 - step / (n_epochs * n_steps))
                loss = _loss(tower, problem, closed_form, chosen, vectors, gram, rng)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                losses.append(float(loss.detach()))
                step += 1
            curve.append(float(np.mean(losses)))
            if not np.isfinite(curve[-1]):
                for weights in tower.parameters():
                    nn.init.zeros_(weights)
                warnings.warn(
                    f"Training of the correction diverged in epoch {len(curve)}: the loss is {curve[-1]}. Nothing is "
                    f"corrected; look for features or weights of extreme size.",
                    ConvergenceWarning,
                    # From here through `_fit_evidence`, `_fit`, `_learn` and `fit` to the caller.
                    stacklevel=6,
                )
                break
    tower.eval()
    return curve


def _loss(
    tower: ResidualTower,
    problem: Problem,
    closed_form: Callable[[Csr, Codes], tuple[Floats, Floats]],
    chosen: Codes,
    vectors: Tensor,
    gram: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    shown, targets = problem.draw(chosen, rng)
    users = problem.query_users[chosen]
    base, share = (torch.from_numpy(part) for part in closed_form(shown, users))
    codes = torch.from_numpy(users)
    context = problem.context.take(torch.from_numpy(problem.context_row[chosen]))
    corrected = base + share * tower(problem.users.take(codes), context, shown)
    wanted = torch.from_numpy(np.asarray(targets @ vectors.numpy(), dtype=np.float32))
    rows = torch.from_numpy(np.repeat(np.arange(len(chosen)), np.diff(shown.indptr)))
    of_shown = vectors[torch.from_numpy(shown.indices.astype(np.int64))]

    def squares(found: Tensor) -> Tensor:
        """The sum of the squared scores of what is not shown."""
        seen = (found[rows] * of_shown).sum(1)
        everything = ((found @ gram) * found).sum(1)
        return everything.index_add(0, rows, -seen * seen)

    scale = (base * wanted).sum(1) / squares(base).clamp(min=1e-12)
    scale = scale.clamp(LEAST_SCALE, MOST_SCALE)
    n_targets = torch.from_numpy(np.diff(targets.indptr).astype(np.float32))
    errors = scale**2 * squares(corrected) - 2 * scale * (corrected * wanted).sum(1) + n_targets
    weights = problem.user_counts[codes].clamp(min=1).rsqrt()
    loss: Tensor = (weights * errors).sum() / weights.sum()
    return loss

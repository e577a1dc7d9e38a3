"""DeepFM over fields: a user's half and an item's half of the network, computed once each, and a cheap pair of both."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.nn.towers import FieldBags
from recsys.persistence import persistent

__all__ = ["DeepFMNet"]


@persistent
class DeepFMNet(nn.Module):
    r"""The network: first-order terms, a factorization machine and a multilayer perceptron over the same field vectors.

    A user has the fields id, attributes, context and history, an item the fields id and metadata; a field that is
    missing is the vector 0. With field vectors :math:`e_f`, the score is

    .. math:: b + \sum_f w_f + \sum_{f < g} \langle e_f, e_g \rangle
              + \mathrm{MLP}\Big(\sum_f W_f e_f\Big).

    Nothing but the last layers needs both sides. The sum of interactions is
    :math:`\langle s_u, s_i \rangle + q_u + q_i`, where s is the sum of a side's field vectors and
    :math:`q = (\|s\|^2 - \sum_f \|e_f\|^2) / 2`, and the first layer is linear in the field vectors. So each user and
    each item has a *half*: its part of the first layer, s, and its part :math:`q + \sum_f w_f` of the score.

    The history is the sum of its items' history vectors over a learned power of their number.

    Parameters
    ----------
    sizes : dict of str to int
        ``users``, ``items``; ``user_columns``, ``item_columns``, ``context_columns`` and ``user_fields``,
        ``item_fields``, ``context_fields`` of the features; ``factors``.
    hidden : list of int
        The widths of the hidden layers.
    seed : int

    References
    ----------
    H. Guo, R. Tang, Y. Ye, Z. Li, X. He, "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
    IJCAI 2017, section 2; S. Rendle, "Factorization Machines", ICDM 2010, lemma 3.1.

    Examples
    --------
    >>> sizes = {"users": 2, "items": 3, "factors": 4, "user_columns": 0, "item_columns": 0, "context_columns": 0}
    >>> sizes |= {"user_fields": 0, "item_fields": 0, "context_fields": 0}
    >>> net = DeepFMNet(sizes, [8], seed=0)
    >>> net.halves((torch.zeros(5, 5), torch.zeros(5, 1, 5)), "user")[0].shape
    torch.Size([5, 13])
    """

    def __init__(self, sizes: dict[str, int], hidden: list[int], seed: int) -> None:
        super().__init__()
        self.sizes, self.hidden, self.seed = sizes, list(hidden), seed
        generator = torch.Generator().manual_seed(seed)
        d = sizes["factors"]
        for name in ("users", "items", "user_columns", "context_columns", "item_columns"):
            self.register_parameter(name, _table(sizes[name], d, generator))
        self.history_ids = _table(sizes["items"], d, generator)
        # History vectors follow the item's fields as well, so that content reaches them.
        self.history_map = nn.Parameter(torch.zeros(d, d + 1))
        self.history_power = nn.Parameter(torch.tensor(0.5))
        self.n_fields = {
            "user": sizes["user_fields"] + sizes["context_fields"] + 2,
            "item": sizes["item_fields"] + 1,
        }
        n_inputs = d * sum(self.n_fields.values())
        self.first = nn.ParameterDict(
            {side: _layer(n * d, hidden[0], n_inputs, generator) for side, n in self.n_fields.items()}
        )
        widths = [*hidden, 1]
        self.weights = nn.ParameterList([_layer(a, b, a, generator) for a, b in pairwise(widths)])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(width)) for width in widths])

    def start_at(self, counts: Tensor) -> None:
        """Start the first-order weight of each item id at the logarithm of its popularity."""
        with torch.no_grad():
            self.get_parameter("items")[:, -1] = torch.log((counts + 1) / (counts + 1).mean())

    @property
    def lookup_tables(self) -> list[nn.Parameter]:
        """The tables of ids, of whose rows a step touches some."""
        return [self.get_parameter("users"), self.get_parameter("items"), self.history_ids]

    def item_fields(self, bags: FieldBags, codes: Tensor, with_id: Tensor) -> tuple[Tensor, Tensor]:
        """The field vectors of items; the last dimension of each is its first-order weight.

        Parameters
        ----------
        bags : FieldBags of n items
        codes : Tensor of shape (n,)
            Without repetition in training.
        with_id : Tensor of shape (n,), bool

        Returns
        -------
        ids : Tensor of shape (n, factors + 1)
        metadata : Tensor of shape (n, item_fields, factors + 1)
        """
        ids = functional.embedding(codes, self.get_parameter("items"), sparse=True) * with_id.unsqueeze(1)
        return ids, bags.embed(self.get_parameter("item_columns"))

    def history_vectors(self, fields: tuple[Tensor, Tensor], codes: Tensor, with_id: Tensor) -> Tensor:
        """What items say of those who have them.

        Parameters
        ----------
        fields : tuple of Tensor
            Of the items, from `item_fields`.
        codes : Tensor of shape (n,)
        with_id : Tensor of shape (n,), bool

        Returns
        -------
        Tensor of shape (n, factors + 1)
        """
        own = functional.embedding(codes, self.history_ids, sparse=True) * with_id.unsqueeze(1)
        total = fields[0] + fields[1].sum(1)
        return own + total[:, :-1] @ self.history_map

    def user_fields(
        self,
        ids: tuple[Tensor, Tensor],
        bags: FieldBags,
        context: FieldBags,
        history: tuple[Tensor, Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The field vectors of users; the last dimension of each is its first-order weight.

        Parameters
        ----------
        ids : tuple of Tensor, each of shape (n,)
            Codes, and whether the id may be used.
        bags, context : FieldBags of n users
        history : tuple of Tensor
            History vectors of items (m, factors + 1); the rows of it that form the histories, user after user; and how
            many each user has (n,).

        Returns
        -------
        ids : Tensor of shape (n, factors + 1)
        others : Tensor of shape (n, user_fields + context_fields + 1, factors + 1)
            Attributes, context and, last, the history.
        """
        table, rows, lengths = history
        offsets = torch.cumsum(lengths, 0) - lengths
        total = functional.embedding_bag(rows, table, offsets, mode="sum")
        pooled = total * torch.exp(-self.history_power * torch.log(lengths.clamp(min=1).float())).unsqueeze(1)
        own = functional.embedding(ids[0], self.get_parameter("users"), sparse=True) * ids[1].unsqueeze(1)
        told = bags.embed(self.get_parameter("user_columns")), context.embed(self.get_parameter("context_columns"))
        return own, torch.cat([*told, pooled.unsqueeze(1)], 1)

    def halves(self, fields: tuple[Tensor, Tensor], side: str) -> tuple[Tensor, Tensor]:
        """All that the score needs of one side, with ids and without.

        Parameters
        ----------
        fields : tuple of Tensor
            From `user_fields` or `item_fields`.
        side : {"user", "item"}
            The user's half has the biases of the first layer and of the score.

        Returns
        -------
        with_id, without_id : Tensor of shape (n, hidden[0] + factors + 1)
            Part of the first layer, sum of field vectors, part of the score.
        """
        d, (ids, others) = self.sizes["factors"], fields
        vectors, weights = torch.split(others, [d, 1], 2)
        total = vectors.sum(1)
        first = vectors.reshape(len(vectors), -1) @ self.first[side][d:]
        own = weights.sum((1, 2)) + ((total * total).sum(1) - (vectors * vectors).sum((1, 2))) / 2
        if side == "user":
            first, own = first + self.biases[0], own + self.biases[-1]
        # One more field adds its weight, and its inner product with the sum of the others.
        vector, weight = torch.split(ids, [d, 1], 1)
        more = own + weight.squeeze(1) + (vector * total).sum(1)
        return (
            torch.cat([first + vector @ self.first[side][:d], total + vector, more.unsqueeze(1)], 1),
            torch.cat([first, total, own.unsqueeze(1)], 1),
        )

    def pairs(self, users: Tensor, items: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """Scores of pairs.

        Parameters
        ----------
        users, items : Tensor of shape (n, hidden[0] + factors + 1)
            The halves of both.
        kept : list of Tensor, default=None
            In training: for each hidden layer, a factor for each of its units.

        Returns
        -------
        Tensor of shape (n,)
        """
        shape = [self.hidden[0], self.sizes["factors"], 1]
        user_first, user_sum, user_own = torch.split(users, shape, 1)
        item_first, item_sum, item_own = torch.split(items, shape, 1)
        own = (user_own + item_own).squeeze(1)
        return (user_sum * item_sum).sum(1) + own + self._deep(user_first + item_first, kept)

    def grid(self, users: Tensor, items: Tensor, workspace: list[Tensor]) -> Tensor:
        """Scores of every user with every item, without gradients.

        Parameters
        ----------
        users : Tensor of shape (n, hidden[0] + factors + 1)
        items : Tensor of shape (m, hidden[0] + factors + 1)
        workspace : list of Tensor
            For each hidden layer and the output, room for its activations, at least (n * m, width): fresh memory costs
            more than the arithmetic.

        Returns
        -------
        Tensor of shape (n, m)
        """
        width, n_pairs = self.hidden[0], len(users) * len(items)
        first = workspace[0][:n_pairs]
        torch.add(users[:, None, :width], items[None, :, :width], out=first.view(len(users), len(items), width))
        for below, above, weights, bias in zip(
            workspace[:-1], workspace[1:], self.weights, self.biases[1:], strict=True
        ):
            torch.addmm(bias, below[:n_pairs].relu_(), weights, out=above[:n_pairs])
        deep = workspace[-1][:n_pairs].view(len(users), len(items))
        # The last bias is in the user's half already.
        own = users[:, -1:] - self.biases[-1]
        scores: Tensor = torch.addmm(items[:, -1], users[:, width:-1], items[:, width:-1].T) + own + deep
        return scores

    def workspace(self, n_pairs: int) -> list[Tensor]:
        """Room for the activations of so many pairs."""
        return [torch.empty(n_pairs, width) for width in [*self.hidden, 1]]

    def _deep(self, activations: Tensor, kept: list[Tensor] | None) -> Tensor:
        """The multilayer perceptron above its first layer, without the bias of the score."""
        for layer, weights in enumerate(self.weights):
            activations = activations.relu_()
            if kept is not None:
                activations = activations * kept[layer]
            if layer + 1 < len(self.weights):
                activations = torch.addmm(self.biases[layer + 1], activations, weights)
        scores: Tensor = activations @ self.weights[-1]
        return scores.squeeze(1)

    def slopes(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """How the multilayer perceptron answers to its first layer: it is linear around each pair.

        Parameters
        ----------
        users, items : Tensor of shape (n, hidden[0] + factors + 1)
            The halves of both.

        Returns
        -------
        slopes : Tensor of shape (n, hidden[0])
        rest : Tensor of shape (n,)
            What the slopes times the first layer leave: the biases of the other layers.
        """
        first = users[:, : self.hidden[0]] + items[:, : self.hidden[0]]
        activations, active = first, []
        for weights, bias in zip(self.weights[:-1], self.biases[1:-1], strict=True):
            active.append(activations > 0)
            activations = functional.relu(activations) @ weights + bias
        slopes = (activations > 0) * self.weights[-1].squeeze(1)
        deep = (functional.relu(activations) @ self.weights[-1]).squeeze(1)
        for weights, on in zip(reversed(list(self.weights[:-1])), reversed(active), strict=True):
            slopes = (slopes @ weights.T) * on
        return slopes, deep - (slopes * first).sum(1)

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        arrays = {name.replace(".", "/"): value.numpy() for name, value in self.state_dict().items()}
        return {"sizes": self.sizes, "hidden": self.hidden, "seed": self.seed, "arrays": arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> DeepFMNet:
        """The inverse of `to_state`."""
        net = cls(state["sizes"], state["hidden"], state["seed"])
        arrays = {name.replace("/", "."): torch.from_numpy(np.array(value)) for name, value in state["arrays"].items()}
        net.load_state_dict(arrays)
        return net


def _table(n_rows: int, d: int, generator: torch.Generator) -> nn.Parameter:
    """Small random vectors, each with a first-order weight of 0."""
    table = torch.randn(n_rows, d + 1, generator=generator) * (0.3 / math.sqrt(d))
    table[:, d] = 0
    return nn.Parameter(table)


def _layer(n_inputs: int, n_outputs: int, fan_in: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(n_inputs, n_outputs, generator=generator) * math.sqrt(2 / fan_in))

"""The two towers: from ids, features, history and context to vectors whose inner product is the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys._asked import AskedItems, AskedUsers, ItemTable
from recsys._graphs import Value
from recsys.features import EncodedFeatures, Field
from recsys.interactions import TrainingData
from recsys.nn.fusion import GatedFusion
from recsys.persistence import persistent

__all__ = ["FieldBags", "Towers", "embedded", "sizes_of", "squash", "squashed"]

# Where gates start half open: ids at the tenth interaction, a history at the third, each counted from 0.
ITEM_ID, USER_ID, HISTORY = 10.0, 10.0, 3.0
ITEM_NORM, USER_NORM = 1.0, 4.0


class FieldBags:
    """`EncodedFeatures` as bags of columns, one a row and field, for `torch.nn.functional.embedding_bag`.

    Parameters
    ----------
    features : EncodedFeatures
    """

    def __init__(self, features: EncodedFeatures) -> None:
        matrix, n_fields = features.matrix, len(features.fields)
        starts = np.array([field.start for field in features.fields])
        field = np.searchsorted(starts, matrix.indices, side="right") - 1
        # CSR indices are sorted, so the columns of one row come field by field.
        bag = np.repeat(np.arange(len(features)), np.diff(matrix.indptr)) * n_fields + field
        self.columns = torch.from_numpy(matrix.indices.astype(np.int64))
        self.values = torch.from_numpy(matrix.data.astype(np.float32))
        self.counts = torch.from_numpy(np.bincount(bag, minlength=len(features) * n_fields))
        self.n, self.n_fields = len(features), n_fields

    @property
    def present(self) -> Tensor:
        """Which fields have a value; shape (n, n_fields), bool."""
        return self.counts.view(self.n, self.n_fields) > 0

    def take(self, rows: Tensor) -> FieldBags:
        """The bags of some rows."""
        taken = object.__new__(FieldBags)
        bags = (rows[:, None] * self.n_fields + torch.arange(self.n_fields)).reshape(-1)
        starts = torch.cumsum(self.counts, 0) - self.counts
        taken.counts, taken.n, taken.n_fields = self.counts[bags], len(rows), self.n_fields
        shift = starts[bags] - (torch.cumsum(taken.counts, 0) - taken.counts)
        at = torch.arange(int(taken.counts.sum())) + torch.repeat_interleave(shift, taken.counts)
        taken.columns, taken.values = self.columns[at], self.values[at]
        return taken

    def embed(self, table: Tensor, kept: Tensor | None = None) -> Tensor:
        """Field vectors: the sum over the columns of a bag of value times embedding.

        Parameters
        ----------
        table : Tensor of shape (n_columns, width)
        kept : Tensor of shape (n_values,), bool, default=None
            Values that are not dropped.

        Returns
        -------
        Tensor of shape (n, n_fields, width)
        """
        if not len(self.counts):
            return table.new_zeros((self.n, self.n_fields, table.shape[1]))
        starts = torch.cumsum(self.counts, 0) - self.counts
        values = self.values if kept is None else self.values * kept
        flat = functional.embedding_bag(self.columns, table, starts, mode="sum", per_sample_weights=values)
        return flat.view(self.n, self.n_fields, table.shape[1])


def sizes_of(data: TrainingData, n_factors: int) -> dict[str, int]:
    """What a network of fields has to hold: the ``sizes`` of `Towers`.

    Parameters
    ----------
    data : TrainingData
    n_factors : int

    Returns
    -------
    dict of str to int
    """
    context = EncodedFeatures.empty(0) if data.context is None else data.context.features
    return {
        "users": data.matrix.shape[0],
        "items": data.matrix.shape[1],
        "user_columns": data.user_features.n_columns,
        "item_columns": data.item_features.n_columns,
        "context_columns": context.n_columns,
        "user_fields": len(data.user_features.fields),
        "item_fields": len(data.item_features.fields),
        "context_fields": len(context.fields),
        "factors": n_factors,
    }


def squash(vectors: Tensor, norm: float) -> Tensor:
    r"""Shorten vectors smoothly below a norm: :math:`x \mapsto r x / \sqrt{\|x\|^2 + 1}`.

    Parameters
    ----------
    vectors : Tensor of shape (n, d)
    norm : float
        The norm :math:`r` that long vectors approach.

    Returns
    -------
    Tensor of shape (n, d)
    """
    return vectors * (norm / torch.sqrt((vectors * vectors).sum(-1, keepdim=True) + 1))


def squashed(vectors: Value, norm: float) -> Value:
    """What `squash` computes, as a graph."""
    return vectors * (norm / vectors.graph.apply("Sqrt", (vectors * vectors).sum(1) + 1.0))


def _table(n_rows: int, width: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(n_rows, width, generator=generator) * 0.1)


@persistent
class Towers(nn.Module):
    """Embedding tables and gates of both sides.

    An item has the fields id and metadata; the last dimension of its vectors is its bias, which starts at the logarithm
    of its popularity on the id and is learned from the metadata. A user has the fields id, attributes, context and
    history. A history is the sum of its items' history vectors over a learned power of their number.

    Parameters
    ----------
    sizes : dict of str to int
        ``users``, ``items``; ``user_columns``, ``item_columns``, ``context_columns`` and ``user_fields``,
        ``item_fields``, ``context_fields`` of the features; ``factors``.
    seed : int
    """

    def __init__(self, sizes: dict[str, int], seed: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        d = sizes["factors"]
        self.user_ids = _table(sizes["users"], d, generator)
        self.user_columns = _table(sizes["user_columns"], d, generator)
        self.context_columns = _table(sizes["context_columns"], d, generator)
        self.item_ids = _table(sizes["items"], d + 1, generator)
        self.item_columns = _table(sizes["item_columns"], d + 1, generator)
        self.history_ids = _table(sizes["items"], d, generator)
        # History vectors follow the item vectors as well, so that content reaches them.
        self.history_map = nn.Parameter(torch.eye(d) * 0.5)
        self.history_power = nn.Parameter(torch.tensor(0.5))
        n_user = sizes["user_fields"] + sizes["context_fields"]
        self.user_gates = GatedFusion(n_user + 2, d, {0: USER_ID, n_user + 1: HISTORY})
        self.item_gates = GatedFusion(sizes["item_fields"] + 1, d + 1, {0: ITEM_ID})
        with torch.no_grad():
            self.item_columns[:, d] = 0
            self.item_ids[:, d] = 0

    def start_biases(self, counts: Tensor) -> None:
        """Start the bias of each item id at the logarithm of its popularity."""
        with torch.no_grad():
            self.item_ids[:, -1] = torch.log((counts + 1) / (counts + 1).mean())

    def items(
        self, bags: FieldBags, codes: Tensor, counts: Tensor, *, with_ids: bool, kept: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of items.

        Parameters
        ----------
        bags : FieldBags of n items
        codes : Tensor of shape (n,)
        counts : Tensor of shape (n,)
            Interactions of each; an item without has no id to speak of.
        with_ids : bool
            False: the content view.
        kept : dict of Tensor, default=None
            In training: ``values`` and ``item_fields``, what is not dropped.

        Returns
        -------
        vectors : Tensor of shape (n, factors + 1)
            The last dimension is the bias.
        weights : Tensor of shape (n, item_fields + 1)
        values : Tensor of shape (n, item_fields + 1, factors + 1)
            The fields' vectors before weighing, id first.
        """
        known = (counts > 0) & with_ids
        metadata = bags.embed(self.item_columns, None if kept is None else kept["values"])
        present = bags.present if kept is None else bags.present & kept["item_fields"]
        ids = self.item_ids[codes].unsqueeze(1)
        values = torch.cat([ids, metadata], 1)
        mask = torch.cat([known.unsqueeze(1), present], 1)
        evidence = torch.zeros(mask.shape)
        evidence[:, 0] = torch.log1p(counts) * known
        weights, fused = self.item_gates(values, mask, evidence)
        vectors = torch.cat([squash(fused[:, :-1], ITEM_NORM), fused[:, -1:]], 1)
        return vectors, weights, values

    def history_vectors(self, codes: Tensor, items: Tensor, hot: Tensor) -> Tensor:
        """What an item says of those who have it.

        Parameters
        ----------
        codes : Tensor of shape (n,)
        items : Tensor of shape (n, factors + 1)
            Their vectors.
        hot : Tensor of shape (n,), bool
            Whether the id of the item may be used.

        Returns
        -------
        Tensor of shape (n, factors)
        """
        return self.history_ids[codes] * hot.unsqueeze(1) + items[:, :-1] @ self.history_map

    def users(
        self,
        ids: tuple[Tensor, Tensor, Tensor],
        bags: FieldBags,
        context: FieldBags,
        history: tuple[Tensor, Tensor, Tensor],
        kept: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors of users.

        Parameters
        ----------
        ids : tuple of Tensor, each of shape (n,)
            Codes, counts of interactions, and whether the id may be used.
        bags, context : FieldBags of n users
        history : tuple of Tensor
            History vectors of items (m, factors); the rows of it that form the histories, user after user; and how many
            each user has (n,).
        kept : dict of Tensor, default=None
            In training: ``user_fields``, what is not dropped (attributes, then context).

        Returns
        -------
        vectors : Tensor of shape (n, factors)
        weights : Tensor of shape (n, n_fields)
            Of id, attributes, context and history.
        values : Tensor of shape (n, n_fields, factors)
        """
        codes, counts, known = ids
        table, rows, lengths = history
        offsets = torch.cumsum(lengths, 0) - lengths
        total = functional.embedding_bag(rows, table, offsets, mode="sum")
        damped = total * torch.exp(-self.history_power * torch.log(lengths.clamp(min=1).float())).unsqueeze(1)
        own = (self.user_ids[codes] * known.unsqueeze(1)).unsqueeze(1)
        attributes, situation = bags.embed(self.user_columns), context.embed(self.context_columns)
        values = torch.cat([own, attributes, situation, damped.unsqueeze(1)], 1)
        present = torch.cat([bags.present, context.present], 1)
        if kept is not None:
            present = present & kept["user_fields"]
        mask = torch.cat([known.unsqueeze(1), present, (lengths > 0).unsqueeze(1)], 1)
        evidence = torch.zeros(mask.shape)
        evidence[:, 0] = torch.log1p(counts) * known
        evidence[:, -1] = torch.log1p(lengths.float())
        weights, fused = self.user_gates(values, mask, evidence)
        return squash(fused, USER_NORM), weights, values

    def users_graph(
        self,
        asked: AskedUsers,
        fields: Sequence[Field],
        context_fields: Sequence[Field],
        history_vectors: ItemTable,
        counts: npt.NDArray[np.float32],
    ) -> tuple[Value, Value, Value]:
        """What `users` computes, as a graph; `counts` are the interactions of those who have an id."""
        weights = {name: weight.detach().numpy() for name, weight in self.named_parameters()}
        graph, history = asked.graph, asked.history.pattern
        lengths = history.lengths
        damping = graph.apply("Exp", graph.apply("Log", lengths.at_least(1.0)) * -weights["history_power"])
        heard = history.product(history_vectors) * damping
        values, present = embedded(asked, fields, context_fields, weights)
        known = own_evidence = lengths * 0.0
        own = heard * 0.0
        if asked.with_known:
            has_id = graph.apply("Less", asked.known, len(self.user_ids)).as_type(np.float32)
            known = asked.known.exceeds(-1) * has_id
            code = (asked.known * known.as_type(np.int64)).at_least(0)
            own = graph.take(weights["user_ids"], code).squeeze(1)
            own_evidence = graph.apply("Log", graph.take(counts, code) + 1.0) * known
        uncounted = [found * 0.0 for found in present]
        together = graph.concat([own.expand(1), *values, heard.expand(1)], 1)
        shares, fused = self.user_gates.graph(
            together,
            graph.concat([known, *present, lengths.exceeds(0.0)], 1),
            graph.concat([own_evidence, *uncounted, graph.apply("Log", lengths + 1.0)], 1),
        )
        return squashed(fused, USER_NORM), shares, together

    def items_graph(
        self, asked: AskedItems, fields: Sequence[Field], counts: npt.NDArray[np.float32]
    ) -> tuple[Value, Value]:
        """Weights and values of `items`, as a graph; `counts` are the interactions of the catalogue."""
        weights = {name: weight.detach().numpy() for name, weight in self.named_parameters()}
        count = asked.of_exported(counts[:, None])
        known = count.exceeds(0.0)
        values, present = [asked.of_exported(weights["item_ids"]).expand(1)], [known]
        evidence = [asked.graph.apply("Log", count + 1.0) * known]
        if fields:
            values.append(asked.features.by_field(weights["item_columns"], fields))
            present.append(asked.features.present(fields))
            evidence.append(present[1] * 0.0)
        together = asked.graph.concat(values, 1)
        shares, _ = self.item_gates.graph(together, asked.graph.concat(present, 1), asked.graph.concat(evidence, 1))
        return shares, together

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        arrays = {name.replace(".", "/"): value.numpy() for name, value in self.state_dict().items()}
        return {"sizes": self.sizes, "seed": self.seed, "arrays": arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Towers:
        """The inverse of `to_state`."""
        towers = cls(state["sizes"], state["seed"])
        arrays = {name.replace("/", "."): torch.from_numpy(np.array(value)) for name, value in state["arrays"].items()}
        towers.load_state_dict(arrays)
        return towers


def embedded(
    asked: AskedUsers,
    fields: Sequence[Field],
    context_fields: Sequence[Field],
    weights: dict[str, npt.NDArray[np.float32]],
) -> tuple[list[Value], list[Value]]:
    """As a graph: vectors of attributes and then of context, (n, n_fields, width), and which are there, (n, n_fields).

    Those of the two that have no fields are left out.
    """
    values, present = [], []
    if fields:
        values.append(asked.features.by_field(weights["user_columns"], fields))
        present.append(asked.features.present(fields))
    if context_fields:
        values.append(asked.context.by_field(weights["context_columns"], context_fields))
        present.append(asked.context.present(context_fields))
    return values, present


def bags_of(features: EncodedFeatures | None, n: int) -> FieldBags:
    """The bags of `features`; without any, those of n entities without fields."""
    return FieldBags(EncodedFeatures.empty(n) if features is None else features)

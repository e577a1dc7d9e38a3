"""Adaptive feature fusion: gates that weigh the fields of an entity, knowing how much evidence is behind each."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recsys._graphs import Value

__all__ = ["GatedFusion"]


class GatedFusion(nn.Module):
    r"""A gated sum of field vectors.

    For an entity with field vectors :math:`e_f`, presence :math:`p_f \in \{0, 1\}` and evidence :math:`n_f`,

    .. math:: w_f = p_f \, \sigma(b_f + M_f^\top [p, \log(1 + n)] + q_f^\top e_f), \qquad x = \sum_f w_f e_f.

    A field that counts evidence (an id, a history) starts with :math:`w_f = (n_f + 1) / (n_f + 1 + h_f)`: an id seen
    three times is not one seen three thousand times. The others start half open. As the fusion is a sum, each field has
    its share of every inner product with it.

    Parameters
    ----------
    n_fields : int
    width : int
        Of the field vectors.
    half_evidence : dict of int to float
        For fields that count evidence: :math:`h_f`, which :math:`n_f + 1` has to reach for the gate to start half open.

    Examples
    --------
    >>> fusion = GatedFusion(1, 2, {0: 3.0})
    >>> weights, _ = fusion(torch.ones(1, 1, 2), torch.tensor([[True]]), torch.log1p(torch.tensor([[9.0]])))
    >>> round(weights.item(), 2)
    0.77
    """

    def __init__(self, n_fields: int, width: int, half_evidence: Mapping[int, float]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_fields))
        self.by_presence = nn.Parameter(torch.zeros(n_fields, n_fields))
        self.by_evidence = nn.Parameter(torch.zeros(n_fields, n_fields))
        self.by_value = nn.Parameter(torch.zeros(n_fields, width))
        with torch.no_grad():
            for field, half in half_evidence.items():
                self.by_evidence[field, field] = 1.0
                self.bias[field] = -math.log(half)

    def forward(self, values: Tensor, present: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh and add the fields.

        Parameters
        ----------
        values : Tensor of shape (n, n_fields, width)
        present : Tensor of shape (n, n_fields), bool
        evidence : Tensor of shape (n, n_fields)
            ``log(1 + count)`` of fields that count, 0 of the others.

        Returns
        -------
        weights : Tensor of shape (n, n_fields)
            0 where a field is absent, else between 0 and 1.
        fused : Tensor of shape (n, width)
        """
        known = present.to(values.dtype)
        logits = self.bias + known @ self.by_presence + evidence @ self.by_evidence + (values * self.by_value).sum(-1)
        weights = torch.sigmoid(logits) * known
        return weights, (weights.unsqueeze(-1) * values).sum(1)

    def graph(self, values: Value, present: Value, evidence: Value) -> tuple[Value, Value]:
        """What `forward` computes, as a graph."""
        weights = {name: weight.detach().numpy() for name, weight in self.named_parameters()}
        logits = present @ weights["by_presence"] + evidence @ weights["by_evidence"] + weights["bias"]
        logits = logits + (values * weights["by_value"]).sum(2).squeeze(2)
        shares = values.graph.apply("Sigmoid", logits) * present
        return shares, (shares.expand(1) @ values).squeeze(1)

"""What training minimises: softmax over the catalogue, and the contrast of an item's content with its id."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["catalogue_softmax", "content_contrast", "sampled_softmax"]

# Small enough to vanish in a softmax, finite so that its gradient is 0 and not NaN.
NOTHING = -1e9


def catalogue_softmax(scores: Tensor, targets: Tensor, hidden: Tensor) -> Tensor:
    r"""Softmax cross-entropy over the whole catalogue with several positives a query (InfoNCE with all negatives).

    A query with n targets weighs :math:`\sqrt n` in the mean, shared evenly by its targets: between one user one vote
    and one interaction one vote.

    Parameters
    ----------
    scores : Tensor of shape (n_queries, n_items)
    targets : Tensor of shape (n_queries, n_items)
        1 for positives, 0 elsewhere; at least one a query.
    hidden : Tensor of shape (n_queries, n_items), bool
        Neither positive nor negative: the shown history and items that are not hot.

    Returns
    -------
    Tensor, scalar

    Examples
    --------
    Where all scores are equal, the loss is the logarithm of how many items compete: here 4, and 3 once one is hidden.

    >>> scores, targets = torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    >>> hidden = torch.tensor([[False, False, False, True]])
    >>> round(catalogue_softmax(scores, targets, hidden & False).exp().item(), 4)
    4.0
    >>> round(catalogue_softmax(scores, targets, hidden).exp().item(), 4)
    3.0
    """
    n_targets = targets.sum(1)
    weights = n_targets.sqrt()
    normalisers = torch.logsumexp(scores.masked_fill(hidden, NOTHING), 1)
    hits = (targets * scores).sum(1) / n_targets
    return (weights * (normalisers - hits)).sum() / weights.sum()


def sampled_softmax(positives: Tensor, rows: Tensor, negatives: Tensor, log_expected: Tensor, hidden: Tensor) -> Tensor:
    r"""Softmax cross-entropy of each positive against a sample of the catalogue.

    A positive competes with the sample alone, not with other positives of its query. Scores of the sample are lowered
    by the logarithm of the probability that an item is in it (the logQ correction): the sum of their exponentials is
    then an unbiased estimate of that over the catalogue. Queries weigh as in `catalogue_softmax`.

    Parameters
    ----------
    positives : Tensor of shape (n_positives,)
        Their scores.
    rows : Tensor of shape (n_positives,)
        The query of each.
    negatives : Tensor of shape (n_queries, n_negatives)
        Scores of the sample, distinct items that all queries share.
    log_expected : Tensor of shape (n_negatives,)
        Logarithm of the probability that an item is in the sample.
    hidden : Tensor of shape (n_queries, n_negatives), bool
        Accidental hits: positives of the query, and its shown history.

    Returns
    -------
    Tensor, scalar

    References
    ----------
    Y. Bengio, J.-S. Senécal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
    Model", IEEE Transactions on Neural Networks, 2008.

    Examples
    --------
    Three items, each sampled with certainty, and a positive that scores like them: one in four.

    >>> positives, rows = torch.zeros(1), torch.tensor([0])
    >>> hidden = torch.zeros(1, 3, dtype=torch.bool)
    >>> round(sampled_softmax(positives, rows, torch.zeros(1, 3), torch.zeros(3), hidden).exp().item(), 4)
    4.0
    """
    normalisers = torch.logsumexp((negatives - log_expected).masked_fill(hidden, NOTHING), 1)
    n_targets = torch.bincount(rows, minlength=len(negatives)).clamp(min=1).to(positives.dtype)
    weights = n_targets[rows].rsqrt()
    losses = torch.logaddexp(positives, normalisers[rows]) - positives
    return (weights * losses).sum() / weights.sum()


def content_contrast(content: Tensor, ids: Tensor, temperature: float = 0.2) -> Tensor:
    r"""InfoNCE between the content view of items and their ids, which are held fixed.

    Each item's content is to find its own id among those of the batch: content then lands where the id would have.

    Parameters
    ----------
    content, ids : Tensor of shape (n, d)
        Row i of both is item i.
    temperature : float, default=0.2

    Returns
    -------
    Tensor, scalar

    References
    ----------
    Y. Wei et al., "Contrastive Learning for Cold-Start Recommendation" (CLCRec), MM 2021, section 3.

    Examples
    --------
    >>> round(content_contrast(torch.eye(2), torch.eye(2)).item(), 4)
    0.0067
    """
    similarity = functional.normalize(content, dim=1) @ functional.normalize(ids.detach(), dim=1).T
    return functional.cross_entropy(similarity / temperature, torch.arange(len(content)))

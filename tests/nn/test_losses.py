from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.nn.losses import catalogue_softmax, content_contrast, sampled_softmax

N_QUERIES, N_ITEMS = 4, 7
NONE_HIDDEN = torch.zeros(N_QUERIES, N_ITEMS, dtype=torch.bool)


def case(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, targets (at least one a query) and hidden items that are no targets."""
    rng = np.random.default_rng(seed)
    targets = rng.random((N_QUERIES, N_ITEMS)) < 0.4
    targets[np.arange(N_QUERIES), rng.integers(0, N_ITEMS, N_QUERIES)] = True
    hidden = ~targets & (rng.random(targets.shape) < 0.4)
    scores = 2 * rng.standard_normal(targets.shape)
    return torch.from_numpy(scores).float(), torch.from_numpy(targets).float(), torch.from_numpy(hidden)


def weighted_mean(losses: list[tuple[float, float]]) -> float:
    return sum(weight * loss for weight, loss in losses) / sum(weight for weight, _ in losses)


def against_all(scores: torch.Tensor, targets: torch.Tensor, hidden: torch.Tensor) -> float:
    losses = []
    for q in range(len(scores)):
        total = sum(math.exp(scores[q, i]) for i in range(scores.shape[1]) if not hidden[q, i])
        found = [i for i in range(scores.shape[1]) if targets[q, i]]
        losses += [(len(found) ** -0.5, math.log(total) - float(scores[q, i])) for i in found]
    return weighted_mean(losses)


def against_negatives(scores: torch.Tensor, targets: torch.Tensor, hidden: torch.Tensor) -> float:
    losses = []
    for q in range(len(scores)):
        others = [i for i in range(scores.shape[1]) if not hidden[q, i] and not targets[q, i]]
        total = sum(math.exp(scores[q, i]) for i in others)
        found = [i for i in range(scores.shape[1]) if targets[q, i]]
        losses += [(len(found) ** -0.5, math.log(1 + total / math.exp(scores[q, i]))) for i in found]
    return weighted_mean(losses)


@given(st.integers(0, 10_000))
def test_catalogue_softmax_is_the_loop(seed: int) -> None:
    scores, targets, hidden = case(seed)
    assert catalogue_softmax(scores, targets, hidden).item() == pytest.approx(
        against_all(scores, targets, hidden), rel=1e-4
    )


def test_one_target_each_is_the_cross_entropy() -> None:
    scores, _, _ = case(0)
    targets = torch.tensor([3, 0, 6, 3])
    one_hot = torch.nn.functional.one_hot(targets, N_ITEMS).float()
    expected = torch.nn.functional.cross_entropy(scores, targets)
    torch.testing.assert_close(catalogue_softmax(scores, one_hot, NONE_HIDDEN), expected)


def test_hidden_items_neither_gain_nor_lose() -> None:
    scores, targets, hidden = case(1)
    scores.requires_grad_()
    torch.autograd.backward(catalogue_softmax(scores, targets, hidden))
    assert scores.grad is not None
    assert hidden.any()
    assert not scores.grad[hidden].any()
    assert scores.grad[~hidden].all()
    changed = torch.where(hidden, 50.0, scores.detach())
    torch.testing.assert_close(
        catalogue_softmax(changed, targets, hidden), catalogue_softmax(scores.detach(), targets, hidden)
    )


@given(st.integers(0, 10_000))
def test_sampling_every_item_is_the_loop(seed: int) -> None:
    scores, targets, hidden = case(seed)
    rows, items = targets.nonzero(as_tuple=True)
    loss = sampled_softmax(scores[rows, items], rows, scores, torch.zeros(N_ITEMS), hidden | (targets > 0))
    assert loss.item() == pytest.approx(against_negatives(scores, targets, hidden), rel=1e-4, abs=1e-6)


def test_one_target_each_and_every_item_sampled_is_the_softmax_over_the_catalogue() -> None:
    scores, _, hidden = case(2)
    items = torch.tensor([3, 0, 6, 3])
    targets = torch.nn.functional.one_hot(items, N_ITEMS).float()
    hidden = hidden & (targets == 0)
    rows = torch.arange(N_QUERIES)
    sampled = sampled_softmax(scores[rows, items], rows, scores, torch.zeros(N_ITEMS), hidden | (targets > 0))
    torch.testing.assert_close(sampled, catalogue_softmax(scores, targets, hidden))


def odds(scores: torch.Tensor, sample: list[int], log_expected: torch.Tensor) -> float:
    """What one positive of score 0 sees of a sample: exp(loss) - 1, the estimate of the sum over the catalogue."""
    hidden = torch.zeros(1, len(sample), dtype=torch.bool)
    zero, row = torch.zeros(1, dtype=torch.double), torch.tensor([0])
    return math.expm1(sampled_softmax(zero, row, scores[None, sample], log_expected[sample], hidden).item())


def test_sum_over_the_sample_is_unbiased() -> None:
    # All samples of independent draws, each with its probability: the expectation itself.
    scores = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.double)
    chance = torch.tensor([0.9, 0.2, 0.5, 0.7], dtype=torch.double)
    expectation = 0.0
    for size in range(1, 5):
        for sample in combinations(range(4), size):
            drawn = torch.zeros(4, dtype=torch.bool)
            drawn[list(sample)] = True
            likelihood = torch.where(drawn, chance, 1 - chance).prod().item()
            expectation += likelihood * odds(scores, list(sample), chance.log())
    assert expectation == pytest.approx(scores.exp().sum().item(), rel=1e-9)


def test_sum_over_distinct_draws_is_unbiased_by_simulation() -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.standard_normal(6))
    shares = rng.dirichlet(np.ones(6))
    included = torch.from_numpy(np.log(-np.expm1(4 * np.log1p(-shares))))
    estimates = [odds(scores, np.unique(rng.choice(6, 4, p=shares)).tolist(), included) for _ in range(4000)]
    error = np.std(estimates) / 4000**0.5
    assert abs(np.mean(estimates) - scores.exp().sum().item()) < 4 * error


def test_accidental_hits_are_masked() -> None:
    positives, rows = torch.tensor([1.0, 2.0]), torch.tensor([0, 1])
    negatives = torch.tensor([[0.5, 9.0], [0.1, 0.2]], requires_grad=True)
    hidden = torch.tensor([[False, True], [True, True]])
    loss = sampled_softmax(positives, rows, negatives, torch.zeros(2), hidden)
    # The second query meets no negative at all: it is content.
    assert loss.item() == pytest.approx(math.log1p(math.exp(0.5 - 1.0)) / 2)
    torch.autograd.backward(loss)
    assert negatives.grad is not None
    assert torch.equal(negatives.grad != 0, ~hidden)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_content_contrast_is_the_loop(temperature: float) -> None:
    rng = np.random.default_rng(0)
    content, ids = rng.standard_normal((2, 5, 3))
    losses = []
    for i in range(5):
        cosines = [content[i] @ other / np.linalg.norm(content[i]) / np.linalg.norm(other) for other in ids]
        losses.append(math.log(sum(math.exp(c / temperature) for c in cosines)) - cosines[i] / temperature)
    loss = content_contrast(torch.from_numpy(content), torch.from_numpy(ids), temperature)
    assert loss.item() == pytest.approx(np.mean(losses))


def test_content_contrast_holds_the_ids_fixed() -> None:
    content, ids = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).unbind()
    content.requires_grad_()
    ids.requires_grad_()
    torch.autograd.backward(content_contrast(content, ids))
    assert ids.grad is None
    assert content.grad is not None
    assert content.grad.any()


def test_an_item_without_content_gets_a_finite_gradient() -> None:
    content = torch.zeros(2, 3, requires_grad=True)
    torch.autograd.backward(content_contrast(content, torch.eye(3)[:2]))
    assert content.grad is not None
    assert torch.isfinite(content.grad).all()

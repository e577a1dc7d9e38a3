from __future__ import annotations

import pytest
import torch

from recsys.nn.fusion import GatedFusion


def random_case(seed: int = 0) -> tuple[GatedFusion, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A fusion of 4 fields with random gates, and 6 entities."""
    generator = torch.Generator().manual_seed(seed)
    fusion = GatedFusion(4, 5, {0: 10.0, 3: 3.0})
    with torch.no_grad():
        for weights in fusion.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator))
    values = torch.randn(6, 4, 5, generator=generator)
    present = torch.rand(6, 4, generator=generator) < 0.6
    evidence = torch.rand(6, 4, generator=generator) * 3
    return fusion, values, present, evidence


def test_weights_and_sum_by_hand() -> None:
    fusion, values, present, evidence = random_case()
    weights, fused = fusion(values, present, evidence)
    for row in range(6):
        total = torch.zeros(5)
        for field in range(4):
            logit = fusion.bias[field] + fusion.by_value[field] @ values[row, field]
            for other in range(4):
                logit = logit + float(present[row, other]) * fusion.by_presence[other, field]
                logit = logit + evidence[row, other] * fusion.by_evidence[other, field]
            expected = float(present[row, field]) / (1 + torch.exp(-logit))
            torch.testing.assert_close(weights[row, field], expected)
            total = total + expected * values[row, field]
        torch.testing.assert_close(fused[row], total)


def test_absent_fields_weigh_exactly_nothing() -> None:
    fusion, values, present, evidence = random_case()
    weights, fused = fusion(values, present, evidence)
    assert torch.equal(weights == 0, ~present)
    changed, fused_without = fusion(torch.where(present.unsqueeze(-1), values, 1e6), present, evidence)
    assert torch.equal(changed, weights)
    assert torch.equal(fused_without, fused)
    nothing, zero = fusion(values, torch.zeros_like(present), evidence)
    assert not nothing.any()
    assert not zero.any()


@pytest.mark.parametrize("half", [3.0, 10.0])
def test_gates_start_with_the_share_of_the_evidence(half: float) -> None:
    counts = torch.tensor([0.0, 1.0, 3.0, 30.0, 3000.0])
    fusion = GatedFusion(2, 3, {1: half})
    evidence = torch.stack([torch.zeros(5), torch.log1p(counts)], 1)
    weights, _ = fusion(torch.randn(5, 2, 3), torch.ones(5, 2, dtype=torch.bool), evidence)
    # Nearly n / (n + h): one interaction is counted beforehand.
    torch.testing.assert_close(weights[:, 1], (counts + 1) / (counts + 1 + half))
    torch.testing.assert_close(weights[:, 0], torch.full((5,), 0.5))


def test_evidence_of_an_absent_field_does_not_open_it() -> None:
    fusion = GatedFusion(1, 2, {0: 3.0})
    weights, _ = fusion(torch.ones(1, 1, 2), torch.tensor([[False]]), torch.tensor([[9.0]]))
    assert weights.item() == 0

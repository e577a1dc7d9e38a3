from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys._fields import Field
from recsys._sparse import Csr
from recsys.features import EncodedFeatures
from recsys.nn.deepfm import DeepFMNet
from recsys.nn.towers import FieldBags
from recsys.persistence import read_directory, write_directory

N, D = 24, 4
SIZES = {
    "users": N,
    "items": N,
    "user_columns": 3,
    "item_columns": 2,
    "context_columns": 2,
    "user_fields": 1,
    "item_fields": 1,
    "context_fields": 1,
    "factors": D,
}


def random_net(hidden: tuple[int, ...] = (6, 5), seed: int = 0) -> DeepFMNet:
    """A network whose weights are all far from 0, biases and first-order weights included."""
    net, generator = DeepFMNet(SIZES, list(hidden), seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in net.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator))
    return net


def one_hot(codes: np.ndarray, n: int) -> EncodedFeatures:
    return EncodedFeatures(Csr(np.eye(n, dtype=np.float32)[codes]), (Field("kind", "categorical", 0, n),))


def random_fields(n_fields: int, n: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D + 1, generator=generator), torch.randn(n, n_fields, D + 1, generator=generator)


def by_hand(net: DeepFMNet, user: np.ndarray, item: np.ndarray) -> float:
    """The score of one pair by the formula of the paper: loops over fields and pairs of fields."""
    values = {name: weights.detach().numpy().astype(float) for name, weights in net.named_parameters()}
    fields = np.concatenate([user, item])
    score = float(values[f"biases.{len(net.hidden)}"][0])
    for f, one in enumerate(fields):
        score += one[-1]
        for other in fields[f + 1 :]:
            score += float(one[:-1] @ other[:-1])
    inputs = np.concatenate([one[:-1] for one in fields])
    activations = inputs @ np.concatenate([values["first.user"], values["first.item"]]) + values["biases.0"]
    for layer in range(len(net.hidden)):
        activations = np.maximum(activations, 0) @ values[f"weights.{layer}"]
        if layer + 1 < len(net.hidden):
            activations = activations + values[f"biases.{layer + 1}"]
    return score + float(activations[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_scores_are_those_of_the_formula(seed: int, hidden: list[int]) -> None:
    net = random_net(tuple(hidden), seed)
    users, items = random_fields(3, seed=seed), random_fields(1, seed=seed + 1)
    whole = [torch.cat([ids.unsqueeze(1), others], 1).numpy().astype(float) for ids, others in (users, items)]
    with torch.no_grad():
        (user, bare), (item, content) = net.halves(users, "user"), net.halves(items, "item")
        found = net.pairs(user, item).numpy()
        np.testing.assert_allclose(found, [by_hand(net, u, i) for u, i in zip(*whole, strict=True)], rtol=1e-3)
        grid = net.grid(user, item, net.workspace(9)).numpy()
        np.testing.assert_allclose(np.diag(grid), found, rtol=1e-4, atol=1e-4)
        expected = [[by_hand(net, u, i) for i in whole[1]] for u in whole[0]]
        np.testing.assert_allclose(grid, expected, rtol=1e-3, atol=1e-3)
        # Without ids: their vectors are 0.
        for part in whole:
            part[:, 0] = 0
        found = net.pairs(bare, content).numpy()
        np.testing.assert_allclose(found, [by_hand(net, u, i) for u, i in zip(*whole, strict=True)], rtol=1e-3)


@pytest.mark.parametrize("hidden", [(7,), (6, 5), (5, 6, 4)])
def test_slopes_tell_the_perceptron_exactly(hidden: tuple[int, ...]) -> None:
    net = random_net(hidden)
    users, items = net.halves(random_fields(3), "user")[0], net.halves(random_fields(1), "item")[0]
    first = (users + items)[:, : hidden[0]].detach()
    slopes, rest = net.slopes(users, items)
    activations = first.clone().requires_grad_()
    deep = net._deep(activations * 1, None)
    gradient = torch.autograd.grad(deep.sum(), activations)[0]
    torch.testing.assert_close(slopes, gradient)
    torch.testing.assert_close((slopes * first).sum(1) + rest, deep)


def test_what_is_missing_is_the_vector_0() -> None:
    net = random_net()
    nothing = FieldBags(EncodedFeatures.empty(2, (Field("kind", "categorical", 0, 3),)))
    no_context = FieldBags(EncodedFeatures.empty(2, (Field("place", "categorical", 0, 2),)))
    history = torch.randn(N, D + 1), torch.tensor([], dtype=torch.long), torch.tensor([0, 0])
    ids = torch.tensor([0, 1]), torch.tensor([False, True])
    own, others = net.user_fields(ids, nothing, no_context, history)
    assert others.shape == (2, 3, D + 1)
    assert not others.any()
    assert not own[0].any()
    assert torch.equal(own[1], net.get_parameter("users")[1])


def test_a_history_is_the_sum_of_its_items_over_a_power_of_their_number() -> None:
    net = random_net()
    items = net.item_fields(FieldBags(one_hot(np.arange(N) % 2, 2)), torch.arange(N), torch.arange(N) < 20)
    known = torch.arange(N) < 20
    table = net.history_vectors(items, torch.arange(N), known)
    total = items[0] + items[1].sum(1)
    torch.testing.assert_close(table[:20], net.history_ids[:20] + total[:20, :-1] @ net.history_map)
    # An item without interactions tells by its content alone.
    torch.testing.assert_close(table[20:], net.get_parameter("item_columns")[[0, 1, 0, 1], :-1] @ net.history_map)
    nothing, no_context = FieldBags(EncodedFeatures.empty(2)), FieldBags(EncodedFeatures.empty(2))
    history = table, torch.tensor([3, 4, 5, 7]), torch.tensor([3, 1])
    ids = torch.tensor([0, 0]), torch.tensor([False, False])
    _, others = net.user_fields(ids, nothing, no_context, history)
    power = float(net.history_power.detach())
    torch.testing.assert_close(others[0, -1], table[3:6].sum(0) / 3**power)
    torch.testing.assert_close(others[1, -1], table[7])


def test_first_order_weights_start_at_the_logarithm_of_popularity() -> None:
    net, counts = DeepFMNet(SIZES, [4], 0), torch.arange(N).float()
    for name in ("users", "items", "user_columns", "item_columns", "context_columns"):
        assert not net.get_parameter(name)[:, -1].any()
    net.start_at(counts)
    torch.testing.assert_close(net.get_parameter("items")[:, -1], torch.log((counts + 1) / (counts + 1).mean()))


def test_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    net = random_net()
    header = {"class": "none", "recsys_version": "0", "parameters": {}}
    write_directory(tmp_path / "net", {"net_": net}, header)
    stored, _ = read_directory(tmp_path / "net")
    copied = stored["net_"]
    assert (copied.sizes, copied.hidden, copied.seed) == (net.sizes, net.hidden, net.seed)
    for name, weights in net.named_parameters():
        assert torch.equal(weights, copied.get_parameter(name))

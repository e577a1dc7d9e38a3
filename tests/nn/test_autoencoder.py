from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys._sparse import Csr, empty_csr
from recsys.nn.autoencoder import (
    Autoencoder,
    AutoencoderRecipe,
    AutoencoderTrainer,
    damped_rows,
    softmax_loss,
    sparse_product,
    squared_loss,
)


def random_csr(n: int, m: int, seed: int = 0, density: float = 0.4) -> Csr:
    rng = np.random.default_rng(seed)
    return Csr(np.where(rng.random((n, m)) < density, 1 - rng.random((n, m)), 0).astype(np.float32))


def recipe(**changed: Any) -> AutoencoderRecipe:
    parameters: dict[str, Any] = {
        "loss": "squared",
        "n_epochs": 30,
        "learning_rate": 0.02,
        "batch_size": 8,
        "l2": 0.01,
        "unobserved_weight": 0.3,
        "kl_weight": 0.0,
        "dropout": 0.5,
        "damping": 0.5,
    }
    return AutoencoderRecipe(**(parameters | changed))


def trainer(matrix: Csr, attributes: Csr | None = None, seed: int = 0, **changed: Any) -> AutoencoderTrainer:
    attributes = empty_csr(matrix.shape[0], 0) if attributes is None else attributes
    sizes = {"columns": matrix.shape[1], "attributes": attributes.shape[1], "factors": 4}
    return AutoencoderTrainer(Autoencoder(sizes, seed), matrix, attributes, recipe(**changed), seed)


def two_groups(n: int = 32) -> Csr:
    """Even rows have even columns, odd rows odd ones; one in four is missing."""
    rng = np.random.default_rng(0)
    same = np.arange(n)[:, None] % 2 == np.arange(12) % 2
    return Csr((same & (rng.random(same.shape) < 0.75)).astype(np.float32))


def brute_force(known: Csr, hidden: Any, codes: Any, columns: Any, loss: str, weight: float) -> list[float]:
    """The losses cell by cell."""
    answer = []
    for row in range(known.shape[0]):
        scores = columns[:, :-1] @ codes[row] + columns[:, -1]
        targets, shown = {}, set()
        for at in range(known.indptr[row], known.indptr[row + 1]):
            if hidden[at]:
                targets[known.indices[at]] = known.data[at]
            else:
                shown.add(known.indices[at])
        if loss == "squared":
            cells = [
                (targets[j] - score) ** 2 if j in targets else weight * score**2
                for j, score in enumerate(scores)
                if j not in shown
            ]
            answer.append(float(sum(cells)))
        else:
            total = sum(np.exp(score) for j, score in enumerate(scores) if j not in shown)
            answer.append(float(sum(np.log(total) - scores[j] for j in targets)))
    return answer


@given(
    n=st.integers(1, 6),
    m=st.integers(1, 7),
    d=st.integers(1, 4),
    seed=st.integers(0, 1000),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    loss=st.sampled_from(["squared", "multinomial"]),
)
def test_losses_are_those_of_a_loop_over_cells(n: int, m: int, d: int, seed: int, weight: float, loss: str) -> None:
    rng = np.random.default_rng(seed)
    known = random_csr(n, m, seed)
    hidden = rng.random(known.nnz) < 0.6
    codes, columns = rng.standard_normal((n, d)), rng.standard_normal((m, d + 1))
    told = (torch.from_numpy(codes).float(), torch.from_numpy(columns).float())
    found = squared_loss(known, hidden, *told, weight) if loss == "squared" else softmax_loss(known, hidden, *told)
    expected = brute_force(known, hidden, codes, columns, loss, weight)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", ["squared", "multinomial"])
def test_gradients_are_those_of_finite_differences(loss: Literal["squared", "multinomial"]) -> None:
    rng = np.random.default_rng(0)
    known = random_csr(4, 6)
    hidden = rng.random(known.nnz) < 0.6
    codes = torch.from_numpy(rng.standard_normal((4, 3))).float().requires_grad_()
    columns = torch.from_numpy(rng.standard_normal((6, 4))).float().requires_grad_()

    def total(codes: Any, columns: Any) -> torch.Tensor:
        losses = (
            squared_loss(known, hidden, codes, columns, 0.3)
            if loss == "squared"
            else softmax_loss(known, hidden, codes, columns)
        )
        return (losses * torch.tensor([1.0, 2.0, 0.5, 1.0])).sum()

    torch.autograd.backward(total(codes, columns))
    step = 1e-2
    for weights in (codes, columns):
        assert weights.grad is not None
        for at in np.ndindex(*weights.shape):
            values = []
            for sign in (1, -1):
                moved = weights.detach().clone()
                moved[at] += sign * step
                both = (moved, columns.detach()) if weights is codes else (codes.detach(), moved)
                values.append(float(total(*both)))
            expected = (values[0] - values[1]) / (2 * step)
            assert float(weights.grad[at]) == pytest.approx(expected, rel=2e-2, abs=2e-2)


def test_a_sparse_product_and_its_gradient() -> None:
    matrix, table = random_csr(5, 4), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    table.requires_grad_()
    product = sparse_product(matrix, table)
    np.testing.assert_allclose(product.detach().numpy(), matrix.toarray() @ table.detach().numpy(), rtol=1e-6)
    torch.autograd.backward((product**2).sum())
    dense = matrix.toarray()
    assert table.grad is not None
    np.testing.assert_allclose(table.grad.numpy(), 2 * dense.T @ (dense @ table.detach().numpy()), rtol=1e-5)


@given(seed=st.integers(0, 100))
def test_damped_rows_are_divided_by_the_root_of_their_length(seed: int) -> None:
    matrix = random_csr(4, 5, seed)
    dense = matrix.toarray()
    lengths = (dense > 0).sum(1, keepdims=True)
    np.testing.assert_allclose(damped_rows(matrix).toarray(), dense / np.sqrt(np.maximum(lengths, 1)), rtol=1e-6)


def test_the_code_is_tanh_of_its_parts() -> None:
    network = Autoencoder({"columns": 6, "attributes": 2, "factors": 3}, seed=0)
    with torch.no_grad():
        network.evidence.fill_(0.3)
        network.bias.fill_(-0.2)
        history, attributes = random_csr(5, 6), random_csr(5, 2, seed=1)
        dense = history.toarray()
        roots = np.sqrt(np.maximum((dense > 0).sum(1, keepdims=True), 1))
        z = dense / roots @ network.inputs.numpy() + attributes.toarray() @ network.attributes.numpy() - 0.2
        z += 0.3 * np.log1p((dense > 0).sum(1))[:, None]
        np.testing.assert_allclose(network.encode(history, attributes).numpy(), np.tanh(z), rtol=1e-5, atol=1e-6)
        other = torch.zeros(6, 3)
        of_history, _, _ = network.parts(history, attributes, other)
        assert not of_history.any()


@pytest.mark.parametrize("changed", [{}, {"loss": "multinomial"}, {"loss": "multinomial", "kl_weight": 0.1}])
def test_training_finds_what_is_hidden(changed: dict[str, Any]) -> None:
    matrix = two_groups()
    training = trainer(matrix, **changed)
    losses = [training.epoch() for _ in range(30)]
    assert losses[-1] < losses[0]
    new = Csr(np.eye(2, 12, dtype=np.float32))
    with torch.no_grad():
        codes = training.network.encode(new, empty_csr(2, 0))
        columns = training.network.columns()
        scores = (codes @ columns[:, :-1].T + columns[:, -1]).numpy()
    # One entry, of an even or an odd column, tells the group.
    assert scores[0, 2::2].min() > scores[0, 1::2].max()
    assert scores[1, 3::2].min() > scores[1, 0::2].max()


def test_attributes_tell_the_group() -> None:
    attributes = Csr(np.eye(2, dtype=np.float32)[np.arange(32) % 2])
    training = trainer(two_groups(), attributes, n_epochs=60)
    for _ in range(60):
        training.epoch()
    with torch.no_grad():
        codes = training.network.encode(empty_csr(2, 12), Csr(np.eye(2, dtype=np.float32)))
        columns = training.network.columns()
        scores = (codes @ columns[:, :-1].T + columns[:, -1]).numpy()
    assert scores[0, ::2].min() > scores[0, 1::2].max()
    assert scores[1, 1::2].min() > scores[1, ::2].max()


def test_the_penalty_shrinks_all_but_biases() -> None:
    free, held = trainer(two_groups(), l2=1e-6), trainer(two_groups(), l2=1e3)
    for training in (free, held):
        training.network.start_biases(np.full(12, 0.4, dtype=np.float32))
        for _ in range(30):
            training.epoch()
    assert held.network.outputs.abs().max() < 0.05 < free.network.outputs.abs().max()
    assert held.network.biases.min() > 0.1


def test_rows_without_entries_do_not_matter_and_weights_have_the_mean_one() -> None:
    matrix = Csr(np.vstack([two_groups().toarray(), np.zeros((3, 12), dtype=np.float32)]))
    training = trainer(matrix)
    assert training.rows.tolist() == list(range(32))
    assert training.weights[training.rows].mean() == pytest.approx(1)
    lengths = np.diff(matrix.indptr)
    expected = training.weights[0] * np.sqrt(lengths[0] / lengths[:32])
    np.testing.assert_allclose(training.weights[:32], expected, rtol=1e-5)
    np.testing.assert_array_equal(trainer(matrix, damping=0.0).weights[:32], 1)


def test_two_trainings_agree_bit_for_bit() -> None:
    networks = []
    for seed in (3, 3, 4):
        training = trainer(two_groups(), seed=seed, n_epochs=3)
        losses = [training.epoch() for _ in range(3)]
        assert np.isfinite(losses).all()
        networks.append(training.network)
    first, second, other = ({name: w.numpy() for name, w in network.state_dict().items()} for network in networks)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert not np.array_equal(first["outputs"], other["outputs"])


def test_a_diverged_epoch_is_undone() -> None:
    training = trainer(two_groups(), learning_rate=1e30)
    before = {name: weights.clone() for name, weights in training.network.state_dict().items()}
    assert not np.isfinite(training.epoch())
    for name, weights in training.network.state_dict().items():
        assert torch.equal(weights, before[name])


def test_state_and_back() -> None:
    network = Autoencoder({"columns": 3, "attributes": 2, "factors": 4}, seed=1)
    with torch.no_grad():
        network.biases.fill_(2.0)
    again = Autoencoder.from_state(network.to_state())
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])

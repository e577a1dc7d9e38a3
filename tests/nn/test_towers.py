from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recsys._fields import Field
from recsys.features import EncodedFeatures
from recsys.nn.towers import ITEM_NORM, USER_NORM, FieldBags, Towers, bags_of, squash
from recsys.persistence import read_directory, write_directory

SIZES = {
    "users": 4,
    "items": 5,
    "user_columns": 6,
    "item_columns": 6,
    "context_columns": 2,
    "user_fields": 4,
    "item_fields": 4,
    "context_fields": 1,
    "factors": 3,
}
# The second field has no columns: all its values were missing.
FIELDS = (
    Field("a", "categorical", 0, 2),
    Field("b", "categorical", 2, 2),
    Field("c", "multi_hot", 2, 5),
    Field("d", "numeric", 5, 6),
)


def encoded(n: int, seed: int = 0) -> EncodedFeatures:
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, 6)) < 0.4, rng.standard_normal((n, 6)), 0).astype(np.float32)
    return EncodedFeatures(sparse.csr_matrix(dense), FIELDS)


def context(n: int) -> FieldBags:
    ones = sparse.csr_matrix(np.eye(2, dtype=np.float32)[np.arange(n) % 2])
    return FieldBags(EncodedFeatures(ones, (Field("c", "categorical", 0, 2),)))


def random_towers(seed: int = 0) -> Towers:
    """Towers in which every parameter is random."""
    towers = Towers(SIZES, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in towers.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator) * 0.5)
    return towers


def told(towers: Towers, n: int = 3) -> dict[str, Any]:
    """Arguments of `users`: one has an id alone, one a history alone, one both."""
    table = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    return {
        "ids": (torch.arange(n), torch.tensor([4.0, 0.0, 2.0]), torch.tensor([True, False, True])),
        "bags": FieldBags(encoded(n)),
        "context": context(n),
        "history": (table, torch.tensor([1, 3, 3, 4]), torch.tensor([0, 3, 1])),
    }


@given(st.integers(0, 8), st.integers(0, 10_000))
def test_embed_is_the_dense_block_times_the_table(n: int, seed: int) -> None:
    features = encoded(n, seed)
    table = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
    vectors = FieldBags(features).embed(table)
    assert vectors.shape == (n, 4, 3)
    for position, field in enumerate(FIELDS):
        block = torch.from_numpy(features.block(field).toarray())
        torch.testing.assert_close(vectors[:, position], block @ table[field.start : field.stop])
    np.testing.assert_array_equal(FieldBags(features).present.numpy(), features.present)


@given(st.integers(1, 8), st.lists(st.integers(0, 7)), st.integers(0, 10_000))
def test_take_is_that_of_the_features(n: int, rows: list[int], seed: int) -> None:
    features, chosen = encoded(n, seed), np.array([row % n for row in rows], dtype=np.int64)
    taken, expected = FieldBags(features).take(torch.from_numpy(chosen)), FieldBags(features.take(chosen))
    for name in ("columns", "values", "counts"):
        assert torch.equal(getattr(taken, name), getattr(expected, name))
    assert (taken.n, taken.n_fields) == (expected.n, expected.n_fields) == (len(rows), 4)


def test_dropped_values_do_not_count() -> None:
    features = encoded(5)
    kept = np.arange(features.matrix.nnz) % 2 == 0
    thinned = features.matrix.copy()
    thinned.data = thinned.data * kept
    table = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    expected = FieldBags(EncodedFeatures(thinned, FIELDS)).embed(table)
    torch.testing.assert_close(FieldBags(features).embed(table, torch.from_numpy(kept)), expected)


def test_without_fields() -> None:
    bags = bags_of(None, 3)
    assert bags.embed(torch.zeros(0, 4)).shape == (3, 0, 4)
    assert bags.present.shape == (3, 0)
    assert bags.take(torch.tensor([2, 0])).embed(torch.zeros(0, 4)).shape == (2, 0, 4)


def test_without_a_single_value() -> None:
    bags = FieldBags(EncodedFeatures.empty(3, (Field("a", "categorical", 0, 0),)))
    table = torch.zeros(0, 4, requires_grad=True)
    vectors = bags.embed(table)
    torch.autograd.backward(vectors.sum())
    assert torch.equal(vectors, torch.zeros(3, 1, 4))
    assert not bags.present.any()


@pytest.mark.parametrize("norm", [ITEM_NORM, USER_NORM])
def test_squash_keeps_directions_below_the_norm(norm: float) -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e6, 4e6], [3e-6, 4e-6]])
    squashed = squash(vectors, norm)
    torch.testing.assert_close(squashed[0], vectors[0] * norm / 26**0.5)
    assert not squashed[1].any()
    torch.testing.assert_close(squashed[2], torch.tensor([0.6, 0.8]) * norm)
    torch.testing.assert_close(squashed[3], vectors[3] * norm)


def test_history_is_the_damped_sum_of_its_items() -> None:
    towers = random_towers()
    arguments = told(towers)
    table = arguments["history"][0]
    _, weights, values = towers.users(**arguments)
    power = towers.history_power.item()
    assert values.shape == (3, 7, 3)
    torch.testing.assert_close(values[1, -1], (table[1] + 2 * table[3]) / 3**power)
    torch.testing.assert_close(values[2, -1], table[4])
    assert not values[0, -1].any()
    assert weights[0, -1] == 0
    assert (weights[1:, -1] > 0).all()


def test_nobody_has_a_history() -> None:
    towers = random_towers()
    nothing = (torch.zeros(5, 3), torch.zeros(0, dtype=torch.long), torch.zeros(3, dtype=torch.long))
    vectors, weights, _ = towers.users(**(told(towers) | {"history": nothing}))
    assert not weights[:, -1].any()
    assert torch.isfinite(vectors).all()


def test_user_vectors_by_hand() -> None:
    towers = random_towers()
    arguments = told(towers)
    vectors, weights, values = towers.users(**arguments)
    torch.testing.assert_close(values[0, 0], towers.user_ids[0])
    torch.testing.assert_close(values[:, 1:5], arguments["bags"].embed(towers.user_columns))
    torch.testing.assert_close(values[:, 5], towers.context_columns[torch.tensor([0, 1, 0])])
    assert weights[:, 0].gt(0).tolist() == [True, False, True]
    torch.testing.assert_close(vectors, squash((weights.unsqueeze(-1) * values).sum(1), USER_NORM))
    # What is not known of a user who has no id is not asked of the table.
    other = (torch.tensor([0, 3, 2]), arguments["ids"][1], arguments["ids"][2])
    assert torch.equal(towers.users(**(arguments | {"ids": other}))[0], vectors)
    kept = torch.ones(3, 5, dtype=torch.bool)
    kept[:, 4] = False
    without = towers.users(**arguments, kept={"user_fields": kept})[1]
    assert not without[:, 5].any()
    assert torch.equal(without[:, 1:5] > 0, arguments["bags"].present)


def test_item_vectors_by_hand() -> None:
    towers = random_towers()
    bags, codes, counts = FieldBags(encoded(5)), torch.arange(5), torch.tensor([0.0, 1.0, 2.0, 50.0, 0.0])
    vectors, weights, values = towers.items(bags, codes, counts, with_ids=True)
    assert vectors.shape == (5, 4)
    assert torch.equal(weights[:, 0] > 0, counts > 0)
    fused = (weights.unsqueeze(-1) * values).sum(1)
    torch.testing.assert_close(vectors[:, :-1], squash(fused[:, :-1], ITEM_NORM))
    torch.testing.assert_close(vectors[:, -1], fused[:, -1])
    content, without, _ = towers.items(bags, codes, counts, with_ids=False)
    assert not without[:, 0].any()
    # Items without interactions are told by their content in either view.
    assert torch.equal(content[[0, 4]], vectors[[0, 4]])
    history = towers.history_vectors(codes, vectors, counts > 0)
    mapped = vectors[:, :-1] @ towers.history_map
    torch.testing.assert_close(history[1:4], towers.history_ids[1:4] + mapped[1:4])
    torch.testing.assert_close(history[[0, 4]], mapped[[0, 4]])


def test_biases_start_at_the_logarithm_of_popularity() -> None:
    towers = Towers(SIZES, 0)
    assert not towers.item_ids[:, -1].any()
    counts = torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0])
    towers.start_biases(counts)
    torch.testing.assert_close(towers.item_ids[:, -1], torch.log((counts + 1) / 4))
    assert not towers.item_columns[:, -1].any()


def test_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(3)
    first = Towers(SIZES, 7)
    torch.manual_seed(4)
    second, other = Towers(SIZES, 7), Towers(SIZES, 8)
    for name, weights in first.named_parameters():
        assert torch.equal(weights, second.get_parameter(name))
    assert not torch.equal(first.user_ids, other.user_ids)


def test_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    towers = random_towers()
    write_directory(
        tmp_path / "towers", {"towers_": towers}, {"class": "none", "recsys_version": "0", "parameters": {}}
    )
    stored, _ = read_directory(tmp_path / "towers")
    for copied in (Towers.from_state(towers.to_state()), stored["towers_"]):
        assert copied.sizes == SIZES
        assert copied.seed == towers.seed
        for name, weights in towers.named_parameters():
            assert torch.equal(weights, copied.get_parameter(name))
        with torch.no_grad():
            copied.user_ids += 1
        assert not torch.equal(copied.user_ids, towers.user_ids)

"""Graphs compute what NumPy does."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys._asked import AskedItems, AskedUsers, Parts
from recsys._graphs import Graph, Tables, Value
from recsys.exceptions import PersistenceError
from recsys.features import Field

FIELDS = (Field("a", "numeric", 0, 2), Field("b", "categorical", 2, 3), Field("c", "vector", 3, 6))


def run(asked: AskedItems | AskedUsers, output: Value, **inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The output of a graph."""
    options = onnxruntime.SessionOptions()
    tables = asked.graph.tables
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(table)) for table in tables.values()]
    options.add_external_initializers(list(tables), values)
    graph = asked.graph.to_bytes({"found": output.as_type(np.float32)})
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    wanted = {each.name for each in session.get_inputs()}
    found: npt.NDArray[np.float32] = session.run(None, {name: inputs[name] for name in wanted})[0]
    return found


def padded(dense: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """Rows as the input `features`; every nonzero is an entry."""
    length = max(1, int((dense != 0).sum(1).max(initial=0)))
    columns = np.full((len(dense), length), -1, dtype=np.int64)
    values = np.zeros((len(dense), length), dtype=np.float32)
    for row, cells in enumerate(dense):
        places = np.flatnonzero(cells)
        columns[row, : len(places)], values[row, : len(places)] = places, cells[places]
    return {"features": columns, "features_values": values}


ROWS = hnp.arrays(np.float32, (3, 6), elements=st.sampled_from([0.0, 0.0, 1.0, 0.5, -2.0]))
TABLE = np.arange(24, dtype=np.float32).reshape(6, 4) - 10


@given(ROWS)
def test_rows_are_multiplied_as_matrices(dense: npt.NDArray[np.float32]) -> None:
    asked = AskedUsers(True)
    rows, told = asked.features, padded(dense)
    is_entry = (dense != 0).astype(np.float32)
    shifted = np.concatenate([TABLE * 0, TABLE])
    one = rows.lengths * 0.0 + 1.0
    expected: list[tuple[Value, Any]] = [
        (rows.product(TABLE), dense @ TABLE),
        (rows.pattern.product(TABLE), is_entry @ TABLE),
        (rows.lengths, is_entry.sum(1, keepdims=True)),
        (rows.below(4).product(TABLE), dense[:, :4] @ TABLE[:4]),
        (rows.below(4).lengths, is_entry[:, :4].sum(1, keepdims=True)),
        (rows.with_constant(5).product(TABLE), dense @ TABLE + TABLE[5]),
        (rows.moved(one.as_type(np.int64) * 6).product(shifted), dense @ TABLE),
        (
            rows.by_field(shifted, FIELDS, moved=one.as_type(np.int64) * 6),
            np.stack([dense[:, f.start : f.stop] @ TABLE[f.start : f.stop] for f in FIELDS], 1),
        ),
        (rows.present(FIELDS), np.stack([is_entry[:, f.start : f.stop].max(1) for f in FIELDS], 1)),
        (
            rows.by_field(TABLE, FIELDS),
            np.stack([dense[:, f.start : f.stop] @ TABLE[f.start : f.stop] for f in FIELDS], 1),
        ),
    ]
    for value, matrix in expected:
        np.testing.assert_allclose(run(asked, value, **told), matrix, rtol=1e-6, atol=1e-5)


def test_stored_zeros_are_entries() -> None:
    asked = AskedUsers(True)
    told = {"features": np.array([[3, -1]]), "features_values": np.zeros((1, 2), dtype=np.float32)}
    assert run(asked, asked.features.present(FIELDS), **told).tolist() == [[0, 0, 1]]


def test_without_columns_there_is_nothing() -> None:
    asked = AskedUsers(True)
    nothing = padded(np.zeros((2, 0), dtype=np.float32))
    assert run(asked, asked.features.product(np.zeros((0, 3), dtype=np.float32)), **nothing).tolist() == [[0] * 3] * 2


def test_arithmetic() -> None:
    asked = AskedUsers(True)
    x = asked.features.values
    graph, given_ = asked.graph, np.array([[1.0, 4.0], [-2.0, 0.5]], dtype=np.float32)
    told: dict[str, npt.NDArray[Any]] = {"features": np.zeros((2, 2), dtype=np.int64), "features_values": given_}
    matrix = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    expected: list[tuple[Value, Any]] = [
        (x + 1.0, given_ + 1),
        (1.0 + x, given_ + 1),
        (x - matrix, given_ - matrix),
        (matrix - x, matrix - given_),
        (2.0 - x, 2 - given_),
        (2.0 * x * 3.0, 6 * given_),
        (x / 2.0, given_ / 2),
        (1.0 / x, 1 / given_),
        (x @ matrix, given_ @ matrix),
        (x.exceeds(0.5), given_ > 0.5),
        (x.equals(0.5), given_ == 0.5),
        (x.at_least(0.0).at_most(2.0), np.clip(given_, 0, 2)),
        (x.sum(1), given_.sum(1, keepdims=True)),
        (x.max(0), given_.max(0, keepdims=True)),
        (x.expand(1).transpose(2, 1, 0).squeeze(1), given_.T),
        (graph.concat([x, matrix], 1), np.hstack([given_, matrix])),
        (graph.take(matrix, np.array([1, 1])), matrix[[1, 1]]),
        (graph.where(x.exceeds(0.0), x, 9.0), np.where(given_ > 0, given_, 9)),
        (x.as_type(np.int64), given_.astype(np.int64)),
        (x.columns(1, None), given_[:, 1:]),
        (x.columns(0, 1), given_[:, :1]),
        (x.expand(1).widened(1, 2), np.pad(given_[:, None], ((0, 0), (0, 0), (1, 2)))),
    ]
    for value, array in expected:
        assert run(asked, value, **told).tolist() == np.asarray(array, dtype=np.float32).tolist()


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_systems_are_solved(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((3, size, size + 2))
    matrices, right = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(size), rng.standard_normal((3, size, 2))
    asked = AskedUsers(True)
    rows = asked.graph.input("features_values", np.float64, ["n", "size", "two"])
    solved = asked.graph.solve(asked.graph.constant(matrices), rows, size)
    expected = np.linalg.solve(matrices, right)
    np.testing.assert_allclose(run(asked, solved, features_values=right), expected, rtol=1e-5, atol=1e-6)


def test_large_arrays_stand_beside_the_graph() -> None:
    asked = AskedUsers(False)
    large, small = np.ones((100, 100), dtype=np.float32), np.ones((1, 100), dtype=np.float32)[:, :4]
    output = asked.features.product(large) @ large + asked.features.product(large)
    asked.graph.constant(small)
    # An array that is used again stands there once.
    assert [table.shape for table in asked.graph.tables.values()] == [(100, 100)]
    assert len(asked.graph.to_bytes({"found": output})) < 5000


def test_without_onnx_an_export_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(PersistenceError, match=r"the package `onnx` is missing: pip install 'recsys\[export\]'"):
        AskedUsers(True).graph.constant(1.0)


@given(ROWS, ROWS)
def test_histories_are_of_both_kinds_of_items(dense: npt.NDArray[np.float32], more: npt.NDArray[np.float32]) -> None:
    asked = AskedUsers(True)
    history, joined = asked.history, TABLE[::-1].copy()
    table, of_two = asked.of_items("table", TABLE), asked.of_items("two", TABLE[:, :2].reshape(-1, 1), 2)
    told: dict[str, npt.NDArray[Any]] = {"table": joined, "two": joined[:, :2].reshape(-1, 1)}
    for name, cells in (("history", dense), ("joined", more)):
        found = padded(cells)
        told |= {name: found["features"], f"{name}_values": found["features_values"]}
    ones = [(cells != 0).astype(np.float32) for cells in (dense, more)]
    lengths = ones[0].sum(1, keepdims=True) + ones[1].sum(1, keepdims=True)
    second = (history.lengths * 0.0 + 1.0).as_type(np.int64)
    expected: list[tuple[Value, Any]] = [
        (history.product(table), dense @ TABLE + more @ joined),
        (history.times(2.0).product(table), 2 * (dense @ TABLE + more @ joined)),
        (history.pattern.product(table), ones[0] @ TABLE + ones[1] @ joined),
        ((history.gather(table) * history.values.expand(2)).sum(1).squeeze(1), dense @ TABLE + more @ joined),
        (history.of_many(2, second).product(of_two), dense @ TABLE[:, 1:2] + more @ joined[:, 1:2]),
        (history.lengths, lengths),
        (history.is_entry.sum(1), lengths),
    ]
    for value, matrix in expected:
        np.testing.assert_allclose(run(asked, value, **told), matrix, rtol=1e-6, atol=1e-4)
    assert asked.item_tables == {"table": [1, 4], "two": [2, 1]}


def test_without_items_that_joined_nothing_is_asked_of_them() -> None:
    asked = AskedUsers(True, with_joined=False)
    found = asked.history.product(asked.of_items("table", TABLE)) + asked.history.gather(
        asked.of_items("more", TABLE)
    ).sum(1).squeeze(1)
    told = padded(np.eye(6, dtype=np.float32)[:2])
    given_ = {"history": told["features"], "history_values": told["features_values"]}
    assert run(asked, found, **given_).tolist() == (2 * TABLE[:2]).tolist()
    assert asked.graph.inputs.keys() == given_.keys()


@given(ROWS)
def test_items_are_told_densely(dense: npt.NDArray[np.float32]) -> None:
    asked = AskedItems()
    told = {**padded(dense), "exported": np.array([[2], [-1], [9]])}
    assert run(asked, asked.dense(asked.features, 6), **told).tolist() == dense.tolist()
    assert run(asked, asked.nothing(3), **told).tolist() == np.zeros((3, 3)).tolist()
    # Those after the last row joined the model later.
    assert run(asked, asked.of_exported(TABLE), **told).tolist() == [TABLE[2].tolist(), [0] * 4, [0] * 4]


def test_parts_are_side_by_side() -> None:
    asked = AskedUsers(True, with_joined=False)
    parts, lengths = Parts(asked.graph), asked.history.lengths
    parts.add([("user", "age")], (lengths * TABLE[:1]).expand(1), lengths)
    parts.add([], asked.history.gather(asked.of_items("table", TABLE)), asked.history.values)
    told = padded(np.eye(6, dtype=np.float32)[:1])
    given_ = {"history": told["features"], "history_values": told["features_values"]}
    outputs = parts.outputs()
    assert (parts.names, list(outputs)) == ([["user", "age"]], ["parts", "weights"])
    assert run(asked, outputs["parts"], **given_).tolist() == [[TABLE[0].tolist()] * 2]
    assert run(asked, outputs["weights"], **given_).tolist() == [[1, 1]]


def test_graphs_share_tables() -> None:
    tables = Tables()
    graphs = [Graph(tables) for _ in range(2)]
    names = [graph.constant(np.full((5, 5), 2.0)).name for graph in graphs]
    assert (names, [list(graph.tables) for graph in graphs]) == (["table0"] * 2, [["table0"]] * 2)
    assert list(tables.arrays) == ["table0"]

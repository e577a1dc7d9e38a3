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

from recsys._graphs import AskedUsers, Value
from recsys.exceptions import PersistenceError
from recsys.features import Field

FIELDS = (Field("a", "numeric", 0, 2), Field("b", "categorical", 2, 3), Field("c", "vector", 3, 6))


def run(asked: AskedUsers, output: Value, **inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The output of a graph."""
    options = onnxruntime.SessionOptions()
    tables = asked.graph.tables
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(table)) for table in tables.values()]
    options.add_external_initializers(list(tables), values)
    graph = asked.graph.to_bytes(output.as_type(np.float32))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    wanted = {each.name for each in session.get_inputs()}
    found: npt.NDArray[np.float32] = session.run(None, {name: inputs[name] for name in wanted})[0]
    return found


def padded(dense: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """Rows as the input `history`; every nonzero is an entry."""
    length = max(1, int((dense != 0).sum(1).max(initial=0)))
    columns = np.full((len(dense), length), -1, dtype=np.int64)
    values = np.zeros((len(dense), length), dtype=np.float32)
    for row, cells in enumerate(dense):
        places = np.flatnonzero(cells)
        columns[row, : len(places)], values[row, : len(places)] = places, cells[places]
    return {"history": columns, "history_values": values}


ROWS = hnp.arrays(np.float32, (3, 6), elements=st.sampled_from([0.0, 0.0, 1.0, 0.5, -2.0]))
TABLE = np.arange(24, dtype=np.float32).reshape(6, 4) - 10


@given(ROWS)
def test_rows_are_multiplied_as_matrices(dense: npt.NDArray[np.float32]) -> None:
    asked = AskedUsers(True)
    rows, told = asked.history, padded(dense)
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
    told = {"history": np.array([[3, -1]]), "history_values": np.zeros((1, 2), dtype=np.float32)}
    assert run(asked, asked.history.present(FIELDS), **told).tolist() == [[0, 0, 1]]


def test_without_columns_there_is_nothing() -> None:
    asked = AskedUsers(True)
    nothing = padded(np.zeros((2, 0), dtype=np.float32))
    assert run(asked, asked.history.product(np.zeros((0, 3), dtype=np.float32)), **nothing).tolist() == [[0] * 3] * 2


def test_arithmetic() -> None:
    asked = AskedUsers(True)
    x = asked.history.values
    graph, given_ = asked.graph, np.array([[1.0, 4.0], [-2.0, 0.5]], dtype=np.float32)
    told: dict[str, npt.NDArray[Any]] = {"history": np.zeros((2, 2), dtype=np.int64), "history_values": given_}
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
    ]
    for value, array in expected:
        assert run(asked, value, **told).tolist() == np.asarray(array, dtype=np.float32).tolist()


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_systems_are_solved(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((3, size, size + 2))
    matrices, right = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(size), rng.standard_normal((3, size))
    asked = AskedUsers(True)
    rows = asked.graph.input("history_values", np.float64, ["n_users", "n_history"])
    solved = asked.graph.solve(asked.graph.constant(matrices), rows, size)
    expected = np.linalg.solve(matrices, right[:, :, None])[:, :, 0]
    np.testing.assert_allclose(run(asked, solved, history_values=right), expected, rtol=1e-5, atol=1e-6)


def test_large_arrays_stand_beside_the_graph() -> None:
    asked = AskedUsers(False)
    large, small = np.ones((100, 100), dtype=np.float32), np.ones((1, 100), dtype=np.float32)[:, :4]
    output = asked.history.product(large) @ large + asked.history.product(large)
    asked.graph.constant(small)
    # An array that is used again stands there once.
    assert [table.shape for table in asked.graph.tables.values()] == [(100, 100)]
    assert len(asked.graph.to_bytes(output)) < 5000


def test_without_onnx_an_export_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(PersistenceError, match=r"the package `onnx` is missing: pip install 'recsys\[export\]'"):
        AskedUsers(True).graph.constant(1.0)

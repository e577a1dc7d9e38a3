"""A model as ONNX graphs: arithmetic on arrays that come with a request.

A model describes in `_user_graph` what its `_user_vectors` computes, and the description reads like it: a `Value` is
added, multiplied and gathered from like an array. Only who exports needs the package `onnx`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from recsys.exceptions import PersistenceError

__all__ = ["Graph", "Tables", "Value"]

Array: TypeAlias = npt.NDArray[Any]
Operand: TypeAlias = "Value | Array | float | int"

# Constants of more numbers stand beside the graph, where they are mapped into memory and not copied.
WITHIN = 16
# Operators of 2022: what runs ONNX knows them.
OPSET, IR_VERSION = 18, 9


class Value:
    """An array of a graph.

    Parameters
    ----------
    graph : Graph
    name : str
        What the graph calls it.
    """

    # An array on the left of an operator leaves the answer to this class.
    __array_ufunc__ = None

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name

    def __add__(self, other: Operand) -> Value:
        return self.graph.apply("Add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return self.graph.apply("Add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return self.graph.apply("Sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self.graph.apply("Sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return self.graph.apply("Mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self.graph.apply("Mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return self.graph.apply("Div", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self.graph.apply("Div", other, self)

    def __matmul__(self, other: Operand) -> Value:
        return self.graph.apply("MatMul", self, other)

    def exceeds(self, other: Operand) -> Value:
        """1 where it is larger, else 0."""
        return self.graph.apply("Greater", self, other).as_type(np.float32)

    def equals(self, other: Operand) -> Value:
        """1 where it is equal, else 0."""
        return self.graph.apply("Equal", self, other).as_type(np.float32)

    def at_least(self, least: Operand) -> Value:
        """The larger of both."""
        return self.graph.apply("Max", self, least)

    def at_most(self, most: Operand) -> Value:
        """The smaller of both."""
        return self.graph.apply("Min", self, most)

    def sum(self, axis: int) -> Value:
        """The sum along an axis, which stays with length 1."""
        return self.graph.apply("ReduceSum", self, np.array([axis]), keepdims=1)

    def max(self, axis: int) -> Value:
        """The largest along an axis, which stays with length 1."""
        return self.graph.apply("ReduceMax", self, np.array([axis]), keepdims=1)

    def expand(self, axis: int) -> Value:
        """A new axis of length 1."""
        return self.graph.apply("Unsqueeze", self, np.array([axis]))

    def squeeze(self, axis: int) -> Value:
        """Without an axis of length 1."""
        return self.graph.apply("Squeeze", self, np.array([axis]))

    def columns(self, start: int, stop: int | None) -> Value:
        """Those of its axis 1 from `start` to `stop`, or to the last."""
        stop = np.iinfo(np.int64).max if stop is None else stop
        return self.graph.apply("Slice", self, *(np.array([each]) for each in (start, stop, 1)))

    def widened(self, before: int, after: int) -> Value:
        """With so many zeros before and after on its axis 2."""
        return self.graph.apply("Pad", self, np.array([0, 0, before, 0, 0, after]))

    def transpose(self, *order: int) -> Value:
        """Its axes in another order."""
        return self.graph.apply("Transpose", self, perm=list(order))

    def as_type(self, dtype: Any) -> Value:
        """Its numbers as another type."""
        return self.graph.apply("Cast", self, to=_onnx().helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


class Tables:
    """Arrays that stand beside graphs, by name: what several graphs take stands there once.

    Examples
    --------
    >>> tables = Tables()
    >>> tables.add(np.eye(2)), tables.add(np.ones(2)), tables.add(np.eye(2))
    ('table0', 'table1', 'table0')
    """

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[Any, str] = {}

    def add(self, array: Array) -> str:
        """The name of an array."""
        content = np.ascontiguousarray(array)
        key = (content.dtype.str, content.shape, hashlib.blake2b(content.tobytes()).digest())
        name = self._names.setdefault(key, f"table{len(self._names)}")
        self.arrays.setdefault(name, content)
        return name


class Graph:
    """Nodes that compute one another's inputs, and the arrays that they take for granted.

    Parameters
    ----------
    tables : Tables, default=None
        Where arrays stand that are shared with other graphs. None: they stand there for this one.
    outer : Graph, default=None
        That of which it is a part.
    """

    def __init__(self, tables: Tables | None = None, outer: Graph | None = None) -> None:
        self.nodes: list[Any] = []
        self.inputs: dict[str, Any] = {}
        self.within: list[Any] = []
        # What this graph takes of what stands beside it, by name.
        self.tables: dict[str, Array] = {}
        self._shared = Tables() if tables is None else tables
        self._names: list[str] = [] if outer is None else outer._names
        self._known: dict[int, tuple[Array, Value]] = {}

    def _name(self, kind: str) -> str:
        self._names.append(f"{kind}{len(self._names)}")
        return self._names[-1]

    def input(self, name: str, dtype: Any, shape: Sequence[str]) -> Value:
        """An array that comes with a request; the same however often it is asked for."""
        if name not in self.inputs:
            kind = _onnx().helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            self.inputs[name] = _onnx().helper.make_tensor_value_info(name, kind, list(shape))
        return Value(self, name)

    def constant(self, value: Array | float | int) -> Value:
        """An array or a number that is the same in every request; single precision where it is real."""
        if isinstance(value, np.ndarray) and id(value) in self._known:
            return self._known[id(value)][1]
        array = np.asarray(value)
        if isinstance(value, (float, np.floating)):
            array = array.astype(np.float32)
        name = self._name("constant") if array.size <= WITHIN else self._shared.add(array)
        if array.size <= WITHIN:
            self.within.append(_onnx().numpy_helper.from_array(array, name))
        elif name not in self.tables:
            kind = _onnx().helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor = _onnx().TensorProto(name=name, data_type=kind, dims=array.shape, data_location=1)
            tensor.external_data.add(key="location", value="tables")
            self.tables[name] = self._shared.arrays[name]
            self.within.append(tensor)
        found = Value(self, name)
        if isinstance(value, np.ndarray):
            # With the array, so that no other takes its place in memory.
            self._known[id(value)] = value, found
        return found

    def apply(self, operator: str, *inputs: Operand, **attributes: Any) -> Value:
        """The output of an operator of ONNX."""
        names = [(each if isinstance(each, Value) else self.constant(each)).name for each in inputs]
        output = self._name("value")
        self.nodes.append(_onnx().helper.make_node(operator, names, [output], **attributes))
        return Value(self, output)

    def concat(self, values: Sequence[Operand], axis: int) -> Value:
        """Values one after the other."""
        return self.apply("Concat", *values, axis=axis)

    def take(self, table: Operand, rows: Operand, axis: int = 0) -> Value:
        """The rows of a table at these places."""
        return self.apply("Gather", table, rows, axis=axis)

    def where(self, condition: Value, yes: Operand, no: Operand) -> Value:
        """One value where the condition is not 0, else another."""
        return self.apply("Where", condition.as_type(np.bool_), yes, no)

    def solve(self, matrix: Value, right: Value, size: int) -> Value:
        """The solutions x of ``matrix @ x = right``, by the elimination of Gauss and Jordan, a column a step.

        Parameters
        ----------
        matrix : Value of shape (n, size, size), float64
            Symmetric and positive definite, so that no row has to move.
        right : Value of shape (n, size, m), float64
        size : int

        Returns
        -------
        Value of shape (n, size, m), float64
        """
        helper, double = _onnx().helper, _onnx().TensorProto.DOUBLE
        body, identity = Graph(outer=self), self.constant(np.eye(size))
        step, going, system = (Value(body, self._name(kind)) for kind in ("step", "going", "system"))
        row = body.take(system, step, axis=1)
        row = row / body.take(row, step, axis=1).expand(1)
        # Less 1 at the pivot: there the row itself is what is left.
        column = body.take(system, step, axis=2) - body.take(identity, step)
        eliminated = system - column.expand(2) * row.expand(1)
        told = body.apply("Identity", going)
        kinds = (_onnx().TensorProto.INT64, _onnx().TensorProto.BOOL, double)
        inputs = [
            helper.make_tensor_value_info(each.name, kind, [] if each is not system else None)
            for each, kind in zip((step, going, system), kinds, strict=True)
        ]
        outputs = [
            helper.make_tensor_value_info(told.name, kinds[1], []),
            helper.make_tensor_value_info(eliminated.name, double, None),
        ]
        part = helper.make_graph(body.nodes, "eliminate", inputs, outputs, body.within)
        solved = self.apply("Loop", np.array(size), np.array(True), self.concat([matrix, right], 2), body=part)
        return self.apply("Slice", solved, np.array([size]), np.array([np.iinfo(np.int64).max]), np.array([2]))

    def to_bytes(self, outputs: Mapping[str, Value]) -> bytes:
        """The model with these outputs, float32, as ONNX stores it, without the tables."""
        helper, kind = _onnx().helper, _onnx().TensorProto.FLOAT
        named = [helper.make_node("Identity", [value.name], [name]) for name, value in outputs.items()]
        told = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = helper.make_graph([*self.nodes, *named], "graph", list(self.inputs.values()), told, self.within)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="recsys")
        stored: bytes = model.SerializeToString()
        return stored


def _onnx() -> Any:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise PersistenceError(
            "`export` writes the user side as ONNX, for which the package `onnx` is missing: pip install "
            "'recsys[export]'."
        ) from error
    return onnx

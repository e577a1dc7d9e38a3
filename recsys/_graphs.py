"""The user side of a model as an ONNX graph: arithmetic on arrays that come with a request.

A model describes in `_user_graph` what its `_user_vectors` computes, and the description reads like it: a `Value` is
added, multiplied and gathered from like an array. Only who exports needs the package `onnx`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from recsys.exceptions import PersistenceError

__all__ = ["AskedUsers", "Graph", "Rows", "Value"]

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

    def transpose(self, *order: int) -> Value:
        """Its axes in another order."""
        return self.graph.apply("Transpose", self, perm=list(order))

    def as_type(self, dtype: Any) -> Value:
        """Its numbers as another type."""
        return self.graph.apply("Cast", self, to=_onnx().helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


class Graph:
    """Nodes that compute one another's inputs, and the arrays that they take for granted."""

    def __init__(self, outer: Graph | None = None) -> None:
        self.nodes: list[Any] = []
        self.inputs: dict[str, Any] = {}
        self.within: list[Any] = []
        # What stands beside the graph, by name.
        self.tables: dict[str, Array] = {} if outer is None else outer.tables
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
        helper, name = _onnx().helper, self._name("constant")
        if array.size <= WITHIN:
            tensor = _onnx().numpy_helper.from_array(array, name)
        else:
            tensor = _onnx().TensorProto(
                name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape, data_location=1
            )
            tensor.external_data.add(key="location", value="tables")
            self.tables[name] = array
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
        right : Value of shape (n, size), float64
        size : int

        Returns
        -------
        Value of shape (n, size), float64
        """
        helper, double = _onnx().helper, _onnx().TensorProto.DOUBLE
        body = Graph(self)
        step, going, system = (Value(body, self._name(kind)) for kind in ("step", "going", "system"))
        row = body.take(system, step, axis=1)
        row = row / body.take(row, step, axis=1).expand(1)
        # Less 1 at the pivot: there the row itself is what is left.
        column = body.take(system, step, axis=2) - body.take(self.constant(np.eye(size)), step)
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
        start = self.concat([matrix, right.expand(2)], 2)
        solved = self.apply("Loop", np.array(size), np.array(True), start, body=part)
        return self.take(solved, np.array(size), axis=2)

    def to_bytes(self, output: Value) -> bytes:
        """The model whose output is `output`, as ONNX stores it, without the tables."""
        helper = _onnx().helper
        named = helper.make_node("Identity", [output.name], ["user_vectors"])
        kind = _onnx().TensorProto.FLOAT
        outputs = [helper.make_tensor_value_info("user_vectors", kind, ["n_users", "n_dimensions"])]
        graph = helper.make_graph([*self.nodes, named], "users", list(self.inputs.values()), outputs, self.within)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="recsys")
        stored: bytes = model.SerializeToString()
        return stored


@dataclass(frozen=True, eq=False)
class Rows:
    """Sparse rows of users, each as long as the longest.

    Attributes
    ----------
    columns : Value of shape (n_users, length), int64
        Where entries are; -1 where there are no more.
    values : Value of shape (n_users, length), float32
        What they are; 0 where there are no more.
    """

    columns: Value
    values: Value

    @cached_property
    def is_entry(self) -> Value:
        """1 where there is an entry, else 0; (n_users, length)."""
        return self.columns.exceeds(-1)

    @cached_property
    def lengths(self) -> Value:
        """How many entries each user has; (n_users, 1), float32."""
        return self.is_entry.sum(1)

    @property
    def pattern(self) -> Rows:
        """Ones where entries are."""
        return Rows(self.columns, self.is_entry)

    def below(self, n: int) -> Rows:
        """The entries of the first n columns."""
        kept = self.columns.graph.apply("Less", self.columns, n)
        graph = self.columns.graph
        return Rows(graph.apply("Where", kept, self.columns, -1), graph.apply("Where", kept, self.values, 0.0))

    def moved(self, by: Value) -> Rows:
        """With as many columns more before them, by user: (n_users, 1), int64."""
        return Rows(self.columns + self.is_entry.as_type(np.int64) * by, self.values)

    def with_constant(self, column: int) -> Rows:
        """A last entry of 1 in this column."""
        one = self.lengths * 0.0 + 1.0
        graph = self.columns.graph
        columns = [one.as_type(np.int64) * column, self.columns]
        return Rows(graph.concat(columns, 1), graph.concat([one, self.values], 1))

    def gather(self, table: Array) -> Value:
        """The row of a table for each entry, (n_users, length, width)."""
        if not len(table):
            # There are no entries, but padding must point at something.
            table = np.zeros((1, table.shape[1]), dtype=table.dtype)
        return self.columns.graph.take(table, self.columns.at_least(0))

    def product(self, table: Array) -> Value:
        """The rows times a table, (n_users, width)."""
        return (self.values.expand(1) @ self.gather(table)).squeeze(1)

    def by_field(self, table: Array, fields: Sequence[Any]) -> Value:
        """As `product`, field by field: (n_users, n_fields, width)."""
        belongs = self._belongs(fields).transpose(0, 2, 1)
        return (belongs * self.values.expand(1)) @ self.gather(table)

    def present(self, fields: Sequence[Any]) -> Value:
        """1 for the fields that have an entry, else 0; (n_users, n_fields)."""
        return (self._belongs(fields) * self.is_entry.expand(2)).max(1).squeeze(1)

    def _belongs(self, fields: Sequence[Any]) -> Value:
        """1 for the field of each entry, (n_users, length, n_fields)."""
        return self.gather(np.repeat(np.eye(len(fields), dtype=np.float32), [f.stop - f.start for f in fields], axis=0))


class AskedUsers:
    """What a request tells of users: the inputs of the graph; those that a model does not look at are not asked for.

    Parameters
    ----------
    with_known : bool
        Whether the bundle has the users of `fit`. If not, a model need not look at `known` and `trained`.

    Attributes
    ----------
    graph : Graph

    Examples
    --------
    >>> asked = AskedUsers(with_known=False)
    >>> mean = asked.history.product(np.eye(8, dtype=np.float32)) / asked.history.lengths.at_least(1.0)
    >>> list(asked.graph.inputs), [table.shape for table in asked.graph.tables.values()]
    (['history_values', 'history'], [(8, 8)])
    >>> graph = asked.graph.to_bytes(mean)
    """

    def __init__(self, with_known: bool) -> None:
        self.graph = Graph()
        self.with_known = with_known

    @cached_property
    def history(self) -> Rows:
        """Places of the catalogue, and the weights of the positives there."""
        return self._rows("history")

    @cached_property
    def features(self) -> Rows:
        """Encoded features."""
        return self._rows("features")

    @cached_property
    def context(self) -> Rows:
        """Encoded context."""
        return self._rows("context")

    def _rows(self, name: str) -> Rows:
        shape = ["n_users", f"n_{name}"]
        values = self.graph.input(f"{name}_values", np.float32, shape)
        return Rows(self.graph.input(name, np.int64, shape), values)

    @property
    def known(self) -> Value:
        """Codes of users who had positives in `fit`, -1 for all others; (n_users, 1), int64."""
        return self.graph.input("known", np.int64, ["n_users", "one"])

    @property
    def trained(self) -> Value:
        """1 for those of them without positives since, 0 for all others; (n_users, 1), float32."""
        return self.graph.input("trained", np.float32, ["n_users", "one"])


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

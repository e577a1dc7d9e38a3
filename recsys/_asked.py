"""What a request tells of users and items: the inputs of the graphs that a model describes itself with.

Items come and go after an export. A graph has the tables of items that it was exported with; the rows of items that
joined since come with a request, made by the graph of items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from recsys._graphs import Graph, Tables, Value

__all__ = ["AskedItems", "AskedUsers", "History", "ItemTable", "Parts", "Rows"]

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """Sparse rows of users or items, each as long as the longest.

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

    def gather(self, table: Array | Value) -> Value:
        """The row of a table for each entry, (n_users, length, width)."""
        if not isinstance(table, Value) and not len(table):
            # There are no entries, but padding must point at something.
            table = np.zeros((1, table.shape[1]), dtype=table.dtype)
        return self.columns.graph.take(table, self.columns.at_least(0))

    def product(self, table: Array | Value) -> Value:
        """The rows times a table, (n_users, width)."""
        return (self.values.expand(1) @ self.gather(table)).squeeze(1)

    def by_field(self, table: Array | Value, fields: Sequence[Any], moved: Value | None = None) -> Value:
        """As `product`, field by field: (n_users, n_fields, width); of rows that are `moved`, where they are."""
        belongs, rows = self._belongs(fields).transpose(0, 2, 1), self if moved is None else self.moved(moved)
        return (belongs * self.values.expand(1)) @ rows.gather(table)

    def present(self, fields: Sequence[Any]) -> Value:
        """1 for the fields that have an entry, else 0; (n_users, n_fields)."""
        return (self._belongs(fields) * self.is_entry.expand(2)).max(1).squeeze(1)

    def _belongs(self, fields: Sequence[Any]) -> Value:
        """1 for the field of each entry, (n_users, length, n_fields)."""
        return self.gather(np.repeat(np.eye(len(fields), dtype=np.float32), [f.stop - f.start for f in fields], axis=0))


class ItemTable(NamedTuple):
    """Rows of items that histories point at.

    Attributes
    ----------
    exported : ndarray of shape (n_items * r, width), float32
        Of the catalogue; r rows an item, one after the other.
    joined : Value of shape (n_joined * r, width), float32, or None
        Of items that joined since; None where histories have none.
    """

    exported: Array
    joined: Value | None


@dataclass(frozen=True, eq=False)
class History:
    """What users have.

    Attributes
    ----------
    exported : Rows
        Of the catalogue.
    joined : Rows or None
        Of items that joined since; None where there are none.
    """

    exported: Rows
    joined: Rows | None

    def _with_each(self, change: Callable[[Rows], Rows]) -> History:
        return History(change(self.exported), None if self.joined is None else change(self.joined))

    def _side_by_side(self, of: Callable[[Rows], Value]) -> Value:
        """Something of all entries, along axis 1."""
        found = of(self.exported)
        return found if self.joined is None else found.graph.concat([found, of(self.joined)], 1)

    @cached_property
    def values(self) -> Value:
        """What entries are, (n_users, length)."""
        return self._side_by_side(lambda rows: rows.values)

    @cached_property
    def is_entry(self) -> Value:
        """1 where there is an entry, else 0; (n_users, length)."""
        return self._side_by_side(lambda rows: rows.is_entry)

    @cached_property
    def lengths(self) -> Value:
        """How many entries each user has; (n_users, 1), float32."""
        return self.exported.lengths if self.joined is None else self.exported.lengths + self.joined.lengths

    @cached_property
    def pattern(self) -> History:
        """Ones where entries are."""
        return self._with_each(lambda rows: rows.pattern)

    def times(self, factor: float) -> History:
        """Its entries times a number."""
        return self._with_each(lambda rows: Rows(rows.columns, rows.values * factor))

    def of_many(self, n: int, which: Value) -> History:
        """The row `which`, (n_users, 1), int64, of the n that a table has for each item."""
        # What is no entry stays below 0.
        return self._with_each(lambda rows: Rows(rows.columns * n + which, rows.values))

    def gather(self, table: ItemTable) -> Value:
        """The row of a table for each entry, (n_users, length, width)."""
        found = self.exported.gather(table.exported)
        if self.joined is None or table.joined is None:
            return found
        return found.graph.concat([found, self.joined.gather(table.joined)], 1)

    def product(self, table: ItemTable) -> Value:
        """The rows times a table, (n_users, width)."""
        found = self.exported.product(table.exported)
        return found if self.joined is None or table.joined is None else found + self.joined.product(table.joined)


class _Asked:
    """Encoded features of those who are asked for, and the graph that they are the inputs of."""

    def __init__(self, tables: Tables | None = None) -> None:
        self.graph = Graph(tables=tables)

    @cached_property
    def features(self) -> Rows:
        """Encoded features."""
        return self._rows("features")

    def _rows(self, name: str) -> Rows:
        shape = ["n", f"n_{name}"]
        values = self.graph.input(f"{name}_values", np.float32, shape)
        return Rows(self.graph.input(name, np.int64, shape), values)


class AskedUsers(_Asked):
    """What a request tells of users: the inputs of the graph; those that a model does not look at are not asked for.

    Parameters
    ----------
    with_known : bool
        Whether the bundle has the users of `fit`. If not, a model need not look at `known` and `trained`.
    with_joined : bool, default=True
        Whether histories may have items that joined since the export.
    tables : Tables, default=None
        Where the tables stand that graphs share. None: of this graph alone.

    Attributes
    ----------
    graph : Graph
    item_tables : dict of str to list of int
        Rows an item, and their width, of the tables of items that were asked for.

    Examples
    --------
    >>> asked = AskedUsers(with_known=False)
    >>> table = asked.of_items("vectors", np.eye(8, dtype=np.float32))
    >>> mean = asked.history.product(table) / asked.history.lengths.at_least(1.0)
    >>> list(asked.graph.inputs)
    ['vectors', 'history_values', 'history', 'joined_values', 'joined']
    >>> graph = asked.graph.to_bytes({"user_vectors": mean})
    """

    def __init__(self, with_known: bool, with_joined: bool = True, tables: Tables | None = None) -> None:
        super().__init__(tables)
        self.with_known, self.with_joined = with_known, with_joined
        self.item_tables: dict[str, list[int]] = {}

    @cached_property
    def history(self) -> History:
        """Places of the catalogue, and the weights of the positives there."""
        return History(self._rows("history"), self._rows("joined") if self.with_joined else None)

    def of_items(self, name: str, exported: Array, rows_an_item: int = 1) -> ItemTable:
        """A table of items, which the graph of items has an output for: the rows of one item side by side.

        Parameters
        ----------
        name : str
        exported : ndarray of shape (n_items * rows_an_item, width), float32
        rows_an_item : int, default=1

        Returns
        -------
        ItemTable
        """
        self.item_tables[name] = [rows_an_item, exported.shape[1]]
        if not self.with_joined:
            return ItemTable(exported, None)
        return ItemTable(exported, self.graph.input(name, np.float32, [f"n_{name}", exported.shape[1]]))

    @cached_property
    def context(self) -> Rows:
        """Encoded context."""
        return self._rows("context")

    @property
    def known(self) -> Value:
        """Codes of users who had positives in `fit`, -1 for all others; (n_users, 1), int64."""
        return self.graph.input("known", np.int64, ["n", "one"])

    @property
    def trained(self) -> Value:
        """1 for those of them without positives since, 0 for all others; (n_users, 1), float32."""
        return self.graph.input("trained", np.float32, ["n", "one"])


class AskedItems(_Asked):
    """What is told of items: their encoded features, and of those that were exported which they are.

    Parameters
    ----------
    tables : Tables, default=None
        As in `AskedUsers`.
    """

    @property
    def exported(self) -> Value:
        """Places of items, -1 for those that joined since; (n_items, 1), int64."""
        return self.graph.input("exported", np.int64, ["n", "one"])

    def of_exported(self, table: Array) -> Value:
        """The row of a table for each item, (n_items, width); zeros for items that joined since, or after its last."""
        found = self.exported.exceeds(-1) * (1.0 - self.exported.exceeds(len(table) - 1))
        at = self.exported.at_least(0).at_most(len(table) - 1)
        return self.graph.take(table, at).squeeze(1) * found

    def nothing(self, n_columns: int) -> Value:
        """Zeros, (n_items, n_columns)."""
        return self.features.lengths * np.zeros((1, n_columns), dtype=np.float32)

    def dense(self, rows: Rows, n_columns: int) -> Value:
        """Entries in dense rows, (n_items, n_columns)."""
        # What is no entry is 0, wherever it is put.
        inputs = self.nothing(n_columns), rows.columns.at_least(0), rows.values
        return self.graph.apply("ScatterElements", *inputs, axis=1, reduction="add")


class Parts:
    """What vectors are the sum of, and how far each part is heeded.

    Parameters
    ----------
    graph : Graph

    Attributes
    ----------
    names : list of [source, field]
        One a part; the same may come twice. The entries of histories have none and come last.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.names: list[list[str]] = []
        self._vectors: list[Value] = []
        self._weights: list[Value] = []

    def add(self, names: Sequence[tuple[str, str]], vectors: Value, weights: Value) -> None:
        """Parts of shape (n, n_parts, d), and their weights, (n, n_parts): 0 where there is no such part."""
        self.names += [[source, field] for source, field in names]
        self._vectors.append(vectors)
        self._weights.append(weights)

    def outputs(self) -> dict[str, Value]:
        """Of the graph."""
        return {"parts": self.graph.concat(self._vectors, 1), "weights": self.graph.concat(self._weights, 1)}

"""What is saved of segments and their metadata, and back. Imports NumPy and FAISS alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from recsys.retrieval._approximate import Approximate
from recsys.retrieval._segments import aligned_copy, faiss
from recsys.retrieval._snapshot import Segment
from recsys.retrieval.filters import Field, LabelField, OrderedField, Table

__all__ = ["segment_from_state", "segment_to_state", "table_from_state", "table_to_state"]


def segment_to_state(segment: Segment) -> dict[str, Any]:
    """What `persistence` stores of a segment."""
    structure = segment.structure
    state: dict[str, Any] = {"table": table_to_state(segment.table), "vectors": segment.vectors, "structure": None}
    if structure is not None:
        names = ("kind", "compression", "effort", "recall")
        state["structure"] = {name: getattr(structure, name) for name in names}
        state["faiss"] = faiss().serialize_index(structure.index)
        # A graph that holds the vectors would store them twice.
        state["vectors"] = None if structure.vectors is not None else segment.vectors
    return state


def segment_from_state(state: dict[str, Any]) -> Segment:
    """The inverse of `segment_to_state`; ValueError where the parts do not fit."""
    table, structure = table_from_state(state["table"]), None
    vectors: Any = state["vectors"]
    if state["structure"] is not None:
        structure = Approximate(index=faiss().deserialize_index(state["faiss"]), **state["structure"])
        vectors = structure.vectors if vectors is None else vectors
        if structure.index.ntotal != len(vectors) or structure.index.d != vectors.shape[1]:
            raise ValueError(f"a FAISS index of {structure.index.ntotal} rows for {len(vectors)} vectors")
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != table.n:
        raise ValueError(f"vectors of {vectors.dtype} and shape {vectors.shape} for {table.n} items")
    if vectors.flags.writeable:
        # Not a view of a mapped file, nor of a graph.
        vectors = aligned_copy(vectors)
    return Segment(vectors, table, structure)


def table_to_state(table: Table) -> dict[str, Any]:
    """What `persistence` stores of a table."""
    fields: list[list[Any]] = []
    for name, field in table.fields.items():
        if isinstance(field, OrderedField):
            fields.append([name, field.kind, field.values.view(np.int64) if field.kind == "dates" else field.values])
        else:
            fields.append([name, field.kind, field.rows, field.codes, list(field.labels)])
    return {"n": table.n, "fields": fields}


def table_from_state(state: dict[str, Any]) -> Table:
    """The inverse of `table_to_state`; ValueError where the parts do not fit."""
    fields: dict[str, Field] = {}
    for name, kind, *parts in state["fields"]:
        if kind == "labels":
            fields[name] = LabelField(parts[0], parts[1], tuple(parts[2]), state["n"])
        else:
            fields[name] = OrderedField(parts[0].view("datetime64[us]") if kind == "dates" else parts[0])
    if not all(_fits(field, state["n"]) for field in fields.values()):
        raise ValueError("metadata whose columns have other lengths")
    return Table(fields, state["n"])


def _fits(field: Field, n: int) -> bool:
    if isinstance(field, OrderedField):
        return field.values.shape == (n,)
    inside: Iterable[bool] = (
        field.rows.shape == field.codes.shape,
        bool((np.diff(field.rows) >= 0).all()),
        bool(((field.rows >= 0) & (field.rows < n)).all()),
        bool(((field.codes >= 0) & (field.codes < len(field.labels))).all()),
    )
    return all(inside)

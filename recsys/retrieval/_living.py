"""The items of a bundle at one moment: their labels, vectors, metadata, and what those that joined say of their users.

It never changes: a change makes another. Imports NumPy and FAISS alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from recsys._records import Labels, tagged, untagged
from recsys.retrieval._catalogue import Catalogue
from recsys.retrieval._requests import NOTHING, Entries, SparseRows
from recsys.retrieval._segments import Bools, Codes, Floats, aligned_copy
from recsys.retrieval._snapshot import Segment, Snapshot
from recsys.retrieval._states import table_from_state, table_to_state
from recsys.retrieval._told import several
from recsys.retrieval.filters import Table

__all__ = ["Exported", "GrowingRows", "Living", "living_from_state"]

# Numbers in vectors that are copied in milliseconds.
_COPIED = 6_400_000
# Places without items that do no harm.
_MANY = 64


@dataclass(frozen=True, eq=False)
class GrowingRows:
    """The first n rows of an array that has room for more: more are appended where nobody has looked yet.

    Of several that share the room only the longest may grow.

    Examples
    --------
    >>> few = GrowingRows.of(np.zeros((1, 2), dtype=np.float32))
    >>> more = few.appended(np.ones((2, 2), dtype=np.float32))
    >>> few.rows.tolist(), more.rows.tolist()
    ([[0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    """

    room: Floats
    n: int

    @classmethod
    def of(cls, rows: Floats) -> GrowingRows:
        """Rows, and no room."""
        return cls(rows, len(rows))

    @property
    def rows(self) -> Floats:
        """Those that are there."""
        return self.room[: self.n]

    def appended(self, rows: Floats) -> GrowingRows:
        """With more after them."""
        n = self.n + len(rows)
        room = self.room
        if n > len(room):
            room = np.empty((max(8, 2 * n), room.shape[1]), dtype=np.float32)
            room[: self.n] = self.rows
        room[self.n : n] = rows
        return GrowingRows(room, n)


class Exported:
    """The items as they were exported.

    Parameters
    ----------
    labels : Labels
    segment : Segment
    n_similar : int
        How many leading dimensions of their vectors tell items apart by taste; 0 where popularity alone does.
    """

    def __init__(self, labels: Labels, segment: Segment, n_similar: int) -> None:
        if len(labels) != len(segment.vectors):
            raise ValueError(f"{len(labels)} labels for {len(segment.vectors)} items")
        if not np.isfinite(segment.longest) or not 0 <= n_similar < segment.vectors.shape[1]:
            raise ValueError(f"vectors that are not finite, or of which {n_similar!r} dimensions tell items apart")
        self.labels, self.segment, self.n_similar = labels, segment, n_similar

    @cached_property
    def units(self) -> Floats:
        """Their vectors by `units_of`."""
        return self.units_of(self.segment.vectors)

    def units_of(self, vectors: Floats) -> Floats:
        """The dimensions that tell items apart, scaled to length 1: inner products are cosines."""
        if not self.n_similar:
            return np.ascontiguousarray(vectors[:, -1:])
        part = vectors[:, : self.n_similar]
        lengths = np.sqrt(np.einsum("nd,nd->n", part, part))[:, None]
        return np.ascontiguousarray(part / np.maximum(lengths, np.finfo(np.float32).tiny))


@dataclass(frozen=True, eq=False)
class Living:
    """Items.

    Attributes
    ----------
    exported : Exported
    catalogue : Catalogue
        Places stay as they are from one change to the next, unless most of those that joined have left.
    snapshot : Snapshot
        Its places are those of the catalogue.
    rows : dict of str to GrowingRows
        Of each table of items in the graphs of users, the rows of the items that joined.
    told : tuple of entries
        Their features.
    """

    exported: Exported
    catalogue: Catalogue
    snapshot: Snapshot
    rows: dict[str, GrowingRows]
    told: tuple[Entries, ...]

    @classmethod
    def of(cls, exported: Exported, widths: Mapping[str, int], is_taken: Bools | None = None) -> Living:
        """Items that were exported, all or some, and tables of so many columns."""
        catalogue, snapshot = Catalogue.of(exported.labels), Snapshot.of(exported.segment)
        rows = {name: GrowingRows.of(np.zeros((0, width), dtype=np.float32)) for name, width in widths.items()}
        if is_taken is not None:
            catalogue, snapshot = replace(catalogue, is_taken=is_taken), replace(snapshot, live=is_taken)
        return cls(exported, catalogue, snapshot, rows, ())

    def with_new(
        self, labels: Sequence[Any], told: Sequence[Entries], vectors: Floats, rows: Mapping[str, Floats], table: Table
    ) -> Living:
        """Items that come last, with vectors of shape (n, d)."""
        places = np.arange(len(self.catalogue), len(self.catalogue) + len(labels))
        return Living(
            self.exported,
            self.catalogue.with_new(labels),
            _in_one(self.snapshot.with_rows(places, vectors, table)),
            {name: known.appended(rows[name]) for name, known in self.rows.items()},
            (*self.told, *told),
        )

    def without(self, places: Codes) -> Living:
        """The items of other places."""
        snapshot, catalogue = self.snapshot, self.catalogue.without(places)
        kept = np.flatnonzero(~np.isin(snapshot.codes, places))
        delta = Segment(snapshot.delta.vectors[kept], snapshot.delta.table.take(kept))
        live = catalogue.is_taken[: len(snapshot.live)]
        left = replace(self, catalogue=catalogue, snapshot=Snapshot(snapshot.base, live, delta, snapshot.codes[kept]))
        n_left = int(np.count_nonzero(~catalogue.is_taken[len(self.exported.labels) :]))
        return left.compact() if n_left > max(_MANY, len(catalogue.joined) - n_left) else left

    def compact(self) -> Living:
        """The same items, of which those that joined have the places after those of the exported ones.

        What labels of metadata no item has are given up, but for those of the export.
        """
        n = len(self.exported.labels)
        places = self.catalogue.places[np.searchsorted(self.catalogue.places, n) :]
        widths = {name: known.room.shape[1] for name, known in self.rows.items()}
        empty = Living.of(self.exported, widths, self.catalogue.is_taken[:n].copy())
        return empty.with_new(
            self.catalogue.decode(places),
            [self.told[at - n] for at in places.tolist()],
            self.snapshot.vectors_of(places),
            {name: known.rows[places - n] for name, known in self.rows.items()},
            self.snapshot.table_of(places).trimmed(),
        )

    @cached_property
    def lists(self) -> set[str]:
        """The fields of metadata of which an item that is there has several labels."""
        return several(self.snapshot.base.table, self.snapshot.live) | several(self.snapshot.delta.table)

    @cached_property
    def by_angle(self) -> Snapshot:
        """Whose inner products are cosines."""
        base, delta, n = self.snapshot.base, self.snapshot.delta, len(self.exported.labels)
        units = np.concatenate([self.exported.units, self.exported.units_of(base.vectors[n:])])
        of_delta = Segment(self.exported.units_of(delta.vectors), delta.table)
        return Snapshot(Segment(units, base.table), self.snapshot.live, of_delta, self.snapshot.codes)

    def to_state(self) -> dict[str, Any] | None:
        """What `persistence` stores of what has changed; None where nothing has."""
        if not self.catalogue.joined and self.catalogue.is_taken.all():
            return None
        compact, n = self.compact(), len(self.exported.labels)
        places = np.arange(n, len(compact.catalogue))
        return {
            "is_taken": compact.catalogue.is_taken[:n],
            "joined": [tagged(label) for label in compact.catalogue.joined],
            "vectors": compact.snapshot.vectors_of(places),
            "table": table_to_state(compact.snapshot.table_of(places).trimmed()),
            "rows": {name: known.rows for name, known in compact.rows.items()},
            "told": {
                "indptr": np.cumsum([0, *(len(columns) for columns, _ in compact.told)]),
                "indices": np.concatenate([NOTHING[0], *(columns for columns, _ in compact.told)]),
                "data": np.concatenate([NOTHING[1], *(values for _, values in compact.told)]),
            },
        }


def _in_one(snapshot: Snapshot) -> Snapshot:
    """The same items in a base alone, which is searched faster, where copying it takes no time."""
    base, delta = snapshot.base, snapshot.delta
    if base.structure is not None or base.vectors.size + delta.vectors.size > _COPIED:
        return snapshot
    vectors = aligned_copy(base.vectors, delta.vectors)
    live = np.append(snapshot.live, np.ones(len(snapshot.codes), dtype=bool))
    return replace(Snapshot.of(Segment(vectors, base.table.joined(delta.table))), live=live)


def living_from_state(
    exported: Exported, n_columns: int, widths: Mapping[str, int], state: dict[str, Any] | None
) -> Living:
    """The inverse of `Living.to_state`, for features of so many columns; ValueError where the parts do not fit."""
    if state is None:
        return Living.of(exported, widths)
    labels, vectors, rows = [untagged(pair) for pair in state["joined"]], state["vectors"], state["rows"]
    shapes = {name: (len(labels), width) for name, width in widths.items()}
    told, table = SparseRows(state["told"], (len(labels), n_columns)), table_from_state(state["table"])
    fits = (
        state["is_taken"].shape == (len(exported.labels),)
        and state["is_taken"].dtype == bool
        and vectors.shape == (len(labels), exported.segment.vectors.shape[1])
        and (table.n, table.fields.keys()) == (len(labels), exported.segment.table.fields.keys())
        and {name: rows[name].shape for name in widths} == shapes
        and all(each.dtype == np.float32 and np.isfinite(each).all() for each in (vectors, *rows.values()))
    )
    if not fits:
        raise ValueError("items that joined, of which the parts do not fit each other")
    empty = Living.of(exported, widths, state["is_taken"])
    if (empty.catalogue.encode(labels) >= 0).any() or len(set(labels)) < len(labels):
        raise ValueError("items that joined, of which some are there already")
    return empty.with_new(labels, [told.row(row) for row in range(len(labels))], vectors, rows, table)

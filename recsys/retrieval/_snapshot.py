"""A snapshot: the state of an index between two changes, and the snapshots that changes make of it. It never changes.

Items have places, 0, 1, 2, ..., in the order in which they joined. Most are rows of a large base, whose place is the
row. What joined or was replaced since the base was built stands in a small delta that is scanned exactly. Imports NumPy
and FAISS alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from recsys.exceptions import InvalidInputError
from recsys.retrieval._approximate import Approximate
from recsys.retrieval._segments import (
    LARGEST,
    Answer,
    Bools,
    Codes,
    Doubles,
    Floats,
    Pairs,
    Selection,
    best_first,
    exact_top_k,
    lengths_of,
    slack_of,
)
from recsys.retrieval.filters import Table

__all__ = ["Segment", "Snapshot"]

# A base is built anew when what it lacks is more than this share of it, and more than is scanned in no time.
_FOLDED_AT = 0.1
_SMALL = 1024
# Rows, of nine bytes each, that filters which were asked are remembered for.
_REMEMBERED = 2**22


def _key_of(where: Any) -> str | None:
    """A text that no other filter has; None where JSON cannot say it, or would make text of a name that is none."""
    try:
        key = json.dumps(where, sort_keys=True)
        return key if json.loads(key) == where else None
    except (RecursionError, TypeError, ValueError):
        return None


@dataclass(frozen=True, eq=False)
class Segment:
    """Rows of vectors, what is known of them, and perhaps a structure that finds them faster.

    Attributes
    ----------
    vectors : ndarray of shape (n, d), float32
    table : Table
    structure : Approximate or None
    """

    vectors: Floats
    table: Table
    structure: Approximate | None = None

    @cached_property
    def longest(self) -> float:
        """The length of the longest vector."""
        return float(lengths_of(self.vectors).max(initial=0.0))

    def top_k(
        self, queries: Floats, k: int, slack: Doubles, selection: Selection | None, pairs: Pairs | None, exact: bool
    ) -> Answer:
        """The best rows, as `exact_top_k` finds them, or nearly, unless it must be `exact`."""
        find = exact_top_k if exact or self.structure is None else self.structure.top_k
        return find(self.vectors, queries, k, slack, selection, pairs)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Base and delta.

    Attributes
    ----------
    base : Segment
    live : ndarray of shape (n_base,), bool
        The rows of the base that are found: neither removed nor replaced.
    delta : Segment
    codes : ndarray of shape (n_delta,), int64
        The places of its rows, ascending: those of the base that are replaced, and new ones from `n_base` on.
    """

    base: Segment
    live: Bools
    delta: Segment
    codes: Codes

    @classmethod
    def of(cls, base: Segment) -> Snapshot:
        """All rows of a base, and nothing else."""
        nothing = np.zeros(0, dtype=np.int64)
        delta = Segment(np.zeros((0, base.vectors.shape[1]), dtype=np.float32), base.table.take(nothing))
        return cls(base, np.ones(len(base.vectors), dtype=bool), delta, nothing)

    @property
    def n_replaced(self) -> int:
        """How many rows of the delta stand for rows of the base."""
        return int(np.searchsorted(self.codes, len(self.live)))

    @property
    def n_places(self) -> int:
        """How many places there are, those of removed items included."""
        return len(self.live) + len(self.codes) - self.n_replaced

    @cached_property
    def n_items(self) -> int:
        """How many items may be found."""
        return int(np.count_nonzero(self.live)) + len(self.codes)

    @cached_property
    def is_taken(self) -> Bools:
        """Whether there is an item, (n_base,), at each place of the base."""
        taken = self.live.copy()
        taken[self.codes[: self.n_replaced]] = True
        return taken

    @cached_property
    def _all_live(self) -> Selection | None:
        selection = Selection(self.live)
        return None if selection.n_allowed == len(self.live) else selection

    def search(
        self,
        queries: Floats,
        k: int,
        *,
        where: Any = None,
        allowed: Bools | None = None,
        pairs: Pairs | None = None,
        exact: bool = False,
    ) -> Answer:
        """The k items of largest inner product with each query; ties by place.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, d), float32
            In C order.
        k : int
            At least 1.
        where : dict, default=None
            A filter of the metadata.
        allowed : ndarray of shape (n_places,), bool, default=None
            The places that may be found.
        pairs : Pairs, default=None
            The places that each query may not find.
        exact : bool, default=False
            Scan, whatever the base has.

        Returns
        -------
        Answer of min(k, n_items) columns at most
            Its codes are places.
        """
        slack = self._slack(queries)
        k = min(k, self.n_items)
        found = self.base.top_k(queries, k, slack, self._selected(where, allowed), pairs, exact)
        if not len(self.codes):
            return found
        mask = self._masked(self.delta, where, None if allowed is None else allowed[self.codes])
        selection = None if mask is None else Selection(mask)
        in_delta = None if pairs is None else self._pairs_of_delta(pairs)
        more = self.delta.top_k(queries, k, slack, selection, in_delta, exact)
        codes = np.where(more.codes < 0, -1, self.codes[more.codes])
        best = best_first(np.hstack([found.codes, codes]), np.hstack([found.scores, more.scores]))
        return Answer(best.codes[:, :k], best.scores[:, :k])

    @cached_property
    def longest(self) -> float:
        """The length of the longest vector."""
        return max(self.base.longest, self.delta.longest)

    def _slack(self, queries: Floats) -> Doubles:
        lengths = lengths_of(queries)
        largest = float(lengths.max(initial=0.0)) * self.longest
        if largest > LARGEST:
            raise InvalidInputError(
                f"`vectors` are too long: inner products of up to {largest:.3g} may overflow float32; expected shorter "
                f"ones: scale them down."
            )
        return slack_of(lengths, self.longest, queries.shape[1])

    def _selected(self, where: Any, allowed: Bools | None) -> Selection | None:
        if allowed is not None:
            mask = self._masked(self.base, where, allowed[: len(self.live)])
            return None if mask is None else Selection(mask & self.live)
        if where is None:
            return self._all_live
        if (key := _key_of(where)) is None:
            return Selection(self.base.table.match(where) & self.live)
        if (found := self._filtered.get(key)) is None:
            found = Selection(self.base.table.match(where) & self.live)
            if len(self._filtered) >= max(1, _REMEMBERED // (1 + len(self.live))):
                self._filtered.clear()
            self._filtered[key] = found
        return found

    @cached_property
    def _filtered(self) -> dict[str, Selection]:
        """What filters left of the base, as apps ask the same ones again and again."""
        return {}

    def _masked(self, segment: Segment, where: Any, allowed: Bools | None) -> Bools | None:
        if where is None:
            return allowed
        matching = segment.table.match(where)
        return matching if allowed is None else matching & allowed

    def _pairs_of_delta(self, pairs: Pairs) -> Pairs:
        """The pairs whose place is a row of the delta, by that row."""
        at = np.minimum(np.searchsorted(self.codes, pairs.indices), len(self.codes) - 1)
        kept = self.codes[at] == pairs.indices
        return Pairs(np.concatenate([[0], np.cumsum(kept)])[pairs.indptr], at[kept])

    def vectors_of(self, places: Codes) -> Floats:
        """The vectors, (n, d), of items."""
        in_delta, at = self._find_in_delta(places)
        vectors = np.empty((len(places), self.base.vectors.shape[1]), dtype=np.float32)
        vectors[~in_delta], vectors[in_delta] = self.base.vectors[places[~in_delta]], self.delta.vectors[at]
        return vectors

    def table_of(self, places: Codes) -> Table:
        """What is known of items, which are few, or all in ascending order."""
        in_delta, at = self._find_in_delta(places)
        joined = self.base.table.take(places[~in_delta]).joined(self.delta.table.take(at))
        return joined.take(np.argsort(np.concatenate([np.flatnonzero(~in_delta), np.flatnonzero(in_delta)])))

    def _find_in_delta(self, places: Codes) -> tuple[Bools, Codes]:
        at = np.searchsorted(self.codes, places)
        in_delta = np.append(self.codes, -1)[at] == places
        return in_delta, at[in_delta]

    def with_rows(self, places: Codes, vectors: Floats, table: Table) -> Snapshot:
        """Give places these vectors, (n, d), and rows of a table; new places come after the last, in order."""
        kept = np.flatnonzero(~np.isin(self.codes, places))
        codes = np.concatenate([self.codes[kept], places])
        order = np.argsort(codes)
        joined = self.delta.table.take(kept).joined(table)
        delta = Segment(np.concatenate([self.delta.vectors[kept], vectors])[order], joined.take(order))
        live = self.live.copy()
        live[places[places < len(live)]] = False
        return Snapshot(self.base, live, delta, codes[order])

    def without(self, places: Codes) -> Snapshot:
        """Remove items; the new ones among those left move up to close the gaps."""
        kept = np.flatnonzero(~np.isin(self.codes, places))
        codes, live = self.codes[kept], self.live.copy()
        live[places[places < len(live)]] = False
        is_new = codes >= len(live)
        codes[is_new] = len(live) + np.arange(int(is_new.sum()))
        return Snapshot(self.base, live, Segment(self.delta.vectors[kept], self.delta.table.take(kept)), codes)

    @property
    def needs_folding(self) -> bool:
        """Whether so much was changed that the base should be built anew."""
        n_changed = len(self.live) - int(np.count_nonzero(self.live)) + len(self.codes) - self.n_replaced
        return n_changed > max(_SMALL, _FOLDED_AT * len(self.live))

    def folded(self, build: Callable[[Floats, Table], Segment]) -> tuple[Snapshot, Codes]:
        """All items in a new base, and the places that they had."""
        places = np.concatenate([np.flatnonzero(self.is_taken), np.arange(len(self.live), self.n_places)])
        return Snapshot.of(build(self.vectors_of(places), self.table_of(places))), places

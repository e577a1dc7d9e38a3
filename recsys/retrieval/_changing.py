"""What an index is made of and how it changes: the lower half of `ItemIndex`."""

from __future__ import annotations

import threading
import warnings
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError, examples
from recsys.retrieval._approximate import Compression, build, tune
from recsys.retrieval._arguments import as_vectors, places_of
from recsys.retrieval._labels import Labels
from recsys.retrieval._metadata import read_metadata
from recsys.retrieval._segments import Floats, aligned_copy
from recsys.retrieval._snapshot import Segment, Snapshot
from recsys.retrieval.filters import Table
from recsys.vocabulary import Vocabulary

__all__ = ["ChangingIndex", "State", "build_segment"]

# Numbers in vectors that a core multiplies in about a millisecond: up to here, "auto" scans.
_SCANNED = 6_400_000
# Of fewer items no structure is built: there is nothing to gain.
_STRUCTURED_FROM = 1024

Self = TypeVar("Self", bound="ChangingIndex")


class State(NamedTuple):
    """What a reader takes in one step: labels and snapshot belong together."""

    labels: Labels
    snapshot: Snapshot


def build_segment(
    vectors: Floats, table: Table, kind: str, recall_target: float, compression: Compression, queries: Floats | None
) -> Segment:
    """Rows of vectors, with a structure that was tuned, where there is to be one; arguments as of `ItemIndex`."""
    chosen = kind
    if kind == "auto":
        chosen = "exact" if recall_target == 1 or vectors.size <= _SCANNED else "ivf"
    vectors = aligned_copy(vectors)
    if chosen == "exact" or len(vectors) < _STRUCTURED_FROM:
        return Segment(vectors, table)
    structure = tune(build(vectors, chosen, compression), vectors, queries, recall_target)
    if structure.recall >= recall_target and structure.saves_work:
        return Segment(vectors if structure.vectors is None else structure.vectors, table, structure)
    if kind != "auto":
        warnings.warn(
            f"`kind` {kind!r} with `compression` {compression!r} would have to read most of the {len(vectors)} items "
            f"to find {recall_target} of the 10 best, your `recall_target`; every search scans all of them instead: "
            f"aim lower, or choose another kind or less compression.",
            DataWarning,
            stacklevel=5,
        )
    return Segment(vectors, table)


class ChangingIndex:
    """Items that come, change and go.

    A change is made on copies, under a lock that writers alone take, and becomes visible by replacing one reference.
    """

    metric: str
    kind: str
    recall_target: float
    compression: Compression
    n_dimensions: int
    _queries: Floats | None

    def __reduce__(self) -> Any:
        raise InvalidTypeError("An index cannot be pickled or copied; `save` it, and `load` it as often as you like.")

    def _adopt(self, state: State) -> None:
        self._state = state
        self._changing = threading.Lock()

    def _build(self, vectors: Floats, table: Table) -> Segment:
        """A base: see `build_segment`."""
        return build_segment(vectors, table, self.kind, self.recall_target, self.compression, self._queries)

    def add(self: Self, ids: Any, vectors: Any, metadata: pd.DataFrame | None = None) -> Self:
        """Add items, after those that are there.

        Parameters
        ----------
        ids : array-like of shape (n,)
            Labels that are not in the index; one that was removed may come back.
        vectors : array-like of shape (n, n_dimensions)
        metadata : DataFrame, default=None
            As in the class, with the same columns. None: all values are missing.

        Returns
        -------
        ItemIndex
            Itself.

        Raises
        ------
        InvalidInputError
            If a label is there already or comes twice, or another argument is not what is described here; nothing is
            added then.

        Examples
        --------
        >>> from recsys.retrieval import ItemIndex
        >>> ItemIndex(["tea"], [[1, 0]]).add(["milk"], [[1, 1]]).items.ids.tolist()
        ['tea', 'milk']
        """
        fresh = Vocabulary(ids).ids
        array = self._read_rows(fresh, vectors, self.n_dimensions)
        if not len(fresh):
            return self
        with self._changing:
            labels, snapshot = self._state
            if len(known := fresh[labels.encode(fresh) >= 0]):
                raise InvalidInputError(
                    f"`ids` names {len(known)} items that are in the index: {examples(known)}; expected new ones: use "
                    f"`update` for those."
                )
            table = read_metadata(metadata, fresh, snapshot.base.table)
            places = np.arange(len(labels), len(labels) + len(fresh))
            self._commit(labels.with_new(fresh), snapshot.with_rows(places, array, table))
        return self

    def update(self: Self, ids: Any, vectors: Any = None, metadata: pd.DataFrame | None = None) -> Self:
        """Replace vectors or metadata of items, which keep their places in the order of ties.

        Parameters
        ----------
        ids : array-like of shape (n,)
            Distinct labels of items in the index.
        vectors : array-like of shape (n, n_dimensions), default=None
            None: they stay.
        metadata : DataFrame, default=None
            As in the class, with the same columns. None: it stays.

        Returns
        -------
        ItemIndex
            Itself.

        Raises
        ------
        InvalidInputError
            If a label is unknown or comes twice, or another argument is not what is described here; nothing is changed
            then.

        Examples
        --------
        >>> from recsys.retrieval import ItemIndex
        >>> ItemIndex(["tea"], [[1, 0]]).update(["tea"], [[5, 0]]).search([[1, 0]])["score"].tolist()
        [5.0]
        """
        if vectors is None and metadata is None:
            raise InvalidInputError("`vectors` and `metadata` are both None; expected what to replace, at least one.")
        asked = Vocabulary(ids).ids
        array = None if vectors is None else self._read_rows(asked, vectors, self.n_dimensions)
        with self._changing:
            labels, snapshot = self._state
            places = places_of(labels, asked)
            order = np.argsort(places)
            places, asked = places[order], asked.take(order)
            rows = snapshot.vectors_of(places) if array is None else array[order]
            known = snapshot.base.table
            table = snapshot.table_of(places) if metadata is None else read_metadata(metadata, asked, known)
            self._commit(labels, snapshot.with_rows(places, rows, table))
        return self

    def remove(self: Self, ids: Any) -> Self:
        """Remove items.

        Parameters
        ----------
        ids : array-like of shape (n,)
            Distinct labels of items in the index.

        Returns
        -------
        ItemIndex
            Itself.

        Raises
        ------
        InvalidInputError
            If a label is unknown or comes twice; nothing is removed then.

        Examples
        --------
        >>> from recsys.retrieval import ItemIndex
        >>> ItemIndex(["tea", "milk"], [[1, 0], [1, 1]]).remove(["tea"]).items.ids.tolist()
        ['milk']
        """
        asked = Vocabulary(ids).ids
        with self._changing:
            labels, snapshot = self._state
            places = places_of(labels, asked)
            self._commit(labels.without(places), snapshot.without(places))
        return self

    def compact(self: Self) -> Self:
        """Build the index anew of the items that it has now, as fast and as small as a new one.

        Returns
        -------
        ItemIndex
            Itself.

        Examples
        --------
        >>> from recsys.retrieval import ItemIndex
        >>> len(ItemIndex(["tea", "milk"], [[1, 0], [1, 1]]).remove(["tea"]).compact())
        1
        """
        with self._changing:
            self._fold(*self._state)
        return self

    def _commit(self, labels: Labels, snapshot: Snapshot) -> None:
        """Let readers see a change; whoever calls this holds the lock."""
        if snapshot.needs_folding:
            self._fold(labels, snapshot)
        else:
            self._state = State(labels, snapshot)

    def _fold(self, labels: Labels, snapshot: Snapshot) -> None:
        folded, places = snapshot.folded(self._build)
        self._state = State(Labels.of(Vocabulary(labels.decode(places))), folded)

    def _read_rows(self, ids: pd.Index, vectors: Any, n_dimensions: int | None = None) -> Floats:
        """Check vectors of items, and copy them as they are stored."""
        array = as_vectors(vectors, n_dimensions, unit=self.metric == "cosine")
        if len(array) != len(ids):
            raise InvalidInputError(f"`vectors` has {len(array)} rows for {len(ids)} ids; expected one row an id.")
        return array

    def _read_queries(self, vectors: Any, name: str = "vectors") -> Floats:
        return as_vectors(vectors, self.n_dimensions, name, unit=self.metric == "cosine")

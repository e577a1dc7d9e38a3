"""The items of a bundle: those that were exported, and those that joined since. Imports NumPy alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from recsys._records import Labels
from recsys.retrieval._segments import Bools, Codes

__all__ = ["Catalogue", "key_of"]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Labels <-> places of items; it never changes.

    Attributes
    ----------
    exported : Labels
        Their codes are the first places.
    joined : tuple of labels
        Those of the places after them; what was removed may have come back.
    is_taken : ndarray of shape (n_places,), bool
        Whether the item is still there.

    Examples
    --------
    >>> tea = Labels({"form": "text", "ids": ["tea", "milk"]})
    >>> items = Catalogue.of(tea).without(np.array([0])).with_new(["salt", "tea"])
    >>> items.encode(["tea", "milk", "salt", "gin"]).tolist(), items.decode(np.array([1, 2]))
    ([3, 1, 2, -1], ['milk', 'salt'])
    >>> items.now_at(np.array([0, 1])).tolist()
    [3, 1]
    """

    exported: Labels
    joined: tuple[Any, ...]
    is_taken: Bools

    @classmethod
    def of(cls, exported: Labels) -> Catalogue:
        """All that was exported, and nothing else."""
        return cls(exported, (), np.ones(len(exported), dtype=bool))

    def __len__(self) -> int:
        """How many places there are, those of removed items included."""
        return len(self.is_taken)

    @cached_property
    def _is_whole(self) -> bool:
        return bool(self.is_taken.all())

    @cached_property
    def _places(self) -> dict[Any, int]:
        """Where the items are that joined."""
        n = len(self.exported)
        return {key_of(self.joined[at]): n + at for at in np.flatnonzero(self.is_taken[n:]).tolist()}

    def encode(self, labels: Collection[Any]) -> Codes:
        """Places of labels, (n,); -1 where there is no such item."""
        places = self.exported.encode(labels)
        if not self._is_whole:
            places[~self.is_taken[places]] = -1
        if self.joined and (places < 0).any():
            named = list(labels)
            for at in np.flatnonzero(places < 0):
                places[at] = self._places.get(key_of(named[at]), -1)
        return places

    def decode(self, places: Codes) -> list[Any]:
        """Labels of places."""
        if not self.joined:
            return self.exported.decode(places)
        n = len(self.exported)
        known = self.exported.decode(np.where(places < n, places, 0))
        return [self.joined[at - n] if at >= n else label for at, label in zip(places.tolist(), known, strict=True)]

    def now_at(self, exported: Codes) -> Codes:
        """Where items are whose places were these when the bundle was exported: elsewhere if they have come back."""
        before, now = self._returned
        if not len(before):
            return exported
        at = np.minimum(np.searchsorted(before, exported), len(before) - 1)
        return np.where(before[at] == exported, now[at], exported)

    @cached_property
    def _returned(self) -> tuple[Codes, Codes]:
        """Where items were that have come back, ascending, and where they are."""
        now = len(self.exported) + np.flatnonzero(self.is_taken[len(self.exported) :])
        before = self.exported.encode(self.decode(now))
        now, before = now[before >= 0], before[before >= 0]
        order = np.argsort(before)
        return before[order], now[order]

    def mismatch(self, labels: Sequence[Any]) -> str:
        """As `Labels.mismatch`."""
        return self.exported.mismatch(labels)

    def with_new(self, labels: Sequence[Any]) -> Catalogue:
        """Items that come last."""
        return Catalogue(self.exported, (*self.joined, *labels), np.append(self.is_taken, np.ones(len(labels), bool)))

    def without(self, places: Codes) -> Catalogue:
        """The items of other places."""
        is_taken = self.is_taken.copy()
        is_taken[places] = False
        return replace(self, is_taken=is_taken)

    @property
    def places(self) -> Codes:
        """The places where there are items, ascending."""
        return np.flatnonzero(self.is_taken)


def key_of(label: Any) -> tuple[bool, Any]:
    """What a dict finds a label by: to Python, True is 1."""
    return isinstance(label, (bool, np.bool_)), label

"""The labels of the items of an index: those of its base, and those that joined since."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.retrieval._segments import Bools, Codes
from recsys.vocabulary import Vocabulary

__all__ = ["Labels"]


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels <-> places of items; it never changes.

    Attributes
    ----------
    base : Vocabulary
        Its codes are the first places.
    is_taken : ndarray of shape (n_base,), bool
        Whether the item of the base is still there.
    joined : Vocabulary
        The items of the places after those; a removed one may have come back.

    Examples
    --------
    >>> labels = Labels(Vocabulary(["a", "b"]), np.array([False, True]), Vocabulary(["a"]))
    >>> labels.encode(["a", "b", "c"])
    array([ 2,  1, -1])
    """

    base: Vocabulary
    is_taken: Bools
    joined: Vocabulary

    @classmethod
    def of(cls, items: Vocabulary) -> Labels:
        """All labels of a base, and no other."""
        return cls(items, np.ones(len(items), dtype=bool), Vocabulary(items.ids[:0]))

    def __len__(self) -> int:
        return len(self.base) + len(self.joined)

    def encode(self, ids: Any) -> Codes:
        """Places of labels, (n,); -1 where there is no such item."""
        places = self.base.encode(ids)
        places[(places >= 0) & ~np.append(self.is_taken, True)[places]] = -1
        if len(self.joined):
            new = self.joined.encode(ids)
            places[new >= 0] = new[new >= 0] + len(self.base)
        return places

    def decode(self, places: Codes) -> pd.Index:
        """Labels of places, (n,)."""
        if not len(self.joined):
            return self.base.ids.take(places)
        is_new = places >= len(self.base)
        known, new = self.base.ids.take(places[~is_new]), self.joined.ids.take(places[is_new] - len(self.base))
        if known.dtype == new.dtype != object:
            order = np.argsort(np.concatenate([np.flatnonzero(~is_new), np.flatnonzero(is_new)]))
            return known.append(new).take(order)
        # Not by pandas, which would make floats of large whole numbers beside floats.
        labels = np.empty(len(places), dtype=object)
        labels[~is_new], labels[is_new] = known.astype(object).to_numpy(), new.astype(object).to_numpy()
        return pd.Index(labels, dtype=object, tupleize_cols=False)

    @cached_property
    def arrays(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The labels of the base and of what joined, as arrays of one dtype."""
        base, joined = np.asarray(self.base.ids), np.asarray(self.joined.ids)
        return (base, joined) if base.dtype == joined.dtype else (base.astype(object), joined.astype(object))

    def take(self, places: Codes) -> npt.NDArray[Any]:
        """Labels of places, in an array of their shape: faster than `decode`; of any item where a place is -1."""
        base, joined = self.arrays
        if not len(joined):
            return base[places]
        is_new = places >= len(base)
        labels = np.empty(places.shape, dtype=base.dtype)
        labels[is_new] = joined[places[is_new] - len(base)]
        if len(base):
            labels[~is_new] = base[places[~is_new]]
        return labels

    def mismatch(self, ids: pd.Index) -> str:
        """As `Vocabulary.mismatch`."""
        return (self.base if len(self.base) else self.joined).mismatch(ids)

    def with_new(self, ids: pd.Index) -> Labels:
        """Labels that come last."""
        items = Vocabulary(self.base.cast(ids)) if not len(self.joined) else self.joined.extend(ids)
        return replace(self, joined=items)

    def without(self, places: Codes) -> Labels:
        """The labels of other places; those that joined move up."""
        is_taken = self.is_taken.copy()
        is_taken[places[places < len(self.base)]] = False
        left = np.delete(np.arange(len(self.joined)), places[places >= len(self.base)] - len(self.base))
        return replace(self, is_taken=is_taken, joined=Vocabulary(self.joined.ids.take(left)))

    @cached_property
    def items(self) -> Vocabulary:
        """The items that are there, in order."""
        if not len(self.joined) and self.is_taken.all():
            return self.base
        places = np.concatenate([np.flatnonzero(self.is_taken), np.arange(len(self.base), len(self))])
        return Vocabulary(self.decode(places))

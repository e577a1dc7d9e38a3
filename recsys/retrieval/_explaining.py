"""How a bundle explains its scores, and whom an item reaches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from recsys._records import read_k
from recsys.exceptions import InvalidInputError
from recsys.retrieval._answering import COLD, AnsweringBundle, Asked, batches, refuse_extremes
from recsys.retrieval._living import Living
from recsys.retrieval._requests import NOTHING, Label, SparseRows, padded, read_users
from recsys.retrieval._segments import Codes, Floats

__all__ = ["Explained", "ExplainingBundle", "Reached", "Told"]


class Told(NamedTuple):
    """What a part of a score is.

    Attributes
    ----------
    weight : float
        How much the model heeds it.
    contribution : float
        Its part of the score.
    """

    weight: float
    contribution: float


@dataclass(frozen=True)
class Explained:
    """Where a score comes from.

    Attributes
    ----------
    user_id, item_id : label
    score : float
    contributions : dict of (source, field) to Told
        Sources are "user", "item", "history" and "prior"; fields of a history are its items. They sum to the score.
    """

    user_id: Label
    item_id: Label
    score: float
    contributions: dict[tuple[str, Label], Told]


@dataclass(frozen=True)
class Reached:
    """Whom an item is for.

    Attributes
    ----------
    item_id : label
    user_ids : list of labels
        Those to whom it means most first.
    scores : list of float
        By how many standard deviations of the user's own scores the item is above their mean.
    """

    item_id: Label
    user_ids: list[Label]
    scores: list[float]


class _Known(NamedTuple):
    """The users of `fit` of whom something is known.

    Attributes
    ----------
    codes : ndarray of shape (n,), int64
    vectors : ndarray of shape (n, d), float32
        Scaled so that a user's scores of the items that were exported have a standard deviation of 1.
    means : ndarray of shape (n,), float32
        The mean of these scores.
    """

    codes: Codes
    vectors: Floats
    means: Floats


class ExplainingBundle(AnsweringBundle):
    """The part of a `Bundle` that says why, and for whom."""

    def explain(
        self,
        users: Sequence[Label],
        items: Collection[Label],
        *,
        user_features: Mapping[Label, Mapping[str, Any]] | None = None,
        interactions: Mapping[Label, Collection[Label] | Mapping[Label, float]] | None = None,
        context: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> list[Explained]:
        """Where the score of each item for each user comes from: what the model's own `explain` says.

        Parameters
        ----------
        users : sequence of labels
        items : collection of labels
            Items that are there.
        user_features, interactions, context
            As in `recommend`.

        Returns
        -------
        list of Explained
            User by user, the items of each in their order.

        Raises
        ------
        InvalidInputError
            If an item is unknown, or another argument is not what is described here.

        Examples
        --------
        >>> import pandas as pd, tempfile
        >>> from recsys import ContentEASE
        >>> from recsys.retrieval import load_bundle
        >>> X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": ["tea", "milk", "tea", "milk", "tea"]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ContentEASE(l2=1.0, random_state=0).fit(X).export(folder)
        ...     [found] = load_bundle(folder).explain(["eve"], ["milk"], interactions={"eve": ["tea"]})
        >>> for (source, field), told in found.contributions.items():
        ...     print(source, field, told.weight)
        prior average user 1.0
        history tea 1.0
        """
        users, living = read_users(users), self._living
        reader = self._reader(living)
        asked = self._gather(reader, users, user_features, interactions, context, "features")
        named, places = reader.known_items("items", items)
        vectors, of_users = living.snapshot.vectors_of(places), self._vectors(users, asked, living)
        scores = of_users.astype(np.float64) @ vectors.T.astype(np.float64)
        told = {
            row: [{("prior", "popularity"): Told(1.0, float(vector[-1]))} for vector in vectors]
            for row, each in enumerate(asked)
            if each.path == COLD
        }
        of_items = self._parts_of_items(places, living)
        for rows in self._batches(asked):
            part = [asked[row] for row in rows]
            found = self._explain(part, of_users[rows, :-1], vectors[:, :-1], of_items, living)
            told |= zip(rows, found, strict=True)
        refuse_extremes(users, np.array([all(map(_is_finite, told[row])) for row in range(len(users))], bool))
        return [
            Explained(user, item, float(scores[row, column]), told[row][column])
            for row, user in enumerate(users)
            for column, item in enumerate(named)
        ]

    def _explain(
        self,
        asked: Sequence[Asked],
        users: Floats,
        items: Floats,
        of_items: dict[str, Floats],
        living: Living,
    ) -> list[list[dict[tuple[str, Label], Told]]]:
        """What is told of n users and m items, whose vectors are given."""
        contributions = [[_Sums() for _ in items] for _ in asked]
        if "user_parts" in self._graphs:
            inputs = self._inputs(asked, living, all_told=True)
            found = self._graphs["user_parts"](inputs)
            values, weights = found["parts"] @ items.T, found["weights"]
            places = np.hstack([inputs["history"], inputs["joined"] + len(living.exported.labels)])
            for row, each in enumerate(contributions):
                at = np.flatnonzero(weights[row])
                names = self._names("user_parts", at, places[row], living)
                for column, sums in enumerate(each):
                    sums.add(names, weights[row, at], values[row, at, column])
        if of_items:
            values = np.einsum("nd,mfd->nmf", users, of_items["parts"])
            for row, each in enumerate(contributions):
                for column, sums in enumerate(each):
                    at = np.flatnonzero(of_items["weights"][column])
                    names = self._names("item_parts", at, NOTHING[0], living)
                    sums.add(names, of_items["weights"][column, at], values[row, column, at])
        return [[sums.told() for sums in each] for each in contributions]

    def _names(self, graph: str, at: Codes, history: Codes, living: Living) -> list[tuple[str, Label]]:
        """The source and the field of parts, of which those after the named ones are entries of a history."""
        names: list[list[str]] = self._stored["graphs"][graph]["names"]
        entries = living.catalogue.decode(history[at[at >= len(names)] - len(names)])
        return [*((names[place][0], names[place][1]) for place in at if place < len(names)),
                *(("history", item) for item in entries)]  # fmt: skip

    def _parts_of_items(self, places: Codes, living: Living) -> dict[str, Floats]:
        """What the graph of the parts of items finds; nothing where users have all, or there is no item."""
        if "item_parts" not in self._graphs or not len(places):
            return {}
        n = len(living.exported.labels)
        entries = [self._items_told.row(at) if at < n else living.told[at - n] for at in places.tolist()]
        columns, values = padded(entries)
        exported = np.where(places < n, places, -1)[:, None]
        return self._graphs["item_parts"]({"features": columns, "features_values": values, "exported": exported})

    @cached_property
    def _items_told(self) -> SparseRows:
        encoder, n = self._encoders["item_features"], len(self._living.exported.labels)
        return SparseRows(self._stored["items_told"], (n, 0 if encoder is None else encoder.starts[-1]))

    def reach(self, items: Collection[Label], k: int = 10) -> list[Reached]:
        """The known users to whom an item means most: whose score of it is highest beside their own scores of others.

        A score is compared with those of the items that were exported, in standard deviations from their mean. Users
        who have seen the item, and of whom the model knows nothing, are left out. The first call works out the vectors
        of all users, which are kept.

        Parameters
        ----------
        items : collection of labels
            Items that are there.
        k : int, default=10
            How many users; fewer come back where fewer are left.

        Returns
        -------
        list of Reached
            One an item.

        Raises
        ------
        InvalidInputError
            If an item is unknown, or the bundle has no users.

        Examples
        --------
        >>> import pandas as pd, tempfile
        >>> from recsys import ContentEASE
        >>> from recsys.retrieval import load_bundle
        >>> X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": ["tea", "milk", "rum", "gin", "rum"]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ContentEASE(l2=1.0, random_state=0).fit(X).export(folder)
        ...     [found] = load_bundle(folder).reach(["gin"], k=1)
        >>> found.user_ids
        [3]
        """
        k, living = read_k(k), self._living
        if self._users is None:
            raise InvalidInputError(
                "The bundle has no users, so that nobody can be reached; expected one that was exported with "
                "`include_users=True`."
            )
        named, places = self._reader(living).known_items("items", items)
        known = self._known
        scores = living.snapshot.vectors_of(places)[:, :-1] @ known.vectors.T - known.means
        # What has come back was seen where it was.
        before = living.exported.labels.encode(named)
        found = []
        for item, exported, row in zip(named, before, scores, strict=True):
            row[np.isin(known.codes, self._histories.rows_with(exported), assume_unique=True)] = -np.inf
            best = np.argsort(-row, kind="stable")[:k]
            best = best[row[best] > -np.inf]
            found.append(Reached(item, self._users.decode(known.codes[best]), row[best].tolist()))
        return found

    @cached_property
    def _known(self) -> _Known:
        assert self._users is not None
        living, positives = self._living, self._histories.positives()
        hot = np.diff(positives.indptr) > 0
        told = hot | ((np.diff(self._known_features.indptr) > 0) & self._uses_features)
        codes = np.flatnonzero(told)
        vectors = np.empty((len(codes), living.exported.segment.vectors.shape[1] - 1), dtype=np.float32)
        order = np.argsort(np.diff(positives.indptr)[codes], kind="stable")
        for rows in batches(np.diff(positives.indptr)[codes[order]]):
            at = order[rows]
            chosen = codes[at]
            inputs = {
                "known": np.where(hot[chosen], chosen, -1)[:, None],
                "trained": hot[chosen, None].astype(np.float32),
            }
            entries = {
                "history": positives.padded(chosen),
                "features": self._known_features.padded(chosen),
                "context": padded([NOTHING] * len(chosen)),
            }
            for name, (columns, values) in entries.items():
                inputs[name], inputs[f"{name}_values"] = columns, values
            vectors[at] = self._graphs["users"](inputs)["user_vectors"]
        items = living.exported.segment.vectors[:, :-1]
        mean = items.mean(axis=0, dtype=np.float64)
        covariance = (items.T @ items) / len(items) - np.outer(mean, mean)
        spread = np.sqrt(np.maximum(np.einsum("nd,nd->n", vectors @ covariance, vectors), 0))
        # Of users to whom all items are alike, none means more.
        vectors /= np.where(spread > 0, spread, np.inf).astype(np.float32)[:, None]
        return _Known(codes, vectors, vectors @ mean.astype(np.float32))


def _is_finite(told: dict[tuple[str, Label], Told]) -> bool:
    """Whether no part of a score has overflown."""
    return all(np.isfinite(each.contribution) for each in told.values())


class _Sums:
    """Contributions by name, of which those that come twice add up."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, Label], tuple[float, float]] = {}

    def add(self, names: Sequence[tuple[str, Label]], weights: Floats, values: Floats) -> None:
        """More of them."""
        for name, weight, value in zip(names, weights.tolist(), values.tolist(), strict=True):
            before = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = before[0] + weight, before[1] + value

    def told(self) -> dict[tuple[str, Label], Told]:
        """All of them."""
        return {name: Told(*sums) for name, sums in self._sums.items()}

"""How a bundle answers: the k best items of users, and items that are alike."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys._records import PATHS, Labels, RecordEncoder, read_k
from recsys.exceptions import (
    ColdStartError,
    ColdStartWarning,
    InvalidInputError,
    InvalidTypeError,
    did_you_mean,
    examples,
)
from recsys.retrieval._living import Exported, Living, living_from_state
from recsys.retrieval._requests import (
    NOTHING,
    Entries,
    Label,
    RequestReader,
    SparseRows,
    padded,
    read_users,
    summed,
    told_of,
)
from recsys.retrieval._segments import LARGEST, Bools, Codes, Floats, Pairs, lengths_of
from recsys.retrieval._sessions import GraphRunner
from recsys.retrieval._states import segment_from_state

__all__ = ["AnsweringBundle", "Asked", "COLD", "Recommended", "SimilarItems", "batches", "refuse_extremes"]

HOT, FEW_SHOT, WARM, COLD = range(len(PATHS))
ON_COLD = ("features", "popular", "raise")
# What the graph takes at a time: entries, padding included, of which each becomes a vector, and users, of whom each may
# become a system of equations.
_ENTRIES, _USERS = 2**14, 64


@dataclass(frozen=True)
class Recommended:
    """What is recommended to a user.

    Attributes
    ----------
    user_id : label
    path : {"hot", "few-shot", "warm", "cold"}
        How the user was answered: from interactions in `fit`, from new ones, from features, or by popularity.
    item_ids : list of labels
        Best first.
    scores : list of float
    """

    user_id: Label
    path: str
    item_ids: list[Label]
    scores: list[float]


@dataclass(frozen=True)
class SimilarItems:
    """What is most similar to an item.

    Attributes
    ----------
    item_id : label
    item_ids : list of labels
        The most similar first.
    scores : list of float
    """

    item_id: Label
    item_ids: list[Label]
    scores: list[float]


class Asked(NamedTuple):
    """What is known of one user: a code in `fit` (or -1), entries, places that were seen."""

    known: int
    trained: bool
    history: Entries
    seen: Codes
    features: Entries
    context: Entries
    path: int


class AnsweringBundle:
    """The part of a `Bundle` that is asked for items."""

    def __init__(self, state: dict[str, Any], manifest: dict[str, Any]) -> None:
        self.model: str = manifest["model"]
        self._stored, self._manifest = state, manifest
        exported = Exported(Labels(state["items"]), segment_from_state(state["index"]), state["n_similar"])
        self._uses_features = bool(state["uses_user_features"])
        names = ("user_features", "item_features", "context")
        self._encoders = {name: None if state[name] is None else RecordEncoder(state[name]) for name in names}
        self._graphs = {name: GraphRunner(graph, state["tables"]) for name, graph in state["graphs"].items()}
        self._users: Labels | None = None
        users = state["users"]
        if users is not None:
            self._users = Labels(users["labels"])
            self._histories = SparseRows(users["history"], (len(self._users), len(exported.labels)))
            encoder = self._encoders["user_features"]
            n_columns = 0 if encoder is None else encoder.starts[-1]
            self._known_features = SparseRows(users["features"], (len(self._users), n_columns))
        self.n_users = 0 if self._users is None else len(self._users)
        # How many rows an item has in each table of items that graphs of users look at, and how wide they are.
        self._shapes: dict[str, list[int]] = state["item_tables"]
        widths = {name: n * width for name, (n, width) in self._shapes.items()}
        encoder = self._encoders["item_features"]
        n_columns = 0 if encoder is None else encoder.starts[-1]
        self._living = living_from_state(exported, n_columns, widths, state["changed"])
        self._check_users_graph()

    @property
    def n_items(self) -> int:
        """How many items there are."""
        return self._living.snapshot.n_items

    def recommend(
        self,
        users: Sequence[Label],
        k: int = 10,
        *,
        user_features: Mapping[Label, Mapping[str, Any]] | None = None,
        interactions: Mapping[Label, Collection[Label] | Mapping[Label, float]] | None = None,
        context: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        candidates: Collection[Label] | None = None,
        exclude: Collection[Label] | Mapping[Label, Collection[Label]] | None = None,
        where: Mapping[str, Any] | None = None,
        exclude_seen: bool = True,
        on_cold: Literal["features", "popular", "raise"] = "features",
    ) -> list[Recommended]:
        """The k best items for each user: what the model's own `recommend` says.

        Parameters
        ----------
        users : sequence of labels
            Known or new; answered in this order.
        k : int, default=10
            How many items; fewer come back where fewer are left.
        user_features : dict of user to dict, default=None
            Features of new users, or newer ones of known users: field to value; fields that are not there are unknown.
        interactions : dict of user to list of items, default=None
            Interactions since `fit`: positives, or a dict of item to rating, read like `y` of `fit`.
        context : dict or list of dict, default=None
            Context columns, for everybody or one dict a user. None: unknown.
        candidates : collection of item ids, default=None
            Items that alone may be recommended.
        exclude : collection of item ids, or dict of user to item ids, default=None
            Items that may not be recommended, to anyone or to a user.
        where : dict, default=None
            A filter of the metadata: see `recsys.retrieval.filters`.
        exclude_seen : bool, default=True
            Leave out what a user has interacted with, in `fit` or in `interactions`.
        on_cold : {"features", "popular", "raise"}, default="features"
            What answers users without interactions, as in the model's `recommend`; `path` tells who got the prior.

        Returns
        -------
        list of Recommended
            One a user.

        Raises
        ------
        InvalidInputError
            If an argument is not what is described here.
        ColdStartError
            If ``on_cold="raise"`` and nothing is known of a user.

        Warns
        -----
        DataWarning
            If `interactions` or `candidates` name items that are not in the catalogue.
        ColdStartWarning
            If all users are unknown, and of another type than those of `fit`: text, say, where these are numbers.

        Examples
        --------
        >>> import pandas as pd, tempfile
        >>> from recsys import ContentEASE
        >>> from recsys.retrieval import load_bundle
        >>> X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": ["tea", "milk", "tea", "milk", "salt"]})
        >>> folder = tempfile.TemporaryDirectory()
        >>> ContentEASE(l2=1.0, random_state=0).fit(X).export(folder.name)
        >>> bundle = load_bundle(folder.name)
        >>> for answer in bundle.recommend([3, "eve"], k=1, interactions={"eve": ["tea"]}, exclude=["salt"]):
        ...     print(answer.user_id, answer.path, answer.item_ids)
        3 hot ['tea']
        eve few-shot ['milk']
        >>> folder.cleanup()
        """
        k, users, living = read_k(k), read_users(users), self._living
        if not isinstance(exclude_seen, (bool, np.bool_)):
            raise InvalidTypeError(f"`exclude_seen` is {exclude_seen!r}; expected True or False.")
        if isinstance(candidates, Mapping):
            raise InvalidTypeError("`candidates` is a dict; expected a list of item ids, which hold for everybody.")
        reader = self._reader(living)
        asked = self._gather(reader, users, user_features, interactions, context, on_cold)
        of_each = [each.seen if exclude_seen else NOTHING[0] for each in asked]
        if isinstance(exclude, Mapping):
            for row, items in told_of("exclude", exclude, users).items():
                of_each[row] = np.union1d(of_each[row], reader.places("exclude", items))
            exclude = None
        allowed = reader.allowed(candidates, exclude)
        vectors = self._vectors(users, asked, living)
        found = living.snapshot.search(vectors, k, where=where, allowed=allowed, pairs=_pairs(of_each))
        return [
            Recommended(user, PATHS[each.path], *_listed(living, codes, scores))
            for user, each, codes, scores in zip(users, asked, found.codes, found.scores, strict=True)
        ]

    def similar_items(
        self,
        items: Sequence[Label],
        k: int = 10,
        *,
        where: Mapping[str, Any] | None = None,
        candidates: Collection[Label] | None = None,
        exclude: Collection[Label] | None = None,
    ) -> list[SimilarItems]:
        """The k items most similar to each of `items`: what the model's own `similar_items` says.

        Parameters
        ----------
        items : sequence of labels
            Items that are there.
        k : int, default=10
        where, candidates, exclude
            As in `recommend`, for all of them.

        Returns
        -------
        list of SimilarItems
            One an item.

        Raises
        ------
        InvalidInputError
            If an item is unknown, or another argument is not what is described here.

        Examples
        --------
        >>> import pandas as pd, tempfile
        >>> from recsys import ContentEASE
        >>> from recsys.retrieval import load_bundle
        >>> X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3], "item_id": ["tea", "milk", "tea", "milk", "rum", "gin"]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ContentEASE(l2=1.0, random_state=0).fit(X).export(folder)
        ...     [similar] = load_bundle(folder).similar_items(["tea"], k=1)
        >>> similar.item_id, similar.item_ids
        ('tea', ['milk'])
        """
        k, living = read_k(k), self._living
        reader = self._reader(living)
        asked, places = reader.known_items("items", items)
        allowed, angles = reader.allowed(candidates, exclude), living.by_angle
        queries = (
            angles.vectors_of(places) if living.exported.n_similar else np.ones((len(places), 1), dtype=np.float32)
        )
        itself = Pairs(np.arange(len(places) + 1), places)
        found = angles.search(queries, k, where=where, allowed=allowed, pairs=itself)
        return [
            SimilarItems(item, *_listed(living, codes, scores))
            for item, codes, scores in zip(asked, found.codes, found.scores, strict=True)
        ]

    def _reader(self, living: Living) -> RequestReader:
        encoders = self._encoders["user_features"], self._encoders["context"]
        return RequestReader(living.catalogue, *encoders, self._stored["min_rating"])

    def _gather(
        self,
        reader: RequestReader,
        users: Sequence[Label],
        user_features: Any,
        interactions: Any,
        context: Any,
        on_cold: str,
    ) -> list[Asked]:
        """All that is known of users."""
        if not isinstance(on_cold, str) or on_cold not in ON_COLD:
            hint = did_you_mean(str(on_cold), ON_COLD)
            raise InvalidInputError(f"`on_cold` is {on_cold!r}; expected one of {examples(ON_COLD)}. {hint}")
        features, recent = reader.features(user_features, users), reader.recent(interactions, users)
        contexts = reader.context(context, len(users))
        codes = np.full(len(users), -1) if self._users is None else self._users.encode(users)
        asked = []
        for row, (code, situation) in enumerate(zip(codes.tolist(), contexts, strict=True)):
            own, known = (self._histories.row(code), self._known_features.row(code)) if code >= 0 else (NOTHING,) * 2
            fresh, told = recent.get(row, NOTHING), features.get(row, known)
            hot, since = bool((own[1] > 0).any()), bool((fresh[1] > 0).any())
            places, weights = summed(own, fresh)
            history = places[weights > 0], weights[weights > 0]
            # What has come back is elsewhere now.
            now = reader.items.now_at(own[0])
            seen = places if now is own[0] else np.union1d(now, fresh[0])
            path = HOT if hot else FEW_SHOT if since else COLD
            if path == COLD and self._uses_features and on_cold != "popular" and len(told[0]):
                path = WARM
            asked.append(Asked(code if hot else -1, hot and not since, history, seen, told, situation, path))
        unknown = [user for user, each in zip(users, asked, strict=True) if each.path == COLD]
        hint = "" if self._users is None or not unknown or (codes >= 0).any() else self._users.mismatch(users)
        if hint and on_cold == "features":
            warnings.warn(
                f"Nothing is known of any of `users`, of whom {len(unknown)} are answered with the most popular items."
                f"{hint}",
                ColdStartWarning,
                stacklevel=3,
            )
        if on_cold == "raise" and unknown:
            helps = "`user_features` or `interactions`" if self._uses_features else "`interactions`"
            raise ColdStartError(
                f"Nothing that {self.model} can use is known of {len(unknown)} of `users`: {examples(unknown)}; pass "
                f'{helps}, or on_cold="popular".{hint}'
            )
        return asked

    def _vectors(self, users: Sequence[Label], asked: Sequence[Asked], living: Living) -> Floats:
        """Vectors of users; the last dimension is 1 for those who get the prior."""
        vectors = np.zeros((len(asked), living.snapshot.base.vectors.shape[1]), dtype=np.float32)
        vectors[[row for row, each in enumerate(asked) if each.path == COLD], -1] = 1
        for rows in self._batches(asked):
            inputs = self._inputs([asked[row] for row in rows], living)
            name = "users_of_joined" if "joined" in inputs else "users"
            vectors[rows, :-1] = self._graphs[name](inputs)["user_vectors"]
        # Inner products of longer ones may overflow.
        refuse_extremes(users, lengths_of(vectors) <= LARGEST / max(living.snapshot.longest, 1.0))
        return vectors

    def _check_users_graph(self) -> None:
        """Ask for somebody of whom nothing is known, and for the last user, item and columns of all."""
        living = self._living
        ends = {name: 0 if encoder is None else encoder.starts[-1] for name, encoder in self._encoders.items()}
        item, features, context = (
            (np.arange(n)[-1:], np.ones(min(n, 1), dtype=np.float32))
            for n in (len(living.exported.labels), ends["user_features"], ends["context"])
        )
        asked = [
            Asked(-1, False, NOTHING, NOTHING[0], NOTHING, NOTHING, COLD),
            Asked(self.n_users - 1, self.n_users > 0, item, NOTHING[0], features, context, HOT),
        ]
        found = self._graphs["users"](self._inputs(asked, living))["user_vectors"]
        if found.shape != (2, living.exported.segment.vectors.shape[1] - 1):
            raise ValueError(f"a graph of users whose vectors are of shape {found.shape}")

    def _batches(self, asked: Sequence[Asked]) -> Iterator[list[int]]:
        """Those who do not get the prior, as many as a graph takes at a time."""
        told = [row for row, each in enumerate(asked) if each.path != COLD]
        # Users of about the same number of entries, so that padding is short.
        told.sort(key=lambda row: len(asked[row].history[0]))
        for part in batches([len(asked[row].history[0]) for row in told]):
            yield told[part]

    def _inputs(self, asked: Sequence[Asked], living: Living, all_told: bool = False) -> dict[str, npt.NDArray[Any]]:
        """What graphs look at; of items that joined only where somebody has one, unless `all_told`."""
        inputs: dict[str, npt.NDArray[Any]] = {
            "known": np.array([[each.known] for each in asked]),
            "trained": np.array([[each.trained] for each in asked], dtype=np.float32),
        }
        histories, n = [each.history for each in asked], len(living.exported.labels)
        if all_told or any(len(places) and places[-1] >= n for places, _ in histories):
            at = [int(np.searchsorted(places, n)) for places, _ in histories]
            both = list(zip(at, histories, strict=True))
            inputs["joined"], inputs["joined_values"] = padded([(each[0][i:] - n, each[1][i:]) for i, each in both])
            histories = [(each[0][:i], each[1][:i]) for i, each in both]
            inputs |= self._tables_of_joined(living)
        rows = {
            "history": histories,
            "features": [each.features for each in asked],
            "context": [each.context for each in asked],
        }
        for name, entries in rows.items():
            inputs[name], inputs[f"{name}_values"] = padded(entries)
        return inputs

    def _tables_of_joined(self, living: Living) -> dict[str, Floats]:
        """What items that joined say of users who have them."""
        found = {name: living.rows[name].rows.reshape(-1, width) for name, (_, width) in self._shapes.items()}
        # Padding must point at something.
        return {
            name: rows if len(rows) else np.zeros((1, rows.shape[1]), dtype=np.float32) for name, rows in found.items()
        }


def refuse_extremes(users: Sequence[Label], is_fine: Bools) -> None:
    """Refuse what is told of users of whom the model makes no numbers."""
    if not is_fine.all():
        extreme = [users[row] for row in np.flatnonzero(~is_fine).tolist()]
        raise InvalidInputError(
            f"`interactions`, `user_features` or `context` of {examples(extreme)} are so extreme that there is no "
            f"score; expected numbers like those of fit: look for a rating or a feature of extreme size."
        )


def batches(lengths: Sequence[int] | Codes) -> Iterator[slice]:
    """As many users of `lengths` entries, ascending, as a graph takes at a time: the longest first."""
    stop = len(lengths)
    while stop:
        start = max(0, stop - max(1, min(_USERS, _ENTRIES // max(1, int(lengths[stop - 1])))))
        yield slice(start, stop)
        stop = start


def _pairs(of_each: Sequence[Codes]) -> Pairs | None:
    """The places that each query may not find, ascending within each."""
    lengths = [len(part) for part in of_each]
    return Pairs(np.cumsum([0, *lengths]), np.concatenate(of_each)) if any(lengths) else None


def _listed(living: Living, codes: Codes, scores: Floats) -> tuple[list[Label], list[float]]:
    """The items of an answer, and their scores."""
    n = int(np.count_nonzero(codes >= 0))
    return living.catalogue.decode(codes[:n]), scores[:n].tolist()

"""Serve a model without what it was trained with: `load_bundle` needs NumPy, FAISS and ONNX Runtime alone.

A bundle is what `model.export` writes: the user side of the model as an ONNX graph, the vectors of items, labels,
encoders of features and context, and, unless they were left out, the users of `fit` with their histories and features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from recsys._records import PATHS, Labels, RecordEncoder, read_k
from recsys.exceptions import (
    ColdStartError,
    CorruptModelError,
    InvalidInputError,
    InvalidTypeError,
    PersistenceError,
    did_you_mean,
    examples,
)
from recsys.persistence import read_directory, read_manifest
from recsys.retrieval._requests import (
    NOTHING,
    Entries,
    Label,
    RequestReader,
    SparseRows,
    check_users,
    padded,
    read_users,
    summed,
)
from recsys.retrieval._segments import Codes, Floats, Pairs
from recsys.retrieval._snapshot import Snapshot
from recsys.retrieval._states import segment_from_state

__all__ = ["Bundle", "CLASS", "Recommended", "load_bundle"]

CLASS = "Bundle"
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


class _Asked(NamedTuple):
    """What is known of one user: a code in `fit` (or -1), entries, places that were seen."""

    known: int
    trained: bool
    history: Entries
    seen: Codes
    features: Entries
    context: Entries
    path: int


class Bundle:
    """A model that serves, as `load_bundle` returns it; requests may come from any number of threads.

    Attributes
    ----------
    model : str
        The class of the model.
    n_items : int
    n_users : int
        How many users of `fit` it knows; 0 where they were left out.
    """

    def __init__(self, state: dict[str, Any], manifest: dict[str, Any]) -> None:
        self.model: str = manifest["model"]
        self._items = Labels(state["items"])
        self._index = Snapshot.of(segment_from_state(state["index"]))
        self.n_items = self._index.n_items
        if len(self._items) != self.n_items:
            raise ValueError(f"{len(self._items)} labels for {self.n_items} items")
        self._uses_features = bool(state["uses_user_features"])
        encoders = [None if each is None else RecordEncoder(each) for each in (state["features"], state["context"])]
        features, context = encoders
        self._reader = RequestReader(self._items, features, context, state["min_rating"])
        self._users: Labels | None = None
        users = state["users"]
        if users is not None:
            self._users = Labels(users["labels"])
            self._histories = SparseRows(users["history"], (len(self._users), self.n_items))
            n_columns = 0 if features is None else features.starts[-1]
            self._known_features = SparseRows(users["features"], (len(self._users), n_columns))
        self.n_users = 0 if self._users is None else len(self._users)
        # The session looks at the tables' memory, but does not keep it.
        self._tables = state["tables"]
        self._session = _session(state["graph"], self._tables)
        self._inputs = [each.name for each in self._session.get_inputs()]

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

        Examples
        --------
        >>> import pandas as pd, tempfile
        >>> from recsys import ContentEASE
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
        k, users = read_k(k), read_users(users)
        if not isinstance(exclude_seen, (bool, np.bool_)):
            raise InvalidTypeError(f"`exclude_seen` is {exclude_seen!r}; expected True or False.")
        asked = self._gather(users, user_features, interactions, context, on_cold)
        if isinstance(candidates, Mapping):
            raise InvalidTypeError("`candidates` is a dict; expected a list of item ids, which hold for everybody.")
        allowed = None if candidates is None else self._reader.mask("candidates", candidates)
        excluded = [each.seen if exclude_seen else NOTHING[0] for each in asked]
        if isinstance(exclude, Mapping):
            check_users("exclude", exclude, users)
            excluded = [
                np.union1d(seen, self._reader.places("exclude", exclude[user])) if user in exclude else seen
                for user, seen in zip(users, excluded, strict=True)
            ]
        elif exclude is not None:
            others = ~self._reader.mask("exclude", exclude)
            allowed = others if allowed is None else allowed & others
        lengths = [len(part) for part in excluded]
        pairs = Pairs(np.cumsum([0, *lengths]), np.concatenate([NOTHING[0], *excluded])) if any(lengths) else None
        found = self._index.search(self._vectors(asked), k, where=where, allowed=allowed, pairs=pairs)
        answers = []
        for user, each, codes, scores in zip(users, asked, found.codes, found.scores, strict=True):
            n = int(np.count_nonzero(codes >= 0))
            path, items = PATHS[each.path], self._items.decode(codes[:n])
            answers.append(Recommended(user, path, items, scores[:n].tolist()))
        return answers

    def _gather(
        self, users: Sequence[Label], user_features: Any, interactions: Any, context: Any, on_cold: str
    ) -> list[_Asked]:
        """All that is known of users."""
        if on_cold not in ON_COLD:
            hint = did_you_mean(str(on_cold), ON_COLD)
            raise InvalidInputError(f"`on_cold` is {on_cold!r}; expected one of {examples(ON_COLD)}. {hint}")
        features, recent = self._reader.features(user_features, users), self._reader.recent(interactions, users)
        contexts = self._reader.context(context, len(users))
        codes = np.full(len(users), -1) if self._users is None else self._users.encode(users)
        asked = []
        for user, code, situation in zip(users, codes.tolist(), contexts, strict=True):
            own, known = (self._histories.row(code), self._known_features.row(code)) if code >= 0 else (NOTHING,) * 2
            fresh, told = recent.get(user, NOTHING), features.get(user, known)
            hot, since = bool((own[1] > 0).any()), bool((fresh[1] > 0).any())
            seen, weights = summed(own, fresh)
            history = seen[weights > 0], weights[weights > 0]
            path = HOT if hot else FEW_SHOT if since else COLD
            if path == COLD and self._uses_features and on_cold != "popular" and len(told[0]):
                path = WARM
            asked.append(_Asked(code if hot else -1, hot and not since, history, seen, told, situation, path))
        unknown = [user for user, each in zip(users, asked, strict=True) if each.path == COLD]
        if on_cold == "raise" and unknown:
            helps = "`user_features` or `interactions`" if self._uses_features else "`interactions`"
            raise ColdStartError(
                f"Nothing that {self.model} can use is known of {len(unknown)} of `users`: {examples(unknown)}; pass "
                f'{helps}, or on_cold="popular".'
            )
        return asked

    def _vectors(self, asked: Sequence[_Asked]) -> Floats:
        """Vectors of users; the last dimension is 1 for those who get the prior."""
        vectors = np.zeros((len(asked), self._index.base.vectors.shape[1]), dtype=np.float32)
        told = [row for row, each in enumerate(asked) if each.path != COLD]
        vectors[[row for row, each in enumerate(asked) if each.path == COLD], -1] = 1
        # Users of about the same number of entries, so that padding is short.
        told.sort(key=lambda row: len(asked[row].history[0]))
        while told:
            longest = max(1, len(asked[told[-1]].history[0]))
            rows = told[-max(1, min(_USERS, _ENTRIES // longest)) :]
            del told[-len(rows) :]
            vectors[rows, :-1] = self._run([asked[row] for row in rows])
        return vectors

    def _run(self, asked: Sequence[_Asked]) -> Floats:
        """The output of the graph, (n, d)."""
        inputs: dict[str, npt.NDArray[Any]] = {
            "known": np.array([[each.known] for each in asked]),
            "trained": np.array([[each.trained] for each in asked], dtype=np.float32),
        }
        for name in ("history", "features", "context"):
            if name in self._inputs or f"{name}_values" in self._inputs:
                inputs[name], inputs[f"{name}_values"] = padded([getattr(each, name) for each in asked])
        found: Floats = self._session.run(None, {name: inputs[name] for name in self._inputs})[0]
        return found

    def __repr__(self) -> str:
        return f"Bundle({self.model}: {self.n_items} items, {self.n_users} users)"


def load_bundle(path: Any) -> Bundle:
    """Load what `model.export` wrote; neither pandas, SciPy, scikit-learn, torch nor lightgbm is imported.

    Every byte is checked. Arrays stay in their file, which is mapped into memory: processes share them.

    Parameters
    ----------
    path : path-like
        The directory.

    Returns
    -------
    Bundle

    Raises
    ------
    PersistenceError
        If there is no bundle at `path`, or `onnxruntime` is missing.
    CorruptModelError
        If a file is missing, truncated or altered.
    SchemaVersionError
        If the bundle was written by a newer release.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from recsys import Popularity
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Popularity().fit(pd.DataFrame({"user_id": [1, 2], "item_id": ["tea", "tea"]})).export(folder)
    ...     load_bundle(folder)
    Bundle(Popularity: 1 items, 2 users)
    """
    _refuse_other_class(read_manifest(path), path)
    state, manifest = read_directory(path, mapped_from=0)
    # A save may have come between.
    _refuse_other_class(manifest, path)
    try:
        return Bundle(state, manifest)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CorruptModelError(
            f"The files in {Path(path)} match their checksums but are no bundle ({type(error).__name__}: {error}); "
            f"expected what `export` wrote."
        ) from error


def _refuse_other_class(manifest: dict[str, Any], path: Any) -> None:
    if manifest.get("class") != CLASS:
        raise PersistenceError(
            f"{Path(path)} holds a saved {manifest.get('class')}; expected a bundle: write one with `model.export`."
        )


def _session(graph: npt.NDArray[np.uint8], tables: dict[str, npt.NDArray[Any]]) -> Any:
    """The graph, with its tables where they are mapped."""
    try:
        import onnxruntime
    except ImportError as error:
        raise PersistenceError(
            "A bundle is run by the package `onnxruntime`, which is missing: pip install 'recsys[serve]'."
        ) from error
    options = onnxruntime.SessionOptions()
    # Requests run beside each other; one is too small to be shared out.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Packed anew, tables would be copied.
    options.add_session_config_entry("session.disable_prepacking", "1")
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(table) for table in tables.values()]
    options.add_external_initializers(list(tables), values)
    try:
        return onnxruntime.InferenceSession(graph.tobytes(), options, providers=["CPUExecutionProvider"])
    # What it raises has no base of its own.
    except Exception as error:
        raise ValueError(f"a graph that ONNX Runtime refuses: {error}") from error

"""How the items of a bundle come and go."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import numpy as np

from recsys._records import is_missing, tagged
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError, PersistenceError, examples
from recsys.persistence import refuse_other_kind, write_directory
from recsys.retrieval._answering import AnsweringBundle
from recsys.retrieval._living import Living
from recsys.retrieval._requests import Entries, Label, padded
from recsys.retrieval._segments import Codes, Floats, lengths_of
from recsys.retrieval._told import read_records

__all__ = ["CLASS", "EditableBundle"]

CLASS = "Bundle"
# Items whose vectors are made at a time.
_ITEMS = 16
# Vectors that are so many times longer than any of those exported would drown all others.
_LONGER = 1e6

Self = TypeVar("Self", bound="EditableBundle")


class EditableBundle(AnsweringBundle):
    """The part of a `Bundle` that changes.

    A change is made on copies, under a lock that writers alone take, and becomes visible by replacing one reference.
    """

    def __init__(self, state: dict[str, Any], manifest: dict[str, Any]) -> None:
        super().__init__(state, manifest)
        self._changing = threading.Lock()
        self._saving = threading.Lock()

    def __reduce__(self) -> Any:
        raise InvalidTypeError("A bundle cannot be pickled or copied; `save` it, and load it as often as you like.")

    def add_items(
        self: Self,
        item_features: Mapping[Label, Mapping[str, Any]],
        metadata: Mapping[Label, Mapping[str, Any]] | None = None,
    ) -> Self:
        """Let new items join: they are found, and tell of users who have them, as after the model's own `add_items`.

        Requests see the items before the change or after it, and never wait. An item that joined is scanned exactly,
        whatever the `kind` of the index, so that thousands of them take their time: export anew by then.

        Parameters
        ----------
        item_features : dict of label to dict
            Features of each item: field to value; what is not there is unknown.
        metadata : dict of label to dict, default=None
            What `where` filters them by; what is not there is missing. Lists are labels, dates may be ISO text.

        Returns
        -------
        Bundle
            Itself.

        Raises
        ------
        InvalidInputError
            If an item is there already, or an argument is not what is described here; nothing is added then.

        Warns
        -----
        DataWarning
            If the labels are of another type than those there: text, say, where these are numbers.

        Examples
        --------
        >>> import pandas as pd, tempfile
        >>> from recsys import ContentEASE
        >>> from recsys.retrieval import load_bundle
        >>> X = pd.DataFrame({"user_id": [1, 1, 2, 2] * 2, "item_id": ["tea", "chai", "rum", "gin"] * 2})
        >>> kinds = pd.DataFrame({"kind": ["soft", "soft", "hard", "hard"]}, index=["tea", "chai", "rum", "gin"])
        >>> folder = tempfile.TemporaryDirectory()
        >>> ContentEASE(l2=1.0, random_state=0).fit(X, item_features=kinds).export(folder.name)
        >>> bundle = load_bundle(folder.name).add_items({"milk": {"kind": "soft"}, "ale": {"kind": "hard"}})
        >>> [answer.item_ids for answer in bundle.recommend([1, 2], k=1, candidates=["milk", "ale"])]
        [['milk'], ['ale']]
        >>> bundle.remove_items(["milk"])
        Bundle(ContentEASE: 5 items, 2 users)
        >>> folder.cleanup()
        """
        return self._put(item_features, metadata, may_replace=False)

    def put_items(
        self: Self,
        item_features: Mapping[Label, Mapping[str, Any]],
        metadata: Mapping[Label, Mapping[str, Any]] | None = None,
    ) -> Self:
        """Let items join, and replace those that are there: as if they were removed, and then joined.

        Only items without interactions in `fit` can be replaced: what is learned of the others is not told by features
        alone.

        Parameters
        ----------
        item_features, metadata
            As in `add_items`.

        Returns
        -------
        Bundle
            Itself.

        Raises
        ------
        InvalidInputError
            If an item has had interactions in `fit`, or an argument is not what is described here; nothing is changed
            then.
        """
        return self._put(item_features, metadata, may_replace=True)

    def remove_items(self: Self, items: Collection[Label]) -> Self:
        """Remove items: they are found no more.

        What users of `fit` have had of them still tells of these users. To requests they are unknown from then on, and
        may join again by their features.

        Parameters
        ----------
        items : collection of labels

        Returns
        -------
        Bundle
            Itself.

        Raises
        ------
        InvalidInputError
            If an item is unknown or comes twice; nothing is removed then.
        """
        with self._changing:
            living = self._living
            _, places = self._reader(living).known_items("items", items)
            if len(np.unique(places)) < len(places):
                raise InvalidInputError("`items` names an item twice; expected each once: drop the rest.")
            self._living = living.without(places)
        return self

    def save(self, path: Any) -> None:
        """Write the bundle as it is now, atomically; `load_bundle` reads it.

        It may be asked and changed meanwhile. Takes the package `safetensors`, which recsys requires.

        Parameters
        ----------
        path : path-like
            A directory that is new, empty, or holds a bundle, which is replaced.

        Raises
        ------
        PersistenceError
            If something cannot be written, or `path` holds anything else; nothing is written then.
        """
        refuse_other_kind(path, lambda held: held == CLASS)
        header = {name: self._manifest[name] for name in ("class", "recsys_version", "model")}
        # Of saves to one path that overlap, each would leave files to the others.
        with self._saving:
            write_directory(path, {**self._stored, "changed": self._living.to_state()}, header)

    def _put(self: Self, item_features: Any, metadata: Any, may_replace: bool) -> Self:
        labels = _read_labels(item_features)
        if not labels:
            return self
        table = read_records(metadata, labels, self._living.exported.segment.table)
        told = [self._encode(label, record) for label, record in item_features.items()]
        vectors, rows = self._rows_of_items(told)
        # Who asks for them first shall not wait until it is ready.
        self._graphs["users_of_joined"].make()
        with self._changing:
            living = self._living
            places = living.catalogue.encode(labels)
            there = [label for label, place in zip(labels, places, strict=True) if place >= 0]
            if there and not may_replace:
                raise InvalidInputError(
                    f"`item_features` names {len(there)} items that are in the catalogue: {examples(there)}; expected "
                    f"new ones: use `put_items` to replace items."
                )
            self._refuse_learned(living, places, labels)
            if len(there) < len(labels) and not there and (hint := living.catalogue.mismatch(labels)):
                warnings.warn(
                    f"`item_features` names none that is known, but {examples(labels)}: all join as new.{hint}",
                    DataWarning,
                    stacklevel=3,
                )
            living = living.without(places[places >= 0]) if there else living
            self._living = living.with_new(labels, told, vectors, rows, table)
        return self

    def _refuse_learned(self, living: Living, places: Codes, labels: list[Label]) -> None:
        exported = places[(places >= 0) & (places < len(living.exported.labels))]
        # The last dimension is the share of users who have an item.
        learned = exported[living.exported.segment.vectors[exported, -1] > 0]
        if len(learned):
            raise InvalidInputError(
                f"`item_features` names {len(learned)} items that users had in `fit`: "
                f"{examples(living.catalogue.decode(learned))}; expected others: what was learned of these is not told "
                f"by their features, so fit the model anew."
            )

    def _encode(self, label: Label, told: Any) -> Entries:
        encoder, where = self._encoders["item_features"], f"`item_features` of {examples([label])}"
        if encoder is not None:
            return encoder.encode(told, where)
        if not isinstance(told, Mapping):
            raise InvalidTypeError(f"{where} is of type {type(told).__name__}; expected a dict of fields and values.")
        if told:
            raise InvalidInputError(
                f"{where} has features, but the model was fitted without; expected none: pass {{}}."
            )
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)

    def _rows_of_items(self, entries: list[Entries]) -> tuple[Floats, dict[str, Floats]]:
        """Vectors of the index, and the rows of each table of items."""
        found = []
        for start in range(0, len(entries), _ITEMS):
            columns, values = padded(entries[start : start + _ITEMS])
            found.append(self._graphs["items"]({"features": columns, "features_values": values}))
        rows = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        vectors = rows.pop("vectors")
        # Nobody has them yet.
        vectors = np.column_stack([vectors, np.zeros(len(vectors), dtype=np.float32)])
        longest = _LONGER * max(self._living.exported.segment.longest, 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            fine = [lengths_of(part) <= longest for part in (vectors, *rows.values())]
        if not np.logical_and.reduce(fine).all():
            raise InvalidInputError(
                "`item_features` gives an item a vector that is a million times longer than those of all others; "
                "expected features like those of fit: look for a number of extreme size."
            )
        return vectors, rows


def _read_labels(item_features: Any) -> list[Label]:
    """The labels of items that join."""
    if not isinstance(item_features, Mapping):
        raise InvalidTypeError(
            f"`item_features` is of type {type(item_features).__name__}; expected a dict of item to its features."
        )
    labels = [label.item() if isinstance(label, np.generic) else label for label in item_features]
    for label in labels:
        if is_missing(label):
            raise InvalidInputError("`item_features` has a null id; expected a label for every item.")
        try:
            tagged(label)
        except PersistenceError as error:
            raise InvalidTypeError(f"`item_features` has an id that cannot be stored: {error}") from error
    return labels

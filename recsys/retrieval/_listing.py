"""What a bundle knows of users and items: their fields, and who and what there is."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np

from recsys.exceptions import InvalidInputError, InvalidTypeError
from recsys.retrieval._answering import AnsweringBundle
from recsys.retrieval._requests import Label
from recsys.retrieval._told import fields_of, records_of

__all__ = ["ListingBundle"]

Schema = dict[str, dict[str, Any]]


class ListingBundle(AnsweringBundle):
    """The part of a `Bundle` that tells what it has."""

    @cached_property
    def user_fields(self) -> Schema:
        """The fields of users: name to ``kind`` and, by kind, what a form needs.

        Numeric fields and dates have ``low`` and ``high``, as in `fit`; categorical and multi-hot ones the ``values``
        that are most frequent, 200 at the most; vectors a ``width``; text has nothing more.
        """
        return self._schema("user_features")

    @cached_property
    def item_fields(self) -> Schema:
        """The fields of items, as `add_items` takes them; see `user_fields`."""
        return self._schema("item_features")

    @cached_property
    def context_fields(self) -> Schema:
        """The columns of context; see `user_fields`."""
        return self._schema("context")

    @property
    def metadata_fields(self) -> Schema:
        """What `where` filters by; see `user_fields`. Items that joined since count too."""
        living = self._living
        return fields_of(living.snapshot.table_of(living.catalogue.places))

    def _schema(self, name: str) -> Schema:
        encoder = self._encoders[name]
        return {} if encoder is None else encoder.fields()

    def describe(self, items: Collection[Label]) -> list[dict[str, Any]]:
        """The metadata of items.

        Parameters
        ----------
        items : collection of labels

        Returns
        -------
        list of dict
            One an item: field to value. What is missing is None, dates are ISO text; of a field that has several labels
            for any item that is there, all have lists.

        Raises
        ------
        InvalidInputError
            If an item is unknown.

        Examples
        --------
        >>> import pandas as pd, tempfile
        >>> from recsys import Popularity
        >>> from recsys.retrieval import load_bundle
        >>> X = pd.DataFrame({"user_id": [1, 2], "item_id": ["tea", "ale"]})
        >>> about = pd.DataFrame({"price": [2, 3.5], "tags": [["hot"], ["cold", "hop"]]}, index=["tea", "ale"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Popularity().fit(X).export(folder, metadata=about)
        ...     bundle = load_bundle(folder)
        >>> bundle.describe(["tea"])
        [{'price': 2, 'tags': ['hot']}]
        >>> bundle.metadata_fields["price"]
        {'kind': 'numeric', 'low': 2.0, 'high': 3.5}
        """
        living = self._living
        _, places = self._reader(living).known_items("items", items)
        return records_of(living.snapshot.table_of(places), living.lists)

    def items(self, limit: int = 100, offset: int = 0) -> list[dict[str, Any]]:
        """The items that there are, in the order in which they joined.

        Parameters
        ----------
        limit : int, default=100
        offset : int, default=0
            How many are passed over.

        Returns
        -------
        list of dict
            ``item_id`` and ``metadata``, as in `describe`.
        """
        part, living = _page(limit, offset), self._living
        places = living.catalogue.places[part]
        labels, metadata = living.catalogue.decode(places), records_of(living.snapshot.table_of(places), living.lists)
        return [{"item_id": item, "metadata": told} for item, told in zip(labels, metadata, strict=True)]

    def users(self, limit: int = 100, offset: int = 0) -> list[dict[str, Any]]:
        """The users of `fit`; none where they were left out.

        Parameters
        ----------
        limit : int, default=100
        offset : int, default=0
            How many are passed over.

        Returns
        -------
        list of dict
            ``user_id``, ``features`` as far as they can be told from what is stored, and ``n_items``, how many they
            have seen.
        """
        part, found = _page(limit, offset), []
        encoder = self._encoders["user_features"]
        for code in range(*part.indices(self.n_users)):
            assert self._users is not None
            told = {} if encoder is None else encoder.decode(*self._known_features.row(code))
            [user], n_items = self._users.decode(np.array([code])), len(self._histories.row(code)[0])
            found.append({"user_id": user, "features": told, "n_items": n_items})
        return found


def _page(limit: Any, offset: Any) -> slice:
    for name, value in (("limit", limit), ("offset", offset)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise InvalidTypeError(f"`{name}` is {value!r}; expected a whole number.")
        if value < 0:
            raise InvalidInputError(f"`{name}` is {value}; expected 0 or more.")
    return slice(int(offset), int(offset) + int(limit))

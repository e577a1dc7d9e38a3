"""What the fetchers and generators return."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from sklearn.utils import Bunch

__all__ = ["DatasetBunch"]


class DatasetBunch(Bunch):
    """A scikit-learn Bunch whose `items` is its frame of items.

    A Bunch is a dict, and a dict's own `items` would hide the key of that name from attribute access.

    Attributes
    ----------
    interactions, users, items : pandas.DataFrame
        Who rated what and when, and what is known of users and items.
    DESCR : str
        Where the data comes from and what its columns are.
    name : str
        Short name of the data set.

    Examples
    --------
    >>> data = DatasetBunch(items=pd.DataFrame({"item_id": [7]}), name="tiny")
    >>> data.items["item_id"].tolist(), data["items"] is data.items, sorted(data)
    ([7], True, ['items', 'name'])
    """

    interactions: pd.DataFrame
    users: pd.DataFrame
    DESCR: str
    name: str

    @property
    def items(self) -> pd.DataFrame:
        """The frame of items."""
        frame: pd.DataFrame = self["items"]
        return frame

    def __reduce__(self) -> tuple[type[DatasetBunch], tuple[()], None, None, Iterator[tuple[str, Any]]]:
        # Copying and pickling a dict call its method `items`, which is a frame here.
        return type(self), (), None, None, iter(dict.items(self))

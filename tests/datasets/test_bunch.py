"""A bunch whose `items` is data, not a method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from sklearn.utils import Bunch

from recsys.datasets._bunch import DatasetBunch


@pytest.fixture
def bunch() -> DatasetBunch:
    return DatasetBunch(items=pd.DataFrame({"item_id": [1, 2]}), name="tiny", DESCR="two items")


def test_items_is_the_frame(bunch: DatasetBunch) -> None:
    assert isinstance(bunch, Bunch)
    assert bunch.items is bunch["items"]
    bunch.items = pd.DataFrame({"item_id": [3]})
    assert bunch["items"]["item_id"].tolist() == [3]
    assert bunch.name == "tiny"
    assert set(bunch) == {"items", "name", "DESCR"}


# Pickling, to another process say, takes the same road as copying.
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda bunch: type(bunch)(**bunch)])
def test_it_can_be_copied(clone: Callable[[Any], Any], bunch: DatasetBunch) -> None:
    other = clone(bunch)
    assert type(other) is DatasetBunch
    pd.testing.assert_frame_equal(other.items, bunch.items)
    assert (other.name, other.DESCR) == ("tiny", "two items")

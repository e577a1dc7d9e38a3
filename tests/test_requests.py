"""Arguments of a request: what they turn into, and what is refused or warned of."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recsys import EASE, Popularity
from recsys._requests import allowed_items, excluded_items, read_context, read_k, read_request_history
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError
from recsys.features import FeatureEncoder
from recsys.vocabulary import Vocabulary

ITEMS = Vocabulary(["tea", "milk", "salt"])
NAMES = ("user_id", "item_id")

# Asked for: bob twice, and a user of whom nothing came in.
USERS = pd.Index(["bob", "ann", "bob", "eve"])


@pytest.mark.parametrize("k", [1, 10, np.int64(3), np.uint8(3)])
def test_k_is_a_whole_number(k: Any) -> None:
    assert read_k(k) == k
    assert type(read_k(k)) is int


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, InvalidInputError, "`k` is 0; expected at least 1: ask for one item or more"),
        (-3, InvalidInputError, "`k` is -3; expected at least 1"),
        (2.0, InvalidTypeError, "`k` is 2.0; expected a whole number of items, at least 1"),
        (True, InvalidTypeError, "`k` is True; expected a whole number"),
        ("10", InvalidTypeError, "`k` is '10'; expected a whole number"),
        (None, InvalidTypeError, "`k` is None; expected a whole number"),
    ],
)
def test_other_k_are_refused(k: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_k(k)


# Context.


@pytest.fixture
def encoder() -> FeatureEncoder:
    context = pd.DataFrame({"device": ["tv", "phone"], "hour": [0.0, 10.0]})
    return FeatureEncoder.fit(context, {"device": "categorical", "hour": "numeric"}, "|")


def test_context_is_encoded_row_by_row_or_once_for_all(encoder: FeatureEncoder) -> None:
    frame = pd.DataFrame({"hour": [5, None], "device": ["phone", "watch"]}, index=[7, 7])
    encoded = read_context(frame, 2, encoder)
    assert encoded is not None
    assert encoded.matrix.toarray().tolist() == [[0, 1, 0.5, 0.5], [0, 0, 0, 0]]
    same = read_context({"hour": 10, "device": "tv"}, 3, encoder)
    assert same is not None
    assert same.matrix.toarray().tolist() == [[1, 0, 0, 1]] * 3
    nobody = read_context({"hour": 10, "device": "tv"}, 0, encoder)
    assert nobody is not None
    assert nobody.matrix.shape == (0, 4)
    unknown = read_context(None, 2, encoder)
    assert unknown is not None
    assert unknown.present.tolist() == [[False, False]] * 2
    assert read_context(None, 2, None) is None


def test_a_context_may_hold_lists() -> None:
    frame = pd.DataFrame({"shelf": [["a", "b"], ["b"]]})
    encoder = FeatureEncoder.fit(frame, {"shelf": "multi_hot"}, "|")
    encoded = read_context({"shelf": ["b", "c"]}, 2, encoder)
    assert encoded is not None
    assert encoded.matrix.toarray().tolist() == [[0, 1]] * 2


def test_bad_context_is_refused(encoder: FeatureEncoder) -> None:
    with pytest.raises(
        InvalidInputError, match="`context` was given, but `X` had no context columns in fit; expected None"
    ):
        read_context({"hour": 1}, 2, None)
    with pytest.raises(
        InvalidTypeError, match="`context` is of type list; expected a DataFrame of one row a user, or a dict"
    ):
        read_context([1, 2], 2, encoder)
    with pytest.raises(InvalidInputError, match="`context` has 1 rows for 2 users; expected one row a user"):
        read_context(pd.DataFrame({"hour": [1], "device": ["tv"]}), 2, encoder)
    with pytest.raises(
        InvalidInputError, match="`context` lacks 'device'; expected the feature columns of fit: device, hour"
    ):
        read_context({"hour": 1}, 2, encoder)
    with pytest.raises(InvalidInputError, match="Column 'hour' of `context` holds infinite values"):
        read_context({"hour": np.inf, "device": "tv"}, 2, encoder)


# Interactions since fit.


def test_interactions_become_a_row_for_each_user_asked_for() -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["bob", "ann", "bob", "bob", "stranger"],
            "item_id": ["tea", "salt", "milk", "tea", "tea"],
            "rating": [5, 1, 4, 2, 5],
        }
    )
    history = read_request_history(frame, USERS, ITEMS, NAMES, None)
    assert history.toarray().tolist() == [[7, 4, 0], [0, 0, 1], [7, 4, 0], [0, 0, 0]]
    strict = read_request_history(frame, USERS, ITEMS, NAMES, 3)
    assert strict.toarray().tolist() == [[5, 4, 0], [0, 0, 0], [5, 4, 0], [0, 0, 0]]
    # What was only seen stays as a zero.
    assert strict.nnz == history.nnz == 5
    plain = read_request_history(frame[["user_id", "item_id"]], USERS, ITEMS, NAMES, 3)
    assert plain.toarray().tolist() == [[2, 1, 0], [0, 0, 1], [2, 1, 0], [0, 0, 0]]


def test_columns_of_interactions_are_found_by_name_or_by_position() -> None:
    expected = [[1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    named = pd.DataFrame({"item_id": ["tea"], "time": [3], "user_id": ["bob"]})
    assert read_request_history(named, USERS, ITEMS, NAMES, None).toarray().tolist() == expected
    unnamed = pd.DataFrame({"who": ["bob"], "what": ["tea"], "time": [3]})
    assert read_request_history(unnamed, USERS, ITEMS, NAMES, None).toarray().tolist() == expected


def test_no_interactions_are_an_empty_history() -> None:
    nothing = pd.DataFrame({"user_id": [], "item_id": []})
    assert read_request_history(nothing, USERS, ITEMS, NAMES, None).toarray().tolist() == [[0, 0, 0]] * 4


def test_items_that_are_not_in_the_catalogue_are_warned_of_where_the_user_called() -> None:
    X = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 11, 10]})
    model = EASE(l2=1.0).fit(X)
    fresh = pd.DataFrame({"user_id": [9, 9], "item_id": [10, 99]})
    message = (
        "`interactions` names 1 items that are not in the catalogue: 99; they say nothing .* Add them with `add_items`"
    )
    with pytest.warns(DataWarning, match=message) as caught:
        answer = model.recommend([9], interactions=fresh)
    assert [str(warning.filename) for warning in caught] == [__file__]
    assert answer["item_id"].tolist() == [11]
    assert answer["path"].tolist() == ["few-shot"]


@pytest.mark.parametrize(
    ("interactions", "error", "message"),
    [
        ([("bob", "tea")], InvalidTypeError, "`interactions` is of type list; expected a DataFrame of users and items"),
        (pd.DataFrame({"user_id": ["bob"]}), InvalidInputError, r"`interactions` has 1 feature\(s\)"),
        (
            pd.DataFrame({"user_id": ["eva"], "item_id": ["tea"]}),
            InvalidInputError,
            "`interactions` has no row of any user asked for .its users: 'eva'; asked: 'bob', 'ann', 'bob', ....",
        ),
        (
            pd.DataFrame({"user_id": [1], "item_id": ["tea"]}),
            InvalidInputError,
            "They are numbers .1., but the known ones are text .'bob'.: to mean those, convert one to the other's type",
        ),
        (
            pd.DataFrame({"user_id": ["bob", None], "item_id": ["tea", "tea"]}),
            InvalidInputError,
            r"`interactions\['user_id'\]` has 1 null ids",
        ),
        (
            pd.DataFrame({"user_id": ["bob"], "item_id": ["tea"], "rating": [np.nan]}),
            InvalidInputError,
            r"`interactions\['rating'\]` must hold one finite number a row: .* contains NaN",
        ),
        (
            pd.DataFrame({"user_id": ["bob"], "item_id": ["tea"], "Rating": [1.0]}),
            InvalidInputError,
            "`interactions` has the column 'Rating', which is a target; expected a target in the column 'rating' alone",
        ),
    ],
)
def test_bad_interactions_are_refused(interactions: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_request_history(interactions, USERS, ITEMS, NAMES, None)


# Candidates and exclusions.


def test_lists_of_items_are_masks() -> None:
    assert allowed_items(None, ITEMS, USERS) == (None, None)
    assert excluded_items(None, ITEMS, USERS) == (None, None)
    for read in (allowed_items, excluded_items):
        for labels in (["salt", "tea", "salt"], pd.Series(["salt", "tea"]), np.array(["tea", "salt"]), {"tea", "salt"}):
            mask, pairs = read(labels, ITEMS, USERS)
            assert pairs is None
            assert mask is not None
            assert mask.tolist() == [True, False, True]
        mask, _ = read([], ITEMS, USERS)
        assert mask is not None
        assert mask.tolist() == [False] * 3


@pytest.mark.parametrize("read", [allowed_items, excluded_items])
def test_frames_are_pairs(read: Any) -> None:
    frame = pd.DataFrame({"user_id": ["bob", "bob", "eve", "zoe"], "item_id": ["tea", "salt", "milk", "tea"]})
    expected = [[1, 0, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]]
    for given in (
        frame,
        frame[["item_id", "user_id"]],
        frame.set_axis(["who", "what"], axis=1),
        frame.assign(score=1.0),
    ):
        mask, pairs = read(given, ITEMS, USERS)
        assert mask is None
        assert pairs.toarray().tolist() == expected
    swapped = frame.set_axis(["who", "what"], axis=1)[["what", "who"]]
    _, pairs = read(swapped, ITEMS, USERS, ("who", "what"))
    assert pairs.toarray().tolist() == expected
    _, pairs = read(frame.head(0), ITEMS, USERS)
    assert pairs.toarray().tolist() == [[0, 0, 0]] * 4


@pytest.mark.parametrize("columns", [["item_id", "who"], ["when", "user_id"], ["what", "user_id"]])
def test_a_name_of_fit_in_another_place_is_refused(columns: list[str]) -> None:
    frame = pd.DataFrame([USERS[:1].tolist() * 2], columns=columns)
    frame["further"] = 1
    with pytest.raises(
        InvalidInputError, match="is not in the place that it had in fit; expected 'user_id', 'item_id', or"
    ):
        excluded_items(frame, ITEMS, USERS)


def test_unknown_candidates_are_warned_of_where_the_user_called() -> None:
    model = Popularity().fit(pd.DataFrame({"user_id": [1, 2], "item_id": [10, 11]}))
    with pytest.warns(
        DataWarning, match="`candidates` names 2 items that are not in the catalogue: 98, 99; they can"
    ) as caught:
        answer = model.recommend([3], candidates=[10, 98, 99, 98])
    assert [str(warning.filename) for warning in caught] == [__file__]
    assert answer["item_id"].tolist() == [10]
    # Of users who are not asked for nothing is said.
    pairs = pd.DataFrame({"user_id": [3, 3, 4], "item_id": [10, 98, 99]})
    with pytest.warns(
        DataWarning, match="`candidates` names 1 items that are not in the catalogue: 98; they"
    ) as caught:
        answer = model.recommend([3], candidates=pairs)
    assert [str(warning.filename) for warning in caught] == [__file__]
    assert answer["item_id"].tolist() == [10]


def test_unknown_exclusions_are_no_mistake() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for labels, expected in ((["tea", "beer"], [True, False, False]), (["beer"], [False] * 3)):
            mask, _ = excluded_items(labels, ITEMS, USERS)
            assert mask is not None
            assert mask.tolist() == expected


@pytest.mark.parametrize(
    ("read", "given", "error", "message"),
    [
        (
            allowed_items,
            ["beer", "wine"],
            InvalidInputError,
            "`candidates` names no item of the catalogue, but 'beer', 'wine'; expected its items",
        ),
        (allowed_items, "tea", InvalidTypeError, r"`candidates` is the single value 'tea'; .* pass \['tea'\]"),
        (allowed_items, ["tea", None], InvalidInputError, "`candidates` has 1 null ids"),
        (
            excluded_items,
            [1, 2],
            InvalidInputError,
            "`exclude` names no item of the catalogue, but 1, 2; expected its items. They are numbers .1., but",
        ),
        (
            excluded_items,
            pd.DataFrame({"user_id": [1], "item_id": ["tea"]}),
            InvalidInputError,
            "`exclude` names no user asked for, but 1; expected such. They are numbers .1., but the known",
        ),
        (
            allowed_items,
            pd.DataFrame({"user_id": ["bob"], "item_id": [7]}),
            InvalidInputError,
            "`candidates` names no item, but 7; expected such. They are numbers .7., but the known ones are text",
        ),
        (allowed_items, pd.DataFrame({"item_id": ["tea"]}), InvalidInputError, r"`candidates` has 1 feature\(s\)"),
    ],
)
def test_bad_lists_of_items_are_refused(read: Any, given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(given, ITEMS, USERS)

"""Rows of `X` and `y`: what is read, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import DataConversionWarning

from recsys import EASE, Popularity
from recsys._sparse import to_csr
from recsys.exceptions import InvalidInputError, InvalidTypeError
from recsys.features import EncodedFeatures
from recsys.interactions import PATHS, Pairs, UserBatch, as_frame, read_pairs, read_target


def test_columns_are_read_by_position() -> None:
    X = pd.DataFrame(
        {"who": ["ann", "bob"], "what": [7, 8], "device": ["tv", None], "hour": [1.0, np.nan]}, index=[5, 5]
    )
    pairs = read_pairs(X)
    assert len(pairs) == 2
    assert pairs.users.tolist() == ["ann", "bob"]
    assert pairs.items.tolist() == [7, 8]
    assert pairs.items.dtype == np.int64
    assert list(pairs.context) == ["device", "hour"]
    assert pairs.context["device"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame(), r"`X` has 0 feature\(s\), the columns \[\]; expected two or more: users in column 0"),
        (pd.DataFrame({"user_id": [1]}), r"`X` has 1 feature\(s\), the columns \['user_id'\]; expected two or more"),
        (pd.DataFrame({"user_id": [], "item_id": []}), r"`X` is empty: 0 sample\(s\) while a minimum of 1 is required"),
        (
            pd.DataFrame({"user_id": [1], "item_id": [2], "rating": [3]}),
            "`X` has the column 'rating', which is a target; expected users, items and context alone: pass it as `y`",
        ),
        (
            pd.DataFrame({"item_id": [1], "user_id": [2]}),
            r"`X` has 'item_id' in column 0, and 'user_id' elsewhere; expected users in column 0: pass X\[\['user",
        ),
        (
            pd.DataFrame({"user_id": [1], "timestamp": [9], "item_id": [2]}),
            "`X` has 'timestamp' in column 1, and 'item_id' elsewhere; expected items in column 1",
        ),
        (
            pd.DataFrame({"timestamp": [9], "user_id": [1], "item_id": [2]}),
            "`X` has 'timestamp' in column 0, and 'user_id' elsewhere; expected users in column 0",
        ),
        (pd.DataFrame({"user_id": [1], "item_id": [2], "Label": [3]}), "`X` has the column 'Label', which is a target"),
        (
            pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", "item_id"]),
            "`X` has more than one column named 'item_id'",
        ),
        (
            pd.DataFrame({"user_id": [1.0, np.nan], "item_id": [2, 3]}),
            r"`X\['user_id'\]` has 1 null ids \(at positions 1\)",
        ),
        (
            pd.DataFrame({"user_id": ["a"] * 5, "item_id": [None, "x", None, None, None]}),
            r"`X\['item_id'\]` has 4 null ids \(at positions 0, 2, 3, ...\); expected a label in every row: drop",
        ),
        (pd.DataFrame([[1.0, np.inf]]), r"`X\[1\]` holds infinity \(inf\) as an id; expected a label in every row"),
        (
            pd.DataFrame({"user_id": [1], "item_id": [2], "hour": [np.inf]}),
            "`X` holds infinite values in column 'hour'; expected finite numbers, or None where unknown",
        ),
        (
            pd.DataFrame({"user_id": [1], "item_id": [2], "hour": pd.Series([-np.inf], dtype="Float64")}),
            "`X` holds infinite values in column 'hour'",
        ),
        (
            pd.DataFrame({"user_id": [1j], "item_id": [2]}),
            "Complex data not supported: `X.'user_id'.` holds complex numbers",
        ),
    ],
)
def test_bad_rows_are_refused(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_pairs(frame)
    with pytest.raises(InvalidInputError, match=message):
        Popularity().fit(frame)


def test_ids_that_cannot_be_hashed_are_refused() -> None:
    frame = pd.DataFrame({"user_id": [[1], [2]], "item_id": [1, 2]})
    with pytest.raises(InvalidTypeError, match=r"string or number. `X\['user_id'\]` holds ids that cannot be hashed"):
        Popularity().fit(frame)


def test_an_error_names_the_argument() -> None:
    with pytest.raises(InvalidInputError, match="`interactions` is empty"):
        read_pairs(pd.DataFrame({"user_id": [], "item_id": []}), "interactions")


def test_a_frame_is_taken_as_it_is() -> None:
    frame = pd.DataFrame({"user_id": [1], "item_id": [2]})
    assert as_frame(frame) is frame


@pytest.mark.parametrize(
    ("array", "dtypes"),
    [
        (np.array([[1, 2], [3, 4]]), ["int64", "int64"]),
        (np.array([[1.5, 2.0], [3.0, 4.0]]), ["float64", "float64"]),
        (np.array([["a", 2], ["b", 4]], dtype=object), [pd.Series(["a"]).dtype, "int64"]),
        ([["a", 2], ["b", 4]], [pd.Series(["a"]).dtype, "int64"]),
        ((("a", 2.5), ("b", 4)), [pd.Series(["a"]).dtype, "float64"]),
        ([[1, 2], [3, 4]], ["int64", "int64"]),
    ],
)
def test_arrays_and_lists_keep_numbers_and_text_apart(array: Any, dtypes: list[Any]) -> None:
    frame = as_frame(array)
    assert frame.dtypes.tolist() == dtypes
    assert frame.to_numpy().tolist() == np.array(array, dtype=object).tolist()


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        ([1, 2, 3], InvalidInputError, "`X` is no table of users and items: Expected 2D array, got 1D array instead"),
        (np.zeros((2, 2, 2)), InvalidInputError, "`X` is no table of users and items: Found array with dim 3"),
        (np.zeros((0, 2)), InvalidInputError, r"`X` is no table of users and items: Found array with 0 sample\(s\)"),
        (np.array([[1.0, np.nan]]), InvalidInputError, "`X` is no table of users and items: Input X contains NaN"),
        (np.array([[1.0, np.inf]]), InvalidInputError, "`X` is no table of users and items: Input X contains infinity"),
        (
            to_csr(np.array([0]), np.array([1]), np.ones(1, np.float32), (1, 2)),
            InvalidTypeError,
            "`X` is no table of users and items: Sparse data was",
        ),
    ],
)
def test_what_is_no_table_is_refused(array: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_frame(array)


# Targets.


@pytest.mark.parametrize(
    ("y", "min_rating", "expected"),
    [
        (None, None, [1, 1, 1, 1]),
        (None, 4, [1, 1, 1, 1]),
        ([5, 0, -1, 0.5], None, [5, 0, 0, 0.5]),
        ([5, 3, 4, 0], 4, [5, 0, 4, 0]),
        ([5, 3, -4, 0], -10, [5, 3, 0, 0]),
        ([True, False, True, False], None, [1, 0, 1, 0]),
        (pd.Series([5, 3, 4, 0], dtype="Int64"), 4, [5, 0, 4, 0]),
        (pd.Series([5, 3, 4, 0], index=[9, 9, 9, 9]), None, [5, 3, 4, 0]),
        (np.array([5, 3, 4, 0], dtype=np.float16), None, [5, 3, 4, 0]),
    ],
)
def test_targets_are_weights(y: Any, min_rating: float | None, expected: list[float]) -> None:
    weights = read_target(y, 4, min_rating)
    assert weights.dtype == np.float32
    assert weights.tolist() == expected


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            [1, 2, 3],
            "`y` has 3 values for the 4 rows of `X`; found input variables with inconsistent numbers of samples",
        ),
        ([1, np.nan, 3, 4], "`y` must hold one finite number a row: Input y contains NaN"),
        ([1, 1e300, 3, 4], "`y` must hold one finite number a row: Input y contains infinity"),
        ([1, 10**400, 3, 4], "`y` must hold one finite number a row: int too large to convert to float"),
        ([1, np.inf, 3, 4], "`y` must hold one finite number a row: Input y contains infinity"),
        (pd.Series([1, None, 3, 4], dtype="Int64"), "`y` must hold one finite number a row: "),
        (["good", "bad", "good", "bad"], "`y` must hold one finite number a row: could not convert string to float"),
        (np.ones((4, 2)), "`y` must hold one finite number a row: y should be a 1d array"),
        ("rating", "`y` must hold one finite number a row: y should be a 1d array"),
        (5, "`y` must hold one finite number a row: y should be a 1d array"),
    ],
)
def test_bad_targets_are_refused(y: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_target(y, 4)


def test_a_column_vector_is_a_target_with_a_warning() -> None:
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        assert read_target(np.array([[1], [2]]), 2).tolist() == [1, 2]


# What passes between modules.


def test_a_batch_is_cut_by_slices_masks_and_positions() -> None:
    history = to_csr(np.array([0, 2]), np.array([1, 0]), np.array([2, 3], np.float32), (3, 2))
    features = EncodedFeatures.empty(3)
    batch = UserBatch(
        np.array([4, -1, 0]), np.array([True, False, True]), history, features, np.array([0, 3, 0], np.int8), features
    )
    assert len(batch) == 3
    for rows in (slice(1, 3), np.array([1, 2]), np.array([False, True, True])):
        part = batch.take(rows)
        assert len(part) == len(part.features) == 2
        assert part.codes.tolist() == [-1, 0]
        assert part.trained.tolist() == [False, True]
        assert part.history.toarray().tolist() == [[0, 0], [3, 0]]
        assert [PATHS[path] for path in part.path] == ["cold", "hot"]
        assert part.context is not None
        assert len(part.context) == 2


def test_a_batch_without_context_stays_so() -> None:
    nobody = np.zeros(0, dtype=np.int64)
    matrix = to_csr(nobody, nobody, np.zeros(0, np.float32), (0, 2))
    batch = UserBatch(nobody, nobody.astype(bool), matrix, EncodedFeatures.empty(0), nobody.astype(np.int8))
    assert batch.take(slice(0, 5)).context is None


@pytest.mark.parametrize(
    ("users", "dtype"),
    [
        (pd.Series([30, 10, 30], dtype="int32"), "int32"),
        (pd.Series(["b", "a", "b"], dtype=object), "object"),
        (pd.Series(["b", "a", "b"], dtype="string"), "string"),
        (pd.Series(pd.to_datetime(["2020-01-02", "2020-01-01", "2020-01-02"]).as_unit("s")), "datetime64[s]"),
        (pd.Series([3, 1, 3], dtype="Int64"), "Int64"),
    ],
)
def test_ids_come_out_of_a_model_as_they_went_in(users: pd.Series, dtype: str) -> None:
    X = pd.DataFrame({"user_id": users, "item_id": users})
    answer = EASE(l2=1.0).fit(X).recommend(users.iloc[:1], k=1, exclude_seen=False)
    assert answer["user_id"].dtype == dtype
    assert answer["item_id"].dtype == dtype
    assert answer["user_id"].tolist() == [users[0]]


def test_pairs_have_a_length() -> None:
    ids = pd.Index([1, 2])
    assert len(Pairs(ids, ids, pd.DataFrame(index=range(2)))) == 2


@pytest.mark.parametrize("bar", [0.7, 1.3, 4.1])
def test_a_rating_at_the_bar_is_a_positive_whatever_the_kind_of_number(bar: float) -> None:
    for min_rating in (bar, np.float64(bar), float(np.float32(bar))):
        assert (read_target([bar, bar - 0.1], 2, min_rating) > 0).tolist() == [True, False]


def test_dates_are_no_targets() -> None:
    with pytest.raises(InvalidInputError, match=r"`y` holds dates; expected one finite number a row"):
        read_target(pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"])), 2)


def test_names_of_columns_are_all_texts_or_none() -> None:
    with pytest.raises(InvalidTypeError, match=r"The columns of `X` are named 'user_id', 'item_id', 3; expected texts"):
        as_frame(pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", 3]))
    frame = pd.DataFrame([[1, 2, 3]])
    assert as_frame(frame) is frame

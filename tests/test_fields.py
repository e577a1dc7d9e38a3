"""Each kind of field is recognised, learned and encoded as docs/architecture.md says."""

from __future__ import annotations

import datetime
import math
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.exceptions import InvalidInputError
from recsys.features import FeatureEncoder, Field
from recsys.persistence import read_directory, write_directory


def _encode(
    column: Any, kind: str, new: Any = None, sep: str = "|"
) -> tuple[npt.NDArray[np.float64], list[bool], FeatureEncoder]:
    """Learn a field from `column` and encode `new`, or else itself: dense block, presence, encoder."""
    frame = pd.DataFrame({"x": pd.Series(column)})
    encoder = FeatureEncoder.fit(frame, {"x": kind}, sep)
    encoded = encoder.transform(frame if new is None else pd.DataFrame({"x": pd.Series(new)}), "user_features")
    assert encoded.matrix.dtype == np.float32
    assert encoded.fields == (Field("x", kind, 0, encoded.n_columns),)
    return encoded.matrix.toarray().astype(np.float64), encoded.present[:, 0].tolist(), encoder


def _refused(column: Any, kind: str, message: str, new: Any = None, sep: str = "|") -> None:
    with pytest.raises(InvalidInputError, match=message):
        _encode(column, kind, new, sep)


# Numeric.

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE, min_size=1), st.lists(FINITE))
def test_hat_functions_sum_to_one_and_interpolate(values: list[float], new: list[float]) -> None:
    block, present, encoder = _encode(values, "numeric", pd.Series(new, dtype=float))
    knots = encoder.specs[0]["knots"]
    assert set(knots) <= set(values)
    assert knots[0] == min(values)
    assert knots[-1] == max(values)
    assert len(knots) == len(set(knots)) == min(len(set(values)), len(knots)) <= 16
    assert all(present)
    assert (block >= 0).all()
    assert ((block > 0).sum(axis=1) <= 2).all()
    np.testing.assert_allclose(block.sum(axis=1), 1, rtol=1e-6)
    # The weighted mean of the knots is the value itself, cut to their range.
    scale = max(abs(knots)) or 1.0
    np.testing.assert_allclose(block @ (knots / scale), np.clip(new, knots[0], knots[-1]) / scale, atol=3e-7)


def test_numeric_by_hand() -> None:
    block, present, _ = _encode([10.0, 20.0, 40.0], "numeric", [10.0, 15.0, 25.0, 40.0, 99.0, -5.0, np.nan])
    assert block.tolist() == [
        [1.0, 0.0, 0.0],
        [0.5, 0.5, 0.0],
        [0.0, 0.75, 0.25],
        [0.0, 0.0, 1.0],
        [0.0, 0.0, 1.0],
        [1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0],
    ]
    assert present == [True] * 6 + [False]


def test_knots_are_quantiles_of_the_data() -> None:
    skewed = np.exp(np.random.default_rng(0).normal(size=1000))
    knots = _encode(skewed, "numeric")[2].specs[0]["knots"]
    assert len(knots) == 16
    counts = np.histogram(skewed, knots)[0]
    assert counts.min() >= 66
    assert counts.max() <= 67


def test_a_constant_is_one_column() -> None:
    block, present, _ = _encode([3, 3, 3], "numeric", [3, 4, None])
    assert block.tolist() == [[1.0], [1.0], [0.0]]
    assert present == [True, True, False]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, 2, None], dtype="Int64"),
        pd.Series([1, 2, None], dtype="Float32"),
        pd.Series([1, 2, None], dtype=object),
        pd.Series(["1", "2", None]),
        pd.Series([Decimal(1), Decimal(2), None]),
        pd.Series([1, 2, None], dtype="category"),
        pd.Series([False, True, None], dtype="boolean"),
        pd.Series(pd.to_timedelta([1, 2, None], unit="h")),
        pd.Series([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2), None]),
        pd.Series(["2020-01-01", "2020-01-02", None], dtype="datetime64[ns]"),
        pd.Series(["2020-01-01", "2020-01-02", None], dtype="datetime64[ns, America/New_York]"),
    ],
    ids=lambda values: str(values.dtype),
)
def test_numbers_of_every_dtype_are_numeric(values: pd.Series) -> None:
    block, present, _ = _encode(values, "numeric")
    assert block.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert present == [True, True, False]


def test_dates_count_as_seconds_in_utc_whatever_their_unit_and_zone() -> None:
    start = pd.Series(np.array(["1969-12-31T23:00", "1970-01-01T01:00", "3000-01-01"], dtype="M8[s]"))
    knots = _encode(start, "numeric")[2].specs[0]["knots"]
    assert knots.tolist() == [-3600.0, 3600.0, 32503680000.0]
    zoned = pd.Series(pd.to_datetime(["1970-01-01T01:00+01:00"]))
    tokyo: Any = "timestamp[ns, tz=Asia/Tokyo][pyarrow]"
    arrow = zoned.dt.as_unit("ns").astype(tokyo)
    for new in (arrow, zoned, zoned.dt.tz_localize(None) - pd.Timedelta(hours=1), zoned.dt.tz_convert("Asia/Tokyo")):
        assert _encode(start, "numeric", new)[0].tolist() == [[0.5, 0.5, 0.0]]


def test_numbers_are_told_from_dates() -> None:
    days = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"]))
    _refused(days, "numeric", "Column 'x' of `user_features` holds numbers; expected dates, as in fit", [1, 2])
    _refused([1, 2], "numeric", "Column 'x' of `user_features` holds dates; expected numbers, as in fit", days)
    assert _encode(days, "numeric", [np.nan, np.nan])[1] == [False, False]


@pytest.mark.parametrize("values", [[1.0, np.inf], [-np.inf, None], pd.Series([1, np.inf], dtype="Float64")])
def test_infinite_numbers_are_refused(values: Any) -> None:
    _refused(
        values, "numeric", r"Column 'x' of `X` holds infinite values \(rows [01]\); expected finite numbers, or None"
    )
    _refused([1, 2], "numeric", "Column 'x' of `user_features` holds infinite values", values)


@pytest.mark.parametrize("values", [["old", "1"], [1j, 2j], [[1], [2]], [{"a": 1}, 1]])
def test_what_is_no_number_is_refused_as_numeric(values: Any) -> None:
    _refused(
        values, "numeric", "Column 'x' of `X` is read as numeric but does not hold numbers: .* name it in `categorical`"
    )


# Categorical.


def test_categorical_by_hand() -> None:
    block, present, encoder = _encode(["red", "blue", None, "red"], "categorical", ["blue", "green", None, "red", ""])
    assert encoder.specs[0]["categories"].ids.tolist() == ["red", "blue"]
    assert block.tolist() == [[0, 1], [0, 0], [0, 0], [1, 0], [0, 0]]
    assert present == [True, False, False, True, False]


@pytest.mark.parametrize(
    "values",
    [
        [True, False, None],
        pd.Series([True, False, None], dtype="boolean"),
        pd.Series([1, 2, None], dtype="Int64"),
        pd.Series([1, 2, None], dtype="category"),
        pd.Series(["a", "b", None], dtype="category"),
        pd.Series(["a", "b", None], dtype="string"),
        pd.Series(pd.cut([1, 5, np.nan], [0, 3, 6])),
        pd.Series(pd.PeriodIndex(["2020-01", "2020-02", None], freq="M")),
        [("a", 1), ("b", 2), None],
        [1, "a", None],
    ],
    ids=lambda values: str(getattr(values, "dtype", values)),
)
def test_categories_of_every_dtype(values: Any, tmp_path: Path) -> None:
    column = pd.Series(values)
    block, present, encoder = _encode(column, "categorical")
    assert block.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert present == [True, True, False]
    # As objects, and one by one, as requests bring them; and after a round trip through a file.
    write_directory(tmp_path / "saved", {"encoder": encoder}, {})
    restored = read_directory(tmp_path / "saved")[0]["encoder"]
    for i, value in enumerate(column):
        one = pd.DataFrame({"x": pd.Series([value], dtype=object)})
        assert restored.transform(one, "X").matrix.toarray().tolist() == [block[i].tolist()]


def test_categories_of_another_type_are_refused() -> None:
    message = (
        r"Column 'x' of `user_features` holds none of the categories of fit. They are numbers \(94043\), but the known"
    )
    _refused(["94043", "10001"], "categorical", message, [94043, 10001])
    _refused([1, 2], "multi_hot", "holds none of the categories of fit. They are text", [["1"], ["2", "3"]])
    assert _encode(["a", "b"], "categorical", ["c"])[1] == [False]


def test_categories_that_cannot_be_hashed_are_refused() -> None:
    message = "Column 'x' of `X` holds labels that cannot be used: unhashable type: 'dict'; .* name it in `ignore`"
    _refused([{"a": 1}, {"b": 2}], "categorical", message)
    _refused([[{"a": 1}], [{"b": 2}]], "multi_hot", message)


def test_large_fields_keep_the_categories_that_entities_share() -> None:
    few = [f"c{i}" for i in range(100)]
    assert _encode(few, "categorical")[0].shape == (100, 100)
    many = [*few, "once", "c0", "c1"]
    _, present, encoder = _encode(many, "categorical")
    assert encoder.specs[0]["categories"].ids.tolist() == ["c0", "c1"]
    assert np.flatnonzero(present).tolist() == [0, 1, 101, 102]
    assert _encode([few, ["once", "c1"]], "multi_hot")[0].shape == (2, 1)


def test_a_million_categories_take_seconds() -> None:
    n = 1_000_000
    labels = pd.DataFrame({"x": np.random.default_rng(0).permutation(np.repeat(np.arange(n // 2), 2))})
    start = time.process_time()
    encoded = FeatureEncoder.fit(labels, {"x": "categorical"}, "|").transform(labels, "X")
    assert time.process_time() - start < 5
    assert encoded.matrix.shape == (n, n // 2)
    assert encoded.matrix.nnz == n
    assert (np.bincount(encoded.matrix.indices) == 2).all()


# Multi-hot.


def test_multi_hot_by_hand() -> None:
    values = [["a", "b"], ("b",), {"c"}, np.array(["a", "c"]), [], None, ["a", None, "a"], "b|c", "a"]
    block, present, encoder = _encode(pd.Series(values, dtype=object), "multi_hot")
    half = np.float32(1 / math.sqrt(2))
    columns = encoder.specs[0]["categories"].encode(["a", "b", "c"])
    assert block[:, columns].tolist() == [
        [half, half, 0],
        [0, 1, 0],
        [0, 0, 1],
        [half, 0, half],
        [0, 0, 0],
        [0, 0, 0],
        [1, 0, 0],
        [0, half, half],
        [1, 0, 0],
    ]
    assert present == [True] * 4 + [False] * 2 + [True] * 3


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(0, 5)), st.sets(st.integers(0, 5)))))
def test_each_member_weighs_one_over_the_root_of_their_number(rows: list[Any]) -> None:
    block, present, encoder = _encode(pd.Series(rows, dtype=object), "multi_hot")
    labels = encoder.specs[0]["categories"].ids.tolist()
    assert sorted(labels) == sorted({member for row in rows if row for member in row})
    for row, encoded, is_present in zip(rows, block, present, strict=True):
        members = set(row or ())
        expected = [1 / math.sqrt(len(members)) if label in members else 0.0 for label in labels]
        assert encoded == pytest.approx(expected, rel=1e-6)
        assert is_present == bool(members)


@pytest.mark.parametrize(
    ("sep", "values"),
    [
        ("|", ["a | b", "||b|", "", None, " a"]),
        ("||", ["a||b", "b", "", None, "a"]),
        (".", ["a.b", "b", "", None, "a"]),
        (", ", ["a, b", "b", " ", None, "a"]),
        ("", ["a", "b", "", None, "a"]),
    ],
)
def test_text_is_split_at_the_separator(sep: str, values: list[str | None]) -> None:
    block, present, encoder = _encode(values, "multi_hot", sep=sep)
    assert encoder.specs[0]["categories"].ids.tolist() == ["a", "b"]
    both = [1.0, 0.0] if sep == "" else [np.float32(1 / math.sqrt(2))] * 2
    assert block.tolist() == [both, [0, 1], [0, 0], [0, 0], [1, 0]]
    assert present == [True, True, False, False, True]


def test_unseen_members_do_not_count() -> None:
    block, present, _ = _encode([["a", "b"]], "multi_hot", [["a", "z"], ["z"], ["a", "b", "z"]])
    half = np.float32(1 / math.sqrt(2))
    assert block.tolist() == [[1, 0], [0, 0], [half, half]]
    assert present == [True, False, True]


def test_the_order_of_a_set_does_not_matter() -> None:
    one_way, other_way = {8, 0}, {0, 8}
    one_way.add(16)
    orders = [_encode([{*order}], "multi_hot")[2].specs[0]["categories"].ids.tolist() for order in (one_way, other_way)]
    assert orders == [[0, 16, 8], [0, 8]]


# Text.

TITLES = [
    "Toy Story",
    "Grumpier Old Men, the story",
    "Waiting to Exhale: waiting, waiting!",
    "Ein Käfer auf Extratour",
    "Old MEN",
]


def test_text_is_the_tf_idf_of_scikit_learn() -> None:
    block, present, encoder = _encode(TITLES, "text")
    reference = TfidfVectorizer(binary=True).fit(TITLES)
    terms = encoder.specs[0]["terms"]
    assert sorted(terms) == sorted(reference.get_feature_names_out())
    expected = reference.transform(TITLES).toarray()[:, [reference.vocabulary_[term] for term in terms]]
    np.testing.assert_allclose(block, expected, rtol=1e-6)
    np.testing.assert_allclose((block**2).sum(axis=1), 1, rtol=1e-6)
    assert present == [True] * 5


def test_text_of_unseen_words_is_an_empty_row() -> None:
    block, present, _ = _encode(TITLES, "text", ["Heat", "", None, "Heat and Men", "a"])
    assert present == [False, False, False, True, False]
    assert np.count_nonzero(block) == 1
    assert block.max() == 1


def test_text_of_one_letter_words_has_no_columns() -> None:
    block, present, _ = _encode(["a b", "c d"], "text", ["a b", "words"])
    assert block.shape == (2, 0)
    assert present == [False, False]


def test_large_texts_keep_the_words_that_entities_share() -> None:
    words = " ".join(f"word{i}" for i in range(101))
    encoder = _encode([words, "word7 word7 word8", "word8"], "text")[2]
    assert encoder.specs[0]["terms"] == ["word7", "word8"]
    np.testing.assert_allclose(encoder.specs[0]["idf"], np.log([4 / 3, 4 / 4]) + 1, rtol=1e-6)


def test_other_than_strings_are_refused_as_text() -> None:
    message = "Column 'x' of `X` is read as text but holds 7, 8; expected strings or None: convert it"
    _refused(["a title", None, 7, 8], "text", message)


# Vectors.


@pytest.mark.parametrize("as_cell", [list, tuple, np.array, lambda row: np.array(row, dtype=np.float32)])
def test_vectors_are_standardised_by_one_scale(as_cell: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3)) * [1, 10, 0] + [5, 0, 2]
    cells = pd.Series([as_cell(row) for row in rows])
    block, present, _ = _encode(cells, "vector")
    centred = rows - rows.mean(axis=0)
    np.testing.assert_allclose(block, centred / np.sqrt((centred**2).sum(axis=1).mean()), atol=1e-5)
    np.testing.assert_allclose(block.mean(axis=0), 0, atol=1e-6)
    assert np.mean((block**2).sum(axis=1)) == pytest.approx(1, rel=1e-5)
    assert all(present)


def test_a_missing_vector_is_no_vector_of_zeros() -> None:
    rows = pd.Series([[1.0, 2.0], None, [3.0, 6.0], [2.0, 4.0]])
    block, present, _ = _encode(rows, "vector")
    assert present == [True, False, True, True]
    root = math.sqrt((1 + 4 + 1 + 4) / 3)
    np.testing.assert_allclose(block, np.array([[-1, -2], [0, 0], [1, 2], [0, 0]]) / root, rtol=1e-6)
    # What is present stays so through all that is done to rows.
    encoded = FeatureEncoder.fit(pd.DataFrame({"x": rows}), {"x": "vector"}, "|").transform(
        pd.DataFrame({"x": rows}), "X"
    )
    moved = encoded.stack(encoded).take([3, 7, 1, -1])
    assert moved.present[:, 0].tolist() == [True, True, False, False]


def test_equal_vectors_are_present() -> None:
    block, present, _ = _encode([[1.0, 2.0], [1.0, 2.0]], "vector", [[1.0, 2.0], [2.0, 2.0]])
    assert block.tolist() == [[0, 0], [1, 0]]
    assert present == [True, True]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0], [1.0]], "holds vectors of different lengths: 2, 1; expected one: pad or cut them"),
        ([[1.0, np.nan], [1.0, 2.0]], r"holds NaN or infinite values in 1 vectors \(rows 0\); expected finite numbers"),
        ([[1.0, 2.0], None, [np.inf, 2.0]], r"holds NaN or infinite values in 1 vectors \(rows 2\)"),
        ([[1.0, 1e39]], "holds NaN or infinite values in 1 vectors"),
        ([[1.0, 2.0], 3.0], "is read as vectors but holds 3.0; expected lists or arrays of numbers, or None"),
        (["1,2"], "is read as vectors but holds '1,2'"),
        ([["a", "b"]], "holds what are no vectors of numbers: could not convert string to float"),
        ([np.eye(2)], "holds what are no vectors of numbers: they have 2 dimensions"),
        ([[[1, 2], [3]], [[1, 2], [3]]], "holds what are no vectors of numbers"),
    ],
)
def test_what_is_no_vector_is_refused(values: Any, message: str) -> None:
    _refused(values, "vector", f"Column 'x' of `X` {message}")
    if "lengths" not in message:
        _refused([[1.0, 2.0]], "vector", f"Column 'x' of `user_features` {message}", values)


def test_a_vector_of_another_length_than_in_fit_is_refused() -> None:
    _refused(
        [[1.0, 2.0]],
        "vector",
        "Column 'x' of `user_features` holds vectors of length 3; expected 2, as in fit",
        [[1, 2, 3]],
    )


# All kinds.

EXAMPLES: dict[str, list[Any]] = {
    "numeric": [1.0, 2.0, 3.0],
    "categorical": ["a", "b", "c"],
    "multi_hot": [["a"], ["a", "b"], ["c"]],
    "text": ["toy story", "old men", "heat"],
    "vector": [[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]],
}


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_value_is_an_empty_row(kind: str, missing: Any) -> None:
    values = [*EXAMPLES[kind][:2], missing, EXAMPLES[kind][2]]
    frame = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    encoded = FeatureEncoder.fit(frame, {"x": kind}, "|").transform(frame, "X")
    assert encoded.present[:, 0].tolist() == [True, True, False, True]
    assert np.diff(encoded.matrix.indptr)[2] == 0


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_column_of_nothing_has_no_width(kind: str) -> None:
    for nothing in ([None, None], [np.nan, np.nan], pd.Series([], dtype=object)):
        block, present, _ = _encode(nothing, kind, EXAMPLES[kind])
        assert block.shape == (3, 0)
        assert present == [False] * 3


@pytest.mark.parametrize("kind", EXAMPLES)
def test_no_rows_are_encoded_as_none(kind: str) -> None:
    for nothing in (pd.Series([], dtype=object), pd.Series([], dtype=float)):
        block, present, _ = _encode(EXAMPLES[kind], kind, nothing)
        assert block.shape[0] == 0
        assert block.shape[1] > 0
        assert present == []


@pytest.mark.parametrize("kind", EXAMPLES)
def test_rows_are_encoded_one_by_one_as_together(kind: str) -> None:
    together = _encode(EXAMPLES[kind], kind)[0]
    for i, value in enumerate(EXAMPLES[kind]):
        # The index of a frame is not what its rows are called here.
        one = pd.Series([value], index=[99])
        assert _encode(EXAMPLES[kind], kind, one)[0].tolist() == [together[i].tolist()]

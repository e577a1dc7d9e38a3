"""Single records are encoded, and labels found, as whole columns are."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys._records import Labels, RecordEncoder, is_missing
from recsys.exceptions import InvalidInputError, PersistenceError
from recsys.features import FeatureEncoder
from recsys.retrieval._export import encoder_state
from recsys.vocabulary import Vocabulary

ENTITIES = pd.DataFrame(
    {
        "age": [18.0, 25.0, np.nan, 61.5, 40.0, 33.0],
        "since": pd.DatetimeIndex(["2001-01-01", "2004-06-01T12:00", "NaT", "2010-03-04", "2020-02-02", "2021-01-01"]),
        "stay": pd.to_timedelta([1, 2, 9, None, 30, 5], unit="h"),
        "zip": [7, 9, 9, 11, 7, 13],
        "is_new": [True, False, True, True, False, False],
        "club": ["chess", "golf", None, "chess", "Ødegård", ""],
        "tags": [["a", "b"], ["c"], [], None, ["b", "c", "a"], ["d"]],
        "codes": [[1, 2], [3], [2], [5, 1], None, [3]],
        "written": ["x|y", " y ", "", None, "z|x|x", "z"],
        "bio": ["Likes the sea", None, "the sea, THE mountains", "a", "likes ünïcode words", "sea sea sea"],
        "taste": [[0.5, 1.0], [1.5, -2.0], None, [0.0, 0.0], [3.25, 1e-3], [1.0, 7.0]],
    }
)
KINDS = {
    "age": "numeric",
    "since": "numeric",
    "stay": "numeric",
    "zip": "categorical",
    "is_new": "categorical",
    "club": "categorical",
    "tags": "multi_hot",
    "codes": "multi_hot",
    "written": "multi_hot",
    "bio": "text",
    "taste": "vector",
}
ENCODER = FeatureEncoder.fit(ENTITIES, KINDS, "|")
RECORDS = RecordEncoder(encoder_state(ENCODER))

NUMBERS = st.one_of(st.floats(allow_infinity=False), st.integers(-(2**53), 2**53), st.sampled_from([18, 61.5, 40.0]))
TIMES = st.one_of(
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), st.dates(date(1900, 1, 1), date(2200, 1, 1))
)
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(["the", "SEA", "likes", "ünïcode", "a", "?"])).map(" ".join))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "age": NUMBERS,
    "since": TIMES,
    "stay": st.timedeltas(timedelta(0), timedelta(days=40)),
    "zip": st.integers(0, 15),
    "is_new": st.booleans(),
    "club": st.one_of(st.sampled_from(["chess", "golf", "Ødegård", "Chess", ""]), st.text()),
    "tags": st.lists(st.sampled_from(["a", "b", "c", "d", "e"])),
    "codes": st.one_of(st.lists(st.integers(0, 6)), st.lists(st.integers(0, 6)).map(tuple), st.sets(st.integers(0, 6))),
    "written": st.lists(st.sampled_from(["x", " y", "z ", "w", ""])).map("|".join),
    "bio": TEXTS,
    "taste": st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=2),
}


def row_of(record: dict[str, Any]) -> tuple[list[int], list[float]]:
    """The entries of a record, as a frame of one row is encoded."""
    frame = pd.DataFrame({name: pd.Series([record.get(name)]) for name in KINDS})
    matrix = ENCODER.transform(frame, "user_features").matrix
    return matrix.indices.tolist(), matrix.data.tolist()


@given(st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in VALUES.items()}))
def test_a_record_is_encoded_as_a_row(record: dict[str, Any]) -> None:
    columns, values = RECORDS.encode(record, "`user_features`")
    assert (columns.tolist(), values.tolist()) == row_of(record)
    assert columns.dtype == np.int64
    assert values.dtype == np.float32


def test_rows_of_fit_are_encoded_as_they_were() -> None:
    matrix = ENCODER.transform(ENTITIES, "user_features").matrix
    for row, record in enumerate(ENTITIES.to_dict("records")):
        columns, values = RECORDS.encode(record, "`user_features`")
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        assert columns.tolist() == matrix.indices[part].tolist()
        assert values.tolist() == matrix.data[part].tolist()


@pytest.mark.parametrize(
    ("record", "same"),
    [
        ({"since": "2004-06-01T12:00:00Z"}, {"since": datetime(2004, 6, 1, 12)}),
        ({"since": datetime(2004, 6, 1, 14, tzinfo=timezone(timedelta(hours=2)))}, {"since": datetime(2004, 6, 1, 12)}),
        ({"since": np.datetime64("2004-06-01T12:00")}, {"since": datetime(2004, 6, 1, 12)}),
        ({"stay": np.timedelta64(2, "h")}, {"stay": timedelta(hours=2)}),
        ({"age": Decimal("25")}, {"age": 25.0}),
        ({"age": np.int64(25)}, {"age": 25.0}),
        ({"zip": 9.0}, {"zip": 9}),
        ({"tags": np.array(["a", "b"])}, {"tags": ["b", "a", None, "a"]}),
        ({"codes": 3}, {"codes": [3]}),
        ({"taste": np.array([0.5, 1.0])}, {"taste": (0.5, 1.0)}),
        ({"age": math.nan, "since": np.datetime64("NaT"), "club": None}, {}),
        ({"age": Decimal("sNaN"), "club": pd.NA, "tags": [Decimal("sNaN"), pd.NA]}, {"tags": []}),
    ],
)
def test_what_means_the_same_is_encoded_the_same(record: dict[str, Any], same: dict[str, Any]) -> None:
    found, expected = (RECORDS.encode(each, "`user_features`") for each in (record, same))
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([1], "`it` is .1.; expected a dict of fields"),
        ({"agee": 1}, "`it` has the unknown field 'agee'. Did you mean 'age'"),
        ({"age": "old"}, "'age' of `it` is 'old'; expected a number"),
        ({"age": [1]}, "expected a number or None"),
        ({"age": 1j}, "complex numbers have no order"),
        ({"age": math.inf}, "expected a finite number"),
        ({"age": "nan"}, "expected a finite number"),
        ({"age": 10**400}, "expected a number or None"),
        ({"age": date(2001, 1, 1)}, "expected a number, as in fit"),
        ({"since": 5}, "expected a date, as in fit"),
        ({"since": "soon"}, "expected a date, as ISO text"),
        ({"club": 5}, "holds none of the categories of fit. They are numbers .5., but the known ones are text"),
        ({"club": ["chess"]}, "expected a single label"),
        ({"club": np.array("chess")}, "expected labels"),
        ({"tags": np.array("a")}, "expected labels"),
        ({"tags": [["a"]]}, "expected labels"),
        ({"bio": 5}, "expected a string or None"),
        ({"taste": "12"}, "expected a list of 2 numbers"),
        ({"taste": [1]}, "is of shape .1,.; expected .2,."),
        ({"taste": [1, "b"]}, "expected flat numbers"),
        ({"taste": [1, math.nan]}, "holds NaN or infinite values"),
        ({"taste": [1, 10**400]}, "expected flat numbers"),
        ({"age": 5, "user_id": 1}, "the unknown field 'user_id'. The id is the key: leave it out here"),
        ({"bio": ["x" * 500]}, r"x\.\.\.; expected a string"),
    ],
)
def test_what_a_field_does_not_hold_is_refused(record: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        RECORDS.encode(record, "`it`")


LABELS: list[list[Any]] = [
    [3, 1, 2**40],
    [0.5, 2.0],
    [True, False],
    ["b", "a", "ü"],
    [b"b", ("a", 1), UUID(int=3), Decimal("1.5"), 7],
    [],
]


@pytest.mark.parametrize("labels", LABELS, ids=str)
def test_labels_are_those_of_a_vocabulary(labels: list[Any]) -> None:
    vocabulary = Vocabulary(pd.Index(labels, dtype=object) if len({*map(type, labels)}) > 1 else labels)
    lean = Labels(vocabulary.to_state())
    assert len(lean) == len(labels)
    assert lean.decode(np.arange(len(labels))) == labels
    assert lean.encode(labels).tolist() == list(range(len(labels)))
    # To a vocabulary of booleans, 1 is one of them.
    numbers = [] if labels == [True, False] else [1, 2.0]
    strangers = ["a", *numbers, b"x", ("a", 1), UUID(int=3)]
    assert lean.encode(strangers).tolist() == vocabulary.encode(pd.Index(strangers, dtype=object)).tolist()
    if labels and len({*map(type, labels)}) == 1:
        for other in LABELS[:4]:
            assert lean.mismatch(other) == vocabulary.mismatch(pd.Index(other))


def test_true_is_not_one() -> None:
    assert Labels(Vocabulary([0, 1]).to_state()).encode([True, np.True_, 1]).tolist() == [-1, -1, 1]
    assert Labels(Vocabulary([False, True]).to_state()).encode([True, 1]).tolist() == [1, -1]


def test_labels_that_are_dates_are_refused() -> None:
    with pytest.raises(PersistenceError, match="Labels that are dates cannot be exported"):
        Labels(Vocabulary(pd.to_datetime(["2001-01-01"])).to_state())


def test_what_is_missing() -> None:
    missing = [None, math.nan, np.float32("nan"), Decimal("nan"), Decimal("sNaN"), pd.NA, pd.NaT, np.datetime64("NaT")]
    assert all(map(is_missing, missing))
    assert not any(map(is_missing, [0, "", [], [None], np.array([np.nan]), date(2001, 1, 1)]))


def test_vectors_that_overflow_are_refused() -> None:
    fitted = pd.DataFrame({"taste": [[0.0, 1e-3], [1e-3, 0.0]]})
    encoder = RecordEncoder(encoder_state(FeatureEncoder.fit(fitted, {"taste": "vector"}, "|")))
    with pytest.raises(InvalidInputError, match=r"'taste' of `it` holds .* such as single precision cannot hold"):
        encoder.encode({"taste": [1e38, 1e38]}, "`it`")


def test_records_are_read_back() -> None:
    for record in ENTITIES.to_dict("records"):
        told = RECORDS.decode(*RECORDS.encode(record, "`user_features`"))
        assert told.get("age", math.nan) == pytest.approx(record["age"], nan_ok=True)
        assert told.get("since") == (None if pd.isna(record["since"]) else record["since"].isoformat())
        assert (told["zip"], told["is_new"]) == (record["zip"], record["is_new"])
        if record["club"] in ("chess", "golf"):
            assert told["club"] == record["club"]
        for name in ("tags", "codes"):
            assert set(told.get(name, [])) == set(record[name] if isinstance(record[name], list) else [])
        # Words and vectors are not told by what is stored of them.
        assert not {"bio", "taste"} & told.keys()


def test_forms_are_told() -> None:
    fields = RecordEncoder(encoder_state(ENCODER, ENCODER.transform(ENTITIES, "user_features"))).fields()
    assert fields["age"] == {"kind": "numeric", "low": 18.0, "high": 61.5}
    assert fields["since"] == {"kind": "date", "low": "2001-01-01T00:00:00", "high": "2021-01-01T00:00:00"}
    assert fields["zip"]["kind"] == "categorical"
    assert fields["zip"]["values"][:2] == [7, 9]
    assert fields["tags"] == {"kind": "multi-hot", "values": ["a", "b", "c", "d"]}
    assert (fields["bio"], fields["taste"]) == ({"kind": "text"}, {"kind": "vector", "width": 2})
    many = FeatureEncoder.fit(pd.DataFrame({"n": np.repeat(np.arange(300), 2)}), {"n": "categorical"}, "|")
    assert len(RecordEncoder(encoder_state(many)).fields()["n"]["values"]) == 200

"""Ids of every dtype go in, come out, are extended and stored without change."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.exceptions import InvalidInputError, InvalidTypeError, PersistenceError
from recsys.persistence import read_directory, write_directory
from recsys.vocabulary import Vocabulary, as_ids

DAYS = ["2020-01-01", "1969-07-20", "2262-04-11"]

# Name -> three distinct ids, one of which is asked for twice.
COLUMNS: dict[str, Any] = {
    "int64": pd.Series([7, -2, 2**62 + 1]),
    "int32": pd.Series([7, -2, 5], dtype="int32"),
    "uint64": pd.Series([7, 2, 2**63 + 1], dtype="uint64"),
    "float64": pd.Series([0.5, -1.5, 1e300]),
    "float32": pd.Series([0.5, -1.5, 0.1], dtype="float32"),
    "bool": pd.Series([True, False]),
    "text": pd.Series(["b", "a", "ü\n"]),
    "object text": pd.Series(["b", "a", "", "\ud800"], dtype=object),
    "string": pd.Series(["b", "a", "c"], dtype="string"),
    "Int64": pd.Series([7, -2, 2**62 + 1], dtype="Int64"),
    "UInt8": pd.Series([7, 2, 255], dtype="UInt8"),
    "Float32": pd.Series([0.5, 0.1], dtype="Float32"),
    "boolean": pd.Series([True, False], dtype="boolean"),
    "mixed": pd.Series([7, "7", 0.5, ("a", 1)], dtype=object),
    "object ints": pd.Series([7, -2, 2**80], dtype=object),
    "tuples": pd.Series([("a", 1), ("b", 2), ("a", (2, None))]),
    "uuid": pd.Series([uuid.UUID(int=7), uuid.UUID(int=8)]),
    "bytes": pd.Series([b"a", b"\xff"], dtype=object),
    "decimal": pd.Series([Decimal("1.10"), Decimal("2")], dtype=object),
    "datetime ns": pd.Series(pd.to_datetime(DAYS).as_unit("ns")),
    "datetime s": pd.Series(pd.to_datetime(DAYS).as_unit("s")),
    "datetime Paris": pd.Series(pd.to_datetime(DAYS).as_unit("us").tz_localize("Europe/Paris")),
    "datetime +01:00": pd.Series(pd.to_datetime([f"{day}T00:00+01:00" for day in DAYS])),
    "timedelta": pd.Series(pd.to_timedelta([3, 1, 2], unit="s")),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_ids_of_every_dtype_come_out_as_they_went_in(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if name == "object text":  # Half of a surrogate pair is in it.
        request.getfixturevalue("without_pyarrow")
    column = COLUMNS[name]
    asked = pd.concat([column, column.iloc[:1]], ignore_index=True)
    vocabulary, codes = Vocabulary.from_values(asked)
    assert codes.tolist() == [*range(len(column)), 0]
    assert codes.dtype == np.int64
    assert vocabulary.ids.dtype == column.dtype
    assert vocabulary.ids.tolist() == column.tolist()

    decoded = vocabulary.decode(codes)
    assert decoded.dtype == column.dtype
    assert decoded.tolist() == asked.tolist()
    assert vocabulary.encode(asked).tolist() == codes.tolist()
    assert vocabulary.encode(column.tolist()).tolist() == list(range(len(column)))
    assert all(label in vocabulary for label in column)

    half = Vocabulary(column[:1]).extend(column)
    assert half == vocabulary

    write_directory(tmp_path / "saved", {"vocabulary": vocabulary}, {})
    restored = read_directory(tmp_path / "saved")[0]["vocabulary"]
    assert restored == vocabulary
    assert restored.ids.dtype == column.dtype
    assert [type(label) for label in restored.ids] == [type(label) for label in vocabulary.ids]


def test_categories_come_out_with_the_dtype_of_the_categories() -> None:
    numbers = pd.Series([5, 3, 5], dtype="category")
    vocabulary, codes = Vocabulary.from_values(numbers)
    assert vocabulary.ids.dtype == np.int64
    assert vocabulary.ids.tolist() == [5, 3]
    assert codes.tolist() == [0, 1, 0]
    assert vocabulary.encode(pd.Categorical([3, 4])).tolist() == [1, -1]
    words = pd.Series(["b", "a"], dtype="category")
    assert Vocabulary(words).ids.dtype == pd.Index(["b"]).dtype


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("b", "a"), ["b", "a"]),
        (range(2), [0, 1]),
        ({"only": 1}.keys(), ["only"]),
        ((label for label in "ab"), ["a", "b"]),
        (np.array(["b", "a"]), ["b", "a"]),
        (pd.array([2, 1], dtype="Int64"), [2, 1]),
        (Vocabulary(["x"]), ["x"]),
        (pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]), [("a", 1), ("b", 2)]),
        ([("a", 1), ("b", 2)], [("a", 1), ("b", 2)]),
        ([], []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_collections_of_every_kind_are_read(values: Any, expected: list[Any]) -> None:
    index = as_ids(values)
    assert type(index) is not pd.MultiIndex
    assert index.tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("ann", r"`users` is the single value 'ann'; expected a list of ids: pass \['ann'\]"),
        (b"ann", r"`users` is the single value b'ann'"),
        (7, r"`users` is the single value 7; .* pass \[7\]"),
        (None, "`users` is the single value None"),
        (pd.DataFrame({"user_id": [1]}), "`users` is a DataFrame; expected one id after the other"),
        ({"ann": 1}, "`users` is a dict; expected one id after the other"),
        ([["a"], ["b"]], "`users` holds ids that cannot be hashed: unhashable type: 'list'"),
        ([{"a": 1}], "`users` holds ids that cannot be hashed: unhashable type: 'dict'"),
        ([("a", ["b"]), ("a", ["c"])], "`users` holds ids that cannot be hashed: unhashable type: 'list'"),
        (np.array([1, 2], dtype=np.float16), "`users` holds what cannot be ids: float16"),
    ],
)
def test_what_is_no_list_of_hashables_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InvalidTypeError, match=message):
        as_ids(values, "users")


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "b", None],
        [1.0, np.nan, 2.0, np.nan],
        [1, pd.NA, 2, pd.NA],
        pd.Series([1, None, 2, None], dtype="Int64"),
        pd.Series(["a", None, "b", None], dtype="string"),
        pd.Series(["2020-01-01", None, "2020-01-02", None], dtype="datetime64[ns]"),
        pd.Series([1, None, 2, None], dtype="category"),
        pd.Series(pd.Categorical([1, None, 2, None], categories=[1, 2])),
    ],
    ids=lambda values: str(getattr(values, "dtype", values)),
)
def test_nulls_are_refused_with_their_positions(values: Any) -> None:
    message = r"`users` has 2 null ids \(at positions 1, 3\); expected a label in every row: drop these rows or give"
    with pytest.raises(InvalidInputError, match=message):
        as_ids(values, "users")


@pytest.mark.parametrize("array", [np.array([[1, 2]]), np.array(1)])
def test_other_than_one_dimension_is_refused(array: npt.NDArray[Any]) -> None:
    with pytest.raises(
        InvalidInputError, match=f"`users` has {array.ndim} dimensions; expected one id after the other"
    ):
        as_ids(array, "users")


def test_labels_that_come_twice_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="`ids` holds 2 labels more than once: 'a', 'b'; expected each once"):
        Vocabulary(["a", "b", "a", "c", "b", "a"])


def test_unknown_labels_are_minus_one() -> None:
    vocabulary = Vocabulary(["tea", "milk"])
    assert vocabulary.encode(["salt", "milk", "tea", "salt"]).tolist() == [-1, 1, 0, -1]
    assert vocabulary.encode([]).tolist() == []
    assert vocabulary.encode([1, 2]).tolist() == [-1, -1]
    assert Vocabulary().encode(["tea"]).tolist() == [-1]
    assert "salt" not in vocabulary
    assert 1 not in vocabulary


@pytest.mark.parametrize("code", [-1, 2])
def test_a_code_of_no_label_is_refused(code: int) -> None:
    with pytest.raises(InvalidInputError, match=f"`codes` holds {code}; expected codes from 0 to 1"):
        Vocabulary(["tea", "milk"]).decode([0, code])


def test_numbers_are_found_whatever_their_dtype() -> None:
    for known in (np.array([5, 3], dtype=np.int32), [5, 3], [5.0, 3.0], pd.array([5, 3], dtype="Int64")):
        for asked in (
            np.array([3], dtype=np.int16),
            [3],
            [3.0],
            pd.array([3], dtype="Int64"),
            pd.Index([3], dtype=object),
        ):
            assert Vocabulary(known).encode(asked).tolist() == [1]


def test_a_vocabulary_does_not_change_with_the_array_it_was_made_of() -> None:
    labels = np.array([3, 1, 2])
    vocabularies = [Vocabulary(labels), Vocabulary(pd.Series(labels, copy=False)), Vocabulary.from_values(labels)[0]]
    labels[:] = 0
    assert [vocabulary.ids.tolist() for vocabulary in vocabularies] == [[3, 1, 2]] * 3


@pytest.mark.parametrize(
    ("known", "fresh", "expected", "dtype"),
    [
        (np.array([1, 2], dtype="int32"), [2, 3], [1, 2, 3], "int32"),
        (np.array([1, 2], dtype="int32"), [2**40], [1, 2, 2**40], "int64"),
        ([2**60, 2**60 + 1], [7.0], [2**60, 2**60 + 1, 7], "int64"),
        ([2**60, 2**60 + 1], [1.5], [2**60, 2**60 + 1, 1.5], "object"),
        ([1], [1e300], [1, 1e300], "object"),
        ([1], np.array([2**63 + 1], dtype="uint64"), [1, 2**63 + 1], "object"),
        ([0.5], [2], [0.5, 2.0], "float64"),
        ([0.5], [2**60 + 1], [0.5, 2**60 + 1], "object"),
        (np.array([0.5], dtype="float32"), [0.1], [0.5, 0.1], "float64"),
        (pd.array([1], dtype="Int64"), [2], [1, 2], "Int64"),
        (pd.array([1], dtype="Int32"), [2**40], [1, 2**40], "Int64"),
        (pd.array([1], dtype="Int64"), [1.5], [1, 1.5], "object"),
        ([1], ["a"], [1, "a"], "object"),
        ([True], [2], [True, 2], "object"),
        (pd.Index(["a"], dtype=object), ["b"], ["a", "b"], "object"),
        (pd.Index([1], dtype=object), [2], [1, 2], "object"),
        (pd.Index(["a"], dtype="string"), ["b"], ["a", "b"], "string"),
        ([("a", 1)], [("b", 2)], [("a", 1), ("b", 2)], "object"),
        ([], [3], [3], "int64"),
    ],
)
def test_extending_keeps_the_dtype_where_nothing_is_lost(
    known: Any, fresh: Any, expected: list[Any], dtype: str
) -> None:
    before = Vocabulary(known)
    after = before.extend(fresh)
    assert after.ids.tolist() == expected
    assert [type(label) for label in after.ids.tolist()] == [type(label) for label in expected]
    assert after.ids.dtype == dtype
    assert after.encode(before.ids).tolist() == list(range(len(before)))


def test_extending_by_what_is_known_changes_nothing() -> None:
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.extend(["b", "a", "b"]) is vocabulary
    longer = vocabulary.extend(["c", "b", "d", "c"])
    assert longer.ids.tolist() == ["a", "b", "c", "d"]
    assert vocabulary.ids.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("known", "asked", "hint"),
    [
        (
            [1, 2],
            ["1"],
            " They are text ('1'), but the known ones are numbers (1): to mean those, convert one to the other's type.",
        ),
        (
            ["1"],
            [1.0, 2.0],
            " They are numbers (1.0), but the known ones are text ('1'): "
            "to mean those, convert one to the other's type.",
        ),
        (pd.Index([1], dtype=object), ["1"], " They are text ('1'), but the known ones are numbers (1)"),
        ([b"1"], ["1"], " They are text ('1'), but the known ones are bytes (b'1')"),
        ([True], [1], " They are numbers (1), but the known ones are booleans (True)"),
        (pd.to_datetime(["2020-01-01"]), [1], " They are numbers (1), but the known ones are dates (Timestamp("),
        ([1], [2.5], ""),
        (["a"], ["b"], ""),
        (["a", 1], ["b"], ""),
        ([], ["b"], ""),
        ([1], [], ""),
    ],
)
def test_ids_of_another_type_are_hinted_at(known: Any, asked: Any, hint: str) -> None:
    found = Vocabulary(known).mismatch(as_ids(asked))
    assert found.startswith(hint)
    assert bool(found) == bool(hint)


@pytest.mark.parametrize(
    "label", [object(), pd.Period("2020-01"), frozenset("a"), ("a", object()), np.datetime64("2020", "ns"), 1j]
)
def test_labels_that_cannot_be_stored_are_refused_at_saving(label: Any, tmp_path: Path) -> None:
    # An object of this very type, not what pandas makes of it.
    labels = np.empty(1, dtype=object)
    labels[0] = label
    vocabulary = Vocabulary(pd.Index(labels, dtype=object, tupleize_cols=False))
    with pytest.raises(PersistenceError, match="cannot be stored; expected numbers, strings, bytes"):
        write_directory(tmp_path / "saved", {"vocabulary": vocabulary}, {})
    assert list(tmp_path.iterdir()) == []


def test_labels_of_numpy_are_stored_as_those_of_python() -> None:
    labels = np.empty(3, dtype=object)
    labels[:] = [np.int64(7), np.str_("a"), np.bool_(False)]
    restored = Vocabulary.from_state(Vocabulary(labels).to_state())
    assert restored.encode([7, "a", False]).tolist() == [0, 1, 2]
    assert [type(label) for label in restored.ids] == [int, str, bool]


def test_dates_as_objects_can_be_ids() -> None:
    days = [datetime.date(2020, 1, 2), datetime.date(2020, 1, 1)]
    vocabulary, codes = Vocabulary.from_values([*days, days[0]])
    assert codes.tolist() == [0, 1, 0]
    assert vocabulary.decode([1]).tolist() == [days[1]]


def test_repr_names_three_ids_at_most() -> None:
    assert repr(Vocabulary([1, 2, 3, 4])) == "Vocabulary(4 ids: 1, 2, 3, ...)"
    assert repr(Vocabulary()) == "Vocabulary()"


def test_equality_heeds_order_and_dtype() -> None:
    assert Vocabulary([1, 2]) == Vocabulary([1, 2])
    assert Vocabulary([1, 2]) != Vocabulary([2, 1])
    assert Vocabulary([1, 2]) != Vocabulary([1.0, 2.0])
    assert Vocabulary([1]) != [1]


LABELS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.tuples(st.integers(), st.text()),
    st.binary(),
)


@given(st.lists(LABELS), st.lists(LABELS))
def test_like_a_dict_of_labels(first: list[Any], second: list[Any]) -> None:
    """Python's own dict is the reference: order of first appearance, equality and hashes alike."""
    reference: dict[Any, int] = {}
    for label in first:
        reference.setdefault(label, len(reference))
    start = pd.Index(first, dtype=object, tupleize_cols=False)
    vocabulary, codes = Vocabulary.from_values(start)
    assert codes.tolist() == [reference[label] for label in first]
    assert vocabulary.ids.tolist() == list(reference)
    asked = pd.Index(second, dtype=object, tupleize_cols=False)
    assert vocabulary.encode(asked).tolist() == [reference.get(label, -1) for label in second]
    for label in second:
        reference.setdefault(label, len(reference))
    longer = vocabulary.extend(asked)
    assert longer.ids.tolist() == list(reference)
    restored = Vocabulary.from_state(longer.to_state())
    assert restored == longer
    assert [type(label) for label in restored.ids] == [type(label) for label in longer.ids]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_large_integers_lose_no_digit(first: list[int], second: list[int]) -> None:
    vocabulary = Vocabulary.from_values(np.array(first, dtype=np.int64))[0].extend(np.array(second, dtype=np.int64))
    assert vocabulary.ids.tolist() == list(dict.fromkeys([*first, *second]))
    assert vocabulary.ids.dtype == np.int64

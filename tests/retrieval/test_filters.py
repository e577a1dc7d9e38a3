"""Filters find what a plain evaluation row by row finds; what is wrong in them is named."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.exceptions import InvalidInputError
from recsys.retrieval._metadata import read_metadata
from recsys.retrieval._states import table_from_state, table_to_state
from recsys.retrieval.filters import Table

GENRES = ["war", "drama", "comedy"]

rows = st.fixed_dictionaries(
    {
        "year": st.one_of(st.none(), st.integers(0, 4)),
        "name": st.one_of(st.none(), st.sampled_from("abc")),
        "genres": st.one_of(st.none(), st.lists(st.sampled_from(GENRES), max_size=3)),
        "day": st.one_of(st.none(), st.integers(1, 4).map(lambda day: dt.datetime(2020, 1, day))),
    }
)

_numbers = st.one_of(st.integers(0, 4), st.floats(0, 4))
_days = st.integers(1, 4).map(lambda day: f"2020-01-0{day}")


def _ordered(values: Any) -> Any:
    compared = dict.fromkeys(("==", "<", "<=", ">", ">="), values)
    return st.one_of(values, st.fixed_dictionaries({}, optional={**compared, "in": st.lists(values)}).filter(bool))


def _labelled(values: Any) -> Any:
    operators = {"==": values, "in": st.lists(values), "contains": st.sampled_from(["", "a", "A", "m", "RA"])}
    return st.one_of(values, st.fixed_dictionaries({}, optional=operators).filter(bool))


conditions = st.fixed_dictionaries(
    {},
    optional={
        "year": _ordered(_numbers),
        "name": _labelled(st.sampled_from("abcd")),
        "genres": _labelled(st.sampled_from([*GENRES, "noir"])),
        "day": _ordered(_days),
    },
)
filters = st.recursive(
    conditions,
    lambda inner: st.fixed_dictionaries(
        {}, optional={"and": st.lists(inner, min_size=1), "or": st.lists(inner, min_size=1), "not": inner}
    ),
    max_leaves=5,
)

COMPARE: dict[str, Any] = {
    "==": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "contains": lambda a, b: b.lower() in a.lower(),
}


def _holds(where: dict[str, Any], row: dict[str, Any]) -> bool:
    """The meaning of a filter, row by row."""
    return all(_part_holds(name, condition, row) for name, condition in where.items())


def _part_holds(name: str, condition: Any, row: dict[str, Any]) -> bool:
    if name == "not":
        return not _holds(condition, row)
    if name in ("and", "or"):
        return (all if name == "and" else any)(_holds(part, row) for part in condition)
    cell = row[name]
    members = [] if cell is None else cell if isinstance(cell, list) else [cell]
    if name == "day":
        members = [f"{member:%Y-%m-%d}" for member in members]
    operators = condition if isinstance(condition, dict) else {"==": condition}
    return all(any(COMPARE[symbol](member, value) for member in members) for symbol, value in operators.items())


def _table(found: list[dict[str, Any]], like: Table | None = None) -> Table:
    frame = pd.DataFrame(found, columns=["year", "name", "genres", "day"])
    frame = frame.astype({"year": "Float64", "name": object, "genres": object, "day": "datetime64[us]"})
    return read_metadata(frame, frame.index, like)


@given(st.lists(rows, max_size=8), filters)
def test_filters_mean_what_they_say(found: list[dict[str, Any]], where: dict[str, Any]) -> None:
    assert _table(found).match(where).tolist() == [_holds(where, row) for row in found]


@given(st.lists(rows, min_size=1, max_size=6), st.lists(rows, max_size=6), filters, st.data())
def test_tables_are_taken_joined_and_stored(
    first: list[dict[str, Any]], second: list[dict[str, Any]], where: dict[str, Any], data: st.DataObject
) -> None:
    one = _table(first)
    joined = one.joined(_table(second, one))
    every = [*first, *second]
    chosen = data.draw(st.lists(st.integers(0, len(every) - 1)))
    taken = joined.take(np.array(chosen, dtype=np.int64))
    expected = [_holds(where, every[row]) for row in chosen]
    assert taken.match(where).tolist() == expected
    assert table_from_state(table_to_state(taken)).match(where).tolist() == expected


@pytest.fixture
def table() -> Table:
    frame = pd.DataFrame(
        {
            "year": [1999, 2005, None],
            "kids": [True, False, False],
            "genres": [["war"], ["war", "drama"], None],
            "tags": [[1], [2, 3], []],
            "shown": pd.DatetimeIndex(["2020-01-01 00:00", "2021-06-01 12:00", "NaT"]).tz_localize("Europe/Berlin"),
        }
    )
    return read_metadata(frame, frame.index)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"year": 1999}, [0]),
        ({"year": {">=": 1990, "<": 2000}, "genres": "war"}, [0]),
        ({"not": {"year": {">=": 2000}}}, [0, 2]),
        ({"not": {"or": [{"year": 1999}, {"genres": "drama"}]}}, [2]),
        ({"kids": True}, [0]),
        ({"tags": {"in": (2, np.int64(1))}}, [0, 1]),
        ({"tags": {"in": []}}, []),
        ({"genres": {"in": {"drama", "noir"}}}, [1]),
        ({"genres": {"contains": "RAM"}}, [1]),
        ({"genres": {"contains": "a"}}, [0, 1]),
        ({"shown": {"<=": dt.date(2020, 1, 1)}}, [0]),
        ({"shown": "2019-12-31T23:00:00Z"}, [0]),
        ({"shown": {">": dt.datetime(2021, 6, 1, 9, tzinfo=dt.timezone.utc)}}, [1]),
        ({"shown": pd.Timestamp("2021-06-01 12:00", tz="Europe/Berlin")}, [1]),
        ({"shown": {"in": [np.datetime64("2021-06-01T10:00")]}}, [1]),
    ],
)
def test_known_answers(where: Any, expected: list[int], table: Table) -> None:
    assert np.flatnonzero(table.match(where)).tolist() == expected


def _nested(depth: int) -> dict[str, Any]:
    return {"not": _nested(depth - 1)} if depth else {"year": 1999}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ([], r"`where` holds \[\]; expected a dict like"),
        ({"yaer": 1}, "names the field 'yaer', which the items do not have. Did you mean 'year'?"),
        ({7: 1}, "names the field 7, which"),
        (
            {"year": {"=>": 1}},
            "operator '=>' for 'year'; expected one of '==', '<', '<=', '>', '>=', 'in'. Did",
        ),
        (
            {"genres": {"<": "war"}},
            "'<' for 'genres', but its labels have no order; expected one of '==', 'in'",
        ),
        ({"genres": {"contain": "w"}}, "expected one of '==', 'in', 'contains'. Did you mean 'contains'?"),
        ({"genres": {"contains": 3}}, "3 for 'genres'; expected text"),
        ({"tags": {"contains": "1"}}, "operator 'contains' for 'tags'; expected one of '==', 'in'."),
        ({"year": {"contains": "9"}}, "operator 'contains' for 'year'; expected one of"),
        ({"year": {}}, "no operator for 'year'"),
        ({"year": [1, 2]}, r"the list \[1, 2\] for 'year'; expected a value .* write \{'in': \[...\]\}"),
        ({"year": {"in": 7}}, "7 at 'in' of 'year'; expected a list"),
        ({"genres": {"in": "war"}}, "'war' at 'in' of 'genres'; expected a list"),
        ({"year": {"in": np.array(7)}}, r"array\(7\) at 'in' of 'year'; expected a list"),
        ({"genres": {"in": np.array("war")}}, "at 'in' of 'genres'; expected a list"),
        ({"year": "1999"}, "'1999' for 'year'; expected a finite number"),
        ({"year": None}, "None for 'year'; expected a finite number"),
        ({"year": float("nan")}, "nan for 'year'; expected a finite number"),
        ({"year": 10**400}, r"1000+\.\.\. for 'year'; expected a finite number"),
        ({"year": 1j}, "1j for 'year'; expected a finite number"),
        ({"genres": 3}, "3 for 'genres'; expected text"),
        ({"tags": "x"}, "'x' for 'tags'; expected a whole number"),
        ({"tags": True}, "True for 'tags'; expected a whole number"),
        ({"shown": 2020}, "2020 for 'shown'; expected a date, as ISO text"),
        ({"shown": "soon"}, "'soon' for 'shown'; expected a date, as ISO text"),
        ({"shown": np.datetime64("NaT")}, "for 'shown'; expected a date"),
        ({"shown": pd.NaT}, "NaT for 'shown'; expected a date"),
        ({"shown": {"<": np.datetime64("999999999-01-01")}}, "for 'shown'; expected a date"),
        ({"year": np.timedelta64(1)}, "for 'year'; expected a finite number"),
        ({"or": {"year": 1}}, r"at 'or'; expected a list of one filter or more"),
        ({"and": []}, r"\[\] at 'and'; expected a list of one filter or more"),
        ({"not": [{"year": 1}]}, r"`where` holds \[.*\]; expected a dict"),
        (_nested(40), "nested more than 32 deep; expected a flatter filter"),
        ({"year": {"in": ["x" * 500]}}, r"'x{56}\.\.\. for 'year'"),
    ],
)
def test_wrong_filters_are_named(where: Any, message: str, table: Table) -> None:
    with pytest.raises(InvalidInputError, match=message):
        table.match(where)


def test_without_metadata_there_is_nothing_to_filter_by() -> None:
    with pytest.raises(InvalidInputError, match="The index has no metadata: give it some as `metadata`"):
        read_metadata(None, pd.Index([1, 2])).match({"year": 1})


MIXED = [pd.Series(cells, dtype=object) for cells in ([{"x": 1}, "y", "z"], [[1], ["y"], []])]
FRAME = pd.DataFrame({"item_id": ["b", "a", "c"], "year": [2, 1, 3]})


def test_rows_are_found_by_id() -> None:
    for frame in (FRAME, FRAME.set_index("item_id")):
        assert read_metadata(frame, pd.Index(["a", "b"])).match({"year": 1}).tolist() == [True, False]


_DAYS = [dt.date(2020, 1, 1), None, dt.date(2022, 1, 1)]


@pytest.mark.parametrize(
    ("column", "where"),
    [
        (pd.Series([1, None, 3], dtype=object), {">": 1}),
        (pd.Series([decimal.Decimal("1.5"), None, decimal.Decimal(3)]), {">": 1.5}),
        (pd.Series([False, None, True], dtype=object), True),
        (pd.Series([1, None, 3], dtype=pd.ArrowDtype(pa.int64())), {">": 1}),
        (pd.Categorical([1, 2, 3]), {">": 2}),
        (pd.Series(_DAYS, dtype=object), {">": "2021-01-01"}),
        (pd.Series(_DAYS, dtype=pd.ArrowDtype(pa.date32())), {">": "2021-01-01"}),
        (pd.DatetimeIndex(["2020-01-01", "NaT", "2022-01-01"], tz="Asia/Tokyo"), {">=": "2021-12-31T15:00:00Z"}),
        (pd.Series(["a", None, "b"], dtype=pd.ArrowDtype(pa.string())), "b"),
        (pd.Categorical(["a", None, "b"]), {"in": ["b"]}),
        ([np.array([1], dtype=np.int32), [], [np.int64(2), 3]], {"in": [3]}),
    ],
)
def test_columns_of_every_dtype_are_read(column: Any, where: Any) -> None:
    frame = pd.DataFrame({"field": column}).set_axis(list("abc"))
    assert read_metadata(frame, frame.index).match({"field": where}).tolist() == [False, False, True]


@pytest.mark.parametrize(("dtype", "value"), [("float64", 4), ("datetime64[ns]", "2020-01-01"), ("str", "x")])
def test_a_column_without_values_is_what_its_dtype_says(dtype: Any, value: Any) -> None:
    empty = pd.DataFrame({"field": pd.Series([None, None], dtype=dtype)}).set_axis(list("ab"))
    known = read_metadata(empty, empty.index)
    more = pd.DataFrame({"field": pd.Series([value], index=["c"]).astype(dtype)})
    joined = known.joined(read_metadata(more, more.index, known))
    assert joined.match({"field": value}).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"a": 1}, "`metadata` is of type dict; expected a DataFrame"),
        (FRAME.drop(columns="item_id"), "no row of 2 ids: 'a', 'b'; .* column 'item_id' or in the index"),
        (FRAME.replace({"item_id": {"c": "a"}}), "several rows of 'a'; expected one row an id"),
        (FRAME.rename(columns={"year": "or"}), "columns named 'or'; expected text other than 'and', 'not', 'or'"),
        (FRAME.rename(columns={"year": 5}), "columns named 5; expected text"),
        (pd.DataFrame([[1, 2], [3, 4]], index=["a", "b"], columns=["x", "x"]), "several columns named 'x'"),
        (FRAME.assign(year=[1j, 2, 3]), "complex numbers in 'year'"),
        (FRAME.assign(year=[2**60, 2, 3]), r"beyond 2\*\*53 in 'year'"),
        (FRAME.assign(year=pd.Series([2**60, None, 3], dtype=object)), r"beyond 2\*\*53 in 'year'"),
        (FRAME.assign(year=pd.Series([2**70, None, 3], dtype=object)), r"beyond 2\*\*53 in 'year'"),
        (FRAME.assign(year=pd.Series([{"p", 1}, {"q"}, set()])), "expected a column of numbers, dates or text"),
        (
            FRAME.assign(year=np.array(["1000000-01-01", "2021-01-01", "2022-01-01"], dtype="datetime64[s]")),
            "dates in 'year' that microseconds cannot count; expected -200000-01-01 to 200000-01-01",
        ),
        (
            FRAME.assign(year=MIXED[0]),
            r"has \{'x': 1\} in 'year'; expected a column of numbers, dates",
        ),
        (FRAME.assign(year=MIXED[1]), "has 1 in 'year'; expected a column of numbers"),
    ],
)
def test_wrong_metadata_is_named(frame: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_metadata(frame, pd.Index(["a", "b"]))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.assign(yaer=1), "the columns 'yaer', which the index lacks. Did you mean 'year'?"),
        (FRAME.drop(columns="year"), "lacks the columns 'year'; expected all that the index has"),
        (FRAME.assign(year="x"), "has text in 'year'; expected numbers, as the index has there"),
    ],
)
def test_further_metadata_has_the_same_columns(frame: Any, message: str) -> None:
    ids = pd.Index(["a", "b"])
    with pytest.raises(InvalidInputError, match=message):
        read_metadata(frame, ids, read_metadata(FRAME, ids))
    with pytest.raises(InvalidInputError, match="has numbers in 'year'; expected text or lists, which objects without"):
        read_metadata(FRAME, ids, read_metadata(FRAME.assign(year=None), ids))
    with pytest.raises(InvalidInputError, match=r"the index lacks\. It has none: build it with `metadata`"):
        read_metadata(FRAME, ids, read_metadata(None, ids))

"""Schemas are strict where JSON and Python are not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from recsys.serving import schemas

BODY: TypeAdapter[Any] = TypeAdapter(schemas.Answer)


def nested(depth: int) -> dict[str, Any]:
    return {"not": nested(depth - 1)} if depth else {"year": 1}


def test_one_or_many() -> None:
    one = BODY.validate_python({"user": 1, "features": {"age": 3, "genres": ["War", None]}, "interactions": {"5": 4}})
    assert isinstance(one, schemas.Recommend)
    assert one == schemas.Recommend(user=1, features={"age": 3, "genres": ["War", None]}, interactions={"5": 4})
    assert (one.k, one.exclude_seen, one.on_cold, one.where) == (10, True, "features", None)
    many = BODY.validate_python({"requests": [{"user": "1"}, {}]})
    assert isinstance(many, schemas.RecommendMany)
    assert [each.user for each in many.requests] == ["1", None]


@pytest.mark.parametrize(
    "body",
    [
        {"user": True},
        {"user": 1.0},
        {"user": 2**63},
        {"user": -(2**63) - 1},
        {"user": [1]},
        {"user": "x" * 1001},
        {"k": 0},
        {"k": True},
        {"k": "10"},
        {"k": 2**63},
        {"unknown": 1},
        {"requests": []},
        {"requests": [{"user": 1}], "k": 3},
        {"features": {"age": float("inf")}},
        {"features": {"age": 2**70}},
        {"features": {"age": {"a": 1}}},
        {"features": [1]},
        {"context": {"hour": [[1]]}},
        {"interactions": [1, True]},
        {"interactions": {"1": float("nan")}},
        {"interactions": {"1": True}},
        {"interactions": "12"},
        {"candidates": 5},
        {"exclude": {"1": 2}},
        {"exclude_seen": 1},
        {"on_cold": "hot"},
        {"where": []},
        {"where": {"year": float("nan")}},
        {"where": {"year": {"in": [1, 2**64]}}},
        {"where": nested(17)},
        {"where": {"or": [{"year": 1}] * 600}},
        [],
        None,
        "x",
        7,
    ],
)
def test_what_is_not_expected_is_refused(body: Any) -> None:
    with pytest.raises(ValidationError):
        BODY.validate_python(body)


def test_bounds_are_allowed() -> None:
    for label in (2**63 - 1, -(2**63), "x" * 1000, ""):
        assert BODY.validate_python({"user": label}).user == label
    assert BODY.validate_python({"where": nested(15)}).where == nested(15)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "x" * 101, "a\x00", "a\n", "ä", "~"])
def test_a_bundle_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValidationError):
        schemas.Swap(name=name)


def test_plain_names() -> None:
    for name in ("a", "2026-11-28_v1.2", "_", "x" * 100):
        assert schemas.Swap(name=name).name == name


def test_a_refused_label_is_told_once() -> None:
    with pytest.raises(ValidationError) as caught:
        BODY.validate_python({"user": True})
    assert [each["msg"] for each in caught.value.errors()] == [
        "expected a label: text of at most 1,000 characters, or a whole number of 64 bits"
    ]

"""Answers are JSON that any reader takes."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal

import numpy as np
import pytest

from recsys.serving.answers import plain, scored, to_error, to_json


def test_any_text_can_be_sent() -> None:
    found = to_json({"title": "ä \ud800 ☃"}, 201, {"x-y": "z"})
    assert found.body == b'{"title":"\\u00e4 \\ud800 \\u2603"}'
    assert (found.status_code, found.headers["content-type"], found.headers["x-y"]) == (201, "application/json", "z")
    assert json.loads(bytes(found.body)) == {"title": "ä \ud800 ☃"}


def test_what_is_no_json_is_not_sent() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        to_json({"score": float("nan")})


def test_metadata_become_what_json_has() -> None:
    told = {"year": float("nan"), "when": datetime(2001, 2, 3), "price": Decimal("1.50"), 5: ("a", 1, True, None)}
    assert plain(told) == {"year": None, "when": "2001-02-03 00:00:00", "price": "1.50", "5": ["a", 1, True, None]}
    assert plain(np.float64("inf")) is None


def test_scores_are_floats() -> None:
    assert scored([1, "a"], [np.float64(0.5), 2]) == [{"id": 1, "score": 0.5}, {"id": "a", "score": 2.0}]


def test_errors_are_named_by_their_status() -> None:
    assert json.loads(bytes(to_error(413, "Too long.").body)) == {"error": {"type": "TooLarge", "message": "Too long."}}
    assert json.loads(bytes(to_error(503, "No.", "Closing").body))["error"]["type"] == "Closing"

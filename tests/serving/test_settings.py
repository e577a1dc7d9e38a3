"""Settings are checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys.exceptions import InvalidInputError, InvalidTypeError
from recsys.serving import Settings


def test_defaults_are_valid_and_nothing_is_converted() -> None:
    settings = Settings(Path("bundle"), api_key="k3y", timeout=2)
    assert (settings.bundle, settings.root, settings.api_key, settings.timeout) == (Path("bundle"), None, "k3y", 2)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("max_users", 0, InvalidInputError),
        ("max_k", True, InvalidTypeError),
        ("max_items", 2.5, InvalidTypeError),
        ("max_body", "1", InvalidTypeError),
        ("max_batch", -1, InvalidInputError),
        ("max_wait", -0.1, InvalidInputError),
        ("max_wait", float("nan"), InvalidInputError),
        ("timeout", 0, InvalidInputError),
        ("timeout", float("inf"), InvalidInputError),
        ("drain", None, InvalidTypeError),
        ("api_key", "", InvalidInputError),
        ("api_key", "schlüssel", InvalidInputError),
        ("api_key", "two\nlines", InvalidInputError),
        ("api_key", " k3y", InvalidInputError),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, value: Any, kind: type[InvalidInputError]) -> None:
    with pytest.raises(kind, match=rf"^`{name}` is .*; expected "):
        Settings(Path("bundle"), **{name: value})


@pytest.mark.parametrize("value", ["", "schlüssel", " s3cret"])
def test_a_key_is_not_told_in_an_error(value: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Settings(Path("bundle"), api_key=value)
    assert not value or value.strip() not in str(caught.value)

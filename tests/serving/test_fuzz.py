"""Whatever is sent, nothing breaks: requests drawn from the OpenAPI document, valid ones and others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from recsys.serving import Settings, create_app
from tests.serving.clients import ask

# What the service says of unknown items, and of users of another type, is a warning.
pytestmark = [
    pytest.mark.filterwarnings("ignore::recsys.exceptions.DataWarning"),
    pytest.mark.filterwarnings("ignore::recsys.exceptions.ColdStartWarning"),
]

OPERATIONS = [
    "POST /recommend",
    "POST /similar",
    "POST /reach",
    "GET /explain",
    "POST /explain",
    "GET /items",
    "PUT /items",
    "DELETE /items",
    "PUT /items/{item}",
    "DELETE /items/{item}",
    "POST /bundle",
]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def fuzzed(bundles: Path) -> FastAPI:
    return create_app(Settings(bundles / "first", root=bundles, max_wait=60.0, timeout=60.0))


@pytest.fixture(scope="module")
def document(fuzzed: FastAPI) -> Any:
    return schemathesis.openapi.from_dict(fuzzed.openapi())


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_as_documented(fuzzed: FastAPI, document: Any, name: str, mode: GenerationMode) -> None:
    """Requests as the document describes them, and others: each gets a documented status and a body of its schema."""
    method, path = name.split()
    operation = document[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=10, suppress_health_check=list(HealthCheck))
    def check(case: Any) -> None:
        kwargs = case.as_transport_kwargs(base_url="http://localhost")
        sent = {name: kwargs.get(name) for name in ("params", "headers")}
        answer = ask(fuzzed, kwargs["method"], kwargs["url"], kwargs.get("json"), content=kwargs.get("data"), **sent)
        case.validate_response(answer, checks=CHECKS)

    check()


# What a schema would not draw: anything that is JSON, in the places of what is expected.
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -(2**63), 2**64, 0, -1, 10**30, 1e308, 5e-324, 1.0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["1", "7", "age", "genres", "War", "\x00", "\U0001f4a9", "2001-02-03", "nan", "__class__"]),
)
NAMES = st.sampled_from(
    ["age", "gender", "genres", "year", "title", "and", "or", "not", "in", "==", ">=", "1", "", "x"]
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=10
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "user": LEAVES | ANYTHING,
        "features": st.dictionaries(NAMES, ANYTHING, max_size=3) | ANYTHING,
        "interactions": st.lists(LEAVES, max_size=3) | st.dictionaries(NAMES, LEAVES, max_size=3) | ANYTHING,
        "context": ANYTHING,
        "k": st.integers(1, 60) | ANYTHING,
        "where": st.dictionaries(NAMES, ANYTHING, max_size=3),
        "candidates": st.lists(st.integers(1, 60) | LEAVES, max_size=4) | ANYTHING,
        "exclude": st.lists(st.integers(1, 60) | LEAVES, max_size=4) | ANYTHING,
        "exclude_seen": st.booleans() | ANYTHING,
        "on_cold": st.sampled_from(["features", "popular", "raise"]) | ANYTHING,
    },
)


@given(bodies=st.lists(BODIES, min_size=1, max_size=3))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_no_request_for_recommendations_breaks_anything(fuzzed: FastAPI, bodies: list[Any]) -> None:
    for body in (bodies[0], {"requests": bodies}):
        found = ask(fuzzed, "POST", "/recommend", body)
        assert found.status_code in (200, 422), found.text
        if found.status_code == 422:
            assert found.json()["error"]["message"]


@given(body=st.binary(max_size=60) | ANYTHING.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=50, suppress_health_check=list(HealthCheck))
def test_no_body_breaks_anything(fuzzed: FastAPI, body: bytes) -> None:
    for method, path in (("POST", "/recommend"), ("POST", "/explain"), ("PUT", "/items"), ("DELETE", "/items")):
        found = ask(fuzzed, method, path, content=body, headers={"content-type": "application/json"})
        assert found.status_code in (200, 422), found.text

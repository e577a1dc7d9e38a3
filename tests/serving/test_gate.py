"""What every request passes, and what every answer carries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI

from recsys.serving import Settings, create_app
from recsys.serving.security import HEADERS
from tests.serving.clients import ask, error
from tests.serving.delegates import Delegate, loading

CHANGES = [
    ("PUT", "/items/901", {"features": {}}),
    ("PUT", "/items", {"items": [{"id": 901, "features": {}}]}),
    ("DELETE", "/items/1", None),
    ("DELETE", "/items", {"items": [1]}),
    ("POST", "/bundle", {"name": "second"}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_changes_need_the_key(settings: Settings, method: str, path: str, body: Any) -> None:
    app = create_app(replace(settings, api_key="s3cret"))
    for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}):
        assert error(ask(app, method, path, body, headers=headers), 401)[0] == "Unauthorized"
        # Not even what is wrong with the body is told.
        error(ask(app, method, path, {"x": 1}, headers=headers), 401)
    assert ask(app, "GET", "/schema").json() == {**ask(app, "GET", "/schema").json(), "bundle": "first", "n_items": 50}
    assert ask(app, method, path, body, headers={"x-api-key": "s3cret"}).status_code == 200
    again = create_app(replace(settings, api_key="s3cret"))
    assert ask(again, method, path, body, headers={"authorization": "Bearer s3cret"}).status_code == 200


def test_nobody_needs_the_key_to_ask(settings: Settings) -> None:
    app = create_app(replace(settings, api_key="s3cret"))
    for method, path, body in (
        ("POST", "/recommend", {"user": 1}),
        ("POST", "/similar", {"items": [1]}),
        ("POST", "/explain", {"user": 1, "items": [1]}),
        ("GET", "/explain?user=1&item=1", None),
        ("GET", "/items?ids=1", None),
        ("GET", "/metrics", None),
    ):
        assert ask(app, method, path, body).status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_without_a_key_no_other_site_changes_anything(app: FastAPI, method: str, path: str, body: Any) -> None:
    assert error(ask(app, method, path, body, headers={"host": "evil.example"}), 403)[0] == "Forbidden"
    assert error(ask(app, method, path, body, headers={"origin": "http://evil.example"}), 403)[0] == "Forbidden"
    assert ask(app, method, path, body, headers={"origin": "http://localhost"}).status_code == 200


def test_every_answer_carries_the_headers_of_security(settings: Settings) -> None:
    class Broken(Delegate):
        def similar_items(self, *args: Any, **options: Any) -> list[Any]:
            raise ZeroDivisionError("secret")

    app = create_app(settings, loading(Broken))
    for status, method, path, body in (
        (200, "POST", "/recommend", {"user": 1}),
        (404, "GET", "/nothing", None),
        (403, "POST", "/nothing", None),
        (405, "PUT", "/recommend", None),
        (422, "POST", "/recommend", {"k": 0}),
        (500, "POST", "/similar", {"items": [1]}),
    ):
        headers = {"host": "evil.example"} if status == 403 else {}
        found = ask(app, method, path, body, headers=headers)
        assert found.status_code == status
        for name, value in HEADERS:
            assert found.headers.get_list(name.decode()) == [value.decode()]
    # What went wrong here is for the log.
    assert error(found, 500) == ("Unexpected", "Something went wrong here; the log of the service says what.")
    count = app.state.service.metrics.registry.get_sample_value
    assert count("recsys_requests_total", {"method": "POST", "route": "/similar", "status": "500"}) == 1


def test_who_would_wait_too_long_is_refused_before_the_body_is_read(app: FastAPI) -> None:
    n_read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal n_read
        n_read += 1
        yield b"{}"

    service = app.state.service
    service.batcher.expected_wait = lambda n: 61.5
    for path in ("/recommend", "/similar", "/reach", "/explain"):
        found = ask(app, "POST", path, content=body(), headers={"content-type": "application/json"})
        assert error(found, 503)[0] == "Overloaded"
        assert found.headers["retry-after"] == "62"
    # Others ask the thread that answers as well, but have no body.
    assert ask(app, "GET", "/items?ids=1").status_code == 503
    assert ask(app, "GET", "/healthz").status_code == ask(app, "PUT", "/items/901", {"features": {}}).status_code == 200
    assert n_read == 0
    count = service.metrics.registry.get_sample_value
    assert count("recsys_shed_total") == 5
    assert count("recsys_requests_total", {"method": "POST", "route": "/similar", "status": "503"}) == 1


def test_a_line_break_at_the_end_of_an_address_is_not_left_off(app: FastAPI) -> None:
    for method, path, body in (
        ("DELETE", "/items/1%0A", None),
        ("DELETE", "/items/%0A", None),
        ("DELETE", "/items/1%0Ab", None),
        ("PUT", "/items/901%0A", {"features": {}}),
        ("GET", "/schema%0A", None),
    ):
        assert error(ask(app, method, path, body), 404)[0] == "NotFound"
    assert ask(app, "GET", "/schema").json()["n_items"] == 50
    assert ask(app, "GET", "/items?ids=1").status_code == 200


def test_an_address_that_is_no_text_is_refused(app: FastAPI) -> None:
    for method, path, body in (
        ("PUT", "/items/%FF", {"features": {}}),
        ("PUT", "/items/%ed%a0%80", {"features": {}}),
        ("DELETE", "/items/%C3", None),
        ("GET", "/items?ids=%FF", None),
        ("GET", "/explain?user=1&item=%fe", None),
    ):
        assert "expected UTF-8" in error(ask(app, method, path, body), 422)[1]
    # What is text is read, whatever the bundle says of it.
    for method, path in (("DELETE", "/items/%C3%A9%EF%BF%BD"), ("GET", "/items?ids=%C3%A9%EF%BF%BD")):
        assert "\xe9\ufffd" in error(ask(app, method, path), 422)[1]


def test_a_connection_whose_body_is_not_read_is_closed(settings: Settings) -> None:
    app = create_app(replace(settings, max_body=50))
    film: dict[str, Any] = {"features": {}}
    for status, method, path, options in (
        (403, "PUT", "/items/901", {"json": film, "headers": {"host": "evil.example"}}),
        (413, "PUT", "/items/901", {"content": b" " * 100, "headers": {"content-type": "application/json"}}),
        (404, "POST", "/nothing", {"json": film, "headers": {"host": "localhost"}}),
        (405, "PUT", "/schema", {"json": film}),
    ):
        found = ask(app, method, path, **options)
        assert (found.status_code, found.headers.get_list("connection")) == (status, ["close"])
    for status, method, path, body in (
        (200, "PUT", "/items/901", film),
        (422, "PUT", "/items/901", {"x": 1}),
        (200, "GET", "/schema", None),
        (404, "GET", "/nothing", None),
        (422, "DELETE", "/items/777", None),
    ):
        found = ask(app, method, path, body)
        assert (found.status_code, found.headers.get_list("connection")) == (status, [])

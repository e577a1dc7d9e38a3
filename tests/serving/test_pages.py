"""The page and its files come from memory, with the right types, and load nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI

from recsys.serving import Settings, create_app, pages
from tests.serving.clients import ask, error


@pytest.fixture
def with_page(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    folder = tmp_path / "static"
    (folder / "parts").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><p>ä", encoding="utf-8")
    (folder / "page.js").write_text("export const one = 1;")
    (folder / "page.css").write_text("p { margin: 0 }")
    (folder / "parts/film.mjs").write_text("export {};")
    (folder / "icon.svg").write_text("<svg/>")
    (folder / "notes.py").write_text("nothing to serve")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(pages, "FOLDER", folder)
    return create_app(settings)


def test_files_are_served_with_their_types(with_page: FastAPI) -> None:
    for path, kind, content in (
        ("/", "text/html; charset=utf-8", "<!doctype html><p>ä"),
        ("/static/index.html", "text/html; charset=utf-8", "<!doctype html><p>ä"),
        ("/static/page.js", "text/javascript; charset=utf-8", "export const one = 1;"),
        ("/static/page.css", "text/css; charset=utf-8", "p { margin: 0 }"),
        ("/static/parts/film.mjs", "text/javascript; charset=utf-8", "export {};"),
        ("/static/icon.svg", "image/svg+xml", "<svg/>"),
    ):
        found = ask(with_page, "GET", path)
        assert (found.status_code, found.headers["content-type"], found.text) == (200, kind, content)
        assert found.headers["content-security-policy"].startswith("default-src 'self';")
        assert found.headers["x-content-type-options"] == "nosniff"
        again = ask(with_page, "GET", path, headers={"if-none-match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert ask(with_page, "HEAD", "/").status_code == 200


@pytest.mark.parametrize(
    "path", ["notes.py", "../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "parts", "", "/etc/hostname", "x.js"]
)
def test_nothing_else_is_served(with_page: FastAPI, path: str) -> None:
    assert error(ask(with_page, "GET", f"/static/{path}"), 404)[0] == "NotFound"


def test_what_can_be_asked_is_shown_without_scripts(app: FastAPI) -> None:
    found = ask(app, "GET", "/docs")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    heads = re.findall(r"<h2>(.*?)</h2>", found.text)
    operations = [
        f"{method.upper()} {path}"
        for path, each in ask(app, "GET", "/openapi.json").json()["paths"].items()
        for method in each
    ]
    assert heads == [*operations, "Schemas"]
    assert "POST /recommend" in heads
    assert not re.search(r"<(script|style|link|img)|style=|https?://", found.text)


def test_what_a_schema_says_is_escaped() -> None:
    schema = {"info": {"title": "<b>"}, "paths": {"/<i>": {"get": {"description": "<u>", "parameters": ["<s>"]}}}}
    text = pages.describe(schema)
    assert not re.search("<[bius]>", text)
    assert "&lt;u&gt;" in text


def test_the_files_of_the_package_ask_for_nothing_elsewhere() -> None:
    for name, file in pages.read_files(pages.FOLDER).items():
        if file.type.startswith("text/"):
            found = re.findall(r"https?://[^\s\"'<>)]*", file.content.decode())
            assert [each for each in found if not each.startswith("http://www.w3.org/")] == [], name

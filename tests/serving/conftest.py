"""What the tests of the service share: a small bundle, an application, and a client without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from recsys import ContentEASE
from recsys.datasets import make_movielens_like
from recsys.serving import Settings, create_app
from tests.browser import Browser, Page, browsing
from tests.serving.page import Server, opened, serving


@pytest.fixture(scope="session")
def data() -> Any:
    return make_movielens_like(n_users=60, n_items=50, n_interactions=1200, random_state=0)


@pytest.fixture(scope="session")
def bundles(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles "first" and "second", which answer otherwise."""
    folder = tmp_path_factory.mktemp("bundles")
    X = data.interactions[["user_id", "item_id"]]
    for name, l2 in (("first", 1.0), ("second", 300.0)):
        model = ContentEASE(n_factors=4, l2=l2, random_state=0)
        model.fit(X, user_features=data.users, item_features=data.items).export(folder / name, metadata=data.items)
    return folder


@pytest.fixture
def settings(bundles: Path) -> Settings:
    """Where a busy machine lets nobody wait too long; tests of that say otherwise."""
    return Settings(bundles / "first", root=bundles, max_wait=60.0, timeout=60.0)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture(scope="session")
def server(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service in a process of its own."""
    with serving(bundles / "first", tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def browser(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A running Chromium."""
    with browsing(chromium, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The page as it opens; nothing may go wrong behind its back, nor be loaded from elsewhere."""
    page = opened(browser, server)
    yield page
    assert page.console == []
    assert {address for address in page.requests if not address.startswith((server.address, "about:"))} == set()
    page.close()

"""What the tests share: where the real data is, how hypothesis searches, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from recsys.datasets._bunch import DatasetBunch

ROOT = Path(__file__).resolve().parents[1]
IN_CI = os.environ.get("CI", "").lower() == "true"

# A shared machine is slow at times, which says nothing of the code; CI tries the same examples on every run.
settings.register_profile("recsys", deadline=None, derandomize=IN_CI, print_blob=True)
settings.load_profile("recsys")


@pytest.fixture
def without_pyarrow() -> Iterator[None]:
    """Text as where pyarrow is not installed, which has no form for half of a surrogate pair."""
    with pd.option_context("mode.string_storage", "python"):
        yield


@pytest.fixture(scope="session")
def data_home() -> Path:
    """Folder of the real data sets: ``RECSYS_DATA_HOME``, else ``data/`` of the checkout."""
    return Path(os.environ.get("RECSYS_DATA_HOME") or ROOT / "data")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser that pages are tested in."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "No Chromium: apt-get install chromium."
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def ml_100k(data_home: Path) -> DatasetBunch:
    """MovieLens-100K; do not change its frames, the whole session shares them."""
    return _movielens("100k", data_home, "ml-100k/u.data")


@pytest.fixture(scope="session")
def ml_1m(data_home: Path) -> DatasetBunch:
    """MovieLens-1M; do not change its frames, the whole session shares them."""
    return _movielens("1m", data_home, "ml-1m/ratings.dat")


def _movielens(name: str, data_home: Path, file: str) -> DatasetBunch:
    if not (data_home / file).is_file():
        message = f"No {file} in {data_home}: set RECSYS_DATA_HOME to a folder that has it."
        # A test never downloads. A machine without the data is a newcomer's; CI must have it.
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    from recsys.datasets import fetch_movielens

    return fetch_movielens(name, data_home=data_home, download=False)

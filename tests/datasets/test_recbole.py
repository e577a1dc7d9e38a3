"""MovieLens-100K out of RecBole's wheel: real pip, and a wheel of our own making."""

from __future__ import annotations

import hashlib
import io
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pooch
import pytest

from recsys.datasets import _recbole, fetch_movielens
from recsys.datasets._bunch import DatasetBunch
from recsys.exceptions import DatasetError
from tests.datasets.conftest import Server
from tests.datasets.layouts import LAYOUTS, zipped

WHEEL = "recbole-1.2.1-py3-none-any.whl"
FOLDER = "recbole/dataset_example/ml-100k/ml-100k"


def wheel_of(u_data: bytes, u_user: bytes, items: str) -> bytes:
    """A wheel that pip accepts, with the data where RecBole has it."""
    info = "recbole-1.2.1.dist-info"
    return zipped(
        {
            f"{FOLDER}.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + u_data,
            f"{FOLDER}.user": b"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
            + u_user.replace(b"|", b"\t"),
            f"{FOLDER}.item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            + items.encode(),
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
    )


def recbole_items(official: bytes) -> str:
    """The items as RecBole writes them, its two slips included."""
    lines = []
    for line in official.decode("latin-1").splitlines():
        item_id, title, _, _, _, *flags = line.split("|")
        genres = [genre for genre, flag in zip(_recbole.ML_100K_GENRES, flags, strict=True) if flag == "1"]
        name, _, year = title.strip().rpartition(" (")
        year = year.rstrip(")")
        if title == "unknown":
            name = year = "unkonwn"
        lines.append("\t".join([item_id, name, year, " ".join(genres)]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def small_wheel(monkeypatch: pytest.MonkeyPatch) -> bytes:
    files = LAYOUTS["100k"][1]
    # In the small layout "unknown" is item 3, in the real one 267.
    monkeypatch.setattr(_recbole, "_MENDED", {"3": "unknown"})
    return wheel_of(files["u.data"], files["u.user"], recbole_items(files["u.item"]))


@pytest.fixture
def index(tmp_path: Path, small_wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as pip's only index, with that wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / WHEEL).write_bytes(small_wheel)
    monkeypatch.setattr(_recbole, "WHEEL_SHA256", hashlib.sha256(small_wheel).hexdigest())
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_wheel_stands_in_for_grouplens(tmp_path: Path, grouplens: Server, index: Path) -> None:
    home = tmp_path / "home"
    data = fetch_movielens("100k", data_home=home, verbose=False)
    (tmp_path / "official" / "ml-100k").mkdir(parents=True)
    for name, content in LAYOUTS["100k"][1].items():
        (tmp_path / "official" / "ml-100k" / name).write_bytes(content)
    official = fetch_movielens("100k", data_home=tmp_path / "official")
    for frame in ("interactions", "users", "items"):
        pd.testing.assert_frame_equal(data[frame], official[frame])
    assert "wheel of RecBole 1.2.1" in data.DESCR
    assert "wheel of RecBole" not in official.DESCR
    assert [path.name for path in home.iterdir()] == ["ml-100k"]
    assert len(grouplens.asked) == 3


@pytest.mark.parametrize("verbose", [True, False])
def test_it_is_told_that_the_wheel_was_taken(
    verbose: bool, tmp_path: Path, grouplens: Server, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pooch logs on the stderr of when it was imported.
    shown = io.StringIO()
    monkeypatch.setattr(pooch.get_logger().handlers[0], "stream", shown)
    fetch_movielens("100k", data_home=tmp_path / "home", verbose=verbose)
    last = shown.getvalue().strip().split("\n")[-1]
    if not verbose:
        assert last == ""
        return
    assert last.startswith("ml-100k was not fetched from GroupLens: 404 Client Error")
    assert last.endswith(
        f". Taken instead, and written to {tmp_path / 'home' / 'ml-100k'}: the copy in recbole==1.2.1, from the "
        f"package index; PROVENANCE.txt there tells what it lacks."
    )


def test_another_wheel_is_not_used(
    tmp_path: Path, grouplens: Server, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recbole, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(DatasetError, match=rf"nor from the package index: {WHEEL} has SHA-256 .* It was not used"):
        fetch_movielens("100k", data_home=tmp_path / "home", verbose=False)
    assert list((tmp_path / "home").iterdir()) == []


def test_when_nothing_works_both_reasons_are_given(tmp_path: Path, grouplens: Server, index: Path) -> None:
    (index / WHEEL).unlink()
    with pytest.raises(DatasetError) as caught:
        fetch_movielens("100k", data_home=tmp_path / "home", verbose=False)
    message = str(caught.value)
    assert "from GroupLens: 404 Client Error" in message
    assert "pip could not download recbole==1.2.1: ERROR: No matching distribution found" in message
    assert str(tmp_path / "home" / "ml-100k" / "u.data") in message
    assert isinstance(caught.value.__cause__, DatasetError)
    assert list((tmp_path / "home").iterdir()) == []


def test_pip_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: Sequence[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr("recsys.datasets._recbole.subprocess.run", hang)
    with pytest.raises(DatasetError, match=r"pip did not deliver recbole==1\.2\.1 within \d+ s"):
        _recbole.fetch_from_wheel("ml-100k", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_100k_comes_from_the_wheel(tmp_path: Path, grouplens: Server, index: Path) -> None:
    with pytest.raises(DatasetError, match="ml-1m could not be fetched from GroupLens: 404"):
        fetch_movielens("1m", data_home=tmp_path / "home", verbose=False)


def test_the_converted_copy_equals_the_official_one(ml_100k: DatasetBunch, data_home: Path, tmp_path: Path) -> None:
    official = data_home / "ml-100k"
    wheel = tmp_path / WHEEL
    items = recbole_items((official / "u.item").read_bytes())
    wheel.write_bytes(wheel_of((official / "u.data").read_bytes(), (official / "u.user").read_bytes(), items))
    _recbole.convert_wheel(wheel, tmp_path / "ml-100k")
    for name in ("u.data", "u.user"):
        assert (tmp_path / "ml-100k" / name).read_bytes() == (official / name).read_bytes()
    copy = fetch_movielens("100k", data_home=tmp_path)
    for frame in ("interactions", "users", "items"):
        pd.testing.assert_frame_equal(copy[frame], ml_100k[frame])

"""Archives: where they go, and what they may not do."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pooch
import pytest

from recsys.datasets._fetch import fetch_archive, publish, resolve_data_home, unpack, workspace
from recsys.exceptions import DatasetError, InvalidInputError, InvalidTypeError
from tests.datasets.conftest import Server
from tests.datasets.layouts import zipped


def test_data_home_is_the_argument_then_the_variable_then_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_DATA_HOME", str(tmp_path / "variable"))
    assert resolve_data_home(str(tmp_path)) == tmp_path
    assert resolve_data_home(None) == tmp_path / "variable"
    monkeypatch.setenv("RECSYS_DATA_HOME", "")
    assert resolve_data_home(None) == Path(pooch.os_cache("recsys"))
    monkeypatch.delenv("RECSYS_DATA_HOME")
    assert resolve_data_home(None) == Path(pooch.os_cache("recsys"))


def test_data_home_may_begin_with_a_tilde() -> None:
    assert resolve_data_home("~/data") == Path.home() / "data"


def test_data_home_that_is_no_path_is_refused() -> None:
    wrong: Any = 3
    with pytest.raises(InvalidTypeError, match=r"`data_home` is 3; expected the path of a folder"):
        resolve_data_home(wrong)
    with pytest.raises(InvalidInputError, match=r"`data_home` is ''; expected .*: for the current folder write '\.'\."):
        resolve_data_home("")
    assert resolve_data_home(".") == Path()


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "C:\\evil", "C:evil", "\\evil", "a\\..\\..\\evil", "..", "a/.."],
)
def test_a_member_outside_the_folder_refuses_the_archive(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"good": b"good", name: b"evil"}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match=r"a\.zip holds .* outside its folder; nothing was unpacked"):
        unpack(archive, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_refuses_the_archive(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(link, "/etc")
        content.writestr("link/evil", "evil")
    with pytest.raises(DatasetError, match=r"holds 'link', which would be written outside"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpack_writes_every_member(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    members = {"a/b/c.txt": b"1", "a/d..e": b"2", "..f": b"3", "g/": b""}
    archive.write_bytes(zipped(members))
    unpack(archive, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*")}
    assert {name: path.read_bytes() for name, path in found.items() if path.is_file()} == {
        "a/b/c.txt": b"1",
        "a/d..e": b"2",
        "..f": b"3",
    }
    assert found["g"].is_dir()


def test_a_workspace_vanishes_even_when_its_use_fails(tmp_path: Path) -> None:
    def use() -> None:
        with workspace(tmp_path / "home", "ml-1m") as work:
            (work / "half").write_bytes(b"written")
            assert work.parent == tmp_path / "home"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert list((tmp_path / "home").iterdir()) == []


def test_the_first_of_two_processes_wins(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    publish(theirs, tmp_path / "target")
    publish(mine, tmp_path / "target")
    assert (tmp_path / "target" / "file").read_text() == "theirs"


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "target").write_text("in the way")
    with pytest.raises(OSError, match="target"):
        publish(tmp_path / "mine", tmp_path / "target")


def test_an_archive_without_the_folder_is_refused(tmp_path: Path, grouplens: Server) -> None:
    grouplens.answers = [zipped({"other/file": b"1"})]
    with pytest.raises(DatasetError, match="holds no folder wanted/"):
        fetch_archive(f"{grouplens.url}a.zip", None, "wanted", tmp_path, verbose=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verbose", [True, False])
def test_progress_is_shown_only_when_asked_for(
    verbose: bool, tmp_path: Path, grouplens: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    level = pooch.get_logger().level
    grouplens.answers = [zipped({"wanted/file": os.urandom(1 << 16)})]
    fetch_archive(f"{grouplens.url}a.zip", None, "wanted", tmp_path, verbose=verbose)
    assert ("100%" in capfd.readouterr().err) is verbose
    assert pooch.get_logger().level == level
    assert [path.name for path in tmp_path.iterdir()] == ["wanted"]

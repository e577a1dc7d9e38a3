"""A save that is killed, interrupted or out of disk leaves the old model or the new one, and loads never notice."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recsys import EASE, load
from recsys.exceptions import PersistenceError

ROOT = Path(__file__).resolve().parents[1]
X = pd.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": [1, 2, 1]})
MORE = pd.DataFrame({"user_id": ["ann", "ann", "bob", "bob"], "item_id": [1, 2, 1, 3]})


@pytest.fixture
def old() -> EASE:
    return EASE(l2=1.0).fit(X)


@pytest.fixture
def new() -> EASE:
    return EASE(l2=2.0).fit(MORE)


@pytest.fixture
def saved(old: EASE, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    old.save(path)
    return path


def _same(found: EASE, expected: EASE) -> bool:
    return (
        type(found) is type(expected)
        and found.get_params() == expected.get_params()
        and found.items_ == expected.items_
        and found.weights_.tolist() == expected.weights_.tolist()
    )


def _listing(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    def run(command: str) -> Any:
        folder = tmp_path_factory.mktemp(command)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # The child has one thread, whatever Python suspects when it forks.
        arguments = [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            str(ROOT / "tests/crash.py"),
            command,
            str(folder),
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize(("command", "before"), [("first", "none"), ("again", "old")])
def test_a_save_that_is_killed_at_any_step_leaves_the_old_model_or_the_new(
    command: str, before: str, crash: Callable[[str], Any]
) -> None:
    outcomes = crash(command)
    assert len(outcomes) > 10
    n_before = outcomes.count(before)
    assert 5 < n_before < len(outcomes)
    assert outcomes == [before] * n_before + ["new"] * (len(outcomes) - n_before)


def test_a_save_that_is_killed_at_any_moment_leaves_a_whole_model(crash: Callable[[str], Any]) -> None:
    found = crash("kill")
    assert found["old"] > 0
    assert found["new"] > 0
    assert found["old"] + found["new"] == 60


def test_loads_never_fail_while_others_save(crash: Callable[[str], Any]) -> None:
    found = crash("race")
    assert found["old"] > 0
    assert found["new"] > 0


class Interrupt:
    """Stands in for a function of `os`: fails at one call, before it or after."""

    def __init__(self, function: Callable[..., Any], at: int, error: BaseException, after: bool = False) -> None:
        self.function, self.at, self.error, self.after = function, at, error, after
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise self.error
        result = self.function(*arguments)
        if self.calls == self.at:
            raise self.error
        return result


@pytest.mark.parametrize("step", range(1, 5))
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=type)
def test_a_save_that_fails_leaves_the_old_model_and_no_other_file(
    step: int, error: BaseException, old: EASE, new: EASE, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _listing(saved)
    for path in (saved, saved.parent / "first"):
        monkeypatch.setattr(os, "fsync", Interrupt(os.fsync, step, error))
        with pytest.raises((PersistenceError, KeyboardInterrupt)) as caught:
            new.save(path)
        assert error in (caught.value, caught.value.__cause__)
        monkeypatch.undo()
    assert _listing(saved) == before
    assert _same(load(saved), old)
    assert [file.name for file in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("function", ["fsync", "mkdir"])
def test_a_save_that_fails_leaves_no_folder_that_it_made(
    function: str, new: EASE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    error = OSError(errno.ENOSPC, "No space left on device")
    if function == "mkdir":
        # Python 3.10 has taken os.mkdir into Path when it was imported.
        interrupt = Interrupt(Path.mkdir, 3, error)
        monkeypatch.setattr(Path, "mkdir", lambda path, *arguments: interrupt(path, *arguments))
    else:
        monkeypatch.setattr(os, function, Interrupt(getattr(os, function), 3, error))
    with pytest.raises(PersistenceError, match=r"failed: .*No space left on device; .* nothing half-written is left"):
        new.save(tmp_path / "empty/p/q/r/model")
    monkeypatch.undo()
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_a_save_that_fails_leaves_a_folder_that_others_use(
    new: EASE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        (tmp_path / "p/note").write_text("mine")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PersistenceError, match="No space left on device"):
        new.save(tmp_path / "p/q/model")
    monkeypatch.undo()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "p", tmp_path / "p/note"]


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_beside_the_rename_leaves_the_old_model_or_the_new(
    after: bool, old: EASE, new: EASE, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", Interrupt(os.replace, 1, KeyboardInterrupt(), after))
    with pytest.raises(KeyboardInterrupt):
        new.save(saved)
    monkeypatch.undo()
    assert _same(load(saved), new if after else old)


@contextmanager
def _files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Let the system refuse to write more into any file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("n_bytes", [0, 100, 600])
def test_a_disk_that_fills_up_leaves_the_old_model(n_bytes: int, old: EASE, new: EASE, saved: Path) -> None:
    before = _listing(saved)
    message = f"Writing to {saved} failed: .*too large.*; a model that was there still loads"
    with _files_of_at_most(n_bytes), pytest.raises(PersistenceError, match=message):
        new.save(saved)
    assert _listing(saved) == before
    assert _same(load(saved), old)
    new.save(saved)
    assert _same(load(saved), new)


def test_what_a_killed_save_left_is_removed_when_it_is_old(old: EASE, new: EASE, saved: Path) -> None:
    left = [f"arrays-{'0' * 16}.safetensors", f"state-{'1' * 16}.json", f"manifest-{'2' * 16}.tmp"]
    young, foreign = f"state-{'3' * 16}.json", ["state-mine.json", "README.md"]
    for name in [*left, young, *foreign]:
        (saved / name).write_text("x", encoding="utf-8")
    two_hours_ago = time.time() - 7200
    for name in [*left, *foreign]:
        os.utime(saved / name, (two_hours_ago, two_hours_ago))
    new.save(saved)
    kept = set(_listing(saved)) - {"manifest.json", next(saved.glob("arrays-*")).name}
    assert kept >= {young, *foreign}
    assert not kept & set(left)
    assert _same(load(saved), new)

"""Saves that are killed, run by test_persistence.py in a process of their own: ``python crash.py COMMAND FOLDER``.

Every command forks children that save one of two models, and prints as JSON what became of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from recsys import Popularity, load
from recsys.exceptions import PersistenceError

KILLED = 9

# What Python reports of every operation on files, whoever asks for it.
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def models() -> dict[str, Popularity]:
    """Two models that share no number."""
    old = pd.DataFrame({"user_id": [1, 2, 2], "item_id": ["a", "a", "b"]})
    new = pd.DataFrame({"user_id": [f"u{i}" for i in range(50)], "item_id": [i % 7 for i in range(50)]})
    return {"old": Popularity(min_rating=1.0).fit(old), "new": Popularity(min_rating=2.0).fit(new)}


def which(path: Path, known: dict[str, Popularity]) -> str:
    """Say which of the models is saved there, whole; "none" where there is none."""
    try:
        found = load(path)
    except PersistenceError as error:
        if type(error) is PersistenceError and str(error).startswith("There is no saved model"):
            return "none"
        raise
    for name, model in known.items():
        if (
            found.get_params() == model.get_params()
            and found.users_ == model.users_
            and found.items_ == model.items_
            and found.popularity_.tolist() == model.popularity_.tolist()
            and found.history_.toarray().tolist() == model.history_.toarray().tolist()
        ):
            return name
    raise AssertionError(f"a mixture of models: {vars(found)}")


def in_child(action: Callable[[], object]) -> int:
    """Start a forked process that does this and then ends."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        action()
        status = 0
    finally:
        os._exit(status)


def exit_code(child: int) -> int:
    """Wait for a child."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(step: int, folder: Path) -> None:
    """Let this process die at its `step`-th operation in the folder: before it, or with a file half written."""
    count = 0
    fsync = os.fsync

    def operation(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in EVENTS and any(str(argument).startswith(str(folder)) for argument in arguments[:2]):
            count += 1
            if count == step:
                os._exit(KILLED)

    def torn_fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == step:
            if not os.path.isdir(f"/proc/self/fd/{handle}"):
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
            os._exit(KILLED)
        fsync(handle)

    mock.patch.object(os, "fsync", torn_fsync).start()
    sys.addaudithook(operation)


def every_step(folder: Path, known: dict[str, Popularity], first: bool) -> list[str]:
    """Kill a save at each of its steps in turn; say what each leaves."""
    outcomes: list[str] = []

    def save(path: Path) -> None:
        die_at(len(outcomes) + 1, path)
        known["new"].save(path)

    while True:
        path = folder / f"{len(outcomes):03}"
        if not first:
            known["old"].save(path)
        code = exit_code(in_child(partial(save, path)))
        assert code in (0, KILLED), code
        outcomes.append(which(path, known))
        # Whatever was left, the next save finds its way.
        known["old"].save(path)
        assert which(path, known) == "old"
        if code == 0:
            return outcomes


def any_moment(folder: Path, known: dict[str, Popularity], rounds: int = 60) -> dict[str, int]:
    """Kill processes that save all the time; count what they leave."""
    path, found = folder / "model", {"old": 0, "new": 0}
    begun, begin = os.pipe()

    def save() -> None:
        while True:
            known["new"].save(path)
            os.write(begin, b"!")
            known["old"].save(path)

    moments = random.Random(0)
    for _ in range(rounds):
        child = in_child(save)
        os.read(begun, 1)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        found[which(path, known)] += 1
    return found


def race(folder: Path, known: dict[str, Popularity], seconds: float = 2.0) -> dict[str, int]:
    """Two processes save, two others load, all at once; count what the loads found."""
    path, end = folder / "model", time.monotonic() + seconds
    known["old"].save(path)

    def save(name: str) -> None:
        while time.monotonic() < end:
            known[name].save(path)

    def read(file: Path) -> None:
        found = {"old": 0, "new": 0}
        while time.monotonic() < end:
            found[which(path, known)] += 1
        file.write_text(json.dumps(found))

    counts = [folder / "first.json", folder / "second.json"]
    children = [in_child(partial(save, name)) for name in known]
    children += [in_child(partial(read, file)) for file in counts]
    codes = [exit_code(child) for child in children]
    assert codes == [0] * 4, codes
    tallies = [json.loads(file.read_text()) for file in counts]
    return {name: sum(tally[name] for tally in tallies) for name in known}


if __name__ == "__main__":
    command, target = sys.argv[1], Path(sys.argv[2])
    commands: dict[str, Callable[[Path, dict[str, Popularity]], object]] = {
        "first": lambda folder, known: every_step(folder, known, first=True),
        "again": lambda folder, known: every_step(folder, known, first=False),
        "kill": any_moment,
        "race": race,
    }
    sys.stdout.write(json.dumps(commands[command](target, models())))

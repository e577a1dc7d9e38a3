"""Tasks in processes of their own: the results of a loop, and a task that ends its process ends nothing else."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from recsys.evaluation._processes import Done, run_tasks
from recsys.exceptions import PersistenceError


def doubled(task: int) -> Iterator[tuple[int, int]]:
    yield 2 * task, os.getpid()
    yield 2 * task + 1, os.getpid()


def test_processes_give_what_a_loop_gives() -> None:
    alone = list(run_tasks(doubled, range(5), n_jobs=1))
    beside = list(run_tasks(doubled, range(5), n_jobs=2))
    assert [done.result[0] for done in alone] == list(range(10))
    assert sorted(done.result[0] for done in beside) == list(range(10))
    assert all(done.result[0] // 2 == done.task for done in alone + beside)
    assert {done.result[1] for done in alone} == {os.getpid()}
    of_tasks = [{done.result[1] for done in beside if done.task == task} for task in range(5)]
    assert all(len(own) == 1 for own in of_tasks)
    others = set().union(*of_tasks)
    assert len(others) <= 2
    assert os.getpid() not in others
    # One task needs no second process.
    assert [done.result[1] for done in run_tasks(doubled, [1], n_jobs=2)] == [os.getpid()] * 2
    assert list(run_tasks(doubled, [], n_jobs=2)) == []


def surroundings(_: int) -> list[Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("seen", UserWarning, stacklevel=1)
    product = np.ones((2, 2)) @ np.ones((2, 2))
    return [(product.sum(), {library["num_threads"] for library in threadpool_info()}, len(caught))]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_process_has_the_threads_and_warnings_of_the_one_that_started_it(n_threads: int) -> None:
    with threadpool_limits(n_threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(run_tasks(surroundings, [0, 1], n_jobs=2))
    assert [done.result for done in found] == [(8.0, {n_threads}, 0)] * 2
    with pytest.warns(UserWarning, match="seen"):
        warnings.warn("seen", UserWarning, stacklevel=1)
    # Here, as in all tests, warnings are errors; so they are there.
    assert [done.error for done in run_tasks(surroundings, [0, 1], n_jobs=2)] == ["UserWarning: seen"] * 2


def fatal(task: int) -> list[int]:
    if task == 1:
        os._exit(7)
    return [task]


def test_a_task_that_ends_its_process_fails_alone() -> None:
    found = {done.task: done for done in run_tasks(fatal, [0, 1, 2, 3], n_jobs=2)}
    assert [found[task].result for task in (0, 2, 3)] == [0, 2, 3]
    assert found[1].result is None
    assert found[1].error.startswith("TerminatedWorkerError: ")


def echo(task: Any) -> list[Any]:
    return [task]


def test_a_task_that_cannot_be_sent_fails_alone() -> None:
    lock = threading.Lock()
    found = list(run_tasks(echo, [lock, "sent"], n_jobs=2))
    assert Done("sent", "sent") in found
    [failed] = [done for done in found if done.task is lock]
    assert failed.error.startswith("PicklingError: ")


def unkept(task: int) -> list[int]:
    raise PersistenceError(f"no room for {task}")


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_what_cannot_be_kept_ends_the_run(n_jobs: int | None) -> None:
    with pytest.raises(PersistenceError, match="no room for"):
        list(run_tasks(unkept, [1, 2], n_jobs))

"""Tasks one after the other, or in processes beside each other, with the same results; and what a process holds."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
from joblib import effective_n_jobs
from threadpoolctl import ThreadpoolController

from recsys.exceptions import InvalidInputError, InvalidTypeError, PersistenceError

__all__ = ["Done", "check_n_jobs", "memory", "reset_peak", "run_tasks", "told"]

Task = TypeVar("Task")

# What this process does with each task, where it is one of several.
_OWN: dict[str, Callable[[Any], list[Any]]] = {}


class Done(NamedTuple):
    """A result of a task; or, with result None, the error that it ended with."""

    task: Any
    result: Any
    error: str = ""


def check_n_jobs(n_jobs: Any) -> None:
    """Refuse what is no number of processes."""
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, Integral)):
        raise InvalidTypeError(f"`n_jobs` is {n_jobs!r}; expected a whole number, such as 2, or None.")
    if n_jobs == 0:
        raise InvalidInputError("`n_jobs` is 0; expected a number of processes, -1 for one a core, or None.")


def run_tasks(function: Callable[[Task], Iterable[Any]], tasks: Sequence[Task], n_jobs: int | None) -> Generator[Done]:
    """Call a function with each task, in this process or in `n_jobs` new ones.

    A new process has as many threads for linear algebra as this one, since their number decides how sums are rounded,
    and treats warnings and text in frames as this one does. A task that ends its process, or that cannot be sent to it,
    is told of as one that failed, and the others go on.

    Parameters
    ----------
    function : callable
        From a task to its results. Errors that it raises are its own to catch, but for those that end the whole run.
    tasks : sequence
    n_jobs : int or None
        As in scikit-learn; of 1 and None all is done here.

    Yields
    ------
    Done
        In this process as soon as there is one, from others once a task is done, in the order in which they are.

    Examples
    --------
    >>> [done.result for done in run_tasks(range, [2, 1], n_jobs=None)]
    [0, 1, 0]
    """
    n_processes = min(effective_n_jobs(n_jobs), len(tasks))
    if n_processes > 1:
        yield from _in_processes(function, tasks, n_processes)
        return
    for task in tasks:
        for result in function(task):
            yield Done(task, result)


def _in_processes(function: Callable[[Task], Iterable[Any]], tasks: Sequence[Task], n_processes: int) -> Iterator[Done]:
    left = dict(enumerate(tasks))
    with _pool(function, n_processes) as pool:
        places = {pool.submit(_run, task): place for place, task in left.items()}
        for future in _as_completed(places):
            # A process that died takes all others with it.
            if not isinstance(future.exception(), BrokenExecutor):
                yield from _results(left.pop(places[future]), future)
    # Who ends a process shows where each has one of its own.
    for task in left.values():
        with _pool(function, 1) as pool:
            yield from _results(task, pool.submit(_run, task))


def _results(task: Any, future: Any) -> Iterator[Done]:
    error = future.exception()
    # What was found could not be kept: that is no fault of a model.
    if isinstance(error, PersistenceError):
        raise error
    if error is not None:
        yield Done(task, None, told(error))
        return
    for result in future.result():
        yield Done(task, result)


@contextlib.contextmanager
def _pool(function: Callable[[Any], Iterable[Any]], n_processes: int) -> Iterator[Any]:
    from joblib.externals.loky import ProcessPoolExecutor

    threads = {library["filepath"]: library["num_threads"] for library in ThreadpoolController().info()}
    text = pd.get_option("mode.string_storage")
    pool = ProcessPoolExecutor(
        n_processes, initializer=_prepare, initargs=(function, threads, warnings.filters, text, os.getpid())
    )
    try:
        yield pool
    finally:
        # Also where whoever asked for the results has stopped asking.
        pool.shutdown(kill_workers=True)


def _as_completed(futures: Iterable[Any]) -> Iterator[Any]:
    from joblib.externals.loky import as_completed

    found: Iterator[Any] = as_completed(futures)
    return found


def _prepare(
    function: Callable[[Any], list[Any]], threads: dict[str, int], filters: Any, text: str, parent: int
) -> None:
    """Make a new process like the one that started it, and let it end with that."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    warnings.resetwarnings()
    warnings.filters = filters
    pd.set_option("mode.string_storage", text)
    for library in ThreadpoolController().lib_controllers:
        if library.filepath in threads:
            library.set_num_threads(threads[library.filepath])
    _OWN["function"] = function


def _end_with(parent: int) -> None:
    """End this process when its parent was killed; Windows, which tells no such thing, leaves it waiting."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run(task: Any) -> list[Any]:
    return list(_OWN["function"](task))


def told(error: BaseException) -> str:
    """An error as it stands in a table: its type and message."""
    return f"{type(error).__name__}: {error}"


def reset_peak() -> None:
    """Let Linux count the peak of this process's memory anew; elsewhere there is no such count."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory(field_name: str) -> float:
    """Memory of this process in MiB, as Linux counts it; NaN elsewhere."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    lines = [line.split() for line in status.splitlines() if line.startswith(f"{field_name}:")]
    return float(lines[0][1]) / 1024 if lines else float("nan")

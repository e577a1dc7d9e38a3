"""Micro-batches: all that waits is answered together, by one thread, while the next requests gather.

There is no delay: a request that finds the thread idle is answered at once, and under load batches grow by themselves.
A request that would wait too long is refused instead, so that those who were accepted are answered in time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from recsys.exceptions import RecsysError

__all__ = ["Batcher", "Costs", "OverloadedError"]

# What a batch counts when the next one is done, for the estimate of what batches cost.
_MEMORY = 0.95


class OverloadedError(RecsysError):
    """A request would wait too long.

    Attributes
    ----------
    seconds : float
        How long it would wait.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("There is more to do than can be done in time; expected fewer requests: wait and try again.")
        self.seconds = seconds


class Costs:
    """What batches cost, in seconds: a line over their size, in which older batches count less and less.

    A batch of two takes hardly longer than one of one. Whoever counted the time by head would refuse the requests
    that would have made batches larger.

    Examples
    --------
    >>> costs = Costs()
    >>> for n, seconds in ((1, 0.003), (5, 0.005), (3, 0.004)):
    ...     costs.learn(n, seconds)
    >>> round(costs.of(9), 6)
    0.007
    """

    def __init__(self) -> None:
        self._n_batches = self._n = self._seconds = self._squares = self._products = 0.0

    def learn(self, n: int, seconds: float) -> None:
        """A batch of n took so long."""
        self._n_batches = _MEMORY * self._n_batches + 1
        self._n = _MEMORY * self._n + n
        self._seconds = _MEMORY * self._seconds + seconds
        self._squares = _MEMORY * self._squares + n * n
        self._products = _MEMORY * self._products + n * seconds

    def of(self, n: int) -> float:
        """What a batch of n would cost; 0 as long as nothing is known."""
        if not self._n_batches:
            return 0.0
        mean, seconds = self._n / self._n_batches, self._seconds / self._n_batches
        variance = self._squares / self._n_batches - mean**2
        slope = (self._products / self._n_batches - mean * seconds) / variance if variance > 1e-6 else 0.0
        # More never costs less, nor nothing less than nothing.
        return seconds + min(max(slope, 0.0), seconds / mean) * (n - mean)


@dataclass(eq=False)
class _Job:
    asked: Sequence[Any]
    done: asyncio.Future[list[Any]]


class Batcher:
    """Answers requests in batches.

    Parameters
    ----------
    answer : callable
        From a list of what is asked to a list of answers; called in a thread, one call at a time.
    max_batch : int
        How much is asked for in one call at most, but for a request that asks for more by itself.
    max_wait : float
        Seconds that a request may be expected to wait.
    timeout : float
        Seconds after which a request is given up.
    on_batch : callable, default=None
        Told of the size of each batch.

    Examples
    --------
    >>> async def main():
    ...     batcher = Batcher(lambda asked: [2 * each for each in asked], max_batch=8, max_wait=1, timeout=5)
    ...     return await asyncio.gather(batcher.submit([1, 2]), batcher.submit([3]))
    >>> asyncio.run(main())
    [[2, 4], [6]]
    """

    def __init__(
        self,
        answer: Callable[[list[Any]], Sequence[Any]],
        max_batch: int,
        max_wait: float,
        timeout: float,
        on_batch: Callable[[int], object] | None = None,
    ) -> None:
        self._answer, self._on_batch = answer, on_batch
        self._max_batch, self._max_wait, self._timeout = max_batch, max_wait, timeout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._waiting: deque[_Job] = deque()
        # Parts of a batch that failed, to be tried before anything else.
        self._again: deque[list[_Job]] = deque()
        self._is_running = False
        self._n_asked = 0
        # Of the batch that is being answered: how many, since when.
        self._n_running, self._since = 0, 0.0
        self._costs = Costs()

    @property
    def depth(self) -> int:
        """How many users are waiting or being answered."""
        return self._n_asked

    def expected_wait(self, n: int) -> float:
        """Seconds until a further request of n would be answered; 0 if it would be at once."""
        if not self._n_asked:
            return 0.0
        n_before = self._n_asked - self._n_running
        n_batches, rest = divmod(n_before, self._max_batch)
        cost = n_batches * self._costs.of(self._max_batch) + self._costs.of(rest + n)
        if self._n_running:
            # What is late by so much will take as much again.
            cost += abs(self._costs.of(self._n_running) - (time.perf_counter() - self._since))
        return cost

    def refuse_if_late(self, n: int) -> None:
        """Refuse a request of n that would wait too long: an OverloadedError."""
        wait = self.expected_wait(n)
        if wait > self._max_wait:
            raise OverloadedError(wait)

    async def submit(self, asked: Sequence[Any]) -> list[Any]:
        """Answer what one request asks for.

        Raises
        ------
        OverloadedError
            If it would wait too long.
        TimeoutError
            If it did.
        """
        self.refuse_if_late(len(asked))
        loop = asyncio.get_running_loop()
        job = _Job(asked, loop.create_future())
        self._waiting.append(job)
        self._n_asked += len(asked)
        if not self._is_running:
            self._is_running = True
            # Not before other requests that are here already have been read.
            loop.call_soon(self._start, loop)
        expiry = loop.call_later(self._timeout, self._give_up, job)
        try:
            return await job.done
        finally:
            expiry.cancel()

    def _give_up(self, job: _Job) -> None:
        if not job.done.done():
            job.done.set_exception(TimeoutError(f"There is no answer after {self._timeout:g} seconds."))

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the next batch, if anybody waits."""
        batch = self._again.popleft() if self._again else self._gather()
        if not batch:
            self._is_running = False
            return
        asked = [each for job in batch for each in job.asked]
        if self._on_batch is not None:
            self._on_batch(len(asked))
        self._n_running, self._since = len(asked), time.perf_counter()
        future = self._thread.submit(self._answer, asked)
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finish, loop, batch, done))

    def _gather(self) -> list[_Job]:
        batch: list[_Job] = []
        n = 0
        while self._waiting and (not batch or n + len(self._waiting[0].asked) <= self._max_batch):
            job = self._waiting.popleft()
            # Who has given up is not answered.
            if job.done.done():
                self._n_asked -= len(job.asked)
                continue
            batch.append(job)
            n += len(job.asked)
        return batch

    def _finish(self, loop: asyncio.AbstractEventLoop, batch: list[_Job], done: Future[Sequence[Any]]) -> None:
        n, self._n_running = self._n_running, 0
        self._costs.learn(n, time.perf_counter() - self._since)
        error = done.exception()
        if error is not None and len(batch) > 1:
            # One of them is at fault, and the others must not suffer for it.
            half = len(batch) // 2
            self._again.extendleft([batch[half:], batch[:half]])
        else:
            self._n_asked -= n
            answers = iter(() if error is not None else done.result())
            for job in batch:
                mine = [next(answers) for _ in job.asked] if error is None else []
                if job.done.done():
                    continue
                if error is None:
                    job.done.set_result(mine)
                else:
                    job.done.set_exception(error)
        self._start(loop)

    async def close(self) -> None:
        """Wait for what was accepted, and end the thread."""
        while self._is_running:
            await asyncio.sleep(0.005)
        self._thread.shutdown()

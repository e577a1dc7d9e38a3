"""Batches gather by themselves, nothing is mixed up or lost, and what would wait too long is refused at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.serving.batching import Batcher, Costs, OverloadedError


def batcher(answer: Callable[[list[Any]], Sequence[Any]], **options: Any) -> Batcher:
    return Batcher(answer, **{"max_batch": 8, "max_wait": 60.0, "timeout": 60.0, **options})


class Gated:
    """Answers when it is let, and keeps what it was asked."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[Any]] = []

    def __call__(self, asked: list[Any]) -> list[Any]:
        self.batches.append(asked)
        assert self.gate.wait(30)
        return [-each for each in asked]


def test_what_waits_is_answered_together_up_to_the_largest_batch() -> None:
    answer = Gated()

    async def main() -> list[Any]:
        one = batcher(answer)
        first = asyncio.create_task(one.submit([0]))
        while not answer.batches:
            await asyncio.sleep(0.001)
        rest = [asyncio.create_task(one.submit([10 * i + j for j in range(3)])) for i in range(1, 5)]
        await asyncio.sleep(0.01)
        assert one.depth == 13
        answer.gate.set()
        found = await asyncio.gather(first, *rest)
        assert one.depth == 0
        await one.close()
        return found

    assert asyncio.run(main()) == [[0], [-10, -11, -12], [-20, -21, -22], [-30, -31, -32], [-40, -41, -42]]
    assert answer.batches == [[0], [10, 11, 12, 20, 21, 22], [30, 31, 32, 40, 41, 42]]


def test_requests_that_come_together_are_answered_together_and_a_long_one_alone() -> None:
    batches: list[list[int]] = []
    sizes: list[int] = []

    def answer(asked: list[int]) -> list[int]:
        batches.append(asked)
        return asked

    async def main() -> None:
        one = batcher(answer, max_batch=3, on_batch=sizes.append)
        await asyncio.gather(one.submit([1]), one.submit([2]), one.submit([3, 4, 5, 6]), one.submit([7]))

    asyncio.run(main())
    assert batches == [[1, 2], [3, 4, 5, 6], [7]]
    assert sizes == [2, 4, 1]


def test_an_error_is_of_the_request_at_fault_alone() -> None:
    n_calls = 0

    def answer(asked: list[int]) -> list[int]:
        nonlocal n_calls
        n_calls += 1
        if 5 in asked or 9 in asked:
            raise ValueError(f"in {asked}")
        return [each + 1 for each in asked]

    async def main() -> list[Any]:
        one = batcher(answer, max_batch=16)
        found: list[Any] = await asyncio.gather(*(one.submit([each]) for each in range(16)), return_exceptions=True)
        return found

    found = asyncio.run(main())
    assert {place: str(each) for place, each in enumerate(found) if isinstance(each, ValueError)} == {
        5: "in [5]",
        9: "in [9]",
    }
    assert [each for each in found if isinstance(each, list)] == [[i + 1] for i in range(16) if i not in (5, 9)]
    # Halves of 16 down to the two: 1 + 2 + 4 + 4 + 4.
    assert n_calls == 15


def test_what_would_wait_too_long_is_refused_and_later_accepted_again() -> None:
    def answer(asked: list[int]) -> list[int]:
        time.sleep(0.02 * len(asked))
        return asked

    async def main() -> tuple[list[Any], list[int], float]:
        one = batcher(answer, max_batch=1, max_wait=0.1)
        await one.submit([0])
        found = await asyncio.gather(*(one.submit([each]) for each in range(1, 40)), return_exceptions=True)
        assert one.expected_wait(1) == 0
        return found, await one.submit([99]), next(each.seconds for each in found if isinstance(each, OverloadedError))

    found, after, seconds = asyncio.run(main())
    accepted = [each for each in found if isinstance(each, list)]
    # Of 20 ms each, and more on a busy machine, five or fewer are done in 100 ms.
    assert accepted == [[each] for each in range(1, len(accepted) + 1)]
    assert 1 <= len(accepted) <= 6
    assert len(accepted) + sum(isinstance(each, OverloadedError) for each in found) == 39
    assert seconds > 0.1
    assert after == [99]


def test_idle_it_accepts_whatever_the_last_answers_took() -> None:
    def answer(asked: list[int]) -> list[int]:
        time.sleep(0.02)
        return asked

    async def main() -> list[list[int]]:
        one = batcher(answer, max_wait=0.0)
        return [await one.submit([each]) for each in range(3)]

    assert asyncio.run(main()) == [[0], [1], [2]]


def test_who_waits_too_long_is_given_up_and_not_answered() -> None:
    answer = Gated()

    async def main() -> None:
        one = batcher(answer, timeout=0.05)
        found = await asyncio.gather(one.submit([1]), return_exceptions=True)
        late = await asyncio.gather(one.submit([2]), return_exceptions=True)
        assert [type(each) for each in (*found, *late)] == [TimeoutError] * 2
        assert str(late[0]) == "There is no answer after 0.05 seconds."
        answer.gate.set()
        assert await one.submit([3]) == [-3]
        assert one.depth == 0

    asyncio.run(main())
    assert answer.batches == [[1], [3]]


def test_it_closes_when_all_is_answered() -> None:
    answer = Gated()

    async def main() -> tuple[list[Any], bool]:
        one = batcher(answer, max_batch=1)
        waiting = [asyncio.create_task(one.submit([each])) for each in range(3)]
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(one.close())
        await asyncio.sleep(0.02)
        was_open = not closing.done()
        answer.gate.set()
        await closing
        return [task.result() for task in waiting], was_open

    assert asyncio.run(main()) == ([[0], [-1], [-2]], True)


@given(
    requests=st.lists(st.lists(st.integers(), min_size=1, max_size=4), max_size=20),
    max_batch=st.integers(1, 6),
    bad=st.sets(st.integers(0, 19), max_size=3),
)
def test_everyone_gets_their_own_answer(requests: list[list[int]], max_batch: int, bad: set[int]) -> None:
    def answer(asked: list[tuple[int, int]]) -> list[tuple[int, int]]:
        if any(place in bad for place, _ in asked):
            raise KeyError("bad")
        return asked

    async def main() -> list[Any]:
        one = batcher(answer, max_batch=max_batch)

        async def submit(place: int, request: list[int]) -> Any:
            for _ in range(place % 3):
                await asyncio.sleep(0)
            return await one.submit([(place, each) for each in request])

        tasks = [submit(place, request) for place, request in enumerate(requests)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await one.close()
        return found

    for place, (request, found) in enumerate(zip(requests, asyncio.run(main()), strict=True)):
        if place in bad:
            assert isinstance(found, KeyError)
        else:
            assert found == [(place, each) for each in request]


def test_a_cancelled_request_harms_no_other() -> None:
    answer = Gated()

    async def main() -> list[Any]:
        one = batcher(answer, max_batch=2)
        tasks = [asyncio.create_task(one.submit([each])) for each in range(1, 5)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.sleep(0)
        answer.gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert one.depth == 0
        return found

    found = asyncio.run(main())
    assert [isinstance(each, asyncio.CancelledError) for each in found] == [True, False, True, False]
    assert (found[1], found[3]) == ([-2], [-4])
    assert answer.batches == [[1, 2], [4]]


def test_the_error_says_what_to_do() -> None:
    with pytest.raises(OverloadedError, match="wait and try again") as caught:
        raise OverloadedError(0.25)
    assert caught.value.seconds == 0.25


@given(
    fixed=st.floats(1e-4, 1e-2),
    each=st.floats(1e-5, 1e-2),
    sizes=st.lists(st.integers(1, 64), min_size=2, max_size=20),
    n=st.integers(1, 64),
)
def test_costs_that_are_a_line_are_found(fixed: float, each: float, sizes: list[int], n: int) -> None:
    costs = Costs()
    assert costs.of(n) == 0
    for size in sizes:
        costs.learn(size, fixed + each * size)
    if len(set(sizes)) > 1:
        assert costs.of(n) == pytest.approx(fixed + each * n, rel=1e-4)
    else:
        # Nothing tells what more would cost.
        assert costs.of(n) == pytest.approx(fixed + each * sizes[0])


@given(batches=st.lists(st.tuples(st.integers(1, 64), st.floats(1e-4, 1)), min_size=1, max_size=20))
def test_more_never_costs_less_and_nothing_is_for_less_than_nothing(batches: list[tuple[int, float]]) -> None:
    costs = Costs()
    for n, seconds in batches:
        costs.learn(n, seconds)
    found = [costs.of(n) for n in range(1, 65)]
    assert found[0] > -1e-9
    assert found == sorted(found)


def test_late_batches_weigh_more_than_early_ones() -> None:
    costs = Costs()
    for _ in range(200):
        costs.learn(1, 0.1)
    for _ in range(200):
        costs.learn(1, 0.001)
    assert costs.of(1) == pytest.approx(0.001, rel=0.01)


def test_requests_that_would_share_a_batch_are_not_counted_by_head() -> None:
    """Of ten that come while one is answered, all are accepted: they are one batch, which takes as long."""

    def answer(asked: list[int]) -> list[int]:
        time.sleep(0.05)
        return asked

    async def main() -> list[Any]:
        one = batcher(answer, max_batch=16, max_wait=0.25)
        await one.submit([0])
        first = asyncio.create_task(one.submit([1]))
        await asyncio.sleep(0.01)
        return [await first, *await asyncio.gather(*(one.submit([each]) for each in range(2, 12)))]

    assert asyncio.run(main()) == [[each] for each in range(1, 12)]


def test_who_is_stuck_is_not_waited_for() -> None:
    answer = Gated()

    async def main() -> None:
        one = batcher(answer, max_wait=0.05)
        first = asyncio.create_task(one.submit([1]))
        await asyncio.sleep(0.1)
        with pytest.raises(OverloadedError):
            await one.submit([2])
        answer.gate.set()
        assert await first == [-1]
        assert await one.submit([3]) == [-3]

    asyncio.run(main())

"""The bundle that is served, and how it changes while it is: items come and go, another bundle takes its place."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from recsys.exceptions import InvalidInputError, PersistenceError, RecsysError, examples
from recsys.retrieval import Bundle
from recsys.serving.answering import Asked, Question, Stranger, answer
from recsys.serving.batching import Batcher, OverloadedError
from recsys.serving.metrics import Metrics
from recsys.serving.settings import Settings

__all__ = ["Held", "NoBundleError", "Service"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Changes that may wait for each other.
_MOST_CHANGES = 32
_WHOLE = re.compile(r"-?[0-9]{1,19}")


class NoBundleError(PersistenceError):
    """A bundle cannot take the place of the one that is served, which goes on."""


# What a request asks of whichever bundle answers it: labels that are written as text are read by that one.
Request: TypeAlias = "Asked | Callable[[Held], Any]"


@dataclass(frozen=True)
class Held:
    """A bundle that is served.

    Attributes
    ----------
    bundle : Bundle
    path : Path
        Where it was read.
    has_numbers : tuple of bool
        Whether its labels of users, and of items, are numbers: text that stands for them is read so.
    """

    bundle: Bundle
    path: Path
    has_numbers: tuple[bool, bool]

    def user(self, text: str) -> str | int:
        """The label of a user, as an address has it."""
        return _label(text, self.has_numbers[0])

    def item(self, text: str) -> str | int:
        """The label of an item, as an address or a key of JSON has it."""
        return _label(text, self.has_numbers[1])

    def ratings(self, interactions: Any) -> Any:
        """Ratings by the labels of items, which are keys of JSON, and so text, in a request; a list stays as it is."""
        if not isinstance(interactions, dict):
            return interactions
        found: dict[str | int, float] = {}
        for key, rating in interactions.items():
            if (label := self.item(key)) in found:
                raise InvalidInputError(
                    f"`interactions` has {examples([label])} more than once; expected each item once."
                )
            found[label] = rating
        return found

    def question(self, request: Request) -> Question:
        """What a request asks of this bundle."""
        if isinstance(request, Asked):
            return replace(request, interactions=self.ratings(request.interactions))
        return lambda bundle: request(self)


def _label(text: str, is_number: bool) -> str | int:
    if is_number and _WHOLE.fullmatch(text) and -(2**63) <= (number := int(text)) < 2**63:
        return number
    return text


def _hold(bundle: Bundle, path: Path) -> Held:
    """A bundle that was asked before: the first answers take longest."""
    user = Stranger()
    [found] = bundle.recommend([user], 1)
    users, items = [each["user_id"] for each in bundle.users(1)], found.item_ids
    bundle.recommend([user], 1, interactions={user: items})
    for labels, whose in ((users, "users"), (items, "items")):
        if labels and type(labels[0]) not in (int, str):
            raise InvalidInputError(
                f"The labels of {whose} in {path} are of type {type(labels[0]).__name__}; expected text or whole "
                f"numbers, which JSON can name: fit the model on such labels."
            )
    return Held(bundle, path, (bool(users) and type(users[0]) is int, bool(items) and type(items[0]) is int))


class Service:
    """What the application serves.

    Parameters
    ----------
    settings : Settings
    load : callable
        From a path to a bundle.

    Attributes
    ----------
    held : Held
        What is served at the moment; who needs it twice takes it once. By the time that a request is answered, or
        a change made, it may be another one.
    metrics : Metrics
    batcher : Batcher
    is_closing : bool
        Whether the process is about to end.
    """

    def __init__(self, settings: Settings, load: Callable[[Path], Bundle]) -> None:
        self.settings, self._load = settings, load
        self.metrics = Metrics()
        self.held = _hold(load(settings.bundle), settings.bundle)
        self.batcher = Batcher(
            self._answer,
            settings.max_batch,
            settings.max_wait,
            settings.timeout,
            self.metrics.batches.observe,
        )
        self.metrics.depth.set_function(lambda: self.batcher.depth)
        self.metrics.items.set_function(lambda: self.held.bundle.n_items)
        self.is_closing = False
        # One after the other, beside the thread that answers.
        self._changes = ThreadPoolExecutor(1, thread_name_prefix="changes")
        self._n_changes = 0
        self._reloads: set[asyncio.Task[None]] = set()

    def _answer(self, requests: Sequence[Request]) -> list[Any]:
        held = self.held
        return answer(held.bundle, [held.question(each) for each in requests])

    async def change(self, work: Callable[[Held], object]) -> Held:
        """Change the bundle that is served by then."""

        def changed() -> Held:
            held = self.held
            work(held)
            return held

        return await self._one_by_one(changed, self.settings.timeout)

    async def swap(self, path: Path) -> Held:
        """Load the bundle at `path` and serve it; requests in flight end on the old one. However long it takes.

        Raises
        ------
        NoBundleError
            If it cannot be loaded; the old one goes on.
        """

        def swapped() -> Held:
            try:
                self.held = _hold(self._load(path), path)
            # Whatever a file can make go wrong.
            except Exception as error:
                is_told = isinstance(error, RecsysError)
                logger.error("The bundle %s is not served: %s", path, error, exc_info=not is_told)
                raise NoBundleError(
                    f"{path.name!r} is no bundle that can be served ({type(error).__name__}); the one before it goes "
                    f"on: the log says what is wrong."
                ) from error
            logger.info("Serving %s from %s", self.held.bundle, path)
            return self.held

        try:
            held = await self._one_by_one(swapped, None)
        except NoBundleError:
            self.metrics.swaps.labels("failed").inc()
            raise
        self.metrics.swaps.labels("done").inc()
        return held

    def reload(self) -> None:
        """Read the bundle that is served again, in the background; what is wrong with it is logged."""

        async def reload() -> None:
            try:
                await self.swap(self.held.path)
            except (NoBundleError, OverloadedError) as error:
                logger.error("Not reloaded: %s", error)

        # Whoever starts a task has to keep it.
        task = asyncio.get_running_loop().create_task(reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _one_by_one(self, work: Callable[[], T], timeout: float | None) -> T:
        if self._n_changes >= _MOST_CHANGES:
            raise OverloadedError(1.0)
        self._n_changes += 1
        try:
            doing = asyncio.get_running_loop().run_in_executor(self._changes, work)
            return await asyncio.wait_for(doing, timeout)
        except asyncio.TimeoutError as error:
            raise TimeoutError(
                f"It is not done after {timeout:g} seconds, and may still be; expected a look at what there is by then."
            ) from error
        finally:
            self._n_changes -= 1

    async def close(self) -> None:
        """End, after all that was accepted is done."""
        self.is_closing = True
        await self.batcher.close()
        await asyncio.get_running_loop().run_in_executor(None, self._changes.shutdown)

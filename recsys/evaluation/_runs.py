"""Every model in every split: what is still to do, done in one process or several, and kept where there is a store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd

from recsys.base import BaseRecommender
from recsys.evaluation._processes import run_tasks, told
from recsys.evaluation._store import Store
from recsys.evaluation.scenario import Split
from recsys.exceptions import RecsysWarning
from recsys.vocabulary import Vocabulary

__all__ = ["Fitted", "Outcome", "Runs", "Splits"]

# Each with its seed.
Splits = list[tuple[int, Split]]
# The name of a model and the number of a split.
Pair = tuple[str, int]


class Fitted(NamedTuple):
    """A model and what its fit cost, or why there is none."""

    model: BaseRecommender | None
    seconds: float
    peak_mib: float
    error: str


class Outcome(NamedTuple):
    """What a model found in a split and what that cost, or why there is nothing."""

    number: int
    per_user: pd.DataFrame | None = None
    cost: dict[str, Any] | None = None
    error: str = ""


class _Task(NamedTuple):
    """A model and the splits, by number, of one seed and training set: they share a fit."""

    name: str
    template: BaseRecommender
    numbers: list[int]


@dataclass
class Runs:
    """What is to be run.

    Attributes
    ----------
    X : DataFrame
        The pairs that the splits are of.
    splits : list of (seed, Split)
    fit : callable
        From an estimator, the rows to train on and a seed to a `Fitted`.
    ask : callable
        From a fitted model, all rows and a split to metrics of users and costs.
    store : Store or None
    n_jobs : int or None
    """

    X: pd.DataFrame
    splits: Splits
    fit: Callable[[BaseRecommender, pd.DataFrame, int], Fitted]
    ask: Callable[[BaseRecommender, pd.DataFrame, Split], tuple[pd.DataFrame, dict[str, Any]]]
    store: Store | None
    n_jobs: int | None
    _identities: dict[Pair, dict[str, Any]] = field(default_factory=dict, init=False)

    def outcomes(self, models: Mapping[str, BaseRecommender], progress: Callable[..., Any]) -> dict[Pair, Outcome]:
        """What every model found in every split: taken from the store or computed.

        Parameters
        ----------
        models : dict of str to estimator
        progress : callable
            From a number of steps, and of those done, to a progress bar.

        Returns
        -------
        dict of (str, int) to Outcome
        """
        pairs = [(name, number) for name in models for number in range(len(self.splits))]
        done = self._kept(models, pairs)
        with (
            progress(total=len(pairs), initial=len(done)) as bar,
            closing(run_tasks(self._judge, self._tasks(models, done), self.n_jobs)) as run,
        ):
            for task, result, error in run:
                # Of a task that never got as far as a result, all splits have its error.
                for outcome in [result] if result else [Outcome(number, error=error) for number in task.numbers]:
                    done[task.name, outcome.number] = outcome
                    bar.update()
                    if outcome.error:
                        seed, split = self.splits[outcome.number]
                        message = f"{task.name} failed in {split.name}, seed {seed}: {outcome.error}"
                        warnings.warn(message, RecsysWarning, stacklevel=3)
                for name, number in [pair for pair in pairs if pair not in done][:1]:
                    bar.set_description(f"{name}, {self.splits[number][1].name}, seed {self.splits[number][0]}")
        return done

    def _kept(self, models: Mapping[str, BaseRecommender], pairs: list[Pair]) -> dict[Pair, Outcome]:
        found: dict[Pair, Outcome] = {}
        if self.store is None:
            return found
        for name, number in pairs:
            # Told before any work: what is on the disk afterwards need not be the code that ran.
            identity = self.store.identity(name, models[name], *self.splits[number])
            self._identities[name, number] = identity
            kept = self.store.read(identity, self._users(self.splits[number][1]))
            if kept is not None:
                found[name, number] = Outcome(number, *kept)
        return found

    def _tasks(self, models: Mapping[str, BaseRecommender], done: Mapping[Pair, Outcome]) -> list[_Task]:
        """What is still to do; splits that follow each other and share a fit are one task."""

        def training_set(number: int) -> tuple[int, bytes]:
            seed, split = self.splits[number]
            return seed, split.train.tobytes()

        groups = [list(numbers) for _, numbers in groupby(range(len(self.splits)), key=training_set)]
        left = [
            _Task(name, template, [number for number in numbers if (name, number) not in done])
            for name, template in models.items()
            for numbers in groups
        ]
        return [task for task in left if task.numbers]

    def _judge(self, task: _Task) -> Iterator[Outcome]:
        """One model in the splits of one training set; where it fails the others go on."""
        seed, first = self.splits[task.numbers[0]]
        fitted = self.fit(task.template, self.X.iloc[first.train], seed)
        for number in task.numbers:
            split = self.splits[number][1]
            if fitted.model is None:
                yield Outcome(number, error=fitted.error)
                continue
            try:
                per_user, cost = self.ask(fitted.model, self.X, split)
            except Exception as raised:  # noqa: BLE001 - it is told, in a warning and in the table
                yield Outcome(number, error=told(raised))
                continue
            peak = max(fitted.peak_mib, cost.pop("peak_mib"))
            cost = {"fit_seconds": fitted.seconds, "peak_mib": peak, **cost}
            if self.store is not None:
                self.store.write(self._identities[task.name, number], self._users(split), per_user, cost)
            yield Outcome(number, per_user, cost)

    def _users(self, split: Split) -> pd.Index:
        return Vocabulary.from_values(self.X["user_id"].iloc[split.test])[0].ids

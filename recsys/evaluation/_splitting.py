"""What the splitters share: both faces, the reading of `X`, and the checks of their parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import MetadataRequest

from recsys.evaluation.scenario import Coded, Mask, Rows, Split, Times
from recsys.exceptions import InvalidInputError, InvalidTypeError

__all__ = [
    "LARGEST_SEED",
    "Splitter",
    "check_integer",
    "check_numbers",
    "check_seed",
    "check_share",
    "draw_entities",
    "draw_places",
    "draw_unmet",
    "n_unmet",
    "places_of",
    "rounded_up",
    "seed_of",
    "shares_of",
    "shares_of_each",
]


# NumPy takes no larger ones.
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Splitter(ABC):
    """What the splitters share: both faces, and the reading of `X`."""

    def splits(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Split]:
        """Split, with all that an evaluator has to know.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n, >= 2)
            Column 0 holds users, column 1 items.
        y : ignored
        groups : array-like of shape (n,), optional
            Timestamps, numbers or datetimes, of the rows; ignored by splitters that do not need them.

        Yields
        ------
        Split

        Raises
        ------
        InvalidInputError
            If `X` or `groups` is malformed, `groups` is needed and missing, or a part would be empty.
        """
        timed_by = type(self).__name__ if self._needs_times else ""
        yield from self._splits(Coded.read(X, groups, timed_by=timed_by))

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Rows, Rows]]:
        """Split, as scikit-learn expects of a `cv`.

        Revealed rows count as train rows here, as scikit-learn has no way to show them after `fit`; rows of
        validation are in neither part.

        Parameters
        ----------
        X, y, groups
            As in `splits`.

        Yields
        ------
        train, test : ndarray of int64
        """
        for part in self.splits(X, y, groups):
            yield np.sort(np.concatenate([part.train, part.revealed])), part.test

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """How many (train, test) pairs `split` yields.

        Parameters
        ----------
        X, y, groups : ignored

        Returns
        -------
        int
        """
        return 1

    def get_metadata_routing(self) -> MetadataRequest:
        """Ask scikit-learn for `groups`, should its metadata routing be on.

        Returns
        -------
        sklearn.utils.metadata_routing.MetadataRequest
        """
        request = MetadataRequest(owner=type(self).__name__)
        request.split.add_request(param="groups", alias=True)
        return request

    @property
    def _needs_times(self) -> bool:
        return False

    @abstractmethod
    def _splits(self, data: Coded) -> Iterator[Split]:
        """The splits of checked rows."""


def places_of(user: Rows, key: Times) -> tuple[Rows, Rows]:
    """For each row, its place among the rows of its user in the order of `key`, and how many these are."""
    order = np.lexsort((key, user))
    count = np.bincount(user)
    place = np.empty(len(user), dtype=np.int64)
    place[order] = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    return place, count[user]


def draw_entities(rng: np.random.RandomState, size: float, n: int, what: str) -> Mask:
    """Which of n entities are held out."""
    (n_test,) = shares_of(n, what, size)
    mask: Mask = draw_places(rng, n) < n_test
    return mask


def draw_places(rng: np.random.RandomState, n: int) -> Rows:
    """The place of each of n rows, or entities, in a random order."""
    places = np.empty(n, dtype=np.int64)
    # The permutation itself, taken as places, would put back what was shuffled by the same seed.
    places[rng.permutation(n)] = np.arange(n)
    return places


def n_unmet(data: Coded) -> Rows:
    """Of how many items each user has no row."""
    pairs = np.unique(data.user * len(data.items) + data.item)
    return len(data.items) - np.bincount(pairs // len(data.items), minlength=len(data.users))


def draw_unmet(data: Coded, users: Rows, n: int, rng: np.random.RandomState) -> Rows:
    """For each of these users n distinct items of which it has no row, all equally likely: (len(users), n)."""
    n_items = len(data.items)
    pairs = np.unique(data.user * n_items + data.item)
    owner, met = pairs // n_items, pairs % n_items
    # Floyd's algorithm: n distinct places among the unmet items of each user.
    places = np.empty((len(users), n), dtype=np.int64)
    for i, last in enumerate(np.arange(-n, 0)[:, None] + n_unmet(data)[users]):
        drawn = rng.randint(0, last + 1, dtype=np.int64)
        taken = (places[:, :i] == drawn[:, None]).any(axis=1)
        places[:, i] = np.where(taken, last, drawn)
    # Before the j-th item that a user met stand so many unmet ones; a place moves up by those it is behind.
    unmet_before = met - (np.arange(len(met)) - np.searchsorted(owner, owner))
    n_behind = np.searchsorted(owner * n_items + unmet_before, users[:, None] * n_items + places, side="right")
    return places + n_behind - np.searchsorted(owner, users)[:, None]


def shares_of(n: int, what: str, *sizes: float) -> list[int]:
    """How many of n these shares are; some must be left."""
    counts = [int(rounded_up(size, np.array(n))) for size in sizes]
    if sum(counts) >= n:
        raise InvalidInputError(f"`X` has {n} {what}; expected more, to hold out {sum(counts)} and learn from others.")
    return counts


def shares_of_each(data: Coded, *sizes: float) -> list[Rows]:
    """For each row, how many of its user's these shares are: rounded down, but at least one while two are left."""
    n_rows = np.bincount(data.user)
    # 0.29 * 100 comes out a hair below 29.
    counts = [np.floor(size * n_rows + 1e-9).astype(np.int64) for size in sizes]
    left = n_rows - np.sum(counts, axis=0)
    for size, count in zip(sizes, counts, strict=True):
        few = (count == 0) & (left > 1) & (size > 0)
        count += few
        left -= few
    if not counts[0].any():
        raise InvalidInputError(
            f"`X` has {n_rows.max()} row(s) a user at most, which leaves none to test with shares of "
            f"{', '.join(f'{size:g}' for size in sizes)}; expected users with more, or smaller shares."
        )
    return [count[data.user] for count in counts]


def rounded_up(size: float, n: Rows) -> Rows:
    # 0.1 * 30 may come out a hair above 3.
    return np.asarray(np.ceil(size * n - 1e-9), dtype=np.int64)


def seed_of(random_state: Any) -> int:
    """The number that, as `random_state`, repeats what follows."""
    check_seed(random_state)
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def check_seed(random_state: Any) -> None:
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        check_integer(random_state, "random_state", 0)
        if random_state > LARGEST_SEED:
            raise InvalidInputError(f"`random_state` is {random_state}; expected a number up to {LARGEST_SEED}.")
    elif random_state is not None and not isinstance(random_state, np.random.RandomState):
        raise InvalidTypeError(f"`random_state` is {random_state!r}; expected a number, a RandomState or None.")


def check_share(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)):
        raise InvalidTypeError(f"`{name}` is {value!r}; expected a share between 0 and 1.")
    if not 0 < value < 1:
        raise InvalidInputError(f"`{name}` is {value!r}; expected a share between 0 and 1, exclusive.")


def check_integer(value: Any, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"`{name}` is {value!r}; expected an integer of {least} or more.")
    if value < least:
        raise InvalidInputError(f"`{name}` is {value!r}; expected an integer of {least} or more.")


def check_numbers(values: Any, name: str, also: str | None = None) -> None:
    """Distinct integers of 0 or more, or a word that may stand among them."""
    listed = isinstance(values, Sequence) or (isinstance(values, np.ndarray) and values.ndim == 1)
    if isinstance(values, str) or not listed or not len(values):
        raise InvalidInputError(f"`{name}` is {values!r}; expected distinct numbers, such as (0, 1, 2, 5, 10).")
    for value in values:
        if also is None or not isinstance(value, str) or value != also:
            check_integer(value, name, 0)
    if len(set(values)) != len(values):
        raise InvalidInputError(f"`{name}` is {values!r}; expected distinct numbers, such as (0, 1, 2, 5, 10).")

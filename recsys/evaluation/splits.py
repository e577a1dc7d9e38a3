"""Train and test rows, for every question worth asking, as objects that scikit-learn takes as `cv`.

Each splitter has two faces: `split`, scikit-learn's own, and `splits`, which also tells what an evaluator has
to know (name of the scenario, rows revealed at recommend time, candidates, seed, hash). Rows are positions in
`X`. For a validation part apply a splitter to the train rows: ``inner.splits(X.iloc[split.train])``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import MetadataRequest

from recsys.evaluation.scenario import Coded, Mask, Rows, Split, Times
from recsys.exceptions import InvalidInputError, InvalidTypeError

__all__ = ["GlobalTimeSplit", "ItemColdSplit", "LeaveLastOut", "RandomSplit", "UserColdSplit"]


@dataclass(frozen=True, kw_only=True)
class _Splitter(ABC):
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


@dataclass(frozen=True, kw_only=True)
class RandomSplit(_Splitter):
    """Rows at random, whoever's they are. It trains on the future: report a time split too.

    Parameters
    ----------
    test_size : float, default=0.1
        Share of the rows, rounded up.
    validation_size : float, default=0.0
        Share of the rows, rounded up, that is neither learned from nor tested.
    n_splits : int, default=1
        Split i is the one that ``random_state + i`` gives alone.
    random_state : int, RandomState instance or None, default=None

    Examples
    --------
    >>> X = np.column_stack([np.arange(10) % 3, np.arange(10)])
    >>> [split] = RandomSplit(test_size=0.2, validation_size=0.1, random_state=0).splits(X)
    >>> len(split.train), len(split.validation), len(split.test)
    (7, 1, 2)
    """

    test_size: float = 0.1
    validation_size: float = 0.0
    n_splits: int = 1
    random_state: Any = None

    def __post_init__(self) -> None:
        _check_share(self.test_size, "test_size")
        if self.validation_size != 0:
            _check_share(self.validation_size, "validation_size")
        if self.test_size + self.validation_size >= 1:
            raise InvalidInputError(
                f"`test_size` + `validation_size` is {self.test_size + self.validation_size:g}; "
                f"expected a sum below 1, so that train rows are left."
            )
        check_integer(self.n_splits, "n_splits", 1)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """How many (train, test) pairs `split` yields: `n_splits`."""
        return self.n_splits

    def _splits(self, data: Coded) -> Iterator[Split]:
        n_test, n_validation = _counts(len(data), "rows", self.test_size, self.validation_size)
        first = _seed(self.random_state)
        for seed in range(first, first + self.n_splits):
            place = check_random_state(seed).permutation(len(data))
            test = place < n_test
            train = place >= n_test + n_validation
            roles = {"train": train, "validation": ~(train | test), "test": test}
            yield data.split("random", roles, seed=seed)


@dataclass(frozen=True, kw_only=True)
class LeaveLastOut(_Splitter):
    """The last rows of each user by time, against all earlier ones. `groups` holds the timestamps.

    Ties in time break by row order. Users with `n_last` rows or fewer stay in train.

    Parameters
    ----------
    n_last : int, default=1

    Examples
    --------
    >>> X = np.array([[1, 10], [1, 11], [2, 10], [1, 12]])
    >>> [split] = LeaveLastOut().splits(X, groups=[5, 9, 7, 6])
    >>> split.train, split.test
    (array([0, 2, 3]), array([1]))
    """

    n_last: int = 1

    def __post_init__(self) -> None:
        check_integer(self.n_last, "n_last", 1)

    @property
    def _needs_times(self) -> bool:
        return True

    def _splits(self, data: Coded) -> Iterator[Split]:
        place, count = _places(data.user, data.times)
        test = (count > self.n_last) & (place >= count - self.n_last)
        if not test.any():
            raise InvalidInputError(f"`X` has no user with more than {self.n_last} rows; expected some to test.")
        yield data.split("leave-last-out", {"train": ~test, "test": test}, order="user")


@dataclass(frozen=True, kw_only=True)
class GlobalTimeSplit(_Splitter):
    """The last rows of all by time, against all earlier ones. `groups` holds the timestamps.

    It is the only split that trains on the past alone. Ties in time break by row order. Users and items that
    first come in the test rows stay: `entity_groups` tells them.

    Parameters
    ----------
    test_size : float, default=0.2
        Share of the rows, rounded up.

    Examples
    --------
    >>> X = np.array([[1, 10], [1, 11], [2, 10], [2, 12]])
    >>> [split] = GlobalTimeSplit(test_size=0.25).splits(X, groups=[5, 9, 7, 6])
    >>> split.train, split.test
    (array([0, 2, 3]), array([1]))
    """

    test_size: float = 0.2

    def __post_init__(self) -> None:
        _check_share(self.test_size, "test_size")

    @property
    def _needs_times(self) -> bool:
        return True

    def _splits(self, data: Coded) -> Iterator[Split]:
        (n_test,) = _counts(len(data), "rows", self.test_size)
        test = np.zeros(len(data), dtype=bool)
        test[np.argsort(data.times, kind="stable")[-n_test:]] = True
        yield data.split("global time", {"train": ~test, "test": test}, order="all")


@dataclass(frozen=True, kw_only=True)
class UserColdSplit(_Splitter):
    """New users, of whom k first interactions are revealed once the model is fitted.

    All rows of the held-out users are absent from train. Part of each one's rows, the same for every k, is the
    query (test) set; k of the others are revealed, the one for k = 1 among those for k = 2 and so on. Users who
    have fewer reveal all of them. One split per k.

    Parameters
    ----------
    test_size : float, default=0.2
        Share of the users, rounded up.
    k : sequence of int or "all", default=(0, 1, 2, 5, 10)
        How many interactions are revealed; 0 leaves the features of the user, if any.
    query_size : float or "rest", default=0.5
        Share of a held-out user's rows to test on, rounded up; "rest" tests on all but the largest k, and at
        least on one.
    reveal : {"random", "first"}, default="random"
        "first" goes by time: the last rows of a user are the query set and the first k are revealed; `groups`
        holds the timestamps, ties break by row order.
    random_state : int, RandomState instance or None, default=None

    Examples
    --------
    >>> X = np.array([[1, 10], [1, 11], [1, 12], [1, 13], [2, 10]])
    >>> splitter = UserColdSplit(test_size=0.5, k=(0, 2), reveal="first", random_state=1)
    >>> for split in splitter.splits(X, groups=[1, 2, 3, 4, 1]):
    ...     split.name, split.train, split.revealed, split.test
    ('user-cold first k=0', array([4]), array([], dtype=int64), array([2, 3]))
    ('user-cold first k=2', array([4]), array([0, 1]), array([2, 3]))
    """

    test_size: float = 0.2
    k: Sequence[int | str] = (0, 1, 2, 5, 10)
    query_size: float | Literal["rest"] = 0.5
    reveal: Literal["random", "first"] = "random"
    random_state: Any = None

    def __post_init__(self) -> None:
        _check_share(self.test_size, "test_size")
        if self.reveal not in ("random", "first"):
            raise InvalidInputError(f"`reveal` is {self.reveal!r}; expected 'random' or 'first'.")
        listed = not isinstance(self.k, str) and isinstance(self.k, (Sequence, np.ndarray))
        if not listed or not len(self.k) or len(set(self.k)) != len(self.k):
            raise InvalidInputError(f"`k` is {self.k!r}; expected distinct numbers, such as (0, 1, 2, 5, 10).")
        for k in self.k:
            if k != "all":
                check_integer(k, "k", 0)
        if self.query_size != "rest":
            _check_share(self.query_size, "query_size")
        elif "all" in self.k:
            raise InvalidInputError("`k` holds 'all', of which `query_size`='rest' leaves nothing; expected a share.")

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """How many (train, test) pairs `split` yields: one for each k."""
        return len(self.k)

    @property
    def _needs_times(self) -> bool:
        return self.reveal == "first"

    def _n_pool(self, count: Rows) -> Rows:
        """How many of a user's rows may be revealed."""
        if isinstance(self.query_size, str):
            return np.minimum(count - 1, max(int(k) for k in self.k))
        return count - _rounded_up(self.query_size, count)

    def _splits(self, data: Coded) -> Iterator[Split]:
        seed = _seed(self.random_state)
        rng = check_random_state(seed)
        held_out = _held_out(rng, self.test_size, len(data.users), "users")[data.user]
        by_time = self.reveal == "first"
        place, count = _places(data.user, data.times if by_time else rng.permutation(len(data)))
        n_pool = self._n_pool(count)
        name = "user-cold first" if by_time else "user-cold"
        for k in self.k:
            limit = n_pool if k == "all" else np.minimum(n_pool, int(k))
            revealed = held_out & (place < limit)
            roles = {"train": ~held_out, "revealed": revealed, "test": held_out & (place >= n_pool)}
            order = "user" if by_time else None
            yield data.split(f"{name} k={k}", roles, cold="user", order=order, seed=seed)


@dataclass(frozen=True, kw_only=True)
class ItemColdSplit(_Splitter):
    """New items: all rows of some items are held out.

    `splits` yields two scenarios of one train set: every user ranks the cold items alone, and cold items compete
    with the whole catalogue. `split` yields the first.

    Parameters
    ----------
    test_size : float, default=0.2
        Share of the items, rounded up.
    hot_test_size : float, default=0
        Share of the other items' rows, rounded up, that is held out too and tested where the whole catalogue is
        ranked: a model that ranks every new item first does badly there.
    random_state : int, RandomState instance or None, default=None

    Examples
    --------
    >>> X = np.array([[1, 10], [1, 11], [2, 10], [2, 12]])
    >>> for split in ItemColdSplit(test_size=0.3, random_state=0).splits(X):
    ...     split.name, split.test, split.candidates
    ('item-cold (cold candidates)', array([3]), Index([12], dtype='int64'))
    ('item-cold (whole catalogue)', array([3]), None)
    """

    test_size: float = 0.2
    hot_test_size: float = 0.0
    random_state: Any = None

    def __post_init__(self) -> None:
        _check_share(self.test_size, "test_size")
        if self.hot_test_size != 0:
            _check_share(self.hot_test_size, "hot_test_size")

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Rows, Rows]]:
        """Split, as scikit-learn expects of a `cv`: the first scenario alone."""
        yield next(super().split(X, y, groups))

    def _splits(self, data: Coded) -> Iterator[Split]:
        seed = _seed(self.random_state)
        rng = check_random_state(seed)
        held_out = _held_out(rng, self.test_size, len(data.items), "items")
        cold = held_out[data.item]
        hot = np.zeros(len(data), dtype=bool)
        if self.hot_test_size:
            (n_hot,) = _counts(int((~cold).sum()), "rows of hot items", self.hot_test_size)
            hot[rng.permutation(np.flatnonzero(~cold))[:n_hot]] = True
        roles = {"train": ~(cold | hot), "test": cold}
        candidates = data.items.decode(np.flatnonzero(held_out))
        yield data.split("item-cold (cold candidates)", roles, candidates=candidates, cold="item", seed=seed)
        roles = {**roles, "test": cold | hot}
        side = None if hot.any() else "item"
        yield data.split("item-cold (whole catalogue)", roles, cold=side, seed=seed)


def _places(user: Rows, key: Times) -> tuple[Rows, Rows]:
    """For each row, its place among the rows of its user in the order of `key`, and how many these are."""
    order = np.lexsort((key, user))
    count = np.bincount(user)
    place = np.empty(len(user), dtype=np.int64)
    place[order] = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    return place, count[user]


def _held_out(rng: np.random.RandomState, size: float, n: int, what: str) -> Mask:
    """Which of n entities are held out."""
    (n_test,) = _counts(n, what, size)
    mask: Mask = rng.permutation(n) < n_test
    return mask


def _counts(n: int, what: str, *sizes: float) -> list[int]:
    """How many of n these shares are; some must be left."""
    counts = [int(_rounded_up(size, np.array(n))) for size in sizes]
    if sum(counts) >= n:
        raise InvalidInputError(f"`X` has {n} {what}; expected more, to hold out {sum(counts)} and learn from others.")
    return counts


def _rounded_up(size: float, n: Rows) -> Rows:
    # 0.1 * 30 may come out a hair above 3.
    return np.asarray(np.ceil(size * n - 1e-9), dtype=np.int64)


def _seed(random_state: Any) -> int:
    """The number that, as `random_state`, repeats what follows."""
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        check_integer(random_state, "random_state", 0)
        return int(random_state)
    if random_state is not None and not isinstance(random_state, np.random.RandomState):
        raise InvalidTypeError(f"`random_state` is {random_state!r}; expected a number, a RandomState or None.")
    return int(check_random_state(random_state).randint(2**31 - 1))


def _check_share(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)):
        raise InvalidTypeError(f"`{name}` is {value!r}; expected a share between 0 and 1.")
    if not 0 < value < 1:
        raise InvalidInputError(f"`{name}` is {value!r}; expected a share between 0 and 1, exclusive.")


def check_integer(value: Any, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"`{name}` is {value!r}; expected an integer of {least} or more.")
    if value < least:
        raise InvalidInputError(f"`{name}` is {value!r}; expected an integer of {least} or more.")

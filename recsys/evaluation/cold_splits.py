"""Splitters that hold out users or items as a whole: nobody has met them when a model is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from recsys.evaluation._splitting import (
    Splitter,
    check_numbers,
    check_share,
    draw_entities,
    places_of,
    rounded_up,
    seed_of,
    shares_of,
)
from recsys.evaluation.scenario import Coded, Mask, Rows, Split
from recsys.exceptions import InvalidInputError, InvalidTypeError, examples

__all__ = ["BothColdSplit", "ItemColdHotSplit", "ItemColdSplit", "UserColdSplit"]


@dataclass(frozen=True, kw_only=True)
class UserColdSplit(Splitter):
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
        check_share(self.test_size, "test_size")
        if self.reveal not in ("random", "first"):
            raise InvalidInputError(f"`reveal` is {self.reveal!r}; expected 'random' or 'first'.")
        check_numbers(self.k, "k", also="all")
        if self.query_size != "rest":
            check_share(self.query_size, "query_size")
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
        return count - rounded_up(self.query_size, count)

    def _splits(self, data: Coded) -> Iterator[Split]:
        seed = seed_of(self.random_state)
        rng = check_random_state(seed)
        held_out = draw_entities(rng, self.test_size, len(data.users), "users")[data.user]
        by_time = self.reveal == "first"
        place, count = places_of(data.user, data.times if by_time else rng.permutation(len(data)))
        n_pool = self._n_pool(count)
        name = "user-cold first" if by_time else "user-cold"
        for k in self.k:
            limit = n_pool if k == "all" else np.minimum(n_pool, int(k))
            revealed = held_out & (place < limit)
            roles = {"train": ~held_out, "revealed": revealed, "test": held_out & (place >= n_pool)}
            order = "user" if by_time else None
            yield data.split(f"{name} k={k}", roles, cold="user", order=order, seed=seed)


@dataclass(frozen=True, kw_only=True)
class ItemColdSplit(Splitter):
    """New items: all rows of some items are held out, or all but the first few.

    `splits` yields two scenarios of one train set: every user ranks the held-out items alone, and they compete with
    the whole catalogue. `split` yields the first. Both come once for each k; the test rows are the same for all.

    Parameters
    ----------
    test_size : float, default=0.2
        Share of the items, rounded up.
    hot_test_size : float, default=0
        Share of the other items' rows, rounded up, that is held out too and tested where the whole catalogue is
        ranked: a model that ranks every new item first does badly there.
    items : {"random", "newest"}, default="random"
        "newest" holds out the items whose first row is the latest; `groups` holds the timestamps, ties break by row
        order. Rows of other items stay in train whenever they are from.
    k : sequence of int, default=(0,)
        How many rows of each held-out item stay in train, drawn at random, or its first ones where `items` is
        "newest". Items with fewer than the largest k have no test rows. Above 0 they are no longer cold, but few-shot.
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
    items: Literal["random", "newest"] = "random"
    k: Sequence[int] = (0,)
    random_state: Any = None

    def __post_init__(self) -> None:
        check_share(self.test_size, "test_size")
        if self.hot_test_size != 0:
            check_share(self.hot_test_size, "hot_test_size")
        if self.items not in ("random", "newest"):
            raise InvalidInputError(f"`items` is {self.items!r}; expected 'random' or 'newest'.")
        check_numbers(self.k, "k")

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Rows, Rows]]:
        """Split, as scikit-learn expects of a `cv`: for each k the first scenario alone."""
        yield from islice(super().split(X, y, groups), 0, None, 2)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """How many (train, test) pairs `split` yields: one for each k."""
        return len(self.k)

    @property
    def _needs_times(self) -> bool:
        return self.items == "newest"

    def _splits(self, data: Coded) -> Iterator[Split]:
        seed = seed_of(self.random_state)
        rng = check_random_state(seed)
        held_out = self._held_out(data, rng)
        cold = held_out[data.item]
        hot = np.zeros(len(data), dtype=bool)
        if self.hot_test_size:
            (n_hot,) = shares_of(int((~cold).sum()), "rows of hot items", self.hot_test_size)
            hot[rng.permutation(np.flatnonzero(~cold))[:n_hot]] = True
        place, _ = places_of(data.item, data.times if self._needs_times else rng.permutation(len(data)))
        test = cold & (place >= max(self.k))
        if not test.any():
            raise InvalidInputError(
                f"`X` has no item of more than {max(self.k)} rows to hold out; expected smaller `k`."
            )
        candidates = data.items.decode(np.flatnonzero(held_out))
        name = "item-cold" if self.items == "random" else "item-cold newest"
        for k in self.k:
            told = name if tuple(self.k) == (0,) else f"{name} k={k}"
            roles = {"train": ~(cold | hot) | (cold & (place < k)), "test": test}
            side: Literal["item"] | None = None if k else "item"
            yield data.split(f"{told} (cold candidates)", roles, candidates=candidates, cold=side, seed=seed)
            side = None if hot.any() else side
            yield data.split(f"{told} (whole catalogue)", {**roles, "test": test | hot}, cold=side, seed=seed)

    def _held_out(self, data: Coded, rng: np.random.RandomState) -> Mask:
        if self.items == "random":
            return draw_entities(rng, self.test_size, len(data.items), "items")
        (n_test,) = shares_of(len(data.items), "items", self.test_size)
        in_time = np.argsort(data.times, kind="stable")
        # In order of time, where each item comes first.
        first = np.unique(data.item[in_time], return_index=True)[1]
        held_out = np.zeros(len(data.items), dtype=bool)
        held_out[np.argsort(first)[-n_test:]] = True
        return held_out


@dataclass(frozen=True, kw_only=True)
class ItemColdHotSplit(Splitter):
    """New items and hot ones, as published models of cold items were judged: each among themselves, and together.

    Some items are held out for the test, as many for validation, and of the other items' rows the same two shares.
    `splits` yields three scenarios of one train set: the held-out items are ranked alone, the items with train rows
    alone, and all but those held out for validation together.

    Parameters
    ----------
    test_size : float, default=0.1
        Share of the items, and of the other items' rows; rounded to the nearest number, unlike all other shares.
    validation_size : float, default=0.1
        The same, of what is neither learned from nor tested.
    random_state : int, RandomState instance or None, default=None

    Examples
    --------
    >>> X = np.array([[user, item] for user in range(4) for item in range(10, 15)])
    >>> for split in ItemColdHotSplit(test_size=0.2, validation_size=0.2, random_state=0).splits(X):
    ...     split.name, len(split.train), len(split.validation), len(split.test), split.candidates.tolist()
    ('item-cold-hot (cold candidates)', 8, 6, 4, [14])
    ('item-cold-hot (hot candidates)', 8, 6, 2, [10, 11, 13])
    ('item-cold-hot (all candidates)', 8, 6, 6, [10, 11, 13, 14])
    """

    test_size: float = 0.1
    validation_size: float = 0.1
    random_state: Any = None

    def __post_init__(self) -> None:
        check_share(self.test_size, "test_size")
        check_share(self.validation_size, "validation_size")
        if self.test_size + self.validation_size >= 1:
            raise InvalidInputError(
                f"`test_size` + `validation_size` is {self.test_size + self.validation_size:g}; "
                f"expected a sum below 1, so that train rows are left."
            )

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Rows, Rows]]:
        """Split, as scikit-learn expects of a `cv`: the scenario of all candidates alone."""
        yield from islice(super().split(X, y, groups), 2, None)

    def _splits(self, data: Coded) -> Iterator[Split]:
        seed = seed_of(self.random_state)
        rng = np.random.default_rng(seed)
        # In the order of their labels, so that the order of the rows chooses no items.
        try:
            by_label = np.argsort(pd.factorize(data.items.ids, sort=True)[0])
        except TypeError as error:
            raise InvalidTypeError(
                f"The items of `X` have no order ({error}), such as {examples(data.items.ids)}; expected labels of one "
                f"type: convert them."
            ) from error
        n_validation, n_test = self._counts(len(data.items), "items")
        drawn = by_label[rng.permutation(len(by_label))]
        role = np.zeros(len(by_label), dtype=np.int8)
        role[drawn[:n_validation]], role[drawn[n_validation : n_validation + n_test]] = 1, 2
        of_validation, cold = role[data.item] == 1, role[data.item] == 2

        hot_rows = rng.permutation(np.flatnonzero(role[data.item] == 0))
        n_validation, n_test = self._counts(len(hot_rows), "rows of hot items")
        of_validation[hot_rows[:n_validation]] = True
        hot, train = np.zeros(len(data), dtype=bool), np.zeros(len(data), dtype=bool)
        hot[hot_rows[n_validation : n_validation + n_test]] = True
        train[hot_rows[n_validation + n_test :]] = True
        learned = np.bincount(data.item[train], minlength=len(role)) > 0

        scenarios: list[tuple[str, Mask, Mask, Literal["item"] | None]] = [
            ("cold", cold, role == 2, "item"),
            ("hot", hot & learned[data.item], learned, None),
            ("all", cold | hot, role != 1, None),
        ]
        for name, test, allowed, side in scenarios:
            roles = {"train": train, "validation": of_validation, "test": test}
            candidates = data.items.decode(np.flatnonzero(allowed))
            told = f"item-cold-hot ({name} candidates)"
            yield data.split(told, roles, candidates=candidates, cold=side, seed=seed)

    def _counts(self, n: int, what: str) -> tuple[int, int]:
        counts = round(self.validation_size * n), round(self.test_size * n)
        if not all(counts) or sum(counts) >= n:
            raise InvalidInputError(
                f"`X` has {n} {what}; expected more, to hold out some for validation and some for the test, and learn "
                f"from others."
            )
        return counts


@dataclass(frozen=True, kw_only=True)
class BothColdSplit(Splitter):
    """New users and new items at once: held-out users rank held-out items.

    Train rows are those of neither. The test rows pair a held-out user with a held-out item, which are the only
    candidates. Of a held-out user's rows with other items k are revealed, the one for k = 1 among those for k = 2 and
    so on. One split per k.

    Parameters
    ----------
    user_test_size, item_test_size : float, default=0.2
        Share of the users, and of the items, rounded up.
    k : sequence of int, default=(0,)
        How many interactions with other items are revealed; 0 leaves the features of the user, if any.
    random_state : int, RandomState instance or None, default=None

    Examples
    --------
    >>> X = np.array([[1, 10], [1, 11], [2, 10], [2, 11]])
    >>> splitter = BothColdSplit(user_test_size=0.5, item_test_size=0.5, k=(0, 1), random_state=0)
    >>> for split in splitter.splits(X):
    ...     split.name, split.train, split.revealed, split.test
    ('both-cold k=0', array([1]), array([], dtype=int64), array([2]))
    ('both-cold k=1', array([1]), array([3]), array([2]))
    """

    user_test_size: float = 0.2
    item_test_size: float = 0.2
    k: Sequence[int] = (0,)
    random_state: Any = None

    def __post_init__(self) -> None:
        check_share(self.user_test_size, "user_test_size")
        check_share(self.item_test_size, "item_test_size")
        check_numbers(self.k, "k")

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """How many (train, test) pairs `split` yields: one for each k."""
        return len(self.k)

    def _splits(self, data: Coded) -> Iterator[Split]:
        seed = seed_of(self.random_state)
        rng = check_random_state(seed)
        new_user = draw_entities(rng, self.user_test_size, len(data.users), "users")[data.user]
        held_out = draw_entities(rng, self.item_test_size, len(data.items), "items")
        new_item = held_out[data.item]
        test, train = new_user & new_item, ~new_user & ~new_item
        for part, what in ((test, "test"), (train, "train")):
            if not part.any():
                raise InvalidInputError(f"`X` has no rows left for {what}; expected some: use more data.")
        # Places among the rows with other items: those with new ones come after them.
        place, _ = places_of(data.user, np.where(new_item, len(data), rng.permutation(len(data))))
        for k in self.k:
            roles = {"train": train, "revealed": new_user & ~new_item & (place < k), "test": test}
            candidates = data.items.decode(np.flatnonzero(held_out))
            yield data.split(f"both-cold k={k}", roles, candidates=candidates, cold="both", seed=seed)

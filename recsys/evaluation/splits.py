"""Train and test rows, for every question worth asking, as objects that scikit-learn takes as `cv`.

Each splitter has two faces: `split`, scikit-learn's own, and `splits`, which also tells what an evaluator has
to know (name of the scenario, rows revealed at recommend time, candidates, seed, hash). Rows are positions in
`X`. For a validation part apply a splitter to the train rows: ``inner.splits(X.iloc[split.train])``.
Here are those whose users and items have train rows; `recsys.evaluation.cold_splits` has the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from recsys.evaluation._splitting import (
    LARGEST_SEED,
    Splitter,
    check_integer,
    check_seed,
    check_share,
    draw_places,
    draw_unmet,
    n_unmet,
    places_of,
    seed_of,
    shares_of,
    shares_of_each,
)
from recsys.evaluation.scenario import Coded, Split
from recsys.exceptions import InvalidInputError, InvalidTypeError

__all__ = ["GlobalTimeSplit", "LeaveLastOut", "RandomSplit", "SparseSubset"]


@dataclass(frozen=True, kw_only=True)
class RandomSplit(Splitter):
    """Rows at random, of all rows or of each user's. It trains on the future: report a time split too.

    Parameters
    ----------
    test_size : float, default=0.1
        Share of the rows, rounded up.
    validation_size : float, default=0.0
        Share of the rows, rounded up, that is neither learned from nor tested.
    by : {"user"}, default=None
        None: rows are drawn whoever's they are. "user": of each user's rows a share, rounded down but at least one row
        while another is left to learn from, for the test first; so RecBole splits [1]_.
    n_splits : int, default=1
        Split i is the one that ``random_state + i`` gives alone.
    random_state : int, RandomState instance or None, default=None

    References
    ----------
    .. [1] Zhao et al., "RecBole: Towards a Unified, Comprehensive and Efficient Framework for Recommendation
       Algorithms", CIKM 2021; its setting ``group_by: user``.

    Examples
    --------
    >>> X = np.column_stack([np.arange(10) % 3, np.arange(10)])
    >>> [split] = RandomSplit(test_size=0.2, validation_size=0.1, random_state=0).splits(X)
    >>> len(split.train), len(split.validation), len(split.test)
    (7, 1, 2)
    >>> [split] = RandomSplit(test_size=0.2, by="user", random_state=0).splits(X)
    >>> np.bincount(X[split.test, 0])
    array([1, 1, 1])
    """

    test_size: float = 0.1
    validation_size: float = 0.0
    by: Literal["user"] | None = None
    n_splits: int = 1
    random_state: Any = None

    def __post_init__(self) -> None:
        check_share(self.test_size, "test_size")
        if self.validation_size != 0:
            check_share(self.validation_size, "validation_size")
        if self.test_size + self.validation_size >= 1:
            raise InvalidInputError(
                f"`test_size` + `validation_size` is {self.test_size + self.validation_size:g}; "
                f"expected a sum below 1, so that train rows are left."
            )
        if self.by not in (None, "user"):
            raise InvalidInputError(f"`by` is {self.by!r}; expected 'user', or None for rows of all users alike.")
        check_integer(self.n_splits, "n_splits", 1)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """How many (train, test) pairs `split` yields: `n_splits`."""
        return self.n_splits

    def _splits(self, data: Coded) -> Iterator[Split]:
        sizes = self.test_size, self.validation_size
        n_test, n_validation = shares_of(len(data), "rows", *sizes) if self.by is None else shares_of_each(data, *sizes)
        first = seed_of(self.random_state)
        if first + self.n_splits - 1 > LARGEST_SEED:
            raise InvalidInputError(
                f"`random_state` is {first} and `n_splits` {self.n_splits}: the last split would be that of "
                f"{first + self.n_splits - 1}; expected a number up to {LARGEST_SEED}: lower `random_state`."
            )
        for seed in range(first, first + self.n_splits):
            place = draw_places(check_random_state(seed), len(data))
            if self.by is not None:
                place, _ = places_of(data.user, place)
            test = place < n_test
            train = place >= n_test + n_validation
            roles = {"train": train, "validation": ~(train | test), "test": test}
            yield data.split("random" if self.by is None else "random by user", roles, seed=seed)


@dataclass(frozen=True, kw_only=True)
class LeaveLastOut(Splitter):
    """The last rows of each user by time, against all earlier ones. `groups` holds the timestamps.

    Ties in time break by row order. Users with `n_last` rows or fewer stay in train.

    Parameters
    ----------
    n_last : int, default=1
    n_negatives : int, default=None
        Each user ranks the test items among so many others only, drawn uniformly from the items of `X` that the user
        has no row of. An `Evaluator` calls the metrics "sampled NDCG@10" and so on: they are for comparison with the
        literature, and may order models otherwise than the whole catalogue does [1]_. Users who lack fewer items stay
        in train. None: the catalogue is ranked.
    random_state : int, RandomState instance or None, default=None
        Of the negatives.

    References
    ----------
    .. [1] W. Krichene, S. Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020.

    Examples
    --------
    >>> X = np.array([[1, 10], [1, 11], [2, 10], [1, 12], [2, 13]])
    >>> [split] = LeaveLastOut().splits(X, groups=[5, 9, 7, 6, 8])
    >>> split.train, split.test
    (array([0, 2, 3]), array([1, 4]))
    >>> [split] = LeaveLastOut(n_negatives=1, random_state=0).splits(X, groups=[5, 9, 7, 6, 8])
    >>> split.candidates
       user_id  item_id
    0        1       11
    1        2       13
    2        1       13
    3        2       11
    """

    n_last: int = 1
    n_negatives: int | None = None
    random_state: Any = None

    def __post_init__(self) -> None:
        check_integer(self.n_last, "n_last", 1)
        if self.n_negatives is not None:
            check_integer(self.n_negatives, "n_negatives", 1)
        check_seed(self.random_state)

    @property
    def _needs_times(self) -> bool:
        return True

    def _splits(self, data: Coded) -> Iterator[Split]:
        place, count = places_of(data.user, data.times)
        test = (count > self.n_last) & (place >= count - self.n_last)
        if not test.any():
            raise InvalidInputError(f"`X` has no user with more than {self.n_last} rows; expected some to test.")
        if self.n_negatives is not None:
            test &= n_unmet(data)[data.user] >= self.n_negatives
            if not test.any():
                raise InvalidInputError(
                    f"`n_negatives` is {self.n_negatives}, more than any user to test has left of the "
                    f"{len(data.items)} items; expected fewer: lower it."
                )
        roles = {"train": ~test, "test": test}
        if self.n_negatives is None:
            yield data.split("leave-last-out", roles, order="user")
            return
        seed = seed_of(self.random_state)
        users = np.unique(data.user[test])
        negatives = draw_unmet(data, users, self.n_negatives, check_random_state(seed))
        asked = np.append(data.user[test], np.repeat(users, self.n_negatives))
        offered = np.append(data.item[test], negatives)
        pairs = pd.DataFrame({"user_id": data.users.decode(asked), "item_id": data.items.decode(offered)})
        name = f"leave-last-out ({self.n_last} + {self.n_negatives} sampled)"
        yield data.split(name, roles, candidates=pairs, order="user", seed=seed)


@dataclass(frozen=True, kw_only=True)
class GlobalTimeSplit(Splitter):
    """The last rows of all by time, against all earlier ones. `groups` holds the timestamps.

    It is the only split that trains on the past alone. Ties in time break by row order. Users and items that
    first come in the test rows stay: `entity_groups` tells them.

    Parameters
    ----------
    test_size : float, default=0.2
        Share of the rows, rounded up.
    drop_cold : bool, default=False
        Test only the users and items that have train rows, and rank only items that have some, as much of the
        literature does. What is dropped is neither learned from nor tested.

    Examples
    --------
    >>> X = np.array([[1, 10], [1, 11], [2, 10], [2, 12]])
    >>> [split] = GlobalTimeSplit(test_size=0.25).splits(X, groups=[5, 9, 7, 6])
    >>> split.train, split.test
    (array([0, 2, 3]), array([1]))
    """

    test_size: float = 0.2
    drop_cold: bool = False

    def __post_init__(self) -> None:
        check_share(self.test_size, "test_size")
        if not isinstance(self.drop_cold, (bool, np.bool_)):
            raise InvalidTypeError(f"`drop_cold` is {self.drop_cold!r}; expected True or False.")

    @property
    def _needs_times(self) -> bool:
        return True

    def _splits(self, data: Coded) -> Iterator[Split]:
        (n_test,) = shares_of(len(data), "rows", self.test_size)
        test = np.zeros(len(data), dtype=bool)
        test[np.argsort(data.times, kind="stable")[-n_test:]] = True
        if not self.drop_cold:
            yield data.split("global time", {"train": ~test, "test": test}, order="all")
            return
        hot_items = np.unique(data.item[~test])
        hot = np.isin(data.user, data.user[~test]) & np.isin(data.item, hot_items)
        if not (test & hot).any():
            raise InvalidInputError(
                f"`drop_cold` leaves none of the {n_test} test rows: each is of a user or item without train rows; "
                f"expected some to test: raise `test_size`, or leave `drop_cold` out."
            )
        roles = {"train": ~test, "test": test & hot}
        yield data.split("global time (hot only)", roles, candidates=data.items.decode(hot_items), order="all")


@dataclass(frozen=True, kw_only=True)
class SparseSubset(Splitter):
    """Rows at random, of which those are tested whose user, or item, has the fewest train rows.

    The other held-out rows are neither learned from nor tested.

    Parameters
    ----------
    by : {"user", "item"}, default="user"
    quantile : float, default=0.2
        Tested are users, or items, whose number of train rows is at most this quantile of those numbers, and 1 or more.
    test_size : float, default=0.2
        Share of the rows that is held out, rounded up.
    random_state : int, RandomState instance or None, default=None

    Examples
    --------
    >>> X = np.array([[1, 10], [1, 11], [1, 12], [1, 13], [2, 10], [2, 11]])
    >>> [split] = SparseSubset(quantile=0.5, test_size=0.5, random_state=0).splits(X)
    >>> split.train, split.validation, split.test
    (array([0, 3, 4]), array([1, 2]), array([5]))
    """

    by: Literal["user", "item"] = "user"
    quantile: float = 0.2
    test_size: float = 0.2
    random_state: Any = None

    def __post_init__(self) -> None:
        if self.by not in ("user", "item"):
            raise InvalidInputError(f"`by` is {self.by!r}; expected 'user' or 'item'.")
        check_share(self.quantile, "quantile")
        check_share(self.test_size, "test_size")

    def _splits(self, data: Coded) -> Iterator[Split]:
        (n_test,) = shares_of(len(data), "rows", self.test_size)
        seed = seed_of(self.random_state)
        held_out = draw_places(check_random_state(seed), len(data)) < n_test
        code = data.user if self.by == "user" else data.item
        counts = np.bincount(code[~held_out], minlength=int(code.max()) + 1)
        few = np.quantile(counts[counts > 0], self.quantile)
        test = held_out & (counts[code] > 0) & (counts[code] <= few)
        if not test.any():
            raise InvalidInputError(f"No held-out row is of a sparse {self.by}; expected some: raise `quantile`.")
        roles = {"train": ~held_out, "validation": held_out & ~test, "test": test}
        yield data.split(f"sparse {self.by}s", roles, seed=seed)

"""Synthetic data of the shape of MovieLens and of any size.

Each of `n_factors` tastes is a distribution over items and each user a mixture of tastes, so that
``P(item | user) = sum_t mixture[user, t] * taste[t, item]`` has that rank. Genres and year of an item tilt its place in
every taste; gender, age and occupation of a user tilt the mixture; what neither explains is noise that only
interactions reveal. Ratings follow the same affinity, and nobody rates an item before its release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils import check_random_state

from recsys.datasets._bunch import DatasetBunch
from recsys.datasets._readers import OCCUPATIONS
from recsys.exceptions import InvalidInputError, InvalidTypeError

__all__ = ["make_movielens_like"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Shares of genres, age brackets, ratings and the quantiles of years are those of ML-1M, rounded.
_GENRES = {
    "Action": 0.13, "Adventure": 0.07, "Animation": 0.03, "Children's": 0.06, "Comedy": 0.31, "Crime": 0.05,
    "Documentary": 0.03, "Drama": 0.41, "Fantasy": 0.02, "Film-Noir": 0.01, "Horror": 0.09, "Musical": 0.03,
    "Mystery": 0.03, "Romance": 0.12, "Sci-Fi": 0.07, "Thriller": 0.13, "War": 0.04, "Western": 0.02,
}  # fmt: skip
_N_GENRES = {1: 0.52, 2: 0.34, 3: 0.14}
_AGES = {1: 0.04, 18: 0.18, 25: 0.35, 35: 0.20, 45: 0.09, 50: 0.08, 56: 0.06}
_SHARE_OF_MEN = 0.72
_YEARS = ((0, 1919), (0.05, 1946), (0.1, 1959), (0.25, 1982), (0.5, 1994), (0.75, 1997), (0.9, 1999), (1, 2001))
_RATING_SHARES = (0.056, 0.108, 0.261, 0.349, 0.226)
# What an age bracket mostly does.
_TYPICAL = {1: "K-12 student", 18: "college/grad student", 56: "retired"}
_FIRST_WORDS = ("Silent", "Broken", "Golden", "Midnight", "Lost", "Crimson", "Last", "Hidden", "Distant", "Burning")
_SECOND_WORDS = ("River", "Promise", "City", "Summer", "Mirror", "Station", "Garden", "Letter", "Horizon", "Stranger")

_DAY = 86_400
# Users join in these three years, in seconds since 1970. Three quarters of the items are older.
_OPENING, _CLOSING = 883_612_800, 978_307_200
# Shares of variance that attributes explain of a user's tastes, and metadata of an item's place in them.
_BY_ATTRIBUTES, _BY_METADATA = 0.3, 0.75
# How far tastes are from popularity, and users from the average taste.
_CONTRAST, _FOCUS = 2.5, 4.0
_ZIPF = 2.2
# Interactions drawn at once, and how often a block is drawn again for what collided.
_BLOCK = 1 << 20
_ROUNDS = 12


@dataclass(frozen=True)
class _World:
    """What decides who meets which item, and how they like it."""

    taste: Floats  # (n_factors, n_items), each row sums to 1
    mixture: Floats  # (n_users, n_factors), each row sums to 1
    appeal: Floats  # (n_items,), sums to 1: popularity but for taste
    quality: Floats  # (n_items,)
    leniency: Floats  # (n_users,)
    release: Ints  # (n_items,), seconds since 1970
    joins: Ints  # (n_users,)
    leaves: Ints  # (n_users,)


def make_movielens_like(
    n_users: int = 1000,
    n_items: int = 800,
    n_interactions: int = 50_000,
    *,
    n_factors: int = 8,
    random_state: int | np.random.RandomState | None = None,
) -> DatasetBunch:
    """Generate interactions, users and items of the shape of MovieLens.

    Popularity is Zipf-like, activity log-normal. Tastes follow gender, age and occupation of users and genres and year
    of items, so that features inform about new users and items; the larger part of a user's shows only in interactions.

    Parameters
    ----------
    n_users, n_items : int, default=1000, 800
        Numbers of users and items.
    n_interactions : int, default=50_000
        Number of distinct pairs: at least `n_users`, since everybody rates something, and at most half of all pairs.
    n_factors : int, default=8
        Number of tastes: the rank of the matrix of preferences.
    random_state : int, RandomState instance or None, default=None
        Seed or source of the random numbers. An int gives the same frames every time.

    Returns
    -------
    sklearn.utils.Bunch
        With these attributes:

        - interactions : DataFrame of user_id, item_id (int64), rating (float32, 1 to 5), timestamp (int64, Unix
          seconds), sorted by user and, strictly increasing, by time
        - users : DataFrame of user_id, gender, age (lowest of a bracket), occupation, zip_code
        - items : DataFrame of item_id, title, year (float64), genres (lists of str); some have no interactions
        - DESCR : str
        - name : str, "movielens-like"

    Raises
    ------
    InvalidTypeError
        If a size is no integer.
    InvalidInputError
        If the sizes are impossible.

    Notes
    -----
    Memory grows with `n_interactions` and with ``(n_users + n_items) * n_factors``, never with ``n_users * n_items``.

    Examples
    --------
    >>> from recsys.datasets import make_movielens_like
    >>> data = make_movielens_like(100, 60, 1000, random_state=0)
    >>> data.interactions.shape, data.users.shape, data.items.shape
    ((1000, 4), (100, 5), (60, 4))
    >>> bool(data.interactions.duplicated(["user_id", "item_id"]).any())
    False
    """
    _check_sizes(n_users, n_items, n_interactions, n_factors)
    # NumPy's integers of few bits would overflow.
    n_users, n_items, n_interactions, n_factors = map(int, (n_users, n_items, n_interactions, n_factors))
    rng: np.random.RandomState = check_random_state(random_state)
    users, user_scores = _make_users(rng, n_users, n_factors)
    items, item_scores, popularity, release = _make_items(rng, n_items, n_factors)
    world = _make_world(rng, user_scores, item_scores, popularity, release)
    counts = _make_activity(rng, world, n_interactions)
    return DatasetBunch(
        interactions=_make_interactions(rng, world, counts),
        users=users,
        items=items,
        DESCR=(
            f"Synthetic data of the shape of MovieLens: {n_interactions:,} ratings of {n_items:,} items by {n_users:,} "
            f"users with {n_factors} tastes, from recsys.datasets.make_movielens_like (random_state={random_state!r})."
        ),
        name="movielens-like",
    )


def _check_sizes(n_users: int, n_items: int, n_interactions: int, n_factors: int) -> None:
    sizes = {"n_users": n_users, "n_items": n_items, "n_interactions": n_interactions, "n_factors": n_factors}
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, Integral):
            raise InvalidTypeError(f"`{name}` is {size!r}; expected an integer.")
        if size < 1:
            raise InvalidInputError(f"`{name}` is {size}; expected at least 1.")
    if n_interactions < n_users:
        raise InvalidInputError(
            f"`n_interactions` is {n_interactions:,} for {n_users:,} users; expected at least one each. "
            "Ask for fewer users."
        )
    # Half, since nobody rates what is not released yet.
    most = n_users * ((n_items + 1) // 2)
    if n_interactions > most:
        raise InvalidInputError(
            f"`n_interactions` is {n_interactions:,} for {n_users:,} users and {n_items:,} items; "
            f"expected at most {most:,}, half of all pairs. Ask for more users or items."
        )


def _make_users(rng: np.random.RandomState, n_users: int, n_factors: int) -> tuple[pd.DataFrame, Floats]:
    """Draw attributes, and scores of tastes that attributes explain in part."""
    man = rng.random_sample(n_users) < _SHARE_OF_MEN
    age = rng.choice(len(_AGES), size=n_users, p=np.array(list(_AGES.values())))
    # Which occupations go with which age.
    logits = rng.standard_normal((len(_AGES), len(OCCUPATIONS)))
    logits[:, [OCCUPATIONS.index(word) for word in _TYPICAL.values()]] -= 3
    for bracket, word in _TYPICAL.items():
        logits[list(_AGES).index(bracket), OCCUPATIONS.index(word)] += 8
    occupation = _draw_columns(rng, _softmax(logits), age)
    by_gender, by_age, by_occupation = (rng.standard_normal((n, n_factors)) for n in (2, len(_AGES), len(OCCUPATIONS)))
    explained = by_gender[man.astype(int)] + by_age[age] + 0.7 * by_occupation[occupation]
    zips = pd.Series(rng.randint(0, 100_000, n_users)).astype(str).str.zfill(5)
    users = pd.DataFrame(
        {
            "user_id": np.arange(1, n_users + 1, dtype=np.int64),
            "gender": pd.Series(np.where(man, "M", "F"), dtype=str),
            "age": np.array(list(_AGES), dtype=np.int64)[age],
            "occupation": pd.Series(np.array(OCCUPATIONS, dtype=object)[occupation], dtype=str),
            "zip_code": zips,
        }
    )
    return users, _blend(rng, explained, _BY_ATTRIBUTES)


def _make_items(rng: np.random.RandomState, n_items: int, n_factors: int) -> tuple[pd.DataFrame, Floats, Floats, Ints]:
    """Draw metadata, scores of tastes and of popularity that metadata explain in part, and seconds of release."""
    names = np.array(list(_GENRES), dtype=object)
    sizes = rng.choice(list(_N_GENRES), size=n_items, p=list(_N_GENRES.values()))
    # The largest Gumbel-shifted logits are a weighted sample without replacement.
    keys = np.log(list(_GENRES.values())) + rng.gumbel(size=(n_items, len(names)))
    chosen = (keys.argsort(axis=1).argsort(axis=1) >= len(names) - sizes[:, None]).astype(float)
    quantiles, years = zip(*_YEARS, strict=True)
    # Stratified, so that any number of items has its share of old ones.
    exact_year = np.interp((rng.permutation(n_items) + 0.5) / n_items, quantiles, years)
    year = np.floor(exact_year)
    new_year = (year - 1970).astype("datetime64[Y]").astype("datetime64[s]").astype(np.int64)
    release = new_year + rng.randint(0, 365 * _DAY, n_items)

    age = _standardise(-np.log(2 + year.max() - exact_year)[:, None])
    share = chosen / chosen.sum(axis=1, keepdims=True)
    by_genre = rng.standard_normal((len(names), n_factors + 1))
    explained = _standardise(share @ by_genre) + 0.7 * age * rng.standard_normal(n_factors + 1)
    explained[:, -1] += 0.7 * age[:, 0]
    scores = _blend(rng, explained, _BY_METADATA)

    words = [
        np.array(words, dtype=object)[rng.randint(0, len(words), n_items)] for words in (_FIRST_WORDS, _SECOND_WORDS)
    ]
    ids = np.arange(1, n_items + 1, dtype=np.int64)
    joined = pd.Series((chosen.astype(int).astype(object)) @ (names + "|"), dtype=str)
    items = pd.DataFrame(
        {
            "item_id": ids,
            "title": pd.Series(words[0] + " " + words[1] + " ", dtype=str) + pd.Series(ids).astype(str),
            "year": year,
            "genres": joined.str.rstrip("|").str.split("|").astype(object),
        }
    )
    return items, scores[:, :-1], scores[:, -1], release


def _make_world(
    rng: np.random.RandomState, user_scores: Floats, item_scores: Floats, popularity: Floats, release: Ints
) -> _World:
    n_users, n_items = len(user_scores), len(item_scores)
    rank = np.argsort(np.argsort(-popularity)).astype(np.float64)
    # Zipf-Mandelbrot: its flat head is what is left of it when everybody rates an item once.
    appeal: Floats = np.power(rank + 1 + 0.06 * n_items, -_ZIPF)
    appeal /= appeal.sum()
    taste: Floats = appeal * np.exp(_CONTRAST * item_scores.T)
    taste /= taste.sum(axis=1, keepdims=True)
    joins = rng.randint(_OPENING, _CLOSING, n_users)
    # Most users stay for an evening, some for months.
    days = np.where(rng.random_sample(n_users) < 0.7, 0.1, 200.0) * rng.standard_exponential(n_users)
    return _World(
        taste=taste,
        mixture=_softmax(_FOCUS * user_scores),
        appeal=appeal,
        quality=0.35 * _standardise(popularity[:, None])[:, 0] + 0.5 * rng.standard_normal(n_items),
        leniency=0.4 * rng.standard_normal(n_users),
        release=release,
        joins=joins,
        leaves=joins + 600 + (days * _DAY).astype(np.int64),
    )


def _make_activity(rng: np.random.RandomState, world: _World, n_interactions: int) -> Ints:
    """Split `n_interactions` log-normally among users, none of whom can rate more than is released."""
    n_users = len(world.joins)
    most = np.searchsorted(np.sort(world.release), world.leaves)
    least = max(1, min(20, n_interactions // (5 * n_users)))
    activity = np.exp(rng.standard_normal(n_users))

    def split(scale: float) -> Floats:
        return np.clip(scale * activity, least, most)

    low, high = 0.0, 1.0
    while split(high).sum() < n_interactions:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if split(middle).sum() < n_interactions else (low, middle)
    shares = split(low)
    counts = np.floor(shares).astype(np.int64)
    # The largest remainders among those who can take one more make the sum exact.
    order = np.argsort(np.where(counts < most, counts - shares, 1.0), kind="stable")
    counts[order[: n_interactions - counts.sum()]] += 1
    return counts


def _make_interactions(rng: np.random.RandomState, world: _World, counts: Ints) -> pd.DataFrame:
    n = int(counts.sum())
    users, items, times = (np.empty(n, dtype=np.int64) for _ in range(3))
    liking = np.empty(n, dtype=np.float32)
    start = 0
    for first, last in _blocks(counts):
        user, item = _draw_pairs(rng, world, first, counts[first:last])
        stop = start + len(user)
        here = slice(start, stop)
        time, order = _draw_times(rng, world, user, item)
        users[here], items[here], times[here] = user[order] + 1, item[order] + 1, time
        liking[here] = _like(rng, world, user[order], item[order])
        start = stop
    cuts = np.quantile(liking, np.cumsum(_RATING_SHARES[:-1]))
    ratings = (1 + np.searchsorted(cuts.astype(np.float32), liking)).astype(np.float32)
    return pd.DataFrame({"user_id": users, "item_id": items, "rating": ratings, "timestamp": times})


def _blocks(counts: Ints) -> Iterator[tuple[int, int]]:
    """Cut the users into runs of about `_BLOCK` interactions, which bound the memory of what follows."""
    totals = np.cumsum(counts)
    edges = np.unique(np.searchsorted(totals, np.arange(_BLOCK, totals[-1], _BLOCK)) + 1)
    bounds = np.unique(np.r_[0, edges, len(counts)]).tolist()
    yield from pairwise(bounds)


def _draw_pairs(rng: np.random.RandomState, world: _World, first: int, need: Ints) -> tuple[Ints, Ints]:
    """Draw `need` distinct released items for each user from `first` on, in proportion to their probabilities.

    Draws with replacement, the first of each kind kept, are draws without; what collides is drawn again.
    """
    n_factors, n_items = world.taste.shape
    mixture = _stack(world.mixture[first : first + len(need)])
    taste = _stack(world.taste)
    need = need.copy()
    taken = np.empty(0, dtype=np.int64)
    for _ in range(_ROUNDS):
        if not need.any():
            break
        owner = np.repeat(np.arange(len(need)), np.where(need > 0, need + need // 2 + 2, 0))
        factor = _draw_stacked(rng, mixture, owner, n_factors)
        item = _draw_stacked(rng, taste, factor, n_items)
        released = world.release[item] < world.leaves[owner + first]
        pairs = (owner * n_items + item)[released]
        pairs = pairs[np.sort(np.unique(pairs, return_index=True)[1])]
        pairs = pairs[~_contains(taken, pairs)]
        owner = pairs // n_items
        # Owners ascend, so the place of a pair among its owner's is its distance from the first of them.
        accepted = np.arange(len(pairs)) - np.searchsorted(owner, owner) < need[owner]
        need -= np.bincount(owner[accepted], minlength=len(need))
        taken = np.sort(np.r_[taken, pairs[accepted]])
    for users in _small_batches(np.flatnonzero(need), n_items):
        more = _draw_rest(rng, world, users, first, need[users], taken)
        taken = np.sort(np.r_[taken, more])
    return taken // n_items + first, taken % n_items


def _draw_rest(rng: np.random.RandomState, world: _World, users: Ints, first: int, need: Ints, taken: Ints) -> Ints:
    """Complete users who have seen nearly all that is likely, with the largest of Gumbel-shifted logits."""
    n_items = world.taste.shape[1]
    logits = np.log(world.mixture[users + first] @ world.taste)
    logits += rng.gumbel(size=logits.shape)
    pairs = users[:, None] * n_items + np.arange(n_items)
    open_ = (world.release < world.leaves[users + first, None]) & ~_contains(taken, pairs.ravel()).reshape(pairs.shape)
    rank = np.argsort(np.argsort(np.where(open_, -logits, np.inf), axis=1), axis=1)
    rest: Ints = pairs[rank < need[:, None]]
    return rest


def _small_batches(users: Ints, n_items: int) -> Iterator[Ints]:
    step = max(1, (_BLOCK * 4) // n_items)
    for start in range(0, len(users), step):
        yield users[start : start + step]


def _draw_times(rng: np.random.RandomState, world: _World, user: Ints, item: Ints) -> tuple[Ints, npt.NDArray[np.intp]]:
    """Draw moments of each user's stay, after the item's release; return them in order, and that order of the rows."""
    earliest = np.maximum(world.joins[user], world.release[item])
    stay = world.leaves[user] - earliest
    time = earliest + (rng.random_sample(len(user)) * stay).astype(np.int64)
    order = np.lexsort((time, user))
    user = user[order]
    # Seconds collide; the n-th interaction comes n seconds later, so that no two of a user do.
    return time[order] + np.arange(len(user)) - np.searchsorted(user, user), order


def _like(rng: np.random.RandomState, world: _World, user: Ints, item: Ints) -> Floats:
    """How much each user likes each item: affinity, quality, leniency and chance."""
    affinity = np.zeros(len(user))
    for factor in range(world.taste.shape[0]):
        lift = world.taste[factor] / world.appeal
        affinity += world.mixture[user, factor] * lift[item]
    liking: Floats = 0.4 * np.log(affinity) + world.quality[item] + world.leniency[user]
    return liking + 0.8 * rng.standard_normal(len(user))


def _stack(rows: Floats) -> Floats:
    """Cumulate each row of probabilities and lift row r by r: one sorted array to search."""
    cumulated = np.cumsum(rows, axis=1)
    cumulated[:, -1] = 1.0
    lifted: Floats = (cumulated + np.arange(len(rows))[:, None]).ravel()
    return lifted


def _draw_stacked(rng: np.random.RandomState, stacked: Floats, row: Ints, width: int) -> Ints:
    """Draw one column for each entry of `row` from the rows that `_stack` cumulated."""
    found = np.searchsorted(stacked, row + rng.random_sample(len(row)), side="right")
    column: Ints = np.minimum(found - row * width, width - 1)
    return column


def _draw_columns(rng: np.random.RandomState, rows: Floats, row: Ints) -> Ints:
    return _draw_stacked(rng, _stack(rows), row, rows.shape[1])


def _contains(ordered: Ints, values: Ints) -> npt.NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: npt.NDArray[np.bool_] = ordered[place] == values
    return found


def _softmax(scores: Floats) -> Floats:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _blend(rng: np.random.RandomState, explained: Floats, share: float) -> Floats:
    """Standardise columns and add noise, so that they explain `share` of the variance of the sum."""
    noise = rng.standard_normal(explained.shape)
    blended: Floats = np.sqrt(share) * _standardise(explained) + np.sqrt(1 - share) * noise
    return blended


def _standardise(columns: Floats) -> Floats:
    spread = columns.std(axis=0)
    standard: Floats = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return standard

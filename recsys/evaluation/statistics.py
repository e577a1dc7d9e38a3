"""How sure we are: intervals and tests over users.

Values are per user: shape (n_users,), or (n_users, n_metrics) to let several metrics share the resamples.
Seeds are another source of variation; average over them first, user by user, or report them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm
from sklearn.utils import check_random_state

from recsys.evaluation._splitting import check_seed
from recsys.exceptions import InvalidInputError, InvalidTypeError, examples

__all__ = [
    "Interval",
    "bootstrap_interval",
    "holm",
    "max_t_test",
    "minimum_detectable_difference",
    "paired_bootstrap",
    "randomisation_test",
]

Values = npt.NDArray[np.float64]
Statistic = np.float64 | npt.NDArray[np.float64]

# Cells of a chunk of resamples: small enough to stay in a processor's cache.
_CHUNK = 2**18


class Interval(NamedTuple):
    """A mean over users and its confidence interval.

    Attributes
    ----------
    mean, low, high : float, or ndarray of shape (n_metrics,)
    """

    mean: Statistic
    low: Statistic
    high: Statistic


def bootstrap_interval(
    values: npt.ArrayLike, *, n_resamples: int = 5000, confidence: float = 0.95, random_state: Any = None
) -> Interval:
    """Percentile bootstrap interval of the mean over users.

    Users are drawn with replacement, as many as there are, `n_resamples` times; the bounds are the
    ``(1 - confidence) / 2`` and ``(1 + confidence) / 2`` quantiles of the means.

    Parameters
    ----------
    values : array-like of shape (n_users,) or (n_users, n_metrics)
    n_resamples : int, default=5000
    confidence : float, default=0.95
        Between 0 and 1, exclusive.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    Interval
        Its bounds are NaN for a single user, of whose spread nothing is known.

    Raises
    ------
    InvalidInputError
        If `values` is empty or not finite, or a parameter is out of range.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13, 1993.

    Examples
    --------
    >>> mean, low, high = bootstrap_interval([0.0, 1.0] * 50, random_state=0)
    >>> f"{mean:.2f} [{low:.1f}, {high:.1f}]"
    '0.50 [0.4, 0.6]'
    """
    table = _values(values, "values")
    _check_count(n_resamples, "n_resamples")
    _check_share(confidence, "confidence", 0.95)
    if len(table) == 1:
        bounds = np.full((2, table.shape[1]), np.nan)
    else:
        means = np.empty((n_resamples, table.shape[1]))
        for part, counts in _resamples(len(table), n_resamples, random_state):
            means[part] = counts @ table / len(table)
        bounds = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    shape = np.shape(values)[1:]
    mean, low, high = (row.reshape(shape)[()] for row in (table.mean(axis=0), *bounds))
    return Interval(mean, low, high)


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    n_resamples: int = 5000,
    confidence: float = 0.95,
    random_state: Any = None,
) -> Interval:
    """Bootstrap interval of the mean difference ``a - b`` over the same users.

    Far narrower than two intervals side by side: what makes a user easy for both models cancels.

    Parameters
    ----------
    a, b : array-like of shape (n_users,) or (n_users, n_metrics)
        Row u of both belongs to the same user; where both are pandas objects, their indices must agree.
    n_resamples : int, default=5000
    confidence : float, default=0.95
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    Interval

    Raises
    ------
    InvalidInputError
        If `a` and `b` are not of the same users, are empty or not finite, or a parameter is out of range.

    Examples
    --------
    >>> mean, low, high = paired_bootstrap([0.5, 0.2, 0.9], [0.4, 0.1, 0.8], random_state=0)
    >>> f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    '0.10 [0.10, 0.10]'
    """
    return bootstrap_interval(
        _differences(a, b), n_resamples=n_resamples, confidence=confidence, random_state=random_state
    )


def randomisation_test(
    a: npt.ArrayLike, b: npt.ArrayLike, *, n_resamples: int = 5000, random_state: Any = None
) -> Statistic:
    """Two-sided p value of the paired randomisation test of ``mean(a - b) = 0``.

    If the models were the same, swapping them for some users, that is flipping the signs of the differences,
    would change nothing. Where m of R random flips end as far from 0 as what was seen, or farther,
    ``p = (m + 1) / (R + 1)``.

    Parameters
    ----------
    a, b : array-like of shape (n_users,) or (n_users, n_metrics)
        Row u of both belongs to the same user; where both are pandas objects, their indices must agree.
    n_resamples : int, default=5000
        The smallest p value possible is ``1 / (n_resamples + 1)``.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    float, or ndarray of shape (n_metrics,)

    Raises
    ------
    InvalidInputError
        If `a` and `b` are not of the same users, are empty or not finite, or `n_resamples` is below 1.

    References
    ----------
    Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
    evaluation", CIKM 2007.

    Examples
    --------
    >>> float(randomisation_test([1.0, 0.0], [0.0, 1.0], random_state=0))
    1.0
    """
    differences = _differences(a, b)
    _check_count(n_resamples, "n_resamples")
    table = differences.reshape(len(differences), -1)
    total = table.sum(axis=0)
    # Sums of the same terms in another order differ in the last bits: these are ties, not evidence.
    bar = np.abs(total) - 1e-12 * np.abs(table).sum(axis=0)
    extreme = np.ones(table.shape[1])
    for _, kept in _coin_flips(len(table), n_resamples, random_state):
        extreme += (np.abs(2 * (kept @ table) - total) >= bar).sum(axis=0)
    p: Values = (extreme / (n_resamples + 1)).reshape(differences.shape[1:])
    result: Statistic = p[()]
    return result


def max_t_test(values: npt.ArrayLike, *, n_resamples: int = 5000, random_state: Any = None) -> Values:
    r"""Two-sided p values of all pairs of models at once, adjusted for their number: whichever pair is looked at.

    The signs of all differences of a user are flipped together, as in `randomisation_test`. With :math:`d_{ij}` the
    differences of a pair, :math:`t_{ij} = |\sum d_{ij}| / \sqrt{\sum d_{ij}^2}`; where the largest t of any pair is at
    least that of this pair in m of R random flips, ``p = (m + 1) / (R + 1)``. The chance that any two equal models are
    told apart is kept, so the best one may be picked by the same values; `holm` knows of the number of tests, and not
    that one side of each was picked.

    Parameters
    ----------
    values : array-like of shape (n_users, n_models) or (n_users, n_models, n_metrics)
        Metrics share the flips; each is a family of its own.
    n_resamples : int, default=5000
        The smallest p value possible is ``1 / (n_resamples + 1)``.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    ndarray of shape (n_models, n_models) or (n_models, n_models, n_metrics), float64
        Symmetric, with 1 on the diagonal.

    Raises
    ------
    InvalidInputError
        If `values` is of another shape, empty or not finite, or `n_resamples` is below 1.

    References
    ----------
    Westfall and Young, "Resampling-Based Multiple Testing", 1993, section 2.4 (single-step maxT).

    Examples
    --------
    >>> hits = np.repeat([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], 20, axis=0)
    >>> max_t_test(hits, random_state=0)[0].round(2)
    array([1., 1., 0.])
    """
    table = _numbers(values, "values")
    if table.ndim not in (2, 3):
        raise InvalidInputError(
            f"`values` has shape {table.shape}; expected a row per user and a column per model: (n_users, n_models)."
        )
    _values(table.reshape(len(table), -1), "values")
    _check_count(n_resamples, "n_resamples")
    n_users, n_models = table.shape[:2]
    models = table.reshape(n_users, n_models, -1)
    first, second = np.triu_indices(n_models, 1)
    products = np.einsum("umk,unk->mnk", models, models)
    squares = np.einsum("mmk->mk", products)
    size = squares[first] + squares[second]
    spread = size - 2 * products[first, second]
    # What is left of equal models is rounding.
    equal = spread <= 1e-12 * size
    scale = np.where(equal, 0, 1 / np.sqrt(np.where(equal, 1, spread)))
    totals = models.sum(axis=0)
    # Sums of the same terms in another order differ in the last bits: these are ties, not evidence.
    bar = np.abs(totals[first] - totals[second]) * scale - 1e-9
    extreme = np.ones_like(bar)
    for _, kept in _coin_flips(n_users, n_resamples, random_state):
        sums = 2 * (kept @ models.reshape(n_users, -1)).reshape(len(kept), *totals.shape) - totals
        largest = np.max(np.abs(sums[:, first] - sums[:, second]) * scale, axis=1, initial=0)
        extreme += (largest[:, None] >= bar).sum(axis=0)
    p = np.ones((n_models, n_models, models.shape[2]))
    p[first, second] = p[second, first] = extreme / (n_resamples + 1)
    return p.reshape(n_models, n_models, *table.shape[2:])


def holm(pvalues: npt.ArrayLike) -> Values:
    """Adjust the p values of a family of tests for their number (Holm's step-down procedure).

    With the m values in ascending order, ``p_i' = max_{j <= i} min(1, (m - j + 1) p_j)``. Rejecting where
    ``p' <= alpha`` keeps the chance of any false rejection below alpha, however the tests are related.

    Parameters
    ----------
    pvalues : array-like of shape (n_tests,)

    Returns
    -------
    ndarray of shape (n_tests,), float64
        In the order given.

    Raises
    ------
    InvalidInputError
        If a value is not between 0 and 1.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics, 1979.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = _numbers(pvalues, "pvalues")
    if p.ndim != 1:
        raise InvalidInputError(f"`pvalues` has shape {p.shape}; expected one value per test, shape (n_tests,).")
    bad = ~((p >= 0) & (p <= 1))
    if bad.any():
        raise InvalidInputError(f"`pvalues` holds {examples(p[bad])}; expected numbers from 0 to 1.")
    order = np.argsort(p, kind="stable")
    scaled = np.minimum(p[order] * np.arange(len(p), 0, -1), 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(scaled)
    return adjusted


def minimum_detectable_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, *, confidence: float = 0.95, power: float = 0.8
) -> Statistic:
    """Smallest true mean of ``a - b`` that a paired test over as many users would find with probability `power`.

    With s the standard deviation of the n differences and z the quantiles of the normal distribution,
    ``(z((1 + confidence) / 2) + z(power)) * s / sqrt(n)``: 2.8 standard errors for a two-sided test at 5 % and a power
    of 80 %. It tells how much a difference that was not found may still be. The normal distribution is the limit of
    many users; of fewer than about twenty it promises too much.

    Parameters
    ----------
    a, b : array-like of shape (n_users,) or (n_users, n_metrics)
        Row u of both belongs to the same user; where both are pandas objects, their indices must agree.
    confidence : float, default=0.95
        1 minus the level of the test.
    power : float, default=0.8

    Returns
    -------
    float, or ndarray of shape (n_metrics,)
        NaN for a single user, of whose spread nothing is known.

    Raises
    ------
    InvalidInputError
        If `a` and `b` are not of the same users, are empty or not finite, or a parameter is not between 0 and 1.

    References
    ----------
    Sakai, "Laboratory Experiments in Information Retrieval", chapter 6, 2018.

    Examples
    --------
    >>> a = np.tile([0.0, 1.0], 200)
    >>> round(float(minimum_detectable_difference(a, np.full(400, 0.4))), 3)
    0.07
    """
    differences = _differences(a, b)
    _check_share(confidence, "confidence", 0.95)
    _check_share(power, "power", 0.8)
    if power <= (1 - confidence) / 2:
        raise InvalidInputError(
            f"`power` is {power!r}; expected more than {(1 - confidence) / 2:g}, which such a test finds without any "
            f"difference."
        )
    n = len(differences)
    spread = differences.std(axis=0, ddof=1) if n > 1 else np.full(differences.shape[1:], np.nan)[()]
    result: Statistic = (norm.ppf((1 + confidence) / 2) + norm.ppf(power)) * spread / np.sqrt(n)
    return result


def _resamples(n: int, n_resamples: int, random_state: Any) -> Iterator[tuple[slice, Values]]:
    """How often each of n users is drawn, for chunks of resamples."""
    rng = _generator(random_state)
    size = max(1, _CHUNK // n)
    for start in range(0, n_resamples, size):
        part = slice(start, min(start + size, n_resamples))
        rows = part.stop - start
        drawn = rng.integers(n, size=(rows, n), dtype=np.int32) + np.arange(rows)[:, None] * n
        yield part, np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _coin_flips(n: int, n_resamples: int, random_state: Any) -> Iterator[tuple[slice, Values]]:
    """For each of n users 0 or 1, for chunks of resamples."""
    rng = _generator(random_state)
    size = max(1, _CHUNK // n)
    for start in range(0, n_resamples, size):
        part = slice(start, min(start + size, n_resamples))
        rows = part.stop - start
        packed = np.frombuffer(rng.bytes(rows * (-(-n // 8))), dtype=np.uint8).reshape(rows, -1)
        yield part, np.unpackbits(packed, axis=1, count=n).astype(np.float64)


def _generator(random_state: Any) -> np.random.Generator:
    check_seed(random_state)
    return np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))


def _numbers(values: npt.ArrayLike, name: str) -> Values:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"`{name}` holds what is no number: {error}; expected an array of numbers.") from error


def _values(values: npt.ArrayLike, name: str) -> Values:
    """Per-user values as a checked table of shape (n_users, n_metrics)."""
    array = _numbers(values, name)
    if array.ndim not in (1, 2) or not array.size:
        raise InvalidInputError(
            f"`{name}` has shape {array.shape}; expected one row per user: (n_users,) or (n_users, n_metrics)."
        )
    table = array.reshape(len(array), -1)
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        raise InvalidInputError(
            f"`{name}` holds NaN or infinite values for {len(bad)} users (rows {examples(bad)}); "
            f"expected a number for every user: leave out users who cannot be judged."
        )
    return table


def _differences(a: npt.ArrayLike, b: npt.ArrayLike) -> Values:
    """``a - b`` of the same users and metrics."""
    if isinstance(a, (pd.Series, pd.DataFrame)) and isinstance(b, (pd.Series, pd.DataFrame)):
        if not a.index.equals(b.index):
            raise InvalidInputError(
                f"`a` and `b` are not of the same users in the same order ({len(a)} and {len(b)} rows); "
                f"expected equal indices: pass b.loc[a.index]."
            )
        if isinstance(a, pd.DataFrame) and isinstance(b, pd.DataFrame) and not a.columns.equals(b.columns):
            raise InvalidInputError(
                f"`a` and `b` have the columns {examples(a.columns, 6)} and {examples(b.columns, 6)}; "
                f"expected the same metrics in the same order."
            )
    first, second = _numbers(a, "a"), _numbers(b, "b")
    if first.shape != second.shape:
        raise InvalidInputError(
            f"`a` has shape {first.shape} and `b` {second.shape}; expected the same users and metrics."
        )
    _values(first, "a")
    _values(second, "b")
    return first - second


def _check_count(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"`{name}` is {value!r}; expected a positive integer.")
    if value < 1:
        raise InvalidInputError(f"`{name}` is {value!r}; expected a positive integer.")


def _check_share(value: float, name: str, sample: float) -> None:
    if not isinstance(value, Real) or not 0 < value < 1:
        raise InvalidInputError(f"`{name}` is {value!r}; expected a number between 0 and 1, such as {sample}.")

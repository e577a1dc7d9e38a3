"""Intervals and p values against SciPy, enumeration and simulation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys.evaluation import (
    bootstrap_interval,
    holm,
    max_t_test,
    minimum_detectable_difference,
    paired_bootstrap,
    randomisation_test,
)
from recsys.exceptions import InvalidInputError, InvalidTypeError


def seeded(seed: int) -> dict[str, Any]:
    """SciPy's argument for a generator, whose name changed with 1.15."""
    version = tuple(map(int, scipy.__version__.split(".")[:2]))
    name = "rng" if version >= (1, 15) else "random_state"
    return {name: np.random.default_rng(seed)}


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_agrees_with_scipy(confidence: float) -> None:
    values = np.random.default_rng(0).beta(0.4, 1.5, 400)
    ours = bootstrap_interval(values, n_resamples=20_000, confidence=confidence, random_state=0)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=confidence,
        method="percentile",
        **seeded(1),
    ).confidence_interval
    assert ours.mean == values.mean()
    # Bounds of two independent runs differ by a few percent of the standard error.
    tolerance = 0.08 * values.std() / np.sqrt(400)
    assert ours.low == pytest.approx(theirs.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.high, abs=tolerance)


def test_interval_of_many_users_is_the_normal_one() -> None:
    values = np.random.default_rng(0).random(6040)
    mean, low, high = bootstrap_interval(values, random_state=0)
    half = 1.96 * values.std() / np.sqrt(6040)
    assert [mean - low, high - mean] == pytest.approx([half, half], rel=0.06)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    # 300 data sets of 60 users as the metrics of one call: each column has its own truth, 0.3.
    values = rng.random((60, 300)) < 0.3
    _, low, high = bootstrap_interval(values, n_resamples=1000, confidence=0.9, random_state=0)
    covered = np.mean((low <= 0.3) & (high >= 0.3))
    assert 0.84 <= covered <= 0.96


def test_columns_share_the_resamples() -> None:
    values = np.random.default_rng(0).random((500, 3))
    together = bootstrap_interval(values, n_resamples=300, random_state=3)
    for column in range(3):
        alone = bootstrap_interval(values[:, column], n_resamples=300, random_state=3)
        assert np.ndim(alone.low) == 0
        np.testing.assert_allclose([part[column] for part in map(np.asarray, together)], list(alone), rtol=1e-12)


def test_exact_distribution_of_two_users() -> None:
    # Means of two draws from {0, 1}: 0, 1/2, 1 with 1/4, 1/2, 1/4.
    _, low, high = bootstrap_interval([0.0, 1.0], confidence=0.6, random_state=0)
    assert (low, high) == (0.0, 1.0)
    _, low, high = bootstrap_interval([0.0, 1.0], confidence=0.4, random_state=0)
    assert (low, high) == (0.5, 0.5)


def test_one_user_has_no_interval() -> None:
    mean, low, high = bootstrap_interval([0.25])
    assert mean == 0.25
    assert np.isnan([low, high]).all()


def test_seeds() -> None:
    values = np.random.default_rng(0).random(50)
    same = [bootstrap_interval(values, n_resamples=200, random_state=7) for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != bootstrap_interval(values, n_resamples=200, random_state=8)
    state = np.random.RandomState(7)
    assert bootstrap_interval(values, random_state=state) != bootstrap_interval(values, random_state=state)


def test_paired_is_the_interval_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    a = rng.random((200, 2))
    b = a - 0.01 + 0.001 * rng.normal(size=a.shape)
    paired = paired_bootstrap(a, b, n_resamples=500, random_state=0)
    alone = bootstrap_interval(a - b, n_resamples=500, random_state=0)
    np.testing.assert_array_equal(np.array(paired), np.array(alone))
    assert (np.asarray(paired.low) > 0.009).all()
    # Side by side, the two would overlap almost entirely.
    assert (np.asarray(bootstrap_interval(b, random_state=0).high) > a.mean(axis=0)).all()


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_p_value_against_all_sign_flips(differences: list[int]) -> None:
    a = np.array(differences, dtype=float)
    seen = abs(sum(differences))
    flips = itertools.product([1, -1], repeat=len(differences))
    extreme = [abs(np.dot(signs, differences)) >= seen for signs in flips]
    p = float(randomisation_test(a, np.zeros(len(a)), n_resamples=4000, random_state=0))
    assert p == pytest.approx(np.mean(extreme), abs=0.04)


def test_p_value_agrees_with_scipy_and_the_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(300), rng.random(300) + 0.03
    p = float(randomisation_test(a, b, n_resamples=20_000, random_state=0))
    assert p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)
    scipys = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", **seeded(1))
    assert p == pytest.approx(scipys.pvalue, abs=0.02)


def test_p_values_of_equal_models_are_uniform() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((40, 400)), rng.random((40, 400))
    p = np.asarray(randomisation_test(a, b, n_resamples=999, random_state=0))
    assert p.shape == (400,)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_identical_models_have_p_one() -> None:
    values = np.random.default_rng(0).random((30, 2))
    assert np.asarray(randomisation_test(values, values, random_state=0)).tolist() == [1.0, 1.0]


def test_rounding_is_not_evidence() -> None:
    # No choice of signs brings these nearer to 0 than they are; in floating point some seem to, by 1e-16.
    for differences in ([-0.6, 0.7, -0.1, -0.1], [0.6, 0.3, -0.6, -0.6]):
        assert randomisation_test(differences, np.zeros(4), n_resamples=400, random_state=0) == 1.0


def test_smallest_p_value() -> None:
    assert randomisation_test(np.ones(100), np.zeros(100), n_resamples=99, random_state=0) == 0.01


def test_max_t_of_two_models_is_the_randomisation_test() -> None:
    values = np.random.default_rng(0).random((40, 2, 3))
    values[:, 0, 0] += 0.1
    found = max_t_test(values, n_resamples=400, random_state=1)
    expected = randomisation_test(values[:, 0], values[:, 1], n_resamples=400, random_state=1)
    assert found.shape == (2, 2, 3)
    np.testing.assert_allclose(found[0, 1], expected)
    np.testing.assert_array_equal(found[0, 1], found[1, 0])
    np.testing.assert_array_equal(found[[0, 1], [0, 1]], 1)
    np.testing.assert_array_equal(max_t_test(values[..., 1], n_resamples=400, random_state=1), found[..., 1])


def test_max_t_against_all_sign_flips() -> None:
    values = np.array([[3.0, 1, 0], [2, 2, 1], [5, 1, 1], [0, 1, 0], [4, 0, 2], [1, 1, 1], [3, 0, 0], [2, 1, 3]])
    pairs = [(0, 1), (0, 2), (1, 2)]
    differences = np.stack([values[:, i] - values[:, j] for i, j in pairs], axis=1)
    scale = np.sqrt((differences**2).sum(0))
    flips = np.array(list(itertools.product([-1, 1], repeat=len(values))))
    largest = (np.abs(flips @ differences) / scale).max(1)
    exact = [(largest >= t - 1e-9).mean() for t in np.abs(differences.sum(0)) / scale]
    found = max_t_test(values, n_resamples=40_000, random_state=0)
    np.testing.assert_allclose([found[pair] for pair in pairs], exact, atol=0.01)
    # Looking at all pairs costs something, and never gains.
    alone = [float(randomisation_test(values[:, i], values[:, j], random_state=0)) for i, j in pairs]
    assert (np.array(exact) >= np.array(alone) - 0.01).all()


def test_max_t_calls_the_best_of_equal_models_better_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(0)
    easy = rng.normal(size=(300, 1, 1, 600))
    values = (easy + rng.normal(size=(300, 6, 1, 600)) > 1).astype(float)[:, :, 0]
    p_values = max_t_test(values, n_resamples=400, random_state=0)
    assert 0.02 < (p_values.min(axis=(0, 1)) < 0.05).mean() < 0.08


def test_max_t_of_equal_models_and_of_one() -> None:
    values = np.random.default_rng(0).random((30, 1))
    np.testing.assert_array_equal(max_t_test(values), [[1]])
    np.testing.assert_array_equal(max_t_test(np.repeat(values, 3, axis=1)), np.ones((3, 3)))
    apart = max_t_test(np.hstack([values, values, values + 1]), n_resamples=99, random_state=0)
    np.testing.assert_array_equal(apart, [[1, 1, 0.01], [1, 1, 0.01], [0.01, 0.01, 1]])


def test_holm_by_hand() -> None:
    # 4 * .01, 3 * .015, 2 * .03, 1 * .04 -> never below the one before.
    assert holm([0.03, 0.01, 0.04, 0.015]) == pytest.approx([0.06, 0.04, 0.06, 0.045])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(pvalues: list[float], alpha: float) -> None:
    rejected = set()
    for step, test in enumerate(sorted(range(len(pvalues)), key=lambda i: pvalues[i])):
        if (len(pvalues) - step) * pvalues[test] > alpha:
            break
        rejected.add(test)
    adjusted = holm(pvalues)
    assert {test for test, p in enumerate(adjusted) if p <= alpha} == rejected
    assert (adjusted >= pvalues).all()
    assert (adjusted <= 1).all()


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_detectable_difference_is_found_as_often_as_the_power_says(power: float) -> None:
    rng = np.random.default_rng(0)
    # 600 data sets of 150 users as the metrics of one call; their true difference is the detectable one.
    noise = 0.3 * rng.normal(size=(150, 600))
    true = (stats.norm.ppf(0.975) + stats.norm.ppf(power)) * 0.3 / np.sqrt(150)
    detectable = minimum_detectable_difference(noise + true, np.zeros((150, 600)), power=power)
    assert np.mean(detectable) == pytest.approx(true, rel=0.01)
    p = np.asarray(randomisation_test(noise + true, np.zeros((150, 600)), n_resamples=1000, random_state=0))
    # Three standard errors of a share of 600.
    assert np.mean(p < 0.05) == pytest.approx(power, abs=3 * np.sqrt(power * (1 - power) / 600))


def test_the_detectable_difference_of_more_users_is_smaller() -> None:
    a = np.random.default_rng(0).random(100)
    one = float(minimum_detectable_difference(a, np.zeros(100)))
    assert one == pytest.approx(2.8016 * a.std(ddof=1) / 10, rel=1e-4)
    assert float(minimum_detectable_difference(np.tile(a, 4), np.zeros(400))) == pytest.approx(one / 2, rel=0.01)
    assert float(minimum_detectable_difference(a, np.zeros(100), confidence=0.99)) > one
    assert np.isnan(minimum_detectable_difference([0.5], [0.2]))
    assert np.isnan(minimum_detectable_difference([[0.5, 0.1]], [[0.2, 0.1]])).tolist() == [True, True]
    with pytest.raises(InvalidInputError, match=r"`power` is 80; expected a number between 0 and 1, such as 0\.8"):
        minimum_detectable_difference(a, a, power=80)
    with pytest.raises(InvalidInputError, match=r"`power` is 0\.01; expected more than 0\.025"):
        minimum_detectable_difference(a, a, power=0.01)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1, np.nan], "`values` holds NaN or infinite values for 1 users .rows 1."),
        ([[0.1, np.inf]], "for 1 users .rows 0.; expected a number for every user"),
        ([], "`values` has shape .0,.; expected one row per user"),
        (np.zeros((2, 2, 2)), "`values` has shape .2, 2, 2."),
        (0.5, "`values` has shape ..;"),
    ],
)
def test_bad_values_are_refused(values: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        bootstrap_interval(values)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="`confidence` is 95; expected a number between 0 and 1"):
        bootstrap_interval([0.1, 0.2], confidence=95)
    words: Any = ["0.5", "half"]
    for call in (bootstrap_interval, holm, lambda values: paired_bootstrap(values, [1.0, 2.0])):
        with pytest.raises(
            InvalidTypeError, match=r"` holds what is no number: .*'half'; expected an array of numbers"
        ):
            call(words)
    with pytest.raises(InvalidTypeError, match=r"`b` holds what is no number: .*'half'; expected an array of numbers"):
        randomisation_test([1.0, 2.0], words)
    with pytest.raises(InvalidTypeError, match="`random_state` is 'junk'; expected a number, a RandomState or None"):
        bootstrap_interval([1.0, 2.0], random_state="junk")
    with pytest.raises(InvalidInputError, match="`n_resamples` is 0; expected a positive integer"):
        bootstrap_interval([0.1, 0.2], n_resamples=0)
    many: Any = 5e3
    with pytest.raises(InvalidTypeError, match=r"`n_resamples` is 5000\.0; expected a positive integer"):
        randomisation_test([0.1], [0.2], n_resamples=many)
    with pytest.raises(InvalidInputError, match=r"`pvalues` holds 1\.2, nan; expected numbers from 0 to 1"):
        holm([0.1, 1.2, np.nan])
    with pytest.raises(InvalidInputError, match=r"`pvalues` has shape \(1, 1\); expected one value per test"):
        holm([[0.1]])


def test_pairs_must_be_of_the_same_users_and_metrics() -> None:
    a = pd.DataFrame({"HR": [0.0, 1.0], "MRR": [0.0, 0.5]}, index=["ann", "bob"])
    assert float(np.asarray(paired_bootstrap(a, a, random_state=0).mean).max()) == 0.0
    with pytest.raises(InvalidInputError, match=r"not of the same users in the same order .* pass b\.loc\[a\.index\]"):
        paired_bootstrap(a, a[::-1])
    with pytest.raises(InvalidInputError, match="columns 'HR', 'MRR' and 'MRR', 'HR'; expected the same metrics"):
        randomisation_test(a, a[["MRR", "HR"]])
    with pytest.raises(InvalidInputError, match=r"`a` has shape \(2,\) and `b` \(3,\)"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InvalidInputError, match="`b` holds NaN"):
        randomisation_test([1.0, 2.0], [1.0, np.nan])

"""The geometry of charts: axes hold their values, labels do not lie on each other."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation import _charts


def looks(names: list[str]) -> dict[str, _charts.Look]:
    return {name: _charts.Look(i, name, "s0", "M0,0Z") for i, name in enumerate(names)}


@given(st.floats(-10, 10), st.just(0.0) | st.floats(1e-4, 10))
def test_steps_are_round_and_hold_the_values(low: float, span: float) -> None:
    steps = _charts._round_steps(low, low + span)
    assert 2 <= len(steps) <= 8
    step = steps[1] - steps[0]
    assert steps[0] <= low + 1e-6 * step
    assert steps[-1] >= low + span - 1e-6 * step
    assert f"{step:.0e}"[0] in "125"
    np.testing.assert_allclose(np.diff(steps), step, rtol=1e-3)


def test_steps_of_known_ranges() -> None:
    assert _charts._round_steps(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert _charts._round_steps(0.23, 0.31) == [0.22, 0.24, 0.26, 0.28, 0.3, 0.32]
    assert _charts._round_steps(0.0, 0.0)[0] == 0


@given(st.lists(st.floats(0, 300), min_size=1, max_size=15))
def test_labels_are_moved_apart_in_their_order(places: list[float]) -> None:
    moved = _charts._spread(places, 14.0, 0.0, 300.0)
    assert min(moved) >= -1e-9
    assert max(moved) <= 300 + 1e-9
    pairs = sorted(zip(places, moved, strict=True))
    assert all(after[1] - before[1] >= 14 - 1e-9 for before, after in itertools.pairwise(pairs))
    if all(after[0] - before[0] >= 14 for before, after in itertools.pairwise(pairs)):
        assert moved == pytest.approx(places)


def test_no_label_of_a_scatter_lies_on_a_point_or_another() -> None:
    names = [f"Model number {i}" for i in range(8)]
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.1, 0.4, 8)
    rows = pd.DataFrame({"model": names, "mean": mean, "low": mean - 0.01, "high": mean + 0.01})
    chart = _charts.scatter(rows.assign(seconds=10 ** rng.uniform(-2, 2, 8)), looks(names), "NDCG@10")
    texts = [_charts._box(one.x, one.y, 7.2 * len(one.look.label), one.anchor) for one in chart.series]
    points = [_charts._box(one.marks[0].x, one.marks[0].y + 4, 10, "middle") for one in chart.series]
    for one, other in itertools.combinations(texts, 2):
        assert _charts._overlap(one, other) == 0
    assert sum(_charts._overlap(text, point) for text in texts for point in points) == 0
    assert all(left >= 0 and right <= chart.width for left, _, right, _ in texts)


def test_the_frontier_holds_what_nothing_beats_in_both() -> None:
    names = ["slow", "fast", "worse"]
    rows = pd.DataFrame({"model": names, "mean": [0.3, 0.1, 0.2], "seconds": [1.0, 0.1, 10.0]})
    chart = _charts.scatter(rows.assign(low=rows["mean"], high=rows["mean"]), looks(names), "NDCG@10")
    at = {series.look.name: series.marks[0] for series in chart.series}
    assert at["fast"].x < at["slow"].x < at["worse"].x
    assert at["slow"].y < at["worse"].y < at["fast"].y
    expected = f"M{at['fast'].x:.1f},{at['fast'].y:.1f}H{at['slow'].x:.1f}V{at['slow'].y:.1f}H{chart.right:.1f}"
    assert chart.frontier == expected


def test_long_names_are_cut_and_break_where_words_do() -> None:
    look = _charts.Look(0, "LightGBMRecommenderWith_every_option", "s1", "M0,0Z")
    assert look.label == "LightGBMRecommenderWith…"
    assert look.parts == ["Light", "GBM", "Recommender", "With_every_option"]

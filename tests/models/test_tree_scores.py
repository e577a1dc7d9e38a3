from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.models import _tree_scores as module
from recsys.models._tree_scores import TreeScores

N_FEATURES = 7


def describe(n: int, seed: int, *, nan: bool = True) -> Any:
    """Numbers of all sizes, few and many distinct ones, some missing; the last feature is constant."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, N_FEATURES))
    values[:, 1] = rng.integers(-3, 4, n)
    values[:, 2] = rng.integers(0, 2, n)
    values[:, 3] = np.exp(np.clip(20 * values[:, 3], -80, 80))
    values[:, 4] = np.where(rng.random(n) < 0.3, rng.choice([np.inf, -np.inf, 0.0, -0.0], n), values[:, 4])
    values[:, 5] *= rng.choice([1e-35, 1e-38, 1e-45, 1.0, 0.0], n)
    if nan:
        values[rng.random(values.shape) < 0.1] = np.nan
    values[:, 6] = 1
    return values.astype(np.float32)


def grow(
    values: Any, n_trees: int = 30, seed: int = 0, categories: list[int] | None = None, **params: Any
) -> lightgbm.Booster:
    known = np.nan_to_num(np.clip(values, -3, 3))
    rng = np.random.default_rng(seed)
    y = (
        known @ rng.standard_normal(N_FEATURES)
        + np.sin(3 * known[:, 0]) * known[:, 1]
        + rng.standard_normal(len(known))
    )
    y += np.isnan(values) @ rng.standard_normal(N_FEATURES)
    defaults = {"min_data_in_leaf": 1, "verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True}
    rows = lightgbm.Dataset(values, params.pop("y", y), categorical_feature=categories or [], params={"verbosity": -1})
    return lightgbm.train(defaults | params, rows, n_trees)


def expected(booster: lightgbm.Booster, values: Any) -> Any:
    return booster.predict(values, raw_score=True, num_threads=1)


def compiled(booster: lightgbm.Booster) -> TreeScores:
    found = TreeScores.from_text(booster.model_to_string())
    assert found is not None
    return found


def on_the_edges(booster: lightgbm.Booster, seed: int) -> Any:
    """Pairs whose values are thresholds, as near as floats come, and their neighbours; 0 and infinity."""
    rng = np.random.default_rng(seed)
    frame = booster.trees_to_dataframe()
    values = np.empty((600, N_FEATURES), np.float32)
    for column in range(N_FEATURES):
        found = frame.loc[frame["split_feature"] == f"Column_{column}", "threshold"].to_numpy(np.float64)
        with np.errstate(over="ignore"):
            edges = np.append(found, [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-35, -1e-35, 1e-45]).astype(np.float32)
        values[:, column] = rng.choice(edges, len(values))
    with np.errstate(over="ignore", under="ignore"):
        return np.concatenate([values, np.nextafter(values, np.float32(-np.inf)), np.nextafter(values, np.float32(9))])


def assert_same(booster: lightgbm.Booster, values: Any) -> None:
    np.testing.assert_allclose(compiled(booster).of_pairs(values), expected(booster, values), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_leaves", [2, 3, 15, 16, 17, 32, 33, 40, 64])
def test_scores_are_those_of_lightgbm(num_leaves: int) -> None:
    values = describe(3000, seed=num_leaves)
    booster = grow(values, num_leaves=num_leaves)
    assert booster.trees_to_dataframe().groupby("tree_index").size().max() == 2 * num_leaves - 1
    assert_same(booster, values)
    assert_same(booster, describe(2000, seed=100))
    assert_same(booster, on_the_edges(booster, seed=0))


@given(st.integers(0, 10_000), st.integers(2, 64), st.integers(2, 300), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_scores_are_those_of_lightgbm_on_the_edges(
    seed: int, num_leaves: int, n: int, use_missing: bool, nan: bool
) -> None:
    values = describe(n, seed, nan=nan)
    booster = grow(values, 8, seed, num_leaves=num_leaves, use_missing=use_missing, min_data_in_bin=1)
    for asked in (values, describe(50, seed + 1), on_the_edges(booster, seed)):
        assert_same(booster, asked)


def test_thresholds_are_those_of_doubles_that_no_float_is() -> None:
    values = np.linspace(-2, 2, 400, dtype=np.float32)[:, None].repeat(N_FEATURES, axis=1)
    booster = grow(values, num_leaves=31)
    text = booster.model_to_string()
    thresholds = np.array(booster.trees_to_dataframe()["threshold"].dropna(), np.float64)
    assert (thresholds != thresholds.astype(np.float32)).any()
    for new in (1e300, -1e300, np.inf, 1e-40, -1e-40, 1e-35, -1e-35, 0.1, 1 / 3):
        line = next(line for line in text.splitlines() if line.startswith("threshold="))
        changed = "threshold=" + " ".join([repr(float(new))] * len(line.split(" ")))
        # The sizes of trees are how LightGBM finds them: without that line it looks for them.
        sizes = next(line for line in text.splitlines() if line.startswith("tree_sizes="))
        other = lightgbm.Booster(model_str=text.replace(line, changed, 1).replace(sizes + "\n", ""))
        assert_same(other, np.concatenate([on_the_edges(other, seed=1), values]))


def test_known_trees_give_known_scores() -> None:
    values = np.repeat(np.array([[1], [2], [3], [np.nan]], np.float32), 20, axis=0)
    y = np.repeat([1.0, 2.0, 4.0, 8.0], 20)
    rows = lightgbm.Dataset(values, y, params={"verbosity": -1})
    params = {"num_leaves": 4, "learning_rate": 1.0, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0}
    booster = lightgbm.train(params | {"verbosity": -1, "num_threads": 1}, rows, 1)
    trees = compiled(booster)
    asked = np.array([[0.5], [1], [1.4], [2], [2.6], [3], [np.inf], [np.nan]], np.float32)
    np.testing.assert_allclose(trees.of_pairs(asked), [1, 1, 1, 2, 4, 4, 4, 8], rtol=1e-6)
    # What was never seen on this side goes where LightGBM sends it.
    assert_same(booster, np.array([[-np.inf], [-1], [0]], np.float32))
    assert trees.steps[0].masks.dtype == np.uint16


@pytest.mark.parametrize("params", [{"y": np.ones(200)}, {"min_data_in_leaf": 150}, {"n_trees": 1}])
def test_trees_of_one_leaf_and_one_tree(params: dict[str, Any]) -> None:
    values = describe(200, seed=0)
    assert_same(grow(values, **params), values)


def test_features_that_no_tree_asks_for_say_nothing() -> None:
    values = describe(500, seed=0)
    trees = compiled(grow(values, num_leaves=7))
    assert 6 not in trees.steps
    changed = values.copy()
    changed[:, 6] = np.nan
    np.testing.assert_array_equal(trees.of_pairs(changed), trees.of_pairs(values))
    assert len(trees.of_pairs(values[:0])) == 0


@pytest.mark.parametrize("n_trees", [1, 7, 8, 100, 150, 300])
def test_no_bit_depends_on_the_other_pairs_or_on_threads(n_trees: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = describe(400, seed=1)
    trees = compiled(grow(values, n_trees, num_leaves=5))
    whole = trees.of_pairs(values)
    for n in (1, 2, 3, 17):
        np.testing.assert_array_equal(
            np.concatenate([trees.of_pairs(values[i : i + n]) for i in range(0, 60, n)])[:60], whole[:60]
        )
    for leaves in (1, 5 * n_trees, 64 * n_trees):
        monkeypatch.setattr(module, "LEAVES_AT_A_TIME", leaves)
        for n_jobs in (1, 3):
            np.testing.assert_array_equal(trees.of_pairs(values, n_jobs), whole)


@pytest.mark.parametrize("leaves_at_a_time", [1, 200, 1000, 2**17])
@pytest.mark.parametrize(("n_rows", "n_columns"), [(1, 1), (1, 40), (9, 1), (9, 40)])
def test_a_table_has_the_bits_of_its_pairs(
    n_rows: int, n_columns: int, leaves_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = compiled(grow(describe(2000, seed=2), num_leaves=15))
    of_pairs = np.moveaxis(describe(n_rows * n_columns, seed=3).reshape(n_rows, n_columns, -1), 2, 0)[:3]
    of_rows, of_columns = describe(n_rows, seed=4)[:, 3:5], describe(n_columns, seed=5)[:, 5:]
    values: npt.NDArray[np.float32] = np.empty((n_rows, n_columns, N_FEATURES), np.float32)
    values[:, :, :3] = np.moveaxis(of_pairs, 0, 2)
    values[:, :, 3:5] = of_rows[:, None]
    values[:, :, 5:] = of_columns
    whole = trees.of_pairs(values.reshape(-1, N_FEATURES)).reshape(n_rows, n_columns)
    monkeypatch.setattr(module, "LEAVES_AT_A_TIME", leaves_at_a_time)
    for n_jobs in (1, 2):
        found = trees.of_table(of_pairs, trees.masks(of_rows, first=3), trees.masks(of_columns, first=5), n_jobs)
        np.testing.assert_array_equal(found, whole)


def test_few_and_many_thresholds_are_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values = describe(3000, seed=6)
    booster = grow(values, 100, num_leaves=31)
    trees = compiled(booster)
    numbers = [len(step.thresholds) for step in trees.steps.values()]
    assert min(numbers) < module.FEW_THRESHOLDS < max(numbers)
    whole = trees.of_pairs(values)
    for few in (0, 255):
        monkeypatch.setattr(module, "FEW_THRESHOLDS", few)
        np.testing.assert_array_equal(trees.of_pairs(values), whole)


@pytest.mark.parametrize(
    "params",
    [
        {"num_leaves": 100},
        {"zero_as_missing": True},
        {"categories": [1]},
        {"linear_tree": True},
        {"objective": "multiclass", "num_class": 3, "y": np.arange(2000) % 3},
        {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
    ],
)
def test_trees_of_other_kinds_are_left_to_lightgbm(params: dict[str, Any]) -> None:
    values = np.abs(describe(2000, seed=7, nan=False))
    values[~np.isfinite(values)] = 0
    assert TreeScores.from_text(grow(values, 3, **params).model_to_string()) is None

"""The simulation draws what it says, and counts what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.run import RESULTS
from benchmarks.statistics import Shape, drawn, main, markdown, shapes, simulate


@pytest.mark.parametrize("shape", shapes(), ids=lambda shape: shape.name)
def test_values_are_drawn_as_often_as_they_are_meant_to_be(shape: Shape) -> None:
    chances = [shape.model, shape.worse, shape.other]
    for chance in chances:
        assert chance.sum() == pytest.approx(1)
        assert (chance >= 0).all()
    found = drawn(shape.values, chances, 20_000, 1, np.random.default_rng(0))
    assert found.shape == (3, 20_000, 1)
    for own, chance in zip(found, chances, strict=True):
        shares = [np.mean(own == value) for value in shape.values]
        np.testing.assert_allclose(shares, chance, atol=0.015)
        assert own.mean() == pytest.approx(chance @ shape.values, abs=0.006)
    assert shape.other @ shape.values == pytest.approx(shape.model @ shape.values)
    assert 0.5 < shape.zeros < 0.95
    # Who is easy for one model is easy for another.
    assert np.corrcoef(found[0, :, 0], found[1, :, 0])[0, 1] > 0.2


def test_shares_are_near_what_they_are_meant_to_be() -> None:
    found = simulate(shapes()[2], n_users=100, n_sets=100, n_resamples=400, seed=0)
    assert found["users"] == 100
    # Three standard errors of a share of a hundred.
    assert found["coverage"] == pytest.approx(0.95, abs=0.066)
    assert found["false_positive"] == pytest.approx(0.05, abs=0.066)
    assert found["holm"] <= 0.05 + 0.066
    assert found["max_t"] <= 0.05 + 0.066
    assert found["holm"] <= min(found["unadjusted"], found["from_best"])
    assert found == simulate(shapes()[2], n_users=100, n_sets=100, n_resamples=400, seed=0)


def test_the_tables_are_written(tmp_path: Path) -> None:
    main(["--sets", "4", "--resamples", "20", "--users", "10", "--output", str(tmp_path)])
    values = json.loads((tmp_path / "statistics.json").read_text())
    assert [row["metric"] for row in values["results"]] == [shape.name for shape in shapes()]
    assert (tmp_path / "statistics.md").read_text() == markdown(values)


def test_the_committed_table_keeps_its_word() -> None:
    values = json.loads((RESULTS / "statistics.json").read_text())
    assert (RESULTS / "statistics.md").read_text() == markdown(values)
    error = 3 * np.sqrt(0.05 * 0.95 / values["sets"])
    for row in values["results"]:
        assert max(row["false_positive"], row["holm"], row["max_t"]) <= 0.05 + error
        if row["users"] >= 1000:
            assert abs(row["coverage"] - 0.95) <= error

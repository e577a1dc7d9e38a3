"""The exponent of growth, on times that are known; and one small fit in a process of its own."""

from __future__ import annotations

import pytest

from benchmarks import scaling


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_the_exponent_of_a_power_law_is_its_power(power: float) -> None:
    found = [{"rows": rows, "cpu": 3e-6 * rows**power} for rows in (10**5, 10**6, 10**7)]
    assert scaling.exponent(found) == pytest.approx(power)


def test_a_fit_is_measured_in_a_process_of_its_own() -> None:
    found = scaling.in_a_process("MatrixFactorization", (2000, 60, 90))
    assert found["model"] == "MatrixFactorization"
    assert found["rows"] == 2000
    assert 0 < found["cpu"] < 60
    assert 0 <= found["mib"] < 1000

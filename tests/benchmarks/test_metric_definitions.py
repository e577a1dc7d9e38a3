from __future__ import annotations

import pytest

from benchmarks.metric_definitions import LISTS, METRICS, RELEVANT, Items, K, Values, cases, markdown, measure, ours


def test_our_own_values_on_the_example() -> None:
    assert ours(LISTS, RELEVANT)["HR"] == 0.75
    assert ours({}, {"c": []}) == {}


def test_cases_have_lists_and_relevant_items_of_every_length() -> None:
    found = cases(200, seed=0)
    assert {len(listed) for listed, _ in found} == set(range(1, K + 1))
    assert {len(liked) for _, liked in found} == set(range(1, 2 * K + 1))


def test_a_library_that_divides_recall_by_less_is_told() -> None:
    def calibrated(lists: Items, relevant: Items) -> Values:
        values = ours(lists, relevant)
        n = max(len(items) for items in relevant.values())
        return values | {"Recall": values["Recall"] * n / min(K, n)} if values else values

    libraries = {name: measure(each, 50) | {"version": "1"} for name, each in (("recsys", ours), ("ranx", calibrated))}
    assert libraries["ranx"]["largest"]["n <= K"] == pytest.approx(dict.fromkeys(METRICS, 0))
    assert libraries["ranx"]["largest"]["n > K"]["Recall"] > 0.1
    text = markdown(libraries)
    assert "| ranx 1 | d | Recall | 0.6000 | 0.4286 |" in text
    assert "| LensKit | not run: not installed |" in text

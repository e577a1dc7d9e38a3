"""Questions that are answered together get what each would get alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.retrieval import load_bundle
from recsys.serving.answering import Asked, Stranger, answer


class Recorder:
    """Tells what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], int, dict[str, Any]]] = []

    def recommend(self, users: list[Any], k: int, **options: Any) -> list[Any]:
        self.calls.append((users, k, {name: value for name, value in options.items() if value is not None}))
        return [(user, k) for user in users]


def test_requests_of_the_same_options_are_one_call() -> None:
    bundle, eve = Recorder(), Stranger()
    asked = [
        Asked(1),
        Asked(eve, features={"age": 3}),
        Asked(2, exclude=[5]),
        Asked("1", interactions=[4]),
        Asked(1, context={"hour": 3}),
        Asked(2, k=3),
    ]
    assert answer(bundle, asked) == [(1, 10), (eve, 10), (2, 10), ("1", 10), (1, 10), (2, 3)]  # type: ignore[arg-type]
    common = {"exclude_seen": True, "on_cold": "features"}
    assert bundle.calls == [
        (
            [1, eve, 2, "1"],
            10,
            {"user_features": {eve: {"age": 3}}, "interactions": {"1": [4]}, "exclude": {2: [5]}, **common},
        ),
        ([1], 10, {"context": [{"hour": 3}], **common}),
        ([2], 3, common),
    ]


def test_what_is_told_of_a_user_is_told_in_one_request_alone() -> None:
    bundle = Recorder()
    asked = [Asked(1), Asked(1, features={"age": 3}), Asked(1, features={"age": 4}), Asked(2)]
    answer(bundle, asked)  # type: ignore[arg-type]
    assert [(users, options.get("user_features")) for users, _, options in bundle.calls] == [
        ([1, 2], None),
        ([1], {1: {"age": 3}}),
        ([1], {1: {"age": 4}}),
    ]


def test_filters_and_candidates_are_options_of_a_call() -> None:
    bundle = Recorder()
    filters: list[dict[str, Any]] = [{"year": {">=": 1990}}, {"year": {">=": 1990.5}}, {"year": {">=": 1990}}]
    asked = [Asked(place, where=where) for place, where in enumerate(filters)]
    asked += [Asked(3, candidates=[1, 2]), Asked(4, candidates=[1, 2]), Asked(5, candidates=["1", "2"])]
    answer(bundle, asked)  # type: ignore[arg-type]
    assert [users for users, _, _ in bundle.calls] == [[0, 2], [1], [3, 4], [5]]


def test_a_function_is_given_the_bundle() -> None:
    bundle = Recorder()
    found = answer(bundle, [lambda given: given, Asked(1)])  # type: ignore[arg-type]
    assert found == [bundle, (1, 10)]


def test_strangers_are_equal_to_themselves_alone() -> None:
    one, other = Stranger(), Stranger()
    assert one != other
    assert len({one, other, one}) == 2


USERS = st.one_of(st.integers(1, 70), st.sampled_from(["new", "1"]), st.builds(Stranger))
REQUESTS = st.builds(
    Asked,
    USERS,
    features=st.none() | st.fixed_dictionaries({"age": st.integers(10, 70)}),
    interactions=st.none() | st.lists(st.integers(1, 50), max_size=3) | st.dictionaries(st.integers(1, 50), st.just(2)),
    k=st.sampled_from([3, 10]),
    where=st.none() | st.just({"year": {">=": 1980}}),
    candidates=st.none() | st.just([1, 2, 3, 4]),
    exclude=st.none() | st.lists(st.integers(1, 50), max_size=3),
    exclude_seen=st.booleans(),
    on_cold=st.sampled_from(["features", "popular"]),
)


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Any:
    return load_bundle(bundles / "first")


@pytest.mark.filterwarnings("ignore::recsys.exceptions.ColdStartWarning")
@given(asked=st.lists(REQUESTS, max_size=12))
def test_together_is_as_alone(bundle: Any, asked: list[Asked]) -> None:
    found = answer(bundle, asked)
    for each, one in zip(asked, found, strict=True):
        told = {
            argument: None if value is None else {each.user: value}
            for argument, value in (("user_features", each.features), ("interactions", each.interactions))
        }
        options = {"where": each.where, "candidates": each.candidates, "exclude": each.exclude}
        [alone] = bundle.recommend(
            [each.user], each.k, **told, **options, exclude_seen=each.exclude_seen, on_cold=each.on_cold
        )
        assert (one.user_id, one.path) == (alone.user_id, alone.path)
        # In other company, single precision rounds otherwise.
        np.testing.assert_allclose(one.scores, alone.scores, rtol=1e-5, atol=1e-6)
        triples = zip(one.item_ids, alone.item_ids, alone.scores, strict=True)
        changed = [score for mine, its, score in triples if mine != its]
        assert not changed or np.ptp(changed) < 1e-5

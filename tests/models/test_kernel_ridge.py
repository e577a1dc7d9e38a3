from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.kernel_ridge import KernelRidge as Reference

from recsys.features import EncodedFeatures, FeatureEncoder
from recsys.models import _kernel_ridge
from recsys.models._kernel_ridge import KernelRidge, Mixture, choose_mixture, held_out_predictions, kernel_terms

N = 50


def content(n: int = N) -> EncodedFeatures:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "genres": [list(rng.choice(list("abcd"), rng.integers(0, 4), replace=False)) for _ in range(n)],
            "year": np.where(rng.random(n) < 0.1, np.nan, rng.uniform(1950, 2000, n)),
            "look": list(rng.standard_normal((n, 3))),
        }
    )
    kinds = {"genres": "multi_hot", "year": "numeric", "look": "vector"}
    return FeatureEncoder.fit(frame, kinds, "|").transform(frame, "frame")


MIXTURE = Mixture(np.array([1.0, 2.0, 0.5, 0.3, 0.1, 0.0, 0.0, 0.2, 0.4]), 1.5)


def test_the_kernel_is_the_sum_of_terms() -> None:
    features = content()
    genres = (features.block(features.fields[0]).toarray() > 0).astype(float)
    year, look = (features.block(field).toarray().astype(float) for field in features.fields[1:])
    look /= np.linalg.norm(look, axis=1, keepdims=True)
    knots = np.arange(year.shape[1])
    alike = np.exp(-np.abs(knots[:, None] - knots) / (0.2 * len(knots)))
    k = [genres @ genres.T, year @ alike @ year.T, look @ look.T]
    products = [k[0] * k[0], k[0] * k[1], k[0] * k[2], k[1] * k[1], k[1] * k[2], k[2] * k[2]]
    assert kernel_terms(3)[3:] == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    expected = sum(weight * term for weight, term in zip(MIXTURE.weights, [*k, *products], strict=True))
    np.testing.assert_allclose(MIXTURE.kernel(features, features), expected, rtol=1e-4, atol=1e-5)
    some = np.array([3, 1])
    np.testing.assert_allclose(MIXTURE.kernel(features.take(some), features), expected[some], rtol=1e-4, atol=1e-5)


def test_near_numbers_are_more_alike_than_far_ones_and_what_is_missing_is_like_none() -> None:
    frame = pd.DataFrame({"year": [*range(1950, 1990), 1960.4, np.nan], "page": [np.nan] * 42})
    kinds = {"year": "numeric", "page": "numeric"}
    features = FeatureEncoder.fit(frame, kinds, "|").transform(frame, "frame")
    kernel = Mixture(np.array([1.0, 1.0, 0, 0, 0]), 1.0).kernel(features.take(np.array([40])), features).ravel()
    assert kernel[10] > kernel[15] > kernel[25] > kernel[35] > 0
    assert kernel[41] == 0


# How far the targets of items are to be trusted.
TRUST = np.random.default_rng(5).uniform(0.1, 1, N).astype(np.float32)


def ones(n: int) -> Any:
    return np.ones(n, dtype=np.float32)


def targets(d: int = 4) -> Any:
    return np.random.default_rng(1).standard_normal((N, d)).astype(np.float32)


def test_held_out_predictions_are_those_of_a_fit_without_the_fold() -> None:
    features, y = content(), targets()
    kernel = MIXTURE.kernel(features, features)
    folds = [np.arange(0, 10), np.array([3, 7, 49]), np.array([20])]
    found = held_out_predictions(kernel, MIXTURE.noise, y, TRUST, folds)
    for fold, predicted in zip(folds, found, strict=True):
        rest = np.setdiff1d(np.arange(N), fold)
        reference = Reference(kernel="precomputed", alpha=MIXTURE.noise)
        reference.fit(kernel[np.ix_(rest, rest)], y[rest], sample_weight=TRUST[rest])
        np.testing.assert_allclose(predicted, reference.predict(kernel[np.ix_(fold, rest)]), atol=2e-3)


def test_a_kernel_that_is_none_is_told() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        held_out_predictions(-10 * np.eye(3, dtype=np.float32), 1.0, ones(3)[:, None], ones(3), [np.array([0])])


def test_with_all_items_as_landmarks_it_is_kernel_ridge() -> None:
    everything, y = content(N + 7), targets()
    features, new = everything.take(np.arange(N)), everything.take(np.arange(N, N + 7))
    model = KernelRidge.fit(MIXTURE, features, y, TRUST, np.arange(N))
    kernel = MIXTURE.kernel(features, features)
    reference = Reference(kernel="precomputed", alpha=MIXTURE.noise).fit(kernel, y, sample_weight=TRUST)
    expected = reference.predict(MIXTURE.kernel(new, features))
    np.testing.assert_allclose(model.predict(new), expected, atol=1e-3)
    np.testing.assert_allclose(model.predict(new, chunk=3), expected, atol=1e-3)


def test_some_landmarks_minimise_the_same_error() -> None:
    features, y, landmarks = content(), targets(), np.arange(0, N, 5)
    model = KernelRidge.fit(MIXTURE, features, y, TRUST, landmarks, chunk=16)
    kernel = MIXTURE.kernel(features, features).astype(float)
    cross, own = kernel[:, landmarks], kernel[np.ix_(landmarks, landmarks)]
    weighed = TRUST[:, None] * cross
    best = np.linalg.solve(cross.T @ weighed + MIXTURE.noise * own, weighed.T @ y)
    np.testing.assert_allclose(model.predict(features), cross @ best, atol=5e-3)


def test_the_state_gives_the_same_predictions() -> None:
    features, y = content(), targets()
    model = KernelRidge.fit(MIXTURE, features, y, TRUST, np.arange(N))
    again = KernelRidge.from_state(model.to_state())
    np.testing.assert_array_equal(again.predict(features), model.predict(features))


def judge_of(y: Any, folds: list[Any]) -> Any:
    def judge(found: list[Any]) -> float:
        return -float(np.mean([((part - y[fold]) ** 2).mean() for part, fold in zip(found, folds, strict=True)]))

    return judge


def test_the_field_that_tells_gets_the_weight() -> None:
    features = content(200)
    year = features.block(features.fields[1]).toarray()
    y = (year @ np.random.default_rng(2).standard_normal((year.shape[1], 3))).astype(np.float32)
    folds = [np.arange(start, 200, 4) for start in range(4)]
    judge = judge_of(y, folds)
    kernel = Mixture(np.array([1, 1, 1, 0, 0, 0, 0, 0, 0.0]), 10.0).kernel(features, features)
    start = judge(held_out_predictions(kernel, 10.0, y, ones(200), folds))
    mixture, value, _ = choose_mixture(features, y, ones(200), folds, judge)
    assert value > start
    assert mixture.weights[1] > mixture.weights[0]
    assert mixture.weights[1] > mixture.weights[2]
    assert mixture.noise < 10


def test_a_product_is_found_where_two_fields_count_together() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(list("xy"), 300), "b": rng.choice(list("xy"), 300)})
    features = FeatureEncoder.fit(frame, {"a": "categorical", "b": "categorical"}, "|").transform(frame, "frame")
    y = (2.0 * (frame["a"] == frame["b"]) - 1).to_numpy(np.float32)[:, None]
    folds = [np.arange(start, 300, 5) for start in range(5)]
    mixture, value, _ = choose_mixture(features, y, ones(300), folds, judge_of(y, folds))
    assert mixture.weights[kernel_terms(2).index((0, 1))] == 1.0
    assert value > -0.01


def test_trials_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    features, y = content(), targets()
    folds, calls = [np.arange(10)], []
    monkeypatch.setattr(_kernel_ridge, "MAX_TRIALS", 7)

    def judge(found: list[Any]) -> float:
        calls.append(len(found))
        return float(len(calls))

    choose_mixture(features, y, TRUST, folds, judge)
    assert calls == [1] * 7


def test_few_distinct_items_and_some_landmarks_are_no_singular_system() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"kind": rng.choice(list("abc"), 200), "year": rng.integers(1950, 1960, 200).astype(float)})
    features = FeatureEncoder.fit(frame, {"kind": "categorical", "year": "numeric"}, "|").transform(frame, "frame")
    y = rng.standard_normal((200, 3)).astype(np.float32)
    mixture = Mixture(np.array([1.0, 1.0, 0.0, 0.3, 0.0]), 10.0)
    found = KernelRidge.fit(mixture, features, y, ones(200), np.arange(0, 200, 2)).predict(features)
    everything = KernelRidge.fit(mixture, features, y, ones(200), np.arange(200)).predict(features)
    np.testing.assert_allclose(found, everything, atol=1e-3)


@pytest.mark.parametrize("kind", ["numeric", "multi_hot", "vector", "categorical"])
@pytest.mark.parametrize("noise", [0.3, 1000.0])
def test_landmarks_of_a_kernel_of_low_rank_are_solved_for(kind: str, noise: float) -> None:
    n, rng = 1200, np.random.default_rng(0)
    values: dict[str, Any] = {
        "numeric": rng.integers(1950, 2020, n),
        "multi_hot": [list(rng.choice(list("abcdefgh"), 2, replace=False)) for _ in range(n)],
        "vector": list(rng.standard_normal((n, 6))),
        "categorical": rng.choice(list("abcd"), n),
    }
    frame = pd.DataFrame({"field": values[kind]})
    features = FeatureEncoder.fit(frame, {"field": kind}, "|").transform(frame, "frame")
    targets = rng.standard_normal((n, 3)).astype(np.float32)
    weights = rng.uniform(0.1, 1, n).astype(np.float32)
    mixture = Mixture(np.array([1.0, 0.1]), noise)
    some = np.sort(rng.permutation(n)[:1000])
    found = KernelRidge.fit(mixture, features, targets, weights, some).predict(features)
    # Of low rank, the landmarks know all there is.
    expected = KernelRidge.fit(mixture, features, targets, weights, np.arange(n)).predict(features)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_items_that_are_alike_have_the_same_vector_wherever_they_stand() -> None:
    features, y = content(), targets()
    model = KernelRidge.fit(MIXTURE, features, y, TRUST, np.arange(N))
    for n in range(1, 40):
        places = np.random.default_rng(n).integers(0, 3, n)
        found = model.predict(features.take(places), chunk=16)
        for place in range(3):
            assert len(np.unique(found[places == place], axis=0)) <= 1

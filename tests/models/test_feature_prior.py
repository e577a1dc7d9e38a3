"""Priors from features: ridge regression against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from recsys._sparse import Csr, empty_csr
from recsys.models import _feature_prior
from recsys.models._feature_prior import FeaturePrior


def problem(seed: int = 0, n: int = 60, n_columns: int = 8) -> tuple[Csr, Any]:
    rng = np.random.default_rng(seed)
    features = np.where(rng.random((n, n_columns)) < 0.4, rng.random((n, n_columns)), 0)
    features[:, 3] = features[:, 2]  # A column twice.
    features[:, 4] = 0  # A column of nothing.
    return Csr(features.astype(np.float32)), rng.standard_normal((n, 3)).astype(np.float32)


@pytest.mark.parametrize("few", [1024, 0])
@pytest.mark.parametrize("l2", [0.1, 10.0])
def test_is_ridge_regression_on_centred_vectors(l2: float, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_feature_prior, "FEW_COLUMNS", few)
    features, vectors = problem()
    prior = FeaturePrior(features, 3, l2)
    prior.refine(vectors, n_steps=200)
    ridge = Ridge(alpha=l2, fit_intercept=False).fit(features.toarray(), vectors - vectors.mean(0))
    np.testing.assert_allclose(prior.coefficients, ridge.coef_.T, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(prior.intercept, vectors.mean(0), rtol=1e-5)
    np.testing.assert_allclose(prior.means(features), ridge.predict(features.toarray()) + vectors.mean(0), atol=2e-3)


def test_a_few_steps_at_a_time_arrive() -> None:
    features, vectors = problem()
    at_once, in_turns = FeaturePrior(features, 3, 1.0), FeaturePrior(features, 3, 1.0)
    at_once.refine(vectors, n_steps=200)
    for _ in range(30):
        in_turns.refine(vectors, n_steps=3)
    np.testing.assert_allclose(in_turns.coefficients, at_once.coefficients, atol=1e-3)


def test_without_columns_or_rows_the_mean_is_all() -> None:
    _, vectors = problem()
    prior = FeaturePrior(empty_csr(60, 0), 3, 1.0)
    prior.refine(vectors, n_steps=3)
    np.testing.assert_allclose(prior.means(empty_csr(2, 0)), np.tile(vectors.mean(0), (2, 1)), rtol=1e-6)
    nobody = FeaturePrior(empty_csr(0, 5), 3, 1.0)
    nobody.refine(vectors[:0], n_steps=3)
    assert not nobody.means(Csr(np.ones((1, 5), dtype=np.float32))).any()

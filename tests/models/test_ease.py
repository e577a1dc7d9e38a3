"""EASE: the closed form against a plain inverse, against ridge regressions, and by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from recsys import EASE
from recsys.exceptions import InvalidInputError

Floats = npt.NDArray[np.float64]


def random_matrix(n_users: int = 60, n_items: int = 25, density: float = 0.2, seed: int = 0) -> Floats:
    """A binary matrix without empty rows or columns."""
    matrix = np.random.default_rng(seed).random((n_users, n_items)) < density
    matrix[np.arange(n_users), np.arange(n_users) % n_items] = True
    return matrix.astype(float)


def frame_of(matrix: Floats) -> pd.DataFrame:
    user, item = np.nonzero(matrix.T)[::-1]
    return pd.DataFrame({"user_id": user, "item_id": item})


def all_scores(model: EASE, matrix: Floats) -> Floats:
    user, item = (grid.ravel() for grid in np.indices(matrix.shape))
    scores = model.predict(pd.DataFrame({"user_id": user, "item_id": item}))
    return scores.reshape(matrix.shape).astype(float)


def weights_of(matrix: Floats, l2: float) -> Floats:
    """Steck's closed form, literally."""
    inverse = np.linalg.inv(matrix.T @ matrix + l2 * np.eye(matrix.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


@pytest.mark.parametrize("l2", [0.5, 10.0, 400.0])
def test_closed_form(l2: float) -> None:
    matrix = random_matrix()
    model = EASE(l2=l2).fit(frame_of(matrix))
    # Items stand in the frame one after the other: their codes are their labels.
    assert model.items_.ids.tolist() == list(range(matrix.shape[1]))
    expected = weights_of(matrix, l2)
    np.testing.assert_allclose(model.weights_, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(all_scores(model, matrix), matrix @ expected, rtol=1e-4, atol=1e-5)


def test_each_column_is_a_ridge_regression_on_the_other_items() -> None:
    matrix = random_matrix(n_items=8)
    model = EASE(l2=3.0).fit(frame_of(matrix))
    for column in range(8):
        others = np.delete(np.arange(8), column)
        ridge = Ridge(alpha=3.0, fit_intercept=False).fit(matrix[:, others], matrix[:, column])
        np.testing.assert_allclose(model.weights_[others, column], ridge.coef_, rtol=1e-4, atol=1e-6)


def test_two_items_by_hand() -> None:
    # 3 users have both, 2 the first alone, 1 the second alone: b_01 = 3 / (5 + l2), b_10 = 3 / (4 + l2).
    matrix = np.array([[1, 1]] * 3 + [[1, 0]] * 2 + [[0, 1]], dtype=float)
    model = EASE(l2=1.0).fit(frame_of(matrix))
    np.testing.assert_allclose(model.weights_, [[0, 3 / 6], [3 / 5, 0]], rtol=1e-6)
    np.testing.assert_allclose(all_scores(model, matrix)[[0, 3, 5]], [[0.6, 0.5], [0, 0.5], [0.6, 0]], rtol=1e-6)


def test_with_much_regularisation_weights_are_co_occurrences() -> None:
    matrix = random_matrix()
    l2 = 1e7
    expected = matrix.T @ matrix
    np.fill_diagonal(expected, 0)
    model = EASE(l2=l2).fit(frame_of(matrix))
    np.testing.assert_allclose(l2 * model.weights_, expected, rtol=1e-3, atol=1e-3)


def test_with_little_regularisation_a_copy_is_predicted_exactly() -> None:
    matrix = random_matrix(n_items=6, density=0.5)
    # The last item is the first one again; one user lost it.
    matrix = np.column_stack([matrix, matrix[:, 0]])
    model = EASE(l2=1e-4).fit(frame_of(matrix))
    np.testing.assert_allclose(all_scores(model, matrix)[:, -1], matrix[:, 0], atol=1e-3)
    assert model.weights_[0, -1] == pytest.approx(1, abs=1e-3)


def test_a_singular_regression_is_refused() -> None:
    matrix = np.ones((3, 2))
    with pytest.raises(InvalidInputError, match=r"`l2` is 1e-300, too small for this data: .* singular; raise it"):
        EASE(l2=1e-300).fit(frame_of(matrix))


def test_repetitions_and_weights_do_not_matter() -> None:
    matrix = random_matrix()
    X = frame_of(matrix)
    expected = EASE(l2=2.0).fit(X).weights_
    rng = np.random.default_rng(0)
    again = pd.concat([X, X.iloc[rng.integers(0, len(X), 200)]], ignore_index=True)
    weighted = EASE(l2=2.0).fit(again, rng.uniform(0.5, 5, len(again)))
    np.testing.assert_array_equal(weighted.weights_, expected)
    np.testing.assert_allclose(all_scores(weighted, matrix), matrix @ expected, rtol=1e-4, atol=1e-5)


def test_what_was_only_seen_is_no_input() -> None:
    matrix = random_matrix()
    X = frame_of(matrix)
    shown = pd.DataFrame({"user_id": [0, 1], "item_id": [np.flatnonzero(matrix[user] == 0)[0] for user in (0, 1)]})
    y = np.append(np.ones(len(X)), [0, -2])
    model = EASE(l2=2.0).fit(pd.concat([X, shown]), y)
    np.testing.assert_array_equal(model.weights_, EASE(l2=2.0).fit(X).weights_)
    assert model.recommend([0, 1], k=100).merge(shown, on=["user_id", "item_id"]).empty


def test_items_without_positives_score_zero() -> None:
    matrix = random_matrix(n_items=6)
    items = pd.DataFrame({"kind": ["new", "old"]}, index=["warm", 0])
    model = EASE(l2=2.0).fit(frame_of(matrix), item_features=items)
    assert model.hot_items_.tolist() == list(range(6))
    assert model.weights_.shape == (6, 6)
    X = pd.DataFrame({"user_id": [0, 0], "item_id": ["warm", "unheard of"]})
    assert model.predict(X).tolist() == [0, 0]


def test_a_new_history_is_scored_without_training() -> None:
    matrix = random_matrix()
    model = EASE(l2=5.0).fit(frame_of(matrix))
    clicks = pd.DataFrame({"user_id": ["new", "new", "new"], "item_id": [3, 7, 7]})
    found = model.recommend(["new"], k=100, interactions=clicks, exclude_seen=False).sort_values("item_id")
    expected = weights_of(matrix, 5.0)
    np.testing.assert_allclose(found["score"], expected[3] + expected[7], rtol=1e-4, atol=1e-6)


def test_partial_fit_is_fit_on_everything() -> None:
    matrix = random_matrix()
    X = frame_of(matrix)
    model = EASE(l2=5.0).fit(X.iloc[:100]).partial_fit(X.iloc[100:])
    np.testing.assert_allclose(all_scores(model, matrix), matrix @ weights_of(matrix, 5.0), rtol=1e-4, atol=1e-5)


def test_similar_items_are_the_rows_of_the_weights() -> None:
    matrix = random_matrix()
    model = EASE(l2=5.0).fit(frame_of(matrix))
    found = model.similar_items([4], k=3)
    row = weights_of(matrix, 5.0)[4]
    row[4] = -np.inf
    assert found["similar_item_id"].tolist() == np.argsort(-row)[:3].tolist()
    np.testing.assert_allclose(found["score"], np.sort(row)[::-1][:3], rtol=1e-4)


def test_explain_names_the_items_of_the_history() -> None:
    matrix = random_matrix()
    model = EASE(l2=5.0).fit(frame_of(matrix))
    told = model.explain(pd.DataFrame({"user_id": [0], "item_id": [4]}))
    assert told["field"].tolist() == np.flatnonzero(matrix[0]).tolist()
    np.testing.assert_allclose(told["contribution"], weights_of(matrix, 5.0)[matrix[0] > 0, 4], rtol=1e-4, atol=1e-6)
    assert (told["source"] == "history").all()


def test_a_million_items_are_refused_before_anything_is_allocated() -> None:
    n = 1_000_000
    X = pd.DataFrame({"user_id": np.arange(n) % 1000, "item_id": np.arange(n)})
    model = EASE()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match=r"EASE needs about [\d.]+ GiB for 1000000 items"):
            model.fit(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A few copies of the rows, and nothing of the size of a million squared.
    assert peak < 500 * 2**20
    assert not hasattr(model, "items_")

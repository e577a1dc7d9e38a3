from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from recsys._sparse import Csr
from recsys.features import EncodedFeatures, FeatureEncoder
from recsys.interactions import ContextRows, TrainingData
from recsys.models import _ranking_factors as ranking_factors
from recsys.models import _ranking_features as ranking_features
from recsys.models import _ranking_table as sampling
from recsys.models._als import als_half_step
from recsys.models._ranking_factors import KEEP_RATES, content_map, fold_in
from recsys.models._ranking_features import PairFeatures, Queries
from recsys.models._ranking_table import RankingTable, ranking_table

N_USERS, N_ITEMS = 60, 24


def encoded(frame: pd.DataFrame, **kinds: str) -> EncodedFeatures:
    return FeatureEncoder.fit(frame, kinds, "|").transform(frame, "frame")


def item_features(n: int = N_ITEMS) -> EncodedFeatures:
    year = np.where(np.arange(n) % 5 == 4, np.nan, 1990.0 + np.arange(n) % 12)
    genres = [["calm", "board"] if i % 2 == 0 else ["ball"] for i in range(n)]
    title = [f"word{i % 3} of {i % 4} tales" for i in range(n)]
    frame = pd.DataFrame({"year": year, "genres": genres, "title": title})
    return encoded(frame, year="numeric", genres="multi_hot", title="text")


def user_features(n: int = N_USERS) -> EncodedFeatures:
    club = np.where(np.arange(n) % 2 == 0, "chess", "tennis").astype(object)
    club[3] = None
    return encoded(pd.DataFrame({"club": club, "age": 20.0 + np.arange(n) % 40}), club="categorical", age="numeric")


def data(*, context: bool = False, seed: int = 0) -> TrainingData:
    """Users take items of their parity; the last two users and items have no interactions."""
    rng = np.random.default_rng(seed)
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(N_USERS), np.arange(N_ITEMS), indexing="ij"))
    drawn = rng.random(len(user)) < np.where(user % 2 == item % 2, 0.5, 0.1)
    drawn &= (user < N_USERS - 2) & (item < N_ITEMS - 2)
    matrix = Csr((np.ones(drawn.sum(), np.float32), (user[drawn], item[drawn])), shape=(N_USERS, N_ITEMS))
    rows = None
    if context:
        frame = pd.DataFrame({"hour": np.where(item[drawn] % 4 < 2, "early", "late")})
        rows = ContextRows(user[drawn], item[drawn], encoded(frame, hour="categorical"))
    return TrainingData(matrix, user_features(), item_features(), rows)


def queries(of: TrainingData, n: int | None = None) -> Queries:
    context = None if of.context is None else of.context.features.take(np.arange(of.matrix.shape[0]))
    every = Queries(of.matrix, of.user_features, context)
    return every if n is None else every.take(slice(n))


def learn(of: TrainingData, n_factors: int = 5) -> PairFeatures:
    return PairFeatures.fit(of, n_factors, np.random.default_rng(0))


def table(features: PairFeatures, asked: Queries) -> Any:
    return np.concatenate([found.values() for _, found in features.tables(asked)])


def at(features: PairFeatures, source: str, name: str) -> int:
    return features.columns.index((source, name))


@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_folding_in_solves_the_normal_equations(seed: int, n_factors: int, l2: float) -> None:
    rng = np.random.default_rng(seed)
    history = Csr(sparse.random(7, 12, density=0.3, rng=rng, dtype=np.float32))
    factors = rng.standard_normal((12, n_factors))
    gram = factors.T @ factors + l2 * np.eye(n_factors)
    found = fold_in(history, factors, gram)
    for row in range(7):
        seen = factors[history[row].indices]
        expected = np.linalg.solve(gram + seen.T @ seen, 2 * seen.sum(0)) if len(seen) else np.zeros(n_factors)
        np.testing.assert_allclose(found[row], expected, rtol=1e-9, atol=1e-9)
    ones = Csr((np.ones_like(history.data), history.indices, history.indptr), shape=history.shape)
    single = als_half_step(ones, factors.astype(np.float32), alpha=1.0, regularization=l2, solver="cholesky")
    np.testing.assert_allclose(found, single, rtol=2e-3, atol=1e-4)


def test_columns_name_what_they_hold() -> None:
    of = data(context=True)
    features = learn(of)
    values = table(features, queries(of))
    assert values.shape == (N_USERS, N_ITEMS, len(features.columns))
    counts = np.bincount(of.matrix.indices, minlength=N_ITEMS)
    popularity = values[0, :, at(features, "item", "popularity")]
    np.testing.assert_allclose(popularity[:-2], np.log(counts[:-2] / counts[:-2].mean()), rtol=1e-6)
    assert np.isnan(popularity[-2:]).all()
    lengths = np.diff(of.matrix.indptr)
    np.testing.assert_allclose(values[:, 0, at(features, "history", "length")], np.log1p(lengths), rtol=1e-6)
    mainstream = values[:, 0, at(features, "history", "popularity")]
    assert mainstream[5] == pytest.approx(popularity[of.matrix[5].indices].mean(), rel=1e-5)
    assert np.isnan(mainstream[-2:]).all()
    club = values[:, 0, at(features, "user", "club")]
    assert club[:6].tolist()[:3] == [0, 1, 0]
    assert np.isnan(club[3])
    year = values[0, :, at(features, "item", "year")]
    assert np.isnan(year[4::5]).all()
    assert (np.diff(year[:4]) > 0).all()
    first = at(features, "item", "genres")
    np.testing.assert_array_equal(values[7, ::2, first : first + 3].sum(1), 2)
    np.testing.assert_array_equal(values[7, 1::2, first : first + 3].sum(1), 1)
    # Words have no columns of their own.
    assert ("item", "title") not in features.columns
    assert ("history", "title") in features.columns


def test_similarities_are_those_of_unit_rows() -> None:
    of = data()
    features = learn(of)
    values = table(features, queries(of))
    for field in of.item_features.fields:
        block = of.item_features.block(field).toarray().astype(np.float64)
        unit = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
        found = values[:, :, at(features, "history", field.name)]
        for user in (0, 1, 17):
            mean = unit[of.matrix[user].indices].mean(0)
            np.testing.assert_allclose(found[user], unit @ mean, atol=1e-5)
        assert np.isnan(found[-2:]).all()


def test_the_completion_is_dropout_ease_in_the_space_of_the_factors() -> None:
    of = data()
    features = learn(of)
    X = (of.matrix.toarray() > 0).astype(np.float64)
    F = np.column_stack([of.user_features.matrix.toarray(), np.ones(N_USERS)]).astype(np.float64)
    lengths = X.sum(1)
    weights = np.where(lengths > 0, np.maximum(lengths, 1) ** -0.5, 0)
    weights *= (lengths > 0).sum() / weights.sum()
    W, n_hot = np.diag(weights), N_ITEMS - 2
    penalties = np.full(F.shape[1], ranking_factors.ATTRIBUTE_L2 * X.sum() / n_hot)
    penalties[-1] = 1e-6 * weights.sum()
    a = np.linalg.solve(F.T @ W @ F + np.diag(penalties), F.T @ W @ X)
    R = X.T @ W @ X - X.T @ W @ F @ a
    left, singular, _ = np.linalg.svd(features.arrays["own"], full_matrices=False)
    Q = left[:, singular > 1e-4 * singular[0]]
    B = []
    for keep in KEEP_RATES:
        D = np.diag((1 - keep) / keep * np.diag(X.T @ W @ X) + ranking_factors.EASE_L2 * X.sum() / n_hot)
        B.append(np.linalg.solve(Q.T @ (R + D) @ Q, Q.T @ R @ Q) / keep)
    hot = np.arange(n_hot)
    scores = table(features, queries(of))[:, :, at(features, "history", "taste")]
    # The vector of an item, in a history too, is in part its content's.
    items = features.arrays["factors"] @ features.arrays["projection"]
    np.testing.assert_allclose(features.arrays["own"] @ features.arrays["projection"], Q, atol=1e-5)
    for user in range(N_USERS):
        keep = lengths[user] / (lengths[user] + lengths.sum() / (lengths > 0).sum())
        place = np.interp(np.log(max(keep, KEEP_RATES[0] / 2)), np.log(KEEP_RATES), np.arange(3.0))
        vector = F[user] @ a @ Q
        for rate in range(3):
            if lengths[user]:
                share = max(0.0, 1 - abs(place - rate))
                heard = X[user] @ items - KEEP_RATES[rate] * F[user] @ a @ Q
                vector = vector + share * heard @ B[rate]
        np.testing.assert_allclose(scores[user, hot], (items @ vector)[hot], rtol=1e-3, atol=2e-4)


def test_the_trees_start_from_taste_relative_to_the_scores_of_hot_items() -> None:
    of = data()
    features = learn(of)
    values = table(features, queries(of))
    assert [features.columns[i] for i in (0, ranking_features.START)] == [("history", "taste")] * 2
    taste, relative = values[:, :, 0], values[:, :, ranking_features.START]
    hot = taste[:, : N_ITEMS - 2]
    expected = (taste - hot.mean(1, keepdims=True)) / hot.std(1, keepdims=True)
    np.testing.assert_allclose(relative, expected, atol=2e-4)


@pytest.mark.parametrize("context", [False, True])
def test_pairs_are_entries_of_the_table_whoever_else_is_asked_for(context: bool) -> None:
    of = data(context=context)
    features = learn(of)
    whole = table(features, queries(of))
    rng = np.random.default_rng(0)
    rows, items = np.sort(rng.integers(0, N_USERS, 200)), rng.integers(0, N_ITEMS, 200)
    np.testing.assert_array_equal(features.pairs(queries(of), rows, items), whole[rows, items])
    for user in (0, 9, N_USERS - 1):
        alone = table(features, queries(of).take(slice(user, user + 1)))
        np.testing.assert_array_equal(alone[0], whole[user])
    # A pool as small as a user at a time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking_features, "TABLE_VALUES", 1)
        np.testing.assert_array_equal(table(features, queries(of)), whole)
        patch.setattr(ranking_features, "PAIRS", 7)
        np.testing.assert_array_equal(features.pairs(queries(of), rows, items), whole[rows, items])


def test_items_that_join_change_nothing_else_and_alike_ones_are_alike() -> None:
    of = data()
    features = learn(of)
    whole = table(features, queries(of))
    grown = features.with_items(item_features().take(np.append(np.arange(N_ITEMS), [0, 1, 0, -1])))
    history = Csr((of.matrix.data, of.matrix.indices, of.matrix.indptr), shape=(N_USERS, N_ITEMS + 4))
    values = table(grown, Queries(history, of.user_features, None))
    np.testing.assert_array_equal(values[:, :N_ITEMS], whole)
    np.testing.assert_array_equal(values[:, N_ITEMS], values[:, N_ITEMS + 2])
    assert np.isnan(values[:, N_ITEMS:, at(features, "item", "popularity")]).all()
    # The content of item 0 is that of users of even number.
    taste = values[:, :, at(features, "history", "taste")]
    even = np.arange(N_USERS - 2) % 2 == 0
    assert ((taste[:-2, N_ITEMS] > taste[:-2, N_ITEMS + 1]) == even).mean() > 0.9
    # Nothing that was fitted was written to.
    np.testing.assert_array_equal(table(features, queries(of)), whole)


def test_state_survives_storing() -> None:
    of = data(context=True)
    features = learn(of)
    back = PairFeatures.from_state(features.to_state())
    assert back.columns == features.columns
    np.testing.assert_array_equal(table(back, queries(of)), table(features, queries(of)))


def test_negatives_are_hot_items_that_the_user_does_not_have() -> None:
    matrix = data().matrix
    query = np.repeat(np.arange(40), 3)
    users = np.arange(40)[::-1].copy()
    asked, items = sampling._negatives(matrix, users, query, 4, np.random.default_rng(0))
    assert not np.asarray(matrix[users[asked], items]).any()
    assert items.max() < N_ITEMS - 2
    assert np.bincount(asked).max() <= 12
    assert len(np.unique(asked * N_ITEMS + items)) == len(asked)
    # A user who has everything has no negatives.
    full, nobody = Csr(np.ones((1, 5), np.float32)), np.zeros(5, np.int64)
    assert len(sampling._negatives(full, nobody[:1], nobody, 4, np.random.default_rng(0))[0]) == 0


def test_histories_are_cut_to_parts_of_themselves() -> None:
    matrix = Csr(np.ones((4000, 30), np.float32))
    cut = sampling._cut(matrix, np.random.default_rng(0))
    lengths = np.diff(cut.indptr)
    assert (cut.data == 1).all()
    assert 0.45 < (lengths == 30).mean() < 0.6
    for length in (0, 1, 2, 5, 10):
        assert (lengths == length).mean() > 0.02
    # Which entries are kept is chance.
    np.testing.assert_allclose(np.bincount(cut.indices) / cut.nnz, 1 / 30, atol=0.002)


def make_table(of: TrainingData, **params: Any) -> RankingTable:
    return both(of, **params)[0]


def both(of: TrainingData, **params: Any) -> tuple[RankingTable, PairFeatures]:
    return ranking_table(of, **({"n_factors": 5, "n_folds": 3, "n_negatives": 4, "seed": 0} | params))


@pytest.mark.parametrize("context", [False, True])
def test_the_table_holds_each_positive_once_with_its_negatives(context: bool) -> None:
    of = data(context=context)
    found = make_table(of)
    assert found.values.dtype == np.float32
    assert found.groups.sum() == len(found.labels) == len(found.values)
    assert found.labels.sum() == of.matrix.nnz
    starts = np.append(0, np.cumsum(found.groups))[:-1]
    n_positives = np.add.reduceat(found.labels, starts)
    assert (n_positives > 0).all()
    assert (n_positives < found.groups).all()
    assert (found.groups - n_positives <= 4 * n_positives).all()
    again = make_table(of)
    np.testing.assert_array_equal(found.values, again.values)
    assert not np.array_equal(found.values[:50], make_table(of, seed=1).values[:50])


def test_users_of_many_positives_bring_some(monkeypatch: pytest.MonkeyPatch) -> None:
    of = data()
    monkeypatch.setattr(sampling, "MAX_POSITIVES", 3)
    lengths = np.diff(of.matrix.indptr)
    assert make_table(of).labels.sum() <= np.minimum(lengths, 3).sum()
    monkeypatch.setattr(sampling, "MAX_USERS", 7)
    assert len(make_table(of).groups) <= 21


def test_one_interaction_or_one_item_is_nothing_to_rank() -> None:
    for matrix in (Csr(np.ones((1, 1), np.float32)), Csr(np.ones((9, 1), np.float32))):
        n_users, n_items = matrix.shape
        none = TrainingData(matrix, EncodedFeatures.empty(n_users), EncodedFeatures.empty(n_items), None)
        assert len(make_table(none).labels) == 0


def noise(n_users: int = 400, n_items: int = 60) -> TrainingData:
    """Every pair is a positive with the same probability: there is nothing to learn."""
    rng = np.random.default_rng(3)
    matrix = Csr((rng.random((n_users, n_items)) < 0.2).astype(np.float32))
    return TrainingData(matrix, user_features(n_users), item_features(n_items), None)


def areas(values: Any, labels: Any) -> list[float]:
    """The area under the ROC curve of each feature that varies, alone."""
    found = []
    for column in values.T:
        known = ~np.isnan(column)
        if len(np.unique(column[known])) > 1:
            found.append(float(roc_auc_score(labels[known], column[known])))
    return found


def test_features_of_noise_do_not_know_their_own_target() -> None:
    of = noise()
    honest = make_table(of, n_factors=16, n_negatives=2)
    found = areas(honest.values, honest.labels)
    assert len(found) > 12
    np.testing.assert_allclose(found, 0.5, atol=0.03)


def test_features_of_noise_know_it_where_the_fold_is_not_left_out() -> None:
    of = noise()
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random(of.matrix.shape) < 0.3)
    leaky = learn(of, 16).pairs(queries(of), users, items)
    labels = np.asarray(of.matrix[users, items]).ravel() > 0
    assert max(areas(leaky, labels)) > 0.75


@pytest.mark.parametrize("most_columns", [1, 4096])
def test_the_content_map_is_a_weighed_ridge_regression(most_columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_factors, "MOST_COLUMNS", most_columns)
    rng = np.random.default_rng(0)
    content, targets = item_features(40).matrix, rng.standard_normal((40, 3))
    counts = rng.integers(0, 30, 40)
    found = content_map(content, targets, counts)
    known = counts > 0
    ridge = Ridge(ranking_factors.CONTENT_L2)
    trust = counts[known] / (counts[known] + ranking_factors.TRUSTED_EVIDENCE)
    ridge.fit(content.toarray()[known].astype(np.float64), targets[known], sample_weight=trust)
    np.testing.assert_allclose(found[:-1], ridge.coef_.T, atol=1e-5)
    np.testing.assert_allclose(found[-1], ridge.intercept_, atol=1e-5)

"""Synthetic data: exact sizes, honest times, and distributions of the shape that is claimed."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, skew
from sklearn.metrics import ndcg_score

from recsys.datasets import make_movielens_like, synthetic
from recsys.datasets._bunch import DatasetBunch
from recsys.exceptions import InvalidInputError, InvalidTypeError

Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module", params=[0, 1, 2])
def data(request: pytest.FixtureRequest) -> DatasetBunch:
    return make_movielens_like(2000, 800, 100_000, random_state=request.param)


def gini(counts: Any) -> float:
    """Half the mean absolute difference of all pairs over the mean, straight from the definition."""
    counts = np.asarray(counts, dtype=float)
    return float(np.abs(counts[:, None] - counts).mean() / (2 * counts.mean()))


def matrix(data: DatasetBunch) -> Floats:
    """Users by items, 1 where there is an interaction."""
    dense = np.zeros((len(data.users), len(data.items)))
    dense[data.interactions["user_id"] - 1, data.interactions["item_id"] - 1] = 1
    return dense


def ridge(inputs: Floats, targets: Floats, penalty: float) -> Floats:
    gram = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    return np.asarray(np.linalg.solve(gram, inputs.T @ targets), dtype=np.float64)


def test_frames_have_the_shape_of_movielens() -> None:
    data = make_movielens_like(200, 90, 3000, random_state=0)
    assert {name: str(dtype) for name, dtype in data.interactions.dtypes.items()} == {
        "user_id": "int64",
        "item_id": "int64",
        "rating": "float32",
        "timestamp": "int64",
    }
    assert list(data.users.columns) == ["user_id", "gender", "age", "occupation", "zip_code"]
    assert list(data.items.columns) == ["item_id", "title", "year", "genres"]
    assert data.users["user_id"].tolist() == list(range(1, 201))
    assert data.items["item_id"].tolist() == list(range(1, 91))
    assert data.items["year"].dtype == np.float64
    assert set(data.users["gender"]) == {"M", "F"}
    assert set(data.users["age"]) <= {1, 18, 25, 35, 45, 50, 56}
    assert data.users["zip_code"].str.fullmatch(r"\d{5}").all()
    assert data.items["title"].is_unique
    assert data.items["genres"].str.len().between(1, 3).all()
    assert all(len(set(genres)) == len(genres) for genres in data.items["genres"])
    assert set(data.items["genres"].explode()) <= set(synthetic._GENRES)
    assert data.name == "movielens-like"
    assert "3,000 ratings of 90 items by 200 users with 8 tastes" in data.DESCR


def check_promises(data: DatasetBunch, n_users: int, n_items: int, n_interactions: int) -> None:
    interactions = data.interactions
    assert (len(interactions), len(data.users), len(data.items)) == (n_interactions, n_users, n_items)
    assert not interactions.duplicated(["user_id", "item_id"]).any()
    assert interactions["user_id"].nunique() == n_users
    assert interactions["item_id"].between(1, n_items).all()
    assert interactions["rating"].isin([1, 2, 3, 4, 5]).all()
    assert interactions["user_id"].is_monotonic_increasing
    steps = interactions.groupby("user_id")["timestamp"].diff().dropna()
    assert (steps > 0).all()
    rated_in = pd.to_datetime(interactions["timestamp"], unit="s").dt.year
    assert (rated_in.to_numpy() >= data.items["year"].to_numpy()[interactions["item_id"] - 1]).all()


@settings(max_examples=60)
@given(
    n_users=st.integers(1, 60),
    n_items=st.integers(1, 60),
    fill=st.floats(0, 1),
    n_factors=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_promises_hold_for_every_possible_size(
    n_users: int, n_items: int, fill: float, n_factors: int, seed: int
) -> None:
    most = n_users * ((n_items + 1) // 2)
    n_interactions = n_users + round(fill * (most - n_users))
    data = make_movielens_like(n_users, n_items, n_interactions, n_factors=n_factors, random_state=seed)
    check_promises(data, n_users, n_items, n_interactions)


def test_promises_hold_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_movielens_like(500, 200, 20_000, random_state=3)
    monkeypatch.setattr(synthetic, "_BLOCK", 700)
    blocks = make_movielens_like(500, 200, 20_000, random_state=3)
    check_promises(blocks, 500, 200, 20_000)
    # The same users and as many interactions each; other draws of the same distribution.
    pd.testing.assert_frame_equal(blocks.users, whole.users)
    assert blocks.interactions["user_id"].tolist() == whole.interactions["user_id"].tolist()
    popularity = [np.bincount(one.interactions["item_id"], minlength=201).astype(float) for one in (blocks, whole)]
    assert np.corrcoef(popularity)[0, 1] > 0.97


def test_draws_without_replacement_follow_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.RandomState(0)
    taste = rng.dirichlet(np.full(6, 0.7), size=2)
    n_users = 60_000
    world = synthetic._World(
        taste=taste,
        mixture=np.tile([0.3, 0.7], (n_users, 1)),
        appeal=np.full(6, 1 / 6),
        quality=np.zeros(6),
        leniency=np.zeros(n_users),
        release=np.array([0, 0, 0, 0, 0, 100]),
        joins=np.full(n_users, 10),
        leaves=np.full(n_users, 50),
    )
    chances = np.array([0.3, 0.7]) @ taste
    chances[5] = 0  # released after everybody has left
    chances /= chances.sum()
    # Two of six: P(i) + sum over j of P(j) P(i) / (1 - P(j)).
    odds = chances / (1 - chances)
    expected = chances + chances * (odds.sum() - odds)
    need = np.full(n_users, 2)
    for rounds in (synthetic._ROUNDS, 1, 0):  # by collision and retry, by both, by Gumbel alone
        monkeypatch.setattr(synthetic, "_ROUNDS", rounds)
        user, item = synthetic._draw_pairs(rng, world, 0, need)
        assert np.bincount(user).tolist() == need.tolist()
        seen = np.bincount(item, minlength=6) / n_users
        assert seen[5] == 0
        np.testing.assert_allclose(seen, expected, atol=5 * 0.5 / np.sqrt(n_users))


def test_one_seed_gives_the_same_frames() -> None:
    one, two = (make_movielens_like(100, 60, 1000, random_state=5) for _ in range(2))
    three = make_movielens_like(100, 60, 1000, random_state=np.random.RandomState(5))
    other = make_movielens_like(100, 60, 1000, random_state=6)
    for frame in ("interactions", "users", "items"):
        pd.testing.assert_frame_equal(one[frame], two[frame])
        pd.testing.assert_frame_equal(one[frame], three[frame])
        assert not one[frame].equals(other[frame])


def test_an_instance_moves_on_and_none_differs() -> None:
    rng = np.random.RandomState(5)
    one, two = (make_movielens_like(50, 40, 500, random_state=rng) for _ in range(2))
    assert not one.interactions.equals(two.interactions)
    three, four = (make_movielens_like(50, 40, 500) for _ in range(2))
    assert not three.interactions.equals(four.interactions)


def test_popularity_and_activity_are_skewed(data: DatasetBunch) -> None:
    popularity = data.interactions["item_id"].value_counts().reindex(data.items["item_id"], fill_value=0)
    activity = data.interactions["user_id"].value_counts()
    assert 0.45 < gini(popularity) < 0.75
    assert 0.4 < gini(activity) < 0.6
    assert activity.min() >= 10
    # Log-normal: the logarithm has about the spread 1 and no strong skew.
    logs = np.log(activity.to_numpy())
    assert 0.7 < float(logs.std()) < 1.1
    assert abs(float(skew(logs))) < 0.8


def test_ratings_are_shared_as_in_movielens(data: DatasetBunch) -> None:
    shares = data.interactions["rating"].value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(shares, synthetic._RATING_SHARES, atol=0.001)


def test_ratings_follow_taste_items_and_users(data: DatasetBunch) -> None:
    rating = data.interactions["rating"].astype(float)
    for column in ("user_id", "item_id"):
        groups = rating.groupby(data.interactions[column])
        large = groups.size() >= 50
        # Means of 50 ratings of pure chance would spread by 1.12 / sqrt(50) = 0.16.
        assert groups.mean()[large].std() > 0.3


def lift(data: DatasetBunch, attribute: str) -> float:
    """Chi-square per degree of freedom of attribute x item: 1 if they were independent."""
    values = data.users[attribute].to_numpy()[data.interactions["user_id"] - 1]
    table = pd.crosstab(values, data.interactions["item_id"])
    table = table.loc[:, table.sum() >= 50]
    result = chi2_contingency(table)
    return float(result.statistic / result.dof)


@pytest.mark.parametrize("attribute", ["gender", "age", "occupation"])
def test_items_follow_attributes_of_users(attribute: str, data: DatasetBunch) -> None:
    rng = np.random.default_rng(0)
    shuffled = data.users.assign(**{attribute: rng.permutation(data.users[attribute])})
    by_chance = lift(DatasetBunch(**{**data, "users": shuffled}), attribute)
    assert lift(data, attribute) > 1.5 * by_chance


def test_zip_codes_tell_nothing(data: DatasetBunch) -> None:
    users = data.users.assign(zip_code=data.users["zip_code"].str[0])
    rng = np.random.default_rng(0)
    shuffled = users.assign(zip_code=rng.permutation(users["zip_code"]))
    by_chance = lift(DatasetBunch(**{**data, "users": shuffled}), "zip_code")
    assert lift(DatasetBunch(**{**data, "users": users}), "zip_code") == pytest.approx(by_chance, rel=0.2)


def test_one_taste_leaves_nothing_to_personalise() -> None:
    data = make_movielens_like(2000, 800, 100_000, n_factors=1, random_state=0)
    seen = matrix(data)
    half = np.random.default_rng(0).random(seen.shape) < 0.5
    assert _hot_ndcg(seen, half, personal=True) < 1.02 * _hot_ndcg(seen, half, personal=False)


def _hot_ndcg(seen: Floats, half: npt.NDArray[np.bool_], *, personal: bool) -> float:
    """NDCG@10 on the held-out half of every fifth user: EASE against popularity."""
    train = seen.copy()
    test_users = np.arange(len(seen)) % 5 == 0
    gram = train[~test_users].T @ train[~test_users] + 100 * np.eye(seen.shape[1])
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    history = np.where(half, seen, 0)[test_users]
    scores = history @ weights if personal else np.tile(seen[~test_users].sum(axis=0), (len(history), 1))
    scores = np.where(history > 0, scores.min() - 1, scores)
    return float(ndcg_score(np.where(half, 0, seen)[test_users], scores, k=10))


def test_interactions_tell_much_more_than_popularity(data: DatasetBunch) -> None:
    seen = matrix(data)
    half = np.random.default_rng(0).random(seen.shape) < 0.5
    assert _hot_ndcg(seen, half, personal=True) > 1.25 * _hot_ndcg(seen, half, personal=False)


def test_attributes_rank_items_for_new_users(data: DatasetBunch) -> None:
    seen = matrix(data)
    attributes = pd.get_dummies(data.users[["gender", "age", "occupation"]].astype(str)).to_numpy(float)
    attributes -= attributes.mean(axis=0)
    new = np.arange(len(seen)) % 5 == 0
    popular = np.tile(seen[~new].mean(axis=0), (new.sum(), 1))
    personal = popular + attributes[new] @ ridge(attributes[~new], seen[~new], 100.0)
    assert ndcg_score(seen[new], personal, k=50) > 1.03 * ndcg_score(seen[new], popular, k=50)


def test_metadata_rank_new_items(data: DatasetBunch) -> None:
    seen = matrix(data)
    genres = data.items["genres"].explode()
    metadata = np.column_stack(
        [
            np.ones(len(data.items)),
            pd.crosstab(genres.index, genres).to_numpy(float),
            np.log(2002 - data.items["year"]),
        ]
    )
    new = np.arange(len(metadata)) % 5 == 0
    users = seen[:, ~new].sum(axis=1) > 0
    # Every user's row is a regression on metadata of old items; it ranks the new ones.
    scores = (metadata[new] @ ridge(metadata[~new], seen[users][:, ~new].T, 5.0)).T
    shuffled = metadata[np.random.default_rng(0).permutation(len(metadata))]
    chance = (shuffled[new] @ ridge(shuffled[~new], seen[users][:, ~new].T, 5.0)).T
    relevant = seen[users][:, new]
    assert ndcg_score(relevant, scores, k=10) > 1.3 * ndcg_score(relevant, chance, k=10)


def test_memory_grows_with_interactions_and_not_with_pairs() -> None:
    tracemalloc.start()
    try:
        data = make_movielens_like(20_000, 20_000, 200_000, random_state=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data.interactions) == 200_000
    # A byte a pair would be 400 MB.
    assert peak < 150e6


@pytest.mark.parametrize("name", ["n_users", "n_items", "n_interactions", "n_factors"])
def test_sizes_must_be_positive_integers(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"`{name}` is 0; expected at least 1"):
        make_movielens_like(**{name: 0})
    sizes: dict[str, Any] = {"n_users": 10, "n_items": 10, "n_interactions": 20, "n_factors": 2}
    for wrong in (10.0, "10", True, None):
        with pytest.raises(InvalidTypeError, match=f"`{name}` is {wrong!r}; expected an integer"):
            make_movielens_like(**{**sizes, name: wrong})


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="`n_interactions` is 99 for 100 users; expected at least one each"):
        make_movielens_like(100, 50, 99)
    with pytest.raises(InvalidInputError, match=r"is 2,501 for 100 users and 50 items; expected at most 2,500"):
        make_movielens_like(100, 50, 2501)
    assert len(make_movielens_like(100, 50, 2500, random_state=0).interactions) == 2500


def test_numpy_integers_are_integers() -> None:
    sizes: list[Any] = [np.int64(5), np.int32(6), np.uint8(10)]
    assert len(make_movielens_like(*sizes).interactions) == 10

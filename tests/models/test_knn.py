"""Nearest neighbours by features: cosines and neighbours against plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recsys import ContentKNN, DemographicKNN
from recsys.models import knn

GENRES = {
    "alien": {"horror", "space"},
    "solaris": {"space", "drama"},
    "psycho": {"horror"},
    "amelie": {"comedy", "drama"},
    "airplane": {"comedy"},
    "dune": {"space", "drama", "epic"},
    "new": {"space", "horror"},
    "other": {"western"},
}
ITEMS = pd.DataFrame({"genres": [sorted(genres) for genres in GENRES.values()]}, index=pd.Index(GENRES, name="item_id"))
X = pd.DataFrame(
    {
        "user_id": [1, 1, 2, 2, 3, 3, 3, 4],
        "item_id": ["alien", "psycho", "amelie", "airplane", "alien", "solaris", "dune", "airplane"],
    }
)
HOT = ["alien", "psycho", "amelie", "airplane", "solaris", "dune"]


def cosine(one: str, other: str) -> float:
    """Members seen in training count alike; "epic" is known from one item, "western" from none that is hot."""
    known = set.union(*(GENRES[item] for item in HOT))
    a, b = GENRES[one] & known, GENRES[other] & known
    return len(a & b) / np.sqrt(len(a) * len(b)) if a and b else 0.0


def neighbours(item: str, n: int) -> dict[str, float]:
    near = {other: cosine(item, other) for other in HOT if other != item and cosine(item, other) > 0}
    return dict(sorted(near.items(), key=lambda pair: (-pair[1], HOT.index(pair[0])))[:n])


@pytest.mark.parametrize("n", [1, 2, 100])
@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_scores_are_sums_of_cosines_to_neighbours(n: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "CHUNK", chunk)
    model = ContentKNN(n_neighbors=n).fit(X, item_features=ITEMS)
    history = X.groupby("user_id")["item_id"].apply(set)
    for user, seen in history.items():
        rows = pd.DataFrame({"user_id": user, "item_id": list(GENRES)})
        expected = [
            sum(value for other, value in neighbours(item, n).items() if other in seen) for item in rows["item_id"]
        ]
        np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-5, atol=1e-6)


def test_warm_items_are_recommended_by_their_content() -> None:
    model = ContentKNN().fit(X, item_features=ITEMS)
    found = model.recommend([1], k=8)
    assert found["item_id"].tolist()[0] == "new"
    np.testing.assert_allclose(found["score"].iloc[0], 1 + np.sqrt(0.5), rtol=1e-5)
    assert found.loc[found["item_id"] == "other", "score"].tolist() == [0]


def test_warm_items_are_nobodys_neighbours() -> None:
    model = ContentKNN().fit(X, item_features=ITEMS)
    codes = model.items_.encode(["new", "other"])
    assert model.neighbors_[:, codes].nnz == 0
    assert model.neighbors_.diagonal().tolist() == [0] * len(GENRES)


def test_similar_items_are_the_nearest() -> None:
    found = ContentKNN().fit(X, item_features=ITEMS).similar_items(["new"], k=3)
    near = neighbours("new", 3)
    assert found["similar_item_id"].tolist() == list(near)
    np.testing.assert_allclose(found["score"], list(near.values()), rtol=1e-5)


@pytest.mark.parametrize("joined", [["new", "other"], ["other"], ["new"]])
def test_items_that_join_are_as_if_they_had_been_there(joined: list[str]) -> None:
    model = ContentKNN().fit(X, item_features=ITEMS.drop(index=joined))
    model.add_items(ITEMS.loc[joined])
    expected = ContentKNN().fit(X, item_features=ITEMS)
    rows = pd.DataFrame({"user_id": np.repeat([1, 2, 3, 4], len(GENRES)), "item_id": list(GENRES) * 4})
    np.testing.assert_allclose(model.predict(rows), expected.predict(rows), rtol=1e-6)


def test_all_fields_count() -> None:
    rng = np.random.default_rng(0)
    n = 40
    items = pd.DataFrame(
        {
            "price": rng.normal(size=n),
            "kind": rng.choice(["a", "b", "c"], n),
            "embedding": list(rng.normal(size=(n, 5))),
        },
        index=pd.RangeIndex(n, name="item_id"),
    )
    items.loc[3, "price"] = np.nan
    pairs = pd.DataFrame({"user_id": rng.integers(0, 20, 150), "item_id": rng.integers(0, n, 150)})
    model = ContentKNN(n_neighbors=7).fit(pairs, item_features=items)
    dense = model.item_features_.matrix.toarray().astype(float)
    unit = dense / np.linalg.norm(dense, axis=1, keepdims=True)
    similarity = unit @ unit.T
    hot = np.flatnonzero(model.popularity_ > 0)
    kept = np.zeros_like(similarity)
    for item in range(len(dense)):
        near = [other for other in hot if other != item and similarity[item, other] > 0]
        near.sort(key=lambda other: -similarity[item, other])
        kept[item, near[:7]] = similarity[item, near[:7]]
    np.testing.assert_allclose(model.neighbors_.toarray(), kept, rtol=1e-4, atol=1e-6)
    history = np.zeros((20, len(dense)))
    history[pairs["user_id"], model.items_.encode(pairs["item_id"])] = 1
    found = model.recommend(np.arange(20), k=n, exclude_seen=False)
    expected = (history @ kept.T)[found["user_id"], model.items_.encode(found["item_id"])]
    np.testing.assert_allclose(found["score"], expected, rtol=1e-4, atol=1e-5)


def test_repetitions_and_weights_do_not_matter() -> None:
    rows = pd.DataFrame({"user_id": np.repeat([1, 2, 3], len(GENRES)), "item_id": list(GENRES) * 3})
    expected = ContentKNN().fit(X, item_features=ITEMS).predict(rows)
    weighted = ContentKNN().fit(pd.concat([X, X]), np.linspace(0.5, 5, 2 * len(X)), item_features=ITEMS)
    np.testing.assert_array_equal(weighted.predict(rows), expected)


def test_without_features_nothing_is_similar() -> None:
    model = ContentKNN().fit(X)
    assert model.neighbors_.nnz == 0
    # All score 0: catalogue order.
    assert model.recommend([4], k=2)["item_id"].tolist() == ["alien", "psycho"]


def test_explain_names_the_neighbours_in_the_history() -> None:
    told = ContentKNN().fit(X, item_features=ITEMS).explain(pd.DataFrame({"user_id": [3], "item_id": ["new"]}))
    parts = dict(zip(told["field"], told["contribution"], strict=True))
    assert parts == pytest.approx({item: cosine("new", item) for item in ("alien", "solaris", "dune")}, rel=1e-5)
    assert (told["source"] == "history").all()


PEOPLE = pd.DataFrame(
    {"club": ["chess", "chess", "darts", "darts", "chess", None], "sport": ["no", "yes", "no", "no", "yes", None]},
    index=pd.Index([1, 2, 3, 4, 8, 9], name="user_id"),
)


def test_users_who_look_alike_vote_by_their_cosine() -> None:
    model = DemographicKNN(n_neighbors=2).fit(X, user_features=PEOPLE)
    # To 8 (chess, sport) the nearest are 2, who is the same, and 1, with one of two in common.
    scores = model.predict(pd.DataFrame({"user_id": [8] * len(HOT), "item_id": HOT}))
    taken = {user: set(X.loc[X["user_id"] == user, "item_id"]) for user in (1, 2)}
    expected = [((item in taken[2]) * 1.0 + (item in taken[1]) * 0.5) / 1.5 for item in HOT]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    told = model.explain(pd.DataFrame({"user_id": [8], "item_id": ["amelie"]}))
    assert told[["source", "field"]].to_numpy().tolist() == [["user", 2]]
    np.testing.assert_allclose(told["contribution"], [1 / 1.5], rtol=1e-6)


def test_who_has_clicks_but_no_attributes_gets_the_prior() -> None:
    model = DemographicKNN(n_neighbors=2).fit(X, user_features=PEOPLE)
    clicks = pd.DataFrame({"user_id": [77], "item_id": ["alien"]})
    found = model.recommend([77], k=1, interactions=clicks)
    assert found["path"].tolist() == ["few-shot"]
    assert found["item_id"].tolist() == ["airplane"]
    assert found["score"].tolist() == pytest.approx([2 / 4])
    told = model.explain(pd.DataFrame({"user_id": [77], "item_id": ["airplane"]}), interactions=clicks)
    assert told["source"].tolist() == ["prior"]


def test_all_neighbours_are_group_popularity() -> None:
    rng = np.random.default_rng(0)
    users = pd.DataFrame({"club": rng.choice(["a", "b", "c"], 60)}, index=pd.Index(np.arange(60), name="user_id"))
    pairs = pd.DataFrame({"user_id": rng.integers(0, 50, 300), "item_id": rng.integers(0, 20, 300)}).drop_duplicates()
    model = DemographicKNN(n_neighbors=1000).fit(pairs, user_features=users)
    for user in (55, 3):
        club = users.index[users["club"] == users["club"][user]]
        members = pairs[pairs["user_id"].isin(club)]
        share = members["item_id"].value_counts() / members["user_id"].nunique()
        scores = model.predict(pd.DataFrame({"user_id": [user] * 20, "item_id": np.arange(20)}))
        np.testing.assert_allclose(scores, share.reindex(np.arange(20)).fillna(0), rtol=1e-5)


def test_of_equally_similar_items_those_that_came_first_are_neighbors() -> None:
    X = pd.DataFrame({"user_id": [1, 2, 3], "item_id": ["tea", "ale", "milk"]})
    items = pd.DataFrame({"kind": "drink"}, index=["tea", "ale", "milk", "juice"])
    model = ContentKNN(n_neighbors=1).fit(X, item_features=items)
    kept = model.neighbors_[model.items_.encode(["tea", "ale", "milk", "juice"])].indices
    assert model.items_.decode(kept).tolist() == ["ale", "tea", "tea", "tea"]

"""ItemIndex finds what a model would recommend: exactly, in the same order, whatever else is asked at the same time."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.exceptions import NotFittedError

import recsys
from recsys import EASE, Popularity
from recsys.exceptions import (
    ColdStartWarning,
    InvalidInputError,
    InvalidTypeError,
)
from recsys.retrieval import ItemIndex
from recsys.vectors import VectorRecommender
from recsys.vocabulary import Vocabulary

if TYPE_CHECKING:
    from recsys.datasets._bunch import DatasetBunch

ROOT = Path(__file__).resolve().parents[2]
Floats = npt.NDArray[np.float32]

# Every model whose score is an inner product, and what makes it small; imported when its turn comes.
RETRIEVERS: dict[str, dict[str, Any]] = {
    "AutoRec": {"n_factors": 16, "max_iter": 3, "random_state": 0},
    "ContentEASE": {"n_factors": 16, "random_state": 0},
    "ContrastiveRecommender": {"max_iter": 2, "random_state": 0},
    "MatrixFactorization": {"n_factors": 4, "max_iter": 3, "random_state": 0},
    "Popularity": {},
}


def _world() -> dict[str, Any]:
    """People of every kind: hot, few-shot, hot with news, warm, cold; items 30 to 39 have features alone."""
    rng = np.random.default_rng(7)
    popularity = np.linspace(0.6, 0.05, 30)
    users, items = np.nonzero(rng.random((50, 30)) < popularity)
    X = pd.DataFrame({"user_id": [f"u{u}" for u in users], "item_id": items})
    fresh = pd.DataFrame({"user_id": ["few1", "few2", "few2", "u3"], "item_id": [0, 5, 31, 2]})
    features = pd.DataFrame({"job": ["cook", "smith"] * 25}, index=[f"u{u}" for u in range(50)])
    return {
        "X": X,
        "y": pd.Series(rng.integers(0, 3, len(X)).astype(float)),
        "user_features": features,
        "item_features": pd.DataFrame({"item_id": range(40), "genre": list("abcd") * 10}),
        "fresh": fresh,
        "new": pd.DataFrame({"job": ["smith"]}, index=["warm"]),
        "asked": ["u4", "few2", "cold", "u3", "warm", "u4", "few1", *(f"u{u}" for u in range(5, 50))],
    }


def _fit(name: str, world: dict[str, Any]) -> Any:
    model = getattr(recsys, name)(**RETRIEVERS[name])
    return model.fit(world["X"], world["y"], user_features=world["user_features"], item_features=world["item_features"])


def _assert_same_lists(found: pd.DataFrame, recommended: pd.DataFrame, scores: pd.Series[float]) -> None:
    """Same lists of the same lengths; two items may change places where the model's scores differ by rounding alone."""
    assert found["query"].tolist() == recommended["user_id"].tolist()
    assert found["rank"].tolist() == recommended["rank"].tolist()
    np.testing.assert_allclose(found["score"], recommended["score"], rtol=1e-5, atol=1e-6)
    moved = found["item_id"].to_numpy() != recommended["item_id"].to_numpy()
    pairs = pd.MultiIndex.from_frame(found.loc[moved, ["query", "item_id"]])
    np.testing.assert_allclose(scores.loc[pairs], recommended["score"][moved], rtol=1e-5, atol=1e-6)
    of_list = (found["rank"] == 1).cumsum()
    assert not found.assign(of_list=of_list).duplicated(["of_list", "item_id"]).any()


@pytest.mark.parametrize("k", [1, 7, 10**30])
@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("name", RETRIEVERS)
def test_top_k_is_the_models_own(name: str, exclude_seen: bool, k: int) -> None:
    world = _world()
    model, asked = _fit(name, world), world["asked"]
    known = {"user_features": world["new"], "interactions": world["fresh"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        recommended = model.recommend(asked, k, exclude_seen=exclude_seen, **known)
        every = model.recommend(sorted(set(asked)), 1000, exclude_seen=False, **known)
        vectors = model.user_vectors(asked, **known)
    index = ItemIndex.from_model(model)
    seen = pd.concat([world["X"], world["fresh"]]) if exclude_seen else None
    found = index.search(vectors, k, queries=asked, exclude=seen)

    kinds = {"hot", "few-shot", "cold"} | ({"warm"} if model._uses_user_features else set())
    assert set(recommended["path"]) == kinds
    assert len(found) == len(recommended) >= len(asked) * min(k, 10)
    _assert_same_lists(found, recommended, every.set_index(["user_id", "item_id"])["score"])


@pytest.mark.parametrize("name", RETRIEVERS)
def test_items_that_joined_are_found(name: str) -> None:
    model = _fit(name, _world()).add_items([77, 78])
    index = ItemIndex.from_model(model)
    found = index.search(model.user_vectors(["u1"]), 100)
    assert len(index) == 42
    assert set(found["item_id"]) == {*range(40), 77, 78}


def test_popularity_agrees_in_every_id() -> None:
    world = _world()
    model = _fit("Popularity", world)
    found = ItemIndex.from_model(model).search(
        model.user_vectors(world["asked"]), 40, queries=world["asked"], exclude=world["X"]
    )
    recommended = model.recommend(world["asked"], 40)
    assert found["item_id"].tolist() == recommended["item_id"].tolist()
    assert found["score"].tolist() == recommended["score"].tolist()


def test_every_retriever_is_tested() -> None:
    public = {name: getattr(recsys, name) for name in recsys.__all__}
    retrievers = {name for name, cls in public.items() if isinstance(cls, type) and issubclass(cls, VectorRecommender)}
    assert retrievers == set(RETRIEVERS)


def test_movielens(ml_100k: DatasetBunch) -> None:
    X = ml_100k.interactions[["user_id", "item_id"]]
    model = recsys.MatrixFactorization(n_factors=8, max_iter=2, random_state=0).fit(X)
    users = model.users_.ids
    found = ItemIndex.from_model(model).search(model.user_vectors(users), queries=users, exclude=X)
    every = model.recommend(users, 2000, exclude_seen=False).set_index(["user_id", "item_id"])["score"]
    _assert_same_lists(found, model.recommend(users), every)


def _oracle(ids: list[str], vectors: Any, queries: Any, k: int, excluded: set[tuple[int, str]]) -> list[list[object]]:
    """Sum exactly, sort by score and then by position: one loop, one formula."""
    rows: list[list[object]] = []
    for q, query in enumerate(queries.tolist()):
        scored = [
            (-float(np.float32(math.fsum(a * b for a, b in zip(query, vector, strict=True)))), position)
            for position, vector in enumerate(vectors.tolist())
            if (q, ids[position]) not in excluded
        ]
        best = sorted(scored)[:k]
        rows += [[q, ids[position], -score, rank] for rank, (score, position) in enumerate(best, 1)]
    return rows


@given(data=st.data())
def test_exact_for_whole_numbers(data: st.DataObject) -> None:
    n_items, n_queries, d = (data.draw(st.integers(1, most)) for most in (12, 4, 3))
    numbers = st.integers(-2, 2)
    vectors = data.draw(arrays(np.int64, (n_items, d), elements=numbers))
    queries = data.draw(arrays(np.int64, (n_queries, d), elements=numbers))
    k = data.draw(st.integers(1, 14))
    ids = [f"i{n}" for n in range(n_items)]
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n_queries), st.sampled_from([*ids, "unknown"]))))
    frame = pd.DataFrame(pairs, columns=["query", "item_id"]).astype({"query": "int64", "item_id": "str"})
    found = ItemIndex(ids, vectors).search(queries, k, exclude=frame)
    assert found.to_numpy().tolist() == _oracle(ids, vectors, queries, k, set(pairs))
    blocked = data.draw(st.sets(st.sampled_from([*ids, "unknown"])))
    everyone = {(query, item) for query in range(n_queries) for item in blocked}
    found = ItemIndex(ids, vectors).search(queries, k, exclude=sorted(blocked))
    assert found.to_numpy().tolist() == _oracle(ids, vectors, queries, k, everyone)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e15])
def test_rounding_never_costs_a_place(scale: float) -> None:
    # The two large terms cancel; what is left is far below the rounding of a sum in single precision.
    rng = np.random.default_rng(0)
    large = rng.integers(1, 2**20, size=(300, 1))
    small = rng.permutation(300)[:, None] / 1024
    vectors = (np.hstack([large, small, large]) * scale).astype(np.float32)
    query = (np.array([[1, 1, -1]]) * scale).astype(np.float32)
    ids = [f"i{n}" for n in range(300)]
    found = ItemIndex(ids, vectors).search(query, 20)
    assert found.to_numpy().tolist() == _oracle(ids, vectors, query, 20, set())


@pytest.fixture(scope="module")
def crowd() -> tuple[ItemIndex, Floats]:
    """More than 10,000 items of few distinct scores, so that FAISS changes its kernel with the number of queries."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(4000, 64)).astype(np.float32)
    near = vectors * (1 + rng.choice([0, 1e-7], size=vectors.shape)).astype(np.float32)
    index = ItemIndex(np.arange(12_000), np.concatenate([vectors, near, vectors]))
    return index, rng.normal(size=(2100, 64)).astype(np.float32)


def test_an_answer_does_not_depend_on_what_else_is_asked(crowd: tuple[ItemIndex, Floats]) -> None:
    index, queries = crowd
    threads = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(2)
        together = index.search(queries, 9)
        alone = pd.concat([index.search(queries[q : q + 1], 9, queries=[q]) for q in range(40)], ignore_index=True)
        faiss.omp_set_num_threads(1)
        by_one_thread = index.search(queries, 9)
        few = index.search(queries[:7], 9)
        filtered = index.search(queries[:7], 9, exclude=[-1])
    finally:
        faiss.omp_set_num_threads(threads)
    pd.testing.assert_frame_equal(by_one_thread, together, check_exact=True)
    pd.testing.assert_frame_equal(alone, together[: 40 * 9], check_exact=True)
    pd.testing.assert_frame_equal(few, together[: 7 * 9], check_exact=True)
    pd.testing.assert_frame_equal(filtered, few, check_exact=True)


def test_equal_vectors_come_in_catalogue_order(crowd: tuple[ItemIndex, Floats]) -> None:
    index, queries = crowd
    found = index.search(queries[:200], 9)
    ordered = found.sort_values(["query", "score", "item_id"], ascending=[True, False, True])
    assert found.index.tolist() == ordered.index.tolist()
    # Items 0 to 3999 come again as 8000 to 11999: whoever finds the second has found the first.
    pairs = set(zip(found["query"], found["item_id"], strict=True))
    assert all((query, item - 8000) in pairs for query, item in pairs if item >= 8000)
    assert any(item >= 8000 for _, item in pairs)


def test_where_all_are_equal_the_first_come() -> None:
    index = ItemIndex(np.arange(3000), np.ones((3000, 2)))
    found = index.search(np.zeros((1500, 2)), 3)
    assert found["item_id"].tolist() == [0, 1, 2] * 1500
    assert found["query"].tolist() == np.repeat(np.arange(1500), 3).tolist()


def test_users_who_have_seen_little_much_and_all() -> None:
    rng = np.random.default_rng(3)
    vectors, queries = rng.normal(size=(64, 5)), rng.normal(size=(65, 5))
    pairs = {(query, f"i{item}") for query in range(65) for item in rng.permutation(64)[:query]}
    frame = pd.DataFrame(sorted(pairs), columns=["query", "item"])
    ids = [f"i{n}" for n in range(64)]
    index = ItemIndex(ids, vectors)
    found = index.search(queries, 6, exclude=frame)
    assert found.groupby("query").size().tolist() == [6] * 59 + [5, 4, 3, 2, 1]
    expected = _oracle(ids, vectors.astype(np.float32), queries.astype(np.float32), 6, pairs)
    assert found.to_numpy().tolist() == expected


def test_the_size_of_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    index = ItemIndex(np.arange(80), rng.integers(-3, 4, size=(80, 6)) / 7)
    queries = rng.normal(size=(60, 6))
    pairs = pd.DataFrame(np.argwhere(rng.random((60, 80)) < rng.random((60, 1))), columns=["query", "item"])
    whole = index.search(queries, 10, exclude=pairs)
    monkeypatch.setattr("recsys.retrieval._segments._FETCHED", 50)
    monkeypatch.setattr("recsys.retrieval._segments._MULTIPLIED", 13)
    pd.testing.assert_frame_equal(index.search(queries, 10, exclude=pairs), whole, check_exact=True)


def test_nobody_finds_what_all_may_not() -> None:
    index = ItemIndex(["a", "b"], np.eye(2))
    found = index.search(np.ones((2, 2)), exclude=["b", "a"])
    assert found.shape == (0, 4)
    assert found.dtypes.astype(str).tolist() == index.search([[1, 1]]).dtypes.astype(str).tolist()
    assert index.search(np.zeros((0, 2))).shape == (0, 4)


@pytest.mark.parametrize(
    "ids", [[30, 10, 20], ["c", "a", "b"], [("x", 1), ("y", 2), ("x", 2)], pd.to_datetime(["2020", "2021", "2019"])]
)
def test_ids_are_labels_of_their_own_dtype(ids: Any, tmp_path: Path) -> None:
    index = ItemIndex(ids, [[1, 0], [3, 0], [2, 0]])
    index.save(tmp_path / "index")
    for each in (index, ItemIndex.load(tmp_path / "index")):
        found = each.search([[1, 0]], queries=["me"])
        assert found["item_id"].tolist() == [ids[1], ids[2], ids[0]]
        assert found["item_id"].dtype == Vocabulary(ids).ids.dtype
        assert found["query"].tolist() == ["me"] * 3
        assert found["score"].dtype == np.float32
        assert found["rank"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
def test_vectors_are_copied_and_never_changed(dtype: str, order: Any) -> None:
    given_items = np.array([[1, 2], [3, 4], [5, 6]], dtype=dtype, order=order)
    given_queries = np.array([[9, 1, 0], [9, 2, 1]], dtype=dtype, order=order)[:, 1:]
    before = given_items.copy(), given_queries.copy()
    index = ItemIndex(list("abc"), given_items)
    first = index.search(given_queries)
    np.testing.assert_array_equal(given_items, before[0])
    np.testing.assert_array_equal(given_queries, before[1])
    given_items[:] = 0
    pd.testing.assert_frame_equal(index.search(given_queries), first)
    assert first["score"].tolist() == [5, 3, 1, 16, 10, 4]


def test_read_only_vectors_are_welcome() -> None:
    vectors = np.eye(3, dtype=np.float32)
    vectors.flags.writeable = False
    assert ItemIndex(list("abc"), vectors).search(vectors, 1)["item_id"].tolist() == ["a", "b", "c"]


def test_representation() -> None:
    index = ItemIndex(Vocabulary(["a", "b"]), np.zeros((2, 5)))
    assert repr(index) == "ItemIndex(2 items, 5 dimensions, metric='dot')"
    assert (len(index), index.n_dimensions, index.metric) == (2, 5, "dot")
    assert index.items == Vocabulary(["a", "b"])


NAN = [[1.0, 2.0], [np.nan, 1.0]]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([], np.zeros((0, 2)), "`ids` is empty; expected at least one item"),
        (["a", "b", "a"], np.zeros((3, 2)), "labels more than once: 'a'; expected each once"),
        (["a", None], np.zeros((2, 2)), "1 null ids"),
        ("a", np.zeros((1, 2)), r"single value 'a'; .* pass \['a'\]"),
        (["a"], np.zeros((2, 2)), "`vectors` has 2 rows for 1 ids; expected one row an id"),
        (["a"], np.zeros(2), r"`vectors` has shape \(2,\); expected \(n, n_dimensions\)"),
        (["a"], np.zeros((1, 0)), r"shape \(1, 0\); expected at least one dimension"),
        (["a", "b"], [[1, 2], [3]], "`vectors` is no array: .* expected rows of the same length"),
        (["a"], [["1", "2"]], "dtype <U1; expected a dense array of real numbers"),
        (["a"], [[1j, 2]], "dtype complex128; expected a dense array of real numbers"),
        (["a", "b"], np.ma.masked_greater([[1, 9], [1, 1]], 5), "an array with masked values; .* fill them"),
        (["a", "b"], NAN, "NaN or values beyond float32 in 1 rows: 1; expected finite"),
        (["a"], [[np.inf, 0]], "in 1 rows: 0; expected finite"),
        (["a"], [[1e300, 0]], "in 1 rows: 0; expected finite"),
    ],
)
def test_bad_items_are_refused(ids: Any, vectors: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ItemIndex(ids, vectors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vectors": np.zeros((1, 3))}, "`vectors` has 3 dimensions; expected 2, like the vectors in the index"),
        ({"vectors": np.zeros(2)}, r"pass a single vector v as \[v\]"),
        ({"vectors": NAN}, "in 1 rows: 1; expected finite"),
        ({"vectors": [[1e38, 1e38]]}, r"inner products of up to 5\.66e\+38 may overflow float32; .* scale them down"),
        ({"k": 0}, "`k` is 0; expected at least 1"),
        ({"k": 2.5}, "`k` is 2.5; expected a whole number"),
        ({"queries": ["me", "you"]}, "`queries` has 2 labels for 1 vectors; expected one label a vector"),
        ({"exclude": [1]}, "`exclude` names no item .* numbers .* text"),
        ({"exclude": pd.DataFrame({"query": ["0"], "item": ["a"]})}, "`exclude` names .* text .* numbers"),
    ],
)
def test_bad_searches_are_refused(arguments: dict[str, Any], message: str) -> None:
    index = ItemIndex(["a", "b"], [[4, 0], [0, 1]])
    with pytest.raises(InvalidInputError, match=message):
        index.search(**{"vectors": [[1, 1]], **arguments})


def test_another_metric_is_refused() -> None:
    metric: Any = "l2"
    with pytest.raises(InvalidInputError, match="`metric` is 'l2'; expected one of 'dot', 'cosine'"):
        ItemIndex(["a"], [[1]], metric=metric)


@pytest.mark.parametrize(("model", "name"), [(EASE(), "EASE"), (Popularity, "Popularity"), (None, "NoneType")])
def test_only_models_of_inner_products_can_be_indexed(model: Any, name: str) -> None:
    with pytest.raises(InvalidTypeError, match=f"`model` is {name}; expected a fitted model whose score is an inner"):
        ItemIndex.from_model(model)


def test_a_model_must_be_fitted() -> None:
    with pytest.raises(NotFittedError):
        ItemIndex.from_model(Popularity())


def _run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["torch", "faiss"])
def test_torch_and_faiss_live_in_one_process(first: str) -> None:
    code = f"""
import {first}, torch, faiss, numpy as np
from recsys.retrieval import ItemIndex
ones = torch.ones(300, 300) @ torch.ones(300, 300)
found = ItemIndex(range(20_000), np.arange(40_000).reshape(-1, 2)).search(np.ones((3, 2)), 1)
assert ones.sum() == 300 ** 3 and found["item_id"].tolist() == [19_999] * 3
"""
    _run(code)


def test_importing_loads_neither_torch_nor_faiss() -> None:
    _run("import sys, recsys.retrieval; assert not {'torch', 'faiss', 'pandas'} & set(sys.modules)")
    _run("import sys; from recsys.retrieval import ItemIndex; assert not {'torch', 'faiss'} & set(sys.modules)")


def test_public_names() -> None:
    from recsys import retrieval

    answers = ["Explained", "Reached", "Recommended", "SimilarItems"]
    assert set(retrieval.__all__) == {"Bundle", "ItemIndex", "TwoStageRecommender", "load_bundle", *answers}
    assert "ItemIndex" in dir(retrieval)
    name = "HnswIndex"
    with pytest.raises(AttributeError, match="no attribute 'HnswIndex'"):
        getattr(retrieval, name)

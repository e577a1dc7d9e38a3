"""Every kind beside brute force: metrics, filters, exclusions, changes, recall; always k items where there are k."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError
from recsys.retrieval import ItemIndex, _changing
from recsys.retrieval._segments import Pairs, Selection, scan

ROOT = Path(__file__).resolve().parents[2]
N, D = 3000, 16
METRICS: list[Any] = ["dot", "cosine"]
KINDS: list[tuple[Any, Any]] = [
    ("exact", None),
    ("ivf", None),
    ("ivf", "sq8"),
    ("ivf", "pq"),
    ("hnsw", None),
    ("hnsw", "sq8"),
]


def _clusters(seed: int) -> npt.NDArray[np.float64]:
    """Vectors around fifty centres, of different lengths: like those of films."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(50, D))
    vectors = centres[rng.integers(50, size=N)] + 0.4 * rng.normal(size=(N, D))
    return np.asarray(vectors * rng.uniform(0.8, 1.2, size=(N, 1)))


ABOUT = pd.DataFrame({"share": np.random.default_rng(1).permutation(N) / N})
QUERIES = _clusters(2)[:40]
SEEN = pd.DataFrame(np.argwhere(np.random.default_rng(3).random((40, N)) < 0.02), columns=["query", "item_id"])


@pytest.fixture(scope="module")
def indexes() -> dict[Any, ItemIndex]:
    """Each kind with each metric, after items were added, replaced and removed."""
    vectors = _clusters(1)
    found: dict[Any, ItemIndex] = {}
    for metric in METRICS:
        for kind, compression in KINDS:
            # Without what is to be replaced and what joins later.
            old = vectors.copy()
            old[:50] = vectors[50:100]
            index = ItemIndex(
                np.arange(N - 100),
                old[: N - 100],
                metric=metric,
                kind=kind,
                compression=compression,
                recall_target=0.9,
                metadata=ABOUT,
            )
            index.add(np.arange(N - 100, N), vectors[N - 100 :], ABOUT).update(np.arange(50), vectors[:50])
            found[metric, kind, compression] = index.remove(np.arange(60, 90))
    return found


def _brute(metric: str, allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Scores of all items for all queries; -inf where they are not allowed."""
    vectors, queries = (np.asarray(each, dtype=np.float32).astype(float) for each in (_clusters(1), QUERIES))
    if metric == "cosine":
        vectors, queries = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (vectors, queries))
    return np.where(allowed, queries @ vectors.T, -np.inf)


def _allowed(arguments: dict[str, Any]) -> npt.NDArray[np.bool_]:
    allowed = np.ones((len(QUERIES), N), dtype=bool)
    allowed[:, 60:90] = False
    if "where" in arguments:
        allowed &= ABOUT["share"].to_numpy() < arguments["where"]["share"]["<"]
    if "candidates" in arguments:
        allowed &= np.isin(np.arange(N), arguments["candidates"])
    exclude = arguments.get("exclude")
    if isinstance(exclude, pd.DataFrame):
        allowed[exclude["query"], exclude["item_id"]] = False
    elif exclude is not None:
        allowed[:, exclude] = False
    return allowed


REQUESTS: list[dict[str, Any]] = [
    {},
    {"where": {"share": {"<": 0.001}}},
    {"where": {"share": {"<": 0.01}}},
    {"where": {"share": {"<": 0.1}}},
    {"where": {"share": {"<": 0.5}}},
    {"exclude": SEEN},
    {"exclude": list(range(2500))},
    {"candidates": [5, 55, 70, 2950, 1000]},
    {"where": {"share": {"<": 0.5}}, "exclude": SEEN, "candidates": list(range(0, N, 3))},
    {"where": {"share": {"<": 0.02}}, "exclude": SEEN},
]


@pytest.mark.parametrize("request_number", range(len(REQUESTS)))
@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("kind", "compression"), KINDS)
@pytest.mark.filterwarnings("ignore:`candidates` names")
def test_beside_brute_force(
    metric: str, kind: str, compression: str | None, k: int, request_number: int, indexes: dict[Any, ItemIndex]
) -> None:
    arguments, index = REQUESTS[request_number], indexes[metric, kind, compression]
    allowed = _allowed(arguments)
    truth = _brute(metric, allowed)
    labels, scores, lengths = index.search_arrays(QUERIES, k, **arguments)
    np.testing.assert_array_equal(lengths, np.minimum(k, allowed.sum(axis=1)))
    found = 0
    for query, n in enumerate(lengths):
        mine = labels[query, :n]
        assert len(set(mine.tolist())) == n
        # The scores of allowed items, best first ...
        np.testing.assert_allclose(scores[query, :n], truth[query, mine], rtol=2e-6, atol=1e-6)
        assert (np.diff(scores[query, :n]) <= 0).all()
        best = np.argsort(-truth[query], kind="stable")[:n]
        found += len(np.intersect1d(mine, best))
    # ... and enough of the best among them.
    assert found == lengths.sum() if kind == "exact" else found >= 0.85 * lengths.sum()


@pytest.mark.parametrize(("kind", "compression"), KINDS)
def test_recall_is_what_was_asked_for(kind: str, compression: str | None, indexes: dict[Any, ItemIndex]) -> None:
    index = indexes["dot", kind, compression]
    assert index.is_exact == (kind == "exact")
    assert 0.88 <= index.measure_recall() <= 1
    truth = _brute("dot", _allowed({}))
    expected = [np.argsort(-row, kind="stable")[:5] for row in truth]
    labels = index.search_arrays(QUERIES, 5)[0]
    shared = sum(len(np.intersect1d(mine, best)) for mine, best in zip(labels, expected, strict=True))
    assert index.measure_recall(QUERIES, k=5) == pytest.approx(shared / labels.size)
    assert index.measure_recall(QUERIES[:0]) == 1


def test_looking_farther_finds_more() -> None:
    recalls, efforts = [], []
    for target in (0.5, 0.9, 0.99):
        index = ItemIndex(np.arange(N), _clusters(1), kind="ivf", recall_target=target, queries=QUERIES)
        structure = index._state.snapshot.base.structure
        assert structure is not None
        efforts.append(structure.effort)
        recalls.append(index.measure_recall(QUERIES))
        assert recalls[-1] == structure.recall >= target
    assert recalls == sorted(recalls)
    assert efforts == sorted(efforts)
    assert efforts[0] < efforts[-1]


@pytest.mark.parametrize(("kind", "compression"), [("ivf", None), ("ivf", "sq8"), ("ivf", "pq"), ("hnsw", "pq")])
def test_a_target_that_is_out_of_reach_means_a_scan(kind: Any, compression: Any) -> None:
    noise = np.random.default_rng(0).normal(size=(N, D))
    message = rf"`kind` '{kind}' with `compression` .* would have to read most of the {N} items to find 1\.0 of the 10"
    with pytest.warns(DataWarning, match=message):
        index = ItemIndex(np.arange(N), noise, kind=kind, compression=compression, recall_target=1)
    assert index.is_exact
    assert index.measure_recall() == 1


def test_auto_chooses_by_size_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = _clusters(1)
    assert ItemIndex(np.arange(N), vectors).is_exact
    monkeypatch.setattr(_changing, "_SCANNED", N * D - 1)
    index = ItemIndex(np.arange(N), vectors, recall_target=0.9)
    assert not index.is_exact
    assert repr(index) == "ItemIndex(3000 items, 16 dimensions, metric='dot', kind='ivf')"
    assert ItemIndex(np.arange(N), vectors, recall_target=1).is_exact
    assert index.remove(np.arange(1000)).compact().is_exact
    assert ItemIndex(np.arange(900), vectors[:900], kind="hnsw").is_exact


def test_the_graph_stores_its_vectors_once() -> None:
    index = ItemIndex(np.arange(N), _clusters(1), kind="hnsw", recall_target=0.5)
    base = index._state.snapshot.base
    assert base.structure is not None
    assert base.structure.vectors is base.vectors


def test_zero_vectors_have_the_cosine_zero() -> None:
    index = ItemIndex(list("abc"), [[0, 0], [-1, 0], [3, 4]], metric="cosine")
    found = index.search([[1, 0], [0, 0]])
    assert found["item_id"].tolist() == ["c", "a", "b", "a", "b", "c"]
    np.testing.assert_allclose(found["score"], [0.6, 0, -1, 0, 0, 0], rtol=1e-7)


def test_cosines_of_very_short_and_very_long_vectors_are_those_of_their_directions() -> None:
    vectors = np.array([[3e-46, 4e-46], [3e40, 4e40], [1, 0]])
    index = ItemIndex(list("abc"), vectors, metric="cosine")
    for query in ([[3e-46, 4e-46]], [[3e40, 4e40]], [[3, 4]]):
        np.testing.assert_allclose(index.search(np.array(query))["score"], [1, 1, 0.6], rtol=1e-6)
    for wrong in (np.nan, np.inf):
        with pytest.raises(InvalidInputError, match="holds NaN or values beyond float32 in 1 rows: 0"):
            index.search([[wrong, 1.0]])


def test_cosine_changes_no_vector_of_others() -> None:
    vectors, queries = np.full((3, 2), 5, dtype=np.float32), np.full((1, 2), 7, dtype=np.float32)
    index = ItemIndex(list("abc"), vectors, metric="cosine").update(["a"], vectors[:1]).add(["d"], vectors[:1])
    index.search(queries)
    assert (vectors == 5).all()
    assert (queries == 7).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "flat"}, "`kind` is 'flat'; expected one of 'auto', 'exact', 'ivf', 'hnsw'"),
        ({"compression": "pq4"}, "`compression` is 'pq4'; expected one of None, 'sq8', 'pq'"),
        ({"kind": "exact", "compression": "pq"}, "`compression` is 'pq' for `kind` 'exact'; expected None"),
        ({"recall_target": 0}, "`recall_target` is 0; expected a share above 0 and up to 1"),
        ({"recall_target": True}, "`recall_target` is True; expected a share"),
        ({"queries": [[1, 2, 3]]}, "`queries` has 3 dimensions; expected 2"),
    ],
)
def test_bad_settings_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ItemIndex(["a"], [[1, 2]], **arguments)


def test_bad_restrictions_are_refused() -> None:
    index = ItemIndex(["a"], [[1, 2]])
    with pytest.raises(InvalidTypeError, match="`candidates` is a DataFrame; expected a list of item ids"):
        index.search([[1, 1]], candidates=SEEN)
    with pytest.raises(InvalidInputError, match="`candidates` names no item of the catalogue, but 'z'"):
        index.search([[1, 1]], candidates=["z"])
    with pytest.raises(InvalidInputError, match="`where` names the field 'year'"):
        index.search_arrays([[1, 1]], where={"year": 1})


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("n_queries", [1, 5])
def test_selected_rows_are_scanned_alone(share: float, n_queries: int) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = rng.integers(-9, 9, size=(200, 3)), rng.integers(-9, 9, size=(n_queries, 3))
    selection = Selection(rng.random(200) < share)
    size = min(20, selection.n_allowed)
    scores, rows = scan(vectors.astype(np.float32), queries.astype(np.float32), size, selection)
    truth = np.where(selection.mask, queries @ vectors.T, -(10**9))
    assert selection.mask[rows].all()
    np.testing.assert_array_equal(scores, np.sort(truth, axis=1)[:, ::-1][:, :size])
    np.testing.assert_array_equal(scores, np.take_along_axis(truth, rows, axis=1))


def test_pairs_are_looked_up() -> None:
    pairs = Pairs(np.array([0, 2, 2, 3]), np.array([1, 4, 0]))
    codes = np.array([[4, 0, -1], [1, 4, -1], [1, 0, -1]])
    assert pairs.listed(codes).tolist() == [[True, False, False], [False, False, False], [False, True, False]]
    part = pairs.of(np.array([2, 0]))
    assert part.indptr.tolist() == [0, 1, 3]
    assert part.indices.tolist() == [0, 1, 4]


def test_the_core_needs_numpy_and_faiss_alone() -> None:
    code = """
import sys
import numpy as np
from recsys.retrieval._approximate import build, tune
from recsys.retrieval._snapshot import Segment, Snapshot
from recsys.retrieval.filters import OrderedField, Table
vectors = np.random.default_rng(0).standard_normal((2000, 8), dtype=np.float32)
table = Table({"year": OrderedField(np.arange(2000.0))}, 2000)
structure = tune(build(vectors, "ivf", None), vectors, None, 0.9)
found = Snapshot.of(Segment(vectors, table, structure)).search(vectors[:1], 3, where={"year": {"<": 500}})
assert 0 <= found.codes.min() and found.codes.max() < 500
assert not {"pandas", "scipy", "sklearn", "torch"} & set(sys.modules), sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

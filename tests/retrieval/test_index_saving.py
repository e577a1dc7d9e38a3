"""A saved index answers as before, in any process; what is harmed, foreign or half-written is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import pytest

import recsys
from recsys import Popularity, persistence
from recsys.exceptions import CorruptModelError, PersistenceError, SchemaVersionError
from recsys.retrieval import ItemIndex
from recsys.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[2]

LOAD_AND_SEARCH = """
import json, sys
import numpy as np
from recsys.retrieval import ItemIndex
found = ItemIndex.load(sys.argv[1]).search(np.load(sys.argv[2], allow_pickle=False), 9)
assert "torch" not in sys.modules
sys.stdout.write(json.dumps([found[name].tolist() for name in ("query", "item_id", "rank")]
                            + [[score.hex() for score in found["score"].tolist()]]))
"""


def test_a_new_process_answers_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    index = ItemIndex(np.arange(12_000), rng.normal(size=(12_000, 64)))
    queries = rng.normal(size=(50, 64))
    index.save(tmp_path / "index")
    np.save(tmp_path / "queries.npy", queries)
    arguments = [str(tmp_path / "index"), str(tmp_path / "queries.npy")]
    found = index.search(queries, 9)
    pd.testing.assert_frame_equal(ItemIndex.load(tmp_path / "index").search(queries, 9), found, check_exact=True)
    done = subprocess.run([sys.executable, "-c", LOAD_AND_SEARCH, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    here = [found[name].tolist() for name in ("query", "item_id", "rank")]
    assert there == [*here, [score.hex() for score in found["score"].tolist()]]


def _saved(folder: Path) -> Path:
    ItemIndex(["a", "b"], np.eye(2)).save(folder)
    return folder


def test_saving_replaces_an_index(tmp_path: Path) -> None:
    folder = _saved(tmp_path / "index")
    ItemIndex(["c"], [[1, 2, 3]]).save(folder)
    assert ItemIndex.load(folder).items.ids.tolist() == ["c"]
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("step", ["_write_synced", "os.replace"])
def test_a_failed_save_leaves_the_old_index(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _saved(tmp_path / "index")

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"recsys.persistence.{step}", fail)
    with pytest.raises(PersistenceError, match="No space left"):
        ItemIndex(["c"], [[1]]).save(folder)
    assert ItemIndex.load(folder).items.ids.tolist() == ["a", "b"]


@pytest.mark.parametrize("pattern", ["manifest.json", "state-*", "arrays-*"])
@pytest.mark.parametrize("harm", ["truncated", "altered", "missing"])
def test_a_harmed_index_is_refused(pattern: str, harm: str, tmp_path: Path) -> None:
    (file,) = _saved(tmp_path / "index").glob(pattern)
    content = bytearray(file.read_bytes())
    if harm == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "altered":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    error = PersistenceError if harm == "missing" and pattern == "manifest.json" else CorruptModelError
    with pytest.raises(error, match=r"altered|missing|not valid JSON"):
        ItemIndex.load(tmp_path / "index")


def test_an_index_of_a_newer_release_is_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(persistence, "SCHEMA_VERSION", 99)
        folder = _saved(tmp_path / "index")
    with pytest.raises(SchemaVersionError, match="schema version 99"):
        ItemIndex.load(folder)
    with pytest.raises(SchemaVersionError, match="schema version 99"):
        _saved(folder)


def _read_back(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    state, manifest = persistence.read_directory(folder)
    return state, {name: manifest[name] for name in ("class", "faiss_version", "parameters")}


def _structured() -> ItemIndex:
    return ItemIndex(np.arange(1100), np.random.default_rng(0).normal(size=(1100, 4)), kind="ivf", recall_target=0.5)


@pytest.mark.parametrize("content", ["noise", "other index", "one vector too few"])
def test_contents_that_are_no_index_are_refused(content: str, tmp_path: Path) -> None:
    _structured().save(tmp_path / "good")
    state, header = _read_back(tmp_path / "good")
    other = faiss.IndexFlatIP(3 if content == "other index" else 4)
    other.add(np.ones((1099 if content == "one vector too few" else 1100, other.d), dtype=np.float32))
    state["base"]["faiss"] = np.arange(64, dtype=np.uint8) if content == "noise" else faiss.serialize_index(other)
    persistence.write_directory(tmp_path / "bad", state, header)
    with pytest.raises(CorruptModelError, match=r"cannot read the index|a FAISS index of \d+ rows for 1100 vectors"):
        ItemIndex.load(tmp_path / "bad")


@pytest.mark.parametrize(
    "harm",
    [
        lambda state: state.pop("live"),
        lambda state: state.update(live=state["live"][:1]),
        lambda state: state.update(codes=state["codes"][::-1].copy()),
        lambda state: state.update(codes=state["codes"] + 1),
        lambda state: state.update(joined=Vocabulary(["d", "e"])),
        lambda state: state["base"].update(vectors=np.eye(2)),
        lambda state: state["base"].update(vectors=np.eye(3, dtype=np.float32)),
        lambda state: state["delta"]["table"].update(n=7),
    ],
)
def test_parts_that_do_not_fit_are_refused(harm: Any, tmp_path: Path) -> None:
    about = pd.DataFrame({"year": [1, 2, 3]}, index=["a", "b", "c"])
    index = ItemIndex(["a", "b"], np.eye(2), metadata=about).add(["c"], [[1, 1]], about).update(["a"], [[2, 2]])
    index.save(tmp_path / "good")
    state, header = _read_back(tmp_path / "good")
    harm(state)
    persistence.write_directory(tmp_path / "bad", state, header)
    with pytest.raises(CorruptModelError, match="but are no"):
        ItemIndex.load(tmp_path / "bad")


def test_a_model_is_no_index_and_an_index_no_model(tmp_path: Path) -> None:
    model = Popularity().fit(pd.DataFrame({"user_id": [1], "item_id": [2]}))
    model.save(tmp_path / "model")
    with pytest.raises(PersistenceError, match=r"saved Popularity; expected an ItemIndex: .* `recsys\.load`"):
        ItemIndex.load(tmp_path / "model")
    with pytest.raises(PersistenceError, match="holds a saved Popularity; expected a directory of its own"):
        _saved(tmp_path / "model")
    assert isinstance(recsys.load(tmp_path / "model"), Popularity)
    with pytest.raises(PersistenceError, match=r"holds an index, not a model: load it with `ItemIndex.load`"):
        recsys.load(_saved(tmp_path / "index"))
    with pytest.raises(PersistenceError, match="no saved model at"):
        ItemIndex.load(tmp_path / "nothing")


@pytest.mark.parametrize("mapped_from", [0, 2**26])
@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
@pytest.mark.parametrize("compression", [None, "sq8"])
def test_segments_removals_and_metadata_come_back(
    mapped_from: int, kind: Any, compression: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "MAPPED_FROM", mapped_from)
    rng = np.random.default_rng(4)
    vectors, queries = rng.normal(size=(1400, 8)), rng.normal(size=(9, 8))
    about = pd.DataFrame(
        {
            "year": rng.integers(1950, 2020, size=1400),
            "seen": pd.date_range("2020", periods=1400),
            "tags": [["x"] * (n % 3) + ["y"] * (n % 2) for n in range(1400)],
        }
    )
    index = ItemIndex(
        np.arange(1300),
        vectors[:1300],
        metric="cosine",
        kind=kind,
        compression=None if kind == "exact" else compression,
        recall_target=0.8,
        queries=queries,
        metadata=about,
    )
    index.add(np.arange(1300, 1400), vectors[1300:], about).remove([3, 1301]).update([5], vectors[:1], about)
    index.save(tmp_path / "index")
    loaded = ItemIndex.load(tmp_path / "index")
    assert loaded.items == index.items
    assert repr(loaded) == repr(index)
    filters: list[Any] = [None, {"year": {"<": 1960}}, {"seen": {">=": "2023-06-01"}}, {"not": {"tags": "x"}}]
    for where in filters:
        expected = index.search(queries, 12, where=where)
        pd.testing.assert_frame_equal(loaded.search(queries, 12, where=where), expected, check_exact=True)
    loaded.add([9999], vectors[:1], about.rename(index={0: 9999})).compact()
    assert len(loaded) == 1400 - 2 + 1
    # Items 0, 5 and 9999 have the same vector now; a graph may miss one.
    np.testing.assert_allclose(loaded.search(vectors[:1], 2)["score"], [1, 1], rtol=1e-6)


def test_a_mapped_index_outlives_the_file_that_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistence, "MAPPED_FROM", 0)
    folder = _saved(tmp_path / "index")
    loaded = ItemIndex.load(folder)
    ItemIndex(["c", "d"], np.full((2, 2), 9)).save(folder)
    assert loaded.search([[1, 2]])["item_id"].tolist() == ["b", "a"]
    assert ItemIndex.load(folder).items.ids.tolist() == ["c", "d"]


@pytest.mark.parametrize("harm", ["truncated", "altered"])
def test_a_harmed_file_is_refused_before_it_is_mapped(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "MAPPED_FROM", 0)
    (file,) = _saved(tmp_path / "index").glob("arrays-*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content[:-1] if harm == "truncated" else content)
    with pytest.raises(CorruptModelError, match="truncated or altered"):
        ItemIndex.load(tmp_path / "index")


KILL_SAVES = """
import json, os, sys
from pathlib import Path
import numpy as np
from recsys.retrieval import ItemIndex

def dying(function):
    def call(*arguments):
        global count
        count += 1
        if count == step:
            os._exit(9)
        function(*arguments)
    return call

def save(folder):
    os.fsync, os.replace = dying(os.fsync), dying(os.replace)
    ItemIndex.load(folder).add(["c"], [[1, 1]]).remove(["a"]).save(folder)
    os._exit(0)

found, code, step = [], 9, 0
while code == 9:
    step, count = step + 1, 0
    folder = Path(sys.argv[1]) / str(step)
    ItemIndex(["a", "b"], np.eye(2)).save(folder)
    child = os.fork()
    if not child:
        save(folder)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found.append(ItemIndex.load(folder).items.ids.tolist())
assert code == 0, code
sys.stdout.write(json.dumps(found))
"""


def test_a_save_that_is_killed_leaves_the_old_index_or_the_new(tmp_path: Path) -> None:
    # The child has one thread, whatever Python suspects when it forks.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", KILL_SAVES, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) >= 6
    n_old = found.count(["a", "b"])
    assert found == [["a", "b"]] * n_old + [["b", "c"]] * (len(found) - n_old)
    assert 0 < n_old < len(found)

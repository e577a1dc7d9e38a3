"""A saved index answers as before, in any process; what is harmed, foreign or half-written is refused."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("content", ["noise", "other index", "one vector too few"])
def test_contents_that_are_no_index_are_refused(content: str, tmp_path: Path) -> None:
    other = faiss.IndexFlatL2(2) if content == "other index" else faiss.IndexFlatIP(2)
    other.add(np.eye(2, dtype=np.float32)[: 1 if content == "one vector too few" else 2])
    stored = np.arange(64, dtype=np.uint8) if content == "noise" else faiss.serialize_index(other)
    header = {"class": "ItemIndex", "parameters": {"metric": "dot"}, "faiss_version": "1.9.0"}
    persistence.write_directory(tmp_path, {"items": Vocabulary(["a", "b"]), "faiss": stored}, header)
    with pytest.raises(CorruptModelError, match=r"cannot read the index|expected an IndexFlatIP of one vector an id"):
        ItemIndex.load(tmp_path)


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

"""What is saved comes back; loading trusts nothing: damage, foreign files, and what cannot be stored."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import recsys
from recsys import EASE, AutoRec, Popularity, load, persistence
from recsys.exceptions import CorruptModelError, InvalidTypeError, PersistenceError, SchemaVersionError
from recsys.persistence import read_directory, write_directory
from recsys.retrieval import ItemIndex
from recsys.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
X = pd.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": [1, 2, 1]})
MORE = pd.DataFrame({"user_id": ["ann", "ann", "bob", "bob"], "item_id": [1, 2, 1, 3]})


@pytest.fixture
def old() -> EASE:
    return EASE(l2=1.0).fit(X)


@pytest.fixture
def new() -> EASE:
    return EASE(l2=2.0).fit(MORE)


@pytest.fixture
def saved(old: EASE, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    old.save(path)
    return path


def _same(found: EASE, expected: EASE) -> bool:
    return (
        type(found) is type(expected)
        and found.get_params() == expected.get_params()
        and found.items_ == expected.items_
        and found.weights_.tolist() == expected.weights_.tolist()
    )


def _listing(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def _content(path: Path, kind: str) -> Path:
    (file,) = path.glob(f"{kind}-*")
    return file


def _rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as somebody would who knows how its checksum is made."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    manifest["checksum"] = persistence._checksum(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")


# What comes back.


def test_values_of_every_type_come_back_as_they_were(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "none": None,
        "numbers": [True, 0, -(2**80), 0.1, 1e300, float("inf")],
        "text": ["", "ü", 'quote " and \\', "\ud800", "__array__"],
        "tuples": ((1, "a"), [(), (None,)]),
        "dict": {"a": {"b": 1}, "a.b": 2, "": 3, "__tuple__": [4], "__class__": "Vocabulary"},
        "same path": {"a.b": np.array([1]), "a": {"b": np.array([2])}},
        "csr": sparse.csr_matrix((np.array([1.0, 0.0], np.float32), ([0, 1], [2, 0])), shape=(2, 3)),
        "vocabularies": [Vocabulary(["a"]), (Vocabulary([1]),)],
    }
    write_directory(tmp_path / "saved", state, {"size": (1, (2, 3)), "text": "ü\ud800"})
    found, header = read_directory(tmp_path / "saved")
    paths = found.pop("same path")
    assert (paths["a.b"].tolist(), paths["a"]["b"].tolist()) == ([1], [2])
    matrix, expected = found.pop("csr"), state["csr"]
    assert (matrix.toarray() == expected.toarray()).all()
    assert matrix.nnz == 2
    assert matrix.dtype == np.float32
    assert found == {name: value for name, value in state.items() if name not in ("csr", "same path")}
    assert [type(number) for number in found["numbers"]] == [bool, int, int, float, float, float]
    assert header["size"] == (1, (2, 3))
    assert header["text"] == "ü\ud800"
    assert header["schema_version"] == persistence.SCHEMA_VERSION


@pytest.mark.parametrize(
    "array",
    [
        *(np.array([[0, 1, 2]], dtype=kind) for kind in "?bBhHiIlLefd"),
        np.array(1.5),
        np.zeros((0, 3)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::-3],
        np.arange(3, dtype=">i4"),
        np.array([np.nan, np.inf, -0.0]),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_come_back_as_they_were(array: Any, tmp_path: Path) -> None:
    write_directory(tmp_path / "saved", {"array": array}, {})
    found = read_directory(tmp_path / "saved")[0]["array"]
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable


def test_scalars_of_numpy_come_back_as_numbers(tmp_path: Path) -> None:
    write_directory(tmp_path / "saved", {"n": np.int64(3), "x": np.float32(0.5)}, {"flag": np.bool_(True)})
    state, header = read_directory(tmp_path / "saved")
    assert (state, header["flag"]) == ({"n": 3, "x": 0.5}, True)


def test_a_model_comes_back(old: EASE, saved: Path) -> None:
    loaded = load(saved)
    assert _same(loaded, old)
    assert loaded is not old
    pd.testing.assert_frame_equal(loaded.recommend(["ann", "bob"]), old.recommend(["ann", "bob"]))
    assert json.loads((saved / "manifest.json").read_text(encoding="utf-8"))["parameters"] == {
        "l2": 1.0,
        "min_rating": None,
    }


def test_saving_replaces_a_model_and_its_files(old: EASE, new: EASE, saved: Path) -> None:
    before = set(_listing(saved))
    new.save(str(saved))
    after = set(_listing(saved))
    assert _same(load(str(saved)), new)
    assert before & after == {"manifest.json"}
    assert len(after) == 3


def test_the_same_model_is_saved_in_the_same_bytes(old: EASE, tmp_path: Path) -> None:
    for name in ("one", "two"):
        old.save(tmp_path / name)
    one, two = (sorted(_listing(tmp_path / name).values(), key=len) for name in ("one", "two"))
    # All but the names of the files, which the manifest holds.
    assert [a == b for a, b in zip(one, two, strict=True)].count(True) == 2


# Damage.


def test_a_directory_without_a_model_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(
            PersistenceError, match=f"There is no saved model at {path}: manifest.json is missing"
        ) as caught:
            load(path)
        assert caught.type is PersistenceError


def test_what_is_no_path_is_refused(old: EASE) -> None:
    nothing: Any = None
    for attempt in (load, old.save):
        with pytest.raises(InvalidTypeError, match="`path` is None; expected the name of a directory"):
            attempt(nothing)


@pytest.mark.parametrize("name", ["model\0", "m" * 300, "\ud800"], ids=["null", "long", "surrogate"])
def test_names_that_no_file_can_have_are_refused(name: str, old: EASE, tmp_path: Path) -> None:
    path = str(tmp_path / name)
    for use in (old.save, load, lambda path: write_directory(path, {}, {})):
        with pytest.raises(PersistenceError, match=r"`path` \('.*'\) cannot be looked at") as caught:
            use(path)
        assert not isinstance(caught.value, CorruptModelError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["arrays", "state"])
def test_a_missing_file_is_named(kind: str, saved: Path) -> None:
    file = _content(saved, kind)
    file.unlink()
    with pytest.raises(CorruptModelError, match=f"{file.name} is missing from {saved}: copy the whole directory"):
        load(saved)


@pytest.mark.parametrize("kind", ["arrays", "state"])
def test_a_truncated_file_is_refused(kind: str, saved: Path) -> None:
    file = _content(saved, kind)
    content = file.read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(CorruptModelError, match=f"{file.name} in {saved} was truncated or altered: its checksum"):
            load(saved)
    file.write_bytes(content + b" ")
    with pytest.raises(CorruptModelError, match="truncated or altered"):
        load(saved)


@pytest.mark.parametrize("kind", ["arrays", "state"])
def test_a_single_flipped_bit_is_refused(kind: str, saved: Path) -> None:
    file = _content(saved, kind)
    content = bytearray(file.read_bytes())
    positions = np.random.default_rng(0).choice(len(content) * 8, size=300, replace=False)
    for position in positions.tolist():
        content[position // 8] ^= 1 << position % 8
        file.write_bytes(content)
        with pytest.raises(CorruptModelError, match=f"{file.name} in {saved} was truncated or altered"):
            load(saved)
        content[position // 8] ^= 1 << position % 8
    file.write_bytes(content)
    load(saved)


def test_a_single_flipped_bit_of_the_manifest_is_refused(saved: Path) -> None:
    file = saved / "manifest.json"
    content = bytearray(file.read_bytes())
    assert len(content) > 300
    for position in range(0, len(content) * 8, 7):
        content[position // 8] ^= 1 << position % 8
        file.write_bytes(content)
        with pytest.raises(CorruptModelError):
            load(saved)
        content[position // 8] ^= 1 << position % 8


def test_every_truncated_manifest_is_refused(saved: Path) -> None:
    file = saved / "manifest.json"
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(CorruptModelError, match="is not valid JSON: the model was truncated or altered"):
            load(saved)


@pytest.mark.parametrize("depth", [300, 1_000, 3_000, 10_000, 200_000])
def test_a_manifest_that_is_nested_too_deep_is_refused(depth: int, saved: Path) -> None:
    for content in ("[" * depth, '{"schema_version": 1, "files": {}, "x": ' + "[" * depth + "]" * depth + "}"):
        (saved / "manifest.json").write_text(content, encoding="utf-8")
        with pytest.raises(CorruptModelError):
            load(saved)


@pytest.mark.parametrize("content", ["[]", "1", "{}", '{"schema_version": "1", "files": {}}', '{"schema_version": 1}'])
def test_a_manifest_of_somebody_else_is_refused(content: str, saved: Path) -> None:
    (saved / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(CorruptModelError, match="is no manifest of a saved model; expected one that `save` wrote"):
        load(saved)


def test_a_newer_schema_is_refused_by_name(saved: Path) -> None:
    _rewrite(saved, lambda manifest: manifest.update(schema_version=2, recsys_version="9.1"))
    message = (
        f"The model at {saved} has schema version 2, written by recsys 9.1; this release reads up to 1: upgrade recsys"
    )
    with pytest.raises(SchemaVersionError, match=message):
        load(saved)
    # Without a checksum that agrees it is damage, not a version.
    file = saved / "manifest.json"
    file.write_text(file.read_text(encoding="utf-8").replace("9.1", "9.2"), encoding="utf-8")
    with pytest.raises(CorruptModelError, match="was altered: its checksum does not match"):
        load(saved)


@pytest.mark.parametrize(
    "name", ["../x", "..", "", ".", "/etc/passwd", "a/b", "state-x.json", f"state-{'0' * 16}.json\n"]
)
def test_a_manifest_that_leads_elsewhere_is_refused(name: str, saved: Path) -> None:
    (saved.parent / "x").write_text("secret", encoding="utf-8")
    _rewrite(saved, lambda manifest: manifest["files"].update({name: "0" * 64}))
    with pytest.raises(CorruptModelError, match="; expected plain names of files that `save` wrote"):
        load(saved)


@pytest.mark.parametrize(
    "name", ["os", "load", "__version__", "SVD", "FeatureTable", "BaseRecommender", None, ["EASE"]]
)
def test_only_models_of_this_package_are_loaded(name: Any, saved: Path) -> None:
    _rewrite(saved, lambda manifest: manifest.update({"class": name}))
    with pytest.raises(PersistenceError, match="which this release does not have; expected one of `recsys`"):
        load(saved)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"__class__": "Thing", "state": {}}, "The model holds a 'Thing', which this release does not have"),
        ({"x": {"__array__": "nowhere"}}, "match their checksums but are no model .KeyError"),
        (
            {"x": {"__class__": "Vocabulary", "state": {"form": "text", "dtype": "no dtype", "ids": []}}},
            "but are no model",
        ),
        (
            {"x": {"__class__": "Vocabulary", "state": {"form": "text", "dtype": "object", "ids": ["a", "a"]}}},
            "are no model",
        ),
        ([1], "but are no model"),
    ],
)
def test_content_that_was_made_up_is_refused(state: Any, message: str, saved: Path) -> None:
    name, content = f"state-{'0' * 16}.json", json.dumps(state).encode()
    (saved / name).write_bytes(content)

    def change(manifest: dict[str, Any]) -> None:
        arrays = _content(saved, "arrays").name
        manifest["files"] = {arrays: manifest["files"][arrays], name: hashlib.sha256(content).hexdigest()}

    _rewrite(saved, change)
    with pytest.raises(PersistenceError, match=message):
        load(saved)


def test_a_file_that_cannot_be_read_is_named(saved: Path) -> None:
    file = _content(saved, "state")
    file.unlink()
    file.mkdir()
    with pytest.raises(PersistenceError, match=f"{file} cannot be read: .*directory"):
        load(saved)


# What cannot be saved, and where.


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), r"`values\[1\].x` is of type object, which cannot be stored; expected numbers, strings, None"),
        (len, "is of type builtin_function_or_method, which cannot be stored"),
        ({1, 2}, "is of type set, which cannot be stored"),
        ({1: 2}, r"is of type dict, .* dicts \(with text for keys\)"),
        (1j, "is of type complex"),
        (b"x", "is of type bytes"),
        (np.datetime64("2020-01-01"), "is of type datetime64"),
        (pd.DataFrame(), "is of type DataFrame"),
        (sparse.csc_matrix((1, 1)), "is of type csc_matrix"),
        (np.array([None, "a"], dtype=object), "is an array of dtype object, which cannot be stored; expected booleans"),
        (np.array(["a"]), "is an array of dtype <U1"),
        (np.array([1j]), "is an array of dtype complex128"),
        (np.array([1], dtype="M8[s]"), r"is an array of dtype datetime64\[s\]"),
        (np.array([1], dtype=np.longdouble), "is an array of dtype float128"),
        (type("Vocabulary", (), {})(), "is of type Vocabulary, which cannot be stored"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(
    value: Any, message: str, old: EASE, saved: Path
) -> None:
    before = _listing(saved)
    with pytest.raises(PersistenceError, match=message):
        write_directory(saved, {"values": [1, {"x": value}]}, {})
    with pytest.raises(PersistenceError, match=message.replace(r"`values\[1\].x`", r"`parameters.x`")):
        write_directory(saved.parent / "first", {}, {"parameters": {"x": value}})
    old.something_ = value
    with pytest.raises(PersistenceError, match="Nothing was written"):
        old.save(saved)
    assert _listing(saved) == before
    assert [file.name for file in saved.parent.iterdir()] == ["model"]


def test_arrays_in_the_header_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PersistenceError, match=r"`header` holds arrays: 'a\.b'; expected them in `state`: move them"):
        write_directory(tmp_path / "saved", {}, {"a": {"b": np.zeros(3)}})
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_saved_over(old: EASE, tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_text("precious", encoding="utf-8")
    with pytest.raises(PersistenceError, match=f"`path` is the file {file}; expected the name of a directory"):
        old.save(file)
    with pytest.raises(PersistenceError, match=f"Writing to {file / 'deeper'} failed: .*Not a directory"):
        old.save(file / "deeper")
    assert file.read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": "precious"},
        {"manifest.json": '{"name": "a web page", "icons": []}'},
        {"manifest.json": "not JSON"},
        {"manifest.json": "{}", f"state-{'0' * 16}.json": "", "thesis.tex": "precious"},
        {"state-of-the-art.json": "precious"},
    ],
    ids=lambda files: " ".join(files),
)
def test_a_directory_of_somebody_else_is_not_saved_into(files: dict[str, str], old: EASE, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(
        PersistenceError, match=r"holds files that are no saved model: '.*'; expected a new or empty directory"
    ):
        old.save(tmp_path)
    assert {name: content.decode() for name, content in _listing(tmp_path).items()} == files


def test_a_damaged_model_can_be_saved_over(new: EASE, saved: Path) -> None:
    (saved / "manifest.json").write_text("{", encoding="utf-8")
    new.save(saved)
    assert _same(load(saved), new)


def test_new_and_empty_directories_are_saved_into(old: EASE, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "empty", target_is_directory=True)
    for path in (tmp_path / "a/b/c", tmp_path / "empty", link):
        old.save(path)
        assert _same(load(path), old)


def test_a_model_can_be_moved(old: EASE, saved: Path) -> None:
    assert _same(load(saved.rename(saved.parent / "elsewhere")), old)


# No pickle.

REFUSED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "copyreg"}
REFUSED_CALLS = {"eval", "exec", "compile", "__import__"}
REFUSED_ATTRIBUTES = {"read_pickle", "to_pickle", "torch.load", "torch.save", "joblib.load", "joblib.dump", "np.save"}


def _refusals(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in REFUSED_MODULES)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if module.split(".")[0] in REFUSED_MODULES or name in REFUSED_ATTRIBUTES)
        elif isinstance(node, ast.Attribute) and {node.attr, ast.unparse(node)} & REFUSED_ATTRIBUTES:
            yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            name, keywords = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            loads = name in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False"
            if name in REFUSED_CALLS or loads or keywords.get("allow_pickle") == "True":
                yield ast.unparse(node)


@pytest.mark.parametrize("path", sorted((ROOT / "recsys").rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_pickled_or_evaluated(path: Path) -> None:
    assert list(_refusals(path.read_text(encoding="utf-8"))) == []


def test_the_scan_finds_what_it_looks_for() -> None:
    bad = [
        "import pickle",
        "from joblib import dump",
        "joblib.load(x)",
        "torch.load(x)",
        "eval('1')",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "pd.read_pickle(x)",
    ]
    assert [len(list(_refusals(line))) for line in bad] == [1] * len(bad)
    assert list(_refusals("from joblib import effective_n_jobs\nnp.load(x, allow_pickle=False)\nmodel.eval()")) == []


def test_a_model_that_was_never_fitted_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        Popularity().save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    assert recsys.load is load


def test_a_model_is_not_saved_over_an_index(old: EASE, tmp_path: Path) -> None:
    ItemIndex(["tea"], [[1.0]]).save(tmp_path)
    with pytest.raises(PersistenceError, match="holds a saved ItemIndex; expected a directory of its own"):
        old.save(tmp_path)
    assert len(ItemIndex.load(tmp_path)) == 1


def test_indices_that_lead_out_of_a_matrix_are_refused(old: EASE, tmp_path: Path) -> None:
    old.history_.indices = old.history_.indices.copy()
    old.history_.indices[0] = 2**30
    old.save(tmp_path / "forged")
    with pytest.raises(CorruptModelError, match="match their checksums but are no model"):
        load(tmp_path / "forged")


@pytest.mark.parametrize("parameters", [{"size": 3}, None, [1]])
def test_parameters_that_the_class_does_not_have_are_refused(parameters: Any, saved: Path) -> None:
    _rewrite(saved, lambda manifest: manifest.update(parameters=parameters))
    with pytest.raises(CorruptModelError, match=r"which are not those of a .*; expected what `save` wrote"):
        load(saved)


def test_a_network_of_another_shape_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": ["a", "b", "a", "c"]})
    narrow, wide = (AutoRec(n_factors=n, max_iter=1, random_state=0).fit(X) for n in (2, 3))
    forged = narrow.network_.to_state() | {"sizes": wide.network_.sizes}
    monkeypatch.setattr(narrow.network_, "to_state", lambda: forged)
    narrow.save(tmp_path / "model")
    with pytest.raises(CorruptModelError, match="are no model"):
        load(tmp_path / "model")

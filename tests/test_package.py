"""The package as a whole: its public names, what importing it costs, what its wheel holds."""

from __future__ import annotations

import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import recsys

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "faiss", "lightgbm"}
MODULES = ["recsys", *(module.name for module in pkgutil.walk_packages([str(ROOT / "recsys")], "recsys."))]


def _loaded_by(statement: str) -> tuple[set[str], float]:
    """Run an import in a new interpreter; return the top-level modules it loaded and its CPU seconds."""
    code = (
        "import sys, time; before = set(sys.modules); start = time.process_time()\n"
        f"{statement}\n"
        "seconds = time.process_time() - start; import json\n"
        "names = sorted({name.split('.')[0] for name in set(sys.modules) - before})\n"
        "sys.stdout.write(json.dumps([names, seconds]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names, seconds = json.loads(done.stdout)
    return set(names), seconds


def test_import_is_fast_and_loads_no_library() -> None:
    runs = [_loaded_by("import recsys") for _ in range(5)]
    loaded = runs[0][0]
    assert "recsys" in loaded
    assert not loaded & (HEAVY | {"numpy", "pandas", "scipy", "sklearn"})
    assert min(seconds for _, seconds in runs) < 0.1


def test_only_networks_need_torch_and_only_trees_need_lightgbm() -> None:
    heavy = {"AutoRec", "ContrastiveRecommender", "DeepFM", "LightGBMRecommender"}
    names = [name for name in recsys.__all__ if name not in heavy | {"__version__"}]
    loaded, _ = _loaded_by(f"from recsys import {', '.join(names)}")
    assert "sklearn" in loaded
    assert not loaded & HEAVY


def test_public_names() -> None:
    assert {
        "AutoRec",
        "BaseRecommender",
        "ContentEASE",
        "ContentKNN",
        "ContrastiveRecommender",
        "DeepFM",
        "DemographicKNN",
        "EASE",
        "FeatureTable",
        "LightGBMRecommender",
        "MatrixFactorization",
        "Popularity",
        "TwoStageRecommender",
        "__version__",
        "load",
    } == set(recsys.__all__)
    assert set(recsys.__all__) | {"datasets", "evaluation", "exceptions", "retrieval", "serving"} <= set(dir(recsys))


@pytest.mark.parametrize("name", [name for name in recsys.__all__ if name != "__version__"])
def test_a_public_name_is_the_object_of_its_module(name: str) -> None:
    value = getattr(recsys, name)
    assert value.__name__ == name
    assert value.__module__.startswith("recsys.")
    assert vars(recsys)[name] is value


@pytest.mark.parametrize("name", ["datasets", "evaluation", "exceptions", "retrieval", "serving"])
def test_a_submodule_arrives_when_it_is_asked_for(name: str) -> None:
    assert recsys.__getattr__(name) is importlib.import_module(f"recsys.{name}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "SVD"
    with pytest.raises(AttributeError, match="module 'recsys' has no attribute 'SVD'"):
        getattr(recsys, name)


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_names_what_exists(module: str) -> None:
    imported = importlib.import_module(module)
    names = getattr(imported, "__all__", [])
    assert names == sorted(set(names))
    assert [name for name in names if not hasattr(imported, name)] == []


def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    # Built from a copy: a build leaves folders behind, and takes up what an earlier one left.
    source = tmp_path / "source"
    source.mkdir()
    for file in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / file, source)
    for folder in ("recsys", "tests"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
    ]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    wheel = tmp_path / f"recsys-{recsys.__version__}-py3-none-any.whl"
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    of_package = [path for path in (source / "recsys").rglob("*") if path.is_file()]
    assert "recsys/py.typed" in held
    assert held == {path.relative_to(source).as_posix() for path in of_package}

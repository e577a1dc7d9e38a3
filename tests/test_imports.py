"""Imports inside the package point one way: up the list of modules in docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
LIST = ARCHITECTURE.split("## Modules, in import order")[1].split("```")[1]
LAYERS = [line.split()[0] for line in LIST.strip().splitlines()]
# A module that may know less than its place in the list allows.
ONLY = {"datasets": {"exceptions", "features"}}
# `load` finds the class of a model by its public name.
MAY_IMPORT_THE_PACKAGE = {"persistence"}

MODULES = {
    ".".join(path.relative_to(ROOT / "recsys").with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "recsys").rglob("*.py"))
}
del MODULES["__init__"]


def _layer(module: str) -> str:
    """Return the longest entry of the list that is `module` or a package around it."""
    inside = [layer for layer in LAYERS if f"{module}.".startswith(f"{layer}.")]
    assert inside, f"docs/architecture.md does not list recsys.{module}"
    return max(inside, key=len)


def _imports(module: str) -> Iterator[str]:
    """Yield the modules of this package that `module` imports anywhere; "" is the package itself."""
    path = MODULES[module]
    package = ["recsys", *module.split(".")][: None if path.stem == "__init__" else -1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (name.partition(".")[2] for name in names if name.split(".")[0] == "recsys")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = ".".join([*base, *([node.module] if node.module else [])])
            if full.split(".")[0] == "recsys":
                source = full.partition(".")[2]
                names = [f"{source}.{alias.name}".removeprefix(".") for alias in node.names]
                names = [name for name in names if name != "__version__"]
                # `from package import module` imports the module, any other name comes from the source.
                yield from (name if name in MODULES else source for name in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    own = _layer(module)
    for other in _imports(module):
        if other == "":
            assert module in MAY_IMPORT_THE_PACKAGE, f"recsys.{module} imports the package that holds it"
            continue
        layer = _layer(other)
        assert LAYERS.index(layer) <= LAYERS.index(own), f"recsys.{module} imports recsys.{other}, listed below it"
        assert layer == own or layer in ONLY.get(own, LAYERS), f"recsys.{module} may not import recsys.{other}"


def test_models_do_not_import_each_other() -> None:
    models = [module for module in MODULES if module.startswith("models.")]
    pairs = {module: [other for other in _imports(module) if _layer(other) == "models"] for module in models}
    assert pairs == {module: [] for module in models}

"""The public face of `recsys.evaluation`: every name, when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from recsys import evaluation


def test_every_name_is_the_object_of_its_module() -> None:
    for name in evaluation.__all__:
        value = getattr(evaluation, name)
        home = import_module(f"recsys.evaluation.{evaluation._HOME_OF[name]}")
        assert value is getattr(home, name)
        if name != "PROTOCOLS":
            assert (value.__name__, value.__module__) == (name, home.__name__)
    assert set(evaluation.__all__) <= set(dir(evaluation))


def test_metrics_are_a_leaf() -> None:
    code = (
        "import sys, recsys.evaluation.metrics\n"
        "sys.stdout.write(' '.join(sorted(name for name in sys.modules if name.startswith('recsys'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["recsys", "recsys.evaluation", "recsys.evaluation.metrics", "recsys.exceptions"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "accuracy"
    with pytest.raises(AttributeError, match=r"module 'recsys\.evaluation' has no attribute 'accuracy'"):
        getattr(evaluation, name)

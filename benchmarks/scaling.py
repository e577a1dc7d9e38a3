"""How the cost of a fit grows with the data: generated rows in the shapes of MovieLens-100K, -1M and -10M.

``python -m benchmarks.scaling``

Every fit runs in a process of its own. The exponent is the slope of the logarithm of CPU seconds over the logarithm of
rows, by least squares; it is to be at most 1.1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.run import RESULTS, environment, models
from recsys.datasets import make_movielens_like

# Rows, users, items.
SHAPES = ((100_000, 943, 1_682), (1_000_000, 6_040, 3_706), (10_000_000, 69_878, 10_677))
MODELS = ("MatrixFactorization", "AutoRec")
TARGET = 1.1


def warm_up(name: str) -> None:
    """Load what the first fit of a model loads, which is no cost of a fit."""
    data = make_movielens_like(n_users=20, n_items=20, n_interactions=100, random_state=0)
    models()[name].fit(data.interactions[["user_id", "item_id"]])


def measure(name: str, rows: int, users: int, items: int) -> dict[str, Any]:
    """Fit one model in this process.

    Returns
    -------
    dict
        Seconds on the wall and of all cores, and what the fit added to the peak memory, in MiB.
    """
    data = make_movielens_like(n_users=users, n_items=items, n_interactions=rows, random_state=0)
    X = data.interactions[["user_id", "item_id"]]
    warm_up(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    models()[name].set_params(random_state=0).fit(X)
    found = {"model": name, "rows": rows, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return found | {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def in_a_process(name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """What `measure` finds in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--only", name, *map(str, shape)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def exponent(found: list[dict[str, Any]]) -> float:
    """The slope of log CPU seconds over log rows."""
    rows, seconds = (np.log([float(each[key]) for each in found]) for key in ("rows", "cpu"))
    return float(np.polyfit(rows, seconds, 1)[0])


def main(arguments: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(models()), default=list(MODELS))
    parser.add_argument("--only", nargs=4, metavar=("MODEL", "ROWS", "USERS", "ITEMS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        name, *shape = options.only
        print(json.dumps(measure(name, *map(int, shape))))
        return
    lines = [
        "| model | rows | fit, s | CPU s | memory, MiB | exponent | at most |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    results = []
    for name in options.models:
        found = [in_a_process(name, shape) for shape in SHAPES]
        results += found
        for each in found:
            last = f"{exponent(found):.2f} | {TARGET} |" if each is found[-1] else "| |"
            lines.append(
                f"| {name} | {each['rows']:,} | {each['wall']:.1f} | {each['cpu']:.1f} | {each['mib']:.0f} | {last}"
            )
    text = "# Growth of a fit with generated rows\n\n" + "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "scaling.md").write_text(text)
    values = {"environment": environment(), "results": results}
    (RESULTS / "scaling.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()

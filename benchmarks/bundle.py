"""What it costs to serve a bundle: from the start of a process to its first answer, and a request after that.

``python -m benchmarks.bundle [--dataset ml-1m] [--model FOLDER] [--starts 5]``

Exports `ContrastiveRecommender` (fitted here, or saved in FOLDER) and starts processes that load the bundle and answer
a warm user, then one user at a time: hot, few-shot, warm and cold. Times are CPU seconds of one thread; a first
process, which is not counted, compiles the modules, as an installation does. The answers are compared with the model's.
Memory is read where Linux tells it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import recsys
from recsys import ContrastiveRecommender, FeatureTable
from recsys.datasets import fetch_movielens
from recsys.exceptions import ColdStartWarning
from recsys.retrieval import load_bundle

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
DATASETS = ("ml-100k", "ml-1m")
PACKAGES = ("recsys", "faiss-cpu", "numpy", "onnx", "onnxruntime")
# CPU seconds and MB up to the first answer of a process, at most.
SECONDS_TARGET, MEMORY_TARGET = 0.5, 250
N_REQUESTS = 200

# Run by a process of its own, which imports no more than serving needs.
SERVE = """
import json, resource, sys, time
from recsys.retrieval import load_bundle
asked = json.loads(sys.argv[2])
bundle = load_bundle(sys.argv[1])
bundle.recommend(**asked["warm"][0])
usage = resource.getrusage(resource.RUSAGE_SELF)
# What `usage` has as the most memory may be that of the process that started this one.
[most] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
found = {"seconds": usage.ru_utime + usage.ru_stime, "MB": int(most) * 1024 / 1e6}
for path, requests in asked.items():
    times = []
    for request in requests:
        start = time.process_time()
        [answer] = bundle.recommend(**request)
        times.append(1e3 * (time.process_time() - start))
        assert answer.path == path, (answer, path)
    times.sort()
    found[path] = [times[len(times) // 2], times[int(0.99 * len(times))]]
print(json.dumps(found))
"""

Requests = dict[str, list[dict[str, Any]]]


def requests_of(data: Any, n: int) -> Requests:
    """Requests of one user each, by how they are answered."""
    rng = np.random.default_rng(0)
    drawn = data.users.sample(n, replace=True, random_state=0).drop(columns="user_id")
    records = json.loads(drawn.to_json(orient="records"))
    users = rng.choice(data.interactions["user_id"].unique(), n).tolist()
    items = data.interactions["item_id"].unique()
    recent = [rng.choice(items, rng.integers(1, 11), replace=False).tolist() for _ in range(n)]
    return {
        "hot": [{"users": [user]} for user in users],
        "few-shot": [{"users": ["new"], "interactions": {"new": some}} for some in recent],
        "warm": [{"users": ["new"], "user_features": {"new": record}} for record in records],
        "cold": [{"users": ["new"], "on_cold": "popular"} for _ in range(n)],
    }


def agreement(model: Any, bundle: Any, requests: Requests) -> dict[str, float]:
    """The share of requests that get the model's list, and how far scores are apart in units of a user's spread."""
    n_same, apart, everything = 0, 0.0, [request for some in requests.values() for request in some]
    for request in everything:
        given: dict[str, Any] = {"users": request["users"]}
        if "user_features" in request:
            given["user_features"] = pd.DataFrame(
                [{"user_id": "new", **request["user_features"]["new"]}], columns=["user_id", *_fields(model)]
            )
        if "interactions" in request:
            given["interactions"] = pd.DataFrame({"user_id": "new", "item_id": request["interactions"]["new"]})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ColdStartWarning)
            expected = model.recommend(**given)
            spread = model.recommend(**given, k=len(model.items_), exclude_seen=False)["score"].std()
        [found] = bundle.recommend(**request)
        n_same += expected["item_id"].tolist() == found.item_ids
        apart = max(apart, float(np.abs(expected["score"].to_numpy() - found.scores).max() / spread))
    return {"same lists": n_same / len(everything), "scores apart": apart}


def _fields(model: Any) -> list[str]:
    return [field.name for field in model.user_features_.fields]


def start(bundle: Path, requests: Requests, cache: Path) -> dict[str, Any]:
    """What a new process tells of itself."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(bundle), json.dumps(requests)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, **threads, "PYTHONPYCACHEPREFIX": str(cache)},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(model: Any, data: Any, n_starts: int, n_requests: int) -> dict[str, Any]:
    """Medians over the starts, and the agreement."""
    requests = requests_of(data, n_requests)
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "bundle", Path(folder) / "compiled"
        model.export(path)
        start(path, requests, cache)
        starts = [start(path, requests, cache) for _ in range(n_starts)]
        agreed = agreement(model, load_bundle(path), requests)
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    medians = {name: np.median([each[name] for each in starts], axis=0).tolist() for name in starts[0]}
    return {**medians, "MB on disk": size, **agreed}


def markdown(values: dict[str, Any]) -> str:
    """The tables of the results."""
    found, about = values["found"], values["environment"]
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    lines = [
        f"# Serving a bundle: {values['dataset']}\n",
        f"Written by `python -m benchmarks.bundle --dataset {values['dataset']}`. Python {about['python']} on "
        f"{about['system']} {about['machine']}, {about['cores']} cores, load {values['load']:.1f} at the start; "
        f"{packages}. CPU time of one thread, medians of {values['starts']} processes.\n",
        "| | measured | at most |",
        "| --- | ---: | ---: |",
        f"| CPU seconds from process start to the first answer | {found['seconds']:.2f} | {SECONDS_TARGET} |",
        f"| MB of memory by then | {found['MB']:.0f} | {MEMORY_TARGET} |",
        f"| MB on disk | {found['MB on disk']:.0f} | |",
        "\n| a request of one user | median, ms | 99th percentile, ms |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {path} | {found[path][0]:.2f} | {found[path][1]:.2f} |" for path in values["paths"]]
    lines.append(
        f"\nOf these requests {found['same lists']:.2%} get the list of `model.recommend`; scores are at most "
        f"{found['scores apart']:.1e} of a user's spread apart."
    )
    return "\n".join(lines) + "\n"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=DATASETS, default="ml-1m")
    parser.add_argument("--model", type=Path, help="folder of a saved ContrastiveRecommender; else one is fitted")
    parser.add_argument("--starts", type=int, default=5, help="processes that are measured (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    load, data = os.getloadavg()[0], fetch_movielens(options.dataset.removeprefix("ml-"), download=False)
    if options.model is None:
        features = {"user_features": FeatureTable(data.users), "item_features": FeatureTable(data.items)}
        model = ContrastiveRecommender(random_state=0).fit(data.interactions[["user_id", "item_id"]], **features)
    else:
        model = recsys.load(options.model)
    found = measure(model, data, options.starts, N_REQUESTS)
    values = {
        "environment": {
            "python": platform.python_version(),
            "system": platform.system(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "packages": {name: _version(name) for name in PACKAGES},
        },
        "dataset": options.dataset,
        "load": load,
        "starts": options.starts,
        "paths": list(requests_of(data, 1)),
        "found": found,
    }
    text = markdown(values)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / f"bundle-{options.dataset}"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    print(f"Written: {stem.with_suffix('.md')} and {stem.with_suffix('.json')}")


if __name__ == "__main__":
    main()

"""`ItemIndex` beside raw FAISS, over-fetching and dropping, usearch and hnswlib; in turns, in one run.

``python -m benchmarks.retrieval [--sizes 4000 100000 1000000] [--quick]``

Items are clustered vectors of 64 numbers, queries come from the same clusters. What is compared has one thread and is
measured in CPU time, so that what else the machine does hardly counts; each round measures one after the other. Peers
that are not installed are left out, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from recsys.retrieval import ItemIndex

RESULTS = Path(__file__).parent / "results"
SIZES = (4_000, 100_000, 1_000_000)
D, K, BATCH = 64, 10, 256
SELECTIVITIES = (0.01, 0.1, 0.5)
RECALL_TARGET = 0.99
PEERS = {"usearch": "usearch.index", "hnswlib": "hnswlib"}
PACKAGES = ("recsys", "faiss-cpu", "numpy", "pandas", *PEERS)

# Overhead of a batch as a ratio, of a single query in microseconds; filtered search over over-fetch: at most.
BATCH_TARGET, SINGLE_TARGET, FILTER_TARGET = 1.05, 50.0, 1.0

Answers = tuple[str, Callable[[], Any]]


def data(n: int, n_queries: int) -> tuple[Any, Any]:
    """Vectors of items around as many centres as their root, and of queries."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(2, int(np.sqrt(n))), D))
    which = rng.integers(len(centres), size=n + n_queries)
    vectors = (centres[which] + 0.8 * rng.standard_normal((n + n_queries, D))).astype(np.float32)
    return vectors[:n], np.ascontiguousarray(vectors[n:])


def in_turns(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """The median CPU seconds of each, measured one after the other in every round."""
    found = np.empty((rounds, len(functions)))
    for function in functions:
        function()
    for turn in range(rounds):
        for column, function in enumerate(functions):
            start = time.process_time()
            function()
            found[turn, column] = time.process_time() - start
    medians: list[float] = np.median(found, axis=0).tolist()
    return medians


def rounds_for(function: Callable[[], Any], seconds: float) -> int:
    """How many rounds fit a budget: 5 to 400."""
    start = time.process_time()
    function()
    return int(np.clip(seconds / max(time.process_time() - start, 1e-6), 5, 400))


def flat(vectors: Any) -> Any:
    """Raw FAISS."""
    faiss: Any = import_module("faiss")
    index = faiss.IndexFlatIP(D)
    index.add(vectors)
    return index


def overhead(index: ItemIndex, raw: Any, queries: Any, seconds: float) -> dict[str, Any]:
    """Seconds of a single query and of a batch, by raw FAISS and by the exact index, as arrays and as a frame."""
    found = {}
    for name, part in (("single", queries[:1]), ("batch", queries[:BATCH])):
        calls: list[Callable[[], Any]] = [
            lambda part=part: raw.search(part, K),  # type: ignore[misc]
            lambda part=part: index.search_arrays(part, K),  # type: ignore[misc]
            lambda part=part: index.search(part, K),  # type: ignore[misc]
        ]
        found[name] = dict(
            zip(("faiss", "arrays", "frame"), in_turns(calls, rounds_for(calls[0], seconds)), strict=True)
        )
    return found


def over_fetch(search: Callable[[int], tuple[Any, Any]], mask: Any, share: float) -> Any:
    """What is done without filters inside: fetch more, drop, and fetch still more where that was too little."""
    size = min(len(mask), int(1.5 * K / share) + K)
    while True:
        rows, scores = search(size)
        kept = mask[rows]
        if size == len(mask) or (kept.sum(axis=1) >= K).all():
            order = np.argsort(~kept, axis=1, kind="stable")[:, :K]
            return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
        size = min(2 * size, len(mask))


def filtered(index: ItemIndex, raw: Any, about: pd.DataFrame, queries: Any, seconds: float) -> dict[str, Any]:
    """Seconds of filtered search, and of over-fetching from raw FAISS and from the index, by share of allowed items."""
    values, found = about["share"].to_numpy(), {}
    for share in SELECTIVITIES:
        row: dict[str, Any] = {}
        for name, part in (("single", queries[:1]), ("batch", queries[:BATCH])):
            calls = filtered_calls(index, raw, values, part, share)
            medians = in_turns(list(calls.values()), rounds_for(calls["FAISS"], seconds))
            row[name] = dict(zip(calls, medians, strict=True))
            row[name]["least found"] = int(calls["arrays"]()[2].min())
        found[str(share)] = row
    return found


def filtered_calls(index: ItemIndex, raw: Any, values: Any, part: Any, share: float) -> dict[str, Callable[[], Any]]:
    """The three ways; each evaluates the filter."""
    return {
        "arrays": lambda: index.search_arrays(part, K, where={"share": {"<": share}}),
        "FAISS": lambda: over_fetch(lambda size: raw.search(part, size)[::-1], values < share, share),
        "over-fetch": lambda: over_fetch(lambda size: index.search_arrays(part, size)[:2], values < share, share),
    }


def usearch_answers(vectors: Any, queries: Any, effort: int) -> Answers:
    """A graph of usearch."""
    module = import_module("usearch.index")
    index = module.Index(ndim=D, metric="ip", dtype="f32", connectivity=32, expansion_add=64, expansion_search=effort)
    index.add(np.arange(len(vectors)), vectors, threads=1)
    return f"usearch, ef={effort}", lambda: index.search(queries, K, threads=1).keys


def hnswlib_answers(vectors: Any, queries: Any, effort: int) -> Answers:
    """A graph of hnswlib."""
    index = import_module("hnswlib").Index(space="ip", dim=D)
    index.init_index(max_elements=len(vectors), ef_construction=64, M=32)
    index.add_items(vectors, num_threads=1)
    index.set_ef(effort)
    return f"hnswlib, ef={effort}", lambda: index.knn_query(queries, k=K, num_threads=1)[0]


def installed(name: str) -> bool:
    """Whether a peer can be imported; prints that it is left out where not."""
    try:
        import_module(PEERS[name])
    except ImportError:
        print(f"{name} is not installed: left out. `pip install '.[benchmark]'` installs it.", flush=True)
        return False
    return True


def side_by_side(vectors: Any, queries: Any, efforts: list[int], seconds: float) -> dict[str, Any]:
    """Recall of the 10 best, queries per CPU second, and CPU seconds to build, of every kind and peer."""
    truth = flat(vectors).search(queries, K)[1]
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("exact", {"kind": "exact"}),
        ("auto", {}),
        ("ivf", {"kind": "ivf"}),
        ("ivf, sq8", {"kind": "ivf", "compression": "sq8"}),
        ("ivf, pq", {"kind": "ivf", "compression": "pq"}),
        ("hnsw", {"kind": "hnsw"}),
    ]

    def ours(name: str, options: dict[str, Any]) -> Answers:
        index = ItemIndex(np.arange(len(vectors)), vectors, recall_target=RECALL_TARGET, **options)
        scan = ", scans" if index.is_exact and name not in ("exact", "auto") else ""
        return f"ItemIndex, {name}{scan}", lambda: index.search_arrays(queries, K)[0]

    builders: list[Callable[[], Answers]] = [lambda each=each: ours(*each) for each in kinds]  # type: ignore[misc]
    peers = {"usearch": usearch_answers, "hnswlib": hnswlib_answers}
    for name in filter(installed, peers):
        for effort in efforts:
            builders.append(lambda name=name, effort=effort: peers[name](vectors, queries, effort))  # type: ignore[misc]
    found: dict[str, Any] = {}
    answers: list[Answers] = []
    for build in builders:
        start = time.process_time()
        name, answer = build()
        shared = (answer()[:, :, None] == truth[:, None, :]).any(axis=2)
        found[name] = {"build": time.process_time() - start, "recall": float(shared.mean())}
        answers.append((name, answer))
        print(f"  {name}: built, recall {found[name]['recall']:.4f}", flush=True)
    calls = [answer for _, answer in answers]
    for (name, _), median in zip(answers, in_turns(calls, rounds_for(calls[0], seconds)), strict=True):
        found[name]["queries per CPU second"] = len(queries) / median
    return found


def measure(n: int, seconds: float, efforts: list[int]) -> dict[str, Any]:
    """Everything at one size."""
    print(f"{n:,} items", flush=True)
    vectors, queries = data(n, 2 * BATCH)
    about = pd.DataFrame({"share": np.random.default_rng(1).permutation(n) / n})
    index, raw = ItemIndex(np.arange(n), vectors, kind="exact", metadata=about), flat(vectors)
    return {
        "overhead": overhead(index, raw, queries, seconds),
        "filtered": filtered(index, raw, about, queries, seconds),
        "side by side": side_by_side(vectors, queries, efforts, seconds),
    }


def markdown(values: dict[str, Any]) -> str:
    """The result as Markdown.

    Parameters
    ----------
    values : dict
        As `main` writes them to JSON.

    Returns
    -------
    str
    """
    about = values["environment"]
    lines = [
        f"# ItemIndex beside FAISS {about['packages']['faiss-cpu']}\n",
        f"Clustered vectors of {D} numbers, k={K}, batches of {BATCH}; medians of CPU time of one thread, in turns; "
        f"load of the machine before: {values['load']:.2f}.\n",
        "## Exact search over raw FAISS\n",
        f"At most {SINGLE_TARGET:g} microseconds more for a single query, {BATCH_TARGET} times as long for a batch.\n",
        "| items | FAISS, single, us | arrays, more | frame, more | FAISS, batch, ms | arrays, ratio | frame, ratio |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size, found in values["sizes"].items():
        one, many = found["overhead"]["single"], found["overhead"]["batch"]
        more = [1e6 * (one[way] - one["faiss"]) for way in ("arrays", "frame")]
        ratios = [many[way] / many["faiss"] for way in ("arrays", "frame")]
        lines.append(
            f"| {int(size):,} | {1e6 * one['faiss']:.0f} | {more[0]:.0f} | {more[1]:.0f} | {1e3 * many['faiss']:.1f} | "
            f"{ratios[0]:.2f} | {ratios[1]:.2f} |"
        )
    lines += [
        "\n## Filtered search over over-fetching\n",
        f"Ratio of CPU time, at most {FILTER_TARGET:g}: the filter inside the exact scan, over fetching more and "
        f"dropping until {K} are left, from raw FAISS, whose scores are not exact, and from the index.\n",
        "| items | allowed | single, FAISS | single, index | batch, FAISS | batch, index | least found |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size, found in values["sizes"].items():
        for share, row in found["filtered"].items():
            ways = [(name, way) for name in ("single", "batch") for way in ("FAISS", "over-fetch")]
            cells = " | ".join(f"{row[name]['arrays'] / row[name][way]:.2f}" for name, way in ways)
            least = min(row[name]["least found"] for name in ("single", "batch"))
            lines.append(f"| {int(size):,} | {float(share):.0%} | {cells} | {least} |")
    lines += [
        "\n## Side by side\n",
        f"ItemIndex is built for a recall of {RECALL_TARGET}, measured on items' vectors with noise; the peers are "
        f"given their effort. Recall here is of {K} of {2 * BATCH} further queries. M is 32 and ef_construction 64 in "
        f"all graphs but FAISS's, whose ef_construction is 40.\n",
        "| items | | recall | queries per CPU second | CPU seconds to build |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    for size, found in values["sizes"].items():
        for name, row in found["side by side"].items():
            speed = f"{row['queries per CPU second']:,.0f} | {row['build']:.1f}"
            lines.append(f"| {int(size):,} | {name} | {row['recall']:.4f} | {speed} |")
    missing = [name for name in PEERS if about["packages"][name] is None]
    if missing:
        lines.append(f"\nNot installed, and left out: {', '.join(missing)}.")
    return "\n".join(lines) + "\n"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of items (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few rounds, one effort of each peer")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    faiss: Any = import_module("faiss")
    faiss.omp_set_num_threads(1)
    seconds, efforts = (0.3, [64]) if options.quick else (5.0, [32, 64, 128, 256])
    with threadpool_limits(1):
        sizes = {str(n): measure(n, seconds, efforts) for n in options.sizes}
    values = {
        "environment": {
            "python": platform.python_version(),
            "system": platform.system(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "packages": {name: _version(name) for name in PACKAGES},
        },
        "load": load,
        "sizes": sizes,
    }
    text = markdown(values)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "retrieval"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    print(f"Written: {stem.with_suffix('.md')} and {stem.with_suffix('.json')}")


if __name__ == "__main__":
    main()

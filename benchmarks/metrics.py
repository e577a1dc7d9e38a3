"""What metrics cost beside RecTools and ranx, what a full ranking costs, and how much memory `recommend` takes.

``python -m benchmarks.metrics``

The peers are optional: the tables name those that are missing. RecTools asks for NumPy 1 on Python before 3.13, so an
environment with everything is one of Python 3.13 with ``pip install rectools ranx`` and this package's requirements.
Every run of a library, and every other part, has a process of its own, held to one thread; the libraries take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import recsys
from recsys import MatrixFactorization
from recsys.datasets import fetch_movielens
from recsys.evaluation import LeaveLastOut, ranking_metrics

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "rectools", "ranx", "numba")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
METRICS = ["HR", "Recall", "NDCG", "MRR", "MAP"]
K = 10
N_USERS, N_ITEMS, N_POSITIVES = 138_000, 26_744, 2_800_000
# CPU seconds of ours at most, and how many times faster than a peer at least.
MOST_SECONDS, MOST_SECONDS_ML_1M = 4.0, 1.5
LEAST_RATIOS = {"RecTools": 10, "ranx": 5}
# Users of the model and items, for the memory; users asked for in a call.
MANY_USERS, MANY_ITEMS, ASKED = 1_000_000, 100_000, 10_000
BUDGETS = (16, 64, 256, 1024)

Contestant = Callable[[], dict[str, float]]


def make_frames(n_users: int, n_items: int, n_positives: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lists of ten and positives: few items are in most of both, as popularity has it.

    Returns
    -------
    recommendations, relevant : DataFrame
    """
    rng = np.random.default_rng(seed)
    share = np.cumsum(1 / (np.arange(n_items) + 10) ** 0.9)

    def drawn(users: Any) -> pd.DataFrame:
        items = np.searchsorted(share, rng.random(len(users)) * share[-1])
        return pd.DataFrame({"user_id": users, "item_id": items}).drop_duplicates(ignore_index=True)

    relevant = drawn(rng.integers(0, n_users, n_positives * 5 // 4)).head(n_positives)
    lists = drawn(np.repeat(np.arange(n_users), 3 * K))
    rank = lists.groupby("user_id").cumcount() + 1
    lists = lists.assign(score=1 / rank, rank=rank)[rank <= K]
    return lists.reset_index(drop=True), relevant


def ours(lists: pd.DataFrame, relevant: pd.DataFrame) -> dict[str, float]:
    """The means by `ranking_metrics`."""
    means = ranking_metrics(lists, relevant, K, METRICS).mean()
    return {name: float(means[f"{name}@{K}"]) for name in METRICS}


def recsys_contestant(lists: pd.DataFrame, relevant: pd.DataFrame) -> dict[str, Contestant]:
    """`ranking_metrics`, as any user calls it."""
    return {"recsys": lambda: ours(lists, relevant)}


def rectools(lists: pd.DataFrame, relevant: pd.DataFrame) -> dict[str, Contestant]:
    """RecTools, with the ideal of min(K, n) hits in its NDCG as here."""
    theirs: Any = import_module("rectools.metrics")
    metrics = {
        "HR": theirs.HitRate(k=K),
        "Recall": theirs.Recall(k=K),
        "NDCG": theirs.NDCG(k=K, divide_by_achievable=True),
        "MRR": theirs.MRR(k=K),
        "MAP": theirs.MAP(k=K),
    }

    def run() -> dict[str, float]:
        return dict(theirs.calc_metrics(metrics, reco=lists, interactions=relevant))

    return {"RecTools": run}


def ranx(lists: pd.DataFrame, relevant: pd.DataFrame) -> dict[str, Contestant]:
    """What ranx computes from frames, and from its own structures. Its frames hold text ids from the start."""
    theirs: Any = import_module("ranx")
    as_text = {"user_id": str, "item_id": str}
    run_frame = lists.astype(as_text).astype({"user_id": object, "item_id": object})
    qrels_frame = relevant.assign(score=1).astype(as_text).astype({"user_id": object, "item_id": object})
    columns = {"q_id_col": "user_id", "doc_id_col": "item_id", "score_col": "score"}
    names = {"HR": "hit_rate", "Recall": "recall", "NDCG": "ndcg", "MRR": "mrr", "MAP": "map"}

    def evaluate(qrels: Any, run: Any) -> dict[str, float]:
        asked = [f"{name}@{K}" for name in names.values()]
        means = theirs.evaluate(qrels, run, asked, threads=1, make_comparable=True)
        return {ours: float(means[f"{name}@{K}"]) for ours, name in names.items()}

    made: list[Any] = []

    def from_frames() -> dict[str, float]:
        made[:] = theirs.Qrels.from_df(qrels_frame, **columns), theirs.Run.from_df(run_frame, **columns)
        return evaluate(*made)

    # In its turn after the other, which has made them.
    return {"ranx": from_frames, "ranx, Qrels and Run ready": lambda: evaluate(*made)}


# What computes the five means from the frames, by library.
LIBRARIES: dict[str, Callable[[pd.DataFrame, pd.DataFrame], dict[str, Contestant]]] = {
    "recsys": recsys_contestant,
    "RecTools": rectools,
    "ranx": ranx,
}


def measure_metrics(library: str) -> dict[str, Any]:
    """The five metrics of generated lists by a library: CPU seconds and means, of nothing where it is not there."""
    lists, relevant = make_frames(N_USERS, N_ITEMS, N_POSITIVES, seed=0)
    seconds, means = {}, {}
    with contextlib.suppress(ImportError):
        running = LIBRARIES[library](lists, relevant)
        # Few lists before the clock: ranx compiles.
        for run in LIBRARIES[library](*make_frames(1_000, 1_000, 10_000, seed=0)).values():
            run()
        for name, run in running.items():
            start = time.process_time()
            means[name] = run()
            seconds[name] = time.process_time() - start
    counts = {"users": relevant["user_id"].nunique(), "rows": len(lists), "positives": len(relevant)}
    return {"counts": counts, "means": means, "seconds": seconds}


def in_turns(rounds: int) -> dict[str, Any]:
    """What `measure_metrics` finds for each library: all its seconds, the last means, and which are missing."""
    seconds: dict[str, list[float]] = {}
    means: dict[str, dict[str, float]] = {}
    missing: list[str] = []
    for _ in range(rounds):
        for library in (name for name in LIBRARIES if name not in missing):
            found = in_a_process("metrics", library)
            if not found["seconds"]:
                missing.append(library)
            for name, took in found["seconds"].items():
                seconds.setdefault(name, []).append(took)
            means |= found["means"]
    return {"counts": found["counts"], "missing": missing, "means": means, "seconds": seconds}


def measure_full_ranking(rounds: int) -> dict[str, Any]:
    """`recommend` to all users of MovieLens-1M and the five metrics: CPU seconds of each round."""
    data = fetch_movielens("ml-1m")
    pairs = data.interactions[["user_id", "item_id"]]
    [split] = LeaveLastOut().splits(pairs, groups=data.interactions["timestamp"])
    train, test = pairs.iloc[split.train], pairs.iloc[split.test]
    model = MatrixFactorization(n_factors=64, random_state=0).fit(train)
    everyone = test["user_id"].unique()
    seconds: dict[str, list[float]] = {"recommend": [], "ranking_metrics": []}
    for _ in range(rounds):
        start = time.process_time()
        lists = model.recommend(everyone, k=K)
        ranked = time.process_time()
        means = ranking_metrics(lists, test, K, METRICS).mean()
        for name, took in (("recommend", ranked - start), ("ranking_metrics", time.process_time() - ranked)):
            seconds[name].append(took)
    counts = {"users": len(everyone), "items": train["item_id"].nunique(), "factors": model.n_factors}
    return {"counts": counts, "means": means.to_dict(), "seconds": seconds}


def measure_memory(budget: int, n_users: int, n_items: int, asked: int) -> dict[str, Any]:
    """What `recommend` allocates at its peak, with generated factors of 64 dimensions; in MiB.

    Returns
    -------
    dict
        `peak`, of all that is allocated during the call; `frame`, its answer alone; `process`, the most this process
        ever held, the model included.
    """
    rng = np.random.default_rng(0)
    # Three rows a user, and every item; one round of one factor, for the real factors are drawn.
    items = rng.integers(0, n_items, 3 * n_users)
    items[:n_items] = np.arange(n_items)
    X = pd.DataFrame({"user_id": np.repeat(np.arange(n_users), 3), "item_id": items})
    model = MatrixFactorization(n_factors=1, max_iter=1, random_state=0).fit(X)
    model.user_factors_ = rng.standard_normal((n_users, 64), dtype=np.float32)
    model.item_factors_ = rng.standard_normal((n_items, 64), dtype=np.float32)
    users = np.arange(asked)
    model.recommend(users[:1], k=K)
    tracemalloc.start()
    start = time.process_time()
    answer = model.recommend(users, k=K, working_memory=budget)
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    frame = float(answer.memory_usage().sum()) / 2**20
    found = {"budget": budget, "users": n_users, "items": n_items, "asked": asked, "rows": len(answer)}
    return found | {"peak": peak, "frame": frame, "process": most_held(), "seconds": seconds}


def most_held() -> float:
    """The peak memory of this process in MiB, as Linux counts it."""
    # The resource module is not on every system.
    resource = import_module("resource")
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def in_a_process(part: str, *arguments: int | str) -> dict[str, Any]:
    """What a part of this benchmark finds in a process of its own, all libraries held to one thread."""
    command = [sys.executable, "-m", "benchmarks.metrics", "--only", json.dumps([part, *arguments])]
    pinned = os.environ | dict.fromkeys(THREADS, "1")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=pinned)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "metrics": measure_metrics,
    "full-ranking": measure_full_ranking,
    "memory": measure_memory,
}


def environment() -> dict[str, Any]:
    """Versions, as far as something is installed, and hardware: what a number depends on besides the code."""
    packages = {"recsys": recsys.__version__}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    about = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    return {**about, "cores": os.cpu_count(), "packages": packages}


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
    lists, ranking = values["metrics"], values["full-ranking"]
    seconds = {name: float(np.median(rounds)) for name, rounds in lists["seconds"].items()}
    about = lists["environment"]
    packages = about["packages"]
    text = ", ".join(f"{name} {packages[name]}" for name in ("numpy", "pandas", "rectools", "ranx") if name in packages)
    lines = [
        "# What metrics cost\n",
        f"Generated top-{K} lists of {lists['counts']['users']:,} users, {lists['counts']['positives']:,} positives; "
        f"{', '.join(METRICS)} at {K}, from frames. Each run in a process of its own and one thread, the "
        f"libraries in turns; medians of {lists['rounds']} rounds, on Python {about['python']} with {text}. Load of "
        f"the machine before: {lists['load']:.2f} on {about['cores']} cores.\n",
        "| | CPU s | at most | times the CPU of recsys | at least |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, median in seconds.items():
        most = f"{MOST_SECONDS:.1f}" if name == "recsys" else ""
        ratio = "" if name == "recsys" else f"{median / seconds['recsys']:.1f}"
        lines.append(f"| {name} | {median:.2f} | {most} | {ratio} | {LEAST_RATIOS.get(name, '')} |")
    lines += [f"| {name} | not installed | | | {LEAST_RATIOS[name]} |" for name in lists["missing"]]
    parts = {name: float(np.median(rounds)) for name, rounds in ranking["seconds"].items()}
    lines.append(
        f"| MovieLens-1M, full ranking: `recommend` {parts['recommend']:.2f}, `ranking_metrics` "
        f"{parts['ranking_metrics']:.2f} | {sum(parts.values()):.2f} | {MOST_SECONDS_ML_1M} | | |"
    )
    lines += [
        f"\nThe last row is `MatrixFactorization` of {ranking['counts']['factors']} factors, the ten best of "
        f"{ranking['counts']['items']:,} items for {ranking['counts']['users']:,} users, and the same five metrics "
        f"(leave-last-out; ML-1M, 7.9 % of timestamps estimated). "
        f"ranx is handed text ids, made before the clock starts, and has compiled by then.\n",
        "The means that each finds (RecTools and ranx divide MAP by n, also where n > K):\n",
        f"| | {' | '.join(METRICS)} |",
        f"| --- |{' ---: |' * len(METRICS)}",
    ]
    for name, means in lists["means"].items():
        lines.append(f"| {name} | {' | '.join(f'{means[metric]:.6f}' for metric in METRICS)} |")
    lines += memory_table(values["memory"]["rows"])
    return "\n".join(lines) + "\n"


def memory_table(found: list[dict[str, Any]]) -> list[str]:
    """The lines of the table of memory."""
    lines = [
        f"\n## Memory of `recommend(k={K}, working_memory=...)`\n",
        "Generated factors of 64 dimensions; each row a process of its own. The peak is of all that is allocated "
        "during the call: scores, which `working_memory` bounds; what scoring needs besides, which it does not (here "
        "24.4 MiB for 100,000 item vectors); and the answer with what it is made of, which grows with the users that "
        "are asked for. The process holds the model besides.\n",
        "| users asked for | of | items | working_memory, MiB | peak, MiB | answer, MiB | process, MiB | CPU s |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found:
        cells = [f"{row[name]:,}" for name in ("asked", "users", "items", "budget")]
        cells += [f"{row[name]:,.1f}" for name in ("peak", "frame", "process", "seconds")]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(
        "\nA share of the users is asked for under each budget, and everyone under one: what grows is the answer and "
        "its making, not the scores."
    )
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="others are kept")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--asked", type=int, default=ASKED, help="users of a call under each budget of memory")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    parser.add_argument("--only", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        part, *given = options.only
        print(json.dumps(PARTS[part](*given)))
        return
    stem = options.output / "metrics"
    stored = stem.with_suffix(".json")
    values: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    for part in options.parts:
        found: dict[str, Any] = {"load": os.getloadavg()[0], "environment": environment()}
        if part == "memory":
            asked = [(budget, options.asked) for budget in BUDGETS] + [(BUDGETS[1], MANY_USERS)]
            found["rows"] = [in_a_process(part, budget, MANY_USERS, MANY_ITEMS, users) for budget, users in asked]
        else:
            run = in_turns(options.rounds) if part == "metrics" else in_a_process(part, options.rounds)
            found |= {"rounds": options.rounds, **run}
        values[part] = found
    if values.keys() < PARTS.keys():
        print(f"No table yet: measured {', '.join(values)} of {', '.join(PARTS)}.")
    options.output.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(values, indent=1) + "\n")
    if values.keys() == PARTS.keys():
        text = markdown(values)
        print(text)
        stem.with_suffix(".md").write_text(text)
        print(f"Written: {stem.with_suffix('.md')} and {stored}")


if __name__ == "__main__":
    main()

"""What other libraries call HR, Recall, Precision, NDCG, MRR and MAP: all of them on one and the same lists.

``python -m benchmarks.metric_definitions``

No library but this one has to be installed, and hardly any two can be together: run it in one environment after the
other. A run measures the libraries it can import and keeps what earlier runs found of the rest. Besides an example of
five users, every library gets generated users, one at a time, and the largest difference from our value is told.

RecTools, ranx and ir-measures can share an environment of Python 3.13; RecBole 1.2 wants NumPy before 1.24, recpack 0.3
NumPy before 2 (its metrics need no torch), LensKit 2025 one of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import recsys
from recsys.evaluation import ranking_metrics

RESULTS = Path(__file__).parent / "results"
METRICS = ["HR", "Recall", "Precision", "NDCG", "MRR", "MAP"]
K = 5
# Below it, a difference is the rounding of another order of sums.
ROUNDING = 1e-9

Items = dict[str, list[int]]
Values = dict[str, float]

# What is recommended, best first, and what is relevant.
LISTS: Items = {"a": [1, 2, 3, 4, 5], "b": [1, 2], "c": [1, 2, 3, 4, 5], "d": [1, 2, 3, 4, 5]}
RELEVANT: Items = {"a": [2, 9], "b": [2, 3, 4], "c": [], "d": [1, 3, 4, 6, 7, 8, 9], "e": [1, 2]}
USERS = {
    "a": "an ordinary list",
    "b": "a list shorter than K",
    "c": "nothing is relevant",
    "d": "more is relevant than K",
    "e": "nothing was recommended",
}


def frames(lists: Items, relevant: Items) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both as tidy frames; a user without items has no row."""
    rows = [(user, item, rank) for user, items in lists.items() for rank, item in enumerate(items, start=1)]
    recommended = pd.DataFrame(rows, columns=["user_id", "item_id", "rank"]).astype({"item_id": int, "rank": int})
    pairs = [(user, item) for user, items in relevant.items() for item in items]
    return recommended, pd.DataFrame(pairs, columns=["user_id", "item_id"]).astype({"item_id": int})


def ours(lists: Items, relevant: Items) -> Values:
    """The means by `ranking_metrics`."""
    recommended, liked = frames(lists, relevant)
    if not len(liked):
        return {}
    means = ranking_metrics(recommended, liked, K, METRICS).mean()
    return {name: float(means[f"{name}@{K}"]) for name in METRICS}


def rectools(lists: Items, relevant: Items) -> Values:
    """RecTools with its defaults."""
    theirs: Any = import_module("rectools.metrics")
    names = ("HitRate", "Recall", "Precision", "NDCG", "MRR", "MAP")
    metrics = {name: getattr(theirs, their_name)(k=K) for name, their_name in zip(METRICS, names, strict=True)}
    recommended, liked = frames(lists, relevant)
    return dict(theirs.calc_metrics(metrics, reco=recommended, interactions=liked))


def ranx(lists: Items, relevant: Items) -> Values:
    """What ranx finds; a user without relevant items has one that was judged and is not, as in TREC's files."""
    theirs: Any = import_module("ranx")
    names = ("hit_rate", "recall", "precision", "ndcg", "mrr", "map")
    # A run must not be empty: who alone is asked for and gets nothing has an item that nobody wants.
    run = theirs.Run(scored(lists) or {user: {"none": 0.0} for user in relevant})
    qrels = theirs.Qrels(judged(lists, relevant))
    means = theirs.evaluate(qrels, run, [f"{name}@{K}" for name in names], make_comparable=True)
    return {name: float(means[f"{their_name}@{K}"]) for name, their_name in zip(METRICS, names, strict=True)}


def ir_measures(lists: Items, relevant: Items) -> Values:
    """What ir-measures finds, by the tools that it chooses; judgements as for ranx."""
    theirs: Any = import_module("ir_measures")
    names = ("Success", "R", "P", "nDCG", "RR", "AP")
    measures = {name: getattr(theirs, their_name) @ K for name, their_name in zip(METRICS, names, strict=True)}
    means = theirs.calc_aggregate(list(measures.values()), judged(lists, relevant), scored(lists))
    return {name: float(means[measure]) for name, measure in measures.items()}


def judged(lists: Items, relevant: Items) -> dict[str, dict[str, int]]:
    """The relevant items of each user as text, or one that is not relevant."""
    return {
        user: {str(item): 1 for item in items} or {str(lists[user][0]): 0} for user, items in sorted(relevant.items())
    }


def scored(lists: Items) -> dict[str, dict[str, float]]:
    """The lists with scores that fall by rank, items as text."""
    return {
        user: {str(item): 1 / rank for rank, item in enumerate(items, start=1)} for user, items in sorted(lists.items())
    }


def recbole(lists: Items, relevant: Items) -> Values:
    """RecBole's metrics of what its collector makes: places of hits, and n; it loads users with test items alone."""
    theirs: Any = import_module("recbole.evaluator.metrics")
    torch: Any = import_module("torch")
    users = [user for user, items in relevant.items() if items]
    if not users:
        return {}
    rows = []
    for user in users:
        hits = [int(item in relevant[user]) for item in lists.get(user, [])[:K]]
        rows.append([*hits, *[0] * (K - len(hits)), len(relevant[user])])
    found, collected = {}, {"rec.topk": torch.tensor(rows)}
    names = ("Hit", "Recall", "Precision", "NDCG", "MRR", "MAP")
    for name, their_name in zip(METRICS, names, strict=True):
        metric = getattr(theirs, their_name)({"metric_decimal_place": 17, "topk": [K]})
        found[name] = float(next(iter(metric.calculate_metric(collected).values())))
    return found


def recpack(lists: Items, relevant: Items) -> Values:
    """Recpack's metrics of matrices; it has no MAP."""
    theirs: Any = import_module("recpack.metrics")
    sparse: Any = import_module("scipy.sparse")
    users = sorted(lists.keys() | relevant)
    shape = (len(users), 1 + max(item for part in (lists, relevant) for items in part.values() for item in items))
    true, predicted = sparse.lil_matrix(shape), sparse.lil_matrix(shape)
    for row, user in enumerate(users):
        true[row, relevant.get(user, [])] = 1
        for rank, item in enumerate(lists.get(user, []), start=1):
            predicted[row, item] = 1 / rank
    if not true.nnz:
        return {}
    found = {}
    for name, their_name in zip(METRICS, ("Hit", "Recall", "Precision", "NDCG", "ReciprocalRank"), strict=False):
        metric = getattr(theirs, f"{their_name}K")(K)
        metric.calculate(true.tocsr(), predicted.tocsr())
        found[name] = float(metric.value)
    return found


def lenskit(lists: Items, relevant: Items) -> Values:
    """LensKit's bulk analysis, the lists and the test items as collections."""
    theirs, data = import_module("lenskit.metrics"), import_module("lenskit.data")
    precision: Any = import_module("lenskit.metrics.ranking").AveragePrecision
    metrics = [theirs.Hit, theirs.Recall, theirs.Precision, theirs.NDCG, theirs.RecipRank, precision]
    collect: Any = data.ItemListCollection.from_dict
    lists_of: Any = data.ItemList
    # It does not take a collection without a list: who alone is asked for and gets nothing has an empty one.
    some = lists or {user: [] for user in relevant}
    recommended = collect({user: lists_of(items, ordered=True) for user, items in some.items()}, key="user_id")
    test = collect({user: lists_of(items) for user, items in relevant.items()}, key="user_id")
    found = {}
    for name, metric in zip(METRICS, metrics, strict=True):
        analysis = theirs.RunAnalysis()
        analysis.add_metric(metric(K))
        try:
            found[name] = float(analysis.measure(recommended, test).list_summary()["mean"].iloc[0])
        except ZeroDivisionError:
            # Its average precision divides by n as it is.
            continue
    return found


# By name: the package, the value it gives; Elliot is on no package index.
LIBRARIES: dict[str, tuple[str, Callable[[Items, Items], Values]]] = {
    "recsys": ("recsys", ours),
    "RecTools": ("rectools", rectools),
    "ranx": ("ranx", ranx),
    "ir-measures": ("ir-measures", ir_measures),
    "RecBole": ("recbole", recbole),
    "recpack": ("recpack", recpack),
    "LensKit": ("lenskit", lenskit),
}
NEVER_RUN = {"Elliot": "on no package index"}


def cases(n: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """A list and the relevant items of n generated users: one at least of both, lists up to K, up to 2 K relevant."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        n_listed, n_relevant = rng.integers(1, [K + 1, 2 * K + 1])
        found.append((rng.permutation(15)[:n_listed].tolist(), rng.permutation(15)[:n_relevant].tolist()))
    return found


def measure(values_of: Callable[[Items, Items], Values], n_cases: int) -> dict[str, Any]:
    """What a library makes of the example, of each of its users alone, and of generated users."""
    found: dict[str, Any] = {"mean": values_of(LISTS, RELEVANT), "users": {}}
    for user in USERS:
        lists = {user: LISTS[user]} if user in LISTS else {}
        found["users"][user] = values_of(lists, {user: RELEVANT[user]})
    largest: dict[str, Values] = {"n <= K": {}, "n > K": {}}
    counts = dict.fromkeys(largest, 0)
    for listed, liked in cases(n_cases, seed=0):
        theirs, mine = (each({"u": listed}, {"u": liked}) for each in (values_of, ours))
        bound = "n <= K" if len(liked) <= K else "n > K"
        worst = largest[bound]
        counts[bound] += 1
        for name, value in theirs.items():
            worst[name] = max(worst.get(name, 0.0), abs(value - mine[name]))
    return found | {"largest": largest, "cases": counts}


def markdown(libraries: dict[str, Any]) -> str:
    """The result as Markdown.

    Parameters
    ----------
    libraries : dict
        Of each library what `measure` found, and its version.

    Returns
    -------
    str
    """
    head = f"| | {' | '.join(METRICS)} |\n| --- |{' ---: |' * len(METRICS)}"
    names = {name: f"{name} {found['version']}" for name, found in libraries.items()}
    lines = [
        f"# What libraries call by one name, at K = {K}\n",
        "| user | | list | relevant |",
        "| --- | --- | --- | --- |",
        *(f"| {user} | {what} | {told(LISTS.get(user))} | {told(RELEVANT[user])} |" for user, what in USERS.items()),
        "\nMeans of this example:\n",
        head,
    ]
    for name, found in libraries.items():
        lines.append(f"| {names[name]} | {' | '.join(shown(found['mean'].get(metric)) for metric in METRICS)} |")
    for name in [name for name in LIBRARIES if name not in libraries]:
        lines.append(f"| {name} | not run: not installed |" + " |" * (len(METRICS) - 1))
    for name, why in NEVER_RUN.items():
        lines.append(f"| {name} | not run: {why} |" + " |" * (len(METRICS) - 1))
    lines += ["\nEach user alone, where a value is another than ours:\n", "| | user | metrics | value | recsys |"]
    lines.append("| --- | --- | --- | ---: | ---: |")
    lines += [
        f"| {' | '.join(row)} |"
        for name, found in libraries.items()
        for row in differing(names[name], found, libraries["recsys"])
    ]
    lines += [
        "\nA mean is the library's own, over the users that it counts. None: it gives no value.",
        f"\nThe largest difference from ours over generated users, one at a time, each with a list of 1 to {K} items "
        f"and 1 to {2 * K} relevant ones (below {ROUNDING:g}: 0):",
    ]
    for bound in ("n <= K", "n > K"):
        lines += [f"\n{bound}:\n", f"| | users | {' | '.join(METRICS)} |", f"| --- |{' ---: |' * (len(METRICS) + 1)}"]
        for name, found in libraries.items():
            cells = [f"{found['cases'][bound]:,}"]
            cells += [shown(found["largest"][bound].get(metric), ROUNDING) for metric in METRICS]
            lines += [f"| {names[name]} | {' | '.join(cells)} |"] if name != "recsys" else []
    return "\n".join(lines) + "\n"


def differing(name: str, found: dict[str, Any], reference: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of single users; metrics that give the same two values share one."""
    metrics = [metric for metric in METRICS if any(metric in values for values in found["users"].values())]
    rows: dict[tuple[str, str, str], list[str]] = {}
    for user in USERS:
        for metric in metrics:
            theirs, mine = (each["users"][user].get(metric) for each in (found, reference))
            if not same(theirs, mine):
                rows.setdefault((user, shown(theirs), shown(mine)), []).append(metric)
    return [[name, user, ", ".join(names), theirs, mine] for (user, theirs, mine), names in rows.items()]


def told(items: list[int] | None) -> str:
    """Items of a list in a cell."""
    return ", ".join(map(str, items)) if items else "none"


def same(value: float | None, other: float | None) -> bool:
    """Whether two values are equal but for rounding; NaN and none are the same."""
    missing = [each is None or math.isnan(each) for each in (value, other)]
    return all(missing) if any(missing) else abs(float(value or 0) - float(other or 0)) < ROUNDING


def shown(value: float | None, least: float = 0.0) -> str:
    """A number in a cell."""
    if value is None or math.isnan(value):
        return "none"
    return "0" if value < least else f"{value:.4f}"


def main(arguments: list[str] | None = None) -> None:
    """Measure from the command line what can be imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000, help="generated users (default: %(default)s)")
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "metric_definitions"
    found: dict[str, Any] = {}
    warnings.simplefilter("ignore")
    # Ours is what the others are compared with.
    for name in dict.fromkeys(["recsys", *options.libraries]):
        package, values_of = LIBRARIES[name]
        try:
            values_of(LISTS, {"a": RELEVANT["a"]})
        except ImportError as error:
            print(f"{name}: not measured here ({error})")
            continue
        found[name] = measure(values_of, options.cases)
        found[name]["version"] = recsys.__version__ if name == "recsys" else version(package)
    stored = stem.with_suffix(".json")
    found = (json.loads(stored.read_text()) if stored.exists() else {}) | found
    found = {name: found[name] for name in LIBRARIES if name in found}
    text = markdown(found)
    print(text)
    stem.with_suffix(".md").write_text(text)
    stored.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Written: {stem.with_suffix('.md')} and {stored}")


if __name__ == "__main__":
    main()

"""What ContrastiveRecommender costs and what that buys: refits, accuracy by time, the profile of a fit, its growth.

The studies of `benchmarks.flagship` that need the clock of the processor, and what all its studies have in common.
"""

from __future__ import annotations

import cProfile
import pstats
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone

from benchmarks import scaling
from benchmarks.run import models, records
from recsys import BaseRecommender, ContrastiveRecommender, FeatureTable
from recsys.datasets import make_movielens_like
from recsys.evaluation import Evaluation, ItemColdSplit, RandomSplit, Report, Split, UserColdSplit, ranking_metrics
from recsys.evaluation.evaluation import OVERALL
from recsys.exceptions import ColdStartWarning

Rows = npt.NDArray[np.int64]

METRICS = ("HR", "Recall", "NDCG", "MRR")
NDCG = "NDCG@10"
OURS = "ContrastiveRecommender"
# Hot rows, few-shot users, new items.
SCENARIOS = (RandomSplit(), UserColdSplit(k=(5,)), ItemColdSplit())

# Refits: the share of rows by time before the first one, how many there are, and how each goes on from the last.
FIRST, REFITS = 0.5, 5
SCRATCH, POOLED = "from scratch", "all refits"
WARM: dict[str, dict[str, float]] = {"shrink and perturb": {}, "plain warm start": {"shrink": 1.0, "perturb": 0.0}}
# Without what the towers stand beside, so that differences between towers show.
TOWERS_ALONE: dict[str, Any] = {"tower_weight": 1.0, "memory_weight": 0.0, "residual": False}

EPOCHS = (1, 3, 7, 22, 44)
# What a fit consists of, module and function, and below each what it mainly calls.
STAGES = {
    "content._fit_closed_form": ("content._solve", "_kernel_ridge.choose_mixture", "_kernel_ridge.fit"),
    "contrastive._fit_evidence": ("_user_memory.learn", "residual.train_residual"),
    "_tower_part._fit_towers": ("training.run_epochs", "_tower_part._read_out", "_tower_part._find_shift"),
    "contrastive._best_share": (),
}
# Users who are asked one by one.
ONE_BY_ONE = 50
N_BUSIEST = 10
# Rows, users, items: the catalogue alone grows. The epochs of the towers are where the softmax is.
CATALOGUES = ((1_000_000, 6_040, 10_000), (1_000_000, 6_040, 100_000), (1_000_000, 6_040, 1_000_000))
GROWING = (*STAGES, "training.run_epochs")


class Found(NamedTuple):
    """What a study found: Markdown, JSON values by the name of a table, and a page, if it has one."""

    text: str
    values: dict[str, list[dict[str, Any]]]
    page: Report | None = None


def flagship(**parameters: Any) -> ContrastiveRecommender:
    """The model with its defaults, but for these parameters."""
    found = models()[OURS].set_params(**parameters)
    assert isinstance(found, ContrastiveRecommender)
    return found


def as_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left.

    Examples
    --------
    >>> print(as_table(["stage", "s"], [["fit", "1.5"]]), end="")
    | stage | s |
    | --- | ---: |
    | fit | 1.5 |
    """
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def differences(evaluation: Evaluation, groups: Sequence[str] = (OVERALL,), metric: str = NDCG) -> str:
    """A Markdown table of the mean of the baseline and of paired differences to it, a row a scenario and group.

    Parameters
    ----------
    evaluation : Evaluation
    groups : sequence of str, default=("overall",)
    metric : str, default="NDCG@10"

    Returns
    -------
    str
    """
    table = evaluation.table()
    table = table[(table["metric"] == metric) & table["group"].isin(groups)]
    others = [str(name) for name in table["model"].unique() if name != evaluation.baseline]
    lines = []
    for (scenario, group), rows in table.groupby(["scenario", "group"], sort=False):
        by_model = {row["model"]: row for row in rows.to_dict("records")}
        base = by_model[evaluation.baseline]["mean"]
        cells = [difference_cell(by_model[name], base) for name in others]
        name = str(scenario) if group == OVERALL else f"{scenario}, {group}"
        lines.append([name, f"{base:.4f}", *cells])
    return as_table([metric, evaluation.baseline, *others], lines)


def difference_cell(found: Any, base: float) -> str:
    """A paired difference with its interval, and relative to what it is a difference from."""
    if found["error"]:
        return f"failed: {found['error']}"
    told = f"{found['difference']:+.4f} [{found['difference_low']:+.4f}, {found['difference_high']:+.4f}]"
    return f"{told} ({100 * found['difference'] / base:+.1f} %)" if base else told


def features_of(data: Any, seed: int) -> dict[str, FeatureTable]:
    """Features in an order of their own, as equal scores rank in catalogue order."""
    frames = {"user_features": data.users, "item_features": data.items}
    return {name: FeatureTable(frame.sample(frac=1, random_state=seed)) for name, frame in frames.items()}


def cpu_seconds(function: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """Seconds of all cores that a call takes."""
    started = time.process_time()
    function(*arguments, **options)
    return time.process_time() - started


def asked(model: BaseRecommender, test: pd.DataFrame, **options: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The metrics of each user of the test rows, and what asking for them cost, as an `Evaluator` tells it."""
    users, started = test["user_id"].unique(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        lists = model.recommend(users, 10, **options)
    seconds = time.process_time() - started
    cold = (lists.loc[lists["rank"] == 1, "path"] == "cold").sum() / len(users)
    cost = {"recommend_seconds": seconds, "peak_mib": np.nan, "n_users": len(users), "cold_share": float(cold)}
    return ranking_metrics(lists, test, 10, METRICS).reset_index(names="user_id"), cost


class Record:
    """What models that were fitted here did, as an `Evaluator` tells it; seconds are of the processor.

    Parameters
    ----------
    baseline : str
    """

    def __init__(self, baseline: str) -> None:
        self.baseline = baseline
        self.per_user: list[pd.DataFrame] = []
        self.costs: list[dict[str, Any]] = []
        self.splits: dict[tuple[str, int], dict[str, Any]] = {}

    def add(self, model: str, split: Split, seed: int, found: pd.DataFrame, **cost: Any) -> None:
        """Add the metrics of users, in groups if `found` has any, and what they cost."""
        identity: dict[str, Any] = {"scenario": split.name, "seed": seed, "model": model}
        self.per_user.append(found.assign(group=found.get("group", OVERALL), **identity))
        self.costs.append({**identity, **cost})
        sizes = {part: len(getattr(split, part)) for part in ("train", "revealed", "test")}
        told = {"scenario": split.name, "seed": seed, "hash": split.hash, "sampled": False, **sizes}
        self.splits[split.name, seed] = told

    def evaluation(self) -> Evaluation:
        """All that was added."""
        failures = pd.DataFrame(columns=["scenario", "seed", "model", "error"])
        rows, costs, splits = pd.concat(self.per_user), pd.DataFrame(self.costs), pd.DataFrame(self.splits.values())
        metrics = [f"{name}@10" for name in METRICS]
        return Evaluation(rows.reset_index(drop=True), costs, splits, failures, self.baseline, metrics=metrics)


def day_slices(times: Any, first: float = FIRST, n: int = REFITS + 1) -> Rows:
    """The slice of each row by time, cut where a day ends: 0 for about the first share, then 1 to n, about equal.

    Parameters
    ----------
    times : Series of shape (n_rows,)
        In seconds.
    first : float
    n : int

    Returns
    -------
    ndarray of shape (n_rows,), int64

    Examples
    --------
    >>> day_slices(pd.Series(np.arange(8) * 86400), first=0.5, n=2)
    array([0, 0, 0, 0, 1, 1, 2, 2])
    """
    days = times.to_numpy(np.int64) // 86_400
    cuts = np.sort(days)[(np.linspace(first, 1, n, endpoint=False) * len(days)).astype(int)]
    found: Rows = np.searchsorted(cuts, days, side="right")
    return found


def refit(data: Any, seeds: Sequence[int]) -> Found:
    """Five refits by `partial_fit`, each judged on the slice of days that follows, beside fits from scratch."""
    scaling.warm_up(OURS)
    text, values = "", {}
    for part, parameters in {"as it is by default": {}, "towers alone": TOWERS_ALONE}.items():
        record = Record(SCRATCH)
        for seed in seeds:
            _refits(record, data, flagship(**parameters, random_state=seed), seed)
        evaluation = record.evaluation()
        seconds = evaluation.costs[evaluation.costs["scenario"] != POOLED].pivot_table(
            "fit_seconds", "model", "scenario", sort=False
        )
        total = seconds.sum(axis=1)
        cpu = [[name, f"{total[name]:.1f}", f"{total[name] / total[SCRATCH]:.2f}"] for name in seconds.index]
        text += f"## {part[0].upper()}{part[1:]}\n\n{differences(evaluation, (OVERALL, 'hot', 'cold-start'))}\n"
        text += as_table(["CPU seconds", "five refits", "of from scratch"], cpu) + "\n"
        values[part] = records(evaluation.table())
        values[f"{part}, CPU seconds"] = records(seconds.reset_index())
    return Found(text, values)


def _refits(record: Record, data: Any, model: ContrastiveRecommender, seed: int) -> None:
    X, slices = data.interactions[["user_id", "item_id"]], day_slices(data.interactions["timestamp"])
    features = features_of(data, seed)
    model.fit(X[slices == 0], **features)
    fitted = {name: deepcopy(model).set_params(**parameters) for name, parameters in WARM.items()}
    pooled = []
    for step in range(1, REFITS + 1):
        known, test = np.flatnonzero(slices <= step), np.flatnonzero(slices == step + 1)
        afresh = clone(model)
        seconds = {SCRATCH: cpu_seconds(afresh.fit, X.iloc[known], **features)}
        seconds |= {name: cpu_seconds(warm.partial_fit, X[slices == step]) for name, warm in fitted.items()}
        for name, fit in {SCRATCH: afresh, **fitted}.items():
            found, cost = asked(fit, X.iloc[test])
            record.add(name, Split(f"refit {step}", known, test), seed, found, fit_seconds=seconds[name], **cost)
            hot = found["user_id"].isin(X["user_id"].iloc[known])
            found = pd.concat([found, found.assign(group=np.where(hot, "hot", "cold-start"))])
            pooled.append((name, Split(POOLED, known, test), found.fillna({"group": OVERALL})))
    for place, (name, split, found) in enumerate(pooled):
        # A user counts once, with the mean over refits: these are seeds here.
        record.add(name, split, seed * REFITS + place // (1 + len(WARM)), found)


def contenders() -> dict[str, BaseRecommender]:
    """The flagship after some epochs, its parts, and what is fitted in less time."""
    beside = {name: models()[name] for name in ("ContentEASE", "EASE", "MatrixFactorization")}
    parts: dict[str, BaseRecommender] = {
        "closed form, memory": flagship(tower_weight=0.0, residual=False),
        "without towers": flagship(tower_weight=0.0),
        "towers alone": flagship(**TOWERS_ALONE),
    }
    return {**beside, **parts, **{f"max_iter={n}": flagship(max_iter=n) for n in EPOCHS}}


def accuracy_time(data: Any, seeds: Sequence[int]) -> Found:
    """NDCG@10 against the CPU seconds of a fit."""
    X = data.interactions[["user_id", "item_id"]]
    scaling.warm_up(OURS)
    record = Record("ContentEASE")
    for seed in seeds:
        features = features_of(data, seed)
        for splitter in SCENARIOS:
            splits = list(replace(splitter, random_state=seed).splits(X))
            train = X.iloc[splits[0].train].sample(frac=1, random_state=seed)
            for name, model in contenders().items():
                if "random_state" in model.get_params():
                    model.set_params(random_state=seed)
                spent = cpu_seconds(model.fit, train, **features)
                for split in splits:
                    revealed = X.iloc[split.revealed] if len(split.revealed) else None
                    question = {"interactions": revealed, "candidates": split.candidates}
                    found, cost = asked(model, X.iloc[split.test], **question)
                    record.add(name, split, seed, found, fit_seconds=spent, **cost)
    evaluation = record.evaluation()
    seconds = evaluation.costs.groupby("model", sort=False)["fit_seconds"].median()
    cpu = as_table(["model", "CPU s, median"], [[str(name), f"{value:.2f}"] for name, value in seconds.items()])
    values = {"results": records(evaluation.table()), "costs": records(evaluation.costs)}
    page = Report(evaluation, title=f"{data.name}: accuracy by time", notes="Seconds are of the processor.")
    return Found(f"{differences(evaluation)}\n{cpu}", values, page)


def profiled(model: ContrastiveRecommender, X: pd.DataFrame, **features: Any) -> list[dict[str, Any]]:
    """Where the CPU seconds of a fit go.

    Returns
    -------
    list of dict
        A row a function: ``function``, with its module if it is of Python, ``calls``, ``own`` (CPU seconds in itself),
        ``all`` (with what it calls).
    """
    profile = cProfile.Profile(time.process_time)
    profile.runcall(model.fit, X, **features)
    stats: Any = pstats.Stats(profile)
    return [
        {
            "function": function.strip("<>") if file == "~" else f"{Path(file).stem}.{function}",
            "calls": calls,
            "own": own,
            "all": total,
        }
        for (file, _, function), (_, calls, own, total, _) in stats.stats.items()
    ]


def seconds_of(rows: list[dict[str, Any]], function: str) -> float:
    """CPU seconds of a function, with what it calls."""
    return float(sum(row["all"] for row in rows if row["function"] == function))


def profile(data: Any, seeds: Sequence[int]) -> Found:
    """The stages of one fit on all rows, what bounds them, and what requests take."""
    scaling.warm_up(OURS)
    X = data.interactions[["user_id", "item_id"]]
    model = flagship(random_state=seeds[0])
    rows = profiled(model, X, **features_of(data, seeds[0]))
    total = seconds_of(rows, "contrastive._fit")

    def cells(seconds: float) -> list[str]:
        return [f"{seconds:.2f}", f"{100 * seconds / total:.0f} %"]

    stages = {name: seconds_of(rows, name) for stage, parts in STAGES.items() for name in (stage, *parts)}
    of_stages = [[f"`{name}`" if name in STAGES else f"– `{name}`", *cells(spent)] for name, spent in stages.items()]
    busiest = sorted(rows, key=lambda row: -row["own"])[:N_BUSIEST]
    of_busiest = [[f"`{row['function']}`", f"{row['calls']:,}", *cells(row["own"])] for row in busiest]
    users = X["user_id"].unique()
    together = 1000 * cpu_seconds(model.recommend, users, 10) / len(users)
    alone = 1000 * float(np.median([cpu_seconds(model.recommend, [user], 10) for user in users[:ONE_BY_ONE]]))
    text = f"One fit, {total:.1f} CPU seconds.\n\n{as_table(['stage', 'CPU s', 'of all'], of_stages)}"
    text += f"\nMost time of their own:\n\n{as_table(['function', 'calls', 'CPU s', 'of all'], of_busiest)}\n"
    requests = [["all users at once", f"{together:.3f}"], ["one user", f"{alone:.2f}"]]
    text += as_table(["`recommend`, k = 10", "CPU ms a user"], requests)
    values = {"stages": [stages], "busiest": busiest, "recommend": [{"together": together, "alone": alone}]}
    return Found(text, values)


def growth(data: Any, seeds: Sequence[int]) -> Found:
    """CPU seconds of a fit by rows, and by items while rows and users stay as many; all generated."""
    scaling.warm_up(OURS)
    rows = [scaling.in_a_process(OURS, shape) for shape in scaling.SHAPES]
    by_rows = [
        [f"{row['rows']:,}", f"{row['cpu']:.1f}", f"{1e6 * row['cpu'] / row['rows']:.1f}", f"{row['mib']:.0f}"]
        for row in rows
    ]
    items = [_by_stage(shape, seeds[0]) for shape in CATALOGUES]
    by_items = [[f"{row['items']:,}", f"{row['met']:,}", *(f"{row[stage]:.1f}" for stage in GROWING)] for row in items]
    text = as_table(["rows", "CPU s", "µs a row", "MiB"], by_rows)
    text += f"\nExponent over rows: {scaling.exponent(rows):.2f}.\n\n"
    text += f"{CATALOGUES[0][0]:,} rows, {CATALOGUES[0][1]:,} users; CPU seconds of the stages:\n\n"
    text += as_table(["items", "of them in rows", *(f"`{stage}`" for stage in GROWING)], by_items)
    return Found(text, {"rows": rows, "items": items})


def _by_stage(shape: tuple[int, int, int], seed: int) -> dict[str, Any]:
    n_rows, n_users, n_items = shape
    data = make_movielens_like(n_users=n_users, n_items=n_items, n_interactions=n_rows, random_state=seed)
    X = data.interactions[["user_id", "item_id"]]
    found = profiled(flagship(random_state=seed), X)
    told = {"items": n_items, "met": X["item_id"].nunique()}
    return {**told, **{stage: seconds_of(found, stage) for stage in GROWING}}

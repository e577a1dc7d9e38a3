"""What ContrastiveRecommender does and why: one study a question.

``python -m benchmarks.flagship --study ablation --dataset ml-1m --seeds 3``

Each study prints its tables and writes them, as ``flagship-STUDY-DATASET``, to Markdown and JSON, and to a page where
it has charts. All ratings are positives; the whole catalogue is ranked but for what a user has, unless the scenario
says otherwise; differences are paired by user, with 95 % bootstrap intervals. The model has its defaults but for what
a study changes; `paper` and `first-five` take what `benchmarks.tune` chose, for all models alike.

`paper` is a reconstruction: the paper (arXiv 2502.03664) names MovieLens-1M, four baselines and four metrics, and
publishes neither splits nor thresholds. Here a fifth of all rows is tested ("random") and, of these, those of the fifth
of users with the fewest train rows ("sparse users"); a fifth of users is new, without and with five interactions, a
fifth of items is new, ranked by themselves and among all. Lists have ten items.

`rich-field` needs a field that tells much and leaks nothing: half of the users are set aside, and neither learned from
nor tested. From their interactions alone items are put into groups by k-means on singular vectors; the group is the
field. So new items of the other half have it too, as items of a shop have a category that somebody has thought about.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.utils.extmath import randomized_svd

from benchmarks.flagship_costs import (
    NDCG,
    OURS,
    SCENARIOS,
    TOWERS_ALONE,
    Found,
    accuracy_time,
    as_table,
    differences,
    flagship,
    growth,
    profile,
    refit,
)
from benchmarks.run import (
    RESULTS,
    environment,
    joined,
    read_movielens,
    records,
    remarks,
    scenario_table,
    splitters,
    tuned_models,
)
from recsys import BaseRecommender, FeatureTable
from recsys.evaluation import (
    Evaluation,
    Evaluator,
    ItemColdSplit,
    RandomSplit,
    Report,
    SparseSubset,
    UserColdSplit,
    field_weights,
)

# Studies by time, which the estimated timestamps of ML-1M touch; those of generated rows.
TIMED = ("ablation", "refit", "first-five")
GENERATED = ("scaling",)

ABLATED = ("random", "user-cold", "item-cold", "time")
# Each mechanism switched off by its own parameter.
WITHOUT: dict[str, dict[str, Any]] = {
    "no memory": {"memory_weight": 0.0},
    "no residual network": {"residual": False},
    "no towers": {"tower_weight": 0.0},
    "closed form alone": {"memory_weight": 0.0, "residual": False, "tower_weight": 0.0},
}
# Those of the towers, which have a small share: in the whole model, and where there is nothing else.
WITHOUT_IN_TOWERS: dict[str, dict[str, Any]] = {
    "no id dropout": {"id_dropout": 0.0},
    "no field dropout": {"field_dropout": 0.0},
    "no contrast": {"contrast_weight": 0.0},
}

RATES = np.logspace(-4, -1, 7)

N_JUNK, N_JUNK_VALUES = 10, 20
NEW_ITEMS_AND_FEW_SHOT = (ItemColdSplit(), UserColdSplit(k=(5,)))
# Of items in the rich field, at most, and the singular vectors that they are made from.
N_GROUPS, N_VECTORS = 50, 32

PAPER = ("MatrixFactorization", "LightGBMRecommender", "DeepFM", "AutoRec")
# By the scenario for which parameters were chosen.
SETTINGS: dict[str, tuple[Any, ...]] = {
    "random": (RandomSplit(test_size=0.2), SparseSubset()),
    "user-cold": (UserColdSplit(k=(0, 5)),),
    "item-cold": (ItemColdSplit(hot_test_size=0.1),),
}

Variants = Mapping[str, tuple[BaseRecommender, Any]]


def evaluated(variants: Variants, chosen: Sequence[Any], seeds: Sequence[int]) -> Evaluation:
    """Models that differ in parameters or in their data, on the same splits; the first is the baseline.

    Parameters
    ----------
    variants : dict of str to (estimator, Bunch)
        The interactions of all are the same.
    chosen : sequence of splitters
    seeds : sequence of int

    Returns
    -------
    Evaluation
    """
    parts = [
        Evaluator(chosen, seeds=seeds, baseline=name).evaluate({name: model}, data)
        for name, (model, data) in variants.items()
    ]
    found = joined(parts)
    return replace(found, splits=found.splits.drop_duplicates(ignore_index=True))


def with_features(data: Any, **frames: pd.DataFrame | None) -> Any:
    """The data with other frames of users or items, or with none."""
    return SimpleNamespace(**{"interactions": data.interactions, "users": data.users, "items": data.items, **frames})


def ablation(data: Any, seeds: Sequence[int]) -> Found:
    """Every mechanism switched off, against the full model; those of the towers also where these are alone."""
    chosen = [splitters()[name] for name in ABLATED]
    off = {**WITHOUT, **WITHOUT_IN_TOWERS}
    full: dict[str, tuple[BaseRecommender, Any]] = {"full model": (flagship(), data)}
    full |= {name: (flagship(**parameters), data) for name, parameters in off.items()}
    # New items are in the catalogue by a field that is the same for all.
    alike = data.items[["item_id"]].assign(kind="item")
    full["no attributes of users"] = flagship(), with_features(data, users=None)
    full["no metadata of items"] = flagship(), with_features(data, items=alike)
    alone: dict[str, tuple[BaseRecommender, Any]] = {"towers alone": (flagship(**TOWERS_ALONE), data)}
    alone |= {name: (flagship(**TOWERS_ALONE, **parts), data) for name, parts in WITHOUT_IN_TOWERS.items()}
    whole, towers = evaluated(full, chosen, seeds), evaluated(alone, chosen, seeds)
    text = f"{differences(whole)}\nTowers without what they stand beside:\n\n{differences(towers)}"
    values = {"full": records(whole.table()), "towers alone": records(towers.table())}
    return Found(text, values, Report(whole, title=f"{data.name}: ablation", ablation=whole))


def learning_rate(data: Any, seeds: Sequence[int]) -> Found:
    """NDCG@10 by the learning rate of the towers, in the share that they are given, and alone."""
    parts = []
    for name, parameters in {"": {}, ", towers alone": TOWERS_ALONE}.items():
        # A name is a rate, as the chart expects.
        candidates = {f"{rate:.2g}": flagship(**parameters, learning_rate=float(rate)) for rate in RATES}
        found = Evaluator(SCENARIOS, seeds=seeds, baseline=next(iter(candidates))).evaluate(candidates, data)
        frames: dict[str, Any] = {
            key: frame.assign(scenario=frame["scenario"] + name)
            for key, frame in vars(found).items()
            if isinstance(frame, pd.DataFrame)
        }
        parts.append(replace(found, **frames))
    evaluation = joined(parts)
    table = evaluation.table().query("metric == @NDCG and group == 'overall'")
    means = table.pivot_table("mean", "scenario", "model", sort=False)
    best = means.max(axis=1)
    rows = [
        [str(scenario), *(f"{value:.4f}" for value in row), str(means.columns[int(row.argmax())])]
        for scenario, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    text = as_table([f"{NDCG} by learning rate", *map(str, means.columns), "best"], rows)
    near = (means.to_numpy() >= 0.99 * best.to_numpy()[:, None]).sum(axis=1)
    text += "\nWithin 1 % of the best: " + ", ".join(
        f"{n} of {len(RATES)} ({name})" for name, n in zip(means.index, near, strict=True)
    )
    page = Report(evaluation, title=f"{data.name}: learning rates", learning_rates=evaluation)
    return Found(text + ".\n", {"results": records(evaluation.table())}, page)


def with_junk(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The frame with fields that tell nothing: categories drawn at random."""
    drawn = np.random.default_rng(seed).integers(N_JUNK_VALUES, size=(N_JUNK, len(frame)))
    return frame.assign(**{f"junk {i}": [f"v{value}" for value in row] for i, row in enumerate(drawn)})


def junk_field(data: Any, seeds: Sequence[int]) -> Found:
    """Ten random fields added to items, to users: the change for new items and few-shot users."""
    parts = []
    for seed in seeds:
        noisy = {
            "without": data,
            "ten random fields of items": with_features(data, items=with_junk(data.items, seed)),
            "ten random fields of users": with_features(data, users=with_junk(data.users, seed)),
        }
        variants = {name: (flagship(), each) for name, each in noisy.items()}
        parts.append(evaluated(variants, NEW_ITEMS_AND_FEW_SHOT, [seed]))
    of_items = with_features(data, items=with_junk(data.items, seeds[0]))
    return _with_weights(joined(parts), of_items, seeds[0], f"{data.name}: fields that tell nothing")


def with_rich_field(data: Any, seed: int) -> tuple[Any, Any]:
    """Half of the users, with and without a field of items that is made from the other half.

    Returns
    -------
    plain, rich : namespace
        The latter's items have the field "taste", missing where the other half has never met the item.
    """
    users = data.users["user_id"].to_numpy()
    aside = np.random.default_rng(seed).permutation(users)[: len(users) // 2]
    of_others = data.interactions["user_id"].isin(aside)
    told = data.interactions[of_others]
    user, item = pd.factorize(told["user_id"])[0], pd.factorize(told["item_id"])
    met = pd.Index(item[1])
    # Cosines, else the groups are of popularity.
    length = 1 / np.sqrt(np.bincount(item[0]))
    matrix = sparse.csr_matrix((length[item[0]], (item[0], user)), shape=(len(met), int(user.max()) + 1))
    left, values, _ = randomized_svd(matrix, min(N_VECTORS, min(matrix.shape) - 1), random_state=seed)
    n_groups = min(N_GROUPS, max(2, len(met) // 10))
    group = KMeans(n_groups, n_init=1, random_state=seed).fit_predict(left * values)
    names = pd.Series([f"taste {number}" for number in group], index=met)
    rest = SimpleNamespace(
        interactions=data.interactions[~of_others].reset_index(drop=True),
        users=data.users[~data.users["user_id"].isin(aside)].reset_index(drop=True),
        items=data.items,
    )
    return rest, with_features(rest, items=data.items.assign(taste=data.items["item_id"].map(names)))


def rich_field(data: Any, seeds: Sequence[int]) -> Found:
    """A field that tells much is added to items: whether it is found, and the rise."""
    parts = []
    for seed in seeds:
        plain, rich = with_rich_field(data, seed)
        variants = {"without": (flagship(), plain), "with the field": (flagship(), rich)}
        parts.append(evaluated(variants, NEW_ITEMS_AND_FEW_SHOT, [seed]))
    _, rich = with_rich_field(data, seeds[0])
    return _with_weights(joined(parts), rich, seeds[0], f"{data.name}: a field that tells much")


def _with_weights(evaluation: Evaluation, data: Any, seed: int, title: str) -> Found:
    """What a field changed, and how much a model heeds it and the others."""
    weights, of_closed_form = heeded(data, seed)
    gates = weights[weights["side"] == "item"].pivot_table("weight", "field", "group", sort=False, observed=True)
    by_field = [
        [str(name), *(f"{value:.3f}" for value in row)] for name, row in zip(gates.index, gates.to_numpy(), strict=True)
    ]
    terms = sorted(of_closed_form.items(), key=lambda term: -term[1])
    text = f"{differences(evaluation)}\nWeights that `explain` tells of fields of items:\n\n"
    text += as_table(["field", *map(str, gates.columns)], by_field)
    text += "\nWeights of fields, and of products of them, in the closed form:\n\n"
    text += as_table(["term", "weight"], [[name, f"{weight:.3f}"] for name, weight in terms])
    values = {"results": records(evaluation.table()), "weights": records(weights), "closed form": [of_closed_form]}
    return Found(text, values, Report(evaluation, title=title, weights=weights))


def heeded(data: Any, seed: int, n_pairs: int = 20_000) -> tuple[pd.DataFrame, dict[str, float]]:
    """How much a model heeds the fields of items that it learned from and of new ones; the same in its closed form."""
    X = data.interactions[["user_id", "item_id"]]
    split = next(iter(ItemColdSplit(random_state=seed).splits(X)))
    train, test = X.iloc[split.train], X.iloc[split.test]
    features = {"user_features": FeatureTable(data.users), "item_features": FeatureTable(data.items)}
    model = flagship(random_state=seed).fit(train, **features)
    pairs = [rows.sample(min(n_pairs, len(rows)), random_state=seed) for rows in (train, test)]
    return field_weights(model, pd.concat(pairs, ignore_index=True), train), model.content_weights_


def against_best(evaluation: Evaluation, others: Sequence[str], model: str = OURS) -> pd.DataFrame:
    """A model against the best of the others, in each scenario and metric.

    Parameters
    ----------
    evaluation : Evaluation
    others : sequence of str
    model : str, default="ContrastiveRecommender"

    Returns
    -------
    DataFrame
        Columns ``scenario``, ``metric``, ``best`` (its name), ``of_best``, ``mean``, ``difference``, ``low``, ``high``.
    """
    rows = []
    for scenario in evaluation.splits["scenario"].unique():
        for metric, values in evaluation.values_by_metric(scenario).items():
            means = values.mean()
            best = str(means[[name for name in others if name in means]].idxmax())
            between = evaluation.compare(model, best, scenario, metric)
            row = {"scenario": scenario, "metric": metric, "best": best, "of_best": means[best], "mean": means[model]}
            rows.append({**row, "difference": between.mean, "low": between.low, "high": between.high})
    return pd.DataFrame(rows)


def _against_best(found: pd.DataFrame) -> str:
    rows = [
        [
            *(str(row[key]) for key in ("scenario", "metric", "best")),
            *(f"{row[key]:.4f}" for key in ("of_best", "mean")),
            f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
            f"{100 * row['difference'] / row['of_best']:+.1f} %" if row["of_best"] else "-",
        ]
        for row in found.to_dict("records")
    ]
    return as_table(["scenario", "metric", "best other", "of it", OURS, "difference", "relative"], rows)


def _compared(evaluation: Evaluation, others: Sequence[str], title: str) -> Found:
    table, found = evaluation.table(), against_best(evaluation, others)
    text = _against_best(found)
    for scenario in evaluation.splits["scenario"].unique():
        text += "\n" + scenario_table(evaluation, table, scenario)
    values = {"against the best": records(found), "results": records(table), "costs": records(evaluation.costs)}
    return Found(text, values, Report(evaluation, title=title))


def paper(data: Any, seeds: Sequence[int]) -> Found:
    """The four models that the paper compares with, in the setting that is described above."""
    parts = []
    for scenario, chosen in SETTINGS.items():
        tuned = tuned_models(data.name, scenario)
        candidates = {name: tuned[name] for name in (*PAPER, OURS)}
        parts.append(Evaluator(chosen, seeds=seeds, baseline=OURS).evaluate(candidates, data))
    return _compared(joined(parts), PAPER, f"{data.name}: the models of the paper")


def first_five(data: Any, seeds: Sequence[int]) -> Found:
    """New users of whom the first five interactions by time are revealed, all models of the benchmark beside it."""
    candidates = tuned_models(data.name, "user-cold")
    splitter = UserColdSplit(k=(5,), query_size="rest", reveal="first")
    evaluation = Evaluator([splitter], seeds=seeds).evaluate(candidates, data)
    others = [name for name in candidates if name != OURS]
    return _compared(evaluation, others, f"{data.name}: the first five interactions")


STUDIES: dict[str, Callable[[Any, Sequence[int]], Found]] = {
    "ablation": ablation,
    "learning-rate": learning_rate,
    "refit": refit,
    "junk-field": junk_field,
    "rich-field": rich_field,
    "accuracy-time": accuracy_time,
    "profile": profile,
    "scaling": growth,
    "paper": paper,
    "first-five": first_five,
}


def notes(study: str, dataset: str, n_seeds: int) -> str:
    """What a reader must know of a result besides its tables."""
    if study in GENERATED:
        return ""
    told = remarks(dataset, n_seeds)
    kept = [each for each in told if study in TIMED or "timestamps" not in each]
    return "".join(f"{each}\n\n" for each in kept if study in ("paper", "first-five") or "Parameters" not in each)


def main(arguments: list[str] | None = None) -> None:
    """Run studies from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", nargs="+", choices=list(STUDIES), required=True)
    parser.add_argument("--dataset", default="ml-100k", help="ml-100k, ml-1m, ... (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; expected at least 1")
    data = read_movielens(parser, options.dataset)
    for study in options.study:
        started = time.perf_counter()
        found = STUDIES[study](data, range(options.seeds))
        seconds = time.perf_counter() - started
        dataset = "generated" if study in GENERATED else data.name
        text = f"# {dataset}: {study}\n\n{options.seeds} seed(s), {seconds:.0f} s.\n\n"
        text += notes(study, dataset, options.seeds) + found.text
        print(text)
        options.output.mkdir(parents=True, exist_ok=True)
        stem = options.output / f"flagship-{study}-{dataset}"
        stem.with_suffix(".md").write_text(text)
        about = {"dataset": dataset, "study": study, "seeds": options.seeds, "seconds": round(seconds, 1)}
        values = {**about, "environment": environment(), **found.values}
        stem.with_suffix(".json").write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")
        if found.page is not None:
            found.page.to_html(stem.with_suffix(".html"))
        print(f"Written: {stem}.md, {stem}.json")


if __name__ == "__main__":
    main()

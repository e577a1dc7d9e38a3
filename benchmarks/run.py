"""Fit every model on MovieLens, print one table a scenario, and write them as Markdown, JSON and a page.

``python -m benchmarks.run --dataset ml-100k --seeds 1``

Where `benchmarks.tune` has found parameters for a data set, a model has those of the scenario, others their defaults.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys import (
    EASE,
    AutoRec,
    BaseRecommender,
    ContentEASE,
    ContentKNN,
    ContrastiveRecommender,
    DeepFM,
    DemographicKNN,
    FeatureTable,
    LightGBMRecommender,
    MatrixFactorization,
    Popularity,
)
from recsys.datasets import fetch_movielens
from recsys.evaluation import (
    BothColdSplit,
    Evaluation,
    Evaluator,
    GlobalTimeSplit,
    ItemColdSplit,
    LeaveLastOut,
    RandomSplit,
    Report,
    UserColdSplit,
    field_weights,
    paired_bootstrap,
)
from recsys.evaluation.evaluation import OVERALL
from recsys.evaluation.report import environment as environment
from recsys.exceptions import DatasetError, InvalidInputError

RESULTS = Path(__file__).parent / "results"
TUNED = Path(__file__).parent / "tuned"
# Of so many seeds, from 0, `benchmarks.tune` leaves out the test rows.
TUNED_SEEDS = 3
README = Path(__file__).parents[1] / "README.md"
GROUPS = ("hot", "few-shot", "cold-start")
# Further groups, for the page.
APART = ("history", "popularity")


def models() -> dict[str, BaseRecommender]:
    """The models of the table, in its order."""
    return {
        "Popularity": Popularity(),
        "DemographicKNN": DemographicKNN(),
        "ContentKNN": ContentKNN(),
        "MatrixFactorization": MatrixFactorization(),
        "AutoRec": AutoRec(),
        "DeepFM": DeepFM(),
        "LightGBMRecommender": LightGBMRecommender(),
        "EASE": EASE(),
        "ContentEASE": ContentEASE(),
        "ContrastiveRecommender": ContrastiveRecommender(),
    }


def splitters() -> dict[str, Any]:
    """The scenarios, by the name they are chosen with."""
    return {
        "leave-last-out": LeaveLastOut(),
        "random": RandomSplit(),
        "time": GlobalTimeSplit(),
        "user-cold": UserColdSplit(),
        "item-cold": ItemColdSplit(hot_test_size=0.1),
    }


def tuned_models(dataset: str, scenario: str) -> dict[str, BaseRecommender]:
    """The models of the table with the parameters that were chosen for a scenario.

    Parameters
    ----------
    dataset : str
    scenario : str
        A key of `splitters`.

    Returns
    -------
    dict of str to BaseRecommender
    """
    chosen, file = models(), TUNED / f"{dataset}.json"
    known = json.loads(file.read_text())["models"] if file.exists() else {}
    return {
        name: model.set_params(**known.get(name, {}).get(scenario, {}).get("params", {}))
        for name, model in chosen.items()
    }


def joined(parts: list[Evaluation]) -> Evaluation:
    """The evaluations of several scenarios as one."""
    frames = {
        name: pd.concat([getattr(part, name) for part in parts], ignore_index=True)
        for name in ("per_user", "costs", "splits", "failures")
    }
    return replace(parts[0], **frames)


def flagship_weights(name: str, data: Any, n_pairs: int = 20_000) -> pd.DataFrame:
    """How much ContrastiveRecommender heeds each field, of users and items that it learned from and of new ones.

    Parameters
    ----------
    name : str
        Of the data set.
    data : Bunch
    n_pairs : int, default=20_000
        Train rows and test rows that are explained, at most so many of each.

    Returns
    -------
    DataFrame
        As `field_weights` returns it. Every other new user comes with two interactions.
    """
    X = data.interactions[["user_id", "item_id"]]
    [split] = BothColdSplit(k=(2,), random_state=0).splits(X)
    train, revealed, test = X.iloc[split.train], X.iloc[split.revealed], X.iloc[split.test]
    features = {"user_features": FeatureTable(data.users), "item_features": FeatureTable(data.items)}
    model = tuned_models(name, "user-cold")["ContrastiveRecommender"].set_params(random_state=0)
    model.fit(train, **features)
    few_shot = revealed[revealed["user_id"].isin(revealed["user_id"].unique()[::2])]
    parts = [rows.sample(min(n_pairs, len(rows)), random_state=0) for rows in (train, test)]
    return field_weights(model, pd.concat(parts, ignore_index=True), train, few_shot)


def scenario_table(evaluation: Evaluation, table: pd.DataFrame, scenario: str) -> str:
    """The Markdown table of one scenario.

    Parameters
    ----------
    evaluation : Evaluation
    table : DataFrame
        ``evaluation.table()``.
    scenario : str

    Returns
    -------
    str
    """
    rows = table[table["scenario"] == scenario]
    costs = (
        evaluation.costs[evaluation.costs["scenario"] == scenario].groupby("model", sort=False).mean(numeric_only=True)
    )
    ndcg = next(name for name in evaluation.metrics if name.startswith("NDCG"))
    groups = [group for group in GROUPS if (rows["group"] == group).any()]
    header = ["model", *evaluation.metrics, f"{ndcg} above {evaluation.baseline}"]
    header += [f"{ndcg} {group}" for group in groups]
    header += ["fit s", "recommend s", "peak MiB"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for model, found in rows.groupby("model", sort=False):
        overall = found[found["group"] == "overall"].set_index("metric")
        if error := overall["error"].iloc[0]:
            lines.append([str(model), f"failed: {error}", *[""] * (len(header) - 2)])
            continue
        cells = [f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]" for _, row in overall.iterrows()]
        best = overall.loc[ndcg]
        above = f"{best['difference']:+.4f} [{best['difference_low']:+.4f}, {best['difference_high']:+.4f}]"
        cells.append("" if np.isnan(best["difference"]) else above)
        by_group = found[found["metric"] == ndcg].set_index("group")["mean"]
        cells += [f"{by_group[group]:.4f}" for group in groups]
        cost = costs.loc[str(model)]
        cells += [f"{cost['fit_seconds']:.1f}", f"{cost['recommend_seconds']:.2f}", f"{cost['peak_mib']:.0f}"]
        lines.append([str(model), *cells])
    users = int(rows[rows["group"] == "overall"]["n_users"].max())
    caption = f"### {scenario} ({users:,} users)"
    return caption + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def summary_table(evaluation: Evaluation, table: pd.DataFrame) -> str:
    """One Markdown table of all scenarios: NDCG of all test rows, the best bold with those it does not beat for sure.

    Parameters
    ----------
    evaluation : Evaluation
    table : DataFrame
        ``evaluation.table()``.

    Returns
    -------
    str
    """
    ndcg = next(name for name in evaluation.metrics if name.startswith("NDCG"))
    overall = table[(table["group"] == "overall") & (table["metric"] == ndcg)]
    order = list(dict.fromkeys([*evaluation.costs["model"], *overall["model"]]))
    lines = [[ndcg, *order], ["---", *["---:"] * len(order)]]
    for scenario in overall["scenario"].unique():
        values = evaluation.values(scenario, ndcg)
        best = values.mean().idxmax()
        ahead = paired_bootstrap(
            np.tile(values[[best]].to_numpy(), values.shape[1]),
            values.to_numpy(),
            n_resamples=evaluation.n_resamples,
            confidence=evaluation.confidence,
            random_state=0,
        )
        cells = {
            model: f"{mean:.3f}" if low > 0 else f"**{mean:.3f}**"
            for (model, mean), low in zip(values.mean().items(), np.atleast_1d(ahead.low), strict=True)
        }
        lines.append([scenario, *(cells.get(model, "failed") for model in order)])
    fits = evaluation.costs.drop_duplicates(["model", "seed", "fit_seconds"]).groupby("model", sort=False)[
        "fit_seconds"
    ]
    medians = fits.median().reindex(order)
    lines.append(["median fit, seconds", *("" if np.isnan(seconds) else f"{seconds:.1f}" for seconds in medians)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def remarks(name: str, n_seeds: int) -> list[str]:
    """What a reader must know of the results on a data set.

    Parameters
    ----------
    name : str
        Of the data set.
    n_seeds : int

    Returns
    -------
    list of str
    """
    found = []
    if name == "ml-1m":
        found.append("ML-1M, 7.9 % of timestamps estimated: this touches the scenarios split by time.")
    if (TUNED / f"{name}.json").exists():
        logs = json.loads((TUNED / f"{name}.json").read_text())["models"].values()
        unseen = min((entry.get("unseen_seeds", 0) for log in logs for entry in log.values()), default=0)
        seen = "" if n_seeds <= unseen else f", where test rows of the seeds from {unseen} on were among them"
        found.append(f"Parameters were chosen on validation rows: ``benchmarks/tuned/{name}.json``{seen}.")
    return found


def report(
    evaluation: Evaluation, table: pd.DataFrame, data: Any, name: str, n_seeds: int, seconds: float
) -> tuple[str, dict[str, Any]]:
    """The whole result as Markdown and as JSON values.

    Parameters
    ----------
    evaluation : Evaluation
    table : DataFrame
        ``evaluation.table()``.
    data : Bunch
    name : str
        Of the data set.
    n_seeds : int
    seconds : float
        That all of it took.

    Returns
    -------
    markdown : str
    values : dict
    """
    about, n = environment(), len(data.interactions)
    lines = [
        f"# {name}: {n:,} interactions, {data.users.shape[0]:,} users, {data.items.shape[0]:,} items\n",
        f"All ratings are positives; whole catalogue but for what a user has seen, unless the scenario says otherwise; "
        f"{n_seeds} seed(s); means over users with {evaluation.confidence:.0%} bootstrap intervals; differences "
        f"paired by user. Groups are of test rows. Memory is what fit or recommend added to the process. Took "
        f"{seconds:.0f} s on {about['cores']} cores.\n",
    ]
    lines += [f"{remark}\n" for remark in remarks(name, n_seeds)]
    lines.append(
        "Bold: the best of the row, and those whose difference from it, user by user, may be 0 (its interval reaches "
        "0).\n"
    )
    lines.append(summary_table(evaluation, table))
    lines += [scenario_table(evaluation, table, scenario) for scenario in table["scenario"].unique()]
    values = {
        "dataset": name,
        "environment": about,
        "seconds": round(seconds, 1),
        "splits": evaluation.splits.to_dict("records"),
        "results": records(table[table["group"].isin([OVERALL, *GROUPS])]),
        "costs": records(evaluation.costs),
    }
    return "\n".join(lines), values


def with_table(text: str, name: str, table: str) -> str:
    """A text with a new table between its marks, so that the README shows what was measured and nothing else.

    Parameters
    ----------
    text : str
    name : str
        Of the data set, as in the mark ``<!-- table: ml-100k -->``. A text without that mark stays as it is.
    table : str
        Markdown.

    Returns
    -------
    str
    """
    marks = rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end of table -->)"
    return re.sub(marks, lambda found: found[1] + table + found[2], text, flags=re.DOTALL)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as JSON values, which know no NaN."""
    rounded = frame.round(6)
    return [
        {str(key): None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
        for row in rounded.to_dict("records")
    ]


def read_movielens(parser: argparse.ArgumentParser, name: str) -> Any:
    """The data set that ``--dataset`` names; where it is not to be had, the parser says why and exits."""
    try:
        return fetch_movielens(name)
    except (DatasetError, InvalidInputError) as error:
        parser.error(f"--dataset: {error}")


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-100k", help="ml-100k, ml-1m, ... (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0 (default: %(default)s)")
    parser.add_argument("--models", nargs="+", choices=list(models()), default=list(models()))
    parser.add_argument("--scenarios", nargs="+", choices=list(splitters()), default=list(splitters()))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; expected at least 1")
    [existing, *_] = [path for path in (options.output, *options.output.parents) if path.exists()]
    if not existing.is_dir():
        parser.error(f"--output is {options.output}, but {existing} is a file; expected a folder, or a new one in one")
    started = time.perf_counter()
    data = read_movielens(parser, options.dataset)
    name = data.name
    parts = []
    for scenario in options.scenarios:
        chosen = {
            label: model
            for label, model in tuned_models(name, scenario).items()
            if label in options.models or label == "Popularity"
        }
        evaluator = Evaluator([splitters()[scenario]], seeds=range(options.seeds), groups=APART, verbose=True)
        parts.append(evaluator.evaluate(chosen, data))
    evaluation = joined(parts)
    sizes = f"{len(data.interactions):,} interactions of {len(data.users):,} users with {len(data.items):,} items."
    notes = [sizes, "All ratings are positives.", *remarks(name, options.seeds)]
    complete = set(options.models) == set(models()) and set(options.scenarios) == set(splitters())
    weights = None
    if complete:
        weights = flagship_weights(name, data)
        notes.append("The weights of fields are ContrastiveRecommender's.")
    page = Report(evaluation, title=name, notes=" ".join(notes).replace("``", ""), weights=weights)
    # It holds `evaluation.table()`, and more, which the page alone shows.
    table = page.frame().loc[:, :"error"]
    markdown, values = report(evaluation, table, data, name, options.seeds, time.perf_counter() - started)
    print(markdown)
    if not complete:
        print("A part of the models or scenarios was run: nothing is written.")
        return
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / name
    stem.with_suffix(".md").write_text(markdown)
    stem.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    page.to_html(stem.with_suffix(".html"))
    print(f"Written: {stem}.md, {stem}.json and {stem}.html")
    text = README.read_text()
    if options.output == RESULTS and f"<!-- table: {name} -->" in text:
        README.write_text(with_table(text, name, summary_table(evaluation, table)))
        print(f"Written: the table in {README}")


if __name__ == "__main__":
    main()

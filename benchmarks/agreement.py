"""Whether the Evaluator's figures are those of RecTools and LensKit, from the same recommendations.

``python -m benchmarks.agreement --dataset ml-1m``

What models recommend is judged by our `Evaluator`, and by the libraries that can be imported, with the documented
differences (docs/metrics.md) taken out, user by user. An environment may lack one of them: what earlier runs found of
it is kept.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys import EASE, BaseRecommender, MatrixFactorization, Popularity
from recsys.datasets import fetch_movielens
from recsys.evaluation import Evaluator, GlobalTimeSplit, LeaveLastOut, RandomSplit

RESULTS = Path(__file__).parent / "results"
METRICS = ["HR", "Recall", "Precision", "NDCG", "MRR", "MAP"]
K = 10
BOUND = 1e-9


def models() -> dict[str, BaseRecommender]:
    """The models that are judged."""
    return {"Popularity": Popularity(), "EASE": EASE(), "MatrixFactorization": MatrixFactorization(random_state=0)}


def rectools(recommended: pd.DataFrame, liked: pd.DataFrame) -> pd.DataFrame:
    """RecTools' values of each user; its MAP is divided by n, also when n > K."""
    theirs: Any = import_module("rectools.metrics")
    metrics = {
        "HR": theirs.HitRate(K),
        "Recall": theirs.Recall(K),
        "Precision": theirs.Precision(K),
        "NDCG": theirs.NDCG(K, divide_by_achievable=True),
        "MRR": theirs.MRR(K),
        "MAP": theirs.MAP(K),
    }
    found = pd.DataFrame({name: metric.calc_per_user(recommended, liked) for name, metric in metrics.items()})
    n = liked.groupby("user_id").size()
    return found.assign(MAP=found["MAP"] * n / n.clip(upper=K))


def lenskit(recommended: pd.DataFrame, liked: pd.DataFrame) -> pd.DataFrame:
    """LensKit's values of each user; it divides by min(K, n), the length of the list, and the smaller of n and that."""
    theirs, ranking = import_module("lenskit.metrics"), import_module("lenskit.metrics.ranking")
    data: Any = import_module("lenskit.data")
    metrics = {
        "HR": theirs.Hit(K),
        "Recall": theirs.Recall(K),
        "Precision": theirs.Precision(K),
        "NDCG": theirs.NDCG(K, weight=ranking.LogRankWeight(offset=1)),
        "MRR": theirs.RecipRank(K),
        "MAP": ranking.AveragePrecision(K),
    }
    collect: Any = data.ItemListCollection.from_df
    lists, test = (collect(frame, ["user_id"]) for frame in (recommended.sort_values(["user_id", "rank"]), liked))
    found = {}
    for name, metric in metrics.items():
        analysis = theirs.RunAnalysis()
        analysis.add_metric(metric)
        values = analysis.measure(lists, test).list_metrics().iloc[:, 0]
        found[name] = values.set_axis(values.index.get_level_values("user_id"))
    table = pd.DataFrame(found)
    n, length = (frame.groupby("user_id").size() for frame in (liked, recommended))
    least = n.clip(upper=K)
    return table.assign(
        Recall=table["Recall"] * least / n,
        Precision=table["Precision"] * length / K,
        MAP=table["MAP"] * pd.concat([n, length], axis=1).min(axis=1) / least,
    )


LIBRARIES: dict[str, Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]] = {"rectools": rectools, "lenskit": lenskit}


def differences(name: str, data: Any) -> Iterator[dict[str, Any]]:
    """The largest difference of any user's value, one row a scenario and model."""
    for splitter in (LeaveLastOut(), RandomSplit(random_state=0), GlobalTimeSplit()):
        pairs = data.interactions[["user_id", "item_id"]]
        [split] = splitter.splits(pairs, groups=data.interactions["timestamp"])
        train, test = pairs.iloc[split.train], pairs.iloc[split.test].reset_index(drop=True)
        asked = test["user_id"].unique()
        lists = {label: model.fit(train).recommend(asked, k=K) for label, model in models().items()}
        found = Evaluator([splitter], metrics=METRICS, k=K).evaluate(lists, data).per_user
        ours = found[found["group"] == "overall"].set_index("user_id").rename(columns=lambda each: each.split("@")[0])
        for label, recommended in lists.items():
            mine = ours.loc[ours["model"] == label, METRICS]
            theirs = LIBRARIES[name](recommended, test).reindex(mine.index)
            # NaN, of a user whom a library leaves out, is no agreement.
            largest = (theirs - mine).abs().max(skipna=False)
            yield {"scenario": split.name, "model": label, "n_users": len(mine), **largest}


def markdown(found: dict[str, Any], dataset: str) -> str:
    """The result as Markdown."""
    lines = [
        f"# {dataset}: the Evaluator beside other libraries, K = {K}\n",
        "The largest difference of any user's value, from the same recommendations, after the documented differences "
        "are taken out.",
    ]
    head = ["scenario", "model", "users", *METRICS]
    for name, part in found.items():
        lines += [f"\n## {name} {part['version']}\n", f"| {' | '.join(head)} |"]
        lines.append(f"| --- | --- |{' ---: |' * (len(METRICS) + 1)}")
        for row in part["rows"]:
            cells = [row["scenario"], row["model"], f"{row['n_users']:,}", *(f"{row[each]:.1e}" for each in METRICS)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Compare from the command line with what can be imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-1m", help="ml-100k, ml-1m, ... (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    data = fetch_movielens(options.dataset)
    stem = options.output / f"agreement-{data.name}"
    stored = stem.with_suffix(".json")
    found: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    warnings.simplefilter("ignore")
    for name in LIBRARIES:
        try:
            import_module(name)
        except ImportError as error:
            print(f"{name}: not compared here ({error})")
            continue
        found[name] = {"version": version(name), "rows": list(differences(name, data))}
    text = markdown(found, data.name)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(text)
    stored.write_text(json.dumps(found, indent=1) + "\n")
    worst = [row[each] for part in found.values() for row in part["rows"] for each in METRICS]
    if not all(value <= BOUND for value in worst):
        raise SystemExit(f"Differences of {np.max(worst):.1e}; expected at most {BOUND:.0e}.")
    print(f"Written: {stem.with_suffix('.md')} and {stored}")


if __name__ == "__main__":
    main()

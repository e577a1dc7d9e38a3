"""Two stages beside each of them alone: accuracy, latency, and what diversity and exploration cost and bring.

``python -m benchmarks.two_stage --dataset ml-1m --seeds 3``

ContrastiveRecommender retrieves, LightGBMRecommender or DeepFM orders; all have the parameters of `benchmarks.run`. The
stages alone are those of the fitted pair, so that nothing differs but how they are put together. A user whom several
seeds test counts once, with the mean. With three seeds, the default, and both rankers the tables are also written.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.run import RESULTS, environment, read_movielens, splitters, tuned_models
from recsys import BaseRecommender, FeatureTable, TwoStageRecommender
from recsys.evaluation import paired_bootstrap, ranking_metrics
from recsys.evaluation.beyond_accuracy import cold_exposure, coverage, intra_list_diversity
from recsys.exceptions import ColdStartWarning

RETRIEVER = "ContrastiveRecommender"
RANKERS = ("LightGBMRecommender", "DeepFM")
SCENARIOS = ("random", "user-cold")
K = 10
# Those of the written tables.
SEEDS = 3
DIVERSITY = (0.0, 0.1, 0.2, 0.3, 0.5)
EXPLORATION = (0.0, 0.25, 0.5, 1.0, 2.0)
# Requests of one user that are timed.
REQUESTS = 500

Row = dict[str, Any]
Features = dict[str, FeatureTable]


class Data:
    """Interactions and features, the latter shuffled by seed: equal scores rank in catalogue order."""

    def __init__(self, data: Any, seed: int) -> None:
        self.X = data.interactions[["user_id", "item_id"]]
        self.seed = seed
        self.features = {
            "user_features": FeatureTable(data.users.sample(frac=1, random_state=seed)),
            "item_features": FeatureTable(data.items.sample(frac=1, random_state=seed)),
        }

    def train(self, at: Any) -> pd.DataFrame:
        """Rows in random order: the first to come is the first of the catalogue."""
        rows: pd.DataFrame = self.X.iloc[at].sample(frac=1, random_state=self.seed)
        return rows


def pair(name: str, scenario: str, ranker: str, seed: int) -> TwoStageRecommender:
    """Two stages with the parameters that were chosen for a scenario."""
    models = tuned_models(name, scenario)
    return TwoStageRecommender(retriever=models[RETRIEVER], ranker=models[ranker], random_state=seed)


def asked(model: BaseRecommender, users: Any, **options: Any) -> pd.DataFrame:
    """Lists of ten."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        return model.recommend(users, K, **options)


def accuracy(name: str, scenario: str, ranker: str, data: Data) -> tuple[list[Row], TwoStageRecommender]:
    """NDCG@10 of each user, by both stages and by the two together; and the fitted pair."""
    splits = list(replace(splitters()[scenario], random_state=data.seed).splits(data.X))
    model = pair(name, scenario, ranker, data.seed).fit(data.train(splits[0].train), **data.features)
    rows: list[Row] = []
    for split in splits:
        test = data.X.iloc[split.test]
        options = {"interactions": data.X.iloc[split.revealed]} if len(split.revealed) else {}
        for part, asks in (("retriever", model.retriever_), ("ranker alone", model.ranker_), ("two stages", model)):
            found = ranking_metrics(asked(asks, test["user_id"].unique(), **options), test, K, ["NDCG"])
            told = {"scenario": split.name, "ranker": ranker, "model": part, "seed": data.seed}
            weights = model.ranker_weight_.round(1).tolist()
            rows += [
                {**told, "user": user, "NDCG": value, "weights": weights} for user, value in found[f"NDCG@{K}"].items()
            ]
    return rows, model


def compared(rows: pd.DataFrame) -> list[Row]:
    """Means over users, and how far two stages are ahead of the better one, user by user."""
    found = []
    for (scenario, ranker), part in rows.groupby(["scenario", "ranker"], sort=False):
        values = part.groupby(["user", "model"])["NDCG"].mean().unstack()
        better = values[["retriever", "ranker alone"]].mean().idxmax()
        ahead = paired_bootstrap(values["two stages"], values[better], random_state=0)
        found.append(
            {
                "scenario": scenario,
                "ranker": ranker,
                "users": len(values),
                **{model: float(values[model].mean()) for model in ("retriever", "ranker alone", "two stages")},
                "better": better,
                "ahead": [float(bound) for bound in ahead],
                "weights": part.drop_duplicates("seed")["weights"].tolist(),
            }
        )
    return found


def latency(model: TwoStageRecommender, ranker: str) -> Iterator[Row]:
    """Milliseconds of a request of one user, and users a second of one request of all."""
    users = np.random.default_rng(0).permutation(np.asarray(model.users_.ids))
    for part, asks in (("retriever", model.retriever_), ("ranker alone", model.ranker_), ("two stages", model)):
        single = [timed(asks, users[[i % len(users)]]) for i in range(REQUESTS)]
        yield {
            "ranker": ranker,
            "model": part,
            "median ms": 1000 * float(np.median(single)),
            "99th percentile ms": 1000 * float(np.quantile(single, 0.99)),
            "users a second": len(users) / min(timed(asks, users) for _ in range(3)),
        }


def timed(model: BaseRecommender, users: Any) -> float:
    """Seconds that a request takes."""
    started = time.perf_counter()
    model.recommend(users, K)
    return time.perf_counter() - started


def trade_offs(name: str, data: Data) -> Iterator[Row]:
    """What diversity and exploration cost in accuracy and bring in variety and in exposure of new items.

    A fifth of the items is new, a tenth of the rows of the others is tested too, and all compete.
    """
    split = list(replace(splitters()["item-cold"], random_state=data.seed).splits(data.X))[1]
    test = data.X.iloc[split.test]
    model = pair(name, "item-cold", RANKERS[0], data.seed).fit(data.train(split.train), **data.features)
    new = model.evidence_ == 0
    of_new = model.items_.encode(pd.Index(test["item_id"]))
    content, users = model.item_features_.matrix, test["user_id"].unique()
    settings = [("diversity", value) for value in DIVERSITY] + [("exploration", value) for value in EXPLORATION[1:]]
    for parameter, value in settings:
        # Both are for answers alone: no need to fit anew.
        model.diversity_, model.exploration_ = 0.0, 0.0
        setattr(model, f"{parameter}_", value)
        found = asked(model, users)
        lists = model.items_.encode(pd.Index(found["item_id"])).reshape(len(users), -1)
        parts = {"NDCG@10": test, "NDCG@10, known items": test[~new[of_new]], "NDCG@10, new items": test[new[of_new]]}
        yield {
            "seed": data.seed,
            "parameter": parameter,
            "value": value,
            **{told: float(ranking_metrics(found, rows, K, ["NDCG"]).mean().iloc[0]) for told, rows in parts.items()},
            "exposure of new items": cold_exposure(lists, new),
            "coverage": coverage(lists, len(new)),
            "intra-list diversity": float(np.nanmean(intra_list_diversity(lists, content))),
        }


def table(rows: list[Row]) -> str:
    """Rows as Markdown, numbers to four digits.

    Examples
    --------
    >>> print(table([{"model": "ours", "value": 0.5}]).splitlines()[-1])
    | ours | 0.5000 |
    """
    cells = [[f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    rule = ["---:" if isinstance(value, (int, float)) else "---" for value in rows[0].values()]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(rows[0]), rule, *cells]) + "\n"


def markdown(name: str, n_seeds: int, found: list[Row], speeds: list[Row], offers: list[Row], seconds: float) -> str:
    """All tables."""
    shown = [
        {
            "scenario": row["scenario"],
            "ranker": row["ranker"],
            "users": row["users"],
            **{f"NDCG@{K}, {part}": row[part] for part in ("retriever", "ranker alone", "two stages")},
            "ahead of the better [95 %]": "{:+.4f} [{:+.4f}, {:+.4f}]".format(*row["ahead"]),
            "share of the ranker: hot, few-shot, warm": "; ".join(map(str, row["weights"])),
        }
        for row in found
    ]
    told = pd.DataFrame(offers).groupby(["parameter", "value"], sort=False).mean().drop(columns="seed").reset_index()
    trade = [{str(key): value for key, value in row.items()} for row in told.to_dict("records")]
    return "\n".join(
        [
            f"# {name}: two stages\n",
            f"{RETRIEVER} retrieves; {n_seeds} seed(s); {seconds:.0f} s.\n",
            table(shown),
            f"## Latency\n\n{REQUESTS} requests of one user, one after the other; then all users in one request.\n",
            table(
                [
                    {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}
                    for row in speeds
                ]
            ),
            f"## Diversity and exploration\n\nNew items compete with all others; {RANKERS[0]} orders.\n",
            table(trade),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Compare from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-1m", help="ml-100k, ml-1m, ... (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds, from 0 (default: %(default)s)")
    parser.add_argument("--rankers", nargs="+", choices=RANKERS, default=list(RANKERS))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the written tables")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; expected at least 1")
    data, started = read_movielens(parser, options.dataset), time.perf_counter()
    rows: list[Row] = []
    speeds: list[Row] = []
    offers: list[Row] = []
    for seed in range(options.seeds):
        shuffled = Data(data, seed)
        for ranker in options.rankers:
            for scenario in SCENARIOS:
                found, model = accuracy(data.name, scenario, ranker, shuffled)
                rows += found
                if seed == 0 and scenario == "random":
                    speeds += latency(model, ranker)
        offers += trade_offs(data.name, shuffled)
    seconds, summary = time.perf_counter() - started, compared(pd.DataFrame(rows))
    text = markdown(data.name, options.seeds, summary, speeds, offers, seconds)
    print(text)
    if options.seeds != SEEDS or set(options.rankers) != set(RANKERS):
        print(f"Not {SEEDS} seeds of all rankers were run: nothing is written.")
        return
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / f"two-stage-{data.name}"
    target.with_suffix(".md").write_text(text)
    values = {
        "environment": environment(),
        "seconds": round(seconds, 1),
        "results": summary,
        "latency": speeds,
        "trade-offs": offers,
    }
    target.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()

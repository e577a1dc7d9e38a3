"""Tune every model with the same number of trials a scenario, on validation rows alone.

``python -m benchmarks.tune --dataset ml-100k --trials 12``

A trial fits a model on a part of the train rows of a scenario (of seed 0) and is judged by the NDCG@10 of another part,
which the scenario's own splitter has cut out: held-out last rows, new users, new items. The test rows are never seen.
The first trial is the defaults, the others are drawn by a seeded tree-structured Parzen estimator. Chosen parameters
and the log of all trials go to ``benchmarks/tuned/DATASET.json``, which ``make benchmark`` uses.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna

from benchmarks.run import TUNED, environment, models, splitters
from recsys import BaseRecommender
from recsys.datasets import fetch_movielens
from recsys.evaluation import Evaluator

Parameters = dict[str, Any]


def _mf(trial: optuna.Trial) -> Parameters:
    return {
        "n_factors": trial.suggest_categorical("n_factors", [32, 64, 96, 128]),
        "alpha": trial.suggest_float("alpha", 0.5, 10, log=True),
        "l2": trial.suggest_float("l2", 5, 100, log=True),
        "feature_l2": trial.suggest_float("feature_l2", 3, 100, log=True),
    }


def _ease(trial: optuna.Trial) -> Parameters:
    return {"l2": trial.suggest_float("l2", 50, 3000, log=True)}


def _content_ease(trial: optuna.Trial) -> Parameters:
    return {
        "l2": trial.suggest_float("l2", 50, 3000, log=True),
        "attribute_l2": trial.suggest_float("attribute_l2", 30, 3000, log=True),
    }


def _content_knn(trial: optuna.Trial) -> Parameters:
    return {"n_neighbors": trial.suggest_int("n_neighbors", 5, 500, log=True)}


def _demographic_knn(trial: optuna.Trial) -> Parameters:
    return {"n_neighbors": trial.suggest_int("n_neighbors", 20, 2000, log=True)}


def _autorec(trial: optuna.Trial) -> Parameters:
    return {
        "n_factors": trial.suggest_categorical("n_factors", [64, 128, 256]),
        "max_iter": trial.suggest_int("max_iter", 10, 60, log=True),
        "l2": trial.suggest_float("l2", 0.5, 20, log=True),
        "unobserved_weight": trial.suggest_float("unobserved_weight", 0.05, 1, log=True),
    }


def _deepfm(trial: optuna.Trial) -> Parameters:
    return {
        "max_iter": trial.suggest_int("max_iter", 3, 12, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "n_negatives": trial.suggest_int("n_negatives", 2, 16, log=True),
    }


def _lightgbm(trial: optuna.Trial) -> Parameters:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 30, 200, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 7, 63, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "n_negatives": trial.suggest_int("n_negatives", 4, 40, log=True),
    }


def _contrastive(trial: optuna.Trial) -> Parameters:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True),
        "max_iter": trial.suggest_int("max_iter", 10, 60, log=True),
        "id_dropout": trial.suggest_float("id_dropout", 0.2, 0.8),
        "contrast_weight": trial.suggest_float("contrast_weight", 0.1, 2, log=True),
    }


SPACES: dict[str, Callable[[optuna.Trial], Parameters]] = {
    "ContentKNN": _content_knn,
    "DemographicKNN": _demographic_knn,
    "MatrixFactorization": _mf,
    "AutoRec": _autorec,
    "DeepFM": _deepfm,
    "LightGBMRecommender": _lightgbm,
    "EASE": _ease,
    "ContentEASE": _content_ease,
    "ContrastiveRecommender": _contrastive,
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
    """The data with the train rows of a scenario alone."""
    rows = data.interactions
    seeded = (
        splitter if not hasattr(splitter, "random_state") else type(splitter)(**vars(splitter) | {"random_state": 0})
    )
    split = next(iter(seeded.splits(rows[["user_id", "item_id"]], groups=rows["timestamp"])))
    train = rows.iloc[np.sort(split.train)].reset_index(drop=True)
    return SimpleNamespace(interactions=train, users=data.users, items=data.items)


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
        ``params``, ``value``, ``default_value`` and ``trials``, the log.
    """
    default = models()[name]

    def objective(trial: optuna.Trial) -> float:
        # The first trial is the defaults, which need not lie in the space.
        params = {} if trial.number == 0 else SPACES[name](trial)
        model = models()[name].set_params(**params)
        if "random_state" in default.get_params():
            model.set_params(random_state=seed)
        trial.set_user_attr("params", params)
        return validation_value(model, splitter, data)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=n_trials)
    log = [{"params": trial.user_attrs["params"], "value": round(trial.value or 0.0, 6)} for trial in study.trials]
    best = max(log, key=lambda entry: entry["value"])
    return {"params": best["params"], "value": best["value"], "default_value": log[0]["value"], "trials": log}


def main(arguments: list[str] | None = None) -> None:
    """Tune from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-100k", help="ml-100k, ml-1m, ... (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=12, help="of each model in each scenario (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the search (default: %(default)s)")
    parser.add_argument("--models", nargs="+", choices=list(SPACES), default=list(SPACES))
    parser.add_argument("--scenarios", nargs="+", choices=list(splitters()), default=list(splitters()))
    options = parser.parse_args(arguments)
    if options.trials < 1:
        parser.error(f"--trials is {options.trials}; expected at least 1")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    data = fetch_movielens(options.dataset)
    target = TUNED / f"{data.name}.json"
    known = json.loads(target.read_text()) if target.exists() else {"models": {}}
    known.update(dataset=data.name, environment=environment())
    for scenario in options.scenarios:
        splitter = splitters()[scenario]
        inner = without_test(splitter, data)
        for name in options.models:
            started = time.perf_counter()
            found = tune(name, splitter, inner, options.trials, options.seed)
            found = {"n_trials": options.trials, "seed": options.seed, **found}
            known["models"].setdefault(name, {})[scenario] = found
            print(
                f"{scenario}, {name}: {found['value']:.4f} (defaults {found['default_value']:.4f}) with "
                f"{found['params'] or 'the defaults'}, {time.perf_counter() - started:.0f} s",
                flush=True,
            )
            # What is found is kept, so that a long search may be broken off.
            TUNED.mkdir(exist_ok=True)
            target.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

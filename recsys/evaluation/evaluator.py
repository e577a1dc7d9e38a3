"""The evaluator: every model in every scenario with every seed, and how sure we are."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from recsys._kinds import without_arrow
from recsys._requests import read_k
from recsys.base import BaseRecommender
from recsys.evaluation._given import Given, check_frames, is_given
from recsys.evaluation._groups import attribute_groups, check_groups, row_groups
from recsys.evaluation._processes import check_n_jobs, memory, reset_peak, told
from recsys.evaluation._runs import Fitted, Outcome, Runs, Splits
from recsys.evaluation._splitting import LARGEST_SEED, check_numbers
from recsys.evaluation._store import Store
from recsys.evaluation.evaluation import SAMPLED, Evaluation
from recsys.evaluation.ranking import ranking_metrics
from recsys.evaluation.scenario import Split, check_leaks
from recsys.evaluation.statistics import bootstrap_interval
from recsys.exceptions import (
    ColdStartWarning,
    DataWarning,
    InvalidInputError,
    InvalidTypeError,
    did_you_mean,
    examples,
)
from recsys.features import FeatureTable
from recsys.vocabulary import Vocabulary

__all__ = ["Evaluator"]

# Names by which features are known elsewhere, `fit` for one.
MISNAMED = {"user_features": "users", "user": "users", "item_features": "items", "item": "items"}
# Results do not depend on these, or by the splits alone.
_NO_PART_OF_A_RESULT = {"splitters", "seeds", "baseline", "n_resamples", "confidence", "verbose", "n_jobs", "store"}


class Evaluator:
    """Runs models over scenarios and seeds on the same splits and compares them user by user.

    For each seed, every splitter is given that seed and every model that has a ``random_state`` too. The catalogue is
    shuffled by it, as equal scores are ranked in catalogue order and famous items tend to come first: all users of a
    model that scores items alike are then shown one random order. Context columns play no part.

    Models learn from the train rows, are asked for the users of the test rows, with the revealed rows as
    `interactions` and the validation rows excluded, and are judged on the test rows: all of them ("overall"), and
    apart those whose user and item are both hot ("hot"), whose user is known by revealed rows only ("few-shot"), and
    whose user or item is new ("cold-start"). Where users rank a few items each, as with `LeaveLastOut(n_negatives=99)`,
    metrics are called "sampled NDCG@10" and so on. A model that raises an error is told of in a warning and the others
    go on; where it failed, its row of the table says why.

    With a `store`, a run that was interrupted goes on where it was when it is started again: a result is taken from
    there if the rows, the features, the split, the model with its parameters, the code of this package and of the
    model's class, versions and hardware are the same, and computed otherwise. Failures are tried again.

    Parameters
    ----------
    splitters : sequence of splitters
        From `recsys.evaluation`, such as `LeaveLastOut()`.
    k : int, default=10
        The length of the lists.
    metrics : sequence of str, default=("HR", "Recall", "NDCG", "MRR")
        As in `ranking_metrics`.
    seeds : sequence of int, default=(0,)
    baseline : str, default="Popularity"
        The name of the model that the others are compared with.
    min_rating : float, default=None
        Rows rated below are left out before anything is split: neither learned from, nor tested, nor known to a
        splitter that draws negatives. None: every row counts, whatever its rating.
    groups : sequence of str, default=()
        Further groups of test rows to report: "history", by the train rows of the user ("history=0" to "history=500+");
        "popularity", by the train rows of the item ("popularity=new" without any, and the "tail", "mid" and "head",
        each a third of the other test rows); and columns of ``data.users`` of at most 20 values ("gender=F").
    n_resamples : int, default=5000
        Of users, for intervals; and flips of signs, for p values.
    confidence : float, default=0.95
        Of the intervals.
    verbose : bool, default=False
        Show a progress bar.
    n_jobs : int, default=None
        Processes that models are run in, as in scikit-learn; None: in this one. Results are the same bit for bit, as
        each process has as many threads for linear algebra as this one: where that makes more of them than cores, start
        Python with ``OMP_NUM_THREADS=1``. Costs are those of the process; beside others a fit takes longer.
    store : path-like, default=None
        A directory for what each model found in each split, written as soon as it is known.

    Examples
    --------
    >>> from recsys import EASE, Popularity
    >>> from recsys.datasets import make_movielens_like
    >>> from recsys.evaluation import LeaveLastOut
    >>> data = make_movielens_like(n_users=60, n_items=30, n_interactions=900, random_state=0)
    >>> evaluation = Evaluator([LeaveLastOut()]).evaluate({"Popularity": Popularity(), "EASE": EASE(l2=10)}, data)
    >>> evaluation.table().query("metric == 'NDCG@10' and group == 'overall'")["model"].tolist()
    ['Popularity', 'EASE']
    """

    def __init__(
        self,
        splitters: Sequence[Any],
        *,
        k: int = 10,
        metrics: Sequence[str] = ("HR", "Recall", "NDCG", "MRR"),
        seeds: Sequence[int] = (0,),
        baseline: str = "Popularity",
        min_rating: float | None = None,
        groups: Sequence[str] = (),
        n_resamples: int = 5000,
        confidence: float = 0.95,
        verbose: bool = False,
        n_jobs: int | None = None,
        store: str | os.PathLike[str] | None = None,
    ) -> None:
        self.splitters = splitters
        self.k = k
        self.metrics = metrics
        self.seeds = seeds
        self.baseline = baseline
        self.min_rating = min_rating
        self.groups = groups
        self.n_resamples = n_resamples
        self.confidence = confidence
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.store = store

    def evaluate(self, models: Mapping[str, Any], data: Any) -> Evaluation:
        """Fit and judge the models.

        Parameters
        ----------
        models : dict of str to estimator, DataFrame or callable
            An estimator is cloned before each fit. What another library recommends is judged as well: by a function
            ``f(train, users, k, *, interactions, exclude, candidates, random_state)`` that returns a frame, with the
            arguments of `recommend`, asked once a scenario and seed; or, where there is one of both, by the frame. It
            has columns ``user_id``, ``item_id`` and ``rank``, from 1, or ``score``, of which equal ones rank in row
            order; users whom it lacks count as 0, with a warning.
        data : Bunch
            With frames ``interactions`` (user_id, item_id and, where needed, rating and timestamp), and ``users`` and
            ``items`` or None.

        Returns
        -------
        Evaluation

        Raises
        ------
        InvalidInputError
            If there is no model, no splitter or no seed, a parameter is not what is described above, the baseline is
            none of the models, a split leaks, or every model fails. If a frame in place of a model meets several
            scenarios or seeds, or holds items twice, more than `k` of a user, unknown ids, scores that are not finite,
            or items that a user has or that are no candidates. A function that returns such a frame has failed.
        PersistenceError
            If the store cannot be written, or what it holds was damaged.

        Warns
        -----
        DataWarning
            If a scenario samples so few candidates that lists of `k` hold them all: HR and Recall are 1 then.
        """
        self._check_arguments(models)
        X, times = self._rows(data)
        splits = self._splits(X, times)
        names = pd.MultiIndex.from_tuples([(split.name, seed) for seed, split in splits])
        if not names.is_unique:
            raise InvalidInputError(
                f"`splitters` gives several splits named {examples(names[names.duplicated()].get_level_values(0))}; "
                f"expected one of each name a seed. Instead of `n_splits` pass more `seeds` to the Evaluator; of "
                f"several splitters of one kind, give each an Evaluator of its own."
            )
        self._check(X, splits, times)
        known = {name: Vocabulary.from_values(_interactions(data)[name])[0] for name in ("user_id", "item_id")}
        for argument, features in _features(data, seed=0).items():
            of_users = argument == "user_features"
            name, part = ("user_id", "data.users") if of_users else ("item_id", "data.items")
            known[name] = known[name].extend(features.resolve(name, part)[0])
        attributes = attribute_groups(self.groups, _part(data, "users"), X["user_id"])
        models = {name: Given(model, known) if is_given(model) else model for name, model in models.items()}
        check_frames(models, X, [split for _, split in splits], self._ask)
        parts = {name: _part(data, name) for name in ("users", "items")}
        store = None if self.store is None else Store(self.store, self._settings(), {"interactions": X, **parts})
        ask = partial(self._run, attributes=attributes)
        runs = Runs(X, splits, partial(_fit, data=parts), ask, store, self.n_jobs)
        return self._joined(models, splits, runs.outcomes(models, self._progress))

    def _joined(self, models: Mapping[str, Any], splits: Splits, outcomes: Mapping[Any, Outcome]) -> Evaluation:
        """The outcomes of all models and splits, in that order."""
        per_user, costs, failures = [], [], []
        for name in models:
            for number, (seed, split) in enumerate(splits):
                outcome = outcomes[name, number]
                identity: dict[str, Any] = {"scenario": split.name, "seed": seed, "model": name}
                if outcome.per_user is None:
                    failures.append({**identity, "error": outcome.error})
                else:
                    per_user.append(outcome.per_user.assign(**identity))
                    costs.append({**identity, **(outcome.cost or {})})
        if not per_user:
            raise InvalidInputError(f"Every model failed, the first with {failures[0]['error']}")
        table = pd.concat(per_user, ignore_index=True)
        first = ["scenario", "seed", "group", "model", "user_id"]
        metrics = [column for column in table.columns if column not in first]
        return Evaluation(
            table[first + metrics],
            pd.DataFrame(costs),
            _describe(splits),
            pd.DataFrame(failures, columns=["scenario", "seed", "model", "error"]),
            self.baseline,
            self.n_resamples,
            self.confidence,
            metrics,
        )

    def _settings(self) -> dict[str, Any]:
        """What decides over a result, besides models, rows and splits."""
        chosen = {name: value for name, value in vars(self).items() if name not in _NO_PART_OF_A_RESULT}
        return {**chosen, "metrics": list(self.metrics)}

    def _check_arguments(self, models: Any) -> None:
        """Refuse what would fail after hours of work."""
        if not isinstance(models, Mapping):
            raise InvalidTypeError(
                f'`models` is of type {type(models).__name__}; expected a dict: {{"EASE": EASE()}}, say.'
            )
        for name, value, sample in (("splitters", self.splitters, "LeaveLastOut()"), ("seeds", self.seeds, "0")):
            if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)):
                raise InvalidTypeError(f"`{name}` is {value!r}; expected a sequence, such as [{sample}].")
        for name, size in (("models", len(models)), ("splitters", len(self.splitters)), ("seeds", len(self.seeds))):
            if not size:
                raise InvalidInputError(f"`{name}` is empty; expected at least one.")
        for name, model in models.items():
            if not isinstance(name, str) or "\0" in name:
                raise InvalidTypeError(f"`models` has the key {name!r}; expected names, as text. None may hold NUL.")
            if isinstance(model, type) or not (hasattr(model, "recommend") or is_given(model)):
                raise InvalidTypeError(f"`models` holds {model!r} as {name!r}; expected an estimator, such as EASE().")
            if isinstance(model, BaseRecommender):
                model._validate_params()
                if model.min_rating is not None:
                    raise InvalidInputError(
                        f"Model {name!r} has `min_rating` {model.min_rating}, which asks for ratings, but an Evaluator "
                        f"fits it on pairs alone; expected None: pass Evaluator(..., min_rating={model.min_rating}), "
                        f"which leaves out what is rated below, for all models alike."
                    )
        if not isinstance(self.baseline, str) or self.baseline not in models:
            raise InvalidInputError(
                f"`baseline` is {self.baseline!r}, none of the models; expected the one that the others are compared "
                f"with: pass Evaluator(..., baseline=...). {did_you_mean(str(self.baseline), models)}"
            )
        for splitter in self.splitters:
            if isinstance(splitter, type) or not hasattr(splitter, "splits"):
                raise InvalidTypeError(f"`splitters` holds {splitter!r}; expected splitters such as LeaveLastOut().")
        check_numbers(self.seeds, "seeds")
        if max(self.seeds) > LARGEST_SEED:
            raise InvalidInputError(f"`seeds` holds {max(self.seeds)}; expected numbers up to {LARGEST_SEED}.")
        if self.min_rating is not None and (not isinstance(self.min_rating, Real) or np.isnan(self.min_rating)):
            raise InvalidTypeError(f"`min_rating` is {self.min_rating!r}; expected a number, such as 4, or None.")
        check_groups(self.groups)
        check_n_jobs(self.n_jobs)
        read_k(self.k)
        # A try with a list of one.
        one = pd.DataFrame({"user_id": [0], "item_id": [0], "rank": [1]})
        ranking_metrics(one, one, 1, self.metrics)
        bootstrap_interval([0.0, 1.0], n_resamples=self.n_resamples, confidence=self.confidence)

    def _rows(self, data: Any) -> tuple[pd.DataFrame, pd.Series | None]:
        """The pairs that take part, and their times where a splitter asks for them."""
        interactions = _interactions(data)
        if self.min_rating is not None:
            if "rating" not in interactions.columns:
                raise InvalidInputError(
                    f"`min_rating` is {self.min_rating}, but `data.interactions` has no column 'rating', only "
                    f"{examples(interactions.columns)}; expected one: add it, or leave `min_rating` out."
                )
            rated = _column(interactions, "rating")
            if not pd.api.types.is_numeric_dtype(rated.dtype):
                raise InvalidTypeError(
                    f"Column 'rating' of `data.interactions` has dtype {rated.dtype}; expected numbers."
                )
            interactions = interactions[rated >= self.min_rating].reset_index(drop=True)
            if len(rated) and not len(interactions):
                raise InvalidInputError(
                    f"`min_rating` is {self.min_rating}, above every rating; the best is {rated.max()}: lower it."
                    if rated.notna().any()
                    else "`min_rating` is given, but every rating is missing; expected numbers: leave `min_rating` out."
                )
        for splitter in [each for each in self.splitters if getattr(each, "_needs_times", False)]:
            if "timestamp" not in interactions.columns:
                raise InvalidInputError(
                    f"`data.interactions` has no column 'timestamp', only {examples(interactions.columns)}, but "
                    f"{type(splitter).__name__} goes by time; expected one: add it, or leave that splitter out."
                )
            times = without_arrow(_column(interactions, "timestamp"))
            if times.dtype.kind not in "iufM":
                raise InvalidTypeError(
                    f"Column 'timestamp' of `data.interactions` has dtype {times.dtype}, but {type(splitter).__name__} "
                    f"goes by time; expected numbers or datetimes: use pd.to_datetime."
                )
            infinite = times.isin([np.inf, -np.inf]) if times.dtype.kind == "f" else False
            if unknown := int((times.isna() | infinite).sum()):
                raise InvalidInputError(
                    f"Column 'timestamp' of `data.interactions` is missing or infinite in {unknown} rows, but "
                    f"{type(splitter).__name__} goes by time; expected it in every row: drop these rows, or leave "
                    f"that splitter out."
                )
        return interactions[["user_id", "item_id"]], interactions.get("timestamp")

    def _splits(self, X: pd.DataFrame, times: pd.Series | None) -> Splits:
        found: Splits = []
        for seed in self.seeds:
            for splitter in self.splitters:
                if hasattr(splitter, "random_state"):
                    splitter = type(splitter)(**{**vars(splitter), "random_state": seed})
                found.extend((seed, split) for split in splitter.splits(X, groups=times))
        return found

    def _check(self, X: pd.DataFrame, splits: Splits, times: pd.Series | None) -> None:
        for _, split in splits:
            check_leaks(X, split, times)
            if not len(split.test):
                raise InvalidInputError(f"Scenario {split.name!r} has no test rows; expected some: use more data.")
            offered = split.candidates
            if isinstance(offered, pd.DataFrame) and (n := int(offered["user_id"].value_counts().min())) <= self.k:
                warnings.warn(
                    f"Scenario {split.name!r} offers only {n} candidates to a user: lists of {self.k} hold them all, "
                    f"and HR and Recall are 1 whatever the model; expected more than `k`: lower it, or offer more.",
                    DataWarning,
                    stacklevel=3,
                )

    def _ask(self, model: Any, X: pd.DataFrame, split: Split) -> Any:
        return model.recommend(
            X["user_id"].iloc[split.test].unique(),
            self.k,
            interactions=X.iloc[split.revealed] if len(split.revealed) else None,
            exclude=X.iloc[split.validation] if len(split.validation) else None,
            candidates=split.candidates,
        )

    def _progress(self, total: int, initial: int) -> Any:
        from tqdm import tqdm

        return tqdm(total=total, initial=initial, disable=not self.verbose)

    def _run(
        self, model: BaseRecommender, X: pd.DataFrame, split: Split, attributes: dict[str, pd.Series]
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Ask for the users of the test rows, and judge what comes, group by group."""
        test = X.iloc[split.test]
        users = test["user_id"].unique()
        reset_peak()
        before, started = memory("VmRSS"), time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ColdStartWarning)
            lists = self._ask(model, X, split)
        seconds, peak = time.perf_counter() - started, memory("VmHWM") - before
        parts = []
        for group, rows in row_groups(self.groups, X.iloc[split.train], test, X.iloc[split.revealed], attributes):
            asked = lists[lists["user_id"].isin(rows["user_id"])]
            found = ranking_metrics(asked, rows, self.k, self.metrics)
            if isinstance(split.candidates, pd.DataFrame):
                found = found.add_prefix(SAMPLED)
            parts.append(found.reset_index(names="user_id").assign(group=group))
        first_rows = lists[lists["rank"] == 1]
        cost = {
            "recommend_seconds": seconds,
            "peak_mib": peak,
            "n_users": len(users),
            "cold_share": float((first_rows["path"] == "cold").sum() / len(users)),
        }
        return pd.concat(parts, ignore_index=True), cost


def _part(data: Any, name: str) -> Any:
    return data.get(name) if isinstance(data, Mapping) else getattr(data, name, None)


def _interactions(data: Any) -> pd.DataFrame:
    interactions = _part(data, "interactions")
    if not isinstance(interactions, pd.DataFrame):
        raise InvalidTypeError(
            f"`data` is of type {type(data).__name__} and has no frame `interactions`; expected a Bunch or dict of "
            f"frames, such as fetch_movielens gives: make one of yours with sklearn.utils.Bunch(interactions=...)."
        )
    # Else models would go without features, and nobody would know.
    for wrong, right in MISNAMED.items():
        if isinstance(_part(data, wrong), (pd.DataFrame, FeatureTable)):
            raise InvalidInputError(f"`data` has features as {wrong!r}; expected them by the name of {right!r}.")
    missing = [name for name in ("user_id", "item_id") if name not in interactions.columns]
    if missing:
        raise InvalidInputError(
            f"`data.interactions` lacks {examples(missing)} and has {examples(interactions.columns)}; expected the "
            f"columns user_id and item_id: rename yours."
        )
    return interactions


def _column(interactions: pd.DataFrame, name: str) -> pd.Series:
    column = interactions[name]
    if isinstance(column, pd.DataFrame):
        raise InvalidInputError(f"`data.interactions` has several columns {name!r}; expected one: drop the others.")
    return column


def _in_random_order(X: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The rows with a random one of each item first, items in random order: so they come in the catalogue."""
    shuffled = X.sample(frac=1, random_state=seed)
    codes, items = pd.factorize(shuffled["item_id"])
    place = np.random.default_rng(seed).permutation(len(items))[codes]
    later = shuffled["item_id"].duplicated().to_numpy()
    return shuffled.iloc[np.argsort(np.where(later, len(items), place), kind="stable")]


def _features(data: Any, seed: int) -> dict[str, FeatureTable]:
    found: dict[str, FeatureTable] = {}
    for argument, name in (("user_features", "users"), ("item_features", "items")):
        frame = _part(data, name)
        if frame is None:
            continue
        if not isinstance(frame, pd.DataFrame):
            raise InvalidTypeError(f"`data.{name}` is of type {type(frame).__name__}; expected a DataFrame or None.")
        if isinstance(frame.columns, pd.MultiIndex):
            raise InvalidTypeError(f"`data.{name}` has columns of {frame.columns.nlevels} levels; expected names.")
        id_name = "user_id" if name == "users" else "item_id"
        if len(frame.columns.difference([id_name])):
            numbered = id_name not in frame.columns and frame.index.equals(pd.RangeIndex(len(frame)))
            # Row numbers that nobody named are no ids, which only shows as long as they are in order.
            found[argument] = FeatureTable(
                frame if numbered and frame.index.name is None else frame.sample(frac=1, random_state=seed)
            )
    return found


def _fit(template: BaseRecommender, X: pd.DataFrame, seed: int, data: Any) -> Fitted:
    train, features = _in_random_order(X, seed), _features(data, seed)
    reset_peak()
    before, started = memory("VmRSS"), time.perf_counter()
    try:
        model = clone(template)
        if "random_state" in model.get_params():
            model.set_params(random_state=seed)
        model.fit(train, **features)
    except Exception as raised:  # noqa: BLE001 - it is told, in a warning and in the table
        return Fitted(None, float("nan"), float("nan"), told(raised))
    return Fitted(model, time.perf_counter() - started, memory("VmHWM") - before, "")


def _describe(splits: Splits) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "scenario": split.name,
                "seed": seed,
                "hash": split.hash,
                "sampled": isinstance(split.candidates, pd.DataFrame),
                "train": len(split.train),
                "revealed": len(split.revealed),
                "test": len(split.test),
            }
            for seed, split in splits
        ]
    )

"""What an evaluator found: metrics of every user, and how sure we are of their means and differences."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.evaluation.statistics import Interval, bootstrap_interval, paired_bootstrap, randomisation_test
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError, examples

__all__ = ["Evaluation", "OVERALL", "SAMPLED"]

# The group of all test rows.
OVERALL = "overall"
# What the names of metrics among a few items start with.
SAMPLED = "sampled "


def check_names(**names: Any) -> None:
    """Refuse names that are not text."""
    for argument, name in names.items():
        if not isinstance(name, str):
            raise InvalidTypeError(f"`{argument}` is {name!r}; expected a name that stands in `table()`, as text.")


def _check_series(groups: Any) -> None:
    """Refuse what does not give users one label each."""
    if not isinstance(groups, pd.Series):
        raise InvalidTypeError(
            f"`groups` is of type {type(groups).__name__}; expected a Series, indexed by user id: take a column of "
            f'users.set_index("user_id").'
        )
    if not groups.index.is_unique:
        twice = groups.index[groups.index.duplicated()].unique()
        raise InvalidInputError(f"`groups` has several groups of {examples(twice)}; expected one a user.")
    kinds = pd.Series(groups.dtype.categories) if isinstance(groups.dtype, pd.CategoricalDtype) else groups
    # Sparse values, too, one by one.
    kinds = pd.Series(np.asarray(kinds, dtype=object))
    listed = kinds[kinds.map(pd.api.types.is_list_like).astype(bool)]
    if len(listed):
        raise InvalidTypeError(
            f"`groups` holds {examples(listed)}; expected one label a user, as text or a number: join their parts."
        )
    if groups.isna().all():
        raise InvalidInputError(
            f"`groups` names the group of no user, in {len(groups)} rows; expected that of each who was tested, "
            f"indexed by user id."
        )


@dataclass
class Evaluation:
    """What an `Evaluator` found.

    Attributes
    ----------
    per_user : DataFrame
        One row a scenario, seed, group, model and user: columns ``scenario``, ``seed``, ``group``, ``model``,
        ``user_id`` and one for each metric, such as "NDCG@10".
    costs : DataFrame
        One row a scenario, seed and model: ``fit_seconds``, ``recommend_seconds`` (for all its users), ``peak_mib``
        (memory added by the one or the other; NaN where the system does not tell), ``n_users`` and ``cold_share``
        (users answered by the prior). Scenarios of one training set share its fit.
    splits : DataFrame
        One row a scenario and seed: ``hash``, ``sampled`` (users ranked a few items each), and the rows in ``train``,
        ``revealed`` and ``test``.
    failures : DataFrame
        One row a scenario, seed and model that raised an error: ``error``, its type and message.
    baseline : str
        The model that the others are compared with.
    n_resamples : int
    confidence : float
    """

    per_user: pd.DataFrame
    costs: pd.DataFrame
    splits: pd.DataFrame
    failures: pd.DataFrame
    baseline: str
    n_resamples: int = 5000
    confidence: float = 0.95
    metrics: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """Means over users with intervals, and paired differences from the baseline.

        A user who is tested with several seeds counts once, with the mean over them. The differences are paired by user
        and their intervals bootstrapped over users; ``p_value`` is of a randomisation test that flips their signs.

        Returns
        -------
        DataFrame
            One row a scenario, group, metric and model: ``n_users``, ``mean``, ``low``, ``high``, ``difference``,
            ``difference_low``, ``difference_high``, ``p_value`` (NaN for the baseline itself, and where that failed),
            ``seed_std``, the standard deviation of the mean over seeds (NaN for a single one), and ``error``. Where a
            model failed in a scenario with any seed, all it has there is a row of NaN, and the error.
        """
        keys = ["scenario", "group", "model", "user_id"]
        measured = self.per_user[~self._failed(self.per_user)]
        # By scenario: sampled metrics are others.
        metrics = {name: self.metrics_in(str(name)) for name in self.splits["scenario"].unique()}
        values = measured.groupby(keys, sort=False, observed=True)[self.metrics].mean()
        per_seed = measured.groupby(["scenario", "group", "model", "seed"], sort=False, observed=True)[
            self.metrics
        ].mean()
        seed_std = per_seed.groupby(["scenario", "group", "model"], sort=False, observed=True).std()
        rows = []
        for key, part in values.groupby(["scenario", "group"], sort=False, observed=True):
            scenario, group = cast("tuple[str, str]", key)
            part = part[metrics[scenario]]
            by_model = {str(name): frame.droplevel([0, 1, 2]) for name, frame in part.groupby("model", sort=False)}
            spread = np.concatenate([seed_std.loc[(scenario, group, model), part.columns] for model in by_model])
            rows.append(self._rows(by_model).assign(scenario=scenario, group=group, seed_std=spread))
        failed = self.failures.drop_duplicates(["scenario", "model"])
        rows += [
            pd.DataFrame({"metric": metrics[failure["scenario"]], "n_users": 0}).assign(
                scenario=failure["scenario"], group=OVERALL, model=failure["model"], error=failure["error"]
            )
            for failure in failed.to_dict("records")
        ]
        table = pd.concat(rows, ignore_index=True)
        table["error"] = table["error"].fillna("") if len(failed) else ""
        first = ["scenario", "group", "metric", "model"]
        return table[first + [column for column in table.columns if column not in first]]

    def by(self, groups: pd.Series) -> pd.DataFrame:
        """As `table`, for groups of users: of one gender, of a length of history, of whatever is known of them.

        Parameters
        ----------
        groups : Series indexed by user id
            The group of each user, such as ``users.set_index("user_id")["gender"]``, or `pandas.cut` of a number. Users
            that it lacks, or of whom it holds a missing value, are left out.

        Returns
        -------
        DataFrame
            As `table`, of all test rows; ``group`` is that of the users.

        Warns
        -----
        DataWarning
            If it lacks users who were tested.

        Raises
        ------
        InvalidInputError
            If a user has several groups, or no user that was tested has any.
        InvalidTypeError
            If it is no Series, or holds tuples, lists or the like instead of labels.

        Examples
        --------
        >>> from recsys import EASE, Popularity
        >>> from recsys.datasets import make_movielens_like
        >>> from recsys.evaluation import Evaluator, LeaveLastOut
        >>> data = make_movielens_like(n_users=60, n_items=30, n_interactions=900, random_state=0)
        >>> found = Evaluator([LeaveLastOut()]).evaluate({"Popularity": Popularity(), "EASE": EASE(l2=10)}, data)
        >>> table = found.by(data.users.set_index("user_id")["gender"])
        >>> sorted(table["group"].unique())
        ['F', 'M']
        """
        _check_series(groups)
        rows = self.per_user[self.per_user["group"] == OVERALL]
        labels = rows["user_id"].map(groups)
        if labels.isna().all():
            raise InvalidInputError(
                f"`groups` tells of no user that was tested: it is of {examples(groups.index)}, they are "
                f"{examples(rows['user_id'].unique())}; expected the group of each: index it by user id."
            )
        lacking = rows["user_id"][~rows["user_id"].isin(groups.index)].unique()
        if len(lacking):
            warnings.warn(
                f"`groups` lacks {len(lacking):,} of {rows['user_id'].nunique():,} users who were tested, "
                f"{examples(lacking)}: they are left out. Is it indexed by user id?",
                DataWarning,
                stacklevel=2,
            )
        return replace(self, per_user=rows.assign(group=labels)[labels.notna()]).table()

    def metrics_in(self, scenario: str) -> list[str]:
        """The names of the metrics in a scenario: those among sampled negatives have their own.

        Parameters
        ----------
        scenario : str

        Returns
        -------
        list of str
        """
        check_names(scenario=scenario)
        plain = dict.fromkeys(name.removeprefix(SAMPLED) for name in self.metrics)
        sampled = self.splits.loc[self.splits["scenario"] == scenario, "sampled"].any()
        return [SAMPLED + name for name in plain] if sampled else list(plain)

    def _failed(self, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Which of these rows are of a model in a scenario where it failed with some seed."""
        keys = ["scenario", "model"]
        failed: npt.NDArray[np.bool_] = pd.MultiIndex.from_frame(rows[keys]).isin(
            pd.MultiIndex.from_frame(self.failures[keys])
        )
        return failed

    def compare(self, model: str, other: str, scenario: str, metric: str, group: str = OVERALL) -> Interval:
        """How much better one model is than another, user by user.

        Parameters
        ----------
        model, other : str
            Names of models.
        scenario, metric, group : str
            As in `table`.

        Returns
        -------
        Interval
            Of the mean paired difference.

        Raises
        ------
        InvalidInputError
            If nothing was measured by these names.
        """
        check_names(model=model, other=other)
        values = self.values(scenario, metric, group)
        for name in (model, other):
            if name not in values:
                raise InvalidInputError(
                    f"Nothing was measured for model {name!r} in scenario {scenario!r} and group {group!r}; expected "
                    f"one of {examples(values.columns)}."
                )
        return paired_bootstrap(
            values[model].to_numpy(),
            values[other].to_numpy(),
            n_resamples=self.n_resamples,
            confidence=self.confidence,
            random_state=0,
        )

    def values(self, scenario: str, metric: str, group: str = OVERALL) -> pd.DataFrame:
        """The metric of every user and model, the mean over seeds.

        Parameters
        ----------
        scenario, metric, group : str
            As in `table`.

        Returns
        -------
        DataFrame of shape (n_users, n_models)
            Without models that failed in the scenario.

        Raises
        ------
        InvalidInputError
            If nothing was measured by these names.
        """
        check_names(metric=metric)
        found = self.values_by_metric(scenario, group)
        if metric not in found:
            raise InvalidInputError(
                f"Nothing was measured for scenario {scenario!r}, metric {metric!r} and group {group!r}; expected "
                f"names that stand in `table()`."
            )
        return found[metric]

    def values_by_metric(self, scenario: str, group: str = OVERALL) -> dict[str, pd.DataFrame]:
        """The `values` of every metric.

        Parameters
        ----------
        scenario, group : str
            As in `table`.

        Returns
        -------
        dict of str to DataFrame of shape (n_users, n_models)
            By metric; empty where nothing was measured.
        """
        check_names(scenario=scenario, group=group)
        rows = self.per_user[(self.per_user["scenario"] == scenario) & (self.per_user["group"] == group)]
        rows = rows[~self._failed(rows)]
        if not len(rows):
            return {}
        metrics = self.metrics_in(scenario)
        values = rows.pivot_table(metrics, "user_id", "model", observed=True, sort=False)
        # A metric that nobody has is no column of the pivot.
        return {metric: cast("pd.DataFrame", values[metric]) for metric in metrics if metric in values}

    def _rows(self, by_model: dict[str, pd.DataFrame]) -> pd.DataFrame:
        """Means of the models of a scenario, and differences from the baseline; all share the resamples of users."""
        options: dict[str, Any] = {"n_resamples": self.n_resamples, "confidence": self.confidence, "random_state": 0}
        first = next(iter(by_model.values()))
        users, metrics = first.index, first.columns.tolist()
        values = np.hstack([frame.loc[users].to_numpy() for frame in by_model.values()])
        mean, low, high = bootstrap_interval(values, **options)
        rows = pd.DataFrame(
            {
                "metric": np.tile(metrics, len(by_model)),
                "model": pd.Index(list(by_model)).repeat(len(metrics)),
                "n_users": len(users),
                "mean": mean,
                "low": low,
                "high": high,
            }
        )
        told = ["difference", "difference_low", "difference_high", "p_value"]
        rows[told] = np.nan
        others = (rows["model"] != self.baseline).to_numpy()
        if self.baseline in by_model and others.any():
            reference = np.tile(by_model[self.baseline].loc[users].to_numpy(), len(by_model) - 1)
            found = paired_bootstrap(values[:, others], reference, **options)
            p_value = randomisation_test(values[:, others], reference, n_resamples=self.n_resamples, random_state=0)
            rows.loc[others, told] = np.column_stack([*found, p_value])
        return rows

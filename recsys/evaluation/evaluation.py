"""What an evaluator found: metrics of every user, and how sure we are of their means and differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys.evaluation.statistics import Interval, bootstrap_interval, paired_bootstrap, randomisation_test
from recsys.exceptions import InvalidInputError

__all__ = ["OVERALL", "Evaluation"]

# The group of all test rows.
OVERALL = "overall"


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
        One row a scenario and seed: ``hash``, and the rows in ``train``, ``revealed`` and ``test``.
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
        values = measured.groupby(keys, sort=False, observed=True)[self.metrics].mean()
        per_seed = measured.groupby(["scenario", "group", "model", "seed"], sort=False, observed=True)[
            self.metrics
        ].mean()
        seed_std = per_seed.groupby(["scenario", "group", "model"], sort=False, observed=True).std()
        rows = []
        for key, part in values.groupby(["scenario", "group"], sort=False, observed=True):
            scenario, group = cast("tuple[str, str]", key)
            by_model = {str(name): frame.droplevel([0, 1, 2]) for name, frame in part.groupby("model", sort=False)}
            reference = by_model.get(self.baseline)
            for model, frame in by_model.items():
                compared = None if reference is None or model == self.baseline else reference.loc[frame.index]
                rows.append(
                    self._rows(frame.to_numpy(), None if compared is None else compared.to_numpy()).assign(
                        scenario=scenario,
                        group=group,
                        model=model,
                        seed_std=seed_std.xs((scenario, group, model)).to_numpy(),
                    )
                )
        failed = self.failures.drop_duplicates(["scenario", "model"])
        rows += [
            pd.DataFrame({"metric": self.metrics, "n_users": 0}).assign(
                scenario=failure["scenario"], group=OVERALL, model=failure["model"], error=failure["error"]
            )
            for failure in failed.to_dict("records")
        ]
        table = pd.concat(rows, ignore_index=True)
        table["error"] = table["error"].fillna("") if len(failed) else ""
        first = ["scenario", "group", "metric", "model"]
        return table[first + [column for column in table.columns if column not in first]]

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
        rows = self.per_user[(self.per_user["scenario"] == scenario) & (self.per_user["group"] == group)]
        values = []
        for name in (model, other):
            found = rows[rows["model"] == name]
            if metric not in self.metrics or not len(found):
                raise InvalidInputError(
                    f"Nothing was measured for model {name!r}, scenario {scenario!r}, metric {metric!r} and group "
                    f"{group!r}; expected names that stand in `table()`."
                )
            values.append(found.groupby("user_id", sort=False)[metric].mean())
        return paired_bootstrap(
            values[0].to_numpy(),
            values[1].loc[values[0].index].to_numpy(),
            n_resamples=self.n_resamples,
            confidence=self.confidence,
            random_state=0,
        )

    def _rows(self, values: np.ndarray, reference: np.ndarray | None) -> pd.DataFrame:
        options: dict[str, Any] = {"n_resamples": self.n_resamples, "confidence": self.confidence, "random_state": 0}
        mean, low, high = bootstrap_interval(values, **options)
        nothing = np.full(len(self.metrics), np.nan)
        difference: Any = nothing
        difference_low, difference_high, p_value = difference, difference, difference
        if reference is not None:
            difference, difference_low, difference_high = paired_bootstrap(values, reference, **options)
            p_value = randomisation_test(values, reference, n_resamples=self.n_resamples, random_state=0)
        return pd.DataFrame(
            {
                "metric": self.metrics,
                "n_users": len(values),
                "mean": mean,
                "low": low,
                "high": high,
                "difference": difference,
                "difference_low": difference_low,
                "difference_high": difference_high,
                "p_value": p_value,
            }
        )

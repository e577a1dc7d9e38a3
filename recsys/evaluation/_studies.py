"""What a report shows besides its evaluation, where it is given: weights of fields, an ablation, learning rates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from recsys.evaluation import _charts
from recsys.evaluation.evaluation import OVERALL, Evaluation
from recsys.evaluation.scenario import GROUPS
from recsys.evaluation.weights import COLUMNS
from recsys.exceptions import InvalidInputError, InvalidTypeError, examples

if TYPE_CHECKING:
    from recsys.evaluation.report import Report


class Study(NamedTuple):
    """A section of the page."""

    id: str
    title: str
    words: str
    rows: list[_charts.Chart]
    curves: list[_charts.Chart]


def charts(report: Report) -> list[Study]:
    """The sections of what was given."""
    found = []
    if report.weights is not None:
        words = (
            "The weight of each field, mean over pairs of a user and an item; bars hold the middle 80% of pairs. Hot "
            "are those the model learned from, few-shot those who came with interactions after it, cold-start those of "
            "whom it knows features alone. A weight tells how far the gate of a field is open, not what the field adds "
            "to a score."
        )
        found.append(Study("weights", "What the model heeds", words, _weights(report.weights), []))
    if report.ablation is not None:
        rows = _overall(report.ablation, report.metric)
        words = (
            f"{report.metric} without a part of the model, above that of {report.ablation.baseline}: paired "
            f"differences with {_charts.percent(report.ablation.confidence)} intervals. Left of 0 the part is missed."
            f"{_failed(report.ablation)}"
        )
        label = f"{report.metric} above {report.ablation.baseline}"
        found.append(Study("ablation", "What each part is worth", words, _ablation(rows, label), []))
    if report.learning_rates is not None:
        rows = _overall(report.learning_rates, report.metric)
        words = (
            f"{report.metric} by the learning rate, a line a scenario; bands are intervals over users."
            f"{_failed(report.learning_rates)}"
        )
        chart = _learning_rates(rows, report.metric)
        found.append(Study("learning-rates", "How much the learning rate matters", words, [], [chart]))
    return found


def records(report: Report) -> dict[str, pd.DataFrame]:
    """The numbers of what was given, by the name of the argument."""
    found = {} if report.weights is None else {"weights": report.weights[COLUMNS]}
    for name in ("ablation", "learning_rates"):
        evaluation: Evaluation | None = getattr(report, name)
        if evaluation is not None:
            found[name] = evaluation.table()
    return found


def markdown(report: Report) -> list[tuple[str, list[list[str]]]]:
    """Titles and tables, header first, of what was given."""
    found = []
    if report.weights is not None:
        table = [["side", "field", *GROUPS]]
        for (side, field), own in report.weights.groupby(["side", "field"], sort=False):
            weight = own.set_index("group")["weight"]
            table.append(
                [str(side), str(field), *(f"{weight[group]:.3f}" if group in weight else "" for group in GROUPS)]
            )
        found.append(("Weights of fields", table))
    for name, title, label in (
        ("ablation", "Ablation", "model"),
        ("learning_rates", "Learning rates", "learning rate"),
    ):
        evaluation: Evaluation | None = getattr(report, name)
        if evaluation is None:
            continue
        rows = _overall(evaluation, report.metric)
        scenarios = list(rows["scenario"].unique())
        table = [[f"{report.metric} by {label}", *scenarios]]
        mean = rows.set_index(["model", "scenario"])["mean"]
        for model in evaluation.table()["model"].unique():
            cells = (f"{mean[model, each]:.4f}" if (model, each) in mean else "failed" for each in scenarios)
            table.append([str(model), *cells])
        found.append((title, table))
    return found


def check(report: Report) -> None:
    """Refuse what cannot be drawn, before anything is."""
    if report.weights is not None:
        _check_weights(report.weights)
    for name in ("ablation", "learning_rates"):
        evaluation = getattr(report, name)
        if evaluation is None:
            continue
        if not isinstance(evaluation, Evaluation):
            raise InvalidTypeError(
                f"`{name}` is of type {type(evaluation).__name__}; expected an Evaluation of variants of one model: "
                f"pass what Evaluator(...).evaluate(variants, data) returns."
            )
        if report.metric not in evaluation.metrics:
            raise InvalidInputError(
                f"`{name}` measures {', '.join(evaluation.metrics)}; expected {report.metric}, which the report shows."
            )
        if not len(_overall(evaluation, report.metric)):
            raise InvalidInputError(f"`{name}` has no variant that was measured: see its `failures`.")
    if report.ablation is not None:
        measured = set(_overall(report.ablation, report.metric)["model"])
        if report.ablation.baseline not in measured:
            raise InvalidInputError(
                f"`ablation` has the baseline {report.ablation.baseline!r}, which failed; expected the whole model, "
                f"which the others are compared with: see `failures`."
            )
        if len(measured) < 2:
            raise InvalidInputError(
                f"`ablation` has no variant that was measured but its baseline, {report.ablation.baseline!r}; expected "
                f"the whole model as baseline, and others with a part left out: see `failures`."
            )
    if report.learning_rates is not None:
        _rates(report.learning_rates.table()["model"].unique())
        rates = _rates(_overall(report.learning_rates, report.metric)["model"].unique())
        if len(set(rates.values())) < max(len(rates), 2):
            raise InvalidInputError(
                f"`learning_rates` has the rates {examples(rates, 6)}; expected two or more that were measured, each "
                f"once."
            )


def _check_weights(weights: Any) -> None:
    if not isinstance(weights, pd.DataFrame):
        raise InvalidTypeError(
            f"`weights` is of type {type(weights).__name__}; expected a DataFrame: pass what `field_weights` returns."
        )
    missing = [name for name in COLUMNS if name not in weights]
    if missing:
        raise InvalidInputError(f"`weights` lacks {examples(missing)}; expected what `field_weights` returns.")
    several = weights.columns[weights.columns.duplicated() & weights.columns.isin(COLUMNS)]
    if len(several):
        raise InvalidInputError(f"`weights` has several columns {examples(several)}; expected one each.")
    if not len(weights):
        raise InvalidInputError("`weights` has no rows; expected what `field_weights` returns.")
    for column, known in (("side", ["user", "item"]), ("group", GROUPS)):
        unknown = weights[column][~weights[column].isin(known)]
        if len(unknown):
            raise InvalidInputError(f"`weights.{column}` holds {examples(unknown)}; expected {', '.join(known)}.")
    if weights["field"].isna().any():
        raise InvalidInputError("`weights.field` holds missing names; expected what `field_weights` returns.")
    twice = weights.duplicated(["side", "field", "group"])
    if twice.any():
        raise InvalidInputError(
            f"`weights` has several rows of {examples(weights['field'][twice])} in a group; expected one each."
        )
    for column in ("weight", "low", "high"):
        values = weights[column]
        if values.dtype.kind not in "iuf" or not np.isfinite(values.to_numpy(np.float64, na_value=np.nan)).all():
            raise InvalidInputError(
                f"`weights.{column}` holds values that are not finite numbers; expected what `field_weights` returns."
            )


def _failed(evaluation: Evaluation) -> str:
    names = evaluation.failures["model"].unique()
    return f" Failed, at least once: {', '.join(names)}." if len(names) else ""


def _rates(names: Any) -> dict[str, float]:
    """Learning rates by the names of the models that have them."""
    found = {}
    for name in names:
        try:
            found[name] = float(name)
        except ValueError:
            found[name] = math.nan
        if not 0 < found[name] < math.inf:
            raise InvalidInputError(
                f"`learning_rates` has a model named {name!r}; expected names that are learning rates, such as '0.001'."
            )
    return found


def _overall(evaluation: Evaluation, metric: str) -> pd.DataFrame:
    """The rows of all test rows in a metric, of models that did not fail."""
    table = evaluation.table()
    rows = table[(table["group"] == OVERALL) & (table["metric"] == metric) & table["mean"].notna()]
    return rows.assign(low=rows["low"].fillna(rows["mean"]), high=rows["high"].fillna(rows["mean"]))


def _weights(weights: pd.DataFrame) -> list[_charts.Chart]:
    found = []
    for side in ("user", "item"):
        rows = weights.loc[weights["side"] == side, COLUMNS].rename(columns={"field": "model", "weight": "mean"})
        if len(rows):
            rows = rows.assign(model=rows["model"].astype(str), place=rows["group"].map(GROUPS.index))
            rows = rows.sort_values("place", kind="stable")
            looks = _charts.looks_of(weights.loc[weights["side"] == side, "field"].astype(str).unique())
            title, what = f"Fields of {side}s", f"each field of {side}s"
            found.append(_charts.groups(rows, looks, "weight", title, what, zero=True))
    return found


def _ablation(rows: pd.DataFrame, label: str) -> list[_charts.Chart]:
    names = rows["model"].unique()
    rows = rows[rows["difference"].notna()]
    told = {"mean": rows["difference"], "low": rows["difference_low"], "high": rows["difference_high"]}
    rows = rows.assign(**{name: values.fillna(rows["difference"]) for name, values in told.items()}, group="")
    return [
        _charts.groups(own, _charts.looks_of(names), label, str(scenario), "each variant", zero=True)
        for scenario, own in rows.groupby("scenario", sort=False)
    ]


def _learning_rates(rows: pd.DataFrame, metric: str) -> _charts.Chart:
    rate = rows["model"].map(_rates(rows["model"].unique()))
    tick = rate.map("{:g}".format)
    rows = rows.assign(x=np.log10(rate), tick=tick, where="at a learning rate of " + tick, model=rows["scenario"])
    return _charts.curve(rows, _charts.looks_of(rows["model"].unique()), metric, "learning rate", "Learning rate")

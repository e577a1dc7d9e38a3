"""The report of an evaluation: one page that says who is better, where, and how sure that is."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.evaluation import _charts, _page, _studies
from recsys.evaluation.evaluation import SAMPLED, Evaluation
from recsys.evaluation.statistics import (
    holm,
    max_t_test,
    minimum_detectable_difference,
    paired_bootstrap,
    randomisation_test,
)
from recsys.exceptions import InvalidInputError, InvalidTypeError, did_you_mean

__all__ = ["Report", "environment"]

PACKAGES = ("recsys", "numpy", "scipy", "pandas", "scikit-learn", "torch", "faiss-cpu", "lightgbm")


def environment() -> dict[str, Any]:
    """Versions and hardware: what a number depends on besides the code.

    Returns
    -------
    dict
        ``python``, ``system``, ``machine``, ``cores`` and ``packages``, the versions by name.

    Examples
    --------
    >>> sorted(environment())
    ['cores', 'machine', 'packages', 'python', 'system']
    """
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
    }


@dataclass
class Report:
    """An evaluation as one page of HTML, as Markdown, as JSON, and as sentences.

    In each scenario, group and metric the models are compared with the best one there, user by user, by `max_t_test`:
    its p values are of all pairs at once, as the best was picked by the same users. A model whose p value is not below
    ``1 - confidence`` is level with the best: it cannot be told from it.

    Parameters
    ----------
    evaluation : Evaluation
        As `Evaluator.evaluate` returns it.
    title : str, default="Evaluation"
    notes : str, default=""
        Plain text below the title: of which data, with which parameters. An empty line parts paragraphs.
    weights : DataFrame, optional
        What `field_weights` returns: how much a model heeds each field of hot, few-shot and new users and items.
    ablation : Evaluation, optional
        Of variants of one model with a part left out each; its ``baseline`` is the whole model. It measures `metric`.
    learning_rates : Evaluation, optional
        Of one model with several learning rates, which are the names of the models, such as "0.001".

    Attributes
    ----------
    environment : dict
        Versions and hardware, as they were when the report was made.

    Examples
    --------
    >>> from recsys import EASE, Popularity
    >>> from recsys.datasets import make_movielens_like
    >>> from recsys.evaluation import Evaluator, LeaveLastOut
    >>> data = make_movielens_like(n_users=60, n_items=30, n_interactions=900, random_state=0)
    >>> found = Evaluator([LeaveLastOut()]).evaluate({"Popularity": Popularity(), "EASE": EASE(l2=10)}, data)
    >>> report = Report(found, title="A first look")
    >>> report.compare("EASE", "Popularity").split(":")[0]
    'EASE and Popularity cannot be told apart in leave-last-out'
    >>> report.to_html()[:15]
    '<!doctype html>'
    """

    evaluation: Evaluation
    title: str = "Evaluation"
    notes: str = ""
    weights: pd.DataFrame | None = None
    ablation: Evaluation | None = None
    learning_rates: Evaluation | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.evaluation, Evaluation):
            raise InvalidTypeError(
                f"`evaluation` is of type {type(self.evaluation).__name__}; expected an Evaluation: pass what "
                f"Evaluator(...).evaluate(models, data) returns."
            )
        for name in ("title", "notes"):
            if not isinstance(getattr(self, name), str):
                raise InvalidTypeError(f"`{name}` is {getattr(self, name)!r}; expected text.")
        _studies.check(self)
        self.environment = environment()

    @property
    def metric(self) -> str:
        """The metric that charts and summaries show: the first NDCG, or the first metric where there is none."""
        metrics = self.evaluation.metrics
        # Among sampled negatives only where there is nothing else.
        first = sorted(metrics, key=lambda name: (name.startswith(SAMPLED), "NDCG" not in name))
        return first[0]

    def metric_in(self, scenario: str) -> str:
        """`metric` by its name in a scenario.

        Parameters
        ----------
        scenario : str

        Returns
        -------
        str
            Such as "sampled NDCG@10", where users rank a few items.
        """
        plain = self.metric.removeprefix(SAMPLED)
        return plain if plain in self.evaluation.metrics_in(scenario) else SAMPLED + plain

    @cached_property
    def _frame(self) -> pd.DataFrame:
        table = self.evaluation.table()
        measured = table[table["error"] == ""]
        parts = [
            self._from_best(*key)
            for key in measured[["scenario", "group"]].drop_duplicates().itertuples(index=False, name=None)
        ]
        frame = table.merge(pd.concat(parts), how="left", on=["scenario", "group", "metric", "model"])
        # A model that failed is neither.
        return frame.assign(**{name: frame[name].eq(True) for name in ("best", "level")})

    def frame(self) -> pd.DataFrame:
        """All numbers of the report.

        Returns
        -------
        DataFrame
            `Evaluation.table()`, and in each row how the model compares with the best one of its scenario, group and
            metric: ``best``, which all are that tie for it; ``level``, if it cannot be told from the best;
            ``from_best`` with ``from_best_low`` and ``from_best_high``, the paired difference and its interval;
            ``from_best_p``, by `max_t_test`; and ``detectable``, the `minimum_detectable_difference` from the best.
        """
        return self._frame.copy()

    def _from_best(self, scenario: str, group: str) -> pd.DataFrame:
        """The models of a scenario and group against the best one, in each metric; all share the resamples of users."""
        found = self.evaluation
        by_metric = found.values_by_metric(scenario, group)
        values = list(by_metric.values())
        rows = pd.concat(
            [
                pd.DataFrame({"metric": metric, "model": part.columns, "mean": part.mean().to_numpy()})
                for metric, part in by_metric.items()
            ],
            ignore_index=True,
        ).assign(scenario=scenario, group=group, level=False)
        told = ["from_best", "from_best_low", "from_best_high", "from_best_p", "detectable"]
        rows[told] = np.nan
        means = rows.groupby("metric", sort=False)["mean"]
        others = rows.index.to_numpy() != means.transform("idxmax").to_numpy()
        # The same terms in another order may differ in the last bits of their mean.
        rows["best"] = rows["mean"] >= means.transform("max") * (1 - 1e-12)
        if others.any():
            every = np.hstack(values)
            n_models = values[0].shape[1]
            a, b = every[:, others], np.repeat(every[:, ~others], n_models - 1, axis=1)
            options: dict[str, Any] = {"n_resamples": found.n_resamples, "random_state": 0}
            difference = paired_bootstrap(a, b, confidence=found.confidence, **options)
            p_values = max_t_test(np.stack(values, axis=2), **options)
            at = (~others).reshape(-1, n_models).argmax(axis=1)
            of_best = p_values[at, :, np.arange(len(values))]
            adjusted = of_best[others.reshape(of_best.shape)]
            detectable = minimum_detectable_difference(a, b, confidence=found.confidence)
            rows.loc[others, told] = np.column_stack([*difference, adjusted, detectable])
            rows.loc[others, "level"] = adjusted >= 1 - found.confidence
            rows["level"] &= ~rows["best"]
        return rows.drop(columns="mean")

    def compare(self, model: str, other: str, scenario: str | None = None, metric: str | None = None) -> str:
        """Say in a sentence which of two models is better.

        Parameters
        ----------
        model, other : str
            Names of two models.
        scenario : str, optional
            None: the only one; of several, the sentence counts in how many either model is better, with p values that
            `holm` adjusted.
        metric : str, optional
            None: `metric_in` the scenario, or, of several scenarios, `metric`. Those that lack it do not count, nor do
            those where one of the models failed; the sentence names them.

        Returns
        -------
        str

        Raises
        ------
        InvalidInputError
            If a name is unknown, both models are the same, or a model failed in every scenario asked for.
        """
        found = self.evaluation
        scenarios = list(found.splits["scenario"].unique())
        models = [*found.costs["model"].unique(), *found.failures["model"].unique()]
        for argument, name, known in (
            ("model", model, models),
            ("other", other, models),
            ("scenario", scenarios[0] if scenario is None else scenario, scenarios),
            ("metric", found.metrics[0] if metric is None else metric, found.metrics),
        ):
            if name not in known:
                raise InvalidInputError(
                    f"`{argument}` is {name!r}, which was not evaluated; expected a name in `frame()`. "
                    f"{did_you_mean(str(name), known)}"
                )
        if model == other:
            raise InvalidInputError(f"`model` and `other` are both {model!r}; expected two models: name another one.")
        if metric is None:
            metric = self.metric if scenario is None else self.metric_in(scenario)
        asked = [name for name in ([scenario] if scenario else scenarios) if metric in found.metrics_in(name)]
        if not asked:
            raise InvalidInputError(
                f"`metric` is {metric!r}, which was not measured in {scenario!r}; expected one of "
                f"{', '.join(found.metrics_in(str(scenario)))}."
            )
        failed = found.failures[found.failures["model"].isin([model, other]) & found.failures["scenario"].isin(asked)]
        both = [name for name in asked if name not in set(failed["scenario"])]
        if not both:
            first = failed.iloc[0]
            raise InvalidInputError(
                f"`{'model' if first['model'] == model else 'other'}` is {first['model']!r}, which failed in "
                f"{first['scenario']!r} with {first['error']}; expected two models that were measured there."
            )
        one = len(both) == 1
        text = self._sentence(model, other, both[0], metric) if one else self._count(model, other, both, metric)
        if scenario is None:
            text += _page.left_out([name for name in scenarios if name not in asked], metric)
        if len(both) < len(asked):
            text += f" Left out, as one of them failed there: {', '.join(name for name in asked if name not in both)}."
        return text

    def _sentence(self, model: str, other: str, scenario: str, metric: str) -> str:
        values = self.evaluation.values(scenario, metric)
        a, b = values[model].to_numpy(), values[other].to_numpy()
        if a.mean() < b.mean():
            model, other, a, b = other, model, b, a
        confidence, n_resamples = self.evaluation.confidence, self.evaluation.n_resamples
        mean, low, high = paired_bootstrap(a, b, n_resamples=n_resamples, confidence=confidence, random_state=0)
        p = float(randomisation_test(a, b, n_resamples=n_resamples, random_state=0))
        detectable = minimum_detectable_difference(a, b, confidence=confidence)
        interval = "" if np.isnan(low) else f" [{_charts.percent(confidence)} interval {low:.4f} to {high:.4f}]"
        numbers = (
            f"{metric} {a.mean():.4f} against {b.mean():.4f}, a difference of {mean:.4f}{interval}, "
            f"p {_page.p_value(p)}, paired over {len(values):,} user{'s' if len(values) > 1 else ''}"
        )
        if p < 1 - confidence:
            return f"{model} is better than {other} in {scenario}: {numbers}."
        if not np.isnan(detectable):
            numbers += f"; a difference of {detectable:.4f} would be found four times out of five"
        return f"{model} and {other} cannot be told apart in {scenario}: {numbers}."

    def _count(self, model: str, other: str, scenarios: list[str], metric: str) -> str:
        pairs = [self.evaluation.values(scenario, metric)[[model, other]].to_numpy() for scenario in scenarios]
        options: dict[str, Any] = {"n_resamples": self.evaluation.n_resamples, "random_state": 0}
        differences = np.array([(pair[:, 0] - pair[:, 1]).mean() for pair in pairs])
        told = holm([float(randomisation_test(pair[:, 0], pair[:, 1], **options)) for pair in pairs])
        clear = told < 1 - self.evaluation.confidence

        def count(which: Any) -> str:
            sizes = np.abs(differences[which])
            by = f" (by {sizes.min():.4f} to {sizes.max():.4f})" if len(sizes) else ""
            return f"{len(sizes)}{by}"

        n_users = [len(pair) for pair in pairs]
        return (
            f"By {metric}, {model} is better than {other} in {count(clear & (differences > 0))} of "
            f"{len(pairs)} scenarios, worse in {count(clear & (differences < 0))}, and cannot be told from it in "
            f"{int((~clear).sum())}: tests paired over {min(n_users):,} to {max(n_users):,} users, p values adjusted "
            f"for {len(pairs)} scenarios (Holm)."
        )

    def to_markdown(self) -> str:
        """Write the tables as Markdown.

        Returns
        -------
        str
            A table a scenario: means with intervals, the best bold, those level with it marked by ≈.
        """
        return _page.markdown(self)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write all that the report knows as JSON.

        Parameters
        ----------
        path : str or path, optional
            A file to write it to.

        Returns
        -------
        str
            ``results`` are the rows of `frame`, unrounded; what has no value is null. ``weights``, ``ablation`` and
            ``learning_rates`` are there if they were given, the latter two as rows of `Evaluation.table`.
        """
        found = self.evaluation
        values = {
            "title": self.title,
            "notes": self.notes,
            "metric": self.metric,
            "baseline": found.baseline,
            "confidence": found.confidence,
            "n_resamples": found.n_resamples,
            "environment": self.environment,
            "splits": _records(found.splits),
            "results": _records(self._frame),
            "costs": _records(found.costs),
            "failures": _records(found.failures),
            **{name: _records(frame) for name, frame in _studies.records(self).items()},
        }
        text = json.dumps(values, indent=1, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Draw the report as one page that needs nothing else: no network, no other file.

        Parameters
        ----------
        path : str or path, optional
            A file to write it to.

        Returns
        -------
        str

        Raises
        ------
        ImportError
            If Jinja2 is not installed.
        """
        try:
            jinja2 = import_module("jinja2")
        except ImportError as error:
            raise ImportError(
                "Report.to_html needs Jinja2, which is not installed: pip install 'recsys[report]'. `to_markdown` and "
                "`to_json` work without."
            ) from error
        folder = Path(__file__).parent
        templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        text: str = templates.get_template("report.html.jinja").render(_page.page(self))
        if path is not None:
            # What UTF-8 has no form for, half of a pair of surrogates, HTML has.
            Path(path).write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
        return text


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()} for row in frame.to_dict("records")
    ]

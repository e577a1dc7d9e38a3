"""What a report says, in the order in which it says it: the context of its template, and its Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recsys.evaluation import _charts, _studies
from recsys.evaluation._groups import BINS, HISTORY, POPULARITY, group_name
from recsys.evaluation.evaluation import OVERALL, SAMPLED
from recsys.evaluation.scenario import GROUPS

if TYPE_CHECKING:
    from recsys.evaluation.report import Report

# What a scenario is, by the start of its name; the first that fits.
_WORDS = {
    "leave-last-out": "The last interactions of each user by time are tested; models learn from the others.",
    "random by user": "A random share of each user's interactions is tested; models learn from the others.",
    "random": "A random share of all interactions is tested; models learn from the others.",
    "global time": "The latest share of all interactions is tested; models learn from the past alone.",
    "user-cold first": "Held-out users, of whom models learned nothing. Their first interactions by time are revealed "
    "when a model is asked, as many as k says, and the last are tested. Those between count as misses: compare models "
    "at one k.",
    "user-cold": "Held-out users, of whom models learned nothing. As many of their interactions as k says are revealed "
    "when a model is asked, and others are tested. Those that are neither count as misses: compare models at one k.",
    "item-cold k": "Held-out items, of which models saw as many interactions as k says; their others are tested.",
    "item-cold newest": "All interactions of the newest items are tested; nothing was learned from these.",
    "item-cold": "All interactions of held-out items are tested; nothing was learned from these.",
    "both-cold": "Held-out users are tested with held-out items; models learned from neither, and only these items are "
    "ranked. As many interactions with other items as k says are revealed.",
    "sparse users": "Held-out interactions of the users with the fewest to learn from.",
    "sparse items": "Held-out interactions of the items with the fewest to learn from.",
}


_CANDIDATES = {
    "(cold candidates)": " Only these items are ranked.",
    "(whole catalogue)": " All items are ranked.",
    "sampled)": " Each user ranks the tested items among so many others, drawn at random: for comparison with the "
    "literature only.",
}

# Of the groups that are bins: the title of their chart, what it goes by, and where a mark of it stands.
_BINNED = {
    HISTORY: ("Short and long histories", "train interactions of the user", "with {} train interactions, {:,} users"),
    POPULARITY: (
        "Rare and popular items",
        "train interactions of the item, each of tail, mid and head a third of the test rows",
        "on {} items, {:,} users",
    ),
}


def p_value(p: float) -> str:
    """A p value with its sign: "= 0.034", "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def page(report: Report) -> dict[str, Any]:
    """All that the template shows."""
    found, frame = report.evaluation, report.frame()
    main = _main(report, frame)
    counted = main[main["metric"] == report.metric]
    ranking = _ranking(counted)
    looks = _charts.looks_of(ranking.index)
    scenarios = [_scenario(report, frame, name, looks) for name in main["scenario"].unique()]
    return {
        "title": report.title,
        "notes": _notes(report),
        "metric": report.metric,
        "confidence": _charts.percent(found.confidence),
        "level": _charts.percent(1 - found.confidence),
        "n_resamples": found.n_resamples,
        "baseline": found.baseline,
        "seeds": ", ".join(map(str, sorted(found.splits["seed"].unique()))),
        "n_seeds": found.splits["seed"].nunique(),
        "looks": list(looks.values()),
        "headline": headline(report, counted),
        "overview": _overview(counted, ranking, looks),
        "curves": _curves(main, looks, report.metric),
        "scenarios": scenarios,
        "studies": _studies.charts(report),
        "splits": found.splits.to_dict("records"),
        "failures": found.failures.to_dict("records"),
        "environment": report.environment,
    }


def _notes(report: Report) -> list[str]:
    return [part.strip() for part in report.notes.split("\n\n") if part.strip()]


def _main(report: Report, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of all test rows in the main metric of each scenario."""
    metric = frame["scenario"].map({name: report.metric_in(name) for name in frame["scenario"].unique()})
    return frame[(frame["group"] == OVERALL) & (frame["metric"] == metric)]


def _ranking(main: pd.DataFrame) -> pd.DataFrame:
    """The models, best first: in how many scenarios they are best or level with it, then by their mean rank."""
    main = main.assign(
        rank=main.groupby("scenario", sort=False)["mean"].rank(ascending=False, method="min", na_option="bottom"),
        # Where nobody finds anything, nobody is best.
        ahead=(main["best"] | main["level"]) & (main.groupby("scenario", sort=False)["mean"].transform("max") > 0),
    )
    by_model = main.groupby("model", sort=False).agg(ahead=("ahead", "sum"), rank=("rank", "mean"))
    return by_model.sort_values(["ahead", "rank"], ascending=[False, True], kind="stable")


def headline(report: Report, counted: pd.DataFrame) -> str:
    """The answer in a sentence, from the rows of all test rows in the main metric."""
    metric, ranking = report.metric, _ranking(counted)
    most = int(ranking["ahead"].iloc[0])
    leaders = [str(name) for name in ranking.index[ranking["ahead"] == most]]
    names = list(report.evaluation.splits["scenario"].unique())
    others = [name for name in names if report.metric_in(name) != metric]
    n = len(names) - len(others)
    if not most:
        answer = f"No model found anything: {metric} is 0 everywhere."
    elif n == 1:
        answer = _best_of_one(metric, counted, leaders)
    else:
        who, verb = (_listed(leaders), "are each") if len(leaders) > 1 else (leaders[0], "is")
        where = f"all {n}" if most == n else f"{most} of {n}"
        answer = f"{who} {verb} best by {metric}, or cannot be told from the best, in {where} scenarios."
    return answer + left_out(others, metric)


def _best_of_one(metric: str, counted: pd.DataFrame, leaders: list[str]) -> str:
    """The answer in a single scenario."""
    tied = [name for name in leaders if counted.loc[counted["model"] == name, "best"].any()]
    if 1 < len(tied) == counted["mean"].count():
        return f"No model is better than another: {metric} is {counted['mean'].max():.4f} of all."
    level = [name for name in leaders if name not in tied]
    verb = "has" if len(tied) == 1 else "tie for"
    rest = f", and cannot be told from {_listed(level)}" if level else ""
    return f"{_listed(tied)} {verb} the best {metric}{rest}."


def left_out(scenarios: list[str], metric: str) -> str:
    """A sentence more, on the scenarios that lack the metric; nothing where none does."""
    if not scenarios:
        return ""
    kind = "not sampled" if metric.startswith(SAMPLED) else "sampled"
    return f" Left out, as metrics are {kind} there: {', '.join(scenarios)}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _overview(main: pd.DataFrame, ranking: pd.DataFrame, looks: dict[str, _charts.Look]) -> dict[str, Any]:
    scenarios = list(main["scenario"].unique())
    cells = {(row["model"], row["scenario"]): _cell(row, row["high"]) for row in main.to_dict("records")}
    return {
        "scenarios": scenarios,
        "rows": [
            {
                "look": look,
                "ahead": ranking["ahead"].loc[name],
                "cells": [cells.get((name, scenario)) for scenario in scenarios],
            }
            for name, look in looks.items()
        ],
    }


def _cell(row: Any, top: float) -> dict[str, Any]:
    """A number of a table; `top` is where the scale of its column ends."""
    interval = "" if np.isnan(row["low"]) else f"[{row['low']:.4f}, {row['high']:.4f}]"
    told = [interval] if interval else []
    if not row["best"] and not np.isnan(row["from_best"]):
        low, high = (0 - row[name] for name in ("from_best_high", "from_best_low"))
        below = "" if np.isnan(low) else f" [{low:.4f}, {high:.4f}]"
        told.append(f"{abs(row['from_best']):.4f} below the best{below}, p {p_value(row['from_best_p'])}")
    if not np.isnan(row["seed_std"]):
        told.append(f"standard deviation {row['seed_std']:.4f} between seeds")
    scale = 100 / top if top > 0 else 0.0
    low, high = (row["mean"] if np.isnan(row[name]) else row[name] for name in ("low", "high"))
    return {
        "value": row["mean"],
        "low": row["low"],
        "high": row["high"],
        "interval": "" if np.isnan(row["low"]) else f"{row['low']:.3f}–{row['high']:.3f}",
        # Where nobody finds anything, nobody is best.
        "best": bool(row["best"]) and row["mean"] > 0,
        "level": bool(row["level"]) and row["mean"] - row["from_best"] > 0,
        "told": "; ".join(told),
        "bar": (low * scale, row["mean"] * scale, high * scale),
        "error": row["error"],
    }


def _curves(main: pd.DataFrame, looks: dict[str, _charts.Look], metric: str) -> list[_charts.Chart]:
    """A chart for each kind of scenario that was run with several numbers of revealed interactions."""
    parts = main["scenario"].str.extract(r"^(?P<kind>.*) k=(?P<k>\d+)(?P<candidates>.*)$")
    rows = _drawn(main.assign(kind=parts["kind"] + parts["candidates"], k=pd.to_numeric(parts["k"])))
    charts = []
    for kind, part in rows.dropna(subset="k").groupby("kind", sort=False):
        part = part.astype({"k": int})
        if part["k"].nunique() > 1:
            what = "interactions learned of an item" if str(kind).startswith("item") else "revealed interactions"
            # Square roots: the first interactions tell the most, and would else be squeezed into a corner.
            text = part["k"].astype(str)
            part = part.assign(x=np.sqrt(part["k"]), tick=text, where="with " + text + " revealed")
            charts.append(_charts.curve(part, looks, metric, what, str(kind)))
    return charts


def _binned(rows: pd.DataFrame, looks: dict[str, _charts.Look], metric: str) -> list[_charts.Chart]:
    """Charts over the bins of history and of popularity, where these were asked for and there are several."""
    charts = []
    for name, (title, what, where) in _BINNED.items():
        place = {group_name(name, value): value for value in BINS[name]}
        # A bin of one user has no interval: that user says nothing of others.
        part = rows[rows["group"].isin(place) & rows["low"].notna()]
        shown = [group for group in place if (part["group"] == group).any()]
        if len(shown) > 1:
            tick = part["group"].map(place)
            told = [where.format(*each) for each in zip(tick, part["n_users"], strict=True)]
            part = part.assign(x=part["group"].map(shown.index), tick=tick, where=told)
            charts.append(_charts.curve(part, looks, metric, what, title, height=300.0))
    return charts


def _attributes(rows: pd.DataFrame, looks: dict[str, _charts.Look], models: list[str]) -> list[dict[str, Any]]:
    """A table for each attribute of users whose values are groups; `rows` are of one metric."""
    parts = rows["group"].str.partition("=")
    rows = rows.assign(attribute=parts[0], value=parts[2])[(parts[1] == "=") & ~parts[0].isin(list(BINS))]
    tables = []
    for name, part in rows.groupby("attribute", sort=False):
        tops = part.groupby("value")["high"].max()
        cells = {(row["model"], row["value"]): _cell(row, tops[row["value"]]) for row in part.to_dict("records")}
        sizes = part.drop_duplicates("value").set_index("value")["n_users"]
        found = [model for model in models if (model, sizes.index[0]) in cells]
        tables.append(
            {
                "name": name,
                "columns": [(value, _counted(n, "user")) for value, n in sizes.items()],
                "rows": [
                    {"look": looks[model], "cells": [cells[model, value] for value in sizes.index]} for model in found
                ],
            }
        )
    return tables


def _drawn(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a value; without an interval it is one of no width."""
    rows = rows[rows["mean"].notna()]
    return rows.assign(low=rows["low"].fillna(rows["mean"]), high=rows["high"].fillna(rows["mean"]))


def _scenario(report: Report, frame: pd.DataFrame, name: str, looks: dict[str, _charts.Look]) -> dict[str, Any]:
    """The table of a scenario and its charts."""
    found, metric = report.evaluation, report.metric_in(name)
    rows = frame[frame["scenario"] == name]
    shown = [group for group in GROUPS if (rows["group"] == group).any()]
    columns = [(each, OVERALL) for each in rows["metric"].unique()]
    # Of a single group all test rows are shown already.
    columns += [(metric, group) for group in shown] if len(shown) > 1 else []
    costs = found.costs[found.costs["scenario"] == name].groupby("model").mean(numeric_only=True)
    tops = {
        column: rows[(rows["metric"] == column[0]) & (rows["group"] == column[1])]["high"].max() for column in columns
    }
    records = {(row["model"], row["metric"], row["group"]): row for row in rows.to_dict("records")}
    lines = []
    models = sorted(rows["model"].unique(), key=lambda model: -_or_zero(records[model, metric, OVERALL]["mean"]))
    for model in models:
        own = records[model, metric, OVERALL]
        failed = bool(own["error"])
        lines.append(
            {
                "look": looks[model],
                "error": own["error"],
                "cells": [] if failed else [_cell(records[(model, *column)], tops[column]) for column in columns],
                "difference": own["difference"],
                "difference_low": own["difference_low"],
                "difference_high": own["difference_high"],
                "costs": {} if failed else costs.loc[model].to_dict(),
            }
        )
    main = _drawn(rows[(rows["metric"] == metric) & (rows["group"] == OVERALL)])
    seconds = main["model"].map(costs["fit_seconds"])
    parts = _drawn(rows[(rows["metric"] == metric) & rows["group"].isin(shown)])
    return {
        "name": name,
        "metric": metric,
        "words": _words(name),
        "n_users": int(rows["n_users"].max()),
        "columns": [each if group == OVERALL else f"{each} {group}" for each, group in columns],
        "rows": lines,
        "detectable": _detectable(main),
        "scatter": _charts.scatter(main.assign(seconds=seconds), looks, metric) if len(main) > 1 else None,
        "groups": _charts.groups(parts, looks, metric, f"{metric} of hot and cold test rows", "each model in groups")
        if len(shown) > 1
        else None,
        "binned": _binned(rows[rows["metric"] == metric], looks, metric),
        "attributes": _attributes(rows[rows["metric"] == metric], looks, models),
    }


def _words(scenario: str) -> str:
    words = next((words for start, words in _WORDS.items() if scenario.startswith(start)), "")
    return words + next((more for end, more in _CANDIDATES.items() if scenario.endswith(end)), "")


def _or_zero(value: float) -> float:
    return 0.0 if np.isnan(value) else value


def _detectable(main: pd.DataFrame) -> str:
    sizes = main["detectable"].dropna()
    if not len(sizes):
        return ""
    low, high = f"{sizes.min():.4f}", f"{sizes.max():.4f}"
    return low if low == high else f"{low} to {high}"


def markdown(report: Report) -> str:
    """The tables of a report as Markdown."""
    found, frame = report.evaluation, report.frame()
    overall = frame[frame["group"] == OVERALL]
    main = _main(report, frame)
    lines = [f"# {_plain(report.title)}", "", *(line for part in _notes(report) for line in (_plain(part), ""))]
    lines += [
        _plain(headline(report, main[main["metric"] == report.metric])),
        "",
        f"Means over users with {_charts.percent(found.confidence)} bootstrap intervals. Bold: the best of a column; "
        f"≈: cannot be told from it (randomisation test of all pairs at once, max-T).",
        "",
    ]
    for scenario, rows in overall.groupby("scenario", sort=False):
        lines += [f"## {_plain(str(scenario))} ({_counted(int(rows['n_users'].max()), 'user')})", ""]
        metrics = rows["metric"].unique()
        table = [["model", *metrics], ["---", *["---:"] * len(metrics)]]
        for model, own in rows.groupby("model", sort=False):
            if error := own["error"].iloc[0]:
                table.append([_plain(str(model)), f"failed: {_plain(error)}", *[""] * (len(metrics) - 1)])
            else:
                cells = own.set_index("metric").loc[metrics]
                table.append([_plain(str(model)), *(_markdown_cell(row) for _, row in cells.iterrows())])
        lines += [f"| {' | '.join(row)} |" for row in table]
        lines += ["", *_markdown_groups(frame[frame["scenario"] == scenario], report.metric_in(str(scenario)))]
    for title, (header, *told) in _studies.markdown(report):
        lines += [f"## {title}", "", f"| {' | '.join(map(_plain, header))} |", f"|{' --- |' * len(header)}"]
        lines += [*(f"| {' | '.join(map(_plain, row))} |" for row in told), ""]
    columns = ["scenario", "seed", "hash", "train", "revealed", "test"]
    lines += ["## Splits", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for row in found.splits[columns].to_dict("records"):
        lines.append(f"| {' | '.join(_plain(str(value)) for value in row.values())} |")
    return "\n".join(lines) + "\n"


def _markdown_groups(rows: pd.DataFrame, metric: str) -> list[str]:
    """The lines of a table with a row a group of test rows, in the main metric; none where there are not several."""
    rows = rows[(rows["group"] != OVERALL) & (rows["metric"] == metric)]
    if rows["group"].nunique() < 2:
        return []
    models = [str(name) for name in rows["model"].unique()]
    lines = [f"| {metric} of | users | {' | '.join(map(_plain, models))} |", f"| --- | ---: |{' ---: |' * len(models)}"]
    for group, part in rows.groupby("group", sort=False):
        cells = [_markdown_cell(row) for _, row in part.set_index("model").loc[models].iterrows()]
        lines.append(f"| {_plain(str(group))} | {part['n_users'].iloc[0]:,} | {' | '.join(cells)} |")
    return [*lines, ""]


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("s" if n != 1 else "")


def _markdown_cell(row: pd.Series) -> str:
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:.4f}, {row['high']:.4f}]"
    # Where nobody finds anything, nobody is best.
    mean = f"**{row['mean']:.4f}**" if row["best"] and row["mean"] > 0 else f"{row['mean']:.4f}"
    return mean + interval + (" ≈" if row["level"] else "")


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))

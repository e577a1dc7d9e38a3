"""Charts of a report: from numbers to pixels, and room for every label. The template draws what is found here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

# Of a label: the width of a letter, the height of a line, and the letters that are shown of a long name.
_LETTER, _LINE, _LONGEST = 7.2, 14.0, 24

# A line's colour and shape tell it twice; of more than there are colours, the others are grey.
_COLOURS = 5
_SHAPES = (
    "M-4.5,0A4.5,4.5 0 1 1 4.5,0A4.5,4.5 0 1 1 -4.5,0Z",
    "M-4,-4H4V4H-4Z",
    "M0,-5.2L5,3.8H-5Z",
    "M0,-5.6L5.6,0L0,5.6L-5.6,0Z",
    "M0,5.2L5,-3.8H-5Z",
)
_GREY_SHAPE = "M-3.5,0A3.5,3.5 0 1 1 3.5,0A3.5,3.5 0 1 1 -3.5,0Z"

# Left, top, right, bottom.
_Box = tuple[float, float, float, float]


class Look(NamedTuple):
    """How a model is drawn, the same in every chart."""

    number: int
    name: str
    css: str
    shape: str

    @property
    def parts(self) -> list[str]:
        """The name, cut where a line may break."""
        return re.split(r"(?<=[a-z0-9_])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", self.name)

    @property
    def label(self) -> str:
        return self.name if len(self.name) <= _LONGEST else self.name[: _LONGEST - 1] + "…"


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """How each of these is drawn, the first ones in colour."""
    looks = {}
    for i, name in enumerate(names):
        css, shape = (f"s{i + 1}", _SHAPES[i]) if i < _COLOURS else ("s0", _GREY_SHAPE)
        looks[name] = Look(i, name, css, shape)
    return looks


class Tick(NamedTuple):
    """A place on an axis."""

    at: float
    text: str


class Mark(NamedTuple):
    """A value in pixels: its place, the ends of its interval on the axis of values, and what a pointer reads."""

    x: float
    y: float
    low: float
    high: float
    text: str
    css: str = ""


@dataclass(frozen=True)
class Series:
    """A model in a chart."""

    look: Look
    marks: list[Mark]
    x: float
    y: float
    anchor: str = "start"

    @property
    def line(self) -> str:
        return "M" + "L".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in self.marks)

    @property
    def band(self) -> str:
        there = [f"{mark.x:.1f},{mark.high:.1f}" for mark in self.marks]
        back = [f"{mark.x:.1f},{mark.low:.1f}" for mark in reversed(self.marks)]
        return "M" + "L".join(there + back) + "Z"


@dataclass(frozen=True)
class Chart:
    """A drawing with its axes; `description` says in words what it shows."""

    title: str
    description: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    x_label: str
    series: list[Series]
    frontier: str = ""
    legend: Sequence[Tick] = ()


class _Axis(NamedTuple):
    """A straight map of numbers to pixels."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def percent(share: float) -> str:
    """A share as text: "95%", "99.9%"."""
    return f"{100 * share:.6g}%"


def _round_steps(low: float, high: float, n: int = 5) -> list[float]:
    """About n round numbers from at most `low` to at least `high`."""
    span = high - low if high - low > 1e-9 else max(abs(high), 1e-3)
    rough = span / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(max(high, low + span / 2) / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _values_axis(rows: pd.DataFrame, start: float, stop: float, *, zero: bool = False) -> tuple[_Axis, list[Tick]]:
    low, high = float(rows["low"].min()), float(rows["high"].max())
    steps = _round_steps(min(low, 0.0), max(high, 0.0)) if zero else _round_steps(low, high)
    axis = _Axis(steps[0], steps[-1], start, stop)
    return axis, [Tick(axis(step), f"{step:g}") for step in steps]


def _spread(places: list[float], gap: float, top: float, bottom: float) -> list[float]:
    """The places, moved apart until none is nearer to the next than `gap`."""
    order = np.argsort(places, kind="stable")
    moved = np.asarray(places, dtype=float)[order]
    for i in range(len(moved)):
        moved[i] = max(moved[i], top if i == 0 else moved[i - 1] + gap)
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], bottom if i == len(moved) - 1 else moved[i + 1] - gap)
    back = np.empty_like(moved)
    back[order] = moved
    return [float(place) for place in back]


def _told(row: pd.Series, metric: str) -> str:
    return f"{row['model']}: {metric} {row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"


def curve(
    rows: pd.DataFrame, looks: dict[str, Look], metric: str, what: str, title: str, height: float = 400.0
) -> Chart:
    """A line a model over an amount; `rows` have model, x, tick (its text), where (in words), mean, low and high."""
    names = [name for name in looks if (rows["model"] == name).any()]
    width, left, top = 900.0, 44.0, 12.0
    right = width - 24 - _LETTER * max(len(looks[name].label) for name in names)
    bottom = height - 44
    ticks = rows.drop_duplicates("x").set_index("x")["tick"].sort_index()
    first, last = ticks.iloc[0], ticks.iloc[-1]
    across = _Axis(ticks.index[0], ticks.index[-1], left + 12, right - 8)
    up, y_ticks = _values_axis(rows, bottom, top)
    lines = []
    for name in names:
        own = rows[rows["model"] == name].sort_values("x")
        marks = [
            Mark(
                across(row["x"]),
                up(row["mean"]),
                up(row["low"]),
                up(row["high"]),
                f"{_told(row, metric)} {row['where']}",
            )
            for _, row in own.iterrows()
        ]
        lines.append((looks[name], marks))
    places = _spread([marks[-1].y for _, marks in lines], _LINE, top, bottom)
    at_last = rows[rows["tick"] == last].set_index("model")["mean"]
    return Chart(
        title,
        f"{metric} by {what} from {first} to {last}. At {last}: "
        + ", ".join(f"{name} {mean:.3f}" for name, mean in at_last.sort_values(ascending=False).items())
        + ".",
        width,
        height,
        left,
        right,
        top,
        bottom,
        [Tick(across(x), text) for x, text in zip(ticks.index, ticks, strict=True)],
        y_ticks,
        what,
        # Those in colour last, on top of the others.
        [
            Series(look, marks, right + 10, place)
            for (look, marks), place in reversed(list(zip(lines, places, strict=True)))
        ],
    )


def scatter(rows: pd.DataFrame, looks: dict[str, Look], metric: str) -> Chart:
    """The metric against the seconds of a fit; `rows` have model, seconds, mean, low and high."""
    width, height, left, right, top = 440.0, 360.0, 44.0, 418.0, 14.0
    bottom = height - 44
    exponents = np.log10(rows["seconds"].clip(lower=1e-3))
    low, high = math.floor(exponents.min() - 0.15), math.ceil(exponents.max() + 0.15)
    across = _Axis(low, high, left, right)
    up, y_ticks = _values_axis(rows, bottom, top)
    marks: dict[str, Mark] = {}
    for (_, row), exponent in zip(rows.iterrows(), exponents, strict=True):
        text = f"{_told(row, metric)}, fit in {row['seconds']:.3g} s"
        marks[row["model"]] = Mark(across(exponent), up(row["mean"]), up(row["low"]), up(row["high"]), text)
    names = [name for name in looks if name in marks]
    boxes = [_box(mark.x, mark.y + 4, 10, "middle") for mark in marks.values()]
    bars = [(mark.x - 1, mark.high, mark.x + 1, mark.low) for mark in marks.values()]
    series = []
    for name in names:
        x, y, anchor = _free_place(marks[name], looks[name].label, boxes, bars, width - 4)
        boxes.append(_box(x, y, _LETTER * len(looks[name].label), anchor))
        series.append(Series(looks[name], [marks[name]], x, y, anchor))
    by_time = sorted(marks.values(), key=lambda mark: (mark.x, mark.y))
    edge = [mark for i, mark in enumerate(by_time) if mark.y < min((m.y for m in by_time[:i]), default=math.inf)]
    steps = "".join(f"H{mark.x:.1f}V{mark.y:.1f}" for mark in edge[1:])
    return Chart(
        f"{metric} against the time of a fit",
        f"{metric} against the seconds that a fit took, on a logarithmic scale. "
        + ", ".join(f"{row['model']} {row['mean']:.3f} in {row['seconds']:.2g} s" for _, row in rows.iterrows())
        + ".",
        width,
        height,
        left,
        right,
        top,
        bottom,
        [Tick(across(power), f"{10.0**power:g} s") for power in range(low, high + 1)],
        y_ticks,
        "time of a fit",
        series[::-1],
        f"M{edge[0].x:.1f},{edge[0].y:.1f}{steps}H{right:.1f}",
    )


def groups(
    rows: pd.DataFrame, looks: dict[str, Look], metric: str, title: str, what: str, *, zero: bool = False
) -> Chart:
    """A row a model with a mark for each group; `rows` have model, group, mean, low and high."""
    names = [name for name in looks if (rows["model"] == name).any()]
    width, right, top = 440.0, 424.0, 34.0
    left = 16 + _LETTER * max(len(looks[name].label) for name in names)
    bottom = top + 24.0 * len(names)
    across, x_ticks = _values_axis(rows, left + 8, right, zero=zero)
    series = []
    for i, name in enumerate(names):
        y = top + 24.0 * (i + 0.5)
        marks = [
            Mark(
                across(row["mean"]),
                y,
                across(row["low"]),
                across(row["high"]),
                _told(row, metric) + (f", {row['group']}" if row["group"] else ""),
                row["group"],
            )
            for _, row in rows[rows["model"] == name].iterrows()
        ]
        series.append(Series(looks[name], marks, left - 4, y, "end"))
    best = rows.loc[rows.groupby("group", sort=False)["mean"].idxmax()]
    return Chart(
        title,
        f"{metric} of {what}. Highest: "
        + ", ".join(
            f"{row['model']} {row['mean']:.3f}" + (f" ({row['group']})" if row["group"] else "")
            for _, row in best.iterrows()
        )
        + ".",
        width,
        bottom + 40,
        left,
        right,
        top,
        bottom,
        x_ticks,
        [],
        metric,
        series,
        legend=[Tick(left + 14 + 92 * i, name) for i, name in enumerate(rows["group"].unique()) if name],
    )


def _box(x: float, y: float, width: float, anchor: str) -> _Box:
    """Of a text whose baseline is at y."""
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - 10, left + width, y + 3


def _free_place(mark: Mark, label: str, taken: list[_Box], bars: list[_Box], limit: float) -> tuple[float, float, str]:
    """Where a label near its mark covers the least of what is there already."""
    places = [
        (mark.x + dx, mark.y + 4 + dy, anchor)
        for dy in (0, -13, 13, -26, 26, -39, 39, -52, 52)
        for dx, anchor in ((9, "start"), (-9, "end"), (0, "middle"))
        if dy or anchor != "middle"
    ]

    def cost(place: tuple[float, float, str]) -> float:
        box = _box(place[0], place[1], _LETTER * len(label), place[2])
        hidden = sum(_overlap(box, other) for other in taken) + 3 * sum(_overlap(box, bar) for bar in bars)
        outside = max(0.0, 44 - box[0], box[2] - limit, 4 - box[1])
        return hidden + 100 * outside + 2 * abs(place[1] - mark.y - 4)

    return min(places, key=cost)


def _overlap(one: _Box, other: _Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)

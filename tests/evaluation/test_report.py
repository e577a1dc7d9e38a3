"""The report: its numbers are those of the evaluation, and what a user named stays text."""

from __future__ import annotations

import io
import itertools
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import recsys.evaluation
from recsys import EASE, ContentKNN, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import (
    Evaluation,
    Evaluator,
    ItemColdSplit,
    LeaveLastOut,
    Report,
    UserColdSplit,
    max_t_test,
    minimum_detectable_difference,
    paired_bootstrap,
)
from recsys.exceptions import InvalidInputError, InvalidTypeError, RecsysWarning

EVIL = "<script>alert('1')</script> \"x\" & {{ 7 * 7 }}"


class Broken(Popularity):
    """A model that cannot learn."""

    def fit(self, *_: Any, **__: Any) -> Broken:
        raise ValueError('no <b>room</b> for "all"')


class Page(HTMLParser):
    """The tables of a page as lists of their cells' texts and values, its elements and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.in_cell = False
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[tuple[str, dict[str, str | None]]]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", dict(attrs)))
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            text, attributes = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = text + data.strip(), attributes


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    data = make_movielens_like(n_users=80, n_items=50, n_interactions=1600, random_state=0)
    splitters = [LeaveLastOut(), UserColdSplit(k=(0, 1, 5)), ItemColdSplit(hot_test_size=0.1)]
    models = {"Popularity": Popularity(), "EASE": EASE(l2=20.0), EVIL: ContentKNN(), "Broken": Broken()}
    with pytest.warns(RecsysWarning, match="Broken failed"):
        return Evaluator(splitters, n_resamples=300).evaluate(models, data)


@pytest.fixture(scope="module")
def report(evaluation: Evaluation) -> Report:
    return Report(evaluation, title="A & B", notes="First <i>part</i>.\n\nSecond part.")


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.to_html())


def made(values: dict[str, list[float]]) -> Evaluation:
    """An evaluation in which each model has these values, a user each."""
    n = len(next(iter(values.values())))
    names = list(values)
    per_user = pd.concat(
        [
            pd.DataFrame(
                {
                    "scenario": "s",
                    "seed": 0,
                    "group": "overall",
                    "model": name,
                    "user_id": range(n),
                    "NDCG@10": values[name],
                }
            )
            for name in names
        ],
        ignore_index=True,
    )
    costs = pd.DataFrame({"scenario": "s", "seed": 0, "model": names, "fit_seconds": 1.0, "recommend_seconds": 0.1})
    costs = costs.assign(peak_mib=np.nan, n_users=n, cold_share=0.0)
    splits = pd.DataFrame(
        {"scenario": ["s"], "seed": 0, "hash": "abc", "sampled": False, "train": 9, "revealed": 0, "test": n}
    )
    failures = pd.DataFrame(columns=["scenario", "seed", "model", "error"])
    return Evaluation(per_user, costs, splits, failures, names[0], n_resamples=500, metrics=["NDCG@10"])


def twice(s: Evaluation, t: Evaluation) -> Evaluation:
    """Both as scenarios "s" and "t" of one."""
    frames = {
        name: pd.concat([getattr(s, name), getattr(t, name).assign(scenario="t")], ignore_index=True)
        for name in ("per_user", "costs", "splits")
    }
    return replace(s, **frames)


def test_the_frame_is_the_table_and_more(evaluation: Evaluation, report: Report) -> None:
    table = evaluation.table()
    pd.testing.assert_frame_equal(report.frame()[list(table)], table)
    rows = report.frame().query("scenario == 'leave-last-out' and group == 'overall' and metric == 'HR@10'")
    rows = rows.set_index("model")
    values = evaluation.values("leave-last-out", "HR@10")
    best = values.mean().idxmax()
    assert list(rows.index[rows["best"]]) == [best]
    others = [str(name) for name in values if name != best]
    options: dict[str, Any] = {"n_resamples": 300, "random_state": 0}
    of_best = max_t_test(values, **options)[values.columns.get_loc(best)]
    adjusted = of_best[values.columns.isin(others)]
    assert rows.loc[others, "from_best_p"].to_numpy(dtype=float) == pytest.approx(adjusted)
    assert (rows.loc[others, "level"].to_numpy(dtype=bool) == (adjusted >= 0.05)).all()
    for name in others:
        found = rows.loc[name, ["from_best", "from_best_low", "from_best_high"]].to_numpy(dtype=float)
        assert found == pytest.approx(paired_bootstrap(values[name], values[best], **options))
        assert rows.loc[name, "detectable"] == pytest.approx(minimum_detectable_difference(values[name], values[best]))
    assert rows.loc["Broken", "error"]
    assert not rows.loc["Broken", ["best", "level"]].any()


def test_the_best_and_those_level_with_it() -> None:
    rng = np.random.default_rng(0)
    best = rng.random(400)
    found = {"best": best, "level": best - 0.001 + rng.normal(0, 0.1, 400), "worse": best - 0.2, "twin": best.copy()}
    report = Report(made({name: list(values) for name, values in found.items()}))
    rows = report.frame().set_index("model")
    assert rows["best"].to_dict() == {"best": True, "level": False, "worse": False, "twin": True}
    assert rows["level"].to_dict() == {"best": False, "level": True, "worse": False, "twin": False}
    assert rows.loc["twin", "from_best"] == 0
    table = Page(report.to_html()).tables[0]
    told = {row[0][0]: (row[1][0], row[1][1]["class"]) for row in table[1:]}
    assert "best" in told["best"][0]
    assert "level with the best" in told["level"][0]
    assert "best" in told["twin"][0]
    assert "level" not in told["twin"][0]
    assert {name: css for name, (_, css) in told.items()} == {
        "best": "best",
        "level": "level",
        "twin": "best",
        "worse": "",
    }


def test_the_numbers_of_the_page_are_those_of_the_table(evaluation: Evaluation, report: Report, page: Page) -> None:
    table = evaluation.table().query("group == 'overall' and error == ''")
    scenarios = list(table["scenario"].unique())
    overview, *tables = page.tables
    ndcg: Any = table[table["metric"] == "NDCG@10"].set_index(["model", "scenario"])["mean"]
    shown = {row[0][0]: row[2:] for row in overview[1:]}
    for (model, scenario), mean in ndcg.items():
        text, attributes = shown[model][scenarios.index(scenario)]
        assert text.startswith(f"{mean:.3f}")
        assert float(str(attributes["data-v"])) == mean
    for scenario, rows in zip(scenarios, tables, strict=False):
        columns = [text for text, _ in rows[0]]
        lines = {row[0][0]: row for row in rows[1:]}
        for _, line in table[table["scenario"] == scenario].iterrows():
            text, attributes = lines[line["model"]][columns.index(line["metric"])]
            assert text.startswith(f"{line['mean']:.4f}")
            assert f"{line['low']:.3f}–{line['high']:.3f}" in text
            assert f"[{line['low']:.4f}, {line['high']:.4f}]" in str(attributes["title"])
        assert lines["Broken"][1][0] == 'failed: ValueError: no <b>room</b> for "all"'


def test_groups_and_curves_are_drawn(report: Report, page: Page) -> None:
    text = report.to_html()
    frame = report.frame()
    cold = frame.query("scenario == 'item-cold (whole catalogue)' and metric == 'NDCG@10' and model == 'EASE'")
    for _, row in cold.iterrows():
        if row["group"] != "overall":
            told = f"EASE: NDCG@10 {row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}], {row['group']}"
            assert f"<title>{told}</title>" in text
    for k in (0, 1, 5):
        mean = frame.query(
            f"scenario == 'user-cold k={k}' and group == 'overall' and metric == 'NDCG@10' and model == 'EASE'"
        )["mean"].item()
        assert re.search(rf"<title>EASE: NDCG@10 {mean:.4f} \[.*\] with {k} revealed</title>", text)
    named = {
        attributes["aria-labelledby"] for tag, attributes in page.elements if tag == "svg" and "role" in attributes
    }
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {part for both in named for part in str(both).split()} <= set(ids)


def test_what_a_user_named_stays_text(report: Report, page: Page) -> None:
    text = report.to_html()
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert "<i>part" not in text
    assert "<b>room" not in text
    assert "alert('1')" not in text
    assert EVIL in {row[0][0] for row in page.tables[0]}
    assert EVIL in str([attributes for tag, attributes in page.elements if tag == "th"]).replace("\\'", "'")
    assert "<title>A &amp; B</title>" in text


def test_the_page_needs_nothing_else(report: Report, page: Page) -> None:
    text = report.to_html()
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed")
        assert "src" not in attributes
        assert str(attributes.get("href", "#")).startswith("#")
        assert not any(name.startswith("on") for name in attributes)


def test_everything_that_scrolls_or_shows_is_named(page: Page) -> None:
    regions = [attributes for _, attributes in page.elements if attributes.get("role") == "region"]
    assert regions
    assert all(attributes.get("aria-label") and attributes.get("tabindex") == "0" for attributes in regions)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("caption") == tags.count("table") == len(page.tables)


def test_it_is_written_where_one_says(report: Report, tmp_path: Path) -> None:
    text = report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    assert report.to_html() == text
    text = report.to_json(str(tmp_path / "report.json"))
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == text


def test_json_holds_the_frame(evaluation: Evaluation, report: Report) -> None:
    values = json.loads(report.to_json())
    frame = report.frame()
    again = pd.read_json(io.StringIO(json.dumps(values["results"])), precise_float=True)
    pd.testing.assert_frame_equal(again.astype(frame.dtypes.to_dict()), frame, check_exact=True)
    assert [split["hash"] for split in values["splits"]] == list(evaluation.splits["hash"])
    assert values["failures"][0]["error"] == 'ValueError: no <b>room</b> for "all"'
    assert (values["title"], values["metric"], values["baseline"]) == ("A & B", "NDCG@10", "Popularity")
    assert values["environment"]["packages"]["numpy"] == np.__version__


def test_markdown_holds_the_table(evaluation: Evaluation, report: Report) -> None:
    lines = report.to_markdown().splitlines()
    assert lines[0] == "# A & B"
    at = lines.index("## leave-last-out (80 users)")
    assert lines[at + 2] == "| model | HR@10 | Recall@10 | NDCG@10 | MRR@10 |"
    line = next(line for line in lines[at:] if line.startswith("| EASE |"))
    rows = report.frame().query("scenario == 'leave-last-out' and model == 'EASE' and group == 'overall'")
    for cell, (_, row) in zip(line.split(" | ")[1:], rows.iterrows(), strict=True):
        assert f"{row['mean']:.4f}" in cell
        assert f"[{row['low']:.4f}, {row['high']:.4f}]" in cell
        assert cell.startswith("**") == row["best"]
        assert ("≈" in cell) == row["level"]
    assert r"failed: ValueError: no \<b\>room" in report.to_markdown()
    assert r"\<script\>" in report.to_markdown()
    assert all(line.count(" | ") == lines[at + 2].count(" | ") for line in lines[at + 2 : at + 8] if line)
    assert evaluation.splits["hash"].iloc[0] in report.to_markdown()


def test_a_sentence_says_who_is_better(evaluation: Evaluation) -> None:
    rng = np.random.default_rng(0)
    a = rng.random(100)
    report = Report(made({"a": list(a), "b": list(a - 0.1 - 0.05 * rng.random(100)), "c": list(a[::-1])}))
    [mean, low, high] = report.evaluation.compare("a", "b", "s", "NDCG@10")
    expected = (
        f"a is better than b in s: NDCG@10 {a.mean():.4f} against {a.mean() - mean:.4f}, a difference of {mean:.4f} "
        f"[95% interval {low:.4f} to {high:.4f}], p = 0.002, paired over 100 users."
    )
    assert report.compare("a", "b") == expected
    assert report.compare("b", "a", "s", "NDCG@10") == expected
    level = report.compare("a", "c")
    assert level.startswith("a and c cannot be told apart in s: NDCG@10 ")
    assert "p = 1, paired over 100 users; a difference of 0.1" in level
    many = Report(evaluation).compare("EASE", "Popularity")
    found = re.search(r"in (\d) .*of 6 scenarios, worse in (\d).*told from it in (\d): .* over 1\d to 80 users", many)
    assert found
    assert sum(map(int, found.groups())) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("EAES", "Popularity"), "`model` is 'EAES', which was not evaluated; .* Did you mean 'EASE'"),
        (("EASE", "popularity"), "`other` is 'popularity', which was not .* Did you mean 'Popularity'"),
        (("EASE", "Popularity", "leave-one-out"), "`scenario` is 'leave-one-out', .* Did you mean 'leave-last-out'"),
        (("EASE", "Popularity", None, "NDCG"), "`metric` is 'NDCG', which .* Did you mean 'NDCG@10'"),
        (("EASE", "Broken"), "`other` is 'Broken', which failed in 'leave-last-out' with ValueError: no <b>room"),
    ],
)
def test_unknown_names_are_refused(report: Report, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        report.compare(*arguments)


def test_bad_input_is_refused(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Any = evaluation.table()
    with pytest.raises(InvalidTypeError, match="`evaluation` is of type DataFrame; expected an Evaluation: pass what"):
        Report(wrong)
    number: Any = 7
    with pytest.raises(InvalidTypeError, match="`title` is 7; expected text"):
        Report(evaluation, title=number)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"needs Jinja2, which is not installed: pip install 'recsys\[report\]'"):
        Report(evaluation).to_html()


def test_a_single_model_and_a_single_user() -> None:
    alone = Report(made({"a": [0.5, 0.7]}))
    assert alone.frame()["best"].tolist() == [True]
    with pytest.raises(InvalidInputError, match="`model` and `other` are both 'a'; expected two models: name another"):
        alone.compare("a", "a")
    assert "a has the best NDCG@10." in alone.to_html()
    of_one = Report(made({"a": [0.5], "b": [0.25]}))
    assert not re.search(r"\bnan\b", of_one.to_html())
    assert of_one.compare("b", "a").endswith(
        "0.5000 against 0.2500, a difference of 0.2500, p = 1, paired over 1 user."
    )
    assert "| b | 0.2500 ≈ |" in of_one.to_markdown()
    assert json.loads(of_one.to_json())["results"][0]["low"] is None


def test_the_spread_between_seeds_is_told() -> None:
    one = made({"a": [0.5, 0.7], "b": [0.1, 0.3]})
    again = one.per_user.assign(seed=1)
    again["NDCG@10"] += 0.1
    costs = pd.concat([one.costs.assign(fit_seconds=3.0, seed=seed) for seed in (0, 1)])
    splits = pd.concat([one.splits.assign(seed=seed) for seed in (0, 1)])
    both = replace(one, per_user=pd.concat([one.per_user, again]), costs=costs, splits=splits)
    text = Report(both).to_html()
    assert text.count("standard deviation 0.0707 between seeds") == 2
    assert "with seeds 0, 1" in text
    assert '<td data-v="3.0">3.00</td>' in text


def test_sampled_metrics_stand_beside_others() -> None:
    data = make_movielens_like(n_users=40, n_items=60, n_interactions=500, random_state=0)
    models = {"Popularity": Popularity(), "EASE": EASE(l2=20.0)}
    found = Evaluator([LeaveLastOut(), LeaveLastOut(n_negatives=19)], n_resamples=50).evaluate(models, data)
    report, scenario = Report(found), "leave-last-out (1 + 19 sampled)"
    assert report.metric == report.metric_in("leave-last-out") == "NDCG@10"
    assert report.metric_in(scenario) == "sampled NDCG@10"
    frame = report.frame()
    assert frame.groupby(["scenario", "group", "metric"])["best"].sum().eq(1).all()
    of_sampled = frame[frame["scenario"] == scenario]
    assert of_sampled["metric"].str.startswith("sampled ").all()
    head = report.to_markdown().split(f"## {scenario}")[1].split("\n")[2]
    assert head == "| model | sampled HR@10 | sampled Recall@10 | sampled NDCG@10 | sampled MRR@10 |"
    heads = [[text.strip() for text, _ in table[0]] for table in Page(report.to_html()).tables]
    # Who is best where is asked of the whole catalogue.
    assert heads[0][2:] == ["leave-last-out"]
    assert [head[1] for head in heads[1:3]] == ["HR@10", "sampled HR@10"]
    assert " in leave-last-out: NDCG@10 " in report.compare("EASE", "Popularity")
    left_out = f" Left out, as metrics are sampled there: {scenario}."
    assert report.compare("EASE", "Popularity").endswith(f" four times out of five.{left_out}")
    assert re.search(rf"\bbest NDCG@10\b.*\.{re.escape(left_out)}\n", report.to_markdown())
    assert "Left out" not in report.compare("EASE", "Popularity", scenario)
    left_out = " Left out, as metrics are not sampled there: leave-last-out."
    assert report.compare("EASE", "Popularity", metric="sampled HR@10").endswith(left_out)
    assert f"in {scenario}: sampled NDCG@10 " in report.compare("EASE", "Popularity", scenario)
    assert f"in {scenario}: sampled HR@10 " in report.compare("EASE", "Popularity", metric="sampled HR@10")
    with pytest.raises(InvalidInputError, match=r"`metric` is 'HR@10', which was not measured in 'leave-last-out .1 "):
        report.compare("EASE", "Popularity", scenario, "HR@10")


def test_where_all_is_sampled_so_are_the_words() -> None:
    data = make_movielens_like(n_users=40, n_items=60, n_interactions=500, random_state=0)
    splitters = [LeaveLastOut(n_negatives=19), LeaveLastOut(n_negatives=20)]
    found = Evaluator(splitters, n_resamples=50).evaluate({"Popularity": Popularity(), "EASE": EASE(l2=20.0)}, data)
    report = Report(found)
    assert report.metric == "sampled NDCG@10"
    assert "by sampled NDCG@10" in report.to_markdown()
    assert report.compare("EASE", "Popularity").startswith("By sampled NDCG@10, EASE is better")


def test_a_scenario_where_every_model_failed_is_shown() -> None:
    class Shy(Popularity):
        def recommend(self, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("interactions") is not None:
                raise RuntimeError("no new users")
            return super().recommend(*args, **kwargs)

    data = make_movielens_like(n_users=40, n_items=60, n_interactions=500, random_state=0)
    with pytest.warns(RecsysWarning, match="no new users"):
        found = Evaluator([LeaveLastOut(n_negatives=19), UserColdSplit(k=(2,))], n_resamples=50).evaluate(
            {"Popularity": Shy()}, data
        )
    failed = found.table().query("scenario == 'user-cold k=2'")
    assert failed["metric"].tolist() == ["HR@10", "Recall@10", "NDCG@10", "MRR@10"]
    report = Report(found)
    tables = Page(report.to_html()).tables
    assert any("failed: RuntimeError: no new users" in cell for table in tables for row in table for cell, _ in row)
    text = report.to_markdown().split("## user-cold k=2")[1]
    assert "| Popularity | failed: RuntimeError: no new users |" in text


@pytest.mark.usefixtures("without_pyarrow")
def test_odd_numbers_and_names_are_told_as_they_are(tmp_path: Path) -> None:
    found = replace(made({"a": [0.0, 0.0], "b\ud800": [0.0, 0.0]}), confidence=0.999)
    report = Report(found, notes="<img src=x>\n# no heading")
    page, text = report.to_html(tmp_path / "page.html"), report.to_markdown()
    assert "99.9% intervals" in page
    assert "a paired test at 0.1%" in " ".join(page.split())
    assert "&#55296;" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "\\<img src=x\\> # no heading" in text
    assert "**" not in text
    assert "-0.0000" not in page


def test_zeros_are_nobodys_best() -> None:
    report = Report(made({"a": [0.0] * 9, "b": [0.0] * 9}))
    page = Page(report.to_html())
    assert not any(attributes.get("class") in ("best", "level") for tag, attributes in page.elements if tag == "td")
    assert "\nNo model found anything: NDCG@10 is 0 everywhere.\n" in report.to_markdown()
    rng = np.random.default_rng(0)
    clear = made({"a": list(0.5 + rng.random(40) / 2), "b": list(rng.random(40) / 2)})
    both = Report(twice(made({"a": [0.0] * 9, "b": [0.0] * 9}), clear)).to_markdown()
    assert "\na is best by NDCG@10, or cannot be told from the best, in 1 of 2 scenarios.\n" in both


def test_ties_for_the_best_are_named_together() -> None:
    values = [0.1, 0.2, 0.7, 0.4]
    # In another order the same values add up to another last bit.
    ties = {"a": values, "b": [0.7, 0.4, 0.1, 0.2]}
    lines = Report(made(ties)).to_markdown().splitlines()
    assert "No model is better than another: NDCG@10 is 0.3500 of all." in lines
    assert sum("**0.3500**" in line for line in lines) == 2
    lines = (
        Report(made({"a": values, "b": values, "c": [0.1, 0.2, 0.6, 0.4], "d": [0.0] * 4})).to_markdown().splitlines()
    )
    assert "a and b tie for the best NDCG@10, and cannot be told from c and d." in lines


def test_scenarios_in_which_a_model_failed_are_named() -> None:
    both = twice(made({"a": [0.5, 0.7], "b": [0.1, 0.3]}), made({"a": [0.5, 0.7], "b": [0.1, 0.3]}))
    failures = pd.DataFrame({"scenario": ["t"], "seed": 0, "model": "b", "error": "ValueError: no"})
    told = Report(replace(both, failures=failures)).compare("a", "b")
    assert told.startswith("a and b cannot be told apart in s: ")
    assert told.endswith(" would be found four times out of five. Left out, as one of them failed there: t.")


def test_colours_can_be_read_in_the_light_and_in_the_dark() -> None:
    css = (Path(recsys.evaluation.__path__[0]) / "report.css").read_text(encoding="utf-8")
    themes = re.findall(r":root \{(.*?--page.*?)\}", css, flags=re.DOTALL)[:2]
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): #([0-9a-f]{3,6});", theme))
        for text, ground in itertools.product(("ink", "soft", "accent", "bad"), ("page", "paper")):
            assert contrast(colours[text], colours[ground]) >= 4.5
        for text, ground in itertools.product(("ink", "soft"), ("best", "level")):
            assert contrast(colours[text], colours[ground]) >= 4.5
        for series, ground in itertools.product([f"s{i}" for i in range(6)], ("page", "paper")):
            assert contrast(colours[series], colours[ground]) >= 3


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2: 21 is black on white."""

    def luminance(colour: str) -> float:
        digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
        parts = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)

"""What a page shows of groups that were asked for: accuracy by history length and by item popularity."""

from __future__ import annotations

import itertools
import re

import pytest

from recsys import EASE, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import Evaluator, RandomSplit, Report, UserColdSplit
from recsys.evaluation._page import page


@pytest.fixture(scope="module")
def report() -> Report:
    data = make_movielens_like(n_users=80, n_items=50, n_interactions=1600, random_state=0)
    splitters = [RandomSplit(test_size=0.4), UserColdSplit(k=(2,))]
    evaluator = Evaluator(splitters, groups=("gender", "popularity", "history"), n_resamples=50)
    return Report(evaluator.evaluate({"Popularity": Popularity(), "EASE": EASE(l2=20.0)}, data))


def test_histories_and_popularity_are_drawn_from_little_to_much(report: Report) -> None:
    random, cold = page(report)["scenarios"]
    histories, items = random["binned"]
    # The bin of a single user is left out.
    assert [tick.text for tick in histories.x_ticks] == ["2-4", "5-9", "10-19", "20-49"]
    assert [tick.text for tick in items.x_ticks] == ["tail", "mid", "head"]
    # New users have no history, so that there is nothing to compare.
    [items_of_new_users] = cold["binned"]
    assert [tick.text for tick in items_of_new_users.x_ticks] == ["tail", "mid", "head"]

    table = report.frame().query("scenario == 'random' and metric == 'NDCG@10'").set_index(["model", "group"])
    for chart, name, where in (
        (histories, "history", "with {} train interactions, {} users"),
        (items, "popularity", "on {} items, {} users"),
    ):
        places = [tick.at for tick in chart.x_ticks]
        assert places == sorted(places)
        assert len({round(after - before, 6) for before, after in itertools.pairwise(places)}) == 1
        assert {series.look.name for series in chart.series} == {"Popularity", "EASE"}
        for series in chart.series:
            assert [mark.x for mark in series.marks] == places
            for mark, tick in zip(series.marks, chart.x_ticks, strict=True):
                row = table.loc[(series.look.name, f"{name}={tick.text}")]
                measured = f"NDCG@10 {row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
                bin_and_size = where.format(tick.text, row["n_users"])
                assert mark.text == f"{series.look.name}: {measured} {bin_and_size}"
                assert mark.high < mark.y < mark.low
    assert table.loc[("EASE", "history=1"), "n_users"] == 1
    assert histories.description.startswith("NDCG@10 by train interactions of the user from 2-4 to 20-49. At 20-49: ")


def test_each_chart_is_once_on_the_page_of_its_scenario(report: Report) -> None:
    text = report.to_html()
    sections = re.split(r'<section id="', text)
    random, cold = (next(part for part in sections if part.startswith(f"scenario-{i}")) for i in (1, 2))
    assert random.count("<b>Short and long histories</b> NDCG@10 by train interactions of the user") == 1
    assert random.count("<b>Rare and popular items</b>") == cold.count("<b>Rare and popular items</b>") == 1
    assert "Short and long histories" not in cold
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    # The tables show all test rows, and hot and cold ones, as ever.
    assert not re.search(r"<button[^>]*>[^<]*=(head|F|10-19)", text)


def test_an_attribute_of_users_has_a_table_in_each_scenario(report: Report) -> None:
    rows = report.frame().query("metric == 'NDCG@10'")
    for scenario in page(report)["scenarios"]:
        frame = rows[rows["scenario"] == scenario["name"]].set_index(["group", "model"])
        [table] = scenario["attributes"]
        assert table["name"] == "gender"
        sizes = [frame.loc[(f"gender={value}", "EASE"), "n_users"] for value in ("F", "M")]
        assert table["columns"] == [("F", f"{sizes[0]} users"), ("M", f"{sizes[1]} users")]
        assert [row["look"].name for row in table["rows"]] == [row["look"].name for row in scenario["rows"]]
        for row in table["rows"]:
            for value, cell in zip(("F", "M"), row["cells"], strict=True):
                measured = frame.loc[(f"gender={value}", row["look"].name)]
                assert (cell["value"], cell["low"], cell["best"]) == tuple(measured[["mean", "low", "best"]])
    text = report.to_html()
    assert text.count('aria-label="NDCG@10 by gender in random"') == 1
    assert len(re.findall(r"<button[^>]*>F \(\d+ users\)</button>", text)) == 2


def test_markdown_has_a_row_for_each_group(report: Report) -> None:
    random, cold = re.split(r"^## ", report.to_markdown(), flags=re.MULTILINE)[1:3]
    rows = [line.split(" | ") for line in random.splitlines() if line.startswith("| ")]
    start = next(i for i, row in enumerate(rows) if row[0] == "| NDCG@10 of")
    assert rows[start] == ["| NDCG@10 of", "users", "Popularity", "EASE |"]
    frame = report.frame().query("scenario == 'random' and metric == 'NDCG@10' and group != 'overall'")
    assert [row[0].strip("| ") for row in rows[start + 2 :]] == list(frame["group"].unique())
    [women] = [row for row in rows if row[0] == "| gender=F"]
    found = frame[frame["group"] == "gender=F"].set_index("model")
    assert women[1] == str(found.loc["EASE", "n_users"])
    for name, cell in zip(("Popularity", "EASE"), women[2:], strict=True):
        assert f"{float(found['mean'][name]):.4f}" in cell
        assert ("**" in cell) == found["best"][name]
    assert "| gender=M | " in cold


def test_without_such_groups_nothing_is_drawn(report: Report) -> None:
    found = report.evaluation
    plain = found.per_user[~found.per_user["group"].str.contains("=")]
    text = Report(type(found)(**{**vars(found), "per_user": plain})).to_html()
    assert "histories</b>" not in text
    assert "items</b>" not in text
    assert "users by <b>" not in text

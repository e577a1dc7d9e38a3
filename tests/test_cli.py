"""The command line: what an evaluator finds in the rows of a file, and one sentence where something is amiss."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from recsys import EASE, ContentEASE, ContentKNN, Popularity, __version__, cli
from recsys.datasets import make_movielens_like
from recsys.evaluation import Evaluator, ItemColdSplit, LeaveLastOut, RandomSplit, Report

ROOT = Path(__file__).resolve().parents[1]
TEXT = {"user_id": str, "item_id": str}
OF_OTHER_NAMES = ["--user-column", "customer", "--item-column", "article", "--timestamp-column", "bought"]
OF_OTHER_NAMES += ["--rating-column", "stars"]


@pytest.fixture(scope="module")
def data() -> Any:
    return make_movielens_like(n_users=60, n_items=40, n_interactions=900, random_state=0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])


def refused(*arguments: object) -> str:
    """The sentence that came instead of a result."""
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert not Path("recsys-report/report.json").exists()
    lines: list[str] = done.stderr.splitlines()
    assert lines[-1].startswith("Error: ")
    return lines[-1]


def means(values: dict[str, Any], scenario: str, metric: str) -> dict[str, float]:
    rows = pd.DataFrame(values["results"])
    rows = rows[(rows["scenario"] == scenario) & (rows["metric"] == metric) & (rows["group"] == "overall")]
    return dict(zip(rows["model"], rows["mean"], strict=True))


def test_a_file_is_judged_as_an_evaluator_does(data: Any) -> None:
    data.interactions.to_csv("ratings.csv", index=False)
    data.items.assign(genres=data.items["genres"].map("|".join)).to_csv("films.csv", index=False)
    chosen = ["--model", "EASE", "--model", "ContentKNN", "--scenario", "leave-last-out", "--scenario", "item-cold"]
    done = run("ratings.csv", "--items", "films.csv", *chosen, "--k", 5, "--min-rating", 3, "--seeds", 2)
    assert done.exit_code == 0, done.stderr

    rows = data.interactions.astype(TEXT)
    items = pd.read_csv("films.csv", dtype=TEXT)
    models = {"Popularity": Popularity(), "EASE": EASE(), "ContentKNN": ContentKNN()}
    splitters = [LeaveLastOut(), ItemColdSplit(hot_test_size=0.1)]
    expected = Evaluator(splitters, k=5, min_rating=3, seeds=(0, 1)).evaluate(
        models, {"interactions": rows, "items": items}
    )
    values = json.loads(Path("recsys-report/report.json").read_text())
    for scenario in ("leave-last-out", "item-cold (cold candidates)", "item-cold (whole catalogue)"):
        found = means(values, scenario, "NDCG@5")
        assert found == pytest.approx(expected.values(scenario, "NDCG@5").mean().to_dict())
    assert means(values, "item-cold (cold candidates)", "NDCG@5")["ContentKNN"] > 0.1
    assert values["title"] == "ratings.csv"
    assert values["notes"] == "900 rows of ratings.csv. Rows rated below 3 do not count."
    report = Report(expected, title="ratings.csv", notes=values["notes"])
    assert done.stdout == report.to_markdown() + "\n"
    assert Path("recsys-report/report.html").read_text().startswith("<!doctype html>")
    assert done.stderr.splitlines()[-1] == "Written: recsys-report/report.html and recsys-report/report.json"


def test_columns_of_any_name_and_files_of_any_kind_are_the_same(data: Any) -> None:
    rows = data.interactions.assign(timestamp=pd.to_datetime(data.interactions["timestamp"], unit="s"))
    rows.to_parquet("rows.parquet")
    renamed = {"user_id": "customer", "item_id": "article", "timestamp": "bought", "rating": "stars"}
    rows.rename(columns=renamed).to_csv("rows.tsv", sep="\t", index=False)
    data.items[["item_id", "year"]].rename(columns={"item_id": "article"}).to_csv("items.csv", index=False)
    data.items[["item_id", "year"]].to_parquet("items.parquet")
    found = []
    for arguments in (
        ["rows.parquet", "--items", "items.parquet"],
        ["rows.parquet", "--items", "items.parquet", "--store", "kept", "--n-jobs", 2],
        ["rows.tsv", "--items", "items.csv", "--store", "kept", *OF_OTHER_NAMES],
    ):
        done = run(
            *arguments, "--model", "ContentEASE", "--scenario", "leave-last-out", "--output", "out", "--title", "T"
        )
        assert done.exit_code == 0, done.stderr
        found.append(done.stdout.replace("rows.tsv", "rows.parquet"))
    assert found[0] == found[1] == found[2]
    text = data.interactions.astype(TEXT)
    expected = Evaluator([LeaveLastOut()]).evaluate(
        {"Popularity": Popularity(), "ContentEASE": ContentEASE()},
        {"interactions": text, "items": data.items[["item_id", "year"]].astype({"item_id": str})},
    )
    values = json.loads(Path("out/report.json").read_text())
    assert means(values, "leave-last-out", "HR@10") == pytest.approx(
        expected.values("leave-last-out", "HR@10").mean().to_dict()
    )
    # What the second run kept, the third, of the same ids, rows and times, found: of two models.
    assert len(list(Path("kept").iterdir())) == 2


def test_ids_are_text_and_pairs_count_once_when_they_are_first_there() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"user": rng.integers(0, 30, 400), "item": rng.integers(0, 20, 400)})
    rows["user"] = rows["user"].map("{:03d}".format)
    rows.assign(timestamp=400 - np.arange(400)).to_csv("log.csv", index=False)
    done = run("log.csv", "--model", "Popularity", "--scenario", "leave-last-out")
    assert done.exit_code == 0, done.stderr
    first = rows.iloc[::-1].drop_duplicates()
    values = json.loads(Path("recsys-report/report.json").read_text())
    n_left = 400 - len(first)
    assert n_left > 100
    assert (
        values["notes"]
        == f"{len(first)} rows of log.csv. Left out: {n_left} rows of pairs of user and item that were there before."
    )
    # The last of a user in time, which is the first in the file.
    X = first.iloc[::-1].reset_index(drop=True).set_axis(["user_id", "item_id"], axis=1).astype(TEXT)
    [split] = LeaveLastOut().splits(X, groups=-np.arange(len(X)))
    assert values["splits"][0]["hash"] == split.hash


@pytest.mark.parametrize("zone", ["", "+01:00"])
def test_dates_may_be_written_in_several_ways(zone: str, data: Any) -> None:
    times = pd.to_datetime(data.interactions["timestamp"], unit="s")
    data.interactions.assign(timestamp=times).to_parquet("plain.parquet")
    written = times.dt.strftime("%Y-%m-%d %H:%M:%S").to_numpy(dtype=object)
    # As `isoformat` does, some have fractions; as clocks do, some are of another zone.
    written[::3] += ".000000"
    late = (times + pd.Timedelta(hours=1)).dt.strftime("%Y-%m-%d %H:%M:%S").to_numpy(dtype=object)
    written[::2] = (late[::2] if zone else written[::2]) + zone
    written[1::2] += "+00:00" if zone else ""
    data.interactions.assign(timestamp=written).to_csv("mixed.csv", index=False)
    arrow = times.dt.as_unit("ns").astype("timestamp[ns][pyarrow]")
    data.interactions.assign(timestamp=arrow).to_parquet("arrow.parquet")
    hashes = []
    for name in ("plain.parquet", "mixed.csv", "arrow.parquet"):
        done = run(name, "--model", "Popularity", "--scenario", "leave-last-out", "--output", "found")
        assert done.exit_code == 0, done.stderr
        hashes.append(json.loads(Path("found/report.json").read_text())["splits"][0]["hash"])
    assert len(set(hashes)) == 1


def test_a_delimiter_at_the_end_of_every_row_moves_no_column(data: Any) -> None:
    Path("plain.csv").write_text(data.interactions[["user_id", "item_id", "rating"]].to_csv(index=False))
    header, *rows = Path("plain.csv").read_text().splitlines()
    Path("ended.csv").write_text("\n".join([header, *(row + "," for row in rows)]))
    for name in ("plain", "ended"):
        done = run(f"{name}.csv", "--model", "Popularity", "--scenario", "random", "--output", name)
        assert done.exit_code == 0, done.stderr
    plain, ended = (json.loads(Path(name, "report.json").read_text()) for name in ("plain", "ended"))
    assert plain["results"] == ended["results"]


def test_a_rating_that_does_not_count_hides_none_that_does() -> None:
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame({"user": np.repeat(np.arange(20), 10), "item": np.tile(np.arange(10), 20)})
    rows = pd.concat([pairs.assign(rating=1), pairs.assign(rating=rng.integers(1, 6, 200))])
    rows.to_csv("log.csv", index=False)
    done = run("log.csv", "--model", "Popularity", "--scenario", "random", "--min-rating", 4)
    assert done.exit_code == 0, done.stderr
    split = json.loads(Path("recsys-report/report.json").read_text())["splits"][0]
    assert split["train"] + split["test"] == (rows["rating"] >= 4).sum()


def test_without_times_rows_are_held_out_at_random(data: Any) -> None:
    data.interactions[["user_id", "item_id"]].to_csv("pairs.csv", index=False)
    done = run("pairs.csv", "--model", "Popularity")
    assert done.exit_code == 0, done.stderr
    values = json.loads(Path("recsys-report/report.json").read_text())
    assert values["notes"] == f"{len(data.interactions):,} rows of pairs.csv, without times."
    scenarios = [split["scenario"] for split in values["splits"]]
    assert scenarios[0] == "random"
    assert {name.split(" ")[0] for name in scenarios} == {"random", "user-cold"}
    [split] = RandomSplit(random_state=0).splits(data.interactions[["user_id", "item_id"]].astype(TEXT))
    assert values["splits"][0]["hash"] == split.hash


def test_lists_and_numbers_of_rows_that_pandas_wrote_are_read_as_such(data: Any) -> None:
    data.interactions.to_csv("log.csv", index=False)
    assert data.items["genres"].map(len).max() > 1
    joined = data.items.assign(genres=data.items["genres"].str.join("|"))
    reports = []
    for frame, index in ((joined, False), (data.items, False), (data.items, True)):
        frame.to_csv("items.csv", index=index)
        done = run("log.csv", "--items", "items.csv", "--model", "ContentKNN", "--scenario", "item-cold")
        assert done.exit_code == 0, done.stderr
        assert "Warning" not in done.stderr
        reports.append([line.split(" fit")[0] for line in done.stdout.splitlines() if "ContentKNN" in line])
    assert reports[0]
    assert reports[1] == reports[2] == reports[0]


def test_ids_that_look_like_lists_are_ids(data: Any) -> None:
    rows = data.interactions.assign(item_id="[" + data.interactions["item_id"].astype(str) + "]")
    rows.to_csv("log.csv", index=False)
    data.items.assign(item_id="[" + data.items["item_id"].astype(str) + "]").to_csv("items.csv", index=False)
    done = run("log.csv", "--items", "items.csv", "--model", "ContentKNN", "--scenario", "item-cold")
    assert done.exit_code == 0, done.stderr
    assert "failed" not in done.stdout + done.stderr


def test_features_may_call_ids_otherwise_than_the_interactions(data: Any) -> None:
    data.interactions.rename(columns={"user_id": "customer"}).to_csv("log.csv", index=False)
    reports = []
    for name in ("customer", "user_id", "user"):
        data.users.rename(columns={"user_id": name}).to_csv("users.csv", index=False)
        options = ["--users", "users.csv", "--user-column", "customer", "--model", "DemographicKNN"]
        done = run("log.csv", *options, "--scenario", "user-cold")
        assert done.exit_code == 0, done.stderr
        reports.append(done.stdout)
    assert "| DemographicKNN | " in reports[0]
    assert reports[1:] == reports[:1] * 2
    data.users.rename(columns={"user_id": "id"}).to_csv("users.csv", index=False)
    Path("recsys-report/report.json").unlink()
    assert "users.csv has no column 'customer' or 'user_id' or 'user', only 'id'" in refused("log.csv", *options)


def test_new_items_are_judged_where_something_is_known_of_them(data: Any) -> None:
    data.interactions.to_csv("ratings.csv", index=False)
    data.items.drop(columns="genres").to_csv("films.csv", index=False)
    done = run("ratings.csv", "--model", "Popularity", "--items", "films.csv")
    assert done.exit_code == 0, done.stderr
    splits = json.loads(Path("recsys-report/report.json").read_text())["splits"]
    assert {split["scenario"].split(" ")[0] for split in splits} == {"leave-last-out", "user-cold", "item-cold"}


def test_a_model_that_fails_is_told_of_in_a_line(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: Any, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no\nroom")

    monkeypatch.setattr(EASE, "fit", fit)
    data.interactions.to_csv("ratings.csv", index=False)
    done = run("ratings.csv", "--model", "EASE", "--scenario", "random")
    assert done.exit_code == 0
    assert (
        "Warning: EASE failed in random, seed 0: RuntimeError: no room" in done.stderr.replace("\r", "\n").splitlines()
    )
    assert "| EASE | failed: RuntimeError: no" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv"], "^Error: There is no file missing.csv; expected a CSV or Parquet file: check the name.$"),
        (["notes.txt"], "notes.txt is of an unknown kind; expected a name that ends in .csv, .tsv or .parquet"),
        (["empty.csv"], "empty.csv cannot be read: No columns to parse from file"),
        (["header.csv"], "header.csv has no rows"),
        (
            ["long.csv"],
            "^Error: long.csv has rows of more fields than its first line has names .2: 'user_id', 'item_id'.; "
            "expected a name for each field: add those that are missing, or put fields that hold a comma in quotes.$",
        ),
        (["ratings.csv", "--items", "long.tsv"], "long.tsv has rows of more .* fields that hold a tab in quotes.$"),
        (["ratings.csv", "--items", "latin.csv"], "latin.csv cannot be read: .*0xe9.*; expected text in UTF-8"),
        (["broken.parquet"], "broken.parquet cannot be read: "),
        (["ratings.csv", "--user-column", "who"], "no column 'who', only 'user_id', 'item_id', .* with --user-column"),
        (["other.csv"], "other.csv has no column 'user_id' or 'user', only 'a', 'b'; .* with --user-column"),
        (["ratings.csv", "--rating-column", "stars"], "no column 'stars', .* with --rating-column"),
        (["ratings.csv", "--timestamp-column", "word"], "Column 'word' of ratings.csv holds what is no time"),
        (["ratings.csv", "--rating-column", "word", "--min-rating", 3], "Column 'word' of ratings.csv .* is no number"),
        (["ratings.csv", "--model", "EASY"], "--model is 'EASY', which is unknown. Did you mean 'EASE'"),
        (["ratings.csv", "--scenario", "cold"], "--scenario is 'cold', which is unknown. Did you mean '.*-cold'"),
        (
            ["ratings.csv", "--scenario", "item-cold"],
            "--scenario is 'item-cold', but of new items nothing is known; .*",
        ),
        (
            ["ratings.csv", "--item-column", "user_id"],
            "Column 'user_id' of ratings.csv is asked for as user and as item",
        ),
        (["semicolons.csv"], "semicolons.csv has the one column 'user_id;item_id'; .* separated by commas"),
        (["ratings.csv", "--k", 0], "`k` is 0; expected at least 1"),
        (["ratings.csv", "--items", "other.csv"], "other.csv has no column 'item_id' or 'item', only 'a', 'b'"),
        (["ratings.csv", "--items", "strangers.csv"], "strangers|item_features|known"),
        (["holes.csv", "--scenario", "random"], "missing|null"),
        (
            ["ratings.csv", "--output", "notes.txt"],
            "--output is 'notes.txt', but 'notes.txt' is no directory; expected a",
        ),
        (["ratings.csv", "--output", "notes.txt/a/b"], "--output is .*, but '.*notes.txt' is no directory"),
        (["ratings.csv", "--store", "notes.txt"], "`store` .notes.txt. cannot be used"),
        (["pairs.csv", "--min-rating", 4], "pairs.csv has no column 'rating', only .* with --rating-column"),
        (
            ["pairs.csv", "--items", "odd.csv"],
            r"'genres' of odd.csv holds what looks like lists, such as '\[Drama\]', but",
        ),
        (["pairs.csv", "--scenario", "time"], "no column 'timestamp'; .* with --timestamp-column"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: list[object], message: str, data: Any) -> None:
    rows = data.interactions
    rows.assign(word="x").to_csv("ratings.csv", index=False)
    rows[["user_id", "item_id"]].to_csv("pairs.csv", index=False)
    rows.head(0).to_csv("header.csv", index=False)
    rows.assign(user_id=rows["user_id"].where(rows.index > 5))[["user_id", "item_id"]].to_csv("holes.csv", index=False)
    pd.DataFrame({"a": [1], "b": [2]}).to_csv("other.csv", index=False)
    pd.DataFrame({"item": ["x"], "year": [2]}).to_csv("strangers.csv", index=False)
    for name, content in (
        ("notes.txt", "mine"),
        ("odd.csv", "item_id,genres\n1,[Drama]\n"),
        ("empty.csv", ""),
        ("broken.parquet", "PAR1"),
        ("semicolons.csv", "user_id;item_id\n1;2"),
        ("long.csv", "user_id,item_id\n1,2,5\n2,3,4\n"),
        ("long.tsv", "item_id\ttitle\n1\tHeat\tDrama\t\n2\tTea\tWar\t\n"),
    ):
        Path(name).write_text(content)
    Path("latin.csv").write_bytes("item_id,title\n1,Misérables\n".encode("latin-1"))
    assert re.search(message, refused(*arguments))


@pytest.mark.parametrize(
    "arguments", [["missing.csv"], ["log.csv", "--users", "missing.csv"], ["log.csv", "--k", "x"], ["log.csv"]]
)
def test_what_cannot_be_read_leaves_no_folder(arguments: list[str]) -> None:
    Path("log.csv").write_text("user_id,item_id\n1,2\n")
    assert run(*arguments, "--output", "new/of/reports").exit_code == 2
    assert [path.name for path in Path().iterdir()] == ["log.csv"]


def test_the_command_is_there_by_both_names(data: Any, tmp_path: Path) -> None:
    data.interactions.to_csv("ratings.csv", index=False)
    command = [sys.executable, "-m", "recsys", "evaluate", str(tmp_path / "ratings.csv"), "--model", "Popularity"]
    done = subprocess.run(
        [*command, "--scenario", "random", "--output", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# ratings.csv\n")
    done = subprocess.run([*command, "--scenario", "none"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "recsys = recsys.__main__:main" in (ROOT / "setup.cfg").read_text()


def test_the_version() -> None:
    told = CliRunner().invoke(cli.app, ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"recsys {__version__}\n")


def test_help_loads_none_of_the_libraries_and_a_missing_typer_is_told_of() -> None:
    code = (
        "import sys, recsys.cli\n"
        "sys.stdout.write(' '.join({'numpy', 'pandas', 'torch', 'sklearn'} & {name for name in sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == ""
    code = "import sys; sys.modules['typer'] = None; from recsys.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "Error: the command line needs typer, which is not installed: pip install 'recsys[cli]'.\n"
    assert done.returncode == 2

"""MovieLens: the official layouts, what is checked, and how what is missing comes."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.datasets import _recbole, fetch_movielens, movielens
from recsys.datasets._bunch import DatasetBunch
from recsys.datasets._readers import OCCUPATIONS, read_interactions, read_items
from recsys.exceptions import DatasetError, DataWarning, InvalidInputError, InvalidTypeError
from tests.datasets.conftest import Server, Trust, Write
from tests.datasets.layouts import (
    LAYOUTS,
    MOVIES_DAT,
    RATINGS_CSV,
    RATINGS_DAT,
    U_ITEM,
    U_USER,
    USERS_DAT,
    official,
    zipped,
)

EDITIONS = sorted(LAYOUTS)


# The real data.


def test_ml_100k_is_what_grouplens_publishes(ml_100k: DatasetBunch, data_home: Path) -> None:
    interactions, users, items = ml_100k.interactions, ml_100k.users, ml_100k.items
    assert (len(interactions), len(users), len(items)) == (100_000, 943, 1_682)
    with (data_home / "ml-100k" / "u.data").open(newline="") as file:
        rows = [tuple(map(int, row)) for row in csv.reader(file, delimiter="\t")]
    assert list(interactions.astype("int64").itertuples(index=False, name=None)) == rows
    assert users.iloc[0].tolist() == [1, "M", 24, "technician", "85711"]
    assert items.iloc[0].tolist() == [1, "Toy Story", 1995.0, ["Animation", "Children's", "Comedy"]]
    assert items["item_id"][items["year"].isna()].tolist() == [267]
    assert items.set_index("item_id")["genres"][267] == ["unknown"]
    assert items.set_index("item_id").loc[1412, "title"] == "Land Before Time III: The Time of the Great Giving"
    assert "Misérables, Les" in set(items["title"])
    assert ml_100k.name == "ml-100k"


def test_ml_100k_genres_are_the_flags(ml_100k: DatasetBunch, data_home: Path) -> None:
    lines = (data_home / "ml-100k" / "u.item").read_text(encoding="latin-1").splitlines()
    flags = [line.split("|")[5:] for line in lines]
    expected = [[g for g, flag in zip(_recbole.ML_100K_GENRES, row, strict=True) if flag == "1"] for row in flags]
    assert ml_100k.items["genres"].tolist() == expected


def test_ml_1m_is_what_grouplens_publishes(ml_1m: DatasetBunch) -> None:
    interactions, users, items = ml_1m.interactions, ml_1m.users, ml_1m.items
    assert (len(interactions), len(users), len(items)) == (1_000_209, 6_040, 3_883)
    assert interactions["item_id"].nunique() == 3_706
    assert interactions.iloc[0].tolist() == [1, 1193, 5, 978300760]
    assert interactions["rating"].value_counts().sort_index().tolist() == [56_174, 107_557, 261_197, 348_971, 226_310]
    assert users.iloc[0].tolist() == [1, "F", 1, "K-12 student", "48067"]
    assert users.set_index("user_id").loc[4, "zip_code"] == "02460"
    assert set(users["occupation"]) == set(OCCUPATIONS)
    assert items["year"].between(1919, 2000).all()
    assert len(set(items["genres"].explode())) == 18
    assert items[items["item_id"] == 1001].to_numpy().tolist() == [
        [1001, "Associate, The (L'Associe)", 1982.0, ["Comedy"]]
    ]
    assert "Misérables, Les" in set(items["title"])


def test_ml_1m_titles_and_genres_agree_with_a_loop(ml_1m: DatasetBunch, data_home: Path) -> None:
    lines = (data_home / "ml-1m" / "movies.dat").read_text(encoding="latin-1").split("\n")[:-1]
    for line, (item_id, title, year, genres) in zip(lines, ml_1m.items.itertuples(index=False, name=None), strict=True):
        head, *_, tail = line.split("::")
        assert (int(head), tail.split("|")) == (item_id, genres)
        assert re.sub(r" ?\((\d{4})\)$", "", line[len(head) + 2 : -len(tail) - 2]) == title
        assert f"({year:.0f})::{tail}" in line


# Every layout, on small copies.


@pytest.mark.parametrize("key", EDITIONS)
def test_every_edition_has_the_same_shape(key: str, write: Write) -> None:
    folder = write(key)
    data = fetch_movielens(key, data_home=folder.parent, download=False)
    assert isinstance(data, DatasetBunch)
    assert dict(data.interactions.dtypes) == {
        "user_id": np.int64,
        "item_id": np.int64,
        "rating": np.float32,
        "timestamp": np.int64,
    }
    assert list(data.items.columns) == ["item_id", "title", "year", "genres"]
    assert data.items["item_id"].dtype == np.int64
    assert data.items["year"].dtype == np.float64
    assert all(isinstance(genres, list) for genres in data.items["genres"])
    assert data.items["title"].tolist()[:2] == ["Toy Story", "Misérables, Les"]
    assert data.items["year"].tolist()[:2] == [1995.0, 1995.0]
    attributes = ["gender", "age", "occupation", "zip_code"] if key in ("100k", "1m") else []
    assert list(data.users.columns) == ["user_id", *attributes]
    assert data.name == f"ml-{key}"
    for part in (LAYOUTS[key][0], "3 ratings of 3 movies by 2 users", "https://doi.org/10.1145/2827872", "item_id"):
        assert part in data.DESCR
    assert ("do not redistribute" in data.DESCR) is (key in ("100k", "1m", "10m"))


def test_values_of_each_format(write: Write) -> None:
    data = fetch_movielens("100k", data_home=write("100k").parent)
    assert data.interactions.to_numpy().tolist()[0] == [2, 1, 3, 881250949]
    assert data.users.to_numpy().tolist() == [[1, "M", 24, "technician", "85711"], [2, "F", 53, "other", "V3N4P"]]
    assert data.items["genres"].tolist() == [["Animation", "Children's", "Comedy"], ["Drama", "Musical"], ["unknown"]]

    data = fetch_movielens("1m", data_home=write("1m").parent)
    assert data.interactions.to_numpy().tolist()[1] == [1, 30, 3, 978302109]
    assert data.users.to_numpy().tolist() == [
        [1, "F", 1, "K-12 student", "48067"],
        [2, "M", 56, "self-employed", "02460"],
    ]
    assert data.items.iloc[2].tolist() == [30, "Face::Off: The Movie", 1997.0, ["Action"]]

    data = fetch_movielens("10m", data_home=write("10m").parent)
    assert data.interactions["rating"].tolist() == [5.0, 3.5, 4.0]
    assert data.items.iloc[2].tolist() == [30, "Face::Off: The Movie", 1997.0, ["Action"]]

    data = fetch_movielens("25m", data_home=write("25m").parent)
    assert data.interactions.to_numpy().tolist()[1] == [1, 30, 0.5, 964981247]
    assert data.users["user_id"].tolist() == [1, 7]
    assert data.items["title"].tolist()[2] == 'Say "Hi": A Story'
    assert data.items["genres"].tolist() == [["Adventure", "Animation"], ["Drama"], []]
    assert np.isnan(data.items["year"][2])


@pytest.mark.parametrize(
    ("written", "title", "year"),
    [
        ("Heat (1995)", "Heat", 1995),
        ("Heat (1995) ", "Heat", 1995),
        ("Associate, The (L'Associe)(1982)", "Associate, The (L'Associe)", 1982),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("Jonah (Jonas en l'an 2000) (1976)", "Jonah (Jonas en l'an 2000)", 1976),
        ("1984 (1956) (1984)", "1984 (1956)", 1984),
        ("Land Before Time III (1995) (V)", "Land Before Time III", 1995),
        ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto", 2006),
        ("Doctor Who (2005- )", "Doctor Who", 2005),
        ("Black Mirror", "Black Mirror", None),
        ("Apple (2010", "Apple (2010", None),
        ("Null", "Null", None),
        ("NA (1999)", "NA", 1999),
    ],
)
def test_titles_lose_their_year(written: str, title: str, year: int | None, tmp_path: Path) -> None:
    path = tmp_path / "movies.dat"
    path.write_text(f"5::{written}::Drama\n", encoding="utf-8")
    items = read_items(path, "utf-8")
    assert items["title"].tolist() == [title]
    assert np.array_equal(items["year"], [np.nan if year is None else year], equal_nan=True)


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@given(titles=st.lists(_TEXT.filter(str.strip), min_size=1, max_size=5), dat=st.booleans())
def test_any_title_survives_either_format(
    titles: list[str], dat: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("titles") / ("movies.dat" if dat else "movies.csv")
    if dat:
        path.write_bytes("".join(f"{i}::{t} (1990)::Drama|War\n" for i, t in enumerate(titles, 1)).encode())
    else:
        buffer = io.StringIO(newline="")
        rows = [(i, f"{title} (1990)", "Drama|War") for i, title in enumerate(titles, 1)]
        csv.writer(buffer).writerows([("movieId", "title", "genres"), *rows])
        path.write_bytes(buffer.getvalue().encode())
    items = read_items(path, "utf-8")
    assert items["item_id"].tolist() == list(range(1, len(titles) + 1))
    assert items["title"].tolist() == [title.rstrip() for title in titles]
    assert items["year"].tolist() == [1990.0] * len(titles)
    assert items["genres"].tolist() == [["Drama", "War"]] * len(titles)


_ID = st.integers(1, 2**31)


@given(rows=st.lists(st.tuples(_ID, _ID, st.integers(1, 10), _ID), min_size=1, max_size=30), dat=st.booleans())
def test_any_ratings_survive_either_format(
    rows: list[tuple[int, int, int, int]], dat: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ratings") / ("ratings.dat" if dat else "ratings.csv")
    sep = "::" if dat else ","
    header = "" if dat else "userId,movieId,rating,timestamp\n"
    path.write_text(header + "".join(sep.join(map(str, (u, i, r / 2, t))) + "\n" for u, i, r, t in rows))
    expected = [(user, item, rating / 2, time) for user, item, rating, time in rows]
    assert list(read_interactions(path).itertuples(index=False, name=None)) == expected


# What is wrong with a file is said.


@pytest.mark.parametrize(
    ("key", "file", "content", "message"),
    [
        ("1m", "ratings.dat", "1:10:5:978300760\n", r"ratings\.dat is not .*'user_id::item_id::rating::timestamp'"),
        ("1m", "ratings.dat", "1::10::five::978300760\n", "could not convert string to float: 'five'"),
        ("1m", "ratings.dat", "1::10::5::978300760::9\n", "Length of header or names does not match"),
        ("1m", "ratings.dat", RATINGS_DAT + "1::2::3::4::5\n", "Expected 4 fields in line 4, saw 5"),
        ("1m", "ratings.dat", RATINGS_DAT + "1::10", "is not as GroupLens wrote it"),
        ("1m", "ratings.dat", "99999999999999999999::10::5::978300760\n", "Overflow"),
        ("1m", "ratings.dat", "", r"ratings\.dat holds no ratings"),
        ("1m", "ratings.dat", "1::10::6::978300760\n", r"holds the rating 6\.0; expected 1 to 5 in steps of 1"),
        ("1m", "ratings.dat", "1::10::3.5::978300760\n", r"holds the rating 3\.5; expected 1 to 5 in steps of 1"),
        ("1m", "ratings.dat", "1::10::inf::978300760\n", "holds the rating inf"),
        ("1m", "ratings.dat", "0::10::5::978300760\n", "holds the user_id 0; expected a positive integer"),
        ("1m", "ratings.dat", "1::10::5::-1\n", "holds the timestamp -1"),
        ("1m", "ratings.dat", RATINGS_DAT[:-25], r"ratings\.dat is cut off in the middle of its last line, after 2"),
        ("1m", "movies.dat", MOVIES_DAT + "40;No Colons;Drama\n", "line 4 is '40;No Colons;Drama'"),
        ("1m", "movies.dat", "", "line 1 is ''"),
        ("1m", "movies.dat", MOVIES_DAT + "40::Heat (1995)::\n", r"line 4 is '40::Heat \(1995\)::'"),
        ("1m", "movies.dat", MOVIES_DAT + "10::Twice (1999)::Drama\n", "lists item_id 10 more than once"),
        ("1m", "users.dat", USERS_DAT + "3::M::25::21::00000\n", "occupation 21; expected a code from 0 to 20"),
        ("1m", "users.dat", USERS_DAT + "2::M::25::1::00000\n", "lists user_id 2 more than once"),
        ("1m", "users.dat", "", r"users\.dat holds no users; expected 2\. Remove the folder .*ml-1m and fetch"),
        ("1m", "users.dat", USERS_DAT + "3::F::25::1\n", r"user_id 3 has no zip_code\. Expected .*::zip_code'"),
        ("1m", "users.dat", "1::F::young::10::48067\n", r"users\.dat is not as GroupLens wrote it"),
        ("100k", "u.user", "", r"u\.user holds no users; expected 2\. Remove the folder .*ml-100k and fetch it again"),
        ("100k", "u.user", U_USER + "3|24|M\n4|9|F|none\n", r"user_id 3, 4 has no zip_code\. .*'user_id\|age\|gen"),
        ("100k", "u.item", "", r"u\.item holds no movies; expected 3\. Remove the folder .*ml-100k and fetch it again"),
        ("100k", "u.item", U_ITEM + "4|Heat (1995)|01-Jan-1995\n", r"u\.item is not as GroupLens wrote it: inval"),
        ("100k", "u.item", U_ITEM.replace("|0\n", "|x\n"), r"u\.item is not as GroupLens wrote it"),
        ("25m", "ratings.csv", "1,10,4.0,964982703\n", "line 1 is '1,10,4.0,964982703'. Expected .*'userId,movieId,"),
        ("25m", "ratings.csv", RATINGS_CSV + "<html>", "is not as GroupLens wrote it"),
        ("25m", "ratings.csv", RATINGS_CSV + "1,10,,964982703\n", "could not convert string to float: ''"),
        ("25m", "ratings.csv", RATINGS_CSV + "\0\0\0\0", "is not as GroupLens wrote it"),
        ("25m", "ratings.csv", RATINGS_CSV.replace("0.5", "0.25"), r"0\.25; expected 0\.5 to 5 in steps of 0\.5"),
        ("25m", "movies.csv", "movieId,title,genres\n", r"movies\.csv holds no movies; expected 3"),
        ("25m", "movies.csv", "movieId,title,genres\n7,Heat (1995)\n", "item_id 7 has no genres. .*'movieId,title,gen"),
        ("25m", "movies.csv", 'movieId,title,genres\n1,"Open (1999),Drama\n', "EOF inside string"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused(key: str, file: str, content: str, message: str, write: Write) -> None:
    folder = write(key)
    (folder / file).write_bytes(content.encode("utf-8" if key == "25m" else "latin-1"))
    with pytest.raises(DatasetError, match=message) as caught:
        fetch_movielens(key, data_home=folder.parent)
    assert str(folder) in str(caught.value)


def test_text_of_another_encoding_is_refused(write: Write) -> None:
    folder = write("10m")
    (folder / "movies.dat").write_bytes(MOVIES_DAT.encode("latin-1"))
    with pytest.raises(DatasetError, match=r"movies\.dat is not as GroupLens wrote it: 'utf-8' codec"):
        fetch_movielens("10m", data_home=folder.parent)


def test_a_file_that_ends_in_no_newline_is_read_with_a_warning(write: Write) -> None:
    folder = write("1m")
    (folder / "ratings.dat").write_text(RATINGS_DAT[:-1])
    with pytest.warns(DataWarning, match="holds a last line of ratings.dat without an end"):
        assert len(fetch_movielens("1m", data_home=folder.parent).interactions) == 3


@pytest.mark.parametrize(("key", "file"), [("1m", "ratings.dat"), ("100k", "u.data"), ("25m", "ratings.csv")])
def test_a_last_line_that_has_all_its_fields_but_no_end_warns(key: str, file: str, write: Write) -> None:
    folder = write(key)
    (folder / file).write_bytes((folder / file).read_bytes()[:-3])
    with pytest.warns(DataWarning, match=f"holds a last line of {file} without an end, of which a part may be lost"):
        cut = fetch_movielens(key, data_home=folder.parent).interactions["timestamp"]
    assert 0 < cut.iloc[-1] < cut.iloc[:-1].min() / 5


def test_counts_that_are_not_the_published_ones_warn(write: Write) -> None:
    folder = write("1m")
    (folder / "ratings.dat").write_text(RATINGS_DAT.splitlines(keepends=True)[0])
    (folder / "users.dat").write_text(USERS_DAT + "3::M::25::1::00000\n")
    expected = r"ml-1m holds 1 ratings where GroupLens publishes 3 \(2 too few\); 3 users .* \(1 too many\)\."
    with pytest.warns(DataWarning, match=expected) as caught:
        fetch_movielens("1m", data_home=folder.parent)
    # It points at the caller, not into this package.
    assert caught[0].filename == __file__


def test_ratings_of_what_is_not_listed_warn(write: Write) -> None:
    folder = write("1m")
    (folder / "ratings.dat").write_text(RATINGS_DAT.replace("::30::", "::77::").replace("1::10", "9::10"))
    expected = r"1 ratings whose user_id is not listed \(9\); 1 ratings whose item_id is not listed \(77\)"
    with pytest.warns(DataWarning, match=expected):
        fetch_movielens("1m", data_home=folder.parent)


def test_a_rebuilt_file_of_ratings_is_named_in_the_description(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("1m")
    digest = hashlib.md5((folder / "ratings.dat").read_bytes(), usedforsecurity=False).hexdigest()
    for md5, rebuilt in ((digest, False), ("0" * 32, True)):
        edition = dataclasses.replace(movielens._EDITIONS["1m"], ratings_md5=md5)
        monkeypatch.setitem(movielens._EDITIONS, "1m", edition)
        text = fetch_movielens("1m", data_home=folder.parent).DESCR
        assert (f"ratings.dat is not byte for byte the file of GroupLens (MD5 {digest}" in text) is rebuilt


# Names and places.


@pytest.mark.parametrize("name", ["10m", "ml-10m", "ML-10M", "ml-10M100K"])
def test_names_of_folders_are_understood(name: str, write: Write) -> None:
    assert fetch_movielens(name, data_home=write("10m").parent).name == "ml-10m"


def test_a_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"no MovieLens data set 'ml-100'. Did you mean '100k'\?"):
        fetch_movielens("ml-100")
    wrong: Any = 100
    with pytest.raises(InvalidTypeError, match="`name` is 100; expected one of '100k', '1m'"):
        fetch_movielens(wrong)


def test_the_variable_names_the_data_home(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_HOME", str(write("1m").parent))
    assert len(fetch_movielens("1m").interactions) == 3


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        fetch_movielens("10m", data_home=tmp_path / "new", download=False)
    message = str(caught.value)
    assert "`download` is False" in message
    assert "https://files.grouplens.org/datasets/movielens/ml-10m.zip" in message
    for file in ("ratings.dat", "movies.dat"):
        assert str(tmp_path / "new" / "ml-10M100K" / file) in message
    assert "RECSYS_DATA_HOME" in message
    assert not (tmp_path / "new").exists()


def test_an_incomplete_folder_is_left_alone(write: Write, grouplens: Server) -> None:
    folder = write("1m")
    (folder / "users.dat").unlink()
    with pytest.raises(DatasetError, match=r"ml-1m lacks users\.dat\. Remove that folder to fetch it anew"):
        fetch_movielens("1m", data_home=folder.parent)
    assert sorted(path.name for path in folder.iterdir()) == ["movies.dat", "ratings.dat"]
    assert grouplens.asked == []


# Downloads.


@pytest.mark.parametrize("key", ["1m", "10m", "25m"])
def test_what_is_missing_is_downloaded_once(key: str, tmp_path: Path, grouplens: Server, trust: Trust) -> None:
    archive = official(key)
    trust(key, archive)
    grouplens.answers = [archive]
    for _ in range(2):
        data = fetch_movielens(key, data_home=tmp_path, verbose=False)
        assert data.items["title"].tolist()[1] == "Misérables, Les"
    assert grouplens.asked == [f"/ml-{key}.zip"]
    assert [path.name for path in tmp_path.iterdir()] == [LAYOUTS[key][0]]


def test_an_empty_folder_is_filled(tmp_path: Path, grouplens: Server, trust: Trust) -> None:
    (tmp_path / "ml-1m").mkdir()
    trust("1m", official("1m"))
    grouplens.answers = [official("1m")]
    assert len(fetch_movielens("1m", data_home=tmp_path, verbose=False).interactions) == 3


def test_latest_small_needs_no_checksum(tmp_path: Path, grouplens: Server) -> None:
    grouplens.answers = [official("latest-small")]
    assert len(fetch_movielens("latest-small", data_home=tmp_path, verbose=False).interactions) == 3


@pytest.mark.parametrize("failure", [500, 503, b"not the archive", (b"half", 1000)])
def test_a_failed_download_is_tried_again(
    failure: bytes | int | tuple[bytes, int], tmp_path: Path, grouplens: Server, trust: Trust
) -> None:
    trust("1m", official("1m"))
    grouplens.answers = [failure, failure, official("1m")]
    assert len(fetch_movielens("1m", data_home=tmp_path, verbose=False).interactions) == 3
    assert len(grouplens.asked) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (404, "404 Client Error"),
        (official("10m"), "hash of downloaded file"),
        ((official("1m")[:100], len(official("1m"))), "IncompleteRead"),
    ],
)
def test_a_download_that_keeps_failing_says_what_to_do(
    answer: bytes | int | tuple[bytes, int], reason: str, tmp_path: Path, grouplens: Server, trust: Trust
) -> None:
    trust("1m", official("1m"))
    grouplens.answers = [answer] * 3
    with pytest.raises(DatasetError, match=f"ml-1m could not be fetched from GroupLens: .*{reason}") as caught:
        fetch_movielens("1m", data_home=tmp_path, verbose=False)
    assert f"so that there are {tmp_path / 'ml-1m' / 'ratings.dat'}" in str(caught.value)
    assert isinstance(caught.value.__cause__, (OSError, ValueError))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", official("latest-small")[:-30]])
def test_latest_small_that_is_no_archive_leaves_nothing(body: bytes, tmp_path: Path, grouplens: Server) -> None:
    grouplens.answers = [body]
    with pytest.raises(DatasetError, match="could not be fetched from GroupLens: File is not a zip file") as caught:
        fetch_movielens("latest-small", data_home=tmp_path, verbose=False)
    assert isinstance(caught.value.__cause__, zipfile.BadZipFile)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_would_escape_is_refused(tmp_path: Path, grouplens: Server) -> None:
    home = tmp_path / "home"
    grouplens.answers = [zipped({"ml-latest-small/ratings.csv": b"", "../../evil": b"evil"})]
    with pytest.raises(DatasetError, match=r"holds '\.\./\.\./evil', which would be written outside"):
        fetch_movielens("latest-small", data_home=home, verbose=False)
    assert sorted(tmp_path.rglob("*")) == [home]


def test_an_unreachable_server_fails_fast_and_says_so(tmp_path: Path, grouplens: Server) -> None:
    # Nobody listens on port 9, "discard".
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(movielens, "BASE_URL", "http://127.0.0.1:9/")
        with pytest.raises(DatasetError, match="Connection refused"):
            fetch_movielens("1m", data_home=tmp_path / "home", verbose=False)
    assert list((tmp_path / "home").iterdir()) == []


def test_frames_may_be_put_back_into_a_bunch(write: Write) -> None:
    data = fetch_movielens("1m", data_home=write("1m").parent)
    changed = DatasetBunch(**{**data, "interactions": data.interactions[data.interactions["rating"] > 3]})
    assert len(changed.interactions) == 2
    pd.testing.assert_frame_equal(changed.items, data["items"])

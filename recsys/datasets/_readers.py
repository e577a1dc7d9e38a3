"""The three file formats of MovieLens, read into frames of one shape."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.datasets._recbole import ML_100K_GENRES
from recsys.exceptions import DatasetError, examples

__all__ = ["FILES", "OCCUPATIONS", "read_interactions", "read_items", "read_users"]

# By format: the file of ratings, of movies and, where there is one, of users.
FILES: dict[str, tuple[str, ...]] = {
    "u": ("u.data", "u.item", "u.user"),
    "dat": ("ratings.dat", "movies.dat"),
    "dat with users": ("ratings.dat", "movies.dat", "users.dat"),
    "csv": ("ratings.csv", "movies.csv"),
}

_RATINGS = {"user_id": "int64", "item_id": "int64", "rating": "float32", "timestamp": "int64"}
_U_ITEM: dict[str, type | str] = {
    "item_id": "int64", "title": str, "release": str, "video": str, "url": str,
    **dict.fromkeys(ML_100K_GENRES, "int8"),
}  # fmt: skip
_U_USER: dict[str, type | str] = {
    "user_id": "int64",
    "age": "int64",
    "gender": str,
    "occupation": str,
    "zip_code": str,
}
_USERS_DAT: dict[str, type | str] = {
    "user_id": "int64", "gender": str, "age": "int64", "occupation": "int64", "zip_code": str,
}  # fmt: skip
_USER_COLUMNS = ["user_id", "gender", "age", "occupation", "zip_code"]

# The README of ML-1M, in the order of its codes.
OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip

# "Title (1995)", "Title (1995) (TV)"; a series spans years, "Title (2006-2007)" or "Title (2006- )": the first counts.
_TITLE_AND_YEAR = r"^(.*?)\s*\((\d{4})(?:\s*[–-]\s*(?:\d{4})?\s*)?\)\s*(?:\((?:TV|VG|V)\)\s*)?$"
_NO_GENRES = "(no genres listed)"


def read_interactions(path: Path) -> pd.DataFrame:
    """Read the file of ratings.

    Parameters
    ----------
    path : pathlib.Path
        ``u.data``, ``ratings.dat`` or ``ratings.csv``.

    Returns
    -------
    pandas.DataFrame
        user_id, item_id and timestamp (int64), rating (float32), in the order of the file.

    Raises
    ------
    DatasetError
        If a line is malformed, or the file is cut off in the middle of one.
    """
    if path.suffix == ".csv":
        return _read_table(path, _RATINGS, sep=",", header="userId,movieId,rating,timestamp")
    return _read_table(path, _RATINGS, sep="::" if path.suffix == ".dat" else "\t")


def read_users(path: Path) -> pd.DataFrame:
    """Read the file of user attributes.

    Parameters
    ----------
    path : pathlib.Path
        ``u.user`` or ``users.dat``.

    Returns
    -------
    pandas.DataFrame
        user_id and age (int64), gender, occupation and zip_code (words), in the order of the file.

    Raises
    ------
    DatasetError
        If a line is malformed or an occupation has no name.
    """
    if path.suffix != ".dat":
        return _read_table(path, _U_USER, sep="|", encoding="latin-1")[_USER_COLUMNS]
    users = _read_table(path, _USERS_DAT, sep="::", encoding="latin-1")
    codes = users["occupation"]
    unknown = codes[(codes < 0) | (codes >= len(OCCUPATIONS))]
    if len(unknown):
        raise DatasetError(
            f"{path}: occupation {examples(unknown.unique())}; expected a code from 0 to {len(OCCUPATIONS) - 1}."
        )
    users["occupation"] = np.array(OCCUPATIONS, dtype=object)[codes]
    return users.astype({"occupation": str})


def read_items(path: Path, encoding: str) -> pd.DataFrame:
    """Read the file of movies.

    Parameters
    ----------
    path : pathlib.Path
        ``u.item``, ``movies.dat`` or ``movies.csv``.
    encoding : str
        Encoding of its text.

    Returns
    -------
    pandas.DataFrame
        item_id (int64), title (without the year), year (float64, NaN where the title has none), genres (lists of str).

    Raises
    ------
    DatasetError
        If a line is malformed.
    """
    if path.suffix == ".csv":
        columns: dict[str, type | str] = {"item_id": "int64", "title": str, "genres": str}
        movies = _read_table(path, columns, sep=",", header="movieId,title,genres", encoding=encoding)
        genres = movies["genres"]
    elif path.suffix == ".dat":
        movies = _read_movies_dat(path, encoding)
        genres = movies["genres"]
    else:
        movies = _read_table(path, _U_ITEM, sep="|", encoding=encoding)
        names = np.array([f"{genre}|" for genre in ML_100K_GENRES], dtype=object)
        # A flag times a name is the name or nothing, and a sum of names joins them.
        joined = movies[list(ML_100K_GENRES)].to_numpy().astype(object) @ names
        genres = pd.Series(joined, index=movies.index, dtype=str)
    parts = movies["title"].str.extract(_TITLE_AND_YEAR)
    # Finding names, where splitting at "|" would make [""] of no genres.
    lists = genres.where(genres != _NO_GENRES, "").str.findall(r"[^|]+")
    return pd.DataFrame(
        {
            "item_id": movies["item_id"],
            "title": parts[0].fillna(movies["title"].str.strip()),
            "year": pd.to_numeric(parts[1]).astype("float64"),
            "genres": lists.astype(object),
        }
    )


def _read_movies_dat(path: Path, encoding: str) -> pd.DataFrame:
    """Split at the first and the last "::", since a title may hold one itself."""
    try:
        text = path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise _malformed(path, "MovieID::Title::Genres", error) from error
    # Not str.splitlines: in Latin-1 a byte of a title may look like one of its other line ends.
    lines = pd.Series(text.rstrip("\r\n").split("\n"), dtype=str).str.removesuffix("\r")
    movies = lines.str.extract(r"^(\d{1,18})::(.*)::([^:]+)$").set_axis(["item_id", "title", "genres"], axis=1)
    bad = np.flatnonzero(movies["item_id"].isna())
    if len(bad):
        raise _malformed(path, "MovieID::Title::Genres", f"line {bad[0] + 1} is {lines.iloc[bad[0]]!r}")
    return movies.astype({"item_id": "int64"})


def _read_table(
    path: Path,
    columns: Mapping[str, type | str],
    *,
    sep: str,
    header: str | None = None,
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Read on pandas' C parser, piece by piece and without looking for missing values, of which there are none."""
    expected = header or sep.join(columns)
    if header is not None:
        with path.open("rb") as file:
            first = file.readline(1000).decode(encoding, "replace").strip()
        if first != header:
            raise _malformed(path, expected, f"line 1 is {first[:80]!r}")
    # The C parser takes one character; no field read here holds a colon or a tab.
    two = sep == "::"
    source = io.BytesIO(path.read_bytes().replace(b"::", b"\t")) if two else path
    try:
        with warnings.catch_warnings():
            # pandas only warns when every line has a field too many.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                source,
                sep="\t" if two else sep,
                names=list(columns),
                header=None if header is None else 0,
                dtype=dict(columns),
                index_col=False,
                na_filter=False,
                quoting=csv.QUOTE_NONE if header is None else csv.QUOTE_MINIMAL,
                encoding=encoding,
                engine="c",
            )
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise _malformed(path, expected, error) from error
    key, *_, last = columns
    # What a line lacks pandas takes for empty text, and refuses where it expects a number.
    cut = table[key][table[last] == ""] if columns[last] is str else table[key].iloc[:0]
    if len(cut):
        raise _malformed(path, expected, f"the line of {key} {examples(cut)} has no {last}")
    return table


def _malformed(path: Path, expected: str, found: object) -> DatasetError:
    return DatasetError(
        f"{path} is not as GroupLens wrote it: {str(found).strip()}. Expected lines of the form {expected!r}. "
        f"The file may be damaged or cut off: remove the folder {path.parent} and fetch it again."
    )

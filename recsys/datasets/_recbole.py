"""MovieLens-100K out of the wheel of RecBole, for machines that reach a package index but not GroupLens."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd

from recsys.datasets._fetch import publish, workspace
from recsys.exceptions import DatasetError

__all__ = ["ML_100K_GENRES", "PROVENANCE", "REQUIREMENT", "convert_wheel", "fetch_from_wheel"]

REQUIREMENT = "recbole==1.2.1"
# SHA-256 of recbole-1.2.1-py3-none-any.whl as the index serves it. The wheel is only read, never installed or imported.
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
PROVENANCE = "PROVENANCE.txt"

# The flags of u.item, in their order.
ML_100K_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip

# Two items that RecBole's conversion spoiled, as GroupLens has them.
_MENDED = {"267": "unknown", "1412": "Land Before Time III: The Time of the Great Giving (1995) (V)"}
_MEMBERS = "recbole/dataset_example/ml-100k/ml-100k"
_NOTE = """\
GroupLens could not be reached: these files were written from the copy of MovieLens-100K in the wheel of RecBole 1.2.1.
u.data and u.user are byte for byte the official files. u.item has the same ids, titles, years and genres (two titles
that the copy misspells are mended); the copy has no release dates, video release dates and IMDb URLs: they are empty.
"""


def fetch_from_wheel(folder: str, home: Path) -> None:
    """Download RecBole's wheel with pip and leave MovieLens-100K in the official layout in ``home/folder``.

    Parameters
    ----------
    folder : str
        Name of the folder to write.
    home : pathlib.Path
        Where it goes.

    Raises
    ------
    DatasetError
        If pip fails, or the wheel is not the one whose contents are known.
    OSError
        If the disk does.
    """
    with workspace(home, folder) as work:
        wheel = _download(work)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != WHEEL_SHA256:
            raise DatasetError(f"{wheel.name} has SHA-256 {digest}; expected {WHEEL_SHA256}. It was not used.")
        convert_wheel(wheel, work / folder)
        publish(work / folder, home / folder)


def _download(work: Path) -> Path:
    # A wheel only: pip would run the code of a source archive.
    command = [
        *(sys.executable, "-m", "pip", "download", REQUIREMENT, "--no-deps", "--only-binary", ":all:"),
        *("--dest", str(work), "--quiet", "--no-input", "--disable-pip-version-check"),
        *("--retries", "1", "--timeout", "10"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"pip did not deliver {REQUIREMENT} within {error.timeout:.0f} s.") from error
    wheels = sorted(work.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise DatasetError(f"pip could not download {REQUIREMENT}: {reason[0]}")
    return wheels[0]


def convert_wheel(wheel: Path, target: Path) -> None:
    """Write the files of MovieLens-100K in the official layout.

    Parameters
    ----------
    wheel : pathlib.Path
        RecBole's wheel.
    target : pathlib.Path
        Folder to make.
    """
    with zipfile.ZipFile(wheel) as content:
        tables = {kind: content.read(f"{_MEMBERS}.{kind}") for kind in ("inter", "user", "item")}
    target.mkdir()
    bodies = {kind: table.partition(b"\n")[2] for kind, table in tables.items()}
    (target / "u.data").write_bytes(bodies["inter"])
    (target / "u.user").write_bytes(bodies["user"].replace(b"\t", b"|"))

    items = pd.read_csv(
        io.BytesIO(bodies["item"]), sep="\t", names=["id", "title", "year", "genres"],
        dtype=str, keep_default_na=False, quoting=3, encoding="utf-8",
    )  # fmt: skip
    titles = items["id"].map(_MENDED).fillna(items["title"] + " (" + items["year"] + ")")
    flags = items["genres"].str.get_dummies(sep=" ").reindex(columns=list(ML_100K_GENRES), fill_value=0).astype(str)
    lines = (items["id"] + "|" + titles + "|||").str.cat(flags, sep="|")
    (target / "u.item").write_bytes(("\n".join(lines) + "\n").encode("latin-1"))
    (target / PROVENANCE).write_text(_NOTE, encoding="utf-8")

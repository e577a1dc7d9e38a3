"""What the command line does: ``recsys evaluate`` judges models on rows of your own, ``recsys serve`` serves a bundle.

::

    recsys evaluate ratings.csv --items films.csv --model EASE --model ContentEASE --scenario item-cold
    recsys serve bundle/ --port 8000

Only typer is imported before there is something to do, so help comes at once. Whatever a user can mend is one sentence
and exit code 2.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from ast import literal_eval
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys import __version__
from recsys.exceptions import InvalidInputError, RecsysError, RecsysWarning, did_you_mean, examples

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["app"]

MODELS = (
    "Popularity",
    "DemographicKNN",
    "ContentKNN",
    "MatrixFactorization",
    "AutoRec",
    "DeepFM",
    "LightGBMRecommender",
    "EASE",
    "ContentEASE",
    "ContrastiveRecommender",
)
DEFAULT_MODELS = ("Popularity", "MatrixFactorization", "EASE", "ContentEASE", "ContrastiveRecommender")
# The splitter of each scenario, and what is not its default.
SCENARIOS: dict[str, tuple[str, dict[str, Any]]] = {
    "leave-last-out": ("LeaveLastOut", {}),
    "random": ("RandomSplit", {}),
    "time": ("GlobalTimeSplit", {}),
    "user-cold": ("UserColdSplit", {}),
    "item-cold": ("ItemColdSplit", {"hot_test_size": 0.1}),
    "both-cold": ("BothColdSplit", {}),
    "sparse": ("SparseSubset", {}),
}
# Without times no row is the last, or later than others.
OF_TIMES = ("leave-last-out", "time")
# Without content no model can rank new items.
OF_NEW_ITEMS = ("item-cold", "both-cold")
BASELINE = "Popularity"

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"recsys {__version__}")
        raise typer.Exit


@app.callback()
def _recsys(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version and exit.")
    ] = False,
) -> None:
    """Recommendations for new users and new items."""


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="CSV or Parquet file: a row for each time that a user met an item.")],
    users: Annotated[Path | None, typer.Option(help="CSV or Parquet file of what is known of users.")] = None,
    items: Annotated[
        Path | None, typer.Option(help="CSV or Parquet file of what is known of items. Several genres, say, as a|b.")
    ] = None,
    user_column: Annotated[
        str | None, typer.Option(help="Of user ids, in data and --users; else user_id or user.")
    ] = None,
    item_column: Annotated[
        str | None, typer.Option(help="Of item ids, in data and --items; else item_id or item.")
    ] = None,
    rating_column: Annotated[str | None, typer.Option(help="Of ratings; else rating, if it is there.")] = None,
    timestamp_column: Annotated[
        str | None, typer.Option(help="Of times, as numbers or dates; else timestamp, if it is there.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help=f"One of {', '.join(MODELS)}; again for more. Without: {', '.join(DEFAULT_MODELS)}."
        ),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"One of {', '.join(SCENARIOS)}; again for more. Without: leave-last-out (random, where there are no "
            f"times), user-cold and, where --items is given, item-cold.",
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="Length of the lists.")] = 10,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 1,
    min_rating: Annotated[float | None, typer.Option(help="Rows that are rated below are left out.")] = None,
    n_jobs: Annotated[int, typer.Option(help="Processes; -1: one a core.")] = 1,
    store: Annotated[
        Path | None, typer.Option(help="Directory that keeps results, so that an interrupted run goes on.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Directory for report.html and report.json.")] = Path("recsys-report"),
    title: Annotated[str | None, typer.Option(help="Of the report; else the name of the file.")] = None,
) -> None:
    """Say which model recommends best on rows of your own, and how sure that is.

    Prints a table a scenario as Markdown and writes a page and a JSON file. Popularity is always among the models: the
    others are compared with it. Ids are read as text. A pair of user and item counts once, when it is there first.
    """
    with _told_plainly():
        models, chosen = _models(model), _chosen(scenario, SCENARIOS, "scenario")
        asked = {"user": user_column, "item": item_column, "rating": rating_column, "timestamp": timestamp_column}
        rows, notes = _interactions(data, asked, min_rating)
        known = {"users": _features(users, "user", user_column), "items": _features(items, "item", item_column)}
        evaluator = import_module("recsys.evaluation").Evaluator(
            _splitters(chosen, rows, known["items"] is not None),
            k=k,
            seeds=range(seeds),
            min_rating=min_rating,
            n_jobs=n_jobs,
            store=store,
            verbose=True,
        )
        _check_output(output)
        found = evaluator.evaluate(models, {"interactions": rows, **known})
        _write(found, data.name if title is None else title, notes, output)


@app.command()
def serve(
    bundle: Annotated[Path, typer.Argument(help="Folder that `model.export` wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine's own need a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File of the key that requests need to change anything; else RECSYS_API_KEY, if it is set. Without "
            "either, whoever is on this machine may."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of bundles that POST /bundle may switch to, by name.")
    ] = None,
    max_users: Annotated[int, typer.Option(min=1, help="Users of a request.")] = 64,
    max_k: Annotated[int, typer.Option(min=1, help="Length of a list.")] = 200,
    max_items: Annotated[int, typer.Option(min=1, help="Items that a request names or changes.")] = 1000,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 2**20,
    max_batch: Annotated[int, typer.Option(min=1, help="Users who are answered together.")] = 64,
    max_wait: Annotated[
        float, typer.Option(min=0, help="Seconds that a request may be expected to wait; beyond, it is refused (503).")
    ] = 0.05,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds within which a request is answered.")] = 5.0,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds between SIGTERM and the end of listening, for clients to leave.")
    ] = 1.0,
) -> None:
    """Serve a bundle over HTTP, with a page to try it at /, and what can be asked at /docs.

    SIGHUP reads the bundle again. SIGTERM ends the process after all requests are answered.
    """
    with _told_plainly():
        if missing := [name for name in ("fastapi", "prometheus_client", "uvicorn") if find_spec(name) is None]:
            raise InvalidInputError(f"Serving needs {missing[0]}, which is not installed: pip install 'recsys[serve]'.")
        serving = import_module("recsys.serving")
        settings = serving.Settings(
            bundle,
            root=root,
            api_key=_api_key(api_key_file),
            max_users=max_users,
            max_k=max_k,
            max_items=max_items,
            max_body=max_body,
            max_batch=max_batch,
            max_wait=max_wait,
            timeout=timeout,
            drain=drain,
        )
        serving.serve(settings, host, port, typer.echo)


def _api_key(file: Path | None) -> str | None:
    """The key, not as an option: every user of a machine sees the options of its processes."""
    if file is None:
        return os.environ.get("RECSYS_API_KEY")
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"--api-key-file is '{file}', which cannot be read: {error}.") from error


@contextlib.contextmanager
def _told_plainly() -> Iterator[None]:
    """Errors that a user can mend as one line and exit code 2, and warnings as a line."""

    def show(message: Any, *_: Any) -> None:
        from tqdm import tqdm

        # On a line of its own, above the progress bar.
        tqdm.write(f"Warning: {_one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", RecsysWarning)
        # The rest of what it is called with is of no use to a user.
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield
        except (RecsysError, OSError) as error:
            typer.echo(f"Error: {_one_line(error)}", err=True)
            raise typer.Exit(2) from error


def _one_line(message: Any) -> str:
    return " ".join(str(message).split())


def _chosen(names: list[str] | None, known: Any, option: str) -> list[str]:
    """The names that were asked for, each once."""
    found = list(dict.fromkeys(names or []))
    unknown = [name for name in found if name not in known]
    if unknown:
        raise InvalidInputError(f"--{option} is {unknown[0]!r}, which is unknown. {did_you_mean(unknown[0], known)}")
    return found


def _models(names: list[str] | None) -> dict[str, Any]:
    chosen = _chosen(names, MODELS, "model") or list(DEFAULT_MODELS)
    package = import_module("recsys")
    return {name: getattr(package, name)() for name in dict.fromkeys([BASELINE, *chosen])}


def _splitters(scenarios: list[str], rows: pd.DataFrame, items_known: bool) -> list[Any]:
    if not items_known and (asked := [name for name in scenarios if name in OF_NEW_ITEMS]):
        raise InvalidInputError(
            f"--scenario is {asked[0]!r}, but of new items nothing is known; expected a file of items: add --items."
        )
    if "timestamp" not in rows and (asked := [name for name in scenarios if name in OF_TIMES]):
        raise InvalidInputError(
            f"--scenario is {asked[0]!r}, but the rows have no column 'timestamp'; expected one: name yours with "
            f"--timestamp-column."
        )
    first = "leave-last-out" if "timestamp" in rows else "random"
    defaults = [first, "user-cold", *(["item-cold"] if items_known else [])]
    chosen = [SCENARIOS[name] for name in scenarios or defaults]
    return [getattr(import_module("recsys.evaluation"), name)(**options) for name, options in chosen]


def _check_output(output: Path) -> None:
    """See that a report can be written, before anything is computed."""
    if find_spec("jinja2") is None:
        raise InvalidInputError("The report needs Jinja2, which is not installed: pip install 'recsys[cli]'.")
    there = next(path for path in (output, *output.absolute().parents) if os.path.lexists(path))
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "cannot be written to" if there.is_dir() else "is no directory"
        raise InvalidInputError(f"--output is '{output}', but '{there}' {why}; expected a directory for the report.")


def _write(found: Any, title: str, notes: str, output: Path) -> None:
    report = import_module("recsys.evaluation").Report(found, title=title, notes=notes)
    typer.echo(report.to_markdown())
    output.mkdir(parents=True, exist_ok=True)
    report.to_json(output / "report.json")
    report.to_html(output / "report.html")
    typer.echo(f"Written: {output / 'report.html'} and {output / 'report.json'}", err=True)


def _interactions(file: Path, asked: dict[str, str | None], min_rating: float | None) -> tuple[pd.DataFrame, str]:
    """The rows as an evaluator takes them, without repeated pairs, and what a reader must know of them."""
    import pandas as pd

    frame = _read(file, ["user", "item"], asked)
    columns = {part: _column(frame, part, asked[part], file) for part in ("user", "item")}
    for part in ("rating", "timestamp"):
        if asked[part] is not None or part in frame.columns or (part == "rating" and min_rating is not None):
            columns[part] = _column(frame, part, asked[part], file)
    for part, column in columns.items():
        if others := [other for other, name in columns.items() if name == column and other != part]:
            raise InvalidInputError(
                f"Column {column!r} of {file} is asked for as {part} and as {others[0]}; expected one for each: name "
                f"another with --{part}-column or --{others[0]}-column."
            )
    rows = pd.DataFrame({_name(part): frame[column] for part, column in columns.items()})
    for part in ("user_id", "item_id"):
        rows[part] = _as_text(rows[part])
    if not len(rows):
        raise InvalidInputError(f"{file} has no rows; expected some.")
    times = rows.get("timestamp")
    if times is not None and not pd.api.types.is_numeric_dtype(times.dtype):
        try:
            rows["timestamp"] = _as_times(times)
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"Column {columns['timestamp']!r} of {file} holds what is no time ({error}); expected numbers or dates."
            ) from error
    ordered = rows if times is None else rows.sort_values("timestamp", kind="stable")
    if min_rating is not None and not pd.api.types.is_numeric_dtype(rows["rating"].dtype):
        raise InvalidInputError(
            f"Column {columns['rating']!r} of {file} holds what is no number; expected ratings: mend the file, name "
            f"another column with --rating-column, or leave --min-rating out."
        )
    # A rating that does not count hides none that does.
    counts = True if min_rating is None else ordered["rating"] >= min_rating
    repeated = ordered.assign(_counts=counts).duplicated(["user_id", "item_id", "_counts"])
    kept = rows.loc[ordered.index[~repeated].sort_values()].reset_index(drop=True)
    notes = f"{len(kept):,} rows of {file.name}{'' if 'timestamp' in rows else ', without times'}."
    if repeated.any():
        notes += f" Left out: {repeated.sum():,} rows of pairs of user and item that were there before."
    if min_rating is not None:
        notes += f" Rows rated below {min_rating:g} do not count."
    elif "rating" in rows:
        notes += " Rows count whatever their rating."
    return kept, notes


def _as_times(values: pd.Series) -> pd.Series:
    """Dates as points in time: those of ISO 8601 with and without fractions or zones, or others that are all alike."""
    import pandas as pd

    try:
        return pd.to_datetime(values, format="ISO8601", utc=True)
    except ValueError:
        return pd.to_datetime(values, utc=True)


def _features(file: Path | None, part: str, asked: str | None) -> pd.DataFrame | None:
    if file is None:
        return None
    frame = _read(file, [part], {part: asked})
    # The file of interactions may call its ids otherwise.
    column = _column(frame, part, asked, file, usual=True)
    renamed = frame.rename(columns={column: _name(part)})
    renamed[_name(part)] = _as_text(renamed[_name(part)])
    for name, values in renamed.drop(columns=_name(part)).items():
        if import_module("recsys._kinds").holds_written_lists(values):
            try:
                renamed[name] = values.map(literal_eval, na_action="ignore")
            except (ValueError, SyntaxError) as error:
                raise InvalidInputError(
                    f"Column {name!r} of {file} holds what looks like lists, such as {values.dropna().iloc[0]!r}, but "
                    f"cannot be read as such ({error}); expected ['a', 'b'], or a|b."
                ) from error
    return renamed


def _name(part: str) -> str:
    return f"{part}_id" if part in ("user", "item") else part


def _column(frame: pd.DataFrame, part: str, asked: str | None, file: Path, usual: bool = False) -> str:
    """The column of ids, ratings or times: the one asked for, or, where none is or `usual` allows it, a usual one."""
    names = [] if asked is None else [asked]
    if usual or asked is None:
        names = list(dict.fromkeys([*names, _name(part), part]))
    for name in names:
        if name in frame.columns:
            return name
    expected = " or ".join(map(repr, names))
    if len(frame.columns) == 1:
        raise InvalidInputError(
            f"{file} has the one column {examples(frame.columns)}; expected several, separated by commas (by tabs in "
            f"a file whose name ends in .tsv): save it so."
        )
    raise InvalidInputError(
        f"{file} has no column {expected}, only {examples(frame.columns, 6)}; expected one: name yours with "
        f"--{part}-column."
    )


def _read(file: Path, ids: list[str], asked: dict[str, str | None]) -> pd.DataFrame:
    """A file as a frame; columns of ids as text, where the file does not say what they are."""
    import pandas as pd

    if not file.is_file():
        raise InvalidInputError(f"There is no file {file}; expected a CSV or Parquet file: check the name.")
    # Whether it is compressed pandas sees by itself.
    kind = Path(file.name.lower().removesuffix(".gz")).suffix
    sep = "\t" if kind == ".tsv" else ","
    text = {name: str for part in ids for name in (asked[part], _name(part), part) if name is not None}
    try:
        if kind in (".parquet", ".pq"):
            return pd.read_parquet(file)
        if kind in (".csv", ".tsv"):
            with warnings.catch_warnings():
                # pandas only warns where rows have more fields than there are names, and drops the last ones.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                # Without `index_col`, a delimiter at the end of every row moves all values one column to the right.
                frame = pd.read_csv(file, sep=sep, dtype=text, index_col=False)
            # The numbers of rows that `to_csv` writes into a column without a name say nothing.
            numbers = frame.get("Unnamed: 0")
            return frame if numbers is None or (numbers != frame.index).any() else frame.drop(columns="Unnamed: 0")
    except pd.errors.ParserWarning as error:
        names = pd.read_csv(file, sep=sep, nrows=0).columns
        raise InvalidInputError(
            f"{file} has rows of more fields than its first line has names ({len(names)}: {examples(names, 6)}); "
            f"expected a name for each field: add those that are missing, or put fields that hold a "
            f"{'comma' if sep == ',' else 'tab'} in quotes."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{file} cannot be read: {error}; expected text in UTF-8: save it so from the program that wrote it."
        ) from error
    except (ValueError, ImportError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}; expected a table with a line of names.") from error
    raise InvalidInputError(f"{file} is of an unknown kind; expected a name that ends in .csv, .tsv or .parquet.")


def _as_text(ids: pd.Series) -> pd.Series:
    """Ids as text, so that those of a CSV file match those of a Parquet file; missing ones stay so."""
    return ids.astype(str).where(ids.notna())

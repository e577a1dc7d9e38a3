"""The five kinds of field: what is learned of each, and how it becomes a sparse block.

A field is learned once, from the values of hot entities, as a dict (its spec) of arrays, numbers and vocabularies that
`persistence` can store. A missing value is an empty row of the block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from recsys._kinds import holds_dates, without_arrow
from recsys._records import hats
from recsys._sparse import Csr, empty_csr, to_csr
from recsys.exceptions import InvalidInputError, InvalidTypeError, examples
from recsys.vocabulary import Vocabulary, as_ids

__all__ = ["Field", "encode_field", "learn_field", "named_columns", "read_days"]

N_KNOTS = 16

# Fields of at most so many categories or words keep all of them, larger ones those that two entities share: what one
# entity alone has cannot be told from that entity.
KEPT_WHOLE = 100

Rows = npt.NDArray[np.int64]
Spec = dict[str, Any]


@dataclass(frozen=True)
class Field:
    """A field: the columns from `start` to `stop` of an `EncodedFeatures` matrix.

    Attributes
    ----------
    name : str
    kind : str
        One of `recsys._kinds.KINDS`.
    start, stop : int
    """

    name: str
    kind: str
    start: int
    stop: int


def named_columns(frame: Any, argument: str) -> pd.DataFrame:
    """Check a frame of features and give its columns strings for names.

    Parameters
    ----------
    frame : pandas.DataFrame
    argument : str
        What to call it in an error.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    InvalidTypeError
        If it is no DataFrame.
    InvalidInputError
        If a name is there twice.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InvalidTypeError(
            f"`{argument}` is of type {type(frame).__name__}; expected a DataFrame or a FeatureTable: convert it."
        )
    named = frame.set_axis([str(column) for column in frame.columns], axis=1)
    if not named.columns.is_unique:
        twice = named.columns[named.columns.duplicated()].unique()
        raise InvalidInputError(
            f"`{argument}` has more than one column named {examples(twice)}; expected each once: rename them."
        )
    return named


def learn_field(column: pd.Series, kind: str, sep: str, argument: str) -> Spec:
    """Learn a field from the values of hot entities.

    Parameters
    ----------
    column : pandas.Series
    kind : str
        One of `recsys._kinds.KINDS`.
    sep : str
        What separates the members of a multi-hot field that is given as text.
    argument : str
        The argument the column came with, for errors.

    Returns
    -------
    dict
        ``name``, ``kind``, ``width`` (the columns of its block), and what the kind needs.

    Raises
    ------
    InvalidInputError
        If the column does not hold what its kind says.
    """
    read, learn, _ = _KINDS[kind]
    where = f"Column {column.name!r} of `{argument}`"
    values = read(_plain(column), sep, where)
    return {"name": column.name, "kind": kind, **learn(values, where)}


def encode_field(column: pd.Series, spec: Spec, sep: str, argument: str) -> Csr:
    """Encode the values of a field.

    Parameters
    ----------
    column : pandas.Series of n values
    spec : dict
        From `learn_field`.
    sep, argument : str
        As for `learn_field`.

    Returns
    -------
    scipy.sparse.csr_matrix of shape (n, spec["width"]), float32

    Raises
    ------
    InvalidInputError
        If the column does not hold what it did when it was learned.
    """
    read, _, encode = _KINDS[spec["kind"]]
    where = f"Column {column.name!r} of `{argument}`"
    return encode(read(_plain(column), sep, where), spec, len(column), where)


def read_days(column: pd.Series, where: str) -> npt.NDArray[np.float64]:
    """Numbers as they are, dates and durations as days.

    Parameters
    ----------
    column : pandas.Series of length n
    where : str
        What to call it in an error.

    Returns
    -------
    ndarray of shape (n,), float64
        NaN where a value is missing.

    Raises
    ------
    InvalidInputError
        If it holds anything else.

    Examples
    --------
    >>> read_days(pd.Series(pd.to_datetime(["1970-01-02 00:00", "1970-01-03 12:00"])), "The column").tolist()
    [1.0, 2.5]
    """
    column = _plain(column.dt.to_timestamp() if isinstance(column.dtype, pd.PeriodDtype) else column)
    values, dates = _read_numeric(column, "", where)
    return values / 86_400 if dates or column.dtype.kind == "m" else values


def _plain(column: pd.Series) -> pd.Series:
    """The column with rows numbered from 0, without what pandas wraps around values."""
    column = column.reset_index(drop=True)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object if column.isna().any() else column.dtype.categories.dtype)
    if isinstance(column.dtype, pd.SparseDtype):
        column = column.astype(column.dtype.subtype)
    column = without_arrow(column)
    if column.dtype == object:
        column = column.infer_objects()
    kinds = (pd.Interval, pd.Period)
    if isinstance(column.dtype, (pd.IntervalDtype, pd.PeriodDtype)) or isinstance(_first(column), kinds):
        column = column.astype(object).map(str, na_action="ignore")
    return column


def _first(column: pd.Series) -> Any:
    at = column.first_valid_index()
    return None if at is None else column.loc[at]


# Numeric: piecewise linear in the value, by hat functions on knots at its quantiles.


def _read_numeric(column: pd.Series, sep: str, where: str) -> tuple[npt.NDArray[np.float64], bool]:
    """The values as float64, dates as seconds since 1970 in UTC; and whether they are dates."""
    try:
        dates = holds_dates(column)
        if dates:
            column = pd.to_datetime(column, utc=True).dt.tz_localize(None)
            column = (column - pd.Timestamp(0).as_unit(column.dt.unit)).dt.total_seconds()
        elif column.dtype.kind == "m":
            column = column.dt.total_seconds()
        if column.dtype.kind == "c":
            raise TypeError("complex numbers have no order")
        values = np.asarray(pd.to_numeric(column).astype("float64"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{where} is read as numeric but does not hold numbers: {error}; expected numbers, dates or None: convert "
            f"it, or name it in `categorical` of a FeatureTable."
        ) from error
    infinite = np.isinf(values)
    if infinite.any():
        raise InvalidInputError(
            f"{where} holds infinite values (rows {examples(np.flatnonzero(infinite))}); expected finite numbers, or "
            f"None for what is missing."
        )
    return values, dates


def _learn_numeric(values: tuple[npt.NDArray[np.float64], bool], where: str) -> Spec:
    known, dates = values[0][~np.isnan(values[0])], values[1]
    knots = np.unique(known)
    if len(knots) > N_KNOTS:
        # Quantiles that occur in the data: no interpolation, so that no sum overflows.
        knots = np.unique(np.quantile(known, np.linspace(0, 1, N_KNOTS), method="inverted_cdf"))
    return {"width": len(knots), "knots": knots, "dates": dates}


def _encode_numeric(values: tuple[npt.NDArray[np.float64], bool], spec: Spec, n: int, where: str) -> Csr:
    knots, x = spec["knots"], values[0]
    rows = np.flatnonzero(~np.isnan(x))
    if not len(knots) or not len(rows):
        return empty_csr(n, len(knots))
    if values[1] != spec["dates"]:
        names = {True: "dates", False: "numbers"}
        raise InvalidInputError(
            f"{where} holds {names[values[1]]}; expected {names[spec['dates']]}, as in fit: convert it."
        )
    columns, weights = hats(knots, x[rows])
    kept = weights > 0
    return to_csr(np.concatenate([rows, rows])[kept], columns[kept], weights[kept], (n, len(knots)))


# Categorical and multi-hot: one column a label.


def _read_labels(column: pd.Series, sep: str, where: str) -> pd.Series:
    return column.dropna()


def _read_members(column: pd.Series, sep: str, where: str) -> pd.Series:
    """The members of each row, one a line, under the number of their row."""
    column = column.dropna()
    if isinstance(column.dtype, pd.StringDtype):
        is_text = np.ones(len(column), dtype=bool)
    else:
        is_text = column.map(lambda value: isinstance(value, str)).to_numpy(dtype=bool)
    parts = []
    if is_text.any():
        texts = column[is_text].astype(object)
        pieces = (texts.str.split(sep, regex=False) if sep else texts).explode().str.strip()
        parts.append(pieces[pieces != ""])
    if not is_text.all():
        # The order of a set changes from run to run.
        ordered = column[~is_text].map(
            lambda value: sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        )
        parts.append(ordered.explode().dropna())
    parts = [part for part in parts if len(part)]
    return pd.concat(parts).infer_objects() if parts else pd.Series([], dtype=object, index=pd.RangeIndex(0))


def _hashable(values: pd.Series, where: str) -> pd.Index:
    try:
        return as_ids(values)
    except InvalidTypeError as error:
        raise InvalidInputError(
            f"{where} holds labels that cannot be used: {error.__cause__}; expected numbers, strings or the like: "
            f"convert it, or name it in `ignore` of a FeatureTable."
        ) from error


def _learn_labels(values: pd.Series, where: str) -> Spec:
    labels, codes = Vocabulary.from_values(_hashable(values, where))
    if len(labels) > KEPT_WHOLE:
        labels = Vocabulary(labels.ids[np.bincount(codes) > 1])
    return {"width": len(labels), "categories": labels}


def _encode_labels(values: pd.Series, spec: Spec, n: int, where: str) -> Csr:
    categories = cast(Vocabulary, spec["categories"])
    labels = _hashable(values, where)
    codes = categories.encode(labels)
    known = codes >= 0
    if len(known) and not known.any() and (hint := categories.mismatch(labels)):
        raise InvalidInputError(f"{where} holds none of the categories of fit.{hint}")
    rows = values.index.to_numpy(dtype=np.int64)[known]
    matrix = to_csr(rows, codes[known], np.ones(len(rows), dtype=np.float32), (n, len(categories)))
    # A member that is named twice counts once.
    lengths = np.diff(matrix.indptr)
    matrix.data = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    return matrix


# Text: TF-IDF of words.


def _read_texts(column: pd.Series, sep: str, where: str) -> pd.Series:
    known = column.dropna()
    if not isinstance(column.dtype, pd.StringDtype):
        odd = known[~known.map(lambda value: isinstance(value, str)).to_numpy(dtype=bool)]
        if len(odd):
            raise InvalidInputError(
                f"{where} is read as text but holds {examples(odd)}; expected strings or None: convert it."
            )
    return known.astype(object)


def _counter(**options: Any) -> Any:
    # Imported here: reading a model without text must not pay for it.
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(binary=True, dtype=np.float32, **options)


def _learn_text(values: pd.Series, where: str) -> Spec:
    analyze = _counter().build_analyzer()
    words = values.map(lambda text: sorted(set(analyze(text)))).explode().dropna()
    labels, codes = Vocabulary.from_values(words)
    counts = np.bincount(codes, minlength=len(labels))
    kept = np.flatnonzero(counts > 1) if len(labels) > KEPT_WHOLE else np.arange(len(labels))
    idf = np.log((1 + len(values)) / (1 + counts[kept])) + 1
    return {"width": len(kept), "terms": labels.ids[kept].tolist(), "idf": idf.astype(np.float32)}


def _encode_text(values: pd.Series, spec: Spec, n: int, where: str) -> Csr:
    if not spec["width"] or not len(values):
        return empty_csr(n, spec["width"])
    words = _counter(vocabulary=spec["terms"]).transform(values).tocoo()
    squares = np.bincount(words.row, spec["idf"][words.col].astype(np.float64) ** 2, minlength=len(values))
    weights = spec["idf"][words.col] / np.sqrt(squares[words.row])
    rows = values.index.to_numpy(dtype=np.int64)[words.row]
    return to_csr(rows, words.col, weights.astype(np.float32), (n, spec["width"]))


# Dense vectors: centred, and divided by one scale for all dimensions.


def _read_vectors(column: pd.Series, sep: str, where: str) -> tuple[Rows, npt.NDArray[np.float64]]:
    """The numbers of the rows that have a vector, and these vectors."""
    known = column.dropna()
    rows = known.index.to_numpy(dtype=np.int64)
    odd = known[~known.map(lambda value: isinstance(value, (list, tuple, np.ndarray))).to_numpy(dtype=bool)]
    if len(odd):
        raise InvalidInputError(
            f"{where} is read as vectors but holds {examples(odd)}; expected lists or arrays of numbers, or None."
        )
    lengths = known.map(len)
    if lengths.nunique() > 1:
        raise InvalidInputError(
            f"{where} holds vectors of different lengths: {examples(lengths.unique())}; expected one: pad or cut them."
        )
    try:
        dense = np.array(known.tolist(), dtype=np.float64)
        if len(known) and dense.ndim != 2:
            raise ValueError(f"they have {dense.ndim - 1} dimensions")
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{where} holds what are no vectors of numbers: {error}; expected flat ones."
        ) from error
    dense = dense.reshape(len(known), -1) if len(known) else np.zeros((0, 0))
    # The models compute in float32; a larger number counts as infinite there.
    bad = ~(np.abs(dense) <= np.finfo(np.float32).max).all(axis=1)
    if bad.any():
        raise InvalidInputError(
            f"{where} holds NaN or infinite values in {int(bad.sum())} vectors (rows {examples(rows[bad])}); expected "
            f"finite numbers, or None for a vector that is missing."
        )
    return rows, dense


def _learn_vector(values: tuple[Rows, npt.NDArray[np.float64]], where: str) -> Spec:
    dense = values[1]
    if not dense.size:
        return {"width": 0, "mean": np.zeros(0), "scale": 1.0}
    mean = dense.mean(axis=0)
    scale = float(np.sqrt(((dense - mean) ** 2).sum(axis=1).mean()))
    return {"width": dense.shape[1], "mean": mean, "scale": scale or 1.0}


def _encode_vector(values: tuple[Rows, npt.NDArray[np.float64]], spec: Spec, n: int, where: str) -> Csr:
    (rows, dense), width = values, spec["width"]
    if not len(rows) or not width:
        return empty_csr(n, width)
    if dense.shape[1] != width:
        raise InvalidInputError(f"{where} holds vectors of length {dense.shape[1]}; expected {width}, as in fit.")
    data = ((dense - spec["mean"]) / spec["scale"]).astype(np.float32).ravel()
    lengths = np.zeros(n + 1, dtype=np.int64)
    lengths[rows + 1] = width
    # Zeros are stored as well: a vector at the mean is not a missing one.
    return Csr((data, np.tile(np.arange(width), len(rows)), np.cumsum(lengths)), shape=(n, width))


# How a kind is read from a column, learned from what was read, and encoded.
_KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Spec], Callable[..., Csr]]] = {
    "numeric": (_read_numeric, _learn_numeric, _encode_numeric),
    "categorical": (_read_labels, _learn_labels, _encode_labels),
    "multi_hot": (_read_members, _learn_labels, _encode_labels),
    "text": (_read_texts, _learn_text, _encode_text),
    "vector": (_read_vectors, _learn_vector, _encode_vector),
}

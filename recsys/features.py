"""Features of users, items and contexts: a frame in, one sparse matrix of fields out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from recsys._fields import Field, encode_field, learn_field, named_columns
from recsys._kinds import KINDS, holds_written_lists, infer_kind
from recsys._packing import persistent
from recsys._sparse import Csr, empty_csr, take_rows
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError, did_you_mean, examples
from recsys.vocabulary import Vocabulary, as_ids

__all__ = ["EncodedFeatures", "FeatureEncoder", "FeatureTable", "Field", "encode_features", "fit_features"]

# A column of this name is shown as the ids, which it is where `X` calls them so.
ID_NAMES: tuple[str, str] = ("user_id", "item_id")


class FeatureTable:
    """Features of users or items: a frame, and what kind of field each of its columns is.

    Kinds are inferred from the values and can be told otherwise. Lists of labels are multi-hot, arrays of numbers dense
    vectors, numbers and dates numeric, text of several words that hardly repeats is text, what remains is categorical.
    A field of more than 100 labels or words keeps those that two entities share.
    It has no length on purpose: scikit-learn's model selection slices whatever is as long as `X`.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row an entity. Its id stands in the column `id`, or else in the index.
    id : str, default=None
        The column of ids. None: the column named like that of `X` ("user_id", say) where there is one, else the index.
    numeric, categorical, multi_hot, text, vector : sequence of str, default=()
        Columns whose kind is not to be inferred.
    ignore : sequence of str, default=()
        Columns that are no features.
    sep : str, default="|"
        A column of text in which this occurs is multi-hot.

    Attributes
    ----------
    kinds : dict of str to str
        The kind of each feature column.

    Raises
    ------
    InvalidTypeError
        If `frame` is no DataFrame.
    InvalidInputError
        If a column is named that is not there, or twice.

    Examples
    --------
    >>> frame = pd.DataFrame({"year": [1995, 2001], "genres": [["Comedy"], ["Drama", "War"]]}, index=["a", "b"])
    >>> FeatureTable(frame)
    FeatureTable(2 rows: year numeric, genres multi_hot)
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        *,
        id: str | None = None,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        multi_hot: Sequence[str] = (),
        text: Sequence[str] = (),
        vector: Sequence[str] = (),
        ignore: Sequence[str] = (),
        sep: str = "|",
    ) -> None:
        if not isinstance(sep, str):
            raise InvalidTypeError(f'`sep` is {sep!r}; expected the text between the members, or "" for none.')
        self.frame = named_columns(frame, "frame")
        self.id = None if id is None else str(id)
        self.sep = sep
        told = dict(zip(KINDS, (numeric, categorical, multi_hot, text, vector), strict=True))
        self._told = self._read_told({**told, "ignore": ignore, "id": () if id is None else (id,)})

    def _read_told(self, told: dict[str, Sequence[str]]) -> dict[str, str]:
        """What each named column was said to be."""
        kind_of: dict[str, str] = {}
        for kind, names in told.items():
            if isinstance(names, str) or not isinstance(names, Iterable):
                raise InvalidTypeError(f"`{kind}` is {names!r}; expected a list of columns: pass [{names!r}].")
            for name in map(str, names):
                if name not in self.frame.columns:
                    hint = did_you_mean(name, self.frame.columns)
                    raise InvalidInputError(f"`{kind}` names {name!r}; expected a column of `frame`. {hint}")
                if name in kind_of:
                    raise InvalidInputError(
                        f"Column {name!r} is named in `{kind_of[name]}` and in `{kind}`; expected one: name it once."
                    )
                kind_of[name] = kind
        return kind_of

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each feature column, told or inferred; a column of ids counts as one unless `id` names it."""
        features = [name for name in self.frame.columns if self._told.get(name) not in ("ignore", "id")]
        return {name: self._told.get(name) or infer_kind(self.frame[name], self.sep) for name in features}

    @property
    def ignored(self) -> tuple[str, ...]:
        """The columns that are no features."""
        return tuple(name for name, kind in self._told.items() if kind == "ignore")

    def summary(self) -> pd.DataFrame:
        """What was inferred: a frame with one row a column, its kind, missing values and an example.

        Returns
        -------
        pandas.DataFrame
            Columns ``kind`` ("id" for a column that holds the ids if `X` calls them so), ``told`` (bool), ``missing``
            (share of rows) and ``example``.

        Examples
        --------
        >>> FeatureTable(pd.DataFrame({"item_id": [1, 2], "year": [1995, None]})).summary()["kind"].tolist()
        ['id', 'numeric']
        """
        kinds = self._shown_kinds()
        columns = [self.frame[name] for name in kinds]
        return pd.DataFrame(
            {
                "kind": list(kinds.values()),
                "told": [name in self._told for name in kinds],
                "missing": [float(column.isna().mean()) if len(column) else 0.0 for column in columns],
                "example": pd.Series([next(iter(column.dropna()), None) for column in columns], dtype=object).array,
            },
            index=pd.Index(list(kinds), name="column"),
        )

    def resolve(self, id_name: str, argument: str) -> tuple[pd.Index, pd.DataFrame]:
        """Separate ids from features.

        Parameters
        ----------
        id_name : str
            The name of the id column in `X`.
        argument : str
            What to call this table in an error, "user_features" say.

        Returns
        -------
        ids : pandas.Index of shape (n,)
        columns : pandas.DataFrame of n rows
            The feature columns.

        Raises
        ------
        InvalidInputError
            If ids are null or come twice, or cannot be told from the row numbers.
        """
        id_column = self.id or (id_name if id_name in self.frame.columns else None)
        if id_column is None and isinstance(self.frame.index, pd.RangeIndex) and self.frame.index.name is None:
            raise InvalidInputError(
                f"`{argument}` has no column {id_name!r} and its index only numbers the rows; expected the ids in a "
                f"column of that name or in the index: use `frame.set_index(...)` or FeatureTable(frame, id=...)."
            )
        ids = as_ids(self.frame.index if id_column is None else self.frame[id_column], argument)
        twice = ids[ids.duplicated()].unique()
        if len(twice):
            raise InvalidInputError(
                f"`{argument}` has more than one row for {len(twice)} ids: {examples(twice)}; expected one row an id: "
                f"drop or merge them."
            )
        features = [name for name in self.frame.columns if name != id_column and name not in self.ignored]
        return ids, self.frame[features]

    def _shown_kinds(self) -> dict[str, str]:
        return {name: "id" if self.id is None and name in ID_NAMES else kind for name, kind in self.kinds.items()}

    def __repr__(self) -> str:
        kinds = ", ".join(f"{name} {kind}" for name, kind in self._shown_kinds().items())
        return f"FeatureTable({self.frame.shape[0]} rows: {kinds or 'no features'})"


@persistent
@dataclass(frozen=True, eq=False)
class EncodedFeatures:
    """Features of n entities, each field a block of columns of one sparse matrix.

    Attributes
    ----------
    matrix : scipy.sparse.csr_matrix of shape (n, n_columns), float32
    fields : tuple of Field
        They cut the columns into blocks, in order and without gaps.

    Examples
    --------
    >>> encoded = EncodedFeatures(sparse.csr_matrix(np.eye(3, dtype=np.float32)), (Field("x", "numeric", 0, 3),))
    >>> encoded.take([2, -1]).present[:, 0].tolist()
    [True, False]
    """

    matrix: Csr
    fields: tuple[Field, ...]

    @classmethod
    def empty(cls, n: int, fields: tuple[Field, ...] = ()) -> EncodedFeatures:
        """Features of n entities of which nothing is known."""
        return cls(empty_csr(n, fields[-1].stop if fields else 0), fields)

    @property
    def n_columns(self) -> int:
        """Width of the matrix."""
        return int(self.matrix.shape[1])

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    @cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which fields of which entities have a value; shape (n, n_fields)."""
        starts = [field.start for field in self.fields]
        field_of_column = np.searchsorted(starts, np.arange(self.n_columns), side="right") - 1
        rows = np.repeat(np.arange(len(self)), np.diff(self.matrix.indptr))
        present = np.zeros((len(self), len(self.fields)), dtype=bool)
        # What counts is what is stored: a vector of zeros is a value.
        present[rows, field_of_column[self.matrix.indices]] = True
        return present

    def block(self, field: Field) -> Csr:
        """The columns of one field; shape (n, field.stop - field.start)."""
        return Csr(self.matrix[:, field.start : field.stop])

    def take(self, rows: npt.ArrayLike) -> EncodedFeatures:
        """The entities at `rows`, positions or a mask; -1 stands for one of which nothing is known."""
        index = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, dtype=np.int64)
        return EncodedFeatures(take_rows(self.matrix, index), self.fields)

    def stack(self, below: EncodedFeatures) -> EncodedFeatures:
        """These entities, and then those of `below`, which has the same fields."""
        return EncodedFeatures(Csr(sparse.vstack([self.matrix, below.matrix], format="csr")), self.fields)

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        return {"matrix": self.matrix, "fields": [list(astuple(field)) for field in self.fields]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EncodedFeatures:
        """The inverse of `to_state`."""
        return cls(state["matrix"], tuple(Field(*field) for field in state["fields"]))


@persistent
class FeatureEncoder:
    """Learns the fields of a table and turns tables of the same columns into `EncodedFeatures`.

    Parameters
    ----------
    specs : list of dict
        What was learned of each field: knots, categories, members, terms and weights, or mean and scale.
    sep : str
        What separates the members of a multi-hot field that is given as text.
    ignored : sequence of str, default=()
        Columns that may be there, and are not looked at.

    Attributes
    ----------
    fields : tuple of Field

    Examples
    --------
    >>> table = pd.DataFrame({"age": [20.0, 30.0, 40.0]})
    >>> encoder = FeatureEncoder.fit(table, {"age": "numeric"}, sep="|")
    >>> encoder.transform(pd.DataFrame({"age": [25.0, None]}), "user_features").matrix.toarray().tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """

    def __init__(self, specs: list[dict[str, Any]], sep: str, ignored: Sequence[str] = ()) -> None:
        self.specs = specs
        self.sep = sep
        self.ignored = tuple(ignored)
        stops = np.cumsum([spec["width"] for spec in specs]).tolist()
        self.fields = tuple(
            Field(spec["name"], spec["kind"], stop - spec["width"], stop)
            for spec, stop in zip(specs, stops, strict=True)
        )

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, kinds: dict[str, str], sep: str, argument: str = "X", ignored: Sequence[str] = ()
    ) -> FeatureEncoder:
        """Learn the fields from the rows of `frame`, which are those of hot entities alone.

        Parameters
        ----------
        frame : pandas.DataFrame
        kinds : dict of str to str
            The kind of each of its columns.
        sep : str
        argument : str, default="X"
            What to call the frame in an error.
        ignored : sequence of str, default=()

        Returns
        -------
        FeatureEncoder

        Raises
        ------
        InvalidInputError
            If a column does not hold what its kind says.
        """
        return cls([learn_field(frame[name], kind, sep, argument) for name, kind in kinds.items()], sep, ignored)

    def transform(self, frame: pd.DataFrame, argument: str) -> EncodedFeatures:
        """Encode the rows of `frame`.

        Parameters
        ----------
        frame : pandas.DataFrame of n rows
            With the columns the encoder was fitted on, in any order.
        argument : str
            What to call the frame in an error.

        Returns
        -------
        EncodedFeatures of n entities

        Raises
        ------
        InvalidInputError
            If columns are missing or unknown, or do not hold what they did.
        """
        frame = named_columns(frame, argument)
        names = [spec["name"] for spec in self.specs]
        wrong = {
            "lacks": [name for name in names if name not in frame.columns],
            "has the unknown": [name for name in frame.columns if name not in names and name not in self.ignored],
        }
        what = " and ".join(f"{verb} {examples(columns)}" for verb, columns in wrong.items() if columns)
        if what:
            raise InvalidInputError(
                f"`{argument}` {what}; expected the feature columns of fit: {', '.join(names) or 'none'}. "
                f"Add what is missing (None where unknown) and drop the rest."
            )
        if not names:
            return EncodedFeatures.empty(len(frame))
        blocks = [encode_field(frame[spec["name"]], spec, self.sep, argument) for spec in self.specs]
        matrix = Csr(sparse.hstack(blocks, format="csr", dtype=np.float32))
        matrix.sort_indices()
        return EncodedFeatures(matrix, self.fields)

    def to_state(self) -> dict[str, Any]:
        """What `persistence` stores."""
        return {"specs": self.specs, "sep": self.sep, "ignored": list(self.ignored)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> FeatureEncoder:
        """The inverse of `to_state`."""
        return cls(state["specs"], state["sep"], state["ignored"])


def fit_features(
    features: FeatureTable | pd.DataFrame | None, argument: str, id_name: str, hot: Vocabulary, n_rows: int
) -> tuple[FeatureEncoder | None, Vocabulary, EncodedFeatures]:
    """Learn the fields of a table from its hot entities and encode all its entities.

    Parameters
    ----------
    features : FeatureTable, DataFrame or None
    argument : str
        What to call it in an error.
    id_name : str
        The name of the id column in `X`.
    hot : Vocabulary
        The entities that have interactions.
    n_rows : int
        Rows of `X`.

    Returns
    -------
    encoder : FeatureEncoder or None
        None where no features were given.
    vocabulary : Vocabulary
        `hot`, and then the other entities of the table.
    encoded : EncodedFeatures
        Rows aligned with `vocabulary`.

    Raises
    ------
    InvalidInputError
        If the table has no row for any hot entity, was cut to the rows of `X`, or does not hold what its kinds say.
    """
    if features is None:
        return None, hot, EncodedFeatures.empty(len(hot))
    table = _as_table(features, argument)
    ids, columns = table.resolve(id_name, argument)
    known = hot.encode(ids) >= 0
    n_missing = len(hot) - int(known.sum())
    if table is not features and len(ids) == n_rows and n_missing and not hot.mismatch(ids):
        raise InvalidInputError(
            f"`{argument}` has exactly as many rows as `X` ({n_rows}) and lacks {n_missing} of its ids; expected all: "
            f"scikit-learn's model selection slices a plain frame of that length; pass FeatureTable(frame) instead."
        )
    if not known.any():
        raise InvalidInputError(
            f"`{argument}` has no row for any id of `X` (its ids: {examples(ids) or 'none'}; those of `X`: "
            f"{examples(hot.ids)}); expected features of these: check the ids.{hot.mismatch(ids)}"
        )
    kinds = {name: kind for name, kind in table.kinds.items() if name in columns.columns}
    written = [name for name in kinds if name not in table._told and holds_written_lists(columns[name])]
    if written:
        warnings.warn(
            f"Columns {examples(written)} of `{argument}` hold lists that were written as text, such as "
            f"{columns[written[0]].dropna().iloc[0]!r}: each text counts as one category. Pass lists, as by "
            f"`.map(ast.literal_eval)`, or name them in `categorical` of a FeatureTable, if that is meant.",
            DataWarning,
            stacklevel=3,
        )
    encoder = FeatureEncoder.fit(columns[known], kinds, table.sep, argument, table.ignored)
    vocabulary = hot.extend(ids)
    return encoder, vocabulary, encoder.transform(columns, argument).take(ids.get_indexer(vocabulary.ids))


def encode_features(
    features: FeatureTable | pd.DataFrame, argument: str, id_name: str, encoder: FeatureEncoder | None
) -> tuple[pd.Index, EncodedFeatures]:
    """Encode a table that arrives after `fit`.

    Parameters
    ----------
    features : FeatureTable or DataFrame
    argument : str
        What to call it in an error.
    id_name : str
        The name of the id column in `X`.
    encoder : FeatureEncoder or None
        None where the model was fitted without.

    Returns
    -------
    ids : pandas.Index of shape (n,)
    encoded : EncodedFeatures of n rows

    Raises
    ------
    InvalidInputError
        If the model was fitted without, or the columns are not those of fit.
    """
    if encoder is None:
        raise InvalidInputError(
            f"`{argument}` has features, but the model was fitted without; expected none: pass features to `fit` first."
        )
    ids, columns = _as_table(features, argument).resolve(id_name, argument)
    return ids, encoder.transform(columns, argument)


def _as_table(features: Any, argument: str) -> FeatureTable:
    return features if isinstance(features, FeatureTable) else FeatureTable(named_columns(features, argument))

"""Filters over the metadata of items: plain data, checked, then evaluated on whole columns.

::

    filter    = {name: condition, ..., "and": [filter, ...], "or": [filter, ...], "not": filter}   (all of these)
    condition = value | {operator: value, ...}                                                      (all of these)
    operator  = "==" | "<" | "<=" | ">" | ">=" | "in" | "contains"

`value` alone means "==", and "in" takes a list. A field of numbers or dates (ISO text, UTC) knows all of these but
"contains", a field of text or of lists "==", "in" and, where its labels are text, "contains": a part of it, in small
letters or large. A list matches when one of its members does. What is missing never matches, so
``{"not": {"year": {">=": 1990}}}`` finds the items without a year too. ``{}`` finds everything.

A filter may come from a stranger's request: it names fields and values, it is never code. Only NumPy is needed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from recsys._records import is_list
from recsys.exceptions import InvalidInputError, InvalidTypeError, did_you_mean, examples

__all__ = ["Bools", "Field", "LabelField", "OrderedField", "Table", "read_date", "read_number"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Codes: TypeAlias = npt.NDArray[np.int64]

COMBINATIONS = ("and", "not", "or")

_COMPARISONS: dict[str, Callable[[Any, Any], Bools]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

# Nobody writes deeper filters; a request could, until Python's stack ends.
_DEEPEST = 32

# Days that microseconds can count, with room to spare.
FIRST_DAY, LAST_DAY = np.datetime64("-200000-01-01"), np.datetime64("200000-01-01")


@dataclass(frozen=True)
class OrderedField:
    """Numbers or points in time.

    Attributes
    ----------
    values : ndarray of shape (n,), float64 or datetime64[us]
        NaN or NaT where missing.

    Examples
    --------
    >>> OrderedField(np.array([1999.0, np.nan, 1970.0])).match("year", ">", 1980)
    array([ True, False, False])
    """

    values: npt.NDArray[Any]

    @property
    def kind(self) -> str:
        """What it holds, in words."""
        return "dates" if self.values.dtype.kind == "M" else "numbers"

    def match(self, name: str, symbol: str, value: Any) -> Bools:
        """Which rows satisfy a condition; `name` is that of the field, for errors."""
        if symbol == "in":
            members = [self._read(name, member) for member in _members(name, value)]
            return np.isin(self.values, np.array(members, dtype=self.values.dtype))
        compare = _known(symbol, _COMPARISONS, name)
        return np.asarray(compare(self.values, self._read(name, value)))

    def _read(self, name: str, value: Any) -> Any:
        read = read_date if self.kind == "dates" else read_number
        found = read(value)
        if found is None:
            raise _wrong_value(name, value, "a date, as ISO text" if self.kind == "dates" else "a finite number")
        return found

    def take(self, rows: Codes) -> OrderedField:
        """The field of these rows."""
        return OrderedField(self.values[rows])

    def joined(self, other: OrderedField) -> OrderedField:
        """The rows of this field and then those of another."""
        return OrderedField(np.concatenate([self.values, other.values]))

    def trimmed(self) -> OrderedField:
        """The field itself, as it has no labels."""
        return self


@dataclass(frozen=True)
class LabelField:
    """Text, or lists of labels: the pairs of a row and a label that it has.

    Attributes
    ----------
    rows : ndarray of shape (n_pairs,), int64
        Ascending.
    codes : ndarray of shape (n_pairs,), int64
        Positions in `labels`.
    labels : tuple of str or int
        Distinct.
    n : int
        How many rows there are, those without a label included.

    Examples
    --------
    >>> genres = LabelField(np.array([0, 0, 2]), np.array([0, 1, 1]), ("drama", "war"), 3)
    >>> genres.match("genres", "==", "war")
    array([ True, False,  True])
    >>> genres.match("genres", "contains", "RAM")
    array([ True, False, False])
    """

    rows: Codes
    codes: Codes
    labels: tuple[Any, ...]
    n: int

    kind = "labels"

    def match(self, name: str, symbol: str, value: Any) -> Bools:
        """Which rows satisfy a condition; `name` is that of the field, for errors."""
        is_text = not self.labels or isinstance(self.labels[0], str)
        if symbol == "contains" and is_text:
            part = str(self._read(name, value)).casefold()
            chosen = (part in label.casefold() for label in self.labels)
        else:
            if symbol != "in":
                _known(symbol, {"==": operator.eq}, name, ("in", "contains") if is_text else ("in",))
            asked = {self._read(name, each) for each in (_members(name, value) if symbol == "in" else [value])}
            chosen = (label in asked for label in self.labels)
        wanted = np.fromiter(chosen, dtype=bool, count=len(self.labels))
        found = np.zeros(self.n, dtype=bool)
        found[self.rows[wanted[self.codes]]] = True
        return found

    def _read(self, name: str, value: Any) -> str | int:
        value = value.item() if isinstance(value, np.generic) else value
        if type(value) not in (str, int) or (self.labels and type(value) is not type(self.labels[0])):
            expected = type(self.labels[0]).__name__ if self.labels else "str"
            raise _wrong_value(name, value, {"str": "text", "int": "a whole number"}[expected])
        label: str | int = value
        return label

    def take(self, rows: Codes) -> LabelField:
        """The field of these rows."""
        starts, ends = (np.searchsorted(self.rows, rows, side) for side in ("left", "right"))
        lengths = ends - starts
        pairs = np.repeat(ends - np.cumsum(lengths), lengths) + np.arange(lengths.sum())
        return LabelField(np.repeat(np.arange(len(rows)), lengths), self.codes[pairs], self.labels, len(rows))

    def joined(self, other: LabelField) -> LabelField:
        """The rows of this field and then those of another."""
        labels = tuple(dict.fromkeys((*self.labels, *other.labels)))
        code_of = {label: code for code, label in enumerate(labels)}
        moved = np.fromiter((code_of[label] for label in other.labels), dtype=np.int64, count=len(other.labels))
        rows = np.concatenate([self.rows, other.rows + self.n])
        return LabelField(rows, np.concatenate([self.codes, moved[other.codes]]), labels, self.n + other.n)

    def trimmed(self) -> LabelField:
        """The field without the labels that no row has."""
        used, codes = np.unique(self.codes, return_inverse=True)
        return LabelField(self.rows, codes, tuple(self.labels[code] for code in used.tolist()), self.n)


Field: TypeAlias = OrderedField | LabelField


@dataclass(frozen=True)
class Table:
    """What is known of items: named fields of as many rows.

    Attributes
    ----------
    fields : dict of str to OrderedField or LabelField
    n : int
        How many rows.

    Examples
    --------
    >>> table = Table({"year": OrderedField(np.array([1970.0, 1995.0, np.nan]))}, 3)
    >>> table.match({"year": {">=": 1990, "<": 2000}})
    array([False,  True, False])
    >>> table.match({"or": [{"year": 1970}, {"not": {"year": {">": 0}}}]})
    array([ True, False,  True])
    """

    fields: dict[str, Any]
    n: int

    def match(self, where: Any) -> Bools:
        """Which rows a filter finds.

        Parameters
        ----------
        where : dict
            As the docstring of the module says.

        Returns
        -------
        ndarray of shape (n,), bool

        Raises
        ------
        InvalidInputError
            If it names a field or an operator that there is not, or a value that its field cannot have.
        """
        return self._match(where, _DEEPEST)

    def _match(self, where: Any, depth: int) -> Bools:
        if not isinstance(where, Mapping):
            raise InvalidTypeError(f"`where` holds {_shown(where)}; expected a dict like {{'year': {{'>=': 1990}}}}.")
        if not depth:
            raise InvalidInputError(f"`where` is nested more than {_DEEPEST} deep; expected a flatter filter.")
        found = np.ones(self.n, dtype=bool)
        for name, condition in where.items():
            if name == "not":
                found &= ~self._match(condition, depth - 1)
            elif name in COMBINATIONS:
                if not isinstance(condition, (list, tuple)) or not condition:
                    raise InvalidTypeError(
                        f"`where` has {_shown(condition)} at {name!r}; expected a list of one filter or more."
                    )
                combine = np.logical_and if name == "and" else np.logical_or
                found &= combine.reduce([self._match(part, depth - 1) for part in condition])
            else:
                found &= self._match_field(name, condition)
        return found

    def _match_field(self, name: Any, condition: Any) -> Bools:
        if name not in self.fields:
            hint = did_you_mean(str(name), [*self.fields, *COMBINATIONS])
            known = hint if self.fields else "The index has no metadata: give it some as `metadata`."
            raise InvalidInputError(f"`where` names the field {_shown(name)}, which the items do not have. {known}")
        if is_list(condition):
            raise InvalidTypeError(
                f"`where` has the list {_shown(condition)} for {name!r}; expected a value or a dict of operators: "
                f"write {{'in': [...]}} for one of several."
            )
        if not isinstance(condition, Mapping):
            condition = {"==": condition}
        if not condition:
            raise InvalidInputError(f"`where` has no operator for {name!r}; expected one, such as {{'==': 1}}.")
        field: Field = self.fields[name]
        found = [field.match(name, symbol, value) for symbol, value in condition.items()]
        return np.asarray(np.logical_and.reduce(found))

    def take(self, rows: Codes) -> Table:
        """The table of these rows."""
        return Table({name: field.take(rows) for name, field in self.fields.items()}, len(rows))

    def joined(self, other: Table) -> Table:
        """The rows of this table and then those of another, which has the same fields."""
        fields = {name: field.joined(other.fields[name]) for name, field in self.fields.items()}
        return Table(fields, self.n + other.n)

    def trimmed(self) -> Table:
        """The table without the labels that no row has; `take` keeps them, as copies of them take time."""
        return Table({name: field.trimmed() for name, field in self.fields.items()}, self.n)


def _known(symbol: Any, operators: dict[str, Any], name: str, others: tuple[str, ...] = ("in",)) -> Any:
    if symbol in operators:
        return operators[symbol]
    why, known = ", but its labels have no order" if symbol in _COMPARISONS else "", [*operators, *others]
    raise InvalidInputError(
        f"`where` has the operator {_shown(symbol)} for {name!r}{why}; expected one of {examples(known, 9)}. "
        f"{did_you_mean(str(symbol), known)}"
    )


def _members(name: str, value: Any) -> Iterable[Any]:
    if not is_list(value):
        raise InvalidTypeError(f"`where` has {_shown(value)} at 'in' of {name!r}; expected a list of values.")
    members: Iterable[Any] = value
    return members


def read_number(value: Any) -> float | None:
    """A finite number; None where it is none."""
    is_number = isinstance(value, (bool, int, float, np.number, np.bool_))
    if not is_number or isinstance(value, (np.complexfloating, np.timedelta64)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None


def read_date(value: Any) -> np.datetime64 | None:
    """A point in time, of a date or ISO text; None where it is none."""
    try:
        # NaT, which is a datetime of pandas, is no date.
        if value != value:
            return None
        if isinstance(value, str):
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, datetime) and value.tzinfo is not None:
            value = value.astimezone(timezone.utc).replace(tzinfo=None)
        if not isinstance(value, (date, np.datetime64)):
            return None
        if isinstance(value, np.datetime64) and not FIRST_DAY <= value.astype("datetime64[D]") <= LAST_DAY:
            return None
        found = np.datetime64(value).astype("datetime64[us]")
    except (OverflowError, ValueError):
        return None
    return None if np.isnat(found) else found


def _wrong_value(name: str, value: Any, expected: str) -> InvalidTypeError:
    return InvalidTypeError(f"`where` has {_shown(value)} for {name!r}; expected {expected}.")


def _shown(value: Any) -> str:
    """A value in an error: short, whatever a request holds."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""What requests and answers look like: pydantic models, strict about types, and bounded.

Whole numbers are those of 64 bits, other numbers are finite, a bool is no number, and unknown fields are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    Tag,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypeAliasType

__all__ = [
    "Answer",
    "Counts",
    "Described",
    "ErrorAnswer",
    "Explain",
    "ExplainedItems",
    "FoundItems",
    "FoundUsers",
    "Item",
    "Items",
    "Label",
    "Names",
    "NewItem",
    "Reach",
    "Recommend",
    "RecommendMany",
    "Recommendation",
    "Recommendations",
    "Schema",
    "Similar",
    "Status",
    "Swap",
    "Written",
]

# Nobody writes deeper or longer filters.
_DEEPEST, _LONGEST = 16, 1000


class _Otherwise:
    """Says what was expected, where each alternative would say why it is not the one."""

    def __init__(self, expected: str) -> None:
        self._message = f"expected {expected}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(handler(source), "unexpected", custom_error_message=self._message)


def _no_whole(value: Any) -> Any:
    """Refuse whole numbers, of which those that are too large would become others."""
    if isinstance(value, int):
        raise ValueError("expected a number with a point")
    return value


Whole: TypeAlias = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Number: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False), BeforeValidator(_no_whole)]
Text: TypeAlias = Annotated[str, Field(strict=True, max_length=10_000)]
Name: TypeAlias = Annotated[str, Field(strict=True, max_length=200)]
# A label as an address has it.
Written: TypeAlias = Annotated[str, Field(strict=True, max_length=1000)]
Label: TypeAlias = Annotated[
    Whole | Written,
    _Otherwise("a label: text of at most 1,000 characters, or a whole number of 64 bits"),
]
Scalar: TypeAlias = Annotated[
    Annotated[bool, Field(strict=True)] | Whole | Number | Text | None,
    _Otherwise("text of at most 10,000 characters, a whole number of 64 bits, a finite number, a bool or null"),
]
Fields: TypeAlias = Annotated[
    dict[Name, Annotated[Scalar | list[Scalar], _Otherwise("text, a number, a bool, null, or a list of these")]],
    Field(max_length=1000),
]
Interactions: TypeAlias = Annotated[
    list[Label] | dict[Name, Number | Whole], _Otherwise("a list of items, or items with a finite rating each")
]
# The package reads a filter, and says better than a schema could what is wrong with one.
Json = TypeAliasType(
    "Json",
    "Annotated[Scalar | list[Json] | dict[Name, Json], _Otherwise('values, lists and dicts, of finite numbers')]",
)


def _bounded(given: Any) -> Any:
    """Refuse a filter that is too deep or too long, before anything looks into it."""
    level, size = [given], 0
    for _ in range(_DEEPEST):
        level = [
            part
            for value in level
            if isinstance(value, (dict, list))
            for part in (value.values() if isinstance(value, dict) else value)
        ]
        size += len(level)
        if size > _LONGEST:
            raise ValueError(f"the filter has more than {_LONGEST} parts")
    if any(isinstance(value, (dict, list)) for value in level):
        raise ValueError(f"the filter is nested more than {_DEEPEST} deep")
    return given


Where: TypeAlias = Annotated[dict[Name, Json], BeforeValidator(_bounded)]


def _positive(k: int) -> int:
    if k < 1:
        raise ValueError("expected at least 1")
    return k


K: TypeAlias = Annotated[Whole, AfterValidator(_positive)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Recommend(_Strict):
    """Who asks, and for what; without `user`, somebody new."""

    user: Label | None = None
    features: Fields | None = None
    interactions: Interactions | None = None
    context: Fields | None = None
    k: K = 10
    where: Where | None = None
    candidates: list[Label] | None = None
    exclude: list[Label] | None = None
    exclude_seen: Annotated[bool, Field(strict=True)] = True
    on_cold: Literal["features", "popular", "raise"] = "features"


class RecommendMany(_Strict):
    """Several requests, which are answered in their order."""

    requests: Annotated[list[Recommend], Field(min_length=1)]


def _which(given: Any) -> str:
    return "many" if isinstance(given, RecommendMany) or (isinstance(given, dict) and "requests" in given) else "one"


Answer: TypeAlias = Annotated[
    Annotated[Recommend, Tag("one")] | Annotated[RecommendMany, Tag("many")], Discriminator(_which)
]


class Similar(_Strict):
    """Items whose like is wanted."""

    items: Annotated[list[Label], Field(min_length=1)]
    k: K = 10
    where: Where | None = None


class Reach(_Strict):
    """Items for which users are wanted."""

    items: Annotated[list[Label], Field(min_length=1)]
    k: K = 10


class Explain(_Strict):
    """A user, known or told of, and the items whose scores are to be explained."""

    user: Label | None = None
    features: Fields | None = None
    interactions: Interactions | None = None
    context: Fields | None = None
    items: Annotated[list[Label], Field(min_length=1)]


class NewItem(_Strict):
    """What an item is."""

    features: Fields
    metadata: Fields | None = None


class Item(NewItem):
    """An item with its name."""

    id: Label


class Items(_Strict):
    """Items that are put all at once, or none of them."""

    items: Annotated[list[Item], Field(min_length=1)]


class Names(_Strict):
    """Items that are removed all at once, or none of them."""

    items: Annotated[list[Label], Field(min_length=1)]


class Swap(_Strict):
    """The plain name of a bundle in the folder of bundles."""

    name: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]


class Scored(BaseModel):
    """An item or a user and its score."""

    id: Label
    score: float


class Recommendation(BaseModel):
    """The list of a user, best first, and how the user was answered."""

    user: Label | None
    path: Literal["hot", "few-shot", "warm", "cold"]
    items: list[Scored]


class Recommendations(BaseModel):
    """One list a request."""

    results: list[Recommendation]


class SimilarItems(BaseModel):
    """The items most similar to one."""

    item: Label
    items: list[Scored]


class FoundItems(BaseModel):
    """One list an item."""

    results: list[SimilarItems]


class ReachedUsers(BaseModel):
    """The users whom an item reaches."""

    item: Label
    users: list[Scored]


class FoundUsers(BaseModel):
    """One list of users an item."""

    results: list[ReachedUsers]


class FieldShare(BaseModel):
    """The share of a field in a score; fields of a history are its items."""

    source: Literal["user", "item", "history", "prior"]
    field: Label
    weight: float | None
    contribution: float


class ExplainedItem(BaseModel):
    """A score; the contributions sum to it."""

    item: Label
    score: float
    fields: list[FieldShare]


class ExplainedItems(BaseModel):
    """One explanation an item."""

    results: list[ExplainedItem]


class Description(BaseModel):
    """What is known of an item."""

    id: Label
    metadata: dict[str, Any]


class Described(BaseModel):
    """One description an item."""

    results: list[Description]


class Counts(BaseModel):
    """What is served."""

    bundle: str
    model: str
    n_items: int
    n_users: int


class KnownUser(BaseModel):
    """A known user, and what is stored of them."""

    id: Label
    features: dict[str, Any]


class Schema(Counts):
    """What may be told and asked: fields by name, each with its kind, and values or a range."""

    user_fields: dict[str, Any]
    item_fields: dict[str, Any]
    context_fields: dict[str, Any]
    metadata_fields: dict[str, Any]
    users: list[KnownUser]


class Status(BaseModel):
    """How the process is."""

    status: Literal["alive", "ready"]


class ErrorDetail(BaseModel):
    """What went wrong, and what was expected."""

    type: str
    message: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail

"""What the service asks of a bundle, and how several requests become as few calls of it as their options allow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from recsys.retrieval import Bundle

__all__ = ["Asked", "Question", "Stranger", "answer"]


class Stranger:
    """The label of a user who gave none: equal to itself alone, so that no two are taken for one."""

    def __repr__(self) -> str:
        return "the user"


@dataclass(frozen=True)
class Asked:
    """What one user asks for; `interactions` has labels as the bundle has them."""

    user: Any
    features: Mapping[str, Any] | None = None
    interactions: Sequence[Any] | Mapping[Any, float] | None = None
    context: Mapping[str, Any] | None = None
    k: int = 10
    where: Mapping[str, Any] | None = None
    candidates: Sequence[Any] | None = None
    exclude: Sequence[Any] | None = None
    exclude_seen: bool = True
    on_cold: Literal["features", "popular", "raise"] = "features"


# Recommendations for one user, or anything else that a bundle can be asked.
Question: TypeAlias = "Asked | Callable[[Bundle], Any]"


def answer(bundle: Bundle, questions: Sequence[Question]) -> list[Any]:
    """Answer questions, users together where their options are the same.

    Parameters
    ----------
    bundle : Bundle
    questions : sequence of Asked or callable
        A callable is given the bundle.

    Returns
    -------
    list
        One answer a question, in their order: `Recommended`, or what the callable returns.

    Examples
    --------
    >>> class Echo:
    ...     def recommend(self, users, k, **options):
    ...         return [f"{user}, {k} of {len(users)}" for user in users]
    >>> answer(Echo(), [Asked("ann"), Asked("bob", k=3), Asked("cid"), Asked("ann"), lambda bundle: 7])
    ['ann, 10 of 2', 'bob, 3 of 1', 'cid, 10 of 2', 'ann, 10 of 1', 7]
    """
    found: dict[int, Any] = {}
    groups: dict[Any, dict[int, Asked]] = {}
    turns: Counter[Any] = Counter()
    for place, each in enumerate(questions):
        if not isinstance(each, Asked):
            found[place] = each(bundle)
            continue
        options = json.dumps([each.k, each.where, each.candidates, each.exclude_seen, each.on_cold, not each.context])
        # Nobody is in a group twice: what is told goes by user.
        turn = options, each.user, type(each.user)
        groups.setdefault((options, turns[turn]), {})[place] = each
        turns[turn] += 1
    for group in groups.values():
        found.update(zip(group, _recommend(bundle, list(group.values())), strict=True))
    return [found[place] for place in range(len(questions))]


def _recommend(bundle: Bundle, asked: Sequence[Asked]) -> list[Any]:
    first = asked[0]
    given = {
        argument: {each.user: told for each in asked if (told := getattr(each, name)) is not None} or None
        for argument, name in (("user_features", "features"), ("interactions", "interactions"), ("exclude", "exclude"))
    }
    return bundle.recommend(
        [each.user for each in asked],
        first.k,
        **given,
        context=[each.context or {} for each in asked] if first.context else None,
        where=first.where,
        candidates=first.candidates,
        exclude_seen=first.exclude_seen,
        on_cold=first.on_cold,
    )

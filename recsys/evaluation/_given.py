"""Recommendations that were made elsewhere, given as a frame or by a function: checked, then judged like a model's."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator

from recsys.evaluation.ranking import ranking_metrics
from recsys.evaluation.scenario import Split
from recsys.exceptions import DataWarning, InvalidInputError, InvalidTypeError, examples
from recsys.vocabulary import Vocabulary

__all__ = ["Given", "check_frames", "is_given"]

Keys = npt.NDArray[np.int64]


def is_given(model: Any) -> bool:
    """Whether this is a frame or a function, where a model could stand."""
    return isinstance(model, pd.DataFrame) or (callable(model) and not isinstance(model, type))


def check_frames(models: Mapping[str, Any], X: pd.DataFrame, splits: Sequence[Split], ask: Callable[..., Any]) -> None:
    """Refuse frames that cannot be judged, before any model is fitted."""
    for name, model in models.items():
        if not isinstance(model, Given) or not isinstance(model.source, pd.DataFrame):
            continue
        if len(splits) > 1:
            raise InvalidInputError(
                f"`models` holds a frame as {name!r}, but there are {len(splits)} scenarios and seeds; expected the "
                f"one it was made for: pass a function that makes a frame for each."
            )
        with warnings.catch_warnings():
            # It comes when the frame is judged.
            warnings.simplefilter("ignore", DataWarning)
            ask(model.fit(X.iloc[splits[0].train]), X, splits[0])


class Given(BaseEstimator):
    """What an `Evaluator` asks a model for, answered by a frame or a function.

    Parameters
    ----------
    source : DataFrame or callable
        As in `Evaluator.evaluate`.
    known : dict of str to Vocabulary
        Every ``user_id`` and every ``item_id`` of the data.
    random_state : int, default=None
        Handed to the function.
    """

    def __init__(
        self,
        source: pd.DataFrame | Callable[..., pd.DataFrame],
        known: Mapping[str, Vocabulary],
        random_state: int | None = None,
    ) -> None:
        self.source = source
        self.known = known
        self.random_state = random_state

    def __sklearn_clone__(self) -> Given:
        # A function may hold a model, which is not to be copied.
        return Given(self.source, self.known, self.random_state)

    def fit(self, X: pd.DataFrame, **features: Any) -> Given:
        """Keep the rows to learn from, for the function."""
        self.train_ = X
        return self

    def recommend(
        self,
        users: Any,
        k: int,
        *,
        interactions: pd.DataFrame | None = None,
        exclude: pd.DataFrame | None = None,
        candidates: pd.Index | pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """The lists of these users, once nothing is wrong with any."""
        lists = self.source
        if not isinstance(lists, pd.DataFrame):
            request = {"interactions": interactions, "exclude": exclude, "candidates": candidates}
            # It may change what it gets: lists are checked against what it was given.
            train, asked, request = copy.deepcopy((self.train_, users, request))
            lists = lists(train, asked, k, **request, random_state=self.random_state)
        lists = self._read(lists)
        lists = lists[lists["user_id"].isin(users)]
        if (lists["rank"] > k).any():
            who = lists["user_id"][lists["rank"] > k].unique()
            raise InvalidInputError(
                f"`recommendations` has more than {k} items for {len(who)} users: {examples(who)}; expected at most "
                f"the `k` of the evaluator: keep the first ranks."
            )
        masked = [self._keys(rows) for rows in (self.train_, interactions, exclude) if rows is not None]
        keys = self._keys(lists)
        _refuse(lists[np.isin(keys, np.concatenate(masked))], "the user has in rows of train, validation or revealed")
        if candidates is not None:
            if isinstance(candidates, pd.DataFrame):
                allowed = np.isin(keys, self._keys(candidates))
            else:
                allowed = lists["item_id"].isin(candidates).to_numpy()
            _refuse(lists[~allowed], "are no candidates of the scenario")
        missing = pd.Index(users).difference(lists["user_id"], sort=False)
        if len(missing) == len(users):
            raise InvalidInputError(
                f"`recommendations` has no list for any of the {len(users)} users asked for, such as "
                f"{examples(users)}; expected theirs: is it of this scenario?"
            )
        if len(missing):
            warnings.warn(
                f"`recommendations` has no list for {len(missing)} of {len(users)} users: {examples(missing)}; each "
                f"counts as 0: give them one, of popular items, say.",
                DataWarning,
                stacklevel=2,
            )
        return lists

    def _read(self, given: Any) -> pd.DataFrame:
        """Columns user_id, item_id, rank and score, the ids as the data has them."""
        if not isinstance(given, pd.DataFrame):
            raise InvalidTypeError(
                f"`recommendations` is of type {type(given).__name__}; expected a DataFrame: return one."
            )
        missing = [name for name in ("user_id", "item_id") if name not in given]
        if missing or not ("rank" in given or "score" in given):
            raise InvalidInputError(
                f"`recommendations` lacks {examples(missing or ['rank', 'score'])} and has {examples(given.columns)}; "
                f"expected the columns user_id, item_id, and rank or score: rename yours."
            )
        columns = [name for name in ("user_id", "item_id", "rank", "score") if name in given]
        lists: pd.DataFrame = given[columns].reset_index(drop=True)
        found = {}
        for name, known in self.known.items():
            codes = known.encode(lists[name], f"recommendations.{name}")
            if (codes < 0).any():
                unknown = lists[name][codes < 0].unique()
                raise InvalidInputError(
                    f"`recommendations.{name}` has {len(unknown)} labels that the data does not know: "
                    f"{examples(unknown)}; expected those of `data`, such as {examples(known.ids)}."
                    f"{known.mismatch(pd.Index(unknown))}"
                )
            found[name] = known.decode(codes)
        lists = lists.assign(**found)
        if "rank" not in lists:
            # What is no number is refused below.
            numbers = pd.to_numeric(lists["score"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
            best_first = lists.iloc[np.argsort(-numbers, kind="stable")]
            lists = lists.assign(rank=best_first.groupby("user_id", sort=False).cumcount() + 1)
        if len(lists):
            # Refuses items that come twice, ranks with gaps, and scores that are no numbers.
            ranking_metrics(lists, lists, 1, ["HR"])
        return lists.assign(path="given")

    def _keys(self, pairs: pd.DataFrame) -> Keys:
        user, item = (known.encode(pairs[name]) for name, known in self.known.items())
        keys: Keys = user * len(self.known["item_id"]) + item
        return keys


def _refuse(rows: pd.DataFrame, what: str) -> None:
    if len(rows):
        pair = rows.iloc[0]
        raise InvalidInputError(
            f"`recommendations` has {len(rows)} items that {what}, such as {examples([pair['item_id']])} for user "
            f"{examples([pair['user_id']])}; expected none: leave them out before lists are cut at k."
        )

"""The protocols by which published models were judged, by name: rows, split, candidates, masks and metrics.

A figure of the literature is worth as much as the protocol is the same, so each is written down once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pandas as pd

from recsys.evaluation._splitting import Splitter
from recsys.evaluation.cold_splits import ItemColdHotSplit, ItemColdSplit, UserColdSplit
from recsys.evaluation.evaluator import Evaluator
from recsys.evaluation.scenario import Split
from recsys.evaluation.splits import GlobalTimeSplit, LeaveLastOut, RandomSplit
from recsys.exceptions import InvalidInputError, InvalidTypeError, did_you_mean

__all__ = ["PROTOCOLS", "Protocol", "protocol"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How models are judged: which rows count, who learns from what, which items are ranked, what is measured.

    What a user has in the rows of train, of validation and of those revealed is never recommended.

    Attributes
    ----------
    name : str
    description : str
        The protocol in words.
    splitter : splitter
        From `recsys.evaluation`.
    k : int
        The length of the lists.
    metrics : tuple of str
        As in `ranking_metrics`.
    min_rating : float or None
        Rows rated below are left out before anything is split; None: every row counts.

    Examples
    --------
    >>> from recsys import EASE, Popularity
    >>> from recsys.datasets import make_movielens_like
    >>> data = make_movielens_like(n_users=60, n_items=30, n_interactions=900, random_state=0)
    >>> models = {"Popularity": Popularity(), "EASE": EASE(l2=10)}
    >>> table = protocol("time").evaluator(seeds=(0, 1), n_resamples=100).evaluate(models, data).table()
    >>> table["scenario"].unique().tolist(), table["metric"].unique().tolist()
    (['global time (hot only)'], ['HR@10', 'NDCG@10', 'MRR@10', 'MAP@10'])
    """

    name: str
    description: str
    splitter: Splitter
    k: int = 10
    metrics: tuple[str, ...] = ("NDCG",)
    min_rating: float | None = None

    def evaluator(self, **options: Any) -> Evaluator:
        """An evaluator that follows the protocol.

        Parameters
        ----------
        **options
            Of `Evaluator`, such as ``seeds``; not those that the protocol settles.

        Returns
        -------
        Evaluator

        Raises
        ------
        InvalidInputError
            If an option is settled by the protocol.
        """
        settled: dict[str, Any] = {name: getattr(self, name) for name in ("k", "metrics", "min_rating")}
        settled["splitters"] = [self.splitter]
        for name in settled.keys() & options.keys():
            raise InvalidInputError(
                f"`{name}` is {options[name]!r}, but protocol {self.name!r} settles it as {settled[name]!r}; expected "
                f"other options alone: leave it out, or make an Evaluator of your own."
            )
        return Evaluator(**settled, **options)

    def splits(self, interactions: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, list[Split]]:
        """The scenarios of one seed, for a loop of one's own.

        Parameters
        ----------
        interactions : DataFrame
            With columns ``user_id`` and ``item_id`` and, where needed, ``rating`` and ``timestamp``.
        seed : int, default=0

        Returns
        -------
        X : DataFrame of shape (n, 2)
            The pairs that count.
        splits : list of Split
            Of rows of `X`.

        Raises
        ------
        InvalidInputError
            If a column is missing, or a part would be empty.

        Examples
        --------
        >>> from recsys.datasets import make_movielens_like
        >>> data = make_movielens_like(n_users=60, n_items=30, n_interactions=900, random_state=0)
        >>> X, [split] = protocol("random").splits(data.interactions)
        >>> len(X) == (data.interactions["rating"] >= 3).sum()
        np.True_
        >>> len(X) == len(split.train) + len(split.validation) + len(split.test)
        True
        """
        evaluator = self.evaluator(seeds=[seed])
        X, times = evaluator._rows({"interactions": interactions})
        return X, [split for _, split in evaluator._splits(X, times)]


def protocol(name: str) -> Protocol:
    """A published protocol by its name.

    Parameters
    ----------
    name : {"sampled", "random", "random-by-user", "item-cold-warm", "item-cold", "user-cold", "time"}

    Returns
    -------
    Protocol

    Raises
    ------
    InvalidInputError
        If there is none of that name.

    Examples
    --------
    >>> protocol("sampled").splitter
    LeaveLastOut(n_last=1, n_negatives=99, random_state=None)
    >>> protocol("random").min_rating
    3
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"`name` is {name!r}; expected the name of a protocol, such as 'random'.")
    if name not in PROTOCOLS:
        raise InvalidInputError(f"`name` is {name!r}, no protocol. {did_you_mean(name, PROTOCOLS)}")
    return PROTOCOLS[name]


_ALL = [
    Protocol(
        name="sampled",
        description="Neural Collaborative Filtering (He et al., WWW 2017) and what compares with it: all ratings; the "
        "last item of each user is ranked among 99 items, drawn uniformly, that the user has no row of.",
        splitter=LeaveLastOut(n_negatives=99),
        metrics=("HR", "NDCG"),
    ),
    Protocol(
        name="random",
        description="Ratings of 3 or more, 8:1:1 at random whoever's they are; the whole catalogue is ranked.",
        splitter=RandomSplit(test_size=0.1, validation_size=0.1),
        metrics=("HR", "Recall", "NDCG", "MRR"),
        min_rating=3,
    ),
    Protocol(
        name="random-by-user",
        description="RecBole-GNN's table of ML-1M: ratings of 3 or more, 8:1:1 at random of each user's; the whole "
        "catalogue is ranked.",
        splitter=RandomSplit(test_size=0.1, validation_size=0.1, by="user"),
        metrics=("HR", "Recall", "NDCG", "MRR"),
        min_rating=3,
    ),
    Protocol(
        name="item-cold-warm",
        description="CLCRec and its followers up to LLM-InS: all ratings; a fifth of the items cold, half of them for "
        "validation; the other rows 8:1:1. Cold items are ranked alone, hot ones alone, and all together but those "
        "of validation.",
        splitter=ItemColdHotSplit(),
        k=20,
        metrics=("Recall", "NDCG"),
    ),
    Protocol(
        name="item-cold",
        description="All ratings; a fifth of the items cold; every user ranks them alone. In a scenario of its own "
        "the whole catalogue is ranked.",
        splitter=ItemColdSplit(),
    ),
    Protocol(
        name="user-cold",
        description="All ratings; a fifth of the users new; a random half of each one's rows is the query set, the "
        "same for every k, and k of the others are revealed; the whole catalogue is ranked.",
        splitter=UserColdSplit(k=(0, 1, 2, 5, 10, "all")),
    ),
    Protocol(
        name="time",
        description="RePlay's comparison of models on ML-1M: ratings of 3 or more; the last fifth of all rows by time "
        "is tested, less those of users and items without train rows; items with train rows are ranked.",
        splitter=GlobalTimeSplit(drop_cold=True),
        metrics=("HR", "NDCG", "MRR", "MAP"),
        min_rating=3,
    ),
]

# By name, read-only.
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({each.name: each for each in _ALL})

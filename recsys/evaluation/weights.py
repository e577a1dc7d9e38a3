"""What a model heeds: the weights of its fields, by how much it knows of a user or an item."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys.evaluation.scenario import entity_groups
from recsys.exceptions import InvalidInputError

__all__ = ["COLUMNS", "field_weights"]

COLUMNS = ["side", "field", "group", "weight", "low", "high", "n_pairs"]


def field_weights(
    model: Any,
    pairs: pd.DataFrame,
    train: Any,
    revealed: Any = None,
    *,
    user_features: Any = None,
    item_features: Any = None,
) -> pd.DataFrame:
    """How much a model heeds each field of hot, few-shot and new users and items.

    The weights are those that `explain` tells of each pair; a field that it leaves out weighs 0 there. Its other
    sources, the items of a history and what is prior to any field, are left out. A weight tells how far the gate of a
    field is open, not what the field adds to a score: that is its contribution in `explain`.

    Parameters
    ----------
    model : BaseRecommender
        Fitted on `train`.
    pairs : DataFrame with columns user_id, item_id
        Whom to explain: some of each group, say a sample of the train rows and the test rows of a `BothColdSplit`.
    train : DataFrame or array-like of shape (n, >= 2)
        The rows that the model learned from; they tell who is hot.
    revealed : DataFrame with columns user_id, item_id, optional
        First interactions of new users, who are few-shot with them.
    user_features, item_features : DataFrame or FeatureTable, optional
        As `explain` takes them.

    Returns
    -------
    DataFrame
        Columns ``side`` ("user" or "item"), ``field``, ``group`` ("hot", "few-shot", "cold-start"), ``weight``, the
        mean over the pairs of the group, ``low`` and ``high``, between which lie the middle 80 % of them, ``n_pairs``.

    Raises
    ------
    InvalidInputError
        If the model explains by no field, such as one that knows ids alone.

    Examples
    --------
    >>> from recsys import ContrastiveRecommender
    >>> from recsys.datasets import make_movielens_like
    >>> data = make_movielens_like(n_users=30, n_items=20, n_interactions=300, random_state=0)
    >>> X = data.interactions[["user_id", "item_id"]]
    >>> genres = data.items.set_index("item_id")[["genres"]]
    >>> model = ContrastiveRecommender(max_iter=2, random_state=0).fit(X, item_features=genres)
    >>> field_weights(model, X, X)[["side", "field", "group"]]
       side            field group
    0  user    similar users   hot
    1  user  fields together   hot
    2  user               id   hot
    3  user          history   hot
    4  item               id   hot
    5  item           genres   hot
    """
    told = model.explain(pairs, user_features=user_features, item_features=item_features, interactions=revealed)
    told = told[told["source"].isin(["user", "item"])]
    if not len(told):
        raise InvalidInputError(
            f"`model` is {model!r}, which explains its scores by no field of users or items; expected one that does, "
            f"such as a fitted ContrastiveRecommender."
        )
    groups = entity_groups(train, pairs, revealed)
    parts = []
    # Users first, and their fields in the order in which they are told.
    for (side, field), own in sorted(
        told.groupby(["source", "field"], sort=False), key=lambda part: part[0][0] == "item"
    ):
        weight = pd.Series(np.bincount(own["row"], own["weight"], minlength=len(pairs)))
        by_group = weight.groupby(groups[side].to_numpy(), observed=True)
        found = pd.DataFrame({"weight": by_group.mean(), "low": by_group.quantile(0.1), "high": by_group.quantile(0.9)})
        parts.append(
            found.assign(n_pairs=by_group.size()).rename_axis("group").reset_index().assign(side=side, field=field)
        )
    return pd.concat(parts, ignore_index=True)[COLUMNS]

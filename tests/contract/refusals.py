"""Calls that every estimator refuses, and what each message must say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recsys.exceptions import ColdStartError, InvalidInputError, InvalidTypeError
from tests.contract.suite import World, new_items, new_users


class Refusal(NamedTuple):
    """A call and the parts of the message that refuses it: the argument, what came, what was expected, what to do."""

    call: Callable[[Any, World], Any]
    parts: tuple[str, ...]
    error: type[Exception] = InvalidInputError


def _lost(frame: pd.DataFrame, column: str, rows: list[int]) -> pd.DataFrame:
    frame = frame.astype({column: object})
    frame.loc[frame.index[rows], column] = None
    return frame


def _clicks(users: list[Any], items: list[Any], **columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"user_id": users, "item_id": items, **columns})


# How X and y are refused in fit, and alike in partial_fit, predict and score where they have the argument.
PAIRS = {
    "one column": Refusal(
        lambda m, w: m.fit(w.X[["user_id"]]),
        (
            "`X` has 1 feature(s), the columns ['user_id']",
            "expected two or more: users in column 0 and items in column 1",
        ),
    ),
    "a rating left in": Refusal(
        lambda m, w: m.fit(w.X.assign(Rating=w.y)),
        ("`X` has the column 'Rating', which is a target", "expected users, items and context alone", "pass it as `y`"),
    ),
    "null users": Refusal(
        lambda m, w: m.fit(_lost(w.X, "user_id", [0, 3, 5, 7])),
        (
            "`X['user_id']` has 4 null ids (at positions 0, 3, 5, ...)",
            "expected a label in every row",
            "drop these rows",
        ),
    ),
    "null items": Refusal(
        lambda m, w: m.fit(w.X.assign(item_id=w.X["item_id"].where(w.X.index != 2))),
        ("`X['item_id']` has 1 null ids (at positions 2)", "expected a label in every row", "drop these rows"),
    ),
    "infinite ids": Refusal(
        lambda m, w: m.fit(w.X.replace(1000, np.inf)),
        ("`X['user_id']` holds infinity", "expected a label in every row", "drop these rows"),
    ),
    "ids of no use": Refusal(
        lambda m, w: m.fit(pd.DataFrame({"u": [{}, {}], "i": [1, 2]})),
        ("`X['u']` holds ids that cannot be hashed: unhashable type: 'dict'", "expected numbers, strings"),
        InvalidTypeError,
    ),
    "no rows": Refusal(
        lambda m, w: m.fit(w.X.iloc[:0]), ("`X` is empty: 0 sample(s)", "minimum of 1", "Pass some rows")
    ),
    "a file name": Refusal(
        lambda m, w: m.fit("X.csv"), ("`X` is no table of users and items", "Expected 2D array", "X.csv")
    ),
    "two columns of a name": Refusal(
        lambda m, w: m.fit(pd.concat([w.X, w.X["user_id"]], axis=1)),
        ("`X` has more than one column named 'user_id'", "expected each once", "rename or drop"),
    ),
    "infinite context": Refusal(
        lambda m, w: m.fit(w.X.assign(temperature=-np.inf)),
        ("`X` holds infinite values in column 'temperature'", "expected finite numbers, or None"),
    ),
    "y too short": Refusal(
        lambda m, w: m.fit(w.X, w.y[:-1]),
        ("`y` has {n_less} values for the {n} rows of `X`", "inconsistent numbers of samples", "pass one target a row"),
    ),
    "NaN in y": Refusal(
        lambda m, w: m.fit(w.X, w.y.where(w.y > 1)), ("`y` must hold one finite number a row", "contains NaN")
    ),
    "infinite y": Refusal(
        lambda m, w: m.fit(w.X, w.y.replace(1, np.inf)), ("`y` must hold one finite number a row", "contains infinity")
    ),
    "text in y": Refusal(
        lambda m, w: m.fit(w.X, ["good"] * len(w.X)), ("`y` must hold one finite number a row", "'good'")
    ),
    "two columns of y": Refusal(
        lambda m, w: m.fit(w.X, np.ones((len(w.X), 2))), ("`y` must hold one finite number a row", "2) instead")
    ),
    "no positive": Refusal(
        lambda m, w: m.fit(w.X, -w.y),
        ("`y` makes none of the {n} rows of `X` a positive", "expected values above 0 in some", "leave `y` out"),
    ),
    "no positive above the bar": Refusal(
        lambda m, w: m.set_params(min_rating=6).fit(w.X, w.y),
        ("`y` makes none of the {n} rows", "expected values above 0 and not below `min_rating` (6)"),
    ),
}

FEATURES = {
    "ids twice": Refusal(
        lambda m, w: m.fit(w.X, w.y, user_features=pd.concat([w.users, w.users.iloc[:5]])),
        (
            "`user_features` has more than one row for 5 ids: 1000, 1001, 1002, ...;",
            "expected one row an id",
            "drop or merge",
        ),
    ),
    "of nobody": Refusal(
        lambda m, w: m.fit(w.X, w.y, item_features=w.items.set_axis(w.items.index + 5000)),
        ("`item_features` has no row for any id of `X` (its ids: 5000, 5001, 5002, ...;", "expected features of these"),
    ),
    "ids of another type": Refusal(
        lambda m, w: m.fit(w.X, w.y, item_features=w.items.set_axis(w.items.index.astype(str))),
        ("`item_features` has no row for any id of `X`", "They are text ('0'), but", "are numbers", "convert one"),
    ),
    "row numbers": Refusal(
        lambda m, w: m.fit(w.X, w.y, user_features=w.users.reset_index(drop=True)),
        (
            "`user_features` has no column 'user_id'",
            "expected the ids in a column of that name or in the index",
            "set_index",
        ),
    ),
    "null ids": Refusal(
        lambda m, w: m.fit(w.X, w.y, user_features=w.users.set_axis([None, *w.users.index[1:]])),
        ("`user_features` has 1 null ids (at positions 0)", "expected a label in every row", "drop these rows"),
    ),
    "no rows": Refusal(
        lambda m, w: m.fit(w.X, w.y, user_features=w.users.iloc[:0]),
        ("`user_features` has no row for any id of `X` (its ids: none;", "expected features of these"),
    ),
    "a dict": Refusal(
        lambda m, w: m.fit(w.X, w.y, user_features={"age": 3}),
        ("`user_features` is of type dict", "expected a DataFrame or a FeatureTable", "convert it"),
        InvalidTypeError,
    ),
    "infinite": Refusal(
        lambda m, w: m.fit(w.X, w.y, user_features=w.users.assign(age=np.inf)),
        (
            "Column 'age' of `user_features` holds infinite values (rows 0, 1, 2, ...)",
            "expected finite numbers, or None",
        ),
    ),
}

LATER = {
    "an extra column": Refusal(
        lambda m, w: m.predict(w.X.assign(hour=1)),
        (
            "`X` does not have the columns of fit",
            "unseen at fit time:\n- hour",
            "Expected users, items",
            "'item_id'; add, drop",
        ),
    ),
    "an extra column of an array": Refusal(
        lambda m, w: m.fit(w.X.to_numpy()).predict(np.ones((2, 3))),
        (
            "`X` does not have the columns of fit. X has 3 features, but {name} is expecting 2",
            "in that order: 2 columns",
        ),
    ),
    "a missing column": Refusal(
        lambda m, w: m.predict(w.X[["item_id"]]),
        (
            "`X` does not have the columns of fit",
            "now missing:\n- user_id",
            "Expected users, items",
            "'user_id', 'item_id'",
        ),
    ),
    "columns in another order": Refusal(
        lambda m, w: m.predict(w.X[["item_id", "user_id"]]),
        (
            "`X` does not have the columns of fit",
            "in the same order as they were in fit",
            "'user_id', 'item_id'; add, drop or",
        ),
    ),
    "a rating left in predict": Refusal(
        lambda m, w: m.predict(w.X.assign(rating=w.y)),
        ("`X` has the column 'rating', which is a target", "pass it as `y` and drop it"),
    ),
    "null ids in predict": Refusal(
        lambda m, w: m.predict(_lost(w.X, "item_id", [1])), ("`X['item_id']` has 1 null ids (at positions 1)",)
    ),
    "no rows in predict": Refusal(lambda m, w: m.predict(w.X.iloc[:0]), ("`X` is empty: 0 sample(s)",)),
    "a column in predict": Refusal(
        lambda m, w: m.predict(w.X["user_id"]), ("`X` is no table of users and items", "Expected a 2-dimensional")
    ),
    "an extra column in partial_fit": Refusal(
        lambda m, w: m.partial_fit(w.X.assign(hour=1), w.y), ("`X` does not have the columns of fit", "- hour")
    ),
    "y too short in partial_fit": Refusal(
        lambda m, w: m.partial_fit(w.X, w.y[1:]), ("`y` has {n_less} values for the {n} rows", "pass one target a row")
    ),
    "y too short in score": Refusal(
        lambda m, w: m.score(w.X, w.y[1:]), ("`y` has {n_less} values for the {n} rows", "pass one target a row")
    ),
    "features of others in predict": Refusal(
        lambda m, w: m.predict(w.X, user_features=new_users()),
        (
            "`user_features` has no row of any user asked for (its ids: 5000, 5001; asked:",
            "expected features of these users",
        ),
    ),
    "features of other items": Refusal(
        lambda m, w: m.predict(w.X, item_features=new_items()),
        ("`item_features` has no row for any item of `X` (its ids: 600, 601; those of `X`:", "pass none, or theirs"),
    ),
    "user features of a model without": Refusal(
        lambda m, w: m.fit(w.X).predict(w.X, user_features=w.users),
        (
            "`user_features` has features, but the model was fitted without",
            "expected none",
            "pass features to `fit` first",
        ),
    ),
    "item features of a model without": Refusal(
        lambda m, w: m.fit(w.X).explain(w.X, item_features=w.items),
        (
            "`item_features` has features, but the model was fitted without",
            "expected none",
            "pass features to `fit` first",
        ),
    ),
    "features of other columns": Refusal(
        lambda m, w: m.recommend([5000], user_features=new_users().drop(columns="age").assign(a=1, b=1, c=1, d=1)),
        (
            "`user_features` lacks 'age' and has the unknown 'a', 'b', 'c', ...",
            "expected the feature columns",
            "age, club",
        ),
    ),
    "features twice": Refusal(
        lambda m, w: m.recommend([5000], user_features=pd.concat([new_users(), new_users()])),
        ("`user_features` has more than one row for 2 ids: 5000, 5001", "expected one row an id", "drop or merge"),
    ),
    "text in a numeric feature": Refusal(
        lambda m, w: m.recommend([5000], user_features=new_users().assign(age="old")),
        (
            "Column 'age' of `user_features` is read as numeric",
            "old",
            "expected numbers, dates or None",
            "convert it",
        ),
    ),
    "features of the wrong type": Refusal(
        lambda m, w: m.recommend([5000], user_features=[20, "chess"]),
        ("`user_features` is of type list", "expected a DataFrame or a FeatureTable"),
        InvalidTypeError,
    ),
}

REQUESTS = {
    "one user": Refusal(
        lambda m, w: m.recommend("1000"),
        ("`users` is the single value '1000'", "expected a list of ids", "pass ['1000']"),
        InvalidTypeError,
    ),
    "a number": Refusal(
        lambda m, w: m.recommend(1000), ("`users` is the single value 1000", "pass [1000]"), InvalidTypeError
    ),
    "a frame of users": Refusal(
        lambda m, w: m.recommend(w.X), ("`users` is a DataFrame", "expected one id after the other"), InvalidTypeError
    ),
    "null users": Refusal(
        lambda m, w: m.recommend([1000, None]),
        ("`users` has 1 null ids (at positions 1)", "expected a label in every row"),
    ),
    "a matrix of users": Refusal(
        lambda m, w: m.recommend(w.X.to_numpy()), ("`users` has 2 dimensions", "expected one id after the other")
    ),
    "k of 0": Refusal(
        lambda m, w: m.recommend([1000], k=0), ("`k` is 0; expected at least 1", "ask for one item or more")
    ),
    "k below 0": Refusal(lambda m, w: m.recommend([1000], k=-3), ("`k` is -3; expected at least 1",)),
    "k of 1.5": Refusal(
        lambda m, w: m.recommend([1000], k=1.5), ("`k` is 1.5; expected a whole number",), InvalidTypeError
    ),
    "k as text": Refusal(
        lambda m, w: m.recommend([1000], k="10"), ("`k` is '10'; expected a whole number",), InvalidTypeError
    ),
    "k of similar items": Refusal(lambda m, w: m.similar_items([3], k=0), ("`k` is 0; expected at least 1",)),
    "on_cold": Refusal(
        lambda m, w: m.recommend([1000], on_cold="popularity"),
        ("`on_cold` is 'popularity'", 'expected "features", "popular" or "raise"', "Did you mean 'popular'?"),
    ),
    "on_cold of each user": Refusal(
        lambda m, w: m.recommend([1000, 1001], on_cold=np.array(["raise", "raise"])),
        ("`on_cold` is array", 'expected "features", "popular" or "raise"'),
    ),
    "on_cold of None": Refusal(
        lambda m, w: m.recommend([1000], on_cold=None),
        ("`on_cold` is None", 'expected "features", "popular" or "raise"'),
    ),
    "no memory": Refusal(
        lambda m, w: m.recommend([1000], working_memory=0), ("`working_memory` is 0; expected", "MiB above 0")
    ),
    "memory as text": Refusal(
        lambda m, w: m.recommend([1000], working_memory="1GB"),
        ("`working_memory` is '1GB'; expected a number of MiB",),
        InvalidTypeError,
    ),
    "context of a model without": Refusal(
        lambda m, w: m.recommend([1000], context={"daytime": "morning"}),
        ("`context` was given, but `X` had no context columns in fit", "expected None", "fit with them first"),
    ),
    "interactions as tuples": Refusal(
        lambda m, w: m.recommend([1000], interactions=[(1000, 1)]),
        ("`interactions` is of type list", "expected a DataFrame of users and items"),
        InvalidTypeError,
    ),
    "interactions of others": Refusal(
        lambda m, w: m.recommend([1000, 1001], interactions=_clicks([1, 2, 3, 4], [1, 2, 3, 4])),
        (
            "`interactions` has no row of any user asked for (its users: 1, 2, 3, ...; asked: 1000, 1001)",
            "expected theirs",
        ),
    ),
    "interactions of text": Refusal(
        lambda m, w: m.recommend([1000], interactions=_clicks(["1000"], [1])),
        (
            "`interactions` has no row of any user asked for",
            "They are text ('1000')",
            "are numbers (1000)",
            "convert one",
        ),
    ),
    "interactions without items": Refusal(
        lambda m, w: m.recommend([1000], interactions=pd.DataFrame({"user_id": [1000]})),
        ("`interactions` has 1 feature(s), the columns ['user_id']", "expected two or more"),
    ),
    "interactions with nulls": Refusal(
        lambda m, w: m.recommend([1000], interactions=_clicks([1000, 1000], [1, None])),
        ("`interactions['item_id']` has 1 null ids (at positions 1)", "expected a label in every row"),
    ),
    "interactions with NaN ratings": Refusal(
        lambda m, w: m.recommend([1000], interactions=_clicks([1000, 1000], [1, 2], rating=[1, np.nan])),
        ("`interactions['rating']` must hold one finite number a row", "NaN"),
    ),
    "exclude_seen as text": Refusal(
        lambda m, w: m.recommend([1000], exclude_seen="no"),
        ("`exclude_seen` is 'no'", "expected True or False"),
        InvalidTypeError,
    ),
    "one candidate": Refusal(
        lambda m, w: m.recommend([1000], candidates="3"),
        ("`candidates` is the single value '3'", "expected a list of ids", "pass ['3']"),
        InvalidTypeError,
    ),
    "unknown candidates": Refusal(
        lambda m, w: m.recommend([1000], candidates=[4242, 4243, 4244, 4245]),
        ("`candidates` names no item of the catalogue, but 4242, 4243, 4244, ...;", "expected its items"),
    ),
    "candidates of text": Refusal(
        lambda m, w: m.recommend([1000], candidates=["3"]),
        ("`candidates` names no item of the catalogue", "They are text ('3')", "are numbers", "convert one"),
    ),
    "candidates without users": Refusal(
        lambda m, w: m.recommend([1000], candidates=w.X[["item_id"]]),
        ("`candidates` has 1 feature(s), the columns ['item_id']", "expected two or more"),
    ),
    "null candidates": Refusal(
        lambda m, w: m.recommend([1000], candidates=[3, None]), ("`candidates` has 1 null ids (at positions 1)",)
    ),
    "exclusions of text": Refusal(
        lambda m, w: m.recommend([1000], exclude=["3"]),
        ("`exclude` names no item of the catalogue", "They are text ('3')", "are numbers", "convert one"),
    ),
    "exclusions of users of text": Refusal(
        lambda m, w: m.recommend([1000], exclude=w.X.astype(str)),
        ("`exclude` names no user asked for", "They are text", "are numbers (1000)", "convert one"),
    ),
    "nobody known": Refusal(
        lambda m, w: m.recommend([1, 2, 3, 4], on_cold="raise"),
        ("is known of 4 of `users`: 1, 2, 3, ...;", "`interactions`, or ", 'on_cold="popular"'),
        ColdStartError,
    ),
    "similar to the unknown": Refusal(
        lambda m, w: m.similar_items([3, 4242]),
        (
            "`items` holds 1 ids that are not in the catalogue: 4242",
            "expected items of the catalogue",
            "`add_items` first",
        ),
    ),
    "similar to text": Refusal(
        lambda m, w: m.similar_items(["3"]),
        ("`items` holds 1 ids", "They are text ('3')", "convert one to the other's"),
    ),
    "items that are there": Refusal(
        lambda m, w: m.add_items([0, 1, 2, 3, 600]),
        ("`items` holds 4 ids that are in the catalogue already: 0, 1, 2, ...;", "expected new ones", "drop these"),
    ),
    "items twice": Refusal(
        lambda m, w: m.add_items([600, 600]), ("`items` holds 1 ids more than once: 600", "expected each once", "drop")
    ),
    "items of other columns": Refusal(
        lambda m, w: m.add_items(new_items().drop(columns="price")),
        ("`items` lacks 'price'", "expected the feature columns of fit: genres, price", "Add what is missing"),
    ),
    "one item": Refusal(
        lambda m, w: m.add_items("600"), ("`items` is the single value '600'", "pass ['600']"), InvalidTypeError
    ),
}

CONTEXT = {
    "too many rows": Refusal(
        lambda m, w: m.recommend([1000], context=w.X[["daytime"]].iloc[:2]),
        ("`context` has 2 rows for 1 users", "expected one row a user", "pass a dict if all share one"),
    ),
    "a list": Refusal(
        lambda m, w: m.recommend([1000], context=["morning"]),
        ("`context` is of type list", "expected a DataFrame of one row a user, or a dict"),
        InvalidTypeError,
    ),
    "a misspelt column": Refusal(
        lambda m, w: m.recommend([1000], context={"day_time": "morning"}),
        ("`context` lacks 'daytime' and has the unknown 'day_time'", "expected the feature columns of fit: daytime"),
    ),
    "no context column": Refusal(
        lambda m, w: m.predict(w.X[["user_id", "item_id"]]),
        ("`X` does not have the columns of fit", "missing:\n- daytime"),
    ),
}


EVERYTHING = {
    f"{group}: {title}": refusal
    for group, refusals in {"X and y": PAIRS, "features": FEATURES, "later": LATER, "requests": REQUESTS}.items()
    for title, refusal in refusals.items()
}

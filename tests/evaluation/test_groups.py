"""Groups of test rows: by history, by popularity, by what is known of users, worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from recsys import EASE, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import Evaluation, Evaluator, LeaveLastOut, RandomSplit, Split, UserColdSplit
from recsys.evaluation._groups import BINS, row_groups
from recsys.exceptions import InvalidInputError, InvalidTypeError

TRAIN = [
    ("a", 1),
    ("b", 1),
    ("b", 2),
    *[("c", item) for item in (1, 2, 3, 4, 5)],
    ("d", 1),
    ("d", 2),
    ("e", 1),
    ("e", 3),
]
TEST = [("a", 2), ("a", 3), ("b", 3), ("c", 6)]


class ByHand:
    """The rows above."""

    def splits(self, X: pd.DataFrame, groups: Any = None) -> Iterator[Split]:
        n = len(TRAIN)
        yield Split("by hand", np.arange(n), np.arange(n, len(X)))


@pytest.fixture(scope="module")
def small() -> Bunch:
    users = pd.DataFrame({"user_id": list("edcba"), "gender": list("MMFMF"), "city": [None, None, None, 5.0, 7.0]})
    return Bunch(interactions=pd.DataFrame(TRAIN + TEST, columns=["user_id", "item_id"]), users=users)


@pytest.fixture(scope="module")
def data() -> Any:
    return make_movielens_like(n_users=80, n_items=50, n_interactions=1600, random_state=0)


@pytest.fixture(scope="module")
def evaluation(data: Any) -> Evaluation:
    splitters = [RandomSplit(test_size=0.3), UserColdSplit(k=(2,)), LeaveLastOut(n_negatives=11)]
    evaluator = Evaluator(splitters, seeds=(0, 1), groups=["popularity", "history", "gender"], n_resamples=50)
    return evaluator.evaluate({"Popularity": Popularity(), "EASE": EASE(l2=20.0)}, data)


def test_values_by_hand(small: Bunch) -> None:
    # Item 1 has 5 train rows, 2 has 3, 3 has 2, 4 and 5 have 1 each, 6 none: "a" is shown 2, "b" 3, and "c" nothing.
    evaluator = Evaluator(
        [ByHand()], k=1, metrics=["HR", "Recall"], groups=("history", "popularity", "gender", "city"), n_resamples=50
    )
    found = evaluator.evaluate({"Popularity": Popularity()}, small)
    rows = found.per_user.set_index(["group", "user_id"])[["HR@1", "Recall@1"]]
    assert {key: tuple(values) for key, values in zip(rows.index, rows.to_numpy().tolist(), strict=True)} == {
        ("overall", "a"): (1.0, 0.5),
        ("overall", "b"): (1.0, 1.0),
        ("overall", "c"): (0.0, 0.0),
        ("hot", "a"): (1.0, 0.5),
        ("hot", "b"): (1.0, 1.0),
        ("cold-start", "c"): (0.0, 0.0),
        ("history=1", "a"): (1.0, 0.5),
        ("history=2-4", "b"): (1.0, 1.0),
        ("history=5-9", "c"): (0.0, 0.0),
        # Of the rows of known items, with 3, 2 and 2 train rows, the first is the upper third, the others the middle.
        ("popularity=head", "a"): (1.0, 1.0),
        ("popularity=mid", "a"): (0.0, 0.0),
        ("popularity=mid", "b"): (1.0, 1.0),
        ("popularity=new", "c"): (0.0, 0.0),
        ("gender=F", "a"): (1.0, 0.5),
        ("gender=F", "c"): (0.0, 0.0),
        ("gender=M", "b"): (1.0, 1.0),
        # Of "c" no city is known.
        ("city=7.0", "a"): (1.0, 0.5),
        ("city=5.0", "b"): (1.0, 1.0),
    }
    table = found.table().query("metric == 'Recall@1'").set_index("group")
    intervals = table[["n_users", "mean", "low", "high"]].T.to_dict("list")
    assert intervals["gender=F"] == [2, 0.25, 0.0, 0.5]
    assert intervals["popularity=mid"] == [2, 0.5, 0.0, 1.0]
    assert list(table.index)[3:6] == ["history=1", "history=2-4", "history=5-9"]


@pytest.mark.parametrize("group", BINS["history"])
def test_bins_of_history(group: str) -> None:
    first, _, last = group.rstrip("+").partition("-")
    for n in (int(first), int(last or first) if not group.endswith("+") else 9999):
        train = pd.DataFrame({"user_id": [1] * n + [2], "item_id": [*range(n), 0]})
        test = pd.DataFrame({"user_id": [1], "item_id": [0]})
        names = [name for name, _ in row_groups(["history"], train, test, None, {})]
        assert names[-1] == f"history={group}"


def test_revealed_rows_are_no_history() -> None:
    train, test = pd.DataFrame({"user_id": [2], "item_id": [0]}), pd.DataFrame({"user_id": [1], "item_id": [0]})
    revealed = pd.DataFrame({"user_id": [1, 1], "item_id": [1, 2]})
    found = [name for name, _ in row_groups(["history"], train, test, revealed, {})]
    assert found == ["overall", "few-shot", "history=0"]


@pytest.mark.parametrize(
    ("popularity", "expected"),
    [
        ([1, 2, 3], ["tail", "mid", "head"]),
        ([9, 9, 9, 9], ["mid"] * 4),
        ([0, 0], ["new", "new"]),
        ([5], ["mid"]),
        # Equals stay together, where most of them are.
        ([1, 1, 2, 2, 2, 3], ["tail", "tail", "mid", "mid", "mid", "head"]),
        ([0, 7, 1, 1, 1, 8, 9], ["new", "mid", "tail", "tail", "tail", "head", "head"]),
    ],
)
def test_thirds_of_popularity(popularity: list[int], expected: list[str]) -> None:
    items = np.arange(len(popularity))
    train = pd.DataFrame({"user_id": 0, "item_id": np.append(np.repeat(items, popularity), -1)})
    test = pd.DataFrame({"user_id": 1, "item_id": items}, index=items + 10)
    label = pd.Series("", index=test.index)
    for name, rows in row_groups(["popularity"], train, test, None, {}):
        if "=" in name:
            label[rows.index] = name.removeprefix("popularity=")
    assert label.tolist() == expected


def test_groups_of_users_have_the_values_of_all_their_rows(evaluation: Evaluation) -> None:
    keys = ["scenario", "seed", "model", "user_id"]
    overall = evaluation.per_user.query("group == 'overall'").set_index(keys)[evaluation.metrics].sort_index()
    for name in ("history", "gender"):
        rows = evaluation.per_user[evaluation.per_user["group"].str.startswith(f"{name}=")]
        pd.testing.assert_frame_equal(rows.set_index(keys)[evaluation.metrics].sort_index(), overall)
    assert overall.index.get_level_values("scenario").nunique() == 3
    histories = evaluation.per_user.query("scenario == 'user-cold k=2'")["group"]
    assert histories[histories.str.startswith("history")].unique().tolist() == ["history=0"]


def test_hits_of_the_thirds_add_up(data: Any, evaluation: Evaluation) -> None:
    X = data.interactions[["user_id", "item_id"]]
    [split] = RandomSplit(test_size=0.3, random_state=1).splits(X)
    test, n = X.iloc[split.test], X["item_id"].iloc[split.train].value_counts()
    place = test["item_id"].map(n).rank() - 0.5
    third = pd.Series(np.array(BINS["popularity"])[1 + (place // (len(test) / 3)).astype(int)], test.index)
    rows = evaluation.per_user.query("scenario == 'random' and seed == 1 and model == 'EASE'")
    recall = rows.set_index(["group", "user_id"])["Recall@10"]
    sizes = test.groupby(["popularity=" + third, "user_id"]).size()
    assert set(sizes.index) == {key for key in recall.index if key[0].startswith("popularity")}
    hits = (recall.loc[sizes.index] * sizes).groupby("user_id").sum()
    expected = recall["overall"] * test.groupby("user_id").size()
    pd.testing.assert_series_equal(hits, expected, check_names=False)
    assert sizes.groupby(level=0).sum().between(0.28 * len(test), 0.39 * len(test)).all()


def test_further_groups_change_no_other(data: Any, evaluation: Evaluation) -> None:
    splitters = [RandomSplit(test_size=0.3), UserColdSplit(k=(2,)), LeaveLastOut(n_negatives=11)]
    plain = Evaluator(splitters, seeds=(0, 1), n_resamples=50).evaluate(
        {"Popularity": Popularity(), "EASE": EASE(l2=20.0)}, data
    )
    rest = evaluation.per_user[~evaluation.per_user["group"].str.contains("=")].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, plain.per_user)
    table = evaluation.table()
    pd.testing.assert_frame_equal(table[~table["group"].str.contains("=")].reset_index(drop=True), plain.table())


def test_categories_of_users_keep_their_order_and_ids_may_be_the_index(small: Bunch) -> None:
    users = small.users.set_index("user_id")
    users["age"] = pd.cut(pd.Series([70, 30, 20, 40, 8], index=users.index), [0, 18, 35, 99], labels=["y", "x", "a"])
    found = Evaluator([ByHand()], groups=["age"], n_resamples=50).evaluate(
        {"Popularity": Popularity()}, {**small, "users": users}
    )
    assert [name for name in found.per_user["group"].unique() if "=" in name] == ["age=y", "age=x", "age=a"]


def test_bad_groups_are_refused_before_work(small: Bunch) -> None:
    def evaluate(groups: Any, users: pd.DataFrame | None = small.users) -> None:
        class Unfit(Popularity):
            def fit(self, *_: Any, **__: Any) -> Unfit:
                pytest.fail("It was fitted.")

        Evaluator([ByHand()], groups=groups).evaluate({"Popularity": Unfit()}, {**small, "users": users})

    for wrong in ("history", 5, [5], None, [""]):
        with pytest.raises(InvalidTypeError, match=r"`groups` is .*; expected a sequence of names, such as"):
            evaluate(wrong)
    with pytest.raises(InvalidInputError, match=r"`groups` is \['history', 'history'\]; expected each name once"):
        evaluate(["history", "history"])
    with pytest.raises(InvalidInputError, match=r"`groups` holds 'gendre', no column of .*Did you mean 'gender'"):
        evaluate(["gendre"])
    with pytest.raises(InvalidInputError, match=r"`groups` holds 'gender', no column of `data\.users`"):
        evaluate(["gender"], None)
    with pytest.raises(InvalidInputError, match=r"Column 'gender' of `data\.users` tells of no user .* is of 'x'"):
        evaluate(["gender"], pd.DataFrame({"user_id": ["x"], "gender": ["F"]}))
    many = pd.DataFrame({"user_id": [*range(30)], "zip": [*range(30)]})
    pairs = pd.DataFrame({"user_id": [*range(30)], "item_id": 1})
    evaluator = Evaluator([ByHand()], groups=["zip"])
    with pytest.raises(InvalidInputError, match=r"Column 'zip' .* has 30 different values .* with pandas\.cut"):
        evaluator.evaluate({"Popularity": Popularity()}, Bunch(interactions=pairs, users=many))
    with pytest.raises(InvalidTypeError, match=r"Column 'genres' of `data\.users` holds values that are no labels"):
        evaluate(["genres"], small.users.assign(genres=[["x"]] * 5))
    with pytest.raises(InvalidInputError, match="`groups` gives two groups one name, 'age=F=1'; expected values of"):
        evaluate(["age", "age=F"], small.users.assign(**{"age": "F=1", "age=F": 1}))
    with pytest.raises(InvalidInputError, match="`groups` gives two groups one name, 'age=1'; expected values of"):
        evaluate(["age"], small.users.assign(age=[1, "1", 1, 1, 1]))
    with pytest.raises(InvalidTypeError, match=r"`data\.users` has columns of 2 levels; expected names"):
        evaluate(["age"], pd.concat({"age": small.users}, axis=1))

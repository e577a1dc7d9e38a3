"""Popularity: shares counted by hand."""

from __future__ import annotations

import datetime as dt
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import Popularity, load
from recsys.exceptions import InvalidInputError


@pytest.fixture
def model() -> Popularity:
    # Ann and Bob have tea, Bob twice; Cid was shown tea and has milk; Dan dislikes all he has seen.
    X = pd.DataFrame(
        {
            "user_id": ["ann", "bob", "bob", "cid", "cid", "dan"],
            "item_id": ["tea", "tea", "tea", "tea", "milk", "salt"],
        }
    )
    return Popularity().fit(X, [5, 3, 4, 0, 1, -1], item_features=pd.DataFrame({"kind": ["x", "y"]}, ["tea", "jam"]))


def test_the_score_is_the_share_of_users_with_positives(model: Popularity) -> None:
    assert model.items_.ids.tolist() == ["tea", "milk", "salt", "jam"]
    np.testing.assert_allclose(model.popularity_, [2 / 3, 1 / 3, 0, 0], rtol=1e-6)
    assert model.popularity_.dtype == np.float32


def test_everybody_gets_the_same_list_less_what_was_seen(model: Popularity) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.recommend(["eve", "ann", "cid"], k=4)
    assert found.groupby("user_id", sort=False)["item_id"].apply(list).to_dict() == {
        "eve": ["tea", "milk", "salt", "jam"],
        "ann": ["milk", "salt", "jam"],
        "cid": ["salt", "jam"],
    }
    assert found.drop_duplicates("user_id")["path"].tolist() == ["cold", "hot", "hot"]


def test_min_rating_raises_the_bar(model: Popularity) -> None:
    X = pd.DataFrame({"user_id": [1, 2, 3], "item_id": ["a", "a", "b"]})
    assert Popularity(min_rating=4).fit(X, [5, 3, 4]).popularity_.tolist() == [0.5, 0.5]
    assert Popularity().fit(X, [5, 3, 4]).popularity_.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_weights_do_not_matter_beyond_their_sign() -> None:
    X = pd.DataFrame({"user_id": [1, 2, 3], "item_id": ["a", "a", "b"]})
    even, uneven = Popularity().fit(X, [1, 1, 1]), Popularity().fit(X, [9, 0.1, 2])
    np.testing.assert_array_equal(even.popularity_, uneven.popularity_)


def test_partial_fit_counts_both_days(model: Popularity) -> None:
    model.partial_fit(pd.DataFrame({"user_id": ["eve", "dan", "ann"], "item_id": ["milk", "milk", "beer"]}))
    assert dict(zip(model.items_.ids, model.popularity_.round(4).tolist(), strict=True)) == pytest.approx(
        {"tea": 0.4, "milk": 0.6, "salt": 0, "jam": 0, "beer": 0.2}
    )


def test_items_that_join_start_at_zero(model: Popularity) -> None:
    model.add_items(["rum"])
    assert model.popularity_.tolist()[-1] == 0
    assert model.predict(pd.DataFrame({"user_id": ["ann"], "item_id": ["rum"]})).tolist() == [0]


def test_similar_items_are_the_popular_ones(model: Popularity) -> None:
    found = model.similar_items(["tea"], k=2)
    assert found["similar_item_id"].tolist() == ["milk", "salt"]
    assert found["score"].tolist() == pytest.approx([1 / 3, 0])


def test_vectors(model: Popularity) -> None:
    assert model.user_vectors(["ann", "eve"]).tolist() == [[1, 0], [0, 1]]
    np.testing.assert_array_equal(model.item_vectors(), np.column_stack([model.popularity_] * 2))


def test_explain(model: Popularity) -> None:
    told = model.explain(pd.DataFrame({"user_id": ["ann", "eve"], "item_id": ["tea", "milk"]}))
    assert told["source"].tolist() == ["item", "prior"]
    assert told["field"].tolist() == ["popularity", "popularity"]
    assert told["contribution"].tolist() == pytest.approx([2 / 3, 1 / 3])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(-1, 3)), min_size=1, max_size=40))
def test_counts_are_those_of_sets(rows: list[tuple[int, int, int]]) -> None:
    rows = [*rows, (99, 99, 1)]
    users, items, weights = zip(*rows, strict=True)
    model = Popularity().fit(pd.DataFrame({"user_id": users, "item_id": items}), weights)
    # A pair is a positive if any of its rows is.
    liked = {(user, item) for user, item, weight in rows if weight > 0}
    everyone = {user for user, _ in liked}
    expected = [len({user for user, item in liked if item == label}) / len(everyone) for label in model.items_.ids]
    np.testing.assert_allclose(model.popularity_, expected, rtol=1e-6)


GROUPS = pd.DataFrame(
    {"club": ["chess", "chess", "darts", None, "chess", "bingo"], "age": [20, 21, 60, 61, 22, 20]},
    index=pd.Index(["ann", "bob", "cid", "dan", "eve", "fay"], name="user_id"),
)
TAKEN = pd.DataFrame(
    {
        "user_id": ["ann", "ann", "bob", "cid", "dan", "cid"],
        "item_id": ["tea", "jam", "tea", "ale", "ale", "tea"],
        "day": [0.0, 4.0, 2.0, 4.0, 1.0, 3.0],
    }
)


def test_groups_have_shares_of_their_own_drawn_towards_everybodys() -> None:
    model = Popularity(by="club").fit(TAKEN[["user_id", "item_id"]], user_features=GROUPS)
    everybody = {"tea": 3 / 4, "jam": 1 / 4, "ale": 2 / 4}
    chess, darts = {"tea": 2, "jam": 1, "ale": 0}, {"tea": 1, "jam": 0, "ale": 1}

    def scores(user: str) -> list[float]:
        return list(model.predict(pd.DataFrame({"user_id": [user] * 3, "item_id": list(everybody)})))

    of_chess = [(chess[item] + 20 * share) / (2 + 20) for item, share in everybody.items()]
    of_darts = [(darts[item] + 20 * share) / (1 + 20) for item, share in everybody.items()]
    assert scores("ann") == pytest.approx(of_chess)
    assert scores("eve") == pytest.approx(of_chess)
    assert scores("cid") == pytest.approx(of_darts)
    for user in ("dan", "fay", "who"):
        # No club, a club that nobody with positives is in, and nobody known.
        assert scores(user) == pytest.approx(list(everybody.values()))
    told = model.explain(pd.DataFrame({"user_id": ["ann", "fay"], "item_id": ["tea", "tea"]}))
    assert told["field"].tolist() == ["popularity by club", "popularity"]
    assert told["contribution"].tolist() == pytest.approx([of_chess[0], 3 / 4])
    assert model.recommend(["eve", "who"], k=1)["path"].tolist() == ["warm", "cold"]
    newer = pd.DataFrame({"club": ["darts"], "age": [22]}, index=["eve"])
    asked = pd.DataFrame({"user_id": ["eve"], "item_id": ["ale"]})
    assert model.predict(asked, user_features=newer).tolist() == pytest.approx([of_darts[2]])


def test_groups_of_several_fields_are_their_combinations() -> None:
    model = Popularity(by=["club", "age"]).fit(TAKEN[["user_id", "item_id"]], user_features=GROUPS)
    # Ages close to one knot fall together; Ann, Bob, Cid and Dan make a group each or share one.
    assert 2 <= len(model.group_keys_) <= 4
    assert model.group_shares_.shape == (len(model.group_keys_), 3)


@pytest.mark.parametrize("dates", [False, True])
def test_positives_lose_half_of_their_weight_a_half_life(dates: bool, tmp_path: Path) -> None:
    rows = TAKEN.assign(day=pd.Timestamp("2020-01-01") + pd.to_timedelta(TAKEN["day"], "D")) if dates else TAKEN
    model = Popularity(half_life=2, time="day").fit(rows)
    expected = {
        "tea": (2 ** (-4 / 2) + 2 ** (-2 / 2) + 2 ** (-1 / 2)) / 4,
        "jam": 1 / 4,
        "ale": (1 + 2 ** (-3 / 2)) / 4,
    }
    assert dict(zip(model.items_.ids, model.popularity_, strict=True)) == pytest.approx(expected)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    # Two days go by, and Dan takes ale once more: all else halves.
    day = rows["day"].max() + (pd.Timedelta(days=2) if dates else 2)
    more = pd.DataFrame({"user_id": ["dan"], "item_id": ["ale"], "day": [day]})
    for asked in (model, again):
        asked.partial_fit(more)
        expected_later = {"tea": expected["tea"] / 2, "jam": 1 / 8, "ale": (1 / 2 + 1) / 4}
        assert dict(zip(asked.items_.ids, asked.popularity_, strict=True)) == pytest.approx(expected_later)
    assert not hasattr(model.set_params(half_life=None).fit(rows), "recency_")


def test_what_popularity_cannot_do_is_refused() -> None:
    pairs = TAKEN[["user_id", "item_id"]]
    with pytest.raises(InvalidInputError, match=r"`by` names 'clubs'; expected numeric or categorical fields"):
        Popularity(by="clubs").fit(pairs, user_features=GROUPS)
    with pytest.raises(InvalidInputError, match="there are none"):
        Popularity(by="club").fit(pairs)
    with pytest.raises(InvalidInputError, match=r"`time` is 'timestamp', but the further columns of `X` are 'day'"):
        Popularity(half_life=2).fit(TAKEN)
    with pytest.raises(InvalidInputError, match=r"`X` holds nan in the column 'day'; expected a number or date"):
        Popularity(half_life=2, time="day").fit(TAKEN.assign(day=TAKEN["day"].where(TAKEN.index != 3)))
    with pytest.raises(InvalidInputError, match=r"was not set in `fit`"):
        Popularity(time="day").fit(TAKEN).set_params(half_life=2).partial_fit(TAKEN)


def test_rows_without_an_age_end_what_was_known_of_ages() -> None:
    model = Popularity(half_life=2, time="day").fit(TAKEN)
    model.set_params(half_life=None).partial_fit(TAKEN.assign(user_id="new"))
    with pytest.raises(InvalidInputError, match="fit anew"):
        model.set_params(half_life=2).partial_fit(TAKEN)


def times_of_every_kind() -> dict[str, pd.Series]:
    days = pd.to_timedelta(TAKEN["day"], "D")
    dates = pd.Timestamp("2020-01-01") + days
    zones = [dt.timezone(dt.timedelta(hours=i % 3)) for i in range(len(dates))]
    return {
        "timedelta": days,
        "durations as objects": pd.Series([dt.timedelta(days=float(day)) for day in TAKEN["day"]], dtype=object),
        "datetime": dates,
        "zone": dates.dt.tz_localize("Europe/Berlin"),
        "date": dates.dt.date,
        "numpy objects": pd.Series(list(dates.to_numpy()), dtype=object),
        "category": dates.astype("category"),
        "hours": dates.dt.to_period("h"),
        "several zones": pd.Series(
            [time.tz_localize("UTC").astimezone(zone) for time, zone in zip(dates, zones, strict=True)], dtype=object
        ),
    }


@pytest.mark.parametrize("kind", times_of_every_kind())
def test_times_of_any_kind_are_days(kind: str) -> None:
    times = times_of_every_kind()[kind]
    expected = Popularity(half_life=2, time="day").fit(TAKEN).popularity_
    found = Popularity(half_life=2, time="day").fit(TAKEN.assign(day=times)).popularity_
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "times", [["soon"] * 6, [dt.date(2020, 1, 1), dt.date(9999, 12, 31), *[dt.date(1, 1, 1)] * 4], [1 + 2j] * 6]
)
def test_other_times_are_refused_or_read(times: list[Any]) -> None:
    model = Popularity(half_life=2, time="day")
    X = TAKEN.assign(day=pd.Series(times, dtype=object))
    if isinstance(times[0], dt.date) and pd.to_datetime(pd.Series(times), errors="coerce").notna().all():
        assert np.isfinite(model.fit(X).popularity_).all()
        return
    with pytest.raises(InvalidInputError, match=r"The column 'day' of `X` is read as numeric"):
        model.fit(X)


@pytest.mark.parametrize("by", ["age", ["club", "age"]])
def test_a_field_of_which_nothing_is_known_makes_no_groups(by: Any) -> None:
    pairs = pd.DataFrame({"user_id": [1, 2, 3], "item_id": list("aab")})
    users = pd.DataFrame({"user_id": [1, 2, 3], "age": np.nan, "club": list("xxy")})
    model = Popularity(by=by).fit(pairs, user_features=users)
    assert len(model.group_keys_) == (0 if by == "age" else 2)


def test_too_many_fields_for_groups_are_refused_and_any_sequence_names_them() -> None:
    users = pd.DataFrame({f"f{i}": list("abcab") for i in range(40)}, index=list("vwxyz"))
    pairs = pd.DataFrame({"user_id": list("vwxyz"), "item_id": ["a"] * 5})
    with pytest.raises(InvalidInputError, match=r"`by` names 40 fields with .* combinations of values"):
        Popularity(by=[f"f{i}" for i in range(40)]).fit(pairs, user_features=users)
    some: Any = users.columns[:2].to_numpy()
    named = Popularity(by=some).fit(pairs, user_features=users)
    assert len(named.group_keys_) == 3


def test_weights_that_add_up_to_infinity_are_refused() -> None:
    twice = pd.DataFrame({"user_id": [1, 1], "item_id": ["a", "a"]})
    with pytest.raises(InvalidInputError, match="add up to more than a single-precision number holds"):
        Popularity().fit(twice, [3e38, 3e38])

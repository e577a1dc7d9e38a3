"""A bundle explains its scores as its model does, says whom an item reaches, and what it has."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from recsys import FeatureTable, Popularity
from recsys.exceptions import ColdStartWarning, InvalidInputError
from recsys.retrieval import Bundle, load_bundle
from recsys.retrieval._catalogue import Catalogue
from recsys.retrieval._segments import Codes
from recsys.vectors import VectorRecommender
from tests.contract.suite import RETRIEVERS, World, fitted, make_world, new_users
from tests.retrieval.test_bundle import RECENT, VARIANTS, everyone, frame_of, records, rich
from tests.retrieval.test_bundle_items import NEW
from tests.retrieval.test_bundle_items import frame_of as frame_of_items


@pytest.fixture(scope="module", params=[(name, context) for name in RETRIEVERS for context in (False, True)], ids=str)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[VectorRecommender, World, Path]:
    """A model, its world, and where a bundle of it is."""
    model, world = fitted(*request.param)
    assert isinstance(model, VectorRecommender)
    path = tmp_path_factory.mktemp("bundle")
    model.export(path, metadata=world.items)
    return model, world, path


def assert_explains(
    model: VectorRecommender,
    bundle: Bundle,
    users: list[int],
    items: list[Any],
    told: dict[str, Any],
    daytime: str = "",
) -> None:
    """The same parts, weights and contributions, which sum to the score."""
    given = {"interactions": frame_of(told["interactions"])} if "interactions" in told else {}
    if "user_features" in told:
        given["user_features"] = pd.DataFrame.from_dict(told["user_features"], orient="index").rename_axis("user_id")
    pairs = [(user, item) for user in users for item in items]
    X = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    if model.context_encoder_ is not None:
        X["daytime"] = daytime or None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        frame, scores = model.explain(X, **given), model.predict(X, **given)
    within = max(1e-5 * float(np.std(scores)), 8 * float(np.spacing(np.abs(scores).max())))
    found = bundle.explain(users, items, **told, context={"daytime": daytime} if daytime else None)
    assert [(each.user_id, each.item_id) for each in found] == pairs
    frame = frame[frame["weight"] != 0]
    expected = dict(iter(frame.groupby("row")))
    for row, each in enumerate(found):
        assert abs(each.score - scores[row]) <= within
        assert abs(sum(part.contribution for part in each.contributions.values()) - each.score) <= 4 * within
        part = expected.get(row, frame.iloc[:0])
        names = list(zip(part["source"], part["field"], strict=True))
        assert set(names) == set(each.contributions)
        for name, weight, contribution in zip(names, part["weight"], part["contribution"], strict=True):
            assert each.contributions[name].weight == pytest.approx(weight, rel=1e-4, abs=1e-6)
            largest = float(part["contribution"].abs().max())
            assert abs(each.contributions[name].contribution - contribution) <= max(within, 1e-4 * largest)


def test_it_explains_as_the_model(exported: tuple[VectorRecommender, World, Path]) -> None:
    model, world, path = exported
    bundle, model = load_bundle(path), copy.copy(model)
    users, case = everyone(world)[::2], {"user_features": records(new_users())}
    daytime = "" if model.context_encoder_ is None else "morning"
    assert_explains(model, bundle, users, [0, 3, 9, 19], {})
    assert_explains(model, bundle, users, [0, 3, 9, 19], {**case, "interactions": RECENT}, daytime)
    bundle.add_items(NEW)
    model.add_items(frame_of_items(NEW))
    recent = {1000: [600], 5000: [602, 3], 7777: [600, 601]}
    assert_explains(model, bundle, [1000, 1002, 5000, 7777], [0, *NEW], {"interactions": recent})


def test_nothing_is_told_of_nothing(exported: tuple[VectorRecommender, World, Path]) -> None:
    bundle = load_bundle(exported[2])
    assert bundle.explain([1000, 5000], [], interactions={5000: [3]}) == []
    assert bundle.explain([], [3]) == []
    assert [*bundle.reach([]), *bundle.describe([]), *bundle.items(0)] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_explained(variant: str, tmp_path: Path) -> None:
    world, model = make_world(), clone(VARIANTS[variant])
    model.fit(world.X, world.y, user_features=rich(world.users), item_features=FeatureTable(world.items))
    model.export(tmp_path)
    rated = {1000: {3: 4.0, 4: 5.0}, 5000: {1: 2.0, 3: 4.0}, 7777: {5: 5.0, 8: 1.0, 2: 3.0}}
    assert_explains(model, load_bundle(tmp_path), everyone(world)[::3], [0, 3, 9], {"interactions": rated})


def test_groups_are_explained(tmp_path: Path) -> None:
    world = make_world()
    model = Popularity(by="club").fit(world.X, user_features=FeatureTable(world.users))
    model.export(tmp_path)
    assert_explains(model, load_bundle(tmp_path), everyone(world), [0, 3], {"user_features": records(new_users())})


def test_an_item_reaches_those_to_whom_it_means_most(exported: tuple[VectorRecommender, World, Path]) -> None:
    model, world, path = exported
    bundle, items = load_bundle(path).add_items(NEW), [0, 9, 600]
    model = copy.copy(model)
    exported_items = model.items_.ids
    model.add_items(frame_of_items(NEW))
    found = bundle.reach(items, k=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        frame = model.recommend(model.users_.ids, k=1000, exclude_seen=False)
    frame = frame[frame["path"] != "cold"]
    table = frame.pivot_table(index="user_id", columns="item_id", values="score", observed=True)
    known = table[exported_items]
    spread = known.std(axis=1, ddof=0)
    standard = table.sub(known.mean(axis=1), axis=0).div(spread.where(spread > 1e-6, np.inf), axis=0)
    for item, each in zip(items, found, strict=True):
        seen = world.X["user_id"][world.X["item_id"] == item]
        expected = standard[item][~standard.index.isin(seen)].sort_values(ascending=False)
        assert each.item_id == item
        assert set(each.user_ids) == set(expected.index)
        np.testing.assert_allclose(each.scores, expected.to_numpy(), atol=2e-3)
        np.testing.assert_allclose(each.scores, expected[each.user_ids].to_numpy(), atol=2e-3)
        assert each.user_ids[:3] == bundle.reach([item], k=3)[0].user_ids


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    world = make_world(context=True)
    path = tmp_path_factory.mktemp("bundle")
    items = FeatureTable(world.items.assign(made=pd.Timestamp("2020-01-01"), plot="a king"), text=["plot"])
    model = clone(VARIANTS["no memory"]).fit(world.X, world.y, user_features=rich(world.users), item_features=items)
    about = world.items.assign(made=pd.Timestamp("2020-01-01"), name=[f"item {i}" for i in world.items.index])
    assert isinstance(model, VectorRecommender)
    model.export(path, metadata=about)
    return load_bundle(path)


def test_parts_that_overflow_are_refused(simple: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    [user, *_] = simple.users(1)
    graph = simple._graphs["user_parts"]
    found = lambda inputs: {name: part * np.float32(np.inf) for name, part in graph(inputs).items()}  # noqa: E731
    monkeypatch.setitem(simple._graphs, "user_parts", found)
    with np.errstate(invalid="ignore"), pytest.raises(InvalidInputError, match="so extreme that there is no score"):
        simple.explain([user["user_id"]], [3])


def test_fields_are_told(simple: Bundle) -> None:
    world = make_world(context=True)
    ages = world.users["age"][world.users.index.isin(world.hot_users)]
    assert simple.user_fields["age"] == {"kind": "numeric", "low": ages.min(), "high": ages.max()}
    clubs = world.users["club"].value_counts()
    assert simple.user_fields["club"] == {"kind": "categorical", "values": clubs.index.tolist()}
    kinds = {name: field["kind"] for name, field in simple.user_fields.items()}
    assert (kinds["bio"], kinds["taste"], kinds["tags"]) == ("text", "vector", "multi-hot")
    assert simple.user_fields["taste"]["width"] == 2
    assert simple.item_fields["made"] == {"kind": "date", "low": "2020-01-01T00:00:00", "high": "2020-01-01T00:00:00"}
    assert simple.item_fields["genres"]["kind"] == "multi-hot"
    assert "morning" in simple.context_fields["daytime"]["values"]


def test_metadata_are_told(simple: Bundle) -> None:
    world = make_world(context=True)
    fields = simple.metadata_fields
    assert fields["price"] == {"kind": "numeric", "low": world.items["price"].min(), "high": world.items["price"].max()}
    assert (fields["made"]["kind"], fields["genres"]["kind"], fields["name"]["kind"]) == (
        "date",
        "multi-hot",
        "categorical",
    )
    first, last = simple.describe([29, 0])
    assert (first["name"], last["name"], last["made"]) == ("item 29", "item 0", "2020-01-01T00:00:00.000000")
    assert last["genres"] == list(world.items["genres"][0])
    with pytest.raises(InvalidInputError, match="not in the catalogue: 999"):
        simple.describe([999])


def test_pages(simple: Bundle) -> None:
    world = make_world(context=True)
    assert [each["item_id"] for each in simple.items(5, offset=28)] == simple._living.catalogue.decode(
        np.arange(28, 30)
    )
    everybody = simple.users(limit=1000)
    assert len(everybody) == simple.n_users == len(world.users)
    assert everybody[3:5] == simple.users(2, offset=3)
    told = {each["user_id"]: each["features"] for each in everybody}
    for user, row in world.users.iterrows():
        for name in ("age", "club"):
            if pd.notna(row[name]) and user in set(world.hot_users):
                assert told[user][name] == pytest.approx(row[name]) if name == "age" else told[user][name] == row[name]
    wrong: list[dict[str, Any]] = [{"limit": -1}, {"offset": 1.5}, {"limit": True}]
    for page in wrong:
        with pytest.raises(InvalidInputError, match=f"`{next(iter(page))}` is"):
            simple.users(**page)


def test_without_users_nobody_is_reached(tmp_path: Path) -> None:
    model, _ = fitted("ContentEASE")
    assert isinstance(model, VectorRecommender)
    model.export(tmp_path, include_users=False)
    bundle = load_bundle(tmp_path)
    assert bundle.users() == []
    with pytest.raises(InvalidInputError, match="`include_users=True`"):
        bundle.reach([0])
    assert bundle.explain([5000], [0], interactions={5000: [3]})[0].contributions


@pytest.fixture
def changing(tmp_path: Path) -> Bundle:
    """What may be changed, with metadata that are lists (genres), text (name) and numbers (price)."""
    model, world = fitted("ContentEASE")
    assert isinstance(model, VectorRecommender)
    model.export(tmp_path / "changing", metadata=world.items.assign(name=[f"item {i}" for i in world.items.index]))
    return load_bundle(tmp_path / "changing")


@pytest.mark.parametrize("copied", [0, 6_400_000])
def test_labels_of_what_has_left_are_forgotten(
    changing: Bundle, copied: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether joined items stand in the base or beside it."""
    monkeypatch.setattr("recsys.retrieval._living._COPIED", copied)
    bundle, exported = changing, {genre for genres in make_world().items["genres"] for genre in genres}
    for turn in range(100):
        bundle.add_items({700: {}}, {700: {"genres": [f"once {turn}"]}}).remove_items([700])
        bundle.put_items({701: {}}, {701: {"genres": [f"last {turn}", "ball"]}})
        for part in (bundle._living.snapshot.base, bundle._living.snapshot.delta):
            assert len(part.table.fields["genres"].labels) < len(exported) + 2 * 70
    assert bundle.describe([701])[0]["genres"] == ["last 99", "ball"]
    assert set(bundle.metadata_fields["genres"]["values"]) == exported | {"last 99"}
    bundle.save(tmp_path / "a")
    [state] = (tmp_path / "a").glob("state-*.json")
    assert ("last 99" in state.read_text(), "last 98" in state.read_text()) == (True, False)
    again = load_bundle(tmp_path / "a").remove_items([701])
    assert set(again.metadata_fields["genres"]["values"]) == exported
    assert again.add_items({702: {}}, {702: {"genres": "new"}}).describe([702])[0]["genres"] == ["new"]


@pytest.mark.parametrize("copied", [0, 6_400_000])
def test_a_field_has_lists_while_an_item_has_several_labels(
    changing: Bundle, copied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.retrieval._living._COPIED", copied)
    for names, kind, told in ((["a", "b"], "multi-hot", ["item 0"]), (["a"], "categorical", "item 0")):
        changing.put_items({700: {}}, {700: {"name": names}})
        assert (changing.metadata_fields["name"]["kind"], changing.describe([0])[0]["name"]) == (kind, told)
    changing.put_items({700: {}}, {700: {"name": ["a", "b"]}}).remove_items([700])
    assert (changing.metadata_fields["name"]["kind"], changing.describe([0])[0]["name"]) == ("categorical", "item 0")


@pytest.mark.parametrize("copied", [0, 6_400_000])
def test_items_are_described_in_any_order(changing: Bundle, copied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.retrieval._living._COPIED", copied)
    changing.add_items({700: {}, 701: {}}, {700: {"name": "a", "genres": ["x", "y"]}, 701: {"price": 2}})
    asked = [701, 5, 700, 0, 29, 5, 700]
    assert changing.describe(asked) == [changing.describe([item])[0] for item in asked]
    assert changing.describe([700, 701]) == [
        {"genres": ["x", "y"], "price": None, "name": "a"},
        {"genres": [], "price": 2, "name": None},
    ]


def test_a_page_tells_of_one_moment(changing: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that leaves while a page is made is on it, as it was."""
    changing.add_items({700: {}}, {700: {"name": "a"}})
    decode = Catalogue.decode

    def leaving(catalogue: Catalogue, places: Codes) -> list[Any]:
        monkeypatch.undo()
        labels = decode(catalogue, places)
        changing.remove_items([700])
        return labels

    monkeypatch.setattr(Catalogue, "decode", leaving)
    [found] = changing.items(offset=30)
    assert found == {"item_id": 700, "metadata": {"genres": [], "price": None, "name": "a"}}
    assert changing.items(offset=30) == []

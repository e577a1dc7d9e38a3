"""Items of a bundle come and go as those of its model, and nobody sees a change half-made."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from recsys import FeatureTable
from recsys.exceptions import CorruptModelError, DataWarning, InvalidInputError, InvalidTypeError, PersistenceError
from recsys.retrieval import Bundle, Recommended, load_bundle
from recsys.vectors import VectorRecommender
from tests.contract.suite import RETRIEVERS, World, fitted, make_world
from tests.retrieval.test_bundle import CONTEXT, VARIANTS, assert_agree, assert_same, everyone

NEW: dict[int, dict[str, Any]] = {
    600: {"genres": ["ball"], "price": 14.0},
    601: {"genres": ["ball", "board"], "price": None},
    602: {},
}
# Whoever is known, few-shot or new has had them.
RECENT: dict[Any, Any] = {
    1000: [600],
    1003: {601: 5.0, 602: 0.0, 2: 4.0},
    5000: [602, 3],
    5001: [600, 601, 602],
    7777: [602],
}


def frame_of(told: dict[Any, dict[str, Any]]) -> pd.DataFrame:
    """Features of items as a model takes them."""
    fields = ["genres", "price"]
    rows = [[each.get(field) for field in fields] for each in told.values()]
    return pd.DataFrame(rows, columns=fields, index=pd.Index(list(told), name="item_id")).astype({"price": float})


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


def test_items_join_as_they_join_the_model(exported: tuple[VectorRecommender, World, Path]) -> None:
    model, world, path = exported
    bundle, model = load_bundle(path), copy.copy(model)
    context = {} if model.context_encoder_ is None else {"context": CONTEXT}
    assert bundle.add_items({600: NEW[600]}, {600: {"genres": ["ball"]}}) is bundle
    model.add_items(frame_of({600: NEW[600]}))
    assert_agree(model, bundle, everyone(world), {}, **context)
    bundle.add_items({label: NEW[label] for label in (601, 602)})
    model.add_items(frame_of({label: NEW[label] for label in (601, 602)}))
    assert bundle.n_items == len(model.items_)
    assert_agree(model, bundle, everyone(world), {}, **context)
    assert_agree(model, bundle, everyone(world), {"interactions": RECENT}, **context)
    assert_agree(model, bundle, everyone(world), {"interactions": RECENT}, k=3, exclude=[600, 1])
    assert_agree(model, bundle, everyone(world), {"interactions": RECENT}, k=3, candidates=[602, 600, 5])
    [found] = bundle.recommend([1002], where={"genres": "ball"}, k=50)
    assert (600 in found.item_ids, 601 in found.item_ids) == (True, False)


def test_similar_items_are_those_of_the_model(exported: tuple[VectorRecommender, World, Path]) -> None:
    model, _, path = exported
    bundle, model = load_bundle(path), copy.copy(model)
    for more in (NEW, None):
        items = model.items_.ids.tolist()
        expected = model.similar_items(items, k=len(items))
        table = expected.set_index(["item_id", "similar_item_id"])["score"]
        for found in bundle.similar_items(items, k=len(items)):
            assert len(found.item_ids) == len(set(found.item_ids)) == len(items) - 1
            ours, theirs = np.array(found.scores), table.loc[found.item_id]
            np.testing.assert_allclose(ours, theirs[found.item_ids], atol=1e-5)
            np.testing.assert_allclose(ours, np.sort(theirs)[::-1], atol=1e-5)
        few = bundle.similar_items([items[0]], 4, exclude=[items[1]], where={"price": {">": 0}})[0]
        assert len(few.item_ids) == 4
        assert not {*items[:2]} & {*few.item_ids}
        if more is not None:
            bundle.add_items(more)
            model.add_items(frame_of(more))


def test_what_is_saved_is_what_was_there(exported: tuple[VectorRecommender, World, Path], tmp_path: Path) -> None:
    _, world, path = exported
    bundle = load_bundle(path).add_items(NEW, {600: {"price": 3, "genres": ["new"]}}).remove_items([2, 601])
    bundle.save(tmp_path / "a")
    again = load_bundle(tmp_path / "a")
    told: dict[str, Any] = {"interactions": {1000: [600], 5000: [602, 3]}, "k": 50}
    assert (again.n_items, again.n_users, again.model) == (bundle.n_items, bundle.n_users, bundle.model)
    for where in (None, {"price": 3}, {"genres": "new"}):
        assert again.recommend(everyone(world), where=where, **told) == bundle.recommend(
            everyone(world), where=where, **told
        )
    # It goes on from there, and may be saved in place.
    for each in (bundle, again):
        each.add_items({2: {"genres": ["ball"]}, "x": {}})
    again.save(tmp_path / "a")
    assert load_bundle(tmp_path / "a").recommend(everyone(world), **told) == bundle.recommend(everyone(world), **told)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("with_features", [True, False])
def test_variants_agree(variant: str, with_features: bool, tmp_path: Path) -> None:
    world, model = make_world(), clone(VARIANTS[variant])
    features = {"user_features": FeatureTable(world.users), "item_features": rich(world.items)} if with_features else {}
    model.fit(world.X, world.y, **features)
    model.export(tmp_path)
    bundle = load_bundle(tmp_path)
    if with_features:
        plots, tastes = ["a king and a queen", None, "unheard words"], [[0.5, 2.0], None, [0.0, 0.0]]
        more = [{"plot": plot, "taste": taste, "maker": "maker 1"} for plot, taste in zip(plots, tastes, strict=True)]
        frame = pd.concat([frame_of(NEW), pd.DataFrame(more, index=pd.Index(list(NEW)))], axis=1)
        kinds: dict[str, Any] = {"text": ["plot"], "vector": ["taste"], "categorical": ["maker"]}
        model.add_items(FeatureTable(frame.rename_axis("item_id"), **kinds))
        bundle.add_items({item: {**told, **also} for (item, told), also in zip(NEW.items(), more, strict=True)})
    else:
        model.add_items(list(NEW))
        bundle.add_items({item: {} for item in NEW})
    rated = {user: dict.fromkeys(items, 4.0) for user, items in RECENT.items()}
    assert_agree(model, bundle, everyone(world), {})
    assert_agree(model, bundle, everyone(world), {"interactions": rated})


def rich(items: pd.DataFrame) -> FeatureTable:
    """Items with all kinds of fields."""
    n = np.arange(len(items))
    more = {
        "plot": [None if i % 5 == 0 else "a king" if i % 2 else "the queen and king" for i in n],
        "taste": [None if i % 4 == 0 else [float(i % 3), i / 10] for i in n],
        "maker": [f"maker {i % 4}" for i in n],
    }
    frame = items.assign(**{name: pd.Series(values, index=items.index) for name, values in more.items()})
    return FeatureTable(frame, text=["plot"], vector=["taste"], categorical=["maker"])


@pytest.fixture
def simple(tmp_path: Path) -> tuple[Bundle, World]:
    model, world = fitted("ContentEASE")
    assert isinstance(model, VectorRecommender)
    model.export(tmp_path / "simple", metadata=world.items.assign(made=pd.Timestamp("2020-01-01")))
    return load_bundle(tmp_path / "simple"), world


def test_removed_items_are_found_no_more(simple: tuple[Bundle, World]) -> None:
    bundle, world = simple
    before = bundle.recommend(everyone(world), k=50)
    bundle.remove_items([3, 4]).remove_items(np.array([7]))
    after = bundle.recommend(everyone(world), k=50)
    assert bundle.n_items == 27
    # Their users are the same: the others score as before.
    for one, other in zip(before, after, strict=True):
        kept = [pair for pair in zip(one.item_ids, one.scores, strict=True) if pair[0] not in (3, 4, 7)]
        assert kept == list(zip(other.item_ids, other.scores, strict=True))
    with pytest.raises(InvalidInputError, match="`items` names 1 items that are not in the catalogue: 3"):
        bundle.similar_items([3])
    with pytest.warns(DataWarning, match="not in the catalogue: 3"):
        bundle.recommend([5000], interactions={5000: [3, 8]})


def test_what_was_seen_stays_seen_when_it_comes_back(simple: tuple[Bundle, World]) -> None:
    bundle, world = simple
    user, item = int(world.X["user_id"].iloc[0]), int(world.X["item_id"].iloc[0])
    bundle.remove_items([item]).add_items({500: {}, item: {"genres": ["ball"]}})
    [found], [all_of_it] = (bundle.recommend([user], k=50, exclude_seen=exclude) for exclude in (True, False))
    assert item not in found.item_ids
    assert item in all_of_it.item_ids
    # And so when those before it go.
    bundle.remove_items([500])
    assert item not in bundle.recommend([user], k=50)[0].item_ids


def test_warm_items_are_replaced_and_others_refused(simple: tuple[Bundle, World]) -> None:
    bundle, world = simple
    warm = int(world.warm_items[0])
    users = everyone(world)
    bundle.put_items({warm: {"genres": ["ball"]}, 600: {"genres": ["board"]}})
    assert bundle.n_items == 31
    bundle.put_items({600: {"genres": ["ball"]}}, {600: {"price": 1.5}})
    scores = {
        each.user_id: dict(zip(each.item_ids, each.scores, strict=True)) for each in bundle.recommend(users, k=50)
    }
    assert all(told[600] == pytest.approx(told[warm], rel=1e-4) for told in scores.values() if warm in told)
    assert bundle.recommend([5000], where={"price": 1.5})[0].item_ids == [600]
    before = bundle.recommend(users, k=50)
    with pytest.raises(InvalidInputError, match=r"2 items that users had in `fit`: 1, 2; expected others"):
        bundle.put_items({700: {}, 1: {}, 2: {}})
    assert_same(bundle.recommend(users, k=50), before)


@pytest.mark.parametrize(
    ("features", "metadata", "words"),
    [
        ([600], None, "`item_features` is of type list; expected a dict"),
        ({None: {}}, None, "`item_features` has a null id"),
        ({(1, object()): {}}, None, "`item_features` has an id that cannot be stored"),
        ({600: [1]}, None, "`item_features` of 600 is .* expected a dict of fields"),
        ({600: {"pric": 1}}, None, "the unknown field 'pric'. Did you mean 'price'"),
        ({600: {"price": "dear"}}, None, "'price' of `item_features` of 600 is 'dear'; expected a number"),
        ({600: {}, 5: {}}, None, "`item_features` names 1 items that are in the catalogue: 5.*use `put_items`"),
        ({600: {}}, [1], "`metadata` is of type list"),
        ({600: {}}, {601: {}}, "`metadata` tells of 601; expected items that join"),
        ({True: {}}, {1: {}}, "`metadata` tells of 1; expected items that join"),
        ({600: {}}, {600: {"genres": np.array("ball")}}, "in 'genres'; expected text"),
        ({600: {}}, {600: [1]}, "`metadata` of 600 is of type list"),
        ({600: {}}, {600: {"pric": 1}}, "`metadata` of 600 has the unknown field 'pric'. Did you mean 'price'"),
        ({600: {}}, {600: {"price": "dear"}}, "`metadata` has 'dear' in 'price'; expected a finite number"),
        ({600: {}}, {600: {"price": float("inf")}}, "`metadata` has inf in 'price'; expected a finite number"),
        ({600: {}}, {600: {"price": 2**53 + 2}}, "in 'price'; expected a finite number"),
        ({600: {}}, {600: {"genres": [3]}}, "in 'genres'; expected text"),
        ({600: {}}, {600: {"made": "soon"}}, "`metadata` has 'soon' in 'made'; expected a date"),
    ],
)
def test_what_is_wrong_is_refused_as_a_whole(
    simple: tuple[Bundle, World], features: Any, metadata: Any, words: str
) -> None:
    bundle, world = simple
    before = bundle.recommend(everyone(world), k=50)
    with pytest.raises(InvalidInputError, match=words):
        bundle.add_items(features, metadata)
    assert bundle.recommend(everyone(world), k=50) == before


def test_removals_are_refused_as_a_whole(simple: tuple[Bundle, World]) -> None:
    bundle, _ = simple
    for items, words in (
        ([3, 3], "twice"),
        ([3, 999], "not in the catalogue: 999"),
        ("3", "the single value '3'"),
        ([[3]], "cannot be ids"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            bundle.remove_items(items)
    assert bundle.n_items == 30


def test_labels_of_another_type_warn(simple: tuple[Bundle, World]) -> None:
    with pytest.warns(DataWarning, match="none that is known, but 'a': all join as new. They are text"):
        simple[0].add_items({"a": {}})
    assert simple[0].add_items({}).n_items == 31


def test_metadata_are_read(simple: tuple[Bundle, World]) -> None:
    bundle, _ = simple
    made: dict[int, dict[str, Any]] = {600: {"made": "2021-05-01", "price": 2}, 601: {"made": None, "genres": "new"}}
    bundle.add_items({600: {}, 601: {}}, made)
    for where, expected in (
        ({"made": {">": "2021-01-01"}}, {600}),
        ({"price": 2}, {600}),
        ({"genres": "new"}, {601}),
        ({"not": {"made": {">": "1900-01-01"}}}, {601}),
    ):
        assert set(bundle.recommend([7777], k=50, where=where)[0].item_ids) >= expected
        assert expected == set(bundle.recommend([7777], k=50, where=where, candidates=[600, 601])[0].item_ids)


def test_extreme_features_are_refused(tmp_path: Path) -> None:
    world = make_world()
    model = clone(VARIANTS["few factors"]).fit(world.X, world.y, item_features=rich(world.items))
    model.export(tmp_path)
    bundle = load_bundle(tmp_path)
    for number in (1e30, 3e38):
        with pytest.raises(InvalidInputError, match="a million times longer than those of all others"):
            bundle.add_items({600: {"taste": [number, number]}})
    assert bundle.n_items == 30


def test_a_bundle_is_saved_over_bundles_alone(simple: tuple[Bundle, World], tmp_path: Path) -> None:
    model, _ = fitted("Popularity")
    model.save(tmp_path / "model")
    with pytest.raises(PersistenceError, match="Popularity"):
        simple[0].save(tmp_path / "model")
    with pytest.raises(InvalidTypeError, match="`save` it"):
        pickle.dumps(simple[0])


def test_parts_that_do_not_fit_are_refused(simple: tuple[Bundle, World], tmp_path: Path) -> None:
    bundle, _ = simple
    bundle.add_items({600: {}})
    state = bundle._living.to_state()
    assert state is not None
    broken: list[dict[str, Any]] = [
        {"joined": [["int", 600], ["int", 601]]},
        {"joined": [["int", 3]]},
        {"is_taken": state["is_taken"][1:]},
        {"rows": {name: rows[:, 1:] for name, rows in state["rows"].items()}},
        {"rows": {}},
    ]
    for part in broken:
        bundle._stored["changed"] = None
        bundle._living = _Stub({**state, **part})  # type: ignore[assignment]
        bundle.save(tmp_path / "broken")
        with pytest.raises(CorruptModelError, match="are no bundle"):
            load_bundle(tmp_path / "broken")


class _Stub:
    """Items whose state is what it is told to be."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.to_state = lambda: state


def versions(rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """Changes one after the other: additions in twos, removals of what joined, replacements."""
    there: list[int] = []
    for step in range(60):
        if step % 3 < 2 or len(there) < 4:
            labels = [600 + 2 * step, 601 + 2 * step]
            there += labels
            yield (
                "add_items",
                {label: {"genres": ["ball" if step % 2 else "board"], "price": float(step % 20)} for label in labels},
            )
        elif step % 2:
            gone = [int(each) for each in rng.choice(there, 2, replace=False)]
            there = [label for label in there if label not in gone]
            yield "remove_items", gone
        else:
            yield "put_items", {label: {"price": float(step % 20)} for label in there[:2]}


@pytest.mark.parametrize("name", ["ContentEASE", "MatrixFactorization", "ContrastiveRecommender"])
def test_readers_see_a_change_whole_or_not_at_all(name: str, tmp_path: Path) -> None:
    """Every answer given while items change is that of one of the states in between, worked out one by one."""
    model, world = fitted(name)
    assert isinstance(model, VectorRecommender)
    model.export(tmp_path)
    users = [*everyone(world)[::4], 5001]
    told: dict[str, Any] = {"interactions": {5001: [3, 8]}, "k": 200}
    alone = load_bundle(tmp_path)
    expected = [alone.recommend(users, **told)]
    for change, argument in versions(np.random.default_rng(0)):
        getattr(alone, change)(argument)
        expected.append(alone.recommend(users, **told))
    known = [{each.user_id: (each.item_ids, each.scores) for each in answers} for answers in expected]
    bundle, done = load_bundle(tmp_path), threading.Event()

    def read() -> int:
        n_read, at = 0, 0
        while not done.is_set() or not n_read:
            found = {each.user_id: (each.item_ids, each.scores) for each in bundle.recommend(users, **told)}
            # One state for all users of a request, and never an earlier one than before.
            while at < len(known) and found != known[at]:
                at += 1
            assert at < len(known)
            n_read += 1
        return n_read

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for change, argument in versions(np.random.default_rng(0)):
                getattr(bundle, change)(argument)
                threading.Event().wait(0.002)
        finally:
            done.set()
        assert sum(reader.result() for reader in readers) > 2
    assert bundle.recommend(users, **told) == expected[-1]


@pytest.mark.parametrize("setting", [{"_COPIED": 0}, {"_MANY": 0}, {"_COPIED": 0, "_MANY": 0}], ids=str)
def test_how_items_are_kept_does_not_show(setting: dict[str, int], tmp_path: Path) -> None:
    """Beside a large index or in one with it, and wherever their places are."""
    model, world = fitted("ContentEASE")
    assert isinstance(model, VectorRecommender)
    model.export(tmp_path, metadata=world.items)
    users, bundles = everyone(world), [load_bundle(tmp_path) for _ in range(2)]

    def told() -> list[list[Recommended]]:
        joined = [
            label for label in bundles[0]._living.catalogue.decode(bundles[0]._living.catalogue.places) if label >= 600
        ]
        asked: dict[str, Any] = {"k": 200, "interactions": {5001: [3, *joined[-2:]], 1000: joined[:1]}}
        found = [bundle.recommend(users, **asked) for bundle in bundles]
        found += [
            bundle.recommend(users, where={"not": {"price": {">": 5}}}, exclude=[3], **asked) for bundle in bundles
        ]
        similar = [bundle.similar_items([0, *joined[:2]], 50, where={"price": {">": 5}}) for bundle in bundles]
        assert similar[0] == similar[1]
        assert bundles[0].items(1000) == bundles[1].items(1000)
        return found

    for change, argument in versions(np.random.default_rng(1)):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in setting.items():
                patch.setattr(f"recsys.retrieval._living.{name}", value)
            getattr(bundles[0], change)(argument)
        getattr(bundles[1], change)(argument)
    one, other, filtered, of_other = told()
    assert one == other
    assert filtered == of_other
    bundles[0].save(tmp_path / "saved")
    bundles[1] = load_bundle(tmp_path / "saved")
    one, other, filtered, of_other = told()
    assert (one, filtered) == (other, of_other)


def test_what_has_left_takes_no_room(simple: tuple[Bundle, World]) -> None:
    bundle, _ = simple
    bundle.add_items({700: {}})
    for turn in range(300):
        bundle.add_items({turn + 1000: {}}).remove_items([turn + 1000])
    assert len(bundle._living.catalogue) < 30 + 200
    assert bundle.n_items == 31
    assert bundle.describe([700]) == [{"genres": [], "price": None, "made": None}]


def test_items_join_an_approximate_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(300), 30)
    X = pd.DataFrame({"user_id": users, "item_id": (users % 30 * 100 + rng.integers(0, 100, len(users))) % 3000})
    kinds = pd.DataFrame({"kind": [f"kind {i // 100}" for i in range(3000)]}, index=pd.RangeIndex(3000, name="item_id"))
    model = clone(VARIANTS["few factors"]).set_params(n_factors=16, max_iter=3).fit(X, item_features=kinds)
    model.export(tmp_path, kind="ivf", recall_target=0.95)
    bundle = load_bundle(tmp_path).add_items({5000 + i: {"kind": f"kind {i}"} for i in range(20)})
    assert bundle._living.snapshot.base.structure is not None
    found = bundle.recommend([3, 4], k=1, candidates=range(5000, 5020), interactions={4: [5003]})
    assert [answer.item_ids for answer in found] == [[5003], [5004]]
    assert 5003 not in bundle.remove_items([5003]).recommend([3], k=1000)[0].item_ids

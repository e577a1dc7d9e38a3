"""A bundle answers as the model does that was exported, and imports nothing that it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from recsys import (
    AutoRec,
    ContentEASE,
    ContrastiveRecommender,
    FeatureTable,
    MatrixFactorization,
    Popularity,
)
from recsys.base import BaseRecommender
from recsys.exceptions import (
    ColdStartError,
    ColdStartWarning,
    DataWarning,
    InvalidInputError,
)
from recsys.retrieval import Bundle, Recommended, load_bundle
from recsys.vectors import VectorRecommender
from tests.contract.suite import RETRIEVERS, World, fitted, make_world, new_users

CONTEXT = {"daytime": "morning"}
RECENT: dict[Any, Any] = {1000: [3, 4], 1003: {2: 5.0, 5: 0.0}, 1009: [6], 5000: {1: 2.0, 3: 4.0}, 7777: [5, 9, 2, 9]}


@pytest.fixture(scope="module", params=[(name, context) for name in RETRIEVERS for context in (False, True)], ids=str)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[VectorRecommender, World, Bundle]:
    """A model, its world, and a bundle of it."""
    name, context = request.param
    model, world = fitted(name, context)
    assert isinstance(model, VectorRecommender)
    path = tmp_path_factory.mktemp("bundle")
    model.export(path, metadata=world.items)
    return model, world, load_bundle(path)


def everyone(world: World) -> list[int]:
    """Hot users, warm ones, new ones with features, and new ones of whom nothing is known."""
    return [*world.hot_users[:12].tolist(), *world.warm_users.tolist(), 5000, 5001, 7777, 7778]


def frame_of(recent: dict[Any, Any]) -> pd.DataFrame:
    """Interactions as a model takes them."""
    rows = [
        (user, item, rating)
        for user, items in recent.items()
        for item, rating in (items.items() if isinstance(items, dict) else [(item, 1.0) for item in items])
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])


def records(frame: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """Features as a bundle takes them."""
    return {user: {str(name): row[name] for name in row.index} for user, row in frame.iterrows()}


def assert_agree(model: BaseRecommender, bundle: Bundle, users: list[int], told: dict[str, Any], **both: Any) -> None:
    """The same paths, scores that differ by rounding, and the same order but for scores that do not differ more."""
    given = dict(told)
    if "interactions" in told:
        given["interactions"] = frame_of(told["interactions"])
    if "user_features" in told:
        given["user_features"] = pd.DataFrame.from_dict(told["user_features"], orient="index").rename_axis("user_id")
    everything = {**given, **both, "exclude_seen": False, "k": len(model.items_)}
    for name in ("candidates", "exclude"):
        everything.pop(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        frame = model.recommend(users, **given, **both)
        scores = model.recommend(users, **everything).groupby("user_id", sort=False)
    answers = bundle.recommend(users, **told, **both)
    assert [answer.user_id for answer in answers] == users
    lists = dict(iter(frame.groupby("user_id", sort=False, observed=True)))
    for answer in answers:
        table = scores.get_group(answer.user_id).set_index("item_id")["score"]
        # Single precision tells no less than its last bits.
        within = max(1e-5 * float(table.std(ddof=0)), 4 * float(np.spacing(np.abs(table).max())))
        assert np.abs(table[answer.item_ids].to_numpy() - answer.scores).max(initial=0) <= within
        expected = lists.get(answer.user_id, frame.iloc[:0])
        assert len(answer.item_ids) == len(expected) == len(set(answer.item_ids))
        assert set(expected["path"]) <= {answer.path}
        # Items that change places score alike.
        np.testing.assert_allclose(expected["score"].to_numpy(), answer.scores, rtol=0, atol=within)
        changed = expected["item_id"].to_numpy() != np.array(answer.item_ids)
        swapped = np.abs(table[expected["item_id"]].to_numpy() - table[answer.item_ids].to_numpy())[changed]
        assert swapped.max(initial=0) <= within


def test_it_answers_as_the_model(exported: tuple[VectorRecommender, World, Bundle]) -> None:
    model, world, bundle = exported
    users = everyone(world)
    case = {"user_features": records(new_users())}
    context = {} if model.context_encoder_ is None else {"context": CONTEXT}
    assert_agree(model, bundle, users, case, **context)
    assert_agree(model, bundle, users, {**case, "interactions": RECENT}, **context)
    assert_agree(model, bundle, users, {"interactions": RECENT}, k=3, on_cold="popular")


def test_features_of_known_users_may_be_newer(exported: tuple[VectorRecommender, World, Bundle]) -> None:
    model, world, bundle = exported
    changed = world.users.loc[[1000, 1001, 1009]].assign(age=[55.0, np.nan, 21.0], club=["tennis", "chess", np.nan])
    told = {"user_features": records(changed)}
    assert_agree(model, bundle, everyone(world), told)
    assert_agree(model, bundle, everyone(world), {**told, "interactions": RECENT})


def test_what_may_be_found_is_restricted(exported: tuple[VectorRecommender, World, Bundle]) -> None:
    model, world, bundle = exported
    users, some = everyone(world), [0, 1, 2, 3, 4, 5, 6, 9, 19]
    assert_agree(model, bundle, users, {}, k=4, candidates=some)
    assert_agree(model, bundle, users, {}, k=5, exclude=some, exclude_seen=False)
    assert_agree(model, bundle, users, {}, k=50, candidates=some, exclude=[1, 2])
    pairs = {1000: [0, 2], 5000: [4], 1002: [10, 11]}
    by_frame = frame_of(pairs)[["user_id", "item_id"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ColdStartWarning)
        expected = model.recommend(users, k=6, exclude=by_frame)
    found = bundle.recommend(users, k=6, exclude=pairs)
    assert sum(len(answer.item_ids) for answer in found) == len(expected)
    assert not any(set(answer.item_ids) & set(pairs.get(answer.user_id, ())) for answer in found)
    cheap = world.items.index[world.items["price"] < 10]
    assert_same(bundle.recommend(users, where={"price": {"<": 10}}), bundle.recommend(users, candidates=list(cheap)))
    assert bundle.recommend(users[:1], where={"genres": "nonsense"})[0].item_ids == []


def assert_same(found: list[Recommended], expected: list[Recommended]) -> None:
    assert [answer.item_ids for answer in found] == [answer.item_ids for answer in expected]


def test_without_users_everybody_is_new(tmp_path: Path) -> None:
    for name in RETRIEVERS:
        model, world = fitted(name)
        assert isinstance(model, VectorRecommender)
        model.export(tmp_path / name, include_users=False)
        bundle = load_bundle(tmp_path / name)
        assert (bundle.n_users, bundle.n_items) == (0, len(world.items))
        told = {
            "user_features": {5000: {"age": 22.0, "club": "chess"}, 5001: {"age": None, "club": "tennis"}},
            "interactions": {5000: [3, 8], 7777: [5, 9, 2]},
        }
        assert_agree(model, bundle, [5000, 5001, 7777, 7778], told)
        # Whoever was known is asked for like anybody else, and nothing is told of what was seen.
        [found] = bundle.recommend([1000], k=100)
        assert (found.path, len(found.item_ids)) == ("cold", len(world.items))


def test_items_that_joined_are_served(tmp_path: Path) -> None:
    for name in RETRIEVERS:
        model, world = fitted(name)
        assert isinstance(model, VectorRecommender)
        model.add_items(pd.DataFrame({"genres": [["ball"]], "price": [14.0]}, index=pd.Index([600], name="item_id")))
        model.export(tmp_path / name)
        told = {"interactions": {1000: [600], 5000: [600, 3], 5001: [600]}}
        assert_agree(model, load_bundle(tmp_path / name), everyone(world), told)


SERVE = """
import json, sys
from recsys.retrieval import load_bundle
bundle = load_bundle(sys.argv[1])
asked = json.loads(sys.argv[2])
features = {user: asked["features"] for user in asked["users"][:1]}
interactions = {user: [3, 4] for user in asked["users"][1:2]}
found = bundle.recommend(asked["users"], user_features=features, interactions=interactions, context=asked["context"],
                         where={"price": {"<": 100}})
bundle.add_items({990: {"genres": ["ball"]}}, {990: {"price": 3}}).put_items({990: {}}).similar_items([990])
bundle.explain(asked["users"], [990], interactions={5000: [990]}), bundle.reach([990]), bundle.describe([990])
bundle.users(), bundle.items(), bundle.metadata_fields, bundle.user_fields, bundle.remove_items([990])
heavy = {"pandas", "scipy", "sklearn", "torch", "lightgbm", "onnx", "safetensors", "joblib"} & set(sys.modules)
bundle.save(sys.argv[1] + "/saved")
# Who writes needs one more.
heavy |= {"pandas", "scipy", "sklearn", "torch", "lightgbm", "onnx", "joblib"} & set(sys.modules)
print(json.dumps([sorted(heavy), [[answer.path, answer.item_ids, answer.scores] for answer in found]]))
"""


@pytest.mark.parametrize("name", ["ContrastiveRecommender", "MatrixFactorization", "Popularity"])
def test_a_process_that_serves_imports_little(name: str, tmp_path: Path) -> None:
    model, world = fitted(name, context=True)
    assert isinstance(model, VectorRecommender)
    model.export(tmp_path, metadata=world.items)
    features, users = {"age": 21.0, "club": "chess"}, [5000, 5001, 1000]
    asked = json.dumps({"features": features, "users": users, "context": CONTEXT})
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SERVE, str(tmp_path), asked],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    heavy, found = json.loads(done.stdout)
    assert heavy == []
    here = load_bundle(tmp_path).recommend(
        users, user_features={5000: features}, interactions={5001: [3, 4]}, context=CONTEXT, where={"price": {"<": 100}}
    )
    assert found == [[answer.path, answer.item_ids, answer.scores] for answer in here]


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model, _ = fitted("ContentEASE")
    assert isinstance(model, VectorRecommender)
    path = tmp_path_factory.mktemp("bundle")
    model.export(path)
    return load_bundle(path)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"users": "ann"}, r"`users` is 'ann'; expected a list"),
        ({"users": [None]}, "`users` has a null id at position 0"),
        ({"users": [[1]]}, "`users` holds what cannot be ids"),
        ({"users": [pd.NA]}, "`users` has a null id at position 0"),
        ({"users": bytearray(b"ab")}, "expected a list of labels"),
        ({"users": np.array(5)}, "`users` holds a ndarray that is not one-dimensional"),
        ({"users": np.array([[1000]])}, "`users` holds a ndarray that is not one-dimensional"),
        ({"users": frame_of({})}, "`users` holds a DataFrame that is not one-dimensional; expected one id after the"),
        ({"candidates": frame_of({})}, "`candidates` holds a DataFrame"),
        ({"exclude": frame_of({})}, "`exclude` holds a DataFrame"),
        ({"exclude": {1000: frame_of({})}}, "`exclude` holds a DataFrame"),
        ({"exclude": [None]}, "`exclude` has a null id"),
        ({"interactions": {1000: frame_of({})}}, "`interactions` holds a DataFrame"),
        ({"interactions": {1000: bytearray(b"ab")}}, "`interactions` holds the single value"),
        ({"interactions": {1000: [3, None]}}, "`interactions` has a null id; expected a label for every item"),
        ({"interactions": {1000: {float("nan"): 1}}}, "`interactions` has a null id"),
        ({"interactions": {True: [3]}, "users": [1]}, "`interactions` has nothing of any user asked for"),
        ({"user_features": {1: {}}, "users": [True]}, "`user_features` has nothing of any user asked for"),
        ({"exclude": {1: [3]}, "users": [True], "on_cold": "popular"}, "`exclude` has nothing of any user asked for"),
        ({"on_cold": np.array(["popular", "raise"])}, "`on_cold` is array.*; expected one of"),
        ({"k": 0}, "`k` is 0; expected at least 1"),
        ({"exclude_seen": "no"}, "`exclude_seen` is 'no'; expected True or False"),
        ({"candidates": {1000: [2]}}, "`candidates` is a dict; expected a list of item ids"),
        ({"on_cold": "populer"}, "Did you mean 'popular'"),
        ({"user_features": {1: {"age": 2}}}, "`user_features` has nothing of any user asked for"),
        ({"user_features": {1000: {"agee": 2}}}, r"the unknown field 'agee'. Did you mean 'age'"),
        ({"user_features": {1000: {"age": "old"}}}, "'age' of `user_features` of 1000 is 'old'; expected a number"),
        ({"user_features": {1000: {"club": 3}}}, "They are numbers .3., but the known ones are text"),
        ({"user_features": {1000: [1]}}, "expected a dict of fields"),
        ({"user_features": [1]}, "`user_features` is of type list; expected a dict"),
        ({"interactions": {1000: "12"}}, "`interactions` holds the single value '12'"),
        ({"interactions": {1000: {3: "good"}}}, "`interactions` must hold one finite number an item"),
        ({"interactions": {1000: {3: 10**400}}}, "must hold one finite number an item: int too large to convert"),
        ({"interactions": {1000: {3: float("nan")}}}, "`interactions` holds the rating nan"),
        ({"interactions": {1000: {3: 1e39}}}, r"the rating 1e\+39; expected finite numbers that single precision"),
        ({"context": {"daytime": "noon"}}, "`context` was given, but `X` had no context columns"),
        ({"candidates": ["a"]}, "`candidates` names no item of the catalogue, but 'a'.*They are text"),
        ({"exclude": ["a"]}, "`exclude` names no item of the catalogue, but 'a'.*They are text"),
        ({"exclude": {1: [2]}}, "`exclude` has nothing of any user asked for"),
        ({"where": {"year": 1990}}, "`where` names the field 'year', which the items do not have"),
    ],
)
def test_bad_requests_are_refused(simple: Bundle, told: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        simple.recommend(**{"users": [1000], **told})


def test_what_is_told_of_one_is_not_told_of_true(simple: Bundle) -> None:
    told = {"interactions": {True: [3], 0: [4]}, "exclude": {True: [5], 0: [6]}, "user_features": {False: {"age": 3}}}
    with pytest.raises(InvalidInputError, match="`user_features` has nothing of any user asked for"):
        simple.recommend([1, 0, True], **told)  # type: ignore[arg-type]
    del told["user_features"]
    one, zero, true = simple.recommend([1, 0, True], 30, **told)  # type: ignore[arg-type]
    assert [found.path for found in (one, zero, true)] == ["cold", "few-shot", "few-shot"]
    assert [sorted(set(range(30)) - set(found.item_ids)) for found in (one, zero, true)] == [[], [4, 6], [3, 5]]


@pytest.mark.parametrize("rating", [1e17, 1e25, 1e30, 1e36, 3e38])
def test_ratings_that_leave_no_answer_are_refused(rating: float, tmp_path: Path) -> None:
    """As by the model, whose system is singular."""
    model, _ = fitted("MatrixFactorization")
    assert isinstance(model, VectorRecommender)
    recent = {5000: {3: rating, 4: 1.0}}
    with np.errstate(all="ignore"), pytest.raises(InvalidInputError, match=r"is singular|has diverged"):
        model.recommend([5000], interactions=frame_of(recent))
    model.export(tmp_path)
    bundle = load_bundle(tmp_path)
    with pytest.raises(InvalidInputError, match=r"`interactions`, .* of 5000 are so extreme that there is no score"):
        bundle.recommend([1000, 5000], interactions=recent)
    with pytest.raises(InvalidInputError, match=r"`interactions`, .* of 5000 are so extreme that there is no score"):
        bundle.explain([1000, 5000], [3], interactions=recent)
    assert_agree(model, bundle, [1000, 5000], {"interactions": {5000: {3: 100.0, 4: 1.0}}})


def test_features_that_leave_no_answer_are_refused(tmp_path: Path) -> None:
    X = pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3], "item_id": ["tea", "milk", "tea", "rum", "rum", "gin"]})
    taste = pd.DataFrame({"user_id": [1, 2, 3], "taste": [[0.1, 1.0, 2.0], [1.0, 0.5, -1.0], [-1.0, 0.0, 0.3]]})
    ContentEASE(l2=1.0, random_state=0).fit(X, user_features=taste).export(tmp_path)
    bundle = load_bundle(tmp_path)
    told = {"eve": {"taste": [3e38, -3e38, 3e38]}, "bob": {"taste": [1.0, 0.0, 0.0]}}
    with pytest.raises(InvalidInputError, match="`user_features` or `context` of 'eve' are so extreme"):
        bundle.recommend(["bob", "eve"], user_features=told)


def test_who_is_unknown_can_be_refused(simple: Bundle) -> None:
    with pytest.raises(ColdStartError, match="known of 1 of `users`: 7777; pass `user_features` or `interactions`"):
        simple.recommend([1000, 7777], on_cold="raise")
    assert [found.path for found in simple.recommend([1000, 7777])] == ["hot", "cold"]


def test_users_of_another_type_warn(simple: Bundle) -> None:
    """As the model does; who agrees, or is known of otherwise, is not warned."""
    hint = r"They are text \('1000'\), but the known ones are numbers"
    with pytest.warns(ColdStartWarning, match=f"Nothing is known of any of `users`, of whom 2 are .*{hint}"):
        found = simple.recommend(["1000", "1001"])
    assert [each.path for each in found] == ["cold", "cold"]
    with pytest.raises(ColdStartError, match=f"known of 1 of `users`: '1000'; .*{hint}"):
        simple.recommend(["1000"], on_cold="raise")
    for each in ({"on_cold": "popular"}, {"interactions": {"1000": [3]}}, {"user_features": {"1000": {"age": 20}}}):
        simple.recommend(["1000"], **each)
    simple.recommend(["1000", 1000])


def test_unknown_items_warn(simple: Bundle) -> None:
    with pytest.warns(DataWarning, match="`interactions` names items that are not in the catalogue: 888"):
        [found] = simple.recommend([7777], interactions={7777: [888]})
    assert found.path == "cold"
    with pytest.warns(DataWarning, match="`candidates` names 1 items that are not in the catalogue: 888"):
        [found] = simple.recommend([7777], candidates=[888, 4])
    assert found.item_ids == [4]


def test_nobody_is_answered_with_nothing(simple: Bundle) -> None:
    assert simple.recommend([]) == []
    assert repr(simple) == "Bundle(ContentEASE: 30 items, 40 users)"


def test_groups_of_popularity(tmp_path: Path) -> None:
    world = make_world()
    for by in ("club", ["club", "age"]):
        model = Popularity(by=by).fit(world.X, user_features=FeatureTable(world.users))
        model.export(tmp_path)
        assert_agree(model, load_bundle(tmp_path), everyone(world), {"user_features": records(new_users())})


VARIANTS: dict[str, VectorRecommender] = {
    "memory alone": ContrastiveRecommender(n_factors=8, residual=False, tower_weight=0, random_state=0),
    "no memory": ContrastiveRecommender(n_factors=8, memory_weight=0, tower_weight=0, random_state=0),
    "towers alone": ContrastiveRecommender(n_factors=8, max_iter=3, tower_weight=1, random_state=0),
    "weights as targets": AutoRec(n_factors=8, max_iter=3, unobserved_weight=0, random_state=0),
    "softmax": AutoRec(n_factors=8, max_iter=3, loss="multinomial", random_state=0),
    "weights by item": AutoRec(n_factors=8, max_iter=3, kind="item", unobserved_weight=0, random_state=0),
    "few factors": MatrixFactorization(n_factors=1, l2=3.0, random_state=0),
    "ratings": ContentEASE(n_factors=8, l2=10.0, min_rating=3, random_state=0),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("with_features", [True, False])
def test_variants_agree(variant: str, with_features: bool, tmp_path: Path) -> None:
    world = make_world()
    model = clone(VARIANTS[variant])
    features = {"user_features": rich(world.users), "item_features": FeatureTable(world.items)} if with_features else {}
    model.fit(world.X, world.y, **features)
    model.export(tmp_path)
    bundle = load_bundle(tmp_path)
    rated = {1000: {3: 4.0, 4: 5.0}, 1003: {2: 5.0, 5: 0.0}, 5000: {1: 2.0, 3: 4.0}, 7777: {5: 5.0, 8: 1.0, 2: 3.0}}
    told: dict[str, Any] = {"interactions": rated}
    assert_agree(model, bundle, everyone(world), {})
    assert_agree(model, bundle, everyone(world), told)
    if with_features:
        told["user_features"] = {
            5000: {"age": 23, "club": "chess", "bio": "likes tea", "taste": [1.0, 0.5], "tags": ["b"]}
        }
        assert_agree(model, bundle, everyone(world), told)


def rich(users: pd.DataFrame) -> FeatureTable:
    """Users with all kinds of fields."""
    n = np.arange(len(users))
    more = {
        "bio": [None if i % 5 == 0 else "likes tea and milk" if i % 2 else "tea" for i in n],
        "taste": [None if i % 4 == 0 else [float(i % 3), i / 10] for i in n],
        "tags": [["a", "b"][: i % 3] for i in n],
    }
    frame = users.assign(**{name: pd.Series(values, index=users.index) for name, values in more.items()})
    return FeatureTable(frame, text=["bio"], vector=["taste"], multi_hot=["tags"])


def test_a_memory_of_one_user(tmp_path: Path) -> None:
    """Who is remembered alone is told nothing by the memory; others are."""
    X = pd.DataFrame({"user_id": ["ann"] * 3, "item_id": ["tea", "ale", "jam"]})
    items = pd.DataFrame({"kind": ["soft", "hard", "soft", "hard"]}, index=pd.Index([*X["item_id"], "gin"]))
    model = ContrastiveRecommender(n_factors=2, l2=1.0, tower_weight=0, random_state=0)
    model.fit(X, item_features=FeatureTable(items))
    model.export(tmp_path)
    bundle = load_bundle(tmp_path)
    for users, interactions in ((["ann"], {}), (["eve"], {"eve": ["tea"]}), (["ann"], {"ann": ["gin"]})):
        frame = pd.DataFrame([(u, item) for u, some in interactions.items() for item in some], columns=X.columns)
        expected = model.recommend(users, interactions=frame if interactions else None, exclude_seen=False)
        [found] = bundle.recommend(users, interactions=interactions or None, exclude_seen=False)
        table = expected.set_index("item_id")["score"]
        np.testing.assert_allclose(table[found.item_ids], found.scores, rtol=1e-4, atol=1e-5)


def test_a_batch_is_answered_as_its_users_are(exported: tuple[VectorRecommender, World, Bundle]) -> None:
    """Whoever is asked for beside them, in whatever order, and however many the graph takes at a time."""
    _, world, bundle = exported
    users = everyone(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.retrieval._answering._ENTRIES", 40)
        few = bundle.recommend(users[::-1], interactions=RECENT)[::-1]
    for together, apart in zip(bundle.recommend(users, interactions=RECENT), few, strict=True):
        assert (together.user_id, together.path) == (apart.user_id, apart.path)
        np.testing.assert_allclose(together.scores, apart.scores, rtol=1e-5, atol=1e-6)


def test_large_catalogues_may_be_searched_approximately(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n_users, n_items = 600, 3000
    users = np.repeat(np.arange(n_users), 30)
    # Users take items of their own part of the catalogue.
    X = pd.DataFrame({"user_id": users, "item_id": (users % 30 * 100 + rng.integers(0, 100, len(users))) % n_items})
    model = MatrixFactorization(n_factors=16, l2=3.0, max_iter=3, random_state=0).fit(X)
    model.export(tmp_path / "exact")
    model.export(tmp_path / "fast", kind="ivf", recall_target=0.95)
    exact, fast = load_bundle(tmp_path / "exact"), load_bundle(tmp_path / "fast")
    assert fast._living.snapshot.base.structure is not None
    asked = list(range(0, n_users, 3))
    both = zip(exact.recommend(asked), fast.recommend(asked), strict=True)
    found = [len(set(one.item_ids) & set(other.item_ids)) / 10 for one, other in both]
    assert np.mean(found) >= 0.9
    assert {len(answer.item_ids) for answer in fast.recommend(asked)} == {10}


def test_many_may_ask_at_once(exported: tuple[VectorRecommender, World, Bundle]) -> None:
    _, world, bundle = exported
    users = everyone(world)
    expected = [bundle.recommend([user], interactions={user: [3, 8]}) for user in users]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda user: bundle.recommend([user], interactions={user: [3, 8]}), users * 3))
    assert found == expected * 3

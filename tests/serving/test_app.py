"""What comes back is what the bundle says, from every address."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from recsys.retrieval import Bundle, load_bundle
from recsys.serving import Settings, create_app
from tests.serving.clients import ask, client, error
from tests.serving.delegates import Delegate, loading


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load_bundle(bundles / "first")


def recommended(bundle: Bundle, user: Any = None, **options: Any) -> dict[str, Any]:
    """What the service should answer; what is told of a user comes without the user."""
    label = object() if user is None else user
    for name in ("user_features", "interactions"):
        if name in options:
            options[name] = {label: options[name]}
    [found] = bundle.recommend([label], **options)
    items = [{"id": item, "score": score} for item, score in zip(found.item_ids, found.scores, strict=True)]
    return {"user": user, "path": found.path, "items": items}


def test_one_user_is_answered_as_by_the_bundle(app: FastAPI, bundle: Bundle) -> None:
    told = {"age": 30, "gender": "F"}
    for body, expected in (
        ({"user": 5}, recommended(bundle, 5)),
        ({"user": 5, "k": 3}, recommended(bundle, 5, k=3)),
        ({}, recommended(bundle)),
        ({"user": "new", "features": told}, recommended(bundle, "new", user_features=told)),
        ({"interactions": [3, 7]}, recommended(bundle, interactions=[3, 7])),
        ({"interactions": {"3": 5, "7": 0.0}}, recommended(bundle, interactions={3: 5, 7: 0})),
        ({"user": 5, "where": {"year": {"<": 1990}}}, recommended(bundle, 5, where={"year": {"<": 1990}})),
        ({"user": 5, "candidates": [1, 2, 3, 4], "k": 2}, recommended(bundle, 5, candidates=[1, 2, 3, 4], k=2)),
        ({"user": 5, "exclude": [1, 2]}, recommended(bundle, 5, exclude=[1, 2])),
        ({"user": 5, "exclude_seen": False}, recommended(bundle, 5, exclude_seen=False)),
        ({"features": told, "on_cold": "popular"}, recommended(bundle, user_features=told, on_cold="popular")),
    ):
        found = ask(app, "POST", "/recommend", body)
        assert found.status_code == 200, found.text
        assert found.headers["content-type"] == "application/json"
        assert found.json() == expected, body


@pytest.mark.filterwarnings("ignore::recsys.exceptions.DataWarning")
def test_what_is_not_in_the_catalogue_says_nothing(app: FastAPI, bundle: Bundle) -> None:
    for told in ([99_999], {"99999": 5}, ["x"]):
        assert ask(app, "POST", "/recommend", {"interactions": told}).json() == recommended(bundle)


@pytest.mark.filterwarnings("ignore::recsys.exceptions.ColdStartWarning")
def test_several_users_are_answered_in_their_order(app: FastAPI, bundle: Bundle) -> None:
    requests = [{"user": 5}, {"k": 2}, {"user": 5, "k": 2}, {"user": "5"}, {"user": 5, "interactions": [9]}]
    found = ask(app, "POST", "/recommend", {"requests": requests}).json()
    assert list(found) == ["results"]
    expected = [
        recommended(bundle, 5),
        recommended(bundle, k=2),
        recommended(bundle, 5, k=2),
        recommended(bundle, "5"),
        recommended(bundle, 5, interactions=[9]),
    ]
    assert [each["path"] for each in found["results"]] == ["hot", "cold", "hot", "cold", "hot"]
    assert_alike(found["results"], expected)
    assert ask(app, "POST", "/recommend", {"requests": [{"user": 5}]}).json() == {"results": expected[:1]}


def assert_alike(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The same but for how single precision rounds in other company."""
    assert [(each["user"], each["path"]) for each in found] == [(each["user"], each["path"]) for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert [item["id"] for item in one["items"]] == [item["id"] for item in other["items"]]
        scores = [item["score"] for item in other["items"]]
        assert [item["score"] for item in one["items"]] == pytest.approx(scores, rel=1e-5, abs=1e-6)


@pytest.mark.filterwarnings("ignore::recsys.exceptions.ColdStartWarning")
def test_answers_of_concurrent_clients_are_never_mixed(app: FastAPI, bundle: Bundle) -> None:
    rng = random.Random(0)
    answers: dict[str, dict[str, Any]] = {}

    def drawn() -> tuple[dict[str, Any], dict[str, Any]]:
        """A request, and what it should get."""
        user = rng.choice([None, rng.randint(1, 60), f"new {rng.randint(0, 5)}"])
        body: dict[str, Any] = {} if user is None else {"user": user}
        options: dict[str, Any] = {}
        if rng.random() < 0.5:
            options["interactions"] = body["interactions"] = rng.sample(range(1, 51), rng.randint(1, 4))
        if rng.random() < 0.4:
            options["user_features"] = body["features"] = {"age": rng.randint(15, 60)}
        if rng.random() < 0.3:
            options["k"] = body["k"] = rng.randint(1, 12)
        if rng.random() < 0.2:
            options["where"] = body["where"] = {"year": {">=": rng.choice([1970, 1985])}}
        key = repr((user, options))
        if key not in answers:
            answers[key] = recommended(bundle, user, **options)
        return body, answers[key]

    async def one_client(http: httpx.AsyncClient, n: int) -> int:
        n_refused = 0
        for _ in range(n):
            body, expected = drawn()
            if rng.random() < 0.05:
                found = await http.post("/recommend", json={**body, "where": {"nothing": 1}})
                assert "'nothing'" in error(found, 422)[1]
                n_refused += 1
            else:
                found = await http.post("/recommend", json=body)
                assert found.status_code == 200, found.text
                assert_alike([found.json()], [expected])
        return n_refused

    async def main() -> int:
        async with client(app) as http:
            return sum(await asyncio.gather(*(one_client(http, 12) for _ in range(40))))

    assert asyncio.run(main()) > 5
    service = app.state.service
    n_batches = service.metrics.registry.get_sample_value("recsys_batch_size_count")
    assert n_batches < 480
    assert service.batcher.depth == 0


def test_similar_items_and_whom_items_reach(app: FastAPI, bundle: Bundle) -> None:
    for options in ({"k": 2}, {}, {"k": 3, "where": {"year": {"<": 1990}}}):
        found = ask(app, "POST", "/similar", {"items": [4, 2], **options}).json()
        expected = bundle.similar_items([4, 2], **options)
        assert [each["item"] for each in found["results"]] == [4, 2]
        for one, other in zip(found["results"], expected, strict=True):
            items = list(zip(other.item_ids, other.scores, strict=True))
            assert one["items"] == [{"id": item, "score": score} for item, score in items]
            assert items
    [one] = ask(app, "POST", "/reach", {"items": [4], "k": 3}).json()["results"]
    [reached] = bundle.reach([4], 3)
    users = [{"id": user, "score": score} for user, score in zip(reached.user_ids, reached.scores, strict=True)]
    assert one == {"item": 4, "users": users}
    assert len(users) == 3


def test_metadata_come_in_the_order_asked(app: FastAPI, bundle: Bundle, data: Any) -> None:
    found = ask(app, "GET", "/items", params={"ids": [3, 1]}).json()
    told = bundle.describe([3, 1])
    assert found == {"results": [{"id": 3, "metadata": told[0]}, {"id": 1, "metadata": told[1]}]}
    assert [each["title"] for each in told] == data.items.set_index("item_id").loc[[3, 1], "title"].tolist()


def test_unknown_items_are_named(app: FastAPI) -> None:
    for method, path, body in (
        ("POST", "/similar", {"items": [4, 777]}),
        ("POST", "/reach", {"items": ["777"]}),
        ("GET", "/items?ids=777", None),
        ("POST", "/explain", {"user": 1, "items": [777]}),
        ("DELETE", "/items", {"items": [1, 777]}),
    ):
        assert "777" in error(ask(app, method, path, body), 422)[1]


def test_an_explanation_sums_to_the_score(app: FastAPI, bundle: Bundle) -> None:
    [best] = recommended(bundle, 5, k=1)["items"]
    found = ask(app, "GET", "/explain", params={"user": 5, "item": best["id"]}).json()
    assert_explained(found, bundle.explain([5], [best["id"]]))
    assert found["results"][0]["score"] == pytest.approx(best["score"], rel=1e-5)
    assert ask(app, "POST", "/explain", {"user": 5, "items": [best["id"]]}).json() == found
    told = {"interactions": {"3": 1}, "features": {"age": 20}, "items": [7, 8]}
    given: dict[str, Any] = {"interactions": {"u": {3: 1}}, "user_features": {"u": {"age": 20}}}
    found = ask(app, "POST", "/explain", told).json()
    assert_explained(found, bundle.explain(["u"], [7, 8], **given))
    assert {"history", "user"} & {each["source"] for each in found["results"][0]["fields"]}


def assert_explained(found: dict[str, Any], expected: list[Any]) -> None:
    for one, other in zip(found["results"], expected, strict=True):
        assert (one["item"], one["score"]) == (other.item_id, other.score)
        fields = {(each["source"], each["field"]): (each["weight"], each["contribution"]) for each in one["fields"]}
        assert fields == {name: (told.weight, told.contribution) for name, told in other.contributions.items()}
        assert sum(contribution for _, contribution in fields.values()) == pytest.approx(one["score"], abs=1e-5)


def test_the_schema_is_enough_to_draw_a_form(app: FastAPI, bundle: Bundle) -> None:
    found = ask(app, "GET", "/schema").json()
    assert [each["id"] for each in found["users"]] == [each["user_id"] for each in bundle.users(100)]
    assert found["users"][0]["features"] == bundle.users(1)[0]["features"]
    assert found["user_fields"]["gender"] == {"kind": "categorical", "values": ["M", "F"]}
    assert found["item_fields"]["genres"]["kind"] == "multi-hot"
    assert found["metadata_fields"] == bundle.metadata_fields
    assert {name: found[name] for name in ("bundle", "model", "n_items", "n_users")} == {
        "bundle": "first",
        "model": "ContentEASE",
        "n_items": 50,
        "n_users": 60,
    }


def test_items_come_and_go(app: FastAPI) -> None:
    counts = {"bundle": "first", "model": "ContentEASE", "n_users": 60}
    film: dict[str, Any] = {
        "features": {"genres": ["War"]},
        "metadata": {"title": "Made up", "year": None, "genres": ["War"]},
    }
    assert ask(app, "PUT", "/items/901", film).json() == {**counts, "n_items": 51}
    described = {"results": [{"id": 901, "metadata": film["metadata"]}]}
    assert ask(app, "GET", "/items?ids=901").json() == described
    found = ask(app, "POST", "/recommend", {"user": 5, "where": {"title": "Made up"}}).json()
    assert [item["id"] for item in found["items"]] == [901]
    # Once more is a replacement.
    changed = {**film, "metadata": {**film["metadata"], "title": "Changed"}}
    assert ask(app, "PUT", "/items/901", changed).json()["n_items"] == 51
    assert ask(app, "GET", "/items?ids=901").json()["results"][0]["metadata"]["title"] == "Changed"
    two = [{"id": 902, "features": {}}, {"id": 903, "features": {}, "metadata": {"title": "T"}}]
    assert ask(app, "PUT", "/items", {"items": two}).json()["n_items"] == 53
    assert ask(app, "DELETE", "/items", {"items": [902, 903]}).json()["n_items"] == 51
    assert ask(app, "DELETE", "/items/901").json() == {**counts, "n_items": 50}
    assert "901" in error(ask(app, "DELETE", "/items/901"), 422)[1]


def test_all_items_are_changed_or_none(app: FastAPI) -> None:
    good, bad = {"id": 901, "features": {}}, {"id": 902, "features": {"nothing": 1}}
    assert "unknown field 'nothing'" in error(ask(app, "PUT", "/items", {"items": [good, bad]}), 422)[1]
    assert "901 more than once" in error(ask(app, "PUT", "/items", {"items": [good, good]}), 422)[1]
    error(ask(app, "DELETE", "/items", {"items": [1, 777]}), 422)
    error(ask(app, "DELETE", "/items", {"items": [1, 1]}), 422)
    assert ask(app, "GET", "/schema").json()["n_items"] == 50


def test_text_stands_for_a_number_where_labels_are_numbers(app: FastAPI, settings: Settings) -> None:
    for label, known in (
        ("7", 7),
        ("007", 7),
        ("-3", -3),
        ("x", "x"),
        ("1.5", "1.5"),
        ("9" * 30, "9" * 30),
        ("٣", "٣"),
    ):
        assert app.state.service.held.item(label) == known
        assert app.state.service.held.user(label) == known

    class OfText(Delegate):
        def recommend(self, users: Any, k: int = 10, **options: Any) -> list[Any]:
            [found] = self._bundle.recommend(users, k)
            return [replace(found, item_ids=[str(item) for item in found.item_ids])]

        def users(self, limit: int) -> list[Any]:
            return [{"user_id": "1", "features": {}}]

    held = create_app(settings, loading(OfText)).state.service.held
    assert (held.item("7"), held.user("7")) == ("7", "7")


def test_limits(settings: Settings) -> None:
    app = create_app(replace(settings, max_users=2, max_k=5, max_items=3))
    for method, path, body in (
        ("POST", "/recommend", {"requests": [{}] * 3}),
        ("POST", "/recommend", {"k": 6}),
        ("POST", "/recommend", {"requests": [{}, {"k": 6}]}),
        ("POST", "/recommend", {"interactions": [1, 2, 3, 4]}),
        ("POST", "/recommend", {"interactions": {"1": 1, "2": 1, "3": 1, "4": 1}}),
        ("POST", "/recommend", {"candidates": [1, 2, 3, 4]}),
        ("POST", "/recommend", {"exclude": [1, 2, 3, 4]}),
        ("POST", "/similar", {"items": [1, 2, 3]}),
        ("POST", "/similar", {"items": [1], "k": 6}),
        ("POST", "/reach", {"items": [1, 2, 3]}),
        ("POST", "/reach", {"items": [1], "k": 6}),
        ("POST", "/explain", {"items": [1, 2, 3]}),
        ("POST", "/explain", {"items": [1], "interactions": [1, 2, 3, 4]}),
        ("GET", "/items?ids=1&ids=2&ids=3&ids=4", None),
        ("PUT", "/items", {"items": [{"id": i, "features": {}} for i in range(901, 905)]}),
        ("DELETE", "/items", {"items": [1, 2, 3, 4]}),
    ):
        assert "expected at most" in error(ask(app, method, path, body), 422)[1], (path, body)
    assert ask(app, "GET", "/schema").json()["n_items"] == 50
    assert ask(app, "POST", "/recommend", {"requests": [{"k": 5, "interactions": [1, 2, 3]}] * 2}).status_code == 200


def test_errors_of_the_package_are_told_as_they_are(app: FastAPI) -> None:
    kind, message = error(ask(app, "POST", "/recommend", {"user": 1, "where": {"yaer": 1}}), 422)
    assert kind == "InvalidInputError"
    assert message.endswith("Did you mean 'year'?")
    kind, message = error(ask(app, "POST", "/recommend", {"on_cold": "raise"}), 422)
    assert (kind, message[:16]) == ("ColdStartError", "Nothing that Con")
    kind, message = error(ask(app, "POST", "/recommend", {"features": {"agee": 1}}), 422)
    assert message == "`user_features` of the user has the unknown field 'agee'. Did you mean 'age'?"
    kind, message = error(ask(app, "POST", "/recommend", {"requests": [{"user": 1}, {"user": True}]}), 422)
    assert (kind, message.partition(": ")[0]) == ("ValidationError", "body.requests.1.user")


def test_what_is_not_there(app: FastAPI) -> None:
    assert error(ask(app, "GET", "/nothing"), 404)[0] == "NotFound"
    assert error(ask(app, "GET", "/recommend"), 405)[0] == "MethodNotAllowed"
    assert error(ask(app, "POST", "/recommend/", {}), 404)[0] == "NotFound"
    assert error(ask(app, "GET", "/explain", params={"user": 1}), 422)[1] == "query.item: Field required."


def test_every_operation_is_documented(app: FastAPI) -> None:
    found = ask(app, "GET", "/openapi.json").json()
    operations = {f"{m.upper()} {path}": each for path, some in found["paths"].items() for m, each in some.items()}
    assert set(operations) == {
        "POST /recommend",
        "POST /similar",
        "POST /reach",
        "GET /explain",
        "POST /explain",
        "GET /items",
        "PUT /items",
        "DELETE /items",
        "PUT /items/{item}",
        "DELETE /items/{item}",
        "GET /schema",
        "POST /bundle",
        "GET /healthz",
        "GET /readyz",
    }
    guarded = {name for name, each in operations.items() if "security" in each}
    assert guarded == {name for name in operations if name.split()[0] in ("PUT", "DELETE")} | {"POST /bundle"}
    assert all(each["description"] for each in operations.values())
    assert {"401", "413", "422", "503", "504"} <= set(operations["PUT /items"]["responses"])

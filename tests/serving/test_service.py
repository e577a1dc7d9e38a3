"""The bundle that is served is another one from one moment to the next, and nobody notices."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from recsys.exceptions import InvalidInputError, PersistenceError
from recsys.retrieval import Bundle, load_bundle
from recsys.serving import Settings, create_app
from recsys.serving.service import NoBundleError, Service
from tests.serving.clients import ask, client, error
from tests.serving.delegates import Delegate, loading


def best(path: Path, user: int = 5) -> list[int]:
    return load_bundle(path).recommend([user])[0].item_ids


def served(app: FastAPI, user: int = 5) -> list[int]:
    return [item["id"] for item in ask(app, "POST", "/recommend", {"user": user}).json()["items"]]


def count(app: FastAPI, outcome: str) -> float | None:
    registry = app.state.service.metrics.registry
    found: float | None = registry.get_sample_value("recsys_bundle_swaps_total", {"outcome": outcome})
    return found


def test_another_bundle_takes_its_place(app: FastAPI, bundles: Path) -> None:
    assert best(bundles / "first") != best(bundles / "second")
    assert served(app) == best(bundles / "first")
    ask(app, "PUT", "/items/901", {"features": {}})
    found = ask(app, "POST", "/bundle", {"name": "second"}).json()
    # What had joined belongs to the other one.
    assert found == {"bundle": "second", "model": "ContentEASE", "n_items": 50, "n_users": 60}
    assert served(app) == best(bundles / "second")
    assert ask(app, "GET", "/schema").json()["bundle"] == "second"
    assert count(app, "done") == 1


def test_what_is_no_bundle_does_not(app: FastAPI, bundles: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = bundles / "broken"
    shutil.copytree(bundles / "second", broken)
    [arrays] = broken.glob("arrays-*")
    arrays.write_bytes(arrays.read_bytes()[:-1])
    (bundles / "empty").mkdir()
    try:
        for name in ("broken", "empty", "absent"):
            kind, message = error(ask(app, "POST", "/bundle", {"name": name}), 409)
            assert kind == "NoBundle"
            assert message.startswith(f"'{name}' is no bundle that can be served (")
            # Where things are on the disk is for the log.
            assert str(bundles) not in message
            assert str(bundles / name) in caplog.text
    finally:
        shutil.rmtree(broken)
        (bundles / "empty").rmdir()
    assert served(app) == best(bundles / "first")
    assert (count(app, "failed"), count(app, "done")) == (3, None)


@pytest.mark.parametrize("name", ["../bundles/second", "/etc", "..", ".", "", "a/b", "second\x00", "second/", 5, None])
def test_a_bundle_is_named_never_a_path(app: FastAPI, name: Any) -> None:
    error(ask(app, "POST", "/bundle", {"name": name}), 422)


def test_without_a_folder_there_is_nothing_to_choose(settings: Settings) -> None:
    app = create_app(replace(settings, root=None))
    assert "start with --root" in error(ask(app, "POST", "/bundle", {"name": "second"}), 409)[1]


def test_nobody_waits_for_a_bundle_that_is_loaded(settings: Settings, bundles: Path) -> None:
    may_load = threading.Event()
    may_load.set()

    def slowly(path: Path) -> Bundle:
        assert may_load.wait(30)
        return load_bundle(path)

    app = create_app(settings, slowly)

    async def main() -> None:
        async with client(app) as http:
            may_load.clear()
            swap = asyncio.create_task(http.post("/bundle", json={"name": "second"}))
            change = asyncio.create_task(http.put("/items/901", json={"features": {}}))
            for _ in range(20):
                found = (await http.post("/recommend", json={"user": 5})).json()
                assert [item["id"] for item in found["items"]] == best(bundles / "first")
            assert not swap.done()
            assert not change.done()
            may_load.set()
            assert (await swap).json()["n_items"] == 50
            # What was asked after the swap is done to the new one.
            assert (await change).json() == {**(await swap).json(), "n_items": 51}

    asyncio.run(main())
    assert served(app) == best(bundles / "second")


def test_who_was_accepted_is_answered_by_one_bundle_while_others_come(app: FastAPI, bundles: Path) -> None:
    expected = {name: [best(bundles / name, user) for user in range(1, 61)] for name in ("first", "second")}
    kinds: set[str] = set()

    async def main() -> None:
        async with client(app) as http:

            async def swaps() -> None:
                for name in ("second", "first") * 5:
                    assert (await http.post("/bundle", json={"name": name})).status_code == 200

            swapping = asyncio.create_task(swaps())

            async def ask_on(start: int) -> None:
                user = start
                while not swapping.done():
                    users = [user % 60 + 1, (user + 7) % 60 + 1]
                    answer = await http.post("/recommend", json={"requests": [{"user": each} for each in users]})
                    lists = [[item["id"] for item in each["items"]] for each in answer.json()["results"]]
                    found = [k for k, some in expected.items() if lists == [some[each - 1] for each in users]]
                    assert found
                    kinds.update(found if len(found) == 1 else ())
                    user += 11

            await asyncio.gather(swapping, *(ask_on(start) for start in range(8)))

    asyncio.run(main())
    assert kinds == {"first", "second"}


def test_the_bundle_is_read_again(app: FastAPI, settings: Settings, tmp_path: Path, bundles: Path) -> None:
    path = tmp_path / "present"
    shutil.copytree(bundles / "first", path)
    service = Service(replace(settings, bundle=path), load_bundle)

    async def reload() -> list[int]:
        service.reload()
        [task] = service._reloads
        await task
        return service.held.bundle.recommend([5])[0].item_ids

    shutil.rmtree(path)
    shutil.copytree(bundles / "second", path)
    assert asyncio.run(reload()) == best(bundles / "second")
    shutil.rmtree(path)
    assert asyncio.run(reload()) == best(bundles / "second")
    assert service.metrics.registry.get_sample_value("recsys_bundle_swaps_total", {"outcome": "failed"}) == 1


def test_changes_that_would_pile_up_are_refused(app: FastAPI) -> None:
    service: Service = app.state.service
    gate = threading.Event()

    def change(bundle: Any) -> Any:
        assert gate.wait(30)
        return bundle

    async def main() -> list[Any]:
        waiting = [asyncio.create_task(service.change(change)) for _ in range(32)]
        await asyncio.sleep(0.01)
        async with client(app) as http:
            found = await http.put("/items/901", json={"features": {}})
            assert error(found, 503)[0] == "Overloaded"
            assert found.headers["retry-after"] == "1"
        gate.set()
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(main())) == 32
    assert ask(app, "PUT", "/items/901", {"features": {}}).status_code == 200


def test_a_change_that_takes_too_long_is_told(settings: Settings) -> None:
    gate = threading.Event()

    class Slow(Delegate):
        def remove_items(self, items: Any) -> None:
            assert gate.wait(30)

    app = create_app(replace(settings, timeout=0.05), loading(Slow))
    kind, message = error(ask(app, "DELETE", "/items/1"), 504)
    assert kind == "Timeout"
    assert message.startswith("It is not done after 0.05 seconds, and may still be;")
    gate.set()


def test_an_answer_that_takes_too_long_is_given_up(settings: Settings) -> None:
    gate = threading.Event()

    class Slow(Delegate):
        def similar_items(self, *args: Any, **options: Any) -> list[Any]:
            assert gate.wait(30)
            return []

    app = create_app(replace(settings, timeout=0.05), loading(Slow))
    assert error(ask(app, "POST", "/similar", {"items": [1]}), 504) == (
        "Timeout",
        "There is no answer after 0.05 seconds.",
    )
    gate.set()


def test_beyond_what_can_be_done_requests_are_refused(settings: Settings) -> None:
    gate = threading.Event()

    class Slow(Delegate):
        def similar_items(self, *args: Any, **options: Any) -> list[Any]:
            assert gate.wait(30)
            return []

    app = create_app(replace(settings, max_wait=0.0), loading(Slow))
    assert ask(app, "POST", "/recommend", {"user": 1}).status_code == 200

    async def main() -> None:
        async with client(app) as http:
            first = asyncio.create_task(http.post("/similar", json={"items": [1]}))
            await asyncio.sleep(0.02)
            refused = await http.post("/recommend", json={"user": 1})
            assert error(refused, 503)[0] == "Overloaded"
            assert refused.headers["retry-after"] == "1"
            # What costs nothing is answered.
            assert (await http.get("/healthz")).status_code == 200
            gate.set()
            assert (await first).status_code == 200
            assert (await http.post("/recommend", json={"user": 1})).status_code == 200

    asyncio.run(main())
    assert app.state.service.metrics.registry.get_sample_value("recsys_shed_total") == 1


def test_closing_finishes_what_was_accepted(app: FastAPI) -> None:
    service: Service = app.state.service

    async def main() -> None:
        async with client(app) as http, app.router.lifespan_context(app):
            assert (await http.get("/readyz")).json() == {"status": "ready"}
            asked = [asyncio.create_task(http.post("/recommend", json={"user": user})) for user in range(1, 20)]
            await asyncio.sleep(0.005)
            service.is_closing = True
            found = await http.get("/readyz")
            assert error(found, 503)[0] == "Closing"
            assert found.headers["connection"] == "close"
            assert (await http.get("/healthz")).status_code == 200
            assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}

    asyncio.run(main())
    with pytest.raises(RuntimeError, match="shutdown"):
        service._changes.submit(print)


def test_labels_that_json_has_no_form_for_are_refused(settings: Settings) -> None:
    class OfTuples(Delegate):
        def users(self, limit: int) -> list[Any]:
            return [{"user_id": ("a", 1), "features": {}}]

    with pytest.raises(InvalidInputError, match=r"labels of users in .* are of type tuple; expected text or whole"):
        create_app(settings, loading(OfTuples))


def test_there_must_be_a_bundle(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(PersistenceError):
        create_app(replace(settings, bundle=tmp_path / "absent"))


def test_the_error_of_a_swap_is_logged(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = Service(settings, load_bundle)
    with caplog.at_level(logging.ERROR), pytest.raises(NoBundleError):
        asyncio.run(service.swap(tmp_path / "absent"))
    assert "absent is not served: " in caplog.text


def test_whatever_goes_wrong_while_a_bundle_is_loaded_the_old_one_goes_on(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def load(path: Path) -> Bundle:
        if path.name == "second":
            raise ZeroDivisionError("no such thing")
        return load_bundle(path)

    app = create_app(settings, load)
    service: Service = app.state.service

    async def reload() -> None:
        service.held = replace(service.held, path=settings.bundle.parent / "second")
        service.reload()
        await asyncio.gather(*service._reloads)

    kind, message = error(ask(app, "POST", "/bundle", {"name": "second"}), 409)
    assert (kind, message[:53]) == ("NoBundle", "'second' is no bundle that can be served (ZeroDivisio")
    assert "second is not served: no such thing" in caplog.text
    # It is nobody's mistake but ours, so where it came from is told too.
    assert "Traceback" in caplog.text
    asyncio.run(reload())
    assert count(app, "failed") == 2
    assert served(app) == best(settings.bundle)


def test_a_manifest_that_is_nested_too_deep_is_no_bundle(app: FastAPI, bundles: Path) -> None:
    (bundles / "deep").mkdir()
    (bundles / "deep/manifest.json").write_text("[" * 200_000)
    try:
        assert "(CorruptModelError)" in error(ask(app, "POST", "/bundle", {"name": "deep"}), 409)[1]
    finally:
        shutil.rmtree(bundles / "deep")
    assert count(app, "failed") == 1


def test_labels_are_read_by_the_bundle_that_answers_or_is_changed(settings: Settings) -> None:
    """A swap between a request and its turn: whole numbers in the old bundle, text in the new one."""
    may_answer, may_load, is_answering, is_loading = (threading.Event() for _ in range(4))
    told: list[Any] = []

    class OfNumbers(Delegate):
        def similar_items(self, *args: Any, **options: Any) -> list[Any]:
            is_answering.set()
            assert may_answer.wait(30)
            return []

    class OfText(Delegate):
        n_users = 7

        def users(self, limit: int) -> list[Any]:
            return [{"user_id": "1", "features": {}}]

        def recommend(self, users: Any, k: int = 10, interactions: Any = None, **options: Any) -> list[Any]:
            told.append(("recommend", *(interactions or {}).values()))
            return [replace(each, item_ids=["1"], scores=[0.5]) for each in self._bundle.recommend(users, k)]

        def explain(self, users: Any, items: Any, interactions: Any = None, **options: Any) -> list[Any]:
            told.append(("explain", users[0] if interactions is None else interactions[users[0]], items))
            return []

        def describe(self, items: Any) -> list[Any]:
            told.append(("describe", items))
            return [{} for _ in items]

        def put_items(self, features: Any, metadata: Any = None) -> None:
            told.append(("put", features))

        def remove_items(self, items: Any) -> None:
            told.append(("remove", items))

    def load(path: Path) -> Any:
        if path.name == "first":
            return OfNumbers(load_bundle(path))
        is_loading.set()
        assert may_load.wait(30)
        return OfText(load_bundle(path))

    app = create_app(settings, load)

    async def main() -> Any:
        async with client(app) as http:

            def begin(method: str, path: str, body: Any = None) -> asyncio.Task[Any]:
                return asyncio.create_task(http.request(method, path, json=body))

            waiting = [begin("POST", "/similar", {"items": [1]}), begin("POST", "/bundle", {"name": "second"})]
            while not (is_answering.is_set() and is_loading.is_set()):
                await asyncio.sleep(0.005)
            waiting += [
                begin("PUT", "/items/7", {"features": {}}),
                begin("DELETE", "/items/8"),
                begin("GET", "/items?ids=7"),
                begin("GET", "/explain?user=6&item=7"),
                begin("POST", "/explain", {"interactions": {"8": 1}, "items": ["7"]}),
                begin("POST", "/recommend", {"interactions": {"7": 5}}),
                begin("GET", "/schema"),
            ]
            while app.state.service.batcher.depth < 6:
                await asyncio.sleep(0.005)
            may_load.set()
            await asyncio.gather(*waiting[1:4])
            told.append("answers")
            may_answer.set()
            answers = await asyncio.gather(*waiting)
            assert {each.status_code for each in answers} == {200}
            return answers[-1].json()

    schema = asyncio.run(main())
    changes, answers = told[: told.index("answers")], told[told.index("answers") + 1 :]
    assert ("put", {"7": {}}) in changes
    assert ("remove", ["8"]) in changes
    assert ("describe", ["7"]) in answers
    assert ("explain", "6", ["7"]) in answers
    assert ("explain", {"8": 1}, ["7"]) in answers
    assert ("recommend", {"7": 5}) in answers
    assert (schema["bundle"], schema["n_users"], schema["users"]) == ("second", 7, [{"id": "1", "features": {}}])


def test_ratings_name_each_item_once(app: FastAPI) -> None:
    for path, body in (("/recommend", {}), ("/explain", {"items": [3]})):
        told = {"interactions": {"01": 1, "1": 5}, **body}
        assert "`interactions` has 1 more than once" in error(ask(app, "POST", path, told), 422)[1]
        assert ask(app, "POST", path, {**told, "interactions": {"01": 1, "2": 5}}).status_code == 200

"""The page in a browser, with the service behind it: what is asked, and what is shown."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from tests.browser import Browser, Page
from tests.serving.page import KEY, SETTLED, TITLES, Server, opened


def chips(page: Page) -> list[str]:
    found: list[str] = page.see("[...document.querySelectorAll('.chip > span')].map((node) => node.textContent)")
    return found


def said(page: Page) -> str:
    return str(page.see("document.querySelector('#list [role=status]').textContent"))


def test_a_description_changes_the_list_and_its_reasons(page: Page, server: Server) -> None:
    assert page.see(TITLES) == server.titles(k=10)
    assert said(page) == "10 items for somebody new, of whom nothing is known: what is liked most."
    page.click("radio", "F")
    page.focus("spinbutton", "Age")
    page.type("25")
    page.until(SETTLED)
    features = {"gender": "F", "age": 25}
    assert page.see(TITLES) == server.titles(features=features, k=10)
    assert said(page) == "10 items for somebody new, from this description."
    assert page.see("document.querySelector('input[type=range]').value") == "25"

    # The reasons: of all, then of one.
    items = [item["id"] for item in server.ask("recommend", {"features": features, "k": 10})["items"]]
    explained = server.ask("explain", {"features": features, "items": items})["results"]
    mean = sum(one["score"] for one in explained) / 10
    assert total(page) == pytest.approx(mean, abs=0.006)
    assert page.see("document.querySelector('.of').textContent") == "On average over the list"
    second = page.see(TITLES)[1]
    page.click("button", f"{second} why?")
    assert page.see("document.querySelector('.of').textContent") == f"Of “{second}”"
    assert total(page) == pytest.approx(explained[1]["score"], abs=0.006)
    shown = contributions(page)
    expected = {field["field"].capitalize(): field["contribution"] for field in explained[1]["fields"]}
    assert shown == pytest.approx(expected, abs=0.006)
    assert list(shown) == sorted(shown, key=lambda name: -abs(expected[name]))
    assert sum(shown.values()) == pytest.approx(total(page), abs=0.05)
    assert bars(page) == pytest.approx(list(shown.values()), rel=0.1, abs=0.03 * max(map(abs, shown.values())))
    page.click("button", "Average of the list")
    assert total(page) == pytest.approx(mean, abs=0.006)

    page.click("button", "Start over")
    page.until(SETTLED)
    assert page.see(TITLES) == server.titles(k=10)
    assert page.see("document.querySelector('input[type=number]').value") == ""


def total(page: Page) -> float:
    return number(page.see("document.querySelector('.reasons tfoot td').textContent"))


def contributions(page: Page) -> dict[str, float]:
    cells = "[row.cells[0].firstChild, row.cells[1], row.cells[2]].map((cell) => cell.textContent)"
    rows = page.see(f"[...document.querySelectorAll('.reasons tbody tr')].map((row) => {cells})")
    return {name: number(text) for name, _, text in rows}


def bars(page: Page) -> list[float]:
    """What the lengths of bars say, which go left and right of zero."""
    rows = "[...document.querySelectorAll('.reasons td:last-child .bar')]"
    lengths = page.see(
        f"{rows}.map((bar) => [bar.firstChild.offsetWidth / bar.offsetWidth, bar.classList.contains('less')])"
    )
    signed = [-length if less else length for length, less in lengths]
    largest = max(signed, key=abs)
    return [value / largest * list(contributions(page).values())[signed.index(largest)] for value in signed]


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def test_items_are_found_by_typing_and_picked_with_the_keyboard(page: Page, server: Server) -> None:
    wanted = server.titles(where={"title": {"contains": "silent"}}, k=20)
    page.focus("combobox", "Picked items")
    page.type("SIL ent")
    page.until("document.querySelectorAll('[role=option]').length")
    assert page.see("[...document.querySelectorAll('[role=option] > span')].map((node) => node.textContent)") == wanted
    page.press("ArrowDown")
    page.press("ArrowDown")
    active = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))"
    assert page.see(f"{active}.firstChild.textContent") == wanted[1]
    assert page.see(f"{active}.ariaSelected") == "true"
    page.press("Enter")
    page.until(SETTLED)
    assert chips(page) == [wanted[1]]
    assert page.see("document.activeElement.role") == "combobox"
    [first] = [item["id"] for item in server.ask("recommend", {"where": {"title": wanted[1]}, "k": 1})["items"]]
    assert page.see(TITLES) == server.titles(interactions=[first], k=10)
    assert said(page) == "10 items for somebody new, from these picks."
    assert wanted[1] in contributions(page)

    # Out of the list; the focus goes to what takes the place of the picked one.
    second = page.see(TITLES)[0]
    page.focus("button", f"Pick {second}")
    page.press("Enter")
    page.until(SETTLED)
    assert chips(page) == [wanted[1], second]
    assert second not in page.see(TITLES)
    assert page.focused() == f"Pick {page.see(TITLES)[0]}"

    # Removing moves the focus to the next chip, and from the last one to the search box.
    page.focus("button", f"Remove {wanted[1]}")
    page.press("Enter")
    assert page.focused() == f"Remove {second}"
    page.press("Enter")
    assert page.see("document.activeElement.role") == "combobox"
    page.until(SETTLED)
    assert page.see(TITLES) == server.titles(k=10)


def test_enter_takes_what_was_typed_though_it_is_still_searched(page: Page, server: Server) -> None:
    titles = server.titles(k=20)
    page.focus("combobox", "Picked items")
    page.press("ArrowDown")
    page.until("document.querySelectorAll('[role=option]').length")
    page.hold("*/recommend")
    page.type(titles[-1])
    page.press("Enter")
    page.held(1)
    assert chips(page) == []
    page.send("Fetch.disable")
    page.until("document.querySelectorAll('.chip').length")
    assert chips(page) == [titles[-1]]
    assert page.see("document.querySelectorAll('[role=option]').length") == 0
    page.until(SETTLED)


def test_a_search_without_result_says_so_and_escape_closes(page: Page) -> None:
    page.focus("combobox", "Picked items")
    page.type("no such item")
    page.until("document.querySelector('#person .chooser:last-of-type [role=status]').innerText === 'Nothing found.'")
    page.see("document.activeElement.value = ''")
    page.press("ArrowDown")
    page.until("document.activeElement.ariaExpanded === 'true'")
    page.press("Escape")
    assert page.see("document.activeElement.ariaExpanded") == "false"
    assert page.see("document.activeElement.role") == "combobox"


def test_a_known_user_is_picked(page: Page, server: Server) -> None:
    page.click("radio", "A known user")
    assert said(page) == "Choose a user to see their list."
    assert page.see(TITLES) == []
    page.focus("combobox", "Known user")
    page.type("17")
    page.until("document.querySelector('[role=option]')")
    page.press("Enter")
    page.until(SETTLED)
    assert said(page) == "10 items for user 17, from what they chose before."
    assert page.see(TITLES) == server.titles(user=17, k=10)

    # Of a long history, what matters most, and the sum of the rest.
    items = [item["id"] for item in server.ask("recommend", {"user": 17, "k": 10})["items"]]
    explained = server.ask("explain", {"user": 17, "items": items})["results"]
    history = {field["field"] for one in explained for field in one["fields"] if field["source"] == "history"}
    shown = contributions(page)
    assert len(history) > 5
    assert f"{len(history) - 4} others" in shown
    sources = "[...document.querySelectorAll('.reasons tbody small')].map((node) => node.textContent)"
    assert page.see(sources).count("history") == 5
    assert sum(shown.values()) == pytest.approx(total(page), abs=0.01 * len(shown) * max(map(abs, shown.values())))
    page.click("radio", "Somebody new")
    page.until(SETTLED)
    assert page.see(TITLES) == server.titles(k=10)


def answer_of(item: str) -> dict[str, Any]:
    return {"user": None, "path": "warm", "items": [{"id": item, "score": 1.0}]}


def test_only_the_newest_answer_is_shown(page: Page) -> None:
    page.hold("*/recommend", "*/items?*", "*/explain")
    page.click("radio", "F")
    page.held(1)
    page.click("radio", "M")
    old, new = page.held(2)
    page.answer(new, 200, answer_of("new"))
    page.answer(page.held(3)[2], 200, {"results": [{"id": "new", "metadata": {"title": "The new one"}}]})
    page.answer(page.held(4)[3], 200, {"results": [{"item": "new", "score": 1.0, "fields": []}]})
    page.until(SETTLED)
    assert page.see(TITLES) == ["The new one"]
    # Its answer comes too late: Chromium says that nobody waits for it.
    with suppress(AssertionError):
        page.answer(old, 200, answer_of("old"))
    page.until(SETTLED)
    assert page.see(TITLES) == ["The new one"]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (422, {"error": {"type": "InvalidInputError", "message": "<b>No</b> such field."}}, "<b>No</b> such field."),
        (503, {}, "The service is busy. Try again in 7 s."),
        (504, {}, "The service took too long to answer. Try again."),
        (418, {}, "The service answered with status 418, without a reason."),
        (0, None, "The service does not answer. Is it running?"),
    ],
)
def test_what_fails_is_told_in_words(browser: Browser, server: Server, status: int, body: Any, message: str) -> None:
    page = opened(browser, server)
    page.hold("*/recommend")
    page.click("radio", "F")
    [request] = page.held(1)
    if status:
        page.answer(request, status, body, Retry_After="7")
    else:
        page.send("Fetch.failRequest", requestId=request["requestId"], errorReason="ConnectionRefused")
    page.until(SETTLED)
    assert page.see("document.querySelector('#list [role=alert] p').textContent") == message
    assert page.see(TITLES) == []
    page.send("Fetch.disable")
    page.click("button", "Try again")
    page.until(SETTLED)
    assert page.see(TITLES) == server.titles(features={"gender": "F"}, k=10)
    assert page.see("document.querySelector('#list [role=alert]').hidden")
    page.close()


def test_without_reasons_there_is_a_list(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    page.hold("*/explain")
    page.click("radio", "F")
    page.answer(page.held(1)[0], 422, {"error": {"type": "x", "message": "This model tells no reasons."}})
    page.until(SETTLED)
    assert len(page.see(TITLES)) == 10
    assert page.see("document.querySelector('#reasons').innerText").endswith("This model tells no reasons.")
    page.close()


def test_without_a_schema_the_page_says_why(browser: Browser, server: Server) -> None:
    page = browser.page()
    page.hold("*/schema")
    page.send("Page.navigate", url=server.address)
    page.answer(page.held(1)[0], 500, {})
    page.until("document.querySelector('[role=alert]').innerText")
    assert page.names("button") == ["Try again"]
    page.close()


FIELDS = {
    "age": {"kind": "numeric", "low": 18, "high": 60},
    "height_in_cm": {"kind": "numeric", "low": 1.5, "high": 1.5},
    "gender": {"kind": "categorical", "values": ["F", "M"]},
    "zone": {"kind": "categorical", "values": [3, 1, 20, 2, 4, 5, 6]},
    "town": {"kind": "categorical", "values": [f"town {n}" for n in range(200)]},
    "hobbies": {"kind": "multi-hot", "values": ["walks", "books"]},
    "skills": {"kind": "multi-hot", "values": [f"skill {n}" for n in range(40)]},
    "about": {"kind": "text"},
    "born": {"kind": "date", "low": "1950-01-01", "high": "2000-01-01"},
    "face": {"kind": "vector", "width": 8},
}


def set_to(page: Page, role: str, name: str, value: str) -> None:
    """Set a control that a window of the system would set."""
    page.focus(role, name)
    page.see(f"document.activeElement.value = {json.dumps(value)}")
    page.see("['input', 'change'].forEach((name) => document.activeElement.dispatchEvent(new Event(name)))")


def test_every_kind_of_field_has_its_control(browser: Browser, server: Server) -> None:
    page = browser.page()
    page.hold("*/schema", "*/recommend")
    page.send("Page.navigate", url=server.address)
    schema = {**server.ask("schema"), "user_fields": FIELDS, "context_fields": {"hour": FIELDS["age"]}}
    page.answer(page.held(1)[0], 200, schema)

    def asked() -> Any:
        """What the page asks next; there is nothing for it."""
        request = page.held(len(page.paused) + 1)[-1]
        page.answer(request, 200, {"user": None, "path": "cold", "items": []})
        return json.loads(request["request"]["postData"])

    assert asked() == {"k": 10}
    page.focus("slider", "Age, slider")
    page.press("ArrowUp")
    assert asked()["features"] == {"age": 40}
    assert page.see("document.activeElement.getAttribute('aria-valuetext')") == "40"
    page.focus("spinbutton", "Height in cm")
    page.type("1.8")
    page.click("radio", "M")
    assert asked()["features"] == {"age": 40, "height_in_cm": 1.8, "gender": "M"}
    page.focus("combobox", "Zone")
    assert page.see("[...document.activeElement.options].map((one) => one.text)") == ["Unknown", *"123456", "20"]
    set_to(page, "combobox", "Zone", "2")
    assert asked()["features"]["zone"] == 20
    page.focus("combobox", "Town")
    page.type("a new town")
    assert asked()["features"]["town"] == "a new town"
    page.click("checkbox", "walks")
    assert asked()["features"]["hobbies"] == ["walks"]
    page.focus("combobox", "Skills")
    page.type("skill 7")
    page.until("document.querySelector('[role=option]')")
    page.press("Enter")
    assert asked()["features"]["skills"] == ["skill 7"]
    page.focus("textbox", "About")
    page.type(" likes it quiet ")
    assert asked()["features"]["about"] == "likes it quiet"
    set_to(page, "Date", "Born", "1980-02-03")
    assert asked()["features"]["born"] == "1980-02-03"
    page.focus("spinbutton", "Hour")
    page.type("20")
    assert asked() == {
        "k": 10,
        "features": {
            "age": 40,
            "height_in_cm": 1.8,
            "gender": "M",
            "zone": 20,
            "town": "a new town",
            "hobbies": ["walks"],
            "skills": ["skill 7"],
            "about": "likes it quiet",
            "born": "1980-02-03",
        },
        "context": {"hour": 20},
    }
    page.until(SETTLED)
    assert said(page) == "Nothing is left to recommend."
    page.click("button", "Start over")
    assert asked() == {"k": 10}
    assert page.console == []
    page.close()


def test_what_comes_from_outside_is_text(page: Page) -> None:
    markup = "<img src=x onerror=alert(1)>"
    page.hold("*/recommend", "*/items?*", "*/explain")
    page.click("radio", "F")
    page.answer(page.held(1)[0], 200, answer_of(markup))
    page.answer(page.held(2)[1], 200, {"results": [{"id": markup, "metadata": {"title": markup, "genres": [markup]}}]})
    field = {"source": "user", "field": markup, "weight": None, "contribution": -2.0}
    page.answer(page.held(3)[2], 200, {"results": [{"item": markup, "score": -2.0, "fields": [field]}]})
    page.until(SETTLED)
    assert page.see(TITLES) == [markup]
    assert page.see("document.querySelector('.detail').textContent") == markup
    cells = "[...document.querySelector('.reasons tbody').rows[0].cells]"
    assert page.see(f"{cells}.map((cell) => cell.firstChild.textContent)") == [markup, "–", "−2.00"]
    assert page.see("document.images.length") == 0


def test_an_item_whose_reach_fails_can_be_removed(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    before = server.ask("schema")["n_items"]
    page.focus("textbox", "API key")
    page.type(KEY)
    page.focus("textbox", "Title")
    page.type("The Quiet Orchard")
    page.focus("textbox", "Id")
    page.type("4712")
    page.hold("*/reach")
    page.press("Enter")
    page.answer(page.held(1)[0], 503, {})
    page.until("document.querySelector('.card .message')")
    assert (
        page.see("document.querySelector('.card .message').innerText") == "The service is busy. Try again in a moment."
    )
    assert server.ask("schema")["n_items"] == before + 1
    page.click("button", "Remove The Quiet Orchard")
    page.until("document.querySelector('.added').children.length === 0")
    assert server.ask("schema")["n_items"] == before
    page.close()


def test_of_items_that_are_gone_there_are_ids(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    page.hold("*/explain")
    page.click("radio", "F")
    field = {"source": "history", "field": 987654, "weight": 1.0, "contribution": 0.5}
    item = server.ask("recommend", {"features": {"gender": "F"}, "k": 1})["items"][0]["id"]
    page.answer(page.held(1)[0], 200, {"results": [{"item": item, "score": 0.5, "fields": [field]}]})
    page.until(SETTLED)
    assert contributions(page) == {"987654": 0.5}
    page.close()


def test_a_made_up_item_reaches_users_and_is_removed(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    before = server.ask("schema")["n_items"]
    page.focus("textbox", "Title")
    page.type("The Quiet Orchard")
    page.click("checkbox", "Drama")
    page.click("checkbox", "War")
    page.focus("textbox", "Id")
    page.type("4711")
    page.focus("textbox", "API key")
    page.type("wrong")
    page.press("Enter")
    page.until("document.querySelector('#item [role=alert]').innerText")
    told = page.see("document.querySelector('#item [role=alert]').innerText")
    assert told == "The service did not accept this API key."
    assert server.ask("schema")["n_items"] == before

    page.see("document.activeElement.value = ''")
    page.type(KEY)
    set_to(page, "textbox", "Id", "5")
    page.press("Enter")
    page.until("document.querySelector('#item [role=alert]').innerText.includes('already')")
    assert server.ask("schema")["n_items"] == before
    set_to(page, "textbox", "Id", "4711")
    page.press("Enter")
    page.until("document.querySelector('.reached')")
    page.until(SETTLED)
    assert server.ask("schema")["n_items"] == before + 1
    [kept] = server.ask("items?ids=4711")["results"]
    assert kept["metadata"]["title"] == "The Quiet Orchard"
    assert sorted(kept["metadata"]["genres"]) == ["Drama", "War"]
    assert page.see("document.querySelector('#item [role=alert]').hidden")
    users = server.ask("reach", {"items": [4711], "k": 10})["results"][0]["users"]
    reached = page.see("[...document.querySelectorAll('.reached button')].map((node) => node.firstChild.textContent)")
    assert reached == [f"User {user['id']}" for user in users]
    scores = page.see("[...document.querySelectorAll('.reached .score')].map((node) => node.textContent)")
    assert [number(score) for score in scores] == pytest.approx([user["score"] for user in users], abs=0.006)

    page.click("button", f"User {users[1]['id']} show the list")
    page.until(SETTLED)
    assert page.see("document.activeElement.id") == "list"
    assert said(page).startswith(f"10 items for user {users[1]['id']},")
    assert page.see(TITLES) == server.titles(user=users[1]["id"], k=10)

    page.click("button", "Remove The Quiet Orchard")
    page.until("document.querySelector('.added').children.length === 0")
    page.until(SETTLED)
    assert server.ask("schema")["n_items"] == before
    assert page.see("document.querySelector('#item [role=status]').innerText") == "Removed 4711."
    # The key was kept nowhere else.
    assert page.see("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    assert page.see("location.href") == server.address
    # The browser tells of these itself: the wrong key, the id that was free.
    assert [line for line in page.console if "401" not in line and "422" not in line] == []
    page.close()

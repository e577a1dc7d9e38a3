"""The page in a browser: it fits, it is legible, it can be used without a mouse, and its files hold no surprises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser import Browser, Page
from tests.serving.page import SETTLED, TITLES, Server, opened

STATIC = Path(__file__).resolve().parents[2] / "recsys" / "serving" / "static"
ROLES = ("button", "checkbox", "combobox", "group", "radio", "region", "slider", "spinbutton", "table", "textbox")

# What reaches out of the page.
TOO_WIDE = """[...document.body.querySelectorAll("*")]
  .filter((node) => node.getClientRects().length && !node.closest(".unseen, .skip"))
  .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
  .map((node) => node.outerHTML.slice(0, 100))"""

# Text whose contrast to what is behind it is below 4.5 (WCAG 2.2, 1.4.3).
TOO_PALE = """(() => {
  const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb(colour).map((x) => linear(x / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if ((rgb(colour)[3] ?? 1) === 1) return colour;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || !node.getClientRects().length || node.closest(".unseen, noscript, option")) continue;
    const [one, other] = [getComputedStyle(node).color, behind(node)].map(light).sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) found.push(text.data);
  }
  return found;
})()"""

# What one points at, and is smaller than 24 pixels (WCAG 2.2, 2.5.8), but for text in a line.
TOO_SMALL = """[...document.querySelectorAll("button, input, select, .pill")]
  .filter((node) => !node.matches(".why, .pill > input"))
  .filter((node) => node.getClientRects().length)
  .filter((node) => Math.min(node.offsetWidth, node.offsetHeight) < 24)
  .map((node) => node.outerHTML.slice(0, 100))"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 800, 1280, 1920])
def test_the_page_fits_and_is_legible(browser: Browser, server: Server, width: int, dark: bool) -> None:
    page = opened(browser, server, width, 900, dark=dark)
    page.click("radio", "F")
    page.until(SETTLED)
    page.see("document.querySelector('.why').click()")
    assert page.see("document.documentElement.scrollWidth") == width
    assert page.see(TOO_WIDE) == []
    assert page.see(TOO_PALE) == []
    assert page.see(TOO_SMALL) == []
    background = page.see("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 150) == dark
    assert page.console == []
    page.close()


def test_everything_has_a_name_and_is_reached_in_order(page: Page) -> None:
    for role in ROLES:
        assert page.names(role) != [], role
        assert all(page.names(role)), role
    assert page.names("heading") == [
        "Recommendations, and why",
        "Who is asking",
        "Recommended",
        "What counts",
        "Add an item",
    ]
    page.press("Tab")
    assert page.focused() == "Skip to the recommendations"
    page.press("Enter")
    assert page.see("document.activeElement.id") == "list"
    seen = []
    for _ in range(4):
        page.press("Tab")
        seen.append(page.focused())
        assert page.see("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    first, second = page.see(TITLES)[:2]
    assert seen == [f"{first} why?", f"Pick {first}", f"{second} why?", f"Pick {second}"]
    page.press("Tab", shift=True)
    assert page.focused() == f"{second} why?"
    page.press(" ")
    assert page.see("document.activeElement.ariaPressed") == "true"


@pytest.mark.parametrize("still", [False, True])
def test_rows_move_unless_somebody_prefers_less_motion(browser: Browser, server: Server, still: bool) -> None:
    page = opened(browser, server, still=still)
    page.see("""{
        window.moves = 0;
        const animate = Element.prototype.animate;
        Element.prototype.animate = function (...given) { window.moves += 1; return animate.apply(this, given); };
    }""")
    page.click("radio", "F")
    page.until(SETTLED)
    assert (page.see("window.moves") > 0) == (not still)
    durations = "getComputedStyle(document.querySelector('.bar > span')).transitionDuration"
    assert (page.see(durations) == "0s") == still
    page.close()


def test_files_are_small_and_hold_no_markup_in_scripts_nor_addresses() -> None:
    files = {path.name: path.read_text() for path in STATIC.iterdir()}
    assert {"index.html", "style.css", "main.js", "icon.svg"} <= set(files)
    for name, text in files.items():
        assert text.count("\n") < 300, name
        assert max(map(len, text.split("\n"))) < 200, name
        assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", text) == []
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
    assert re.findall(r"\sstyle=|\son[a-z]+=|<style|<script(?! type=\"module\" src=)", files["index.html"]) == []

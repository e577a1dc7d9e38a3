"""The page of a report in a browser: it renders, sorts and fits, on a desk and on a phone."""

from __future__ import annotations

import html
import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recsys import EASE, ContentKNN, ContrastiveRecommender, FeatureTable, Popularity
from recsys.datasets import make_movielens_like
from recsys.evaluation import (
    BothColdSplit,
    Evaluator,
    ItemColdSplit,
    LeaveLastOut,
    Report,
    UserColdSplit,
    field_weights,
)
from recsys.exceptions import RecsysWarning

WIDTHS = {"desk": 1280, "phone": 390}

# Each width is a frame, as a window of Chromium has at least 500 pixels. What is found goes into the page around the
# frames, which the browser then prints.
PROBE = """
"use strict";
const found = {};
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument;
  const visible = (one) => one.getClientRects().length > 0;
  const inBox = (one) => one.parentElement.closest(".scroll, .unseen, svg") !== null || one.closest(".unseen") !== null;
  const tooWide = [...page.body.querySelectorAll("*")]
    .filter((one) => visible(one) && !inBox(one) && one.getBoundingClientRect().right > frame.clientWidth + 0.5);
  const cut = [...page.querySelectorAll("svg.chart text")].filter((one) => {
    const [text, chart] = [one, one.ownerSVGElement].map((each) => each.getBoundingClientRect());
    return text.left < chart.left - 1 || text.right > chart.right + 1 || text.bottom > chart.bottom + 1;
  });
  const column = (table, i) => [...table.tBodies[0].rows].map((row) => row.cells[i]?.dataset.v ?? null);
  const sorted = [];
  for (const table of page.querySelectorAll("table:has(thead button)")) {
    for (const button of table.querySelectorAll("thead button")) {
      const head = button.parentElement;
      for (let i = 0; i < 2; i++) {
        button.click();
        const n = table.querySelectorAll("[aria-sort]").length;
        sorted.push([head.getAttribute("aria-sort"), n, column(table, head.cellIndex)]);
      }
    }
  }
  const button = page.querySelector("thead button");
  button.focus();
  const row = page.querySelector("#curves [data-m]");
  row.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  found[frame.id] = {
    sorted,
    tooWide: tooWide.map((one) => one.outerHTML.slice(0, 200)),
    cut: cut.map((one) => one.textContent),
    scrollWidth: page.documentElement.scrollWidth,
    focused: page.activeElement === button && button.tabIndex === 0,
    dimmed: page.querySelectorAll("#curves .dim").length,
    series: page.querySelectorAll("#curves [data-m]").length,
    heights: [...page.querySelectorAll("svg.chart")].map((one) => one.getBoundingClientRect().height),
    colour: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
  };
}
document.body.textContent = JSON.stringify(found);
document.body.dataset.done = "yes";
"""


@pytest.fixture(scope="module")
def page() -> str:
    data = make_movielens_like(n_users=60, n_items=40, n_interactions=1200, random_state=0)
    models = {
        "Popularity": Popularity(),
        "EASE": EASE(l2=20.0),
        "</script><b>" + "x" * 40: ContentKNN(),
        "Failed": EASE(),
    }

    class Broken(EASE):
        def fit(self, *_: Any, **__: Any) -> Broken:
            raise MemoryError("no room for " + "y" * 200)

    models["Failed"] = Broken()
    with pytest.warns(RecsysWarning, match="no room"):
        found = Evaluator(
            [UserColdSplit(k=(0, 1, 5)), ItemColdSplit(hot_test_size=0.1)],
            groups=("history", "popularity"),
            n_resamples=50,
        ).evaluate(models, data)
    variants: dict[str, Any] = {"whole": EASE(l2=20.0), "without a penalty": EASE(l2=1e-3), "of none": Popularity()}
    rates: dict[str, Any] = {f"{rate:g}": EASE(l2=1 / rate) for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)}
    evaluator = Evaluator([UserColdSplit(k=(1, 5)), LeaveLastOut()], baseline="whole", n_resamples=50)
    ablation = evaluator.evaluate(variants, data)
    evaluator = Evaluator([LeaveLastOut(), UserColdSplit(k=(5,))], baseline="0.001", n_resamples=50)
    return Report(
        found,
        title="A title of some length, with a word" + "z" * 80,
        notes="A note.",
        weights=weights(data),
        ablation=ablation,
        learning_rates=evaluator.evaluate(rates, data),
    ).to_html()


def weights(data: Any) -> pd.DataFrame:
    """Of an untrained model, by groups of all kinds."""
    X = data.interactions[["user_id", "item_id"]]
    [split] = BothColdSplit(k=(2,), random_state=0).splits(X)
    train, revealed = X.iloc[split.train], X.iloc[split.revealed]
    features = {"user_features": FeatureTable(data.users), "item_features": FeatureTable(data.items)}
    model = ContrastiveRecommender(max_iter=1, random_state=0).fit(train, **features)
    few_shot = revealed[revealed["user_id"].isin(revealed["user_id"].unique()[::2])]
    return field_weights(model, pd.concat([train, X.iloc[split.test]]), train, few_shot)


def shown(chromium: str, page: str, folder: Path, dark: bool) -> tuple[dict[str, Any], list[str]]:
    """What the probe finds in frames of both widths, and what the console says."""
    frames = "".join(
        f'<iframe id="{name}" style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(page)}"></iframe>'
        for name, width in WIDTHS.items()
    )
    file = folder / "frames.html"
    file.write_text(
        f'<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body>{frames}'
        f"<script>window.addEventListener('load', () => {{{PROBE}}});</script>",
        encoding="utf-8",
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",
        "--no-first-run",
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--window-size=1400,1000",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    done = subprocess.run([chromium, *options, file.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    body = done.stdout.split('data-done="yes">')[1].split("</body>")[0]
    return json.loads(html.unescape(body)), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_works_on_a_desk_and_on_a_phone(chromium: str, page: str, tmp_path: Path, dark: bool) -> None:
    found, console = shown(chromium, page, tmp_path, dark)
    assert console == []
    assert set(found) == set(WIDTHS)
    for name, seen in found.items():
        assert seen["tooWide"] == []
        assert seen["cut"] == []
        assert seen["scrollWidth"] == WIDTHS[name]
        assert seen["focused"]
        assert seen["dimmed"] == seen["series"] - 1 > 0
        assert len(seen["heights"]) > 5
        assert min(seen["heights"]) > 80
        assert (sum(map(int, seen["colour"].strip("rgb()").split(","))) < 150) == dark
        assert len(seen["sorted"]) > 40
        for order, n_sorted, values in seen["sorted"]:
            assert n_sorted == 1
            known = [value for value in values if value is not None]
            # What has no value stays last.
            assert values[: len(known)] == known
            if known[0].replace(".", "").replace("-", "").replace("e", "").isdigit():
                numbers = [float(value) for value in known]
                assert numbers == sorted(numbers, reverse=order == "descending")
            else:
                assert known == sorted(known, key=str.lower, reverse=order == "descending")
        assert {order for order, _, _ in seen["sorted"]} == {"ascending", "descending"}

// The list of recommended items: how it has changed, a button to pick one, a button to ask why.

import {bar, scale} from "./bars.js";
import {el, unseen} from "./dom.js";
import {Keyed} from "./keyed.js";
import {aligned, counted} from "./words.js";

/** What became of the place of an item, in signs and in words. */
function movement(place, old) {
  if (old < 0) return ["new", ", new in the list"];
  const up = old - place;
  if (up === 0) return ["", ""];
  return [`${up > 0 ? "▲" : "▼"} ${Math.abs(up)}`, `, ${up > 0 ? "up" : "down"} ${counted(Math.abs(up), "place")}`];
}

export class ItemList {
  #ids = [];

  /** `picked(item)` and `asked(item)` are called by the buttons of an item. */
  constructor(section, {picked, asked, again}) {
    this.section = section;
    this.said = el("p", {class: "words", role: "status"});
    this.failed = el("div", {class: "message bad", role: "alert", hidden: true});
    this.again = again;
    this.list = el("ol", {class: "items"});
    this.rows = new Keyed(this.list, (item) => item.id, (item) => this.#row(item, picked, asked));
    section.append(this.said, this.failed, this.list);
  }

  #row(item, picked, asked) {
    const place = el("span", {class: "place", "aria-hidden": "true"});
    const moved = el("span", {class: "moved"});
    const [score, length] = [el("span", {class: "score"}), bar()];
    let now = item;
    const why = el("button", {type: "button", class: "why", "data-act": "why", "aria-pressed": "false", onclick: () => asked(now)});
    const [title, detail] = [el("span", {class: "title"}), el("span", {class: "detail"})];
    why.append(title, unseen("why?"));
    const pick = el("button", {type: "button", class: "pick", "data-act": "pick", title: "Pick", onclick: () => picked(now)});
    const node = el("li", {class: "row"}, place, why, moved, score, pick, detail, length.node);
    const update = (changed) => {
      now = changed;
      place.textContent = changed.place + 1;
      title.textContent = changed.title;
      detail.textContent = changed.detail;
      detail.hidden = changed.detail === "";
      const [sign, words] = changed.moved;
      moved.replaceChildren(el("span", {"aria-hidden": "true"}, sign), unseen(words));
      moved.classList.toggle("down", sign.startsWith("▼"));
      score.replaceChildren(unseen("score "), changed.written);
      length.show(changed.score, changed.at);
      pick.replaceChildren(unseen(`Pick ${changed.title}`));
    };
    return {node, update};
  }

  wait() {
    this.section.setAttribute("aria-busy", "true");
  }

  /** Shows items `{id, title, detail, score}`, and `words` above them. */
  show(items, words) {
    this.#settle(words);
    const scores = items.map((item) => item.score);
    const [at, write] = [scale(scores), aligned(scores)];
    // Where nothing has stayed, that all is new need not be said of each.
    const stayed = items.some((item) => this.#ids.includes(item.id));
    this.rows.show(
      items.map((item, place) => ({
        ...item, place, at, written: write(item.score),
        moved: stayed ? movement(place, this.#ids.indexOf(item.id)) : ["", ""],
      })),
    );
    this.#ids = items.map((item) => item.id);
  }

  /** Words where there is no list. */
  empty(words) {
    this.#settle(words);
    this.#clear();
  }

  fail(message) {
    this.#settle("");
    this.#clear();
    this.failed.hidden = false;
    this.failed.replaceChildren(el("p", {}, message), el("button", {type: "button", onclick: this.again}, "Try again"));
  }

  /** Marks the item whose reasons are shown, or none. */
  choose(id) {
    for (const button of this.list.querySelectorAll(".why")) button.setAttribute("aria-pressed", "false");
    this.list.children[this.#ids.indexOf(id)]?.querySelector(".why").setAttribute("aria-pressed", "true");
  }

  #clear() {
    this.rows.show([]);
    this.#ids = [];
  }

  #settle(words) {
    this.section.setAttribute("aria-busy", "false");
    this.failed.hidden = true;
    this.said.textContent = words;
  }
}

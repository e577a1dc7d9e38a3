// A search box with suggestions, and what was chosen: the combobox of the ARIA authoring practices.

import {Failure} from "./api.js";
import {el, unique, unseen} from "./dom.js";
import {Latest} from "./latest.js";
import {counted} from "./words.js";

/**
 * Chooses things `{id, title, detail}`.
 *
 * `find(typed, signal)` resolves to suggestions; `changed(chosen)` is called when one was added or removed. With `single`,
 * a new one takes the place of the old.
 */
export class Chooser {
  chosen = [];
  #found = [];
  #active = -1;
  // Suggestions are on their way; the first of them is wanted, as Enter was pressed meanwhile.
  #isPending = false;
  #isEntered = false;
  #search = new Latest(120);

  constructor(name, {find, changed, single = false, placeholder = ""}) {
    this.find = find;
    this.changed = changed;
    this.single = single;
    const [id, listId] = [unique("search"), unique("found")];
    this.input = el("input", {
      id, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", placeholder,
      "aria-expanded": "false", "aria-controls": listId, "aria-autocomplete": "list",
      oninput: () => this.#open(), onclick: () => this.#open(), onblur: () => this.#close(),
      onkeydown: (event) => this.#key(event),
    });
    // The input keeps the focus while one points at its list.
    this.list = el("ul", {id: listId, role: "listbox", "aria-label": name, class: "found", hidden: true, onpointerdown: (event) => event.preventDefault()});
    this.said = el("p", {class: "words small", role: "status"});
    this.chips = el("ul", {class: "chips", "aria-label": `${name}: chosen`, hidden: true});
    this.node = el(
      "div", {class: "field chooser"}, el("label", {for: id}, name), el("div", {class: "box"}, this.input, this.list), this.said, this.chips,
    );
  }

  /** Shows what is chosen. */
  show(chosen) {
    const at = [...this.chips.children].findIndex((chip) => chip.contains(document.activeElement));
    this.chosen = chosen;
    this.chips.hidden = chosen.length === 0;
    this.chips.replaceChildren(
      ...chosen.map((one) =>
        el(
          "li", {class: "chip"}, el("span", {}, one.title),
          el("button", {type: "button", onclick: () => this.#set(this.chosen.filter(({id}) => id !== one.id))}, unseen(`Remove ${one.title}`)),
        ),
      ),
    );
    if (at >= 0) (this.chips.children[Math.min(at, chosen.length - 1)]?.querySelector("button") ?? this.input).focus();
  }

  #set(chosen) {
    this.show(chosen);
    this.changed(chosen);
  }

  #open() {
    [this.#isPending, this.#isEntered] = [true, false];
    this.#search.run(
      async (signal) => {
        const taken = new Set(this.chosen.map(({id}) => id));
        const found = await this.find(this.input.value.trim(), signal);
        this.#offer(found.filter(({id}) => !taken.has(id)));
      },
      (error) => {
        this.#close();
        if (!(error instanceof Failure)) throw error;
        this.said.textContent = error.message;
      },
    );
  }

  #offer(found) {
    this.#found = found;
    this.#isPending = false;
    if (this.#isEntered && found.length) {
      this.#choose(0);
      return;
    }
    this.list.replaceChildren(
      ...found.map((one, i) =>
        el(
          "li", {role: "option", id: `${this.list.id}-${i}`, "aria-selected": "false", onclick: () => this.#choose(i)},
          el("span", {}, one.title), one.detail ? el("small", {}, one.detail) : null,
        ),
      ),
    );
    this.list.hidden = found.length === 0;
    this.input.setAttribute("aria-expanded", String(found.length > 0));
    this.said.replaceChildren(
      found.length ? unseen(`${counted(found.length, "suggestion")}: arrow keys to choose.`) : "Nothing found.",
    );
    this.#activate(-1);
  }

  #activate(i) {
    this.list.children[this.#active]?.setAttribute("aria-selected", "false");
    this.#active = i;
    const option = this.list.children[i];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({block: "nearest"});
    if (option) this.input.setAttribute("aria-activedescendant", option.id);
    else this.input.removeAttribute("aria-activedescendant");
  }

  #close() {
    this.#search.cancel();
    this.#isPending = false;
    this.list.hidden = true;
    this.list.replaceChildren();
    this.said.textContent = "";
    this.input.setAttribute("aria-expanded", "false");
    this.#activate(-1);
  }

  #choose(i) {
    const one = this.#found[i];
    this.input.value = "";
    this.#close();
    this.#set(this.single ? [one] : [...this.chosen, one]);
  }

  #key(event) {
    const n = this.list.hidden ? 0 : this.#found.length;
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (step !== undefined && n === 0) this.#open();
    else if (step !== undefined) this.#activate((this.#active + step + (this.#active < 0 && step < 0 ? 1 : 0) + n) % n);
    else if (event.key === "Enter" && this.#isPending) this.#isEntered = true;
    else if (event.key === "Enter" && n) this.#choose(Math.max(this.#active, 0));
    else if (event.key === "Escape" && n) this.#close();
    else if (event.key !== "Enter") return;
    event.preventDefault();
  }
}

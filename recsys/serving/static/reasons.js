// The weights of the fields, and what each adds to a score: of one item, or on average over the list.

import {bar, scale} from "./bars.js";
import {el} from "./dom.js";
import {Keyed} from "./keyed.js";
import {condensed, keyOf, mean} from "./shares.js";
import {aligned, counted, label} from "./words.js";

export class Reasons {
  #explained = [];
  #titles = new Map();

  /** `all()` is called to go back from one item to the list. */
  constructor(section, all) {
    this.section = section;
    this.of = el("p", {class: "words of", role: "status"});
    this.all = el("button", {type: "button", onclick: all, hidden: true}, "Average of the list");
    this.body = el("tbody");
    this.total = el("td");
    this.table = el(
      "table", {class: "reasons", "aria-labelledby": `${section.id}-title`},
      el("thead", {}, el("tr", {}, ...["Field", "Weight", "Adds"].map((name) => el("th", {scope: "col"}, name)))),
      this.body,
      el("tfoot", {}, el("tr", {}, el("th", {scope: "row", colspan: 2}, "Score"), this.total)),
    );
    this.rows = new Keyed(this.body, keyOf, ({source}) => this.#row(source));
    section.append(el("div", {class: "head"}, this.of, this.all), this.table);
  }

  #row(source) {
    const [name, weighed, added] = [el("span"), el("span"), el("span")];
    const [ofWeight, ofPart] = [bar("of-weight"), bar()];
    const node = el(
      "tr", {},
      el("th", {scope: "row"}, name, source ? el("small", {}, source) : null),
      el("td", {}, weighed, ofWeight.node), el("td", {}, added, ofPart.node),
    );
    const update = (each) => {
      name.textContent = this.#name(each);
      weighed.textContent = each.weighed;
      added.textContent = each.added;
      ofWeight.show(Math.abs(each.weight ?? 0), each.ofWeights);
      ofPart.show(each.contribution, each.ofParts);
    };
    return {node, update};
  }

  #name({source, field, others}) {
    if (others) return counted(others, "other");
    return source === "history" ? (this.#titles.get(field) ?? String(field)) : label(field);
  }

  wait() {
    this.section.setAttribute("aria-busy", "true");
  }

  /** Takes the explanations of the list's items, `{item, score, fields}`, and the titles of their history items. */
  take(explained, titles) {
    this.section.setAttribute("aria-busy", "false");
    this.#explained = explained;
    this.#titles = titles;
  }

  /** Shows those of one item `{id, title}`, or the average. */
  choose(item) {
    if (this.#explained.length === 0) return;
    const one = item && this.#explained.find((each) => each.item === item.id);
    const fields = one ? one.fields : mean(this.#explained);
    const score = one ? one.score : this.#explained.reduce((sum, each) => sum + each.score, 0) / this.#explained.length;
    this.of.textContent = one ? `Of “${item.title}”` : "On average over the list";
    this.all.hidden = !one;
    this.table.hidden = false;
    this.#show(condensed(fields), score);
  }

  #show(fields, score) {
    const parts = fields.map((each) => each.contribution);
    const weights = fields.map((each) => Math.abs(each.weight ?? 0));
    const [write, add] = [aligned(weights), aligned(parts, "exceptZero")];
    const [ofWeights, ofParts] = [scale(weights), scale(parts)];
    this.total.textContent = aligned(parts)(score);
    this.rows.show(
      fields.map((each) => ({
        ...each, ofWeights, ofParts, added: add(each.contribution), weighed: each.weight === null ? "–" : write(each.weight),
      })),
    );
  }

  /** Words instead of a table. */
  say(words) {
    this.section.setAttribute("aria-busy", "false");
    this.#explained = [];
    this.of.textContent = words;
    this.all.hidden = this.table.hidden = true;
  }
}

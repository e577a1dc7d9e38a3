// A made-up item: its fields, whom it reaches, and its removal.

import * as api from "./api.js";
import {bar, scale} from "./bars.js";
import {controls, row} from "./controls.js";
import {el, unique, unseen} from "./dom.js";
import {aligned, shown, titleField} from "./words.js";

const REACHED = 10;

const among = (told, fields) => Object.fromEntries(Object.entries(told).filter(([name]) => Object.hasOwn(fields, name)));

/** What is asked of an item: its title first; a field that is a feature and metadata as well is asked for once. */
function asked({item_fields, metadata_fields}) {
  const title = titleField(metadata_fields);
  const fields = {...metadata_fields, ...item_fields};
  if (title === null) return fields;
  const {[title]: _, ...others} = fields;
  // What takes a whole line comes last.
  const isWide = ([, {kind, values}]) => Number(kind !== "numeric" && kind !== "text" && values?.length > 0);
  return Object.fromEntries([[title, {kind: "text"}], ...Object.entries(others).sort((a, b) => isWide(a) - isWide(b))]);
}

/** Fills `section`; `changed()` is called when the catalogue has, `showUser(id)` to see a user's list. */
export function itemForm(section, schema, {changed, showUser}) {
  const fields = controls(asked(schema), () => {});
  const [idOf, keyOf] = [unique("id"), unique("key")];
  const id = el("input", {id: idOf, type: "text", required: true, autocomplete: "off", spellcheck: "false"});
  // The key is kept in its field alone, for as long as the page is open.
  const hint = el("p", {id: unique("hint"), class: "words hint"}, "If the service has one. This page forgets it when it closes.");
  const key = el("input", {id: keyOf, type: "password", autocomplete: "off", "aria-describedby": hint.id});
  const add = el("button", {type: "submit", class: "primary"}, "Add and see whom it reaches");
  const said = el("p", {class: "words", role: "status"});
  const failed = el("p", {class: "message bad", role: "alert", hidden: true});
  const nothing = el("p", {class: "words nothing"}, "Whom your item reaches is shown here.");
  const added = el("ul", {class: "added", "aria-label": "Added items"});
  const form = el(
    "form", {onsubmit: submit},
    el("div", {class: "fields"}, ...fields.nodes),
    el("div", {class: "fields"}, row("Id", idOf, id), row("API key", keyOf, key, hint)),
    el("div", {class: "actions"}, add, said), failed,
  );
  section.append(el("div", {class: "sides"}, form, el("div", {}, nothing, added)));

  // One after the other; a button that is disabled would lose the focus.
  async function attempt(work) {
    if (form.ariaBusy === "true") return;
    form.ariaBusy = "true";
    failed.hidden = true;
    said.textContent = "";
    try {
      await work();
    } catch (error) {
      failed.textContent = api.inWords(error);
      failed.hidden = false;
      if (!(error instanceof api.Failure)) throw error;
    } finally {
      form.ariaBusy = "false";
      nothing.hidden = added.children.length > 0;
    }
  }

  function submit(event) {
    event.preventDefault();
    const told = fields.read();
    const item = {features: among(told, schema.item_fields), metadata: among(told, schema.metadata_fields)};
    attempt(async () => {
      const one = await api.addItem(id.value.trim(), item, key.value);
      changed();
      added.prepend(card(shown(one, schema), await reached(one.id)));
      said.textContent = `Added ${one.id}.`;
    });
  }

  function card(item, whom) {
    const remove = () =>
      attempt(async () => {
        await api.removeItem(item.id, key.value);
        node.remove();
        said.textContent = `Removed ${item.id}.`;
        id.focus();
        changed();
      });
    const button = el("button", {type: "button", onclick: remove}, "Remove", unseen(` ${item.title}`));
    const detail = item.detail ? el("p", {class: "words"}, item.detail) : null;
    const node = el("li", {class: "card"}, el("div", {class: "head"}, el("h3", {}, item.title), button), detail, ...whom);
    return node;
  }

  async function reached(item) {
    if (schema.n_users === 0) return [el("p", {class: "words"}, "The service knows no users, so whom it reaches cannot be told.")];
    try {
      return listed(await api.reach(item, REACHED));
    } catch (error) {
      // The item is there all the same, and can be removed.
      return [el("p", {class: "message bad"}, api.inWords(error))];
    }
  }

  function listed(users) {
    if (users.length === 0) return [el("p", {class: "words"}, "It reaches nobody yet.")];
    const scores = users.map((user) => user.score);
    const [at, write] = [scale(scores), aligned(scores, "exceptZero")];
    const rows = users.map((user) => {
      const length = bar();
      length.show(user.score, at);
      const show = el("button", {type: "button", class: "why", onclick: () => showUser(user.id)}, `User ${user.id}`, unseen("show the list"));
      return el("li", {}, show, length.node, el("span", {class: "score"}, write(user.score)));
    });
    const meaning = "How far above the mean of a user’s own scores, in their standard deviations.";
    return [el("h4", {}, "Whom it reaches first"), el("p", {class: "words small"}, meaning), el("ol", {class: "reached"}, ...rows)];
  }
}

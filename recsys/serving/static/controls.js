// A control for a field of the schema: what is typed or chosen, as the service reads it, or undefined.

import {Chooser} from "./chooser.js";
import {el, unique} from "./dom.js";
import {label, written} from "./words.js";

// So many values are shown at once; of more, one chooses from a menu or by typing.
const PILLS = 5;
const BOXES = 24;
// A schema tells of no more: there may be others.
const MOST = 200;

// A vector cannot be typed.
const KINDS = {numeric, categorical, "multi-hot": multiHot, text, date};

/** Controls for those fields that can be typed: `{node, read, clear}`; `changed()` is called when a value changes. */
export function controls(fields, changed) {
  const made = Object.entries(fields).flatMap(([name, field]) => {
    const make = KINDS[field.kind.replace("_", "-")];
    return make ? [[name, make(label(name), field, changed)]] : [];
  });
  return {
    nodes: made.map(([, control]) => control.node),
    clear: () => made.forEach(([, control]) => control.clear()),
    read: () => Object.fromEntries(made.map(([name, {read}]) => [name, read()]).filter(([, value]) => value !== undefined)),
  };
}

function numeric(name, {low, high}, changed) {
  const id = unique("number");
  const input = el("input", {id, type: "number", step: "any", placeholder: "–", inputmode: "decimal"});
  const read = () => (Number.isFinite(input.valueAsNumber) ? input.valueAsNumber : undefined);
  if (!(low < high)) {
    input.addEventListener("input", changed);
    return {node: row(name, id, input), read, clear: () => (input.value = "")};
  }
  const whole = Number.isInteger(low) && Number.isInteger(high);
  const slider = el("input", {
    type: "range", min: low, max: high, step: whole ? 1 : (high - low) / 200, "aria-label": `${name}, slider`,
  });
  const show = () => {
    const value = read();
    slider.value = value ?? (low + high) / 2;
    slider.classList.toggle("unknown", value === undefined);
    slider.setAttribute("aria-valuetext", value === undefined ? "unknown" : written(value));
  };
  slider.addEventListener("input", () => {
    input.value = written(slider.valueAsNumber);
    show();
    changed();
  });
  input.addEventListener("input", () => {
    show();
    changed();
  });
  show();
  const clear = () => {
    input.value = "";
    show();
  };
  const ends = el("span", {class: "ends", "aria-hidden": "true"}, el("span", {}, written(low)), el("span", {}, written(high)));
  return {node: row(name, id, el("div", {class: "slide"}, el("div", {}, slider, ends), input)), read, clear};
}

function categorical(name, field, changed) {
  const values = field.values ?? [];
  if (values.length === 0) return text(name, field, changed);
  if (values.length <= PILLS) return radios(name, values, changed);
  if (values.length >= MOST) return proposed(name, values, changed);
  const id = unique("menu");
  const order = [...values.keys()].sort((a, b) => compare(values[a], values[b]));
  const menu = el(
    "select",
    {id, onchange: changed},
    el("option", {value: ""}, "Unknown"),
    ...order.map((i) => el("option", {value: i}, written(values[i]))),
  );
  const read = () => (menu.value === "" ? undefined : values[menu.value]);
  return {node: row(name, id, menu), read, clear: () => (menu.value = "")};
}

/** Text, with values to choose from; one that is written so is meant. */
function proposed(name, values, changed) {
  const [id, list] = [unique("text"), unique("values")];
  const input = el("input", {id, type: "text", list, autocomplete: "off", oninput: changed});
  const options = el("datalist", {id: list}, ...values.map((value) => el("option", {value: written(value)})));
  const read = () => {
    const typed = input.value.trim();
    return values.find((value) => written(value) === typed) ?? (typed || undefined);
  };
  return {node: row(name, id, input, options), read, clear: () => (input.value = "")};
}

function radios(name, values, changed) {
  const group = unique("radio");
  const one = (value, text) => pill("radio", {name: group, value, checked: value === ""}, text, changed);
  const pills = [one("", "Unknown"), ...values.map((value, i) => one(i, written(value)))];
  const inputs = pills.map((each) => each.firstChild);
  return {
    node: boxes(name, pills),
    read: () => values[inputs.findIndex((input) => input.checked) - 1],
    clear: () => (inputs[0].checked = true),
  };
}

function multiHot(name, {values = []}, changed) {
  if (values.length > BOXES) return tokens(name, values, changed);
  const order = [...values].sort(compare);
  const pills = order.map((value) => pill("checkbox", {}, written(value), changed));
  const inputs = pills.map((each) => each.firstChild);
  return {
    node: boxes(name, pills),
    read() {
      const chosen = order.filter((_, i) => inputs[i].checked);
      return chosen.length ? chosen : undefined;
    },
    clear: () => inputs.forEach((input) => (input.checked = false)),
  };
}

function tokens(name, values, changed) {
  const chooser = new Chooser(name, {
    find: async (typed) =>
      values
        .filter((value) => written(value).toLowerCase().includes(typed.toLowerCase()))
        .slice(0, 20)
        .map((value) => ({id: value, title: written(value), detail: ""})),
    changed,
  });
  return {
    node: chooser.node,
    read: () => (chooser.chosen.length ? chooser.chosen.map((each) => each.id) : undefined),
    clear: () => chooser.show([]),
  };
}

function text(name, field, changed) {
  const id = unique("text");
  const input = el("input", {id, type: "text", autocomplete: "off", oninput: changed});
  return {node: row(name, id, input), read: () => input.value.trim() || undefined, clear: () => (input.value = "")};
}

function date(name, field, changed) {
  const id = unique("date");
  const input = el("input", {id, type: "date", oninput: changed});
  return {node: row(name, id, input), read: () => input.value || undefined, clear: () => (input.value = "")};
}

export const row = (name, id, ...control) => el("div", {class: "field"}, el("label", {for: id}, name), ...control);

export const boxes = (name, pills, heading = {}) =>
  el("fieldset", {class: "field"}, el("legend", heading, name), el("div", {class: "pills"}, ...pills));

export const pill = (type, attributes, text, changed) =>
  el("label", {class: "pill"}, el("input", {type, ...attributes, onchange: changed}), el("span", {}, text));

const compare = (a, b) => written(a).localeCompare(written(b), "en", {numeric: true});

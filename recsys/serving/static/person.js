// Who is asking: somebody new, told by fields, or a known user; and what they have picked.

import * as api from "./api.js";
import {Chooser} from "./chooser.js";
import {boxes, controls, pill} from "./controls.js";
import {el} from "./dom.js";
import {NOBODY} from "./store.js";
import {shown, titleField, written} from "./words.js";

const named = ({id, features = {}}) => ({id, title: String(id), detail: Object.values(features).map(written).join(" · ")});

/** Users whose ids begin as typed: the one whose id that is, and those whom the schema names. */
function users(typed, some) {
  const isNumber = typeof some[0].id === "number";
  const found = some.filter(({id}) => String(id).startsWith(typed));
  const isWhole = typed !== "" && (!isNumber || /^-?\d+$/.test(typed));
  if (isWhole && !found.some(({id}) => String(id) === typed)) found.unshift({id: isNumber ? Number(typed) : typed});
  return found.slice(0, 20).map(named);
}

/** Fills `section` with the form; it writes into the store, and follows what others write there. */
export function personForm(section, schema, store) {
  const fields = controls(schema.user_fields, () => store.change({features: fields.read()}));
  const context = controls(schema.context_fields, () => store.change({context: context.read()}));
  const user = new Chooser("Known user", {
    single: true,
    placeholder: "Type an id",
    find: async (typed) => users(typed, schema.users),
    changed: ([one]) => store.change({user: one?.id ?? null}),
  });
  const picks = new Chooser("Picked items", {
    placeholder: "Search, or press + in the list",
    find: async (typed, signal) => (await api.findItems(typed, titleField(schema.metadata_fields), signal)).map((item) => shown(item, schema)),
    changed: (chosen) => store.change({picks: chosen}),
  });

  const [fresh, known] = ["new", "known"].map((mode) =>
    pill("radio", {name: "mode", value: mode}, mode === "new" ? "Somebody new" : "A known user", () => store.change({mode})),
  );
  const described = el("div", {class: "fields"}, ...fields.nodes);
  if (fields.nodes.length === 0) described.append(el("p", {class: "words"}, "This model knows no fields of people: pick items below."));
  const startOver = el("button", {type: "button", onclick: clear}, "Start over");
  section.append(
    el(
      "form", {onsubmit: (event) => event.preventDefault()},
      schema.n_users > 0 ? boxes("Who is asking", [fresh, known], {class: "unseen"}) : null,
      described, user.node,
      context.nodes.length ? el("fieldset", {class: "fields group"}, el("legend", {}, "Situation"), ...context.nodes) : null,
      picks.node, startOver,
    ),
  );

  function clear() {
    fields.clear();
    context.clear();
    store.change({...NOBODY, mode: store.state.mode});
  }

  function follow(state) {
    fresh.firstChild.checked = state.mode === "new";
    known.firstChild.checked = state.mode === "known";
    described.hidden = state.mode !== "new";
    user.node.hidden = state.mode !== "known";
    if ((user.chosen[0]?.id ?? null) !== state.user) user.show(state.user === null ? [] : [named({id: state.user})]);
    if (picks.chosen !== state.picks) picks.show(state.picks);
  }
  store.follow(follow);
  follow(store.state);
}

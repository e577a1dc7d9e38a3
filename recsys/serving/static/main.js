// The page: asks for the schema, draws the forms, and asks again whenever somebody changes.

import * as api from "./api.js";
import {el} from "./dom.js";
import {itemForm} from "./item.js";
import {Latest} from "./latest.js";
import {ItemList} from "./list.js";
import {personForm} from "./person.js";
import {Reasons} from "./reasons.js";
import {historyItems} from "./shares.js";
import {NOBODY, Store, question} from "./store.js";
import {counted, shown, summary} from "./words.js";

const K = 10;
// Long enough to gather keystrokes, too short to be noticed.
const DELAY = 120;

const at = (id) => document.getElementById(id);

function start(schema) {
  const store = new Store(NOBODY);
  const newest = new Latest(DELAY);
  // The item whose reasons are shown; null: the whole list.
  let chosen = null;
  const list = new ItemList(at("list"), {
    picked: ({id, title, detail}) => store.change({picks: [...store.state.picks, {id, title, detail}]}),
    asked: (item) => choose(item.id === chosen?.id ? null : item),
    again: ask,
  });
  const reasons = new Reasons(at("reasons"), () => choose(null));

  function choose(item) {
    chosen = item;
    list.choose(item?.id);
    reasons.choose(item);
  }

  function nothing(words) {
    list.empty(words);
    reasons.say("Without a list, there are no reasons.");
  }

  function ask() {
    const asked = question(store.state);
    if (asked === null) {
      newest.cancel();
      nothing("Choose a user to see their list.");
      return;
    }
    list.wait();
    reasons.wait();
    newest.run((signal) => answer(asked, signal), failed);
  }

  const titled = async (ids, signal) => (await api.items(ids, signal)).map((item) => shown(item, schema));

  /** Titles by id; none where an item of a history is there no more, which the service refuses to describe. */
  async function titles(ids, signal) {
    try {
      return new Map((await titled(ids, signal)).map(({id, title}) => [id, title]));
    } catch (error) {
      if (error instanceof api.Failure) return new Map();
      throw error;
    }
  }

  async function answer(asked, signal) {
    const {path, items} = await api.recommend({...asked, k: K}, signal);
    const ids = items.map((item) => item.id);
    const described = await titled(ids, signal);
    if (ids.length === 0) {
      nothing("Nothing is left to recommend.");
      return;
    }
    list.show(items.map((item, i) => ({...item, ...described[i]})), summary(ids.length, path, asked));
    try {
      const explained = await api.explain({...asked, items: ids}, signal);
      reasons.take(explained, await titles(historyItems(explained), signal));
    } catch (error) {
      // The list stands without its reasons.
      if (!(error instanceof api.Failure)) throw error;
      reasons.say(error.message);
    }
    choose(ids.includes(chosen?.id) ? chosen : null);
  }

  function failed(error) {
    list.fail(api.inWords(error));
    reasons.say("Without a list, there are no reasons.");
    if (!(error instanceof api.Failure)) throw error;
  }

  personForm(at("person"), schema, store);
  itemForm(at("item"), schema, {
    changed: ask,
    showUser(user) {
      store.change({...NOBODY, mode: "known", user});
      at("list").focus();
    },
  });
  store.follow(ask);
  const users = schema.n_users > 0 ? [counted(schema.n_users, "known user")] : [];
  at("facts").textContent = [schema.model, counted(schema.n_items, "item"), ...users].join(" · ");
  at("desk").hidden = at("item").hidden = false;
  ask();
}

api.schema().then(start, (error) => {
  at("facts").hidden = true;
  at("failed").hidden = false;
  at("failed").append(error.message, " ", el("button", {type: "button", onclick: () => location.reload()}, "Try again"));
});

// What the page knows of who is asking, and the question that follows from it.

export const NOBODY = {mode: "new", user: null, features: {}, context: {}, picks: []};

/** A state that is replaced, never written into, and those who follow it. */
export class Store {
  #followers = [];

  constructor(state) {
    this.state = state;
  }

  /** `follower(state, before)` is called after every change. */
  follow(follower) {
    this.#followers.push(follower);
  }

  change(changes) {
    const before = this.state;
    this.state = {...before, ...changes};
    for (const follower of this.#followers) follower(this.state, before);
  }
}

const some = (values) => (Object.keys(values).length ? values : undefined);

/** The body of a request, or null where a known user is yet to be chosen. */
export function question({mode, user, features, context, picks}) {
  if (mode === "known" && user === null) return null;
  return {
    user: mode === "known" ? user : undefined,
    features: mode === "new" ? some(features) : undefined,
    context: some(context),
    interactions: picks.length ? picks.map((pick) => pick.id) : undefined,
  };
}

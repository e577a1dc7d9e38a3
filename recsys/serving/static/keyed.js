// Rows that keep their elements while their order changes, so that they can be seen to move.

const still = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Makes the children of `parent` those of `data`, in its order.
 *
 * A row is made once a key by `make(datum)`, which returns `{node, update}`, and `update(datum)` is called each time. If
 * the row that has the focus goes, the one that takes its place gets it.
 */
export class Keyed {
  #rows = new Map();

  constructor(parent, key, make) {
    this.parent = parent;
    this.key = key;
    this.make = make;
  }

  show(data) {
    const before = new Map([...this.#rows].map(([key, {node}]) => [key, node.getBoundingClientRect().top]));
    const focus = this.#focus();
    const rows = new Map();
    for (const datum of data) {
      const key = this.key(datum);
      const row = this.#rows.get(key) ?? this.make(datum);
      row.update(datum);
      rows.set(key, row);
    }
    const nodes = [...rows.values()].map((row) => row.node);
    // Moving an element takes the focus from it: only what is out of place moves.
    for (const {node} of this.#rows.values()) if (!nodes.includes(node)) node.remove();
    nodes.forEach((node, i) => {
      if (this.parent.children[i] !== node) this.parent.insertBefore(node, this.parent.children[i] ?? null);
    });
    this.#rows = rows;
    focus?.();
    if (!still.matches) this.#move(before);
  }

  /** Puts the focus back where it was, by name of the control. */
  #focus() {
    const held = document.activeElement;
    const index = [...this.parent.children].findIndex((node) => node.contains(held));
    if (index < 0) return null;
    return () => {
      if (held.isConnected) return held.focus({preventScroll: true});
      const row = this.parent.children[Math.min(index, this.parent.children.length - 1)];
      return row?.querySelector(`[data-act="${held.dataset.act}"]`)?.focus();
    };
  }

  #move(before) {
    for (const [key, {node}] of this.#rows) {
      const from = before.get(key);
      const shift = from === undefined ? 0 : from - node.getBoundingClientRect().top;
      const frames = from === undefined ? {opacity: [0, 1]} : {transform: [`translateY(${shift}px)`, "none"]};
      if (shift || from === undefined) node.animate(frames, {duration: 250, easing: "ease-out"});
    }
  }
}

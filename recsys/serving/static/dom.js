// Elements, made without markup: whatever is put in is text.

/** An element with attributes, listeners (`onclick`: a function) and children; what is null or false is left out. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

let count = 0;

/** An id that no other element has. */
export function unique(name) {
  count += 1;
  return `${name}-${count}`;
}

/** Text for screen readers alone. */
export const unseen = (...children) => el("span", {class: "unseen"}, ...children);

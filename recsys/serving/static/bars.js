// Bars on both sides of zero; numbers beside them say the same.

import {el} from "./dom.js";

/** Where a number lies between the least and the largest of `values` and zero: a share of a bar's width. */
export function scale(values) {
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  return (value) => (high > low ? (value - low) / (high - low) : 0);
}

/** A bar, and `show(value, at)`, by which it reaches from zero to a value on a scale. */
export function bar(name = "") {
  const node = el("span", {class: `bar ${name}`, "aria-hidden": "true"}, el("span"));
  const show = (value, at) => {
    const [zero, end] = [at(0), at(value)];
    node.style.setProperty("--zero", zero);
    node.style.setProperty("--start", Math.min(zero, end));
    node.style.setProperty("--length", Math.abs(end - zero));
    node.classList.toggle("less", value < 0);
    node.classList.toggle("both", zero > 0);
  };
  return {node, show};
}

"use strict";

// A failed row has no value: it stays last, whatever the order.
function compare(a, b, ascending) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  const difference = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
  return ascending ? difference : -difference;
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const before = head.getAttribute("aria-sort");
    const order = before === null ? button.dataset.first : before === "ascending" ? "descending" : "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const body = head.closest("table").tBodies[0];
    const value = (row) => row.cells[head.cellIndex]?.dataset.v;
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), order === "ascending")));
  });
}

// Where a pointer rests on a model, the charts of its section show that one alone.
for (const section of document.querySelectorAll("section")) {
  const series = section.querySelectorAll(".chart [data-m]");
  const show = (model) => {
    for (const one of series) {
      one.classList.toggle("dim", model !== undefined && one.dataset.m !== model);
      one.classList.toggle("lit", one.dataset.m === model);
    }
  };
  section.addEventListener("pointerover", (event) => show(event.target.closest("[data-m]")?.dataset.m));
  section.addEventListener("pointerleave", () => show());
}

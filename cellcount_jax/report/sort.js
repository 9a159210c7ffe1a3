"use strict";
// A click on a heading sorts the table by that column, a second one the other way round. What is
// empty stays at the end.
const table = document.querySelector("table.counts");
const collator = new Intl.Collator(undefined, { numeric: true });

function compare(a, b, numeric) {
  return numeric ? Number(a) - Number(b) : collator.compare(a, b);
}

function sort(heading) {
  const column = heading.cellIndex;
  const numeric = heading.dataset.kind === "number";
  const before = heading.getAttribute("aria-sort");
  // Of numbers the greatest are looked for first.
  const first = numeric ? "descending" : "ascending";
  const second = numeric ? "ascending" : "descending";
  const order = before === first ? second : first;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return (order === "ascending" ? 1 : -1) * compare(x, y, numeric);
  });
  table.tBodies[0].append(...rows);
}

for (const button of table.querySelectorAll("th > button")) {
  button.addEventListener("click", () => sort(button.parentElement));
}

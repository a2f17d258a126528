"use strict";
// Every column header of a sortable table becomes a button: first its natural order, then the reverse.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const falling = header.ariaSort === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.ariaSort = falling ? "descending" : "ascending";
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(a.cells[column].dataset.value, b.cells[column].dataset.value, falling ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}

// Unknown values stay last in both directions.
function compare(a, b, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const difference = Number(a) - Number(b);
  return direction * (Number.isNaN(difference) ? a.localeCompare(b, undefined, { numeric: true }) : difference);
}

// A figure tells the values of its marks beside them: of those a reader points at or taps, or, by keyboard, of one after
// the other. Without this script the marks have the browser's own tooltips.
const NEAR = 24; // in CSS pixels: a mark so near to the pointer is meant
const TOGETHER = 6; // and those hardly further
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }; // curves, places
const value = document.getElementById("value");
let shown = [];

for (const drawing of document.querySelectorAll("figure svg")) {
  const marks = [...drawing.querySelectorAll("use > title")].map((title) => {
    const mark = title.parentNode;
    mark.dataset.value = title.textContent;
    title.remove();
    return mark;
  });
  if (marks.length) tellValues(drawing, marks);
}

function tellValues(drawing, marks) {
  document.getElementById("values-hint").hidden = false;
  const point = (event) => show(marksNear(marks, event));
  drawing.addEventListener("pointermove", point);
  drawing.addEventListener("pointerdown", point);
  drawing.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show([]));

  const frame = drawing.parentElement;
  const groups = [...new Set(marks.map((mark) => mark.parentNode))];
  const curves = groups.map((group) => marks.filter((mark) => mark.parentNode === group));
  let curve = 0;
  let place = 0;
  const step = (curvesOn, placesOn) => {
    curve = within(curve + curvesOn, 0, curves.length - 1);
    place = within(place + placesOn, 0, curves[curve].length - 1);
    const mark = curves[curve][place];
    mark.scrollIntoView({ block: "nearest", inline: "nearest" });
    show([mark]);
  };
  frame.setAttribute("role", "application"); // a screen reader then hands the arrow keys on
  frame.setAttribute("aria-describedby", `${frame.getAttribute("aria-describedby")} values-hint`);
  frame.addEventListener("focus", () => frame.matches(":focus-visible") && step(0, 0));
  frame.addEventListener("blur", () => show([]));
  frame.addEventListener("keydown", (event) => {
    if (event.key === "Escape") show([]);
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    step(...STEPS[event.key]);
  });
}

function marksNear(marks, event) {
  const distances = marks.map((mark) => {
    const box = mark.getBoundingClientRect();
    return Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
  });
  const nearest = Math.min(...distances);
  return nearest > NEAR ? [] : marks.filter((_, i) => distances[i] <= nearest + TOGETHER);
}

function show(marks) {
  shown.forEach((mark) => mark.classList.remove("shown"));
  shown = marks;
  shown.forEach((mark) => mark.classList.add("shown"));
  value.textContent = shown.map((mark) => mark.dataset.value).join("\n");
  placeValue();
}

function placeValue() {
  if (!shown.length) return;
  const mark = shown[0].getBoundingClientRect();
  const { width, height } = value.getBoundingClientRect();
  const room = document.documentElement.clientWidth - width - 8;
  const above = mark.top - height - 10;
  value.style.left = `${within(mark.x + mark.width / 2 - width / 2, 8, room)}px`;
  value.style.top = `${above >= 8 ? above : mark.bottom + 10}px`;
}

function within(number, least, most) {
  return Math.max(least, Math.min(most, number));
}

addEventListener("scroll", placeValue, true);
addEventListener("resize", placeValue);
document.addEventListener("pointerdown", (event) => event.target.closest("figure svg") || show([]));

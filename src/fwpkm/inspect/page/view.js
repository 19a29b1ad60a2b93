"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
// What is shown: the place of a memory, a reading from 1, and what was chosen (null is nothing).
const view = { memory: 0, reading: data.times, token: null, slot: null, answer: null };
const followers = [];

function show(change) {
  Object.assign(view, change);
  for (const follow of followers) follow(change);
}

function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

function fill(id, ...children) {
  document.querySelector(`#${id} > .body`).replaceChildren(...children.flat());
}

function number(x) {
  if (x === null || x === undefined) return "none";
  return Math.abs(x) >= 1000 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(3)));
}

// Spaces, line feeds and control characters as signs, so that they can be seen in a list.
function visible(text) {
  if (text === "") return "(part of a character, or special)";
  const code = (sign) => `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  return text.replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5").replace(/^ | $/g, "\u2423").replace(/[\u0000-\u001f\u007f-\u009f]/g, code);
}

function word(text) {
  return make("span", { className: "word" }, visible(text));
}

function numbered(text) {
  return make("td", { className: "number" }, text);
}

// columns: names, "#name" for numbers; rows: lists of strings or elements
function list(caption, columns, rows) {
  const head = columns.map((name) => make("th", { scope: "col", className: name[0] === "#" ? "number" : "" }, name.replace("#", "")));
  const body = rows.map((row) => make("tr", {}, row.map((cell, i) => (columns[i][0] === "#" ? numbered(cell) : make("td", {}, cell)))));
  const table = make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, head)), make("tbody", {}, body));
  return make("div", { className: "scroll", tabIndex: rows.length > 8 ? 0 : -1, role: "group", "aria-label": caption }, table);
}

function facts(pairs) {
  return make("dl", {}, pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function memory() {
  return data.memories[view.memory];
}

function trace() {
  return data.readings[view.reading - 1][view.memory];
}

function table() {
  return data.tables[view.reading - 1][view.memory];
}

// Slots: what tokens read and wrote, and what is in a slot.
const indexes = new Map();

// Of the shown table: the place and the first write of each slot, and the writes of each token.
function index() {
  const own = table();
  if (!indexes.has(own)) {
    const made = { place: new Map(), first: [], ofToken: new Map() };
    let first = 0;
    own.slot.forEach((slot, i) => {
      made.place.set(slot, i);
      made.first.push(first);
      for (let e = first; e < first + own.writes[i]; e++) {
        if (!made.ofToken.has(own.token[e])) made.ofToken.set(own.token[e], []);
        made.ofToken.get(own.token[e]).push({ slot, step: own.step[e], share: own.share[e] });
      }
      first += own.writes[i];
    });
    indexes.set(own, made);
  }
  return indexes.get(own);
}

function writesOf(slot) {
  const own = table();
  if (own === null || slot === null || !index().place.has(slot)) return [];
  const i = index().place.get(slot), first = index().first[i];
  return Array.from({ length: own.writes[i] }, (_, e) => ({ token: own.token[first + e], step: own.step[first + e], share: own.share[first + e] }));
}

function saysOf(slot) {
  const own = table();
  if (own === null || !index().place.has(slot)) return [];
  const at = index().place.get(slot) * own.words;
  return Array.from({ length: own.words }, (_, i) => ({ text: data.words[own.says[at + i]], chance: own.chance[at + i] }));
}

function firstWord(slot) {
  const says = saysOf(slot);
  return says.length ? word(says[0].text) : "never written";
}

function slotButton(slot) {
  return make("button", { type: "button", onclick: () => show({ slot }), "aria-label": `slot ${slot}` }, String(slot));
}

function tokenButton(token) {
  const button = make("button", { type: "button", onclick: () => goTo(token), "aria-label": `token ${token}, ${visible(texts[token])}` });
  button.append(word(texts[token]), make("span", { className: "place" }, ` at ${token}`));
  return button;
}

function readsOf(i) {
  const own = trace(), count = memory().reads;
  const rows = Array.from({ length: count }, (_, j) => [own.slots[i * count + j], own.weights[i * count + j]]);
  return list("Read", ["slot", "#weight", "the slot says now"], rows.map(([slot, w]) => [slotButton(slot), number(w), firstWord(slot)]));
}

// The token whose value a token writes; behind the last one the next reading begins.
function targetOf(token) {
  return (token + memory().lookahead) % data.tokens;
}

function writesBy(i) {
  const rows = [];
  for (let reading = view.reading; reading >= 1; reading--) {
    for (const w of index().ofToken.get((reading - 1) * data.tokens + i) || []) {
      rows.push([slotButton(w.slot), String(reading), number(w.step), number(w.share)]);
    }
  }
  if (!rows.length) return make("p", { className: "help" }, "Wrote nothing: its target was not known when the reading ended.");
  const target = targetOf(i);
  return list(`Wrote the value of token ${target} (${visible(texts[target])})`, ["slot", "#reading", "#step", "#still there"], rows);
}

function showToken() {
  if (view.token === null) return;
  const i = view.token, gate = trace().gate;
  const about = [["text", word(texts[i])], ["place", `token ${i}, in reading ${view.reading}`]];
  if (gate !== null) about.push(["gate", number(gate[i])]);
  const none = make("p", { className: "help" }, "This memory has no slots.");
  fill("token", facts(about), trace().slots === null ? none : [readsOf(i), writesBy(i)]);
}

function showSlot() {
  if (view.slot === null) return;
  const own = table();
  if (own === null) { fill("slot", make("p", { className: "help" }, "This memory has no slots.")); return; }
  const n = memory().subkeys, writes = writesOf(view.slot).reverse();
  const parts = [facts([["slot", `${view.slot}: row ${Math.floor(view.slot / n)}, column ${view.slot % n}`], ["writes", String(writes.length)]])];
  if (!writes.length) {
    parts.push(make("p", { className: "help" }, "Nobody wrote it: it holds what every memory begins with."));
  } else {
    parts.push(list("Says now (nearest words)", ["word", "#chance"], saysOf(view.slot).map((s) => [word(s.text), number(s.chance)])));
    parts.push(list("Written by (last first)", ["token", "value of", "#reading", "#step", "#still there"], writes.map((w) => {
      const token = w.token % data.tokens, reading = Math.floor(w.token / data.tokens) + 1;
      return [tokenButton(token), word(texts[targetOf(token)]), String(reading), number(w.step), number(w.share)];
    })));
  }
  fill("slot", parts);
}

followers.push((change) => {
  const other = "memory" in change || "reading" in change;
  if (other || "token" in change) showToken();
  if (other || "slot" in change) showSlot();
});

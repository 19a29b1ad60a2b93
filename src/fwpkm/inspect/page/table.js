// The whole table: a map of its slots, how full it is, how many tokens share a slot, and how old slots are.
function rangeOf(bin) {
  return bin.low === bin.high ? number(bin.low) : `${number(bin.low)} to ${number(bin.high)}`;
}

function histogram(caption, first, bins) {
  const most = Math.max(...bins.map((bin) => bin.slots), 1);
  const rows = bins.map((bin) => {
    const bar = make("div", {});
    bar.style.setProperty("--share", bin.slots / most);
    return [rangeOf(bin), number(bin.slots), make("div", { className: "bar", "aria-hidden": "true" }, bar)];
  });
  return list(caption, [first, "#slots", ""], rows);
}

function drawMap(canvas, byAge) {
  const own = table(), n = memory().subkeys, seen = view.reading * data.tokens;
  canvas.width = canvas.height = n;
  const pen = canvas.getContext("2d"), image = pen.createImageData(n, n);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const ink = dark ? [90, 162, 238] : [43, 108, 176];
  own.slot.forEach((slot, i) => {
    const last = own.token[index().first[i] + own.writes[i] - 1];
    const strength = byAge ? 1 - (seen - 1 - last) / seen : Math.min(1, Math.log2(1 + own.writes[i]) / 5);
    image.data.set([...ink, Math.round(60 + 195 * strength)], 4 * slot);
  });
  pen.putImageData(image, 0, 0);
}

function mapOf() {
  const n = memory().subkeys, census = table().census;
  const canvas = make("canvas", { role: "img", "aria-label": `Map of ${n} by ${n} slots, ${census.written} of them written. Use the field Slot to choose one by its number.` });
  const choice = make("select", { id: "map-kind" }, make("option", { value: "age" }, "how recently written"), make("option", { value: "writes" }, "how often written"));
  choice.value = mapOf.kind;
  choice.addEventListener("change", () => { mapOf.kind = choice.value; drawMap(canvas, choice.value === "age"); });
  canvas.addEventListener("click", (event) => {
    const column = Math.floor(event.offsetX * n / canvas.clientWidth), row = Math.floor(event.offsetY * n / canvas.clientHeight);
    show({ slot: nearest(Math.min(row, n - 1), Math.min(column, n - 1), n) });
  });
  drawMap(canvas, mapOf.kind === "age");
  return make("div", {}, make("label", {}, "Stronger colour is ", choice), make("div", {}, canvas));
}
mapOf.kind = "age";

// The written slot nearest to a place of the map: its points are small.
function nearest(row, column, n) {
  let best = row * n + column, distance = 9;
  for (const slot of table().slot) {
    const d = Math.hypot(Math.floor(slot / n) - row, slot % n - column);
    if (d < distance) [best, distance] = [slot, d];
  }
  return best;
}

function showTable() {
  document.getElementById("go").disabled = table() === null;
  if (table() === null) { fill("table", make("p", { className: "help" }, "This memory has no slots.")); return; }
  const census = table().census;
  document.getElementById("go").max = census.num_slots - 1;
  const about = facts([
    ["slots", number(census.num_slots)],
    ["written", `${number(census.written)} (${number(100 * census.occupancy)}%)`],
    ["written by several tokens", `${number(census.collided)} (${number(100 * census.collided / Math.max(census.written, 1))}% of these)`],
    ["middle age", census.median_age === null ? "none" : `${number(census.median_age)} tokens since the last write`],
    ["chunk", `${number(memory().chunk)} tokens`],
  ]);
  fill("table", make("div", { className: "map" }, mapOf(), make("div", {}, about,
    histogram("Collisions: tokens that wrote a slot", "tokens", census.writers),
    histogram("Age: tokens since the last write", "tokens", census.ages))));
}

followers.push((change) => { if ("memory" in change || "reading" in change) showTable(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTable);

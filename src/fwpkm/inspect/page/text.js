// The document: shading, choosing tokens, moving among them.
const box = document.getElementById("text");
const tokens = Array.from(box.children);
const texts = tokens.map((token) => token.textContent);

function shade() {
  const gate = trace().gate;
  tokens.forEach((token, i) => {
    const open = gate === null ? null : gate[i];
    token.style.setProperty("--gate", open === null ? 0 : open);
    token.setAttribute("aria-label", `${visible(texts[i])}, token ${i}` + (open === null ? "" : `, gate ${number(open)}`));
  });
}

function rove(i, focus) {
  const old = box.querySelector('[tabindex="0"]');
  if (old) old.tabIndex = -1;
  tokens[i].tabIndex = 0;
  if (focus) tokens[i].focus();
}

function markChosen() {
  for (const old of box.querySelectorAll('[aria-selected="true"]')) old.setAttribute("aria-selected", "false");
  if (view.token !== null) tokens[view.token].setAttribute("aria-selected", "true");
}

function markWriters() {
  for (const old of box.querySelectorAll(".wrote")) old.classList.remove("wrote");
  // Stronger where more is left, over all readings: most writes of a closed gate leave nothing to speak of.
  const writes = writesOf(view.slot), kept = new Map();
  for (const write of writes) kept.set(write.token % data.tokens, (kept.get(write.token % data.tokens) || 0) + Math.abs(write.share));
  const most = Math.max(...kept.values(), 1e-9);
  for (const [token, share] of kept) {
    tokens[token].classList.add("wrote");
    tokens[token].style.setProperty("--kept", share / most);
  }
}

function markSources() {
  for (const old of box.querySelectorAll(".source")) old.classList.remove("source");
  if (view.answer === null) return;
  const sources = view.answer.sources;
  const most = Math.max(...sources.map((source) => Math.abs(source.weight)), 1e-9);
  // The strongest last, where a token is the source of two reads.
  for (const source of [...sources].reverse()) {
    tokens[source.token].classList.add("source");
    tokens[source.token].style.setProperty("--strength", Math.abs(source.weight) / most);
  }
}

// The token above or below, by where it stands on the page.
function beside(i, down) {
  const here = tokens[i].getBoundingClientRect();
  const step = down ? 1 : -1;
  let best = i, distance = Infinity, line = null;
  for (let j = i + step; j >= 0 && j < tokens.length; j += step) {
    const there = tokens[j].getBoundingClientRect();
    if (Math.abs(there.top - here.top) < 4) continue;
    if (line !== null && Math.abs(there.top - line) > 4) break;
    line = there.top;
    if (Math.abs(there.left - here.left) < distance) [best, distance] = [j, Math.abs(there.left - here.left)];
  }
  return best;
}

function onKey(event) {
  const i = tokens.indexOf(event.target);
  if (i < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
  const goals = {
    ArrowRight: () => i + 1, ArrowLeft: () => i - 1, ArrowDown: () => beside(i, true), ArrowUp: () => beside(i, false),
    Home: () => 0, End: () => tokens.length - 1,
  };
  if (event.key in goals) rove(Math.min(Math.max(goals[event.key](), 0), tokens.length - 1), true);
  else if (event.key === "Enter" || event.key === " ") show({ token: i });
  else return;
  event.preventDefault();
}

box.addEventListener("keydown", onKey);
box.addEventListener("click", (event) => {
  const i = tokens.indexOf(event.target);
  if (i >= 0) { rove(i, true); show({ token: i }); }
});

function goTo(token) {
  rove(token, false);
  tokens[token].scrollIntoView({ block: "nearest" });
  show({ token });
}

followers.push((change) => {
  if ("memory" in change || "reading" in change) shade();
  if ("token" in change) markChosen();
  if ("slot" in change || "memory" in change || "reading" in change) markWriters();
  if ("answer" in change) markSources();
});

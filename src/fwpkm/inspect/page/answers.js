// Answers, and where they came from; with a server behind the page, one may ask more.
function answerBlock(answer) {
  const chosen = view.answer === answer;
  const button = make("button", { type: "button", "aria-pressed": String(chosen), onclick: () => show({ answer: chosen ? null : answer }) }, chosen ? "Hide its sources" : "Show its sources");
  const parts = [facts([["question", word(answer.question)], ["answer", word(answer.text)]]), button];
  if (chosen) {
    const rows = answer.sources.map((source) => [tokenButton(source.token), String(source.layer), String(source.reading), number(source.weight)]);
    parts.push(rows.length ? list("Sources, the strongest first", ["token", "#layer", "#reading", "#weight"], rows) : make("p", { className: "help" }, "No slot that was read had been written."));
  }
  return make("div", { className: "answer" }, parts);
}

function showAnswers() {
  const own = data.answers.filter((answer) => answer.reading === view.reading);
  fill("answers", own.length ? own.map(answerBlock) : make("p", { className: "help" }, data.live ? "Nothing asked yet after this reading." : "No question was asked when this page was made (--question)."));
}

async function ask(question) {
  const state = document.getElementById("ask-state");
  state.textContent = "asking\u2026";
  try {
    const reply = await fetch("api/ask", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ question, reading: view.reading }) });
    const found = await reply.json();
    if (!reply.ok) throw new Error(found.error);
    data.answers.push(found);
    state.textContent = "";
    show({ reading: found.reading, answer: found });
  } catch (error) {
    state.textContent = String(error.message);
  }
}

if (data.live) {
  const form = document.getElementById("ask");
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(document.getElementById("question").value);
  });
}

// The same question after another reading, where it was asked there too.
function sameQuestion() {
  const old = view.answer;
  if (old === null || old.reading === view.reading) return old;
  return data.answers.find((answer) => answer.reading === view.reading && answer.question === old.question) || null;
}

followers.push((change) => {
  if ("reading" in change) {
    view.answer = sameQuestion();
    markSources();
  }
  if ("reading" in change || "answer" in change) showAnswers();
});

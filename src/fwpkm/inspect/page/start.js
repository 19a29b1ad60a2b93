// The controls, and the first view.
const slider = document.getElementById("reading");
const chooser = document.getElementById("memory");
const go = document.getElementById("go");

document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
slider.disabled = data.times === 1;
slider.addEventListener("input", () => show({ reading: Number(slider.value) }));
chooser.addEventListener("change", () => show({ memory: Number(chooser.value) }));
go.addEventListener("change", () => {
  const slot = Number(go.value);
  if (go.value !== "" && Number.isInteger(slot) && slot >= 0 && slot <= Number(go.max)) show({ slot });
});
followers.push(() => {
  slider.value = view.reading;
  document.getElementById("reading-now").textContent = view.reading;
  if (view.slot !== null) go.value = view.slot;
});

rove(0, false);
show({ memory: 0, reading: data.times, answer: data.answers.find((answer) => answer.reading === data.times) || null });

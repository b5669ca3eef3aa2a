// The page: its text, the step control, and when the figures are drawn.

const figures = { routing, plane, emergence, loss, entropy, slices: table };
const control = document.getElementById("step");
const chosen = snapshots.step.length ? snapshots.step : probes.step;

function show(index) {
  drawn.step = chosen.length ? chosen[index] : 0;
  if (snapshots.step.length) drawn.snapshot = atOrBefore(snapshots.step, drawn.step);
  if (probes.step.length) drawn.probe = atOrBefore(probes.step, drawn.step);
  control.querySelector("output").textContent = `step ${grouped(drawn.step)} \u00b7 ${metric(tokensOf(drawn.step))} tokens`;
  for (const figure of Object.values(figures)) figure.update();
}

function redraw() {
  for (const [id, figure] of Object.entries(figures)) figure.draw(document.querySelector(`#${id} figure`));
  show(Number(control.querySelector("input").value));
}

function play() {
  const slider = control.querySelector("input"), button = control.querySelector("button");
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (slider.value === slider.max) slider.value = 0;
    button.textContent = "Pause";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show(Number(slider.value));
      if (slider.value === slider.max) stop();
    }, Math.max(60, Math.min(350, 12000 / chosen.length)));
  });
  slider.addEventListener("input", () => show(Number(slider.value)));
}

function start() {
  document.getElementById("name").textContent = data.run;
  document.getElementById("lead").textContent = data.lead;
  document.getElementById("facts").append(...data.facts.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
  document.getElementById("estimands").append(...data.estimands.map(([name, text]) => html("li", {}, html("b", {}, name + " "), text)));
  document.getElementById("footer").textContent = data.footer;
  const slider = control.querySelector("input");
  slider.max = Math.max(0, chosen.length - 1);
  slider.value = slider.max;
  control.hidden = chosen.length < 2;
  play();
  redraw();
  let width = window.innerWidth, pending = null;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(pending);
    pending = setTimeout(redraw, 120);
  });
}
start();

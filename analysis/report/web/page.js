// The page: its text, the step control, and when the figures are drawn.

const figures = { overview, emergence, plane, effects, atlas, routing, tokens, slices: table, compare, content, entropy, loss };
const control = document.getElementById("step");
const chosen = snapshots.step.length ? snapshots.step : probes.step;

function show(index) {
  drawn.step = chosen.length ? chosen[index] : 0;
  if (snapshots.step.length) drawn.snapshot = atOrBefore(snapshots.step, drawn.step);
  if (probes.step.length) drawn.probe = atOrBefore(probes.step, drawn.step);
  control.querySelector("output").textContent = `step ${grouped(drawn.step)} \u00b7 ${metric(tokensOf(drawn.step))} tokens`;
  for (const figure of present()) if (figure !== tokens) figure.update();
}

const present = () => Object.values(figures).filter((figure) => !(figure.absent && figure.absent()));

function redraw() {
  let number = 0;
  for (const [id, figure] of Object.entries(figures)) {
    const there = present().includes(figure), section = document.getElementById(id);
    section.hidden = !there;
    document.querySelector(`nav a[data-to="${id}"]`).hidden = !there;
    if (!there) continue;
    if (!figure.unnumbered && figure !== table) figure.number = ++number;
    figure.draw(section.querySelector("figure"));
  }
  show(Number(control.querySelector("input").value));
  if (present().includes(tokens)) tokens.update();
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
  document.getElementById("method").hidden = !data.estimands.length;
  document.getElementById("footer").textContent = data.footer;
  // The ways within the page; its own address is nobody's business, so they go by name.
  for (const section of document.querySelectorAll("main > section")) {
    const way = html("a", { tabindex: 0, role: "link", "data-to": section.id }, section.dataset.name);
    const go = () => {
      section.scrollIntoView();
      section.querySelector("h2").focus({ preventScroll: true });
    };
    way.addEventListener("click", go);
    way.addEventListener("keydown", (event) => event.key === "Enter" && go());
    document.querySelector("nav").append(way);
  }
  const slider = control.querySelector("input");
  slider.max = Math.max(0, chosen.length - 1);
  slider.value = slider.max;
  control.hidden = chosen.length < 2 && probes.ablations.length < 2;
  if (probes.ablations.length > 1) {
    control.append(select("ablation", probes.ablations.map((name) => [name, name]), settings.ablation, (name) => {
      settings.ablation = name;
      redraw();
    }));
  }
  play();
  redraw();
  let width = window.innerWidth, pending = null;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(pending);
    pending = setTimeout(redraw, 120);
  });
  const paper = (on) => () => {
    printing = on;
    redraw();
  };
  window.addEventListener("beforeprint", paper(true));
  window.addEventListener("afterprint", paper(false));
}
start();

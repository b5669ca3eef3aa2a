// The page: its text, the control of step, runs and ablation, and when the figures are drawn.

const figures = {
  overview,
  emergence,
  tasks,
  plane,
  effects,
  atlas,
  parts,
  ways,
  coalitions,
  circuits,
  writers,
  routing,
  tokens,
  slices: table,
  runs: runsInNumbers,
  content,
  entropy,
  loss
};
const control = document.getElementById("step");
const slider = control.querySelector("input");
/// The steps that can be chosen.
const stepsOf = (one) => (one.runs[0].snapshots.step.length ? one.runs[0].snapshots.step : one.probes.step);
const present = () => Object.values(figures).filter((figure) => !(figure.absent && figure.absent()));

function show(index) {
  const steps = stepsOf(view);
  drawn.step = steps.length ? steps[index] : 0;
  if (run.snapshots.step.length) drawn.snapshot = atOrBefore(run.snapshots.step, drawn.step);
  if (probes.step.length) drawn.probe = atOrBefore(probes.step, drawn.step);
  control.querySelector("output").textContent =
    `step ${grouped(drawn.step)} \u00b7 ${metric(tokensOf(drawn.step))} tokens`;
  for (const figure of present())
    if (figure !== tokens) figure.update();
}

function redraw() {
  counted.Figure = counted.Table = 0;
  for (const [id, figure] of Object.entries(figures)) {
    const there = present().includes(figure), section = document.getElementById(id);
    section.hidden = !there;
    document.querySelector(`nav a[data-to="${id}"]`).hidden = !there;
    if (there) figure.draw(section.querySelector("figure"));
  }
  show(Number(slider.value));
  if (present().includes(tokens)) tokens.update();
}

/// The slider spans the steps of the view; the chosen step stays as near as it can.
function spanSteps(step) {
  const steps = stepsOf(view);
  slider.max = Math.max(0, steps.length - 1);
  slider.value = atOrBefore(steps, step);
}

function play() {
  const button = control.querySelector("button");
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
    }, Math.max(60, Math.min(350, 12000 / stepsOf(view).length)));
  });
  slider.addEventListener("input", () => show(Number(slider.value)));
}

/// The page has no address to link to; its sections are reached by name.
function addNavigation() {
  for (const section of document.querySelectorAll("main > section")) {
    const link = html("a", {tabindex: 0, role: "link", "data-to": section.id}, section.dataset.name);
    const go = () => {
      section.scrollIntoView();
      section.querySelector("h2").focus({preventScroll: true});
    };
    link.addEventListener("click", go);
    link.addEventListener("keydown", (event) => event.key === "Enter" && go());
    document.querySelector("nav").append(link);
  }
}

function addChoices() {
  if (views.length > 1) {
    control.append(select("runs", views.map((one, v) => [String(v), one.name]), "0", (v) => {
      choose(views[Number(v)]);
      spanSteps(drawn.step);
      redraw();
    }));
  }
  if (probes.ablations.length > 1) {
    control.append(select("ablation", probes.ablations.map((name) => [name, name]), settings.ablation, (name) => {
      settings.ablation = name;
      redraw();
    }));
  }
  if (reads.name.length) {
    const kinds = Object.entries(massKinds).map(([kind, {name}]) => [kind, name]);
    control.append(select("mass", kinds, settings.mass, (kind) => {
      settings.mass = kind;
      redraw();
    }), choice("lift", settings.lift, (on) => {
      settings.lift = on;
      redraw();
    }));
    control.lastChild.title = "the difference from step 0";
  }
  control.hidden = stepsOf(view).length < 2 && !control.querySelector("select");
}

function redrawWhenResized() {
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

function start() {
  document.title = `${data.title} \u2013 routescope`;
  document.getElementById("name").textContent = data.title;
  document.getElementById("facts").append(
    ...data.facts.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
  document.getElementById("methods").append(
    ...data.methods.map(([name, text]) => html("li", {}, html("b", {}, name + " "), text)));
  document.getElementById("method").hidden = !data.methods.length;
  document.getElementById("footer").textContent = data.footer;
  addNavigation();
  addChoices();
  spanSteps(Infinity);
  play();
  redraw();
  redrawWhenResized();
}
start();

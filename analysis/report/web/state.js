// What the report's figures share: the data, the chosen step and ablation, the settings, and how things are named and coloured.
// A figure is { draw(figure), update(), absent() }: draw() builds it for the page's width, update() shows the chosen step,
// absent(), if it is there, tells that the run has nothing of the kind, and the section is left out.

const data = JSON.parse(document.getElementById("data").textContent);
const { reads, sources, snapshots, train, valid, sets, subjects, motifs } = data;
/// The run itself; others are held beside it.
const probes = subjects[0] || { step: [], ablations: [], effects: {}, content: [] };
const beside = subjects.slice(1);
const sliced = sets.length > 0 && sets.every((set) => set.family !== null);
const families = ["embedding", "history", "current"], sublayers = ["attn", "mlp"], depths = ["early", "mid", "late"];
const sublayerName = { attn: "attention", mlp: "MLP", final: "final read" }, shortName = { attn: "attn", mlp: "MLP" };
const layers = Math.max(1, ...reads.layer.map((layer) => layer + 1));
const drawn = { snapshot: 0, probe: 0, step: 0 };
const settings = { ablation: probes.ablations[0], logTokens: true, relativeEntropy: false, logEffect: true, stretch: sources.length > 16 };
const EFFECT = "\u0394 nll (nats per token)";
let printing = false;

const tokensOf = (step) => step * data.tokens_per_step;
const layerColour = (layer) => depthColour(layers > 1 ? layer / (layers - 1) : 0);
const thirdColour = (depth) => depthColour([0.05, 0.48, 1][depths.indexOf(depth)]);
const setColour = (s) => (sets[s].family === null ? "#57606a" : familyColour[families[sets[s].family]]);
const sourceName = (source) => source.replace("_", " ");
const stepScale = (high, range) => logScale(high, 1, range, grouped);
const isFinal = (read) => reads.sublayer[read] === "final";
const widthOf = (figure) => (printing ? 700 : Math.max(300, figure.clientWidth));
const noteNothing = (figure, text) => figure.replaceChildren(html("p", { class: "empty" }, text));
const caption = (figure, lead, text) => html("figcaption", {}, html("b", {}, `Figure ${figure.number}. ${lead} `), text);
const interval = (lower, upper, places, from = "[", to = "]") => (known(lower) && known(upper) ? ` ${from}${signed(lower, places)}, ${signed(upper, places)}${to}` : "");
const estimated = (estimate, places) => (estimate && known(estimate[0]) ? signed(estimate[0], places) + interval(estimate[1], estimate[2], places) : "\u2013");
/// A p value; the least that resampling tells apart is near 1/10000.
const pText = (p) => (known(p) && p < 1e-4 ? "<0.0001" : digits(p, 4));
/// A step with its interval; an end that no resample has, or that lies beyond the run, is open. At the first of the steps
/// probed it may have been before; one step alone dates nothing.
function onsetText(estimate, steps) {
  if (steps.length < 2) return "\u2013";
  if (!estimate || !known(estimate[0])) return "not shown";
  const end = (value) => (known(value) ? grouped(value) : "never");
  return (estimate[0] <= steps[0] ? "at or before " : "") + grouped(estimate[0]) + (known(estimate[1]) || known(estimate[2]) ? ` [${end(estimate[1])}, ${end(estimate[2])}]` : "");
}

/// The last of ascending steps that is not after `step` (or the first).
function atOrBefore(steps, step) {
  let index = 0;
  while (index + 1 < steps.length && steps[index + 1] <= step) ++index;
  return index;
}

/// A subject's values at the chosen step: at("mass", s), or of an ablation at("delta", s); at.sequential: decided as
/// sequences came in.
function values(subject = probes, ablation = settings.ablation, row = subject === probes ? drawn.probe : atOrBefore(subject.step, drawn.step)) {
  const effects = subject.effects[ablation] || {};
  const rows = (field) => (field === "mass" ? subject.mass : effects[field]);
  return Object.assign((field, s) => (rows(field) && rows(field)[row] ? rows(field)[row][s] : null), { sequential: subject.until_decided });
}

/// A p value that counts; one that is not there does not.
const below = (p) => known(p) && p < 0.05;

/// Shown to have an effect, or to lie within the margin: by the confidence sequence where it decides, else by p values.
const hasEffect = (at, s) => (at.sequential ? at("decision", s) === 1 : below(at("p", s)));
const isAbsent = (at, s) => (at.sequential ? at("decision", s) === 2 : below(at("absent", s)));

/// What the tests say of a set, in words.
function finding(at, s) {
  if (!known(at("delta", s))) return "not tested";
  const effect = hasEffect(at, s), beyond = below(at("excess_p", s)) && at("excess", s) > 0, absent = isAbsent(at, s);
  if (absent) return effect ? "within the margin, not zero" : "none: within the margin";
  if (effect) return at("delta", s) < 0 ? "lowers the loss" : beyond ? "more than its mass" : known(at("control", s)) ? "not shown beyond its mass" : "effect";
  return "undecided";
}

/// A vertical line at the chosen step that update() moves.
function marker(drawing, area, scale, value) {
  const mark = svg("line", { class: "now", y1: area.y, y2: area.y + area.height });
  drawing.append(mark);
  return () => {
    const x = scale(value());
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
  };
}

/// Effects on an axis that all figures of one kind share; linear where that was asked for.
function effectScale(ends, range) {
  const there = ends.filter(known), low = Math.min(0, ...there), high = Math.max(1e-9, ...there), margin = 0.04 * (high - low);
  if (!settings.logEffect) return linearScale([low - margin, high + margin], range);
  const linear = 10 ** Math.round(Math.log10(Math.max(high, -low) / 1000));
  return symlogScale([low * 1.1 - linear / 2, high * 1.15], linear, range);
}
const effectChoice = () => choice("logarithmic effect (linear near zero)", settings.logEffect, (on) => {
  settings.logEffect = on;
  redraw();
});

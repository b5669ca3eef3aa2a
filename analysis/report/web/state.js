// What the figures share: the data, the chosen step and settings, and how things are named and coloured.
// A figure is {draw(figure), update(), absent()}. draw() builds it for the width of the page. update() shows the chosen
// step. absent(), if it is there, tells that the study has no such results; the section is then left out.

const data = JSON.parse(document.getElementById("data").textContent);
const {reads, sources, sets, runs, baselines, motifs} = data;
const sliced = sets.length > 0 && sets.every((set) => set.family !== null);
const families = ["embedding", "history", "current"];
const sublayers = ["attn", "mlp"];
const depths = ["early", "mid", "late"];
const sublayerName = {
  attn: "attention",
  mlp: "MLP",
  final: "final read"
};
const layers = Math.max(1, ...reads.layer.map((layer) => layer + 1));
const drawn = {
  snapshot: 0,
  probe: 0,
  step: 0
};
const settings = {
  ablation: null,
  mass: "alpha",
  lift: false,
  logTokens: true,
  relativeEntropy: false,
  logEffect: true,
  taskMetric: "probability",
  stretch: sources.length > 16
};
const EFFECT = "\u0394 nll (nats per token)";
const ADJUSTED = 0.05;
let printing = false;

const layerColour = (layer) => depthColour(layers > 1 ? layer / (layers - 1) : 0);
const thirdColour = (depth) => depthColour([0.05, 0.48, 1][depths.indexOf(depth)]);
const setColour = (s) => (sets[s].family === null ? "#57606a" : familyColour[families[sets[s].family]]);
const sourceName = (source) => source.replace("_", " ");
const stepScale = (high, range) => logScale(high, 1, range, grouped);
const isFinal = (read) => reads.sublayer[read] === "final";
const widthOf = (figure) => (printing ? 700 : Math.max(300, figure.clientWidth));
const noteNothing = (figure, text) => figure.replaceChildren(html("p", {class: "empty"}, text));

// ---- numbered captions, in the order in which figures and tables are drawn ----

const counted = {
  Figure: 0,
  Table: 0
};
const numbered = (kind, lead, ...text) =>
  html("figcaption", {}, html("b", {}, `${kind} ${++counted[kind]}. ${lead} `), ...text);
const caption = (lead, ...text) => numbered("Figure", lead, ...text);
const tableCaption = (lead, ...text) => numbered("Table", lead, ...text);

// ---- values with intervals ----

const interval = (lower, upper, places) =>
  known(lower) && known(upper) ? ` [${signed(lower, places)}, ${signed(upper, places)}]` : "";
const estimated = (estimate, places) =>
  estimate && known(estimate[0]) ? signed(estimate[0], places) + interval(estimate[1], estimate[2], places) : "\u2013";
const percent = (share, places = 1) => (known(share) ? `${digits(100 * share, places)}\u00a0%` : "\u2013");
/// A p value; the least that resampling tells apart is near 1/10000.
const pText = (p) => (known(p) && p < 1e-4 ? "<0.0001" : digits(p, 4));
/// A p value that counts; one that is not there does not.
const below = (p) => known(p) && p < ADJUSTED;

/// A step with its interval; an end that no resample has, or that lies beyond the run, is open. At the first probed
/// step it may have come before. One step alone dates nothing.
function onsetText(estimate, steps) {
  if (steps.length < 2) return "\u2013";
  if (!estimate || !known(estimate[0])) return "not shown";
  const end = (value) => (known(value) ? grouped(value) : "never");
  const range = known(estimate[1]) || known(estimate[2]) ? ` [${end(estimate[1])}, ${end(estimate[2])}]` : "";
  return (estimate[0] <= steps[0] ? "at or before " : "") + grouped(estimate[0]) + range;
}

/// The last of ascending steps that is not after `step` (or the first).
function atOrBefore(steps, step) {
  let index = 0;
  while (index + 1 < steps.length && steps[index + 1] <= step) ++index;
  return index;
}

// ---- parts that several figures have ----

/// A vertical line at the chosen step that update() moves.
function marker(drawing, area, scale, value) {
  const mark = svg("line", {class: "now", y1: area.y, y2: area.y + area.height});
  drawing.append(mark);
  return () => {
    const x = scale(value());
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
  };
}

/// Effects on an axis that all figures of one kind share; linear where that was asked for.
function effectScale(ends, range) {
  const there = ends.filter(known);
  const low = Math.min(0, ...there);
  const high = Math.max(1e-9, ...there);
  const margin = 0.04 * (high - low);
  if (!settings.logEffect) return linearScale([low - margin, high + margin], range);
  const linear = 10 ** Math.round(Math.log10(Math.max(high, -low) / 1000));
  return symlogScale([low * 1.1 - linear / 2, high * 1.15], linear, range);
}
const effectChoice = () => choice("logarithmic effect (linear near zero)", settings.logEffect, (on) => {
  settings.logEffect = on;
  redraw();
});

// What the report's figures share: the data, the chosen step, the settings, and how both are named and coloured.

const data = JSON.parse(document.getElementById("data").textContent);
const { reads, sources, snapshots, train, valid, probes, slices } = data;
const families = ["embedding", "history", "current"], sublayers = ["attn", "mlp"], depths = ["early", "mid", "late"];
const sublayerName = { attn: "attention", mlp: "MLP", final: "final read" }, shortName = { attn: "attn", mlp: "MLP" };
const layers = Math.max(1, ...reads.layer.map((layer) => layer + 1));
const drawn = { snapshot: 0, probe: 0, step: 0 };
const settings = { logTokens: true, relativeEntropy: false, logEffect: true, stretch: sources.length > 16 };
const EFFECT = "\u0394 nll (nats per token)";

const tokensOf = (step) => step * data.tokens_per_step;
const layerColour = (layer) => depthColour(layers > 1 ? layer / (layers - 1) : 0);
const thirdColour = (depth) => depthColour([0.05, 0.48, 1][depths.indexOf(depth)]);
const stepScale = (high, range) => logScale(high, 1, range, grouped);
const isFinal = (read) => reads.sublayer[read] === "final";
const noteNothing = (figure, text) => figure.replaceChildren(html("p", { class: "empty" }, text));
const caption = (number, lead, text) => html("figcaption", {}, html("b", {}, `Figure ${number}. ${lead} `), text);

/// The last of ascending steps that is not after `step` (or the first).
function atOrBefore(steps, step) {
  let index = 0;
  while (index + 1 < steps.length && steps[index + 1] <= step) ++index;
  return index;
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

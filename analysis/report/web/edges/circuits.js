// Circuits: the edges that a model needs, as a drawing, and how faithful the first edges of every order are.

/// Red where dropping an edge raises the loss, blue where it lowers it.
const dropColour = (value) => signColour(value < 0 ? 0.1 : 0.85);
/// A share of what the model has learned, with its interval; it may be below zero.
const faithText = ([value, lower, upper]) =>
  digits(value, 2) + (known(lower) && known(upper) ? ` [${digits(lower, 2)}, ${digits(upper, 2)}]` : "");
const edgeTitle = (name) => name.replace("<-", " from ").replace("_", " ");
const notShown = {
  "stroke-dasharray": "5 3",
  "stroke-opacity": 0.7
};

/// Reads in their order from left to right; above them the embedding and the completed blocks, where they are complete,
/// below them what is being written. Edges enter a read from above or below.
function circuitGraph(width, of, {edges}) {
  const left = 42, right = 30, count = of.sublayers.length, step = Math.max(13, (width - left - right) / count);
  const top = 34, middle = 176, low = 216, wide = left + right + step * count;
  const drawing = canvas(wide, 268, "the circuit: its edges from sources to reads, layers from left to right");
  drawing.style.width = wide > width ? wide + "px" : "100%";
  const readX = (r) => left + (r + 0.5) * step;
  const isCurrent = (source) => of.sources[source][0].startsWith("current");
  const sourceX = (source) => left + (of.sources[source][1] + 1) * step;
  const end = (e) => {
    const r = of.read[e], s = of.source[e];
    return isCurrent(s) ? {x: readX(r), y: low, rx: readX(r)} : {x: sourceX(s), y: top, rx: readX(r)};
  };
  drawBlocks(drawing, of, {left, step, top}, isCurrent);
  const most = Math.max(1e-9, ...edges.map(([, drop]) => Math.abs(drop[0] ?? 0)));
  const points = edges.map(([e, drop, p, alone]) => {
    const {x, y, rx} = end(e), half = (y + middle) / 2;
    drawing.append(svg("path", {
      d: `M${x},${y}C${x},${half} ${rx},${half} ${rx},${middle}`,
      fill: "none",
      stroke: dropColour(drop[0]),
      "stroke-width": 1 + 6 * Math.sqrt(Math.abs(drop[0] ?? 0) / most),
      ...(below(p) ? {} : notShown)
    }));
    const text = `${edgeTitle(of.edges[e])}\ndropped from the circuit ` +
      `${estimated(drop, 4)}, p ${pText(p)}\nablated alone ${estimated(alone, 4)}`;
    return {x: 0.352 * x + 0.648 * rx, y: half + 0.148 * (middle - y), text};
  });
  const used = new Set(edges.map(([e]) => of.read[e]));
  of.sublayers.forEach((name, r) => {
    const kind = name.endsWith("mlp") ? "mlp" : "attn", colour = used.has(r) ? "#1b1f24" : "#fff";
    const node = symbol(kind, name === "head" ? 5.5 : 4.5, {fill: colour, stroke: "#1b1f24"});
    node.setAttribute("transform", `translate(${readX(r)} ${middle})`);
    drawing.append(node);
  });
  if (of.fixed) {
    const x = readX(count - 1);
    drawing.append(svg("line", {x1: x, x2: x, y1: middle + 6, y2: low, stroke: "#7b848e"}));
  }
  edges.filter(([e]) => isCurrent(of.source[e])).forEach(([e]) => {
    drawing.append(svg("rect", {x: end(e).x - 3.5, y: low - 3.5, width: 7, height: 7, fill: familyColour.current}));
  });
  drawLayers(drawing, of, {readX, step, low});
  hover(drawing, {x: 0, y: 0, width: wide, height: 240}, points);
  return html("div", {class: "scroll"}, drawing);
}

/// The embedding and the blocks, each with a line above the sublayers that it newly holds.
function drawBlocks(drawing, of, {left, step, top}, isCurrent) {
  const blocks = of.sources.map((source, s) => ({id: source[0], last: source[1], s})).filter(({s}) => !isCurrent(s));
  blocks.sort((a, b) => a.last - b.last);
  let before = -1, free = -Infinity;
  for (const {id, last} of blocks) {
    const x = left + (last + 1) * step, isEmbedding = last < 0;
    const colour = isEmbedding ? familyColour.embedding : familyColour.history;
    if (!isEmbedding)
      drawing.append(svg(
        "line", {x1: left + (before + 1) * step + 4, x2: x, y1: top, y2: top, stroke: colour, "stroke-opacity": 0.4}));
    drawing.append(svg("rect", {x: x - 4.5, y: top - 4.5, width: 9, height: 9, fill: colour}));
    const short = isEmbedding ? "embedding" : id.replace("block_", ""), long = isEmbedding ? short : sourceName(id);
    const fits = (text) => x - 3.2 * text.length > free;
    const text = [long, short].find(fits);
    if (text) {
      drawing.append(svg("text", {class: "note", x: Math.max(x, 32), y: top - 12, "text-anchor": "middle"}, text));
      free = Math.max(x, 32) + 3.2 * text.length + 4;
    }
    before = last;
  }
}

/// The numbers of layers under their reads, as far as there is room.
function drawLayers(drawing, of, {readX, step, low}) {
  drawing.append(svg("text", {class: "note", x: 0, y: low + 30}, "layer"));
  let free = 34;
  of.sublayers.forEach((name, r) => {
    if (name.endsWith("mlp")) return;
    const text = name === "head" ? "out" : name.split(".")[0], x = readX(r) + (name === "head" ? 0 : step / 2);
    if (x - 3.4 * text.length < free) return;
    drawing.append(svg("text", {class: "tick", x, y: low + 30, "text-anchor": "middle"}, text));
    free = x + 3.4 * text.length + 4;
  });
}

/// Faithfulness against the number of edges that are kept, by every order.
function faithfulnessCurves(width, of, detail, size, reached) {
  const area = {x: 66, y: 14, width: width - 84, height: 220};
  const drawing = canvas(width, area.height + 62, "faithfulness against the number of edges that are kept");
  const values = [...detail.score, ...detail.magnitude].map(([value]) => value).concat(...detail.random);
  const low = Math.max(-1, Math.min(0, ...values.filter(known)));
  const high = Math.min(1.5, 1.05 * Math.max(1, ...values.filter(known)));
  const x = linearScale([0, of.edges.length], [area.x, area.x + area.width], Math.min(8, width / 80), grouped);
  const y = linearScale([low, high], [area.y + area.height, area.y]);
  const at = (value) => y(Math.min(Math.max(value, low), high));
  panel(drawing, area, x, y, {xLabel: "edges kept", yLabel: "faithfulness", zero: true});
  for (const curve of detail.random)
    drawing.append(line(curve.map((value, i) => (known(value) ? [x(of.k[i]), at(value)] : null)),
      {stroke: "#8a949e", "stroke-width": 1}));
  const points = [];
  for (const [name, label, colour] of [["magnitude", "mass", "#e69f00"], ["score", "score", "#0072b2"]]) {
    const curve = detail[name];
    drawing.append(band(curve.map(([, l, u], i) => (known(l) && known(u) ? [x(of.k[i]), at(l), at(u)] : null)),
                     {fill: colour, "fill-opacity": 0.2}),
      line(curve.map(([v], i) => (known(v) ? [x(of.k[i]), at(v)] : null)), {stroke: colour, "stroke-width": 2}));
    curve.forEach((value, i) => known(value[0]) && points.push({
      x: x(of.k[i]),
      y: at(value[0]),
      text: `first ${grouped(of.k[i])} edges by ${label}\nfaithfulness ${faithText(value)}`
    }));
  }
  if (known(reached[0])) {
    drawing.append(svg("line", {class: "now", x1: x(size), x2: x(size), y1: area.y, y2: area.y + area.height}),
      svg("circle", {cx: x(size), cy: at(reached[0]), r: 4, fill: "#fff", stroke: "#1b1f24", "stroke-width": 1.6}));
    points.push(
      {x: x(size), y: at(reached[0]), text: `the circuit: ${size} edges\nfaithfulness ${faithText(reached)}`});
  }
  hover(drawing, area, points);
  return drawing;
}

/// What the numbers of one step show, sentence by sentence. at(field) is a field of the step.
function circuitFindings(of, at) {
  if (!below(at("none_p")))
    return [`It is not shown that ablating every edge costs anything (p ${pText(at("none_p"))}): there is no circuit.`];
  const compared = [];
  const compare = (difference, other, area) => {
    const [value, lower, upper] = at(difference);
    if (!known(value)) return;
    const word = lower > 0 ? "a better order than" : upper < 0 ? "a worse order than" : "not shown to differ from";
    compared.push(`${word} ${other} (${digits(at(area)[0], 3)}; difference ${estimated([value, lower, upper], 3)})`);
  };
  compare("above_magnitude", "mass", "by_magnitude");
  compare("above_random", "chance", "by_chance");
  const areas = `The area under the curve by score is ${digits(at("by_score")[0], 3)}: ${compared.join(", and ")}.`;
  const size = at("size"), kept = at("faithfulness"), rest = at("rest");
  if (!size)
    return ["The scoring half does not show that ablating every edge costs anything: there is no circuit.", areas];
  const short = kept[2] < of.asked ? `, less than the ${of.asked} that it reaches on the scoring half` : "";
  const left = rest[1] > 0 ? "so the circuit is not complete" : "it is not shown that anything is left without it";
  return [
    `The circuit has ${size} of ${of.edges.length} edges. Its faithfulness is ${faithText(kept)}${short}.`,
    `All other edges together have ${faithText(rest)}: ${left}.`,
    `${at("needed")} of its edges are each shown to be needed.`, areas
  ];
}

const circuits = {
  chosen: 0,
  absent: () => !data.circuits.runs.some((all) => all.length),
  /// The measurements of a run: of text, and of tasks.
  all: () => data.circuits.runs[runs.indexOf(run)].map((one) => ({...data.circuits.graphs[one.graph], ...one})),

  draw(figure) {
    this.figure = figure;
    this.graph = null;
    this.marks = [];
    const all = this.all();
    if (!all.length) return noteNothing(figure, "No circuit of this run was measured (routescope-analyze circuit).");
    this.of = all[Math.min(this.chosen, all.length - 1)];
    this.graph = svg("svg");
    this.curves = svg("svg");
    this.graphText = html("span");
    this.curvesText = html("span");
    const titles = all.map((one, i) => [String(i), one.task === null ? "text" : `task ${one.task}`]);
    const pick = select("measured on", titles, String(all.indexOf(this.of)), (value) => {
      this.chosen = Number(value);
      redraw();
    });
    figure.replaceChildren(html("div", {class: "tools"}, ...this.graphKeys(), ...(all.length > 1 ? [pick] : [])),
      this.graph, caption("The circuit.", this.graphText), html("div", {class: "tools"}, ...this.curveKeys()),
      this.curves, caption("Faithfulness against size.", this.curvesText), ...this.overTraining(), ...this.overRuns());
  },

  graphKeys() {
    const stroke = (attributes) => svg("line", {x1: 0, x2: 24, y1: 7, y2: 7, "stroke-width": 3, ...attributes});
    return [
      key(stroke({stroke: dropColour(1)}), "dropping it raises the loss", 24),
      key(stroke({stroke: dropColour(-1)}), "lowers it", 24),
      key(stroke({stroke: dropColour(1), ...notShown}), "no rise is shown", 24), key(symbolAt("attn"), "attention"),
      key(symbolAt("mlp"), "MLP"),
      ...["embedding", "history", "current"].map(
        (family) => key(svg("rect", {x: 4, y: 2, width: 9, height: 9, fill: familyColour[family]}),
          {embedding: "embedding", history: "completed block", current: "what is being written"}[family]))
    ];
  },

  curveKeys() {
    const entry = (stroke, text) => key(svg("rect", {y: 5, width: 18, height: 4, fill: stroke}), text);
    const random = this.of.baselines ? [entry("#8a949e", "in random orders")] : [];
    return [
      entry("#0072b2", "by score"), entry("#e69f00", "by norm-weighted mass"), ...random,
      key(svg("circle", {cx: 9, cy: 7, r: 4, fill: "#fff", stroke: "#1b1f24"}), "the circuit")
    ];
  },

  update() {
    for (const move of this.marks || []) move();
    if (!this.graph) return;
    const {of} = this, {detail} = of, width = widthOf(this.figure);
    const shown = detail[atOrBefore(detail.map((one) => one.step), drawn.step)];
    const row = of.steps.step.indexOf(shown.step), at = (field) => of.steps[field][row];
    this.graph = replaced(this.graph, circuitGraph(width, of, shown));
    this.curves = replaced(this.curves,
      below(at("none_p")) ? faithfulnessCurves(width, of, shown, at("size"), at("faithfulness"))
                          : html("p", {class: "empty"}, "There is no faithfulness where nothing is shown to be lost."));
    const step = grouped(shown.step), hidden = at("size") - shown.edges.length;
    const many = hidden > 0 ? ` ${hidden} more edges, which cost least to drop, are not drawn.` : "";
    this.graphText.textContent =
      "An edge is one source of one read: cut it, and that sublayer alone no longer reads that source. Drawn are the " +
      `edges of the circuit at step ${step}${of.task === null ? "" : ` for the answers of ${of.task}`}, layers ` +
      "from left to right; a filled read has such an edge. Width: what dropping the edge from the circuit adds to the " +
      `loss of the ${of.held_out} held-out ${of.task === null ? "sequences" : "prompts"} (square root). A rise is ` +
      `shown by a one-sided test over documents, p adjusted over the circuit\u2019s edges.${many} ` +
      `${circuitFindings(of, at).join(" ")}${ofRun()}`;
    this.curvesText.textContent =
      `The first edges of an order are kept, all others ablated (${of.ablation}). 1 is the loss of the intact model, ` +
      `0 that without any edge. ${
        of.score === "exact" ? "The score is the effect of ablating the edge alone"
                             : "The score is the atlas\u2019s estimate of masking the edge alone"} ` +
      `on ${of.scoring} other ${of.task === null ? "sequences" : "prompts"}; the circuit is the first edges by score ` +
      `that reach ${of.asked} there${of.pruned ? ", pruned" : ""}. Bands: 95\u00a0% intervals, each point by itself. ` +
      `The row took ${digits(at("passes"), 0)} plain evaluations.`;
  }
};

function symbolAt(kind) {
  const node = symbol(kind, 4.5, {fill: "#1b1f24"});
  node.setAttribute("transform", "translate(9 7)");
  return node;
}

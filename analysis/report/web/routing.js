// Figures of what the run recorded over training: the loss, the entropy of its routing, its dependence on content.

// ---- loss ----

const loss = {
  draw(figure) {
    this.marks = [];
    if (!train.step.length && !valid.step.length) return noteNothing(figure, "No loss was recorded.");
    const width = widthOf(figure), area = { x: 66, y: 14, width: width - 84, height: 250 };
    const values = [...train.loss, ...valid.loss].filter(known), spread = Math.max(...values) - Math.min(...values) || 1;
    const high = Math.max(...train.tokens, ...valid.tokens), range = [area.x, area.x + area.width];
    const x = settings.logTokens ? logScale(high, data.tokens_per_step, range) : linearScale([0, high], range, Math.max(3, Math.round(width / 140)), metric);
    const y = linearScale([Math.min(...values) - 0.05 * spread, Math.max(...values) + 0.05 * spread], [area.y + area.height, area.y]);
    const drawing = canvas(width, 322, "training and validation loss");
    panel(drawing, area, x, y, { xLabel: "tokens seen", yLabel: "loss (nats per token)" });
    const series = (rows) => rows.step.map((_, i) => (known(rows.loss[i]) ? [x(rows.tokens[i]), y(rows.loss[i])] : null));
    const points = (rows, name) => rows.step.map((step, i) => ({ x: x(rows.tokens[i]), y: y(rows.loss[i]), text: `${name} ${digits(rows.loss[i], 4)}\nstep ${grouped(step)}, ${metric(rows.tokens[i])} tokens` }));
    const colour = { train: "#8a949e", valid: "#d55e00" };
    drawing.append(line(series(train), { stroke: colour.train, "stroke-width": 1.4 }), line(series(valid), { stroke: colour.valid, "stroke-width": 1.4 }));
    for (const point of series(valid)) if (point) drawing.append(svg("circle", { cx: point[0], cy: point[1], r: 2.8, fill: colour.valid }));
    this.marks.push(marker(drawing, area, x, () => Math.min(tokensOf(drawn.step), high)));
    hover(drawing, area, [...points(train, "training"), ...points(valid, "validation")]);
    const binned = train.rows > train.step.length ? ` Training losses are means over ${train.step.length} bins of ${grouped(train.rows)} steps.` : "";
    figure.replaceChildren(
      html("div", { class: "tools" }, key(svg("rect", { y: 6, width: 18, height: 2, fill: colour.train }), "training"), key(svg("g", {}, svg("rect", { y: 6, width: 18, height: 2, fill: colour.valid }), svg("circle", { cx: 9, cy: 7, r: 3, fill: colour.valid })), "validation"), choice("logarithmic tokens", settings.logTokens, (on) => {
        settings.logTokens = on;
        redraw();
      })),
      drawing,
      caption(this, "Loss against tokens.", `Next-token cross-entropy.${binned}`));
  },
  update() {
    for (const move of this.marks) move();
  },
};

// ---- one line per read over training: attention reads in one panel, MLP reads and the final one in the other ----

/// value(i, read) at steps[i]; levels: [[value, text], ...] of the reads of a panel. Returns { drawing, marks }.
function readLines(width, label, steps, { high, yLabel, value, levels = () => [], describe, included = () => true }) {
  const across = width >= 700, left = 66, gap = across ? 104 : 0, h = 250, w = across ? (width - left - gap - 76) / 2 : width - left - 76;
  const drawing = canvas(width, across ? h + 84 : 2 * (h + 84), label), marks = [];
  [["Attention reads", ["attn"]], ["MLP reads, and the final read", ["mlp", "final"]]].forEach(([title, kinds], side) => {
    const area = { x: left + (across ? side * (w + gap) : 0), y: 26 + (across ? 0 : side * (h + 84)), width: w, height: h };
    const x = stepScale(steps.at(-1), [area.x, area.x + w]), y = linearScale([0, high], [area.y + h, area.y]);
    panel(drawing, area, x, y, { title, xLabel: "training step", yLabel: side === 0 || !across ? yLabel : null });
    const list = reads.name.map((_, read) => read).filter((read) => kinds.includes(reads.sublayer[read]) && included(read));
    let free = Infinity;
    for (const [level, text] of levels(list)) {
      drawing.append(svg("line", { x1: area.x, x2: area.x + w, y1: y(level), y2: y(level), stroke: "#7b848e", "stroke-dasharray": "5 4" }));
      if (free - y(level) <= 12) continue;
      drawing.append(svg("text", { class: "note", x: area.x + w + 5, y: y(level) + 4 }, text));
      free = y(level);
    }
    const points = [];
    for (const read of list) {
      const final = isFinal(read);
      const shown = steps.map((step, i) => (known(value(i, read)) ? [x(step), y(value(i, read))] : null));
      drawing.append(line(shown, { stroke: final ? "#1b1f24" : layerColour(reads.layer[read]), "stroke-width": 1.7, "stroke-dasharray": final ? "7 3" : undefined }));
      shown.forEach((point, i) => point && points.push({ x: point[0], y: point[1], text: () => `${reads.name[read]}\nstep ${grouped(steps[i])}\n${describe(i, read)}` }));
    }
    marks.push(marker(drawing, area, x, () => Math.min(drawn.step, steps.at(-1))));
    hover(drawing, area, points);
  });
  return { drawing, marks };
}
const layerKeys = () => [html("span", {}, "layer 0"), key(colourBar(depthColour, 40, 120), String(layers - 1), 120), ...(reads.sublayer.includes("final") ? [key(svg("line", { x1: 0, x2: 18, y1: 7, y2: 7, stroke: "#1b1f24", "stroke-width": 2, "stroke-dasharray": "7 3" }), "final read")] : [])];

// ---- entropy ----

const entropy = {
  draw(figure) {
    this.marks = [];
    if (!reads.name.length || !snapshots.step.length) return noteNothing(figure, "This model's residual stream is not routed: there is nothing to show.");
    const relative = settings.relativeEntropy;
    const counts = reads.name.map((_, read) => sources.filter((__, s) => snapshots.alpha[0][read * sources.length + s] >= 0).length);
    const { drawing, marks } = readLines(widthOf(figure), "entropy of the routing over training", snapshots.step, {
      high: relative ? 1.05 : 1.05 * Math.log(Math.max(2, ...counts)),
      yLabel: relative ? "entropy / uniform (share)" : "entropy (nats)",
      value: (i, read) => snapshots.entropy[i][read] / (relative ? Math.log(counts[read]) : 1),
      levels: (list) => (relative ? [[1, "uniform"]] : [...new Set(list.map((read) => counts[read]))].sort((a, b) => a - b).map((n) => [Math.log(n), `uniform, ${n}`])),
      included: (read) => counts[read] > 1,
      describe: (i, read) => `entropy ${digits(snapshots.entropy[i][read], 4)} nats\nuniform over ${counts[read]}: ${digits(Math.log(counts[read]), 4)} nats`,
    });
    this.marks = marks;
    figure.replaceChildren(
      html("div", { class: "tools" }, ...layerKeys(), choice("relative to uniform", relative, (on) => {
        settings.relativeEntropy = on;
        redraw();
      })),
      drawing,
      caption(this, "Entropy of the routing weights, per read, over training.", "Mean over the probe tokens. Dashed levels: the entropy of equal weights over as many sources as the read has. Reads with a single source are left out. Steps are spaced as log(1 + step)."));
  },
  update() {
    for (const move of this.marks) move();
  },
};

// ---- content ----

const content = {
  absent: () => !probes.content.some(known),
  draw(figure) {
    const share = probes.content_reads, high = Math.max(0.01, ...share.flat().filter(known));
    const { drawing, marks } = readLines(widthOf(figure), "content dependence of the routing over training", probes.step, {
      high: Math.min(1, 1.05 * high),
      yLabel: "share of variance",
      value: (i, read) => share[i][read],
      describe: (i, read) => `share of variance between tokens ${digits(share[i][read], 4)}`,
    });
    this.marks = marks;
    this.text = html("span");
    figure.replaceChildren(html("div", { class: "tools" }, ...layerKeys()), drawing, caption(this, "How much routing depends on content.", this.text));
  },
  update() {
    for (const move of this.marks || []) move();
    if (this.text) this.text.textContent = `Of the variance of a read's weights over tokens and routes, the share that lies between tokens of a route: 0 where all tokens are routed alike, as in a wrapped model. Mean over reads at step ${grouped(probes.step[drawn.probe])}: ${digits(probes.content[drawn.probe], 4)}.`;
  },
};

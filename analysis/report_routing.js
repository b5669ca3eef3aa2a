// Figures of what the run recorded: the weights of every read, the loss, the entropy.
// Each figure is { draw(figure), update() }: draw() builds it for the page's width, update() shows the chosen step.

// ---- 1: weights of every read -----------------------------------------------------------------------------------------

const shade = (weight) => weightColour(settings.stretch ? Math.sqrt(weight) : weight);

const routing = {
  draw(figure) {
    this.cells = [];
    if (!reads.name.length || !snapshots.step.length) return noteNothing(figure, "This model's residual stream is not routed: there is nothing to show.");
    const width = figure.clientWidth, left = 84, gap = 10;
    const order = (sublayer) => reads.name.map((_, read) => read).filter((read) => reads.sublayer[read] === sublayer);
    const rows = [["Attention reads", order("attn")], ["MLP reads, and the final read", [...order("mlp"), ...order("final")]]];
    const finals = order("final").length;
    const cell = (width - left - 8 - (finals ? gap : 0)) / (layers + finals);
    const height = Math.min(30, Math.max(9, Math.round(360 / sources.length)));
    const drawing = canvas(width, 2 * (height * sources.length + 82) - 4, "routing weights of every read");
    const every = Math.max(1, Math.ceil(26 / cell)), everySource = Math.max(1, Math.ceil(13 / height));
    rows.forEach(([title, list], row) => {
      const top = 38 + row * (height * sources.length + 82), bottom = top + height * sources.length;
      const x = (read) => left + (isFinal(read) ? layers * cell + gap : reads.layer[read] * cell);
      drawing.append(svg("text", { class: "title", x: 0, y: top - 24 }, title));
      sources.forEach((source, s) => {
        const last = sources.length - 1;
        if (s !== last && (s % everySource || last - s < everySource)) return;
        drawing.append(svg("text", { class: "tick", x: left - 8, y: top + (s + 0.5) * height + 4, "text-anchor": "end" }, source.replace("_", " ")));
      });
      for (const depth of depths) {
        const inside = list.filter((read) => !isFinal(read) && reads.depth[read] === depth);
        if (!inside.length) continue;
        const from = x(inside[0]), to = x(inside.at(-1)) + cell;
        drawing.append(svg("line", { x1: from + 1, x2: to - 1, y1: top - 5, y2: top - 5, stroke: thirdColour(depth), "stroke-width": 3 }));
        drawing.append(svg("text", { class: "note", x: (from + to) / 2, y: top - 11, "text-anchor": "middle" }, depth));
      }
      for (const read of list) {
        if (isFinal(read) || reads.layer[read] % every === 0) {
          const label = isFinal(read) ? "final" : reads.layer[read];
          drawing.append(svg("text", { class: "tick", x: x(read) + cell / 2, y: bottom + 15, "text-anchor": "middle" }, label));
        }
        sources.forEach((_, s) => {
          const box = svg("rect", { x: x(read) + 0.5, y: top + s * height + 0.5, width: cell - 1, height: height - 1 });
          const text = cell >= 34 && height >= 15
            ? svg("text", { class: "tick", x: x(read) + cell / 2, y: top + (s + 0.5) * height + 4, "text-anchor": "middle", "pointer-events": "none" })
            : null;
          box.addEventListener("pointermove", (event) => tip.show(event, this.describe(read, s)));
          box.addEventListener("pointerleave", () => tip.hide());
          drawing.append(box);
          if (text) drawing.append(text);
          this.cells.push({ box, text, read, s });
        });
      }
      drawing.append(svg("text", { x: left + (layers * cell) / 2, y: bottom + 31, "text-anchor": "middle" }, "layer"));
    });
    const bar = svg("g", {}, ...Array.from({ length: 50 }, (_, i) => svg("rect", { x: i * 3, y: 0, width: 3.2, height: 14, fill: shade(i / 49) })));
    figure.replaceChildren(
      html("div", { class: "tools" }, html("span", {}, "mean weight \u03b1"), html("span", {}, "0"), key(bar, "1", 150), key(svg("rect", { width: 18, height: 14, fill: "url(#absent)" }), "source does not exist yet"), choice("stretch low weights (square root)", settings.stretch, (on) => {
        settings.stretch = on;
        redraw();
      })),
      drawing,
      caption(1, "Mean routing weight of every read on every source.", "Weights of one read (a column) sum to one over its sources; the mean is over all probe tokens. Move the step at the top of the page, or play it."));
    const hatch = svg("pattern", { id: "absent", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("rect", { width: 5, height: 5, fill: "#f5f6f7" }), svg("line", { x1: 0, y1: 0, x2: 0, y2: 5, stroke: "#dfe3e6", "stroke-width": 1.5 }));
    drawing.prepend(svg("defs", {}, hatch));
  },
  weight: (read, s) => snapshots.alpha[drawn.snapshot][read * sources.length + s] / 1e4,
  describe(read, s) {
    const value = this.weight(read, s), name = `${reads.name[read]} \u2190 ${sources[s].replace("_", " ")}`;
    if (value < 0) return `${name}\nno such source at this read`;
    const count = sources.filter((_, other) => this.weight(read, other) >= 0).length;
    const spread = snapshots.alpha_std[drawn.snapshot][read * sources.length + s] / 1e4;
    return `${name}\nstep ${grouped(snapshots.step[drawn.snapshot])}\n\u03b1 = ${digits(value, 4)} \u00b1 ${digits(spread, 4)} (s.d. over tokens)\nuniform over ${count}: ${digits(1 / count, 4)}`;
  },
  update() {
    for (const { box, text, read, s } of this.cells) {
      const value = this.weight(read, s);
      box.setAttribute("fill", value < 0 ? "url(#absent)" : shade(value));
      if (!text) continue;
      text.textContent = value < 0 ? "" : value.toFixed(2);
      text.style.fill = (settings.stretch ? Math.sqrt(value) : value) > 0.42 ? "#fff" : "#1b1f24";
    }
  },
};

// ---- 4: loss ----------------------------------------------------------------------------------------------------------

const loss = {
  draw(figure) {
    this.marks = [];
    if (!train.step.length && !valid.step.length) return noteNothing(figure, "No loss was recorded.");
    const width = figure.clientWidth, area = { x: 66, y: 14, width: width - 84, height: 250 };
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
      caption(4, "Loss against tokens.", `Next-token cross-entropy.${binned}`));
  },
  update() {
    for (const move of this.marks) move();
  },
};

// ---- 5: entropy -------------------------------------------------------------------------------------------------------

const entropy = {
  draw(figure) {
    this.marks = [];
    if (!reads.name.length || !snapshots.step.length) return noteNothing(figure, "This model's residual stream is not routed: there is nothing to show.");
    const width = figure.clientWidth, across = width >= 700, relative = settings.relativeEntropy;
    const left = 66, gap = across ? 104 : 0, h = 250, w = across ? (width - left - gap - 76) / 2 : width - left - 76;
    const drawing = canvas(width, across ? h + 84 : 2 * (h + 84), "entropy of the routing over training");
    const counts = reads.name.map((_, read) => sources.filter((__, s) => snapshots.alpha[0][read * sources.length + s] >= 0).length);
    const most = Math.log(Math.max(2, ...counts)), high = snapshots.step.at(-1);
    [["Attention reads", ["attn"]], ["MLP reads, and the final read", ["mlp", "final"]]].forEach(([title, kinds], side) => {
      const area = { x: left + (across ? side * (w + gap) : 0), y: 26 + (across ? 0 : side * (h + 84)), width: w, height: h };
      const x = stepScale(high, [area.x, area.x + w]), y = linearScale([0, relative ? 1.05 : most * 1.05], [area.y + h, area.y]);
      panel(drawing, area, x, y, { title, xLabel: "training step", yLabel: relative ? "entropy / uniform (share)" : side === 0 || !across ? "entropy (nats)" : null });
      const list = reads.name.map((_, read) => read).filter((read) => kinds.includes(reads.sublayer[read]) && counts[read] > 1);
      const levels = relative ? [[1, "uniform"]] : [...new Set(list.map((read) => counts[read]))].sort((a, b) => a - b).map((n) => [Math.log(n), `uniform, ${n}`]);
      let free = Infinity;
      for (const [level, text] of levels) {
        drawing.append(svg("line", { x1: area.x, x2: area.x + w, y1: y(level), y2: y(level), stroke: "#7b848e", "stroke-dasharray": "5 4" }));
        if (free - y(level) > 12) {
          drawing.append(svg("text", { class: "note", x: area.x + w + 5, y: y(level) + 4 }, text));
          free = y(level);
        }
      }
      const points = [];
      for (const read of list) {
        const level = relative ? Math.log(counts[read]) : 1, final = isFinal(read);
        const shown = snapshots.step.map((step, i) => [x(step), y(snapshots.entropy[i][read] / level)]);
        drawing.append(line(shown, { stroke: final ? "#1b1f24" : layerColour(reads.layer[read]), "stroke-width": 1.7, "stroke-dasharray": final ? "7 3" : undefined }));
        shown.forEach(([px, py], i) => points.push({ x: px, y: py, text: `${reads.name[read]}\nstep ${grouped(snapshots.step[i])}\nentropy ${digits(snapshots.entropy[i][read], 4)} nats\nuniform over ${counts[read]}: ${digits(Math.log(counts[read]), 4)} nats` }));
      }
      this.marks.push(marker(drawing, area, x, () => Math.min(drawn.step, high)));
      hover(drawing, area, points);
    });
    const bar = svg("g", {}, ...Array.from({ length: 40 }, (_, i) => svg("rect", { x: i * 3, y: 0, width: 3.2, height: 14, fill: depthColour(i / 39) })));
    figure.replaceChildren(
      html("div", { class: "tools" }, html("span", {}, "layer 0"), key(bar, String(layers - 1), 120), key(svg("line", { x1: 0, x2: 18, y1: 7, y2: 7, stroke: "#1b1f24", "stroke-width": 2, "stroke-dasharray": "7 3" }), "final read"), choice("relative to uniform", relative, (on) => {
        settings.relativeEntropy = on;
        redraw();
      })),
      drawing,
      caption(5, "Entropy of the routing weights, per read, over training.", "Mean over the probe tokens. Dashed levels: the entropy of equal weights over as many sources as the read has. Reads with a single source are left out. Steps are spaced as log(1 + step)."));
  },
  update() {
    for (const move of this.marks) move();
  },
};

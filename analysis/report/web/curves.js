// Curves over training: of reads, the entropy of their weights and how much these depend on content; and of tasks.

/// One line for each read: attention reads in one panel, MLP reads and the final one in the other. value(i, read) at
/// steps[i]; levels: [[value, text], ...] of the reads of a panel. Returns {drawing, marks}.
function readLines(width, label, steps, options) {
  const {high, yLabel, value, levels = () => [], describe, included = () => true} = options;
  const across = width >= 700, left = 66, gap = across ? 104 : 0, h = 250;
  const w = across ? (width - left - gap - 76) / 2 : width - left - 76;
  const drawing = canvas(width, across ? h + 84 : 2 * (h + 84), label);
  const marks = [];
  const kinds = [["Attention reads", ["attn"]], ["MLP reads, and the final read", ["mlp", "final"]]];
  kinds.forEach(([title, sublayer], side) => {
    const area =
      {x: left + (across ? side * (w + gap) : 0), y: 26 + (across ? 0 : side * (h + 84)), width: w, height: h};
    const x = stepScale(steps.at(-1), [area.x, area.x + w]);
    const y = linearScale([0, high], [area.y + h, area.y]);
    panel(drawing, area, x, y, {title, xLabel: "training step", yLabel: side === 0 || !across ? yLabel : null});
    const list =
      reads.name.map((_, read) => read).filter((read) => sublayer.includes(reads.sublayer[read]) && included(read));
    drawLevels(drawing, area, y, levels(list));
    const points = [];
    for (const read of list) {
      const shown = steps.map((step, i) => (known(value(i, read)) ? [x(step), y(value(i, read))] : null));
      drawing.append(line(shown, readStroke(read)));
      shown.forEach((point, i) => point && points.push({
        x: point[0],
        y: point[1],
        text: () => `${reads.name[read]}\nstep ${grouped(steps[i])}\n${describe(i, read)}`
      }));
    }
    marks.push(marker(drawing, area, x, () => Math.min(drawn.step, steps.at(-1))));
    hover(drawing, area, points);
  });
  return {drawing, marks};
}

const readStroke = (read) => ({
  stroke: isFinal(read) ? "#1b1f24" : layerColour(reads.layer[read]),
  "stroke-width": 1.7,
  "stroke-dasharray": isFinal(read) ? "7 3" : undefined
});

/// Dashed lines with their text beside them where there is room.
function drawLevels(drawing, area, y, levels) {
  const right = area.x + area.width;
  let free = Infinity;
  for (const [level, text] of levels) {
    const at = y(level);
    drawing.append(svg("line", {x1: area.x, x2: right, y1: at, y2: at, stroke: "#7b848e", "stroke-dasharray": "5 4"}));
    if (free - at <= 12) continue;
    drawing.append(svg("text", {class: "note", x: right + 5, y: at + 4}, text));
    free = at;
  }
}

function layerKeys() {
  const dashed =
    svg("line", {x1: 0, x2: 18, y1: 7, y2: 7, stroke: "#1b1f24", "stroke-width": 2, "stroke-dasharray": "7 3"});
  const final = reads.sublayer.includes("final") ? [key(dashed, "final read")] : [];
  return [html("span", {}, "layer 0"), key(colourBar(depthColour, 40, 120), String(layers - 1), 120), ...final];
}

// ---- entropy ----

const entropy = {
  draw(figure) {
    this.marks = [];
    const {snapshots} = run;
    const nothing = reads.name.length ? "No routing was recorded (routing.h5)." : data.not_probed;
    if (!snapshots.step.length) return noteNothing(figure, nothing);
    const relative = settings.relativeEntropy;
    const counts =
      reads.name.map((_, read) => sources.filter((__, s) => snapshots.alpha[0][read * sources.length + s] >= 0).length);
    const levels = (list) => (relative ? [[1, "uniform"]] : [
      ...new Set(list.map((read) => counts[read]))
    ].sort((a, b) => a - b).map((n) => [Math.log(n), `uniform, ${n}`]));
    const {drawing, marks} = readLines(widthOf(figure), "entropy of the routing over training", snapshots.step, {
      high: relative ? 1.05 : 1.05 * Math.log(Math.max(2, ...counts)),
      yLabel: relative ? "entropy / uniform (share)" : "entropy (nats)",
      value: (i, read) => snapshots.entropy[i][read] / (relative ? Math.log(counts[read]) : 1),
      levels,
      included: (read) => counts[read] > 1,
      describe: (i, read) => `entropy ${digits(snapshots.entropy[i][read], 4)} nats\nuniform over ${counts[read]}: ` +
        `${digits(Math.log(counts[read]), 4)} nats`
    });
    this.marks = marks;
    figure.replaceChildren(html("div", {class: "tools"}, ...layerKeys(),
                             choice("relative to uniform", relative,
                               (on) => {
                                 settings.relativeEntropy = on;
                                 redraw();
                               })),
      drawing,
      caption("Entropy of the routing weights of each read over training.",
        "Mean over the probe tokens: high where a read spreads its weight, low where one source has nearly all. " +
          "Dashed: the entropy of equal weights over as many sources. Reads with a single source are left out. " +
          `Steps are spaced as log(1 + step).${ofRun()}`));
  },

  update() {
    for (const move of this.marks) move();
  }
};

// ---- content ----

const content = {
  absent: () => !probes.content.some(known),

  draw(figure) {
    const share = probes.content_reads;
    const {drawing, marks} = readLines(widthOf(figure), "content dependence of each read over training", probes.step, {
      high: Math.min(1, 1.05 * Math.max(0.01, ...share.flat().filter(known))),
      yLabel: "share of variance",
      value: (i, read) => share[i][read],
      describe: (i, read) => `share of variance between tokens ${digits(share[i][read], 4)}`
    });
    this.marks = marks;
    this.text = html("span");
    figure.replaceChildren(html("div", {class: "tools"}, ...this.keys()), this.means(widthOf(figure)),
      html("div", {class: "tools"}, ...layerKeys()), drawing,
      caption("How much routing depends on content.", this.text));
  },

  keys() {
    const stroke = (width) => svg("line", {x1: 0, x2: 18, y1: 7, y2: 7, stroke: "#009e73", "stroke-width": width});
    const thin = runs.length > 1 ? [key(stroke(1), "single runs")] : [];
    const dashed =
      svg("line", {x1: 0, x2: 18, y1: 7, y2: 7, stroke: "#7b848e", "stroke-width": 2, "stroke-dasharray": "5 4"});
    const wrapped = baselines.length ? [key(dashed, "wrapped baseline")] : [];
    return [key(stroke(2.4), `mean over reads, ${view.name}`), ...thin, ...wrapped];
  },

  /// The mean over reads: the chosen view, single runs, and wrapped baselines.
  means(width) {
    const area = {x: 66, y: 14, width: width - 84, height: 150};
    const drawing = canvas(width, area.height + 64, "content dependence over training, mean over reads");
    const all = [probes, ...beside.filter((one) => !one.baseline)];
    const highest = Math.max(0.01, ...[...all, ...baselines].flatMap((one) => one.content).filter(known));
    const last = Math.max(...all.map((one) => one.step.at(-1)));
    const x = stepScale(last, [area.x, area.x + area.width]);
    const y = linearScale([0, Math.min(1, 1.05 * highest)], [area.y + area.height, area.y], 4);
    panel(drawing, area, x, y, {xLabel: "training step", yLabel: "share of variance"});
    for (const {content: [value]} of baselines) {
      drawing.append(svg("line", {
        x1: area.x,
        x2: area.x + area.width,
        y1: y(value),
        y2: y(value),
        stroke: "#7b848e",
        "stroke-width": 2,
        "stroke-dasharray": "5 4"
      }));
    }
    const points = all.reverse().flatMap((one) => {
      const path = one.step.map((step, i) => (known(one.content[i]) ? [x(step), y(one.content[i])] : null));
      drawing.append(line(path,
        {stroke: "#009e73", "stroke-width": one === probes ? 2.4 : 1, "stroke-opacity": one === probes ? 1 : 0.55}));
      return path
        .map((point, i) => point &&
            {x: point[0], y: point[1], text: `${one.name}\nstep ${grouped(one.step[i])}\n${percent(one.content[i])}`})
        .filter(Boolean);
    });
    this.marks.push(marker(drawing, area, x, () => Math.min(drawn.step, last)));
    hover(drawing, area, points);
    return drawing;
  },

  update() {
    for (const move of this.marks || []) move();
    if (!this.text) return;
    const step = grouped(probes.step[drawn.probe]);
    const [below, over] = probes.over ? [", mean over runs", " and runs"] : ["", ""];
    this.text.textContent =
      "Of the variance of a read\u2019s weights over tokens and sources, the share that lies between the tokens of " +
      "one source: 0 where all tokens are routed alike, as in a wrapped model. Above: mean over reads. Below: single " +
      `reads${below}. At step ${step} the mean over reads${over} is ${percent(probes.content[drawn.probe])}.` +
      (probes.over ? "" : ofRun());
  }
};

// ---- tasks ----

const tasks = {
  colours: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"],
  metrics: {
    probability: "probability of the answer",
    nll: "nll of the answer (nats)",
    logit_diff: "logit of answer minus distractor",
    rank: "rank of the answer (0: first)"
  },
  absent: () => !runs.some((one) => one.tasks.length),

  draw(figure) {
    this.marks = [];
    const all = view.runs.flatMap((one) => one.tasks.map((task) => ({
      ...task,
      title: `${task.name}${task.direction === "noising" ? "" : ", denoising"}${
        view.runs.length > 1 ? ` (${one.name})` : ""}`
    })));
    if (!all.length)
      return noteNothing(figure, "No task of this run was probed (routescope-analyze probe --task FILE).");
    const chosen = settings.taskMetric;
    figure.replaceChildren(
      html("div", {class: "tools"}, ...all.map((task, i) => this.key(this.colour(i), task.title)),
        ...this.motifs().map((motif) => this.key(familyColour[families[motif.family]], `motif: ${motif.title}`)),
        select("shown", Object.entries(this.metrics), chosen,
          (metric) => {
            settings.taskMetric = metric;
            redraw();
          })),
      this.panels(widthOf(figure), all, chosen),
      caption("Tasks over training, and the motifs beside them.",
        `Left: ${this.metrics[chosen]}, mean over the prompts of each task. Right: what ablating each motif of the ` +
          "paper costs on text beyond a control of the same weight. Steps are spaced as log(1 + step)."),
      html("div", {class: "scroll"}, this.table(all)),
      tableCaption("The largest effects on each task, at its last probed step.",
        "Changed minus unchanged, mean over prompts, with 95\u00a0% intervals. In noising a rise of the nll says that " +
          "the answer needs the routes; in denoising a fall says that they bring it back. p is adjusted over the sets."));
  },

  motifs: () => (data.motif_step.length ? motifs.filter((motif) => motif.of_paper) : []),
  key: (fill, text) => key(svg("rect", {y: 5, width: 18, height: 4, fill}), text),

  colour(i) {
    return this.colours[i % this.colours.length];
  },

  panels(width, all, chosen) {
    const across = width >= 700, left = 66, gap = across ? 84 : 0, h = 220, low = 84;
    const w = across ? (width - left - gap - 20) / 2 : width - left - 20;
    const drawing = canvas(width, across ? h + low : 2 * (h + low), "tasks and motifs over training");
    const last = Math.max(1, ...all.flatMap((task) => task.step), ...data.motif_step);
    const curves =
      all.map((task, i) => ({title: task.title, colour: this.colour(i), step: task.step, value: task[chosen]}));
    const motifCurves = this.motifs().map((motif) => ({
      title: motif.title,
      colour: familyColour[families[motif.family]],
      step: data.motif_step,
      value: motif.excess.value
    }));
    const sides = [["Tasks", this.metrics[chosen], curves]];
    if (motifCurves.length) sides.push(["Motifs", "excess (nats per token)", motifCurves]);
    sides.forEach(([title, yLabel, lines], side) => {
      const area =
        {x: left + (across ? side * (w + gap) : 0), y: 26 + (across ? 0 : side * (h + low)), width: w, height: h};
      const values = lines.flatMap((one) => one.value).filter(known);
      const x = stepScale(last, [area.x, area.x + w]);
      const y = linearScale([Math.min(0, ...values), 1.05 * Math.max(1e-3, ...values)], [area.y + h, area.y]);
      panel(drawing, area, x, y, {title, xLabel: "training step", yLabel, zero: true});
      const points = lines.flatMap((one) => this.curve(drawing, one, x, y));
      this.marks.push(marker(drawing, area, x, () => Math.min(drawn.step, last)));
      hover(drawing, area, points);
    });
    return drawing;
  },

  /// Draws a curve and returns its points.
  curve(drawing, {title, colour, step, value}, x, y) {
    const path = step.map((at, i) => (known(value[i]) ? [x(at), y(value[i])] : null));
    drawing.append(line(path, {stroke: colour, "stroke-width": 2}));
    for (const point of path.filter(Boolean))
      drawing.append(svg("circle", {cx: point[0], cy: point[1], r: 2.4, fill: colour}));
    return path
      .map((point, i) =>
             point && {x: point[0], y: point[1], text: `${title}\nstep ${grouped(step[i])}\n${digits(value[i], 4)}`})
      .filter(Boolean);
  },

  table(all) {
    const rows = all.flatMap(
      (task) => task.effects.flatMap(
        ({ablation, sets: strongest}) => strongest.map(
          (set) => [task.title, ablation, set.title, estimated(set.nll, 3), estimated(set.excess, 3), pText(set.p),
            estimated(set.probability, 3), estimated(set.logit_diff, 2), estimated(set.rank, 1)])));
    const head = [
      "task", "ablation", "routes", "\u0394 nll", "over control", "p", "\u0394 probability", "\u0394 logit difference",
      "\u0394 rank"
    ];
    return plainTable(head, rows, "wrap");
  },

  update() {
    for (const move of this.marks || []) move();
  }
};

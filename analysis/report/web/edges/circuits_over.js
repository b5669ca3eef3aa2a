// Circuits over training, beside the motifs' onsets, and over runs.

Object.assign(circuits, {
  /// Nothing where one step alone was measured.
  overTraining() {
    const {steps} = this.of;
    if (steps.step.length < 2) return [];
    const entry = (attributes, text) =>
      key(svg("line", {x1: 0, x2: 18, y1: 7, y2: 7, "stroke-width": 2, ...attributes}), text);
    return [
      html("div", {class: "tools"}, entry({stroke: "#0072b2"}, "circuit"),
        entry({stroke: "#6a737d", "stroke-dasharray": "4 3"}, "random circuits of the same sizes")),
      this.formation(widthOf(this.figure), steps),
      caption("When the circuit forms.",
        "Above: how many edges it has; none where it is not shown that ablating every edge costs anything. Middle: " +
          "the edges that it shares with the circuit of the recorded step before, of those in either (Jaccard)." +
          `${
            this.onsets().length ? " Below: the onsets by cause of the paper\u2019s motifs, with 95\u00a0% intervals."
                                 : ""} ` +
          `${this.formed(steps)} Steps are spaced as log(1 + step).${ofRun()}`)
    ];
  },

  /// What the steps show: when there is a circuit first, and from when on it stays more alike than chance.
  formed(steps) {
    const first = steps.size.findIndex((size) => size > 0);
    if (first < 0) return "No recorded step has a circuit.";
    const found = `The first recorded step with a circuit is ${grouped(steps.step[first])}.`;
    let from = steps.step.length;
    while (from > 1 && steps.before[from - 1] && below(steps.before[from - 1][2])) --from;
    if (from === steps.step.length)
      return `${
        found} The last circuit is not shown to share more edges with the one before than chance would have it.`;
    return `${found} From step ${grouped(steps.step[from - 1])} on, every circuit shares more edges with the one ` +
      `before it than random circuits of these sizes (each p below ${ADJUSTED}, adjusted over the steps).`;
  },

  onsets: () => (data.motif_step.length > 1 ? motifs.filter((one) => one.of_paper && known(one.onset[0])) : []),

  formation(width, steps) {
    const found = this.onsets(), area = {x: 66, y: 12, width: width - 84, height: 110};
    const second = {...area, y: 142}, strip = 26, foot = second.y + second.height;
    const last = Math.max(1, steps.step.at(-1), ...(found.length ? data.motif_step : []));
    const low = foot + 12 + strip * found.length;
    const drawing = canvas(width, low + 46, "size and overlap of circuits over training, and the motifs' onsets");
    const x = stepScale(last, [area.x, area.x + area.width]);
    const size = linearScale([0, 1.08 * Math.max(1, ...steps.size)], [area.y + area.height, area.y], 3);
    const share = linearScale([0, 1.02], [foot, second.y], 2);
    panel(drawing, area, x, size, {xTicks: false, yLabel: "edges"});
    panel(drawing, second, x, share,
      {xTicks: !found.length, xLabel: found.length ? null : "training step", yLabel: "shared"});
    const draw = (curve, y, attributes) =>
      drawing.append(line(curve.map((v, i) => (known(v) ? [x(steps.step[i]), y(v)] : null)), attributes));
    const circuit = {stroke: "#0072b2", "stroke-width": 2};
    const field = (n) => steps.before.map((one) => one && one[n]), shared = field(0), chance = field(1);
    draw(steps.size, size, circuit);
    draw(chance, share, {stroke: "#6a737d", "stroke-width": 1.6, "stroke-dasharray": "4 3"});
    draw(shared, share, circuit);
    const points = (curve, y, text) =>
      steps.step
        .map((step, i) => known(curve[i]) && {x: x(step), y: y(curve[i]), text: `step ${grouped(step)}\n${text(i)}`})
        .filter(Boolean);
    for (const {x: cx, y: cy} of [...points(steps.size, size, () => ""), ...points(shared, share, () => "")])
      drawing.append(svg("circle", {cx, cy, r: 2.6, fill: "#0072b2"}));
    hover(drawing, area,
      points(steps.size, size, (i) => `${steps.size[i]} edges\nfaithfulness ${faithText(steps.faithfulness[i])}`));
    hover(drawing, second,
      points(shared, share,
        (i) => `shared with the one before ${digits(shared[i], 2)}\nby chance ${digits(chance[i], 2)}\np ${
          pText(steps.before[i][2])}`));
    found.forEach(
      (motif, i) => this.onsetRow(drawing, {...area, y: foot + 12 + strip * i, height: strip - 8}, x, motif));
    if (found.length)
      panel(drawing, {...area, y: foot + 8, height: low - foot - 8}, x,
        Object.assign(() => low, {ticks: [], format: plain}), {xLabel: "training step"});
    this.marks.push(marker(drawing, {...area, height: low - area.y}, x, () => Math.min(drawn.step, last)));
    return drawing;
  },

  onsetRow(drawing, area, x, motif) {
    emergence.onset(drawing, area, x, motif.onset, familyColour[families[motif.family]]);
    const right = x(motif.onset[0]) < area.x + area.width / 2;
    const at = right ? x(known(motif.onset[2]) ? motif.onset[2] : motif.onset[0]) + 12
                     : x(motif.onset[1] ?? motif.onset[0]) - 12;
    drawing.append(svg("text",
      {class: "note halo", x: at, y: area.y + area.height - 4, "text-anchor": right ? "start" : "end"}, motif.title));
  },

  /// The runs that were measured like this one.
  overRuns() {
    const group = data.circuits.common.find(
      (one) => one.task === this.of.task && one.runs.includes(runs.indexOf(run)) && one.runs.length > 1);
    if (!group) return [];
    const names = group.runs.map((r) => runs[r].name), n = names.length;
    const pair = (a, b) => group.pairs[a * n - (a * (a + 1)) / 2 + b - a - 1];
    const cell = (a, b) => {
      if (a === b) return "\u2013";
      const [jaccard, chance] = pair(Math.min(a, b), Math.max(a, b));
      return `${digits(jaccard, 2)} (${digits(chance, 2)})`;
    };
    const table = plainTable(["", ...names], names.map((name, a) => [name, ...names.map((_, b) => cell(a, b))]));
    return [
      html("div", {class: "scroll"}, table), tableCaption("Edges that circuits of two runs share.", this.shared(group))
    ];
  },

  shared({step, runs: list, without, pairs, common, by_chance}) {
    const alike = pairs.filter(([, , p]) => below(p)).length;
    const average = (n) => digits(mean(pairs.map((one) => one[n])), 2);
    const none = without.length ? ` No circuit at that step: ${without.map((r) => runs[r].name).join(", ")}.` : "";
    const names = common.length ? `: ${common.map(edgeTitle).join(", ")}` : "";
    return `At step ${
             grouped(step)}, of the edges in either circuit (Jaccard), and in brackets what random circuits of these ` +
      `sizes share. On average ${average(0)}, by chance ${average(1)}. ${alike} of ${pairs.length} ${
        pairs.length === 1
          ? "pair is"
          : "pairs are"} shown to share more edges than chance (p below ${ADJUSTED}, adjusted over the ` +
      `pairs). In all ${list.length} circuits: ${common.length} edges, ${digits(by_chance, 2)} by chance${names}.${
        none}`;
  }
});

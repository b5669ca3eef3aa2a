// Motifs over training: effect beside its control, mass below, and when each stands out; then the same in numbers.

const emergence = {
  absent: () => !motifs.length || !data.motif_step.length,

  draw(figure) {
    this.marks = [];
    const last = (motif) => motif.excess.value.at(-1) ?? -Infinity;
    const found = motifs.filter((motif) => !motif.of_paper).sort((a, b) => last(b) - last(a));
    this.sorted = [...motifs.filter((motif) => motif.of_paper), ...found];
    // On paper all panels stand on one page.
    this.left = Math.max(0, found.length - (printing ? 3 : 6));
    const shown = this.sorted.slice(0, this.sorted.length - this.left);
    figure.replaceChildren(html("div", {class: "tools"}, ...this.keys(), effectChoice()),
      this.panels(widthOf(figure), shown), caption("The motifs over training.", this.explanation()),
      html("div", {class: "scroll"}, this.table()),
      tableCaption("The motifs at the last step, and when they came.",
        `Effect, control and excess of the ablation ${data.motif_ablation} in nats per token, with 95\u00a0% ` +
          "intervals. The ratio of onsets is the step by cause over the step by mass: below one, cause comes first."));
  },

  keys() {
    const dashed =
      svg("line", {x1: 0, x2: 18, y1: 7, y2: 7, stroke: "#6a737d", "stroke-width": 2, "stroke-dasharray": "4 3"});
    const diamond = svg("g", {}, svg("line", {x1: 0, x2: 18, y1: 7, y2: 7, stroke: "#1b1f24", "stroke-width": 2}),
      svg("path", {d: "M9,2L14,7L9,12L4,7Z", fill: "#fff", stroke: "#1b1f24", "stroke-width": 1.6}));
    return [
      key(svg("rect", {y: 5, width: 18, height: 4, fill: "#1b1f24"}), `effect (${data.motif_ablation})`),
      key(dashed, "control: as much weight, random sources"), key(diamond, "onset with 95 % interval")
    ];
  },

  explanation() {
    const left = this.left ? ` ${this.left} more slices that exceed both controls are in the table only.` : "";
    const thin = this.singleRuns().length ? " Thin lines: single runs." : "";
    const ablated = `ablated (${data.motif_ablation})`;
    const masses = ` (${massKind()}${isPlainAlpha() ? "; dashed: with uniform routing" : ""})`;
    const onsets = isPlainAlpha() ? "" : " The onset by mass is that of the weight \u03b1.";
    return "First the three motifs that the paper names, then slices that are shown to exceed both of " +
      "their controls, and to do so more than at step 0. Above: " +
      `the rise of the loss when the motif\u2019s slices are ${
        ablated}, and when other sources of the same weight are. ` +
      `Below: the mass${masses}. ${
        missingMass(views[0].probes)} The diamond is the onset: where the line between two ` +
      `probed steps crosses half of the last step\u2019s excess, or of the mass above uniform routing; its interval ` +
      `reaches at least from one of these steps to the other.${onsets} Bands: 95\u00a0% ` +
      `intervals, each step by itself. ${data.pooled_text}${thin}${left} Steps are spaced as log(1 + step).`;
  },

  /// The runs that are drawn as thin lines.
  singleRuns: () => (data.pooled_runs > 1 ? runs : runs.slice(1)).map((one) => one.probes),

  /// The chosen mass of a motif over the steps of some results.
  massOver: (motif, subject) => subject.step.map((_, row) => {
    const masses = motif.slices.map((s) => massOf(subject, row, s));
    return masses.every(known) ? mean(masses) : null;
  }),

  /// The same over the steps of the findings, which have intervals of the weight alone.
  mass(motif) {
    if (isPlainAlpha()) return motif.mass;
    const subject = views[0].probes, all = this.massOver(motif, subject);
    const value = data.motif_step.map((step) => all[subject.step.indexOf(step)] ?? null);
    return {value, lower: value.map(() => null), upper: value.map(() => null)};
  },

  panels(width, shown) {
    const steps = data.motif_step;
    const columns = width >= 860 ? 3 : width >= 560 ? 2 : 1;
    const left = 62, gapX = 20, tall = 170, low = 58;
    const w = (width - left - 8 - gapX * (columns - 1)) / columns;
    const rowHeight = 54 + tall + 12 + low + 58;
    const drawing =
      canvas(width, Math.ceil(shown.length / columns) * rowHeight - 6, "effects of the motifs over training");
    const bounds = (curve) => [...curve.value, ...curve.lower, ...curve.upper];
    const ends = shown.flatMap((motif) => [...bounds(motif.effect), ...bounds(motif.control)]);
    const masses = shown.flatMap((motif) => [...this.mass(motif).value, ...this.mass(motif).upper]).filter(known);
    const highest = 1.08 * Math.max(0.05, ...masses), lowest = 1.08 * Math.min(0, ...masses);
    const heaviest = isPlainAlpha() ? Math.min(1, highest) : highest;
    shown.forEach((motif, i) => {
      const column = i % columns;
      const top = 54 + Math.floor(i / columns) * rowHeight;
      const area = {x: left + column * (w + gapX), y: top, width: w, height: tall};
      const weight = {...area, y: top + tall + 12, height: low};
      const x = stepScale(steps.at(-1), [area.x, area.x + w]);
      const y = effectScale(ends, [top + tall, top]);
      const m = linearScale([lowest, heaviest], [weight.y + low, weight.y], 2);
      panel(
        drawing, area, x, y, {xTicks: false, yTicks: column === 0, yLabel: column === 0 ? EFFECT : null, zero: true});
      panel(
        drawing, weight, x, m, {yTicks: column === 0, yLabel: column === 0 ? "mass" : null, xLabel: "training step"});
      this.motif(drawing, motif, {area, weight, x, y, m, whole: {...area, height: tall + 12 + low}});
    });
    return drawing;
  },

  /// One motif in its two panels.
  motif(drawing, motif, {area, weight, x, y, m, whole}) {
    const steps = data.motif_step;
    const colour = familyColour[families[motif.family]];
    const onsets =
      steps.length > 1 ? `onset ${onsetText(motif.onset, steps)}; by mass ${onsetText(motif.mass_onset, steps)}` : "";
    const path = (at, curve, scale) => at.map((step, k) => (known(curve[k]) ? [x(step), scale(curve[k])] : null));
    const bounds = (curve, scale) => steps.map((step, k) => (known(curve.lower[k]) && known(curve.upper[k])
                                                   ? [x(step), scale(curve.lower[k]), scale(curve.upper[k])]
                                                   : null));
    const draw = (curve, scale, shade, opacity, stroke) =>
      drawing.append(band(bounds(curve, scale), {fill: shade, "fill-opacity": opacity}),
        line(path(steps, curve.value, scale), stroke));
    drawing.append(svg("text", {class: "title", x: area.x, y: area.y - 26}, motif.title),
      svg("text", {class: "note", x: area.x, y: area.y - 10}, onsets));
    for (const one of this.singleRuns()) {
      const same = one.motifs.find((other) => other.name === motif.name);
      if (!same) continue;
      const thin = {stroke: colour, "stroke-width": 1, "stroke-opacity": 0.55};
      drawing.append(
        line(path(one.step, same.effect, y), thin), line(path(one.step, this.massOver(motif, one), m), thin));
    }
    draw(motif.control, y, "#7b848e", 0.2, {stroke: "#6a737d", "stroke-width": 1.6, "stroke-dasharray": "4 3"});
    draw(motif.effect, y, colour, 0.22, {stroke: colour, "stroke-width": 2.2});
    const mass = this.mass(motif);
    draw(mass, m, colour, 0.22, {stroke: colour, "stroke-width": 1.8});
    if (known(motif.uniform) && isPlainAlpha()) {
      drawing.append(svg("line", {
        x1: weight.x,
        x2: weight.x + weight.width,
        y1: m(motif.uniform),
        y2: m(motif.uniform),
        stroke: "#7b848e",
        "stroke-dasharray": "5 4"
      }));
    }
    this.onset(drawing, area, x, motif.onset, colour);
    if (isPlainAlpha()) this.onset(drawing, weight, x, motif.mass_onset, colour);
    this.marks.push(marker(drawing, whole, x, () => Math.min(drawn.step, steps.at(-1))));
    const points = (curve, scale) => steps
                                       .map((step, k) => known(curve.value[k]) &&
                                           {x: x(step), y: scale(curve.value[k]), text: this.describe(motif, k)})
                                       .filter(Boolean);
    hover(drawing, area, [...points(motif.effect, y), ...points(motif.control, y)]);
    hover(drawing, weight, points(mass, m));
  },

  describe(motif, k) {
    const at = (name, places) =>
      signed(motif[name].value[k], places) + interval(motif[name].lower[k], motif[name].upper[k], places);
    return `${motif.title}\nstep ${grouped(data.motif_step[k])}\neffect ${at("effect", 4)}\ncontrol ` +
      `${at("control", 4)}\nexcess ${at("excess", 4)}\nmass ${digits(this.mass(motif).value[k], 3)} (${massKind()})`;
  },

  /// A diamond at the onset and a bar along its interval, at the foot of the panel; an open end is an arrow.
  onset(drawing, area, x, [value, lower, upper], colour) {
    if (!known(value) || data.motif_step.length < 2) return;
    const y = area.y + area.height;
    const end = area.x + area.width;
    const from = known(lower) ? x(lower) : x(value);
    const to = known(upper) ? x(upper) : end;
    drawing.append(svg("line", {
      x1: x(value),
      x2: x(value),
      y1: area.y,
      y2: y,
      stroke: colour,
      "stroke-opacity": 0.5,
      "stroke-dasharray": "1 3"
    }),
      svg("line", {x1: from, x2: to, y1: y, y2: y, stroke: colour, "stroke-width": 4, "stroke-opacity": 0.75}));
    if (!known(upper)) {
      const arrow = `M${end - 7},${y - 5}L${end},${y}L${end - 7},${y + 5}`;
      drawing.append(svg("path", {d: arrow, fill: "none", stroke: colour, "stroke-width": 2}));
    }
    const diamond = `M${x(value)},${y - 6}l6,6l-6,6l-6,-6Z`;
    drawing.append(svg("path", {d: diamond, fill: "#fff", stroke: colour, "stroke-width": 2}));
  },

  table() {
    const steps = data.motif_step;
    const at = (curve, places) => estimated([curve.value.at(-1), curve.lower.at(-1), curve.upper.at(-1)], places);
    const weight = (curve) => digits(curve.value.at(-1), 3);
    const ratio = (lead) => (known(lead[0]) ? digits(Math.exp(lead[0]), 2) +
          (known(lead[1]) && known(lead[2]) ? ` [${digits(Math.exp(lead[1]), 2)}, ${digits(Math.exp(lead[2]), 2)}]`
                                            : "")
                                            : "\u2013");
    const rows = this.sorted.map(
      (motif) => [motif.title + (motif.of_paper ? "" : " (not named by the paper)"), weight(this.mass(motif)),
        at(motif.effect, 3), at(motif.control, 3), at(motif.excess, 3),
        known(motif.shown_from) ? grouped(motif.shown_from) : "not shown", onsetText(motif.onset, steps),
        onsetText(motif.mass_onset, steps), steps.length > 1 ? ratio(motif.lead) : "\u2013"]);
    const head = [
      "motif", `mass (${massKind()})`, "effect", "control", "excess", "shown from", "onset by cause", "onset by mass",
      "ratio of onsets"
    ];
    return plainTable(head, rows, "wrap");
  },

  update() {
    for (const move of this.marks || []) move();
  }
};

// Figures of what the probes found: mass against effect, effects over training, the table of slices.
// Each figure is { draw(figure), update() }: draw() builds it for the page's width, update() shows the chosen step.

// ---- 2: mass against effect -------------------------------------------------------------------------------------------

function effectScale(range) {
  const ends = [...probes.lower.flat(), ...probes.upper.flat(), ...probes.delta.flat()].filter(known);
  const low = Math.min(0, ...ends), high = Math.max(1e-9, ...ends), margin = 0.04 * (high - low);
  if (!settings.logEffect) return linearScale([low - margin, high + margin], range);
  const linear = 10 ** Math.round(Math.log10(Math.max(high, -low) / 1000));
  return symlogScale([low * 1.1 - linear / 2, high * 1.15], linear, range);
}
const effectChoice = () => choice("logarithmic effect (linear near zero)", settings.logEffect, (on) => {
  settings.logEffect = on;
  redraw();
});

function describeSlice(s, p) {
  const at = (field) => probes[field][p][s];
  return `${families[slices[s].family]} source, ${depths[slices[s].depth]} ${sublayerName[sublayers[slices[s].sublayer]]}\nstep ${grouped(probes.step[p])}\nmass ${digits(at("mass"), 4)}\n\u0394 nll ${signed(at("delta"), 4)} [${signed(at("lower"), 4)}, ${signed(at("upper"), 4)}]\nadjusted p ${digits(at("p"), 4)}, coverage ${digits(at("coverage"), 2)}`;
}

/// Spearman's rank correlation, ties by their mean rank.
function rankCorrelation(pairs) {
  const ranks = (values) => values.map((v) => values.filter((o) => o < v).length + (values.filter((o) => o === v).length + 1) / 2);
  const [a, b] = [ranks(pairs.map((p) => p[0])), ranks(pairs.map((p) => p[1]))];
  const centre = (pairs.length + 1) / 2;
  const sum = (f) => a.reduce((total, _, i) => total + f(a[i] - centre, b[i] - centre), 0);
  return sum((x, y) => x * y) / Math.sqrt(sum((x) => x * x) * sum((_, y) => y * y));
}

const plane = {
  draw(figure) {
    this.layer = null;
    if (!probes.step.length) return noteNothing(figure, data.not_probed);
    const width = figure.clientWidth, height = Math.min(480, Math.max(340, width * 0.5));
    this.area = { x: 68, y: 14, width: width - 84, height: height - 64 };
    const { x, y, width: w, height: h } = this.area;
    this.x = linearScale([0, Math.min(1, Math.max(...probes.mass.flat().filter(known)) * 1.06)], [x, x + w], Math.max(4, Math.round(w / 110)));
    this.y = effectScale([y + h, y]);
    this.drawing = canvas(width, height, "mass against effect of the slices");
    panel(this.drawing, this.area, this.x, this.y, { xLabel: "routing mass (mean weight, share)", yLabel: EFFECT, zero: true });
    const swatch = (colour, sublayer, filled) => svg("g", { transform: "translate(8 7)" }, symbol(sublayer, 5, { fill: colour, "fill-opacity": filled, stroke: colour, "stroke-width": 1.6 }));
    const grey = "#3d444d";
    this.text = html("span");
    figure.replaceChildren(
      html("div", { class: "tools" }, ...families.map((f) => key(swatch(familyColour[f], "attn", 1), f)), key(swatch(grey, "attn", 0), "attention"), key(swatch(grey, "mlp", 0), "MLP"), ...depths.map((d, i) => key(swatch(grey, "attn", i / 2), d)), effectChoice()),
      this.drawing,
      caption(2, "What a slice weighs, and what it does.", this.text));
  },
  update() {
    if (!this.drawing || !probes.step.length) return;
    if (this.layer) this.layer.remove();
    this.layer = svg("g");
    this.drawing.append(this.layer);
    const p = drawn.probe, at = (field, s) => probes[field][p][s];
    const tested = slices.map((_, s) => s).filter((s) => known(at("delta", s)) && known(at("mass", s)));
    const points = tested.map((s) => ({ s, x: this.x(at("mass", s)), y: this.y(at("delta", s)), text: describeSlice(s, p) }));
    for (const { s, x, y } of points) {
      const colour = familyColour[families[slices[s].family]], clear = at("p", s) < 0.05;
      const group = svg("g", { opacity: clear ? 1 : 0.45 });
      if (known(at("lower", s))) group.append(svg("line", { x1: x, x2: x, y1: this.y(at("lower", s)), y2: this.y(at("upper", s)), stroke: colour, "stroke-width": 1.6 }));
      const mark = symbol(sublayers[slices[s].sublayer], 5.5, { fill: "#fff", stroke: colour, "stroke-width": 1.8, transform: `translate(${x} ${y})` });
      const inner = symbol(sublayers[slices[s].sublayer], 5.5, { fill: colour, "fill-opacity": slices[s].depth / 2, transform: `translate(${x} ${y})` });
      group.append(mark, inner);
      this.layer.append(group);
    }
    this.label(points, at);
    hover(this.layer.ownerSVGElement, this.area, points);
    this.layer.append(...[...this.drawing.children].slice(-2));
    const heaviest = tested.reduce((a, b) => (at("mass", b) > at("mass", a) ? b : a), tested[0]);
    const strongest = tested.reduce((a, b) => (at("delta", b) > at("delta", a) ? b : a), tested[0]);
    const name = (s) => `${depths[slices[s].depth]} ${sublayerName[sublayers[slices[s].sublayer]]} \u2190 ${families[slices[s].family]}`;
    let said = `Each of the ${tested.length} slices that masking can change, at step ${grouped(probes.step[p])}: its mean weight against the rise of the loss when it is masked, with 95\u00a0% intervals over ${data.probe.sequences} sequences. Faded: adjusted p of 0.05 or more.`;
    const figures = (s) => `(mass ${digits(at("mass", s), 2)}, \u0394 nll ${signed(at("delta", s), 3)})`;
    if (tested.length > 1) {
      said += heaviest === strongest
        ? ` The heaviest slice, ${name(heaviest)} ${figures(heaviest)}, has the largest effect as well.`
        : ` The heaviest slice is ${name(heaviest)} ${figures(heaviest)}; the largest effect is that of ${name(strongest)} ${figures(strongest)}.`;
      said += ` Rank correlation of mass and effect over the slices: ${digits(rankCorrelation(tested.map((s) => [at("mass", s), at("delta", s)])), 2)}.`;
    }
    this.text.textContent = said;
  },
  /// Names beside points, the largest effects and masses first, wherever there is room.
  label(points, at) {
    const taken = points.map(({ x, y }) => ({ x: x - 7, y: y - 7, w: 14, h: 14 }));
    const free = (box) => box.x >= this.area.x && box.x + box.w <= this.area.x + this.area.width && box.y >= this.area.y && taken.every((o) => box.x + box.w < o.x || o.x + o.w < box.x || box.y + box.h < o.y || o.y + o.h < box.y);
    const first = (field, count) => [...points].sort((a, b) => at(field, b.s) - at(field, a.s)).slice(0, count);
    for (const { s, x, y } of new Set([...first("delta", 5), ...first("mass", 4)])) {
      const text = `${families[slices[s].family]}, ${depths[slices[s].depth]} ${shortName[sublayers[slices[s].sublayer]]}`, w = text.length * 6.4;
      const places = [[x + 11, y - 7], [x - 11 - w, y - 7], [x - w / 2, y - 25], [x - w / 2, y + 11], [x + 9, y - 20], [x + 9, y + 6]];
      const place = places.map(([px, py]) => ({ x: px, y: py, w, h: 14 })).find(free);
      if (!place) continue;
      taken.push(place);
      this.layer.append(svg("text", { class: "note", x: place.x, y: place.y + 11 }, text));
    }
  },
};

// ---- 3: effects over training -----------------------------------------------------------------------------------------

const emergence = {
  draw(figure) {
    this.marks = [];
    if (!probes.step.length) return noteNothing(figure, data.not_probed);
    const width = figure.clientWidth, across = width >= 760;
    const columns = across ? families : sublayers, rows = across ? sublayers : families;
    const left = 66, gapX = 18, gapY = 34, w = (width - left - 10 - gapX * (columns.length - 1)) / columns.length, h = across ? 210 : 170;
    const drawing = canvas(width, 26 + rows.length * (h + gapY) + 12, "effects of the slices over training");
    const high = probes.step.at(-1);
    rows.forEach((row, j) => columns.forEach((column, i) => {
      const [family, sublayer] = across ? [column, row] : [row, column];
      const area = { x: left + i * (w + gapX), y: 26 + j * (h + gapY), width: w, height: h };
      const x = stepScale(high, [area.x, area.x + w]), y = effectScale([area.y + h, area.y]);
      const last = j === rows.length - 1;
      panel(drawing, area, x, y, { title: w < 210 ? `${family}, ${shortName[sublayer]}` : `${family} source, ${sublayerName[sublayer]}`, xTicks: last, yTicks: i === 0, xLabel: last ? "training step" : null, yLabel: i === 0 ? EFFECT : null, zero: true });
      const points = [];
      depths.forEach((depth, d) => {
        const s = families.indexOf(family) * 6 + sublayers.indexOf(sublayer) * 3 + d, colour = thirdColour(depth);
        const shown = probes.step.map((step, p) => (known(probes.delta[p][s]) ? [x(step), y(probes.delta[p][s])] : null));
        const bounds = probes.step.map((step, p) => (known(probes.lower[p][s]) ? [x(step), y(probes.lower[p][s]), y(probes.upper[p][s])] : null));
        drawing.append(band(bounds, { fill: colour, "fill-opacity": 0.18 }), line(shown, { stroke: colour, "stroke-width": 2 }));
        shown.forEach((point, p) => {
          if (!point) return;
          drawing.append(svg("circle", { cx: point[0], cy: point[1], r: 2.2, fill: colour }));
          points.push({ x: point[0], y: point[1], text: describeSlice(s, p) });
        });
      });
      this.marks.push(marker(drawing, area, x, () => Math.min(drawn.step, high)));
      hover(drawing, area, points);
    }));
    figure.replaceChildren(
      html("div", { class: "tools" }, ...depths.map((d) => key(svg("rect", { y: 5, width: 18, height: 4, fill: thirdColour(d) }), `${d} layers`)), effectChoice()),
      drawing,
      caption(3, "Effect of masking each slice, over training.", `Lines: rise of the loss when the slice is masked; bands: 95\u00a0% intervals, pointwise, paired over ${data.probe.sequences} sequences. No line: masking the slice could change no read. Steps are spaced as log(1 + step).`));
  },
  update() {
    for (const move of this.marks) move();
  },
};

// ---- table ------------------------------------------------------------------------------------------------------------

const table = {
  sort: { field: "order", down: false },
  draw(figure) {
    this.body = null;
    if (!probes.step.length) return noteNothing(figure, data.not_probed);
    const columns = [["family", "", "order"], ["sublayer", "", "order"], ["depth", "", "order"], ["mass", "share", "mass"], ["\u0394 nll", "nats per token", "delta"], ["95 % interval", "nats per token", "delta"], ["adjusted p", "Holm", "p"], ["KL", "nats per token", "kl"], ["top-1", "agreement, share", "top1"], ["coverage", "share", "coverage"]];
    const head = html("tr", {}, ...columns.map(([name, unit, field]) => {
      const cell = html("th", { scope: "col" }, name, html("small", {}, unit));
      cell.addEventListener("click", () => {
        this.sort = { field, down: field !== "order" && !(this.sort.field === field && this.sort.down) };
        this.update();
      });
      return cell;
    }));
    this.body = html("tbody");
    this.text = html("span");
    figure.replaceChildren(html("div", { class: "scroll" }, html("table", {}, html("thead", {}, head), this.body)), html("figcaption", {}, html("b", {}, "Table 1. "), this.text));
  },
  update() {
    if (!this.body) return;
    const p = drawn.probe, at = (field, s) => probes[field][p][s];
    const rank = (s) => (this.sort.field === "order" ? s : known(at(this.sort.field, s)) ? at(this.sort.field, s) : -Infinity);
    const order = slices.map((_, s) => s).sort((a, b) => (this.sort.down ? rank(b) - rank(a) : rank(a) - rank(b)));
    this.body.replaceChildren(...order.map((s) => {
      const cells = [families[slices[s].family], sublayerName[sublayers[slices[s].sublayer]], depths[slices[s].depth], digits(at("mass", s), 4), signed(at("delta", s), 4), known(at("lower", s)) ? `${signed(at("lower", s), 4)} to ${signed(at("upper", s), 4)}` : "\u2013", digits(at("p", s), 4), digits(at("kl", s), 4), digits(at("top1", s), 4), digits(at("coverage", s), 2)];
      return html("tr", { class: at("p", s) < 0.05 ? "significant" : "" }, ...cells.map((text, i) => html("td", i === 4 ? { class: "effect" } : {}, text)));
    }));
    this.text.textContent = `All slices at step ${grouped(probes.step[p])}, where the intact model's loss on the probe tokens is ${digits(probes.nll[p], 4)} nats per token. Bold: adjusted p below 0.05. A dash: masking could change no read. Click a heading to sort.`;
  },
};

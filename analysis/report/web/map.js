// Maps of reads and sources: the mean routing weight of each route, and its first-order effect.

/// Cells for every (read, source): attention reads above, MLP reads and the final one below. Returns { drawing, cells, bottom };
/// a cell is { box, text, read, s }, its text null where there is no room.
function readGrid(width, label, describe) {
  const left = 84, gap = 10, cells = [], points = [];
  const order = (sublayer) => reads.name.map((_, read) => read).filter((read) => reads.sublayer[read] === sublayer);
  const finals = order("final"), rows = [["Attention reads", order("attn")], [finals.length ? "MLP reads, and the final read" : "MLP reads", [...order("mlp"), ...finals]]];
  const cell = (width - left - 8 - (finals.length ? gap : 0)) / (layers + finals.length);
  const height = Math.min(30, Math.max(9, Math.round(360 / sources.length)));
  const drawing = canvas(width, 2 * (height * sources.length + 82) - 4, label);
  drawing.append(svg("defs", {}, svg("pattern", { id: "absent", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("rect", { width: 5, height: 5, fill: "#f5f6f7" }), svg("line", { x1: 0, y1: 0, x2: 0, y2: 5, stroke: "#dfe3e6", "stroke-width": 1.5 }))));
  const every = Math.max(1, Math.ceil(26 / cell)), everySource = Math.max(1, Math.ceil(13 / height));
  rows.forEach(([title, list], row) => {
    const top = 38 + row * (height * sources.length + 82), bottom = top + height * sources.length;
    const x = (read) => left + (isFinal(read) ? layers * cell + gap : reads.layer[read] * cell);
    drawing.append(svg("text", { class: "title", x: 0, y: top - 24 }, title));
    sources.forEach((source, s) => {
      const last = sources.length - 1;
      if (s !== last && (s % everySource || last - s < everySource)) return;
      drawing.append(svg("text", { class: "tick", x: left - 8, y: top + (s + 0.5) * height + 4, "text-anchor": "end" }, sourceName(source)));
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
        drawing.append(svg("text", { class: "tick", x: x(read) + cell / 2, y: bottom + 15, "text-anchor": "middle" }, isFinal(read) ? "final" : reads.layer[read]));
      }
      sources.forEach((_, s) => {
        const box = svg("rect", { x: x(read) + 0.5, y: top + s * height + 0.5, width: cell - 1, height: height - 1 });
        const text = cell >= 34 && height >= 15 ? svg("text", { class: "tick", x: x(read) + cell / 2, y: top + (s + 0.5) * height + 4, "text-anchor": "middle" }) : null;
        drawing.append(box);
        if (text) drawing.append(text);
        cells.push({ box, text, read, s });
        points.push({ x: x(read) + cell / 2, y: top + (s + 0.5) * height, text: () => describe(read, s) });
      });
    }
    drawing.append(svg("text", { x: left + (layers * cell) / 2, y: bottom + 31, "text-anchor": "middle" }, "layer"));
    hover(drawing, { x: left, y: top, width: width - left - 8, height: bottom - top }, points.filter((point) => point.y > top), Math.hypot(cell, height) / 2 + 1);
  });
  return { drawing, cells };
}
const colourBar = (colour, count, width) => svg("g", {}, ...Array.from({ length: count }, (_, i) => svg("rect", { x: (i * width) / count, y: 0, width: width / count + 0.3, height: 14, fill: colour(i / (count - 1)) })));
const absentKey = () => key(svg("g", {}, svg("rect", { x: 0.5, y: 0.5, width: 17, height: 13, fill: "#f5f6f7", stroke: "#dfe3e6" }), ...[4, 9, 14].map((x) => svg("line", { x1: x - 4, y1: 13, x2: x + 4, y2: 1, stroke: "#dfe3e6", "stroke-width": 1.5 }))), "source does not exist yet");

// ---- mean weights ----

const shade = (weight) => weightColour(settings.stretch ? Math.sqrt(weight) : weight);

const routing = {
  draw(figure) {
    this.cells = [];
    if (!reads.name.length || !snapshots.step.length) return noteNothing(figure, "This model's residual stream is not routed: there is nothing to show.");
    const grid = readGrid(widthOf(figure), "routing weights of every read", (read, s) => this.describe(read, s));
    this.cells = grid.cells;
    figure.replaceChildren(
      html("div", { class: "tools" }, html("span", {}, "mean weight \u03b1"), html("span", {}, "0"), key(colourBar(shade, 50, 150), "1", 150), absentKey(), choice("stretch low weights (square root)", settings.stretch, (on) => {
        settings.stretch = on;
        redraw();
      })),
      grid.drawing,
      caption(this, "Mean routing weight of every read on every source.", "Weights of one read (a column) sum to one over its sources; the mean is over all probe tokens. Move the step at the top of the page, or play it."));
  },
  weight: (read, s) => snapshots.alpha[drawn.snapshot][read * sources.length + s] / 1e4,
  describe(read, s) {
    const value = this.weight(read, s), name = `${reads.name[read]} \u2190 ${sourceName(sources[s])}`;
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

// ---- the atlas of first-order effects ----

const atlas = {
  absent: () => !data.atlas.length,
  draw(figure) {
    const width = widthOf(figure);
    const grid = readGrid(width, "first-order effect of every route", (read, s) => this.describe(read, s));
    this.cells = grid.cells;
    const all = data.atlas.flatMap((row) => row.first).filter(known).map(Math.abs);
    this.high = Math.max(1e-9, ...all);
    this.linear = this.high / 300;
    const shown = 2 * Math.floor((width - 40) / 2);
    this.beside = html("div", { class: "beside" });
    this.text = html("span");
    const end = plain(Number(this.high.toPrecision(2)));
    figure.replaceChildren(
      html("div", { class: "tools" }, html("span", {}, "first-order effect, nats per token"), html("span", {}, "\u2212" + end), key(colourBar(signColour, 60, Math.min(180, shown)), "+" + end, 180), html("span", {}, "(logarithmic, linear near zero)"), absentKey()),
      grid.drawing, this.beside,
      caption(this, "Atlas: what masking each single route would do, to first order.", this.text));
  },
  tone(value) {
    return 0.5 + (0.5 * Math.asinh(value / this.linear)) / Math.asinh(this.high / this.linear);
  },
  row: () => data.atlas[atOrBefore(data.atlas.map((row) => row.step), drawn.step)],
  describe(read, s) {
    const row = this.row(), at = read * sources.length + s, name = `${reads.name[read]} \u2190 ${sourceName(sources[s])}`;
    if (!known(row.first[at])) return `${name}\nnothing to mask`;
    const check = row.checked.findIndex(([r, c]) => r === read && c === s);
    return `${name}\nstep ${grouped(row.step)}\nfirst order ${signed(row.first[at], 4)}${interval(row.lower[at], row.upper[at], 4)}${check < 0 ? "" : `\nmasked in truth ${signed(row.true[check], 4)}${interval(row.true_lower[check], row.true_upper[check], 4)}`}`;
  },
  update() {
    if (!this.cells || !data.atlas.length) return;
    const row = this.row();
    for (const { box, text, read, s } of this.cells) {
      const value = row.first[read * sources.length + s], there = known(value);
      box.setAttribute("fill", there ? signColour(this.tone(value)) : "url(#absent)");
      if (!text) continue;
      const tone = there ? this.tone(value) : 0.5;
      text.textContent = there && Math.abs(value) >= 0.0005 ? digits(value, 3).replace(/^(\u2212?)0\./, "$1.") : "";
      text.style.fill = Math.abs(tone - 0.5) > 0.36 ? "#fff" : "#1b1f24";
    }
    this.check(row);
    const [rho, low, high] = row.rank_correlation;
    this.text.textContent = `At step ${grouped(row.step)}, from one forward and one backward pass. Red: the loss would rise without the route. It is an estimate: beside the map, ${row.checked.length} routes drawn at random were masked in truth. Rank correlation ${signed(rho, 2)}${interval(low, high, 2)}; median relative error ${known(row.median_relative_error) ? digits(100 * row.median_relative_error, 0) + "\u00a0%" : "\u2013"}. On the dashed line the estimate is right; read the map where the points stay near it.`;
  },
  /// The estimate against true ablations, and the routes that matter most by it.
  check(row) {
    const frame = this.beside.clientWidth || 700, side = Math.min(380, frame), area = { x: 84, y: 14, width: side - 98, height: side - 74 };
    const drawing = canvas(side, side, "first-order estimate against true ablations");
    const first = row.checked.map(([read, s]) => row.first[read * sources.length + s]);
    const at = row.checked.map(([read, s]) => read * sources.length + s);
    const ends = [...first, ...row.true, ...row.true_lower, ...row.true_upper].filter(known);
    const low = Math.min(0, ...ends), high = Math.max(1e-9, ...ends), linear = 10 ** Math.round(Math.log10(Math.max(high, -low) / 300));
    const domain = [low * 1.15 - linear / 2, high * 1.2], x = symlogScale(domain, linear, [area.x, area.x + area.width]), y = symlogScale(domain, linear, [area.y + area.height, area.y]);
    x.ticks = x.ticks.filter((tick, i, list) => i === 0 || x(tick) - x(list[i - 1]) > 44 || tick === 0);
    panel(drawing, area, x, y, { xLabel: "first-order estimate", yLabel: "true effect of masking", zero: true });
    drawing.append(svg("line", { x1: x(domain[0]), x2: x(domain[1]), y1: y(domain[0]), y2: y(domain[1]), stroke: "#7b848e", "stroke-dasharray": "5 4" }));
    const points = row.checked.map(([read, s], i) => ({ read, s, i, x: x(first[i]), y: y(row.true[i]), text: () => this.describe(read, s) })).filter((point) => known(first[point.i]) && known(row.true[point.i]));
    for (const point of points) {
      const family = point.s === 0 ? "embedding" : point.s === sources.length - 1 ? "current" : "history";
      if (known(row.true_lower[point.i])) drawing.append(svg("line", { x1: point.x, x2: point.x, y1: y(row.true_lower[point.i]), y2: y(row.true_upper[point.i]), stroke: familyColour[family], "stroke-opacity": 0.6 }));
      if (known(row.lower[at[point.i]])) drawing.append(svg("line", { y1: point.y, y2: point.y, x1: Math.max(area.x, x(row.lower[at[point.i]])), x2: Math.min(area.x + area.width, x(row.upper[at[point.i]])), stroke: familyColour[family], "stroke-opacity": 0.6 }));
      drawing.append(symbol(reads.sublayer[point.read], 3.6, { fill: familyColour[family], transform: `translate(${point.x} ${point.y})` }));
    }
    hover(drawing, area, points);
    const strongest = row.first.map((value, cell) => ({ value, cell })).filter(({ value }) => known(value)).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, 10);
    const list = html("table", { class: "short" }, html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "strongest routes"), html("th", { scope: "col" }, "first order"), html("th", { scope: "col" }, "95 % interval"))),
      html("tbody", {}, ...strongest.map(({ value, cell }) => html("tr", {}, html("td", {}, `${reads.name[Math.floor(cell / sources.length)]} \u2190 ${sourceName(sources[cell % sources.length])}`), html("td", {}, signed(value, 4)), html("td", {}, interval(row.lower[cell], row.upper[cell], 4).trim() || "\u2013")))));
    drawing.style.width = side + "px";
    this.beside.replaceChildren(drawing, list);
  },
};

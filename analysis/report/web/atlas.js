// The atlas: the effect of every route, true where all were masked, else estimated and checked by masking some.

/// The outline of routes that were really masked, or, where all were, of those whose effect is shown.
const masked = {
  stroke: "#1b1f24",
  "stroke-width": 1.2
};

const atlas = {
  absent: () => !view.runs.some((one) => one.atlas.length),

  draw(figure) {
    const width = widthOf(figure);
    const exact = view.runs.every((one) => !one.atlas.length || one.atlas.every((row) => this.isExact(row)));
    const what = exact ? "effect of masking every route" : "estimated effect of every route";
    const grid = readGrid(width, what, (read, s) => this.describe(read, s));
    this.cells = grid.cells;
    const sizes = view.runs.flatMap((one) => one.atlas.flatMap((row) => (exact ? row.true : row.estimate)))
                    .filter(known)
                    .map(Math.abs);
    this.high = Math.max(1e-9, ...sizes);
    this.linear = this.high / 300;
    this.beside = html("div", {class: "beside"});
    this.text = html("span");
    const end = plain(Number(this.high.toPrecision(2)));
    figure.replaceChildren(edgeSchema(width),
      html("div", {class: "tools"}, html("span", {}, `${exact ? "effect" : "estimated effect"}, nats per token`),
        html("span", {}, "\u2212" + end), key(colourBar(signColour, 60, 180), "+" + end, 180),
        html("span", {}, "(logarithmic, linear near zero)"),
        key(svg("rect", {x: 1, y: 1, width: 16, height: 12, fill: "none", ...masked}),
          exact ? "shown to differ from 0 (Holm over all routes)" : "really masked too"),
        absentKey()),
      grid.drawing, this.beside,
      caption(
        exact ? "What masking each single route does." : "Atlas: what masking each single route would do.", this.text));
  },

  tone(value) {
    return 0.5 + (0.5 * Math.asinh(value / this.linear)) / Math.asinh(this.high / this.linear);
  },

  /// The atlas of each run of the view at the chosen step, and their mean.
  choose() {
    const with_atlas = view.runs.filter((one) => one.atlas.length);
    this.rows = with_atlas.map(
      (one) => ({name: one.name, ...one.atlas[atOrBefore(one.atlas.map((row) => row.step), drawn.step)]}));
    this.exact = this.rows.every((row) => this.isExact(row));
    const field_of = {estimate: "true", lower: "true_lower", upper: "true_upper"};
    const table = (row, field) => (this.exact && field_of[field] ? this.spread(row, row[field_of[field]]) : row[field]);
    const over = (field, how) => fold(this.rows.map((row) => table(row, field)), how);
    const one = this.rows.length === 1;
    this.shown = this.exact ? this.rows.map((row) => this.spread(row, row.true_p)) : null;
    this.estimate = over("estimate", mean);
    this.lower = over(one ? "lower" : "estimate", least);
    this.upper = over(one ? "upper" : "estimate", greatest);
    this.first = over("first", mean);
  },

  /// Whether every route that could be was really masked: their effects then need no estimate.
  isExact: (row) => row.checked.length > 0 && row.checked.length === row.estimate.filter(known).length,
  /// Values of checked routes at the places of their routes.
  spread(row, list) {
    const out = row.estimate.map(() => null);
    row.checked.forEach(([read, s], i) => {
      out[read * sources.length + s] = list[i];
    });
    return out;
  },
  /// Whether a route's outline is drawn.
  isMarked(read, s) {
    const at = read * sources.length + s;
    if (this.exact) return this.shown.every((p) => below(p[at]));
    return this.rows.some((row) => this.checkOf(row, read, s) >= 0);
  },

  /// The index of a route among those that a run really masked; -1: it is not.
  checkOf: (row, read, s) => row.checked.findIndex(([r, c]) => r === read && c === s),
  /// Files of format 2 have first-order effects alone.
  estimated() {
    return this.rows.every((row) => row.estimated);
  },

  describe(read, s) {
    const at = read * sources.length + s;
    const name = `${reads.name[read]} \u2190 ${sourceName(sources[s])}`;
    if (!known(this.estimate[at])) return `${name}\nnothing to mask`;
    const checks = this.rows.flatMap((row) => {
      const check = this.checkOf(row, read, s);
      if (check < 0) return [];
      const of = this.rows.length > 1 ? `${row.name}: ` : "";
      return [`\n${of}really masked ${signed(row.true[check], 4)}` +
        interval(row.true_lower[check], row.true_upper[check], 4) +
        ` (${row.random[check] ? "drawn at random" : "among the strongest"})`];
    });
    if (this.exact) {
      const many = this.rows.length > 1 ? " in every run" : "";
      return `${name}\nstep ${grouped(this.rows[0].step)}\nmasked: ${signed(this.estimate[at], 4)}` +
        `${interval(this.lower[at], this.upper[at], 4)}\n` +
        (this.isMarked(read, s) ? `shown to differ from 0${many}` : `not shown to differ from 0${many}`) +
        this.rows.map((row) => `\nestimate ${signed(row.estimate[at], 4)}`).join("");
    }
    const first = this.estimated() ? `\nfirst order ${signed(this.first[at], 4)}` : "";
    return `${name}\nstep ${grouped(this.rows[0].step)}\nestimate ${signed(this.estimate[at], 4)}` +
      `${interval(this.lower[at], this.upper[at], 4)}${checks.join("")}${first}`;
  },

  update() {
    if (!this.cells || this.absent()) return;
    this.choose();
    for (const {box, text, read, s} of this.cells) {
      const value = this.estimate[read * sources.length + s], there = known(value);
      box.setAttribute("fill", there ? signColour(this.tone(value)) : "url(#absent)");
      const outline = this.isMarked(read, s) ? masked : {stroke: "none"};
      for (const [name, to] of Object.entries(outline)) box.setAttribute(name, to);
      if (!text) continue;
      const tone = there ? this.tone(value) : 0.5;
      text.textContent = there && Math.abs(value) >= 0.0005 ? digits(value, 3).replace(/^(\u2212?)0\./, "$1.") : "";
      text.style.fill = Math.abs(tone - 0.5) > 0.36 ? "#fff" : "#1b1f24";
    }
    const side = Math.min(380, this.beside.clientWidth || 700);
    this.beside.replaceChildren(this.check(side), html("div", {class: "lists"}, this.strongest(), this.trust()));
    this.text.textContent = this.explanation();
  },

  explanation() {
    const several = this.rows.length > 1;
    if (this.exact) return this.exactText(several);
    const steps = [...new Set(this.rows.map((row) => grouped(row.step)))].join(", ");
    const over = several ? `, mean over ${this.rows.length} runs (brackets: their range)` : "";
    const made = this.estimated()
      ? "from one forward and two backward passes: the exact change of what each read\u2019s sublayer makes, times the " +
        "gradient there, plus half the square of the same with labels drawn from the model. It ranks routes, and " +
        "misjudges large effects."
      : "to first order, which ranks routes poorly (the file is of format 2, and has no better estimate).";
    const colours = "Red: the loss would rise without the route; blue: it would fall. Outlined routes were really " +
      "masked: some drawn at random (filled points), which the rank correlation and the error in the table are of, and " +
      "those whose estimate is largest (hollow). On the dashed line the estimate is right.";
    return `At step ${steps}${over}, ${made} ${colours}${several ? "" : ofRun(view.runs[0])}`;
  },

  exactText(several) {
    const step = grouped(this.rows[0].step), maskable = this.rows[0].checked.length;
    const marked = this.cells.filter(({read, s}) => this.isMarked(read, s)).length;
    return `At step ${step} every one of ${maskable} routes was masked alone${
             several ? `, mean over ${this.rows.length} runs (brackets: their range)`
                     : ""}. Red: the loss rises without the ` +
      `route; blue: it falls. Outlined: ${marked} routes whose effect is shown to differ from 0${
        several ? " in every run"
                : ""}, at 5\u00a0% over all routes of a run. Hatched: there is no such route, or it is ` +
      "the read\u2019s only one. Below: how far the estimate that needs no masking agrees with the truth." +
      (several ? "" : ofRun(view.runs[0]));
  },

  /// The estimate against true ablations.
  check(side) {
    const area = {x: 84, y: 14, width: side - 98, height: side - 74};
    const drawing = canvas(side, side, "estimate against true ablations");
    const ends = this.rows
                   .flatMap((row) => [...row.checked.map(([read, s]) => row.estimate[read * sources.length + s]),
                              ...row.true, ...row.true_lower, ...row.true_upper])
                   .filter(known);
    const low = Math.min(0, ...ends), high = Math.max(1e-9, ...ends);
    const linear = 10 ** Math.round(Math.log10(Math.max(high, -low) / 300));
    const domain = [low * 1.15 - linear / 2, high * 1.2];
    const x = symlogScale(domain, linear, [area.x, area.x + area.width]);
    const y = symlogScale(domain, linear, [area.y + area.height, area.y]);
    x.ticks = x.ticks.filter((tick, i, list) => i === 0 || x(tick) - x(list[i - 1]) > 44 || tick === 0);
    panel(drawing, area, x, y, {xLabel: "estimate", yLabel: "true effect of masking", zero: true});
    drawing.append(svg("line", {
      x1: x(domain[0]),
      x2: x(domain[1]),
      y1: y(domain[0]),
      y2: y(domain[1]),
      stroke: "#7b848e",
      "stroke-dasharray": "5 4"
    }));
    hover(drawing, area, this.rows.flatMap((row) => this.checked(drawing, row, x, y, area)));
    drawing.style.width = side + "px";
    return drawing;
  },

  /// Draws the checked routes of one run and returns their points.
  checked(drawing, row, x, y, {x: left, width}) {
    const points = [];
    row.checked.forEach(([read, s], i) => {
      const at = read * sources.length + s;
      if (!known(row.estimate[at]) || !known(row.true[i])) return;
      const colour = familyColour[s === 0 ? "embedding" : s === sources.length - 1 ? "current" : "history"];
      const px = x(row.estimate[at]), py = y(row.true[i]);
      const bar = (ends) => drawing.append(svg("line", {...ends, stroke: colour, "stroke-opacity": 0.6}));
      if (known(row.true_lower[i])) bar({x1: px, x2: px, y1: y(row.true_lower[i]), y2: y(row.true_upper[i])});
      if (known(row.lower[at]))
        bar({y1: py, y2: py, x1: Math.max(left, x(row.lower[at])), x2: Math.min(left + width, x(row.upper[at]))});
      drawing.append(symbol(reads.sublayer[read], 3.6,
        {fill: row.random[i] ? colour : "#fff", stroke: colour, transform: `translate(${px} ${py})`}));
      points.push({x: px, y: py, text: () => this.describe(read, s)});
    });
    return points;
  },

  strongest() {
    const routes = this.estimate.map((value, cell) => ({value, cell}))
                     .filter(({value}) => known(value))
                     .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
                     .slice(0, 10);
    const range = this.rows.length > 1 ? "range over runs" : "95 % interval";
    return plainTable(
      ["strongest routes", this.exact ? "effect" : "estimate", range, this.exact ? "differs from 0" : "really masked"],
      routes.map(
        ({
          value,
          cell
        }) => [`${reads.name[Math.floor(cell / sources.length)]} \u2190 ${sourceName(sources[cell % sources.length])}`,
          signed(value, 4), interval(this.lower[cell], this.upper[cell], 4).trim() || "\u2013", this.truth(cell)]),
      "short");
  },

  /// The true effect of a route: its mean over the runs that really masked it.
  truth(cell) {
    const read = Math.floor(cell / sources.length), s = cell % sources.length;
    if (this.exact) return this.isMarked(read, s) ? "shown" : "not shown";
    const found = this.rows.map((row) => row.true[this.checkOf(row, read, s)]).filter(known);
    return found.length ? signed(mean(found), 4) : "\u2013";
  },

  /// How far the estimate can be trusted, for each run: over the routes drawn at random.
  trust() {
    const number = (value) => (known(value) ? signed(value, 2) : "\u2013");
    const count = (row) => `${row.checked.length} (${row.random.filter((one) => one).length})`;
    return plainTable(
      ["run", "really masked (at random)", "rank correlation", "of first order", "median relative error"],
      this.rows.map((row) => [row.name, count(row), number(row.rank_correlation), number(row.first_rank_correlation),
                      percent(row.median_relative_error, 0)]),
      "short");
  }
};

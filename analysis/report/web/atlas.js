// The atlas of first-order effects, beside true ablations of some routes.

const atlas = {
  absent: () => !view.runs.some((one) => one.atlas.length),

  draw(figure) {
    const width = widthOf(figure);
    const grid = readGrid(width, "first-order effect of every route", (read, s) => this.describe(read, s));
    this.cells = grid.cells;
    const sizes = view.runs.flatMap((one) => one.atlas.flatMap((row) => row.first)).filter(known).map(Math.abs);
    this.high = Math.max(1e-9, ...sizes);
    this.linear = this.high / 300;
    this.beside = html("div", {class: "beside"});
    this.text = html("span");
    const end = plain(Number(this.high.toPrecision(2)));
    figure.replaceChildren(html("div", {class: "tools"}, html("span", {}, "first-order effect, nats per token"),
                             html("span", {}, "\u2212" + end), key(colourBar(signColour, 60, 180), "+" + end, 180),
                             html("span", {}, "(logarithmic, linear near zero)"), absentKey()),
      grid.drawing, this.beside, caption("Atlas: what masking each single route would do, to first order.", this.text));
  },

  tone(value) {
    return 0.5 + (0.5 * Math.asinh(value / this.linear)) / Math.asinh(this.high / this.linear);
  },

  /// The atlas of each run of the view at the chosen step, and their mean.
  choose() {
    const with_atlas = view.runs.filter((one) => one.atlas.length);
    this.rows = with_atlas.map(
      (one) => ({name: one.name, ...one.atlas[atOrBefore(one.atlas.map((row) => row.step), drawn.step)]}));
    const over = (field, how) => fold(this.rows.map((row) => row[field]), how);
    const one = this.rows.length === 1;
    this.first = over("first", mean);
    this.lower = over(one ? "lower" : "first", least);
    this.upper = over(one ? "upper" : "first", greatest);
  },

  describe(read, s) {
    const at = read * sources.length + s;
    const name = `${reads.name[read]} \u2190 ${sourceName(sources[s])}`;
    if (!known(this.first[at])) return `${name}\nnothing to mask`;
    const checks = this.rows.flatMap((row) => {
      const check = row.checked.findIndex(([r, c]) => r === read && c === s);
      if (check < 0) return [];
      const of = this.rows.length > 1 ? `${row.name}: ` : "";
      return [`\n${of}masked in truth ${signed(row.true[check], 4)}` +
        interval(row.true_lower[check], row.true_upper[check], 4)];
    });
    return `${name}\nstep ${grouped(this.rows[0].step)}\nfirst order ${signed(this.first[at], 4)}` +
      `${interval(this.lower[at], this.upper[at], 4)}${checks.join("")}`;
  },

  update() {
    if (!this.cells || this.absent()) return;
    this.choose();
    for (const {box, text, read, s} of this.cells) {
      const value = this.first[read * sources.length + s], there = known(value);
      box.setAttribute("fill", there ? signColour(this.tone(value)) : "url(#absent)");
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
    const steps = [...new Set(this.rows.map((row) => grouped(row.step)))].join(", ");
    const over = several ? `, mean over ${this.rows.length} runs (brackets: their range)` : "";
    return `At step ${steps}${over}, from one forward and one backward pass. ` +
      "Red: the loss would rise without the route; blue: it would fall. This is an estimate. To check it, routes " +
      "drawn at random were really masked: the plot shows both. On the dashed line the estimate is right; trust the " +
      `map as far as the points stay near it.${several ? "" : ofRun(view.runs[0])}`;
  },

  /// The estimate against true ablations.
  check(side) {
    const area = {x: 84, y: 14, width: side - 98, height: side - 74};
    const drawing = canvas(side, side, "first-order estimate against true ablations");
    const ends = this.rows
                   .flatMap((row) => [...row.checked.map(([read, s]) => row.first[read * sources.length + s]),
                              ...row.true, ...row.true_lower, ...row.true_upper])
                   .filter(known);
    const low = Math.min(0, ...ends), high = Math.max(1e-9, ...ends);
    const linear = 10 ** Math.round(Math.log10(Math.max(high, -low) / 300));
    const domain = [low * 1.15 - linear / 2, high * 1.2];
    const x = symlogScale(domain, linear, [area.x, area.x + area.width]);
    const y = symlogScale(domain, linear, [area.y + area.height, area.y]);
    x.ticks = x.ticks.filter((tick, i, list) => i === 0 || x(tick) - x(list[i - 1]) > 44 || tick === 0);
    panel(drawing, area, x, y, {xLabel: "first-order estimate", yLabel: "true effect of masking", zero: true});
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
      if (!known(row.first[at]) || !known(row.true[i])) return;
      const colour = familyColour[s === 0 ? "embedding" : s === sources.length - 1 ? "current" : "history"];
      const px = x(row.first[at]), py = y(row.true[i]);
      const bar = (ends) => drawing.append(svg("line", {...ends, stroke: colour, "stroke-opacity": 0.6}));
      if (known(row.true_lower[i])) bar({x1: px, x2: px, y1: y(row.true_lower[i]), y2: y(row.true_upper[i])});
      if (known(row.lower[at]))
        bar({y1: py, y2: py, x1: Math.max(left, x(row.lower[at])), x2: Math.min(left + width, x(row.upper[at]))});
      drawing.append(symbol(reads.sublayer[read], 3.6, {fill: colour, transform: `translate(${px} ${py})`}));
      points.push({x: px, y: py, text: () => this.describe(read, s)});
    });
    return points;
  },

  strongest() {
    const routes = this.first.map((value, cell) => ({value, cell}))
                     .filter(({value}) => known(value))
                     .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
                     .slice(0, 10);
    const range = this.rows.length > 1 ? "range over runs" : "95 % interval";
    return plainTable(["strongest routes", "first order", range],
      routes.map(({
        value,
        cell
      }) => [`${reads.name[Math.floor(cell / sources.length)]} \u2190 ${sourceName(sources[cell % sources.length])}`,
                   signed(value, 4), interval(this.lower[cell], this.upper[cell], 4).trim() || "\u2013"]),
      "short");
  },

  /// How far the estimate can be trusted, for each run.
  trust() {
    return plainTable(["run", "routes really masked", "rank correlation", "median relative error"],
      this.rows.map((row) => [row.name, String(row.checked.length), estimated(row.rank_correlation, 2),
                      percent(row.median_relative_error, 0)]),
      "short");
  }
};

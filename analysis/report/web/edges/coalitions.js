// Alone and together: Shapley values, what suffices, which slices cover for each other, and which are idle.

const coalitions = {
  absent: () => !run.coalitions.length,
  chosen: 0,

  draw(figure) {
    this.figure = figure;
    const names = run.coalitions.map((one, i) => [String(i), one.task ? `task ${one.task}` : "text"]);
    if (this.chosen >= names.length) this.chosen = 0;
    const tools = html("div", {class: "tools"}, effectChoice());
    if (names.length > 1)
      tools.append(select("measured on", names, String(this.chosen), (i) => {
        this.chosen = Number(i);
        redraw();
      }));
    this.shapley = svg("svg");
    this.kept = svg("svg");
    this.map = html("div");
    this.table = html("div", {class: "scroll"});
    this.texts = [html("span"), html("span"), html("span"), html("span")];
    figure.replaceChildren(tools, this.shapley, caption("What each kind of routes is worth.", this.texts[0]), this.kept,
      caption("What is enough alone.", this.texts[1]), this.map,
      caption("Which slices cover for each other.", this.texts[2]), this.table,
      tableCaption("Slices with mass that do nothing alone.", this.texts[3]));
  },

  row() {
    const {rows} = this.one();
    return rows[atOrBefore(rows.map((row) => row.step), drawn.step)];
  },
  one: () => run.coalitions[coalitions.chosen],
  player: (name) => name.replace(/\.(.*)$/, (_, kind) => ` into ${sublayerName[kind]}`),

  update() {
    if (this.absent()) return;
    const one = this.one(), row = this.row();
    const items = one.players.map((name) => ({title: this.player(name)}));
    const series = (field, name) => [{name, colour: "#1b1f24", at: (s) => row[field][s]}];
    const share = (ends, range) => {
      const there = ends.filter(known), low = Math.min(0, ...there), high = Math.max(1, ...there);
      return linearScale([low - 0.03 * (high - low), high + 0.03 * (high - low)], range);
    };
    this.shapley = replaced(this.shapley,
      dotRows(this.figure, series("shapley", "Shapley value"), "Shapley values of six kinds of routes",
        {items, xLabel: "Shapley value (nats per token)"}));
    const cost = `At step ${grouped(row.step)}, ablating every slice costs ${estimated(row.all, 3)} nats per token. `;
    this.texts[0].textContent = cost +
      "The Shapley value of a family of sources into one kind of sublayer is what its " +
      "absence costs, mean over all orders in which the six can leave; they sum to that cost. The ablation puts each " +
      `source\u2019s mean in its place. Bars: 95\u00a0% intervals over documents.${ofRun()}`;
    const shares = () => dotRows(this.figure, series("player_kept", "kept alone"),
      "share that each kind of routes saves alone", {items, scale: share, xLabel: "share of the cost that it saves"});
    this.kept = replaced(this.kept, row.costs ? shares() : html("div"));
    this.texts[1].textContent = row.costs
      ? "All routes of slices are ablated but those of one row: which share of the cost is saved. 1: these routes alone " +
        "do as well as all; below 0: worse than none."
      : "It is not shown that ablating every slice costs anything: there are no shares of it.";
    this.showPairs(one, row);
    this.showCompany(one, row);
  },

  showPairs(one, row) {
    const n = one.slices.length, width = widthOf(this.figure), left = 180, cell = Math.min(34, (width - left - 8) / n);
    const height = Math.min(22, Math.max(14, cell)), bottom = 12 + n * height;
    const high = Math.max(1e-9, ...row.pair.map(([value]) => Math.abs(value ?? 0))), linear = high / 300;
    const tone = (value) => 0.5 + (0.5 * Math.asinh(value / linear)) / Math.asinh(high / linear);
    const drawing = canvas(width, bottom + 34, "interactions of pairs of slices");
    drawing.append(svg("defs", {}, absentPattern()));
    const points = [];
    let at = 0;
    one.slices.forEach((name, a) => {
      drawing.append(svg("text", {class: "tick", x: left - 8, y: 12 + (a + 0.5) * height + 4, "text-anchor": "end"},
        `${a + 1} ${name}`));
      // Two digits need 16 units.
      if (cell >= 16 || a % 2 === 0)
        drawing.append(svg(
          "text", {class: "tick", x: left + (a + 0.5) * cell, y: bottom + 14, "text-anchor": "middle"}, String(a + 1)));
      for (let b = a + 1; b < n; ++b, ++at) {
        const [value, lower, upper] = row.pair[at], shown = below(row.pair_p[at]), x = left + b * cell,
                             y = 12 + a * height;
        drawing.append(svg("rect", {
          x: x + 0.5,
          y: y + 0.5,
          width: cell - 1,
          height: height - 1,
          fill: known(value) ? signColour(tone(value)) : "url(#absent)",
          ...(shown ? masked : {})
        }));
        points.push({
          x: x + cell / 2,
          y: y + height / 2,
          text: `${name}\nand ${one.slices[b]}\n` +
            (known(value) ? `interaction ${signed(value, 4)}${interval(lower, upper, 4)}\n${
                              shown ? "shown beyond" : "not shown beyond"} the margin`
                          : "one of them can change nothing")
        });
      }
    });
    hover(drawing, {x: left, y: 12, width: n * cell, height: n * height}, points, Math.hypot(cell, height) / 2 + 1);
    const end = plain(Number(high.toPrecision(2)));
    this.map.replaceChildren(
      html("div", {class: "tools"}, html("span", {}, "interaction, nats per token"), html("span", {}, "\u2212" + end),
        key(colourBar(signColour, 60, 180), "+" + end, 180), html("span", {}, "(logarithmic, linear near zero)"),
        key(svg("rect", {x: 1, y: 1, width: 16, height: 12, fill: "none", ...masked}), "shown beyond the margin")),
      drawing);
    const shown = row.pair.map(([value], i) => (below(row.pair_p[i]) ? value : 0));
    const covers = shown.filter((value) => value > 0).length, breaks = shown.filter((value) => value < 0).length;
    this.texts[2].textContent =
      "The effect of ablating both minus the effects of either. Red: they cover for each other, " +
      "neither alone costs what both do; blue: either breaks much of what both do. " +
      (covers + breaks ? `Shown beyond the margin, Holm over all pairs: ${covers} cover, ${breaks} break.`
                       : "No interaction is shown beyond the margin.");
  },

  showCompany(one, row) {
    const words = {
      idle: () => "idle: nothing beside any other slice either",
      redundant: (s) => `redundant: more than the margin beside ${one.slices[row.partner[s]]}`,
      undecided: () => "undecided"
    };
    const list = row.verdict.map((verdict, s) => [verdict, s]).filter(([verdict]) => words[verdict]);
    const rows = list.map(
      ([verdict, s]) => [one.slices[s], digits(row.mass[s], 3), estimated(row.alone[s], 4), words[verdict](s)]);
    this.table.replaceChildren(rows.length
        ? plainTable(["slice", "free mass", "effect alone, nats per token", "in company"], rows)
        : html("p", {class: "empty"}, "No slice with a free mass of 0.1 or more is shown to do nothing alone."));
    this.texts[3].textContent =
      "Shown to lie within the margin alone. Idle: also where any other slice is ablated too. " +
      "Redundant: where another one is ablated, it is shown to do more than the margin. Holm over these slices.";
  }
};

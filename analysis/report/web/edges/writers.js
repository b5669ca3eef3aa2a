// Writers: what each sublayer adds to the reads behind it, and what the loss does without it, in every model shown.

settings.writerEffect = "zero";

const writers = {
  absent: () => !data.writers.length,

  /// Models of one residual mode with the same writers are one series: a run with its intervals, or the mean of
  /// several.
  groups() {
    const out = [];
    for (const one of data.writers) {
      const same = out.find((group) => group[0].mode === one.mode && group[0].writers.length === one.writers.length);
      if (same)
        same.push(one);
      else
        out.push([one]);
    }
    return out;
  },
  rowOf: (one) => one.rows[atOrBefore(one.rows.map((row) => row.step), drawn.step)],
  nameOf: (group) =>
    (group.length > 1 ? `${group[0].mode}: mean of ${group.length}` : `${group[0].name}: ${group[0].mode}`),

  /// [value, lower, upper] of writer w; of several models their mean and range.
  over(group, w, field) {
    const all = group.map((one) => field(this.rowOf(one))[w]);
    if (group.length === 1) return all[0];
    const there = all.map(([value]) => value).filter(known);
    return there.length ? [mean(there), least(there), greatest(there)] : [null, null, null];
  },
  series(field) {
    const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#57606a"];
    return this.groups().map((group, i) => ({
      name: this.nameOf(group),
      colour: colours[i % colours.length],
      at: (w) => (w < group[0].writers.length ? this.over(group, w, field) : [null, null, null])
    }));
  },
  names() {
    const longest = data.writers.reduce((a, b) => (b.writers.length > a.writers.length ? b : a));
    return longest.writers.map((name) => ({title: this.title(name)}));
  },
  title: (name) => name.replace(/^(\d+)\.(attn|mlp)$/, (_, layer, kind) => `layer ${layer} ${sublayerName[kind]}`),

  draw(figure) {
    this.figure = figure;
    const keys = () => html("div", {class: "tools"}, ...this.series((row) => row.contribution).map(({name,
      colour}) => key(svg("circle", {cx: 9, cy: 7, r: 4, fill: colour}), name)));
    const chosen = select("effect of", [["zero", "leaving the output out"], ["mean", "its mean in its place"]],
      settings.writerEffect, (value) => {
        settings.writerEffect = value;
        redraw();
      });
    this.masses = svg("svg");
    this.effects = svg("svg");
    this.map = html("div");
    this.table = html("div", {class: "scroll"});
    this.texts = [html("span"), html("span"), html("span")];
    const tools = keys();
    tools.append(chosen, effectChoice());
    figure.replaceChildren(keys(), this.masses,
      caption("What each writer contributes to the reads behind it.", this.texts[0]), tools, this.effects,
      caption("What the loss does without a writer.", this.texts[1]), this.map,
      caption("Which read takes what from which writer.", this.texts[2]), this.table);
  },

  update() {
    if (this.absent()) return;
    const items = this.names(), several = this.groups().some((group) => group.length > 1);
    const bars = `Bars: 95\u00a0% intervals over documents${
      several ? "; where several runs are of one mode, their mean and range" : ""}.`;
    const linear = (ends, range) => {
      const there = ends.filter(known), low = Math.min(0, ...there), high = Math.max(0, ...there);
      return linearScale([low - 0.03 * (high - low), high + 0.03 * (high - low)], range);
    };
    this.masses = replaced(this.masses,
      dotRows(this.figure, this.series((row) => row.contribution), "contribution of every writer",
        {items, scale: linear, xLabel: "mean contribution"}));
    this.effects = replaced(this.effects,
      dotRows(this.figure, this.series((row) => row[settings.writerEffect]), "effect of every writer", {items}));
    this.texts[0].textContent =
      "A writer is the embedding or a sublayer. Its contribution is its share of the vector that " +
      `a read passes on; the contributions of one read sum to one, in every residual mode. ${bars}`;
    this.texts[1].textContent =
      (settings.writerEffect === "zero"
          ? "The writer\u2019s output is left out of every read behind it; the embedding is not tested. "
          : "The writer\u2019s output is replaced by its mean over the probe tokens in every read behind it. ") +
      bars;
    const mapped = data.writers.find(({name}) => name === run.name) || data.writers[0];
    if (this.rowOf(mapped).cells.length)
      this.showMap(mapped);
    else
      this.texts[2].textContent = "Left out, because the page holds many runs: report one run alone.";
    this.showTable();
  },

  /// Of the run that the page shows, or the first model that has writers.
  showMap(one) {
    const row = this.rowOf(one);
    const n = one.writers.length, left = 110, width = widthOf(this.figure), cell = (width - left - 8) / n;
    const height = Math.min(22, Math.max(7, 330 / n)), bottom = 16 + n * height, every = Math.ceil(40 / cell);
    const high = Math.max(1e-9, ...row.cells.map((cell) => Math.abs(cell) / 1000));
    const drawing = canvas(width, bottom + 44, "contribution of every writer to every read");
    const points = [];
    one.writers.forEach((name, w) => {
      const y = 16 + w * height;
      if (w % Math.ceil(12 / height) === 0)
        drawing.append(
          svg("text", {class: "tick", x: left - 7, y: y + height / 2 + 4, "text-anchor": "end"}, this.title(name)));
      for (let r = w; r < n; ++r) {
        const value = row.cells[(r * (r + 1)) / 2 + w] / 1000, x = left + r * cell;  // what is not a number is 0
        drawing.append(svg("rect", {
          x: x + 0.5,
          y: y + 0.5,
          width: Math.max(0.5, cell - 1),
          height: height - 1,
          fill: signColour(0.5 + (0.5 * value) / high)
        }));
        points.push({
          x: x + cell / 2,
          y: y + height / 2,
          text: `read ${one.readers[r]} \u2190 ${this.title(name)}\ncontribution ${signed(value, 3)}`
        });
      }
    });
    one.readers.forEach((name, r) => {
      if (r % every === 0)
        drawing.append(
          svg("text", {class: "tick", x: left + (r + 0.5) * cell, y: bottom + 14, "text-anchor": "middle"}, name));
    });
    drawing.append(svg("text", {x: left + (n * cell) / 2, y: bottom + 34, "text-anchor": "middle"}, "read"));
    hover(drawing, {x: left, y: 16, width: n * cell, height: n * height}, points, Math.hypot(cell, height) / 2 + 1);
    const end = plain(Number(high.toPrecision(2)));
    this.map.replaceChildren(html("div", {class: "tools"}, html("span", {}, "contribution"),
                               html("span", {}, "\u2212" + end), key(colourBar(signColour, 60, 180), "+" + end, 180)),
      drawing);
    this.texts[2].textContent =
      `${one.name} (${one.mode}) at step ${grouped(row.step)}. A row is a writer, a column a ` +
      "read; a writer is there for the reads behind it alone.";
  },

  /// In cumulative models every source holds the embedding.
  showTable() {
    const rows = data.writers.flatMap((one) => this.rowOf(one).through.map(([family, contribution,
      part]) => [`${one.name}: ${family}`, signed(contribution, 3), signed(part, 3)]));
    const held = data.writers.some((one) => this.rowOf(one).through.some(([family, , part]) => family !== "embedding" &&
                                       known(part) && Math.abs(part) >= 0.0005));
    this.table.replaceChildren(
      ...(held ? [plainTable(["sources", "contribution, mean over reads", "of it the embedding\u2019s"], rows, "short")]
               : []));
  }
};

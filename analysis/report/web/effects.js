// Effects of all slices over training: a panel for each family and sublayer kind.

const effects = {
  absent: () => probes.step.length < 2 || !probes.ablations.length,

  draw(figure) {
    this.marks = [];
    const width = widthOf(figure);
    const keys = sliced ? depths.map((depth) => key(svg("rect", {y: 5, width: 18, height: 4, fill: thirdColour(depth)}),
                                       `${depth} layers`))
                        : [];
    const left = sets.length > 12 && !sliced ? ` The strongest 12 of ${sets.length} sets.` : "";
    figure.replaceChildren(html("div", {class: "tools"}, ...keys, effectChoice()), this.panels(width),
      caption(`Effect of each ${sliced ? "slice" : "set"} over training (${settings.ablation}).`,
        `Lines: the rise of the loss under the ablation${probes.over ? ", mean over runs" : ""}; bands: ${
          spreadText()}, ` +
          `each step by itself. No line: the ablation can change no such read.${
            left} Steps are spaced as log(1 + step).`));
  },

  /// Sets that are no slices have a panel each, the strongest first.
  layout(columns) {
    if (!sliced) {
      const strength = (s) => values()("delta", s) ?? -Infinity;
      return sets.map((set, s) => ({title: set.title, list: [s]}))
        .sort((a, b) => strength(b.list[0]) - strength(a.list[0]))
        .slice(0, 12);
    }
    const pairs = columns === 3 ? sublayers.flatMap((_, j) => families.map((__, i) => [i, j]))
                                : families.flatMap((_, i) => sublayers.map((__, j) => [i, j]));
    return pairs.map(
      ([i, j]) => (
        {title: `${families[i]} \u2192 ${sublayerName[sublayers[j]]}`, list: depths.map((_, d) => i * 6 + j * 3 + d)}));
  },

  panels(width) {
    const columns = width >= 760 ? 3 : 2;
    const layout = this.layout(columns);
    const left = 66, gapX = 18, gapY = 44, h = columns === 3 ? 190 : 160;
    const w = (width - left - 10 - gapX * (columns - 1)) / columns;
    const rows = Math.ceil(layout.length / columns), high = probes.step.at(-1);
    const drawing = canvas(width, 26 + rows * (h + gapY) + 16, "effects of the slices over training");
    layout.forEach(({title, list}, n) => {
      const column = n % columns, last = n + columns >= layout.length;
      const area = {x: left + column * (w + gapX), y: 26 + Math.floor(n / columns) * (h + gapY), width: w, height: h};
      const x = stepScale(high, [area.x, area.x + w]);
      const y = effectScale(allEffects(probes, ["delta", "lower", "upper"]), [area.y + h, area.y]);
      panel(drawing, area, x, y, {
        title,
        xTicks: last,
        yTicks: column === 0,
        xLabel: last ? "training step" : null,
        yLabel: column === 0 ? EFFECT : null,
        zero: true
      });
      const points = list.flatMap((s) => this.curve(drawing, s, x, y));
      this.marks.push(marker(drawing, area, x, () => Math.min(drawn.step, high)));
      hover(drawing, area, points);
    });
    return drawing;
  },

  /// Draws one set and returns its points.
  curve(drawing, s, x, y) {
    const colour = sliced ? thirdColour(depths[sets[s].depth]) : setColour(s);
    const at = (field, p) => probes.effects[settings.ablation][field][p][s];
    const shown = probes.step.map((step, p) => (known(at("delta", p)) ? [x(step), y(at("delta", p))] : null));
    const bounds =
      probes.step.map((step, p) => (known(at("lower", p)) ? [x(step), y(at("lower", p)), y(at("upper", p))] : null));
    drawing.append(
      band(bounds, {fill: colour, "fill-opacity": 0.18}), line(shown, {stroke: colour, "stroke-width": 2}));
    const points = [];
    shown.forEach((point, p) => {
      if (!point) return;
      drawing.append(svg("circle", {cx: point[0], cy: point[1], r: 2.2, fill: colour}));
      points.push({x: point[0], y: point[1], text: () => describeSet(s, probes, p)});
    });
    return points;
  },

  update() {
    for (const move of this.marks || []) move();
  }
};

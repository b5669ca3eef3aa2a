// The loss of the runs of the view against the tokens that they have seen.

const loss = {
  colour: {train: "#8a949e", valid: "#d55e00"},

  draw(figure) {
    this.marks = [];
    const series =
      view.runs.flatMap((one) => [{one, kind: "train", rows: one.train}, {one, kind: "valid", rows: one.valid}])
        .filter(({rows}) => rows.step.length);
    if (!series.length) return noteNothing(figure, "No loss was recorded (routing.h5).");
    const width = widthOf(figure), area = {x: 66, y: 14, width: width - 84, height: 250};
    const all = series.flatMap(({rows}) => rows.loss).filter(known);
    const spread = Math.max(...all) - Math.min(...all) || 1;
    const high = Math.max(...series.flatMap(({rows}) => rows.tokens));
    const range = [area.x, area.x + area.width];
    const x = settings.logTokens ? logScale(high, run.tokens_per_step, range)
                                 : linearScale([0, high], range, Math.max(3, Math.round(width / 140)), metric);
    const y =
      linearScale([Math.min(...all) - 0.05 * spread, Math.max(...all) + 0.05 * spread], [area.y + area.height, area.y]);
    const drawing = canvas(width, 322, "training and validation loss");
    panel(drawing, area, x, y, {xLabel: "tokens seen", yLabel: "loss (nats per token)"});
    const points = series.flatMap((one) => this.curve(drawing, one, x, y));
    this.marks.push(marker(drawing, area, x, () => Math.min(tokensOf(drawn.step), high)));
    hover(drawing, area, points);
    figure.replaceChildren(
      html("div", {class: "tools"}, ...this.keys(), choice("logarithmic tokens", settings.logTokens, (on) => {
        settings.logTokens = on;
        redraw();
      })), drawing, caption("Loss against tokens.", this.explanation()));
  },

  /// Draws one run's training or validation loss and returns its points.
  curve(drawing, {one, kind, rows}, x, y) {
    const path = rows.step.map((_, i) => (known(rows.loss[i]) ? [x(rows.tokens[i]), y(rows.loss[i])] : null));
    const opacity = view.runs.length > 1 ? 0.6 : 1;
    drawing.append(line(path, {stroke: this.colour[kind], "stroke-width": 1.4, "stroke-opacity": opacity}));
    if (kind === "valid") {
      for (const point of path.filter(Boolean))
        drawing.append(svg("circle", {cx: point[0], cy: point[1], r: 2.8, fill: this.colour.valid}));
    }
    const name = (view.runs.length > 1 ? `${one.name}, ` : "") + (kind === "valid" ? "validation" : "training");
    return path
      .map((point, i) => point && {
        x: point[0],
        y: point[1],
        text: `${name} ${digits(rows.loss[i], 4)}\nstep ${grouped(rows.step[i])}, ${metric(rows.tokens[i])} tokens`
      })
      .filter(Boolean);
  },

  keys() {
    const bar = (colour) => svg("rect", {y: 6, width: 18, height: 2, fill: colour});
    const dotted = svg("g", {}, bar(this.colour.valid), svg("circle", {cx: 9, cy: 7, r: 3, fill: this.colour.valid}));
    return [key(bar(this.colour.train), "training"), key(dotted, "validation")];
  },

  explanation() {
    const {train} = run;
    const binned = train.rows > train.step.length
      ? ` Training losses are means over ${train.step.length} bins of ${grouped(train.rows)} steps.`
      : "";
    return `Next-token cross-entropy.${binned}${
      view.runs.length > 1 ? ` A line for each of the ${view.runs.length} runs.` : ofRun()}`;
  },

  update() {
    for (const move of this.marks) move();
  }
};

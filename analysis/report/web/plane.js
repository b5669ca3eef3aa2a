// Mass against effect at the chosen step: one mark for each slice, beside other runs and wrapped baselines.

/// The values of an ablation's fields at all steps and sets of some results, for the ends of an axis.
const allEffects = (subject, fields = ["delta"]) =>
  (subject.effects[settings.ablation] ? fields.flatMap((field) => subject.effects[settings.ablation][field].flat())
                                      : []);

function describeSet(s, subject = probes, row = rowOf(subject)) {
  const at = values(subject, settings.ablation, row);
  const range = (low, high) => interval(at(low, s), at(high, s), 4);
  const lines = [
    subject === probes ? "" : subject.name, sets[s].title, `step ${grouped(subject.step[row])}, ${settings.ablation}`,
    `mass ${digits(at("mass", s), 4)}${sliced ? `, free mass ${digits(at("free_mass", s), 4)}` : ""} (${massKind()})`,
    `\u0394 nll ${signed(at("delta", s), 4)}${range("lower", "upper")}`
  ];
  if (known(at("control", s))) {
    lines.push(`control ${signed(at("control", s), 4)}, excess ${signed(at("excess", s), 4)}` +
      range("excess_lower", "excess_upper"));
  }
  const p = subject.over ? "" : `adjusted p ${pText(at("p", s))}, `;
  lines.push(`${p}coverage ${digits(at("coverage", s), 2)}`, finding(at, s));
  return lines.filter((text) => text).join("\n");
}

const plane = {
  draw(figure) {
    this.layer = null;
    this.drawing = null;
    if (!probes.step.length || !probes.ablations.length) return noteNothing(figure, data.not_probed);
    if (missingMass()) return noteNothing(figure, missingMass());
    const width = widthOf(figure), height = Math.min(480, Math.max(340, width * 0.5));
    this.area = {x: 68, y: 14, width: width - 84, height: height - 64};
    this.scales(width);
    this.drawing = canvas(width, height, `${comparedName()} against effect of the ${sliced ? "slices" : "sets"}`);
    this.margin();
    panel(this.drawing, this.area, this.x, this.y, {xLabel: comparedName(), yLabel: EFFECT, zero: true});
    this.text = html("span");
    figure.replaceChildren(html("div", {class: "tools"}, ...this.keys(), effectChoice()), this.drawing,
      caption("What a slice weighs, and what it does.", this.text));
  },

  scales() {
    const {x, y, width, height} = this.area;
    const masses = [probes, ...beside]
                     .flatMap((one) => one.step.flatMap((_, row) => {
                       const at = values(one, settings.ablation, row);
                       return sets.map((__, s) => at(COMPARED, s));
                     }))
                     .filter(known);
    const effects = [...allEffects(probes, ["delta", "lower", "upper"]), ...beside.flatMap((one) => allEffects(one))];
    const high = Math.max(0.01, ...masses) * 1.06, low = Math.min(0, ...masses) * 1.06;
    this.x = linearScale(
      [low, isPlainAlpha() ? Math.min(1, high) : high], [x, x + width], Math.max(4, Math.round(width / 110)));
    this.y = effectScale(effects, [y + height, y]);
  },

  /// The grey band of effects that are as good as none.
  margin() {
    const {x, y, width, height} = this.area;
    const top = Math.max(y, this.y(probes.margin)), bottom = Math.min(y + height, this.y(-probes.margin));
    this.drawing.append(svg("rect", {x, y: top, width, height: Math.max(0, bottom - top), fill: "#eef1f4"}));
  },

  keys() {
    const grey = "#3d444d";
    const swatch = (colour, sublayer, filled) => svg("g", {transform: "translate(8 7)"},
      symbol(sublayer, 5, {fill: colour, "fill-opacity": filled, stroke: colour, "stroke-width": 1.6}));
    const out = [];
    if (sliced) {
      out.push(...families.map((family) => key(swatch(familyColour[family], "attn", 1), family)),
        key(swatch(grey, "attn", 0), "attention"), key(swatch(grey, "mlp", 0), "MLP"),
        ...depths.map((depth, i) => key(swatch(grey, "attn", i / 2), depth)));
    }
    if (beside.some((one) => !one.baseline)) {
      const dot = svg("circle", {cx: 9, cy: 7, r: 2.4, fill: grey, "fill-opacity": 0.6});
      out.push(key(dot, probes.over ? "single runs" : "other runs"));
    }
    if (beside.some((one) => one.baseline))
      out.push(key(svg("path", {d: "M5,3l8,8M13,3l-8,8", stroke: grey, "stroke-width": 1.6}), "wrapped baseline"));
    out.push(key(svg("rect", {width: 18, height: 14, fill: "#e3e7ec"}), `within \u00b1${plain(probes.margin)}`));
    return out;
  },

  update() {
    if (!this.drawing) return;
    if (this.layer) this.layer.remove();
    this.layer = svg("g");
    this.drawing.append(this.layer);
    const at = values();
    const tested = sets.map((_, s) => s).filter((s) => known(at("delta", s)) && known(at(COMPARED, s)));
    const own =
      tested.map((s) => ({s, x: this.x(at(COMPARED, s)), y: this.y(at("delta", s)), text: () => describeSet(s)}));
    const others = beside.flatMap((other) => this.others(other, own));
    for (const point of own) this.mark(point, at);
    this.label(own, at);
    hover(this.drawing, this.area, [...own, ...others]);
    this.layer.append(...[...this.drawing.children].slice(-2));
    this.text.textContent = this.explanation(tested.length);
  },

  /// The marks of another run or a baseline; from the mean over runs, a line leads to each of its runs.
  others(other, own) {
    const at = values(other);
    const points = [];
    sets.forEach((_, s) => {
      if (!known(at("delta", s)) || !known(at(COMPARED, s))) return;
      const point = {x: this.x(at(COMPARED, s)), y: this.y(at("delta", s)), text: () => describeSet(s, other)};
      points.push(point);
      if (other.baseline) {
        const cross = `M${point.x - 4},${point.y - 4}l8,8m0,-8l-8,8`;
        this.layer.append(svg("path", {d: cross, stroke: setColour(s), "stroke-width": 1.6}));
        return;
      }
      const middle = own.find((one) => one.s === s);
      if (probes.over && middle) {
        this.layer.append(svg(
          "line", {x1: middle.x, y1: middle.y, x2: point.x, y2: point.y, stroke: setColour(s), "stroke-opacity": 0.5}));
      }
      this.layer.append(svg("circle", {cx: point.x, cy: point.y, r: 2.6, fill: setColour(s), "fill-opacity": 0.55}));
    });
    return points;
  },

  mark({s, x, y}, at) {
    const colour = setColour(s), kind = sublayers[sets[s].sublayer ?? 0];
    const group = svg("g", {opacity: hasEffect(at, s) ? 1 : 0.45});
    if (!probes.over && known(at("lower", s))) {
      const ends = {y1: this.y(at("lower", s)), y2: this.y(at("upper", s))};
      group.append(svg("line", {x1: x, x2: x, ...ends, stroke: colour, "stroke-width": 1.6}));
    }
    const transform = `translate(${x} ${y})`;
    group.append(symbol(kind, 5.5, {fill: "#fff", stroke: colour, "stroke-width": 1.8, transform}),
      symbol(kind, 5.5, {fill: colour, "fill-opacity": (sets[s].depth ?? 2) / 2, transform}));
    this.layer.append(group);
  },

  explanation(tested) {
    const faded = probes.over ? "not shown to have an effect in every run"
      : probes.until_decided  ? "not decided to have an effect"
                              : `adjusted p of ${ADJUSTED} or more`;
    const bars = probes.over ? "mean over runs, with a line to each run" : `with ${spreadText()}`;
    return `Each of the ${tested} ${sliced ? "slices" : "sets"} that the ablation ${
             settings.ablation} can change, at ` +
      `step ${grouped(probes.step[drawn.probe])}: ${comparedName()} against the rise of the loss, ${
        bars}. Far right and low: ` +
      `much mass, little effect. Faded: ${faded}. Grey: as good as no effect.${this.summary()}`;
  },

  /// The heaviest and the strongest slice as they are shown.
  heads() {
    const at = values();
    const there = sets.map((_, s) => s).filter((s) => known(at("delta", s)) && known(at(COMPARED, s)));
    if (!sliced || !there.length) return "";
    const largest = (field) => there.reduce((best, s) => (at(field, s) > at(field, best) ? s : best));
    return ` The heaviest slice is ${sets[largest(COMPARED)].title}, the strongest ${sets[largest("delta")].title}.`;
  },

  /// Findings are those of the first ablation and of the weight.
  summary() {
    if (!isPlainAlpha()) return this.heads();
    const row = (probes.dissociation || [])[drawn.probe];
    if (!row || settings.ablation !== probes.ablations[0] || row.largest_mass < 0 || row.largest_effect < 0) return "";
    const heaviest = sets[row.largest_mass].title, strongest = sets[row.largest_effect].title;
    const heads = heaviest === strongest ? `The heaviest slice, ${heaviest}, is also the strongest`
                                         : `The heaviest slice is ${heaviest}, the strongest ${strongest}`;
    const of = row.by_mass.alpha;
    return ` ${heads}. Kendall\u2019s tau of free mass and effect: ${estimated(of.tau, 2)}.`;
  },

  /// Names beside points, the largest effects and masses first, wherever there is room.
  label(points, at) {
    const {x: left, y: top, width} = this.area;
    const taken = points.map(({x, y}) => ({x: x - 7, y: y - 7, w: 14, h: 14}));
    const apart = (a, b) => a.x + a.w < b.x || b.x + b.w < a.x || a.y + a.h < b.y || b.y + b.h < a.y;
    const free = (box) =>
      box.x >= left && box.x + box.w <= left + width && box.y >= top && taken.every((other) => apart(box, other));
    const first = (field, count) => [...points].sort((a, b) => at(field, b.s) - at(field, a.s)).slice(0, count);
    for (const {s, x, y} of new Set([...first("delta", 5), ...first(COMPARED, 4)])) {
      const text = sets[s].title, w = text.length * 6.2;
      const corners = [
        [x + 11, y - 7], [x - 11 - w, y - 7], [x - w / 2, y - 25], [x - w / 2, y + 11], [x + 9, y - 20], [x + 9, y + 6]
      ];
      const place = corners.map(([px, py]) => ({x: px, y: py, w, h: 14})).find(free);
      if (!place) continue;
      taken.push(place);
      this.layer.append(svg("text", {class: "note halo", x: place.x, y: place.y + 11}, text));
    }
  }
};

// Figures of what the probes found: mass against effect, and effects over training.

// ---- mass against effect ----

const effectEnds = (fields = ["delta", "lower", "upper"]) => (probes.effects[settings.ablation] ? fields.flatMap((field) => probes.effects[settings.ablation][field].flat()) : []);

function describeSet(s, subject = probes, row = undefined) {
  const at = row === undefined ? values(subject) : values(subject, settings.ablation, row), step = subject.step[row ?? (subject === probes ? drawn.probe : atOrBefore(subject.step, drawn.step))];
  const who = subject === probes ? "" : `${subject.name}\n`, control = known(at("control", s)) ? `\ncontrol ${signed(at("control", s), 4)}, excess ${signed(at("excess", s), 4)}${interval(at("excess_lower", s), at("excess_upper", s), 4)}` : "";
  return `${who}${sets[s].title}\nstep ${grouped(step)}, ${settings.ablation}\nmass ${digits(at("mass", s), 4)}\n\u0394 nll ${signed(at("delta", s), 4)}${interval(at("lower", s), at("upper", s), 4)}${control}\nadjusted p ${pText(at("p", s))}, coverage ${digits(at("coverage", s), 2)}\n${finding(at, s)}`;
}

const plane = {
  draw(figure) {
    this.layer = null;
    this.drawing = null;
    if (!probes.step.length || !probes.ablations.length) return noteNothing(figure, data.not_probed);
    const width = widthOf(figure), height = Math.min(480, Math.max(340, width * 0.5));
    this.area = { x: 68, y: 14, width: width - 84, height: height - 64 };
    const { x, y, width: w, height: h } = this.area, masses = [...probes.mass.flat(), ...beside.flatMap((one) => one.mass.flat())].filter(known);
    this.x = linearScale([0, Math.min(1, Math.max(0.01, ...masses) * 1.06)], [x, x + w], Math.max(4, Math.round(w / 110)));
    this.y = effectScale([...effectEnds(), ...beside.flatMap((one) => (one.effects[settings.ablation] ? one.effects[settings.ablation].delta.flat() : []))], [y + h, y]);
    this.drawing = canvas(width, height, "mass against effect of the slices");
    const top = this.y(probes.margin), bottom = this.y(-probes.margin);
    this.drawing.append(svg("rect", { x, y: Math.max(y, top), width: w, height: Math.max(0, Math.min(y + h, bottom) - Math.max(y, top)), fill: "#eef1f4" }));
    panel(this.drawing, this.area, this.x, this.y, { xLabel: "routing mass (mean weight, share)", yLabel: EFFECT, zero: true });
    const swatch = (colour, sublayer, filled) => svg("g", { transform: "translate(8 7)" }, symbol(sublayer, 5, { fill: colour, "fill-opacity": filled, stroke: colour, "stroke-width": 1.6 }));
    const grey = "#3d444d", names = sliced ? [...families.map((f) => key(swatch(familyColour[f], "attn", 1), f)), key(swatch(grey, "attn", 0), "attention"), key(swatch(grey, "mlp", 0), "MLP"), ...depths.map((d, i) => key(swatch(grey, "attn", i / 2), d))] : [];
    const others = [...(beside.some((one) => !one.baseline) ? [key(svg("circle", { cx: 9, cy: 7, r: 2.4, fill: grey, "fill-opacity": 0.6 }), "other runs")] : []), ...(beside.some((one) => one.baseline) ? [key(svg("path", { d: "M5,3l8,8M13,3l-8,8", stroke: grey, "stroke-width": 1.6 }), "wrapped baseline")] : [])];
    this.text = html("span");
    figure.replaceChildren(
      html("div", { class: "tools" }, ...names, ...others, key(svg("rect", { width: 18, height: 14, fill: "#e3e7ec" }), `within \u00b1${plain(probes.margin)}`), effectChoice()),
      this.drawing,
      caption(this, "What a slice weighs, and what it does.", this.text));
  },
  update() {
    if (!this.drawing) return;
    if (this.layer) this.layer.remove();
    this.layer = svg("g");
    this.drawing.append(this.layer);
    const at = values(), points = [];
    for (const other of beside) {
      const there = values(other);
      sets.forEach((_, s) => {
        if (!known(there("delta", s)) || !known(there("mass", s))) return;
        const point = { x: this.x(there("mass", s)), y: this.y(there("delta", s)), text: () => describeSet(s, other) };
        points.push(point);
        this.layer.append(other.baseline
          ? svg("path", { d: `M${point.x - 4},${point.y - 4}l8,8m0,-8l-8,8`, stroke: setColour(s), "stroke-width": 1.6 })
          : svg("circle", { cx: point.x, cy: point.y, r: 2.6, fill: setColour(s), "fill-opacity": 0.55 }));
      });
    }
    const tested = sets.map((_, s) => s).filter((s) => known(at("delta", s)) && known(at("mass", s)));
    const own = tested.map((s) => ({ s, x: this.x(at("mass", s)), y: this.y(at("delta", s)), text: () => describeSet(s) }));
    for (const { s, x, y } of own) {
      const colour = setColour(s), kind = sublayers[sets[s].sublayer ?? 0], clear = hasEffect(at, s);
      const group = svg("g", { opacity: clear ? 1 : 0.45 });
      if (known(at("lower", s))) group.append(svg("line", { x1: x, x2: x, y1: this.y(at("lower", s)), y2: this.y(at("upper", s)), stroke: colour, "stroke-width": 1.6 }));
      group.append(symbol(kind, 5.5, { fill: "#fff", stroke: colour, "stroke-width": 1.8, transform: `translate(${x} ${y})` }), symbol(kind, 5.5, { fill: colour, "fill-opacity": (sets[s].depth ?? 2) / 2, transform: `translate(${x} ${y})` }));
      this.layer.append(group);
    }
    this.label(own, at);
    hover(this.drawing, this.area, [...own, ...points]);
    this.layer.append(...[...this.drawing.children].slice(-2));
    this.text.textContent = `Each of the ${tested.length} ${sliced ? "slices" : "sets"} that the ablation can change (${settings.ablation}), at step ${grouped(probes.step[drawn.probe])}: mean weight against the rise of the loss, with 95\u00a0% intervals over ${probes.sequences} sequences. Faded: ${probes.until_decided ? "not decided to have an effect" : "adjusted p of 0.05 or more"}. Grey: as good as no effect.${this.summary()}`;
  },
  /// Findings are of the first ablation.
  summary() {
    const row = (probes.dissociation || [])[drawn.probe];
    if (!row || settings.ablation !== probes.ablations[0] || row.largest_mass < 0 || row.largest_effect < 0) return "";
    const heads = row.largest_mass === row.largest_effect ? `The heaviest slice, ${sets[row.largest_mass].title}, has the largest effect as well` : `The heaviest slice is ${sets[row.largest_mass].title}, the strongest ${sets[row.largest_effect].title}`;
    return ` ${heads} (one and the same in ${known(row.p_same) ? digits(100 * row.p_same, 1) : "\u2013"}\u00a0% of resamples). Rank correlation of mass and effect: ${estimated(row.rank_correlation, 2)}.`;
  },
  /// Names beside points, the largest effects and masses first, wherever there is room.
  label(points, at) {
    const taken = points.map(({ x, y }) => ({ x: x - 7, y: y - 7, w: 14, h: 14 }));
    const free = (box) => box.x >= this.area.x && box.x + box.w <= this.area.x + this.area.width && box.y >= this.area.y && taken.every((o) => box.x + box.w < o.x || o.x + o.w < box.x || box.y + box.h < o.y || o.y + o.h < box.y);
    const first = (field, count) => [...points].sort((a, b) => at(field, b.s) - at(field, a.s)).slice(0, count);
    for (const { s, x, y } of new Set([...first("delta", 5), ...first("mass", 4)])) {
      const text = sets[s].title, w = text.length * 6.2;
      const places = [[x + 11, y - 7], [x - 11 - w, y - 7], [x - w / 2, y - 25], [x - w / 2, y + 11], [x + 9, y - 20], [x + 9, y + 6]];
      const place = places.map(([px, py]) => ({ x: px, y: py, w, h: 14 })).find(free);
      if (!place) continue;
      taken.push(place);
      this.layer.append(svg("text", { class: "note halo", x: place.x, y: place.y + 11 }, text));
    }
  },
};

// ---- effects of all slices over training ----

const effects = {
  absent: () => probes.step.length < 2 || !probes.ablations.length,
  draw(figure) {
    this.marks = [];
    // A panel for each family and sublayer kind; sets that are no slices have a panel each, the strongest first.
    const width = widthOf(figure), columns = width >= 760 ? 3 : 2;
    const pairs = columns === 3 ? sublayers.flatMap((_, j) => families.map((__, i) => [i, j])) : families.flatMap((_, i) => sublayers.map((__, j) => [i, j]));
    const panels = sliced
      ? pairs.map(([i, j]) => ({ title: `${families[i]} \u2192 ${sublayerName[sublayers[j]]}`, list: depths.map((_, d) => i * 6 + j * 3 + d) }))
      : sets.map((set, s) => ({ title: set.title, list: [s] })).sort((a, b) => (values()("delta", b.list[0]) ?? -Infinity) - (values()("delta", a.list[0]) ?? -Infinity)).slice(0, 12);
    const rows = Math.ceil(panels.length / columns);
    const colour = (s) => (sliced ? thirdColour(depths[sets[s].depth]) : setColour(s));
    const left = 66, gapX = 18, gapY = 44, w = (width - left - 10 - gapX * (columns - 1)) / columns, h = columns === 3 ? 190 : 160;
    const drawing = canvas(width, 26 + rows * (h + gapY) + 16, "effects of the slices over training"), high = probes.step.at(-1);
    const at = (field, s, p) => probes.effects[settings.ablation][field][p][s];
    panels.forEach(({ title, list }, n) => {
      const i = n % columns, j = Math.floor(n / columns), last = n + columns >= panels.length;
      const area = { x: left + i * (w + gapX), y: 26 + j * (h + gapY), width: w, height: h };
      const x = stepScale(high, [area.x, area.x + w]), y = effectScale(effectEnds(), [area.y + h, area.y]), points = [];
      panel(drawing, area, x, y, { title, xTicks: last, yTicks: i === 0, xLabel: last ? "training step" : null, yLabel: i === 0 ? EFFECT : null, zero: true });
      for (const s of list) {
        const shown = probes.step.map((step, p) => (known(at("delta", s, p)) ? [x(step), y(at("delta", s, p))] : null));
        const bounds = probes.step.map((step, p) => (known(at("lower", s, p)) ? [x(step), y(at("lower", s, p)), y(at("upper", s, p))] : null));
        drawing.append(band(bounds, { fill: colour(s), "fill-opacity": 0.18 }), line(shown, { stroke: colour(s), "stroke-width": 2 }));
        shown.forEach((point, p) => {
          if (!point) return;
          drawing.append(svg("circle", { cx: point[0], cy: point[1], r: 2.2, fill: colour(s) }));
          points.push({ x: point[0], y: point[1], text: () => describeSet(s, probes, p) });
        });
      }
      this.marks.push(marker(drawing, area, x, () => Math.min(drawn.step, high)));
      hover(drawing, area, points);
    });
    figure.replaceChildren(
      html("div", { class: "tools" }, ...(sliced ? depths.map((d) => key(svg("rect", { y: 5, width: 18, height: 4, fill: thirdColour(d) }), `${d} layers`)) : []), effectChoice()),
      drawing,
      caption(this, `Effect of each ${sliced ? "slice" : "set"} over training (${settings.ablation}).`, `Lines: rise of the loss under the ablation; bands: 95\u00a0% intervals, pointwise, paired over ${probes.sequences} sequences. No line: it could change no read.${sets.length > 12 && !sliced ? ` The strongest 12 of ${sets.length} sets.` : ""} Steps are spaced as log(1 + step).`));
  },
  update() {
    for (const move of this.marks || []) move();
  },
};

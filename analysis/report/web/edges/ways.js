// Effects beside each other, a row for each set: total, frozen and direct; of the value, the key and both.

/// series: [{name, colour, at(s): [value, lower, upper]}] of every item. Slices, or few items, are in their order; of
/// many the strongest.
function dotRows(figure, series, label, {items = sets, scale = effectScale, xLabel = EFFECT} = {}) {
  const width = widthOf(figure), left = 180, row = 12 + 7 * series.length;
  const strength = (s) => Math.max(...series.map((one) => Math.abs(one.at(s)[0] ?? 0)));
  const tested = items.map((_, s) => s).filter((s) => series.some((one) => known(one.at(s)[0])));
  const ordered = items === sets ? sliced : items.length <= 32;
  const list = ordered ? tested : tested.sort((a, b) => strength(b) - strength(a)).slice(0, 24);
  const area = {x: left, y: 10, width: width - left - 14, height: row * list.length};
  const drawing = canvas(width, area.height + 60, label);
  const ends = list.flatMap((s) => series.flatMap((one) => one.at(s)));
  const x = scale(ends, [area.x, area.x + area.width]);
  x.ticks = x.ticks.filter((tick, i, all) => i === 0 || tick === 0 || x(tick) - x(all[i - 1]) > 50);
  const none = Object.assign(() => area.y, {ticks: [], format: plain});
  panel(drawing, area, x, none, {xLabel});
  drawing.append(svg("line", {class: "grid", x1: x(0), x2: x(0), y1: area.y, y2: area.y + area.height}));
  const points = [];
  list.forEach((s, i) => {
    const top = area.y + i * row;
    if (i % 2) drawing.append(svg("rect", {x: 0, y: top, width, height: row, fill: "#57606a", "fill-opacity": 0.06}));
    drawing.append(svg("text", {x: left - 8, y: top + row / 2 + 4, "text-anchor": "end"}, items[s].title));
    series.forEach(({name, colour, at}, n) => {
      const [value, lower, upper] = at(s), y = top + 9 + 7 * n;
      if (!known(value)) return;
      if (known(lower))
        drawing.append(svg("line", {x1: x(lower), x2: x(upper), y1: y, y2: y, stroke: colour, "stroke-width": 1.6}));
      drawing.append(svg("circle", {cx: x(value), cy: y, r: 3, fill: colour}));
      points.push({x: x(value), y, text: `${items[s].title}\n${name} ${signed(value, 4)}${interval(lower, upper, 4)}`});
    });
  });
  hover(drawing, area, points);
  return drawing;
}

const seriesKeys = (series) => html("div", {class: "tools"},
  ...series.map(({name, colour}) => key(svg("circle", {cx: 9, cy: 7, r: 4, fill: colour}), name)), effectChoice());

const shareText = ([value, lower, upper]) => {
  if (!known(value)) return "\u2013";
  const range = known(lower) ? ` [${digits(100 * lower, 0)}, ${digits(100 * upper, 0)}]` : "";
  return `${digits(100 * value, 0)}${range}`;
};

function replaced(before, after) {
  before.replaceWith(after);
  return after;
}

const ways = {
  absent: () => !probes.ablations.some((one) => probes.effects[one].frozen || probes.effects[one].direct),

  series(at) {
    const all = [
      ["total", "delta", "#1b1f24", ["delta", "lower", "upper"]],
      ["frozen: later reads keep their weights", "frozen", "#0072b2", ["frozen", "frozen_lower", "frozen_upper"]],
      ["direct: the head alone responds", "direct", "#d55e00", ["direct", "direct_lower", "direct_upper"]]
    ];
    return all.filter(([, field]) => probes.effects[settings.ablation][field]).map(([name, , colour,
      fields]) => ({name, colour, at: (s) => fields.map((field) => at(field, s))}));
  },

  draw(figure) {
    this.figure = figure;
    this.drawing = svg("svg");
    this.after = html("div", {class: "scroll"});
    this.text = html("span");
    figure.replaceChildren(seriesKeys(this.series(values())), this.drawing,
      caption("What is left of an effect where not everything responds.", this.text), this.after);
  },

  update() {
    if (this.absent()) return;
    const at = values(), series = this.series(at);
    this.drawing = replaced(this.drawing, dotRows(this.figure, series, "total, frozen and direct effect of every set"));
    this.text.textContent = `Effects of ${settings.ablation}. Frozen right of total: later routing repairs what the ` +
      "ablation did; left of it: later routing makes it worse. Direct is what the head sees of the set\u2019s own " +
      `sublayers; the rest of the total goes through other sublayers. Bars: ${spreadText()}.` +
      (probes.over ? "" : this.verdict());
    this.after.replaceChildren(...this.shares(at));
  },

  /// Of all sets together, and only what the interval shows.
  verdict() {
    const all = (probes.effects[settings.ablation].repaired_all || [])[drawn.probe];
    if (!all || !known(all[0])) return "";
    const [value, lower, upper] = all;
    if (lower > 0)
      return ` All sets together, later routing repairs ${shareText([value, lower, upper])} % of the frozen effect.`;
    if (upper < 0)
      return ` All sets together, later routing adds ${shareText([-value, -upper, -lower])} % to the frozen effect.`;
    return " All sets together, it is not shown that later routing repairs or adds anything.";
  },

  shares(at) {
    const tested = sets.map((_, s) => s).filter((s) => known(at("share", s)));
    if (!tested.length || probes.over) return [];
    const rows = tested.map(
      (s) => [sets[s].title, signed(at("delta", s), 4), signed(at("frozen", s), 4),
        shareText(["share", "share_lower", "share_upper"].map((field) => at(field, s))),
        below(at("repaired_p", s)) ? (at("share", s) > 0 ? "repaired in part" : "made worse") : "not shown"]);
    return [plainTable([sliced ? "slice" : "set", "total", "frozen", "repaired, % of frozen", "later routing"], rows)];
  }
};

const parts = {
  donors: () => Object.keys(probes.interactions || {}),
  absent: () => !Object.keys(probes.interactions || {}).length,

  names: (donor) => [donor === "mean" ? "mean" : `${donor}_value`, `${donor}_key`, `${donor}_both`],

  draw(figure) {
    this.figure = figure;
    this.all = this.donors().map((donor) => ({donor, drawing: svg("svg"), text: html("span")}));
    figure.replaceChildren(...this.all.flatMap(
      ({donor, drawing, text}) => [seriesKeys(this.series(donor)), drawing, caption("Keys and values.", text)]));
  },

  update() {
    if (this.absent()) return;
    for (const one of this.all) this.show(one);
  },

  series(donor) {
    const fields = ["delta", "lower", "upper"], found = probes.interactions[donor];
    const labels = ["value: what is mixed in", "key: what weight it gets", "both"];
    const colours = ["#e69f00", "#0072b2", "#1b1f24"];
    const all = this.names(donor).map((ablation, i) => {
      const at = values(probes, ablation);
      return {name: labels[i], colour: colours[i], at: (s) => fields.map((field) => at(field, s))};
    });
    return [
      ...all, {
        name: "interaction: both minus value minus key",
        colour: "#cc79a7",
        at: (s) => fields.map((field) => found[field][drawn.probe][s])
      }
    ];
  },

  show(one) {
    const {donor, text} = one, found = probes.interactions[donor];
    const from = {
      mean: "its mean over all tokens",
      resample: "that of another token of the sequence",
      patch: "that of the aligned text"
    }[donor];
    const shown = sets.filter((_, s) => below(found.p[drawn.probe][s])).map((set) => set.title);
    one.drawing =
      replaced(one.drawing, dotRows(this.figure, this.series(donor), `effects of value, key and both, donor ${donor}`));
    text.textContent = `Each source is replaced by ${from}: as the value that a read mixes in, as the key that makes ` +
      `its weight, or as both. Bars: ${spreadText()}; of the interaction Student\u2019s 95\u00a0% intervals${
        probes.over ? " over documents and runs" : ""}. ` +
      (shown.length ? `An interaction is shown for ${shown.join(", ")}.` : "No interaction is shown.");
  }
};

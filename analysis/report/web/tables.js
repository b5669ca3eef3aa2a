// Tables: what every ablation does to every slice, one ablation in full, and runs held beside each other.

let tableSort = { field: "order", down: false };

/// A table of the sets, sorted by a heading: columns [[name, unit, field or null, cell(s), class(s)], ...].
function setTable(columns, at) {
  const rank = (s) => (tableSort.field === "order" ? s : known(at(tableSort.field, s)) ? at(tableSort.field, s) : -Infinity);
  const order = sets.map((_, s) => s).sort((a, b) => (tableSort.down ? rank(b) - rank(a) : rank(a) - rank(b)));
  const head = html("tr", {}, ...columns.map(([name, unit, field]) => {
    const title = field ? html("button", { type: "button", title: "sort" }, name) : name;
    if (field) title.addEventListener("click", () => {
      tableSort = { field, down: field !== "order" && !(tableSort.field === field && tableSort.down) };
      table.update();
    });
    const sorted = field && field !== "order" && tableSort.field === field;
    return html("th", { scope: "col", "aria-sort": sorted ? (tableSort.down ? "descending" : "ascending") : undefined }, title, html("small", {}, unit));
  }));
  const rows = order.map((s, i) => html("tr", { class: tableSort.field === "order" && sliced && i % 6 === 5 ? "end" : "" }, ...columns.map(([, , , cell, style], c) => html(c ? "td" : "th", c ? { class: style ? style(s) : "" } : { scope: "row" }, cell(s)))));
  return html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows));
}
const strong = (at, s) => `${hasEffect(at, s) ? "clear" : ""} ${isAbsent(at, s) ? "nothing" : ""}`;
const ranged = (low, high, places) => (known(low) && known(high) ? `${signed(low, places)} to ${signed(high, places)}` : "\u2013");

const table = {
  draw(figure) {
    this.all = null;
    if (!probes.step.length || !probes.ablations.length) return noteNothing(figure, data.not_probed);
    this.all = html("div", { class: "scroll" });
    this.one = html("div", { class: "scroll" });
    this.allText = html("span");
    this.oneText = html("span");
    const many = probes.ablations.length + beside.length > 1;
    figure.replaceChildren(
      ...(many ? [this.all, html("figcaption", {}, html("b", {}, "Table 1. Every ablation. "), this.allText)] : []),
      this.one, html("figcaption", {}, html("b", {}, `Table ${many ? 2 : 1}. `), this.oneText));
  },
  update() {
    if (!this.all) return;
    const at = values(), step = grouped(probes.step[drawn.probe]), name = (s) => sets[s].title;
    const first = ["slice", "", "order", name], mass = ["mass", "share", "mass", (s) => digits(at("mass", s), 3)];
    const effect = (subject, ablation) => {
      const there = values(subject, ablation);
      return [(s) => signed(there("delta", s), 4), (s) => strong(there, s)];
    };
    this.all.replaceChildren(setTable([first, mass,
      ...probes.ablations.map((ablation) => [ablation, "\u0394 nll", null, ...effect(probes, ablation)]),
      ...beside.flatMap((one) => [[one.name, "mass", null, (s) => digits(values(one)("mass", s), 3)], [one.name, settings.ablation, null, ...effect(one, settings.ablation)]])], at));
    this.allText.textContent = `Rise of the loss in nats per token at step ${step}. Bold: not zero (${probes.until_decided ? "so decided by its confidence sequence" : "adjusted p below 0.05"}). Grey: shown to lie within \u00b1${plain(probes.margin)}. A dash: the ablation could change no read.${beside.length ? ` Runs and baselines beside this one: at their last probed step up to this one.` : ""}`;
    const controlled = probes.controls > 0, decided = probes.until_decided;
    this.one.replaceChildren(setTable([first, ["finding", "5 %", null, (s) => finding(at, s), () => "words"], mass,
      ["\u0394 nll", "nats per token", "delta", (s) => signed(at("delta", s), 4), (s) => strong(at, s)],
      ["95 % interval", "nats per token", null, (s) => ranged(at("lower", s), at("upper", s), 4)],
      ["p", "adjusted", "p", (s) => pText(at("p", s))],
      ...(controlled ? [["control", "nats per token", "control", (s) => signed(at("control", s), 4)],
        ["excess", "nats per token", "excess", (s) => signed(at("excess", s), 4), (s) => (below(at("excess_p", s)) ? "clear" : "")],
        ["95 % interval", "of the excess", null, (s) => ranged(at("excess_lower", s), at("excess_upper", s), 4)],
        ["p", "excess, adj.", "excess_p", (s) => pText(at("excess_p", s))]] : []),
      ...(decided ? [] : [["p", "of \u2265 margin", "absent", (s) => pText(at("absent", s))]]),
      ["KL", "nats per token", "kl", (s) => digits(at("kl", s), 4)],
      ["top-1", "agreement", "top1", (s) => digits(at("top1", s), 3)],
      ["coverage", "share", "coverage", (s) => digits(at("coverage", s), 2)],
      ...(decided ? [["decided", "sequences", "used", (s) => (known(at("used", s)) ? `${["open", "effect", "absent"][at("decision", s) ?? 0]}, ${at("used", s)}` : "\u2013")]] : [])], at));
    const cost = probes.cost[drawn.probe], saved = decided && cost && known(cost[3]) && cost[3] > 0 ? ` Stopping when decided saved ${digits(100 * (1 - cost[1] / cost[3]), 0)}\u00a0% of the work.` : "";
    const times = cost && known(cost[0]) && cost[0] > 0 ? ` The probe took ${digits(cost[1] / cost[0], 1)} times one plain evaluation of the same tokens (${digits(cost[2] / cost[0], 1)} without sharing).` : "";
    this.oneText.textContent = `The ablation ${settings.ablation} at step ${step}, where the intact model's loss on the probe tokens is ${digits(probes.nll[drawn.probe], 4)} nats per token. Headings sort.${times}${saved}`;
  },
};

// ---- runs beside each other ----

const compare = {
  absent: () => !beside.length,
  unnumbered: true,
  draw(figure) {
    const named = probes.motifs.filter((motif) => motif.of_paper);
    const columns = [["run", ""], ["step", ""], ["loss", "nats per token"], ["mass and effect", "rank correlation"], ["heaviest slice", ""], ["strongest slice", ""], ["one slice", "of resamples"], ["content", "share of variance"], ...named.flatMap((motif) => [[motif.title, "excess"], ["onset", "by cause; by mass"]])];
    const title = (s) => (s >= 0 && sets[s] ? sets[s].title : "\u2013");
    const rows = subjects.map((one) => {
      const last = one.step.length - 1, row = one.dissociation[last];
      const cells = [one.name + (one.baseline ? " (wrapped)" : ""), one.baseline ? "\u2013" : grouped(one.step[last]), digits(one.nll[last], 4), row ? estimated(row.rank_correlation, 2) : "\u2013", row ? title(row.largest_mass) : "\u2013", row ? title(row.largest_effect) : "\u2013", row && known(row.p_same) ? digits(100 * row.p_same, 1) + "\u00a0%" : "\u2013", digits(one.content[last], 4)];
      for (const motif of named) {
        const same = one.motifs.find((other) => other.name === motif.name);
        cells.push(same ? estimated(same.excess, 3) : "\u2013", same && one.step.length > 1 ? `${onsetText(same.onset, one.step)}; ${onsetText(same.mass_onset, one.step)}` : "\u2013");
      }
      return cells;
    });
    // A column for each run: there are more things to compare than runs.
    figure.replaceChildren(
      html("div", { class: "scroll" }, html("table", { class: "sides" }, html("thead", {}, html("tr", {}, html("th", {}, ""), ...rows.map((cells) => html("th", { scope: "col" }, cells[0])))),
        html("tbody", {}, ...columns.slice(1).map(([name, unit], i) => html("tr", {}, html("th", { scope: "row" }, name, unit ? html("small", {}, " " + unit) : ""), ...rows.map((cells) => html("td", {}, cells[i + 1]))))))),
      html("figcaption", {}, `Each at its last probed step; effects are of the ablation ${data.motif_ablation}. Brackets hold 95\u00a0% intervals of the one run. `, data.pooled));
  },
  update() {},
};

// The runs and baselines in numbers, side by side at their last probed step.

const runsInNumbers = {
  absent: () => !runs[0].probes,

  draw(figure) {
    const columns =
      [...runs.map((one) => this.column(one.probes, one)), ...baselines.map((one) => this.column(one, null))];
    const names = [...runs.map((one) => one.name), ...baselines.map((one) => `${one.name} (baseline)`)];
    // A column for each run: there are more quantities than runs.
    const rows = [...columns[0].keys()].map((quantity) => [quantity, ...columns.map((column) => column.get(quantity))]);
    figure.replaceChildren(html("div", {class: "scroll"}, plainTable(["", ...names], rows, "sides")),
      tableCaption(runs.length > 1 ? "The runs, side by side." : "The run at its last probed step.",
        `Effects are of the ablation ${
          data.motif_ablation}. Brackets hold 95\u00a0% intervals of the one run. Costs are ` +
          `multiples of one plain evaluation of the same tokens, mean over the probed steps. ${data.pooled_text}`));
  },

  /// What there is to say of a run or baseline: quantity -> text.
  column(probe, one) {
    const last = probe.step.length - 1, row = probe.dissociation[last] || {};
    const title = (s) => (s >= 0 && sets[s] ? sets[s].title : "\u2013");
    const idle = (row.idle || []).map(title).join("; ");
    const out = new Map([
      ["seed", one && known(one.seed) ? String(one.seed) : "\u2013"],
      ["step", one ? grouped(probe.step[last]) : "\u2013"],
      ["validation loss, nats per token", one ? digits(one.valid_loss, 4) : "\u2013"],
      ["loss on the probe tokens, nats per token", digits(probe.nll[last], 4)],
      ["variance of the weights between tokens, share", percent(probe.content[last])],
      ["heaviest slice (free mass)", title(row.largest_mass)], ["strongest slice", title(row.largest_effect)],
      ...Object.entries(row.by_mass || {}).flatMap(([kind, of]) => {
        const name = kind === "alpha" ? "weight" : kind;
        return [
          [`rank correlation of free mass and effect, ${name}`, digits(of.rank_correlation, 2)],
          [`Kendall\u2019s tau, ${name}`, estimated(of.tau, 2)],
          [`tau within a sublayer and depth, ${name}`, `${estimated(of.within, 2)}, ${pText(of.within_p)}`]
        ];
      }),
      ["comparisons in which the heaviest is not the strongest", row.contests ? this.contests(row.contests) : "\u2013"],
      ["idle slices", row.idle ? idle || "none shown" : "\u2013"]
    ]);
    for (const motif of motifs.filter((motif) => motif.of_paper)) {
      const same = probe.motifs.find((other) => other.name === motif.name);
      out.set(`${motif.title}: excess`, same ? estimated(same.excess, 3) : "\u2013");
      out.set(`${motif.title}: onset by cause`, same ? onsetText(same.onset, probe.step) : "\u2013");
      out.set(`${motif.title}: onset by mass`, same ? onsetText(same.mass_onset, probe.step) : "\u2013");
    }
    for (const [quantity, text] of this.costs(probe)) out.set(quantity, text);
    return out;
  },

  contests(all) {
    const tested = all.filter((one) => known(one.p));
    const differ = tested.filter((one) => one.p < 0.05 && one.heaviest !== one.strongest);
    return tested.length ? `${differ.length} of ${tested.length}${
                             differ.length ? `: ${differ.map((one) => one.name.replaceAll(".", " ")).join("; ")}` : ""}`
                                           : "not tested";
  },

  costs(probe) {
    const rows = probe.cost.filter((cost) => cost.plain > 0);
    const average = (of, places) => {
      const there = rows.map(of).filter(known);
      return there.length ? digits(mean(there), places) : "\u2013";
    };
    return [
      ["cost of a probe", average((cost) => cost.computed / cost.plain, 1)],
      ["cost without shared prefixes", average((cost) => cost.unshared / cost.plain, 1)],
      ["cost without early decisions", average((cost) => cost.undecided / cost.plain, 1)],
      ["seconds for a step", average((cost) => cost.seconds, 1)],
      ["seconds of its intact passes", average((cost) => cost.plain_seconds, 2)]
    ];
  },

  update() {}
};

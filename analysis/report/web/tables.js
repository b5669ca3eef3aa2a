// Tables of sets: what every ablation does, and one ablation in full.

/// A table of text cells; the first column heads its rows.
function plainTable(head, rows, style = "") {
  const cell = (text, c) => html(c ? "td" : "th", c ? {} : {scope: "row"}, text);
  return html("table", {class: style},
    html("thead", {}, html("tr", {}, ...head.map((text) => html("th", {scope: "col"}, text)))),
    html("tbody", {}, ...rows.map((cells) => html("tr", {}, ...cells.map(cell)))));
}

let tableSort = {field: "order", down: false};

/// A table of the sets, sorted by a heading. columns: [name, unit, field or null, cell(s), class(s)].
function setTable(columns, at) {
  const value = (s) => (known(at(tableSort.field, s)) ? at(tableSort.field, s) : -Infinity);
  const rank = (s) => (tableSort.field === "order" ? s : value(s));
  const order = sets.map((_, s) => s).sort((a, b) => (tableSort.down ? rank(b) - rank(a) : rank(a) - rank(b)));
  const heading = ([name, unit, field]) => {
    const title = field ? html("button", {type: "button", title: "sort"}, name) : name;
    if (field)
      title.addEventListener("click", () => {
        tableSort = {field, down: field !== "order" && !(tableSort.field === field && tableSort.down)};
        table.update();
      });
    const sorted = field && field !== "order" && tableSort.field === field;
    const direction = sorted ? (tableSort.down ? "descending" : "ascending") : undefined;
    return html("th", {scope: "col", "aria-sort": direction}, title, html("small", {}, unit));
  };
  const row = (s, i) => {
    const end = tableSort.field === "order" && sliced && i % 6 === 5;
    return html("tr", {class: end ? "end" : ""},
      ...columns.map(([, , , text, style], c) =>
                       html(c ? "td" : "th", c ? {class: style ? style(s) : ""} : {scope: "row"}, text(s))));
  };
  return html(
    "table", {}, html("thead", {}, html("tr", {}, ...columns.map(heading))), html("tbody", {}, ...order.map(row)));
}
const strong = (at, s) => `${hasEffect(at, s) ? "clear" : ""} ${isAbsent(at, s) ? "nothing" : ""}`;
const ranged = (low, high) => (known(low) && known(high) ? `${signed(low, 4)} to ${signed(high, 4)}` : "\u2013");

const table = {
  draw(figure) {
    this.all = null;
    if (!probes.step.length || !probes.ablations.length) return noteNothing(figure, data.not_probed);
    this.all = html("div", {class: "scroll"});
    this.one = html("div", {class: "scroll"});
    this.allText = html("span");
    this.oneText = html("span");
    const many = probes.ablations.length + beside.length > 1;
    figure.replaceChildren(
      ...(
        many ? [this.all, tableCaption(`Every ${sliced ? "slice" : "set"} under every ablation.`, this.allText)] : []),
      this.one, tableCaption("One ablation in full.", this.oneText));
  },

  update() {
    if (!this.all) return;
    const at = values();
    this.all.replaceChildren(setTable(this.ablationColumns(at), at));
    this.one.replaceChildren(setTable(this.fullColumns(at), at));
    this.allText.textContent = this.allExplanation();
    this.oneText.textContent = this.oneExplanation();
  },

  firstColumns: (at) => [[sliced ? "slice" : "set", "", "order", (s) => sets[s].title],
    ["mass", massKind(), "mass", (s) => digits(at("mass", s), 3)],
    ...(sliced ? [["free mass", massKind(), "free_mass", (s) => digits(at("free_mass", s), 3)]] : [])],

  ablationColumns(at) {
    const effect = (subject, ablation) => {
      const there = values(subject, ablation);
      return [(s) => signed(there("delta", s), 4), (s) => strong(there, s)];
    };
    const columns = this.firstColumns(at);
    for (const ablation of probes.ablations) columns.push([ablation, "\u0394 nll", null, ...effect(probes, ablation)]);
    for (const one of beside) {
      columns.push([one.name, comparedName(), null, (s) => digits(values(one)(COMPARED, s), 3)],
        [one.name, settings.ablation, null, ...effect(one, settings.ablation)]);
    }
    return columns;
  },

  /// Of a mean over runs there are ranges and numbers of runs in place of intervals and p values.
  fullColumns(at) {
    const over = probes.over, decided = probes.until_decided && !over;
    const signedColumn = (name, field, style) => [name, "nats per token", field, (s) => signed(at(field, s), 4), style];
    const range =
      (unit, low, high) => [over ? "range" : "95 % interval", unit, null, (s) => ranged(at(low, s), at(high, s))];
    const p = (unit, field) => ["p", unit, field, (s) => pText(at(field, s))];
    const columns = this.firstColumns(at);
    columns.splice(1, 0, ["finding", over ? `of ${over} runs` : "5 %", null, (s) => finding(at, s), () => "words"]);
    columns.push(signedColumn("\u0394 nll", "delta", (s) => strong(at, s)), range("nats per token", "lower", "upper"));
    if (!over) columns.push(p("adjusted", "p"));
    if (probes.controls > 0) {
      columns.push(signedColumn("control", "control"),
        signedColumn("excess", "excess", (s) => (exceedsControl(at, s) ? "clear" : "")),
        range("of the excess", "excess_lower", "excess_upper"));
      if (!over) columns.push(p("excess, adj.", "excess_p"));
    }
    if (!decided && !over) columns.push(p("of \u2265 margin", "absent"));
    columns.push(["KL", "nats per token", "kl", (s) => digits(at("kl", s), 4)],
      ["top-1", "agreement", "top1", (s) => digits(at("top1", s), 3)],
      ["coverage", "share", "coverage", (s) => digits(at("coverage", s), 2)]);
    if (decided) {
      const word = (s) => ["open", "effect", "absent"][at("decision", s) ?? 0];
      columns.push(
        ["decided", "sequences", "used", (s) => (known(at("used", s)) ? `${word(s)}, ${at("used", s)}` : "\u2013")]);
    }
    return columns;
  },

  allExplanation() {
    const bold = probes.over
      ? "not zero in every run"
      : `not zero (${probes.until_decided ? "decided by its confidence sequence" : `adjusted p below ${ADJUSTED}`})`;
    const grey = `shown to lie within \u00b1${plain(probes.margin)}${probes.over ? " in every run" : ""}`;
    const others = beside.length ? " Runs and baselines beside it: at their last probed step up to this one." : "";
    return `Rise of the loss in nats per token at step ${grouped(probes.step[drawn.probe])}` +
      `${probes.over ? ", mean over runs" : ""}. Bold: ${bold}. Grey: ${
        grey}. A dash: the ablation can change no such ` +
      `read.${others} ${missingMass()}`;
  },

  oneExplanation() {
    const cost = probes.cost[drawn.probe];
    const who = probes.over ? `, mean over ${probes.over} runs with their range`
                            : (runs.length > 1 ? ` of the run ${run.name}` : "");
    const control = probes.controls > 0 ? " Bold excess: above zero, after Holm\u2019s adjustment." : "";
    const times = !probes.over && cost && cost.plain > 0
      ? ` The probe took ${digits(cost.computed / cost.plain, 1)} times one plain evaluation of the same tokens (` +
        `${digits(cost.unshared / cost.plain, 1)} without shared prefixes).`
      : "";
    const saved = probes.until_decided && !probes.over && cost && cost.undecided > 0
      ? ` Stopping when decided saved ${percent(1 - cost.computed / cost.undecided, 0)} of the work.`
      : "";
    const missing = missingMass() ? ` ${missingMass()}` : "";
    return `The ablation ${settings.ablation} at step ${grouped(probes.step[drawn.probe])}${
             who}. The loss of the intact ` +
      `model on the probe tokens is ${digits(probes.nll[drawn.probe], 4)} nats per token. Headings sort.${control}${
        times}` +
      saved + missing;
  }
};

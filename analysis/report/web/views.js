// Views of a study: the mean over its pooled runs, and each run by itself. `probes` are the results of the chosen view,
// and `beside` those that figures show beside them.

const unprobed = {
  name: "",
  step: [],
  ablations: [],
  effects: {},
  mass: [],
  content: [],
  content_reads: []
};
for (const baseline of baselines) baseline.baseline = true;

/// Nested lists of the same shape as one: how(values) of the numbers at each place, null where no list has one.
function fold(lists, how) {
  if (Array.isArray(lists[0])) return lists[0].map((_, i) => fold(lists.map((list) => list[i]), how));
  const there = lists.filter(known);
  return there.length ? how(there) : null;
}
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const least = (values) => Math.min(...values);
const greatest = (values) => Math.max(...values);

/// In how many of the runs test(at, set) is true, at every step and set.
const countRuns = (all, ablation, test) =>
  all[0].step.map((_, row) => sets.map((__, s) => all.filter((one) => test(values(one, ablation, row), s)).length));

/// The effects of one ablation: means over runs, with their range, and how many runs show what.
function meanEffects(all, ablation) {
  const over = (field, how) => fold(all.map((one) => one.effects[ablation][field]), how);
  const out = {
    lower: over("delta", least),
    upper: over("delta", greatest),
    excess_lower: over("excess", least),
    excess_upper: over("excess", greatest),
    with_effect: countRuns(all, ablation, hasEffect),
    beyond_control: countRuns(all, ablation, exceedsControl),
    within_margin: countRuns(all, ablation, isAbsent)
  };
  for (const field of ["delta", "control", "excess", "kl", "top1", "coverage", "overlap"])
    out[field] = over(field, mean);
  for (const field of ["frozen", "direct"].filter((one) => all.every((run) => run.effects[ablation][one])))
    Object.assign(out,
      {[field]: over(field, mean), [`${field}_lower`]: over(field, least), [`${field}_upper`]: over(field, greatest)});
  return out;
}

function meanProbes(all) {
  const first = all[0];
  const over = (field) => fold(all.map((one) => one[field]), mean);
  return {
    ...first,
    name: `mean of ${all.length} runs`,
    over: all.length,
    nll: over("nll"),
    ...Object.fromEntries(
      Object.values(massKinds).map(({field}) => [field, all.every((one) => one[field]) ? over(field) : null])),
    content: over("content"),
    content_reads: over("content_reads"),
    effects: Object.fromEntries(first.ablations.map((ablation) => [ablation, meanEffects(all, ablation)])),
    dissociation: data.dissociation,
    interactions: data.interactions
  };
}

// ---- masses ----

/// What a mass can be (model/MATH.md, "Masses"): `field` of probes, `routes` of snapshots.
const massKinds = {
  alpha: {name: "weight \u03b1", field: "mass", routes: "alpha"},
  contribution: {name: "contribution", field: "contribution", routes: "contribution"},
  norm_mass: {name: "norm-weighted", field: "norm_mass", routes: "norm_mass"}
};
const chosenMass = () => massKinds[settings.mass];
/// "contribution, lift over step 0": beside the word mass wherever one is shown.
const massKind = () => chosenMass().name + (settings.lift ? ", lift over step 0" : "");
/// Whether masses are those that the findings are about, with their intervals.
const isPlainAlpha = () => settings.mass === "alpha" && !settings.lift;

/// The difference of value(row) from that of step 0, where the reader wants lifts; a baseline is no run and has none.
function lifted(subject, row, value) {
  const own = value(row);
  if (!settings.lift || !known(own)) return own;
  const first = subject.baseline || subject.step[0] !== 0 ? null : value(0);
  return known(first) ? own - first : null;
}
const massOf = (subject, row, s) =>
  lifted(subject, row, (at) => ((subject[chosenMass().field] || [])[at] || [])[s] ?? null);
/// The mass over the reads that the first ablation can change; of weights the findings have it.
function freeMassOf(subject, row, s) {
  const of_alpha = (at) => ((subject.dissociation || [])[at] || {free_mass: []}).free_mass[s] ?? null;
  const of_others = (at) => {
    const own = ((subject[chosenMass().field] || [])[at] || [])[s], line = (subject.free || [])[s];
    return known(own) && line ? own * line[0] + line[1] : null;
  };
  return lifted(subject, row, settings.mass === "alpha" ? of_alpha : of_others);
}
/// Why some results show no mass of the chosen kind; empty where they do.
function missingMass(subject = probes) {
  if (!subject.step.length) return "";
  if (!subject[chosenMass().field]) {
    return `These probes have no ${chosenMass().name} mass: they were made before analysis.h5 2.2. Probe again with ` +
      "another --out.";
  }
  return settings.lift && subject.step[0] !== 0 ? "Step 0 was not probed: there is no lift." : "";
}

/// The values of some results at the chosen step: at("mass", s), or of an ablation at("delta", s). at.subject are these
/// results.
function values(subject = probes, ablation = settings.ablation, row = rowOf(subject)) {
  const effects = subject.effects[ablation] || {};
  const at = (field, s) => {
    if (field === "mass") return massOf(subject, row, s);
    if (field === "free_mass") return freeMassOf(subject, row, s);
    return effects[field] && effects[field][row] ? effects[field][row][s] : null;
  };
  return Object.assign(at, {subject});
}
/// The mass that is compared with effects: of slices the free mass.
const COMPARED = sliced ? "free_mass" : "mass";
const comparedName = () => `${sliced ? "free mass" : "mass"} (${massKind()})`;
const rowOf = (subject) => (subject === probes ? drawn.probe : atOrBefore(subject.step, drawn.step));

/// Shown to have an effect, or to lie within the margin: by the confidence sequence where it decides, else by p values;
/// of a mean, in every run.
function hasEffect(at, s) {
  if (at.subject.over) return at("with_effect", s) === at.subject.over;
  return at.subject.until_decided ? at("decision", s) === 1 : below(at("p", s));
}
function isAbsent(at, s) {
  if (at.subject.over) return at("within_margin", s) === at.subject.over;
  return at.subject.until_decided ? at("decision", s) === 2 : below(at("absent", s));
}
function exceedsControl(at, s) {
  if (at.subject.over) return at("beyond_control", s) === at.subject.over;
  return below(at("excess_p", s)) && at("excess", s) > 0;
}

/// What the tests say of a set, in words.
function finding(at, s) {
  if (!known(at("delta", s))) return "not tested";
  if (at.subject.over) {
    const control = known(at("control", s)) ? `, beyond control in ${at("beyond_control", s)}` : "";
    return `effect in ${at("with_effect", s)} runs${control}, within the margin in ${at("within_margin", s)}`;
  }
  const effect = hasEffect(at, s);
  if (isAbsent(at, s)) return effect ? "within the margin, not zero" : "none: within the margin";
  if (!effect) return "undecided";
  if (at("delta", s) < 0) return "lowers the loss";
  if (exceedsControl(at, s)) return "more than its control of the same weight";
  return known(at("control", s)) ? "not shown beyond its control of the same weight" : "effect";
}

/// What bars and bands of the chosen view are.
const spreadText = () =>
  (probes.over ? `the range over the ${probes.over} runs` : `95\u00a0% intervals over ${probes.sequences} sequences`);

const views = runs.map((run) => ({name: run.name, runs: [run], probes: run.probes || unprobed}));
if (data.pooled_runs > 1)
  views.unshift({name: `mean of ${runs.length} runs`, runs, probes: meanProbes(runs.map((run) => run.probes))});
let view, run, probes, beside;

/// Shows another view. `run` is the one that figures of a single run are of.
function choose(one) {
  view = one;
  run = view.runs[0];
  probes = view.probes;
  const others = runs.filter((other) => other.probes && other.probes !== probes).map((other) => other.probes);
  beside = [...others, ...baselines];
  if (!probes.ablations.includes(settings.ablation)) settings.ablation = probes.ablations[0];
}
choose(views[0]);
const tokensOf = (step) => step * run.tokens_per_step;
/// " Shown: the run study-1.": which run a figure of one run is of, where there are several.
const ofRun = (one = run) => (runs.length > 1 ? ` Shown: the run ${one.name}.` : "");

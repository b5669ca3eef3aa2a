"""The findings of a record or a study once more: what was learned, motifs, contests, tau, idle slices; see recompute.py.

Values of single sequences are where all of it comes from: [run][row] effects, controls and masses of the 18 slices. Onsets are fitted to
the curves; their intervals, and those of a single run's motifs, are percentiles of resamples and are compared within the error of these.
"""

import functools
import json
import math

import numpy as np

import own_statistics as again

MARGIN_OF_TIES, APPRECIABLE, IDLE_SHARE = 0.02, 0.1, 0.8
MOTIFS = {"embedding_early_mlp": ("embedding.mlp.early",), "current_early": ("current.attn.early", "current.mlp.early"),
          "history_late_attn": ("history.attn.late",)}
RESAMPLES = 2000


@functools.lru_cache
def two_sided(freedom):
    """ln(2 p) and the t of it, on a grid that is fine beside the tolerance of p values."""
    logs = np.linspace(math.log(1e-13), 0, 500)
    return logs, np.array([again.t_quantile(1 - 0.5 * math.exp(log), freedom) for log in logs])


class TwoWay:
    """A mean over runs and documents, both drawn (values [run, document]); one run: over documents alone."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.runs, self.documents = self.values.shape
        self.mean = self.values.mean()
        by_run, by_document = self.values.mean(axis=1), self.values.mean(axis=0)
        self.of_documents = by_document.var(ddof=1) / self.documents
        self.of_runs = self.of_both = 0.0
        if self.runs > 1:
            self.of_runs = by_run.var(ddof=1) / self.runs
            rest = self.values - by_run[:, None] - by_document + self.mean
            self.of_both = (rest ** 2).sum() / ((self.runs - 1) * (self.documents - 1)) / self.values.size

    def half_width(self, level=again.LEVEL):
        square = lambda n: again.t_quantile(0.5 + 0.5 * level, n - 1) ** 2
        runs = square(self.runs) * self.of_runs if self.runs > 1 else 0.0
        return math.sqrt(runs + square(self.documents) * max(0.0, self.of_documents - self.of_both))

    def interval(self):
        """Its ends, and how exactly the quantile of t is known."""
        half = self.half_width()
        return [self.mean - half, self.mean + half], 1e-6 * half

    def p_above(self, threshold=0.0):
        if not np.isfinite(self.values).all():
            return math.nan
        of_documents = again.p_above(self.values.mean(axis=0), threshold)
        if self.runs == 1:
            return of_documents
        beyond, low, high = self.mean - threshold, math.log(1e-13), 0.0
        t = lambda n, log: np.interp(log, *two_sided(n - 1))
        width = lambda log: math.sqrt(t(self.runs, log) ** 2 * self.of_runs
                                      + t(self.documents, log) ** 2 * max(0.0, self.of_documents - self.of_both))
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if not width(middle) < abs(beyond) else (low, middle)
        tail = 0.5 * math.exp(0.5 * (low + high))
        return max(tail if beyond > 0 else 1 - tail, of_documents)


def percentiles(resampled, freedom):
    ends = np.sort(resampled[~np.isnan(resampled)])
    if not len(ends):
        return np.full(2, np.nan)
    wide = again.t_quantile(0.5 + 0.5 * again.LEVEL, freedom)
    reached = min(wide, -again.normal.inv_cdf(min(0.4, 10 / (len(ends) + 1))))
    at = lambda p: np.interp(p * (len(ends) + 1) - 1, np.arange(len(ends)), ends)
    middle = at(0.5)
    return np.array([middle + wide / reached * (at(again.normal.cdf(side * reached)) - middle) for side in (-1, 1)])


def tau(a, b, groups):
    """Kendall's over pairs of one group, its bounds by the orders that tests show, and the exact p value of permutations."""
    pairs = [(i, j) for i in range(len(a)) for j in range(i) if groups[i] == groups[j]]
    if not pairs:
        return math.nan, [math.nan] * 2, math.nan, 0.0
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    observed = sum(np.sign(mean_a[i] - mean_a[j]) * np.sign(mean_b[i] - mean_b[j]) for i, j in pairs)
    level = (1 - again.LEVEL) / (2 * len(pairs))

    def known(values):
        side = 1 if values.mean() >= 0 else -1
        return side if again.p_above(side * values) < 0.5 * level else 0

    signs = [known(a[i] - a[j]) * known(b[i] - b[j]) for i, j in pairs]
    bounds = [(2 * signs.count(1) - len(pairs)) / len(pairs), (len(pairs) - 2 * signs.count(-1)) / len(pairs)]
    chance = np.array([1.0])  # of so many discordant pairs
    for label in set(groups):
        for size in range(2, groups.count(label) + 1):
            chance = np.convolve(chance, np.full(size, 1 / size))
    far = np.abs(len(pairs) - 2 * np.arange(len(chance))) >= abs(observed)
    ties = sum(abs(of[i] - of[j]) < 1e-6 for of in (mean_a, mean_b) for i, j in pairs)  # as far as rounded values tell
    return observed / len(pairs), bounds, min(1.0, chance[far].sum()), 2 * ties / len(pairs)


class Findings:
    """Of some runs: one, or all of a study. `place`: where the file keeps them."""

    def __init__(self, file, place, runs, compared, compare):
        self.file, self.place, self.compared = file, place, compared
        settings = json.loads(file.attrs["settings"])
        self.ablation = settings["ablations"][0]
        self.steps = list(file["step"][:])
        self.names = list(file["slice"].asstr()[:])
        documents = file["probe_document"][:] if "probe_document" in file and file["probe_document"][0] >= 0 else None
        self.units = lambda values: again.by_document(values, documents)
        at = lambda path: [np.asarray(file[path][()] if run is None else file[path][run], float) for run in runs]
        self.at, self.runs, self.check = at, len(runs), compare
        self.effects = at(f"{self.ablation}/delta_nll_sequence")  # [run][row, slice, sequence]
        self.controls = {kind: at(f"{kind}/{self.ablation}/delta_nll_sequence") for kind in ("control", "contribution_control")}
        self.coverage = at(f"{self.ablation}/coverage")[0][-1]
        self.nll = at("intact/nll_sequence")
        self.margin = np.mean([one for one in at("intact/margin")], axis=0)
        self.first = self.steps.index(0) if 0 in self.steps else None
        self.tested = [s for s in range(len(self.names)) if self.coverage[s] > 0]
        self.free = self.free_masses()

    def free_masses(self):
        """{kind: [run][row, slice, sequence]}: held by the reads that the ablation can change."""
        route = self.file["route"][:] if "route" in self.file else None
        layers, reads = json.loads(self.file.attrs["model_config"])["num_hidden_layers"], self.file["read"].asstr()[:]
        out = {}
        for kind, path in (("alpha", "mass_sequence"), ("contribution", "contribution_sequence")):
            masses = self.at(path)
            free = [np.full_like(one, np.nan) for one in masses]
            for s, name in enumerate(self.names):
                _, sublayer, depth = name.split(".")
                of_slice = [r for r, read in enumerate(reads) if read.endswith("." + sublayer)
                            and ("early", "mid", "late")[3 * int(read.split(".")[0]) // layers] == depth]
                if s not in self.tested:
                    continue
                changed = round(self.coverage[s] * len(of_slice))
                holding = sum(self.holds(r, name.split(".")[0], route, s) for r in of_slice)
                for one, mass in zip(free, masses):
                    one[:, s] = (mass[:, s] * len(of_slice) - (holding - changed)) / changed
            out[kind] = free
        return out

    def holds(self, read, family, route, s):
        """Whether a read has a source of the family at all."""
        if route is not None:
            return bool(route[s, read].any())
        means = self.file["alpha_mean"][()].reshape(-1, len(self.file["read"]), len(self.file["source"]))[-1][read]
        sources = self.file["source"].asstr()[:]
        return any(not math.isnan(means[c]) and family == (name if name in ("embedding", "current") else "history")
                   for c, name in enumerate(sources))

    def over(self, values):
        """values(run) [sequence] of every run, as documents."""
        return TwoWay([self.units(values(run)) for run in range(self.runs)])

    def compare(self, path, row, expected, tolerance=0.0):
        parts = path.split("/")
        if parts[0] == "motif" and parts[1] not in MOTIFS and f"{self.place}motif/{parts[1]}" not in self.file:
            return  # is not shown
        self.check(f"{self.place}{path}", row, expected, tolerance)

    def effect(self, run, row, slices):
        return self.effects[run][row][list(slices)].sum(axis=0)

    def excess(self, run, row, slices, kind):
        return (self.effects[run][row] - self.controls[kind][run][row])[list(slices)].sum(axis=0)

    def run_all(self):
        if self.first is None or self.runs > 1 and any(np.isnan(one).any() for one in self.nll):
            self.compared[f"{self.place}findings (left out: no step 0)"] += 1
            return
        self.learned = []
        for row in range(len(self.steps)):
            gain = self.over(lambda run: self.nll[run][self.first] - self.nll[run][row])
            at_first = np.mean([one[self.first].mean(axis=1) for one in self.effects], axis=0)
            by_chance = np.nanmax(np.abs(at_first))
            p = 1.0 if row == self.first else gain.p_above(by_chance)
            self.learned.append(p)
            self.compare("learned/gain", row, gain.mean)
            self.compare("learned/gain_ci", row, *gain.interval())
            self.compare("learned/by_chance", row, by_chance)
            self.compare("learned/p", row, p, 0.02 * p)
            self.check_dissociation(row)
        self.check_motifs()

    def check_dissociation(self, row):
        for kind, end in (("alpha", ""), ("contribution", "_contribution")):
            masses = np.array([self.over(lambda run: self.free[kind][run][row][s]).values.mean(axis=0) for s in self.tested])
            effects = np.array([self.over(lambda run: self.effects[run][row][s]).values.mean(axis=0) for s in self.tested])
            expected = np.full(len(self.names), np.nan)
            expected[self.tested] = masses.mean(axis=1)
            self.compare("dissociation/free_mass" if kind == "alpha" else "dissociation/free_contribution", row, expected)
            for path, groups in (("tau", [0] * len(self.tested)), ("tau_within", [s % 6 for s in self.tested])):
                value, bounds, p, of_ties = tau(masses, effects, groups)
                self.compare(f"dissociation/{path}{end}", row, value, of_ties)
                if of_ties > 0:
                    self.compared[f"{self.place}dissociation/{path} (its bounds left out: ties)"] += 1
                    continue
                self.compare(f"dissociation/{path}{end}_ci", row, bounds)
                self.compare(f"dissociation/{path}_p{end}", row, p, 0.02 * p)
        contests = [self.contest(row, sublayer, families, kind) for sublayer in (0, 1) for families in (False, True)
                    for kind in ("alpha", "contribution")]
        for place, name in enumerate(("heaviest", "strongest", "p")):
            expected = [one[place] for one in contests]
            self.compare(f"dissociation/{name}", row, expected, 0.02 * np.abs(expected) if name == "p" else 0.0)
        self.compare("dissociation/p_adjusted", row, again.holm(np.array([one[2] for one in contests])), 0.01)

    def contest(self, row, sublayer, families, kind):
        items = {}
        for s in self.tested:
            if s // 3 % 2 == sublayer:
                items.setdefault(s // 6 if families else s, []).append(s)
        labels, slices = list(items), list(items.values())
        changed = lambda s: self.coverage[s] * self.reads_of(s)

        def mass(run, item):
            weight = np.array([changed(s) for s in item])
            return (weight[:, None] * self.free[kind][run][row][item]).sum(axis=0) / weight.sum()

        means = [self.over(lambda run, item=item: mass(run, item)).mean for item in slices]
        effects = [np.mean([self.effect(run, row, item).mean() for run in range(self.runs)]) for item in slices]
        top, margin, others = int(np.argmax(means)), self.margin[row], len(slices) - 1
        p = 0.0 if self.learned[row] < 0.05 else 1.0
        for i, mine in enumerate(slices):
            beaten = 1.0
            for j, other in enumerate(slices):
                if i == j:
                    continue
                gap = lambda run, at: self.effect(run, at, other) - self.effect(run, at, mine)
                alone = self.over(lambda run: gap(run, row)).p_above(margin)
                grown = self.over(lambda run: gap(run, row) - gap(run, self.first)).p_above(margin)
                beaten = min(beaten, others * max(alone, grown))
            if i != top:
                lighter = others * self.over(lambda run: mass(run, slices[top]) - mass(run, mine)).p_above(MARGIN_OF_TIES)
                beaten = min(1.0, 2 * min(lighter, beaten))
            p = max(p, beaten)
        return labels[top], labels[int(np.argmax(effects))], p

    def reads_of(self, s):
        layers, (_, sublayer, depth) = json.loads(self.file.attrs["model_config"])["num_hidden_layers"], self.names[s].split(".")
        return sum(read.endswith("." + sublayer) and ("early", "mid", "late")[3 * int(read.split(".")[0]) // layers] == depth
                   for read in self.file["read"].asstr()[:])

    def check_motifs(self):
        """The paper's three; then the other slices, of which the file holds those that are shown."""
        named = [other for of in MOTIFS.values() for other in of]
        others = {name: (name,) for name in self.names if name not in named}
        for family in (MOTIFS, others):
            largest = {}
            for name, of in family.items():
                slices = [s for s in self.tested if self.names[s] in of]
                if slices:
                    largest[name] = [self.check_motif(name, slices, row, family is MOTIFS) for row in range(len(self.steps))]
            for row in range(len(self.steps)):
                for name, p in zip(largest, again.holm(np.array([of[row] for of in largest.values()]))):
                    self.compare(f"motif/{name}/p", row, p, 0.02 * p)

    def check_motif(self, name, slices, row, of_paper):
        margin, p = self.margin[row], []
        curves = {"effect": lambda run, at: self.effect(run, at, slices), "excess": lambda run, at: self.excess(run, at, slices, "control"),
                  "contribution_excess": lambda run, at: self.excess(run, at, slices, "contribution_control")}
        for path, values in curves.items():
            found = self.over(lambda run: values(run, row))
            self.compare(f"motif/{name}/{path}", row, found.mean)
            if self.runs > 1:
                self.compare(f"motif/{name}/{path}_ci", row, *found.interval())
            elif of_paper or f"{self.place}motif/{name}" in self.file:
                units, draws = found.values[0], []
                for _ in range(again.BATCHES):
                    n = len(units)
                    draws.append(percentiles(units[again.random.integers(0, n, (RESAMPLES, n - 1))].mean(axis=1), n - 1))
                error = 8 * np.std(draws, axis=0, ddof=1) * math.sqrt(1 + 1 / again.BATCHES)
                self.compare(f"motif/{name}/{path}_ci", row, np.mean(draws, axis=0), error)
            if path == "effect":
                continue
            p.append(found.p_above(margin))
            self.compare(f"motif/{name}/p_{path}", row, p[-1], 0.02 * p[-1])
        change = []
        for path in ("excess", "contribution_excess"):
            since = self.over(lambda run: curves[path](run, row) - curves[path](run, self.first))
            change.append(since.p_above(margin))
            if path == "excess":
                self.compare(f"motif/{name}/change", row, since.mean)
                self.compare(f"motif/{name}/change_ci", row, *since.interval())
        p.append(1.0 if row == self.first else np.max(change))
        self.compare(f"motif/{name}/p_change", row, p[-1], 0.02 * p[-1])
        named = [other for of in MOTIFS.values() for other in of]
        localised = [self.over(lambda run: self.effects[run][row][s] - self.effects[run][row][other]).p_above(margin)
                     for s in slices for other in self.tested if other % 6 == s % 6 and other != s and self.names[other] not in named]
        if not of_paper:
            return np.max(p + [self.learned[row]])
        if localised:
            p.append(max(1.0 if math.isnan(one) else one for one in localised))
            self.compare(f"motif/{name}/p_localised", row, p[-1], 0.02 * p[-1])
        return np.max(p + [self.learned[row]]) if localised else math.nan

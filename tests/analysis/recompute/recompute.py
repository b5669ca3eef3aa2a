#!/usr/bin/env python3
"""Computes the numbers of an analysis.h5 or a study.h5 again, from its values of single sequences, with code of its own.

    tests/analysis/recompute/recompute.py FILE.h5

Effects, their intervals (BCa, up to the error of resampling), p values (sign flips, up to that of random ones), equivalence, excess
over controls with the error of draws, Holm's adjustments, masses, and that contributions and masses of a read sum to one. Prints how
often each was compared, and ends with status 1 at the first that differs. With `until_decided`: means, confidence sequences and Holm's
adjustments; its p values depend on looks and are counted as left out. It needs numpy and h5py (Debian: python3-h5py).
"""

import argparse
import json
import math
import sys
from collections import Counter
from statistics import NormalDist

import h5py
import numpy as np

LEVEL = 0.95
RESAMPLES = 10000  # of a bootstrap; FLIPS random sign flips above EXACT values
FLIPS, EXACT = 19999, 16
ALLOWANCE = 2  # times the skewness of the sample
BATCHES = 10   # own bootstraps, whose spread is the error of one
normal = NormalDist()
random = np.random.default_rng(1)


class Differs(Exception):
    pass


# --- distributions -----------------------------------------------------------------------------------------------------

def incomplete_beta(a, b, x):
    """Regularised; the continued fraction of Abramowitz & Stegun 26.5.8, evaluated from its end."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    fraction = 1.0
    for m in range(400, 0, -1):
        k, odd = divmod(m, 2)
        d = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1)) if odd else k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        fraction = 1 + d / fraction
    return math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a / fraction


def t_cdf(t, freedom):
    if freedom > 1e7:
        return normal.cdf(t)
    tail = 0.5 * incomplete_beta(0.5 * freedom, 0.5, freedom / (freedom + t * t))
    return tail if t < 0 else 1 - tail


def t_quantile(p, freedom):
    low, high = -1e6, 1e6
    while high - low > 1e-12 * max(1, abs(low)):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if t_cdf(middle, freedom) < p else (low, middle)
        if middle in (low, high) and high - low < 1e-9:
            break
    return 0.5 * (low + high)


# --- statistics --------------------------------------------------------------------------------------------------------

def by_document(values, documents):
    """One value a document, of the same mean and the linearised spread."""
    if documents is None or len(set(documents)) == len(values):
        return values
    labels = list(dict.fromkeys(documents))
    scale = len(labels) / len(values)
    return np.array([values.mean() + scale * (values - values.mean())[documents == label].sum() for label in labels])


def sums_by_document(values, documents):
    """Of the documents that are complete within `values`, which may be the first of more."""
    if documents is None:
        return values
    scale = len(set(documents)) / len(documents)
    ends = [i + 1 for i in range(len(values)) if i + 1 == len(documents) or documents[i + 1] != documents[i]]
    return np.array([scale * values[begin:end].sum() for begin, end in zip([0] + ends, ends)])


def bca(values):
    """The ends of the interval, from BATCHES bootstraps of RESAMPLES each: [batch, bound]."""
    n, centre = len(values), values.mean()
    if n < 2 or not np.isfinite(values).all():
        return np.full((1, 2), np.nan)
    if values.min() == values.max():
        return np.full((1, 2), values[0])
    deviation = values - centre
    acceleration = (deviation ** 3).sum() / (6 * (deviation ** 2).sum() ** 1.5)
    wide = math.sqrt(n / (n - 1)) * t_quantile(0.5 + 0.5 * LEVEL, n - 1)
    ends = []
    for _ in range(BATCHES):
        means = np.sort(values[random.integers(0, n, (RESAMPLES, n))].mean(axis=1))
        tie = 1e-13 * np.abs(values).max()
        share = ((means < centre - tie).sum() + 0.5 * (np.abs(means - centre) <= tie).sum()) / RESAMPLES
        z0 = normal.inv_cdf(min(max(share, 0.5 / RESAMPLES), 1 - 0.5 / RESAMPLES))
        levels = [normal.cdf(z0 + (z0 + z) / max(1 - acceleration * (z0 + z), 0.05)) for z in (-wide, wide)]
        ends.append(np.interp([p * (RESAMPLES + 1) - 1 for p in levels], np.arange(RESAMPLES), means))
    return np.array(ends)


def moments(values):
    deviation = values - values.mean()
    squares = (deviation ** 2).sum()
    n = len(values)
    if values.min() == values.max():
        return 0.0, 0.0
    return math.sqrt(squares / (n - 1) / n), ALLOWANCE * (deviation ** 3).sum() / squares ** 1.5


def hall(t, skew):
    return t + skew * t ** 2 / 3 + skew ** 2 * t ** 3 / 27 + skew / 6


def p_above(values, threshold=0.0):
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    error, skew = moments(values)
    if error == 0:
        return 2.0 ** -len(values) if values[0] > threshold else 1.0
    t = (values.mean() - threshold) / error
    return t_cdf(-min(t, hall(t, skew)), len(values) - 1)


def sign_flips(values):
    """The p value, and six standard errors of the difference from another one."""
    n = len(values)
    exact = n <= EXACT
    count = 2 ** n if exact else 5 * FLIPS
    signs = (np.arange(count)[:, None] >> np.arange(n) & 1 if exact else random.integers(0, 2, (count, n))) * 2 - 1
    least = abs(values.sum()) - (n + 1) * np.finfo(float).eps * np.abs(values).sum()
    extreme = (np.abs(signs @ values) >= least).sum()
    if exact:
        return extreme / count, 1e-12
    p = (extreme + 1) / (count + 1)
    return p, 6 * math.sqrt(p * (1 - p) * (1 / count + 1 / FLIPS)) + 6 / FLIPS


def holm(p_values):
    out, running = np.full(len(p_values), np.nan), 0.0
    tested = [i for i in np.argsort(p_values, kind="stable") if not np.isnan(p_values[i])]
    for rank, i in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p_values[i]))
        out[i] = running
    return out


def confidence_sequence(values, scale=0.7, least=16):
    n = len(values)
    if n < least:
        return np.array([-np.inf, np.inf])
    error, skew = moments(values)
    widening = 1 + n * scale ** 2
    bound = math.exp(2 / n * (math.log(1 / (1 - LEVEL)) + 0.5 * math.log(widening)))
    if error == 0:
        return np.full(2, values[0])
    if bound >= widening:
        return np.array([-np.inf, np.inf])
    t = math.sqrt((n - 1) * (bound - 1) / (1 - bound / widening))
    inverse = lambda at: at if abs(skew) < 1e-9 else 3 / skew * (np.cbrt(1 + skew * (at - skew / 6)) - 1)
    return values.mean() + error * np.array([-max(t, inverse(t)), max(t, -inverse(-t))])


# --- the file ----------------------------------------------------------------------------------------------------------

class Row:
    """One step of one run. Numbers of study.h5 are rounded to float32, and p values follow with less."""

    def __init__(self, file, run, step, compared):
        self.file, self.run, self.step, self.compared = file, run, step, compared
        self.exact = run is None
        self.name = f"step {file['step'][step]}" + ("" if run is None else f" of {file['run'].asstr()[run]}")

    def has(self, path):
        return path in self.file

    def get(self, path):
        data = self.file[path]
        return np.asarray(data[self.step] if self.run is None else data[self.run, self.step], dtype=float)

    def compare(self, path, expected, tolerance=0.0, at=""):
        """`path`: a dataset, or (its path, the value found)."""
        path, found = path if isinstance(path, tuple) else (path, self.get(path))
        found, expected = np.asarray(found, float), np.asarray(expected, float)
        allowed = tolerance + (1e-9 if self.exact else 2e-4) * np.abs(expected) + (1e-12 if self.exact else 1e-6)
        both_nan = np.isnan(found) & np.isnan(expected)
        with np.errstate(invalid="ignore"):
            wrong = ~(both_nan | (found == expected) | (np.abs(found - expected) <= allowed))
        self.compared[path] += found.size
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise Differs(f"{path}, {self.name}{at}{f', index {list(where)}' if where else ''}: found {found[where]:.9g}, "
                          f"expected {expected[where]:.9g}")


class Inference:
    """What the attributes of a group say about how its intervals and tests are made."""

    def __init__(self, file, group):
        attributes = file[group].attrs
        settings = json.loads(file.attrs["settings"])
        self.until_decided = settings["until_decided"]
        self.documents = None
        if "documents" in attributes["interval"] and "probe_document" in file and file["probe_document"][0] >= 0:
            self.documents = file["probe_document"][:]
        self.t_tests = "t tests" in attributes.get("test", "")
        self.margin = None if "margin_unit" in attributes else attributes.get("margin")

    def units(self, values):
        return (sums_by_document if self.until_decided else by_document)(values, self.documents)

    def interval(self, row, path, s, values):
        found = row.get(path)[s]
        at, units = f", set {s}", self.units(values)
        ends = confidence_sequence(units)[None] if self.until_decided else bca(units)
        centre = ends.mean(axis=0)
        error = 8 * ends.std(axis=0, ddof=1) * math.sqrt(1 + 1 / len(ends)) if len(ends) > 1 else 0.0
        row.compare((path, found), centre, error, at)


def check_effects(row, group):
    said = Inference(row.file, group)
    sequences = row.get(f"{group}/delta_nll_sequence")
    used, coverage = row.get(f"{group}/sequences_used"), row.get(f"{group}/coverage")
    margin = float(row.get("intact/margin")) if said.margin is None else said.margin
    for s in range(len(sequences)):
        at = f", set {s}"
        value = lambda name: (f"{group}/{name}", row.get(f"{group}/{name}")[s])
        if not coverage[s] > 0:
            for name in ("delta_nll", "delta_nll_ci", "p_value", "p_adjusted", "p_equivalence"):
                row.compare(value(name), np.full_like(value(name)[1], np.nan), 0, at)
            continue
        values = sequences[s][:int(used[s])]
        row.compare(value("delta_nll"), values.mean(), 0, at)
        row.compare((f"{group}/delta_nll_sequence", sequences[s][int(used[s]):]), np.full(len(sequences[s]) - int(used[s]), np.nan), 0, at)
        said.interval(row, f"{group}/delta_nll_ci", s, values)
        if said.until_decided:
            row.compared[f"{group}/p_value (left out)"] += 1
            continue
        p, error = sign_flips(said.units(values))
        row.compare(value("p_value"), p, error, at)
        units = said.units(values)
        if tuple(row.file.attrs["version"]) >= (2, 3) or not row.exact:
            row.compare(value("p_equivalence"), max(p_above(units, -margin), p_above(-units, -margin)), 1e-9, at)
        else:  # its correction for skewness was another
            row.compared[f"{group}/p_equivalence (left out)"] += 1
    for name in ("p_value", "p_equivalence"):
        adjusted = {"p_value": "p_adjusted"}.get(name, name + "_adjusted")
        row.compare(f"{group}/{adjusted}", holm(row.get(f"{group}/{name}")))


def check_controls(row, group, effects):
    said = Inference(row.file, group)
    controls, sequences = row.get(f"{group}/delta_nll_sequence"), row.get(f"{effects}/delta_nll_sequence")
    used = row.get(f"{effects}/sequences_used")
    for s in range(len(sequences)):
        at = f", set {s}"
        value = lambda name: (f"{group}/{name}", row.get(f"{group}/{name}")[s])
        if np.isnan(controls[s]).all():
            row.compare(value("excess"), np.nan, 0, at)
            continue
        n = int(used[s])
        excess = sequences[s][:n] - controls[s][:n]
        row.compare(value("delta_nll"), controls[s][:n].mean(), 0, at)
        row.compare(value("excess"), excess.mean(), 0, at)
        said.interval(row, f"{group}/excess_ci", s, excess)
        units = said.units(excess)
        if said.until_decided:
            row.compared[f"{group}/excess_p (left out)"] += 1
        elif said.t_tests:
            two_sided = 2 * min(p_above(units, 0), p_above(-units, 0))
            row.compare(value("excess_p"), min(1.0, two_sided), 1e-9, at)
        else:
            row.compare(value("excess_p"), *sign_flips(units), at)
    row.compare(f"{group}/excess_p_adjusted", holm(row.get(f"{group}/excess_p")))


def check_masses(row, layers):
    slices = "family" in row.file
    reads = row.file["read"].asstr()[:]
    for kind in ("", "contribution", "norm_mass"):
        prefix = kind or "mass"
        by_route = f"{kind}_mean" if kind else "alpha_mean"
        if not row.has(by_route):
            continue
        routes, of_set = row.get(by_route), row.get(prefix)
        row.compare((f"sum of {by_route}", np.nansum(routes, axis=1)), np.ones(len(reads)), 1e-5)
        if row.has(f"{prefix}_sequence"):
            row.compare(prefix, row.get(f"{prefix}_sequence").mean(axis=1), 1e-7)
        if not slices:
            continue
        labels = [row.file[name].asstr()[:] for name in ("family", "sublayer", "depth")]
        sources = row.file["source"].asstr()[:]
        expected = []
        for family, sublayer, depth in zip(*labels):
            rows = [r for r, name in enumerate(reads) if name.endswith("." + sublayer)
                    and ("early", "mid", "late")[3 * int(name.split(".")[0]) // layers] == depth]
            columns = [c for c, name in enumerate(sources) if family == (name if name in ("embedding", "current") else "history")]
            expected.append(np.nansum(routes[np.ix_(rows, columns)]) / len(rows) if rows else np.nan)
        row.compare((prefix, of_set), expected, 1e-6)


def check_row(row, settings, layers):
    check_masses(row, layers)
    if row.has("intact/nll_sequence"):
        row.compare("intact/nll", row.get("intact/nll_sequence").mean())
    if row.has("intact/margin"):
        row.compare("intact/margin", settings["margin"] * max(float(row.get("intact/reference_nll") - row.get("intact/nll")), 0.0))
    for ablation in settings["ablations"]:
        check_effects(row, ablation)
        for kind in ("control", "contribution_control"):
            if row.has(f"{kind}/{ablation}"):
                check_controls(row, f"{kind}/{ablation}", ablation)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    path = parser.parse_args().file
    compared = Counter()
    try:
        with h5py.File(path) as file:
            filetype = file.attrs.get("filetype", "none")
            if filetype not in ("routescope analysis", "routescope study"):
                raise Differs(f"filetype: found {filetype}, expected routescope analysis or routescope study")
            settings = json.loads(file.attrs["settings"])
            layers = json.loads(file.attrs["model_config"])["num_hidden_layers"]
            runs = [None] if filetype == "routescope analysis" else range(len(file["run"]))
            if runs != [None] and f"{settings['ablations'][0]}/delta_nll_sequence" not in file:
                raise Differs("the study has no values of sequences: nothing can be computed again")
            for run in runs:
                for step in range(len(file["step"])):
                    check_row(Row(file, run, step, compared), settings, layers)
    except (Differs, OSError, KeyError) as error:
        sys.exit(f"{path}: error: {error}")
    for name, count in sorted(compared.items()):
        print(f"{count:8d}  {name}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Computes the numbers of an analysis.h5 or a study.h5 again, from its values of single sequences, with code of its own.

    tests/analysis/recompute/recompute.py FILE.h5

Effects, their intervals (BCa, up to the error of resampling), p values (sign flips, up to that of random ones), equivalence, excess
over controls, Holm's adjustments, masses, that contributions and masses of a read sum to one, and the findings of single runs and of all
(what was learned, motifs, contests, tau; onsets and idle slices are left out). Prints how often each was compared, and ends with status 1 at the first that differs. With `until_decided`: means, confidence sequences and Holm's
adjustments; its p values depend on looks and are counted as left out. It needs numpy and h5py (Debian: python3-h5py).
"""

import argparse
import json
import math
import sys
from collections import Counter

import h5py
import numpy as np

from findings import Findings
from own_statistics import bca, by_document, confidence_sequence, holm, p_above, sign_flips, sums_by_document

class Differs(Exception):
    pass


# --- the file ----------------------------------------------------------------------------------------------------------

class Row:
    """One step of one run. Numbers of study.h5 are rounded to float32, and p values follow with less."""

    def __init__(self, file, run, step, compared):
        self.file, self.run, self.step, self.compared = file, run, step, compared
        self.exact = run is None
        self.name = f"step {file['step'][step]}" + ("" if run is None else f" of {file['run'].asstr()[run]}")

    def has(self, path):
        return path in self.file

    def rounded(self, p):
        """How far a p value may be off: those of small differences of rounded numbers most."""
        return 1e-9 if self.exact else 0.01 * p

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
            p = max(p_above(units, -margin), p_above(-units, -margin))
            row.compare(value("p_equivalence"), p, row.rounded(p), at)
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
            row.compare(value("excess_p"), min(1.0, two_sided), row.rounded(two_sided), at)
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


def check_findings(file, runs, settings, compared):
    """Of the 18 slices with controls and step 0; with early decisions there are none."""
    version = tuple(file.attrs["version"])
    study = runs != [None]
    if settings["until_decided"] or not settings["controls"] or "family" not in file or version < ((2, 0) if study else (3, 0)):
        return
    places = [("", runs)] if not study else [("pooled/", list(runs))] + [
        (f"runs/{file['run'].asstr()[run]}/", [run]) for run in runs]
    for place, of in places:
        def compare(path, row, expected, tolerance):
            if path not in file:
                raise Differs(f"{path}: not there")
            at = Row(file, None, row, compared)
            at.exact = not study
            at.compare(path, expected, tolerance)
        Findings(file, place, of, compared, compare).run_all()


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
            check_findings(file, runs, settings, compared)
    except (Differs, OSError, KeyError) as error:
        sys.exit(f"{path}: error: {error}")
    for name, count in sorted(compared.items()):
        print(f"{count:8d}  {name}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Figures for papers from analysis.h5, or from the study.h5 of several runs.

    figures.py --analysis F.h5 [F2.h5 ...] --out DIR [--format pdf,svg]

Writes DIR/emergence, plane, slices, atlas and content in each format, and DIR/captions.md, whose captions say what was measured
in the files' own words (data/formats/analysis.md, study.md). Several files are several runs of one configuration: thin lines
are runs, thick ones their mean, bands their range; one file's bands are its 95 % intervals, a study's those of its pooled runs.
A figure whose groups are not there is left out, and a line says so. The same files give the same bytes.
Needs the Python packages h5py, numpy and matplotlib.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import textwrap
from pathlib import Path

try:
    import h5py
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import SymLogNorm
    from matplotlib.lines import Line2D
except ImportError as missing:
    sys.exit(f"figures.py: error: needs the Python package {missing.name} (apt-get install python3-h5py python3-matplotlib)")

# In this order; others follow.
ABLATIONS = ("mask", "zero", "mean", "resample", "freeze", "patch")
# Okabe and Ito's colours: told apart with every kind of colour vision.
FAMILY = {"embedding": "#e69f00", "history": "#0072b2", "current": "#009e73"}
SUBLAYER = {"attn": "o", "mlp": "s"}
DEPTH = {"early": 14, "mid": 30, "late": 54}  # areas in points^2
EFFECT, CONTROL, MASS = "#d55e00", "#7b848e", "#0072b2"
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6, "lines.linewidth": 1.2, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "figure.constrained_layout.use": True,
    "pdf.fonttype": 42, "svg.hashsalt": "routescope", "svg.fonttype": "none",
}


class InputError(Exception):
    """Bad input, in one line: the file, what was found, what was expected."""


class Missing(Exception):
    """What a figure needs and a file does not have."""


# ---- reading ---------------------------------------------------------------------------------------------------------


def text_of(value):
    return value.decode() if isinstance(value, bytes) else str(value)


class Results:
    """The results of one run, or of several pooled: an analysis.h5, or a part of a study.h5."""

    def __init__(self, file, name, prefix="", run=None):
        self.file, self.name, self.prefix, self.run = file, name, prefix, run

    def at(self, path):
        """Where it is: findings of a study's run have a group of their own."""
        own = f"runs/{self.name}/{path}"
        return own if self.run is not None and own in self.file else self.prefix + path

    def __contains__(self, path):
        return self.at(path) in self.file

    def node(self, path):
        if path not in self:
            raise Missing(f"{self.file.filename}: no /{self.at(path)}")
        return self.file[self.at(path)]

    def get(self, path):
        data = self.node(path)
        # The first axis of what a study's runs measured are the runs.
        measured = self.run is not None and self.at(path) == path
        return np.asarray(data[self.run] if measured else data[()], dtype=float)

    def labels(self, path):
        if path not in self.file:
            raise Missing(f"{self.file.filename}: no /{path}")
        return [text_of(value) for value in self.file[path][()]]

    def groups(self, path):
        return list(self.node(path)) if path in self else []

    def steps(self, path="step"):
        if path not in self.file:
            path = "step"
        return self.file[path][()].astype(float)

    def ablations(self):
        present = [name for name in self.file if f"{name}/delta_nll" in self.file]
        found = [name for name in ABLATIONS if name in present] + [name for name in present if name not in ABLATIONS]
        if not found:
            raise Missing(f"{self.file.filename}: no ablation")
        return found


def open_results(names):
    """[runs], pooled or None."""
    runs, pooled = [], None
    for name in names:
        try:
            file = h5py.File(name, "r")
        except OSError as error:
            raise InputError(f"{name}: cannot be read as HDF5: {str(error).splitlines()[0]}") from None
        kind = text_of(file.attrs.get("filetype", ""))
        if kind == "routescope analysis":
            runs.append(Results(file, Path(name).resolve().parent.name or Path(name).stem))
        elif kind == "routescope study":
            if len(names) > 1:
                raise InputError(f"{name}: a study holds all its runs, expected it alone")
            runs = [Results(file, text_of(run), run=i) for i, run in enumerate(file["run"][()])]
            pooled = Results(file, "pooled", prefix="pooled/")
        else:
            raise InputError(f"{name}: filetype: found '{kind}', expected 'routescope analysis' or 'routescope study'")
    steps = runs[0].steps()
    for run in runs[1:]:
        if run.labels("slice") != runs[0].labels("slice"):
            raise InputError(f"{run.file.filename}: found other sets of routes than in {runs[0].file.filename}, expected the same")
        if not np.array_equal(run.steps(), steps):
            raise InputError(f"{run.file.filename}: found other steps than in {runs[0].file.filename}, expected the same "
                             "(routescope-analyze compare takes those that all have)")
    return runs, pooled


# ---- captions --------------------------------------------------------------------------------------------------------


def estimand(results, path):
    """What the file says of a group: one sentence a line of its attributes."""
    attributes = results.node(path).attrs
    said = [("Intervention", "intervention"), ("Metric", "metric"), ("Unit", "unit"), ("Inputs", "input_distribution"),
            ("Sequences", "n"), ("Intervals", "interval"), ("Seed", "seed")]
    return " ".join(f"{title}: {text_of(attributes[key])}." for title, key in said if key in attributes)


def bands_say(runs, pooled):
    if pooled:
        return f"Thin lines: the {len(runs)} runs. Thick lines and bands: pooled over runs, with 95 % intervals."
    if len(runs) > 1:
        return f"Thin lines: the {len(runs)} runs. Thick lines: their mean. Bands: their range."
    return "Bands: 95 % intervals."


# ---- drawing ---------------------------------------------------------------------------------------------------------


def step_axis(axes, steps):
    """Training steps from 0 on a logarithmic axis: ln(1 + step)."""
    axes.set_xscale("function", functions=(np.log1p, np.expm1))
    last = max(steps[-1], 1)
    ticks = [0] + [10**k for k in range(int(np.log10(last)) + 1)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(0, last)
    axes.set_xlabel("training step")


def curve(axes, runs, pooled, path, colour, label, style="-"):
    """A quantity over steps, with what there is to say of its spread."""
    steps = runs[0].steps()
    values = [run.get(path) for run in runs if path in run]
    if not values:
        raise Missing(f"{runs[0].file.filename}: no /{path}")
    one = pooled or (runs[0] if len(runs) == 1 else None)
    if one:
        middle, interval = one.get(path), one.get(path + "_ci") if path + "_ci" in one else None
        low, high = (interval[:, 0], interval[:, 1]) if interval is not None else (middle, middle)
    else:
        middle, low, high = (function(values, axis=0) for function in (np.mean, np.min, np.max))
    if len(runs) > 1:
        for value in values:
            axes.plot(steps, value, style, color=colour, linewidth=0.5, alpha=0.5)
    axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(steps, middle, style, color=colour, label=label, linewidth=1.5)


def onset_mark(axes, results, path, height, colour, marker):
    """An onset with its interval, in the band below the curves. Nothing where there is none."""
    if path not in results:
        return
    value = float(results.get(path))
    if not np.isfinite(value):
        return
    low, high = results.get(path + "_ci") if path + "_ci" in results else (value, value)
    right = axes.get_xlim()[1]
    low, high = (value if np.isnan(low) else low), (value if np.isnan(high) else min(high, right))
    transform = axes.get_xaxis_transform()
    axes.plot([low, high], [height, height], color=colour, linewidth=1.2, transform=transform, clip_on=False)
    axes.plot([value], [height], marker=marker, markersize=4, color=colour, transform=transform, clip_on=False)


def emergence(runs, pooled):
    """Effect and control of each of the paper's motifs over steps, with onsets."""
    whole = pooled or runs[0]
    names = [name for name in whole.groups("motif") if whole.node(f"motif/{name}").attrs.get("of_paper", 0) == 1]
    names.sort(key=lambda name: ("embedding", "current", "history").index(name.split("_")[0]))
    if not names:
        raise Missing(f"{whole.file.filename}: no /motif")
    figure, row = plt.subplots(1, len(names), figsize=(2.3 * len(names), 2.5), sharey=True, squeeze=False)
    for axes, name in zip(row[0], names):
        curve(axes, runs, pooled, f"motif/{name}/effect", EFFECT, "effect")
        curve(axes, runs, pooled, f"motif/{name}/control", CONTROL, "matched control", "--")
        axes.axhline(0, color="black", linewidth=0.5)
        step_axis(axes, runs[0].steps())
        axes.set_title(name.replace("_", " "))
        axes.margins(y=0.12)
        for results in [pooled] if pooled else runs:
            onset_mark(axes, results, f"motif/{name}/onset", 0.06, EFFECT, "^")
            onset_mark(axes, results, f"motif/{name}/mass_onset", 0.01, MASS, "s")
    row[0][0].set_ylabel("Δ nll (nats/token)")
    handles, labels = row[0][0].get_legend_handles_labels()
    handles += [Line2D([], [], color=EFFECT, marker="^", linestyle="", markersize=4),
                Line2D([], [], color=MASS, marker="s", linestyle="", markersize=4)]
    figure.legend(handles, labels + ["onset by cause", "onset by mass"], loc="upper center", bbox_to_anchor=(0.5, 0), ncol=4)
    caption = (f"Emergence of the motifs: effect of the ablation '{runs[0].ablations()[0]}' on each motif's slices (orange) beside "
               f"its mass-matched control (grey). {bands_say(runs, pooled)} Onsets with 95 % intervals at the bottom. ")
    return figure, caption + estimand(whole, f"motif/{names[0]}")


def plane(runs, _):
    """Free mass against effect of the slices at the last step."""
    ablation = runs[0].ablations()[0]
    if "family" not in runs[0].file:
        raise Missing(f"{runs[0].file.filename}: its sets are not the 18 slices")
    # Files from before analysis.h5 2.1 have the mass over all reads alone.
    free = all("dissociation/free_mass" in run for run in runs)
    mass = np.array([run.get("dissociation/free_mass" if free else "mass")[-1] for run in runs])
    effect = np.array([run.get(f"{ablation}/delta_nll")[-1] for run in runs])
    labels = zip(*(runs[0].labels(name) for name in ("slice", "family", "sublayer", "depth")))
    figure, axes = plt.subplots(figsize=(4.6, 3.2))
    axes.axhline(0, color="black", linewidth=0.5)
    for s, (_name, family, sublayer, depth) in enumerate(labels):
        if np.isnan(effect[:, s]).all():
            continue
        x, y = mass[:, s].mean(), np.nanmean(effect[:, s])
        if len(runs) == 1:
            low, high = runs[0].get(f"{ablation}/delta_nll_ci")[-1, s]
            axes.plot([x, x], [low, high], color=FAMILY[family], linewidth=0.7)
        for one_x, one_y in zip(mass[:, s], effect[:, s]):
            axes.plot([x, one_x], [y, one_y], color=FAMILY[family], linewidth=0.5, alpha=0.6)
        axes.scatter(x, y, s=DEPTH[depth], marker=SUBLAYER[sublayer], color=FAMILY[family], edgecolors="white",
                     linewidths=0.5, zorder=3)
    axes.set_xlabel("free mass" if free else "mass over all reads")
    axes.set_ylabel(f"Δ nll of '{ablation}' (nats/token)")
    axes.set_xlim(left=0)
    handles = [Line2D([], [], color=colour, marker="o", linestyle="", label=name) for name, colour in FAMILY.items()]
    handles += [Line2D([], [], color="0.3", marker=marker, linestyle="", label=name, markersize=5)
                for name, marker in SUBLAYER.items()]
    handles += [Line2D([], [], color="0.3", marker="o", linestyle="", label=name, markersize=area**0.5)
                for name, area in DEPTH.items()]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1))
    spread = "lines: 95 % intervals" if len(runs) == 1 else f"marks: mean over {len(runs)} runs, with a line to each"
    what = "Free mass (the mean weight where the ablation can change it)" if free else "Mass over all reads"
    caption = f"{what} and causal effect of the 18 slices at step {runs[0].steps()[-1]:.0f} ({spread}). "
    return figure, caption + estimand(runs[0], ablation)


def slices(runs, _):
    """Every ablation of every slice at the last step: mean over runs."""
    ablations, names = runs[0].ablations(), runs[0].labels("slice")
    values = np.array([np.mean([run.get(f"{name}/delta_nll")[-1] for run in runs], axis=0) for name in ablations]).T
    if not np.isfinite(values).any():
        raise Missing(f"{runs[0].file.filename}: no effect at the last step")
    figure, axes = plt.subplots(figsize=(1.9 + 0.62 * len(ablations), 0.6 + 0.19 * len(names)))
    largest = max(np.nanmax(np.abs(values)), 1e-12)
    norm = SymLogNorm(linthresh=largest / 100, vmin=-largest, vmax=largest)
    image = axes.imshow(np.ma.masked_invalid(values), cmap="PuOr_r", norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = np.isfinite(value) and abs(norm(value) - 0.5) > 0.33
        axes.text(column, row, f"{value:+.3f}" if np.isfinite(value) else "–", ha="center", va="center", fontsize=6,
                  color="white" if dark else "black")
    axes.set_xticks(range(len(ablations)), ablations)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="Δ nll (nats/token)")
    caption = f"Effect of every ablation of every set at step {runs[0].steps()[-1]:.0f}, mean over {len(runs)} run(s); symmetric logarithmic shades. "
    return figure, caption + " ".join(text_of(runs[0].node(name).attrs.get("intervention", name)) + "." for name in ablations)


def atlas(runs, _):
    """Estimated effect of every route, and what masking some of them really does."""
    estimates = np.mean([run.get("atlas/estimate")[-1] for run in runs], axis=0)
    if not np.isfinite(estimates).any():
        raise Missing(f"{runs[0].file.filename}: no atlas with estimates at the last step of every run")
    reads, sources = runs[0].labels("read"), runs[0].labels("source")
    figure, (map_axes, check_axes) = plt.subplots(1, 2, figsize=(6.9, 2.6), width_ratios=(2.3, 1))
    largest = max(np.nanmax(np.abs(estimates)), 1e-12)
    image = map_axes.imshow(np.ma.masked_invalid(estimates.T), cmap="PuOr_r", aspect="auto",
                            norm=SymLogNorm(linthresh=largest / 100, vmin=-largest, vmax=largest))
    map_axes.set_facecolor("0.93")
    map_axes.set_xticks(range(len(reads)), reads, rotation=90, fontsize=5.5)
    map_axes.set_yticks(range(len(sources)), sources)
    map_axes.tick_params(length=0)
    figure.colorbar(image, ax=map_axes, label="estimated Δ nll (nats/token)")
    correlations = []
    for run in runs:
        read, source = run.get("atlas/checked_read")[-1].astype(int), run.get("atlas/checked_source")[-1].astype(int)
        there = read >= 0
        estimate, truth = run.get("atlas/estimate")[-1][read[there], source[there]], run.get("atlas/true_effect")[-1][there]
        drawn = run.get("atlas/checked_by")[-1][there] == 0
        colour = check_axes.plot(truth[drawn], estimate[drawn], "o", markersize=2.5, alpha=0.7)[0].get_color()
        check_axes.plot(truth[~drawn], estimate[~drawn], "o", markersize=2.5, alpha=0.7, color=colour, fillstyle="none")
        correlations.append(f"{float(run.get('atlas/rank_correlation')[-1]):.2f}")
    low, high = np.array([check_axes.get_xlim(), check_axes.get_ylim()]).T
    diagonal = [min(low), max(high)]
    check_axes.plot(diagonal, diagonal, color="black", linewidth=0.5, zorder=0)
    for set_scale in (check_axes.set_xscale, check_axes.set_yscale):
        set_scale("symlog", linthresh=largest / 100)
    for axis in (check_axes.xaxis, check_axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.SymmetricalLogLocator(base=10, linthresh=largest / 100))
    check_axes.tick_params(axis="x", rotation=90)
    check_axes.set_xlabel("true Δ nll")
    check_axes.set_ylabel("estimated Δ nll")
    caption = (f"Left: estimated effect of masking every single route at step {runs[0].steps('atlas/step')[-1]:.0f}, mean over {len(runs)} "
               f"run(s). Right: the estimate against true ablations of routes drawn at random (filled; rank correlation {', '.join(correlations)}) and of the strongest "
               f"(hollow), a colour a run. ")
    return figure, caption + estimand(runs[0], "atlas")


def content(runs, pooled):
    """How much of the routing depends on content, over steps."""
    figure, axes = plt.subplots(figsize=(3.4, 2.3))
    curve(axes, runs, pooled if pooled and "content/mean_share" in pooled else None, "content/mean_share", "#009e73", "share")
    step_axis(axes, runs[0].steps())
    axes.set_ylabel("variance of α between tokens (share)")
    axes.set_ylim(bottom=0)
    caption = f"Content dependence of the routing. {bands_say(runs, pooled) if len(runs) > 1 else ''} "
    return figure, caption + estimand(runs[0], "content")


FIGURES = {function.__name__: function for function in (emergence, plane, slices, atlas, content)}


# ---- the whole -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def complete_or_absent(final):
    """The path to write `final` under, in a new directory that only this process knows."""
    with tempfile.TemporaryDirectory(prefix=".figures-", dir=final.parent) as place:
        yield Path(place) / final.name
        os.replace(Path(place) / final.name, final)
    print(final)


def save(figure, directory, name, formats):
    for kind in formats:
        with complete_or_absent(directory / f"{name}.{kind}") as partial:
            figure.savefig(partial, format=kind, bbox_inches="tight", metadata={"CreationDate": None} if kind == "pdf" else {"Date": None} if kind == "svg" else None)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--analysis", required=True, nargs="+", metavar="F.h5", help="analysis.h5 of one or more runs, or a study.h5")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--format", default="pdf,svg", metavar="LIST", help="of pdf, svg and png (default: pdf,svg)")
    args = parser.parse_args()
    formats = args.format.split(",")
    for kind in formats:
        if kind not in ("pdf", "svg", "png"):
            parser.error(f"--format: found '{kind}', expected pdf, svg or png")
    try:
        runs, pooled = open_results(args.analysis)
        directory = Path(args.out)
        directory.mkdir(parents=True, exist_ok=True)
        captions, skipped = [], 0
        with matplotlib.rc_context(STYLE):
            for name, draw in FIGURES.items():
                try:
                    figure, caption = draw(runs, pooled)
                except Missing as missing:
                    skipped += 1
                    plt.close("all")
                    print(f"figures.py: skipped {name}: {missing}", file=sys.stderr)
                    continue
                save(figure, directory, name, formats)
                captions.append(f"## {name}\n\n{textwrap.fill(' '.join(caption.split()), 120)}\n")
        if skipped == len(FIGURES):
            raise InputError(f"{args.analysis[0]}: found nothing to draw, expected the results of probes")
        with complete_or_absent(directory / "captions.md") as partial:
            partial.write_text("# Captions\n\n" + "\n".join(captions), encoding="utf-8")
    except (InputError, OSError) as error:
        sys.exit(f"figures.py: error: {error}")


if __name__ == "__main__":
    main()

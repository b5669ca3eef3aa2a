#!/usr/bin/env python3
"""The results of scripts/gpu_check.sh as a table, and as dated rows of kernels/cuda/README.md.

    gpu_report.py losses --runs DIR --json FILE      compares the loss curves of DIR/{cpu_f32,cuda_f32,cuda_bf16}; needs h5py
    gpu_report.py table --work DIR --out DIR [--record README.md]
    gpu_report.py record --rows DIR/measured.md --readme README.md      appends the rows of a run on another machine

Exit status 1 if the curves differ by more than is allowed, or if a stage failed.
"""

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path

# Largest allowed differences of the loss, nats a token, between the CPU and the card in f32. Two runs on the CPU that differ
# only in the order of summation (train.micro_batch 8 and 2) differ by 2e-8 after 20 steps and by 5e-6 after 128: the
# difference grows with training. A card rounds differently in every operation, not only in those sums, so the bounds are some
# thousand times as wide. A run with bf16 products differs by 3e-4 after 5 steps.
FIRST_STEPS, FIRST_BOUND, ALL_BOUND = 20, 1e-4, 1e-2

TOKENS_PER_SECOND_AIM = 139e3  # qwen3_0.6b on an H200: 60 % of the datasheet's bf16 rate
ROUTED_AIM = 0.02  # block over standard, time


# ---- loss curves --------------------------------------------------------------------------------------------------------


def losses(args):
    import h5py

    curves, alphas = {}, {}
    for run in ("cpu_f32", "cuda_f32", "cuda_bf16"):
        with h5py.File(Path(args.runs) / run / "routing.h5", "r", swmr=True) as file:
            curves[run] = [float(x) for x in file["train/loss"][: len(file["train/step"])]]
            alphas[run] = file["alpha_mean"][len(file["step"]) - 1]
    steps = {run: len(curve) for run, curve in curves.items()}
    if len(set(steps.values())) != 1 or min(steps.values()) < FIRST_STEPS:
        print(f"found {steps} steps, expected as many everywhere and at least {FIRST_STEPS}")
        return 1

    def apart(run, until):
        return max(abs(a - b) for a, b in zip(curves["cpu_f32"][:until], curves[run][:until]))

    def alpha_apart(run):
        difference = abs(alphas["cpu_f32"] - alphas[run])
        return float(difference[difference == difference].max())  # NaN: a source that the read does not have

    result = {"steps": steps["cpu_f32"], "first_steps": FIRST_STEPS, "curves": curves}
    for run in ("cuda_f32", "cuda_bf16"):
        result[run] = {
            "first": apart(run, FIRST_STEPS),
            "all": apart(run, steps[run]),
            "last_loss": curves[run][-1],
            "alpha": alpha_apart(run),
        }
    result["cpu_f32"] = {"first_loss": curves["cpu_f32"][0], "last_loss": curves["cpu_f32"][-1]}
    result["within"] = result["cuda_f32"]["first"] <= FIRST_BOUND and result["cuda_f32"]["all"] <= ALL_BOUND
    Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    found = result["cuda_f32"]
    print(
        f"cuda f32 against cpu f32: loss within {found['first']:.1e} over {FIRST_STEPS} steps (allowed {FIRST_BOUND:.0e}), "
        f"{found['all']:.1e} over {result['steps']} (allowed {ALL_BOUND:.0e})"
    )
    return 0 if result["within"] else 1


# ---- figures ------------------------------------------------------------------------------------------------------------


def load(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def percent(x):
    return f"{100 * x:.1f} %"


def memory_rows(bench):
    """Yields (what, figure, compared with what, aim, whether the aim is met), as do the functions below."""
    copy = bench.get("copy_bytes_per_second", 0)
    if copy:
        yield "copy, read and written", f"{copy / 1e9:.0f} GB/s", "", "", True
    for row in bench.get("traffic", []):
        if "error" in row:
            yield row["name"], "failed", row["error"][:60], "", False
        elif "share_of_copy" in row:
            aim = row.get("aim", 0)
            figure = f"{row['bytes_per_second'] / 1e9:.0f} GB/s"
            share = f"{percent(row['share_of_copy'])} of copy"
            yield row["name"], figure, share, f"{100 * aim:.0f} %" if aim else "", row["share_of_copy"] >= aim
    for row in bench.get("groups", []):
        us = f"{1e6 * row['fused_seconds']:.0f} us fused, {1e6 * row['two_seconds']:.0f} us in two phases"
        yield f"8 reads forward, n = {row['n']}", us, "", "", True


def rate_rows(bench):
    for row in bench.get("attention", []):
        if "error" in row:
            yield row["name"], "failed", row["error"][:60], "", False
        else:
            yield row["name"], f"{row['flops_per_second'] / 1e12:.0f} TFLOP/s", "causal FLOPs", "", True
    for row in bench.get("products", []):
        if "error" in row:
            yield "product " + row["name"], "failed", row["error"][:60], "", False
    if bench.get("product_flops_per_second"):
        yield "matrix products of a pass", f"{bench['product_flops_per_second'] / 1e12:.0f} TFLOP/s", "", "", True


def step_rows(bench, suffix):
    for row in bench.get("steps", []):
        if "error" in row:
            yield row["routed"] + suffix, "failed", row["error"][:60], "", False
            continue
        for key, name in (("standard_speed", f"standard (beside {row['routed']})"), ("routed_speed", row["routed"])):
            speed = row[key]
            share = f"{speed['bytes'] / 2**30:.0f} GiB"
            if "mfu_products" in speed:
                share = f"{percent(speed['mfu_products'])} of products, {share}"
            if "mfu_datasheet" in speed:
                share = f"MFU {percent(speed['mfu_datasheet'])}, {share}"
            met = speed["tokens_per_second"] >= TOKENS_PER_SECOND_AIM
            aimed = key == "standard_speed" and "H200" in bench["device"]["name"]
            figure = f"{speed['tokens_per_second']:.0f} tokens/s"
            yield name + suffix, figure, share, "139k" if aimed else "", met or not aimed
        over = row["routed_over_standard"] - 1
        yield row["routed"] + suffix, f"{100 * over:+.2f} % time", "over standard", "+2 %", over <= ROUTED_AIM


def torch_rows(results):
    for row in results:
        name = f"PyTorch, {row['residual']}"
        if row["residual"] != "standard":
            name += f", reads: {row['reads']}"
        if "error" in row:
            yield name, "failed", row["error"].splitlines()[0][:60], "", False
        else:
            share = f"micro-batch {row['micro_batch']}, {row.get('peak_bytes', 0) / 2**30:.0f} GiB, torch {row['torch']}"
            yield name, f"{row['tokens_per_second']:.0f} tokens/s", share, "", True
    speed = {row["residual"]: row["step_seconds"] for row in results if "error" not in row}
    if len(speed) == 2:
        over = speed["block_attn_res"] / speed["standard"] - 1
        yield "PyTorch, block_attn_res", f"{100 * over:+.1f} % time", "over standard", "", True


def loss_rows(loss):
    f32, half = loss["cuda_f32"], loss["cuda_bf16"]
    for steps, apart, bound in ((loss["first_steps"], f32["first"], FIRST_BOUND), (loss["steps"], f32["all"], ALL_BOUND)):
        yield f"loss, cuda f32 - cpu f32, {steps} steps", f"{apart:.1e}", "nats a token", f"{bound:.0e}", apart <= bound
    yield "mean alpha, cuda f32 - cpu f32, last step", f"{f32['alpha']:.1e}", "", "", True
    yield f"loss, cuda bf16 - cpu f32, {loss['steps']} steps", f"{half['all']:.1e}", "nats a token", "", True
    last = f"{loss['cpu_f32']['last_loss']:.4f} / {f32['last_loss']:.4f} / {half['last_loss']:.4f}"
    yield "last loss, cpu f32 / cuda f32 / cuda bf16", last, f"from {loss['cpu_f32']['first_loss']:.3f}", "", True


def all_rows(out):
    sources = {
        "bench.json": (memory_rows, rate_rows, lambda b: step_rows(b, "")),
        "graph.json": (lambda b: step_rows(b, ", graph and tuned products"),),
        "torch.json": (torch_rows,),
        "torch_flash.json": (torch_rows,),
        "loss.json": (loss_rows,),
    }
    for name, makers in sources.items():
        if found := load(out / name):
            for make in makers:
                yield from make(found)


# ---- output -------------------------------------------------------------------------------------------------------------


def commit():
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def table(args):
    out, work = Path(args.out), Path(args.work)
    stages = [line.split("\t") for line in (work / "stages.tsv").read_text(encoding="utf-8").splitlines()]
    rows = list(all_rows(out))
    bench = load(out / "bench.json") or load(out / "graph.json") or {}
    card = bench.get("device", {}).get("name", "an unnamed card")
    tests = work / "tests.txt"
    tested = tests.read_text(encoding="utf-8").strip() if tests.exists() else ""

    width = max((len(what) for what, *_ in rows), default=0)
    for what, figure, share, aim, met in rows:
        mark = "" if met else "  <-- aim missed" if figure != "failed" else "  <--"
        print(f"{what:<{width}} {figure:>20}  {share:<44} {aim:>6}{mark}")
    print()
    for name, outcome, seconds, note in stages:
        print(f"{name:<8} {outcome:<12} {seconds:>4} s  {tested if name == 'tests' and tested else note}")

    if rows or tested:
        head = " ".join(filter(None, [datetime.date.today().isoformat() + ",", card, commit() and f"(commit {commit()})"]))
        lines = [f"| **{head}** | {'tests on the card: ' + tested if tested else ''} | | |"]
        lines += [f"| {what} | {figure} | {share} | {aim} |" for what, figure, share, aim, _ in rows]
        (out / "measured.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if args.record:
            record(Path(args.record), lines)
    return 0 if stages and all(outcome in ("done", "left out") for _, outcome, _, _ in stages) else 1


def record(readme, lines):
    """Appends the rows to the table under `## Measured`. Makes the table if it is missing."""
    text = readme.read_text(encoding="utf-8").rstrip("\n").split("\n") if readme.exists() else ["# kernels/cuda/"]
    if "## Measured" not in text:
        text += ["", "## Measured", "", "By `scripts/gpu_check.sh`.", "", "| what | figure | of | aim |", "|---|---|---|---|"]
    begin = text.index("## Measured")
    end = next((i for i in range(begin + 1, len(text)) if text[i].startswith("## ")), len(text))
    last = max((i for i in range(begin, end) if text[i].startswith("|")), default=None)
    if last is None:
        lines = ["", "| what | figure | of | aim |", "|---|---|---|---|", *lines]
        last = max(i for i in range(begin, end) if text[i].strip())
    text[last + 1 : last + 1] = lines
    readme.write_text("\n".join(text) + "\n", encoding="utf-8")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("losses")
    command.add_argument("--runs", required=True)
    command.add_argument("--json", required=True)
    command.set_defaults(run=losses)
    command = commands.add_parser("table")
    command.add_argument("--work", required=True)
    command.add_argument("--out", required=True)
    command.add_argument("--record", help="a README whose table of figures is added to")
    command.set_defaults(run=table)
    command = commands.add_parser("record")
    command.add_argument("--rows", required=True)
    command.add_argument("--readme", required=True)
    command.set_defaults(run=lambda a: record(Path(a.readme), Path(a.rows).read_text(encoding="utf-8").splitlines()))
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""recompute.py finds every number of a record and of a study that the tools wrote, and names the one that was changed.

    tests/analysis/recompute/recompute_test.py BUILD/bin
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

try:
    import h5py
except ImportError:  # another Python may have it
    if sys.executable == "/usr/bin/python3" or not os.path.exists("/usr/bin/python3"):
        print("skipped: no h5py (scripts/install_packages.sh test)")
        sys.exit(77)
    os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])

BIN = Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
SCRIPT = Path(__file__).resolve().parent / "recompute.py"
CONFIG = """
run: {dir: RUN, seed: SEED}
model:
  residual: block_attn_res
  attn_res: {source: block_sum, num_blocks: 2}
  vocab_size: 257
  hidden_size: 16
  intermediate_size: 32
  num_hidden_layers: 3
  num_attention_heads: 2
  num_key_value_heads: 1
  head_dim: 8
data: {train: [train.bin], valid: [valid.bin], sequence_length: 16}
train: {steps: 40, tokens_per_step: 256, micro_batch: 16, optimizer: {learning_rate: 1e-2}, schedule: {kind: constant, warmup_steps: 1}}
valid: {every: 40, tokens: 64}
checkpoint: {every: 40}
routing: {every: 40, sequences: 20, per_token_every: 40}
"""
SETS = "1.attn-2.mlp:embedding; 2.mlp:current; 0.attn:embedding"  # the last has nothing that an ablation could change


def tool(name, arguments):
    done = subprocess.run([BIN / f"routescope-{name}", *arguments], capture_output=True, cwd=shared, timeout=300, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"{name} {arguments}: {done.stderr.decode()}")


def setUpModule():
    global shared
    holder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(holder.cleanup)
    shared = Path(holder.name)
    texts = []
    for document in range(60):
        (shared / f"{document}.txt").write_text("".join(f"line {i * (document + 3) % 97} of text {document}\n" for i in range(12)))
        texts += ["--input", f"{document}.txt"]
    tool("data", ["tokenize", *texts, "--output", "train.bin", "--valid-output", "valid.bin", "--valid-fraction", "0.3"])
    for seed in (1, 2):
        (shared / "config.yaml").write_text(CONFIG.replace("RUN", f"run{seed}").replace("SEED", str(seed)))
        tool("train", ["config.yaml"])
        tool("analyze", ["probe", "--run", f"run{seed}", "--step", "all", "--controls", "8"])
    tool("analyze", ["probe", "--run", "run1", "--step", "all", "--controls", "8", "--ablation", "mask,freeze", "--sets", SETS, "--out", "sets.h5"])
    tool("analyze", ["probe", "--run", "run1", "--step", "all", "--controls", "0", "--sets", SETS, "--until-decided", "--out", "decided.h5"])
    tool("analyze", ["compare", "--run", "run1", "--run", "run2", "--out", "study"])


class RecomputeTest(unittest.TestCase):
    def recompute(self, file):
        return subprocess.run([sys.executable, SCRIPT, file], capture_output=True, cwd=shared, timeout=300, text=True)

    def test_what_the_tools_wrote_is_found_again(self):
        for file in ["run1/analysis.h5", "sets.h5", "decided.h5", "study/study.h5"]:
            done = self.recompute(file)
            self.assertEqual(done.returncode, 0, f"{file}: {done.stderr}")
            self.assertIn(" mask/delta_nll_ci\n", done.stdout, file)
            self.assertIn(" mass\n", done.stdout, file)
            findings = {"run1/analysis.h5": "", "study/study.h5": "pooled/"}.get(file)
            for path in ("learned/p", "dissociation/tau_ci", "dissociation/p", "motif/current_early/p_change"):
                self.assertEqual(findings is not None and f" {findings}{path}\n" in done.stdout, findings is not None, f"{file}: {path}")

    def test_findings_that_were_changed_are_named(self):
        with h5py.File(shared / "run1/analysis.h5") as file:  # a motif that controls can tell something about
            motif = next(f"motif/{name}" for name, one in file["motif"].items() if one["p_excess"][1] == one["p_excess"][1])
        for path, at in (("learned/gain_ci", (1, 0)), ("dissociation/heaviest", (1, 0)), (f"{motif}/p_excess", (1,)), (f"{motif}/change_ci", (1, 1))):
            shutil.copy(shared / "run1/analysis.h5", shared / "changed.h5")
            with h5py.File(shared / "changed.h5", "r+") as file:
                found = file[path][at]
                self.assertEqual(found, found, f"{path}: not measured")
                file[path][at] = abs(found - 0.4) if "/p" in path else 1.3 * found + 1
            done = self.recompute("changed.h5")
            self.assertEqual(done.returncode, 1, f"{path}: {done.stdout}")
            self.assertIn(path, done.stderr)

    def test_what_was_changed_is_named(self):
        for path, at in (("mask/delta_nll", (1, 0)), ("mask/delta_nll_ci", (1, 1, 1)), ("mask/p_value", (1, 0)), ("freeze/p_adjusted", (0, 1)),
                         ("mask/p_equivalence", (1, 1)), ("control/mask/excess", (1, 0)), ("control/mask/excess_ci", (1, 0, 0)),
                         ("control/mask/excess_p", (1, 0)), ("mass", (1, 0)), ("contribution_mean", (1, 2, 0)), ("norm_mass_mean", (1, 2, 0)),
                         ("intact/nll", (1,))):
            shutil.copy(shared / "sets.h5", shared / "changed.h5")
            with h5py.File(shared / "changed.h5", "r+") as file:
                found = file[path][at]
                self.assertEqual(found, found, f"{path}: not measured")
                file[path][at] = 1.3 * found + 0.01 if path.endswith("_ci") else abs(found - 0.4) if "/p_" in path else 1.001 * found
            done = self.recompute("changed.h5")
            self.assertEqual(done.returncode, 1, f"{path}: {done.stdout}")
            self.assertIn(path, done.stderr)

    def test_other_files_are_refused(self):
        done = self.recompute("run1/routing.h5")
        self.assertEqual(done.returncode, 1)
        self.assertIn("filetype: found routescope routing, expected routescope analysis", done.stderr)
        self.assertEqual(self.recompute("none.h5").returncode, 1)


if __name__ == "__main__":
    unittest.main()

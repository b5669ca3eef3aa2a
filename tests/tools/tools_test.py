#!/usr/bin/env python3
"""What all tools do alike, from the outside: numbers of options, inputs that are no files, outputs in the way of inputs,
standard streams that are closed or full, limits on file sizes.

    tests/tools/tools_test.py BUILD/bin
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BIN = Path(sys.argv.pop(1) if len(sys.argv) > 1 else "build/bin").resolve()
COMMANDS = ["data tokenize", "data task", "data inspect", "data salvage", "model init", "model wrap", "model import", "model export", "model dump", "model eval",
            "analyze probe", "analyze track", "analyze report", "analyze compare", "analyze inspect", "train", "bench"]
NEVER = ["", " 5", "0x10", "nan", "-inf", "1e999", "5\x1b[31m"]  # tests/data/base/number_test.cpp has many more
NEVER_WHOLE = ["1e3", "12345678901234567890123", "-12345678901234567890123"]
MODEL = ("hidden_size=16 intermediate_size=32 num_hidden_layers=2 num_attention_heads=2 num_key_value_heads=1 head_dim=8 "
         "vocab_size=257").split()
CONFIG = """
run: {dir: RUN, seed: 1}
model:
  residual: block_attn_res
  attn_res: {source: block_sum, num_blocks: 2}
  vocab_size: 257
  hidden_size: 16
  intermediate_size: 32
  num_hidden_layers: 4
  num_attention_heads: 2
  num_key_value_heads: 1
  head_dim: 8
data: {train: [train.bin], valid: [valid.bin], sequence_length: 16}
train: {steps: 2, tokens_per_step: 32, micro_batch: 2, optimizer: {learning_rate: 1e-3}, schedule: {kind: constant, warmup_steps: 1}}
valid: {every: 2, tokens: 64}
checkpoint: {every: 2}
routing: {every: 2, sequences: 2, per_token_every: 2}
"""


def tool(command):
    name, *rest = command.split()
    return [str(BIN / f"routescope-{name}"), *rest]


def run(arguments, directory, **options):
    return subprocess.run(arguments, capture_output=True, cwd=directory, timeout=60, stdin=subprocess.DEVNULL, **options)


def setUpModule():
    global shared
    holder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(holder.cleanup)
    shared = Path(holder.name)
    (shared / "text.txt").write_text("".join(f"line {i} of a text\n" for i in range(400)))
    (shared / "config.yaml").write_text(CONFIG.replace("RUN", "run"))
    sets = [word for assignment in MODEL for word in ("--set", assignment)]
    for arguments in (tool("data tokenize") + "--input text.txt --output train.bin --valid-output valid.bin --valid-fraction 0.3".split(),
                      tool("model init") + sets + ["--out", "standard"], tool("train") + ["config.yaml"],
                      tool("model export") + "--model run/checkpoints/step-00000002 --out routed".split(),
                      tool("analyze probe") + "--run run --controls 0".split(), tool("model dump") + "--model routed --tokens 1,2,3 --out dump.h5".split()):
        done = run(arguments, shared)
        if done.returncode != 0:
            raise RuntimeError(f"{arguments}: {done.stderr.decode()}")


class ToolsTest(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.dir = Path(holder.name) / "work"
        shutil.copytree(shared, self.dir, symlinks=True)

    def assert_line(self, done, arguments, status, *parts):
        """One line on standard error, with the tool's name, without control characters."""
        text = done.stderr.decode()
        self.assertEqual(done.returncode, status, f"{arguments}: {text}")
        name = Path(arguments[0]).name
        self.assertTrue(text.startswith(f"{name}: error: ") and text.endswith("\n") and text[:-1].isprintable(), f"{arguments}: {text!r}")
        for part in parts:
            self.assertIn(part, text, arguments)

    def refused(self, command, status, *parts):
        arguments = tool(command) if isinstance(command, str) else command
        before = self.listing()
        self.assert_line(run(arguments, self.dir), arguments, status, *parts)
        self.assertEqual(self.listing(), before, arguments)

    def listing(self):
        return sorted((str(path), path.lstat().st_size) for path in self.dir.rglob("*") if path.name not in ("lock", "cmp"))

    def test_numbers_of_options(self):
        options = 0
        for command in COMMANDS:
            for option, kind in re.findall(r"(--[a-z-]+) (N|NUMBER)\b", run(tool(command) + ["--help"], self.dir).stdout.decode()):
                options += 1
                for value in NEVER + (NEVER_WHOLE if kind == "N" else []):
                    arguments = [*tool(command), f"{option}={value}"]
                    self.assert_line(run(arguments, self.dir), arguments, 2, option)
                decimal = [*tool(command), f"{option}={'007' if kind == 'N' else '00.5'}", "--nonsense"]
                self.assertNotIn(b"found 00", run(decimal, self.dir).stderr, decimal)
        self.assertGreater(options, 35)

    def test_usage_is_one_line(self):
        for command in COMMANDS + ["data", "model", "analyze", "data nonsense", "model nonsense", "analyze nonsense"]:
            arguments = tool(command)
            if command != "bench":
                self.assert_line(run(arguments, self.dir), arguments, 2)
            arguments = [*arguments, "--no\nsuch\x1b[31m"]
            self.assert_line(run(arguments, self.dir), arguments, 2)
        for name in ("data", "train", "analyze", "bench"):
            self.assertEqual(run([*tool(name), "--version"], self.dir).returncode, 0)

    def inputs(self, bad):
        """Commands with the path `bad` in the place of every kind of input."""
        yield from (f"data {rest}" for rest in (f"tokenize --input {bad} --output o", f"salvage {bad} --output o"))
        if not (self.dir / bad).is_dir():
            yield f"data inspect {bad}"
        yield f"model eval --model routed --tokens {bad}"
        yield f"model dump --model routed --tokens 1,2 --logit-bias {bad} --out o"
        yield f"analyze probe --model routed --tokens {bad} --out o"
        yield f"analyze probe --run run --classes {bad} --out o"
        yield f"analyze probe --run run --ablation patch --patch-from {bad} --out o"
        yield f"analyze probe --run run --task {bad} --out o"
        yield f"data task copying --from {bad} --output o"
        yield f"analyze probe --run run --out {bad}"
        yield from (f"analyze report --run run --{option} {bad} --out o" for option in ("tokenizer", "text", "baseline"))
        yield f"analyze report --run run --out {bad}"
        yield f"train {bad}"
        yield from (f"train config.yaml run.dir=other data.{key}=[{bad}]" for key in ("train", "valid"))
        yield f"train config.yaml --plan --cluster {bad}"

    def test_inputs_that_are_no_files(self):
        os.mkfifo(self.dir / "fifo")
        (self.dir / "directory").mkdir()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.dir / "socket"))
            for bad in ("fifo", "directory", "socket", "/dev/zero"):
                for command in self.inputs(bad):
                    arguments = tool(command)
                    self.assert_line(run(arguments, self.dir), arguments, 1, bad)
        self.assertFalse((self.dir / "o").exists())

    def test_files_of_models_and_runs_that_are_no_files(self):
        for file, commands in {"routed/config.json": ["model eval --model routed --tokens 1,2"],
                               "routed/model.safetensors": ["model eval --model routed --tokens 1,2"],
                               "run/routing.h5": ["analyze inspect --run run", "analyze report --run run --out o", "train config.yaml train.steps=3"],
                               "run/config.yaml": ["analyze report --run run --out o", "train config.yaml train.steps=3"],
                               "run/analysis.h5": ["analyze inspect --run run", "analyze report --run run --out o"]}.items():
            (self.dir / file).rename(self.dir / "aside")
            os.mkfifo(self.dir / file)
            for command in commands:
                arguments = tool(command)
                self.assert_line(run(arguments, self.dir), arguments, 1, Path(file).name)
            (self.dir / "aside").rename(self.dir / file)

    def test_outputs_in_the_way_of_inputs_and_outputs(self):
        (self.dir / "link").symlink_to("text.txt")
        os.link(self.dir / "text.txt", self.dir / "hard")
        for command in ("data task copying --from train.bin --output train.bin", "data tokenize --input text.txt --output ./text.txt", "data tokenize --input text.txt --output link", "data tokenize --input text.txt --output hard",
                        "data tokenize --input text.txt --output new --valid-output ./new --valid-fraction 0.1",
                        "data tokenize --input text.txt --output no/../new --valid-output new --valid-fraction 0.1",
                        "data salvage run/routing.h5 --output run/../run/routing.h5", "data salvage run/routing.h5 --output run/routing.h5.journal",
                        "model dump --model routed --tokens train.bin --out train.bin", "model dump --model routed --tokens 1,2 --out routed/model.safetensors",
                        "analyze probe --run run --out run/routing.h5", "analyze probe --model routed --tokens valid.bin --out valid.bin",
                        "analyze report --run run --out run/analysis.h5", "analyze report --run run --text dump.h5 --out ./dump.h5",
                        "analyze report --run run --tokenizer text.txt --out link"):
            self.refused(command, 2, "found the same file as")

    def test_inputs_that_are_named_twice(self):
        (self.dir / "link").symlink_to("text.txt")
        (self.dir / "other_name").symlink_to("run")
        for command, status in {"data tokenize --input text.txt link --output o": 2, "data tokenize --input text.txt ./text.txt --output o": 2,
                                "analyze compare --run run --run other_name --out o": 2, "analyze report --run run --run ./run/ --out o": 2,
                                "train config.yaml run.dir=new data.train=[train.bin,./train.bin]": 1, "train config.yaml run.dir=new data.train=[valid.bin]": 1}.items():
            self.refused(command, status, "found ")

    def test_outputs_onto_what_is_no_file(self):
        os.mkfifo(self.dir / "fifo")
        for out in ("fifo", "run", "/dev/null", "/dev/stdout"):
            for command in (f"data tokenize --input text.txt --output {out}", f"model dump --model routed --tokens 1,2 --out {out}",
                            f"analyze report --run run --out {out}", f"data salvage run/routing.h5 --output {out}"):
                self.refused(command, 1, out)
        self.assertTrue(Path("/dev/null").is_char_device())

    def test_streams_that_are_closed_or_full(self):
        for streams, status in {"<&- >&- 2>&-": 0, ">&-": 0, "2>&-": 0, "2>/dev/full": 0, ">/dev/full": 1}.items():
            for command in ("data inspect train.bin", "model eval --model routed --tokens 1,2", "analyze inspect --run run", "train --help", "bench --help"):
                done = run(["bash", "-c", f'"$@" {streams}', "-", *tool(command)], self.dir)
                self.assertEqual(done.returncode, status, f"{command} {streams}: {done.stderr}")
        for command in COMMANDS:
            for streams in ("2>&-", "2>/dev/full", "<&- >&- 2>&-"):
                self.assertEqual(run(["bash", "-c", f'"$@" --nonsense {streams}', "-", *tool(command)], self.dir).returncode, 2, command)
        done = run(["bash", "-c", 'set -o pipefail; "$@" | true', "-", *tool("data inspect run/routing.h5")], self.dir)
        self.assertIn(done.returncode, (0, 1))
        before = (self.dir / "run/routing.h5").read_bytes()
        self.assertEqual(run(["bash", "-c", '"$@" train.steps=3 <&- >&-', "-", *tool("train config.yaml run.dir=closed")], self.dir).returncode, 0)
        self.assertEqual((self.dir / "closed/routing.h5").read_bytes()[:8], before[:8])

    def test_probes_are_of_different_documents(self):
        documents = [f"document-{i}.txt" for i in range(40)]
        for i, name in enumerate(documents):
            (self.dir / name).write_text(f"{i} " * 20)
        for inputs, found, warning in ((documents, 20, ""), (["text.txt"], 1, "warning: 20 sequences of 1 document, ")):
            directory = f"of-{found}"
            for arguments in ("data tokenize --output new.bin --input " + " ".join(inputs),
                              f"train config.yaml data.valid=[new.bin] routing.sequences=20 run.dir={directory}",
                              f"analyze probe --run {directory} --controls 0 --sets all"):
                done = run(tool(arguments), self.dir)
                self.assertEqual(done.returncode, 0, done.stderr)
            lines = [line for line in done.stdout.decode().splitlines() if line.startswith("warning: ")]
            self.assertEqual(len(lines), 1 if warning else 0, lines)
            self.assertTrue(not warning or lines[0].startswith(warning), lines)
            record = run([*tool("data inspect"), f"{directory}/routing.h5"], self.dir).stdout.decode()
            self.assertIn(f"probe tokens 20 x 16 of {found} document", record)
            self.assertIn("/probe_document ", run([*tool("data inspect"), f"{directory}/analysis.h5"], self.dir).stdout.decode())

    def test_limits_on_file_sizes(self):
        for command in ("data tokenize --input text.txt --output new.bin", "data salvage run/routing.h5 --output new.h5", "model export --model routed --out new",
                        "model dump --model routed --tokens 1,2,3 --out new.h5", "analyze report --run run --out new.html", "analyze probe --run run --controls 0 --out new.h5"):
            before = self.listing()
            arguments = tool(command)
            done = run(["bash", "-c", 'ulimit -f 3; "$@"', "-", *arguments], self.dir)
            self.assert_line(done, arguments, 1, "new")
            self.assertEqual(self.listing(), before, command)

    def test_names_are_printable(self):
        name = "x\x1b[31m\n\u202e.txt"
        shutil.copy(self.dir / "text.txt", self.dir / name)
        for arguments in (["data tokenize", "--input", name, "--output", "no/" + name], ["data inspect", name], ["model eval", "--model", name, "--tokens", "1"],
                          ["analyze inspect", "--run", name], ["train", "no" + name], ["analyze report", "--run", "run", "--tokenizer", name]):
            arguments = tool(arguments[0]) + arguments[1:]
            self.assert_line(run(arguments, self.dir), arguments, 1, "x\\x1b[31m")
        done = run([*tool("data tokenize"), "--input", name, "--output", name + ".bin"], self.dir)
        self.assertEqual(done.returncode, 0)
        self.assertTrue(done.stdout.decode()[:-1].isprintable(), done.stdout)


if __name__ == "__main__":
    unittest.main()

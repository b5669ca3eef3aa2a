#!/usr/bin/env python3
"""scripts/prepare_data.py from the outside, with a tokenizer of bytes in place of the package `tokenizers`.

Wrong input has a line with its file and place. By default it stops the work, which keeps the documents before it; with
--on-error skip it is left out, counted and listed. Nothing half-written stays.
"""

import bz2
import gzip
import json
import lzma
import os
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prepare_data.py"
TOKENIZERS = '''
import time
class Encoding:
    def __init__(self, text):
        if text == "sleep": time.sleep(60)
        if text == "fail": raise Exception("a bare one")
        self.ids = list(text.encode())
class Tokenizer:
    from_file = classmethod(lambda cls, file: cls())
    no_truncation = no_padding = lambda self: None
    token_to_id = lambda self, token: 256
    get_vocab = lambda self, with_added_tokens: {"x": 256}
    encode_batch_fast = lambda self, batch, add_special_tokens: [Encoding(text) for text in batch]
'''
GOOD = ['{"text": "one"}', '{"text": "two"}', '{"text": "three"}']
BAD_LINES = {
    b'{"text": "a\\ud800b"}': "character 1: found '\\ud800'",
    b'{"text": "\\udc00"}': "character 0",
    b'{"text": ': "column",
    b"[" * 100000: "not JSON",
    b'{"text": "x", "n": ' + b"9" * 5000 + b"}": "not JSON",
    b"{}": "found no text under 'text'",
    b'{"text": 5}': "found no text",
    b'{"text": null}': "found no text",
    b"[]": "found no text",
    b'{"text": "a\xffb"}': "byte 11: found 0xff, expected UTF-8",
    b'{"text": "a\0b"}': "not JSON",
    b"\xff\xfe{\0": "expected UTF-8",
}


class PrepareDataTest(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.dir = Path(holder.name)
        (self.dir / "tokenizers.py").write_text(TOKENIZERS)
        (self.dir / "tokenizer.json").write_text("{}")
        self.out = self.dir / "out"

    def write(self, name, data):
        file = self.dir / name
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(file)

    def command(self, *inputs):
        return [sys.executable, str(SCRIPT), "--tokenizer", str(self.dir / "tokenizer.json"), "--output", str(self.out),
                "--valid-every", "0", "--input", *inputs]

    def run_script(self, *inputs, **options):
        environment = os.environ | {"PYTHONPATH": str(self.dir), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(self.command(*inputs), capture_output=True, text=True, env=environment, timeout=60, **options)

    def documents(self):
        data = b"".join(file.read_bytes()[1024:] for file in sorted(self.out.glob("train-*.bin")))
        ids = struct.unpack(f"<{len(data) // 2}H", data)
        return "".join("|" if i == 256 else chr(i) for i in ids).split("|")[:-1]

    def summary(self):
        return json.loads((self.out / "tokens.json").read_text())

    def assert_refused(self, ran, *parts, status=1):
        self.assertEqual(ran.returncode, status, ran.stderr)
        self.assertNotIn("Traceback", ran.stderr)
        last = ran.stderr.splitlines()[-1]
        self.assertTrue(last.startswith("prepare_data.py: error: "), ran.stderr)
        for part in parts:
            self.assertIn(part, last)

    def assert_nothing_left(self):
        self.assertFalse(self.out.exists(), list(self.out.glob("*")) if self.out.exists() else "")

    def test_all_inputs(self):
        lines = "\n".join(GOOD).encode()
        for name, data in {"a.jsonl": lines, "a.jsonl.gz": gzip.compress(lines), "a.jsonl.xz": lzma.compress(lines),
                           "a.jsonl.bz2": bz2.compress(lines), "bom.jsonl": b"\xef\xbb\xbf" + lines, "crlf.jsonl": lines.replace(b"\n", b"\r\n\r\n")}.items():
            self.out = self.dir / f"out-{name}"
            ran = self.run_script(self.write(name, data))
            self.assertEqual(ran.returncode, 0, ran.stderr)
            self.assertEqual(self.documents(), ["one", "two", "three"], name)
            self.assertEqual(self.summary()["error_count"], 0)
            self.assertFalse(list(self.out.glob(".*")))

    def test_a_wrong_line_stops_and_keeps_what_was_before_it(self):
        for number, (line, part) in enumerate(BAD_LINES.items()):
            self.out = self.dir / f"out-{number}"
            file = self.write("a.jsonl", "\n".join(GOOD[:2]).encode() + b"\n" + line + b"\n" + GOOD[2].encode())
            self.assert_refused(self.run_script(file), f"{file}:3: ", part, "2 documents before it")
            self.assertEqual(self.documents(), ["one", "two"])
            self.assertTrue(self.summary()["stopped_at_error"])

    def test_wrong_lines_are_left_out_counted_and_listed(self):
        lines = [line for bad in BAD_LINES for line in (bad, GOOD[0].encode())]
        ran = self.run_script(self.write("a.jsonl", b"\n".join(lines)), "--on-error", "skip")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(self.documents(), ["one"] * len(BAD_LINES))
        self.assertEqual(self.summary()["error_count"], len(BAD_LINES))
        for number, (part, error) in enumerate(zip(BAD_LINES.values(), self.summary()["errors"])):
            self.assertIn(f"a.jsonl:{2 * number + 1}: ", error)
            self.assertIn(part, error)
            self.assertIn(error, ran.stderr)

    def test_damaged_files(self):
        lines = "\n".join(GOOD * 20000).encode()
        flipped = bytearray(gzip.compress(lines))
        flipped[len(flipped) // 2] ^= 255
        good = self.write("good.jsonl", GOOD[0])
        os.mkfifo(self.dir / "fifo.jsonl")
        (self.dir / "directory.txt").mkdir()
        damaged = [self.write("cut.jsonl.gz", gzip.compress(lines)[:-9]), self.write("cut.jsonl.xz", lzma.compress(lines)[:-9]),
                   self.write("cut.jsonl.bz2", bz2.compress(lines)[:-9]), self.write("flip.jsonl.gz", bytes(flipped)),
                   self.write("plain.jsonl.gz", lines), self.write("nul.txt", b"a\0b"), self.write("utf16.txt", "hello".encode("utf-16")),
                   self.write("name.doc", "x"), str(self.dir / "absent.txt"), str(self.dir / "fifo.jsonl"), str(self.dir / "directory.txt"),
                   "/dev/zero"]
        for number, file in enumerate(damaged):
            self.out = self.dir / f"stop-{number}"
            self.assert_refused(self.run_script(good, file, good), file, "documents before it")
            self.assertEqual(self.documents()[0], "one")
            self.out = self.dir / f"alone-{number}"
            if "cut" not in file and "flip" not in file:
                self.assert_refused(self.run_script(file), file)
                self.assert_nothing_left()
        self.out = self.dir / "skip"
        ran = self.run_script(good, *damaged, good, "--on-error", "skip")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertGreaterEqual(self.summary()["error_count"], len(damaged))  # the flipped bit has wrong lines too
        self.assertEqual(self.documents()[-1], "one")

    def test_a_tokenizer_that_fails(self):
        file = self.write("a.jsonl", '{"text": "fail"}')
        self.assert_refused(self.run_script(file), "documents 1 to 1: the tokenizer failed: a bare one")
        self.assert_nothing_left()

    def test_usage(self):
        file = self.write("a.txt", "x")
        for option in ("--valid-every", "--shard-tokens"):
            for wrong in ("-1", "1e3", "0x10", " 5", "1_0", "", "99999999999", "nan"):
                self.assert_refused(self.run_script(file, f"{option}={wrong}"), option, status=2)
        self.assert_refused(self.run_script(file, "--on-error", "ignore"), "--on-error", status=2)
        self.assert_nothing_left()

    def test_one_process_a_directory_and_no_debris(self):
        self.out.mkdir()
        killed = subprocess.Popen(self.command(self.write("s.jsonl", '{"text": "sleep"}')), stderr=subprocess.PIPE, text=True,
                                  env=os.environ | {"PYTHONPATH": str(self.dir), "PYTHONDONTWRITEBYTECODE": "1"})
        try:
            while not list(self.out.glob(".prepare_data-partial-*")):
                self.assertIsNone(killed.poll())
            self.assert_refused(self.run_script(self.write("a.txt", "x")), "another process writes shards there")
        finally:
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
        (self.out / ".prepare_data-partial-link").symlink_to(self.dir)
        self.assertEqual(self.run_script(str(self.dir / "a.txt")).returncode, 0)
        self.assertEqual([file.name for file in self.out.glob(".*")], [".prepare_data-partial-link"])
        self.assertTrue((self.dir / "a.txt").exists())
        self.assert_refused(self.run_script(str(self.dir / "a.txt")), "exists, expected a directory without shards")

    def test_streams_that_are_closed_or_full(self):
        file = self.write("a.txt", "x")
        for redirect in ("2>&-", "2>/dev/full", ">&- 2>&- <&-"):
            self.out = self.dir / f"out{len(redirect)}"
            ran = self.run_shell(f'"$@" {redirect}', file)
            self.assertEqual(ran.returncode, 0, redirect)
            self.assertEqual(self.documents(), ["x"])
        self.out = self.dir / "nowhere"
        self.assert_refused(self.run_shell('"$@" <&-', "-"), "standard input is closed")

    def run_shell(self, line, *inputs):
        environment = os.environ | {"PYTHONPATH": str(self.dir), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(["bash", "-c", line, "-", *self.command(*inputs)], capture_output=True, text=True, env=environment, timeout=60)

    def test_a_full_disk(self):
        file = self.write("a.txt", "x" * 100000)
        self.assert_refused(self.run_shell('ulimit -f 20; "$@"', file), str(self.out), "cannot write: File too large")
        self.assert_nothing_left()

    def test_names_are_printable(self):
        self.assert_refused(self.run_script("a\x1b[2J\n.txt"), "a\\x1b[2J\\n.txt")


if __name__ == "__main__":
    unittest.main()

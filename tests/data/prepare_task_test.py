#!/usr/bin/env python3
"""scripts/prepare_task.py from the outside, with a tokenizer of words in place of the package `tokenizers`."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prepare_task.py"
TOKENIZERS = '''
class Encoding:
    def __init__(self, text):
        text.encode("utf-8")
        self.ids = [len(word) for word in text.split()]
class Tokenizer:
    from_file = classmethod(lambda cls, file: cls())
    no_truncation = no_padding = lambda self: None
    encode = lambda self, text, add_special_tokens: Encoding(text)
'''
BAD_LINES = {
    b'{"clean": ': "line 2: not JSON",
    b"[" * 100000: "line 2: not JSON",
    b'{"clean": "a\xff"}': "line 2: not JSON",
    b"[1]": "line 2: found no JSON object",
    b'{"clean": "a b", "answer": "two words"}': "line 2: answer: found 2 tokens",
    b'{"clean": "a b", "distractor": ""}': "line 2: distractor: found 0 tokens",
    b'{"clean": "a \\ud800"}': "line 2: found half of a surrogate pair",
}


class PrepareTaskTest(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.dir = Path(holder.name)
        (self.dir / "tokenizers.py").write_text(TOKENIZERS)
        self.input, self.output = self.dir / "text.jsonl", self.dir / "ids.jsonl"

    def run_script(self, content, output=None):
        self.input.write_bytes(content)
        return subprocess.run([sys.executable, SCRIPT, "--tokenizer", "t.json", "--input", self.input, "--output", output or self.output],
                              capture_output=True, text=True, env={"PYTHONPATH": str(self.dir)}, check=False)

    def test_texts_become_ids_and_all_else_stays(self):
        line = {"clean": "a bcd ef", "corrupted": [1, 2, 3], "answer": "four", "distractor": 7, "group": "a b"}
        done = self.run_script((json.dumps(line) + "\n").encode() * 2)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        expected = {"clean": [1, 3, 2], "corrupted": [1, 2, 3], "answer": [4], "distractor": 7, "group": "a b"}
        self.assertEqual([json.loads(text) for text in self.output.read_text().splitlines()], [expected] * 2)

    def test_wrong_lines_are_named_and_leave_nothing(self):
        for bad, message in BAD_LINES.items():
            done = self.run_script(b'{"clean": "a b", "answer": "c"}\n' + bad + b"\n")
            self.assertEqual(done.returncode, 1, bad[:40])
            self.assertIn(message, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertEqual(sorted(path.name for path in self.dir.iterdir() if path.is_file()), ["text.jsonl", "tokenizers.py"])

    def test_an_empty_input_and_an_output_over_the_input_are_refused(self):
        self.assertIn("found no line", self.run_script(b"").stderr)
        done = self.run_script(b'{"clean": "a"}\n', output=self.input)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(self.input.read_bytes(), b'{"clean": "a"}\n')


if __name__ == "__main__":
    unittest.main()

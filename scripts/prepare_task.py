#!/usr/bin/env python3
"""Prompts as text to prompts as token ids, with a Hugging Face tokenizer.json.

    prepare_task.py --tokenizer tokenizer.json --input TEXT.jsonl --output IDS.jsonl

Both files are task files (data/formats/tasks.md): a JSON object a line with clean, answer and perhaps corrupted, distractor, group.
Texts become lists of ids, without special tokens; what is no text stays. answer and distractor have to be one token each: begin
them with the space that stands before a word. Needs the Python package tokenizers. Wrong input leaves no output; the exit status is 1.
"""

import argparse
import json
import os
import sys


class InputError(Exception):
    """In one line: where, what was found, what was expected."""


def ids_of(tokenizer, key, value, where):
    if not isinstance(value, str):
        return value
    ids = tokenizer.encode(value, add_special_tokens=False).ids
    if key in ("answer", "distractor") and len(ids) != 1:
        raise InputError(f"{where}: {key}: found {len(ids)} tokens in {ascii(value)[:60]}, expected one")
    return ids


def convert(tokenizer, line, where):
    try:
        prompt = json.loads(line.decode("utf-8"))
    except (RecursionError, ValueError) as error:  # also bytes that are not UTF-8
        raise InputError(f"{where}: not JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(prompt, dict):
        raise InputError(f"{where}: found no JSON object, expected a prompt")
    try:
        converted = {key: value if key == "group" else ids_of(tokenizer, key, value, where) for key, value in prompt.items()}
    except UnicodeEncodeError:
        raise InputError(f"{where}: found half of a surrogate pair, expected Unicode text") from None
    return json.dumps(converted) + "\n"


def run(args):
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(args.tokenizer)
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(f"{args.tokenizer}: not a tokenizer.json: {str(error).splitlines()[0]}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    with open(args.input, "rb") as lines:
        prompts = [convert(tokenizer, line, f"{args.input}: line {number}") for number, line in enumerate(lines, 1)]
    if not prompts:
        raise InputError(f"{args.input}: found no line, expected prompts")
    partial = f"{args.output}.partial-{os.getpid()}"
    try:
        with open(partial, "x", encoding="utf-8") as out:
            out.writelines(prompts)
        os.replace(partial, args.output)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    print(f"{ascii(args.output)[1:-1]}: {len(prompts)} prompts")


def main():
    def fail(message, status=1):
        print(f"prepare_task.py: error: {ascii(str(message))[1:-1]}", file=sys.stderr)
        sys.exit(status)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: fail(f"{message} (see --help)", 2)
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="tokenizer.json")
    parser.add_argument("--input", required=True, metavar="FILE", help="prompts as text, .jsonl")
    parser.add_argument("--output", required=True, metavar="FILE", help="prompts as ids, .jsonl; replaced if it is there")
    args = parser.parse_args()
    if os.path.exists(args.input) and os.path.exists(args.output) and os.path.samefile(args.input, args.output):
        fail("--output: found the input, expected another file", 2)
    try:
        run(args)
    except (InputError, OSError) as error:
        fail(error)
    except ImportError as error:
        fail(f"needs the Python package {error.name} (pip install tokenizers)")


if __name__ == "__main__":
    main()

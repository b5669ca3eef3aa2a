#!/usr/bin/env python3
"""The text of the training study: documentation from Debian packages as documents, and a byte-level BPE learned from it.

    study_text.py --output DIR [--vocab-size 4096]

Reads what the packages linux-doc, python3-doc and perl-doc installed: reStructuredText and POD, each file a document. Writes
DIR/documents.jsonl, in an order that mixes the packages (by the checksum of the text), and DIR/tokenizer.json, a Hugging Face
tokenizer whose last token is <|endoftext|>. The versions of the packages decide the bytes; the sizes and checksums are printed.
Needs the Python package tokenizers.
"""

import argparse
import gzip
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

END = "<|endoftext|>"
SOURCES = {  # package: (folder, pattern)
    "linux-doc": ("/usr/share/doc", "linux-doc-*/**/*.rst.gz"),
    "python3-doc": ("/usr/share/doc", "python3.*/html/_sources/**/*.rst.txt"),
    "perl-doc": ("/usr/share/perl", "*/pod/*.pod"),
}


def documents():
    found = {}
    for package, (folder, pattern) in SOURCES.items():
        before = len(found)
        for file in Path(folder).glob(pattern):
            # A file may have two names (links between versions). It is one document.
            data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            text = data.decode("utf-8", errors="replace").replace("\r\n", "\n").strip()
            if len(text) >= 200:
                found[hashlib.sha256(text.encode()).hexdigest()] = text
        if len(found) == before:
            sys.exit(f"study_text.py: error: {folder}/{pattern}: found no files, expected the package {package}")
        print(f"{package}: {len(found) - before} documents")
    return [text for _, text in sorted(found.items())]


def learn(texts, vocab_size):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END])
    return tokenizer


def write(file, text):
    with tempfile.TemporaryDirectory(prefix=".study_text-", dir=file.parent) as place:  # its name is new
        (Path(place) / file.name).write_text(text, encoding="utf-8")
        os.replace(Path(place) / file.name, file)
    print(f"{file}: {file.stat().st_size} bytes, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--vocab-size", type=int, default=4096, metavar="N", help="tokens, <|endoftext|> among them")
    args = parser.parse_args()
    if not 300 <= args.vocab_size <= 65536:
        parser.error(f"--vocab-size: found {args.vocab_size}, expected 300 to 65536")
    directory = Path(args.output)
    texts = documents()
    tokenizer = learn(texts, args.vocab_size)
    directory.mkdir(parents=True, exist_ok=True)
    write(directory / "tokenizer.json", tokenizer.to_str())
    write(directory / "documents.jsonl", "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Text to token shards with a Hugging Face tokenizer.json.

    prepare_data.py --tokenizer tokenizer.json --input FILE... --output DIR

Input: .txt (a file is a document) and .jsonl (a line is a document, its text under --field), either also .gz or .xz; .parquet
with pyarrow; - is JSON lines on standard input. Output: DIR/train-00000.bin, train-00001.bin, ... and DIR/valid.bin, of every
--valid-every-th document, in the format of data/formats/shard.md, and DIR/tokens.json, which says how they were made. The
end-of-document token follows each document. Special tokens in the text are tokenised as plain text.
Documents are read one by one, so the input may be larger than memory. Needs the Python packages tokenizers and numpy.
"""

import argparse
import contextlib
import gzip
import hashlib
import json
import lzma
import os
import sys
import time
from pathlib import Path

BATCH_CHARACTERS = 4 << 20  # text that is tokenized at once
MAX_DOCUMENT_BYTES = 256 << 20  # a tokenizer needs some 100 times a document's size
MAX_SHARD_TOKENS = 2**31 - 1  # the header stores the count as int32
HEADER_INTS = 256


class InputError(Exception):
    """Bad input, in one line: where, what was found, what was expected."""


# ---- reading ---------------------------------------------------------------------------------------------------------


def open_bytes(name):
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(Path(name).suffix, open)
    return contextlib.nullcontext(sys.stdin.buffer) if name == "-" else opener(name, "rb")


def decode(data, where):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte {error.start}: found 0x{data[error.start]:02x}, expected UTF-8") from None


def read_json_lines(name, field):
    with open_bytes(name) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{name}:{number}"
            try:
                record = json.loads(decode(line, where))
            except json.JSONDecodeError as error:
                raise InputError(f"{where}: column {error.colno}: not JSON ({error.msg})") from None
            text = record.get(field) if isinstance(record, dict) else None
            if not isinstance(text, str):
                raise InputError(f"{where}: found no text under '{field}', expected an object with that key")
            yield text


def read_text(name):
    with open_bytes(name) as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InputError(f"{name}: found more than {MAX_DOCUMENT_BYTES >> 20} MiB in one document, expected documents (.jsonl)")
    yield decode(data, name)


def read_parquet(name, field):
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{name}: reading Parquet needs the Python package pyarrow") from None
    try:
        file = pyarrow.parquet.ParquetFile(name)
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{name}: not a Parquet file ({str(error).splitlines()[0]})") from None
    if field not in file.schema_arrow.names:
        raise InputError(f"{name}: found columns {', '.join(file.schema_arrow.names)}, expected one named '{field}'")
    for batch in file.iter_batches(batch_size=256, columns=[field]):
        yield from (text for text in batch.column(0).to_pylist() if text)


def read_documents(names, field):
    for name in names:
        kinds = [suffix for suffix in Path(name).suffixes if suffix not in (".gz", ".xz")]
        kind = ".jsonl" if name == "-" else kinds[-1] if kinds else ""
        try:
            if kind in (".jsonl", ".json"):
                yield from read_json_lines(name, field)
            elif kind == ".parquet":
                yield from read_parquet(name, field)
            elif kind == ".txt":
                yield from read_text(name)
            else:
                raise InputError(f"{name}: found a name ending in '{kind}', expected .txt, .jsonl (also .gz, .xz) or .parquet")
        except (OSError, EOFError, lzma.LZMAError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise InputError(f"{name}: cannot read: {reason}") from None


def batches(documents):
    batch, characters = [], 0
    for text in documents:
        if not text:
            continue
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


# ---- writing ---------------------------------------------------------------------------------------------------------


class Shards:
    """Shards of at most `limit` tokens: NAME-00000.bin, ..., or NAME.bin alone without a limit. Written under temporary
    names; publish() gives them their own once everything is done, discard() removes them."""

    def __init__(self, directory, name, limit, dtype):
        self.directory, self.name, self.limit, self.dtype = directory, name, limit, dtype
        self.files, self.total = [], 0  # [partial path, final path, tokens]
        self.out = None

    def append(self, ids):
        import numpy as np

        ids = np.asarray(ids, dtype=self.dtype)
        while len(ids):
            if self.out is None:
                self.start()
            room = (self.limit or MAX_SHARD_TOKENS) - self.files[-1][2]
            part, ids = ids[:room], ids[room:]
            self.out.write(part.tobytes())
            self.files[-1][2] += len(part)
            self.total += len(part)
            if len(part) == room:
                self.finish()

    def start(self):
        if self.files and not self.limit:
            raise InputError(f"{self.name}.bin: more than {MAX_SHARD_TOKENS} tokens, expected fewer: choose a larger --valid-every")
        final = self.directory / (f"{self.name}-{len(self.files):05d}.bin" if self.limit else f"{self.name}.bin")
        partial = final.with_name(f".{final.name}.partial")
        self.out = open(partial, "wb")
        self.out.write(bytes(4 * HEADER_INTS))
        self.files.append([partial, final, 0])

    def finish(self):
        import numpy as np

        header = np.zeros(HEADER_INTS, dtype="<i4")
        header[:3] = [20240520, 1, self.files[-1][2]] if self.dtype.itemsize == 2 else [20240801, 7, self.files[-1][2]]
        self.out.seek(0)
        self.out.write(header.tobytes())
        self.out.flush()
        os.fsync(self.out.fileno())
        self.out.close()
        self.out = None

    def publish(self):
        if self.out:
            self.finish()
        for partial, final, _ in self.files:
            partial.rename(final)

    def discard(self):
        if self.out:
            with contextlib.suppress(OSError):
                self.out.close()
        for partial, _, _ in self.files:
            partial.unlink(missing_ok=True)


# ---- the command -------------------------------------------------------------------------------------------------------


def load_tokenizer(args):
    import numpy as np
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(args.tokenizer)
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(f"{args.tokenizer}: not a tokenizer.json: {str(error).splitlines()[0]}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    end = tokenizer.token_to_id(args.end_of_document)
    if end is None:
        raise InputError(f"{args.tokenizer}: found no token '{args.end_of_document}', expected --end-of-document TOKEN of it")
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    return tokenizer, end, largest + 1, np.dtype("<u2") if largest < 2**16 else np.dtype("<u4")


def check_output(directory):
    for pattern in ("train-*.bin", "valid.bin", "tokens.json"):
        for file in directory.glob(pattern):
            raise InputError(f"{file}: exists, expected a directory without shards (a pattern would take old and new together)")


def run(args):
    tokenizer, end, vocab_size, dtype = load_tokenizer(args)
    directory = Path(args.output)
    check_output(directory)
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    train = Shards(directory, "train", args.shard_tokens, dtype)
    valid = Shards(directory, "valid", None, dtype)
    documents, started = 0, time.monotonic()
    try:
        for batch in batches(read_documents(args.input, args.field)):
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                documents += 1
                held_out = args.valid_every and documents % args.valid_every == 0
                (valid if held_out else train).append([*encoding.ids, end])
            seconds = time.monotonic() - started
            tokens = train.total + valid.total
            print(f"{documents} documents, {tokens} tokens, {tokens / seconds:.0f} tokens/s", file=sys.stderr)
        if not train.total:
            raise InputError("found no documents in the input, expected at least one")
        if args.valid_every and not valid.total:
            raise InputError(f"found {documents} documents, expected --valid-every {args.valid_every} or more (0: no validation shard)")
        for shards in (train, valid):
            shards.publish()
    except BaseException:
        for shards in (train, valid):
            shards.discard()
        if is_new:
            directory.rmdir()
        raise
    summary = {
        "vocab_size": vocab_size, "end_of_document": end, "documents": documents,
        "train_tokens": train.total, "valid_tokens": valid.total,
        "tokenizer_sha256": hashlib.sha256(Path(args.tokenizer).read_bytes()).hexdigest(),
        "input_files": len(args.input),
    }
    (directory / "tokens.json").write_text(json.dumps(summary, indent=2) + "\n")
    for _, final, tokens in train.files + valid.files:
        print(f"{final}: {tokens} tokens")
    print(f"model.vocab_size must be at least {vocab_size}; end of document is {end}")


def main():
    def count(text):
        value = int(text)
        if not 0 <= value <= MAX_SHARD_TOKENS:
            raise ValueError
        return value

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="tokenizer.json")
    parser.add_argument("--input", required=True, nargs="+", metavar="FILE", help=".txt, .jsonl, .parquet or -")
    parser.add_argument("--output", required=True, metavar="DIR", help="directory for the shards, without any yet")
    parser.add_argument("--field", default="text", help="key or column that holds the text (default: text)")
    parser.add_argument("--end-of-document", default="<|endoftext|>", metavar="TOKEN", help="default: <|endoftext|>")
    parser.add_argument("--shard-tokens", type=count, default=100_000_000, metavar="N", help="default: 100000000")
    parser.add_argument("--valid-every", type=count, default=200, metavar="N",
                        help="every N-th document is for validation (default: 200; 0: none)")
    args = parser.parse_args()
    if args.shard_tokens < 1:
        parser.error("--shard-tokens: found 0, expected at least 1")
    try:
        run(args)
    except (InputError, OSError) as error:
        sys.exit(f"prepare_data.py: error: {error}")
    except ImportError as error:
        sys.exit(f"prepare_data.py: error: needs the Python package {error.name} (pip install tokenizers numpy)")


if __name__ == "__main__":
    main()

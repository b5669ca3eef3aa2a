#!/usr/bin/env python3
"""Text to token shards with a Hugging Face tokenizer.json.

    prepare_data.py --tokenizer tokenizer.json --input FILE... --output DIR

Input: .txt (a file is a document) and .jsonl (a line is a document, its text under --field), either also .gz, .bz2 or .xz;
.parquet with pyarrow; - is JSON lines on standard input. Output: DIR/train-00000.bin, train-00001.bin, ... and DIR/valid.bin, of
every --valid-every-th document, in the format of data/formats/shard.md, and DIR/tokens.json, which says how they were made. The
end-of-document token follows each document. Special tokens in the text are tokenised as plain text.
Documents are read one by one, so the input may be larger than memory. Needs the Python package tokenizers. Wrong input stops the
work: the documents before it are kept, and the exit status is 1. With --on-error skip it is left out, counted and listed.
"""

import argparse
import array
import bz2
import contextlib
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import zlib
from pathlib import Path

BATCH_CHARACTERS = 4 << 20  # text that is tokenized at once
MAX_DOCUMENT_BYTES = 256 << 20  # a tokenizer needs some 100 times a document's size
MAX_SHARD_TOKENS = 2**31 - 1  # the header stores the count as int32
MAX_LISTED = 1000  # errors that tokens.json lists
HEADER_INTS = 256
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error)  # what readers raise


class InputError(Exception):
    """In one line: where, what was found, what was expected."""


def progress(text):
    with contextlib.suppress(OSError, AttributeError):  # standard error may be closed or full
        print(text, file=sys.stderr, flush=True)


def printable(text):
    """The text without what would steer a terminal, on one line."""
    text = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# ---- reading: each document is its text, or an InputError where there is none ---------------------------------------------


def open_bytes(name):
    if name == "-":
        if sys.stdin is None:
            raise InputError("-: standard input is closed")
        return contextlib.nullcontext(sys.stdin.buffer)
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise InputError(f"{name}: found no regular file, expected one (- reads JSON lines from a pipe)")
    return OPENERS.get(Path(name).suffix, open)(name, "rb")


def check_size(data, where):
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InputError(f"{where}: found more than {MAX_DOCUMENT_BYTES >> 20} MiB in one document, expected several (.jsonl)")


def decode(data, where):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte {error.start}: found 0x{data[error.start]:02x}, expected UTF-8") from None


def text_of_json(line, field, where):
    try:
        record = json.loads(decode(line, where))
    except (RecursionError, ValueError) as error:  # also too many brackets, or digits
        raise InputError(f"{where}: not JSON ({str(error).splitlines()[0]})") from None
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(f"{where}: found no text under '{field}', expected an object with that key")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: character {error.start}: found {ascii(text[error.start])} without its other half, "
                         "expected Unicode text") from None
    return text


def read_json_lines(name, field):
    with open_bytes(name) as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_DOCUMENT_BYTES + 1), b""), 1):
            line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            check_size(line, f"{name}:{number}")
            if line.strip():
                try:
                    yield text_of_json(line, field, f"{name}:{number}")
                except InputError as error:
                    yield error


def read_text(name):
    with open_bytes(name) as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    check_size(data, name)
    if (nul := data.find(b"\0")) >= 0:
        raise InputError(f"{name}: byte {nul}: found a NUL byte, expected text")
    yield decode(data.removeprefix(BYTE_ORDER_MARK), name)


def text_of_value(value, where):
    with contextlib.suppress(UnicodeDecodeError):
        if isinstance(text := value.as_py(), str):
            return text
    raise InputError(f"{where}: found {value.type} without text in UTF-8, expected text")


def read_parquet(name, field):
    import pyarrow.parquet

    row = 0
    open_bytes(name).close()
    try:
        file = pyarrow.parquet.ParquetFile(name)
        if field not in file.schema_arrow.names:
            raise InputError(f"{name}: found columns {', '.join(file.schema_arrow.names)}, expected one named '{field}'")
        for batch in file.iter_batches(batch_size=256, columns=[field]):
            for value in batch.column(0):
                row += 1
                try:
                    yield text_of_value(value, f"{name}: row {row}")
                except InputError as error:
                    yield error
    except pyarrow.ArrowException as error:
        raise InputError(f"{name}: after row {row}: not a Parquet file ({str(error).splitlines()[0]})") from None


def read_file(name, field):
    kind = ".jsonl" if name == "-" else ([""] + [suffix for suffix in Path(name).suffixes if suffix not in OPENERS])[-1]
    readers = {".jsonl": read_json_lines, ".json": read_json_lines, ".parquet": read_parquet, ".txt": lambda file, _: read_text(file)}
    if kind not in readers:
        raise InputError(f"{name}: found a name ending in '{kind}', expected .txt, .jsonl (also .gz, .bz2, .xz) or .parquet")
    count = 0
    try:
        for document in readers[kind](name, field):
            count += 1
            yield document
    except DAMAGED as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{name}: cannot read: {reason} (after {count} documents)") from None


def read_documents(names, field):
    for name in names:
        try:
            yield from read_file(name, field)
        except InputError as error:
            yield error


class Errors:
    """What to do about wrong input: stop at the first, or leave it out, count it and list it."""

    def __init__(self, skip):
        self.skip, self.count, self.listed = skip, 0, []

    def add(self, error):
        self.count += 1
        self.listed += [printable(error)] * (len(self.listed) < MAX_LISTED)
        if self.skip and self.count <= MAX_LISTED:
            progress(f"prepare_data.py: left out: {self.listed[-1]}")

    def good(self, documents):
        for document in documents:
            if isinstance(document, str):
                yield document
            else:
                self.add(document)
            if self.count and not self.skip:
                return


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


class Place:
    """A directory of its own within the output directory, where files are until they are complete. One process at a time."""

    PREFIX = ".prepare_data-partial-"

    def __init__(self, directory):
        self.directory, self.is_new = directory, not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
        self.lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory}: another process writes shards there") from None
        except OSError:
            pass  # no locks on this file system
        for file in (file for pattern in ("train-*.bin", "valid.bin", "tokens.json") for file in directory.glob(pattern)):
            raise InputError(f"{file}: exists, expected a directory without shards (a pattern would take old and new together)")
        for killed in directory.glob(f"{self.PREFIX}*"):
            if not killed.is_symlink():
                shutil.rmtree(killed, ignore_errors=True)
        self.partial = Path(tempfile.mkdtemp(prefix=self.PREFIX, dir=directory))

    def publish(self):
        for file in sorted(self.partial.iterdir()):  # tokens.json before the shards: a file without shards is no data
            file.rename(self.directory / file.name)

    def close(self):
        shutil.rmtree(self.partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            if self.is_new:
                self.directory.rmdir()  # unless files were published
        os.close(self.lock)


class Shards:
    """Shards of at most `limit` tokens: NAME-00000.bin, ..., or NAME.bin alone without a limit."""

    def __init__(self, directory, name, limit, width):
        self.directory, self.name, self.limit, self.width = directory, name, limit, width
        self.files, self.total = [], 0  # [path, tokens]
        self.out = None

    def append(self, ids):
        ids = array.array("H" if self.width == 2 else "I", ids)
        if sys.byteorder == "big":
            ids.byteswap()
        while len(ids):
            if self.out is None:
                self.start()
            room = (self.limit or MAX_SHARD_TOKENS) - self.files[-1][1]
            part, ids = ids[:room], ids[room:]
            self.out.write(part.tobytes())
            self.files[-1][1] += len(part)
            self.total += len(part)
            if len(part) == room:
                self.finish()

    def start(self):
        if self.files and not self.limit:
            raise InputError(f"{self.name}.bin: more than {MAX_SHARD_TOKENS} tokens, expected fewer: choose a larger --valid-every")
        file = self.directory / (f"{self.name}-{len(self.files):05d}.bin" if self.limit else f"{self.name}.bin")
        self.out = open(file, "xb")
        self.out.write(bytes(4 * HEADER_INTS))
        self.files.append([file, 0])

    def finish(self):
        header = [20240520, 1, self.files[-1][1]] if self.width == 2 else [20240801, 7, self.files[-1][1]]
        self.out.seek(0)
        self.out.write(b"".join(word.to_bytes(4, "little") for word in header))
        self.out.flush()
        os.fsync(self.out.fileno())
        self.out.close()
        self.out = None


# ---- the command -------------------------------------------------------------------------------------------------------


def load_tokenizer(args):
    from tokenizers import Tokenizer

    try:
        if not stat.S_ISREG(os.stat(args.tokenizer).st_mode):
            raise InputError(f"{args.tokenizer}: found no regular file, expected a tokenizer.json")
        tokenizer = Tokenizer.from_file(args.tokenizer)
    except (InputError, OSError):
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(f"{args.tokenizer}: not a tokenizer.json: {str(error).splitlines()[0]}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    end = tokenizer.token_to_id(args.end_of_document)
    if end is None:
        raise InputError(f"{args.tokenizer}: found no token '{args.end_of_document}', expected --end-of-document TOKEN of it")
    return tokenizer, end, max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def write_shards(args, tokenizer, end, train, valid, errors):
    """Returns the number of documents."""
    documents, started = 0, time.monotonic()
    for batch in batches(errors.good(read_documents(args.input, args.field))):
        try:
            encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        except Exception as error:  # the library raises bare Exceptions
            errors.add(f"documents {documents + 1} to {documents + len(batch)}: the tokenizer failed: {error}")
            continue  # errors.good() ends if it is to
        for encoding in encodings:
            documents += 1
            held_out = args.valid_every and documents % args.valid_every == 0
            (valid if held_out else train).append([*encoding.ids, end])
        seconds = time.monotonic() - started
        tokens = train.total + valid.total
        progress(f"{documents} documents, {tokens} tokens, {tokens / seconds:.0f} tokens/s")
    for shards in (train, valid):
        if shards.out:
            shards.finish()
    if not train.total:
        raise InputError(errors.listed[0] if errors.count else "found no documents in the input, expected at least one")
    if args.valid_every and not valid.total and not errors.count:
        raise InputError(f"found {documents} documents, expected --valid-every {args.valid_every} or more (0: no validation shard)")
    return documents


def run(args):
    tokenizer, end, vocab_size = load_tokenizer(args)
    width = 2 if vocab_size <= 2**16 else 4
    place = Place(Path(args.output))
    try:
        train = Shards(place.partial, "train", args.shard_tokens, width)
        valid = Shards(place.partial, "valid", None, width)
        errors = Errors(args.on_error == "skip")
        documents = write_shards(args, tokenizer, end, train, valid, errors)
        summary = {
            "vocab_size": vocab_size, "end_of_document": end, "documents": documents,
            "train_tokens": train.total, "valid_tokens": valid.total,
            "tokenizer_sha256": hashlib.sha256(Path(args.tokenizer).read_bytes()).hexdigest(),
            "input_files": len(args.input), "stopped_at_error": bool(errors.count) and not errors.skip,
            "error_count": errors.count, "errors": errors.listed,
        }
        (place.partial / "tokens.json").write_text(json.dumps(summary, indent=2) + "\n")
        place.publish()
    except OSError as error:  # the inputs' own are InputErrors
        raise InputError(f"{args.output}: cannot write: {error.strerror or error}") from None
    finally:
        place.close()
    for file, tokens in train.files + valid.files:
        print(f"{printable(place.directory / file.name)}: {tokens} tokens")
    print(f"model.vocab_size must be at least {vocab_size}; end of document is {end}")
    if summary["stopped_at_error"]:
        raise InputError(f"{errors.listed[0]} ({args.output} holds the {documents} documents before it; --on-error skip goes on)")
    if errors.count:
        progress(f"left out {errors.count} documents or files with errors (tokens.json lists {len(errors.listed)})")


def main():
    def fail(message, status=1):
        progress(f"prepare_data.py: error: {printable(message)}")
        sys.exit(status)

    def count(text):
        if not re.fullmatch("[0-9]{1,10}", text) or not 0 <= int(text) <= MAX_SHARD_TOKENS:
            raise argparse.ArgumentTypeError(f"found '{text}', expected a whole number from 0 to {MAX_SHARD_TOKENS}")
        return int(text)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: fail(f"{message} (see --help)", 2)
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="tokenizer.json")
    parser.add_argument("--input", required=True, nargs="+", metavar="FILE", help=".txt, .jsonl, .parquet or -")
    parser.add_argument("--output", required=True, metavar="DIR", help="directory for the shards, without any yet")
    parser.add_argument("--field", default="text", help="key or column that holds the text (default: text)")
    parser.add_argument("--end-of-document", default="<|endoftext|>", metavar="TOKEN", help="default: <|endoftext|>")
    parser.add_argument("--shard-tokens", type=count, default=100_000_000, metavar="N", help="default: 100000000")
    parser.add_argument("--valid-every", type=count, default=200, metavar="N",
                        help="every N-th document is for validation (default: 200; 0: none)")
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop",
                        help="wrong input: stop and keep the documents before it (default), or leave it out and go on")
    args = parser.parse_args()
    try:
        if args.shard_tokens < 1:
            fail("--shard-tokens: found 0, expected at least 1", 2)
        run(args)
    except (InputError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except ImportError as error:
        fail(f"needs the Python package {error.name} (pip install tokenizers, for Parquet also pyarrow)")


if __name__ == "__main__":
    main()

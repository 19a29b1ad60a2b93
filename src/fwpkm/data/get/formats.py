"""Text out of the formats that packages keep it in."""

import html
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

_BLOCKS = frozenset({
    "p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "dt", "dd", "table", "ul", "ol",
    "section", "blockquote", "hr", "title",
})  # fmt: skip
_UNSEEN = frozenset({"script", "style", "head", "nav"})


class _Text(HTMLParser):
    """Collects what a reader sees, blocks on lines of their own."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in _UNSEEN
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(self._unseen - (tag in _UNSEEN), 0)
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


def html_text(raw: bytes) -> str:
    """Return what a reader sees of a page."""
    parser = _Text()
    parser.feed(decode_old(raw))
    parser.close()
    lines = re.sub(r"[ \t]+\n", "\n", "".join(parser.parts))
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def decode_old(raw: bytes) -> str:
    """Decode UTF-8, or else Latin-1, in which every byte is a character."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def r_strings(database: bytes) -> list[str]:
    """Return each object of an R lazy-load database (.rdb) that is a vector of strings, as lines.

    An object is the length of what it unpacks to, in four bytes, then a zlib stream; inside, a string is the mark
    00 04 00 09, its length in four bytes, and its characters.
    """
    texts, at = [], 0
    while at + 4 < len(database):
        stream = zlib.decompressobj()
        content = stream.decompress(database[at + 4 :])
        at = len(database) - len(stream.unused_data)
        lines = _r_lines(content)
        if lines:
            texts.append("\n".join(lines) + "\n")
    return texts


def _r_lines(content: bytes) -> list[str]:
    lines, at, mark = [], 0, b"\x00\x04\x00\x09"
    while (found := content.find(mark, at)) >= 0:
        (length,) = struct.unpack_from(">i", content, found + 4)
        at = found + 8 + max(length, 0)  # -1 is R's missing string
        lines.append(content[found + 8 : at].decode("utf-8"))
    return lines


def sword_text(module: Path) -> str:
    """Return the whole text of a compressed SWORD module: both testaments, in order.

    For each testament there is an index of blocks (.bzs, .czs or .vzs; offset, packed and plain length, 4 bytes each)
    and the packed blocks (.bzz, ...).
    """
    blocks = []
    for testament in ("ot", "nt"):
        for index in sorted(module.glob(f"{testament}.[bcv]zs")):
            blocks += _sword_blocks(
                index.read_bytes(), index.with_suffix(index.suffix[:-1] + "z").read_bytes()
            )
    return "\n".join(blocks)


def _sword_blocks(index: bytes, packed: bytes) -> list[str]:
    places = (struct.unpack_from("<II", index, at) for at in range(0, len(index) - 11, 12))
    return [
        clean_osis(zlib.decompress(packed[start : start + length]).decode("utf-8", "replace"))
        for start, length in places
        if length
    ]


def clean_osis(text: str) -> str:
    """Drop notes and marks of an OSIS or ThML text, keeping its lines."""
    text = re.sub(r"<note.*?</note>", "", text, flags=re.DOTALL)
    text = re.sub(r"</?(p|div|lb|l|verse|chapter|title|br)\b[^>]*>", "\n", text)
    text = html.unescape(re.sub(r"<[^>]+>", "", text)).replace("\0", "")
    return re.sub(r"\n\s*\n+", "\n", re.sub(r"[ \t]+", " ", text)).strip() + "\n"


def plain_markdown(text: str) -> str:
    """Drop the marks of headings, emphasis and hard line ends."""
    return re.sub(r"\*\*|__|(?<=\s)_|_(?=\s)|^#+ ", "", text.replace("  \n", "\n"), flags=re.MULTILINE)


def slug(title: str) -> str:
    """Turn a title into a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")

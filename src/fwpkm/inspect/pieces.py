"""The text of each token of a document, for eyes."""

from collections.abc import Sequence

from fwpkm.data.tokenizer import Tokenizer

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_LONGEST = 8
"""Tokens that one character is cut into, at most."""


def token_pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return each token's text; tokens that share a character have it at the first, and "" at the others.

    Joined, they are the text, but for special tokens, which leave no trace.
    """
    texts = [word_text(tokenizer, token) for token in ids]
    place = 0
    while place < len(texts):
        if _BROKEN in texts[place]:
            place = _mend(tokenizer, ids, texts, place)
        place += 1
    return texts


def word_text(tokenizer: Tokenizer, token: int) -> str:
    """Return one token's text as valid Unicode, "" of a special one."""
    return clean(tokenizer.token_text(int(token)))


def clean(text: str) -> str:
    """Replace lone surrogates, which some tokenizers carry and no file may hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _mend(tokenizer: Tokenizer, ids: Sequence[int], texts: list[str], first: int) -> int:
    """Find the tokens that are whole together; returns the last of them, or the first if there are none."""
    for stop in range(first + 2, min(first + _LONGEST, len(ids)) + 1):
        whole = tokenizer.decode(list(ids[first:stop]))
        if _BROKEN not in whole:
            texts[first:stop] = [clean(whole)] + [""] * (stop - first - 1)
            return stop - 1
    return first

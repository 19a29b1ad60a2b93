"""What needles are hidden in: prose, or random words."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int

from fwpkm.data.documents import TokenDocuments
from fwpkm.data.tokenizer.protocol import Tokenizer

SYLLABLES = (
    "ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su", "ta",
    "ve", "wi", "zo", "ka", "le", "mi", "no", "pu", "ra", "se", "ti",
)  # fmt: skip


@runtime_checkable
class Haystack(Protocol):
    """A supply of filler tokens."""

    def take(self, length: int, generator: torch.Generator) -> Int[np.ndarray, " T"]:
        """Return exactly `length` tokens, decided by the generator alone."""


class ProseHaystack:
    """Runs of text from documents; a longer run than any document goes on in the next one.

    Args:
        documents: Where the text comes from. The end-of-text tokens are left out.
    """

    def __init__(self, documents: TokenDocuments) -> None:
        self.documents = documents
        self._text = documents.lengths - 1

    def take(self, length: int, generator: torch.Generator) -> Int[np.ndarray, " T"]:
        """Return a run from inside one document if one is long enough, every such run being equally likely.

        Raises:
            ValueError: If all documents together are too short.
        """
        room = np.maximum(self._text - length + 1, 0)
        if room.any():
            ends = np.cumsum(room)
            place = _below(int(ends[-1]), generator)
            document = int(np.searchsorted(ends, place, side="right"))
            start = int(self.documents.offsets[document] + place - (ends[document - 1] if document else 0))
            return self.documents.slice(start, start + length)
        return self._joined(length, generator)

    def _joined(self, length: int, generator: torch.Generator) -> Int[np.ndarray, " T"]:
        if (total := int(self._text.sum())) < length:
            raise ValueError(
                f"ProseHaystack: the documents must hold {length} tokens, got {total}; "
                "give longer documents or ask for a shorter haystack"
            )
        parts, held = [], 0
        for document in torch.randperm(len(self._text), generator=generator).tolist():
            parts.append(self.documents[document][:-1])
            if (held := held + len(parts[-1])) >= length:
                break
        start = _below(held - length + 1, generator)
        return np.concatenate(parts)[start : start + length]


class WordHaystack:
    """Random words, so that nothing but the needles can be learned by heart.

    Args:
        tokenizer: Turns words into tokens.
        words: What to draw from, uniformly; None makes 484 words of two syllables.
    """

    def __init__(self, tokenizer: Tokenizer, words: Sequence[str] | None = None) -> None:
        words = [a + b for a in SYLLABLES for b in SYLLABLES] if words is None else words
        self._words = [tokenizer.encode(f" {word}", continuing=True) for word in words]

    def take(self, length: int, generator: torch.Generator) -> Int[np.ndarray, " T"]:
        """Return random words, the last one cut short."""
        drawn = torch.randint(len(self._words), (max(length, 1),), generator=generator).tolist()
        parts, held = [np.zeros(0, np.int64)], 0
        for word in drawn:
            if held >= length:
                break
            parts.append(self._words[word])
            held += len(parts[-1])
        return np.concatenate(parts)[:length]


class Breaks:
    """Finds places in a stream of tokens where a sentence can be put without tearing a word.

    Args:
        tokenizer: Tells what the tokens say.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        texts = [tokenizer.token_text(token) for token in range(tokenizer.vocab_size)]
        self._ends_sentence = np.array([text.endswith((".", "!", "?", '"', "”")) for text in texts])
        self._starts_word = np.array([text[:1].isspace() for text in texts])

    def nearest(self, tokens: Int[np.ndarray, " T"], place: int, *, reach: int) -> int:
        """Return the end of a sentence nearest to `place`, else the nearest gap between words, else `place`.

        Args:
            tokens: The stream.
            place: Where one would like to cut: before token `place`.
            reach: How many tokens away the cut may be, at most.
        """
        low, high = max(place - reach, 1), min(place + reach, len(tokens) - 1)
        if place in (0, len(tokens)) or low > high:
            return place
        cuts = np.arange(low, high + 1)
        cuts = cuts[np.argsort(np.abs(cuts - place), kind="stable")]
        gap = self._starts_word[tokens[cuts]]
        for good in (gap & self._ends_sentence[tokens[cuts - 1]], gap):
            if good.any():
                return int(cuts[good][0])
        return place


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))

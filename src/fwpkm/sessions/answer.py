"""The text of an answer while its tokens come in."""

from collections.abc import Sequence

from fwpkm.data.tokenizer import Tokenizer

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class AnswerText:
    """Turns tokens into text as soon as it is sure: no half characters, nothing that may be part of a stop."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._tokens: list[int] = []
        self._shown = 0
        self.text = ""
        """All of the answer so far."""
        self.ended = False
        """Whether the answer is over: an end token or a stop text came."""

    def add(self, token: int) -> str:
        """Take one more token; returns what can be shown now."""
        if token == self._tokenizer.eos_id:
            self.ended = True
            return self.finish()
        self._tokens.append(token)
        self.text = self._tokenizer.decode(self._tokens)
        found = [place for stop in self._stop if (place := self.text.find(stop)) >= 0]
        if found:
            self.text, self.ended = self.text[: min(found)], True
            return self._show(len(self.text))
        return self._show(len(self.text.rstrip(_BROKEN)) - self._held_back())

    def finish(self) -> str:
        """Return what was held back."""
        return self._show(len(self.text))

    def _held_back(self) -> int:
        """Count characters at the end that a stop text may begin with."""
        text = self.text.rstrip(_BROKEN)
        lengths = [n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return max(lengths, default=0)

    def _show(self, upto: int) -> str:
        new = self.text[self._shown : upto]
        self._shown = max(self._shown, upto)
        return new

"""Waiting tokens whose number the device counts, so that appending one is the same operations every time."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.memory.tokens import Tokens
from fwpkm.memory.waiting import Waiting
from fwpkm.ops.answer import put_token


class CountedLine(Waiting):
    """Waiting tokens in room that was made beforehand; appending edits them, and returns this line itself.

    `counts` stays what it was, whatever is appended: who replays the operations has to count.
    """

    __slots__ = ("_place", "_streams")

    def __init__(self, line: Waiting, capacity: int) -> None:
        packed = line._roomy(max(capacity, *line.counts, 0))
        super().__init__(packed, line.counts, [-1] * len(line.counts))
        self._streams: Int[Tensor, " B"] = torch.arange(len(line.counts), device=packed.device)
        self._place: Int[Tensor, " B"] = torch.tensor(line.counts, dtype=torch.int64).to(packed.device)

    def append(self, new: Float[Tensor, "B 1 W"], num_new: Sequence[int], capacity: int) -> "CountedLine":
        """Put one token of each stream behind its last one, and move that place on."""
        self._packed.index_put_((self._streams, self._place), new[:, 0])
        self._place += 1
        return self

    def append_tokens(self, new: Tokens, num_new: Sequence[int], capacity: int) -> Waiting:
        """Do so in one launch, where kernels run."""
        if put_token(*new.fields, self._packed, self._place):
            return self
        return super().append_tokens(new, num_new, capacity)

    def plain(self, num_appended: int) -> Waiting:
        """Return a copy of the tokens, `num_appended` of which came to each stream since this line began."""
        counts = [count + num_appended for count in self.counts]
        return Waiting.of(self._packed[:, : max(counts, default=0)].clone(), counts)

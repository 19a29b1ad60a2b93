"""Where the streams stand that read documents from end to end."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from fwpkm.data.shuffle import Shuffle, mix


class CarriedLanes:
    """Positions of `lanes` readers; lane j reads documents j, j + lanes, j + 2 lanes ... of an endless shuffled list.

    Args:
        lengths: Tokens of each document; those with fewer than two have no next token and are left out.
        lanes: Number of readers.
        stride: Tokens that each reads in a step.
        seed: Decides the order of the documents, another one each epoch.

    Raises:
        ValueError: If no document has two tokens.
    """

    def __init__(self, lengths: Int[np.ndarray, " D"], *, lanes: int, stride: int, seed: int) -> None:
        self._usable = np.flatnonzero(lengths >= 2)
        if not len(self._usable):
            raise ValueError("CarriedLanes: a document must have at least two tokens, got none that has")
        self._lengths, self._stride, self._seed = lengths, stride, seed
        self._turn = np.arange(lanes)
        self.document = np.array([self._nth(int(turn)) for turn in self._turn])
        self.offset = np.zeros(lanes, np.int64)

    def advance(self) -> None:
        """Move every lane on by one step, into its next document where no pair of tokens is left."""
        self.offset += self._stride
        for lane in np.flatnonzero(self.offset + 1 >= self._lengths[self.document]):
            self._turn[lane] += len(self._turn)
            self.document[lane] = self._nth(int(self._turn[lane]))
            self.offset[lane] = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain lists."""
        return {"turn": self._turn.tolist(), "offset": self.offset.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position.

        Raises:
            ValueError: If it is of another number of lanes.
        """
        if len(state["turn"]) != len(self._turn):
            raise ValueError(
                f"CarriedLanes: the position must be of {len(self._turn)} streams, got {len(state['turn'])}; "
                "carried streams cannot be resumed with another batch size"
            )
        self._turn = np.array(state["turn"])
        self.offset = np.array(state["offset"])
        self.document = np.array([self._nth(int(turn)) for turn in self._turn])

    def _nth(self, turn: int) -> int:
        epoch, place = divmod(turn, len(self._usable))
        order = Shuffle(size=len(self._usable), seed=mix(self._seed, epoch))
        return int(self._usable[order[place]])

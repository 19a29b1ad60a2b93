"""How many slots a stream uses, and how long ago what it reads was written."""

import numpy as np
from jaxtyping import Int


def read_ages(
    slots: Int[np.ndarray, "T J"], *, num_slots: int, chunk_size: int, lookahead: int
) -> Int[np.ndarray, "T J"]:
    """Return how many tokens ago what each read finds was put there; -1 where the slot was never written.

    The token that counts is the last one that read, and so rewrote, the slot in a chunk written by then. Chunk c
    is written once token (c + 1) C + l - 1 has been seen. A chunk's first l tokens read before that, with sub-keys
    that may have moved by the time these tokens are written: for them, what was read stands for what is written.
    """
    ages = np.empty_like(slots)
    last = np.full(num_slots, -1, dtype=np.int64)
    for begin in range(0, len(slots) + chunk_size, chunk_size):
        # Tokens that read between the write of the chunk that ended at `begin` and the next write.
        readers = np.arange(
            begin + lookahead if begin else 0, min(begin + chunk_size + lookahead, len(slots))
        )
        found = last[slots[readers]]
        ages[readers] = np.where(found < 0, -1, readers[:, None] - found)
        chunk = slots[begin : begin + chunk_size]
        writers = np.broadcast_to(np.arange(begin, begin + len(chunk))[:, None], chunk.shape)
        np.maximum.at(last, chunk, writers)
    return ages


def distinct_so_far(slots: Int[np.ndarray, "T J"], marks: Int[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
    """Count the distinct slots among the first `marks[i]` tokens."""
    _, first = np.unique(slots.ravel(), return_index=True)
    born = np.sort(first // slots.shape[1])
    return np.searchsorted(born, marks, side="left")

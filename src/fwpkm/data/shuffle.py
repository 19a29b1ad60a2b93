"""A random order of any length, of which any place can be had without the others."""

from dataclasses import dataclass

_ROUNDS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffle:
    """A permutation of range(size), drawn by `seed`: a Feistel network, walked until it lands in range."""

    size: int
    seed: int

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.size:
            raise IndexError(f"Shuffle: index must be in [0, {self.size}), got {index}")
        half = max(1, ((self.size - 1).bit_length() + 1) // 2)
        while True:
            index = _feistel(index, half, self.seed)
            if index < self.size:
                return index


def mix(*values: int) -> int:
    """Hash integers of any size into 63 bits, alike on every machine: seeds for independent draws."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = _scramble((state ^ (value & _MASK)) + 0x9E3779B97F4A7C15)
    return state >> 1


_MASK = (1 << 64) - 1


def _scramble(x: int) -> int:
    """Finish as splitmix64 does (Steele, Lea, Flood 2014)."""
    x &= _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def _feistel(index: int, half: int, seed: int) -> int:
    left, right = index >> half, index & ((1 << half) - 1)
    for number in range(_ROUNDS):
        left, right = right, left ^ (mix(seed, number, right) & ((1 << half) - 1))
    return left << half | right

"""What a soak found: memory and drift lap by lap, and what of it must not be. See soak.py."""

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fwpkm.files import write_json

MAX_RATIO = 2.0
"""How many times as far from float64 as blocks are the pieces may be, in float32 (fwpkm.testing.accuracy)."""
SPARE_BYTES = 16 << 20
"""How far a process's resident memory may move by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a stream is read: lap by lap, each lap cut anew."""

    tokens: int = 1_000_000
    """Of the whole stream, rounded up to whole laps."""
    lap: int = 16_384
    """Tokens between two looks at memory."""
    singles: int = 160
    """Tokens of each lap that are read one by one."""
    largest: int = 4_096
    """The largest piece."""
    block: int = 4_096
    """Tokens of the regular pieces that the others are compared with."""
    seed: int = 0
    """Decides how laps are cut."""

    def __post_init__(self) -> None:
        if not (1 <= self.block <= self.lap and self.largest >= 1 and 0 <= self.singles <= self.lap):
            raise ValueError(
                f"Plan: block and singles must fit into a lap, largest be at least 1, got {self}"
            )

    @property
    def num_laps(self) -> int:
        """Laps of the whole stream."""
        return -(-self.tokens // self.lap)

    def pieces(self, lap: int) -> list[int]:
        """Cut a lap: single tokens at one place, and sizes drawn evenly on a logarithmic scale around it."""
        draw = random.Random(f"{self.seed} {lap}")
        left, sizes = self.lap - self.singles, []
        while left:
            sizes.append(min(left, round(math.exp(draw.uniform(0, math.log(self.largest))))))
            left -= sizes[-1]
        place = draw.randrange(len(sizes) + 1)
        return [*sizes[:place], *[1] * self.singles, *sizes[place:]]

    def blocks(self) -> list[int]:
        """Cut a lap regularly."""
        whole, rest = divmod(self.lap, self.block)
        return [self.block] * whole + [rest] * (rest > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Memory after some tokens."""

    tokens: int
    state_bytes: int
    rows: int
    """Rows written, of all layers."""
    row_bytes: int
    """Bytes of these rows."""
    resident_bytes: int | None

    @property
    def other_bytes(self) -> int:
        """The state without the written rows."""
        return self.state_bytes - self.row_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far hidden states of one lap lie apart: root mean square over that of the states, and the worst token's."""

    tokens: int
    float64: float
    """Pieces from blocks, both in float64."""
    float64_worst: float
    pieces: float
    """Pieces in float32 from blocks in float64."""
    blocks: float
    """Blocks in float32 from blocks in float64."""
    apart: float
    """Pieces from blocks, both in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """What came out."""

    plan: Plan
    tolerance: float
    samples: tuple[Sample, ...]
    drifts: tuple[Drift, ...] = ()
    tokens_per_second: float
    calls: int
    origin: dict[str, str] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Say what does not hold."""
        found = [*memory_problems(self.samples), *drift_problems(self.drifts, self.tolerance)]
        if len(self.drifts) < len(self.samples):
            found.append(f"drift is known of {len(self.drifts)} of {len(self.samples)} laps only")
        return found

    def save(self, path: Path) -> None:
        """Write everything down, with a summary."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"problems": self.problems(), "summary": self.summary(), **asdict(self)})

    def summary(self) -> dict[str, Any]:
        """Return the figures that count."""
        warm, last = _warm(self.samples)[0], self.samples[-1]
        return {
            "tokens": last.tokens,
            "calls": self.calls,
            "tokens_per_second": self.tokens_per_second,
            "rows": last.rows,
            "row_bytes": last.row_bytes,
            "other_state_bytes": last.other_bytes,
            "resident_bytes_after_a_tenth": warm.resident_bytes,
            "resident_bytes_at_the_end": last.resident_bytes,
            "float64_drift": max((d.float64 for d in self.drifts), default=None),
            "float64_worst_token": max((d.float64_worst for d in self.drifts), default=None),
            "float32_pieces_from_float64": _rms([d.pieces for d in self.drifts]),
            "float32_blocks_from_float64": _rms([d.blocks for d in self.drifts]),
            "float32_pieces_from_blocks": _rms([d.apart for d in self.drifts]),
        }


def memory_problems(samples: Sequence[Sample]) -> list[str]:
    """Say what grew besides the written rows."""
    found, others = [], {s.other_bytes for s in samples}
    if len(others) > 1:
        found.append(f"the state without its rows must stay as large, got {sorted(others)} bytes")
    warm = _warm(samples)
    first, last = warm[0], warm[-1]
    if first.resident_bytes is not None and last.resident_bytes is not None:
        growth, allowed = last.resident_bytes - first.resident_bytes, last.row_bytes - first.row_bytes
        if growth > allowed + SPARE_BYTES:
            found.append(
                f"the process may grow by {allowed} bytes of rows and {SPARE_BYTES} of its own, got {growth} between "
                f"{first.tokens} and {last.tokens} tokens"
            )
    return found


def drift_problems(drifts: Sequence[Drift], tolerance: float) -> list[str]:
    """Say where pieces and blocks do not agree."""
    found = [
        f"pieces and blocks must agree to {tolerance:g} in float64, got {d.float64_worst:.1e} before token {d.tokens}"
        for d in drifts
        if not d.float64_worst <= tolerance
    ]
    pieces, blocks = _rms([d.pieces for d in drifts]), _rms([d.blocks for d in drifts])
    if not pieces <= MAX_RATIO * blocks:
        found.append(
            f"pieces in float32 may be {MAX_RATIO:g} times as far from float64 as blocks, got {pieces:.1e} and "
            f"{blocks:.1e}"
        )
    return found


def _warm(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Leave the first tenth out, in which code is loaded and storage finds its size."""
    return samples[len(samples) // 10 :]


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(x * x for x in values) / len(values)) if values else 0.0

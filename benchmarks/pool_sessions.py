"""Many sessions over one layer of the paper's size: what they take in a pool, against dense tables.

python benchmarks/pool_sessions.py --sessions 32 --tokens 4096 --out results/memory/sessions.json

Every session reads random tokens of its own and is parked. Bytes are those of the pool's blocks (empty places and
bookkeeping included) and of all else that parked sessions keep: slots, sub-keys, waiting tokens. Bytes of 256
sessions are those of one, 256 times. The exit code is 1 if a session that comes back holds other rows than it may,
or if 256 sessions with float32 rows take more than 1/7 of dense float32 tables, or with int8 rows more than 1/25.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fwpkm import FwPKM
from fwpkm.bench.measure import Timing, resident_bytes
from fwpkm.bench.shapes import find_shape
from fwpkm.files import write_json
from fwpkm.machine import describe_machine
from fwpkm.memory.pool import MemoryPool, Parked
from fwpkm.memory.quantise import RowFormat
from fwpkm.memory.state import FwPKMState

MOST = {"exact": 1 / 7, "int8": 1 / 25}
"""Of dense tables, by row format."""
LOSS = {"exact": 0.0, "int8": 0.01}
"""The largest relative error of rows that come back."""
_MANY = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """So many sessions in a pool."""

    rows: RowFormat
    sessions: int
    tokens: int
    """Read by each."""
    written: float
    """Share of all slots that a session wrote, on average."""
    total_bytes: int
    """Of all sessions together."""
    many_bytes: int
    """Of 256 of them."""
    many_dense_bytes: int
    """Of 256 dense tables with float32 rows."""
    resident_bytes: int | None
    """By which the process grew; None where Linux's /proc is not to be had."""
    loss: float
    """Largest relative error of a session's rows, once it came back."""
    park: Timing
    restore: Timing

    @property
    def ratio(self) -> float:
        """How many times more dense tables would take."""
        return self.many_dense_bytes / self.many_bytes

    @property
    def problems(self) -> list[str]:
        """Say what is not as it must be."""
        found = []
        if self.many_bytes > MOST[self.rows] * self.many_dense_bytes:
            found.append(
                f"{self.rows}: 1/{self.ratio:.1f} of dense tables, at most {MOST[self.rows]:.3f} allowed"
            )
        if self.loss > LOSS[self.rows]:
            found.append(f"{self.rows}: rows come back with an error of {self.loss:.2g}")
        return found


def hold(layer: FwPKM, *, rows: RowFormat, sessions: int, tokens: int, seed: int) -> Held:
    """Let sessions read, park them all, and look at what that takes; some are restored and compared."""
    pool, before = MemoryPool(rows=rows), resident_bytes()
    parked: list[Parked[FwPKMState]] = []
    park, restore = list[float](), list[float]()
    loss = written = 0.0
    for number in range(sessions):
        state = _read(layer, tokens, seed + number)
        written += state.table.num_rows / layer.config.num_slots / sessions
        start = time.perf_counter()
        parked.append(pool.park(state))
        park.append(time.perf_counter() - start)
        if number % 8 == 0:
            start = time.perf_counter()
            back = parked[-1].restore()
            restore.append(time.perf_counter() - start)
            loss = max(loss, _loss(back, state))
    own = sum(session.num_bytes for session in parked)
    return Held(
        rows=rows,
        sessions=sessions,
        tokens=tokens,
        written=written,
        total_bytes=own + pool.num_bytes,
        many_bytes=round((own + pool.num_bytes) / sessions * _MANY),
        many_dense_bytes=_MANY * layer.config.num_slots * layer.config.value_dim * 4,
        resident_bytes=None if before is None else (resident_bytes() or 0) - before,
        loss=loss,
        park=Timing.of(park),
        restore=Timing.of(restore),
    )


@torch.no_grad()
def _read(layer: FwPKM, tokens: int, seed: int) -> FwPKMState:
    draw = torch.Generator().manual_seed(seed)
    _, state = layer(torch.randn(1, tokens, layer.config.dim, generator=draw))
    return state


def _loss(back: FwPKMState, state: FwPKMState) -> float:
    """Measure how far rows are from what they were; infinite where others are written."""
    cells = state.table.written()
    if not torch.equal(cells, back.table.written()):
        return float("inf")
    rows = state.table.gather(cells)
    return float((back.table.gather(cells) - rows).norm() / rows.norm())


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each format; returns 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", default="paper", help="the layer's size: paper, tiny")
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rows", nargs="+", choices=list(MOST), default=list(MOST))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    layer, found = FwPKM(find_shape(options.shape).config).eval(), list[Held]()
    for rows in options.rows:
        found.append(
            hold(layer, rows=rows, sessions=options.sessions, tokens=options.tokens, seed=options.seed)
        )
        print(_line(found[-1]), flush=True)
    if options.out is not None:
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        held = [{**asdict(row), "ratio": row.ratio} for row in found]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, {"command": command, "machine": describe_machine(), "rows": held})
    problems = [text for row in found for text in row.problems]
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


def _line(held: Held) -> str:
    return (
        f"{held.rows}: {held.sessions} sessions of {held.tokens:,} tokens, {held.written:.1%} of the slots each, "
        f"{held.total_bytes / held.sessions / 1e6:.1f} MB each; {_MANY} of them 1/{held.ratio:.1f} of dense tables;"
        f" parked in {held.park.median:.2f} s, back in {held.restore.median:.2f} s, error {held.loss:.2g}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""A memory that has learned nothing yet still memorises: the demonstration behind `fwpkm demo recall`."""

import torch
from torch import Tensor

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.memory.state import FwPKMState

LENGTHS = (64, 256, 1024, 4096, 16384, 65536)
CONFIG = FwPKMConfig(
    dim=64, num_subkeys=128, key_dim=64, value_dim=64, topk=4, chunk_size=64, key_std=1.0, query_norm="zscore",
    temperature=0.25, write_rule="exact", initial_values="zero", gate=False,
)  # fmt: skip


def recall_table(*, seed: int) -> str:
    """Stream random tokens through an untrained layer, ask for each token's successor, and tabulate."""
    lines = [
        f"An untrained layer, {CONFIG.num_slots:,} slots, chunks of {CONFIG.chunk_size}; it reads a random stream "
        "and is then asked,",
        "token by token, which one came next. Right: the answer is nearest to the true successor of all that came.",
        "",
        f"{'tokens':>8} {'right, one read':>16} {'two reads':>10} {'slots written':>14} {'state':>10}",
    ]
    for length in LENGTHS:
        torch.manual_seed(seed)
        layer = FwPKM(CONFIG)
        once = _read(layer, layer.initial_state(1), stream := torch.randn(1, length, CONFIG.dim))
        twice = _read(layer, once, stream)
        right = [_share_right(layer, state, stream) for state in (once, twice)]
        lines.append(
            f"{length:8,} {right[0]:16.1%} {right[1]:10.1%} {once.table.num_rows:14,} {once.num_bytes / 2**20:7.1f} MiB"
        )
    lines += ["", "A memory fresh from its layer knows nothing: " + _untouched(seed)]
    return "\n".join(lines)


@torch.no_grad()
def _read(layer: FwPKM, state: FwPKMState, stream: Tensor) -> FwPKMState:
    return layer(stream, state)[1].flush()


@torch.no_grad()
def _share_right(layer: FwPKM, state: FwPKMState, stream: Tensor, asked: int = 256) -> float:
    """Ask for the successors of `asked` tokens spread over the stream."""
    q, v, _ = layer.project(stream)
    place = torch.linspace(0, stream.shape[1] - 2, asked).long()
    answer, _ = state.advance(q[:, place], v[:, place], torch.zeros(1, asked))
    nearest = (answer[0] @ v[0].T).argmax(-1)
    return float((nearest == place + 1).float().mean())


def _untouched(seed: int) -> str:
    torch.manual_seed(seed)
    layer = FwPKM(CONFIG)
    return f"{_share_right(layer, layer.initial_state(1), torch.randn(1, 1024, CONFIG.dim)):.1%} right."

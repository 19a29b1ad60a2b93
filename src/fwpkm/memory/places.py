"""Lists to select by, made on the device once: where windows' tokens lie among all tokens, and which streams go on.

One pass instead of a slice per window; and no list of Python's is sent to the device, which would wait for it.
"""

from itertools import accumulate

import torch
from jaxtyping import Int
from torch import Tensor

from fwpkm.ops.core.schedule import Window
from fwpkm.ops.kept import kept


@kept
def listed(numbers: tuple[int, ...], device: torch.device) -> Int[Tensor, " P"]:
    """Return `numbers` on the device."""
    return torch.tensor(numbers, dtype=torch.int64, device=device)


@kept
def written_places(
    windows: tuple[Window, ...], num_streams: int, num_tokens: int, ahead: int, device: torch.device
) -> Int[Tensor, " Tw"]:
    """Number what lies `ahead` tokens behind the windows' written ones, in tokens [B*L]."""
    streams = num_tokens * torch.arange(num_streams, device=device)[:, None]
    spans = [(win.start + ahead, win.start + ahead + win.num_written) for win in windows]
    return torch.cat([(streams + torch.arange(a, b, device=device)).flatten() for a, b in spans])


@kept
def leading_places(
    reads: tuple[int, ...], writes: tuple[int, ...], device: torch.device
) -> Int[Tensor, " Tw"]:
    """Number the first writes[c] of every reads[c], which follow each other."""
    starts = accumulate(reads, initial=0)
    spans = [(start, start + count) for start, count in zip(starts, writes, strict=False)]
    return torch.cat([torch.arange(first, last, device=device) for first, last in spans])


@kept
def answer_places(
    windows: tuple[Window, ...], num_streams: int, device: torch.device
) -> Int[Tensor, " answers"]:
    """Number first answers, stream after stream; in a window all streams' written tokens come before the others."""
    lengths = [num_streams * win.num_tokens for win in windows]
    starts = accumulate(lengths, initial=0)
    parts = [_of_window(start, win, num_streams, device) for start, win in zip(starts, windows, strict=False)]
    return torch.cat(parts, dim=1).flatten()


def _of_window(start: int, win: Window, B: int, device: torch.device) -> Tensor:
    m, rest = win.num_written, win.num_tokens - win.num_written
    stream = torch.arange(B, device=device)[:, None]
    own = start + m * stream + torch.arange(m, device=device)
    others = start + B * m + rest * stream + torch.arange(rest, device=device)
    return torch.cat((own, others), dim=1)[:, win.num_repeated :]

"""How much arithmetic a decoder needs for a token, part by part."""

from collections.abc import Callable
from typing import Any

from torch import nn

from fwpkm.layers.attention import Attention
from fwpkm.layers.conv import ShortConv
from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNet
from fwpkm.layers.lact import LaCT
from fwpkm.layers.pkm import ProductKeyMemory
from fwpkm.models.base_config import BaseConfig
from fwpkm.models.decoder import Decoder
from fwpkm.models.parts import HEAD, PARTS, parts_of
from fwpkm.ops.lact.torch import NEWTON_SCHULZ

Number = int | float


def forward_flops(model: Decoder | BaseConfig, tokens: int) -> dict[str, float]:
    r"""Count the floating-point operations of the forward pass over one stream, as a mean per token.

    Products and their sums count, two operations each; what is done number by number (norms, gates, softmax, rotary
    embedding, searching the best scores) does not. With T tokens, and writes taken as evenly spread:

        projection                   2 in out
        convolution                  2 K channels
        attention                    4 H Dh (mean number of tokens seen, the token itself included)
        Gated DeltaNet               6 H Dk Dv           k S, the outer product, q S, as its recurrence is defined
        LaCT                         attention + 18 H d F   6 to read, 12 to write
        PKM                          2 H n Dk + 2 H k Dv    scores of 2 n sub-keys, rows read
        FwPKM, read                  the same
        FwPKM, write                 2 H k Dv + 2 H k Dk    rows, and the kept sub-keys where there is a key loss
        fast-weight MLP              12 F Dk + 8 F Dv       read, read again to write, gradients
        head                         2 D V

    A backward pass costs about twice as much again. An implementation may spend more: chunked forms of the delta
    rule do, and a FwPKM answers `lookahead` tokens of every chunk twice.

    Args:
        model: The decoder; one on the meta device will do. Of a base, its memories are counted.
        tokens: T, at least 1.

    Raises:
        ValueError: If `tokens` is below 1.
    """
    if tokens < 1:
        raise ValueError(f"forward_flops: tokens must be at least 1, got tokens={tokens}")
    found: dict[str, float] = dict.fromkeys((part for part, _ in parts_of(model)), 0.0)
    for part, module in parts_of(model):
        found[part] += sum(_own_flops(child, tokens) for child in module.modules())
    if isinstance(model, Decoder):
        found[HEAD] = 2.0 * model.head_weight.numel()
    return {part: found[part] for part in PARTS if found.get(part)}


def mean_seen(tokens: int, window: int | None) -> float:
    """Return how many tokens a token attends to, itself included: the mean over a stream's first `tokens`."""
    reach = tokens if window is None else min(tokens, window)
    return (reach * (reach + 1) / 2 + (tokens - reach) * reach) / tokens


def _own_flops(module: nn.Module, tokens: int) -> float:
    """Count what a module does besides what its submodules do."""
    for kind, count in _FLOPS.items():
        if isinstance(module, kind):
            return float(count(module, tokens))
    return 0.0


def _linear(layer: nn.Linear, tokens: int) -> Number:
    return 2 * layer.weight.numel()


def _short_conv(layer: ShortConv, tokens: int) -> Number:
    return 2 * layer.weight.numel()


def _attention(layer: Attention, tokens: int) -> Number:
    config = layer.config
    return 4 * config.num_heads * config.head_dim * mean_seen(tokens, config.window)


def _gated_delta_net(layer: GatedDeltaNet, tokens: int) -> Number:
    config = layer.config
    return 6 * config.num_value_heads * config.key_head_dim * config.value_head_dim


def _lact(layer: LaCT, tokens: int) -> Number:
    config = layer.config
    H, d, F = config.num_fast_heads, config.fast_head_dim, config.fast_hidden_dim
    small, large = sorted((d, F))
    near = 4 * config.width * mean_seen(tokens, config.window)
    iteration = 2 * (2 * small**2 * large + small**3)
    muon = 3 * H * len(NEWTON_SCHULZ) * iteration / config.chunk_size if config.update == "muon" else 0.0
    return near + 18 * H * d * F + muon


def _pkm(layer: ProductKeyMemory, tokens: int) -> Number:
    config = layer.config
    H, n, k = config.num_heads, config.num_subkeys, config.topk
    return 2 * H * (n * config.key_dim + k * config.value_dim)


def _fwpkm(layer: FwPKM, tokens: int) -> Number:
    config = layer.config
    H, k, Dk, Dv = config.num_heads, config.topk, config.key_dim, config.value_dim
    read = 2 * H * (config.num_subkeys * Dk + k * Dv)
    key_step = 0 if config.key_loss == "none" else 2 * H * k * Dk
    through_memory = 2 * H * k * Dv if config.key_loss in ("memory", "both") else 0
    return read + 2 * H * k * Dv + key_step + through_memory


def _fast_mlp(layer: FastWeightMLP, tokens: int) -> Number:
    F, Dk, Dv = layer.config.hidden_dim, layer.config.key_dim, layer.config.value_dim
    forward = 2 * (2 * F * Dk + F * Dv)
    return (
        3 * forward + 2 * F * Dv
    )  # read, read again for the write, gradients of the weights and of the hidden layer


_FLOPS: dict[type[nn.Module], Callable[[Any, int], Number]] = {
    nn.Linear: _linear,
    ShortConv: _short_conv,
    Attention: _attention,
    GatedDeltaNet: _gated_delta_net,
    LaCT: _lact,
    ProductKeyMemory: _pkm,
    FwPKM: _fwpkm,
    FastWeightMLP: _fast_mlp,
}

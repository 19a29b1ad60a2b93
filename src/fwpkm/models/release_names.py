"""The names and layouts under which the authors' checkpoints hold our weights."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from fwpkm.layers.attention import Attention
from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNet
from fwpkm.layers.pkm import ProductKeyMemory
from fwpkm.memory.state import FwPKMState
from fwpkm.models.cache import MemoryState
from fwpkm.models.decoder import Decoder

_FRAME = {
    "memory.gate_norm.": "fw_out_gate_norm.",
    "memory.gate_proj.": "fw_out_gate.",
    "memory.out_norm.": "fw_out_norm.",
    "memory.out_proj.": "fw_out_proj.",
    "memory.q_norm.": "fw_q_norm.",
    "memory.q_proj.": "fw_q_proj.",
    "memory.v_norm.": "fw_v_norm.",
    "memory.v_proj.": "fw_v_proj.",
}
_FAST = {
    "memory.initial_keys": "fwpkm.keys",
    "memory.initial_values": "fwpkm.values",
    **{f"memory.initial_{part}_bias": f"fwpkm.b_{part}" for part in ("up", "gate", "down")},
    **{f"memory.initial_{part}": f"fwpkm.w_{part}" for part in ("up", "gate", "down")},
}
_NORMS = {"mixer_norm.": "input_layernorm.", "ffn_norm.": "post_attention_layernorm."}
_MIXERS = {Attention: "self_attn.", GatedDeltaNet: "linear_attn."}
_PKM = {
    "ffn.query_proj.": "pkm.query_proj.query_mlps.0.",
    "ffn.query_norm.": "pkm.query_proj.norm.",
    "ffn.keys": "pkm.keys",
    "ffn.values": "pkm.values.weight",
    "ffn.value_proj.": "pkm.value_proj.",
    "ffn.gate_proj.": "pkm.swilu_projection.",
}
_OUTSIDE = {"embed.": "model.embed_tokens.", "norm.": "model.norm.", "lm_head.": "lm_head."}


def unreleased(model: Decoder) -> list[str]:
    """Return the names of weights that the release has nothing like."""
    names = [name for name, _ in model.named_parameters()]
    return [name for name in names if _renamed_or_none(model, name) is None]


def slow_weights(model: Decoder) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every slow weight with the release's name for it."""
    for name, p in model.named_parameters():
        released = release_name(model, name)
        if ".fwpkm." not in released:
            yield released, p


def initial_fast_weights(model: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Yield what fresh memories start from, with the release's names for it."""
    for layer, block in enumerate(model.blocks):
        memory = block.memory
        if isinstance(memory, FwPKM | FastWeightMLP):
            for name, x in _initial(memory).items():
                yield release_name(model, f"blocks.{layer}.memory.initial_{name}"), x


def _initial(memory: FwPKM | FastWeightMLP) -> dict[str, Tensor]:
    if isinstance(memory, FastWeightMLP):
        return {part: getattr(memory, f"initial_{part}") for part in _MLP_PARTS}
    values = memory.initial_values
    if values is None:  # a table of zeros is not held
        values = memory.initial_keys.new_zeros(memory.config.num_slots, memory.config.value_dim)
    return {"keys": memory.initial_keys, "values": values}


def final_fast_weights(state: MemoryState) -> dict[str, Tensor]:
    """Return a memory's fast weights in `state`, under the names of its initial ones."""
    if isinstance(state, FwPKMState):
        return {"initial_keys": state.keys[0], "initial_values": state.table.dense()[0]}
    return {f"initial_{part}": getattr(state.fast, part)[0] for part in _MLP_PARTS}


def release_name(model: Decoder, name: str) -> str:
    """Return the release's name for one of ours.

    Raises:
        ValueError: If the release has no such weight.
    """
    if (released := _renamed_or_none(model, name)) is None:
        raise ValueError(f"release_tensors: the authors' release has nothing like our {name!r}")
    return released


def to_release_layout(name: str, x: Tensor) -> Tensor:
    """Lay one of our tensors out as the release does: sub-keys head by head, then by half, in one matrix."""
    return x.transpose(0, 1).flatten(0, 2) if name.endswith(".keys") else x


def from_release_layout(name: str, x: Tensor, like: Tensor) -> Tensor:
    """Undo `to_release_layout`, given a tensor of the wanted shape."""
    if not name.endswith(".keys"):
        return x
    _, H, n, half = like.shape
    return x.view(H, 2, n, half).transpose(0, 1)


def _block_names(block: nn.Module) -> dict[str, str]:
    kind = type(block.mixer)
    mixer = {"mixer.": _MIXERS[kind]} if kind in _MIXERS else {}
    ffn = _PKM if isinstance(block.ffn, ProductKeyMemory) else {"ffn.": "mlp."}
    return {**_FRAME, **_FAST, **_NORMS, **mixer, **ffn}


def _renamed_or_none(model: Decoder, name: str) -> str | None:
    if not name.startswith("blocks."):
        return _renamed(name, _OUTSIDE)
    _, layer, rest = name.split(".", 2)
    inside = _renamed(rest, _block_names(model.blocks[int(layer)]))
    return None if inside is None else f"model.layers.{layer}.{inside}"


def _renamed(name: str, prefixes: Mapping[str, str]) -> str | None:
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return None


_MLP_PARTS = ("up", "up_bias", "gate", "gate_bias", "down", "down_bias")

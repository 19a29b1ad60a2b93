"""The parts of a decoder under the names that a table of them shows."""

from collections.abc import Iterator
from typing import get_args

import torch
from torch import nn

from fwpkm.layers.attention import Attention
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNet
from fwpkm.layers.pkm import ProductKeyMemory
from fwpkm.models.base_config import BaseConfig
from fwpkm.models.block import Block
from fwpkm.models.config import DecoderConfig, MixerKind
from fwpkm.models.decoder import Decoder

EMBEDDING, HEAD, NORMS, SHORT_CONV = "embedding", "head", "norms", "short convolutions"
FEED_FORWARD, PKM, FWPKM, FAST_MLP = "feed-forward", "product key memory", "FwPKM", "fast-weight MLP"
MIXERS = {kind: kind.replace("_", " ").replace("lact", "LaCT") for kind in get_args(MixerKind)}
PARTS = (EMBEDDING, SHORT_CONV, FWPKM, FAST_MLP, *MIXERS.values(), FEED_FORWARD, PKM, NORMS, HEAD)
"""All parts, in the order in which tokens meet them."""


def meta_decoder(config: DecoderConfig) -> Decoder:
    """Build a decoder that has shapes but no numbers, which takes no memory at any size."""
    with torch.device("meta"):
        return Decoder(config)


def parts_of(model: Decoder | BaseConfig) -> Iterator[tuple[str, nn.Module]]:
    """Walk through the modules that make up a decoder, each with its part's name; no two overlap.

    Of an existing model that is given memories, these are walked through alone, and have no numbers.
    """
    if isinstance(model, BaseConfig):
        with torch.device("meta"):
            memories = [FwPKM(model.memory) for _ in model.layers]
        yield from ((FWPKM, memory) for memory in memories)
        return
    yield EMBEDDING, model.embed
    for block in model.blocks:
        assert isinstance(block, Block)
        yield from _parts_of_block(block)
    yield NORMS, model.norm
    if not model.config.tie_embeddings:
        yield HEAD, model.lm_head


def _parts_of_block(block: Block) -> Iterator[tuple[str, nn.Module]]:
    if block.conv is not None:
        yield SHORT_CONV, block.conv
        yield NORMS, block.conv_norm
    if block.memory is not None:
        yield FWPKM if isinstance(block.memory, FwPKM) else FAST_MLP, block.memory
    yield _mixer_name(block.mixer), block.mixer
    yield PKM if isinstance(block.ffn, ProductKeyMemory) else FEED_FORWARD, block.ffn
    yield NORMS, block.mixer_norm
    yield NORMS, block.ffn_norm


def _mixer_name(mixer: nn.Module) -> str:
    if isinstance(mixer, Attention):
        return MIXERS["full_attention" if mixer.config.window is None else "sliding_attention"]
    return MIXERS["gated_delta_net" if isinstance(mixer, GatedDeltaNet) else "lact"]

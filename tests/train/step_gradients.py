"""A small decoder, and the gradients of one step of its training."""

import torch
from torch import Tensor

from fwpkm.data.batches import Batch
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.train.config import TrainConfig
from fwpkm.train.parallel import Group
from fwpkm.train.step import StepRunner

MEMORY = {"num_subkeys": 8, "key_dim": 8, "value_dim": 8, "topk": 2, "chunk_size": 4}


def decoder(**settings: object) -> Decoder:
    torch.manual_seed(0)
    sizes = {"vocab_size": 17, "dim": 8, "num_layers": 2, "swiglu": {"hidden_dim": 8}}
    attention = {"window": 6, "head_dim": 4, "num_heads": 2, "num_kv_heads": 2}
    config = {**sizes, "mixers": ["sliding_attention"], "attention": attention, **settings}
    return Decoder(DecoderConfig.from_dict(config))


def gradients(model: Decoder, data: Batch, **settings: object) -> list[Tensor]:
    model.zero_grad(set_to_none=False)
    config = TrainConfig(steps=1, **settings)  # type: ignore[arg-type]
    StepRunner(model, config, Group(), torch.device("cpu")).run(data, 0, [None] * config.accumulate)
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]

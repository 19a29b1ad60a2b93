"""Every field of the layer's config does something, and nonsense is refused with all its reasons."""

import re
from dataclasses import fields

import pytest
import torch

from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.testing.inputs import make_hidden, make_layer, small_config
from fwpkm.testing.states import in_pieces, state_numbers
from fwpkm.testing.unchecked import build_unchecked

# field: (its other value, what else must be set on both sides for it to matter)
CHANGES = {
    "dim": (6, {}),
    "num_subkeys": (6, {}),
    "key_dim": (4, {}),
    "value_dim": (5, {}),
    "num_heads": (1, {}),
    "topk": (2, {}),
    "chunk_size": (3, {}),
    "lookahead": (2, {}),
    "score": ("dot", {}),
    "temperature": (0.5, {}),
    "learn_temperature": (True, {}),
    "key_std": (1.0, {}),
    "weights": ("silu", {}),
    "query_norm": ("l2", {}),
    "query_norm_over": ("all", {"query_norm": "zscore"}),
    "value_norm": ("none", {}),
    "gate": (False, {}),
    "gate_logits": (2, {}),
    "gate_weighted_loss": (False, {}),
    "write_rule": ("exact", {}),
    "value_lr": (0.5, {}),
    "key_lr": (0.5, {}),
    "key_loss": ("none", {}),
    "addressing_weight": (0.5, {}),
    "border": ("dropped", {}),
    "weight_decay": (0.1, {}),
    "clip_gradients": (True, {"addressing_weight": 50.0}),
    "table": ("batch", {}),
    "initial_values": ("zero", {}),
    "initial_keys": ("learned", {}),
    "table_dtype": ("bfloat16", {}),
    "sparse_grad": (True, {"initial_values": "learned"}),
    "table_seed": (1, {}),
    "norm_eps": (0.1, {}),
    "bias": (False, {}),
    "check_inputs": (True, {}),
}


def fingerprint(**changes):
    """Return all that a config could change: weights, outputs, states, kinds of gradients, answers to NaN."""
    torch.manual_seed(0)
    seed = changes.pop("table_seed", 0)
    layer = make_layer(seed, **changes)
    torch.manual_seed(0)
    for name, p in sorted(layer.named_parameters()):
        if not name.startswith("initial"):
            torch.nn.init.normal_(p, std=0.5) if name != "log_temperature" else p
    x = make_hidden(layer, 2, 11)
    y, state = in_pieces(lambda s, x: layer(x, s), None, (x,), [slice(0, 6), slice(6, 11)])
    y.sum().backward()
    try:
        layer(x * float("nan"))
        refuses = False
    except ValueError:
        refuses = True
    tensors = {"y": y.detach(), **state_numbers(state)}
    grads = [
        (n, tuple(p.shape), None if p.grad is None else p.grad.layout) for n, p in layer.named_parameters()
    ]
    return {name: x.tolist() for name, x in tensors.items()}, grads, refuses


@pytest.mark.parametrize("field", [f.name for f in fields(FwPKMConfig)])
def test_every_field_changes_something(field):
    value, needed = CHANGES[field]
    assert getattr(small_config(**needed), field) != value
    assert fingerprint(**needed, **{field: value}) != fingerprint(**needed)


def test_equal_configs_change_nothing():
    assert fingerprint() == fingerprint()


def test_every_field_of_the_arithmetic_reaches_it():
    for field, (value, needed) in CHANGES.items():
        config = small_config(**needed, **{field: value})
        if hasattr(config.core, field):
            assert getattr(config.core, field) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got dim=0"),
        ({"num_subkeys": 0}, "num_subkeys must be at least 1, got num_subkeys=0"),
        ({"key_dim": 0}, "key_dim must be at least 2, got key_dim=0"),
        ({"value_dim": 0}, "value_dim must be at least 1, got value_dim=0"),
        ({"num_heads": 0}, "num_heads must be at least 1, got num_heads=0"),
        ({"gate_logits": 0}, "gate_logits must be at least 1, got gate_logits=0"),
        ({"temperature": 0.0}, "temperature must be above 0, got temperature=0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, got temperature=nan"),
        ({"key_std": -1.0}, "key_std must be above 0, got key_std=-1.0"),
        ({"norm_eps": 0.0}, "norm_eps must be above 0, got norm_eps=0.0"),
        ({"query_norm": "max"}, "query_norm must be one of none, l2, zscore, got query_norm='max'"),
        ({"query_norm_over": "half"}, "query_norm_over must be one of head, all, got query_norm_over='half'"),
        ({"value_norm": "max"}, "value_norm must be one of none, l2, zscore, got value_norm='max'"),
        ({"table": "world"}, "table must be one of stream, batch, got table='world'"),
        ({"table_dtype": "int4"}, "table_dtype must be one of float32, bfloat16, got table_dtype='int4'"),
        (
            {"initial_values": "one"},
            "initial_values must be one of random, zero, learned, got initial_values='one'",
        ),
        ({"initial_keys": "zero"}, "initial_keys must be one of random, learned, got initial_keys='zero'"),
        ({"key_dim": 5}, "key_dim must be even, its halves meet the two sets of sub-keys; got 5"),
        ({"topk": 6}, "topk must not exceed num_subkeys, got topk=6 and num_subkeys=5"),
        ({"value_dim": 1}, "value_norm='zscore' needs value_dim of at least 2, got value_dim=1; use 'none'"),
        (
            {"key_dim": 2, "query_norm": "zscore"},
            "query_norm='zscore' needs halves of width 2 at least, got width 1",
        ),
        (
            {"sparse_grad": True},
            "sparse_grad=True needs initial_values='learned'; nothing else has a gradient",
        ),
        ({"topk": 0}, "topk must be at least 1, got topk=0"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got chunk_size=0"),
        ({"lookahead": -1}, "lookahead must be at least 0, got lookahead=-1"),
    ],
    ids=str,
)
def test_nonsense_is_refused_with_its_reason(change, message):
    good = {f.name: getattr(small_config(), f.name) for f in fields(FwPKMConfig)}
    with pytest.raises(ValueError, match=re.escape(message)):
        build_unchecked(FwPKMConfig, **{**good, **change})


def test_all_reasons_are_given_at_once():
    with pytest.raises(
        ValueError, match=r"^FwPKMConfig: dim must.*; key_dim must be even.*; topk must not exceed"
    ):
        small_config(dim=0, key_dim=5, topk=9)


def test_the_defaults_are_the_papers():
    config = FwPKMConfig(dim=768)
    assert (config.num_slots, config.topk, config.num_heads) == (512 * 512, 8, 1)
    assert (config.key_dim, config.value_dim, config.chunk_size, config.lookahead) == (512, 512, 512, 1)
    assert (config.score, config.write_rule, config.value_lr, config.gate_logits) == ("idw", "paper", 1.0, 1)

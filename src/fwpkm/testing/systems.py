"""One tiny decoder config of every kind that the package knows, for tests."""

from typing import Any

from fwpkm.models.config import DecoderConfig

_SECTIONS: dict[str, dict[str, Any]] = {
    "attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "rope": {"fraction": 0.5}},
    "gated_delta_net": {
        "num_key_heads": 2,
        "num_value_heads": 2,
        "key_head_dim": 8,
        "value_head_dim": 8,
        "conv_kernel_size": 3,
    },
    "lact": {
        "num_heads": 4,
        "head_dim": 4,
        "window": 6,
        "num_fast_heads": 2,
        "initial_rank": 2,
        "chunk_size": 5,
        "base_lr": 0.1,
    },
    "swiglu": {"hidden_dim": 32},
    "pkm": {"num_subkeys": 8, "key_dim": 8, "value_dim": 16, "num_heads": 2, "topk": 3},
    "fwpkm": {"num_subkeys": 8, "key_dim": 8, "value_dim": 12, "topk": 3, "chunk_size": 5, "key_std": 1.0},
    # With the default step size these small networks diverge within 20 tokens.
    "fwmlp": {"hidden_dim": 12, "key_dim": 8, "value_dim": 10, "chunk_size": 4, "lr": 0.03},
    "short_conv": {"kernel_size": 3},
}
_WINDOWED = {**_SECTIONS["attention"], "window": 6}
_SYSTEMS: dict[str, dict[str, Any]] = {
    "full": {"mixers": ["full_attention"], "attention": _SECTIONS["attention"]},
    "sliding_fwpkm": {
        "mixers": ["sliding_attention"],
        "attention": _WINDOWED,
        "fwpkm": {**_SECTIONS["fwpkm"], "temperature": 0.5},
        "fwpkm_layers": [0, 2],
    },
    "delta_fwmlp": {"mixers": ["gated_delta_net"], "fwmlp": _SECTIONS["fwmlp"], "fwmlp_layers": [1]},
    "lact": {"mixers": ["lact"], "lact": _SECTIONS["lact"]},
    "mixed": {
        "mixers": ["gated_delta_net", "gated_delta_net", "full_attention"],
        "attention": _SECTIONS["attention"],
        "pkm": _SECTIONS["pkm"],
        "pkm_layers": [1],
        "fwpkm": {
            **_SECTIONS["fwpkm"],
            "learn_temperature": True,
            "initial_values": "learned",
            "lookahead": 2,
        },
        "fwpkm_layers": [0, 2],
        "memory_position": "after",
        "short_conv": _SECTIONS["short_conv"],
        "tie_embeddings": False,
    },
}
SYSTEMS = tuple(_SYSTEMS)
"""Names of the configs that `make_system` knows."""


def make_system(name: str, **changes: Any) -> DecoderConfig:
    """Return a decoder config of three layers with 40 tokens, whose logits are far apart."""
    mapping = {"vocab_size": 40, "dim": 16, "num_layers": 3, "initializer_range": 0.4, **_SYSTEMS[name]}
    if "gated_delta_net" in mapping["mixers"]:
        mapping["gated_delta_net"] = _SECTIONS["gated_delta_net"]
    mapping["swiglu"] = _SECTIONS["swiglu"]
    return DecoderConfig.from_dict({**mapping, **changes})

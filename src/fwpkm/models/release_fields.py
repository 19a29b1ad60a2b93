"""The fields of the authors' configs: what is taken where one is left out, and which values we can compute."""

from collections.abc import Mapping
from typing import Any

from fwpkm.nested import unknown_name

DEFAULTS: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "partial_rotary_factor": 0.25,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "layer_types": None,
    "full_attention_interval": 4,
    "sliding_window": None,
    "pkm_layers": None,
    "pkm_k_dim": 512,
    "pkm_v_dim": 512,
    "pkm_heads": 4,
    "pkm_topk": 32,
    "pkm_n_subkeys": 512,
    "pkm_query_rmsnorm": True,
    "fwpkm_layers": None,
    "fwpkm_k_dim": 512,
    "fwpkm_v_dim": 512,
    "fwpkm_heads": 1,
    "fwpkm_topk": 8,
    "fwpkm_n_subkeys": 512,
    "fwpkm_variant": "pkm",
    "fwpkm_before_attn": True,
    "fwpkm_update_chunk_size": 512,
    "fwpkm_loss_type": "mse",
    "fwpkm_optimizer_type": "sgd",
    "fwpkm_optimizer_lr": 1.0,
    "fwpkm_optimizer_weight_decay": 0.0,
    "fwpkm_grad_clip": False,
    "fwpkm_addr_loss": "me",
    "fwpkm_addr_loss_weight": 1.0,
    "fwpkm_weight_loss_with_gates": True,
    "fwpkm_mem_grad_to_values_only": True,
    "fwpkm_query_src": "hidden",
    "fwpkm_value_src": "hidden",
    "fwpkm_compress_query": None,
    "fwpkm_compress_value": "zero_mean",
    "fwpkm_target_value_lookahead": 1,
    "fwpkm_score_nonlinear": "softmax",
    "fwpkm_qk_score_type": "idw",
    "fwpkm_score_temperature": 1.0,
    "fwpkm_out_fuse_gate": True,
}
"""What the release takes for a field that is not there."""

NO_EFFECT = (
    "architectures",
    "auto_map",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "fwpkm_fp32_fw",  # ours never computes a memory in less than float32
    "fwpkm_target_lookahead",  # a misnomer in the authors' files
    "max_window_layers",
    "model_type",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "use_sliding_window",
)
"""Fields of the authors' files that change no number."""

CHOICES: dict[str, dict[Any, Any]] = {
    "hidden_act": {"silu": None},
    "attention_dropout": {0: None},
    "fwpkm_variant": {"pkm": None, "mlp": None},
    "fwpkm_loss_type": {"mse": None},
    "fwpkm_optimizer_type": {"sgd": None},
    "fwpkm_addr_loss": {None: False, "me": True},
    "fwpkm_query_src": {"hidden": None},
    "fwpkm_value_src": {"hidden": None},
    "fwpkm_compress_query": {None: "none", "l2norm": "l2", "zero_mean": "zscore"},
    "fwpkm_compress_value": {None: "none", "l2norm": "l2", "zero_mean": "zscore"},
    "fwpkm_score_nonlinear": {"softmax": "softmax", "silu": "silu", "relu": "relu"},
    "fwpkm_qk_score_type": {"idw": "idw", "dot_product": "dot"},
}
"""Values that we have the arithmetic for, and ours for each."""

MIXERS = {
    "linear_attention": "gated_delta_net",
    "full_attention": "full_attention",
    "sliding_attention": "sliding_attention",
}
"""Their names of token mixers, and ours."""

_KINDS: dict[str, type] = {
    "layer_types": list,
    "rope_scaling": dict,
    "sliding_window": int,
    "pkm_layers": list,
    "fwpkm_layers": list,
}
"""Types of the fields that may be None."""


def field_problems(config: Mapping[str, Any]) -> list[str]:
    """Say which fields are unknown, of another type, or hold what we can't compute."""
    known = [*DEFAULTS, *NO_EFFECT]
    problems = [unknown_name("field", name, known) for name in config if name not in known]
    for name, value in config.items():
        if name in CHOICES:
            # A list, because what a JSON file holds may not be hashable.
            if value not in list(CHOICES[name]):
                problems.append(f"{name} must be {' or '.join(map(repr, CHOICES[name]))}, got {value!r}")
        elif name in DEFAULTS and not _is_kind(name, value):
            kind = _KINDS.get(name, type(DEFAULTS[name])).__name__
            problems.append(f"{name} must be of type {kind}, got {value!r}")
    return problems


def _is_kind(name: str, value: object) -> bool:
    if name in _KINDS:
        return value is None or (isinstance(value, _KINDS[name]) and not isinstance(value, bool))
    kind = type(DEFAULTS[name])
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)

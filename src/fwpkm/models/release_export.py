"""From our decoder back to the authors' config fields, and what gets lost on the way, in either direction."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fwpkm.layers.attention import AttentionConfig
from fwpkm.layers.fwmlp import FastWeightMLPConfig
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.rope import RopeConfig
from fwpkm.models.config import DecoderConfig, MemoryConfig
from fwpkm.models.release_config import decoder_config
from fwpkm.models.release_fields import CHOICES, MIXERS

_NO_ARITHMETIC = (
    "backend",
    "check_inputs",
    "initial_keys",
    "initial_values",
    "initial_weights",
    "key_std",
    "sparse_grad",
    "table_seed",
    "weight_seed",
)
"""Fields that say where fresh numbers come from or how they are computed; a checkpoint holds the numbers."""


def release_fields(config: DecoderConfig) -> dict[str, Any]:
    """Return the authors' config fields that come nearest to `config`; `lost_in_release` says how near.

    Raises:
        ValueError: With all parts that the release has nothing like.
    """
    problems = [
        f"its mixers are {', '.join(MIXERS.values())}, not {kind}"
        for kind in dict.fromkeys(config.mixers)
        if kind not in MIXERS.values()
    ]
    if config.fwpkm_layers and config.fwmlp_layers:
        problems.append("a model has FwPKM or fast-weight MLPs, not both")
    if config.short_conv is not None:
        problems.append("it has no short convolution (short_conv)")
    if problems:
        raise ValueError(f"release_fields: the authors' release has no such model: {'; '.join(problems)}")
    return _fields(config)


def lost_in_release(config: DecoderConfig) -> list[str]:
    """Say what the release does otherwise than `config`, given `release_fields(config)`."""
    there = dict(_flat(decoder_config(release_fields(config)).to_dict()))
    here = dict(_flat(replace(config, mixers=_mixers(config)).to_dict()))
    return [
        f"{name}: {here.get(name, 'none')!r} here, {there.get(name, 'none')!r} in the release"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name) and name.rpartition(".")[2] not in _NO_ARITHMETIC
    ]


def lost_without_release(config: DecoderConfig) -> list[str]:
    """Say what a plain decoder does otherwise than the release, which a `ReleaseDecoder` of `config` imitates."""
    layers = sorted({*config.fwpkm_layers, *config.fwmlp_layers})
    if not layers:
        return []
    lost = [
        "fast weights: the release carries them on from batch to batch; here every batch starts from those in the "
        "file, unless the cache of the last one is passed on"
    ]
    masked = [i for i in layers if config.mixer_kind(i) != "gated_delta_net"]
    if masked:
        lost.append(
            f"attention kernel 'sdpa': there the release writes only the last window of a call in layers of sliding "
            f"attention, and counts other pairs in those of full attention; layers {masked} write as with 'flash'"
        )
    return lost


def _fields(config: DecoderConfig) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in MIXERS.items()}
    fields = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers,
        "layer_types": [names[kind] for kind in _mixers(config)],
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.initializer_range,
        "fwpkm_before_attn": config.memory_position == "before",
        "pkm_layers": list(config.pkm_layers),
        "fwpkm_layers": list(config.fwpkm_layers or config.fwmlp_layers),
    }
    if config.attention is not None:
        fields |= _attention(config.attention, sliding="sliding_attention" in config.mixers)
    if config.swiglu is not None:
        fields["intermediate_size"] = config.swiglu.hidden_dim
    memory = config.fwpkm or config.fwmlp
    return fields | _gated_delta_net(config) | _pkm(config) | ({} if memory is None else _memory(memory))


def _mixers(config: DecoderConfig) -> tuple[Any, ...]:
    return tuple(config.mixer_kind(layer) for layer in range(config.num_layers))


def _attention(config: AttentionConfig, *, sliding: bool) -> dict[str, Any]:
    return {
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "sliding_window": config.window if sliding else None,
        "attention_bias": config.bias,
        "rope_theta": config.rope.base,
        "partial_rotary_factor": config.rope.fraction,
        **_rope(config.rope),
    }


def _rope(config: RopeConfig) -> dict[str, Any]:
    if config.scaling == "linear":
        return {"rope_scaling": {"rope_type": "linear", "factor": config.factor}}
    if config.scaling != "yarn":
        return {"rope_scaling": None}
    assert config.original_length is not None, "RopeConfig lets no yarn through without it"
    scaling = {
        "rope_type": "yarn",
        "factor": config.factor,
        "beta_fast": config.beta_fast,
        "beta_slow": config.beta_slow,
    }
    longest = config.factor * config.original_length
    if longest != int(longest):
        return {"rope_scaling": scaling, "max_position_embeddings": config.original_length}
    scaling["original_max_position_embeddings"] = config.original_length
    return {"rope_scaling": scaling, "max_position_embeddings": int(longest)}


def _gated_delta_net(config: DecoderConfig) -> dict[str, Any]:
    if (section := config.gated_delta_net) is None:
        return {}
    return {
        "linear_num_key_heads": section.num_key_heads,
        "linear_num_value_heads": section.num_value_heads,
        "linear_key_head_dim": section.key_head_dim,
        "linear_value_head_dim": section.value_head_dim,
        "linear_conv_kernel_dim": section.conv_kernel_size,
    }


def _pkm(config: DecoderConfig) -> dict[str, Any]:
    if (section := config.pkm) is None:
        return {}
    return {
        "pkm_n_subkeys": section.num_subkeys,
        "pkm_k_dim": section.key_dim,
        "pkm_v_dim": section.value_dim,
        "pkm_heads": section.num_heads,
        "pkm_topk": section.topk,
        "pkm_query_rmsnorm": section.query_norm,
    }


def _memory(config: MemoryConfig) -> dict[str, Any]:
    shared = {
        "fwpkm_k_dim": config.key_dim,
        "fwpkm_v_dim": config.value_dim,
        "fwpkm_update_chunk_size": config.chunk_size,
        "fwpkm_target_value_lookahead": config.lookahead,
        "fwpkm_optimizer_weight_decay": config.weight_decay,
        "fwpkm_grad_clip": config.clip_gradients,
        "fwpkm_compress_query": _theirs("fwpkm_compress_query", config.query_norm),
        "fwpkm_compress_value": _theirs("fwpkm_compress_value", config.value_norm),
        "fwpkm_out_fuse_gate": config.gate,
    }
    return shared | (_fwpkm(config) if isinstance(config, FwPKMConfig) else _fwmlp(config))


def _fwmlp(config: FastWeightMLPConfig) -> dict[str, Any]:
    return {
        "fwpkm_variant": "mlp",
        "fwpkm_n_subkeys": config.hidden_dim,
        "fwpkm_heads": 1,
        "fwpkm_optimizer_lr": config.lr,
        "fwpkm_weight_loss_with_gates": False,
    }


def _fwpkm(config: FwPKMConfig) -> dict[str, Any]:
    entropy = config.key_loss in ("entropy", "both")
    return {
        "fwpkm_variant": "pkm",
        "fwpkm_n_subkeys": config.num_subkeys,
        "fwpkm_heads": config.num_heads,
        "fwpkm_topk": config.topk,
        "fwpkm_qk_score_type": _theirs("fwpkm_qk_score_type", config.score),
        "fwpkm_score_nonlinear": config.weights,
        "fwpkm_score_temperature": config.temperature,
        "fwpkm_weight_loss_with_gates": config.gate_weighted_loss and config.gate,
        "fwpkm_optimizer_lr": config.value_lr,
        "fwpkm_addr_loss": "me" if entropy else None,
        "fwpkm_addr_loss_weight": config.addressing_weight,
        "fwpkm_mem_grad_to_values_only": config.key_loss in ("entropy", "none"),
    }


def _theirs(field: str, ours: str) -> Any:
    return next(theirs for theirs, value in CHOICES[field].items() if value == ours)


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

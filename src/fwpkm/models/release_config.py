"""The authors' config fields, and what they are in ours."""

from collections.abc import Mapping
from typing import Any

from fwpkm.models.config import DecoderConfig
from fwpkm.models.release_fields import CHOICES, DEFAULTS, MIXERS, field_problems
from fwpkm.nested import unknown_name


def decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """Translate the authors' config fields into the decoder that trains as the release does.

    Raises:
        ValueError: With all unknown fields, each with the nearest real one, and all values that the
            release or we have no arithmetic for.
    """
    get = {**DEFAULTS, **config}
    if problems := field_problems(config):
        raise ValueError("from_release: " + "; ".join(problems))
    mixers, problems = _mixers(get)
    rope, more = _rope(get)
    problems += more + _combination_problems(get)
    if problems:
        raise ValueError("from_release: " + "; ".join(problems))
    return DecoderConfig.from_dict(_mapping(get, mixers, rope))


def _mapping(get: Mapping[str, Any], mixers: list[str], rope: dict[str, Any]) -> dict[str, Any]:
    pkm_layers, memory_layers = list(get["pkm_layers"] or ()), list(get["fwpkm_layers"] or ())
    memory = "fwpkm" if get["fwpkm_variant"] == "pkm" else "fwmlp"
    found: dict[str, Any] = {
        "vocab_size": get["vocab_size"],
        "dim": get["hidden_size"],
        "num_layers": get["num_hidden_layers"],
        "mixers": mixers,
        "norm_eps": get["rms_norm_eps"],
        "tie_embeddings": get["tie_word_embeddings"],
        "initializer_range": get["initializer_range"],
        "memory_position": "before" if get["fwpkm_before_attn"] else "after",
        "pkm_layers": pkm_layers,
        f"{memory}_layers": memory_layers,
    }
    if {"full_attention", "sliding_attention"} & set(mixers):
        found["attention"] = _attention(get, rope, sliding="sliding_attention" in mixers)
    if "gated_delta_net" in mixers:
        found["gated_delta_net"] = _gated_delta_net(get)
    if len(set(pkm_layers)) < get["num_hidden_layers"]:
        found["swiglu"] = {"hidden_dim": get["intermediate_size"]}
    if pkm_layers:
        found["pkm"] = _pkm(get)
    if memory_layers:
        found[memory] = _fwpkm(get) if memory == "fwpkm" else _fwmlp(get)
    return found


def _attention(get: Mapping[str, Any], rope: dict[str, Any], *, sliding: bool) -> dict[str, Any]:
    return {
        "num_heads": get["num_attention_heads"],
        "num_kv_heads": get["num_key_value_heads"],
        "head_dim": get["head_dim"],
        "window": get["sliding_window"] if sliding else None,
        "bias": get["attention_bias"],
        "norm_eps": get["rms_norm_eps"],
        "rope": rope,
    }


def _gated_delta_net(get: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_key_heads": get["linear_num_key_heads"],
        "num_value_heads": get["linear_num_value_heads"],
        "key_head_dim": get["linear_key_head_dim"],
        "value_head_dim": get["linear_value_head_dim"],
        "conv_kernel_size": get["linear_conv_kernel_dim"],
        "norm_eps": get["rms_norm_eps"],
        "arithmetic": "release",
    }


def _pkm(get: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_subkeys": get["pkm_n_subkeys"],
        "key_dim": get["pkm_k_dim"],
        "value_dim": get["pkm_v_dim"],
        "num_heads": get["pkm_heads"],
        "topk": get["pkm_topk"],
        "query_norm": get["pkm_query_rmsnorm"],
        "norm_eps": 1e-6,  # fixed in the release
    }


def _frame(get: Mapping[str, Any]) -> dict[str, Any]:
    """Return what FwPKM and the fast-weight MLP have in common."""
    return {
        "key_dim": get["fwpkm_k_dim"],
        "value_dim": get["fwpkm_v_dim"],
        "chunk_size": get["fwpkm_update_chunk_size"],
        "lookahead": get["fwpkm_target_value_lookahead"],
        "border": "dropped",
        "weight_decay": get["fwpkm_optimizer_weight_decay"],
        "clip_gradients": get["fwpkm_grad_clip"],
        "query_norm": _choice(get, "fwpkm_compress_query"),
        "value_norm": _choice(get, "fwpkm_compress_value"),
        "gate": get["fwpkm_out_fuse_gate"],
        "gate_logits": 8,
        "norm_eps": get["rms_norm_eps"],
    }


def _fwpkm(get: Mapping[str, Any]) -> dict[str, Any]:
    return _frame(get) | {
        "num_subkeys": get["fwpkm_n_subkeys"],
        "num_heads": get["fwpkm_heads"],
        "topk": get["fwpkm_topk"],
        "score": _choice(get, "fwpkm_qk_score_type"),
        "weights": _choice(get, "fwpkm_score_nonlinear"),
        "temperature": get["fwpkm_score_temperature"],
        "query_norm_over": "head" if get["fwpkm_compress_query"] is None else "all",
        "gate_weighted_loss": get["fwpkm_weight_loss_with_gates"],
        "write_rule": "release",
        "value_lr": get["fwpkm_optimizer_lr"],
        "key_lr": get["fwpkm_optimizer_lr"],
        "key_loss": _key_loss(get),
        "addressing_weight": get["fwpkm_addr_loss_weight"],
        "table": "batch",
    }


def _fwmlp(get: Mapping[str, Any]) -> dict[str, Any]:
    return _frame(get) | {
        "hidden_dim": get["fwpkm_n_subkeys"],
        "lr": get["fwpkm_optimizer_lr"],
        "target": "mean",
        "scope": "batch",
    }


def _choice(get: Mapping[str, Any], name: str) -> Any:
    return CHOICES[name][get[name]]


def _key_loss(get: Mapping[str, Any]) -> str:
    entropy = _choice(get, "fwpkm_addr_loss") and get["fwpkm_addr_loss_weight"] != 0
    if get["fwpkm_mem_grad_to_values_only"]:
        return "entropy" if entropy else "none"
    return "both" if entropy else "memory"


def _mixers(get: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return our name of every layer's token mixer, and problems."""
    types, num_layers = get["layer_types"], get["num_hidden_layers"]
    if types is None:
        rare = "full_attention" if get["sliding_window"] is None else "sliding_attention"
        if (every := get["full_attention_interval"]) < 1:
            return [], [f"full_attention_interval must be at least 1, got {every}"]
        types = [rare if (i + 1) % every == 0 else "linear_attention" for i in range(num_layers)]
    problems = [f"layer_types: {unknown_name('type', t, MIXERS)}" for t in types if t not in MIXERS]
    if len(types) != num_layers:
        problems.append(f"layer_types must name num_hidden_layers={num_layers} types, got {len(types)}")
    if "sliding_attention" in types and get["sliding_window"] is None:
        problems.append("sliding_window must be given, as some layer's type is sliding_attention")
    return [MIXERS.get(t, t) for t in types], problems


def _rope(get: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    rope = {"base": float(get["rope_theta"]), "fraction": get["partial_rotary_factor"]}
    scaling = dict(get["rope_scaling"] or {})
    kind = scaling.pop("rope_type", scaling.pop("type", "default"))
    scaling.pop("type", None)
    known = {"default": (), "linear": ("factor",), "yarn": ("factor", "beta_fast", "beta_slow")}
    if kind not in known:
        return rope, [f"rope_scaling: {unknown_name('rope_type', kind, known)}"]
    original = scaling.pop("original_max_position_embeddings", None) if kind == "yarn" else None
    problems = [
        f"rope_scaling: {unknown_name('field', n, known[kind])}" for n in scaling if n not in known[kind]
    ]
    longest = get["max_position_embeddings"]
    if original is not None and scaling.get("factor") != longest / original:
        problems.append(
            "rope_scaling: factor must be max_position_embeddings / original_max_position_embeddings = "
            f"{longest / original:g}, which transformers computes with, got {scaling.get('factor')}"
        )
    if kind != "default":
        rope |= {"scaling": kind} | scaling
    if kind == "yarn":
        rope["original_length"] = longest if original is None else original
    return rope, problems


def _combination_problems(get: Mapping[str, Any]) -> list[str]:
    problems = []
    lookahead = get["fwpkm_target_value_lookahead"]
    if get.get("fwpkm_target_lookahead", lookahead) != lookahead:
        problems.append(
            f"fwpkm_target_lookahead={get['fwpkm_target_lookahead']} is read by nothing in the release, which "
            f"looks {lookahead} ahead; set fwpkm_target_value_lookahead, or leave it out"
        )
    if not get["fwpkm_layers"]:
        return problems
    if get["fwpkm_variant"] == "mlp" and get["fwpkm_heads"] != 1:
        problems.append(f"fwpkm_heads must be 1 for fwpkm_variant='mlp', got {get['fwpkm_heads']}")
    weighted = get["fwpkm_weight_loss_with_gates"] and get["fwpkm_variant"] == "pkm"
    if weighted and not get["fwpkm_out_fuse_gate"]:
        problems.append(
            "fwpkm_weight_loss_with_gates=True needs fwpkm_out_fuse_gate=True; without it there is no gate"
        )
    return problems

"""Bases and tokenizers from .gguf files: the numbers in them, and what is said where they cannot be read."""

import importlib.util

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.24")
gguf = pytest.importorskip("gguf")
import fwpkm  # noqa: E402
from fwpkm.cli.main import main  # noqa: E402
from fwpkm.data.tokenizer import load_tokenizer  # noqa: E402
from fwpkm.models.attach import load_base  # noqa: E402
from fwpkm.testing.base_models import TINY, make_base  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

transformers.utils.logging.disable_progress_bar()
_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleaved(x, heads):
    """The order in which such files keep rotary halves: pair by pair."""
    return x.view(heads, 2, -1, x.shape[1]).transpose(1, 2).reshape(x.shape)


def tensors_of(model):
    """Weights of a Llama under the names of the format."""
    state = model.state_dict()
    yield "token_embd.weight", state["model.embed_tokens.weight"]
    yield "output_norm.weight", state["model.norm.weight"]
    yield "output.weight", state["lm_head.weight"]
    for layer in range(model.config.num_hidden_layers):
        for ours, theirs in _NAMES.items():
            x = state[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                x = interleaved(x, 4 if theirs == "attn_q" else 2)
            yield f"blk.{layer}.{theirs}.weight", x


def byte_symbols():
    """How byte-level vocabularies spell the 256 bytes: printable ones as they are, others from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    spelt = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [spelt[b] for b in range(256)]


def add_tokenizer(writer):
    """Add a vocabulary of all bytes and one merge, ended by a token of its own."""
    tokens = ["<|endoftext|>", *byte_symbols(), "he"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1))
    writer.add_token_merges(["h e"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(0)


def write_gguf(path, model):
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    add_tokenizer(writer)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    for name, x in tensors_of(model):
        writer.add_tensor(name, x.float().numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def file(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf", make_base(dtype=torch.float32))


@torch.no_grad()
def test_a_gguf_file_is_the_model_that_was_written_and_takes_a_memory(file):
    base, x = load_base(file), make_tokens()
    assert base.dtype == torch.float32
    before = base(x).logits
    torch.testing.assert_close(before, make_base(dtype=torch.float32)(x).logits, rtol=1e-4, atol=1e-4)
    fwpkm.attach(base, [1], TINY)
    assert torch.equal(base(x).logits, before)


def test_what_was_read_from_one_can_be_saved_and_loaded_as_any_model(file, tmp_path):
    base, x = load_base(file), make_tokens()
    base.save_pretrained(tmp_path / "plain")
    assert torch.equal(load_base(tmp_path / "plain")(x).logits, base(x).logits)


def test_an_adapter_can_be_made_for_one(file, tmp_path, capsys):
    small = [part for name in ("num_subkeys", "key_dim", "value_dim") for part in ("--set", f"{name}=8")]
    assert main(["attach", str(file), "--layers", "1", "--out", str(tmp_path / "a"), *small]) == 0
    assert "of LlamaForCausalLM" in capsys.readouterr().out
    fwpkm.load_adapter(load_base(file), tmp_path / "a")


def test_its_tokenizer_is_read_from_it_and_kept(file, tmp_path):
    tokenizer = load_tokenizer(file)
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (0, 258)
    text = "the cat <|endoftext|> é"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("he").tolist() == [257]
    (tmp_path / "kept").mkdir()
    tokenizer.save(tmp_path / "kept")
    assert load_tokenizer(tmp_path / "kept").fingerprint == tokenizer.fingerprint


def test_a_missing_file_or_package_is_named(file, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.gguf"):
        load_base(tmp_path / "none.gguf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"needs the package gguf; pip install 'fwpkm\[hf\]'"):
        load_base(file)

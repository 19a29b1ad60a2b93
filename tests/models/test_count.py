"""Counted numbers, bytes and operations against PyTorch's own counts and against what really runs."""

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fwpkm.cli.info import describe
from fwpkm.cli.main import main
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.models.base_config import BaseConfig
from fwpkm.models.config import DecoderConfig
from fwpkm.models.count import count_numbers, state_bytes
from fwpkm.models.decoder import Decoder
from fwpkm.models.flops import forward_flops, mean_seen
from fwpkm.models.parts import FAST_MLP, FEED_FORWARD, FWPKM, HEAD, MIXERS, PARTS, PKM, meta_decoder, parts_of
from fwpkm.recipe import read_recipe, recipe_names
from fwpkm.testing.systems import SYSTEMS, make_system

every_system = pytest.mark.parametrize("system", SYSTEMS)


@every_system
def test_parts_cover_every_parameter_once(system):
    model = meta_decoder(make_system(system))
    found = [id(p) for _, module in parts_of(model) for p in module.parameters()]
    assert sorted(found) == sorted(id(p) for p in model.parameters())
    assert {part for part, _ in parts_of(model)} <= set(PARTS)


@every_system
@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}])
def test_slow_and_table_numbers_are_the_parameters(system, changes):
    model = Decoder(make_system(system, **changes))
    counted = count_numbers(model)
    assert sum(count.trained for count in counted.values()) == sum(p.numel() for p in model.parameters())
    assert (HEAD in counted) == (changes != {} or system == "mixed")


def test_tables_are_told_from_slow_weights():
    counted = count_numbers(meta_decoder(make_system("mixed")))
    assert counted[PKM].table == 64 * 16
    assert counted[FWPKM].table == 2 * 64 * 12  # its base tables are learned in this system
    assert counted[FWPKM].fast == 2 * (64 * 12 + 2 * 8 * 4)
    drawn = count_numbers(meta_decoder(make_system("sliding_fwpkm")))[FWPKM]
    assert (drawn.table, drawn.fast) == (0, counted[FWPKM].fast)


def test_fast_networks_are_counted_whatever_they_start_from():
    drawn = count_numbers(meta_decoder(make_system("delta_fwmlp")))[FAST_MLP]
    fwmlp = {**make_system("delta_fwmlp").to_dict()["fwmlp"], "initial_weights": "learned"}
    learned = count_numbers(meta_decoder(make_system("delta_fwmlp", fwmlp=fwmlp)))[FAST_MLP]
    networks = 2 * 12 * 8 + 10 * 12 + 2 * 12 + 10
    assert (drawn.fast, learned.fast, learned.slow - drawn.slow) == (networks, networks, networks)
    assert count_numbers(meta_decoder(make_system("lact")))[MIXERS["lact"]].fast == 3 * 3 * 2 * 8 * 8


@every_system
@pytest.mark.parametrize("tokens", [1, 5, 6, 13, 31])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_bytes_are_those_of_real_states(system, tokens, dtype):
    torch.manual_seed(0)
    model = Decoder(make_system(system)).to(dtype)
    with torch.no_grad():
        cache = model(torch.randint(40, (1, tokens))).cache
    counters = unwritten = 0
    for block, module in zip(cache.blocks, model.blocks, strict=True):
        counters += sum(
            x.tokens_seen.numel() * 8 for x in (block.mixer, block.conv) if hasattr(x, "tokens_seen")
        )
        if isinstance(module.memory, FwPKM):
            table = block.memory.table
            pairs = min(64, block.memory.options.topk * max(0, tokens - block.memory.waiting.counts[0]))
            unwritten += (pairs - table.num_rows) * 12 * dtype.itemsize
            counters += block.memory.num_bytes - _fwpkm_bytes(block.memory)
    assert unwritten >= 0
    expected = cache.num_bytes + unwritten - counters
    assert sum(state_bytes(model, tokens, dtype=dtype).values()) == expected


def test_narrow_tables_are_counted_as_narrow():
    config = make_system("sliding_fwpkm")
    narrow = replace(config, fwpkm=replace(config.fwpkm, table_dtype="bfloat16"))
    tokens, caches = torch.randint(40, (1, 31)), []
    for system in (config, narrow):
        with torch.no_grad():
            caches.append(Decoder(system)(tokens).cache.num_bytes)
    counted = [sum(state_bytes(meta_decoder(system), 31).values()) for system in (config, narrow)]
    rows = sum(block.memory is not None for block in Decoder(config)(tokens[:, :0]).cache.blocks) * 64
    assert counted[0] - counted[1] == 2 * 12 * rows
    assert 0 < caches[0] - caches[1] <= 2 * 12 * rows


def _fwpkm_bytes(state):
    return state.keys.numel() * state.keys.element_size() + state.table.num_bytes + state.waiting.num_bytes


def test_full_attention_grows_for_ever_and_nothing_else_does():
    tokens = (10_000, 20_000)
    for system in SYSTEMS:
        few, many = (state_bytes(meta_decoder(make_system(system)), T) for T in tokens)
        for part, size in few.items():
            grows = part == MIXERS["full_attention"]
            assert many[part] == (2 * size if grows else pytest.approx(size, rel=0.1)), (system, part)


def counted_by_torch(model, T):
    """Return what torch's own counter sees per token, module by module."""
    ids = torch.zeros(1, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    return {name: sum(ops.values()) / T for name, ops in counter.get_flop_counts().items()}


@every_system
def test_projections_feed_forward_and_head_agree_with_torch(system):
    model = Decoder(make_system(system))
    T = 20
    seen, ours = counted_by_torch(model, T), forward_flops(model, T)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and f"Decoder.{name}" in seen:
            assert seen[f"Decoder.{name}"] == 2 * module.weight.numel(), name
    by_torch = sum(n for name, n in seen.items() if name.endswith(".ffn") and f"{name}.up_proj" in seen)
    assert ours[FEED_FORWARD] == by_torch
    outside = seen["Decoder"] - sum(n for name, n in seen.items() if name.count(".") == 2)
    assert ours[HEAD] == pytest.approx(outside)


def memory_flops(model, T):
    seen = counted_by_torch(model, T)
    return sum(n for name, n in seen.items() if name.endswith(".memory"))


def test_a_memory_scores_few_keys_reads_few_rows_and_writes_them():
    model = Decoder(make_system("sliding_fwpkm"))
    config = model.config.fwpkm
    scores = 2 * (2 * config.num_subkeys) * (config.key_dim // 2)
    rows, kept_keys = 2 * config.topk * config.value_dim, 2 * config.topk * config.key_dim
    # The memory's own kernels are not in torch's count, which leaves its projections.
    projections = memory_flops(model, 5)
    assert forward_flops(model, 5)[FWPKM] == projections + 2 * (scores + 2 * rows + kept_keys)
    assert projections > 0


@pytest.mark.parametrize(("key_loss", "rows", "keys"), [("none", 0, 0), ("memory", 1, 1), ("both", 1, 1)])
def test_what_moves_the_keys_changes_what_a_write_takes(key_loss, rows, keys):
    fwpkm = make_system("sliding_fwpkm").to_dict()["fwpkm"]
    k, Dk, Dv = fwpkm["topk"], fwpkm["key_dim"], fwpkm["value_dim"]
    found = forward_flops(
        meta_decoder(make_system("sliding_fwpkm", fwpkm={**fwpkm, "key_loss": key_loss})), 9
    )
    entropy = forward_flops(meta_decoder(make_system("sliding_fwpkm")), 9)
    assert found[FWPKM] - entropy[FWPKM] == 2 * (2 * k * Dv * rows + 2 * k * Dk * (keys - 1))


def test_fast_networks_agree_with_torch_reads_and_writes_alike():
    fwmlp = {**make_system("delta_fwmlp").to_dict()["fwmlp"], "lookahead": 0}
    model = Decoder(make_system("delta_fwmlp", fwmlp=fwmlp))
    assert memory_flops(model, 12) == forward_flops(model, 12)[FAST_MLP]


@pytest.mark.parametrize("update", ["gradient", "muon"])
def test_lact_agrees_with_torch_but_for_attention(update):
    lact = {**make_system("lact").to_dict()["lact"], "update": update, "initial_rank": "none"}
    model = Decoder(make_system("lact", lact=lact))
    T, config = 20, model.config.lact
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, T, dtype=torch.long))
    near = 3 * 4 * config.width * mean_seen(T, config.window)
    ours = sum(forward_flops(model, T).values()) - near
    products = counter.get_flop_counts()["Global"]
    by_torch = sum(n for op, n in products.items() if "attention" not in str(op))
    assert ours == pytest.approx(by_torch / T)


@pytest.mark.parametrize(("tokens", "window"), [(1, None), (7, None), (7, 3), (7, 7), (3, 7), (20, 1)])
def test_attention_counts_what_each_token_sees(tokens, window):
    place = torch.arange(tokens)
    ago = place[:, None] - place[None]
    seen = (ago >= 0) & (ago < (window or tokens))
    assert mean_seen(tokens, window) == pytest.approx(seen.sum().item() / tokens)
    kind = "full" if window is None else "sliding_fwpkm"
    attention = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8} | ({"window": window} if window else {})
    config = make_system(kind, attention=attention)
    projections = 3 * 2 * 16 * (2 * 32 + 2 * 16 + 32)
    found = forward_flops(meta_decoder(config), tokens)
    part = MIXERS["full_attention" if window is None else "sliding_attention"]
    assert found[part] == pytest.approx(projections + 3 * 4 * 32 * seen.sum().item() / tokens)


def test_the_delta_rule_counts_as_its_recurrence():
    """Three products of a vector with the state matrix: what is remembered, what is written, what is read."""
    model = meta_decoder(make_system("delta_fwmlp"))
    linear = sum(2 * p.numel() for p in model.blocks[0].mixer.parameters() if p.ndim >= 2)
    assert forward_flops(model, 9)[MIXERS["gated_delta_net"]] == 3 * (linear + 2 * 3 * 2 * 8 * 8)


def test_product_key_memory_scores_few_keys_and_reads_few_rows():
    model = meta_decoder(make_system("mixed"))
    config = model.config.pkm
    ffn = model.blocks[1].ffn
    linear = sum(2 * m.weight.numel() for m in ffn.modules() if isinstance(m, torch.nn.Linear))
    scores = 2 * config.num_heads * (2 * config.num_subkeys) * (config.key_dim // 2)
    rows = 2 * config.num_heads * config.topk * config.value_dim
    assert forward_flops(model, 9)[PKM] == linear + scores + rows


def test_counts_below_one_token_are_refused():
    model = meta_decoder(make_system("full"))
    with pytest.raises(ValueError, match="tokens must be at least 1, got tokens=0"):
        forward_flops(model, 0)
    with pytest.raises(ValueError, match="tokens must be at least 0, got tokens=-1"):
        state_bytes(model, -1)


def test_paper_sizes_have_the_paper_s_tables():
    facts = describe(read_recipe("paper/gdn_pkm_fwpkm"), [4096])
    table = 512 * 512 * 512
    assert facts["numbers"][PKM]["table"] == table
    assert facts["numbers"][FWPKM]["fast"] == 2 * (table + 2 * 512 * 256)
    assert facts["layers"][2] == "fwpkm + gated_delta_net + swiglu"
    assert facts["layers"][6] == "gated_delta_net + pkm"


_RECIPES = [name for name in recipe_names() if not name.startswith(("paper/ablation", "study/"))]


@pytest.mark.parametrize("name", _RECIPES)
def test_totals_are_the_sums_of_all_parts(name):
    facts = describe(read_recipe(name), [100, 1000])
    for kind in ("slow", "table", "fast"):
        parts = [row[kind] for part, row in facts["numbers"].items() if part != "total"]
        assert facts["numbers"]["total"][kind] == sum(parts)
    for counts in (*facts["state_bytes"].values(), *facts["flops_per_token"].values()):
        assert counts["total"] == sum(n for part, n in counts.items() if part != "total") > 0


def test_of_a_base_its_memories_are_counted():
    decoder = meta_decoder(make_system("sliding_fwpkm"))  # has two
    assert decoder.config.fwpkm is not None
    base = BaseConfig(path="nowhere", layers=(1, 4), memory=decoder.config.fwpkm)
    assert count_numbers(base) == {FWPKM: count_numbers(decoder)[FWPKM]}
    assert state_bytes(base, 31) == {FWPKM: state_bytes(decoder, 31)[FWPKM]}
    assert forward_flops(base, 31) == {FWPKM: forward_flops(decoder, 31)[FWPKM]}
    for _, memory in parts_of(base):
        assert next(memory.parameters()).is_meta
        assert not torch.empty(0).is_meta  # whoever walks through them is left alone


def test_a_base_s_recipe_says_what_is_not_counted(capsys):
    assert main(["info", "retrofit/smollm2", "--tokens", "512"]) == 0
    page = capsys.readouterr().out
    assert "layer 18  FwPKM before the base's layer" in page
    assert "memories add to the base, which is not counted" in page


def test_the_command_prints_tables_and_json(capsys):
    assert main(["info", "small/gdn_fa_fwpkm", "--tokens", "512", "--set", "model.fwpkm.num_subkeys=16"]) == 0
    page = capsys.readouterr().out
    assert "small/gdn_fa_fwpkm: GDN+FA + FwPKM@1,3" in page
    assert "layer  1  fwpkm + gated_delta_net + swiglu" in page
    assert main(["info", "small/gdn_fa_fwpkm", "--tokens", "512", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    model = read_recipe("small/gdn_fa_fwpkm").model
    assert isinstance(model, DecoderConfig)
    assert facts["numbers"][FWPKM]["fast"] == 2 * (512**2 * 128 + 2 * 512 * 64)
    for name in ("FwPKM", "full attention", "gated delta net", "head", "total"):
        assert name in page
    assert f"{facts['flops_per_token']['512']['head']:,.0f}" in page


def test_the_command_says_what_is_wrong(capsys):
    assert main(["info", "small/gdn_fa_fwpkm", "--tokens", "0"]) == 2
    assert "lengths must be at least 1, got [0]" in capsys.readouterr().err
    assert main(["info", "small/gdn_fa_fwpk"]) == 2
    assert "did you mean 'small/gdn_fa_fwpkm'" in capsys.readouterr().err
    assert main(["info", "small/gdn", "--set", "model.dmi=3"]) == 2
    assert "did you mean 'dim'" in capsys.readouterr().err

"""Recipes: what they extend, what may be set, and that a written one reads the same."""

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.layers.conv import ShortConvConfig
from fwpkm.layers.fwmlp import FastWeightMLPConfig
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.lact_config import LaCTConfig
from fwpkm.layers.pkm import PKMConfig
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.recipe import Recipe, read_recipe, recipe_names
from fwpkm.study.plan import make_plan
from fwpkm.toml import dump_toml
from fwpkm.train.config import TrainConfig
from fwpkm.train.data import DataConfig

_MODEL = """
title = "tiny"
[model]
vocab_size = 11
dim = 8
num_layers = 2
attention = { num_heads = 2, num_kv_heads = 1, head_dim = 4 }
swiglu = { hidden_dim = 16 }
"""


@dataclass(frozen=True, kw_only=True)
class _TrainConfig:
    lr: float = 1e-3
    note: str = "plain"


def _write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return _write(tmp_path, "base.toml", _MODEL)


def test_tables_merge_and_lists_are_replaced(base: Path) -> None:
    _write(
        base.parent,
        "middle.toml",
        'extends = "base.toml"\n[model]\nmixers = ["full_attention", "full_attention"]',
    )
    text = 'extends = "middle.toml"\ntitle = "mine"\n[model]\nmixers = ["full_attention"]\n[model.swiglu]\nbias = true'
    recipe = read_recipe(_write(base.parent, "mine.toml", text))
    assert (recipe.name, recipe.title) == ("mine", "mine")
    assert recipe.model.mixers == ("full_attention",)
    assert recipe.model.swiglu is not None
    assert (recipe.model.swiglu.hidden_dim, recipe.model.swiglu.bias) == (16, True)


def test_of_several_bases_later_ones_win(base: Path) -> None:
    _write(base.parent, "wide.toml", "[model]\ndim = 24")
    _write(base.parent, "deep.toml", "[model]\nnum_layers = 3\ndim = 12")
    recipe = read_recipe(_write(base.parent, "r.toml", 'extends = ["base.toml", "wide", "deep"]'))
    assert (recipe.model.dim, recipe.model.num_layers, recipe.model.vocab_size) == (12, 3, 11)


def test_settings_come_last_and_are_toml_values_or_bare_words(base: Path) -> None:
    given_settings = [
        "model.dim=32",
        "train.lr=3e-4",
        "train.note=bare word",
        "model.attention.rope.fraction=0.5",
    ]
    recipe = read_recipe(base, given_settings)
    assert recipe.model.dim == 32
    assert recipe.model.attention is not None
    assert recipe.model.attention.rope.fraction == 0.5
    assert recipe.section("train", _TrainConfig) == _TrainConfig(lr=3e-4, note="bare word")


def test_a_missing_section_has_its_defaults(base: Path) -> None:
    assert read_recipe(base).section("train", _TrainConfig) == _TrainConfig()


def test_none_unsets_a_section_of_the_model(base: Path) -> None:
    with_memory = ["model.fwpkm={num_subkeys=8}", "model.fwpkm_layers=[1]"]
    assert read_recipe(base, with_memory).model.fwpkm is not None
    without = [*with_memory, "model.fwpkm=none", "model.fwpkm_layers=[]"]
    assert read_recipe(base, without).model == read_recipe(base).model


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modle]\ndim = 4", r"r\.toml: unknown name 'modle'; did you mean 'model'\?"),
        ("model = 4\nsource = 5", r"r\.toml: model must be a table, got model=4; source must be a string"),
        ("dim = [", r"r\.toml: not a TOML file"),
        ("extends = 5", r"r\.toml: extends must be a file's name or a list of such, got extends=5"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe(_write(tmp_path, "r.toml", text))


def test_a_base_that_is_no_recipe_is_refused_under_its_own_name(tmp_path: Path) -> None:
    _write(tmp_path, "bad.toml", "[trian]\nlr = 1")
    with pytest.raises(ValueError, match=r"bad\.toml: unknown name 'trian'; did you mean 'train'\?"):
        read_recipe(_write(tmp_path, "r.toml", 'extends = "bad.toml"'))


def test_unknown_fields_of_an_extended_file_name_it_too(tmp_path: Path) -> None:
    _write(tmp_path, "bad.toml", "[train]\nlrr = 1")
    recipe = read_recipe(_write(tmp_path, "r.toml", 'extends = "bad.toml"'))
    with pytest.raises(ValueError, match=r"r\.toml with bad\.toml \(extended\): \[train\]: .*'lrr'"):
        recipe.section("train", _TrainConfig)


def test_unknown_fields_name_file_section_and_the_nearest_real_one(base: Path) -> None:
    recipe = read_recipe(base, ["model.dmi=3", "train.lrr=1"])
    with pytest.raises(
        ValueError, match=r"base\.toml with --set model\.dmi=3, .*: \[model\]: .*'dmi'; did you mean 'dim'\?"
    ):
        _ = recipe.model
    with pytest.raises(ValueError, match=r"base\.toml.*: \[train\]: .*'lrr'; did you mean 'lr'\?"):
        recipe.section("train", _TrainConfig)
    with pytest.raises(ValueError, match=r"unknown section 'trian'; did you mean 'train'\?"):
        recipe.section("trian", _TrainConfig)


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a.toml", 'extends = "b.toml"')
    with pytest.raises(ValueError, match=r"extends itself, through b\.toml -> a\.toml -> b\.toml"):
        read_recipe(_write(tmp_path, "b.toml", 'extends = "a.toml"'))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.dim", r"--set: must be NAME=VALUE, as in train.lr=3e-4, got 'model\.dim'"),
        ("model..dim=3", "--set: must be NAME=VALUE"),
        ("model.dim.x=3", r"--set: model\.dim\.x goes through 8, which is not a table"),
        ("model.mixers=[1", r"--set: 'model\.mixers=\[1' has no TOML value"),
        ("model.dim=3\nname = 4", "must be one name and one value"),
        ("extends=other", "extends belongs at the top of a file"),
        ("modle.dim=3", "unknown name 'modle'; did you mean 'model'"),
    ],
)
def test_a_malformed_setting_is_refused(base: Path, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe(base, [setting])


def test_a_missing_recipe_is_refused_with_the_nearest_short_name(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no recipe 'paper/gdn_fwpmk'.*did you mean 'paper/gdn_fwpkm'\?"
    ):
        read_recipe("paper/gdn_fwpmk")
    with pytest.raises(FileNotFoundError, match=r"r\.toml: extends: no recipe 'gone\.toml'"):
        read_recipe(_write(tmp_path, "r.toml", 'extends = "gone.toml"'))


def test_a_written_recipe_reads_the_same(base: Path) -> None:
    recipe = read_recipe(base, ["train.lr=3e-4", "model.attention.window=none"])
    again = read_recipe(_write(base.parent, "again.toml", recipe.to_toml()))
    assert (again.title, again.sections) == (recipe.title, recipe.sections)


def _toml_values() -> st.SearchStrategy[Any]:
    text = st.text(st.characters(codec="utf-8"))
    scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), text)
    scalars = st.one_of(scalars, st.dates(), st.datetimes())
    return st.recursive(
        scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(text, inner)), max_leaves=12
    )


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), _toml_values()))
@settings(max_examples=100, deadline=None)
def test_what_is_written_as_toml_is_read_back_equal(mapping: dict[str, Any]) -> None:
    assert tomllib.loads(dump_toml(mapping)) == mapping


def test_null_cannot_be_written_as_toml() -> None:
    with pytest.raises(ValueError, match=r"TOML cannot hold a\.b=None"):
        dump_toml({"a": {"b": None}})


def test_a_recipe_is_a_value(base: Path) -> None:
    assert read_recipe(base) == read_recipe(base)
    assert isinstance(read_recipe(base), Recipe)


_MIXERS = ("fa", "gdn", "gdn_fa", "gdn_swa")
_MEMORIES = {
    "": (),
    "_pkm": ("pkm",),
    "_fwpkm": ("fwpkm",),
    "_pkm_fwpkm": ("pkm", "fwpkm"),
    "_fwmlp": ("fwmlp",),
}
_ABLATIONS = {
    "no_gate": {"gate": False, "gate_weighted_loss": False},
    "no_gate_weighted_loss": {"gate_weighted_loss": False},
    "no_addressing_loss": {"key_loss": "none"},
    "lookahead0": {"lookahead": 0},
    "heads4_topk8": {"num_heads": 4, "topk": 8},
    "heads1_topk32": {"num_heads": 1, "topk": 32},
    "no_zscore": {"value_norm": "none"},
}


_STUDIES = [name for name in recipe_names() if name.startswith("study/")]


@pytest.mark.parametrize("name", [n for n in recipe_names() if not n.startswith(("retrofit/", "study/"))])
def test_every_recipe_is_valid_and_says_what_it_is(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.title
    assert DecoderConfig.from_dict(tomllib.loads(recipe.to_toml())["model"]) == recipe.model
    data, train = recipe.section("data", DataConfig), recipe.section("train", TrainConfig)
    if name.startswith("paper/"):
        assert (train.steps, data.batch_size, data.seq_len) == (20_000, 128, 4096)
    assert data.batch_size % train.accumulate == 0


@pytest.mark.parametrize("name", _STUDIES)
def test_every_study_is_valid_and_no_two_of_its_systems_are_the_same(name: str) -> None:
    plan = make_plan(read_recipe(name))
    assert plan.recipe.title
    runs = [repr((s.runs[0][1].model, s.runs[0][1].data, s.runs[0][1].train)) for s in plan.systems]
    assert len(set(runs)) == len(runs) > 3


@pytest.mark.parametrize("folder", ["paper", "small"])
def test_no_two_recipes_define_the_same_model_or_bear_the_same_title(folder: str) -> None:
    recipes = [read_recipe(name) for name in recipe_names() if name.startswith(folder)]
    assert len({repr(recipe.model) for recipe in recipes}) == len(recipes)
    assert len({recipe.title for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("memory", _MEMORIES)
@pytest.mark.parametrize("mixer", _MIXERS)
def test_the_rows_of_the_paper_are_there_at_its_sizes(mixer: str, memory: str) -> None:
    model = read_recipe(f"paper/{mixer}{memory}").model
    assert (model.vocab_size, model.dim, model.num_layers) == (32_000, 768, 12)
    kinds = {
        "fa": "full_attention",
        "gdn": "gated_delta_net",
        "gdn_fa": "full_attention",
        "gdn_swa": "sliding_attention",
    }
    assert model.mixer_kind(11) == kinds[mixer]
    assert model.mixer_kind(0) == ("full_attention" if mixer == "fa" else "gated_delta_net")
    parts = _MEMORIES[memory]
    places = {"pkm": (6,), "fwpkm": (2, 10)} if len(parts) == 2 else dict.fromkeys(parts, (2, 6, 10))
    for part in ("pkm", "fwpkm", "fwmlp"):
        assert getattr(model, f"{part}_layers") == places.get(part, ())


def test_the_paper_s_memories_have_its_sizes() -> None:
    model = read_recipe("paper/gdn_pkm_fwpkm").model
    assert model.fwpkm == FwPKMConfig(dim=768)
    assert model.pkm == PKMConfig(dim=768)
    assert read_recipe("paper/gdn_fwmlp").model.fwmlp == FastWeightMLPConfig(dim=768)
    assert read_recipe("paper/lact").model.lact == LaCTConfig(norm_eps=1e-6)


def test_narrowed_attention_keeps_its_memory_and_its_full_view_at_evaluation() -> None:
    model = read_recipe("paper/fa_pkm_fwpkm_pswa").model
    assert model.narrow_probability == 0.9
    assert model.attention is not None
    assert (model.attention.window, model.mixer(0).window) == (512, None)


@pytest.mark.parametrize("name", _ABLATIONS)
@pytest.mark.parametrize("folder", ["paper", "small"])
def test_an_ablation_changes_what_it_says_and_nothing_else(folder: str, name: str) -> None:
    full, without = (
        read_recipe(f"{folder}/{row}").model for row in ("gdn_swa_pkm_fwpkm", f"ablation_{name}")
    )
    assert full.fwpkm is not None
    assert without == replace(full, fwpkm=replace(full.fwpkm, **_ABLATIONS[name]))
    assert without != full


@pytest.mark.parametrize("mixer", [*_MIXERS, "swa"])
def test_the_small_systems_have_what_makes_them_learn(mixer: str) -> None:
    model = read_recipe(f"small/{mixer}_fwpkm").model
    assert model.short_conv == ShortConvConfig(kernel_size=4)
    assert model.vocab_size == ByteTokenizer.vocab_size
    assert model.fwpkm is not None
    assert (model.fwpkm.key_std, model.fwpkm.learn_temperature, model.fwpkm.table) == (1.0, True, "stream")
    if model.attention is not None and model.attention.window is not None:
        assert model.attention.window >= model.fwpkm.chunk_size + model.fwpkm.lookahead


@pytest.mark.parametrize(
    "name", ["fa", "swa_pkm_fwpkm", "gdn_fa_fwmlp", "gdn_swa_fwpkm", "lact", "ablation_no_gate"]
)
def test_small_systems_take_a_training_step(name: str) -> None:
    torch.manual_seed(0)
    model = Decoder(read_recipe(f"small/{name}").model).train()
    loss, _ = model.loss(torch.randint(256, (2, 72)))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(259), abs=0.3)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())

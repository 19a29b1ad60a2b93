"""Recipes: what they extend, what may be set, and that a written one reads the same."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm.recipe import Recipe, read_recipe
from fwpkm.toml import dump_toml

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


def test_unknown_fields_name_file_section_and_the_nearest_real_one(base: Path) -> None:
    recipe = read_recipe(base, ["model.dmi=3", "train.lrr=1"])
    with pytest.raises(ValueError, match=r"base\.toml: \[model\]: .*'dmi'; did you mean 'dim'\?"):
        _ = recipe.model
    with pytest.raises(ValueError, match=r"base\.toml: \[train\]: .*'lrr'; did you mean 'lr'\?"):
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

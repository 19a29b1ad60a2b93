"""`fwpkm train` on an existing transformers model: memories alone or with layers of it, then measured."""

import json
import re
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.24")
from fwpkm.cli.main import main  # noqa: E402
from fwpkm.eval.files import load_result  # noqa: E402
from fwpkm.models.attach.folder import load_base_decoder  # noqa: E402
from fwpkm.recipe import read_recipe  # noqa: E402
from fwpkm.testing.base_models import make_base  # noqa: E402
from fwpkm.train.run import Run  # noqa: E402

transformers.utils.logging.disable_progress_bar()
RECIPE = """
title = "tiny"
[base]
path = "{path}"
layers = [1]
window = 16
memory = {{ dim = 32, num_subkeys = 8, key_dim = 8, value_dim = 8, topk = 2, chunk_size = 8 }}
[data]
seq_len = 48
batch_size = 2
[data.recall]
max_needles = 1
[data.recall.wording]
needle = " {{key}}={{value}}."
question = " {{key}}="
answer = "{{value}}"
key_length = 2
digits = 2
[train]
steps = 4
trace_every = 2
validate_every = 2
validation_batches = 1
[train.optimizer]
lr = 0.01
[train.checkpoints]
every_steps = 2
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    make_base(dtype=torch.float32, vocab_size=260).save_pretrained(tmp_path / "base")
    (tmp_path / "tiny.toml").write_text(RECIPE.format(path=tmp_path / "base"))
    return tmp_path / "tiny.toml"


def train(recipe: Path, *more: str) -> int:
    settings = [part for setting in more for part in ("--set", setting)]
    return main(["train", str(recipe), "--out", str(recipe.parent / "run"), "--quiet", *settings])


def test_memories_are_trained_on_a_frozen_base_and_measured(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(recipe) == 0
    out = recipe.parent / "run"
    kinds = [json.loads(line)["kind"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"train": 4, "memory": 2, "validation": 2}
    names = {"adapter.safetensors", "base.json", "fwpkm_tokenizer.json"}
    assert {path.name for path in (out / "model").iterdir()} >= names
    assert not (out / "model" / "base").exists()
    text, results = recipe.parent / "text.txt", recipe.parent / "r.json"
    text.write_text("It was a dark and stormy night. " * 40)
    measure = ["--text", str(text), "--batch-size", "1", "--out", str(results)]
    needles = ["eval", "needles", str(out / "model"), *measure, "--lengths", "400", "--depths", "0.5"]
    assert main([*needles, "--samples", "2", "--reads", "1", "--ablations", "memory_off"]) == 0
    perplexity = ["eval", "perplexity", str(out / "model"), *measure, "--length", "300", "--max-runs", "2"]
    assert main(perplexity) == 0
    assert 0 < load_result(results).nats < 20


def test_a_run_goes_on_where_it_stopped(recipe: Path) -> None:
    assert train(recipe, "train.steps=6") == 0
    whole = load_base_decoder(recipe.parent / "run" / "model").state_dict()
    (recipe.parent / "run").rename(recipe.parent / "whole")
    assert train(recipe, "train.steps=6", "train.max_minutes=1e-9") == 0  # no time, a checkpoint all the same
    assert main(
        ["train", str(recipe), "--out", str(recipe.parent / "run"), "--quiet", "--resume", "--set", "train.steps=6"]
    ) == 0  # fmt: skip
    again = load_base_decoder(recipe.parent / "run" / "model").state_dict()
    assert all(torch.equal(x, again[name]) for name, x in whole.items())
    assert (
        recipe.parent / "run" / "checkpoints" / "step-00000006" / "model.safetensors"
    ).stat().st_size < 1e5


def test_layers_of_the_base_learn_with_the_memories_at_their_own_pace(recipe: Path) -> None:
    before = make_base(dtype=torch.float32, vocab_size=260).state_dict()
    assert train(recipe, "base.tuned_layers=[1, 2]", "train.gradient_checkpointing=true") == 0
    after = load_base_decoder(recipe.parent / "run" / "model").base.state_dict()
    changed = {name for name, x in before.items() if not torch.equal(x, after[name])}
    assert changed
    assert {name.split(".")[2] for name in changed} == {"1", "2"}
    steps = [(after[name] - before[name]).abs().max() for name in changed]
    assert 0 < max(steps) <= 4 * 0.01 * 0.1 * 1.5  # lr x tuned_lr_factor, four steps of Adam


def test_training_goes_on_from_an_adapter(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(recipe) == 0
    (recipe.parent / "run").rename(recipe.parent / "first")
    adapter = recipe.parent / "first" / "model" / "adapter.safetensors"
    first = load_base_decoder(adapter.parent).state_dict()
    start = [f"base.adapter={adapter}", "base.window=12", "base.memory.table_seed=0"]
    assert train(recipe, *start, "train.optimizer.lr=1e-9", "train.schedule.warmup=1.0") == 0
    again = load_base_decoder(recipe.parent / "run" / "model")
    for name, x in again.state_dict().items():
        torch.testing.assert_close(x, first[name], atol=1e-7, rtol=0)
    assert (again.config.window, again.config.adapter) == (12, None)
    (recipe.parent / "run").rename(recipe.parent / "second")
    capsys.readouterr()
    assert train(recipe, *start, "base.layers=[2]", "base.memory.topk=4") == 2
    error = capsys.readouterr().err
    assert "layers must be the adapter's [1], got [2]; memory.topk must be the adapter's 2, got 4" in error


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.truncate=8", "train.truncate must be None, got 8"),
        ("base.layer=[1]", "unknown field 'layer'; did you mean 'layers'"),
        ("base.memory.dim=16", "must be the model's width 32, got dim=16"),
        ("base.layers=[7]", "numbers from 0 to 2, got 7"),
        ("model.dim=3", r"must hold \[model\] or \[base\], got both"),
        ("data.tokenizer=mistral", "must have at least as many embeddings as the tokenizer has ids"),
    ],
)
def test_mistakes_end_in_a_sentence(
    recipe: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    assert train(recipe, setting) == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_resolved_recipe_reads_the_same(recipe: Path) -> None:
    run = Run.of(read_recipe(recipe))
    again = Run.of(run.resolved())
    assert (again.network, again.data, again.train) == (run.network, run.data, run.train)
    with pytest.raises(ValueError, match="got an existing one in"):
        read_recipe(recipe).model  # noqa: B018

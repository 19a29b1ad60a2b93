"""The whole command: what it writes, what it refuses, and runs that are killed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from fwpkm.cli.main import main
from fwpkm.models.files import load_model
from fwpkm.recipe import read_recipe, recipe_names
from fwpkm.train.config import TrainConfig
from fwpkm.train.durable import check_folder
from fwpkm.train.run import Run, pick_device

ROOT = Path(__file__).parents[2]
RECIPE = """
[model]
vocab_size = 260
dim = 16
num_layers = 1
mixers = ["sliding_attention"]
attention = { num_heads = 1, num_kv_heads = 1, head_dim = 8, window = 8 }
swiglu = { hidden_dim = 16 }
fwpkm = { num_subkeys = 8, key_dim = 8, value_dim = 8, topk = 2, chunk_size = 8 }
fwpkm_layers = [0]
[data]
layout = "carried"
seq_len = 16
batch_size = 2
[train]
steps = 4
carry = "document"
trace_every = 2
validate_every = 2
validation_batches = 1
[train.checkpoints]
every_steps = 1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return tmp_path / "tiny.toml"


def test_a_run_leaves_all_that_it_should(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = recipe.parent / "run"
    assert main(["train", str(recipe), "--out", str(out), "--set", "train.seed=5"]) == 0
    assert {p.name for p in out.iterdir()} == {
        "recipe.toml",
        "env.json",
        "metrics.jsonl",
        "checkpoints",
        "model",
    }
    assert "finished at step 4; the model is in" in capsys.readouterr().out
    resolved = read_recipe(out / "recipe.toml")
    assert resolved.section("train", TrainConfig).seed == 5
    assert resolved.sections["train"]["optimizer"]["beta2"] == 0.95, "defaults are spelt out"
    assert json.loads((out / "env.json").read_text()).keys() >= {"commit", "torch", "command", "processes"}
    kinds = [json.loads(line)["kind"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"train": 4, "memory": 2, "validation": 2}
    check_folder(out / "model")
    assert load_model(out / "model").config == resolved.model


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_blocks_train_alike(recipe: Path) -> None:
    """In processes of their own: the compiler does not read what this one's type checks wrap."""
    found = []
    for compiled in ("false", "true"):
        out = recipe.parent / compiled
        settings = ["data.layout=packed", "train.carry=sequence", f"train.compile={compiled}"]
        command = [sys.executable, "-m", "fwpkm.cli.main", "train", str(recipe), "--out", str(out), "--quiet"]
        for setting in settings:
            command += ["--set", setting]
        made = recipe.parent / f"made-{compiled}"
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(made)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-4000:]
        assert "recompile_limit" not in done.stderr
        assert any(made.rglob("*.cpp")) == (compiled == "true")
        found.append([json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()])
    assert len(found[0]) == len(found[1]) == 8
    for own, plain in zip(*found, strict=True):
        assert own["kind"] == plain["kind"]
        for name in plain.keys() & {"loss", "gradient_norm"}:
            assert own[name] == pytest.approx(plain[name], rel=1e-4)


def test_a_folder_with_a_run_is_not_written_over(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(recipe.parent / "run")
    main(["train", str(recipe), "--out", out, "--quiet"])
    assert main(["train", str(recipe), "--out", out, "--quiet"]) == 2
    assert "go on with it by --resume" in capsys.readouterr().err
    again = ["train", str(recipe), "--out", out, "--quiet", "--resume"]
    assert main([*again, "--set", "model.swiglu.hidden_dim=32"]) == 2
    assert "is of another model: swiglu was" in capsys.readouterr().err
    assert main([*again, "--set", "train.steps=5"]) == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.stpes=4", "[train]: TrainConfig: unknown field 'stpes'; did you mean 'steps'?"),
        ("data.layuot=packed", "[data]: DataConfig: unknown field 'layuot'; did you mean 'layout'?"),
        ("model.vocab_size=100", "set model.vocab_size="),
        ("train.accumulate=3", "train.accumulate must divide"),
        ("train.device=quantum", "must be a torch device"),
        ("data.corpus=nowhere", "nowhere"),
        ("train.parallel=shard", "start with torchrun"),
        ("train.shard_tables=true", "start with torchrun"),
    ],
)
def test_bad_input_ends_in_a_sentence(
    recipe: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    out = recipe.parent / "run"
    assert main(["train", str(recipe), "--out", str(out), "--quiet", "--set", setting]) == 2
    assert message in capsys.readouterr().err
    assert not (out / "model").exists()


def test_a_run_that_failed_before_its_first_step_can_be_started_again(recipe: Path) -> None:
    command = ["train", str(recipe), "--out", str(recipe.parent / "run"), "--quiet"]
    assert main([*command, "--set", "train.accumulate=3"]) == 2
    assert main([*command, "--set", "model.swiglu.hidden_dim=8"]) == 0


def test_tensorboard_gets_its_files(recipe: Path) -> None:
    out = recipe.parent / "run"
    assert main(["train", str(recipe), "--out", str(out), "--quiet", "--set", "train.tensorboard=true"]) == 0
    (events,) = (out / "tensorboard").iterdir()
    assert b"train/objective" in events.read_bytes()


@pytest.mark.parametrize(
    ("setting", "module", "remedy"),
    [
        ("train.tensorboard=true", "torch.utils.tensorboard", "pip install 'fwpkm[train]'"),
        ("train.wandb_project=mine", "wandb", "pip install wandb"),
    ],
)
def test_a_missing_logger_is_named(
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    module: str,
    remedy: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["train", str(recipe), "--out", str(recipe.parent / "run"), "--quiet", "--set", setting]) == 2
    assert remedy in capsys.readouterr().err


def test_every_run_is_one_of_its_own_for_wandb(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, str]] = []

    def init(**given: str) -> SimpleNamespace:
        begun.append(given)
        return SimpleNamespace(log=lambda numbers, step: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    command = ["train", str(recipe), "--quiet", "--set", "train.wandb_project=mine", "--out"]
    for folder, more in (("a/run", []), ("b/run", []), ("b/run", ["--resume", "--set", "train.steps=6"])):
        assert main([*command, str(recipe.parent / folder), *more]) == 0
    ids = [own["id"] for own in begun]
    assert ids[0] != ids[1] == ids[2]
    assert [Path(own["name"]).parts[-2:] for own in begun] == [("a", "run"), ("b", "run"), ("b", "run")]


def test_several_processes_need_a_folder(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", str(recipe)]) == 2
    assert "several processes need --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        [
            "model.mixers=['sliding_attention', 'lact']",
            "model.lact={num_heads=4, head_dim=4, window=6, num_fast_heads=2}",
        ],
        ["model.fwmlp_layers=[1]", "model.fwmlp={hidden_dim=12, initial_weights='learned'}"],
    ],
)
def test_fast_weights_that_are_shared_out_cannot_be_begun_with_again(
    settings: list[str], recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sharded = ["model.num_layers=2", *settings, "train.parallel=shard"]
    options = [part for setting in sharded for part in ("--set", setting)]
    assert main(["train", str(recipe), *options]) == 2
    assert "set train.parallel='replicate'" in capsys.readouterr().err


def test_resume_needs_a_folder(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(recipe), "--resume"]) == 2
    assert "--resume needs --out" in capsys.readouterr().err


def test_devices_are_named_or_chosen() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cuda") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device("cuda") == torch.device("cuda", 3)
    assert pick_device("cuda:1") == torch.device("cuda", 1)


def kill_training() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kill_training", ROOT / "benchmarks/kill_training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_killed_run_goes_on_to_the_losses_of_an_undisturbed_one(recipe: Path) -> None:
    killing = kill_training()
    recipe.write_text(RECIPE.replace("steps = 4", "steps = 60"))
    whole, out = recipe.parent / "whole", recipe.parent / "killed"
    assert main(["train", str(recipe), "--out", str(whole), "--quiet"]) == 0
    killed, _ = killing.run_until_killed(killing.training_command(recipe), out, step=7, pause=0.01)
    assert killed
    assert 7 <= len(killing.read_losses(out)) < 60
    assert main(["train", str(recipe), "--out", str(out), "--quiet", "--resume"]) == 0
    assert killing.read_losses(out) == killing.read_losses(whole)
    assert len(killing.read_losses(out)) == 60


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("study/")])
def test_every_recipe_that_comes_with_the_package_can_be_trained(name: str) -> None:
    run = Run.of(read_recipe(name))
    assert run.train.steps or run.train.max_tokens or run.train.max_minutes
    again = Run.of(run.resolved())
    assert (again.network, again.data, again.train) == (run.network, run.data, run.train)


def test_memories_are_not_carried_where_no_sequence_goes_on(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = recipe.parent / "run"
    assert main(["train", str(recipe), "--out", str(out), "--set", "data.layout=packed"]) != 0
    assert "which data.layout='carried' alone has, got data.layout='packed'" in capsys.readouterr().err
    assert not out.exists()


def test_bfloat16_products_are_traced_too(recipe: Path) -> None:
    out = recipe.parent / "run"
    assert main(["train", str(recipe), "--out", str(out), "--set", "train.precision=bfloat16"]) == 0
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("slots" in name for line in metrics for name in line)

"""What a study makes of its recipe."""

import argparse
import re
from pathlib import Path

import pytest
from study_helpers import STUDY, plan_of, write_study

from fwpkm.cli import study
from fwpkm.cli.eval import add_arguments
from fwpkm.cli.main import main
from fwpkm.eval.needles import NeedleSettings
from fwpkm.eval.perplexity import PerplexitySettings
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.recipe import find_recipe, read_recipe
from fwpkm.study.budget import count_parameters, width_for
from fwpkm.study.plan import differences, make_plan
from fwpkm.study.tasks import make_tasks, options_of

BASE, FULL = 'recipe = "base.toml"', 'recipe = "full.toml"'


def test_every_system_gets_the_same_tokens_whatever_its_recipe_says_of_budgets(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, BASE, FULL, settings=("study.seeds=[3, 5]",))
    for system in plan.systems:
        assert [seed for seed, _ in system.runs] == [3, 5]
        for seed, run in system.runs:
            assert (run.train.max_tokens, run.train.steps, run.train.max_minutes) == (640, None, None)
            assert run.train.schedule.horizon == "steps"
            assert (run.train.seed, run.data.seed) == (seed, seed)


def test_settings_of_a_system_come_over_those_of_the_study(tmp_path: Path) -> None:
    common = ('study.settings=["train.optimizer.lr=0.5", "model.swiglu.hidden_dim=20"]',)
    own = f'{BASE}\nlabel = "other"\nsettings = ["train.optimizer.lr=0.25"]'
    plan = plan_of(tmp_path, BASE, own, settings=common)
    assert [system.runs[0][1].train.optimizer.lr for system in plan.systems] == [0.5, 0.25]
    assert [system.model.swiglu.hidden_dim for system in plan.systems] == [20, 20]
    assert [system.label for system in plan.systems] == ["memory", "other"]


def test_equal_parameters_are_as_near_as_a_whole_width_allows(tmp_path: Path) -> None:
    plain = plan_of(tmp_path, BASE, FULL)
    equal = plan_of(tmp_path, BASE, FULL, settings=("study.equal_parameters=true",))
    first, second = equal.systems
    assert first.model == plain.systems[0].model
    assert plain.systems[1].parameters < first.parameters
    one_more = 3 * second.model.dim  # gate, up and down
    assert abs(second.parameters - first.parameters) <= one_more / 2
    assert second.parameters == sum(p.numel() for p in Decoder(second.model).parameters())


def test_a_width_that_cannot_be_is_refused(tmp_path: Path) -> None:
    model = read_recipe(write_study(tmp_path, BASE).parent / "base.toml").sections["model"]
    size = count_parameters(DecoderConfig.from_dict(model))
    assert width_for(model, size) == 16
    with pytest.raises(ValueError, match="100 parameters cannot be met"):
        width_for(model, 100)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    systems = (
        'recipe = "small/swa_fwpk"',
        f"{BASE}\npositions = ['yarn']",
        BASE,
        BASE,
        f'{BASE}\nlabel = "elsewhere"\nsettings = ["data.corpus=other"]',
    )
    with pytest.raises(ValueError) as error:
        plan_of(tmp_path, *systems)
    for part in (
        "study.toml: [study]: systems[0]: no recipe 'small/swa_fwpk'",
        "did you mean 'small/swa_fwpkm'",
        "systems[1]: positions: yarn needs full attention",
        "labels must tell systems apart, got ['memory', 'memory']",
        "all systems must have the same data.corpus, got novel (memory), other (elsewhere)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("study.seeds=[1, 1]", "seeds must not be empty and name nothing twice"),
        ("study.tokens=0", "tokens must be at least 1"),
        ("study.jbs=2", "unknown field 'jbs'; did you mean 'jobs'"),
        ("study.perplexity={memory='memory_off'}", "set memory_modes instead"),
        ("study.needles.reads=[9]", "reads must be in [1, 4], got 9"),
        ("study.systems=[]", "systems must name at least one"),
        ("study.systems=[{recipe='base.toml', positions=[]}]", "positions must not be empty"),
        ("study.systems=[{recipe='base.toml', label=' '}]", "label must hold some text"),
    ],
)
def test_a_command_refuses_nonsense_in_a_line(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = write_study(tmp_path, BASE)
    assert main(["study", str(file), "--out", str(tmp_path / "out"), "--set", setting]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [
        NeedleSettings(),
        NeedleSettings(
            lengths=(9, 99), depths=(0.5,), reads=(2,), form="single", flush=False, carry=True, seed=4
        ),
        NeedleSettings(ablations=("memory_off", "wrong_document"), batch_size=2),
        PerplexitySettings(length=77, memory="frozen_memory", piece=5),
    ],
)
def test_settings_as_options_are_read_back_equal(settings: NeedleSettings | PerplexitySettings) -> None:
    from fwpkm.cli.eval import _HELP
    from fwpkm.cli.settings_options import settings_of

    kind = "needles" if isinstance(settings, NeedleSettings) else "perplexity"
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args([kind, "model", *options_of(settings)])
    assert settings_of(options, type(settings), _HELP[kind]) == settings


def test_what_only_memories_have_is_left_out_elsewhere(tmp_path: Path) -> None:
    shared = f'{BASE}\nlabel = "shared"\nsettings = ["model.fwpkm.table=batch"]'
    full = f"{FULL}\npositions = ['trained', 'yarn']\nmax_length = 300"
    extra = ("study.needles.lengths=[600, 300]", "study.perplexity={length=64}")
    modes = ('study.memory_modes=["normal", "memory_off"]',)
    plan = plan_of(tmp_path, BASE, shared, full, settings=(*extra, *modes))
    found = {}
    for task in make_tasks(plan, tmp_path / "out"):
        found.setdefault(task.system, []).append(task)
    titles = {name: [task.title for task in tasks] for name, tasks in found.items()}
    memory = [
        "train",
        "needles in 300 tokens",
        "needles in 600 tokens",
        "perplexity",
        "perplexity memory off",
    ]
    assert titles["memory"] == titles["shared"] == memory
    own = ["needles in 300 tokens", "perplexity"]
    assert titles["full"] == ["train", *own, *(f"{title}, YaRN" for title in own)]
    assert ["wrong_document" in found[name][1].command for name in found] == [True, False, False]
    assert "--yarn-from 160" in found["full"][3].command
    assert "--name 'full, YaRN'" in found["full"][3].command


def test_long_documents_are_read_once(tmp_path: Path) -> None:
    asked = "study.needles={lengths=[300, 600, 900], reads=[1, 3], ablations=['memory_off']}"
    plan = plan_of(tmp_path, BASE, settings=("study.once_from=600", asked, "study.perplexity=none"))
    found = {task.title: task.command for task in make_tasks(plan, tmp_path / "out") if task.title != "train"}
    reads = {title: command.partition("--reads ")[2].partition(" --")[0] for title, command in found.items()}
    assert list(reads.values()) == ["1 3", "1", "1"]
    assert ["memory_off" in command for command in found.values()] == [True, False, False]


def test_a_system_says_for_itself_what_is_read_once(tmp_path: Path) -> None:
    asked = "study.needles={lengths=[300, 600, 900], reads=[1, 2]}"
    settings = ("study.once_from=900", asked, "study.perplexity=none")
    plan = plan_of(tmp_path, BASE, f"{FULL}\nonce_from = 600", settings=settings)
    found = [(task.system, task.settings.reads) for task in make_tasks(plan, tmp_path) if task.settings]
    assert found == [
        ("memory", (1, 2)),
        ("memory", (1, 2)),
        ("memory", (1,)),
        ("full", (1, 2)),
        ("full", (1,)),
        ("full", (1,)),
    ]


def test_seeds_come_one_after_the_other(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, BASE, FULL, settings=("study.seeds=[0, 1]",))
    trained = [(t.system, t.seed) for t in make_tasks(plan, tmp_path) if t.title == "train"]
    assert trained == [("memory", 0), ("full", 0), ("memory", 1), ("full", 1)]


def test_differences_name_settings(tmp_path: Path) -> None:
    before, after = (
        plan_of(tmp_path, BASE, settings=(f"study.tokens={n}",)).systems[0].runs[0][1].resolved()
        for n in (640, 641)
    )
    assert differences(before, before) == []
    assert differences(before, after) == ["train.max_tokens was 640 and is 641"]


def test_a_study_trains_decoders_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "retrofit.toml").write_text(
        "title = 'r'\n[base]\npath = 'x'\nlayers = [1]\n[base.memory]\ndim = 8\n"
    )
    with pytest.raises(ValueError, match=r"systems\[0\]: "):
        make_plan(read_recipe(write_study(tmp_path, 'recipe = "retrofit.toml"', text=STUDY)))


PAGE = (Path(__file__).parents[2] / "docs/study.md").read_text()


def test_the_pages_recipe_is_one(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    (tmp_path / "mine.toml").write_text(example[1])
    plan = make_plan(read_recipe(tmp_path / "mine.toml"))
    assert [system.label for system in plan.systems][1] == "SWA, wider"
    sizes = [system.parameters for system in plan.systems]
    assert max(sizes) / min(sizes) < 1.01


def test_the_pages_commands_parse() -> None:
    parser = argparse.ArgumentParser()
    study.add_arguments(parser)
    commands = re.findall(r"^fwpkm study ([^#\n]+)", PAGE, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        assert find_recipe(parser.parse_args(command.split()).recipe).is_file()

"""A study of tiny systems, and tasks that are done at once."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fwpkm.cli.main import main
from fwpkm.recipe import read_recipe
from fwpkm.study.plan import Plan, make_plan
from fwpkm.study.tasks import Task

BASE = """
title = "memory"
[model]
vocab_size = 259
dim = 16
num_layers = 1
mixers = ["sliding_attention"]
attention = { num_heads = 1, num_kv_heads = 1, head_dim = 8, window = 16 }
swiglu = { hidden_dim = 16 }
fwpkm = { num_subkeys = 8, key_dim = 8, value_dim = 8, topk = 2, chunk_size = 8 }
fwpkm_layers = [0]
[data]
seq_len = 160
batch_size = 2
recall = { rate = 1.0, max_needles = 1 }
[train]
max_minutes = 30.0
validation_batches = 1
trace_every = "none"
validate_every = "none"
[train.schedule]
horizon = "minutes"
"""
FULL = """
extends = "base.toml"
title = "full"
[model]
mixers = ["full_attention"]
attention = { window = "none" }
fwpkm = "none"
fwpkm_layers = []
"""
STUDY = """
title = "A <b>tiny</b> study"
[study]
tokens = 640
seeds = [0]
perplexity = "none"
[study.needles]
lengths = [300]
depths = [0.0, 1.0]
reads = [1]
samples = 2
ablations = ["wrong_document"]
"""
BROKEN = '["train.optimizer.lr=1e30", "train.optimizer.clip_norm=none", "train.guards.max_skipped=1"]'
"""Settings under which a training ends with a loss that is no number."""


def write_study(folder: Path, *systems: str, text: str = STUDY) -> Path:
    """Write a study's recipe and those that it names; each system is the body of its table."""
    (folder / "base.toml").write_text(BASE)
    (folder / "full.toml").write_text(FULL)
    file = folder / "study.toml"
    file.write_text(text + "".join(f"\n[[study.systems]]\n{system}\n" for system in systems))
    return file


def plan_of(folder: Path, *systems: str, settings: tuple[str, ...] = (), text: str = STUDY) -> Plan:
    return make_plan(read_recipe(write_study(folder, *systems, text=text), settings))


class Ended:
    """A job that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    def terminate(self) -> None:
        raise AssertionError("it has ended")


def start_here(*_: Any) -> Callable[[Task], Ended]:
    """Return what does a task at once, in this process."""

    def start(task: Task) -> Ended:
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            before, sys.argv = sys.argv, ["fwpkm", *task.arguments]
            try:
                return Ended(main(task.arguments))
            finally:
                sys.argv = before

    return start

"""What `fwpkm study` does; loaded when it is asked for, as it needs all that trains."""

import argparse
import shlex
import sys
from pathlib import Path

from fwpkm.cli.recipe_options import recipe_of
from fwpkm.files import write_json, write_text
from fwpkm.nested import to_mapping
from fwpkm.recipe import read_recipe
from fwpkm.report.study import study_json, write_study_report
from fwpkm.report.study_tables import budget_table, failure_table, needle_tables, perplexity_tables
from fwpkm.report.table import Table
from fwpkm.study.curves import keep_training
from fwpkm.study.plan import Plan, differences, make_plan
from fwpkm.study.results import StudyResults, read_study
from fwpkm.study.tasks import Task, make_tasks, seed_folder, select_tasks
from fwpkm.study.work import locked, start_process, work
from fwpkm.toml import dump_toml
from fwpkm.train.run import Run
from fwpkm.train.rundir import describe_environment
from fwpkm.train.stop import stop_on_signals

_SIGNALLED = 128


def run_study(options: argparse.Namespace) -> int:
    """Do what is missing; returns 0 if all is done, 1 if something is not, 128 + a signal's number if stopped."""
    plan = make_plan(recipe_of(options))
    out = options.out or Path("runs") / plan.recipe.name.replace("/", "-")
    tasks, command = make_tasks(plan, out), command_of(options)
    wanted = tasks if options.only is None else select_tasks(tasks, options.only)
    if options.report_only:
        return _report(plan, out, command)
    check_same_recipes(plan, out)
    if options.dry_run:
        print(listing(plan, wanted))
        return 0
    with locked(out) as lock:
        return _run(plan, tasks, wanted, out, command, retry=options.retry, lock=lock)


def _run(
    plan: Plan, tasks: list[Task], wanted: list[Task], out: Path, command: str, *, retry: bool, lock: int
) -> int:
    write_recipes(plan, out)
    write_json(out / "env.json", describe_environment())
    write_text(
        out / "commands.sh", "".join(f"{line}\n" for line in ("#!/bin/sh -e", *(t.command for t in tasks)))
    )
    for task in wanted if retry else ():
        task.failure.unlink(missing_ok=True)
    with stop_on_signals() as stop:
        start = start_process(plan.config.threads, lock)
        work(wanted, jobs=plan.config.jobs, start=start, stop=stop, say=_say)
    code = _report(plan, out, command)
    if stop.signal is not None:
        return _SIGNALLED + stop.signal
    if left := [task for task in wanted if task.state in ("to do", "begun")]:
        _say(
            f"{len(left)} of {len(wanted)} tasks are not done; the same command goes on with those that were ended"
        )
    return 1 if left else code


def check_same_recipes(plan: Plan, out: Path) -> None:
    """Refuse to go on with systems that are no longer what was begun.

    Raises:
        ValueError: With all settings that differ.
    """
    problems = []
    for system in plan.systems:
        for seed, own in system.runs:
            file = seed_folder(out, system, seed) / "recipe.toml"
            if not file.exists():
                continue
            before = Run.of(read_recipe(file)).resolved()  # what is newer than the file has its default
            if changed := differences(before, own.resolved()):
                problems.append(f"{file.parent}: {', '.join(changed)}")
    if problems:
        raise ValueError(
            f"what was begun in {out} was of other recipes: {'; '.join(problems)}. Choose another --out, or "
            "remove those folders"
        )


def write_recipes(plan: Plan, out: Path) -> None:
    """Write the study's recipe and every training's, with all defaults spelt out."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "study.toml", dump_toml({"title": plan.recipe.title, "study": to_mapping(plan.config)}))
    for system in plan.systems:
        for seed, own in system.runs:
            folder = seed_folder(out, system, seed)
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "recipe.toml", own.resolved().to_toml())


def listing(plan: Plan, tasks: list[Task]) -> str:
    """List all systems with their parameters, and all tasks: how far each is, and its command."""
    missing = sum(task.state in ("to do", "begun") for task in tasks)
    name = plan.recipe.title or plan.recipe.name
    head = [f"{name}: {missing} of {len(tasks)} tasks to do, {plan.config.jobs} at a time"]
    for system in plan.systems:
        head.append(
            f"  {system.label}: {system.parameters:,} parameters, {plan.config.tokens:,} tokens a seed"
        )
    return "\n".join(
        [*head, *(f"{t.system}, seed {t.seed}, {t.title}: {t.state}\n  {t.command}" for t in tasks)]
    )


def command_of(options: argparse.Namespace) -> str:
    """Return the command line that repeats or goes on with the study."""
    settings = [part for setting in options.settings for part in ("--set", setting)]
    out = [] if options.out is None else ["--out", str(options.out)]
    return shlex.join(["fwpkm", "study", options.recipe, *settings, *out])


def _report(plan: Plan, out: Path, command: str) -> int:
    results = read_study(plan, out)
    out.mkdir(parents=True, exist_ok=True)
    keep_trainings(results, out)
    write_json(out / "study.json", study_json(results, command))
    write_study_report(out / "report.html", results, command)
    print("\n\n".join(table.to_text() for table in _tables(results)))
    print(f"\n{out / 'report.html'}")
    return 1 if results.failures else 0


def _tables(results: StudyResults) -> list[Table]:
    tables = [budget_table(results), *needle_tables(results), *perplexity_tables(results)]
    return [*tables, failure_table(results)] if results.failures else tables


def keep_trainings(results: StudyResults, out: Path) -> None:
    """Write beside every finished run's folder how the training went."""
    for own in results.systems:
        for training in own.trainings:
            if training.finished:
                keep_training(seed_folder(out, own.system, training.seed), training)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

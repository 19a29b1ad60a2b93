"""Train the systems of a study alike with several seeds, measure them alike, and write one report."""

import argparse
from pathlib import Path

from fwpkm.cli.recipe_options import add_recipe_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the study's folder; runs/<recipe> if left out"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="list what would be run, and run nothing")
    what.add_argument("--report-only", action="store_true", help="write the report of what there is")
    parser.add_argument(
        "--only",
        action="append",
        metavar="LABEL",
        help="work on this system only; can be given several times",
    )
    parser.add_argument("--retry", action="store_true", help="try again what has failed")


def run(options: argparse.Namespace) -> int:
    """Do what is missing; returns 0 if all is done, 1 if something failed, 128 + a signal's number if stopped."""
    from fwpkm.cli.study_run import run_study  # other commands need not wait for it

    return run_study(options)

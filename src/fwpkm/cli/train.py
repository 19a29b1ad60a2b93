"""Train a model from a recipe, and go on where a run stopped."""

import argparse
import logging
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fwpkm.cli.recipe_options import add_recipe_arguments, recipe_of
from fwpkm.recipe import Recipe

if TYPE_CHECKING:
    from fwpkm.train.loop import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder; runs/<recipe>-<time> if left out"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest whole checkpoint in --out"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def run(options: argparse.Namespace) -> int:
    """Train; returns 0 if the run ended as planned, 128 + the signal's number if a signal stopped it."""
    recipe = recipe_of(options)
    if options.resume and options.out is None:
        raise ValueError("--resume needs --out, the folder of the run to go on with")
    if options.out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("several processes need --out, as each would name another folder after the time")
    out = options.out or default_folder(recipe)
    from fwpkm.train.run import train  # other commands need not wait for it

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        outcome = train(recipe, out, resume=options.resume, quiet=options.quiet)
    except RuntimeError as error:
        print(f"fwpkm train: {error}", file=sys.stderr)
        return 1
    return _say(outcome, out)


def default_folder(recipe: Recipe) -> Path:
    """Name a folder after recipe and time."""
    name = recipe.name.replace("/", "-")
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _say(outcome: "Outcome", out: Path) -> int:
    step = outcome.progress.step
    if outcome.signal is not None:
        print(
            f"stopped at step {step}; go on with: fwpkm train {out / 'recipe.toml'} --out {out} --resume",
            file=sys.stderr,
        )
        return 128 + outcome.signal
    found = "".join(f"  {name} {value:.4f}" for name, value in outcome.validation.items())
    print(f"{outcome.end} at step {step}; the model is in {out / 'model'}{found}")
    return 0

"""Train a small model with a memory and a twin without one on a novel, and ask both about its unread part."""

import argparse
import sys
from pathlib import Path

from fwpkm.cli.demo_plan import DemoPlan
from fwpkm.cli.demo_recall import recall_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    plan = DemoPlan()
    parser.add_argument("--minutes", type=float, default=plan.minutes, help="how long all of it may take")
    parser.add_argument("--recipe", default=plan.recipe, help="the model with a memory")
    parser.add_argument("--twin", default=plan.twin, help="the model without one")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=plan.lengths, help="tokens of the documents"
    )
    parser.add_argument(
        "--samples", type=int, default=plan.samples, help="documents of each length and depth"
    )
    parser.add_argument("--seed", type=int, default=plan.seed, help="draws the models and the documents")
    parser.add_argument("--out", type=Path, help="folder to make; default: runs/demo-TIME")
    others = parser.add_subparsers(dest="what", metavar="recall")
    recall = others.add_parser("recall", help="an untrained layer memorises random streams, in seconds")
    recall.add_argument("--seed", type=int, default=0, help="draws the stream")


def run(options: argparse.Namespace) -> int:
    """Run the demonstration that was asked for."""
    if options.what == "recall":
        print(recall_table(seed=options.seed))
        return 0
    plan = DemoPlan(
        minutes=options.minutes,
        recipe=options.recipe,
        twin=options.twin,
        lengths=tuple(options.lengths),
        samples=options.samples,
        seed=options.seed,
    )
    from fwpkm.cli.demo_novel import run_demo  # training is long to import; other commands need not wait

    try:
        return run_demo(plan, options.out)
    except RuntimeError as error:  # the machine's doing: memory that ran out, steps that were all skipped
        print(f"fwpkm demo: {error}", file=sys.stderr)
        return 1

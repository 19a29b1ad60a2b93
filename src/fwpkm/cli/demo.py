"""Watch the memory at work: memorise a random stream in one pass, then recall it."""

import argparse

from fwpkm.cli.demo_recall import recall_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seed", type=int, default=0, help="draws the stream")


def run(options: argparse.Namespace) -> int:
    """Print what is recalled of streams of several lengths."""
    print(recall_table(seed=options.seed))
    return 0

"""Convert a checkpoint of the authors' release to our format, which transformers reads, or back.

Prints what the new model does otherwise than the old one. Pickles are read only if they hold nothing but tensors;
names, shapes and fields that do not fit are all listed, and nothing is written then.
"""

import argparse
from pathlib import Path

from fwpkm.models.release_files import export_release, import_release


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "source", type=Path, help="folder with config.json and weights, or a weights file beside it"
    )
    parser.add_argument("target", type=Path, help="folder to make")
    parser.add_argument(
        "--to", choices=["fwpkm", "release"], default="fwpkm", help="format to write (default: fwpkm)"
    )


def run(options: argparse.Namespace) -> int:
    """Convert, and say what changes with it."""
    convert = export_release if options.to == "release" else import_release
    notes = convert(options.source, options.target)
    print(f"wrote {options.target}")
    if notes:
        print("what changes with it:")
    for note in notes:
        print(f"  {note}")
    return 0

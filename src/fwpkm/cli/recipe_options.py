"""The options of every subcommand that works from a recipe:  fwpkm COMMAND RECIPE --set a.b=c."""

import argparse

from fwpkm.recipe import Recipe, read_recipe


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare RECIPE and --set."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a TOML file, or a short name such as paper/gdn_fwpkm"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="change one value of the recipe, as in train.lr=3e-4; may be repeated",
    )


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Read the recipe that the options name."""
    return read_recipe(options.recipe, options.settings)

"""fwpkm COMMAND ...  The command line of Fast-weight Product Key Memory."""

import argparse
import sys
from collections.abc import Sequence

from fwpkm.cli import ask, attach, bench, convert, data, demo, eval, info, inspect, memory, read, study, train

_COMMANDS = {
    "ask": ask,
    "attach": attach,
    "bench": bench,
    "convert": convert,
    "data": data,
    "demo": demo,
    "eval": eval,
    "info": info,
    "inspect": inspect,
    "memory": memory,
    "read": read,
    "study": study,
    "train": train,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; errors of the user's or the machine's making end in one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="fwpkm", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=summary, description=module.__doc__))
    options = parser.parse_args(argv)
    try:
        return _COMMANDS[options.command].run(options)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"fwpkm {options.command}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

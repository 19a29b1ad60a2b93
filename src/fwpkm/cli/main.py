"""fwpkm COMMAND ...  The command line of Fast-weight Product Key Memory."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from fwpkm.cli import ask, attach, bench, convert, data, demo, eval, info, inspect, memory, read, study, train
from fwpkm.devices import check_device

TRACEBACK_VARIABLE = "FWPKM_TRACEBACK"
"""Set to anything, errors come with where they arose."""
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
    """Run one subcommand; errors of the user's or the machine's making, and Ctrl-C, end in one line.

    Returns:
        What the subcommand says; 2 after an error, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog="fwpkm", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=summary, description=module.__doc__))
    options = parser.parse_args(argv)
    try:
        if hasattr(options, "device"):
            check_device("--device", options.device)
        return _COMMANDS[options.command].run(options)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        print(f"fwpkm {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{_after_progress()}fwpkm {options.command}: {_stopped(options)}", file=sys.stderr)
        return 128 + signal.SIGINT


def _stopped(options: argparse.Namespace) -> str:
    """Say what Ctrl-C did; commands that go on where they were declare it by `goes_on`."""
    goes_on = getattr(options, "goes_on", False)
    return "stopped; the same command goes on where it was" if goes_on else "stopped"


def _after_progress() -> str:
    """Leave the line on a terminal that says how far a command is, and Ctrl-C's own mark."""
    return "\n" if sys.stderr.isatty() else ""


if __name__ == "__main__":
    sys.exit(main())

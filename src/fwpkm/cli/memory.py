"""Look into memory files: what they hold, where two differ, whether they are whole; merge two."""

import argparse
import json
from typing import Any

from fwpkm.memory.describe import compare, describe
from fwpkm.memory.files import read_file
from fwpkm.memory.quantise import ROW_FORMATS
from fwpkm.sessions.merge import merge_files

_KINDS = {"DecoderCache": "memory of a model", "FwPKMState": "memory of one layer"}
"""What files call the classes of what they hold."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = actions.add_parser("info", help="say what a file holds")
    info.add_argument("file")
    diff = actions.add_parser("diff", help="say where two files differ; exit code 1 if they do")
    diff.add_argument("first")
    diff.add_argument("second")
    for action in (info, diff):
        action.add_argument("--json", action="store_true", help="print one JSON object")
    merge = actions.add_parser("merge", help="make one memory of two of the same model")
    merge.add_argument("first")
    merge.add_argument("second")
    merge.add_argument("--out", required=True, help="file to write")
    merge.add_argument(
        "--rule",
        choices=["mean", "first", "second"],
        default="mean",
        help="what a slot holds that both wrote",
    )
    merge.add_argument("--rows", choices=ROW_FORMATS, default="exact", help="precision of the rows")
    verify = actions.add_parser("verify", help="check every hash; exit code 2 if a file is damaged")
    verify.add_argument("files", nargs="+", metavar="file")


def run(options: argparse.Namespace) -> int:
    """Do what was asked."""
    return {"info": _info, "diff": _diff, "merge": _merge, "verify": _verify}[options.action](options)


def _info(options: argparse.Namespace) -> int:
    facts = describe(read_file(options.file))
    if options.json:
        print(json.dumps(facts, indent=1))
        return 0
    kind = _KINDS.get(facts["kind"], facts["kind"])
    print(f"{kind}, {_size(facts['tensor_bytes'])}, tokens seen {_list(facts['tokens_seen'])}")
    print(f"rows {facts['rows']}, relative error {facts['loss']:.2g}")
    for table in facts["tables"]:
        print(
            f"  {table['path']:24s} {table['written']} of {table['streams']} x {table['slots']} slots written "
            f"({table['occupancy']:.2%}), width {table['width']}"
        )
    extra = dict(facts["extra"])
    for reading in extra.pop("readings", ()):
        again = f", read {reading['times']} times" if reading["times"] > 1 else ""
        print(f"  read {reading['name']}: tokens {reading['start']} to {reading['stop']}{again}")
    for name, value in extra.items():
        print(f"  {name}: {value}")
    return 0


def _diff(options: argparse.Namespace) -> int:
    found = compare(read_file(options.first), read_file(options.second))
    differ = _differs(found)
    if options.json:
        print(json.dumps({**found, "differ": differ}, indent=1))
        return int(differ)
    for line in found["model"]:
        print(f"model: {line}")
    print(f"tokens seen: {_list(found['tokens_seen'][0])} and {_list(found['tokens_seen'][1])}")
    for side in ("first", "second"):
        print(*(f"only in the {side}: {path}\n" for path in found[f"only_{side}"]), sep="", end="")
    for table in found["tables"]:
        print(f"  {table['path']:24s} {_table_line(table)}")
    if found["others"]:
        print(f"  {len(found['others'])} other tensors differ, such as {found['others'][0]}")
    print("the memories differ" if differ else "the memories are the same")
    return int(differ)


def _differs(found: dict[str, Any]) -> bool:
    counts = [
        table.get(name, 1) for table in found["tables"] for name in ("only_first", "only_second", "changed")
    ]
    sides = found["model"] or found["others"] or found["only_first"] or found["only_second"]
    return bool(sides or any(counts) or found["tokens_seen"][0] != found["tokens_seen"][1])


def _table_line(table: dict[str, Any]) -> str:
    if "sizes" in table:
        return f"of different sizes: {table['sizes'][0]} and {table['sizes'][1]}"
    return (
        f"{table['only_first']} slots only in the first, {table['only_second']} only in the second, "
        f"{table['changed']} of {table['both']} in both differ (relative {table['relative_difference']:.2g})"
    )


def _merge(options: argparse.Namespace) -> int:
    report = merge_files(options.first, options.second, options.out, rule=options.rule, rows=options.rows)
    print(
        f"{options.out}: {report.num_rows} rows, {_size(report.num_bytes)}, relative error {report.loss:.2g}"
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    damaged = 0
    for path in options.files:
        try:
            file = read_file(path)
            print(f"{path}: whole, {len(file.tensors)} tensors")
        except (ValueError, OSError) as error:
            damaged += 1
            print(error)
    return 2 if damaged else 0


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"

"""Measure a trained model: needles, perplexity, gates, slots, continual; and make a page of what was measured."""

import argparse
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from fwpkm.cli.progress import ProgressLine
from fwpkm.cli.session_options import CHECKPOINT_HELP, load_reader
from fwpkm.cli.settings_options import add_settings, settings_of
from fwpkm.data.haystack import ProseHaystack
from fwpkm.data.needles import NeedleMaker
from fwpkm.data.tokenizer import Tokenizer
from fwpkm.eval.continual import ContinualResult, ContinualSettings, measure_continual
from fwpkm.eval.files import Result, load_result, save_result
from fwpkm.eval.gates import GateResult, GateSettings, measure_gates
from fwpkm.eval.needles import NeedleResult, NeedleSettings, measure_needles
from fwpkm.eval.perplexity import PerplexityResult, PerplexitySettings, measure_perplexity
from fwpkm.eval.reader import ModelReader
from fwpkm.eval.result import Origin
from fwpkm.eval.seen import seen_among
from fwpkm.eval.slots import SlotResult, SlotSettings, measure_slots
from fwpkm.eval.text import open_documents
from fwpkm.eval.yarn import stretch
from fwpkm.models.decoder import Decoder
from fwpkm.models.shipped import find_checkpoint
from fwpkm.report.continual import continual_tables
from fwpkm.report.figures import draw_result, write_figures
from fwpkm.report.needles import needle_tables
from fwpkm.report.others import gate_table, perplexity_table, slot_table
from fwpkm.report.page import write_report
from fwpkm.report.table import Table

_BATCH = "documents that are read side by side; changes no result"
_FORM = "task: paper, single, multi_key, multi_value, multi_query"
_HELP = {
    "needles": {
        "form": _FORM,
        "lengths": "tokens of document and question",
        "depths": "where the needle stands, from 0 to 1",
        "reads": "after how many readings to ask, 1 to 4",
        "samples": "documents of each length and depth",
        "ablations": "also measure with: memory_off, frozen_memory, wrong_document",
        "carry": "keep the memory from one sample to the next",
        "flush": "let the memory take in the document's last tokens before it is asked (the default)",
        "seed": "decides all samples",
        "batch_size": _BATCH,
    },
    "perplexity": {
        "length": "tokens of a run, which begins with nothing read",
        "max_runs": "runs at most, spread over the text",
        "memory": "normal, memory_off or frozen_memory",
        "batch_size": _BATCH,
        "piece": "tokens that are read at once; changes no result",
    },
    "gates": {
        "form": _FORM,
        "length": "tokens of a document",
        "samples": "documents",
        "seed": "decides them",
        "batch_size": _BATCH,
    },
    "slots": {
        "length": "tokens of a run, which begins with a fresh memory",
        "max_runs": "runs at most, spread over the text",
        "batch_size": _BATCH,
    },
    "continual": {
        "other": "the other domain: a corpus folder, a text file, novel, or python for its standard library",
        "length": "tokens of each phase",
        "samples": "streams at most, each with texts of its own",
        "again": "what the third phase reads: continued, the first domain's next text, or repeated",
        "batch_size": _BATCH,
        "piece": "tokens that are read at once; changes no result",
    },
}
_SETTINGS = {
    "needles": NeedleSettings,
    "perplexity": PerplexitySettings,
    "gates": GateSettings,
    "slots": SlotSettings,
    "continual": ContinualSettings,
}
_LONGEST: dict[str, Callable[[Any], int]] = {
    "needles": lambda settings: max(settings.lengths),
    "perplexity": lambda settings: settings.length,
}
"""How many tokens a measurement reads at most, where positions may be stretched for it."""
_SUMMARY = {
    "needles": "find numbers in long documents, by length, depth and number of readings",
    "perplexity": "read documents in a stream; loss by position",
    "gates": "how far the memories' gates open, and on what",
    "slots": "how many slots are used, how evenly, and how old what they hold is",
    "continual": "a domain, another and the first again: what a memory that lives on gains, keeps and loses",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for kind, cls in _SETTINGS.items():
        own = kinds.add_parser(kind, help=_SUMMARY[kind])
        own.add_argument("checkpoint", help=CHECKPOINT_HELP)
        own.add_argument(
            "--text",
            default="novel",
            help="a corpus folder, a text file, 'python' (the standard library's modules), or 'novel' (the default): "
            "the shipped one's last fifth",
        )
        own.add_argument("--name", help="what tables call the model; default: its folder")
        own.add_argument("--out", type=Path, help="JSON file to write; default: results/WHAT-NAME-TIME.json")
        own.add_argument(
            "--no-plots",
            dest="plots",
            action="store_false",
            help="write no drawings (SVG) beside the JSON file",
        )
        own.add_argument("--device", default="cpu")
        add_settings(own, cls, _HELP[kind])
        if kind in _LONGEST:
            own.add_argument(
                "--yarn-from",
                type=int,
                metavar="TRAINED",
                help="let full attention reach beyond so many tokens, its trained length, by YaRN",
            )
    page = kinds.add_parser("report", help="one HTML page of results")
    page.add_argument("results", nargs="+", type=Path, help="JSON files that fwpkm eval wrote")
    page.add_argument("--out", type=Path, required=True, help="HTML file to write")
    page.add_argument("--title", default="What was measured", help="the page's heading")


def run(options: argparse.Namespace) -> int:
    """Measure, write a file and its drawings, print a table."""
    if options.what == "report":
        return _report(options)
    settings: Any = settings_of(options, _SETTINGS[options.what], _HELP[options.what])
    model, tokenizer = load_reader(options.checkpoint, options.device)
    if getattr(options, "yarn_from", None) is not None:
        model = stretch(model, trained=options.yarn_from, length=_LONGEST[options.what](settings))
    name = options.name or model_name(options.checkpoint)
    out = options.out or default_file(options.what, name)
    origin = Origin.of(
        model,
        name=name,
        checkpoint=options.checkpoint,
        text=options.text,
        tokenizer=f"{tokenizer.name} ({tokenizer.fingerprint})",
        seen_in_training=_warned_of_seen(options, settings),
    )
    result = _MEASURES[options.what](model, tokenizer, options.text, settings, origin)
    save_result(out, result)
    drawn = write_figures(out, draw_result(result)) if options.plots else []
    print("\n\n".join(table.to_text() for table in tables_of(result)))
    print(f"\n{out}", *drawn, sep="\n")
    return 0


def measured_needles(
    model: Decoder, tokenizer: Tokenizer, text: str, settings: NeedleSettings, origin: Origin
) -> NeedleResult:
    """Measure needles in a text."""
    maker = NeedleMaker(settings.form, tokenizer, ProseHaystack(open_documents(text, tokenizer)))
    cells = measure_needles(ModelReader(model), maker, settings, ProgressLine("samples of a length"))
    return NeedleResult(origin=origin, settings=settings, cells=tuple(cells))


def measured_perplexity(
    model: Decoder, tokenizer: Tokenizer, text: str, settings: PerplexitySettings, origin: Origin
) -> PerplexityResult:
    """Measure perplexity on a text."""
    documents = open_documents(text, tokenizer)
    bins, runs = measure_perplexity(model, tokenizer, documents, settings, ProgressLine("runs"))
    return PerplexityResult(origin=origin, settings=settings, bins=bins, runs=runs)


def tables_of(result: Result) -> list[Table]:
    """Return what to print of a result."""
    if isinstance(result, NeedleResult):
        return list(needle_tables(result))
    if isinstance(result, PerplexityResult):
        return [perplexity_table(result)]
    if isinstance(result, ContinualResult):
        return list(continual_tables(result))
    return [gate_table(result) if isinstance(result, GateResult) else slot_table(result)]


def model_name(checkpoint: str) -> str:
    """Name a model after its run's folder."""
    path = Path(checkpoint).resolve()
    return path.parent.name if path.name == "model" else path.name


def default_file(kind: str, name: str) -> Path:
    """Name a result's file after what was measured, the model and the time."""
    return Path("results") / f"{kind}-{name}-{datetime.now():%Y%m%d-%H%M%S}.json"


def _gates(
    model: Decoder, tokenizer: Tokenizer, text: str, settings: GateSettings, origin: Origin
) -> GateResult:
    maker = NeedleMaker(settings.form, tokenizer, ProseHaystack(open_documents(text, tokenizer)))
    cells, positions = measure_gates(model, maker, settings)
    return GateResult(origin=origin, settings=settings, cells=cells, positions=positions)


def _slots(
    model: Decoder, tokenizer: Tokenizer, text: str, settings: SlotSettings, origin: Origin
) -> SlotResult:
    layers = measure_slots(model, open_documents(text, tokenizer), settings)
    return SlotResult(origin=origin, settings=settings, layers=layers)


def _continual(
    model: Decoder, tokenizer: Tokenizer, text: str, settings: ContinualSettings, origin: Origin
) -> ContinualResult:
    first, other = open_documents(text, tokenizer), open_documents(settings.other, tokenizer)
    cells = measure_continual(model, first, other, settings, ProgressLine("streams"))
    return ContinualResult(origin=origin, settings=settings, cells=cells)


def _warned_of_seen(options: argparse.Namespace, settings: Any) -> tuple[str, ...]:
    """Return which of the texts the model was trained on, after a warning of each."""
    texts = (options.text, settings.other) if options.what == "continual" else (options.text,)
    seen = seen_among(texts, find_checkpoint(options.checkpoint))
    for text in seen:
        print(
            f"fwpkm eval: warning: {options.checkpoint} was trained on all of {text!r}, so nothing of it is held out; "
            "--text takes a text that it has not read",
            file=sys.stderr,
        )
    return seen


_MEASURES: dict[str, Callable[..., Result]] = {
    "needles": measured_needles,
    "perplexity": measured_perplexity,
    "gates": _gates,
    "slots": _slots,
    "continual": _continual,
}


def _report(options: argparse.Namespace) -> int:
    write_report(options.out, [load_result(path) for path in options.results], title=options.title)
    print(options.out)
    return 0

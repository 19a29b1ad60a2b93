"""Look into a memory: a page that shows which tokens wrote what, and where answers come from."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fwpkm.cli.progress import ProgressLine
from fwpkm.cli.session_options import CHECKPOINT_HELP, check_out, load_reader, text_of
from fwpkm.data.extra import need
from fwpkm.files import write_bytes
from fwpkm.inspect.data import page_data
from fwpkm.inspect.guard import LOOPBACK
from fwpkm.inspect.html import render_page
from fwpkm.inspect.inspection import MOST_TOKENS, Answer, Inspection
from fwpkm.sessions.engine import Sampling

_CONNECTIONS = 32
_LAST_PORT = 65535
_ANY = ("", "0.0.0.0", "::")
"""All addresses of this machine, whatever their names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("checkpoint", help=CHECKPOINT_HELP)
    parser.add_argument("document", help="a text file in UTF-8; - is standard input")
    parser.add_argument(
        "--question",
        action="append",
        default=[],
        help="ask this after each reading, and show where the answer comes from; may be repeated",
    )
    parser.add_argument("--times", type=int, default=1, help="how often to read the document")
    parser.add_argument("--max-tokens", type=int, default=32, help="tokens of an answer, at most")
    parser.add_argument(
        "--most-tokens", type=int, default=MOST_TOKENS, help="refuse to show more tokens, over all readings"
    )
    parser.add_argument("--piece", type=int, default=2048, help="tokens that are read at once")
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--out", metavar="PAGE.html", help="write one HTML file that needs nothing else")
    goal.add_argument("--serve", action="store_true", help="serve the page, and answer questions asked in it")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at; others than this machine see all of the document",
    )
    parser.add_argument("--port", type=int, default=8000, help="port to serve at")
    parser.add_argument("--device", default="cpu")


def run(options: argparse.Namespace) -> int:
    """Read, and write or serve the page."""
    _check(options)
    text = text_of(options.document)
    model, tokenizer = load_reader(options.checkpoint, options.device)
    inspection = Inspection(
        model,
        tokenizer,
        text,
        title=Path(options.document).name,
        times=options.times,
        piece=options.piece,
        most_tokens=options.most_tokens,
        progress=ProgressLine("tokens", what=options.document),
    )
    answers = _answers(inspection, options)
    return _serve(inspection, answers, options) if options.serve else _write(inspection, answers, options)


def _check(options: argparse.Namespace) -> None:
    """Find out what would go wrong before the document is read, which takes its time."""
    if options.out is not None:
        check_out(options.out)
    if not 1 <= options.port <= _LAST_PORT:
        raise ValueError(f"--port must be from 1 to {_LAST_PORT}, got {options.port}")
    if options.serve:
        for library in ("fastapi", "uvicorn"):
            need(library, "serve")


def _answers(inspection: Inspection, options: argparse.Namespace) -> list[Answer]:
    sampling = Sampling(max_tokens=options.max_tokens)
    return [
        inspection.ask(question, reading=reading, sampling=sampling)
        for reading in range(1, options.times + 1)
        for question in options.question
    ]


def _write(inspection: Inspection, answers: Sequence[Answer], options: argparse.Namespace) -> int:
    page = render_page(page_data(inspection, answers), inspection.pieces)
    write_bytes(Path(options.out), page.encode())
    print(f"{options.out}: {inspection.recording.num_tokens} tokens, {len(page) / 2**20:.1f} MiB")
    return 0


def _serve(inspection: Inspection, answers: Sequence[Answer], options: argparse.Namespace) -> int:
    import uvicorn

    from fwpkm.inspect.server import make_app

    local, anywhere = options.host in LOOPBACK, options.host in _ANY
    hosts = LOOPBACK if local else None if anywhere else (options.host,)
    app = make_app(inspection, answers, hosts=hosts)
    name = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{name}:{options.port}/  (Ctrl+C ends it)", flush=True)
    if not local:
        print(
            "fwpkm inspect: others can reach this page, ask the model and read the document", file=sys.stderr
        )
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=5,
        log_level="warning",
        ws="none",
    )
    return 0

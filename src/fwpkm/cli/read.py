"""Read documents into a memory file."""

import argparse
from pathlib import Path

from fwpkm.cli.progress import ProgressLine
from fwpkm.cli.session_options import CHECKPOINT_HELP, check_out, load_reader, text_of
from fwpkm.memory.quantise import ROW_FORMATS
from fwpkm.models.shipped import checkpoint_names, find_checkpoint
from fwpkm.sessions.session import MemorySession


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("checkpoint", help=CHECKPOINT_HELP)
    parser.add_argument(
        "documents", nargs="+", metavar="document", help="text files in UTF-8; - is standard input"
    )
    parser.add_argument("--out", required=True, help="memory file to write")
    parser.add_argument("--memory", help="memory file to go on from; default: nothing read yet")
    parser.add_argument("--times", type=int, default=1, help="how often to read each document")
    parser.add_argument("--rows", choices=ROW_FORMATS, default="exact", help="precision of the rows")
    parser.add_argument("--piece", type=int, default=2048, help="tokens that are read at once")
    parser.add_argument("--device", default="cpu")


def run(options: argparse.Namespace) -> int:
    """Read, save, and say what it took."""
    check_out(options.out)
    texts = {name: text_of(name) for name in options.documents}
    model, tokenizer = load_reader(options.checkpoint, options.device)
    session = MemorySession(model, tokenizer, piece_tokens=options.piece)
    if options.memory is not None:
        session.rollback(to=MemorySession.load(options.memory, model, tokenizer).mark())
    for name, text in texts.items():
        session.read(text, times=options.times, name=name, progress=ProgressLine("tokens", what=name))
    report = session.save(options.out, rows=options.rows, checkpoint=_lasting_name(options.checkpoint))
    print(
        f"{options.out}: {session.tokens_seen} tokens, {report.num_rows} rows, {report.num_bytes / 2**20:.1f} MiB, "
        f"relative error {report.loss:.2g}"
    )
    return 0


def _lasting_name(checkpoint: str) -> str:
    """Return what finds this model later: the name of one that comes with fwpkm, or its place."""
    shipped = checkpoint in checkpoint_names() and not Path(checkpoint).is_dir()
    return checkpoint if shipped else str(find_checkpoint(checkpoint).resolve())

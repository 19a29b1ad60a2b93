"""Ask a memory file; the answer appears as it is made."""

import argparse
import sys
from pathlib import Path

from fwpkm.cli.session_options import load_reader
from fwpkm.memory.files import read_file
from fwpkm.models.shipped import checkpoint_names
from fwpkm.sessions.engine import Sampling
from fwpkm.sessions.session import MemorySession


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "prompt", nargs="?", help="what the model continues; left out: one a line from standard input"
    )
    parser.add_argument("--memory", required=True, help="memory file that fwpkm read wrote")
    parser.add_argument(
        "--checkpoint", help="folder of the model; default: where it was when the file was made"
    )
    parser.add_argument("--max-tokens", type=int, default=64, help="tokens of an answer, at most")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="draw from the likeliest tokens of this probability"
    )
    parser.add_argument(
        "--stop", action="append", default=[], help="text that ends an answer; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--device", default="cpu")


def run(options: argparse.Namespace) -> int:
    """Print the answers; every question meets the memory as the file has it."""
    sampling = Sampling(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        stop=tuple(options.stop),
        seed=options.seed,
    )
    folder = options.checkpoint or _noted_checkpoint(options.memory)
    session = MemorySession.load(options.memory, *load_reader(folder, options.device))
    prompts = (line.rstrip("\n") for line in sys.stdin) if options.prompt is None else [options.prompt]
    for prompt in prompts:
        if options.prompt is None and not prompt:
            continue
        for text in session.stream(prompt, sampling):
            print(text, end="", flush=True)
        print()
    return 0


def _noted_checkpoint(memory: str) -> str:
    """Return where a memory file's model was when the file was made."""
    noted = read_file(memory).header.get("extra", {}).get("checkpoint")
    if noted is None:
        raise ValueError(f"{memory}: does not say which model made it; give --checkpoint")
    if not Path(noted).is_dir() and noted not in checkpoint_names():
        raise ValueError(
            f"{memory}: the model that made it was {noted}, which is not there; give --checkpoint"
        )
    return str(noted)

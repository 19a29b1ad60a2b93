"""Make an adapter for a Hugging Face model: memories before some of its layers, to be trained.

The adapter changes nothing until it is trained; fwpkm.load_adapter(model, FILE) attaches it.
"""

import argparse

import torch

from fwpkm.recipe import parse_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model", metavar="MODEL", help="a folder that transformers reads, a name on the hub, or a .gguf file"
    )
    parser.add_argument(
        "--layers", type=int, nargs="+", required=True, help="layers to put memories before, from 0"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="adapter file to write")
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="one field of the memory's config, as in num_subkeys=256; may be repeated",
    )
    parser.add_argument(
        "--window", type=int, metavar="TOKENS", help="limit the base's attention to so many tokens"
    )
    parser.add_argument(
        "--sinks", type=int, default=1, metavar="TOKENS", help="first tokens that stay in sight (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the projections (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Load the base, attach, save, and say what was made."""
    # transformers takes seconds to import, and is an extra.
    from fwpkm.models.attach import attach, limit_attention, load_base, memories, save_adapter

    base = load_base(options.model)
    if options.window is not None:
        limit_attention(base, options.window, options.sinks)
    torch.manual_seed(options.seed)
    attach(base, options.layers, parse_settings(options.settings))
    num_bytes = save_adapter(base, options.out)
    own = memories(base)
    trained = sum(p.numel() for memory in own.values() for p in memory.parameters())
    config = next(iter(own.values())).config
    print(f"wrote {options.out}, {num_bytes / 1e6:.1f} MB")
    print(
        f"  {len(own)} memories before layers {', '.join(map(str, own))} of {type(base).__name__}, each with "
        f"{config.num_slots} slots of {config.value_dim} numbers; {trained / 1e6:.2f}M parameters to train"
    )
    return 0

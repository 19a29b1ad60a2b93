"""Say what a recipe's model is made of: parameters, bytes of a stream's state, and operations per token, by part.

Of an existing model that is given memories, that is what these add to it; the model itself is not looked at.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fwpkm.cli.recipe_options import add_recipe_arguments, recipe_of
from fwpkm.models.base_config import BaseConfig
from fwpkm.models.count import Numbers, count_numbers, state_bytes
from fwpkm.models.decoder import Decoder
from fwpkm.models.flops import Number, forward_flops
from fwpkm.models.parts import FWPKM, PARTS, meta_decoder
from fwpkm.recipe import Recipe

TOKENS = (4_096, 131_072)
"""Lengths that are shown unless others are asked for: the paper's in training, and its longest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        default=list(TOKENS),
        metavar="T",
        help="lengths of a stream to count for",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(options: argparse.Namespace) -> int:
    """Print the counts."""
    recipe = recipe_of(options)
    facts = describe(recipe, options.tokens)
    print(json.dumps(facts, indent=1) if options.json else "\n".join(_page(facts)))
    return 0


def describe(recipe: Recipe, tokens: Sequence[int]) -> dict[str, Any]:
    """Count everything, without building any weight.

    Raises:
        ValueError: If a length is below 1, or the recipe's model is not valid.
    """
    if wrong := [length for length in tokens if length < 1]:
        raise ValueError(f"--tokens: lengths must be at least 1, got {wrong}")
    network = recipe.network
    model = network if isinstance(network, BaseConfig) else meta_decoder(network)
    numbers = count_numbers(model)
    total = sum(numbers.values(), Numbers())
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "base": network.path if isinstance(network, BaseConfig) else None,
        "layers": _layers(model),
        "numbers": {part: _row(count) for part, count in [*numbers.items(), ("total", total)]},
        "state_bytes": {str(length): _with_total(state_bytes(model, length)) for length in tokens},
        "flops_per_token": {str(length): _with_total(forward_flops(model, length)) for length in tokens},
    }


def _row(count: Numbers) -> dict[str, int]:
    return {"slow": count.slow, "table": count.table, "fast": count.fast}


def _with_total(counts: Mapping[str, Number]) -> dict[str, Number]:
    return {**counts, "total": sum(counts.values())}


def _layers(model: Decoder | BaseConfig) -> dict[int, str]:
    if isinstance(model, BaseConfig):
        return dict.fromkeys(model.layers, f"{FWPKM} before the base's layer")
    config = model.config
    rows = {}
    for layer in range(config.num_layers):
        memory = [name for name in ("fwpkm", "fwmlp") if layer in getattr(config, f"{name}_layers")]
        ffn = "pkm" if layer in config.pkm_layers else "swiglu"
        parts = [config.mixer_kind(layer), ffn]
        parts[0 if config.memory_position == "before" else 1 : 0] = memory
        rows[layer] = " + ".join(parts)
    return rows


def _page(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{facts['recipe']}: {facts['title']}", ""]
    lines += [f"  layer {i:2d}  {layer}" for i, layer in facts["layers"].items()]
    lines += [
        "",
        *_table("numbers", facts["numbers"], {"slow": "slow", "table": "table", "fast": "fast, a stream"}),
    ]
    for name, title in (
        ("state_bytes", "bytes of a stream's state, at most"),
        ("flops_per_token", "FLOPs a token"),
    ):
        by_length = facts[name]
        rows = {
            part: {length: counts.get(part, 0) for length, counts in by_length.items()}
            for part in (*PARTS, "total")
            if any(part in counts for counts in by_length.values())
        }
        lines += ["", *_table(title, rows, {length: f"at {int(length):,}" for length in by_length})]
    return [*lines, "", *_NOTES, *([_BASE_NOTE] if facts["base"] else [])]


def _table(title: str, rows: Mapping[str, Mapping[str, Number]], columns: Mapping[str, str]) -> list[str]:
    head = f"{title:34s}" + "".join(f"{column:>18s}" for column in columns.values())
    body = [f"  {part:32s}" + "".join(f"{row[c]:18,.0f}" for c in columns) for part, row in rows.items()]
    return [head, *body]


_NOTES = (
    "slow: trained parameters outside tables.  table: rows of trained tables.  fast: weights that a stream rewrites.",
    "Bytes are for float32 hidden states. FLOPs are the forward pass's products, a mean over a stream of that length.",
)
_BASE_NOTE = "This is what memories add to the base, which is not counted."

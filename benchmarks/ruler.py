"""RULER's tasks (arXiv:2404.06654) by lm-evaluation-harness: an existing model before and after it was given memories.

pip install 'lm-eval[hf]' wonderwords nltk
python benchmarks/ruler.py runs/smollm2/model --lengths 4096 16384 --samples 20 --out results/retrofit/ruler.json

"memories" is the model as trained, "window" its base with attention limited as in training, "base" the base as it
was. Tasks that fetch texts are left out. A row is written as soon as it is known; rows that are there are not
measured again.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.ruler import prepare_niah
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fwpkm.data.tokenizer import load_tokenizer
from fwpkm.files import write_json
from fwpkm.machine import describe_machine
from fwpkm.models.attach.families import load_base
from fwpkm.models.attach.folder import load_base_decoder
from fwpkm.models.attach.window import attention_window, limit_attention, window_cache

TASKS = ("niah_single_1", "niah_multikey_2", "niah_multikey_3", "ruler_vt")
CONDITIONS = ("memories", "window", "base")
PIECE = 512
"""Tokens that a prompt is read by, so that no mask of a whole text is made."""
ANSWER = 48
"""Tokens of an answer; the tasks leave 128, and a UUID takes 36 at most. What comes later cannot help."""


class PiecewiseLM(HFLM):  # type: ignore[misc]  # has no types
    """The harness's model, which reads prompts in pieces and keeps no more of them than attention sees."""

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **more: Any) -> Any:
        if attention_window(self.model) is not None:
            more["cache"] = window_cache(self.model)
        return super()._model_generate(context, max_length, stop, prefill_chunk_size=PIECE, **more)


def load(folder: Path, condition: str) -> PreTrainedModel:
    """Load the model of a condition."""
    decoder = load_base_decoder(folder)
    if condition == "memories":
        return decoder.base
    base = load_base(decoder.config.path, getattr(torch, decoder.config.dtype)).eval()
    if condition == "window":
        limit_attention(base, decoder.config.window, decoder.config.sinks)
    return base


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a model's folder, as the harness takes it."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    end = tokenizer.convert_ids_to_tokens(load_tokenizer(folder).eos_id)
    tokenizer.add_special_tokens({"eos_token": end, "pad_token": end})
    return tokenizer


def make_few(samples: int) -> None:
    """Let needle tasks make as many texts as are asked, not 500; they are the first of those."""
    make = prepare_niah.generate_samples

    def few(*args: Any, num_samples: int, **more: Any) -> Any:
        return make(*args, num_samples=min(num_samples, samples), **more)

    prepare_niah.generate_samples = few


def measure(
    model: PreTrainedModel, tokenizer: Any, names: str, task: str, length: int, samples: int
) -> dict[str, Any]:
    """Let the harness run one task at one length."""
    began = time.perf_counter()
    reader = PiecewiseLM(
        pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1, max_length=length, device="cpu"
    )
    found = lm_eval.simple_evaluate(
        model=reader,
        tasks=[task],
        limit=samples,  # the harness makes 500 texts of ruler_vt all the same
        metadata={"max_seq_lengths": [length], "tokenizer": names},
        gen_kwargs={"max_gen_toks": ANSWER},
        log_samples=True,
        bootstrap_iters=0,
    )
    said = found["samples"][task]
    return {
        "score": found["results"][task][f"{length},none"],
        "samples": len(said),
        "seconds": time.perf_counter() - began,
        "answers": [[s["doc"]["outputs"], s["filtered_resps"][0][:60]] for s in said],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not in the file yet, and print all of it."""
    options = _options(argv)
    rows: list[dict[str, Any]] = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    there = {(row["condition"], row["task"], row["length"], row["samples"]) for row in rows}
    make_few(options.samples)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of(options.model)
    with tempfile.TemporaryDirectory() as names:
        tokenizer.save_pretrained(names)
        for condition in options.conditions:
            model = load(options.model, condition)
            for length in options.lengths:
                for task in options.tasks:
                    if (condition, task, length, options.samples) in there:
                        continue
                    row = measure(model, tokenizer, names, task, length, options.samples)
                    rows.append({"condition": condition, "task": task, "length": length, **row})
                    write_json(options.out, {"machine": describe_machine(), "rows": rows})
                    print(f"{condition:<10}{task:<18}{length:>7,}{row['score']:>8.1%}", file=sys.stderr)
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="what fwpkm train wrote for a recipe with [base]")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--lengths", nargs="+", type=int, default=[4096, 16384])
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""Make a small model with a memory, let transformers' Trainer teach it something, save it, and go on from a memory.

    pip install '.[hf]'
    python examples/huggingface.py FOLDER

It takes seconds on a CPU. The text is numbers that count upwards, so that no download is needed.
"""

import copy
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from fwpkm.models.config import DecoderConfig
from fwpkm.models.hf import FwPKMForCausalLM, FwPKMHFConfig

MODEL = {
    "vocab_size": 32,
    "dim": 32,
    "num_layers": 2,
    "mixers": ["sliding_attention"],
    "attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "window": 8},
    "swiglu": {"hidden_dim": 64},
    "fwpkm": {"num_subkeys": 16, "key_dim": 16, "value_dim": 16, "topk": 4, "chunk_size": 8},
    "fwpkm_layers": [1],
}


class Counting(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Sequences of 24 numbers, each one more than the last, beginning anywhere."""

    def __len__(self) -> int:
        return 256

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        numbers = (torch.arange(24) + i) % 32
        return {"input_ids": numbers, "labels": numbers}


def train(folder: Path, max_steps: int = 60) -> None:
    """Train a fresh model and save it."""
    torch.manual_seed(0)
    model = FwPKMForCausalLM(FwPKMHFConfig(DecoderConfig.from_dict(MODEL)))
    arguments = TrainingArguments(
        output_dir=str(folder / "run"),
        max_steps=max_steps,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        logging_steps=20,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Counting())
    trainer.train()
    trainer.save_model(str(folder / "model"))


def go_on(folder: Path) -> tuple[list[int], list[int]]:
    """Read a beginning once, and continue from what the model then knows, twice."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    beginning = torch.arange(5, 15)[None]
    with torch.no_grad():
        cache = model(beginning[:, :-1]).cache  # a handle on a value: copies are free
    answers = []
    for _ in range(2):
        sequence = model.generate(beginning, cache=copy.copy(cache), max_new_tokens=8, do_sample=False)
        answers.append(sequence[0, 10:].tolist())
    return answers[0], answers[1]


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "huggingface-example")
    train(target)
    print("5 6 ... 14 goes on", *go_on(target)[0])

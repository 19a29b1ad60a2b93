"""Give a language model whose attention reaches 8 tokens back a memory, and see it recall what is 32 tokens away.

    pip install '.[hf]'
    python examples/attach.py FOLDER

It takes about a minute on a CPU. The text is 32 different numbers in random order, and then the same ones again: what
follows a number was seen once, far outside the attention's window. No download is needed.
"""

import copy
import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel

import fwpkm

COUNT = 32
BASE = MistralConfig(
    vocab_size=COUNT,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    sliding_window=8,
)
MEMORY = {"num_subkeys": 16, "key_dim": 32, "value_dim": 64, "topk": 4, "chunk_size": 8, "key_std": 1.0}


def make_text(rows: int, draw: torch.Generator) -> Tensor:
    """Draw numbers in an order of their own for each row, and repeat them."""
    order = torch.rand(rows, COUNT, generator=draw).argsort(dim=1)
    return torch.cat([order, order], dim=1)


def train(model: PreTrainedModel, steps: int, rows: int = 32) -> None:
    """Train all that may be trained to predict the second half."""
    draw = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    model.train()
    for _ in range(steps):
        text = make_text(rows, draw)
        labels = text.clone()
        labels[:, : COUNT + 1] = -100  # the order is random, and so is its repetition's first number
        model(text, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@torch.no_grad()
def recall(model: PreTrainedModel, rows: int = 64) -> float:
    """Return the share of the second half that is predicted."""
    text = make_text(rows, torch.Generator().manual_seed(2))
    guess = model(text).logits[:, COUNT:-1].argmax(-1)
    return (guess == text[:, COUNT + 1 :]).float().mean().item()


def run(folder: Path, steps: int = 300) -> tuple[float, float, float]:
    """Train base and memory, save the memory, and return the recall without it, with it, and loaded again."""
    torch.manual_seed(0)
    alone = MistralForCausalLM(BASE)
    remembering = fwpkm.attach(copy.deepcopy(alone), layers=[1], config=MEMORY)
    for model in (alone, remembering):
        train(model, steps)
    folder.mkdir(parents=True, exist_ok=True)
    fwpkm.save_adapter(remembering, folder / "adapter.safetensors")
    base = fwpkm.detach(copy.deepcopy(remembering))
    base.save_pretrained(folder / "base")
    again = MistralForCausalLM.from_pretrained(folder / "base")
    fwpkm.load_adapter(again, folder / "adapter.safetensors")
    return recall(alone), recall(remembering), recall(again)


if __name__ == "__main__":
    found = run(Path(sys.argv[1] if len(sys.argv) > 1 else "attach-example"))
    print(f"recalled without a memory {found[0]:.0%}, with one {found[1]:.0%}, loaded again {found[2]:.0%}")

"""Train a memory with transformers' own Trainer, on a Llama whose attention is limited to 8 tokens.

    pip install '.[hf]'
    python examples/retrofit_trainer.py FOLDER

About a minute on a CPU. The text is 32 different numbers in random order, and then the same ones again: what follows a
number was seen once, far outside the window. The base is drawn at random here, so it learns too; with a trained base,
`freeze_base(model)` after `attach` leaves the memory alone to learn. No download is needed.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Trainer, TrainingArguments

import fwpkm
from fwpkm.models.attach import limit_attention

COUNT = 32
BASE = LlamaConfig(
    vocab_size=COUNT,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    bos_token_id=None,
    eos_token_id=None,
)
MEMORY = {"num_subkeys": 16, "key_dim": 32, "value_dim": 64, "topk": 4, "chunk_size": 8, "key_std": 1.0}


def make_text(seed: int) -> Tensor:
    """Draw numbers in an order that belongs to the seed, and repeat them."""
    order = torch.rand(COUNT, generator=torch.Generator().manual_seed(seed)).argsort()
    return torch.cat([order, order])


class Repeated(Dataset):
    """Texts by number, as the Trainer asks for them; only the second half counts."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        text = make_text(i)
        labels = text.clone()
        labels[: COUNT + 1] = -100  # the order is random, and so is its repetition's first number
        return {"input_ids": text, "labels": labels}


@torch.no_grad()
def recall(model: PreTrainedModel, rows: int = 64) -> float:
    """Return the share of the second half that is predicted, on texts that were not trained on."""
    text = torch.stack([make_text(-1 - i) for i in range(rows)])
    guess = model.eval()(text).logits[:, COUNT:-1].argmax(-1)
    return (guess == text[:, COUNT + 1 :]).float().mean().item()


def run(folder: Path, steps: int = 300, rows: int = 32) -> tuple[float, float]:
    """Train, keep the memory as an adapter, and return the recall before and after."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(BASE)
    limit_attention(model, window=8, sinks=0)
    fwpkm.attach(model, layers=[1], config=MEMORY)
    before = recall(model)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=rows,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        logging_steps=50,
    )
    Trainer(model=model, args=arguments, train_dataset=Repeated(rows * steps)).train()
    fwpkm.save_adapter(model, folder / "adapter.safetensors")
    return before, recall(model)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "retrofit-trainer")
    found = run(target)
    print(f"recalled before training {found[0]:.0%}, after it {found[1]:.0%}; the memory is in {target}")

"""What `torch.compile` makes of a transformers model with memories, in a process without the type checks of test runs.

python -m fwpkm.testing.compiled_attached layers|model prints one line of JSON.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM

import fwpkm
from fwpkm.testing.compiled import complaints_heard

_SHAPES = ((2, 23), (3, 31), (3, 17))
"""Streams and tokens of training steps."""


class CompiledAttached:
    """A Llama with two memories that is compiled, by layers or as a whole, and the same one as it stands."""

    def __init__(self, what: str) -> None:
        self.model, self.plain = _make(), _make()
        self.graphs = 0

        def count(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
            self.graphs += 1
            return graph.forward  # runs what the compiler has read, operation by operation

        for module in self.model.model.layers if what == "layers" else [self.model]:
            module.compile(backend=count)

    def train(self) -> dict[str, Any]:
        """Take steps of several shapes, the last with padding; return errors, and how many graphs there are."""
        errors, graphs = [], []
        for streams, length in _SHAPES:
            ids, mask = torch.randint(2, 64, (streams, length)), torch.ones(streams, length, dtype=torch.long)
            errors.append(self._step_error(ids, mask))
            graphs.append(self.graphs)
        mask[0, :5] = 0
        errors.append(self._step_error(ids, mask))
        return {"step_errors": errors, "step_graphs": graphs}

    def _step_error(self, ids: Tensor, mask: Tensor) -> float:
        results = [_step(model, ids, mask) for model in (self.model, self.plain)]
        return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True))

    @torch.no_grad()
    def generate(self) -> bool:
        """Return whether both go on with the same tokens."""
        prompts = torch.tensor([[0, 0, 7, 8, 9], [3, 4, 5, 6, 7]])
        asked = {"attention_mask": (prompts != 0).long(), "max_new_tokens": 12, "do_sample": False}
        texts = [model.eval().generate(prompts, **asked) for model in (self.model, self.plain)]
        return torch.equal(*texts)


def _make() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
    )
    memory = {"num_subkeys": 8, "key_dim": 8, "value_dim": 16, "topk": 4, "chunk_size": 8}
    model = fwpkm.attach(LlamaForCausalLM(config).double(), layers=[1, 3], config=memory)
    for index in (1, 3):
        torch.nn.init.normal_(model.model.layers[index].fwpkm.out_proj.weight)  # zero at first
    return model


def _step(model: Any, ids: Tensor, mask: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss = model.train()(ids, attention_mask=mask, labels=ids, use_cache=False).loss
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def main(what: str) -> None:
    """Print what compiling did: errors, graphs so far, whether texts are the same, why graphs ended, complaints."""
    # not of generating: a cache of transformers has more forms than the compiler keeps, and it says so
    with complaints_heard() as complaints:
        compiled = CompiledAttached(what)
        result = compiled.train()
    result |= {"same_text": compiled.generate(), "breaks": list(counters["graph_break"])}
    print(json.dumps({**result, "complaints": complaints}))


if __name__ == "__main__":
    main(sys.argv[1])

"""The price of open gates: what it adds to the gradient, and that it closes gates."""

import pytest
import torch
from step_gradients import MEMORY, decoder, gradients

from fwpkm.data.batches import Batch
from fwpkm.train.config import TrainConfig
from fwpkm.train.gate_cost import watch_gates


def batch(B: int, T: int) -> Batch:
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(17, (B, T + 1), generator=draw)
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[0, : T // 3] = False
    return Batch(
        input_ids=ids[:, :-1],
        targets=torch.where(mask, ids[:, 1:], -100),
        weights=mask.float(),
        mask=mask,
        starts=torch.zeros(B, T, dtype=torch.bool),
        fresh=torch.ones(B, dtype=torch.bool),
    )


def test_the_gradient_is_that_of_the_mean_gate_of_real_tokens() -> None:
    model, data = decoder(fwpkm_layers=[0, 1], fwpkm=MEMORY), batch(4, 9)
    plain, priced = gradients(model, data), gradients(model, data, gate_cost=0.5)
    model.zero_grad()
    output = model(data.input_ids, None, data.mask, trace=True)
    with watch_gates(model) as gates:
        model(data.input_ids, None, data.mask)
    mean_gate = gates.add_up(data.mask) / data.mask.sum()
    traced = torch.stack(
        [t.gate[data.mask].mean() for t in output.traces if t is not None and t.gate is not None]
    )
    torch.testing.assert_close(mean_gate, traced.mean())
    wanted = torch.autograd.grad(0.5 * mean_gate, list(model.parameters()), allow_unused=True)
    for p, q, extra in zip(plain, priced, wanted, strict=True):
        torch.testing.assert_close(
            q - p, torch.zeros_like(p) if extra is None else extra, atol=2e-6, rtol=1e-4
        )


def test_parts_and_spans_pay_what_the_whole_pays() -> None:
    model, data = decoder(fwpkm_layers=[0, 1], fwpkm=MEMORY), batch(4, 9)
    whole = gradients(model, data, gate_cost=0.5)
    for p, q in zip(whole, gradients(model, data, gate_cost=0.5, accumulate=2), strict=True):
        torch.testing.assert_close(p, q, atol=2e-6, rtol=1e-4)


def test_only_the_layers_named_pay() -> None:
    model, data = decoder(fwpkm_layers=[0, 1], fwpkm=MEMORY), batch(4, 9)
    plain = gradients(model, data)
    first = gradients(model, data, gate_cost=0.25, gate_cost_layers=(0,))
    second = gradients(model, data, gate_cost=0.25, gate_cost_layers=(1,))
    both = gradients(model, data, gate_cost=0.5)
    for p, a, b, c in zip(plain, first, second, both, strict=True):
        torch.testing.assert_close(a + b - p, c, atol=2e-6, rtol=1e-4)
    gate = [name.startswith("blocks.1.memory.gate_proj") for name, _ in model.named_parameters()].index(True)
    assert torch.equal(first[gate], plain[gate])
    assert not torch.equal(second[gate], plain[gate])


def test_layers_without_a_gate_cannot_pay() -> None:
    model = decoder(fwpkm_layers=[1], fwpkm=MEMORY)
    with pytest.raises(ValueError, match=r"gate_cost_layers .* got \[0\]; those with one are \[1\]"):
        gradients(model, batch(2, 5), gate_cost=0.1, gate_cost_layers=(0,))
    with pytest.raises(ValueError, match="gate_cost_layers must name a layer or be unset"):
        TrainConfig(steps=1, gate_cost_layers=())


def test_a_model_without_gates_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a memory with a gate"):
        gradients(decoder(), batch(2, 5), gate_cost=0.1)


def test_a_cost_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"gate_cost must be at least 0.*gate_cost cannot be had with gradient"
    ):
        TrainConfig(steps=1, gate_cost=-1.0, gradient_checkpointing=True)

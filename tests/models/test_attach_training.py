"""Training a model with attached memories: alone, jointly, checkpointed, and by transformers' own `Trainer`."""

import copy

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.24")
import fwpkm  # noqa: E402
from fwpkm.memory.state import FwPKMState  # noqa: E402
from fwpkm.models.attach import FAMILIES, freeze_base, memories, memory_states, set_memory_states  # noqa: E402
from fwpkm.testing.base_models import TINY, make_attached, make_base  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

transformers.utils.logging.disable_progress_bar()


def train(model, x, steps=12, lr=0.01):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        loss = model(x, labels=x).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("family", FAMILIES)
def test_the_memory_alone_learns_on_a_frozen_base(family):
    model, x = make_base(family, torch.float32), make_tokens(4, 20)
    before, logits = copy.deepcopy(model.state_dict()), model(x).logits
    fwpkm.attach(model, [1], TINY)
    freeze_base(model)
    fresh = copy.deepcopy(memories(model)[1].state_dict())
    losses = train(model.train(), x)
    assert losses[-1] < 0.9 * losses[0]
    for name, p in memories(model)[1].named_parameters():
        assert not torch.equal(p, fresh[name]), name
    assert not torch.equal(model.eval()(x).logits, logits)
    fwpkm.detach(model)
    for name, p in model.state_dict().items():
        assert torch.equal(p, before[name]), name
    assert torch.equal(model(x).logits, logits)


def test_base_and_memory_learn_together():
    model, x = make_base(dtype=torch.float32), make_tokens(4, 20)
    before = copy.deepcopy(dict(model.named_parameters()))
    fwpkm.attach(model, [1], TINY)
    losses = train(model.train(), x, steps=3)
    assert losses[-1] < losses[0]
    fwpkm.detach(model)
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_checkpointing_changes_no_gradient_and_writes_once(family, frozen):
    model, x = make_attached(family).train(), make_tokens(T=20)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if frozen:
        freeze_base(model)
    other = copy.deepcopy(model)
    other.activation_checkpointing_enable({"use_reentrant": False})
    calls = []
    for memory in memories(other).values():
        memory.register_forward_pre_hook(lambda *_: calls.append(1))
    losses = [each(x, labels=x, use_cache=False).loss for each in (model, other)]
    assert len(calls) == 2
    for loss in losses:
        loss.backward()
    assert len(calls) == 4  # computed again, from the same states
    torch.testing.assert_close(losses[1], losses[0])
    found, expected = ({n: p.grad for n, p in each.named_parameters()} for each in (other, model))
    torch.testing.assert_close(found, expected)
    assert memories(other)[1].q_proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_a_checkpointing_model_in_training_answers_as_ever_without_gradients(family):
    model, x = make_attached(family), make_tokens(T=20)
    with torch.no_grad():
        expected, text = model(x).logits, model.generate(x, max_new_tokens=6, do_sample=False)
        model.train().activation_checkpointing_enable({"use_reentrant": False})
        first = model(x[:, :9])
        found = torch.cat([first.logits, model(x[:, 9:], cache=first.cache).logits], 1)
    torch.testing.assert_close(found, expected)
    assert torch.equal(model.generate(x, max_new_tokens=6, do_sample=False), text)


def test_padding_on_either_side_changes_no_gradient():
    model, x = make_attached().train(), make_tokens(1, 12)
    found = []
    for left, right in ((0, 0), (5, 0), (0, 5)):
        row = torch.nn.functional.pad(x, (left, right))
        mask = torch.nn.functional.pad(torch.ones_like(x), (left, right))
        places = (mask.cumsum(-1) - 1).clamp_min(0)
        labels = row.masked_fill(mask == 0, -100)
        if left:
            labels[:, left] = -100  # padding would predict it
        else:
            labels[:, 0] = -100
        model.zero_grad()
        model(row, attention_mask=mask, position_ids=places, labels=labels).loss.backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6)


def test_truncated_backpropagation_passes_the_memory_on():
    model, x = make_attached().train(), make_tokens(T=20)
    cache = model(x[:, :9]).cache
    states = {layer: state.detach() for layer, state in memory_states(cache).items()}
    assert all(isinstance(state, FwPKMState) for state in states.values())
    fresh = transformers.DynamicCache(config=model.config)
    set_memory_states(fresh, states)
    piece = model(x[:, 9:], cache=fresh)
    piece.logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in memories(model)[1].parameters() if p.grad is not None)
    assert not torch.allclose(piece.logits, model(x[:, 9:]).logits)


def test_half_precision_and_autocast_train():
    x = make_tokens(4, 20)
    half = fwpkm.attach(make_base(dtype=torch.bfloat16), [1], TINY, dtype=torch.float32)
    freeze_base(half)
    losses = train(half.train(), x)
    assert losses[-1] < losses[0]
    mixed = fwpkm.attach(make_base(dtype=torch.float32), [1], TINY)
    with torch.autocast("cpu", torch.bfloat16):
        losses = train(mixed.train(), x, steps=3)
    assert losses[-1] < losses[0]


class Rows(torch.utils.data.Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"input_ids": self.x[i], "labels": self.x[i]}


def test_transformers_own_trainer_trains_the_memory(tmp_path):
    pytest.importorskip("accelerate")
    model, x = make_base(dtype=torch.float32), make_tokens(4, 20)
    fwpkm.attach(model, [1], TINY)
    freeze_base(model)
    before = model(x, labels=x).loss.item()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=4, learning_rate=0.02, report_to="none",
        save_strategy="no", use_cpu=True, dataloader_pin_memory=False, logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(model=model, args=arguments, train_dataset=Rows(x)).train()
    assert model.eval()(x, labels=x).loss.item() < before
    fwpkm.save_adapter(model, tmp_path / "a")
    again = fwpkm.load_adapter(make_base(dtype=torch.float32), tmp_path / "a")
    assert torch.equal(again(x).logits, model(x).logits)

"""`FwPKMForCausalLM` in training: its loss, checkpointing, and transformers' own `Trainer`."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from fwpkm.testing.systems import SYSTEMS

transformers = pytest.importorskip("transformers", minversion="5.24")
from fwpkm.models.hf import FwPKMForCausalLM  # noqa: E402
from fwpkm.testing.hf_models import make_hf_model as make_model  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

transformers.utils.logging.disable_progress_bar()


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters()}


def test_loss_is_the_decoders():
    model, x = make_model(dtype=torch.float32).train(), make_tokens()
    torch.testing.assert_close(model(x, labels=x).loss, model.decoder.loss(x)[0])
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[0, :4] = mask[1, 9:] = False
    loss = model(x, attention_mask=mask, labels=x.masked_fill(~mask, -100)).loss
    expected = model.decoder.loss(x, mask=mask, labels=x.masked_fill(~mask, -100))[0]
    torch.testing.assert_close(loss, expected)


def test_loss_is_divided_by_what_the_trainer_counts():
    model, x = make_model(dtype=torch.float32), make_tokens()
    logits = model(x).logits[:, :-1].flatten(0, 1)
    total = F.cross_entropy(logits, x[:, 1:].flatten(), reduction="sum")
    for number in (7, torch.tensor(7)):
        torch.testing.assert_close(model(x, labels=x, num_items_in_batch=number).loss, total / 7)
    shifted = torch.cat([x[:, 1:], torch.full((2, 1), -100)], 1)
    torch.testing.assert_close(model(x, shift_labels=shifted).loss, total / 24)


@pytest.mark.parametrize("system", SYSTEMS)
def test_checkpointing_changes_no_gradient(system):
    model, x = make_model(system).train(), make_tokens()
    other = copy.deepcopy(model)
    other.activation_checkpointing_enable()
    assert other.is_activation_checkpointing
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        loss = other(x, labels=x).loss
    checkpointed = sum(saved)
    saved.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        expected = model(x, labels=x).loss
    assert checkpointed < sum(saved) / 2
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(other), gradients(model))
    other.activation_checkpointing_disable()
    assert not other.decoder.gradient_checkpointing


def test_checkpointing_that_the_decoder_does_not_have_is_refused():
    with pytest.raises(ValueError, match="use_reentrant=True"):
        make_model().activation_checkpointing_enable({"use_reentrant": True})


def test_truncated_backpropagation_passes_the_state_on():
    model, x = make_model().train(), make_tokens()
    cache = model(x[:, :7], use_cache=True).cache
    cache.state = cache.state.detach()
    piece = model(x[:, 7:], cache=cache)
    torch.testing.assert_close(piece.logits, model(x).logits[:, 7:])
    piece.logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


class Patterns(torch.utils.data.Dataset):
    """Sequences that count upwards, each from a start of its own."""

    def __len__(self):
        return 32

    def __getitem__(self, i):
        x = (torch.arange(12) + i) % 20 + 2
        return {"input_ids": x, "labels": x}


def train(model, folder, **options):
    pytest.importorskip("accelerate")
    arguments = {"max_steps": 12, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "logging_steps": 1}
    arguments |= {
        "per_device_train_batch_size": 8,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    arguments |= {"save_strategy": "no", "dataloader_pin_memory": False}
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(output_dir=str(folder), **{**arguments, **options}),
        train_dataset=Patterns(),
        eval_dataset=Patterns(),
    )
    trainer.train()
    return trainer, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def fresh(system="sliding_fwpkm"):
    torch.manual_seed(11)
    return make_model(system, torch.float32, initializer_range=0.1)


@pytest.mark.parametrize("system", ["mixed"])
def test_trainer_learns_and_saves(system, tmp_path):
    trainer, losses = train(fresh(system), tmp_path / "run")
    assert losses[0] == pytest.approx(math.log(40), rel=0.2)
    assert losses[-1] < 0.8 * losses[0]
    result = trainer.predict(Patterns())
    assert result.predictions.shape == (32, 12, 40)
    assert trainer.evaluate()["eval_loss"] < 0.8 * losses[0]
    trainer.save_model(str(tmp_path / "model"))
    loaded = FwPKMForCausalLM.from_pretrained(tmp_path / "model")
    x = Patterns()[3]["input_ids"][None]
    torch.testing.assert_close(loaded(x, labels=x).loss, trainer.model.eval()(x, labels=x).loss)


def test_trainer_accumulates_gradients_to_the_same_steps(tmp_path):
    whole, one = train(fresh(), tmp_path, max_steps=3)
    parts, four = train(
        fresh(), tmp_path, max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    assert one == pytest.approx(four, rel=1e-4)
    for p, q in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-4)


def test_trainer_checkpoints_activations_and_takes_the_same_steps(tmp_path):
    _, plain = train(fresh(), tmp_path, max_steps=3)
    trainer, checkpointed = train(fresh(), tmp_path, max_steps=3, activation_checkpointing=True)
    assert trainer.model.decoder.gradient_checkpointing
    assert plain == pytest.approx(checkpointed, rel=1e-5)

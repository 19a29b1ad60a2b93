"""The example that trains a memory with transformers' Trainer runs, and what it saves can be loaded."""

import runpy
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.24")
pytest.importorskip("accelerate")
import fwpkm  # noqa: E402
from fwpkm.models.attach import attention_window  # noqa: E402

transformers.utils.logging.disable_progress_bar()
SCRIPT = Path(__file__).parents[2] / "examples/retrofit_trainer.py"


def test_the_trainer_moves_base_and_memory_and_the_adapter_knows_the_window(tmp_path, monkeypatch):
    names = runpy.run_path(str(SCRIPT))
    saved = []
    monkeypatch.setattr(fwpkm, "save_adapter", lambda model, path: saved.append(model))
    before, after = names["run"](tmp_path, steps=3, rows=2)
    assert 0 <= before <= 1
    assert 0 <= after <= 1
    (model,) = saved
    torch.manual_seed(0)
    fresh = transformers.LlamaForCausalLM(names["BASE"])
    assert not torch.equal(fresh.lm_head.weight, model.lm_head.weight)
    assert fwpkm.models.attach.memories(model)[1].out_proj.weight.abs().sum() > 0
    monkeypatch.undo()
    fwpkm.save_adapter(model, tmp_path / "a")
    base = fwpkm.load_adapter(fresh, tmp_path / "a", check_weights=False)
    assert attention_window(base).window == 8

"""Which weights decay, and what clipping and sparse tables do."""

import pytest
import torch

from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system
from fwpkm.train.config import OptimizerConfig
from fwpkm.train.optimizer import Optimizer, _placed
from fwpkm.train.parallel import Group, tensor_hash
from fwpkm.train.sharding import place_like, shard

PKM = {"num_subkeys": 8, "key_dim": 8, "value_dim": 16, "num_heads": 2, "topk": 3, "sparse_grad": True}


def decays(**config: bool) -> dict[str, float]:
    model = Decoder(make_system("mixed", pkm=PKM))
    optimizer = Optimizer(model, OptimizerConfig(weight_decay=0.3, **config))
    groups = [group for part in optimizer.parts for group in part.param_groups]
    return {optimizer.names[p]: group.get("weight_decay", 0.0) for group in groups for p in group["params"]}


def test_every_weight_is_trained_once() -> None:
    assert decays().keys() == {name for name, _ in Decoder(make_system("mixed")).named_parameters()}


def test_only_matrices_decay() -> None:
    found = decays()
    assert {name for name, decay in found.items() if decay and ("norm" in name or "bias" in name)} == set()
    without = {name.split(".")[-1] for name, decay in found.items() if not decay}
    assert {"embed.weight", "lm_head.weight"} <= {name for name, decay in found.items() if not decay}
    assert {"keys", "values", "initial_values", "log_temperature", "A_log"} <= without
    assert found["blocks.0.ffn.down_proj.weight"] == 0.3


def test_embeddings_decay_when_asked() -> None:
    assert decays(decay_embeddings=True)["embed.weight"] == 0.3


def test_clipping_scales_dense_and_sparse_gradients_as_one() -> None:
    model = Decoder(make_system("mixed", pkm=PKM))
    optimizer = Optimizer(model, OptimizerConfig(clip_norm=0.5))
    model.loss(torch.randint(40, (2, 12)))[0].backward()
    grads = {name: p.grad.to_dense().clone() for name, p in model.named_parameters() if p.grad is not None}
    norm = torch.stack([g.norm() for g in grads.values()]).norm()
    assert optimizer.clip() == pytest.approx(float(norm))
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad.to_dense(), grads[name] * (0.5 / norm))
    assert sum(p.grad is not None and p.grad.is_sparse for p in model.parameters()) == 1


def test_tables_have_their_own_step_size() -> None:
    model = Decoder(make_system("mixed", pkm=PKM))
    optimizer = Optimizer(model, OptimizerConfig(lr=1e-2, table_lr_factor=3.0))
    assert optimizer.set_lr(0.5) == pytest.approx(5e-3)
    rates = sorted({g["lr"] for part in optimizer.parts for g in part.param_groups})
    assert rates == pytest.approx([5e-3, 1.5e-2])


def test_state_about_other_weights_is_refused() -> None:
    optimizer = Optimizer(Decoder(make_system("full")), OptimizerConfig())
    with pytest.raises(ValueError, match=r"other weights: blocks\.9\.nothing"):
        optimizer.load({"blocks.9.nothing/exp_avg": torch.zeros(3)})


def test_loaded_state_lies_where_a_fused_optimizer_of_a_gpu_looks_for_it() -> None:
    far, count = torch.empty((), device="meta"), torch.tensor(3.0)
    assert place_like(torch.tensor(0.5), far).device == far.device
    for fused, place in ((True, "meta"), (False, "cpu")):
        part = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], fused=fused)
        assert str(_placed(part, "step", count, far).device) == place
        assert _placed(part, "exp_avg", torch.zeros(()), far).device == far.device


def test_sharding_needs_several_processes() -> None:
    with pytest.raises(ValueError, match="start with torchrun"):
        shard(Decoder(make_system("full")), 1, torch.device("cpu"))


def test_hashes_tell_names_shapes_and_numbers_apart() -> None:
    x = torch.arange(6.0)
    others = [("b", x), ("a", x.view(2, 3)), ("a", x.double()), ("a", x + 1)]
    assert tensor_hash([("a", x)]) == tensor_hash([("a", x.clone())])
    assert len({tensor_hash([pair]) for pair in [("a", x), *others]}) == 5
    assert Group().gather(3) == [3]

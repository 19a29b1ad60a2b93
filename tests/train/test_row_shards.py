"""Tables of which only some rows are here give what whole tables give: values, gradients, files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.pkm import PKMConfig, ProductKeyMemory
from fwpkm.memory.remote import RemoteTable
from fwpkm.memory.state import FwPKMState
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system
from fwpkm.train.parallel import Group, add_up_gradients
from fwpkm.train.row_shards import shard_tables, share_of


class Elsewhere(RemoteTable):
    """A whole table behind the interface of one that is not here, which counts what is asked of it."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.asked = table, 0

    @property
    def shape(self) -> tuple[int, int]:
        return self.table.shape[0], self.table.shape[1]

    def rows(self, slots: Tensor) -> Tensor:
        assert slots.unique().numel() == slots.numel(), "slots must be distinct"
        self.asked += slots.numel()
        return self.table.index_select(0, slots)


def make_fwpkm() -> FwPKM:
    torch.manual_seed(0)
    config = FwPKMConfig(
        dim=8, num_subkeys=8, key_dim=8, value_dim=6, topk=3, chunk_size=4, initial_values="learned"
    )
    return FwPKM(config).double()


def move_away(layer: FwPKM | ProductKeyMemory) -> Elsewhere:
    """Put a copy of a layer's table elsewhere, and nothing in its old place."""
    name = "initial_values" if isinstance(layer, FwPKM) else "values"
    table = Elsewhere(getattr(layer, name).detach().clone().requires_grad_())
    setattr(layer, name, torch.nn.Parameter(table.table.detach()[:0]))
    layer.remote_table = table
    return table


def test_a_fwpkm_reads_and_learns_a_base_that_is_elsewhere() -> None:
    here, away = make_fwpkm(), make_fwpkm()
    table = move_away(away)
    x = torch.randn(2, 11, 8, dtype=torch.float64)
    y, expected = away(x)[0], here(x)[0]
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    assert here.initial_values is not None
    torch.testing.assert_close(table.table.grad, here.initial_values.grad)
    assert 0 < table.asked < 2 * 11 * 3


@pytest.mark.parametrize("pieces", [[11], [4, 4, 3], [1] * 11])
def test_without_a_graph_too_in_pieces_and_padded(pieces: list[int]) -> None:
    here, away = make_fwpkm(), make_fwpkm()
    move_away(away)
    x, states = torch.randn(2, 11, 8, dtype=torch.float64), [None, None]
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[0, 7:] = False
    with torch.no_grad():
        for part, seen in zip(x.split(pieces, 1), mask.split(pieces, 1), strict=True):
            (y, states[0]), (expected, states[1]) = away(part, states[0], seen), here(part, states[1], seen)
            torch.testing.assert_close(y, expected)
    torch.testing.assert_close(states[0].table.dense(), states[1].table.dense())


def test_a_memory_file_goes_back_over_a_base_that_is_elsewhere(tmp_path: Path) -> None:
    away = make_fwpkm()
    table = move_away(away)
    with torch.no_grad():
        state = away(torch.randn(2, 11, 8, dtype=torch.float64))[1]
    asked = table.asked
    state.save(tmp_path / "a.fwpkm", away)
    loaded = FwPKMState.load(tmp_path / "a.fwpkm", away)
    assert table.asked == asked, "written rows are here"
    assert loaded.table.store.base is table
    torch.testing.assert_close(loaded.table.dense(), state.table.dense())


def test_a_pkm_looks_rows_up_elsewhere_each_but_once() -> None:
    config = PKMConfig(dim=8, num_subkeys=4, key_dim=8, value_dim=6, num_heads=2, topk=3)
    torch.manual_seed(0)
    here = ProductKeyMemory(config).double()
    torch.manual_seed(0)
    away = ProductKeyMemory(config).double()
    table = move_away(away)
    x = torch.randn(30, 8, dtype=torch.float64)
    y, expected = away(x), here(x)
    torch.testing.assert_close(y, expected)
    assert table.asked <= config.num_slots
    y.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(table.table.grad, here.values.grad)


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make_model(**changes: Any) -> Decoder:
    torch.manual_seed(0)
    return Decoder(make_system("mixed", **changes)).double()


@pytest.mark.usefixtures("alone")
def test_shares_of_one_process_are_the_whole() -> None:
    model, other = make_model(), make_model()
    shard_tables(other, 0, 1)
    tokens = torch.randint(40, (2, 12))
    losses = [m.loss(tokens)[0] for m in (model, other)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    shares = {name: share for name, p in other.named_parameters() if (share := share_of(p)) is not None}
    own = dict(model.named_parameters())
    assert len(shares) == 3
    for share in shares.values():
        assert share.parameter.grad is None, "owners get theirs at the end of a step"
    add_up_gradients(other.parameters(), Group())
    for name, share in shares.items():
        torch.testing.assert_close(share.parameter.grad, own[name].grad)
        assert torch.equal(share.whole(share.parameter), own[name])
        share.check(name, "in a test")
        share.add_up_gradient()
        torch.testing.assert_close(share.parameter.grad, own[name].grad)


@pytest.mark.usefixtures("alone")
def test_a_table_nobody_looked_at_has_no_gradient() -> None:
    model = make_model()
    shard_tables(model, 0, 1)
    (share, *_) = filter(None, map(share_of, model.parameters()))
    share.add_up_gradient()
    assert share.parameter.grad is None
    share.note(torch.tensor([3]), torch.ones(1, share.shape[1], dtype=torch.float64))
    share.forget()
    share.add_up_gradient()
    assert share.parameter.grad is None


@pytest.mark.usefixtures("alone")
def test_a_model_without_a_trained_table_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a trained table, got a model without one"):
        shard_tables(Decoder(make_system("sliding_fwpkm")), 0, 1)


@pytest.mark.usefixtures("alone")
def test_tables_of_several_dtypes_are_refused() -> None:
    model = make_model()
    for module in model.modules():
        if isinstance(module, ProductKeyMemory):
            module.values = torch.nn.Parameter(module.values.detach().float())
    with pytest.raises(ValueError, match=r"must have one dtype, got torch\.float32, torch\.float64"):
        shard_tables(model, 0, 1)


def test_shares_need_several_processes() -> None:
    with pytest.raises(
        ValueError, match=r"train\.shard_tables=true needs several processes: start with torchrun"
    ):
        shard_tables(make_model(), 0, 1)


def test_a_state_over_a_table_elsewhere_can_be_detached_and_selected() -> None:
    away = make_fwpkm()
    table = move_away(away)
    _, state = away(torch.randn(2, 11, 8, dtype=torch.float64))
    for other in (
        state.detach(),
        state.select(torch.tensor([1])),
        replace(state, frozen=True),
        state.to("cpu"),
    ):
        assert other.table.store.base is table

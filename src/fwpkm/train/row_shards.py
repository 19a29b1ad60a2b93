"""Trained tables of which every process holds a share of the rows: ProductKeyMemory's, and learned bases of FwPKM."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.pkm import ProductKeyMemory
from fwpkm.memory.remote import RemoteTable
from fwpkm.models.decoder import Decoder
from fwpkm.ops.sparse import sparse_rows
from fwpkm.train.exchange import RowExchange

_GATHER_NUMBERS = 2**24
"""Numbers of each process that are put together at once."""


class RowShare(RemoteTable):
    """One process's rows of a table, and the way to the others' rows.

    Args:
        parameter: The rows of the slots  rank, rank + world, rank + 2 world, ...
        num_slots: N, of the whole table.
        sparse_grad: Whether `parameter` gets a sparse gradient.
        exchange: The way.
    """

    def __init__(
        self, parameter: nn.Parameter, num_slots: int, *, sparse_grad: bool, exchange: RowExchange
    ) -> None:
        self.parameter, self.num_slots, self.sparse_grad = parameter, num_slots, sparse_grad
        self._noted: list[tuple[Tensor, Tensor]] = []
        self.exchange = exchange
        self.number = exchange.add(self)

    @property
    def own_rows(self) -> Float[Tensor, "P Dv"]:
        """What this process holds."""
        return self.parameter.detach()

    @property
    def own_slots(self) -> Int[Tensor, " P"]:
        """Whose rows these are."""
        first, step = self.exchange.rank, self.exchange.world
        return torch.arange(first, self.num_slots, step, device=self.parameter.device)

    @property
    def shape(self) -> tuple[int, int]:
        """N and Dv."""
        return self.num_slots, self.parameter.shape[1]

    def rows(self, slots: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Fetch the rows of distinct slots; what is learned of them waits for `add_up_gradient`."""
        rows: Tensor = _Fetch.apply(self.parameter, slots, self)
        return rows

    def note(self, slots: Int[Tensor, " P"], gradient: Float[Tensor, "P Dv"]) -> None:
        """Keep a gradient of some rows until the step's end, when owners get it."""
        self._noted.append((slots, gradient))

    def forget(self) -> None:
        """Drop all gradients that were noted."""
        self._noted.clear()

    @torch.no_grad()
    def add_up_gradient(self) -> None:
        """Give the owner of every row the sum of all processes' gradients; everybody must call it.

        As without sharding, a table that no process looked at has no gradient, and one that any looked at has one.
        """
        used = torch.tensor([len(self._noted)], device=self.parameter.device)
        dist.all_reduce(used)
        slots, contents = self._taken()
        if not int(used):
            return
        places, contents = self.exchange.give(slots, contents)
        places, contents = _summed(places, contents)
        if self.sparse_grad:
            self.parameter.grad = sparse_rows(places, contents, self.parameter.shape)
        else:
            self.parameter.grad = torch.zeros_like(self.parameter).index_copy_(0, places, contents)

    def _taken(self) -> tuple[Tensor, Tensor]:
        """Take out what was noted, every slot once."""
        slots = [x for x, _ in self._noted] or [torch.empty(0, dtype=torch.int64)]
        contents = [x for _, x in self._noted] or [self.parameter.new_empty(0, self.shape[1])]
        self.forget()
        return _summed(torch.cat(slots).to(self.parameter.device), torch.cat(contents))

    def own_part(self, whole: Float[Tensor, "N Dv"]) -> Float[Tensor, "P Dv"]:
        """Copy this process's rows out of something that has the whole table's shape."""
        rank, world = self.exchange.rank, self.exchange.world
        return whole[rank::world].to(self.parameter.device, copy=True)

    @torch.no_grad()
    def whole(self, part: Float[Tensor, "P Dv"]) -> Float[Tensor, "R Dv"]:
        """Put together what the processes hold of something, on the first one's CPU; the others get no rows.

        Everybody must call it. No more than a few rows of each process are underway at once.
        """
        (N, width), world = self.shape, self.exchange.world
        first = self.exchange.rank == 0
        out = torch.empty(N if first else 0, width, dtype=part.dtype)
        most, step = -(-N // world), max(1, _GATHER_NUMBERS // width)
        for start in range(0, most, step):
            count = min(step, most - start)
            mine = part.new_zeros(count, width)
            own = part.detach()[start : start + count]
            mine[: own.shape[0]] = own
            parts = [torch.empty_like(mine) for _ in range(world)] if first else None
            dist.gather(mine, parts)
            for rank, rows in enumerate(parts or ()):
                target = out[rank::world][start : start + count]
                target.copy_(rows[: target.shape[0]])
        return out

    def check(self, name: str, when: str) -> None:
        """Refuse to go on unless every row is held by exactly one process; everybody must call it.

        Raises:
            RuntimeError: On every process.
        """
        owners = torch.zeros(self.num_slots, dtype=torch.int32, device=self.parameter.device)
        owners[self.own_slots] += 1
        odd = owners.new_tensor([self.own_slots.numel() != self.parameter.shape[0]])
        dist.all_reduce(owners)
        dist.all_reduce(odd)
        wrong = int((owners != 1).sum())
        if wrong or int(odd):
            raise RuntimeError(
                f"check_alike: every row of {name} must belong to one process, but {when} {wrong} of {self.num_slots} "
                f"do not, and {int(odd)} processes hold another number of rows than is theirs; go on from the last "
                "checkpoint with --resume"
            )


class _Fetch(torch.autograd.Function):
    """Rows from all processes. The backward pass talks to nobody, so it may come in any order."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, slots: Tensor, share: RowShare) -> Tensor:
        ctx.share = share
        ctx.save_for_backward(slots)
        return share.exchange.fetch(share.number, slots)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        (slots,) = ctx.saved_tensors
        ctx.share.note(slots, gradient.contiguous())
        return None, None, None


def _summed(places: Tensor, contents: Tensor) -> tuple[Tensor, Tensor]:
    """Add up rows of the same place; places come out ascending."""
    distinct, number = places.unique(return_inverse=True)
    sums = contents.new_zeros(distinct.shape[0], contents.shape[1])
    return distinct, sums.index_add_(0, number, contents)


def norm_over_processes(grads: list[Tensor]) -> float:
    """Return the norm of all shares' gradients together; everybody must call it."""
    square = nn.utils.get_total_norm(grads).double().square()
    dist.all_reduce(square)
    return float(square.sqrt())


def share_of(x: Tensor) -> RowShare | None:
    """Return what a parameter is a share of, if it is one."""
    return getattr(x, "row_share", None)


def shard_tables(model: Decoder, rank: int, world: int) -> None:
    """Leave every process its share of the rows of all trained tables, which must be alike on all so far.

    Sub-keys stay whole everywhere. Call it before the optimizer is made, and before `fwpkm.train.sharding.shard`.

    Raises:
        ValueError: Without torchrun, or if the model has no trained table.
    """
    if not dist.is_initialized():
        raise ValueError(
            "train.shard_tables=true needs several processes: start with torchrun, or set train.shard_tables=false"
        )
    tables = [module for module in model.modules() if _table_name(module) is not None]
    if not tables:
        raise ValueError(
            "train.shard_tables=true needs a trained table, got a model without one: give it PKM layers or "
            "fwpkm.initial_values='learned', or set train.shard_tables=false"
        )
    exchange = RowExchange(rank, world)
    for module in tables:
        _shard(module, exchange)
    for block in model.blocks:
        if any(module in tables for module in block.modules()):
            # An early end of a recomputed block is an exception, and the others wait all the same.
            block.register_forward_hook(lambda *_: exchange.finish(), always_call=True)


def _table_name(module: nn.Module) -> str | None:
    if isinstance(module, ProductKeyMemory):
        return "values"
    if isinstance(module, FwPKM) and isinstance(module.initial_values, nn.Parameter):
        return "initial_values"
    return None


def _shard(module: Any, exchange: RowExchange) -> None:
    name = _table_name(module)
    assert name is not None, "the module has a table"
    whole = getattr(module, name).detach()
    parameter = nn.Parameter(whole[exchange.rank :: exchange.world].clone())
    share = RowShare(parameter, whole.shape[0], sparse_grad=module.config.sparse_grad, exchange=exchange)
    parameter.row_share = share  # type: ignore[attr-defined]
    setattr(module, name, parameter)
    module.remote_table = share

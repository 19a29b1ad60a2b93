"""Several processes as one: their gradients added up, their weights shared or sharded, their tables compared."""

import gc
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fwpkm.models.decoder import Decoder
from fwpkm.ops.sparse import sparse_rows
from fwpkm.train.row_shards import share_of
from fwpkm.train.sharding import is_shared_out

_BUCKET_NUMBERS = 2**24
"""Numbers that are added up in one message, at most, but for larger single tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The processes of this run; one without torchrun."""

    rank: int = 0
    """Which of them this is."""
    world: int = 1
    """How many there are."""
    local_rank: int = 0
    """Which of those on this machine this is."""

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def add_up(self, x: Tensor) -> Tensor:
        """Add a tensor up over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(x)
        return x

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of ranks; everybody must call it."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def process_group(device: torch.device) -> Iterator[Group]:
    """Join the processes that torchrun started: gloo on CPUs, NCCL on GPUs. Without torchrun there is one."""
    if "WORLD_SIZE" not in os.environ:
        yield Group()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(
            rank=dist.get_rank(), world=dist.get_world_size(), local_rank=int(os.environ.get("LOCAL_RANK", 0))
        )
    finally:
        gc.collect()  # what still holds a group in a cycle would end its threads when the interpreter is half gone
        dist.destroy_process_group()


@torch.no_grad()
def add_up_gradients(parameters: Iterable[Tensor], group: Group) -> None:
    """Give every process the sum of all processes' gradients of what it holds.

    Those of weights that FSDP2 shards have it already; rows of sharded tables go to their owners.
    """
    parameters = list(parameters)
    for share in filter(None, map(share_of, parameters)):
        share.add_up_gradient()  # one process, too, has only noted it so far
    if group.world == 1:
        return
    owned = [p for p in parameters if not is_shared_out(p)]
    _agree_on_missing(owned, group)
    for p in owned:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = _sum_sparse(p.grad, group)
    for bucket in _buckets(p.grad for p in owned if p.grad is not None and not p.grad.is_sparse):
        flat = group.add_up(torch.cat([g.flatten() for g in bucket]))
        sums = flat.split([g.numel() for g in bucket])
        for g, total in zip(bucket, sums, strict=True):
            g.copy_(total.view_as(g))


def _agree_on_missing(parameters: list[Tensor], group: Group) -> None:
    """Give a weight without a gradient zeros where another process has one."""
    if not parameters:
        return
    has = torch.tensor(
        [p.grad is not None for p in parameters], device=parameters[0].device, dtype=torch.int32
    )
    for p, anywhere in zip(parameters, group.add_up(has).tolist(), strict=True):
        if anywhere and p.grad is None:
            p.grad = torch.zeros_like(p)


def _buckets(grads: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for g in grads:
        if bucket and (
            sum(x.numel() for x in bucket) + g.numel() > _BUCKET_NUMBERS or g.dtype != bucket[0].dtype
        ):
            yield bucket
            bucket = []
        bucket.append(g)
    if bucket:
        yield bucket


def _sum_sparse(grad: Tensor, group: Group) -> Tensor:
    """Add up rows; every process hands out its own, padded to the most that one has."""
    grad = grad.coalesce()
    row, contents = grad.indices()[0], grad.values()
    count = torch.tensor([row.shape[0]], device=row.device)
    counts = [torch.empty_like(count) for _ in range(group.world)]
    dist.all_gather(counts, count)
    sizes = [int(n) for n in counts]
    rows, values = (_gather_padded(x, sizes, group) for x in (row, contents))
    return sparse_rows(rows, values, grad.shape, distinct=False).coalesce()


def _gather_padded(x: Tensor, sizes: list[int], group: Group) -> Tensor:
    padded = x.new_zeros(max(sizes), *x.shape[1:])
    padded[: x.shape[0]] = x
    parts = [torch.empty_like(padded) for _ in range(group.world)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def tensor_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash names, shapes and contents of tensors (SHA-256)."""
    digest = hashlib.sha256()
    for name, x in tensors:
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
        digest.update(x.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_alike(model: Decoder, group: Group, when: str) -> None:
    """Refuse to go on if processes differ in a table or another weight that they all hold in full.

    Of tables that are sharded by rows, every row must be held by one process.

    Raises:
        RuntimeError: On every process, naming what differs and where.
    """
    if group.world == 1:
        return
    for name, p in model.named_parameters():
        if (share := share_of(p)) is not None:
            share.check(name, when)
    held = [(n, x) for n, x in (*model.named_parameters(), *model.named_buffers()) if not is_shared_out(x)]
    hashes = group.gather({name: tensor_hash([(name, x)]) for name, x in held})
    differing = [n for n, _ in held if len({own[n] for own in hashes}) > 1]
    if differing:
        raise RuntimeError(
            f"check_alike: all processes must hold the same tables and weights, but {when} they differ in "
            f"{', '.join(differing)}; go on from the last checkpoint with --resume, and look for a process with "
            "other code, data or hardware if it happens again"
        )

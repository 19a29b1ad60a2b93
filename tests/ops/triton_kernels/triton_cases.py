"""Shapes on which the kernels are held against the definition: interpreted on a CPU, and as they are on a GPU."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from fwpkm.ops.addressing import address
from fwpkm.ops.addressing.naive import key_step_naive, product_key_topk_naive
from fwpkm.ops.memory_scan import memory_scan
from fwpkm.ops.memory_scan.naive import memory_scan_naive
from fwpkm.testing.inputs import ScanInputs, make_core_inputs, make_scan_inputs


def triton_version() -> tuple[int, ...]:
    """Return major and minor number of the Triton that is installed, (0, 0) for none."""
    try:
        return tuple(map(int, version("triton").split(".")[:2]))
    except PackageNotFoundError:
        return (0, 0)


FLOATS = ("table", "w", "write_w", "target")
Results = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class AddressCase:
    """What `address` is asked for."""

    S: int = 1
    M: int = 6
    H: int = 1
    n: int = 5
    half: int = 2
    topk: int = 2
    score: str = "idw"
    step_tokens: int = 0
    seed: int = 0

    def inputs(self, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
        """Draw queries [S, M, H, Dk] and each stream's sub-keys."""
        sizes = {"T": self.M, "H": self.H, "n": self.n, "Dk": 2 * self.half}
        each = [make_core_inputs(self.seed + 97 * s, **sizes).to(dtype).to(device) for s in range(self.S)]
        return torch.cat([x.q for x in each]), torch.stack([x.keys for x in each])


def random_scans(seed: int, *, most: int) -> Iterator[ScanInputs]:
    """Draw scans of odd widths: spread reads, few rows, one row for all, chunks that are empty or do not write."""
    draw = torch.Generator().manual_seed(seed)

    def upto(n: int) -> int:
        return int(torch.randint(1, n + 1, (), generator=draw))

    for num_rows in (1, upto(most), 20 * most):
        reads = [upto(most), 0, upto(most), upto(most)]
        writes = [upto(reads[0]), 0, reads[2], 0]
        pairs, width = upto(11), 2 * upto(most) + 1
        x = make_scan_inputs(seed, reads=reads, writes=writes, num_rows=num_rows, pairs=pairs, width=width)
        yield stable(x)


def stable(x: ScanInputs) -> ScanInputs:
    """Divide the steps by the most that any row is written: then rounding does not grow from chunk to chunk."""
    most = torch.bincount(x.rows.flatten(), minlength=x.table.shape[0]).amax()
    return replace(x, write_w=x.write_w / most)


def scan_results(scan: Callable[..., tuple[Tensor, Tensor]], x: ScanInputs) -> Results:
    """Return v^, the final table, and the gradients of a loss of both."""
    x = x.leaves()
    out, table = scan(x.table, x.rows, x.w, x.write_w, x.target, x.reads, x.writes)
    grads = torch.autograd.grad(out.sin().sum() + table.cos().sum(), [getattr(x, name) for name in FLOATS])
    named = {f"d {name}": g for name, g in zip(FLOATS, grads, strict=True)}
    return {"v_hat": out.detach(), "table": table.detach(), **named}


def scan_three(x: ScanInputs, dtype: torch.dtype, device: str) -> tuple[Results, Results, Results]:
    """Return the scan's results, the definition's in `dtype`, and the definition's in float64."""
    x = x.to(device)
    return (
        scan_results(memory_scan, x.to(dtype)),
        scan_results(memory_scan_naive, x.to(dtype)),
        scan_results(memory_scan_naive, x),
    )


def address_results(case: AddressCase, q: Tensor, keys: Tensor, *, by_definition: bool = False) -> Results:
    """Return scores, moved keys, and the gradients of a smooth loss of both."""
    q, keys = q.detach().clone().requires_grad_(), keys.detach().clone().requires_grad_()
    if by_definition:
        scores, moved = _address_naive(case, q, keys)
    else:
        scores, _, moved = address(q, keys, topk=case.topk, score=case.score, step_tokens=case.step_tokens)
    loss = scores.softmax(-1).square().sum() + scores.mean() + moved.sin().sum()
    dq, dkeys = torch.autograd.grad(loss, (q, keys))
    return {"scores": scores.detach(), "moved": moved.detach(), "dq": dq, "dkeys": dkeys}


def address_three(case: AddressCase, dtype: torch.dtype, device: str) -> tuple[Results, Results, Results]:
    """Do the same as `scan_three` for addressing."""
    q, keys = case.inputs(torch.float64, device)
    narrow = q.to(dtype), keys.to(dtype)
    return (
        address_results(case, *narrow),
        address_results(case, *narrow, by_definition=True),
        address_results(case, q, keys, by_definition=True),
    )


def _address_naive(case: AddressCase, q: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    scores, moved = [], []
    for own_q, own_keys in zip(q, keys, strict=True):
        scores.append(product_key_topk_naive(own_q, own_keys, case.topk, case.score)[0])
        counted = own_q[: case.step_tokens]
        moved.append(
            key_step_naive(counted, own_keys, case.topk, case.score, 1.0) if case.step_tokens else own_keys
        )
    return torch.stack(scores), torch.stack(moved)


def all_finite(results: Mapping[str, Tensor]) -> bool:
    """Return whether no result holds a NaN or an infinity."""
    return all(bool(x.isfinite().all()) for x in results.values())


def share_of_tokens_that_differ(got: Tensor, expected: Tensor, *, tolerance: float) -> float:
    """Return for which share of the tokens [B, T, ...] the two differ by more than `tolerance` of what is usual."""
    B, T = expected.shape[:2]
    difference, usual = (x.detach().reshape(B * T, -1).norm(dim=-1) for x in (got - expected, expected))
    alike = difference <= tolerance * usual.square().mean().sqrt()  # NaN is not
    return 1 - float(alike.double().mean())

"""Numbers in bfloat16 given to the kernels, which widen them: the same as their float32 copies given to them.

Interpreted on a CPU, where bfloat16 is but read and stored, and as they are on a GPU.
"""

import torch
from torch import Tensor
from triton_cases import AddressCase, address_results, scan_results

from fwpkm.ops.addressing import key_squares
from fwpkm.ops.answer import answer_tokens, read_cells
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.memory_scan import memory_scan
from fwpkm.testing.inputs import ScanInputs, make_hidden, make_layer


def check_narrow_queries(case: AddressCase, device: str) -> None:
    """Hold scores, moved sub-keys and gradients to those of the same queries in float32."""
    q, keys = case.inputs(torch.float32, device)
    narrow, wide = (address_results(case, x, keys) for x in (q.bfloat16(), q.bfloat16().float()))
    _narrowed_alike(narrow.pop("dq"), wide.pop("dq"))
    torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-5)


def check_narrow_targets(x: ScanInputs, device: str) -> None:
    """Hold v^, the table and gradients to those of the same targets in float32."""
    x = x.to(torch.float32).to(device)
    given = {**x.__dict__, "target": x.target.bfloat16()}
    narrow, wide = (
        scan_results(memory_scan, ScanInputs(**{**given, "target": target}))
        for target in (given["target"], given["target"].float())
    )
    assert narrow["v_hat"].dtype == narrow["table"].dtype == torch.float32
    _narrowed_alike(narrow.pop("d target"), wide.pop("d target"))
    torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def check_narrow_rows(B: int, n: int, half: int, width: int, topk: int, device: str) -> None:
    """Hold answers and reads of a base and rows in bfloat16 to those of the same numbers in float32."""
    draw = torch.Generator().manual_seed(n)
    q, keys, base, rows, w = (
        torch.randn(shape, generator=draw).to(device)
        for shape in ((B, 2, 1, 2 * half), (B, 2, 1, n, half), (n * n, width), (30, width), (5, 9))
    )
    index = torch.full((B, n * n), -1, dtype=torch.int32)
    index.view(-1)[torch.randperm(B * n * n, generator=draw)[:30]] = torch.arange(30, dtype=torch.int32)
    index, cells = index.to(device), torch.randint(B * n * n, (5, 9), generator=draw).to(device)
    keys_of, options = (keys, key_squares(keys, "idw")), CoreOptions(topk=topk)
    one = torch.ones((), device=device)
    q, base, rows = q.bfloat16(), base.bfloat16(), rows.bfloat16()
    answers = [
        answer_tokens(queries, *keys_of, held, index, own, one, options)
        for queries, held, own in ((q, base, rows), (q.float(), base.float(), rows.float()))
    ]
    reads = [
        read_cells(w, cells, *held) for held in ((base, index, rows), (base.float(), index, rows.float()))
    ]
    assert answers[0].dtype == reads[0].dtype == torch.float32
    torch.testing.assert_close(*answers)
    torch.testing.assert_close(*reads)


def narrow_layer_results(device: str) -> tuple[Tensor, ...]:
    """Train and stream a layer with tables in bfloat16, of the backend that runs."""
    layer = make_layer(dtype=torch.float32, num_heads=1, topk=2, table_dtype="bfloat16").to(device)
    x = make_hidden(layer, 2, 9)
    out, state = layer(x)
    loss = out.sin().sum() + state.table.dense().cos().sum()
    grads = torch.autograd.grad(loss, list(layer.parameters()))
    with torch.no_grad():
        first, state = layer(x[:, :6])
        last, state = layer(x[:, 6:], state)
    assert state.table.store.rows.dtype == torch.bfloat16
    return out.detach(), *grads, first, last, state.table.dense()


def _narrowed_alike(narrow: Tensor, wide: Tensor) -> None:
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow, wide.bfloat16(), rtol=2**-7, atol=1e-5)

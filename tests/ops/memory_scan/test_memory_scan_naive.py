"""The definition of the memory scan against the gradient of the memory loss, chunk by chunk."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.memory_scan.naive import memory_scan_naive
from fwpkm.testing.inputs import make_scan_inputs


def scan_by_hand(x):
    """Read and write one number at a time."""
    table = [row.tolist() for row in x.table]
    out, r, t = [], 0, 0
    for num_reads, num_writes in zip(x.reads, x.writes, strict=True):
        v_hat = [
            [sum(x.w[m, j].item() * table[i][d] for j, i in enumerate(x.rows[m].tolist())) for d in range(5)]
            for m in range(r, r + num_reads)
        ]
        out += v_hat
        for m in range(num_writes):
            for j, i in enumerate(x.rows[r + m].tolist()):
                for d in range(5):
                    table[i][d] -= x.write_w[t + m, j].item() * (v_hat[m][d] - x.target[t + m, d].item())
        r, t = r + num_reads, t + num_writes
    return torch.tensor(out, dtype=torch.float64).view(-1, 5), torch.tensor(table, dtype=torch.float64)


@given(
    seed=st.integers(0, 10**6),
    chunks=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4),
)
def test_it_reads_and_writes_as_a_loop_over_single_numbers_does(seed, chunks):
    x = make_scan_inputs(seed, reads=[a + b for a, b in chunks], writes=[b for _, b in chunks])
    args = (x.table, x.rows, x.w, x.write_w, x.target, x.reads, x.writes)
    torch.testing.assert_close(memory_scan_naive(*args), scan_by_hand(x))


def test_with_equal_read_and_write_weights_a_chunk_is_one_gradient_step_on_the_squared_error():
    x = make_scan_inputs(0, reads=[6], writes=[6])
    table = x.table.clone().requires_grad_()
    error = torch.einsum("tj,tjd->td", x.w, table[x.rows]) - x.target
    (grad,) = torch.autograd.grad(0.5 * error.square().sum(), table)
    after = memory_scan_naive(x.table, x.rows, x.w, x.w, x.target, [6], [6])[1]
    torch.testing.assert_close(after, x.table - grad)

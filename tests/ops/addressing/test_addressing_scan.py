"""Addressing of all windows at once against one window after the other: scores, slots, moved keys and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm.ops.addressing import address, address_windows, key_squares
from fwpkm.testing.inputs import make_core_inputs
from fwpkm.testing.op_calls import record_op_calls

pytest.importorskip("numba")


def make_streams(seed, *, S, T, H, n, half, dtype=torch.float64):
    """Draw queries [S, T, H, Dk] and each stream's own sub-keys [S, 2, H, n, Dk/2]."""
    each = [make_core_inputs(seed + 97 * s, T=T, H=H, n=n, Dk=2 * half, dtype=dtype) for s in range(S)]
    return torch.cat([x.q for x in each]), torch.stack([x.keys for x in each])


def one_by_one(q, keys, windows, *, topk, score, step_size):
    """Do what `address_windows` does with one `address` a window."""
    S, num_slots = q.shape[0], keys.shape[-2] ** 2
    scores, cells = [], []
    for start, stop, written, steps in windows:
        best, slot, keys = address(
            q[:, start:stop],
            keys,
            topk=topk,
            score=score,
            step_tokens=steps,
            step_size=torch.full((S,), step_size, dtype=q.dtype),
        )
        cell = slot + num_slots * torch.arange(S)[:, None, None, None]
        for x, all_of in ((best, scores), (cell, cells)):
            all_of += [x[:, :written].flatten(0, 1).flatten(1), x[:, written:].flatten(0, 1).flatten(1)]
    return torch.cat(scores), torch.cat(cells), keys


def with_gradients(fn, q, keys, windows, **how):
    """Return everything, and the gradients of a smooth loss of it."""
    q, keys = q.detach().clone().requires_grad_(), keys.detach().clone().requires_grad_()
    scores, cells, moved, *squares = fn(q, keys, windows, **how)
    for given_squares in squares:
        torch.testing.assert_close(
            given_squares, key_squares(moved.detach(), how["score"]), check_stride=False
        )
    loss = scores.softmax(-1).square().sum() + scores.mean() + moved.sin().sum()
    dq, dkeys = torch.autograd.grad(loss, (q, keys))
    return cells, {"scores": scores.detach(), "moved": moved.detach(), "dq": dq, "dkeys": dkeys}


@st.composite
def plans(draw):
    """Draw windows that follow each other and may overlap a little, and how many tokens there are."""
    windows, start = [], 0
    for _ in range(draw(st.integers(1, 4))):
        tokens = draw(st.integers(1, 6) | st.integers(14, 35))
        written, steps = draw(st.integers(0, tokens)), draw(st.integers(0, tokens))
        windows.append((start, start + tokens, written, steps))
        start += draw(st.integers(max(0, tokens - 2), tokens))
    return windows, max(stop for _, stop, _, _ in windows) + draw(st.integers(0, 2))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    S=st.integers(1, 3),
    H=st.integers(1, 3),
    n=st.integers(1, 7),
    half=st.integers(1, 5),
    score=st.sampled_from(["idw", "dot"]),
    plan=plans(),
    data=st.data(),
)
def test_all_windows_at_once_equal_one_after_the_other(seed, S, H, n, half, score, plan, data):
    windows, T = plan
    q, keys = make_streams(seed, S=S, T=T, H=H, n=n, half=half)
    how = {"topk": data.draw(st.integers(1, n)), "score": score, "step_size": 0.7}
    cells, fast = with_gradients(address_windows, q, keys, windows, **how)
    expected, slow = with_gradients(one_by_one, q, keys, windows, **how)
    assert torch.equal(cells, expected)
    for name, value in slow.items():
        torch.testing.assert_close(fast[name], value, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


# Three threads take a stream each; of two and of four all share out each window's tokens.
@pytest.mark.parametrize("threads", [1, 3, 4])
@pytest.mark.parametrize("team", [True, False])
def test_threads_change_nothing(threads, team, monkeypatch):
    if not team:
        monkeypatch.setattr("fwpkm.ops.threads._has_team", lambda process: False)
    monkeypatch.setattr("fwpkm.ops.addressing.scan._FEWEST_NUMBERS", 1)
    q, keys = make_streams(1, S=3, T=200, H=2, n=33, half=24, dtype=torch.float32)
    windows = [(start, start + 65, 64, 64) for start in (0, 64, 128)]
    how = {"topk": 8, "score": "idw", "step_size": 1.0}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        wanted = with_gradients(address_windows, q, keys, windows, **how)
        torch.set_num_threads(threads)
        found = with_gradients(address_windows, q, keys, windows, **how)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], wanted[0])
    for name, value in wanted[1].items():
        assert torch.equal(found[1][name], value), name


def test_the_gradient_of_float32_is_that_of_float64():
    windows = [(0, 33, 32, 32), (32, 65, 32, 32), (65, 70, 0, 0)]
    q, keys = make_streams(3, S=2, T=70, H=1, n=64, half=16)
    how = {"topk": 8, "score": "idw", "step_size": 1.0}
    cells, exact = with_gradients(address_windows, q, keys, windows, **how)
    found, single = with_gradients(address_windows, q.float(), keys.float(), windows, **how)
    same = (found == cells).float().mean()
    assert same > 0.99  # nearly equal scores may swap places
    for name in ("moved", "dkeys"):
        torch.testing.assert_close(single[name].double(), exact[name], rtol=1e-2, atol=1e-3)


def test_a_nan_query_spoils_its_own_scores():
    q, keys = make_streams(5, S=1, T=4, H=1, n=5, half=2)
    q[0, 1] = torch.nan
    scores, cells, *_ = address_windows(q, keys, [(0, 4, 0, 0)], topk=2)
    assert scores[1].isnan().all()
    assert scores[[0, 2, 3]].isfinite().all()
    assert ((cells >= 0) & (cells < 25)).all()


def test_windows_that_do_not_fit_are_refused():
    q, keys = make_streams(0, S=1, T=4, H=1, n=3, half=1)
    for windows in ([(0, 5, 0, 0)], [(2, 1, 0, 0)], [(0, 2, 3, 0)], [(0, 2, 0, 3)]):
        with pytest.raises(ValueError, match="windows must lie in"):
            address_windows(q, keys, windows, topk=1)


def test_the_operators_pass_opcheck():
    q, keys = make_streams(2, S=2, T=9, H=2, n=5, half=2)
    windows = [(0, 5, 4, 4), (4, 9, 4, 4)]
    calls = record_op_calls(
        lambda: with_gradients(address_windows, q, keys, windows, topk=3, score="idw", step_size=1.0)
    )
    assert {op.name() for op, _, _ in calls} == {"fwpkm::address_windows", "fwpkm::address_windows_backward"}
    for (
        op,
        args,
        kwargs,
    ) in calls:  # not "test_aot_dispatch": nobody compiles them, and room is left uninitialised
        torch.library.opcheck(
            op, args, kwargs, test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
        )

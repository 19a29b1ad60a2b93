"""The literal definition against loops over single tokens, written once more from the text of the definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.addressing.naive import key_step_naive, product_key_topk_naive
from fwpkm.ops.core.naive import core_naive
from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.weights import read_weights
from fwpkm.testing.inputs import make_core_inputs


class ByHand:
    """One memory shared by B streams; looks at one token at a time and takes no gradient."""

    def __init__(self, x, options, mask=None, temperature=1.0):
        self.x, self.o, self.mask, self.temperature = x, options, mask, temperature
        self.K, self.V = x.keys.clone(), x.values.clone()
        self.B, self.T = x.v.shape[:2]
        self.out = torch.zeros_like(x.v)

    def address(self, b, t):
        score, slot = product_key_topk_naive(self.x.q[b, t][None], self.K, self.o.topk, self.o.score)
        w = score.flatten() / self.temperature
        w = {"softmax": w.softmax(0), "silu": w * w.sigmoid(), "relu": w.clamp_min(0)}[self.o.weights]
        return slot.flatten().tolist(), w.tolist()

    def read(self, b, t):
        slots, w = self.address(b, t)
        return sum(a * self.V[i] for i, a in zip(slots, w, strict=True))

    def tokens(self, start, stop):
        return [(b, t) for b in range(self.B) for t in range(start, stop)]

    def run(self, flush=False):
        C, ahead, dropped = self.o.chunk_size, self.o.lookahead, self.o.border == "dropped"
        begin = seen = 0
        while seen < self.T:
            border = begin + C + (0 if dropped else ahead)
            stop = min(border, self.T)
            for b, t in self.tokens(seen, stop):
                self.out[b, t] = self.read(b, t)
            if stop == border or dropped or flush:
                self.write(begin, stop - ahead, seen, stop)
            begin, seen = begin + C, stop
        return self.out, self.K, self.V

    def write(self, begin, end, first_new, stop):
        """Write tokens begin..end; first_new..stop were read since the last border."""
        if end <= begin:
            return
        o, x = self.o, self.x
        dropped = o.border == "dropped"
        reads = dict.fromkeys(range(len(self.V)), 0)
        count_all = dropped or o.write_rule == "release"
        for b, t in self.tokens(first_new, stop) if count_all else self.tokens(begin, end):
            for i in self.address(b, t)[0]:
                reads[i] += 1
        pairs = self.tokens(begin, end)
        M = self.B * (stop - first_new) if self.mask is None else sum(bool(self.mask[p]) for p in pairs)
        step = torch.zeros_like(self.V)
        for b, t in pairs:
            slots, w = self.address(b, t)
            eta = 1.0
            if o.write_rule == "release":
                eta = len(w) * M / len(pairs)
            elif o.write_rule == "exact":
                eta = 1 / sum(a * a for a in w)
            loss_weight = x.gate[b, t] * (1.0 if self.mask is None else float(self.mask[b, t]))
            error = self.read(b, t) - x.v[b, t + o.lookahead]
            for i, a in zip(slots, w, strict=True):
                step[i] += eta * loss_weight * a * error / max(reads[i], 1)
        self.V = self.V - o.value_lr * step
        if o.key_loss == "entropy":
            used = x.q[:, slice(first_new, stop) if dropped else slice(begin, end)].flatten(0, 1)
            lr = o.key_lr * o.addressing_weight
            self.K = key_step_naive(used, self.K, o.topk, o.score, lr).detach()


def compare(x, options, mask=None, temperature=1.0, flush=False):
    got = core_naive(
        x.q,
        x.v,
        x.gate,
        x.keys,
        x.values,
        options,
        temperature=temperature,
        write_mask=mask,
        flush=flush,
    )
    expected = ByHand(x, options, mask, temperature).run(flush)
    torch.testing.assert_close((got.output, got.keys, got.values), expected, rtol=1e-9, atol=1e-11)


@given(
    seed=st.integers(0, 10**6),
    B=st.integers(1, 2),
    T=st.integers(1, 12),
    options=st.builds(
        CoreOptions,
        topk=st.integers(1, 3),
        chunk_size=st.integers(1, 5),
        lookahead=st.integers(0, 6),
        score=st.sampled_from(["idw", "dot"]),
        weights=st.sampled_from(["softmax", "silu", "relu"]),
        write_rule=st.sampled_from(["paper", "release"]),
        value_lr=st.sampled_from([0.0, 0.5, 1.0]),
        key_lr=st.sampled_from([0.3, 1.0]),
        key_loss=st.sampled_from(["entropy", "none"]),
        addressing_weight=st.sampled_from([0.2, 1.0]),
        border=st.sampled_from(["moved", "dropped"]),
    ),
    masked=st.booleans(),
    flush=st.booleans(),
)
def test_outputs_keys_and_table_equal_the_loops(seed, B, T, options, masked, flush):
    x = make_core_inputs(seed, B=B, T=T, H=2, n=4)
    mask = torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) > 0.3 if masked else None
    compare(x, options, mask, temperature=0.7, flush=flush)


@pytest.mark.parametrize("border", ["moved", "dropped"])
@pytest.mark.parametrize("rule", ["paper", "release", "exact"])
def test_every_write_rule_equals_the_loops(rule, border):
    options = CoreOptions(topk=2, chunk_size=4, write_rule=rule, border=border)
    compare(make_core_inputs(1, B=2, T=11, H=2), options)


def test_without_a_gate_all_tokens_weigh_alike():
    x, options = make_core_inputs(2), CoreOptions(topk=2, chunk_size=3)
    ones = core_naive(x.q, x.v, torch.ones_like(x.gate), x.keys, x.values, options)
    none = core_naive(x.q, x.v, None, x.keys, x.values, options)
    assert torch.equal(ones.values, none.values)


def test_the_exact_rule_lands_on_the_target_where_a_token_shares_no_slot():
    options = CoreOptions(topk=3, chunk_size=1, lookahead=1, write_rule="exact", key_loss="none")
    x = make_core_inputs(3, T=2)
    after = core_naive(x.q, x.v, None, x.keys, x.values, options).values
    answer = core_naive(x.q[:, :1], x.v[:, :1], None, x.keys, after, options).output
    torch.testing.assert_close(answer[:, 0], x.v[:, 1])


def test_the_paper_rule_is_one_gradient_step_when_no_slot_is_read_twice():
    options = CoreOptions(topk=3, chunk_size=1, lookahead=0, key_loss="none", value_lr=0.4)
    x = make_core_inputs(4, T=1)
    values = x.values.clone().requires_grad_()
    read = core_naive(x.q, x.v, x.gate, x.keys, values, CoreOptions(topk=3, chunk_size=2)).output
    loss = 0.5 * (x.gate[..., None] * (read - x.v).square()).sum()
    (grad,) = torch.autograd.grad(loss, values)
    after = core_naive(x.q, x.v, x.gate, x.keys, x.values, options).values
    torch.testing.assert_close(after, x.values - 0.4 * grad)


@pytest.mark.parametrize("rule", ["paper", "release", "exact"])
def test_gradcheck_through_reads_writes_and_key_steps(rule):
    options = CoreOptions(topk=2, chunk_size=2, write_rule=rule)
    x = make_core_inputs(5, T=6, n=3).leaves()

    def run(q, v, gate, keys, values):
        trace = core_naive(q, v, gate, keys, values, options)
        return trace.output, trace.keys, trace.values

    assert torch.autograd.gradcheck(run, (x.q, x.v, x.gate, x.keys, x.values))


@pytest.mark.parametrize("key_loss", ["memory", "both"])
def test_keys_can_follow_the_memory_loss(key_loss):
    options = CoreOptions(
        topk=3, chunk_size=4, lookahead=1, key_loss=key_loss, key_lr=0.5, addressing_weight=0.3
    )
    x, h = make_core_inputs(6, B=2, T=5, n=4), 1e-6
    after = core_naive(x.q, x.v, x.gate, x.keys, x.values, options).keys
    never = CoreOptions(topk=3, chunk_size=9)

    def memory_loss(keys):
        read = core_naive(x.q, x.v, x.gate, keys, x.values, never).output[:, :4]
        return (0.5 * x.gate[:, :4, None] * (read - x.v[:, 1:5]).square()).sum().item() / read.numel()

    spread = key_step_naive(x.q[:, :4].flatten(0, 1), x.keys, 3, "idw", 1.0).detach() - x.keys
    for at in [(0, 0, 1, 0), (1, 0, 3, 1), (1, 0, 0, 0)]:
        up, down = x.keys.clone(), x.keys.clone()
        up[at] += h
        down[at] -= h
        slope = (memory_loss(up) - memory_loss(down)) / (2 * h)
        expected = -0.5 * (slope - (0.3 * spread[at].item() if key_loss == "both" else 0.0))
        assert (after[at] - x.keys[at]).item() == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_clipping_bounds_every_number_of_the_inner_gradients():
    x = make_core_inputs(7, T=5)
    x = type(x)(**{**x.__dict__, "v": 20 * x.v})
    base = {"topk": 2, "chunk_size": 4, "value_lr": 0.5, "key_lr": 0.25, "addressing_weight": 20.0}
    free = core_naive(x.q, x.v, x.gate, x.keys, x.values, CoreOptions(**base))
    clipped = core_naive(x.q, x.v, x.gate, x.keys, x.values, CoreOptions(**base, clip_gradients=True))
    for before, without, got, lr in (
        (x.values, free.values, clipped.values, 0.5),
        (x.keys, free.keys, clipped.keys, 0.25),
    ):
        grad = (before - without) / lr
        assert grad.abs().amax() > 1
        torch.testing.assert_close(got, before - lr * grad.clamp(-1, 1))


def test_weight_decay_pulls_table_and_keys_to_zero():
    x = make_core_inputs(8, T=5)
    base = {"topk": 2, "chunk_size": 4, "value_lr": 0.5, "key_lr": 0.25}
    free = core_naive(x.q, x.v, x.gate, x.keys, x.values, CoreOptions(**base))
    decayed = core_naive(x.q, x.v, x.gate, x.keys, x.values, CoreOptions(**base, weight_decay=0.1))
    torch.testing.assert_close(decayed.values, free.values - 0.5 * 0.1 * x.values)
    torch.testing.assert_close(decayed.keys, free.keys - 0.25 * 0.1 * x.keys)


def test_more_sub_keys_than_are_scored_exhaustively_change_nothing_but_the_search():
    x, options = make_core_inputs(9, T=9, H=2, n=70), CoreOptions(topk=4, chunk_size=3)
    compare(x, options)


def test_without_gradients_the_numbers_are_the_same_and_no_graph_is_kept():
    x, options = make_core_inputs(10), CoreOptions(topk=2, chunk_size=3)
    x = x.leaves()
    with torch.no_grad():
        quiet = core_naive(x.q, x.v, x.gate, x.keys, x.values, options)
    loud = core_naive(x.q, x.v, x.gate, x.keys, x.values, options)
    for name in ("output", "keys", "values", "weights"):
        assert torch.equal(getattr(quiet, name), getattr(loud, name))
        assert not getattr(quiet, name).requires_grad
        assert getattr(loud, name).requires_grad


@pytest.mark.parametrize("kind", ["softmax", "silu", "relu"])
def test_read_weights_divide_by_the_temperature_first(kind):
    score = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(read_weights(score, kind, 0.5), read_weights(2 * score, kind))
    by_hand = {
        "softmax": score.exp() / score.exp().sum(-1, keepdim=True),
        "silu": score / (1 + (-score).exp()),
        "relu": score.clamp_min(0),
    }
    torch.testing.assert_close(read_weights(score, kind), by_hand[kind])

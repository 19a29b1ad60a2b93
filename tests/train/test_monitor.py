"""What the memories did, against counts by hand."""

import math

import pytest
import torch

from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system
from fwpkm.train.log import clock, memory_line
from fwpkm.train.monitor import collisions, divergence, memory_metrics, slots_used


def test_slots_used_counts_distinct_slots_of_each_stream() -> None:
    slots = torch.tensor([[[0, 1], [1, 2]], [[5, 5], [5, -1]]])
    assert slots_used(slots, 100) == pytest.approx((3 / 4 + 1 / 3) / 2)


def test_slots_used_cannot_exceed_all_slots() -> None:
    assert slots_used(torch.arange(4).repeat(5).view(1, 10, 2), 4) == 1.0


def test_collisions_count_within_a_chunk_only() -> None:
    slots = torch.tensor([[[0], [1], [0], [0], [3], [3], [-1]]])
    assert collisions(slots, 2) == pytest.approx((0 + 2 + 2) / 6)
    assert collisions(slots, 7) == pytest.approx(5 / 6)


def test_heads_of_one_token_do_not_collide() -> None:
    slots = torch.tensor([[[5, 5], [0, 1], [1, 1], [2, -1]]])
    assert collisions(slots[:, :1], 4) == 0
    assert collisions(slots, 4) == pytest.approx(3 / 7)


def test_padding_has_no_gate() -> None:
    model = Decoder(make_system("mixed")).eval()
    tokens, mask = torch.randint(40, (2, 12)), torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    with torch.no_grad():
        traces = model(tokens, None, mask, trace=True).traces
        alone = [model(tokens[i : i + 1, :n], trace=True).traces for i, n in enumerate((12, 7))]
    metrics = memory_metrics(model, traces, mask)
    for layer, trace in enumerate(traces):
        if trace is not None:
            gates = torch.cat([own[layer].gate.flatten() for own in alone])
            assert metrics[f"memory.{layer}.gate"] == pytest.approx(float(gates.mean()), rel=1e-5)


def test_divergence_is_zero_for_uniform_and_log_n_for_one_slot() -> None:
    even = torch.arange(8).view(1, 8, 1)
    assert divergence(even, torch.ones(1, 8, 1), 8) == pytest.approx(0, abs=1e-12)
    assert divergence(torch.zeros_like(even), torch.rand(1, 8, 1), 8) == pytest.approx(math.log(8))


def test_nothing_read_is_no_number_out_of_nothing() -> None:
    none = torch.full((1, 3, 2), -1)
    assert (slots_used(none, 8), collisions(none, 2), divergence(none, torch.zeros(1, 3, 2), 8)) == (0, 0, 0)


@pytest.mark.parametrize(("system", "kinds"), [("mixed", 10), ("delta_fwmlp", 2), ("full", 0)])
def test_every_memory_is_measured(system: str, kinds: int) -> None:
    model = Decoder(make_system(system)).eval()
    with torch.no_grad():
        traces = model(torch.randint(40, (2, 12)), trace=True).traces
    metrics = memory_metrics(model, traces)
    assert len(metrics) == kinds
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_line_of_progress_averages_over_layers() -> None:
    line = memory_line({"memory.0.gate": 0.2, "memory.2.gate": 0.4, "memory.0.collisions": 0.5})
    assert line == "gate 0.30  collisions 0.50"


def test_times_are_written_as_clocks_do() -> None:
    assert (clock(61.0), clock(3600.0), clock(180_061.9)) == ("1:01", "1:00:00", "50:01:01")

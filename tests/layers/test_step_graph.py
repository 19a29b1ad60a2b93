"""Steps on a fixed state, and the same operations played again, give the numbers of the step itself."""

import gc
import inspect
from contextlib import nullcontext
from typing import ClassVar
from unittest.mock import MagicMock
from weakref import WeakSet

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fwpkm import FwPKM, FwPKMConfig
from fwpkm.layers.step_graph import StepGraph, _Recorder
from fwpkm.memory.places import listed
from fwpkm.models.decode import DecodeGraph
from fwpkm.models.decoder import Decoder
from fwpkm.ops.backend import use_backend
from fwpkm.ops.kept import keeping_lists
from fwpkm.testing.systems import SYSTEMS, make_system

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FIXED_SIZE = ("sliding_fwpkm", "delta_fwmlp", "lact")


def make_model(system, **changes):
    torch.manual_seed(0)
    return Decoder(make_system(system, **changes)).to(DEVICE).double().eval()


def make_tokens(B, T):
    return torch.randint(40, (B, T)).to(DEVICE)


def read_step_by_step(model, ids, cache):
    logits = []
    for t in range(ids.shape[1]):
        output = model(ids[:, t : t + 1], cache)
        logits.append(output.logits)
        cache = output.cache
    return torch.cat(logits, dim=1), cache


def decode_all(graph, ids):
    return torch.cat([graph(ids[:, t : t + 1]).clone() for t in range(ids.shape[1])], dim=1)


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("num_prompt", [0, 9])
@torch.no_grad()
def test_tokens_are_answered_as_by_the_model_itself(system, num_prompt):
    model, ids = make_model(system), make_tokens(3, 30)
    cache = model(ids[:, :num_prompt]).cache
    expected, last = read_step_by_step(model, ids[:, num_prompt:], cache)
    graph = DecodeGraph(model, cache)
    assert_same(decode_all(graph, ids[:, num_prompt:]), expected)
    later = make_tokens(3, 12)
    assert graph.cache.tokens_seen.tolist() == last.tokens_seen.tolist()
    assert_same(model(later, graph.cache).logits, model(later, last).logits)


@pytest.mark.parametrize("system", SYSTEMS)
@torch.no_grad()
def test_streams_of_different_lengths(system):
    model, ids = make_model(system), make_tokens(3, 12)
    mask = (torch.arange(12) < torch.tensor([12, 9, 2])[:, None]).to(DEVICE)
    cache, later = model(ids, None, mask).cache, make_tokens(3, 14)
    expected, _ = read_step_by_step(model, later, cache)
    assert_same(decode_all(DecodeGraph(model, cache), later), expected)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("system", FIXED_SIZE)
@torch.no_grad()
def test_on_a_gpu_there_is_a_graph(system):
    model = make_model(system, **long_chunks(system))
    graph = DecodeGraph(model, model(make_tokens(2, 8)).cache)
    for ids in make_tokens(2, 2).split(1, dim=1):
        graph(ids)
    replay = graph._graph._replay
    assert replay is not None
    assert replay._graph is not None


@pytest.mark.parametrize("system", FIXED_SIZE)
@torch.no_grad()
def test_a_kept_state_stays_what_it_was(system):
    model, ids = make_model(system), make_tokens(2, 25)
    cache = model(ids[:, :8]).cache
    graph, kept = DecodeGraph(model, cache), []
    for t in range(8, 25):
        kept.append((t, graph.cache))
        graph(ids[:, t : t + 1])
    later = make_tokens(2, 9)
    for t, state in kept[::3]:
        assert_same(model(later, state).logits, model(later, model(ids[:, :t]).cache).logits)


@torch.no_grad()
def test_a_frozen_memory_is_read_and_stays_frozen():
    model, ids = make_model("sliding_fwpkm"), make_tokens(2, 30)
    cache = model(ids[:, :8]).cache.freeze()
    expected, _ = read_step_by_step(model, ids[:, 8:], cache)
    graph = DecodeGraph(model, cache)
    assert_same(decode_all(graph, ids[:, 8:]), expected)
    assert all(block.memory is None or block.memory.frozen for block in graph.cache.blocks)


@torch.no_grad()
def test_a_layer_alone():
    torch.manual_seed(0)
    layer = FwPKM(FwPKMConfig(dim=16, num_subkeys=8, key_dim=8, value_dim=12, topk=3, chunk_size=5)).to(
        DEVICE
    )
    x = torch.randn(2, 23, 16).to(DEVICE)
    expected, last = layer(x)
    graph = StepGraph(layer, layer.initial_state(2))
    torch.testing.assert_close(decode_all(graph, x), expected)
    torch.testing.assert_close(graph.state.table.dense(), last.table.dense())


@torch.no_grad()
def test_another_shape_is_refused():
    model = make_model("sliding_fwpkm")
    graph = DecodeGraph(model, model(make_tokens(2, 8)).cache)
    graph(make_tokens(2, 1))
    with pytest.raises(ValueError, match=r"every x must be like the first one, \(2, 1\)"):
        graph(make_tokens(3, 1))


class Tape(TorchDispatchMode):
    """Operations as a CUDA graph keeps them: the same arguments and the same room for results, whenever played."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        assert func.name() not in ("aten::_local_scalar_dense", "aten::nonzero"), "waits for the device"
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def play(self):
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.mark.parametrize("system", FIXED_SIZE)
@torch.no_grad()
def test_the_same_operations_played_again_are_the_next_step(system):
    model, ids = make_model(system, **long_chunks(system)), make_tokens(2, 16)
    cache = model(ids[:, :8]).cache
    expected, last = read_step_by_step(model, ids[:, 8:], cache)
    graph = DecodeGraph(model, cache)
    with use_backend("torch"):
        graph(ids[:, 8:9])
        replay = graph._graph._replay
        assert replay is not None
        replay._x.copy_(ids[:, 9:10])
        with Tape() as tape:
            y = replay._run()
        for t in range(9, 16):
            if t > 9:
                replay._x.copy_(ids[:, t : t + 1])
                tape.play()
            replay.steps_left -= 1
            assert_same(y, expected[:, t - 8 : t - 7])
        assert_same(model(ids, graph.cache).logits, model(ids, last).logits)


def long_chunks(system):
    config = make_system(system).to_dict()
    return {
        name: {**config[name], "chunk_size": 20} for name in ("fwpkm", "fwmlp", "lact") if config.get(name)
    }


class RecordedGraph:
    """Does with a pool what PyTorch's graphs do: it ends with the last of them, and takes no other after that."""

    pools: ClassVar[dict[object, WeakSet["RecordedGraph"]]] = {}

    def capture_begin(self, pool, capture_error_mode):
        assert pool not in self.pools or self.pools[pool], "the pool has ended"
        self.pools.setdefault(pool, WeakSet()).add(self)

    def capture_end(self):
        pass


def test_graphs_share_a_pool_that_lasts_and_a_stream(monkeypatch):
    streams = []
    fakes = {
        "CUDAGraph": RecordedGraph,
        "Stream": lambda device: streams.append(device) or MagicMock(),
        "current_stream": lambda device: MagicMock(),
        "device": lambda device: nullcontext(),
        "stream": lambda stream: nullcontext(),
        "graph_pool_handle": object,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    recorder, called = _Recorder(torch.device("cuda")), []
    record = inspect.unwrap(_Recorder.record)  # the test run's type checker knows no such graph
    for n in range(3):
        graph = record(recorder, lambda n=n: called.append(n), lambda: called.append("first"))
        assert isinstance(graph, RecordedGraph)
        del graph
        gc.collect()
    assert called == ["first", 0, "first", 1, "first", 2]
    assert len(streams) == len(RecordedGraph.pools) == 1


def test_lists_that_a_graph_reads_are_kept_with_it():
    device = torch.device(DEVICE)
    with keeping_lists() as kept:
        made = listed((3, 1, 4), device)
    assert kept[0] is made
    listed((3, 1, 5), device)
    assert len(kept) == 1

"""Hundreds of memories in one allocation: none depends on another, forks share, and it all takes little room."""

import gc
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fwpkm import FwPKM, FwPKMConfig
from fwpkm.memory.join import join_states
from fwpkm.memory.pool import MemoryPool
from fwpkm.memory.state import FwPKMState
from fwpkm.models.decoder import Decoder
from fwpkm.testing.states import assert_same_state
from fwpkm.testing.systems import make_system

CONFIG = FwPKMConfig(
    dim=6, num_subkeys=5, key_dim=4, value_dim=5, chunk_size=4, topk=2, initial_values="random", key_std=1.0
)


def make_layer():
    torch.manual_seed(0)
    return FwPKM(CONFIG).double()


@torch.no_grad()
def read(layer, state, x):
    return layer(x[None], state)


def through_a_file(layer, state):
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder) / "memory.fwpkm", layer)
        return FwPKMState.load(Path(folder) / "memory.fwpkm", layer)


@settings(max_examples=4)
@given(st.integers(0, 2**31))
def test_hundreds_of_interleaved_sessions_are_each_what_they_would_be_alone(seed):
    """P2, P3 and P5: sessions are parked, restored, saved, forked and batched at random, and checked one by one."""
    layer, rng = make_layer(), torch.Generator().manual_seed(seed)
    pool = MemoryPool(rows="exact", block_rows=64)
    parked = {i: pool.park(layer.initial_state(1)) for i in range(200)}
    history = {i: [] for i in parked}

    def draw(n):
        return int(torch.randint(n, (), generator=rng))

    for _ in range(40):
        group = sorted({draw(len(parked)) for _ in range(draw(8) + 1)})
        lengths = [draw(10) + 1 for _ in group]
        x = torch.randn(len(group), max(lengths), CONFIG.dim, generator=rng, dtype=torch.float64)
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        states = [parked[i].restore() for i in group]
        if draw(4) == 0:
            states[0] = through_a_file(layer, states[0])
        with torch.no_grad():
            _, batch = layer(x, join_states(states), mask)
        for place, i in enumerate(group):
            own = batch.select(torch.tensor([place]))
            parked[i] = pool.park(own, since=parked[i] if draw(2) else None)
            history[i] = [*history[i], x[place, : lengths[place]]]
        if draw(3) == 0:  # a fork replaces some other session
            source, target = draw(len(parked)), draw(len(parked))
            parked[target], history[target] = parked[source], list(history[source])
    used = [i for i, pieces in history.items() if pieces]
    assert len(used) > 60
    for i in used[:: len(used) // 20]:
        assert_same_state(parked[i].restore(), read(layer, None, torch.cat(history[i]))[1])
    del parked
    gc.collect()
    assert pool.num_rows == 0


def test_forks_keep_shared_rows_once_and_give_their_own_free():
    layer = make_layer()
    pool = MemoryPool(block_rows=16)
    document = read(layer, None, torch.randn(40, CONFIG.dim).double())[1].flush()
    root = pool.park(document)
    alone = pool.num_rows
    assert alone == root.num_rows == document.table.num_rows
    forks = [
        pool.park(read(layer, root.restore(), torch.randn(5, 6).double())[1], since=root) for _ in range(20)
    ]
    # A fork of five tokens writes one chunk: 4 tokens of 2 slots each.
    assert pool.num_rows <= alone + 20 * 8
    assert sum(fork.num_rows for fork in forks) >= 20 * alone
    again = pool.park(forks[3].restore(), since=forks[3])
    assert pool.num_rows <= alone + 20 * 8
    assert_same_state(again.restore(), forks[3].restore(), rtol=0.0, atol=0.0)
    del forks, again
    gc.collect()
    assert pool.num_rows == alone
    assert_same_state(root.restore(), document, rtol=0.0, atol=0.0)


def test_freed_rows_are_used_again():
    layer = make_layer()
    pool = MemoryPool(block_rows=8)
    sizes = set()
    for _ in range(10):
        parked = pool.park(read(layer, None, torch.randn(30, 6).double())[1])
        del parked
        gc.collect()
        sizes.add(pool.num_bytes)
    assert max(sizes) <= 2 * min(sizes)


@pytest.mark.parametrize(("rows", "most"), [("bfloat16", 2**-8), ("int8", 1 / 100)])
def test_narrow_rows_come_back_near_and_do_not_drift_when_parked_again(rows, most):
    layer = make_layer()
    pool = MemoryPool(rows=rows)
    state = read(layer, None, torch.randn(30, 6).double())[1]
    parked = pool.park(state)
    once = parked.restore().table.dense()
    error = (once - state.table.dense()).norm() / state.table.dense().norm()
    assert 0 < error < most
    for _ in range(5):
        parked = pool.park(parked.restore(), since=parked)
    assert torch.equal(parked.restore().table.dense(), once)


def test_a_whole_models_cache_is_parked_and_restored():
    model = Decoder(make_system("mixed"))
    pool = MemoryPool(block_rows=32)
    with torch.no_grad():
        cache = model(torch.randint(40, (2, 19))).cache
    parked, ids = pool.park(cache), torch.randint(40, (2, 7))
    with torch.no_grad():
        assert torch.equal(model(ids, parked.restore()).logits, model(ids, cache).logits)
    assert parked.num_rows == pool.num_rows > 0
    assert parked.num_bytes < cache.num_bytes


def test_a_state_with_a_graph_is_refused():
    layer = make_layer()
    _, state = layer(torch.randn(1, 9, 6).double())
    with pytest.raises(ValueError, match=r"use state\.detach"):
        MemoryPool().park(state)
    MemoryPool().park(state.detach())


def test_states_of_different_layers_are_no_batch():
    a, b = make_layer().initial_state(1), make_layer().initial_state(1)
    with pytest.raises(ValueError, match="states 0 and 1 differ in base table"):
        join_states([a, b])
    with pytest.raises(ValueError, match="differ in frozen"):
        join_states([a, replace(a, frozen=True)])


@pytest.mark.parametrize(("rows", "most"), [("exact", 1 / 7), ("int8", 1 / 25)])
def test_256_sessions_that_each_wrote_an_eighth_of_the_slots_take_a_fraction_of_dense_tables(rows, most):
    """The paper's proportions on a smaller grid: all of 8 slots a token, and a chunk of tokens that waits."""
    config = FwPKMConfig(
        dim=8, num_subkeys=64, key_dim=16, value_dim=512, chunk_size=16, initial_values="zero"
    )
    torch.manual_seed(0)
    layer, pool = FwPKM(config), MemoryPool(rows=rows, block_rows=512)
    with torch.no_grad():
        state = layer(torch.randn(1, 16, 8))[1]
    written = torch.ones(config.num_slots // 8, dtype=torch.bool)

    def session():
        cells = torch.randperm(config.num_slots)[: len(written)]
        return pool.park(replace(state, table=state.table.put(cells, torch.randn(len(cells), 512), written)))

    sessions = [session() for _ in range(256)]
    total = pool.num_bytes + sum(session.num_bytes for session in sessions)
    dense = 256 * config.num_slots * config.value_dim * 4
    assert all(session.num_rows == config.num_slots / 8 for session in sessions)
    assert total <= dense * most
    print(f"{rows}: {total / 2**20:.0f} MiB, 1/{dense / total:.1f} of dense tables")

"""Journals: every write is noted, answers are traced to their sources, documents are forgotten."""

import pickle
from dataclasses import replace

import pytest
import torch

from fwpkm.memory.forget import forget
from fwpkm.ops.core.options import CoreOptions
from fwpkm.testing.states import assert_same_state, make_state

H, N_SUB, DK, DV = 1, 48, 8, 6


def make_memory(seed=0, num_streams=1, **options):
    rng = torch.Generator().manual_seed(seed)
    keys = torch.randn(num_streams, 2, H, N_SUB, DK // 2, generator=rng, dtype=torch.float64)
    values = torch.randn(N_SUB**2, DV, generator=rng, dtype=torch.float64)
    return make_state(
        keys,
        values,
        CoreOptions(**{"topk": 2, "chunk_size": 16, "lookahead": 0, "write_rule": "exact", **options}),
        num_streams=num_streams,
        temperature=0.1,
    )


def draw_document(seed, tokens=40, dtype=torch.float64):
    rng = torch.Generator().manual_seed(100 + seed)
    q = torch.randn(1, tokens, H, DK, generator=rng, dtype=dtype)
    return q, torch.randn(1, tokens, DV, generator=rng, dtype=dtype)


@torch.no_grad()
def read(state, *documents):
    for q, v in documents:
        state = state.advance(q, v, None)[1].flush()
    return state


def wrote(state, q):
    """Slots that a document's tokens wrote, by the journal."""
    return {int(c) for write in state.table.journal for c in write.cells}


@torch.no_grad()
def recall(state, document):
    """Share of a document's queries whose answer is nearest to what they learned, among all its values."""
    q, v = document
    answer, _ = state.freeze().advance(q, v, None)
    return float((torch.cdist(answer[0], v[0]).argmin(-1) == torch.arange(v.shape[1])).double().mean())


@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_a_journal_changes_no_number_and_holds_every_write(lookahead):
    plain = make_memory(lookahead=lookahead)
    documents = [draw_document(seed, 21 + seed) for seed in range(3)]
    noted = read(plain.with_journal(), *documents)
    assert_same_state(noted, read(plain, *documents), rtol=0.0, atol=0.0)
    tokens = torch.cat([write.tokens for write in noted.table.journal])
    assert tokens.tolist() == list(range(21 + 22 + 23 - lookahead))
    values = torch.cat([v for _, v in documents], dim=1)[0]
    for write in noted.table.journal:
        assert torch.equal(write.target, values[write.tokens + lookahead])
    assert noted.table.journal.num_bytes > noted.table.num_rows * DV * 8


def test_forks_and_older_versions_keep_their_own_journals():
    root = read(make_memory().with_journal(), draw_document(0))
    left, right = (read(root, draw_document(seed, 16)) for seed in (1, 2))
    again = read(root, draw_document(1, 16))
    assert len(root.table.journal) == 3
    for state in (left, right, again):
        assert len(state.table.journal) == 4
        assert list(state.table.journal)[3].tokens.tolist() == list(range(40, 56))
    targets = [list(state.table.journal)[3].target for state in (left, right, again)]
    assert torch.equal(targets[0], targets[2])
    assert not torch.equal(targets[0], targets[1])
    copied = pickle.loads(pickle.dumps(left))
    assert len(copied.table.journal) == 4


def test_an_answers_sources_are_the_tokens_that_wrote_it():
    documents = [draw_document(seed, 30) for seed in range(2)]
    state = read(make_memory(key_loss="none").with_journal(), *documents)
    found = 0
    for d, (q, _) in enumerate(documents):
        for t in range(30):
            sources = state.sources(q[:, t : t + 1], most=3)
            found += sources[0].token == 30 * d + t
    assert found >= 54


def test_shares_add_up_to_what_is_read_where_slots_are_read_alone():
    """With one slot a read, the table is the sum of shares times targets, plus what is left of the base."""
    q, v = draw_document(0, 60)
    state = read(make_memory(topk=1, write_rule="paper", value_lr=0.5).with_journal(), (q, v))
    zero = make_memory(topk=1, write_rule="paper", value_lr=0.5)
    cells = state.table.written()
    shares = state.table.journal.writers(cells)
    base = zero.table.gather(cells)
    for place in range(len(cells)):
        told = sum(share * v[0, t] for t, share in shares[place].items())
        left = 1 - sum(shares[place].values())
        torch.testing.assert_close(state.table.gather(cells[place : place + 1])[0], told + left * base[place])


@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_the_last_document_is_forgotten_bit_by_bit(lookahead):
    first, last = draw_document(0), draw_document(1)
    before = read(make_memory(lookahead=lookahead, key_loss="none").with_journal(), first)
    after = read(before, last)
    done = forget(after, 40, 80)
    assert torch.equal(done.state.table.dense(), before.table.dense())
    assert torch.equal(done.state.table.written(), before.table.written())
    assert done.tokens_replayed == 0
    assert done.state.waiting.counts == (0,)
    assert after.table.num_rows > before.table.num_rows


@pytest.mark.parametrize("key_loss", ["none", "entropy"])
def test_a_document_in_the_middle_is_forgotten_as_if_it_had_never_been_read(key_loss):
    a, b, c = (draw_document(seed) for seed in range(3))
    state = make_memory(key_loss=key_loss, key_lr=0.05).with_journal()
    full = read(state, a, b, c)
    done = forget(full, 40, 80)
    never = read(state, a, c)
    assert (done.tokens_removed, done.tokens_replayed) == (40, 40)
    if key_loss == "none":
        torch.testing.assert_close(done.state.table.dense(), never.table.dense(), rtol=1e-13, atol=1e-13)
        assert torch.equal(done.state.table.written(), never.table.written())
    writes = list(full.table.journal)
    by_b = {int(s) for w in writes if 40 <= int(w.tokens[0]) < 80 for s in w.cells}
    by_others = {int(s) for w in writes if not 40 <= int(w.tokens[0]) < 80 for s in w.cells}
    only_b = torch.tensor(sorted(by_b - by_others))
    assert len(only_b) > 20
    fresh, before = make_memory().table, read(state, a).table
    assert torch.equal(done.state.table.gather(only_b), fresh.gather(only_b))
    untouched_later = torch.tensor(
        sorted({int(s) for s in before.written()} - by_b - {int(s) for w in writes[6:] for s in w.cells})
    )
    assert torch.equal(done.state.table.gather(untouched_later), before.gather(untouched_later))


def test_forgotten_needles_are_recalled_as_if_never_read_and_the_others_as_before():
    documents = [draw_document(seed, 60) for seed in range(4)]
    state = make_memory(key_loss="none").with_journal()
    full = read(state, *documents)
    done = forget(full, 60, 120).state
    never = read(state, documents[0], *documents[2:])
    assert recall(full, documents[1]) > 0.8
    assert recall(done, documents[1]) <= recall(never, documents[1]) + 0.02
    for other in (0, 2, 3):
        assert recall(done, documents[other]) >= recall(full, documents[other]) - 0.01


@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_a_memory_reads_on_and_forgets_again_after_forgetting(lookahead):
    a, b, c, d = (draw_document(seed, 21) for seed in range(4))
    state = make_memory(lookahead=lookahead, key_loss="none").with_journal()
    less = forget(read(state, a, b, c), 21, 42).state
    more = read(less, d)
    tokens = torch.cat([write.tokens for write in more.table.journal])
    expected = [*range(21 - lookahead), *range(42, 84 - lookahead)]
    assert tokens.tolist() == expected
    assert more.tokens_seen == (84,)
    last = forget(more, 63, 84).state
    again = forget(forget(read(state, a, b, c), 21, 42).state, 63, 63).state
    assert torch.equal(last.table.dense(), again.table.dense())


def test_what_cannot_be_noted_or_forgotten_is_refused():
    q, v = draw_document(0)
    with pytest.raises(ValueError, match="keeps no journal"):
        forget(read(make_memory(), (q, v)), 0, 3)
    with pytest.raises(ValueError, match="keeps no journal"):
        make_memory().sources(q[:, :1])
    for state, message in (
        (make_memory(num_streams=2), "one stream"),
        (read(make_memory(), (q, v)), "tokens_seen=\\(40,\\)"),
        (make_memory(border="dropped"), "border must be 'moved'"),
        (make_memory(key_loss="memory"), "key_loss='memory'"),
    ):
        with pytest.raises(ValueError, match=message):
            state.with_journal()
    noted = make_memory().with_journal()
    with pytest.raises(ValueError, match=r"use torch\.no_grad"):
        noted.advance(q, v, None)
    with pytest.raises(ValueError, match="part of a batch"):
        noted.select(torch.tensor([0, 0]))
    with torch.no_grad():
        waits = noted.advance(q, v, None)[1]
    with pytest.raises(ValueError, match=r"start=5 and stop=2; tokens wait to be written; use state\.flush"):
        forget(waits, 5, 2)
    assert replace(noted, table=noted.table).table.journal is noted.table.journal

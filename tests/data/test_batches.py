"""Batches resume exactly, split among ranks without overlap, and hold what documents hold."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fwpkm.data.batches import IGNORED, Batch, BatchSource, CarriedBatches, SequenceBatches, rank_slice
from fwpkm.data.carried import CarriedLanes
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.sequences import CroppedSequences, PackedSequences, SequenceSource, TokenSequence
from fwpkm.data.shuffle import Shuffle, mix

EOS = 0
LENGTHS = st.lists(st.integers(0, 30), min_size=3, max_size=12).filter(lambda lengths: max(lengths) >= 8)
KINDS = ("packed", "cropped", "carried")


def numbered(lengths: list[int]) -> TokenDocuments:
    """Make documents in which no token but the end comes twice."""
    starts = np.cumsum([1, *lengths])
    return TokenDocuments.from_tokens(
        [np.arange(a, a + n) for a, n in zip(starts, lengths, strict=False)], eos_id=EOS
    )


def source_of(kind: str, documents: TokenDocuments, seed: int = 0) -> SequenceSource:
    return (PackedSequences if kind == "packed" else CroppedSequences)(documents, seq_len=5, seed=seed)


def batches(
    kind: str, documents: TokenDocuments, *, rank: int = 0, world: int = 1, seed: int = 0
) -> BatchSource:
    if kind == "carried":
        return CarriedBatches(documents, batch_size=4, seq_len=5, seed=seed, rank=rank, world_size=world)
    return SequenceBatches(source_of(kind, documents, seed), batch_size=4, rank=rank, world_size=world)


def tensors(batch: Batch) -> dict[str, Tensor]:
    names = ("input_ids", "targets", "weights", "mask", "starts", "fresh")
    return {name: getattr(batch, name) for name in names}


def assert_equal(a: Batch, b: Batch) -> None:
    for name, value in tensors(a).items():
        assert torch.equal(value, tensors(b)[name]), name


@given(size=st.integers(1, 200), seed=st.integers(0, 2**70))
def test_a_shuffle_is_a_permutation(size: int, seed: int) -> None:
    assert sorted(Shuffle(size=size, seed=seed)[i] for i in range(size)) == list(range(size))


def test_a_shuffle_mixes_and_depends_on_its_seed() -> None:
    orders = [[Shuffle(size=1000, seed=seed)[i] for i in range(1000)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    for order in orders:
        rank_correlation = np.corrcoef(order, range(1000))[0, 1]
        assert abs(rank_correlation) < 4 / np.sqrt(1000)
    with pytest.raises(IndexError, match="got 3"):
        Shuffle(size=3, seed=0)[3]


def test_mix_is_the_same_on_every_machine() -> None:
    assert mix(0) == mix(0)
    assert len({mix(a, b) for a in range(50) for b in range(-25, 25)}) == 2500
    assert mix(1, 2) != mix(2, 1)


@pytest.mark.parametrize("kind", KINDS)
@given(lengths=LENGTHS, before=st.integers(0, 9), seed=st.integers(0, 5))
def test_a_position_written_to_json_is_restored_exactly(
    kind: str, lengths: list[int], before: int, seed: int
) -> None:
    going = batches(kind, numbered(lengths), seed=seed)
    for _ in range(before):
        next(going)
    kept = json.loads(json.dumps(going.state_dict()))
    resumed = batches(kind, numbered(lengths), seed=seed)
    next(resumed)
    resumed.load_state_dict(kept)
    for _ in range(5):
        assert_equal(next(resumed), next(going))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [2, 4])
@given(lengths=LENGTHS)
def test_ranks_share_out_what_one_process_would_read(kind: str, world: int, lengths: list[int]) -> None:
    documents = numbered(lengths)
    alone = batches(kind, documents)
    ranks = [batches(kind, documents, rank=r, world=world) for r in range(world)]
    for _ in range(4):
        whole, parts = tensors(next(alone)), [tensors(next(rank)) for rank in ranks]
        for name, value in whole.items():
            assert torch.equal(value, torch.cat([part[name] for part in parts])), name
    assert all(rank.state_dict() == alone.state_dict() for rank in ranks)


@given(lengths=LENGTHS, seed=st.integers(0, 5))
def test_an_epoch_of_packed_sequences_never_reads_a_token_twice(lengths: list[int], seed: int) -> None:
    source = source_of("packed", numbered(lengths), seed)
    assert isinstance(source, PackedSequences)
    epoch = [source.sequence(i).tokens[:-1] for i in range(source.per_epoch)]
    read = np.concatenate(epoch)
    assert len(np.unique(read[read != EOS])) == (read != EOS).sum()
    total = sum(lengths) + len(lengths)
    assert total - len(read) <= 5  # nothing is left out but less than a sequence


def test_epochs_differ_in_order_and_in_cuts() -> None:
    source = PackedSequences(numbered([30, 30, 32]), seq_len=9)
    epochs = [
        [source.sequence(e * source.per_epoch + i).tokens.tolist() for i in range(source.per_epoch)]
        for e in range(6)
    ]
    assert len({tuple(min(epoch)) for epoch in epochs}) > 1
    assert len({str(epoch) for epoch in epochs}) == 6


def test_unshuffled_sequences_read_straight_on() -> None:
    source = PackedSequences(numbered([20]), seq_len=5, shuffle=False)
    assert [source.sequence(i).tokens[0] for i in range(5)] == [1, 6, 11, 16, 1]


@given(lengths=LENGTHS, index=st.integers(0, 10**12))
def test_targets_are_the_next_tokens_and_starts_are_where_documents_begin(
    lengths: list[int], index: int
) -> None:
    documents = numbered(lengths)
    made = source_of("packed", documents).sequence(index)
    assert made.starts is not None
    firsts = {int(d[0]) for d in documents if len(d) > 1}
    for token, starts in zip(made.tokens.tolist(), made.starts.tolist(), strict=False):
        if token != EOS:
            assert starts == (token in firsts)


@given(lengths=LENGTHS, index=st.integers(0, 10**9))
def test_a_crop_stays_inside_one_document(lengths: list[int], index: int) -> None:
    documents = numbered(lengths)
    tokens = source_of("cropped", documents).sequence(index).tokens
    assert len(tokens) == 6
    assert EOS not in tokens[:-1]
    assert any(str(tokens.tolist())[1:-1] in str(d.tolist()) for d in documents)


def test_crops_reach_every_place_about_equally_often() -> None:
    source = CroppedSequences(numbered([6, 10, 3]), seq_len=5)
    firsts = [int(source.sequence(i).tokens[0]) for i in range(4000)]
    assert sorted(set(firsts)) == [1, 2, *range(7, 13)]
    counts = np.bincount(firsts)[sorted(set(firsts))]
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


@given(lengths=LENGTHS)
def test_carried_streams_read_each_document_from_end_to_end(lengths: list[int]) -> None:
    documents = numbered(lengths)
    source = batches("carried", documents)
    rows = list(itertools.islice(source, 20))
    wanted = {tuple(d.tolist()) for d in documents if len(d) >= 2}
    for lane in range(4):
        read: list[int] = []
        for number, batch in enumerate(rows):
            if batch.fresh[lane]:
                assert number == 0 or tuple(read) in wanted
                read = []
            assert bool(batch.starts[lane, 0]) == bool(batch.fresh[lane])
            ids = batch.input_ids[lane][batch.mask[lane]]
            targets = batch.targets[lane][batch.targets[lane] != IGNORED]
            read = [*(read or [int(ids[0])]), *targets.tolist()]


def test_padding_of_a_carried_batch_neither_counts_nor_is_seen() -> None:
    source = CarriedBatches(numbered([7]), batch_size=1, seq_len=5, fill=99)
    next(source)
    last = next(source)
    assert last.input_ids.tolist() == [[6, 7, EOS, 99, 99]]
    assert last.targets.tolist() == [[7, EOS, IGNORED, IGNORED, IGNORED]]
    assert last.weights.tolist() == [[1, 1, 0, 0, 0]]
    assert last.mask.tolist() == [[True, True, True, False, False]]
    assert last.num_targets == 2
    assert bool(next(source).fresh[0])


def test_lanes_read_different_documents_until_all_are_read() -> None:
    lanes = CarriedLanes(np.full(8, 4), lanes=4, stride=8, seed=3)
    first = lanes.document.tolist()
    lanes.advance()
    assert sorted([*first, *lanes.document.tolist()]) == list(range(8))


def test_a_weight_of_zero_is_a_target_that_does_not_count() -> None:
    class Weighted:
        seq_len = 3

        def sequence(self, index: int) -> TokenSequence:
            weights = np.array([0.0, 0.5, 2.0], np.float32)
            return TokenSequence(tokens=np.arange(4) + index, weights=weights)

    batch = next(SequenceBatches(Weighted(), batch_size=2))
    assert batch.targets.tolist() == [[IGNORED, 2, 3], [IGNORED, 3, 4]]
    assert batch.weights.tolist() == [[0, 0.5, 2]] * 2
    assert batch.fresh.tolist() == [True, True]
    assert batch.to("cpu").num_targets == 4


@pytest.mark.parametrize(("size", "rank", "world", "message"), [
    (5, 0, 2, "world_size must divide batch_size, got 2 and 5"),
    (4, 2, 2, r"rank must be in \[0, world_size\), got 2 of 2"),
    (0, 0, 1, "got 1 and 0"),
])  # fmt: skip
def test_ranks_that_do_not_divide_the_batch_are_refused(
    size: int, rank: int, world: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_slice(size, rank, world)


def test_a_position_of_another_kind_or_another_batch_size_is_refused() -> None:
    documents = numbered([20, 20])
    carried = batches("carried", documents)
    with pytest.raises(ValueError, match="of the kind 'carried', got 'sequences'"):
        carried.load_state_dict(batches("packed", documents).state_dict())
    with pytest.raises(ValueError, match="4 streams, got 2"):
        carried.load_state_dict(CarriedBatches(documents, batch_size=2, seq_len=5).state_dict())


@pytest.mark.parametrize(("make", "message"), [
    (lambda: PackedSequences(numbered([4]), seq_len=5), "got 5 with seq_len=5"),
    (lambda: CroppedSequences(numbered([4, 3]), seq_len=5), "seq_len=5 tokens, got at most 5"),
    (lambda: PackedSequences(numbered([4]), seq_len=0), "at least 1, got 0"),
    (lambda: CarriedBatches(numbered([0, 0]), batch_size=1, seq_len=5), "at least two tokens"),
])  # fmt: skip
def test_documents_that_are_too_short_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

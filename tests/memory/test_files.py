"""Memory files: the same numbers afterwards, in any process, and nothing but what was written."""

import json
import os
import random
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fwpkm import FwPKM, FwPKMConfig, FwPKMState
from fwpkm.memory.files import digest, read_file
from fwpkm.memory.fingerprint import IRRELEVANT
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.nested import to_mapping
from fwpkm.testing.states import assert_same_state
from fwpkm.testing.systems import SYSTEMS, make_system

SMALL = {"dim": 8, "num_subkeys": 6, "key_dim": 4, "value_dim": 6, "chunk_size": 5, "topk": 2}


def make_layer(seed=0, **changes):
    torch.manual_seed(seed)
    return FwPKM(FwPKMConfig(**{**SMALL, **changes}))


@torch.no_grad()
def read_some(layer, tokens=13, streams=2, seed=1, state=None):
    x = torch.randn(streams, tokens, layer.config.dim, generator=torch.Generator().manual_seed(seed))
    return layer(x, state)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"table": "batch"},
        {"border": "dropped"},
        {"initial_values": "zero"},
        {"initial_values": "learned", "lookahead": 0},
        {"num_heads": 2, "lookahead": 3, "learn_temperature": True},
    ],
)
@pytest.mark.parametrize("tokens", [0, 3, 13])
def test_a_loaded_state_is_the_saved_one_and_goes_on_as_it_would_have(tmp_path, changes, tokens):
    layer = make_layer(**changes)
    _, state = read_some(layer, tokens)
    state.save(tmp_path / "x.fwpkm", layer)
    loaded = FwPKMState.load(tmp_path / "x.fwpkm", layer)
    assert_same_state(loaded, state, rtol=0.0, atol=0.0)
    (expected, after), (got, later) = (read_some(layer, 9, seed=2, state=s) for s in (state, loaded))
    assert torch.equal(got, expected)
    assert_same_state(later, after, rtol=0.0, atol=0.0)


def test_a_state_of_a_training_step_can_be_saved(tmp_path):
    layer = make_layer(initial_values="learned")
    _, state = layer(torch.randn(2, 13, 8))
    state.save(tmp_path / "x.fwpkm", layer)
    assert_same_state(FwPKMState.load(tmp_path / "x.fwpkm", layer), state, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_loaded_cache_answers_as_the_saved_one(tmp_path, name):
    model = Decoder(make_system(name))
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[1, :4] = False
    with torch.no_grad():
        cache = model(torch.randint(40, (2, 17)), None, mask).cache
        cache.save(tmp_path / "x.fwpkm", model)
        loaded = DecoderCache.load(tmp_path / "x.fwpkm", model)
        for length in (1, 1, 9):
            ids = torch.randint(40, (2, length))
            expected, got = model(ids, cache), model(ids, loaded)
            assert torch.equal(got.logits, expected.logits)
            cache, loaded = expected.cache, got.cache
    assert torch.equal(loaded.tokens_seen, cache.tokens_seen)


_OTHER_PROCESS = """
import sys, torch
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system
torch.manual_seed(7)
model = Decoder(make_system("mixed"))
with torch.no_grad():
    logits = model(torch.arange(12)[None], DecoderCache.load(sys.argv[1], model)).logits
torch.save(logits, sys.argv[2])
"""


def test_another_process_answers_the_same_bits(tmp_path):
    torch.manual_seed(7)
    model = Decoder(make_system("mixed"))
    with torch.no_grad():
        cache = model(torch.randint(40, (1, 23))).cache
        cache.save(tmp_path / "x.fwpkm", model)
        expected = model(torch.arange(12)[None], cache).logits
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    paths = [str(tmp_path / "x.fwpkm"), str(tmp_path / "logits")]
    subprocess.run([sys.executable, "-c", _OTHER_PROCESS, *paths], check=True, env=env)
    assert torch.equal(torch.load(paths[1]), expected)


@pytest.mark.parametrize(("rows", "most"), [("float32", 0.0), ("bfloat16", 2**-8), ("int8", 0.02)])
def test_narrow_rows_lose_what_the_report_says_and_nothing_else_changes(tmp_path, rows, most):
    layer = make_layer()
    _, state = read_some(layer)
    report = state.save(tmp_path / "x.fwpkm", layer, rows=rows)
    loaded = FwPKMState.load(tmp_path / "x.fwpkm", layer)
    cells = state.table.written()
    kept, back = state.table.gather(cells), loaded.table.gather(cells)
    error = float((back - kept).double().norm() / kept.double().norm())
    assert error == pytest.approx(report.loss, rel=1e-5, abs=1e-12)
    assert report.loss <= most
    assert report.num_rows == len(cells) == loaded.table.num_rows
    assert_same_state(replace(loaded, table=state.table), state, rtol=0.0, atol=0.0)


def test_only_written_rows_take_room(tmp_path):
    layer = make_layer(num_subkeys=64, value_dim=64)
    _, state = read_some(layer)
    report = state.save(tmp_path / "x.fwpkm", layer)
    assert report.num_bytes == os.path.getsize(tmp_path / "x.fwpkm")
    assert report.num_bytes < 0.1 * state.table.dense().nbytes
    assert state.save(tmp_path / "y.fwpkm", layer, rows="int8").num_bytes < report.num_bytes


def test_another_layer_is_refused_and_the_message_says_what_differs(tmp_path):
    layer = make_layer()
    read_some(layer)[1].save(tmp_path / "x.fwpkm", layer)
    other = make_layer()
    with torch.no_grad():
        other.q_proj.weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match=r"1 of \d+ weights differ: q_proj\.weight"):
        FwPKMState.load(tmp_path / "x.fwpkm", other)
    with pytest.raises(ValueError, match="chunk_size is 5 in the file and 4 in the model"):
        FwPKMState.load(tmp_path / "x.fwpkm", make_layer(chunk_size=4))
    with pytest.raises(ValueError, match=r"table_seed is 0 in the file and 1 in the model.*initial_values"):
        FwPKMState.load(tmp_path / "x.fwpkm", make_layer(table_seed=1))
    with pytest.raises(ValueError, match="must hold a DecoderCache, got FwPKMState"):
        DecoderCache.load(tmp_path / "x.fwpkm", Decoder(make_system("full")))


def test_how_a_model_is_run_is_no_part_of_its_fingerprint(tmp_path):
    layer = make_layer()
    read_some(layer)[1].save(tmp_path / "x.fwpkm", layer)
    FwPKMState.load(tmp_path / "x.fwpkm", make_layer(check_inputs=True))
    config = make_system("mixed")
    known = {*to_mapping(config), *to_mapping(config.gated_delta_net), *to_mapping(config.fwpkm)}
    assert set(IRRELEVANT) <= known


def test_files_are_good_for_as_long_as_newer_settings_are_what_was_the_case_before(tmp_path):
    layer = make_layer()
    read_some(layer)[1].save(tmp_path / "x.fwpkm", layer)
    assert "table_dtype" not in read_file(tmp_path / "x.fwpkm").header["fingerprint"]["config"]
    narrow = make_layer(table_dtype="bfloat16")
    with pytest.raises(ValueError, match="table_dtype is 'unset' in the file and 'bfloat16' in the model"):
        FwPKMState.load(tmp_path / "x.fwpkm", narrow)


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    layer = make_layer()
    _, state = read_some(layer)
    state.save(tmp_path / "x.fwpkm", layer)
    before = (tmp_path / "x.fwpkm").read_bytes()

    def full_disk(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr("fwpkm.files._flush", full_disk)
    with pytest.raises(OSError, match="no space"):
        read_some(layer, 30)[1].save(tmp_path / "x.fwpkm", layer)
    assert (tmp_path / "x.fwpkm").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.fwpkm"]


def test_files_have_the_rights_of_any_other_file(tmp_path):
    layer = make_layer()
    read_some(layer)[1].save(tmp_path / "x.fwpkm", layer)
    (tmp_path / "other").write_text("")
    assert (tmp_path / "x.fwpkm").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_missing_file_is_called_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        FwPKMState.load(tmp_path / "x.fwpkm", make_layer())


def corrupt(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Damage a file in one of the ways that files get damaged, or are tampered with by somebody in a hurry."""
    how = rng.choice(
        ["flip", "flip header", "bits", "cut", "grow", "zero", "swap", "offsets", "header", "splice"]
    )
    if how in ("flip", "flip header", "bits"):
        out, (size,) = bytearray(data), struct.unpack("<Q", data[:8])
        last = 8 + size if how == "flip header" else len(data)
        for _ in range(rng.choice([1, 1, 3, 20])):
            out[rng.randrange(last)] = rng.randrange(256)
        return bytes(out)
    if how == "cut":
        return data[: rng.randrange(len(data))]
    if how == "grow":
        return data + rng.randbytes(rng.randrange(1, 50))
    if how == "zero":
        start = rng.randrange(len(data))
        stop = min(len(data), start + rng.randrange(1, 5000))
        return data[:start] + bytes(stop - start) + data[stop:]
    if how == "splice":
        at = rng.randrange(len(data))
        return data[:at] + other[at:]
    return rewrite_header(rng, how, data, other)


def rewrite_header(rng, how, data, other):
    (size,), (size2,) = struct.unpack("<Q", data[:8]), struct.unpack("<Q", other[:8])
    if how == "header":
        return other[: 8 + size2] + data[8 + size :]
    header = json.loads(data[8 : 8 + size])
    a, b = rng.sample([name for name in header if name != "__metadata__"], 2)
    if how == "swap":
        header[a], header[b] = header[b], header[a]
    else:
        header[a]["data_offsets"], header[b]["data_offsets"] = (
            header[b]["data_offsets"],
            header[a]["data_offsets"],
        )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def test_a_thousand_corruptions_are_each_refused_or_load_equal(tmp_path):
    layer = make_layer()
    _, state = read_some(layer)
    state.save(tmp_path / "x.fwpkm", layer, rows="int8")
    read_some(layer, 14, seed=5)[1].save(tmp_path / "y.fwpkm", layer, rows="int8")
    data, other = (tmp_path / "x.fwpkm").read_bytes(), (tmp_path / "y.fwpkm").read_bytes()
    expected, rng, refused = FwPKMState.load(tmp_path / "x.fwpkm", layer), random.Random(0), 0
    for _ in range(1000):
        damaged = corrupt(rng, data, other)
        (tmp_path / "z.fwpkm").write_bytes(damaged)
        try:
            loaded = FwPKMState.load(tmp_path / "z.fwpkm", layer)
        except ValueError:
            refused += 1
            continue
        # Whole files of the other document are no damage: splicing at the very start gives one.
        if damaged != other:
            assert_same_state(loaded, expected, rtol=0.0, atol=0.0)
    assert refused > 900


def forge(path: Path, change) -> None:
    """Rewrite a file's header as `change` says, hashes and all: not damage, but somebody's work."""
    import hashlib

    from safetensors.torch import save_file

    file = read_file(path)
    header, tensors = json.loads(json.dumps(dict(file.header))), dict(file.tensors)
    change(header, tensors)
    header["tensors"] = {name: digest(x) for name, x in tensors.items()}
    text = json.dumps(header)
    metadata = {"format": "fwpkm-memory", "header": text, "digest": hashlib.sha256(text.encode()).hexdigest()}
    save_file(tensors, path, metadata)


def stray_cell(header, tensors):
    tensors["table.cells"] = tensors["table.cells"].clone()
    tensors["table.cells"][-1] = 10**6


def foreign_class(header, tensors):
    header["tree"]["fields"]["keys"] = {"class": "Popen", "fields": {}}


def foreign_kind(header, tensors):
    header["tree"]["fields"]["keys"] = {"pickle": "x"}


def missing_tensor(header, tensors):
    header["tree"]["fields"]["keys"]["tensor"] = "kees"


def missing_field(header, tensors):
    del header["tree"]["fields"]["tokens_seen"]


def wrong_counts(header, tensors):
    header["tree"]["fields"]["waiting"]["waiting"]["counts"] = [5, -2]


def narrow_rows(header, tensors):
    tensors["table.rows"] = tensors["table.rows"][:, :-1].contiguous()


def no_tree(header, tensors):
    del header["tree"]


def later_version(header, tensors):
    header["version"] = 99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (stray_cell, "cells must rise from 0 to at most 71"),
        (foreign_class, "unknown class 'Popen'"),
        (foreign_kind, "unknown kind of value 'pickle'"),
        (missing_tensor, "did you mean 'keys'"),
        (missing_field, "tokens_seen"),
        (wrong_counts, "waiting tokens for counts"),
        (narrow_rows, "of width 6"),
        (no_tree, "must say tree"),
        (later_version, "format version 1, got 99"),
    ],
)
def test_forged_headers_build_nothing_but_memories(tmp_path, change, message):
    layer = make_layer()
    read_some(layer)[1].save(tmp_path / "x.fwpkm", layer)
    forge(tmp_path / "x.fwpkm", lambda header, tensors: None)
    FwPKMState.load(tmp_path / "x.fwpkm", layer)
    forge(tmp_path / "x.fwpkm", change)
    with pytest.raises(ValueError, match=message):
        FwPKMState.load(tmp_path / "x.fwpkm", layer)

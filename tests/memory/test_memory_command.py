"""fwpkm memory: what a file holds, where two differ, merging two, finding damage."""

import json

import pytest
import torch

from fwpkm import FwPKM, FwPKMConfig, FwPKMState
from fwpkm.cli.main import main
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.merge import merge_caches, merge_files
from fwpkm.testing.states import assert_same_state
from fwpkm.testing.systems import make_system


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Decoder(make_system("mixed"))


def read(model, tokens, seed, state=None):
    ids = torch.randint(40, (1, tokens), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(ids, state).cache.flush()


@pytest.fixture
def files(tmp_path, model):
    paths = [str(tmp_path / name) for name in ("a.fwpkm", "b.fwpkm")]
    for seed, path in enumerate(paths):
        read(model, 17 + seed, seed).save(path, model, extra={"documents": [f"book {seed}"]})
    return paths


def test_info_tells_what_is_in_a_file(files, model, capsys):
    assert main(["memory", "info", files[0], "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    memory = read(model, 17, 0).blocks[2].memory
    assert facts["kind"] == "DecoderCache"
    assert facts["tokens_seen"] == [17]
    assert facts["extra"] == {"documents": ["book 0"]}
    assert facts["tables"][1]["path"] == "blocks.2.memory.table"
    assert facts["tables"][1]["written"] == memory.table.num_rows
    assert facts["tables"][1]["occupancy"] == memory.table.num_rows / 64
    assert main(["memory", "info", files[0]]) == 0
    assert f"{memory.table.num_rows} of 1 x 64 slots written" in capsys.readouterr().out


def test_diff_tells_where_two_files_differ_and_ends_in_its_exit_code(files, model, tmp_path, capsys):
    assert main(["memory", "diff", files[0], files[0]]) == 0
    assert "the same" in capsys.readouterr().out
    assert main(["memory", "diff", *files, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    a, b = (read(model, 17 + i, i).blocks[0].memory.table for i in range(2))
    wrote = [set(t.written().tolist()) for t in (a, b)]
    table = found["tables"][0]
    assert table["only_first"] == len(wrote[0] - wrote[1])
    assert table["only_second"] == len(wrote[1] - wrote[0])
    assert table["both"] == len(wrote[0] & wrote[1])
    assert found["tokens_seen"] == [[17], [18]]
    assert not found["model"]
    other = Decoder(make_system("mixed"))
    read(other, 17, 0).save(tmp_path / "c.fwpkm", other)
    assert main(["memory", "diff", files[0], str(tmp_path / "c.fwpkm")]) == 1
    assert "weights differ" in capsys.readouterr().out


def test_diff_sees_a_difference_outside_the_tables(model, tmp_path):
    cache = read(model, 17, 0)
    cache.save(tmp_path / "a.fwpkm", model)
    with torch.no_grad():
        later = model(torch.tensor([[3]]), cache).cache
    later.save(tmp_path / "b.fwpkm", model)
    same_tables = [b.memory.table.num_rows for b in cache.blocks if b.memory]
    assert same_tables == [b.memory.table.num_rows for b in later.blocks if b.memory]
    assert main(["memory", "diff", str(tmp_path / "a.fwpkm"), str(tmp_path / "b.fwpkm")]) == 1


@pytest.mark.parametrize("rule", ["mean", "first", "second"])
def test_merged_files_hold_merged_memories(files, model, tmp_path, rule):
    out = str(tmp_path / "c.fwpkm")
    assert main(["memory", "merge", *files, "--out", out, "--rule", rule]) == 0
    merged = DecoderCache.load(out, model)
    caches = [DecoderCache.load(path, model) for path in files]
    expected = merge_caches(*caches, rule)
    for got, block in zip(merged.blocks, expected.blocks, strict=True):
        if block.memory is not None:
            assert_same_state(got.memory, block.memory, rtol=0.0, atol=0.0)
    assert read(model, 9, 5, merged).tokens_seen.tolist() == [26]


def test_files_of_single_layers_merge_too(tmp_path):
    layer = FwPKM(FwPKMConfig(dim=6, num_subkeys=5, key_dim=4, value_dim=5, chunk_size=4, topk=2))
    with torch.no_grad():
        for name in "ab":
            layer(torch.randn(1, 13, 6))[1].flush().save(tmp_path / name, layer)
    merge_files(tmp_path / "a", tmp_path / "b", tmp_path / "c", rows="int8")
    assert FwPKMState.load(tmp_path / "c", layer).tokens_seen == (26,)


def test_files_of_different_models_do_not_merge(files, tmp_path, capsys):
    other = Decoder(make_system("mixed"))
    read(other, 17, 0).save(tmp_path / "c.fwpkm", other)
    assert main(["memory", "merge", files[0], str(tmp_path / "c.fwpkm"), "--out", str(tmp_path / "d")]) == 2
    assert "must be of one model" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_what_would_need_the_base_table_is_refused(files, model, tmp_path):
    with pytest.raises(ValueError, match="needs the model's base table"):
        merge_files(*files, tmp_path / "d", rule="sum")
    with torch.no_grad():
        model(torch.arange(9)[None]).cache.save(tmp_path / "c", model)
    with pytest.raises(ValueError, match="tokens wait to be written"):
        merge_files(files[0], tmp_path / "c", tmp_path / "d")


def test_verify_finds_the_damaged_file(files, tmp_path, capsys):
    assert main(["memory", "verify", *files]) == 0
    data = bytearray((tmp_path / "a.fwpkm").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.fwpkm").write_bytes(bytes(data))
    assert main(["memory", "verify", *files, str(tmp_path / "none")]) == 2
    said = capsys.readouterr().out.splitlines()[-3:]
    assert "damaged" in said[0]
    assert "whole" in said[1]
    assert "no such file" in said[2]
    assert main(["memory", "info", files[0]]) == 2

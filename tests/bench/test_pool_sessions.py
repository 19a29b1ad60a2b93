"""The benchmark of many sessions counts what they take, and notices a pool that keeps too much or the wrong rows."""

import json
from dataclasses import replace

import pytest
from bench_scripts import load_script

from fwpkm.memory.pool import Parked


@pytest.fixture(scope="module")
def script():
    return load_script("pool_sessions")


def test_sessions_of_a_small_layer_are_counted(script, tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert script.main(["--shape", "tiny", "--sessions", "9", "--tokens", "17", "--out", str(out)]) in (0, 1)
    exact, narrow = json.loads(out.read_text())["rows"]
    assert (exact["rows"], narrow["rows"]) == ("exact", "int8")
    assert exact["loss"] == 0 < narrow["loss"] < 0.01
    assert 0 < exact["written"] < 1
    # One chunk of 16 tokens wrote 4 slots each at most, of 16 numbers.
    assert exact["written"] * 24 * 24 <= 16 * 4
    assert exact["many_bytes"] == round(exact["total_bytes"] / 9 * 256)
    assert exact["many_dense_bytes"] == 256 * 24 * 24 * 16 * 4
    assert "9 sessions of 17 tokens" in capsys.readouterr().out


def test_a_pool_that_gives_other_rows_back_is_noticed(script, monkeypatch):
    layer = script.FwPKM(script.find_shape("tiny").config)
    other = script._read(layer, 40, seed=99)
    monkeypatch.setattr(Parked, "restore", lambda self: other)
    held = script.hold(layer, rows="exact", sessions=1, tokens=40, seed=0)
    assert held.problems
    assert "rows come back" in held.problems[-1]


@pytest.mark.parametrize(("rows", "most"), [("exact", 7), ("int8", 25)])
def test_sessions_that_take_too_much_are_noticed(script, rows, most):
    layer = script.FwPKM(script.find_shape("tiny").config)
    held = replace(script.hold(layer, rows=rows, sessions=1, tokens=40, seed=0), many_dense_bytes=10**9)
    assert replace(held, many_bytes=10**9 // most).problems == []
    (problem,) = replace(held, many_bytes=int(10**9 / (most - 0.5))).problems
    assert problem.startswith(f"{rows}: 1/{most - 1}.")

"""The soak in small: a stream in pieces of all sizes, and that it would notice what must not happen."""

import gc
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system


def benchmark(name: str) -> ModuleType:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


soak, found = benchmark("soak"), benchmark("soak_result")
PLAN = found.Plan(tokens=400, lap=100, singles=3, largest=60, block=50)


def make_model() -> Decoder:
    return Decoder(make_system("sliding_fwpkm", initializer_range=0.1)).eval()


@pytest.fixture(scope="module")
def result() -> Any:
    torch.manual_seed(0)
    *_, last = soak.soak(make_model(), PLAN, 1e-9)
    return last


def test_nothing_grows_but_rows_and_nothing_drifts(result: Any) -> None:
    assert found.memory_problems([replace(s, resident_bytes=None) for s in result.samples]) == []
    assert found.drift_problems(result.drifts, result.tolerance) == []
    assert result.samples[-1].tokens == 400
    assert result.samples[-1].rows > result.samples[0].rows
    assert len(result.drifts) == len(result.samples) == PLAN.num_laps == 4


def test_the_number_of_tensors_alive_does_not_grow() -> None:
    reading, counts = soak.Reading(make_model()), []
    for lap, tokens in enumerate(soak.laps(PLAN, 40)):
        reading.read(tokens, PLAN.pieces(lap))
        gc.collect()
        counts.append(sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects()))
    assert len(set(counts[1:])) == 1, counts


def test_a_state_that_keeps_more_than_its_rows_is_noticed(result: Any) -> None:
    fat = [replace(s, state_bytes=s.state_bytes + s.tokens, resident_bytes=None) for s in result.samples]
    (problem,) = found.memory_problems(fat)
    assert "the state without its rows must stay as large" in problem


def test_a_process_that_grows_is_noticed(result: Any) -> None:
    leaky = [replace(s, resident_bytes=10**8 + s.tokens * 10**5) for s in result.samples]
    (problem,) = found.memory_problems(leaky)
    assert "the process may grow by" in problem


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"float64_worst": 1e-8}, "must agree to 1e-09 in float64, got 1.0e-08 before token 300"),
        ({"float64_worst": float("nan")}, "got nan before token 300"),
        ({"pieces": 1.0}, "may be 2 times as far"),
    ],
)
def test_drift_is_noticed(result: Any, change: dict[str, float], words: str) -> None:
    drifts = list(result.drifts)
    drifts[2] = replace(drifts[2], **change)
    (problem,) = found.drift_problems(drifts, 1e-9)
    assert words in problem


def test_a_model_whose_answers_depend_on_the_cut_drifts(monkeypatch: pytest.MonkeyPatch) -> None:
    read = soak.Reading.read

    def forgetful(self: Any, tokens: torch.Tensor, pieces: list[int]) -> torch.Tensor:
        self.cache = None if len(pieces) > len(PLAN.blocks()) else self.cache
        return read(self, tokens, pieces)

    monkeypatch.setattr(soak.Reading, "read", forgetful)
    drifts = [*soak.watch_drift(make_model(), replace(PLAN, tokens=200))]
    assert len(found.drift_problems(drifts, 1e-9)) >= 2


def test_laps_are_cut_whole_and_differently() -> None:
    cuts = [PLAN.pieces(lap) for lap in range(PLAN.num_laps)]
    assert all(sum(cut) == PLAN.lap and cut.count(1) >= PLAN.singles for cut in cuts)
    assert len({tuple(cut) for cut in cuts}) == PLAN.num_laps
    assert sum(PLAN.blocks()) == PLAN.lap
    assert len(set(map(len, soak.laps(PLAN, 40)))) == 1


def test_a_plan_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="must fit into a lap"):
        found.Plan(lap=10, block=20)


def test_the_result_is_written_down(result: Any, tmp_path: Path) -> None:
    result.save(tmp_path / "results" / "a.json")
    content = json.loads((tmp_path / "results" / "a.json").read_text())
    assert content["summary"]["tokens"] == 400
    assert content["origin"].keys() >= {"command", "commit", "device"}
    assert content["problems"] == result.problems()


def test_a_soak_that_broke_off_says_so(result: Any) -> None:
    partial = replace(result, drifts=result.drifts[:1])
    assert "drift is known of 1 of 4 laps only" in partial.problems()
    assert partial.summary()["float64_drift"] == result.drifts[0].float64

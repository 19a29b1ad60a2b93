"""The soak in small: a stream in pieces of all sizes, and that it would notice what must not happen."""

import gc
import importlib.util
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


def load_soak() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks/soak.py"
    spec = importlib.util.spec_from_file_location("soak", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


soak = load_soak()
PLAN = soak.Plan(tokens=400, lap=100, singles=3, largest=60, block=50)


def make_model() -> Decoder:
    return Decoder(make_system("sliding_fwpkm", initializer_range=0.1)).eval()


@pytest.fixture(scope="module")
def result() -> Any:
    torch.manual_seed(0)
    return soak.soak(make_model(), PLAN, 1e-9)


def test_nothing_grows_but_rows_and_nothing_drifts(result: Any) -> None:
    assert soak.memory_problems([replace(s, resident_bytes=None) for s in result.samples]) == []
    assert soak.drift_problems(result.drifts, result.tolerance) == []
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
    (problem,) = soak.memory_problems(fat)
    assert "the state without its rows must stay as large" in problem


def test_a_process_that_grows_is_noticed(result: Any) -> None:
    leaky = [replace(s, resident_bytes=10**8 + s.tokens * 10**5) for s in result.samples]
    (problem,) = soak.memory_problems(leaky)
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
    (problem,) = soak.drift_problems(drifts, 1e-9)
    assert words in problem


def test_a_model_whose_answers_depend_on_the_cut_drifts(monkeypatch: pytest.MonkeyPatch) -> None:
    read = soak.Reading.read

    def forgetful(self: Any, tokens: torch.Tensor, pieces: list[int]) -> torch.Tensor:
        self.cache = None if len(pieces) > len(PLAN.blocks()) else self.cache
        return read(self, tokens, pieces)

    monkeypatch.setattr(soak.Reading, "read", forgetful)
    drifts = soak.watch_drift(make_model(), replace(PLAN, tokens=200))
    assert len(soak.drift_problems(drifts, 1e-9)) >= 2


def test_laps_are_cut_whole_and_differently() -> None:
    cuts = [PLAN.pieces(lap) for lap in range(PLAN.num_laps)]
    assert all(sum(cut) == PLAN.lap and cut.count(1) >= PLAN.singles for cut in cuts)
    assert len({tuple(cut) for cut in cuts}) == PLAN.num_laps
    assert sum(PLAN.blocks()) == PLAN.lap
    assert len(set(map(len, soak.laps(PLAN, 40)))) == 1


def test_a_plan_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="must fit into a lap"):
        soak.Plan(lap=10, block=20)


def test_the_result_is_json(result: Any) -> None:
    content = json.loads(json.dumps(result.to_dict()))
    assert content["summary"]["tokens"] == 400
    assert content["origin"].keys() >= {"command", "commit", "device"}

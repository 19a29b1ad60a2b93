"""A run that stopped and went on is the run that never stopped, bit by bit."""

import shutil
from typing import Any

import pytest
import torch

from conftest import MakeRun, losses
from fwpkm.testing.systems import make_system
from fwpkm.train.checkpoint import Progress
from fwpkm.train.stop import StopRequest

SYSTEMS: dict[str, Any] = {
    "full": "full",
    "sliding_fwpkm": "sliding_fwpkm",
    "mixed": "mixed",
    "lact": "lact",
    "fwmlp": make_system("delta_fwmlp", initializer_range=0.05),
    "sparse_tables": make_system(
        "mixed",
        pkm={"num_subkeys": 8, "key_dim": 8, "value_dim": 16, "num_heads": 2, "topk": 3, "sparse_grad": True},
    ),
    "narrowed": make_system(
        "full",
        narrow_probability=0.5,
        attention={"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "window": 4},
    ),
}


@pytest.mark.parametrize("carry", ["sequence", "document"])
@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_a_resumed_run_gives_the_same_losses_and_weights(make_run: MakeRun, system: str, carry: str) -> None:
    settings: dict[str, Any] = {"carry": carry, "accumulate": 2, "truncate": 9}
    whole = make_run(SYSTEMS[system], **settings)
    whole.run(StopRequest())
    expected = losses(whole)
    shutil.rmtree(whole.checkpoints.paths()[-1])

    resumed = make_run(SYSTEMS[system], **settings)
    assert resumed.resume().step == 2
    assert resumed.log is not None
    resumed.log.folder.metrics.unlink()
    resumed.run(StopRequest())
    assert losses(resumed) == expected[2:]
    for name, x in resumed.model.state_dict().items():
        assert torch.equal(x, whole.model.state_dict()[name]), name


def test_the_carried_memories_are_what_makes_it_so(make_run: MakeRun) -> None:
    settings: dict[str, Any] = {"carry": "document"}
    whole = make_run(**settings)
    whole.run(StopRequest())
    expected = losses(whole)
    shutil.rmtree(whole.checkpoints.paths()[-1])
    resumed = make_run(**settings)
    resumed.resume()
    resumed.carried = [None]
    assert resumed.log is not None
    resumed.log.folder.metrics.unlink()
    resumed.run(StopRequest())
    assert losses(resumed) != expected[2:]


def test_other_random_numbers_go_on_too(make_run: MakeRun) -> None:
    first = make_run()
    first.progress = Progress(step=3)
    first.save()
    expected = torch.rand(3)
    torch.manual_seed(99)
    make_run().resume()
    assert torch.equal(torch.rand(3), expected)


def test_a_run_without_a_checkpoint_starts_at_the_start(make_run: MakeRun) -> None:
    assert make_run().resume() == Progress()


def test_a_finished_run_goes_on_when_it_gets_more_steps(make_run: MakeRun) -> None:
    make_run(steps=4).run(StopRequest())
    longer = make_run(steps=6)
    assert longer.resume().step == 4
    assert longer.run(StopRequest()).progress.step == 6


def test_memories_of_another_number_of_parts_are_refused(make_run: MakeRun) -> None:
    make_run(carry="document", accumulate=2).run(StopRequest())
    with pytest.raises(ValueError, match="accumulate must be as in the checkpoint"):
        make_run(carry="document", accumulate=1).resume()

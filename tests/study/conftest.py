"""A study that was really run, once for all tests of a module."""

from pathlib import Path

import pytest
from study_helpers import BROKEN, start_here, write_study

from fwpkm.cli.main import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a system, one that diverges and one that fails; the study's folder is `out` in this one."""
    folder = tmp_path_factory.mktemp("study")
    systems = (
        'recipe = "base.toml"\nsettings = ["train.checkpoints.every_steps=1"]',
        f'recipe = "base.toml"\nlabel = "diverges"\nsettings = {BROKEN}',
        'recipe = "base.toml"\nlabel = "fails"\nsettings = ["train.device=nowhere"]',
    )
    file = write_study(folder, *systems)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fwpkm.cli.study_run.start_process", start_here)
        assert main(["study", str(file), "--out", str(folder / "out")]) == 1
    return folder

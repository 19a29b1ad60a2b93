"""What was compiled is kept on disk under names that change with any loop it may have been compiled of."""

import pytest

from fwpkm.ops import jit as module
from fwpkm.ops.jit import jit

pytest.importorskip("numba")


@pytest.mark.parametrize("name", ["jit.py", "inner/loops.py", "constants.py"])
def test_the_name_follows_every_file_that_a_loop_may_be_made_of(name, tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    for file in ("jit.py", "inner/loops.py", "constants.py"):
        (tmp_path / file).write_text(file)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "jit.py"))
    before = module._sources.__wrapped__()
    assert module._sources.__wrapped__() == before
    (tmp_path / name).write_text("changed")
    assert module._sources.__wrapped__() != before


def test_a_function_keeps_its_own_name():
    def double(x):
        return 2 * x

    name = double.__qualname__
    assert jit(double)(3) == 6
    assert double.__qualname__ == name

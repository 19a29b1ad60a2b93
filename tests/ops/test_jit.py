"""What was compiled is kept on disk under names that change with any loop it may have been compiled of."""

import pytest

from fwpkm.ops import jit as module
from fwpkm.ops.jit import jit

pytest.importorskip("numba")


def test_the_name_follows_the_sources_of_all_loops_and_no_others(tmp_path, monkeypatch):
    (tmp_path / "jit.py").write_text("")
    (tmp_path / "inner").mkdir()
    loops, other = tmp_path / "inner" / "loops.py", tmp_path / "other.py"
    loops.write_text("from fwpkm.ops.jit import jit\n")
    other.write_text("one")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "jit.py"))
    name = module._sources.__wrapped__()
    other.write_text("two")
    assert module._sources.__wrapped__() == name
    loops.write_text("from fwpkm.ops.jit import jit  # changed\n")
    assert module._sources.__wrapped__() != name


def test_a_function_keeps_its_own_name():
    def double(x):
        return 2 * x

    name = double.__qualname__
    assert jit(double)(3) == 6
    assert double.__qualname__ == name

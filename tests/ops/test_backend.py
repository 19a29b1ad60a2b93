"""Choosing the form of the operations: only "auto" chooses, a named one runs or raises."""

import importlib.util
from unittest.mock import Mock

import pytest
import torch

from fwpkm.ops import backend
from fwpkm.ops.backend import runs_compiled, runs_triton, set_backend, use_backend


@pytest.mark.parametrize(
    ("wanted", "dtype", "compiled"),
    [
        ("auto", torch.float32, True),
        ("auto", torch.float64, True),
        ("auto", torch.bfloat16, False),
        ("numba", torch.float32, True),
        ("torch", torch.float32, False),
    ],
)
def test_it_takes_compiled_loops_where_they_run(wanted, dtype, compiled):
    with use_backend(wanted):
        assert runs_compiled(torch.zeros(1, dtype=dtype)) is compiled


def test_a_named_backend_that_cannot_do_it_raises():
    with (
        use_backend("numba"),
        pytest.raises(RuntimeError, match=r"got torch.bfloat16 on cpu; use backend='auto'"),
    ):
        runs_compiled(torch.zeros(1, dtype=torch.bfloat16))


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="must be one of auto, torch, numba, triton, got 'cuda'"):
        set_backend("cuda")


def test_without_numba_auto_takes_torch_and_the_name_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    backend._has_numba.cache_clear()
    try:
        assert not runs_compiled(torch.zeros(1))
        with pytest.raises(RuntimeError, match=r"pip install 'fwpkm\[cpu\]'"):
            set_backend("numba")
    finally:
        backend._has_numba.cache_clear()


def test_a_numba_that_does_not_load_is_told_of_and_done_without(monkeypatch, caplog):
    def refuse(name):
        raise ImportError("Numba needs NumPy 2.4 or less")

    monkeypatch.setattr(importlib, "import_module", refuse)
    backend._has_numba.cache_clear()
    try:
        assert not runs_compiled(torch.zeros(1))
        assert "does not load (Numba needs NumPy 2.4 or less)" in caplog.text
        with pytest.raises(RuntimeError, match=r"pip install -U 'fwpkm\[cpu\]'"):
            set_backend("numba")
    finally:
        backend._has_numba.cache_clear()


def test_kernels_asked_for_by_name_run_or_say_what_is_missing(monkeypatch):
    monkeypatch.setattr(backend, "_is_installed", lambda package: False)
    backend._has_triton.cache_clear()
    with pytest.raises(RuntimeError, match=r"cannot run: pip install 'fwpkm\[gpu\]'"):
        set_backend("triton")
    backend._has_triton.cache_clear()
    monkeypatch.setattr(backend, "_has_triton", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(RuntimeError, match="needs a CUDA device, and PyTorch finds none; use backend='auto'"):
        set_backend("triton")


def test_a_triton_that_does_not_load_is_told_of_and_done_without(monkeypatch, caplog):
    def refuse(name):
        raise AttributeError("module 'triton' has no attribute 'jit'")

    monkeypatch.setattr(backend, "_is_installed", lambda package: True)
    monkeypatch.setattr(importlib, "import_module", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    backend._has_triton.cache_clear()
    try:
        on_gpu = Mock(spec=torch.Tensor, device=torch.device("cuda"), dtype=torch.float32)
        assert not runs_triton(on_gpu)
        (said,) = [record for record in caplog.records if "CUDA" in record.message]
        assert said.levelname == "WARNING"
        assert "does not load (module 'triton' has no attribute 'jit')" in said.message
        with pytest.raises(RuntimeError, match=r"cannot run: Triton is installed and does not load"):
            set_backend("triton")
    finally:
        backend._has_triton.cache_clear()


@pytest.mark.parametrize(
    ("version", "runs"), [("3.4.0", False), ("3.6.0+git1234", True), ("3.10.0", True), ("4.0.0", True)]
)
def test_a_triton_that_is_too_old_is_told_of(monkeypatch, version, runs):
    monkeypatch.setattr(backend, "_is_installed", lambda package: True)
    monkeypatch.setattr(importlib, "import_module", lambda name: Mock(__version__=version))
    said = f"Triton {version} is older than 3.6, which kernels need; pip install -U 'fwpkm[gpu]'"
    assert backend.why_no_triton() == (None if runs else said)


def test_what_kernels_leave_to_pytorch_is_said_once_and_refused_under_a_name(caplog):
    caplog.set_level("INFO", logger="fwpkm")
    backend.say_composed.cache_clear()
    for _ in range(2):
        backend.compose("finding slots", "kernels find at most 32 slots a head, got topk=33")
    assert [record.message for record in caplog.records] == [
        "backend -> torch for finding slots: kernels find at most 32 slots a head, got topk=33"
    ]
    with (
        use_backend("numba"),
        pytest.raises(RuntimeError, match=r"'numba': kernels find .* got topk=33; use backend='auto'"),
    ):
        backend.compose("finding slots", "kernels find at most 32 slots a head, got topk=33")


@pytest.mark.parametrize("wanted", ["auto", "torch", "numba"])
def test_only_kernels_asked_for_by_name_are_interpreted_on_a_cpu(monkeypatch, wanted):
    monkeypatch.setattr(backend, "_has_triton", lambda: True)
    with use_backend(wanted):
        assert not runs_triton(torch.zeros(1))


def test_the_choice_ends_with_its_block_also_after_an_error():
    with use_backend("numba"):
        with pytest.raises(KeyError), use_backend("torch"):
            raise KeyError
        assert runs_compiled(torch.zeros(1))

"""A device that is not there is named, before anything is read or made."""

import pytest
import torch

from fwpkm.cli.main import main
from fwpkm.devices import check_device

MISSING = f"cuda:{torch.cuda.device_count() if torch.cuda.is_available() else 0}"


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu")])
def test_what_there_is_is_taken(name):
    check_device("a test", name)


@pytest.mark.parametrize("name", [MISSING, torch.device(MISSING), "gpu", "cuda:-1", ""])
def test_what_is_missing_is_named_beside_what_there_is(name):
    with pytest.raises(
        ValueError, match=r"a test: this machine, with this PyTorch, has cpu.*; got "
    ) as caught:
        check_device("a test", name)
    assert str(caught.value).endswith(f"got {str(name)!r}")


@pytest.mark.parametrize(
    "command",
    [
        ["ask", "--memory", "book.fwpkm", "Who?"],
        ["read", "small", "book.txt", "--out", "book.fwpkm"],
        ["inspect", "small", "book.txt", "--out", "page.html"],
        ["eval", "needles", "small"],
        ["bench", "layer"],
    ],
    ids=lambda command: command[0],
)
def test_commands_refuse_it_in_one_line(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--device", MISSING]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"fwpkm {command[0]}: --device: this machine")
    assert list(tmp_path.iterdir()) == []

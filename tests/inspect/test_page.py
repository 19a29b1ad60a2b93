"""The page holds what happened, and text stays text."""

import json
from html.parser import HTMLParser

import pytest
import torch
from inspect_helpers import TEXT, new_model

from fwpkm.cli.main import main
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.inspect.data import page_data, to_json
from fwpkm.inspect.html import render_page
from fwpkm.inspect.inspection import Inspection
from fwpkm.inspect.recording import slot_memories
from fwpkm.inspect.says import nearest_words
from fwpkm.models.files import save_model
from fwpkm.sessions.engine import Sampling

T = len(TEXT.encode())


class Page(HTMLParser):
    """The elements of a page, and what stands in some of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br", "link", "img"):
            self._open.append(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        name = self._open[-1] if self._open else ""
        self.text[name] = self.text.get(name, "") + data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def data(inspection):
    answers = [inspection.ask("What is", reading=r, sampling=Sampling(max_tokens=3)) for r in (1, 3)]
    return page_data(inspection, answers)


@pytest.fixture(scope="module")
def page(inspection, data):
    return render_page(data, inspection.pieces)


def test_the_page_has_every_token_once_and_as_text(page):
    parsed = Page(page)
    tokens = [attrs for attrs in parsed.all("span") if attrs.get("role") == "option"]
    assert [attrs["id"] for attrs in tokens] == [f"t{i}" for i in range(T)]
    assert "".join(parsed.text.get(f"t{i}", "") for i in range(T)) == TEXT


def test_text_is_never_markup(inspection):
    evil = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>"
    model = new_model()
    own = Inspection(model, ByteTokenizer(), evil, title=f"</title>{evil}", times=1)
    answer = own.ask(evil, reading=1, sampling=Sampling(max_tokens=2))
    page = render_page(page_data(own, [answer]), own.pieces)
    parsed = Page(page)
    plain = Page(render_page(page_data(inspection), inspection.pieces))
    assert len(parsed.all("script")) == len(plain.all("script")) == 2
    assert not parsed.all("img")
    assert evil not in page
    facts = json.loads(parsed.text["data"])
    assert facts["title"] == f"</title>{evil}"
    assert facts["answers"][0]["question"] == evil


def test_the_page_needs_nothing_from_elsewhere_and_lets_no_other_script_run(page):
    parsed = Page(page)
    for _, attrs in parsed.elements:
        assert "src" not in attrs
        assert not any(name.startswith("on") or name == "style" for name in attrs)
        assert "href" not in attrs or attrs["href"].startswith("#")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    policy = next(m["content"] for m in parsed.all("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_controls_have_labels_and_sections_names(page):
    parsed = Page(page)
    ids = {attrs["id"] for _, attrs in parsed.elements if "id" in attrs}
    labelled = {attrs.get("for") for attrs in parsed.all("label")}
    for tag in ("input", "select"):
        for attrs in parsed.all(tag):
            assert attrs["id"] in labelled
    for attrs in parsed.all("section"):
        assert attrs["aria-labelledby"] in ids
    assert parsed.all("html")[0]["lang"] == "en"


def test_numbers_of_the_page_are_those_of_the_traces(inspection, data):
    assert (data["tokens"], data["times"]) == (T, 3)
    assert [m["layer"] for m in data["memories"]] == [0, 2]
    for own, traces in zip(data["readings"], inspection.recording.traces, strict=True):
        for place, layer in enumerate((0, 2)):
            assert own[place]["slots"] == traces[layer].slots.flatten().tolist()
            assert own[place]["gate"] == pytest.approx(traces[layer].gate.flatten().tolist(), rel=6e-3)
            assert own[place]["weights"] == pytest.approx(traces[layer].weights.flatten().tolist(), rel=6e-3)


def test_tables_name_the_writes_that_the_journal_noted(inspection, data):
    for own, cache in zip(data["tables"], inspection.recording.caches, strict=True):
        for place, layer in enumerate((0, 2)):
            table, journal = own[place], slot_memories(cache)[layer].table.journal
            found, first = set(), 0
            for slot, writes in zip(table["slot"], table["writes"], strict=True):
                found |= {(slot, token) for token in table["token"][first : first + writes]}
                first += writes
            assert first == len(table["token"]) == len(table["share"]) == len(table["step"])
            assert found == {
                (int(write.cells[c]), int(token))
                for write in journal
                for token, row in zip(write.tokens, write.number, strict=True)
                for c in row
            }
            assert table["census"]["written"] == len(table["slot"])
            assert table["census"]["occupancy"] == len(table["slot"]) / 64


def test_a_slot_says_the_words_that_its_projection_is_nearest_to(model, inspection, data):
    state = slot_memories(inspection.recording.caches[-1])[2]
    slots = state.table.written()
    table = data["tables"][-1][1]
    with torch.no_grad():
        memory = model.blocks[2].memory
        for i, slot in enumerate(slots.tolist()):
            y = memory.out_proj(memory.out_norm(state.table.gather(torch.tensor([slot]))))
            chance = (model.norm(y) @ model.embed.weight.T).softmax(-1)[0]
            words = table["says"][i * 5 : i * 5 + 5]
            kth = chance.topk(5).values[-1]
            assert all(chance[word] >= kth * (1 - 1e-5) for word in words)
            assert table["chance"][i * 5] == pytest.approx(float(chance.max()), rel=6e-3)
    assert set(table["says"]) <= set(data["words"])
    for word, text in data["words"].items():
        assert text == (chr(word) if word < 128 else f"token {word}")


def test_ids_that_stand_for_nothing_are_not_said(model, inspection):
    rows = slot_memories(inspection.recording.caches[0])[0].table.dense()[0]
    said = nearest_words(model, 0, rows, words=3, vocab_size=7)
    assert int(said.token.max()) < 7
    assert nearest_words(model, 0, rows, words=9, vocab_size=7).token.shape == (64, 7)


def test_sources_lead_into_the_text(inspection, data):
    for own in data["answers"]:
        answer = inspection.ask("What is", reading=own["reading"], sampling=Sampling(max_tokens=3))
        for source, shown in zip(answer.sources, own["sources"], strict=True):
            assert source.written == (shown["reading"] - 1) * T + shown["token"]
            assert source.token % T == shown["address"]
            assert 1 <= shown["reading"] <= own["reading"]


def test_memories_without_slots_and_without_gates_are_shown():
    gateless = {"num_subkeys": 8, "key_dim": 8, "value_dim": 12, "topk": 3, "chunk_size": 5, "gate": False}
    for model in (new_model("delta_fwmlp"), new_model("mixed"), new_model(fwpkm=gateless)):
        own = Inspection(model, ByteTokenizer(), TEXT, title="x")
        data = page_data(own)
        Page(render_page(data, own.pieces))
        for memory, reading in zip(data["memories"], data["readings"][0], strict=True):
            assert (reading["gate"] is not None) == memory["gated"]
            assert (reading["slots"] is not None) == ("slots" in memory)


def test_json_has_no_signs_of_markup_and_no_nan():
    assert json.loads(to_json({"a": "<&>\u2028é\ud800"})) == {"a": "<&>\u2028é\ud800"}
    assert not set("<&>é") & set(to_json({"a": "<&>\u2028é\ud800"}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(float("nan"))


def test_the_command_writes_the_page(model, tmp_path, capsys):
    save_model(tmp_path / "model", model)
    ByteTokenizer().save(tmp_path / "model")
    (tmp_path / "book.txt").write_text(TEXT, encoding="utf-8")
    out, book = tmp_path / "page.html", str(tmp_path / "book.txt")
    command = ["inspect", str(tmp_path / "model"), book, "--out", str(out)]
    assert main([*command, "--question", "What is", "--times", "2", "--max-tokens", "3"]) == 0
    assert f"{T} tokens" in capsys.readouterr().out
    facts = json.loads(Page(out.read_text(encoding="utf-8")).text["data"])
    assert [a["reading"] for a in facts["answers"]] == [1, 2]
    assert facts["title"] == "book.txt"
    assert main([*command, "--most-tokens", "9"]) == 2
    assert "at most 9 tokens" in capsys.readouterr().err
    assert main([*command[:3], "--out", str(tmp_path / "none" / "x.html")]) == 2
    assert "its folder must exist" in capsys.readouterr().err

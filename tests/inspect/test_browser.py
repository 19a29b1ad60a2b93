"""The page in a headless Chromium, where there is one: read with keys and clicks, and on a picture."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from html import unescape
from pathlib import Path

import pytest
from inspect_helpers import TEXT

from fwpkm.inspect.data import page_data
from fwpkm.inspect.html import render_page
from fwpkm.sessions.engine import Sampling

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
HERE = Path(__file__).parent
T = len(TEXT.encode())

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; test_page.py parses the page")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and answers every question with its answer.json, or 503 where that is missing."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = Path(self.directory) / f"{self.path.rpartition('/')[2]}-{asked['question']}.json"
        body = answer.read_bytes() if answer.exists() else b'{"error": "ask again in a moment"}'
        self.send_response(200 if answer.exists() else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def data(inspection):
    few = Sampling(max_tokens=3)
    return page_data(inspection, [inspection.ask("What is", reading=r, sampling=few) for r in (1, 3)])


@pytest.fixture(scope="module")
def folder(inspection, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.html").write_text(render_page(data, inspection.pieces), encoding="utf-8")
    live = page_data(inspection, live=True)
    (folder / "live.html").write_text(render_page(live, inspection.pieces), encoding="utf-8")
    shutil.copy(HERE / "drive_page.html", folder)
    return folder


def chromium(folder, *options):
    """Run Chromium on a folder's pages, served at some port; an option's URL is put behind that."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        *flags, page = options
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=20000",
            *flags,
            f"http://127.0.0.1:{server.server_port}/{page}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    return done.stdout


def drive(folder, page):
    """Let the driver use a page; returns what it saw."""
    dom = chromium(folder, "--dump-dom", f"drive_page.html?{page}")
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    seen = json.loads(unescape(found[1]))
    assert seen["errors"] == []
    return seen


@pytest.fixture(scope="module")
def seen(folder):
    return drive(folder, "page.html")


def test_shading_is_the_gate_of_memory_and_reading(seen, data):
    assert float(seen["gate"]) == data["readings"][2][0]["gate"][5]
    assert float(seen["firstGate"]) == data["readings"][0][0]["gate"][5]
    assert float(seen["otherGate"]) == data["readings"][0][1]["gate"][5]
    assert "token 5, gate 0." in seen["label"]
    assert seen["shade"] not in ("", "rgba(0, 0, 0, 0)")


def test_keys_move_and_choose(seen):
    assert seen["tabStops"] == ["t0"]
    assert seen["focused"] == "t1"
    assert seen["chosen"] == ["t1"]
    assert seen["last"] == f"t{T - 1}"
    assert seen["lower"]


def test_a_token_shows_its_slots_and_a_slot_its_writers(seen, data):
    own = data["readings"][2][0]
    assert seen["slots"][:3] == [str(slot) for slot in own["slots"][3:6]]
    table, slot = data["tables"][2][0], own["slots"][3]
    place = table["slot"].index(slot)
    first = sum(table["writes"][:place])
    writers = {f"t{token % T}" for token in table["token"][first : first + table["writes"][place]]}
    assert set(seen["wrote"]) == writers
    assert f"slot{slot}: row {slot // 8}, column {slot % 8}" in seen["slot"]
    wrote = [s for s, n, f in spans(table) if any(t % T == 1 for t in table["token"][f : f + n])]
    assert set(map(int, seen["slots"][3:])) == set(wrote)


def spans(table):
    first = 0
    for slot, writes in zip(table["slot"], table["writes"], strict=True):
        yield slot, writes, first
        first += writes


def test_sources_are_drawn_into_the_text_and_follow_the_slider(seen, data):
    for name, answer in (("sources", data["answers"][1]), ("firstSources", data["answers"][0])):
        assert set(seen[name]) == {f"t{source['token']}" for source in answer["sources"]}
    assert "What\u00a0is" in seen["answers"] or "What is" in seen["answers"]


def test_the_table_says_how_full_it_is_and_its_map_shows_where(seen, data):
    census = data["tables"][0][0]["census"]
    assert f"written{census['written']} (" in seen["table"]
    written = set(data["tables"][0][1]["slot"])
    assert [i for i, on in enumerate(seen["map"]) if on] == sorted(written)
    assert ("Nobody wrote it" in seen["slotZero"]) == (0 not in written)
    assert seen["askHidden"]


def test_a_question_asked_in_the_page_is_answered_in_it(folder, data):
    refused = drive(folder, "live.html#ask")
    assert refused["shown"]
    assert refused["said"] == "ask again in a moment"
    answer = {**data["answers"][1], "question": "Who was it?", "text": "<i>the miller</i>"}
    (folder / "ask-Who was it?.json").write_text(json.dumps(answer))
    seen = drive(folder, "live.html#ask")
    assert seen["said"] == ""
    assert "answer<i>the miller</i>" in seen["answers"]
    assert set(seen["sources"]) == {f"t{source['token']}" for source in answer["sources"]}


def test_the_picture_is_not_empty(folder):
    picture = folder / "page.png"
    chromium(folder, f"--screenshot={picture}", "--window-size=1200,900", "page.html")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 20_000

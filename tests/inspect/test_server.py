"""The server answers, keeps within its limits, and falls over nothing that it is sent."""

import asyncio
import json
import pickle
import sys
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inspect_helpers import TEXT

from fwpkm.cli.main import main
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.inspect.data import answer_data
from fwpkm.inspect.guard import Guard, Limits
from fwpkm.inspect.server import make_app
from fwpkm.models.files import save_model
from fwpkm.sessions.engine import Sampling
from fwpkm.testing.unchecked import build_unchecked

HERE = "http://127.0.0.1:8000"
LIMITS = Limits(body_bytes=2000, question_chars=40, answer_tokens=4)


def client_of(inspection, **options):
    return TestClient(make_app(inspection, limits=LIMITS, **options), base_url=HERE)


@pytest.fixture(scope="module")
def client(inspection):
    return client_of(inspection)


def question(**changes):
    return {"question": "What is", "reading": 2, "max_tokens": 3, **changes}


def test_the_page_and_its_data_are_served_under_a_policy(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "<script>alert" not in page.text
    assert client.get("/api/data").json()["live"] is True


def test_a_question_is_answered_as_the_inspection_does(client, inspection):
    reply = client.post("/api/ask", json=question())
    assert reply.status_code == 200
    expected = inspection.ask("What is", reading=2, sampling=Sampling(max_tokens=3))
    assert reply.json() == json.loads(json.dumps(answer_data(inspection, expected)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reading": 4}, "reading must be at most 3 readings, got 4"),
        ({"reading": 0}, "reading: Input should be greater"),
        ({"reading": "1"}, "reading: Input should be a valid integer"),
        ({"max_tokens": 5}, "max_tokens must be at most 4 tokens, got 5"),
        ({"question": "x" * 41}, "question must be at most 40 characters, got 41"),
        ({"question": ""}, "question: String should have at least 1"),
        ({"path": "/etc/passwd"}, "path: Extra inputs"),
    ],
)
def test_a_wrong_question_is_refused_with_its_reason(client, changes, message):
    reply = client.post("/api/ask", json=question(**changes))
    assert reply.status_code == 422
    assert message in reply.json()["error"]


def test_large_bodies_are_refused(client):
    assert client.post("/api/ask", content=b"x" * 2001).status_code == 413
    refused = client.post("/api/ask", content=b"x", headers={"content-length": "9" * 400})
    assert refused.status_code == 413
    assert client.post("/api/ask", content=b"x" * 2000).status_code == 422


def test_a_body_without_an_end_is_not_read_on():
    received, sent = [], []

    async def receive():
        received.append(b"x" * 500)
        return {"type": "http.request", "body": received[-1], "more_body": True}

    async def send(message):
        sent.append(message)

    async def unreached(scope, receive, send):
        raise AssertionError("the guard lets nothing of this through")

    guard = Guard(unreached, hosts=None, limits=LIMITS, policy="default-src 'none'")
    asyncio.run(guard({"type": "http", "headers": []}, receive, send))
    assert len(received) == 5
    assert sent[0]["status"] == 413
    asyncio.run(guard({"type": "websocket", "headers": []}, receive, send))
    assert sent[-1] == {"type": "websocket.close", "code": 1008}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::", "\x80"])
def test_other_names_of_this_machine_are_refused(client, host):
    assert client.get("/", headers={"host": host.encode("latin-1")}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:8000", "LOCALHOST"])
def test_its_own_names_are_not(client, host):
    assert client.get("/api/data", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("own", [None, ("127.0.0.1",)])
def test_pages_of_other_sites_may_not_ask(inspection, own):
    client = client_of(inspection, hosts=own)
    for origin, status in (("http://evil.example", 403), ("null", 403), (HERE, 200)):
        assert client.post("/api/ask", json=question(), headers={"origin": origin}).status_code == status


def test_a_second_question_at_once_is_told_to_come_again(inspection, monkeypatch):
    begun, go_on, ask = threading.Event(), threading.Event(), inspection.ask

    def slow(*args, **options):
        begun.set()
        assert go_on.wait(60)
        return ask(*args, **options)

    monkeypatch.setattr(inspection, "ask", slow)
    client, replies = client_of(inspection), []
    first = threading.Thread(target=lambda: replies.append(client.post("/api/ask", json=question())))
    first.start()
    assert begun.wait(60)
    refused = client.post("/api/ask", json=question())
    go_on.set()
    first.join()
    assert refused.status_code == 503
    assert replies[0].status_code == 200
    assert client.post("/api/ask", json=question()).status_code == 200


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(client, tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    for kind in ("application/json", "application/octet-stream", "application/x-python-pickle"):
        reply = client.post("/api/ask", content=bomb, headers={"content-type": kind})
        assert 400 <= reply.status_code < 500
    assert not (tmp_path / "exploded").exists()


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.binary(max_size=2500) | ANY_JSON.map(json.dumps).map(str.encode)
SEGMENTS = st.sampled_from(["/", "/api", "/api/ask", "/api/data", "/api/ask/", "//", "/..%2f..%2fetc/passwd"])
TAILS = st.text(st.characters(codec="ascii", exclude_categories=["C"], exclude_characters="?#"), max_size=12)


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"]),
    SEGMENTS,
    TAILS,
    BODIES,
    st.sampled_from(["application/json", "text/plain", "multipart/form-data", "application/json; charset=x"]),
)
@example("POST", "/api/ask", "", b"[" * 1990, "application/json")
@example("POST", "/api/ask", "", b'{"question":NaN,"reading":1e999}', "application/json")
@example("POST", "/api/ask", "", b'{"reading":' + b"9" * 1900 + b"}", "application/json")
@example("POST", "/api/ask", "", b'{"\\ud800":1}', "application/json")
@example("POST", "/api/ask", "", b"\xff\xfe", "application/json")
@settings(max_examples=150)
def test_no_request_makes_the_server_fail(client, method, path, tail, body, kind):
    tail = "".join(f"%{ord(sign):02x}" for sign in tail)
    reply = client.request(method, f"{HERE}{path}{tail}", content=body, headers={"content-type": kind})
    assert reply.status_code < 500
    if len(body) > LIMITS.body_bytes:
        assert reply.status_code == 413


@given(
    st.text(st.characters(exclude_categories=()), max_size=60) | ANY_JSON,
    st.integers(-1, 5) | ANY_JSON,
    st.integers(-1, 6) | ANY_JSON,
)
@settings(max_examples=60)
def test_every_question_gets_an_answer_or_a_reason(client, text, reading, max_tokens):
    body = json.dumps({"question": text, "reading": reading, "max_tokens": max_tokens})
    reply = client.post("/api/ask", content=body, headers={"content-type": "application/json"})
    assert reply.status_code in (200, 400, 413, 422)
    if reply.status_code == 200:
        assert len(text) <= LIMITS.question_chars
        assert max_tokens <= LIMITS.answer_tokens
        assert reply.json()["reading"] == reading
    else:
        assert reply.json()["error"]


@pytest.mark.parametrize("name", ["body_bytes", "question_chars", "answer_tokens", "concurrent_answers"])
def test_limits_refuse_nonsense(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        build_unchecked(Limits, **{name: 0})


@pytest.fixture
def command(model, tmp_path):
    save_model(tmp_path / "model", model)
    ByteTokenizer().save(tmp_path / "model")
    (tmp_path / "book.txt").write_text(TEXT, encoding="utf-8")
    return ["inspect", str(tmp_path / "model"), str(tmp_path / "book.txt"), "--serve"]


def test_the_command_serves_at_loopback_unless_told_otherwise(command, capsys, monkeypatch):
    calls = []
    monkeypatch.setattr("uvicorn.run", lambda app, **options: calls.append((app, options)))
    assert main(command) == 0
    assert "http://127.0.0.1:8000/" in capsys.readouterr().out
    app, options = calls[0]
    assert (options["host"], options["ws"]) == ("127.0.0.1", "none")
    assert options["limit_concurrency"] > 0
    assert TestClient(app, base_url="http://example.org").get("/").status_code == 421
    assert main([*command, "--host", "::"]) == 0
    said = capsys.readouterr()
    assert "http://[::]:8000/" in said.out
    assert "others can reach" in said.err
    assert TestClient(calls[1][0], base_url="http://example.org").get("/").status_code == 200
    assert main([*command, "--host", "lab.example"]) == 0
    assert TestClient(calls[2][0], base_url="http://example.org").get("/").status_code == 421


@pytest.mark.parametrize("library", ["fastapi", "uvicorn"])
def test_without_the_libraries_the_command_says_what_to_install(command, capsys, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert main(command) == 2
    assert "pip install 'fwpkm[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_port_that_cannot_be_is_refused(command, capsys, port):
    assert main([*command, "--port", port]) == 2
    assert f"--port must be from 1 to 65535, got {port}" in capsys.readouterr().err

"""The page with a server behind it, whom one may ask more."""

import threading
from collections.abc import Collection, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from fwpkm.inspect.data import answer_data, page_data, to_json
from fwpkm.inspect.guard import LOOPBACK, Guard, Limits
from fwpkm.inspect.html import content_policy, render_page
from fwpkm.inspect.inspection import Answer, Inspection
from fwpkm.sessions.engine import Sampling


class Question(BaseModel):
    """What a page asks."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str = Field(min_length=1)
    reading: int = Field(ge=1)
    max_tokens: int = Field(default=32, ge=1)


def make_app(
    inspection: Inspection,
    answers: Sequence[Answer] = (),
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    hosts: Collection[str] | None = LOOPBACK,
) -> Guard:
    """Return an ASGI application: the page at /, its data at /api/data, and questions to /api/ask.

    It keeps nothing of what it is asked, reads and writes no file, and builds no objects from what it is sent.

    Args:
        inspection: The document in memory.
        answers: Answers to show at the start.
        limits: What one request may ask for.
        hosts: Names that the server goes by; None takes any.
    """
    data = page_data(inspection, answers, live=True)
    page, facts = render_page(data, inspection.pieces), to_json(data)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_http)

    @app.get("/")
    def show_page() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/api/data")
    def show_data() -> Response:
        return Response(facts, media_type="application/json")

    desk = _Desk(inspection, limits)

    @app.post("/api/ask")
    def ask(question: Question) -> Response:
        return desk.answer(question)

    policy = f"{content_policy()}; frame-ancestors 'none'"
    return Guard(app, hosts=hosts, limits=limits, policy=policy)


class _Desk:
    """Answers a few questions at a time."""

    def __init__(self, inspection: Inspection, limits: Limits) -> None:
        self._inspection, self._limits = inspection, limits
        self._free = threading.BoundedSemaphore(limits.concurrent_answers)

    def answer(self, question: Question) -> Response:
        if problems := self._problems(question):
            return _error(422, "; ".join(problems))
        if not self._free.acquire(blocking=False):
            return _error(503, "another answer is being made; ask again in a moment")
        try:
            sampling = Sampling(max_tokens=question.max_tokens)
            answer = self._inspection.ask(question.question, reading=question.reading, sampling=sampling)
        except ValueError as error:
            return _error(422, str(error))
        finally:
            self._free.release()
        return _json(answer_data(self._inspection, answer))

    def _problems(self, question: Question) -> list[str]:
        limits, times = self._limits, self._inspection.recording.times
        given = (
            ("question", "characters", len(question.question), limits.question_chars),
            ("max_tokens", "tokens", question.max_tokens, limits.answer_tokens),
            ("reading", "readings", question.reading, times),
        )
        return [
            f"{name} must be at most {most} {unit}, got {value}"
            for name, unit, value, most in given
            if value > most
        ]


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status_code=status, media_type="application/json")


def _error(status: int, text: str) -> Response:
    return _json({"error": text}, status)


async def _refuse_invalid(request: Request, error: Exception) -> Response:
    """Say what is wrong, without giving back what was sent: it may be no valid Unicode or number."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(map(str, problem['loc'][1:2]))}: {problem['msg']}" for problem in error.errors()]
    return _error(422, "; ".join(problems))


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail))

"""What stands between a page's server and whoever can reach its port."""

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fwpkm.inspect.data import to_json

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may ask for."""

    body_bytes: int = 64 * 1024
    """Of a request's body."""
    question_chars: int = 4000
    """Of a question."""
    answer_tokens: int = 256
    """Of an answer."""
    concurrent_answers: int = 1
    """Answers that are made at the same time; who comes on top is told to come again."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, got {name}={value}"
            for name in ("body_bytes", "question_chars", "answer_tokens", "concurrent_answers")
            if (value := getattr(self, name)) < 1
        ]
        if problems:
            raise ValueError("Limits: " + "; ".join(problems))


class Guard:
    """Let through requests that name this server, come from its own page or none, and have a small body.

    A page of another site can make a browser send requests here, under a name of its own that it lets point to
    this machine; such names are refused (421), and so are other pages' origins (403) and large bodies (413).
    """

    def __init__(self, app: App, *, hosts: Collection[str] | None, limits: Limits, policy: str) -> None:
        """Guard an ASGI application.

        Args:
            app: The application.
            hosts: Names that this server goes by; None takes any.
            limits: Of bodies.
            policy: The content security policy of everything that it sends.
        """
        self._app, self._limits = app, limits
        self._hosts = None if hosts is None else frozenset(hosts)
        self._headers = (*_HEADERS, (b"content-security-policy", policy.encode("ascii")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, self._with_headers(send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if refusal := self._refusal(headers):
            await _refuse(send, *refusal)
            return
        body = await self._body(headers, receive)
        if body is None:
            await _refuse(
                send, 413, f"a request may have at most {self._limits.body_bytes} bytes; ask less at once"
            )
            return
        await self._app(scope, _replay(body, receive), send)

    def _refusal(self, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host, origin = _host_of(headers.get(b"host", b"")), headers.get(b"origin")
        if self._hosts is not None and host not in self._hosts:
            return 421, "this server does not go by that name"
        if origin is not None and _host_of(origin.partition(b"://")[2]) != host:
            return 403, "pages of other sites may not ask here"
        return None

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """Return the whole body, or None as soon as it is too large."""
        announced, most = headers.get(b"content-length", b"0"), self._limits.body_bytes
        if not announced.isdigit() or len(announced) > 18 or int(announced) > most:
            return None
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > most:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return bytes(body)

    def _with_headers(self, send: Send) -> Send:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        return send_more


def _host_of(address: bytes) -> str:
    """Take the name out of name:port."""
    try:
        return urlsplit("//" + address.decode("ascii")).hostname or ""
    except ValueError:
        return ""


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand out a body that was received already."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Send, status: int, error: str) -> None:
    body = to_json({"error": error}).encode("ascii")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

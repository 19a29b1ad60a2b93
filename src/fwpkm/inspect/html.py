"""The page: one file of HTML with its style, its script and all data in it, and nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from fwpkm.inspect.data import to_json

_SCRIPTS = ("view.js", "text.js", "slots.js", "table.js", "answers.js", "start.js")


def render_page(data: Mapping[str, Any], pieces: Sequence[str]) -> str:
    """Put what `page_data` returned and the text of each token into one page.

    Nothing of it is ever parsed as markup: text is escaped here and set as text by the script, and the page's
    own policy lets no other script or style run and nothing be loaded.
    """
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in _SCRIPTS)
    return Template(_asset("page.html")).substitute(
        policy=content_policy(),
        title=escape(data["title"]),
        facts=escape(_facts(data)),
        times=data["times"],
        memories="".join(_option(i, memory["layer"]) for i, memory in enumerate(data["memories"])),
        tokens="".join(_token(i, text) for i, text in enumerate(pieces)),
        style=style,
        data=to_json(data),
        script=script,
    )


def content_policy() -> str:
    """Return the policy that allows this page's style and script, and questions to its own server."""
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in _SCRIPTS)
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _facts(data: Mapping[str, Any]) -> str:
    memories = ", ".join(str(memory["layer"]) for memory in data["memories"])
    times = "once" if data["times"] == 1 else f"{data['times']} times"
    return f"{data['tokens']:,} tokens, read {times}; memories in layers {memories}"


def _option(place: int, layer: int) -> str:
    return f'<option value="{place}">layer {layer}</option>'


def _token(place: int, text: str) -> str:
    kind = ' class="line"' if "\n" in text else "" if text else ' class="part"'
    return (
        f'<span role="option" aria-selected="false" tabindex="-1" id="t{place}"{kind}>{escape(text)}</span>'
    )


def _asset(name: str) -> str:
    return (files("fwpkm.inspect") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

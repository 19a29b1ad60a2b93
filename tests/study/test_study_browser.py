"""The page that `fwpkm study` wrote, in a headless Chromium where there is one: all is drawn, nothing complains."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr")
MEASURE = """
<pre id="seen"></pre><script>
const box = e => e.getBoundingClientRect();
const inside = (e, frame) => box(e).left >= box(frame).left && box(e).right <= box(frame).right
    && box(e).top >= box(frame).top && box(e).bottom <= box(frame).bottom;
const drawn = (svg, tag) => [...svg.querySelectorAll(tag)].filter(e => inside(e, svg) && box(e).width).length;
const figures = [...document.querySelectorAll("figure")].map(f => ({
    title: f.querySelector("figcaption").innerText, curves: drawn(f.querySelector("svg"), "polyline"),
    points: drawn(f.querySelector("svg"), "circle"), cells: drawn(f.querySelector("svg"), "rect") - 1,
    outside: [...f.querySelectorAll("svg *:not(title)")].filter(e => !inside(e, f.querySelector("svg"))).length,
}));
const tables = [...document.querySelectorAll("table")].map(t => ({
    title: t.caption.innerText, rows: [...t.tBodies[0].rows].filter(r => box(r).height).length,
}));
document.getElementById("seen").textContent = JSON.stringify({figures, tables});
</script>"""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here; test_study_report.py parses a page"
)


def browse(page: Path) -> tuple[str, list[str]]:
    """Open a page; return what it became, and the lines of its console."""
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, profile, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module")
def seen(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Measure a copy of the page by a script of ours."""
    page = tmp_path_factory.mktemp("seen") / "report.html"
    page.write_text((finished / "out/report.html").read_text().replace("</body>", f"{MEASURE}</body>"))
    dom, complaints = browse(page)
    assert complaints == []
    (found,) = re.findall(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    return dict(json.loads(unescape(found)))


def test_the_console_is_silent(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text((finished / "out/report.html").read_text())
    assert browse(page)[1] == []
    page.write_text(page.read_text().replace("</body>", "<script>nothing.like.this</script></body>"))
    (complaint,) = browse(page)[1]
    assert "nothing is not defined" in complaint


def test_curves_and_heat_maps_stand_on_their_drawings(seen: dict[str, Any]) -> None:
    figures = {own["title"]: own for own in seen["figures"]}
    training = figures["Training loss by tokens seen, recall tasks included"]
    assert training["curves"] >= 1
    assert training["points"] >= 2
    assert figures["Samples with all answers right: 1 read"]["points"] == 2
    assert figures["memory: 1 read, 1 seed"]["cells"] == 2
    assert figures["memory: 1 read, another document's memory, 1 seed"]["cells"] == 2
    assert [own["title"] for own in seen["figures"] if own["outside"]] == []


def test_tables_have_their_rows(seen: dict[str, Any]) -> None:
    rows = {own["title"]: own["rows"] for own in seen["tables"]}
    assert all(rows.values())
    assert next(n for title, n in rows.items() if "failed" in title) == 2
    assert next(n for title, n in rows.items() if title.startswith("Needles, 1 read")) >= 2

"""The page in a headless Chromium, where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fwpkm.report.page import write_report
from fwpkm.testing.results import make_results

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; test_report_page.py parses the page")
def test_a_browser_sees_every_drawing_and_table(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_report(page, make_results("<b>bold</b>"), title="Seen")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written = page.read_text()
    for tag in ("svg", "table", "tr", "td", "polyline", "rect", "figure"):
        opening = re.compile(rf"<{tag}[ >]")
        assert len(opening.findall(done.stdout)) == len(opening.findall(written)) > 0, tag
    assert "<b>" not in done.stdout

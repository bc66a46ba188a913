"""A page of ours as a real browser lays it out."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_QUIET = [f"--disable-{what}" for what in ("quic", "background-networking", "component-update", "sync")] + [
    "--no-first-run"
]
"""Nothing is looked up on the network, which may be closed."""
_REPORT = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  document.title = JSON.stringify({
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    height: document.documentElement.scrollHeight,
    images: images.length,
    broken: images.filter((image) => !image.naturalWidth).length,
    requests: performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length,
  });
});
</script>"""


@dataclass(frozen=True)
class Look:
    """Pixels that stick out to the right, height of the page, images, those that do not show, and fetched files."""

    overflow: int
    height: int
    images: int
    broken: int
    requests: int


def look(page: Path, width: int, scratch: Path) -> Look:
    """Open a copy of the page, which may run a script to measure itself, in a window of `width` pixels."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    copy = scratch / f"{width}.html"
    copy.write_text(text.replace("</body>", f"{_REPORT}</body>"), encoding="utf-8")
    shown = _open(copy, scratch, f"--window-size={width},900", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", shown, re.DOTALL)
    assert title is not None, shown[:500]
    return Look(**json.loads(html.unescape(title[1])))


def printed_pages(page: Path, scratch: Path) -> int:
    """Sheets of paper that the page takes when it is printed."""
    pdf = scratch / "printed.pdf"
    _open(page, scratch, "--no-pdf-header-footer", f"--print-to-pdf={pdf}")
    count = re.search(rb"/Type /Pages\s*/Count (\d+)", pdf.read_bytes())
    assert count is not None
    return int(count[1])


def _open(page: Path, scratch: Path, *options: str) -> str:
    """What the browser writes about a page."""
    if CHROMIUM is None:
        pytest.skip("no chromium here to look at a page with (infra/test-services.sh installs it)")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *_QUIET]
    command += [f"--user-data-dir={scratch / 'profile'}", "--virtual-time-budget=4000", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

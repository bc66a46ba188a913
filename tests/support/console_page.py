"""A console in a process of its own, and a real browser that uses it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.browser import CHROMIUM

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"] + [
    f"--disable-{what}" for what in ("quic", "background-networking", "component-update", "sync")
]
TIMEOUT_MS = 30_000
expect.set_options(timeout=TIMEOUT_MS)


@dataclass
class RunningConsole:
    """Where a console listens: `origin`, and the address to open, with the token where one was made."""

    origin: str
    address: str
    process: subprocess.Popen[str]


@contextmanager
def running_console(*words: str | Path, cwd: Path) -> Iterator[RunningConsole]:
    """`samif console` on a free port."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "console", "--port", "0", *map(str, words)]
    paths = os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.match(r"console at ((https?://[^/]+)/\S*);", line)
        assert found, line
        yield RunningConsole(found[2], found[1], process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(90)


@dataclass
class Seen:
    """A page, and the addresses that it asked for, errors of its scripts and refusals of its policy."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium of this machine."""
    if CHROMIUM is None:
        pytest.skip("no chromium here to look at a page with (infra/test-services.sh installs it)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


def open_page(chromium: Browser, address: str, width: int = 1280, height: int = 860, language: str = "en-GB") -> Seen:
    """A new window at an address."""
    context = chromium.new_context(viewport={"width": width, "height": height}, locale=language)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    seen = Seen(page)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and seen.errors.append(message.text))
    page.goto(address)
    return seen

"""Seconds until the images of a folder are shown in the console in chromium, and the server's memory: 200 images of 12
megapixels, at first and from the cache of small copies.

python -m benchmarks.grid_browser [--images 200]
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Browser

from benchmarks.clicks_browser import HEIGHT, WIDTH, scene
from tests.support.console_page import RunningConsole, browser, open_page, running_console
from tests.support.small_line import write_small

LEFT = """all => [...document.querySelectorAll("#images img")].filter(image =>
  !(image.complete && image.naturalWidth) && (all || image.getBoundingClientRect().top < innerHeight)).length"""
"""Images that are not there yet: all, or those in the window."""


def shown(chromium: Browser, console: RunningConsole, count: int) -> tuple[float, float]:
    """Seconds until the images in the window are there, and until all are, while a person scrolls."""
    started = time.monotonic()
    page = open_page(chromium, console.address).page
    page.wait_for_selector("#images img")
    assert page.locator("#images img").count() == count
    while page.evaluate(LEFT, False):
        page.wait_for_timeout(20)
    first = time.monotonic() - started
    page.locator("#images img").first.hover()
    while page.evaluate(LEFT, True):
        page.mouse.wheel(0, 400)
        page.wait_for_timeout(20)
    page.context.close()
    return first, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_small(root)
        (root / "photos").mkdir()
        pixels, _ = scene()
        for number in range(options.images):
            turned = Image.fromarray(np.roll(pixels, 17 * number, axis=1))
            turned.save(root / "photos" / f"{number:03d}.jpg", quality=92)
        with (
            running_console("-w", root / "ws", "--images", root / "photos", cwd=root) as console,
            browser() as chromium,
        ):
            server, load = psutil.Process(console.process.pid), os.getloadavg()[0]
            before = server.memory_info().rss
            for what in ("at first", "from the cache"):
                first, everything = shown(chromium, console, options.images)
                print(f"{what}: in the window after {first:.1f} s, all after {everything:.1f} s")
            peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
            assert peak is not None
    print(f"memory of the server: {before / 1e6:.0f} MB before, at most {int(peak[1]) / 1e3:.0f} MB")
    print(f"load {load:.1f} before, {options.images} images of {WIDTH} x {HEIGHT}")


if __name__ == "__main__":
    main()

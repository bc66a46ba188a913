"""Labels leave the console as an archive, and what the format cannot hold is told."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from samif.masks.rle import encode
from tests.flows.console.conftest import TOKENS, client
from tests.support.console_page import browser, open_page, running_console
from tests.support.small_line import write_small


def test_an_export_is_saved_and_tells_what_the_format_cannot_hold(tmp_path: Path) -> None:
    write_small(tmp_path / "line")
    root = tmp_path / "line" / "ws"
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "photos" / "0.png")
    (tmp_path / "accounts").write_text(f"viewer viewer {TOKENS['viewer']}\n")
    with (
        running_console(
            "-w", root, "--images", tmp_path / "photos", "--accounts", tmp_path / "accounts", cwd=tmp_path
        ) as console,
        browser() as chromium,
    ):
        page = open_page(chromium, f"{console.origin}/#token={TOKENS['viewer']}").page
        page.get_by_role("button", name="Export").click()
        expect(page.get_by_role("alert")).to_contain_text("label one first")
        ring = np.zeros((1, 48, 64), dtype=bool)
        ring[0, 4:40, 4:40] = True
        ring[0, 14:30, 14:30] = False
        body = {"revision": 0, "objects": [{"name": "ring", "rle": encode(ring)[0]}]}
        labeller = client([root], [tmp_path / "photos"], "labeller")
        labels = "/api/workspaces/1/sets/photos/labels"
        assert labeller.put(labels, params={"name": "0.png"}, json=body).status_code == 200
        page.locator("#view > .row select").select_option("yolo")
        with page.expect_download() as saved:
            page.get_by_role("button", name="Export").click()
        assert saved.value.suggested_filename == "photos-yolo.zip"
        archive = zipfile.ZipFile(io.BytesIO(Path(saved.value.path()).read_bytes()))
        assert any(name.endswith("0.txt") for name in archive.namelist())
        expect(page.locator("#export-lost")).to_contain_text("hole")

"""Going from section to section while a page still reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.flows.console.conftest import TOKENS
from tests.support.console_page import RunningConsole, browser, open_page, running_console
from tests.support.small_line import write_small

GOES_ELSEWHERE = """
const read = Response.prototype.json;
Response.prototype.json = async function () {
  const found = await read.call(this);
  if (this.url.endsWith("/sets")) location.hash = "#/1/runs";
  return found;
};
"""
"""The address changes when a page has its answer, before the event of the change arrives."""


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningConsole]:
    root = tmp_path_factory.mktemp("navigation")
    write_small(root / "line")
    (root / "photos").mkdir()
    Image.new("RGB", (64, 48)).save(root / "photos" / "0.png")
    (root / "accounts").write_text("".join(f"{role} {role} {token}\n" for role, token in TOKENS.items()))
    words = ("-w", root / "line" / "ws", "--images", root / "photos", "--accounts", root / "accounts")
    with running_console(*words, cwd=root) as running:
        yield running


@pytest.fixture
def page(console: RunningConsole) -> Iterator[Page]:
    with browser() as chromium:
        yield open_page(chromium, f"{console.origin}/#token={TOKENS['operator']}").page


def test_a_page_that_still_reads_does_not_hold_up_the_next_one(page: Page) -> None:
    expect(page.locator("h1")).to_have_text("photos")
    page.route("**/versions", lambda _: None)  # never answered
    page.get_by_role("link", name="Versions").click()
    page.get_by_role("link", name="Runs").click()
    expect(page.locator("#why")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator("#status")).to_be_empty()


def test_the_only_folder_does_not_replace_an_address_that_was_chosen_meanwhile(console: RunningConsole) -> None:
    with browser() as chromium:
        page = open_page(chromium, f"{console.origin}/").page
        page.add_init_script(GOES_ELSEWHERE)
        page.goto(f"{console.origin}/?again#token={TOKENS['operator']}")
        expect(page.locator("#why")).to_be_visible()
        assert page.evaluate("location.hash") == "#/1/runs"

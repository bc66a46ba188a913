"""The whole way in a browser: label, teach, watch the run, promote, be refused, approve, roll back, review an error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from ruamel.yaml import YAML

from benchmarks.clicks import next_click
from samif.config import DrawnParams, load_params
from samif.dataset.draw.line import draw_line
from samif.masks.rle import decode
from tests.flows.console.conftest import TOKENS
from tests.support.console_page import RunningConsole, browser, open_page, running_console
from tests.support.drawn import drawn_workspace

pytestmark = pytest.mark.slow

CLASS = "star_knob"
SIZE = 192
RUN_MS = 400_000
MOST_CLICKS = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("way")
    (root / "ws").mkdir()
    drawn_workspace(root / "ws", {}, base_images=22, mixed_images=14, val_images=10)
    params = DrawnParams(seed=11, base_images=1, mixed_images=40, val_images=2, size=SIZE)
    draw_line(root / "drawn", params)
    content = json.loads((root / "drawn" / "train" / "annotations.json").read_text())
    id_ = next(c["id"] for c in content["categories"] if c["name"] == CLASS)
    shown = list(dict.fromkeys(a["image_id"] for a in content["annotations"] if a["category_id"] == id_))[:5]
    (root / "photos").mkdir()
    for image in content["images"]:
        if image["id"] in shown:
            source = root / "drawn" / "train" / "images" / image["file_name"]
            (root / "photos" / image["file_name"]).write_bytes(source.read_bytes())
    (root / "accounts").write_text("".join(f"{role} {role} {token}\n" for role, token in TOKENS.items()))
    return root


def truth(place: Path) -> dict[str, list[Any]]:
    """Masks (N, H, W) of the knobs in each image."""
    content = json.loads((place / "drawn" / "train" / "annotations.json").read_text())
    id_ = next(c["id"] for c in content["categories"] if c["name"] == CLASS)
    names = {i["id"]: i["file_name"] for i in content["images"]}
    found: dict[str, list[Any]] = {}
    for a in content["annotations"]:
        if a["category_id"] == id_:
            found.setdefault(names[a["image_id"]], []).append(decode([a["segmentation"]])[0])
    return found


@pytest.fixture(scope="module")
def console(place: Path) -> Iterator[RunningConsole]:
    words = ("-w", place / "ws", "--images", place / "photos", "--accounts", place / "accounts")
    with running_console(*words, cwd=place) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def enter(chromium: Browser, console: RunningConsole, role: str, section: str) -> Page:
    seen = open_page(chromium, f"{console.origin}/#token={TOKENS[role]}")
    expect(seen.page.locator("#person")).to_contain_text(role)
    seen.page.evaluate(f"location.hash = '#/1/{section}'")
    return seen.page


def run(page: Page, why: str) -> None:
    """Start a run, see its stages, wait until it is done."""
    page.fill("#why", why)
    page.get_by_role("button", name="Start run").click()
    wait(page)


def wait(page: Page) -> None:
    expect(page.locator("#run .badge.running").first).to_be_visible()
    expect(page.locator(".stages li").first).to_be_visible(timeout=RUN_MS)
    expect(page.locator("#run h2 .badge.done").first).to_be_visible(timeout=RUN_MS)


def label(page: Page, place: Path, name: str) -> float:
    """Outline every knob of an image by clicks at the largest error; the least IoU."""
    worst = 1.0
    for number, target in enumerate(truth(place)[name], start=1):
        mask = None
        for _ in range(MOST_CLICKS):
            click = next_click(target, mask)
            box = page.locator(".stage svg").bounding_box()
            assert box is not None
            scale = min(box["width"], box["height"]) / SIZE
            left, top = box["x"] + (box["width"] - SIZE * scale) / 2, box["y"] + (box["height"] - SIZE * scale) / 2
            with page.expect_response(re.compile("/outline")) as answer:
                page.mouse.click(
                    left + click.x * scale, top + click.y * scale, button="left" if click.foreground else "right"
                )
            page.wait_for_timeout(700)  # a small object is looked at again
            mask = decode([answer.value.json()["rle"]])[0]
            if (mask & target).sum() / (mask | target).sum() >= 0.9:
                break
        page.keyboard.press("n")
        page.keyboard.type(CLASS)
        page.keyboard.press("Enter")
        expect(page.locator("#objects li")).to_have_count(number)
        expect(page.locator("#saved")).to_have_text("saved")
        assert mask is not None
        worst = min(worst, float((mask & target).sum() / (mask | target).sum()))
    return worst


def test_the_whole_way(chromium: Browser, console: RunningConsole, place: Path) -> None:
    operator, approver = (enter(chromium, console, role, "runs") for role in ("operator", "approver"))
    run(operator, "first")
    operator.evaluate("location.hash = '#/1/versions'")
    operator.locator("#versions").get_by_role("button", name="Promote …").click()
    operator.fill("#why", "base")
    operator.get_by_role("button", name="Promote", exact=True).click()
    expect(operator.locator("#history tr")).to_have_count(1)

    operator.evaluate("location.hash = '#/1/label/photos'")
    ious = []
    for name in sorted(truth(place)):
        if (place / "photos" / name).exists():
            operator.evaluate(f"location.hash = '#/1/label/photos/{name}'")
            operator.wait_for_selector('.stage[data-ready="yes"]')
            expect(operator.locator(".stage svg")).to_have_attribute("aria-label", re.compile(re.escape(name)))
            ious.append(label(operator, place, name))
    assert len(ious) == 5 and np.median(ious) >= 0.9, ious

    operator.evaluate("location.hash = '#/1/label/photos'")
    operator.locator("#teach summary").click()
    operator.locator("#teach input[pattern]").fill("week1")
    operator.locator("#teach input[type=number]").fill("3")
    operator.get_by_role("button", name="Add session", exact=True).click()
    expect(operator.locator("#run")).to_contain_text(CLASS)
    operator.fill("#why", "knobs")
    operator.get_by_role("button", name="Start run").click()
    expect(operator.locator("#whole")).to_contain_text("of the whole run", timeout=60_000)
    expect(operator.locator("#whole")).to_contain_text("session@week1")  # it never ran
    wait(operator)

    operator.evaluate("location.hash = '#/1/versions'")
    operator.locator("#versions tr", has_text="week1").get_by_role("button").click()
    operator.locator("#examined").wait_for(timeout=60_000)
    operator.fill("#why", "knobs")
    operator.get_by_role("button", name="Promote", exact=True).click()
    expect(operator.locator("#history tr")).to_have_count(2, timeout=60_000)
    operator.fill("#back-why", "a trial")
    operator.locator("#rollback").get_by_role("button").click()
    expect(operator.locator("#history tr")).to_have_count(3, timeout=60_000)

    operator.evaluate("location.hash = '#/1/review'")
    operator.locator('[data-kind="error"] [data-decision="never"]:enabled').first.click(timeout=60_000)
    expect(operator.locator("#draft-background")).to_contain_text("Objects: 1")
    operator.locator("#teach-background summary").click()
    operator.locator("#teach-background input[pattern]").fill("glare")
    operator.locator("#teach-background").get_by_role("button", name="Add session and run").click()
    wait(operator)
    assert load_params(place / "ws" / "params.yaml").sessions["glare"].background
    operator.fill("#why", "again")
    operator.get_by_role("button", name="Start run").click()
    expect(operator.locator("#run pre")).to_contain_text("nothing to do", timeout=60_000)
    expect(operator.locator("#run h2 .badge").first).to_have_text("done", timeout=60_000)
    approver.reload()
    expect(approver.locator("#run")).to_contain_text("again")


def test_the_gate_refuses_and_another_person_approves(chromium: Browser, console: RunningConsole, place: Path) -> None:
    path, yaml = place / "ws" / "params.yaml", YAML()
    content = yaml.load(path)
    content["train_base"]["head"] = "centred"  # another head, so the rows of known classes are others
    content["gates"] |= {"approval": "always", "approver": "another"}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    operator, approver = (enter(chromium, console, role, "runs") for role in ("operator", "approver"))
    run(operator, "another head")
    operator.evaluate("location.hash = '#/1/versions'")
    rows = operator.locator("#versions tr")
    history = len(operator.evaluate("fetch('/api/workspaces/1/versions').then(a => a.json()).then(a => a.history)"))

    def promote(row: Locator, why: str) -> None:
        row.get_by_role("button").click()
        operator.locator("#examined").wait_for(timeout=60_000)
        operator.fill("#why", why)
        operator.get_by_role("button", name="Promote", exact=True).click()

    promote(rows.filter(has=operator.locator("td.words", has_text="base")).first, "a trial")
    expect(operator.locator("#refusal")).to_contain_text(re.compile(r"is refused: .+"), timeout=60_000)
    expect(operator.locator("#history tr")).to_have_count(history)
    promote(rows.filter(has_text=re.compile(r"/2\b")), "knobs again")
    expect(operator.locator("#refusal")).to_contain_text("needs a person's approval", timeout=60_000)
    operator.get_by_role("button", name="Ask for approval").click()
    expect(operator.locator("#requests")).to_contain_text("knobs again")
    expect(operator.locator("#requests").get_by_role("button", name="Approve and promote")).to_have_count(0)
    approver.evaluate("location.hash = '#/1/versions'")
    approver.locator("#requests").get_by_role("button", name="Approve and promote").click()
    expect(approver.locator("#history tr")).to_have_count(history + 1, timeout=60_000)
    expect(approver.locator("#history tr").first).to_contain_text("approved by approver")
    operator.reload()
    operator.fill("#back-why", "enough")
    operator.locator("#rollback").get_by_role("button").click()
    expect(operator.locator("#history tr").first).to_contain_text("rolled back", timeout=60_000)
    expect(operator.locator("#history tr").first).to_contain_text("enough")


def test_a_run_is_cancelled_and_a_second_one_refused(chromium: Browser, console: RunningConsole, place: Path) -> None:
    page = enter(chromium, console, "operator", "point")
    page.locator("#limit").focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="Save limit").click()
    page.locator("#status", has_text="The limit is").wait_for()
    page.evaluate("location.hash = '#/1/runs'")
    page.fill("#why", "other limit")
    page.get_by_role("button", name="Start run").click()
    page.get_by_role("button", name="Cancel run").wait_for()
    status = page.evaluate(
        """async () => (await fetch("/api/workspaces/1/run", {method: "POST", credentials: "same-origin",
        headers: {"Content-Type": "application/json", "X-Samif-Console": "1"}, body: '{"why": ""}'})).status"""
    )
    assert status == 409
    page.get_by_role("button", name="Cancel run").click()
    expect(page.locator("#run h2 .badge").first).to_have_text("cancelled", timeout=60_000)
    assert (
        page.evaluate("fetch('/api/workspaces/1/actions').then(a => a.json()).then(a => a[0].action)") == "cancel run"
    )

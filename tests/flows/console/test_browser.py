"""The console in a real browser: label, share an image, compare and promote, in two languages and at two widths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from samif.masks.rle import decode
from tests.flows.console.conftest import TOKENS
from tests.flows.console.test_review import SAMPLE, write_alarms, write_sample
from tests.support.console_page import RunningConsole, Seen, browser, open_page, running_console
from tests.support.small_line import write_small
from tests.support.tagged_line import TaggedLine

HEIGHT, WIDTH = 192, 256
SERIOUS = ("serious", "critical")
SECTIONS = ("label", "review", "runs", "versions", "point", "try")


def disc(number: int) -> NDArray[np.bool_]:
    """The object (H, W) of image `number`."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    return np.asarray((x - (70 + 22 * number)) ** 2 + (y - (70 + 9 * number)) ** 2 < (28 + 2 * number) ** 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """A workspace that was not run, with five images of one disc each, and one with versions; persons of two roles."""
    root = tmp_path_factory.mktemp("browser")
    write_small(root / "label", encoder={"name": "photo"}, propose={"multimask": True, "min_objectness": 0.2})
    rng = np.random.default_rng(0)
    (root / "discs").mkdir()
    for number in range(5):
        pixels = rng.normal(60, 3, (HEIGHT, WIDTH, 3))
        pixels[disc(number)] = (210, 190, 60)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "discs" / f"{number}.png")
    write_sample(root / "shadow" / SAMPLE, root / "discs" / "4.png", size=(HEIGHT, WIDTH))
    write_alarms(root / "label" / "ws", root / "discs", ["2.png"])
    TaggedLine(root / "versions", migrated, approval="always", approver="another").grow()
    (root / "accounts").write_text("".join(f"{role} {role} {token}\n" for role, token in TOKENS.items()))
    return root


@pytest.fixture(scope="module")
def console(place: Path) -> Iterator[RunningConsole]:
    words = ("-w", place / "label" / "ws", "-w", place / "versions", "--images", place / "discs")
    words = (*words, "--shadow-folder", place / "shadow")
    with running_console(*words, "--accounts", place / "accounts", cwd=place) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


def entered(chromium: Browser, console: RunningConsole, role: str, hash_: str = "", **window: Any) -> Seen:
    """A window of the person with that role."""
    seen = open_page(chromium, f"{console.origin}/#token={TOKENS[role]}", **window)
    expect(seen.page.locator("#person")).to_contain_text(role)
    if hash_:
        seen.page.evaluate(f"location.hash = {json.dumps(hash_)}")
    return seen


def ready(page: Page) -> None:
    page.wait_for_selector('.stage[data-ready="yes"]')


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Screen position of an image pixel."""
    box = page.locator(".stage svg").bounding_box()
    assert box is not None
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    left, top = box["x"] + (box["width"] - WIDTH * scale) / 2, box["y"] + (box["height"] - HEIGHT * scale) / 2
    return left + x * scale, top + y * scale


def centre(number: int) -> tuple[float, float]:
    return 70 + 22 * number + 0.5, 70 + 9 * number + 0.5


def saved(place: Path) -> dict[str, list[tuple[str, NDArray[np.bool_]]]]:
    """Names and masks of every image, as they are on the disk."""
    content = json.loads((place / "label" / "ws" / "labels" / "discs.json").read_bytes())
    names = {c["id"]: c["name"] for c in content["categories"]}
    found: dict[str, list[tuple[str, NDArray[np.bool_]]]] = {i["file_name"]: [] for i in content["images"]}
    files = {i["id"]: i["file_name"] for i in content["images"]}
    for a in content["annotations"]:
        found[files[a["image_id"]]].append((names[a["category_id"]], decode([a["segmentation"]])[0]))
    return found


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_five_images_are_labelled_by_clicks_and_keys(chromium: Browser, console: RunningConsole, place: Path) -> None:
    seen = entered(chromium, console, "labeller")
    page = seen.page
    expect(page.locator("#images .thumb")).to_have_count(5)
    page.locator("#images .thumb").first.click()
    for number in range(5):
        expect(page.locator(".tools .note")).to_have_text(f"{number + 1} / 5")
        ready(page)
        if number == 3:  # with the keyboard alone: the cursor starts in the middle of the image
            page.keyboard.press("Space")
            page.keyboard.press("Space")
        else:
            page.mouse.click(*at(page, *centre(number)))
        page.wait_for_selector("#current")
        expect(page.locator(".stage .busy")).to_be_hidden()
        if number == 0:  # the first class has to be named, the others take its name
            page.keyboard.press("n")
            page.keyboard.type("disc")
        page.keyboard.press("Enter")
        expect(page.locator("#objects li")).to_have_count(1)
        expect(page.locator("#saved")).to_have_text("saved")
        page.keyboard.press("PageDown")
    expect(page.locator("#images .thumb .why").first).to_contain_text("Objects: 1")
    found = saved(place)
    assert {name: [n for n, _ in objects] for name, objects in found.items()} == {
        f"{n}.png": ["disc"] for n in range(5)
    }
    assert [round(iou(found[f"{n}.png"][0][1], disc(n)), 1) >= 0.9 for n in range(5)] == [True] * 5
    assert seen.errors == []
    assert {r.partition("/")[0] for r in seen.requests} == {"http:"}
    assert all(r.startswith(console.origin) for r in seen.requests), "no request leaves the machine"


def test_an_object_is_corrected_undone_and_given_a_hole(
    chromium: Browser, console: RunningConsole, place: Path
) -> None:
    page = entered(chromium, console, "labeller", "#/1/label/discs/4.png").page
    ready(page)
    before = len(saved(place)["4.png"])
    page.mouse.click(*at(page, 20, 20))  # the plate
    page.wait_for_selector("#current")
    page.mouse.click(*at(page, 40, 20), button="right")
    expect(page.locator(".stage .busy")).to_be_hidden()
    page.keyboard.press("z")
    page.keyboard.press("z")
    expect(page.locator("#current")).to_have_count(0)
    page.keyboard.press("a")
    outline = [(20, 20), (60, 20), (60, 60), (20, 60), (20, 22)]
    for polygon, mode in ((outline, "a"), ([(32, 32), (48, 32), (48, 48), (32, 48), (32, 34)], "x")):
        page.keyboard.press(mode)
        page.mouse.move(*at(page, *polygon[0]))
        page.mouse.down()
        for point in polygon[1:]:
            page.mouse.move(*at(page, *point), steps=3)
        page.mouse.up()
        page.wait_for_timeout(300)
        page.wait_for_selector("#current")
    page.fill("#class-name", "ring")
    page.press("#class-name", "Enter")
    expect(page.locator("#objects li")).to_have_count(before + 1)
    expect(page.locator("#saved")).to_have_text("saved")
    ring = next(mask for name, mask in saved(place)["4.png"] if name == "ring")
    assert ring[25, 25] and ring[55, 40] and not ring[40, 40]
    page.keyboard.press("z")
    expect(page.locator("#saved")).to_have_text("saved")
    expect(page.locator("#objects li")).to_have_count(before)
    page.wait_for_timeout(300)
    assert all(name != "ring" for name, _ in saved(place)["4.png"])


def test_two_people_on_one_image_both_keep_their_labels(
    chromium: Browser, console: RunningConsole, place: Path
) -> None:
    pages = [entered(chromium, console, role, "#/1/label/discs/0.png").page for role in ("labeller", "operator")]
    for page in pages:
        ready(page)
    for page, name, x in zip(pages, ("left", "right"), (8, 200), strict=True):
        page.keyboard.press("a")
        page.mouse.move(*at(page, x, 10))
        page.mouse.down()
        for point in ((x + 40, 10), (x + 40, 30), (x, 30), (x, 12)):
            page.mouse.move(*at(page, *point), steps=3)
        page.mouse.up()
        page.wait_for_selector("#current")
        page.fill("#class-name", name)
        page.press("#class-name", "Enter")
        expect(page.locator("#saved")).to_have_text("saved")
    expect(pages[1].locator("#objects li")).to_have_count(3)
    assert {name for name, _ in saved(place)["0.png"]} == {"disc", "left", "right"}


@pytest.mark.slow
def test_versions_are_compared_refused_approved_and_rolled_back(chromium: Browser, console: RunningConsole) -> None:
    operator = entered(chromium, console, "operator", "#/2/versions").page
    approver = entered(chromium, console, "approver", "#/2/versions").page

    def ask(version: int, why: str) -> None:
        operator.locator("#versions tr", has_text=f"demo/{version}").get_by_role("button").click()
        operator.locator("#examined").wait_for()
        operator.fill("#why", why)
        operator.get_by_role("button", name="Promote", exact=True).click()

    ask(2, "hooks")
    expect(operator.locator("#refusal")).to_contain_text("needs a person's approval")
    # nothing is live, so there is no verdict to look at: the approver promotes
    approver.locator("#versions tr", has_text="demo/2").get_by_role("button").click()
    approver.fill("#why", "hooks")
    approver.get_by_role("button", name="Approve and promote").click()
    expect(approver.locator("#refusal")).to_contain_text("ask another person")
    assert operator.evaluate(
        """async () => (await fetch("/api/workspaces/2/versions/requests", {method: "POST", credentials: "same-origin",
        headers: {"Content-Type": "application/json", "X-Samif-Console": "1"},
        body: JSON.stringify({version: 2, why: "hooks", verdict: ""})})).status"""
    ) == 200  # fmt: skip
    approver.reload()
    approver.locator("#requests").get_by_role("button", name="Approve and promote").click()
    expect(approver.locator("#history tr")).to_have_count(1)

    operator.reload()
    ask(3, "wings")
    expect(operator.locator("#refusal")).to_contain_text("AP fell from")
    expect(operator.frame_locator("iframe").locator("body")).to_contain_text("is refused")
    ask(4, "better wings")
    expect(operator.locator("#refusal")).to_contain_text("needs a person's approval")
    operator.get_by_role("button", name="Ask for approval").click()
    expect(operator.locator("#requests")).to_contain_text("better wings")
    approver.reload()
    approver.locator("#requests").get_by_role("button", name="Approve and promote").click()
    expect(approver.locator("#history tr")).to_have_count(2)
    operator.reload()
    operator.fill("#back-why", "bolts missed")
    operator.locator("#rollback").get_by_role("button").click()
    expect(operator.locator("#history tr").first).to_contain_text("rolled back")
    expect(operator.locator("#history tr").first).to_contain_text("bolts missed")


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 820])
def test_every_section_is_accessible_and_fits(width: int, chromium: Browser, console: RunningConsole) -> None:
    """axe-core finds nothing serious; nothing sticks out to the right."""
    seen = entered(chromium, console, "approver", width=width)
    page, axe = seen.page, Axe()
    for address in [
        *(f"#/2/{section}" for section in SECTIONS),
        "#/1/review",
        "#/1/label/discs",
        "#/1/label/discs/1.png",
    ]:
        page.evaluate(f"location.hash = {json.dumps(address)}")
        page.wait_for_timeout(600)
        violations = [
            (v["id"], [n["html"][:120] for n in v["nodes"]][:3])
            for v in axe.run(page).response["violations"]
            if v["impact"] in SERIOUS
        ]
        assert violations == [], (address, violations)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
    assert [e for e in seen.errors if "404" not in e] == []


def test_the_review_decides_and_fixes_with_the_keyboard(
    chromium: Browser, console: RunningConsole, place: Path
) -> None:
    seen = entered(chromium, console, "operator", "#/1/review")
    page = seen.page
    cards = page.locator(".crop")
    expect(cards).to_have_count(6)  # two alarms with an image, one without, three disagreements
    page.keyboard.press("ArrowRight")
    for count in (5, 4):
        expect(cards.nth(0)).to_be_focused()
        page.keyboard.press("a")
        expect(cards).to_have_count(count)
    expect(cards.nth(0)).to_be_focused()
    page.keyboard.press("v")  # an alarm without an image can only be acknowledged
    page.keyboard.press("a")
    expect(cards).to_have_count(3)
    page.keyboard.press("v")
    expect(page.locator("#draft-background")).to_contain_text("Objects: 1, images: 1")
    expect(cards).to_have_count(2)
    page.keyboard.press("f")
    ready(page)
    page.wait_for_selector("#current")
    assert "/label/review/" in page.evaluate("location.hash")
    page.fill("#class-name", "wing")
    page.press("#class-name", "Enter")
    expect(page.locator("#saved")).to_have_text("saved")
    page.get_by_role("link", name="Review").last.click()
    expect(page.locator("#draft-shots")).to_contain_text("Objects: 1, images: 1")
    expect(cards).to_have_count(1)
    page.locator("#teach-shots summary").click()
    expect(page.locator("#teach-shots")).to_contain_text("wing (1)")
    page.locator("#decided").check()
    expect(cards).to_have_count(5)
    page.get_by_role("button", name="Put back").first.click()
    expect(cards).to_have_count(4)
    assert seen.errors == [e for e in seen.errors if "404" in e]
    assert all(r.startswith(console.origin) for r in seen.requests)
    labels = json.loads((place / "label" / "ws" / "labels" / "review.json").read_bytes())
    assert [c["name"] for c in labels["categories"]] == ["wing"]


def test_labels_are_imported_in_the_browser(chromium: Browser, console: RunningConsole, place: Path) -> None:
    seen = entered(chromium, console, "labeller", "#/1/label/discs")
    page = seen.page
    page.locator("#import summary").click()
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.locator("#import-report")).to_contain_text("Choose a file")
    shape = {"label": "frame", "points": [[5, 150], [60, 150], [60, 180]], "shape_type": "polygon"}
    box = shape | {"points": [[5, 5], [60, 20]], "shape_type": "rectangle"}
    content = {"version": "5", "flags": {}, "imagePath": "3.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    (place / "3.json").write_text(json.dumps(content | {"shapes": [shape, box]}))
    page.set_input_files("#import-file", place / "3.json")
    page.select_option("#import-labelled", "join")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.locator("#import-report")).to_contain_text("Imported from labelme: objects 1, images 1")
    expect(page.locator("#import-report")).to_contain_text("1 images or labels were left out")
    expect(page.locator("#import-report table")).to_contain_text("has a box without an outline")
    violations = [v["id"] for v in Axe().run(page).response["violations"] if v["impact"] in SERIOUS]
    assert violations == []
    assert "frame" in [name for name, _ in saved(place)["3.png"]]
    (place / "folder").mkdir()
    (place / "folder" / "3.json").write_text((place / "3.json").read_text())
    page.set_input_files("#import-file", [])
    page.set_input_files("#import-folder", place / "folder")
    page.select_option("#import-labelled", "keep")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.locator("#import-report")).to_contain_text("1 images kept their labels")
    assert seen.errors == [] and all(r.startswith(console.origin) for r in seen.requests)


def test_texts_are_japanese_where_the_browser_is(chromium: Browser, console: RunningConsole) -> None:
    page = open_page(chromium, f"{console.origin}/#token={TOKENS['viewer']}", language="ja-JP").page
    expect(page.locator("#nav")).to_contain_text("バージョン")
    assert page.evaluate("document.documentElement.lang") == "ja"
    page.select_option("#language", "en")
    expect(page.locator("#nav")).to_contain_text("Versions")
    page.reload()
    expect(page.locator("#nav")).to_contain_text("Versions")


def test_a_viewer_sees_but_cannot_change(chromium: Browser, console: RunningConsole) -> None:
    page = entered(chromium, console, "viewer", "#/1/label/discs/2.png").page
    expect(page.locator("#objects li")).to_have_count(1)
    expect(page.locator("#class-name")).to_have_count(0)
    page.evaluate("location.hash = '#/2/versions'")
    expect(page.locator("#versions tr")).to_have_count(4)
    expect(page.locator("#rollback")).to_have_count(0)


def test_without_a_token_nothing_is_shown(chromium: Browser, console: RunningConsole) -> None:
    page = open_page(chromium, console.origin).page
    page.locator("#token").fill("wrong-0123456789abcdef")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_contain_text("not a valid token")
    page.locator("#token").fill(TOKENS["viewer"])
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#person")).to_contain_text("viewer")

"""The field guide: the same in both languages, with measured numbers and drawn images."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.few_shots import CHANGES
from benchmarks.field_guide_images import SHEETS, sheet
from samif.advice.classes import READY_IMAGES, USABLE_IMAGES
from samif.classifier.operating_point import FEWEST_EXPECTED, IMAGES
from samif.config import TrainBaseParams
from tests.support.documents import ROOT, command_lines

GUIDE = ROOT / "docs" / "field-guide"
PAIRS = [("index.md", "index.ja.md"), ("card.md", "card.ja.md")]
MEASURED = [ROOT / "benchmarks" / name for name in ("FIELD_GUIDE.md", "SUGGEST.md")]
MOST_BYTES = 1_000_000


def text_of(name: str) -> str:
    return (GUIDE / name).read_text(encoding="utf-8")


def sections(text: str) -> list[str]:
    """The text before the first heading, and each section with its heading."""
    return re.split(r"^(?=#+ )", text, flags=re.MULTILINE)


def shape(section: str) -> tuple[int, list[str], list[str], list[str], int]:
    """Level of the heading, images, cells per table row, fenced blocks, list items."""
    prose = re.sub(r"^```.*?^```\n", "", section, flags=re.MULTILINE | re.DOTALL)
    return (
        len(re.match(r"#*", section)[0]),  # type: ignore[index]
        re.findall(r"!\[[^\]]*\]\(([^)]+)\)", prose),
        [str(line.count("|")) for line in prose.splitlines() if line.startswith("|")],
        re.findall(r"^```.*?^```\n", section, flags=re.MULTILINE | re.DOTALL),
        len(re.findall(r"^(?:-|\d+\.) ", prose, flags=re.MULTILINE)),
    )


def numbers(section: str) -> Counter[str]:
    """Numbers of the text, those of code and of the addresses of links left out."""
    prose = re.sub(r"^```.*?^```\n|`[^`]*`|\]\([^)]*\)", "", section, flags=re.MULTILINE | re.DOTALL)
    return Counter(re.findall(r"[+-]?\d+(?:\.\d+)?", prose.replace("−", "-")))


@pytest.mark.parametrize(("english", "japanese"), PAIRS)
def test_both_languages_say_the_same(english: str, japanese: str) -> None:
    ours, theirs = sections(text_of(english)), sections(text_of(japanese))
    assert [shape(part) for part in ours] == [shape(part) for part in theirs]
    assert [numbers(part) for part in ours] == [numbers(part) for part in theirs]
    codes = [Counter(re.findall(r"`[^`\n]+`", part)) for part in ours]
    assert codes == [Counter(re.findall(r"`[^`\n]+`", part)) for part in theirs]


def with_intervals(text: str) -> set[str]:
    return set(re.findall(r"[+-]?\d+\.\d+ ± \d+\.\d+", text))


@pytest.mark.parametrize("name", [name for pair in PAIRS for name in pair])
def test_every_measured_number_is_in_the_measurements(name: str) -> None:
    text, measured = text_of(name), "".join(path.read_text(encoding="utf-8") for path in MEASURED)
    assert with_intervals(text) - with_intervals(measured) == set()
    assert name.startswith("card") or len(with_intervals(text)) > 30
    given = {n for part in sections(text) for n in numbers(part) if "." in n}
    assert given - set(numbers(measured)) == set()


@pytest.mark.parametrize("name", ["index.md", "card.md"])
def test_the_limits_are_those_of_data_check(name: str) -> None:
    found = numbers(text_of(name))
    assert found[str(READY_IMAGES)] and found[str(USABLE_IMAGES)]


def test_the_images_that_an_operating_point_needs_are_those_of_the_defaults() -> None:
    limit = TrainBaseParams().false_names
    assert limit is not None
    needed = math.ceil(FEWEST_EXPECTED * IMAGES / limit)
    assert f"With fewer than {needed} images for training" in " ".join(text_of("index.md").split())


def test_the_card_uses_commands_of_the_guide() -> None:
    programs = {" ".join(line.split()[:2]) for line in command_lines(text_of("index.md"))}
    assert {" ".join(line.split()[:2]) for line in command_lines(text_of("card.md"))} <= programs


def test_the_guide_shows_each_sheet_and_they_are_small() -> None:
    stored = {path.name for path in (GUIDE / "images").iterdir()}
    assert stored == {f"{name}.webp" for name in SHEETS}
    assert stored == {Path(image).name for part in sections(text_of("index.md")) for image in shape(part)[1]}
    assert sum(path.stat().st_size for path in (GUIDE / "images").iterdir()) < MOST_BYTES


@pytest.mark.parametrize("name", SHEETS)
def test_a_sheet_is_what_the_program_draws(name: str) -> None:
    drawn = np.asarray(sheet(*SHEETS[name]), dtype=np.float64)
    with Image.open(GUIDE / "images" / f"{name}.webp") as image:
        stored = np.asarray(image.convert("RGB"), dtype=np.float64)
    assert stored.shape == drawn.shape
    assert np.abs(stored - drawn).mean() < 8.0  # lossy compression


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_image_keeps_its_labels_on_the_object(name: str) -> None:
    pixels = np.full((288, 384, 3), 60, dtype=np.uint8)
    pixels[90:180, 210:300] = (160, 60, 60)
    mask = np.zeros((1, 288, 384), dtype=bool)
    mask[0, 90:180, 210:300] = True
    shown, masks = CHANGES[name].apply(pixels, mask, np.random.default_rng(0))
    assert shown.shape == pixels.shape and shown.dtype == np.uint8 and masks.shape == mask.shape
    red = shown[..., 0].astype(int) - shown[..., 1] > 20
    if name == "far":  # mirrored at the border, where copies are not labelled
        red &= masks[0]
    covers = (red & masks[0]).sum() / (red | masks[0]).sum()
    assert covers > 0.9, covers
    assert {"far": 0.25, "close": 4.0, "covered": 0.5}.get(name, 1.0) == pytest.approx(masks.sum() / 8100, rel=0.15)

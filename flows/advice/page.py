"""The page of advice: a verdict per class, then the images in question. One HTML file without scripts and links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flows.report.charts import over_shots
from flows.report.images import to_jpeg
from flows.report.page import IMAGE_BUDGET, data_uri, environment
from flows.workspace.layout import Split
from samif.advice.advise import Advice, ImagePair, LabelError
from samif.advice.classes import ClassAdvice
from samif.dataset.images import read_image
from samif.dataset.model import Dataset, ImageRecord
from samif.inference.overlay import draw_instances
from samif.masks.rle import Rle, boxes, part

MOST_ERRORS, MOST_PAIRS = 60, 30
"""Labels and pairs of images that are shown; --json lists all."""
SIDE = 260
MARGIN = 0.6
"""What is shown around a label, as a share of its longer side."""
LEAST_VIEW = 96
"""Pixels of an image that are shown at least."""


Images = Mapping[str, tuple[Dataset, ImageRecord]]
"""`split/file` -> the image."""


def render_advice(advice: Advice, splits: Mapping[Split, Dataset], line: str) -> str:
    """The page as HTML text; images are inlined until the budget of the page is spent."""
    images = {f"{split}/{image.file_name}": (of, image) for split, of in splits.items() for image in of.images}
    left = [IMAGE_BUDGET]
    return (
        environment()
        .get_template("advice.html.j2")
        .render(
            line=line,
            advice=advice,
            verdicts={v: sum(c.verdict == v for c in advice.classes) for v in ("ready", "usable", "not yet")},
            charts={c.name: _chart(c) for c in advice.classes},
            errors=_cards((_error_panels(error, images) for error in advice.label_errors[:MOST_ERRORS]), left),
            leaks=_cards((_pair_panels(pair, images) for pair in advice.leaks[:MOST_PAIRS]), left),
            duplicates=_cards((_pair_panels(pair, images) for pair in advice.duplicates[:MOST_PAIRS]), left),
        )
    )


def _chart(advice: ClassAdvice) -> str:
    curve = None if advice.naming is None else advice.naming.curve
    if curve is None:
        return ""
    points = curve.points
    return over_shots(
        [p.shots for p in points], [p.right for p in points], [p.low for p in points], [p.high for p in points]
    )


def _cards(found: Iterable[tuple[dict[str, str], list[NDArray[np.uint8]]]], left: list[int]) -> list[dict[str, Any]]:
    """Texts with their panels as data; without panels once `left`, the bytes that remain, are spent."""
    cards = []
    for texts, panels in found:
        jpegs = [to_jpeg(panel) for panel in panels] if left[0] > 0 else []
        left[0] -= sum(map(len, jpegs))
        cards.append({**texts, "panels": [data_uri(jpeg) for jpeg in jpegs]})
    return cards


def _error_panels(error: LabelError, images: Images) -> tuple[dict[str, str], list[NDArray[np.uint8]]]:
    dataset, image = images[f"{error.split}/{error.file}"]
    pixels = read_image(dataset.path_of(image))
    label = next(a for a in image.annotations if a.id == error.annotation)
    masks: list[tuple[str, Rle]] = [(error.given, label.rle)]
    if error.rival is not None:
        masks.append(("decoder", error.rival))
    where = _window([mask for _, mask in masks], image)
    what = f"{error.given}: {error.suggested}?" if error.suggested is not None else f"{error.given}: the outline?"
    texts = {
        "title": what,
        "file": f"{error.split}/{error.file}, annotation {error.annotation}, score {error.score:.2f}",
        "remedy": error.remedy,
    }
    return texts, [_panel(pixels, where, [item]) for item in masks]


def _pair_panels(pair: ImagePair, images: Images) -> tuple[dict[str, str], list[NDArray[np.uint8]]]:
    panels = []
    for name in (pair.first, pair.second):
        dataset, image = images[name]
        panels.append(_panel(read_image(dataset.path_of(image)), (0, 0, image.width, image.height), []))
    title = "identical" if pair.identical else f"nearly the same (difference {pair.difference:.2f})"
    return {"title": title, "file": f"{pair.first} | {pair.second}", "remedy": pair.remedy}, panels


def _window(masks: list[Rle], image: ImageRecord) -> tuple[int, int, int, int]:
    """x, y, width and height of what is shown of the image around these masks."""
    found = boxes(masks)
    low, high = found[:, :2].min(axis=0), (found[:, :2] + found[:, 2:]).max(axis=0)
    reach = max(LEAST_VIEW / 2, (0.5 + MARGIN) * float((high - low).max()))
    x, y = (low + high) / 2 - reach
    left, top = max(0, int(x)), max(0, int(y))
    right, bottom = min(image.width, int(x + 2 * reach) + 1), min(image.height, int(y + 2 * reach) + 1)
    return left, top, right - left, bottom - top


def _panel(
    pixels: NDArray[np.uint8], where: tuple[int, int, int, int], masks: list[tuple[str, Rle]]
) -> NDArray[np.uint8]:
    """A part of an image with masks in it, its longer side SIDE pixels."""
    x, y, width, height = where
    scale = SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    view = Image.fromarray(pixels[y : y + height, x : x + width]).resize(size, Image.Resampling.LANCZOS)
    shown = [
        np.asarray(Image.fromarray(part(mask, x, y, width, height)).resize(size, Image.Resampling.NEAREST))
        for _, mask in masks
    ]
    return np.asarray(draw_instances(np.asarray(view), shown, [name for name, _ in masks]))

"""The page of errors, with a crop of each by cause and class, and the page that says whether a session helped. Each is
one self-contained HTML file."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from flows.error_analysis.collect import Errors
from flows.report.images import JPEG_QUALITY
from flows.report.page import IMAGE_BUDGET, environment
from samif.dataset.images import read_image
from samif.evaluate.errors import DEFINITIONS
from samif.inference.overlay import draw_instances
from samif.io import files
from samif.masks.rle import Rle, boxes, part

if TYPE_CHECKING:
    from flows.error_analysis.compare import Round

SIDE = 240
"""Longer side of a crop in pixels."""
MARGIN = 0.5
"""What a crop shows on each side of the mask's box, as a share of its longer side."""


def write_page(errors: Errors, path: Path, options: Sequence[str] = ()) -> None:
    """Write the page; crops are left out once its budget is spent, the list stays whole.

    Args:
        options: of `samif errors accept`, so that it finds the same errors.
    """
    left, groups = IMAGE_BUDGET, []
    for cause, cases in groupby(errors.cases, key=lambda case: case.cause):
        cards: list[dict[str, Any]] = []
        for case in cases:
            image = errors.dataset.path_of(case.image)
            jpeg = crop_jpeg(image, case.rle, case.category, case.score) if left > 0 else b""
            left -= len(jpeg)
            uri = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""
            cards.append({"case": case, "crop": uri})
        groups.append({"cause": cause, "definition": DEFINITIONS[cause], "cards": cards})
    template = environment().get_template("errors.html.j2")
    html = template.render(
        errors=errors, count=len(errors.dataset.images), rows=errors.rows(), groups=groups, options=shlex.join(options)
    )
    files.commit(path, html.encode())


def write_round(done: Round, path: Path) -> None:
    """Write the page of a session against the classifier before it."""
    html = environment().get_template("round.html.j2").render(round=done, comparison=done.comparison)
    files.commit(path, html.encode())


def crop_jpeg(path: Path, rle: Rle, name: str, score: float | None) -> bytes:
    """The surroundings of a mask in an image file, with the mask and its name, as a JPEG."""
    file = io.BytesIO()
    Image.fromarray(_crop(path, rle, name, score)).save(file, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return file.getvalue()


def _crop(path: Path, rle: Rle, name: str, score: float | None) -> np.ndarray:
    """The surroundings of a mask, (H, W, 3)."""
    pixels = read_image(path)
    x, y, width, height = boxes([rle])[0]
    margin = MARGIN * max(width, height) + 4
    left, top = max(0, int(x - margin)), max(0, int(y - margin))
    right, bottom = min(pixels.shape[1], int(x + width + margin)), min(pixels.shape[0], int(y + height + margin))
    scale = SIDE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    shown = np.asarray(Image.fromarray(pixels[top:bottom, left:right]).resize(size, Image.Resampling.LANCZOS))
    inside = part(rle, left, top, right - left, bottom - top)
    mask = np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.NEAREST))
    return draw_instances(shown, [mask], [name], None if score is None else [score])

"""The page of advice from values made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.advice import page
from flows.advice.page import render_advice
from samif.advice.advise import Advice, ImagePair, LabelError
from samif.advice.classes import Naming, advise_class, variety_of
from samif.advice.look_alikes import LookAlikes
from samif.advice.shots_curve import Point, ShotsCurve
from samif.dataset.model import Category, Dataset
from tests.support.handmade import annotation, image, rectangle, rle

SHAPE = (60, 90)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
    for number in (1, 2):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    mask = rectangle(SHAPE, 50, 80, 10, 10)  # in the corner: the view around it ends at the border
    records = tuple(image(number, SHAPE, annotation(number, "<nut>", mask)) for number in (1, 2))
    return Dataset(tmp_path, (Category(1, "<nut>"),), records)


@pytest.fixture
def advice() -> Advice:
    curve = ShotsCurve(tuple(Point(n, 0.5 + 0.05 * n, 0.4, 0.9) for n in range(1, 6)), 5, 1.25, 3.5)
    nut = advise_class("<nut>", 2, 2, 1, variety_of([]), Naming(0.5, (), 1, 1, curve))
    name = LabelError("name", "train", "1.png", 1, 1, "<nut>", "bolt", 0.8, "name it 'bolt' if it is one")
    mask = replace(name, kind="mask", suggested=None, remedy="outline it", rival=rle(rectangle(SHAPE, 45, 70, 15, 20)))
    return Advice(
        images=2, measured_images=2, background_images=0, with_features=True, classes=(nut,),
        duplicates=(ImagePair("train/1.png", "train/2.png", True, 0.0, "keep one"),), leaks=(),
        look_alikes=(LookAlikes("<nut>", "bolt", 0.2, 4),), label_errors=(name, mask),
    )  # fmt: skip


def test_the_images_in_question_are_on_the_page(dataset: Dataset, advice: Advice) -> None:
    html = render_advice(advice, {"train": dataset}, "line 4")
    assert html.count("data:image/jpeg;base64,") == 1 + 2 + 2  # a name, a mask beside the decoder's, a pair
    assert "<svg" in html and "+1.2 ± 3.5" in html.replace("+1.3", "+1.2")
    assert "&lt;nut&gt;" in html and "<nut>" not in html
    assert 'src="http' not in html and "<script" not in html
    for said in ("not yet", "name it &#39;bolt&#39; if it is one", "outline it", "keep one", "4 objects (20 %)"):
        assert said in html


def test_images_end_with_the_budget_and_texts_stay(
    dataset: Dataset, advice: Advice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "IMAGE_BUDGET", 1)
    monkeypatch.setattr(page, "MOST_ERRORS", 1)
    html = render_advice(advice, {"train": dataset}, "line 4")
    assert html.count("data:image/jpeg;base64,") == 1
    assert "keep one" in html and "1 more: <code>samif data check --json</code>" in html

"""The stage `train_base` chooses an operating point, or says why it does not."""

from __future__ import annotations

import numpy as np
import pytest

from flows.stages.train_base import operating_point
from samif.classifier.operating_point import NamingEvidence
from samif.config import TrainBaseParams


def evidence(images: int) -> NamingEvidence:
    return NamingEvidence(images, {"bolt": 2}, ["bolt"] * 2, np.array([0.9, 0.4]), np.array([True, False]))


def test_enough_images_give_a_point(capsys: pytest.CaptureFixture[str]) -> None:
    point = operating_point(evidence(30), TrainBaseParams(false_names=100.0))
    assert point is not None and (point.limit, point.images) == (100.0, 30)
    assert capsys.readouterr().out == ""


def test_too_few_images_give_none_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert operating_point(evidence(29), TrainBaseParams(false_names=100.0)) is None
    said = capsys.readouterr().out
    assert said.startswith(
        "no operating point: at most 100 false names per 1,000 images cannot be shown on 29 training"
    )
    assert "label at least 30" in said and "train_base.rejection" in said


def test_a_limit_of_a_class_that_was_not_measured_gives_none_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    params = TrainBaseParams(false_names=100.0, class_false_names={"fuse": 100.0})
    assert operating_point(evidence(30), params) is None
    assert "class 'fuse' has a limit" in capsys.readouterr().out

"""A session on drawn scenes, with a segmenter of random weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from samif.classifier.incremental import extract_shot_features, learn_session
from samif.classifier.model import Classifier, FeatureSpace
from samif.config import IncrementalParams
from samif.dataset.model import Dataset
from samif.errors import SamifError
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder

TOKEN = 64


@pytest.fixture
def before() -> Classifier:
    """Two old classes in a space of tokens."""
    zeros = np.zeros(TOKEN, np.float32)
    space = FeatureSpace(("token",), "lda", zeros, np.eye(TOKEN, dtype=np.float32), zeros[None], 1.0, 0.0)
    old = np.random.default_rng(0).normal(size=(2, TOKEN)).astype(np.float32)
    return Classifier(space, ("old_a", "old_b"), old, np.array([3, 4]))


@pytest.fixture(scope="module")
def shots(scenes: Dataset) -> dict[str, list[tuple[int, int]]]:
    """Two instances of one class from two images, one of another; named as they come, not in the files' order."""
    first, second = scenes.images[0], scenes.images[1]
    return {
        "zeta": [(second.id, second.annotations[0].id), (first.id, first.annotations[0].id)],
        "alpha": [(first.id, first.annotations[1].id)],
    }


class Learner:
    """Runs sessions and records what the encoder was shown."""

    def __init__(self, decoder: InstanceDecoder, encoder: ImageEncoder, scenes: Dataset) -> None:
        self.decoder, self.encoder, self.scenes = decoder, encoder, scenes
        self.shown: list[NDArray[np.uint8]] = []
        self.done = 0

    def __call__(
        self, before: Classifier, shots: dict[str, list[tuple[int, int]]], rotations: Sequence[int] = ()
    ) -> Classifier:
        self.shown.clear()
        self.done = 0
        params = IncrementalParams.model_validate({"prompts_per_shot": 3, "rotations": list(rotations)})
        keys = [key for of_class in shots.values() for key in of_class]
        shot_features = extract_shot_features(
            keys, self.scenes, self.decoder, self._encode, before.space.parts, params, advance=self._advance
        )
        return learn_session(before, shots, shot_features)

    def _encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        self.shown += images
        return self.encoder.encode(images)

    def _advance(self, count: int) -> None:
        self.done += count


@pytest.fixture
def learn(decoder: InstanceDecoder, encoder: ImageEncoder, scenes: Dataset) -> Learner:
    return Learner(decoder, encoder, scenes)


def test_rows_are_appended_in_the_order_of_the_session(
    learn: Learner, before: Classifier, shots: dict[str, list[tuple[int, int]]]
) -> None:
    after = learn(before, shots)
    assert after.classes == ("old_a", "old_b", "zeta", "alpha")
    assert after.counts.tolist() == [3, 4, 2, 1]
    assert after.rows[:2].tobytes() == before.rows.tobytes() and after.space is before.space
    assert np.isfinite(after.rows).all() and np.abs(after.rows[2:]).max(axis=1).min() > 0
    assert learn.done == 2


def test_what_is_seen_of_a_shot_does_not_depend_on_the_other_shots(
    learn: Learner, before: Classifier, scenes: Dataset
) -> None:
    """Beside another object of the same image: so any draw of shots finds the same."""
    image = scenes.images[0]
    one, other = (image.id, image.annotations[0].id), (image.id, image.annotations[1].id)
    alone, beside = (learn(before, {"zeta": [one], **more}) for more in ({}, {"alpha": [other]}))
    assert alone.row_digests()["zeta"] == beside.row_digests()["zeta"]


def test_images_are_turned_as_asked(learn: Learner, before: Classifier, scenes: Dataset) -> None:
    image = scenes.images[0]
    one = {"zeta": [(image.id, image.annotations[0].id)]}
    still = learn(before, one)
    assert len(learn.shown) == 1
    upright = learn.shown[0]
    turned = learn(before, one, rotations=(90, 180))
    assert len(learn.shown) == 3
    for pixels, quarters in zip(learn.shown, (0, 1, 2), strict=True):
        assert np.array_equal(pixels, np.rot90(upright, quarters))
    assert turned.counts.tolist() == still.counts.tolist()  # views of one shot, not more shots
    assert turned.row_digests()["zeta"] != still.row_digests()["zeta"]


def test_a_class_does_not_depend_on_those_beside_it_in_other_images(
    learn: Learner, before: Classifier, shots: dict[str, list[tuple[int, int]]]
) -> None:
    apart = {"zeta": [shots["zeta"][0]], "alpha": shots["alpha"]}
    assert (
        learn(before, apart).row_digests()["alpha"] == learn(before, {"alpha": shots["alpha"]}).row_digests()["alpha"]
    )


def test_a_known_class_is_refused(learn: Learner, before: Classifier, shots: dict[str, list[tuple[int, int]]]) -> None:
    with pytest.raises(SamifError, match="class 'old_a' is already in the classifier"):
        learn(before, {"old_a": shots["alpha"]})

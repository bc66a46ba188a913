"""Adding and removing classes, in whatever order, leaves every other row bit for bit as it was."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from samif.classifier.model import Classifier, FeatureSpace

WIDTH, PROJECTED = 5, 3
numbers = st.floats(-100.0, 100.0, width=32)


def arrays(*shape: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, shape, elements=numbers)


spaces = st.builds(
    FeatureSpace,
    parts=st.just(("token",)),
    head=st.sampled_from(["lda", "cosine"]),
    centre=arrays(WIDTH),
    projection=arrays(WIDTH, PROJECTED),
    background=arrays(2, PROJECTED),
    temperature=st.floats(0.01, 20.0),
    background_bias=st.floats(-5.0, 5.0),
)
shots = st.lists(st.integers(1, 3).flatmap(lambda count: arrays(count, WIDTH)), min_size=1, max_size=3)
names = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5, unique=True)


def empty(space: FeatureSpace) -> Classifier:
    return Classifier(space, (), np.zeros((0, PROJECTED), np.float32), np.zeros(0, np.int64))


def file_of(classifier: Classifier) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "classifier.safetensors")
        return (Path(folder) / "classifier.safetensors").read_bytes()


@given(spaces, names, st.data())
def test_no_step_touches_another_row(space: FeatureSpace, classes: list[str], data: st.DataObject) -> None:
    features = {name: data.draw(shots) for name in classes}
    alone = {name: empty(space).add(name, features[name]).row_digests()[name] for name in classes}
    classifier = empty(space)
    for name in data.draw(st.lists(st.sampled_from(classes), max_size=10)):
        known = name in classifier.classes
        classifier = classifier.remove(name) if known else classifier.add(name, features[name])
        assert classifier.row_digests() == {known: alone[known] for known in classifier.classes}
        assert list(classifier.row_digests()) == list(classifier.classes)


@settings(max_examples=30)
@given(spaces, names, st.data())
def test_removing_the_last_class_is_undoing(space: FeatureSpace, classes: list[str], data: st.DataObject) -> None:
    classifier = empty(space)
    for name in classes:
        before = file_of(classifier)
        classifier = classifier.add(name, data.draw(shots))
        after = file_of(classifier)
        assert after != before
        assert file_of(classifier.remove(name)) == before


@settings(max_examples=50)
@given(spaces, names, st.data())
def test_probabilities_sum_to_one(space: FeatureSpace, classes: list[str], data: st.DataObject) -> None:
    classifier = empty(space)
    for name in classes:
        classifier = classifier.add(name, data.draw(shots))
    probability = classifier.probabilities(data.draw(arrays(4, WIDTH)))
    assert probability.shape == (4, len(classes) + 1)
    assert (probability >= 0.0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-9)

"""Rows, probabilities and the file of a classifier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from samif.classifier.confidence import NameConfidence
from samif.classifier.model import Classifier, HeadName, row_from
from samif.classifier.operating_point import NamingEvidence, choose_point
from samif.errors import IntegrityError, SamifError
from tests.support.handmade import classifier, space

WIDTH = 4
EMPTY = np.zeros((1, WIDTH), np.float32)


def shots(*values: float) -> list[np.ndarray]:
    """One instance per value, two samples each, `value` along the first axis in the mean."""
    first = np.eye(1, WIDTH, dtype=np.float32)
    return [np.concatenate([(value - 1) * first, (value + 1) * first]) for value in values]


def blank(head: HeadName = "lda") -> Classifier:
    return Classifier(space(WIDTH, EMPTY, head), (), np.zeros((0, WIDTH), np.float32), np.zeros(0, np.int64))


# Rows


@pytest.mark.parametrize(
    ("values", "expected"), [((8.0,), 8.0 / 2), ((8.0, 10.0), 9.0 * 2 / 3), ((8.0,) * 9, 8.0 * 9 / 10)]
)
def test_a_row_is_the_mean_drawn_to_the_base_mean_by_one_instance(values: tuple[float, ...], expected: float) -> None:
    assert row_from(space(WIDTH, EMPTY), shots(*values))[0] == pytest.approx(expected)


def test_an_instance_counts_once_however_many_samples_it_has() -> None:
    few, many = shots(2.0)[0], np.tile(shots(6.0)[0], (10, 1))
    assert row_from(space(WIDTH, EMPTY), [few, many])[0] == pytest.approx(4.0 * 2 / 3)


def test_cosine_rows_forget_length() -> None:
    cosine = space(WIDTH, EMPTY, "cosine")
    np.testing.assert_allclose(row_from(cosine, shots(2.0)), row_from(cosine, shots(200.0)), rtol=1e-6)


def test_features_are_centred_then_projected() -> None:
    turned = replace(
        space(2, np.zeros((1, 2), np.float32)),
        centre=np.array([1, 2], np.float32),
        projection=np.array([[0, 3], [5, 0]], np.float32),
    )
    assert turned.project(np.array([[2, 4]], np.float32)).tolist() == [[10.0, 3.0]]


def test_adding_appends_and_removing_takes_away() -> None:
    two = blank().add("bolt", shots(3.0)).add("nut", shots(1.0, 2.0))
    assert two.classes == ("bolt", "nut") and two.counts.tolist() == [1, 2]
    one = two.remove("bolt")
    assert one.classes == ("nut",) and one.rows.tobytes() == two.rows[1:].tobytes() and one.counts.tolist() == [2]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda c: c.add("bolt", shots(1.0)), "class 'bolt' is already in the classifier"),
        (lambda c: c.add("nut", []), "class 'nut' has no labelled instance"),
        (lambda c: c.remove("nut"), "class 'nut' is not in the classifier; it has bolt"),
        (lambda c: c.probabilities(np.zeros((1, WIDTH + 1), np.float32)), "takes features of width 4, got 5"),
    ],
    ids=["twice", "no shots", "unknown", "other features"],
)
def test_refusals_are_one_sentence(act: object, said: str) -> None:
    assert callable(act)
    with pytest.raises(SamifError, match=said) as refusal:
        act(blank().add("bolt", shots(1.0)))
    assert "\n" not in str(refusal.value)


def test_rows_and_counts_must_fit_the_classes() -> None:
    with pytest.raises(ValueError, match="expected rows"):
        replace(blank(), classes=("bolt",))


def test_a_row_digest_covers_row_and_count() -> None:
    one = blank().add("bolt", shots(1.0)).add("nut", shots(2.0))
    digests = one.row_digests()
    assert set(digests) == {"bolt", "nut"} and len(set(digests.values())) == 2
    assert replace(one, counts=one.counts + 1).row_digests()["nut"] != digests["nut"]
    assert replace(one, rows=np.nextafter(one.rows, np.float32(9))).row_digests()["nut"] != digests["nut"]
    assert one.remove("bolt").row_digests() == {"nut": digests["nut"]}


# Probabilities


@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_the_nearest_row_wins_and_the_background_is_last(head: HeadName) -> None:
    known = classifier({"bolt": [9, 0, 0], "nut": [0, 9, 0]}, background=[0, 0, 9], head=head)
    probability = known.probabilities(9 * np.eye(3, dtype=np.float32))
    assert probability.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)


def test_lda_odds_are_half_the_difference_of_squared_distances() -> None:
    two = classifier({"bolt": [2, 0], "nut": [-1, 1]}, background=[50, 50])
    odds = two.probabilities(np.array([[1, 3]], np.float32))[0]
    assert np.log(odds[0] / odds[1]) == pytest.approx(0.5 * ((4 + 4) - (1 + 9)))


def test_the_number_of_instances_favours_no_class() -> None:
    even = classifier({"bolt": [2, 0], "nut": [-2, 0]}, background=[50, 50])
    few = replace(even, counts=np.array([1, 10**9]))
    here = np.zeros((1, 2), np.float32)
    assert few.probabilities(here).tolist() == even.probabilities(here).tolist()


def test_background_prototypes_count_together() -> None:
    one = classifier({"bolt": [1, 0]}, background=[0, 1])
    two = replace(one, space=replace(one.space, background=np.array([[0, 1], [0, 1]], np.float32)))
    here = np.zeros((1, 2), np.float32)
    assert one.probabilities(here)[0].tolist() == pytest.approx([1 / 2, 1 / 2])
    assert two.probabilities(here)[0].tolist() == pytest.approx([1 / 3, 2 / 3])


def test_bias_and_temperature_are_applied() -> None:
    one = classifier({"bolt": [1, 0]}, background=[0, 0])
    biased = replace(one, space=replace(one.space, background_bias=2.0, temperature=3.0))
    probability = biased.probabilities(np.array([[1, 0]], np.float32))[0]
    assert np.log(probability[0] / probability[1]) == pytest.approx(3.0 * 0.5 - 2.0)


def test_far_features_give_no_nan() -> None:
    one = classifier({"bolt": [1, 0]}, background=[0, 0])
    assert np.isfinite(one.probabilities(np.full((1, 2), 1e6, np.float32))).all()


# What is none of the classes


def test_what_was_rejected_is_named_no_more_and_rows_stay() -> None:
    known = classifier({"bolt": [4, 0], "nut": [0, 4]}, background=[-9, -9])
    seen = np.array([[3.0, 1.5]], np.float32)
    assert known.probabilities(seen).argmax() == 0
    after = known.reject([seen, seen + 0.1]).reject([seen])
    assert after.negatives.shape == (3, 2) and after.row_digests() == known.row_digests()
    assert after.probabilities(seen).argmax() == 2
    assert after.probabilities(np.array([[0.0, 4.0]], np.float32)).argmax() == 1
    assert known.reject([]) is known


def test_an_unknown_object_is_far_from_every_mean_and_no_background() -> None:
    """Means scatter with variance 9: a sample far out between the classes is of a class of its own."""
    known = classifier({"bolt": [4, 0], "nut": [0, 4]}, background=[0, 0])
    aware = replace(known, space=replace(known.space, spread=9.0, unknown_bias=-2.0))
    unknown, bolt = np.array([[-4.0, -4.0]], np.float32), np.array([[4.0, 0.0]], np.float32)
    assert aware.probabilities(unknown)[0, 2] > 0.99
    assert aware.probabilities(bolt).argmax() == 0
    bolder = replace(known, space=replace(known.space, spread=9.0, unknown_bias=20.0))
    assert bolder.probabilities(bolt).argmax() == 2


# Its file


def whole() -> Classifier:
    made = blank().add("Mutter M4 Ü", shots(1.0)).add("bolt", shots(2.0, 5.0))
    return replace(made, space=replace(made.space, parts=("token", "pooled"), temperature=0.1, background_bias=-1 / 3))


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "classifier.safetensors"
    whole().save(path)
    found = Classifier.load(path)
    assert found.classes == whole().classes and found.row_digests() == whole().row_digests()
    assert found.space.parts == ("token", "pooled") and found.space.head == "lda"
    assert (found.space.temperature, found.space.background_bias) == (0.1, -1 / 3)
    for name in ("centre", "projection", "background"):
        assert np.array_equal(getattr(found.space, name), getattr(whole().space, name))
    found.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_same_bytes_from_another_process(tmp_path: Path) -> None:
    whole().save(tmp_path / "here")
    code = "import sys, pathlib, tests.unit.classifier.test_model as made; made.whole().save(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code, str(tmp_path / "there")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[3], env=environment)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


def test_a_version_with_a_removed_option_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    whole().save(path)
    facts = {"parts": ["token", "pooled"], "head": "lda", "temperature": 0.1, "background_bias": 0.0}
    rewritten(path, space=json.dumps({**facts, "shot_bias": []}))
    assert Classifier.load(path).classes == whole().classes
    rewritten(path, space=json.dumps({**facts, "shot_bias": [[1, 0.5]]}))
    with pytest.raises(IntegrityError, match=r"was trained with train_base\.shot_bias, which samif no longer has"):
        Classifier.load(path)


def test_every_parameter_of_the_space_is_kept(tmp_path: Path) -> None:
    ranpac = replace(
        whole().space, head="ranpac", random_projection=np.ones((WIDTH, 6), np.float32),
        offset=np.full(WIDTH, 0.5, np.float32),
        projection=np.ones((6, WIDTH), np.float32), spread=2.5, unknown_bias=-3.0, rejection=0.4,
        confidence=NameConfidence(class_probability=1.0, iou=4.0, objectness=0.0, unmerged=1.5, apart=2.0, bias=-0.5),
        operating_point=choose_point(
            NamingEvidence(50, {"bolt": 2}, ["bolt"] * 2, np.array([0.9, 0.4]), np.array([True, False])), 60.0
        ),
    )  # fmt: skip
    made = replace(whole(), space=ranpac, negatives=np.ones((2, WIDTH), np.float32))
    made.save(tmp_path / "c")
    found = Classifier.load(tmp_path / "c")
    features = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    assert np.array_equal(found.probabilities(features), made.probabilities(features))
    assert found.space.rejection == 0.4 and found.space.confidence == made.space.confidence
    assert found.space.operating_point is not None and found.space.operating_point == made.space.operating_point
    found.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "c").read_bytes()


def test_a_version_of_the_first_format_answers_as_it_did(tmp_path: Path) -> None:
    path = tmp_path / "c"
    whole().save(path)
    facts = {"parts": ["token", "pooled"], "head": "cosine", "temperature": 0.1, "background_bias": -1 / 3}
    rewritten(path, format="samif-classifier-1", space=json.dumps(facts))
    found = Classifier.load(path)
    assert found.space.head == "centred" and found.space.unknown_bias is None and found.space.rejection == 0.0
    assert found.row_digests() == whole().row_digests() and len(found.negatives) == 0


def rewritten(path: Path, **changes: str) -> None:
    """Change the file's metadata."""
    blob = path.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob[8 + length :])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: save_file({"rows": np.zeros(3, np.float32)}, path), "is no classifier of samif"),
        (lambda path: rewritten(path, format="samif-classifier-3"), "is no classifier of samif"),
        (lambda path: rewritten(path, space="{"), "is damaged"),
        (lambda path: rewritten(path, classes='["bolt"]'), "is damaged"),
    ],
    ids=["missing", "truncated", "empty", "foreign", "another format", "broken facts", "a class too few"],
)
def test_a_bad_file_is_refused_in_one_sentence(harm: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    whole().save(path)
    assert callable(harm)
    harm(path)
    with pytest.raises(SamifError, match=said) as refusal:
        Classifier.load(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)

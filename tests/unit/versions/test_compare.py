"""Two versions on the same images: paired intervals, and where they disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samif.config import EvaluateParams
from samif.dataset.model import Category, Dataset, ImageRecord
from samif.errors import SamifError
from samif.evaluate.evaluate import evaluate
from samif.evaluate.match_cache import build_match_cache
from samif.evaluate.matching import match_all
from samif.versions.compare import Comparison, ScoredVersion, compare, disagreements
from tests.support.handmade import annotation, classifier, image, proposals, rectangle

SHAPE = (30, 30)
PLACES = [rectangle(SHAPE, top, left, 10, 10) for top in (0, 15) for left in (0, 15)]
CLASSES = ("bolt", "gear", "hook", "wing")
ROWS = {name: (9.0 * np.eye(5)[i]).tolist() for i, name in enumerate(CLASSES)}
BACKGROUND = (9.0 * np.eye(5)[4]).tolist()


def scene(count: int, root: Path, *names: str) -> Dataset:
    """So many images, each with these objects in the order of PLACES."""
    images = [
        image(n, SHAPE, *(annotation(10 * n + i, name, PLACES[i]) for i, name in enumerate(names)))
        for n in range(1, count + 1)
    ]
    return Dataset(root, tuple(Category(i + 1, name) for i, name in enumerate(CLASSES)), tuple(images))


def measured(dataset: Dataset, known: tuple[str, ...], predicted: dict[int, tuple[str, ...]]) -> ScoredVersion:
    """Version that knows these classes and predicts such class names for the objects of each image; "-" is a miss."""
    head = classifier({name: ROWS[name] for name in known}, BACKGROUND)

    def proposed(shown: ImageRecord):  # type: ignore[no-untyped-def]
        seen = [(PLACES[i], ROWS[name]) for i, name in enumerate(predicted[shown.id]) if name != "-"]
        tokens = np.array([row for _, row in seen], np.float32) if seen else None
        return proposals([mask for mask, _ in seen], tokens)

    params = EvaluateParams(duplicates="nms")
    scored = evaluate("s1", dataset, proposed, head, ["bolt", "gear"], params)
    return ScoredVersion(
        scored.evaluation,
        build_match_cache(dataset, scored.detections, head.classes, scored.unlabelled_false_positives),
        scored.detections,
        scored.matched,
    )


def against(before: ScoredVersion, after: ScoredVersion, **changes: object) -> Comparison:
    given = {"metric": "ap", "resamples": 400, "confidence": 0.95, "seed": 0} | changes
    return compare(before, after, **given)  # type: ignore[arg-type]


def test_the_same_twice_differs_nowhere(tmp_path: Path) -> None:
    dataset = scene(12, tmp_path, "bolt", "gear")
    one = measured(dataset, CLASSES[:2], {n: ("bolt", "gear" if n % 3 else "bolt") for n in range(1, 13)})
    found = against(one, one)
    for change in (*found.groups.values(), *found.classes.values(), found.unlabelled_false_positives):
        assert (change.change, change.low, change.high) in ((0.0, 0.0, 0.0), (None, None, None))
        assert change.is_none or change.change is None


@pytest.mark.parametrize(("lost", "noise"), [(1, True), (10, False)])
def test_one_lost_object_of_twenty_is_noise_and_ten_are_not(lost: int, noise: bool, tmp_path: Path) -> None:
    dataset = scene(20, tmp_path, "bolt", "gear")
    before = measured(dataset, CLASSES[:2], dict.fromkeys(range(1, 21), ("bolt", "gear")))
    after = measured(dataset, CLASSES[:2], {n: ("bolt", "-" if n <= lost else "gear") for n in range(1, 21)})
    found = against(before, after)
    gear = found.classes["gear"]
    assert gear.change is not None and gear.low is not None and gear.high is not None
    assert gear.change < 0 and gear.low <= gear.change <= gear.high and gear.is_noise is noise
    assert found.classes["bolt"].is_none
    assert found.groups["base"].change == pytest.approx(gear.change / 2)


def test_pairing_takes_out_what_both_versions_find_hard(tmp_path: Path) -> None:
    """Both miss half of the images; the second also loses one bolt of the others. Unpaired, that would vanish."""
    dataset = scene(40, tmp_path, "bolt")
    both = {n: ("bolt",) if n % 2 else ("-",) for n in range(1, 41)}
    before = measured(dataset, CLASSES[:1], both)
    after = measured(dataset, CLASSES[:1], both | dict.fromkeys((1, 3, 5, 7, 9), ("-",)))
    found = against(before, after).classes["bolt"]
    assert not found.is_noise
    weights = np.random.default_rng(0).multinomial(40, [1 / 40] * 40, size=(2, 400)).astype(np.int32)
    unpaired = after.matches.classes["bolt"].average_precision(weights[0]) - before.matches.classes[
        "bolt"
    ].average_precision(weights[1])
    assert np.percentile(unpaired, 97.5) > 0.0


def test_groups_compare_only_what_both_know(tmp_path: Path) -> None:
    """A new class of AP 0 does not pull the novel group down, and is named."""
    dataset = scene(8, tmp_path, "bolt", "gear", "hook", "wing")
    predicted = dict.fromkeys(range(1, 9), ("bolt", "gear", "hook", "-"))
    found = against(measured(dataset, CLASSES[:3], predicted), measured(dataset, CLASSES, predicted))
    assert found.groups["novel"].after == pytest.approx(100.0) and found.groups["novel"].instances == 8
    assert found.added == ("wing",) and found.lost == () and set(found.classes) == set(CLASSES[:3])
    back = against(measured(dataset, CLASSES, predicted), measured(dataset, CLASSES[:3], predicted))
    assert back.lost == ("wing",) and back.added == ()


def test_unlabelled_false_positives_are_compared_too(tmp_path: Path) -> None:
    dataset = scene(10, tmp_path, "bolt", "wing")
    before = measured(dataset, CLASSES[:1], dict.fromkeys(range(1, 11), ("bolt", "-")))
    after = measured(dataset, CLASSES[:1], dict.fromkeys(range(1, 11), ("bolt", "bolt")))
    tags = against(before, after).unlabelled_false_positives
    assert (tags.before, tags.after, tags.low, tags.high) == (0.0, 1.0, 1.0, 1.0)


def test_names_are_compared_over_the_classes_that_both_know(tmp_path: Path) -> None:
    """Before, each gear is called bolt; after, all names are right, and hooks have one too."""
    dataset = scene(10, tmp_path, "bolt", "gear", "hook")
    before = measured(dataset, CLASSES[:2], dict.fromkeys(range(1, 11), ("bolt", "bolt", "-")))
    after = measured(dataset, CLASSES[:3], dict.fromkeys(range(1, 11), ("bolt", "gear", "hook")))
    found = against(before, after)
    assert found.named is not None and found.false_names is not None
    assert (found.named.before, found.named.after, found.named.instances) == (50.0, 100.0, 20)
    assert (found.named.low, found.named.high) == (50.0, 50.0)
    assert (found.false_names.before, found.false_names.after) == (1000.0, 0.0)
    assert (found.false_names.low, found.false_names.high) == (-1000.0, -1000.0)


def test_the_seed_decides_and_the_metric_counts(tmp_path: Path) -> None:
    dataset = scene(15, tmp_path, "bolt")
    before = measured(dataset, CLASSES[:1], dict.fromkeys(range(1, 16), ("bolt",)))
    after = measured(dataset, CLASSES[:1], {n: ("bolt" if n % 3 else "-",) for n in range(1, 16)})
    assert against(before, after) == against(before, after)
    assert len({against(before, after, seed=seed, resamples=20).classes["bolt"].low for seed in range(5)}) > 1
    assert against(before, after, metric="ap50").metric == "ap50"


def test_other_images_are_refused(tmp_path: Path) -> None:
    one, two = (measured(scene(n, tmp_path, "bolt"), CLASSES[:1], {1: ("bolt",), 2: ("bolt",)}) for n in (1, 2))
    with pytest.raises(SamifError, match="score both on the same images"):
        against(one, two)


# Images


def test_disagreements_come_worst_first_and_name_what_differs(tmp_path: Path) -> None:
    dataset = scene(5, tmp_path, "bolt", "gear", "wing")
    before = measured(
        dataset,
        CLASSES[:2],
        {
            1: ("bolt", "gear", "-"),
            2: ("bolt", "gear", "-"),
            3: ("bolt", "gear", "bolt"),
            4: ("-", "gear", "-"),
            5: ("bolt", "gear", "gear"),
        },
    )
    after = measured(
        dataset,
        CLASSES[:2],
        {
            1: ("bolt", "gear", "-"),  # the same
            2: ("bolt", "bolt", "-"),  # the gear is called a bolt: lost, and a false positive
            3: ("bolt", "-", "bolt"),  # the gear is lost; the false positive was there before
            4: ("bolt", "gear", "-"),  # the bolt is won
            5: ("bolt", "gear", "-"),  # a false positive is gone
        },
    )
    matched = [match_all(dataset, side.detections, CLASSES[:2], 0.3) for side in (before, after)]
    found = disagreements(*matched)
    assert [(item.image.id, item.worse, item.better) for item in found] == [
        (2, 2, 0),
        (3, 1, 0),
        (4, 0, 1),
        (5, 0, 1),
    ]
    assert (found[0].lost, found[2].won) == ({21}, {40})
    assert [found[0].after.detections[i].category for i in found[0].new_false_positives] == ["bolt"]
    assert [found[3].before.detections[i].category for i in found[3].gone_false_positives] == ["gear"]


def test_a_class_that_only_one_version_knows_is_won_or_lost(tmp_path: Path) -> None:
    dataset = scene(1, tmp_path, "bolt", "wing")
    before = measured(dataset, CLASSES[:1], {1: ("bolt", "-")})
    after = measured(dataset, ("bolt", "wing"), {1: ("bolt", "wing")})
    one = match_all(dataset, before.detections, CLASSES[:1], 0.3)
    two = match_all(dataset, after.detections, ("bolt", "wing"), 0.3)
    assert [item.won for item in disagreements(one, two)] == [{11}]
    assert [item.lost for item in disagreements(two, one)] == [{11}]

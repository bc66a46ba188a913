"""The published protocol of incremental few-shot instance segmentation on COCO2014: facts that data are held against.

60 base classes, the 20 classes of Pascal VOC novel; training on train2014 and the part of val2014 that is not minival,
test on the 5,000 images of minival (the images of val2017). Ids and names as COCO's annotation files write them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from samif.config import DataProtocol

if TYPE_CHECKING:
    from samif.dataset.model import Dataset

PROTOCOL: DataProtocol = "coco2014-60-20"
PART: DataProtocol = "part-of-coco2014"
"""What params.yaml calls the published data, and any part of them."""

CLAIMS: Mapping[DataProtocol, str] = {
    PROTOCOL: "the images and labels of COCO2014 as published",
    PART: "a part of COCO2014: NOT the published protocol, no match for published numbers",
}
"""The same as a sentence."""

SESSION = "voc"
"""Name of the one session that adds the novel classes."""

CATEGORIES: Mapping[int, str] = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck", 9: "boat",
    10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench", 16: "bird", 17: "cat",
    18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove", 41: "skateboard",
    42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife",
    50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot",
    58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book",
    85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}  # fmt: skip
"""Id -> name of the 80 classes; ids have gaps."""

VOC: Mapping[str, str] = {
    "aeroplane": "airplane", "bicycle": "bicycle", "bird": "bird", "boat": "boat", "bottle": "bottle", "bus": "bus",
    "car": "car", "cat": "cat", "chair": "chair", "cow": "cow", "diningtable": "dining table", "dog": "dog",
    "horse": "horse", "motorbike": "motorcycle", "person": "person", "pottedplant": "potted plant", "sheep": "sheep",
    "sofa": "couch", "train": "train", "tvmonitor": "tv",
}  # fmt: skip
"""The 20 classes of Pascal VOC: VOC's name -> COCO's."""

NOVEL = tuple(name for name in CATEGORIES.values() if name in set(VOC.values()))
BASE = tuple(name for name in CATEGORIES.values() if name not in set(VOC.values()))


@dataclass(frozen=True)
class Counts:
    """How many images and labels (crowd regions included) the files and the two parts have."""

    images: Mapping[str, int] = field(default_factory=lambda: {"train2014": 82_783, "val2014": 40_504})
    labels: Mapping[str, int] = field(default_factory=lambda: {"train2014": 604_907, "val2014": 291_875})
    train_images: int = 118_287
    train_labels: int = 860_001
    test_images: int = 5_000
    test_labels: int = 36_781
    """Tells minival from any other 5,000 images of val2014."""


MASKLESS = 0.001
"""What part of the labels may be outlines around no pixel: the published files have some, and no mask fits them."""

PUBLISHED = Counts()


def class_deviations(base: Sequence[str], sessions: Sequence[Sequence[str]]) -> list[str]:
    """What separates these classes from the protocol's: 60 base classes, then one session of the 20 novel ones.

    Returns:
        Phrases; empty where nothing differs.
    """
    found = list(_differences("base", base, BASE))
    if len(sessions) != 1:
        found.append(f"{len(sessions)} sessions instead of one")
    return found + list(_differences("novel", [name for session in sessions for name in session], NOVEL))


def data_deviations(train: Dataset, test: Dataset, counts: Counts = PUBLISHED) -> list[str]:
    """What separates two checked data sets from the protocol's training and test images.

    Returns:
        Phrases; empty where nothing differs.
    """
    found = []
    for part, dataset in (("training", train), ("test", test)):
        if {c.id: c.name for c in dataset.categories} != CATEGORIES:
            found.append(f"other categories than COCO's 80 in the {part} part")
    for part, dataset, images, labels in (
        ("training", train, counts.train_images, counts.train_labels),
        ("test", test, counts.test_images, counts.test_labels),
    ):
        if len(dataset.images) != images:
            found.append(f"{len(dataset.images):,} {part} images instead of {images:,}")
        held = sum(len(image.annotations) for image in dataset.images)
        if not (1 - MASKLESS) * labels <= held <= labels:
            found.append(f"{held:,} labels on {part} images instead of {labels:,}")
    both = {p.id for p in train.images} & {p.id for p in test.images}
    if both:
        found.append(f"{len(both):,} test images are also training images")
    return found


def _differences(group: str, got: Sequence[str], expected: Sequence[str]) -> Iterator[str]:
    missing = [name for name in expected if name not in set(got)]
    other = [name for name in got if name not in set(expected)]
    for names, how in ((missing, "without"), (other, "with")):
        if names:
            more = ", ..." if len(names) > 3 else ""
            yield f"{group} classes {how} {', '.join(names[:3])}{more} ({len(names)})"

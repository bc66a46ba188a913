"""The errors of answers that `samif serve --keep` kept, by labels that a person has corrected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows.artifacts.kept_answers import KeptAnswer, KeptAnswers, is_kept_folder
from flows.error_analysis.collect import Errors
from samif.dataset.formats import import_labels
from samif.dataset.model import Dataset, ImageRecord
from samif.errors import DataError, ObjectMissing
from samif.evaluate.errors import CAUSES, find_errors
from samif.evaluate.matching import match_all


@dataclass(frozen=True)
class Reviewed:
    """Errors of kept answers; the versions that gave them; reviewed images without an answer, by name; and how many
    labels could not be read."""

    errors: Errors
    models: tuple[str, ...]
    without_answer: tuple[str, ...]
    lost_labels: int


def collect_reviewed(kept: Path, labels: Path, format_: str | None = None) -> Reviewed:
    """Compare kept answers with the labels of their images. Each answer is judged by the classes of its version.

    Args:
        kept: the folder of `samif serve --keep`.
        labels: file or folder of the reviewed labels. An image that they list is reviewed; one without a label shows
            nothing. Images are those of the answers by content, or by file name where a tool has written them anew.
        format_: of the labels, one of `samif.dataset.formats.FORMATS`; None guesses it.

    Raises:
        ObjectMissing: one of the two does not exist.
        DataError: the labels cannot be read, or none of their images has an answer.
        IntegrityError: an answer is damaged.
    """
    if not is_kept_folder(kept):
        raise ObjectMissing(f"{kept} is no folder of kept answers; give the folder of 'samif serve --keep'")
    with TemporaryDirectory(prefix="samif-") as folder:
        imported = import_labels(labels, Path(folder) / "labels.json", format_, allow_empty=True)
    dataset = imported.dataset
    answers = list(KeptAnswers(kept).answers())
    by_content = {answer.sha256: answer for answer in answers}
    by_name = {_stem(answer.image): answer for answer in answers}
    answer_of: dict[int, KeptAnswer] = {}
    for image in dataset.images:
        answer = by_content.get(image.sha256) or by_name.get(_stem(image.file_name))
        if answer is not None and (answer.width, answer.height) == (image.width, image.height):
            answer_of[image.id] = answer
    if not answer_of:
        raise DataError(
            f"none of the {len(dataset.images)} images of {labels} has an answer in {kept}; correct the labels that "
            f"'samif suggest {kept} --out FOLDER' writes, before newer answers replace them"
        )
    missing = tuple(image.file_name for image in dataset.images if image.id not in answer_of)
    reviewed = dataset.only(answer_of)
    groups: defaultdict[tuple[str, ...], list[ImageRecord]] = defaultdict(list)
    for image in reviewed.images:
        groups[answer_of[image.id].classes].append(image)
    cases = []
    for classes, images in groups.items():
        part = reviewed.only(image.id for image in images)
        found = [item for image in images for item in _detections(part, image, answer_of[image.id])]
        cases += find_errors(match_all(part, found, classes, 0.0), found, classes)
    cases.sort(key=lambda case: CAUSES.index(case.cause))
    known = tuple(dict.fromkeys(name for classes in groups for name in classes))
    errors = Errors("kept answers", known, reviewed, tuple(cases), "reviewed images", "errors-reviewed.html")
    models = tuple(sorted({answer.model for answer in answer_of.values()}))
    return Reviewed(errors, models, missing, sum(item.count for item in imported.findings if item.loss == "label"))


def _detections(dataset: Dataset, image: ImageRecord, answer: KeptAnswer) -> Iterator[dict[str, Any]]:
    """The answer as COCO results; unknown objects are masks without a name."""
    ids = dataset.category_ids(answer.classes)
    for found in answer.instances:
        name = answer.classes[0] if found.unknown else found.label
        yield {
            "image_id": image.id,
            "category_id": ids[name],
            "segmentation": found.segmentation.model_dump(),
            "score": found.score,
            "rejected": found.unknown,
        }


def _stem(name: str) -> str:
    return Path(name).name.partition(".")[0]

"""One drawn data set, written in every format and imported, is the same data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from samif.dataset.coco import read_coco
from samif.dataset.formats import FORMATS, export_labels, guess_format, import_labels
from samif.dataset.model import Dataset
from samif.masks.rle import decode, overlaps
from tests.support.label_formats import CLASSES, SCENES, WRITERS, write_coco


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The COCO file, read without an import."""
    root = tmp_path_factory.mktemp("reference")
    dataset, findings = read_coco(root / "images", write_coco(root))
    assert [finding for finding in findings if finding.level == "error"] == []
    return dataset


def test_every_format_is_written_here() -> None:
    assert {format_ for format_, _ in WRITERS.values()} == set(FORMATS)


@pytest.mark.parametrize("kind", WRITERS)
def test_format_is_guessed(kind: str, tmp_path: Path) -> None:
    format_, write = WRITERS[kind]
    assert guess_format(write(tmp_path))[0] == format_


@pytest.mark.parametrize("kind", WRITERS)
def test_digest_is_the_same_from_every_format(kind: str, reference: Dataset, tmp_path: Path) -> None:
    _, write = WRITERS[kind]
    done = import_labels(write(tmp_path / "in"), tmp_path / "out.json")
    assert [(f.what, f.file) for f in done.findings if f.loss] == []
    assert done.dataset.category_names == tuple(sorted(CLASSES))
    assert [image.file_name for image in done.dataset.images] == list(SCENES)
    for image, expected in zip(done.dataset.images, reference.images, strict=True):
        assert [a.category for a in image.annotations] == [d.category for d in SCENES[image.file_name]]
        same = overlaps([a.rle for a in image.annotations], [a.rle for a in expected.annotations])
        assert (np.diag(same) >= 0.99).all()
    assert done.dataset.digest == reference.digest


@pytest.mark.parametrize("kind", WRITERS)
def test_written_file_is_read_by_samif_and_by_pycocotools(kind: str, reference: Dataset, tmp_path: Path) -> None:
    _, write = WRITERS[kind]
    done = import_labels(write(tmp_path / "in"), tmp_path / "out.json")
    again, findings = read_coco(done.images, done.annotations)
    assert [finding for finding in findings if finding.level == "error"] == []
    assert again.digest == reference.digest
    coco = COCO(done.annotations)
    for image in reference.images:
        theirs = [coco.annToMask(a).astype(bool) for a in coco.loadAnns(coco.getAnnIds(imgIds=image.id))]
        assert np.array_equal(np.array(theirs), decode([a.rle for a in image.annotations]))


def test_polygons_stay_polygons(tmp_path: Path) -> None:
    done = import_labels(write_coco(tmp_path), tmp_path / "out.json")
    written = json.loads(done.annotations.read_text())["annotations"]
    drawn = [d for objects in SCENES.values() for d in objects]
    assert [a["segmentation"] for a in written] == [[list(p) for p in d.polygons] for d in drawn]


@pytest.mark.parametrize("kind", WRITERS)
def test_round_trip_through_an_export(kind: str, reference: Dataset, tmp_path: Path) -> None:
    _, write = WRITERS[kind]
    first = import_labels(write(tmp_path / "in"), tmp_path / "out.json")
    export_labels(first.dataset, tmp_path / "exported.json")
    second = import_labels(tmp_path / "exported.json", tmp_path / "again.json", images=first.images)
    assert second.dataset.digest == reference.digest

"""The data set in memory and on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samif.dataset.coco import Category, Dataset, read_coco
from samif.errors import SamifError


@pytest.fixture
def dataset(line: Any) -> Dataset:
    line.image(3, "c.png")
    line.label(40, 3, 7, {"size": [48, 64], "counts": [0, 96, 48 * 64 - 96]}, iscrowd=1)
    return read_coco(*line.write())[0]


def test_save_and_load(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "new" / "train.json"
    dataset.save(path)
    assert Dataset.load(path, dataset.root) == dataset
    assert [p.name for p in path.parent.iterdir()] == ["train.json"]


def test_what_is_saved_is_a_coco_file(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    dataset.save(path)
    again, findings = read_coco(dataset.root, path)
    assert [finding.what[:30] for finding in findings] == ["1 of 5 labels have iscrowd 1 a"]
    assert again == dataset
    content = json.loads(path.read_text())
    assert content["images"][0]["sha256"] == dataset.images[0].sha256
    assert isinstance(content["annotations"][0]["segmentation"]["counts"], str)


def test_load_opens_no_image(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "train.json")
    assert Dataset.load(tmp_path / "train.json", tmp_path / "elsewhere").digest == dataset.digest


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"images": [{}], "annotations": [], "categories": []}'])
def test_load_refuses_other_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(SamifError, match=r"train\.json is not an index .*; run the stage 'dataset' again"):
        Dataset.load(path, tmp_path)
    with pytest.raises(SamifError, match="does not exist"):
        Dataset.load(tmp_path / "none.json", tmp_path)


def test_a_failed_save_leaves_the_old_file(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    dataset.save(path)
    before = path.read_bytes()
    broken = replace(dataset, images=(replace(dataset.images[0], sha256=object()),))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        broken.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def test_digest_sees_content_only(dataset: Dataset) -> None:
    first, *rest = dataset.images
    same = [
        replace(dataset, root=Path("elsewhere")),
        replace(dataset, images=(*rest, first)),
        replace(dataset, categories=dataset.categories[::-1]),
        replace(dataset, categories=(*dataset.categories, Category(99, "empty"))),
        replace(dataset, categories=tuple(Category(c.id + 1, c.name) for c in dataset.categories)),
        replace(dataset, images=(replace(first, file_name="other.png"), *rest)),
        replace(dataset, images=(replace(first, annotations=first.annotations[::-1]), *rest)),
    ]
    assert {d.digest for d in same} == {dataset.digest}
    a, *others = first.annotations
    changed = [
        replace(first, id=99),
        replace(first, width=65),
        replace(first, height=49),
        replace(first, sha256="0" * 64),
        replace(first, annotations=tuple(others)),
        *(
            replace(first, annotations=(b, *others))
            for b in (
                replace(a, id=99),
                replace(a, category="nut"),
                replace(a, crowd=True),
                replace(a, rle=others[0].rle),
            )
        ),
    ]
    digests = {replace(dataset, images=(image, *rest)).digest for image in changed}
    assert len(digests | {dataset.digest}) == len(changed) + 1


def test_only(dataset: Dataset) -> None:
    assert [p.id for p in dataset.only([3, 1, 3]).images] == [1, 3]
    assert dataset.only([]).images == ()
    assert dataset.only([2]).category_names == ("bolt", "nut")
    assert dataset.image(2).file_name == "b.png"
    with pytest.raises(SamifError, match="no image with id 9"):
        dataset.only([1, 9])

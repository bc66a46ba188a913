"""The data set in memory and on disk."""

from __future__ import annotations

import pickle
import tracemalloc
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from samif.dataset.coco import Annotation, Category, Dataset, ImageRecord, read_coco
from samif.dataset.index_file import write_index
from samif.errors import IntegrityError, SamifError


@pytest.fixture
def dataset(line: Any) -> Dataset:
    line.image(3, "c.png")
    line.label(40, 3, 7, {"size": [48, 64], "counts": [0, 96, 48 * 64 - 96]}, iscrowd=1)
    return read_coco(*line.write())[0]


def test_save_and_load(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "new" / "train.parquet"
    dataset.save(path)
    assert Dataset.load(path, dataset.root) == dataset
    assert [p.name for p in path.parent.iterdir()] == ["train.parquet"]


def test_equal_data_sets_give_equal_bytes(dataset: Dataset, tmp_path: Path) -> None:
    """Also where one was read from a file, in parts of it, and where it is written over the file that it reads."""
    paths = [tmp_path / f"{name}.parquet" for name in "abc"]
    dataset.save(paths[0])
    Dataset.load(paths[0], dataset.root).save(paths[1])
    ids = [image.id for image in dataset.images]
    Dataset.load(paths[0], dataset.root).only(ids).save(paths[2])
    assert len({path.read_bytes() for path in paths}) == 1
    loaded = Dataset.load(paths[0], dataset.root)
    loaded.only(ids[1:]).save(paths[0])
    assert Dataset.load(paths[0], dataset.root) == dataset.only(ids[1:])
    assert loaded == dataset  # what is open stays what it was


def many(count: int) -> Dataset:
    """Images with no label to four, in an order that is not that of their ids."""
    categories = (Category(1, "bolt"), Category(2, "nut"))
    images = []
    for number in range(count):
        rle = {"size": [48, 64], "counts": f"{number}0"}
        labels = tuple(
            Annotation(5 * number + i, categories[i % 2].name, rle, i == 3, (1.5, 2.0, 3.0, float(i)), 7.0)
            for i in range(number % 5)
        )
        id_ = (number * 7919) % 100_003
        images.append(ImageRecord(id_, f"ä {number}.png", 64, 48, f"{number:064x}", labels))
    return Dataset(Path("root"), categories, tuple(images))


def test_a_loaded_data_set_is_one_in_memory_in_all_but_memory(tmp_path: Path) -> None:
    """Over several row groups: order, look-ups, parts of parts, digest, copies in other processes."""
    here = many(5000)
    here.save(tmp_path / "train.parquet")
    there = Dataset.load(tmp_path / "train.parquet", here.root)
    assert there == here and here == there and len(there.images) == 5000
    assert there.digest == here.digest
    assert [there.images[at] for at in (0, 1023, 1024, 4999, -1)] == [
        here.images[at] for at in (0, 1023, 1024, 4999, -1)
    ]
    assert there.images[1020:1030] == here.images[1020:1030]
    ids = [image.id for image in here.images[::3]]
    assert there.image(ids[77]) == here.image(ids[77])
    part = there.only(ids).only(ids[:500])
    assert part == here.only(ids[:500]) and part.digest == here.only(ids[:500]).digest
    assert [image.annotations for image in there.without_labels().images] == [()] * 5000
    assert pickle.loads(pickle.dumps(part)) == part  # noqa: S301
    with pytest.raises(SamifError, match="no image with id 100004"):
        there.only([*ids, 100_004])


def test_reading_by_parts_keeps_little_in_memory(tmp_path: Path) -> None:
    """100,000 images of one label each: what reading all of them allocates at most, in Python and in Arrow."""
    rle = {"size": [480, 640], "counts": "x" * 100}
    records = (
        ImageRecord(n, f"{n:012}.jpg", 640, 480, f"{n:064x}", (Annotation(n, "bolt", rle, False, (0, 0, 1, 1), 1),))
        for n in range(100_000)
    )
    write_index(tmp_path / "train.parquet", (Category(1, "bolt"),), records)
    arrow, most, labels = pa.total_allocated_bytes(), 0, 0
    dataset = Dataset.load(tmp_path / "train.parquet", tmp_path)
    tracemalloc.start()
    try:
        for image in islice(dataset.images, 12_000):
            labels += len(image.annotations)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for image in dataset.images:
        labels += len(image.annotations)
        most = max(most, pa.total_allocated_bytes() - arrow) if image.id % 5000 == 0 else most
    assert labels == 112_000
    assert peak < 12e6 and most < 8e6, (peak, most)  # as objects, all of them take 120 MB


@pytest.mark.parametrize("harm", ["cut", "cut to half", "start", "middle", "end", "empty"])
def test_a_damaged_index_is_one_sentence(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "train.parquet"
    many(3000).save(path)
    content = path.read_bytes()
    at = {"start": 500, "middle": len(content) // 3, "end": len(content) - 6}.get(harm, 0)
    spoilt = bytearray(content)
    spoilt[at] ^= 0x55
    cut = {"cut": content[:-5], "cut to half": content[: len(content) // 2], "empty": b""}
    path.write_bytes(cut.get(harm, bytes(spoilt)))
    with pytest.raises(
        IntegrityError, match=r"train.parquet is damaged, .*; run 'samif run' to write it again"
    ) as caught:
        list(Dataset.load(path, tmp_path).images)
    assert "\n" not in str(caught.value)


def test_load_opens_no_image(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "train.parquet")
    assert Dataset.load(tmp_path / "train.parquet", tmp_path / "elsewhere").digest == dataset.digest


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"images": [{}], "annotations": [], "categories": []}'])
def test_load_refuses_other_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.parquet"
    path.write_text(text)
    told = (
        "is JSON, as an earlier release wrote .*; run 'samif run'" if text[0] == "{" else "is damaged, or not an index "
    )
    with pytest.raises(SamifError, match=f"train.parquet {told}"):
        Dataset.load(path, tmp_path)
    with pytest.raises(SamifError, match="does not exist"):
        Dataset.load(tmp_path / "none.parquet", tmp_path)


def test_a_failed_save_leaves_the_old_file(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
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

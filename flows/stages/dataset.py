"""Stage `dataset`: draw the demo line or read somebody's COCO file; check; split; write the two indexes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from flows.artifacts.quarantine import BrokenImage, Quarantine
from flows.runtime.progress import say, track
from flows.workspace.layout import SPLITS, Layout, Split
from samif.config import Params
from samif.dataset import coco2014
from samif.dataset.check import class_counts, raise_on_errors, without_broken
from samif.dataset.coco import read_coco
from samif.dataset.model import Dataset
from samif.dataset.sessions import split_by_image
from samif.errors import DataError


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/dataset/{train,val}.json`; on the demo line also the drawn images.

    Image files that cannot be used are an error, or, with `dataset.broken_images: quarantine`, are left out and listed
    with reasons in `artifacts/quarantine/dataset.json`.

    Raises:
        DataError: images or annotations cannot be used.
    """
    shutil.rmtree(layout.drawn, ignore_errors=True)
    layout.drawn.mkdir(parents=True)
    read = {split: read_coco(images, annotations) for split, images, annotations in _sources(layout, params)}
    broken: list[BrokenImage] = []
    if params.dataset.broken_images == "quarantine":
        for split, (dataset, findings) in read.items():
            whole, rest, unusable = without_broken(dataset, findings)
            read[split] = whole, rest
            broken += [BrokenImage(split=split, file=f.file, reason=f.what, remedy=f.remedy) for f in unusable]
    for _, findings in read.values():
        raise_on_errors(findings)
    train = read["train"][0]
    if "val" in read:
        val = read["val"][0]
    else:
        train, val = split_by_image(train, params.dataset.holdout, params.dataset.seed)
    _check_classes(train, val, params)
    if params.dataset.protocol == coco2014.PROTOCOL:
        _check_protocol(train, val)
    quarantine = Quarantine(policy=params.dataset.broken_images, images=tuple(broken))
    quarantine.save(layout.quarantine("dataset"))
    if broken:
        say(f"left out {quarantine.sentence}; the whole list is {layout.quarantine('dataset')}")
    train.save(layout.index("train"))
    val.save(layout.index("val"))


def _sources(layout: Layout, params: Params) -> Iterator[tuple[Split, Path, Path]]:
    """Image folder and COCO file of each given split; the demo line is drawn first."""
    drawn = params.dataset.drawn
    if drawn is not None:
        from samif.dataset.draw.line import draw_line

        with track(drawn.base_images + drawn.mixed_images + drawn.val_images, "scenes", "draw") as progress:
            draw_line(layout.drawn, drawn, progress.advance)
    for split in SPLITS:
        source = params.dataset.train if split == "train" else params.dataset.val
        if drawn is not None:
            yield split, layout.drawn / split / "images", layout.drawn / split / "annotations.json"
        elif source is not None:
            yield split, Path(source.images), Path(source.annotations)


def _check_classes(train: Dataset, val: Dataset, params: Params) -> None:
    counts = class_counts(train)
    for name in params.dataset.base_classes:
        if counts.get(name, (0, 0))[0] == 0:
            raise DataError(
                f"base class '{name}' has no instance in the training images; "
                "label some, or take it out of dataset.base_classes in params.yaml"
            )
    if {(c.id, c.name) for c in train.categories} != {(c.id, c.name) for c in val.categories}:
        known = {c.name for c in train.categories}
        other = [c.name for c in val.categories if c.name not in known]
        raise DataError(
            f"training and validation files differ in their categories ({', '.join(other) or 'ids or names'}); "
            "give both files the same list with the same ids"
        )


def _check_protocol(train: Dataset, val: Dataset) -> None:
    found = coco2014.data_deviations(train, val)
    if found:
        raise DataError(
            f"the data are not those of the protocol {coco2014.PROTOCOL}: {'; '.join(found)}; create the workspace "
            f"again with 'samif init-coco2014', or set 'protocol: {coco2014.PART}' under 'dataset' in params.yaml"
        )

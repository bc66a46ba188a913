"""Stage `dataset`: draw the demo line or read somebody's COCO file; check; split; write the two indexes."""

from __future__ import annotations

import shutil
from pathlib import Path

from flows.layout import Layout
from flows.progress import track
from samif.config import CocoSource, Params
from samif.dataset.check import class_counts, raise_on_errors
from samif.dataset.coco import read_coco
from samif.dataset.model import Dataset
from samif.dataset.sessions import split_by_picture
from samif.errors import SamifError


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/dataset/{train,val}.json`; on the demo line also the drawn pictures."""
    shutil.rmtree(layout.drawn, ignore_errors=True)
    layout.drawn.mkdir(parents=True)
    if params.dataset.drawn is not None:
        from samif.dataset.draw.line import draw_line

        drawn = params.dataset.drawn
        with track(drawn.base_pictures + drawn.mixed_pictures + drawn.val_pictures, "scenes", "draw") as progress:
            draw_line(layout.drawn, drawn, progress.advance)
        train, val = (_checked(_drawn_source(layout, split)) for split in ("train", "val"))
    else:
        assert params.dataset.train is not None  # the model allows one of the two
        train = _checked(params.dataset.train)
        if params.dataset.val is not None:
            val = _checked(params.dataset.val)
        else:
            train, val = split_by_picture(train, params.dataset.holdout, params.dataset.seed)
    _check_classes(train, val, params)
    train.save(layout.index("train"))
    val.save(layout.index("val"))


def _drawn_source(layout: Layout, split: str) -> CocoSource:
    folder = layout.drawn / split
    return CocoSource(images=str(folder / "images"), annotations=str(folder / "annotations.json"))


def _checked(source: CocoSource) -> Dataset:
    dataset, findings = read_coco(Path(source.images), Path(source.annotations))
    raise_on_errors(findings)
    return dataset


def _check_classes(train: Dataset, val: Dataset, params: Params) -> None:
    counts = class_counts(train)
    for name in params.dataset.base_classes:
        if counts.get(name, (0, 0))[0] == 0:
            raise SamifError(
                f"base class '{name}' has no instance in the training pictures; "
                "label some, or take it out of dataset.base_classes in params.yaml"
            )
    if {(c.id, c.name) for c in train.categories} != {(c.id, c.name) for c in val.categories}:
        known = {c.name for c in train.categories}
        other = [c.name for c in val.categories if c.name not in known]
        raise SamifError(
            f"training and validation files differ in their categories ({', '.join(other) or 'ids or names'}); "
            "give both the same list with the same ids"
        )

"""Stage `dataset`: draw the demo line or read somebody's COCO file; check; split; write the two indexes."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from flows.artifacts.quarantine import BrokenImage, BrokenLabel, Quarantine
from flows.runtime.progress import say, track
from flows.workspace.findings import say_findings
from flows.workspace.layout import SPLITS, Layout, Split
from flows.workspace.shots import Available, count_objects
from flows.workspace.source_paths import source_at
from samif.config import Params
from samif.dataset import coco2014
from samif.dataset.check import Finding, class_counts, raise_on_errors
from samif.dataset.coco import read_coco
from samif.dataset.coco_classes import joined
from samif.dataset.index_file import spill
from samif.dataset.model import Dataset
from samif.dataset.sessions import split_by_image
from samif.errors import DataError


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/dataset/{train,val}.parquet`; on the demo line also the drawn images.

    Images and labels that cannot be used are an error, or, with `dataset.broken_images: quarantine` and
    `dataset.broken_labels: quarantine`, are left out and listed with reasons in `artifacts/quarantine/dataset.json`.

    Raises:
        DataError: images or annotations cannot be used.
        ConfigError: a session has too few objects once images are held out.
    """
    shutil.rmtree(layout.drawn, ignore_errors=True)
    layout.drawn.mkdir(parents=True)
    read = {
        split: read_coco(images, annotations, params.dataset, keep=spill(layout.index(split).parent))
        for split, images, annotations in _sources(layout, params)
    }
    for _, findings in read.values():
        raise_on_errors(findings)
    train = read["train"][0]
    if "val" in read:
        val = read["val"][0]
    else:
        train, val = split_by_image(train, params.dataset.holdout, params.dataset.seed)
    _check_classes(train, params)
    _check_shots(layout, train, None if "val" in read else val, params)
    if params.dataset.protocol == coco2014.PROTOCOL:
        _check_protocol(train, val)
    _quarantine(layout, params, {split: findings for split, (_, findings) in read.items()})
    train, val = joined(train, val)
    for split, dataset in (("train", train), ("val", val)):
        dataset.save(layout.index(split))
        layout.index(split).with_suffix(".json").unlink(missing_ok=True)  # of an earlier release


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
            found = source_at(layout.root, source)
            yield split, Path(found.images), Path(found.annotations)


def _quarantine(layout: Layout, params: Params, found: dict[Split, list[Finding]]) -> None:
    """List what is not used, and say how much it is and what else concerns the files as a whole."""
    pairs = [(split, finding) for split, findings in found.items() for finding in findings]
    quarantine = Quarantine(
        policy=params.dataset.broken_images,
        images=tuple(
            BrokenImage(split=split, file=f.file, reason=f.what, remedy=f.remedy)
            for split, f in pairs
            if f.loss == "image"
        ),
        labels=tuple(
            BrokenLabel(
                split=split,
                file=f.file,
                annotation=f.annotation,
                left_out=f.loss == "label",
                reason=f.what,
                remedy=f.remedy,
            )
            for split, f in pairs
            if f.loss in ("label", "outline")
        ),
    )
    quarantine.save(layout.quarantine("dataset"))
    if quarantine.images:
        say(f"left out {quarantine.sentence}; the whole list is {layout.quarantine('dataset')}")
    for split, findings in found.items():
        say_findings(split, [finding for finding in findings if finding.loss != "image"])
    if quarantine.labels:
        say(f"the list of these labels is {layout.quarantine('dataset')}")


def _check_classes(train: Dataset, params: Params) -> None:
    counts = class_counts(train)
    for name in params.dataset.base_classes:
        if counts.get(name, (0, 0))[0] == 0:
            raise DataError(
                f"base class '{name}' has no instance in the training images; "
                "label some, or take it out of dataset.base_classes in params.yaml"
            )


def _check_shots(layout: Layout, train: Dataset, held_out: Dataset | None, params: Params) -> None:
    """Refuse sessions that the training images have too few objects for, before anything is computed."""
    out = Counter[str]() if held_out is None else count_objects(held_out)
    source = params.dataset.train
    place = layout.drawn if source is None else layout.root / source.annotations
    found = Available(count_objects(train), out, place)
    for name, session in params.sessions.items():
        if session.source is None and not session.background:
            found.check(name, session.classes, session.shots)


def _check_protocol(train: Dataset, val: Dataset) -> None:
    found = coco2014.data_deviations(train, val)
    if found:
        raise DataError(
            f"the data are not those of the protocol {coco2014.PROTOCOL}: {'; '.join(found)}; create the workspace "
            f"again with 'samif init-coco2014', or set 'protocol: {coco2014.PART}' under 'dataset' in params.yaml"
        )

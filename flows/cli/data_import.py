"""`samif data import` and `samif data export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, print_json, print_rows
from flows.cli.data import data_app
from flows.workspace.layout import Layout

if TYPE_CHECKING:
    from samif.dataset.check import Finding
    from samif.dataset.model import Dataset

FormatName = Literal["coco", "yolo", "labelme", "voc", "via", "cvat", "label-studio", "masks"]


@data_app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="File or folder of the labels.")],
    out: Annotated[Path, typer.Option(help="COCO file to write.")],
    images: Annotated[Path | None, typer.Option(help="Folder of images.", show_default="found by the labels")] = None,
    format_: Annotated[
        FormatName | None, typer.Option("--format", help="Format of the labels.", show_default="guessed")
    ] = None,
    boxes: Annotated[
        Literal["leave-out", "outline"], typer.Option(help="Leave boxes out, or take them as outlines.")
    ] = "leave-out",
    split: Annotated[str | None, typer.Option(help="Part of a split data set.", show_default="all")] = None,
    class_key: Annotated[
        str | None, typer.Option(help="Attribute of VGG VIA that holds the class.", show_default="found")
    ] = None,
    default_class: Annotated[str | None, typer.Option(help="Class of labels that name none.")] = None,
    labels_on: Annotated[
        Literal["auto", "upright", "stored"], typer.Option(help="What labels of EXIF-turned images were drawn on.")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace the COCO file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert labels of another tool to a COCO file; every loss and every change is reported."""
    from flows.runtime.progress import track
    from samif.dataset.check import class_counts
    from samif.dataset.formats import ImportOptions, import_labels

    options = ImportOptions(
        boxes=boxes, split=split, class_key=class_key, default_class=default_class, labels_on=labels_on
    )
    with track(1, "files", f"import {source.name}") as progress:
        done = import_labels(source, out, format_, images, options, force=force)
        progress.advance()
    counts = class_counts(done.dataset)
    if as_json:
        print_json(
            {
                "format": done.format,
                "recognised_by": done.recognised or None,
                "images": done.images,
                "annotations": done.annotations,
                "image_count": len(done.dataset.images),
                "digest": done.dataset.digest,
                "classes": {name: {"instances": i, "images": p} for name, (i, p) in counts.items()},
                "findings": done.findings,
            }
        )
        return
    how = f"recognised by {done.recognised}; --format names another" if done.recognised else "as named"
    say = console()
    say.print(f"format: {done.format} ({how})", markup=False, soft_wrap=True)
    _print_dataset(done.dataset, done.findings)
    say.print(f"images: {done.images}", markup=False, soft_wrap=True)
    say.print(f"annotations: {done.annotations}", markup=False, soft_wrap=True)


@data_app.command("export")
def export(
    out: Annotated[Path, typer.Option(help="COCO file, or the folder of another format or with images, to write.")],
    images: Annotated[Path | None, typer.Option(help="Folder of images.", show_default="the workspace's")] = None,
    annotations: Annotated[Path | None, typer.Option(help="COCO instance file.")] = None,
    split: Annotated[Literal["train", "val"], typer.Option(help="Part of the workspace's data set.")] = "train",
    format_: Annotated[FormatName, typer.Option("--format", help="Format of the labels.")] = "coco",
    with_images: Annotated[bool, typer.Option("--with-images", help="Copy the images beside the labels.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    workspace: Workspace = HERE,
) -> None:
    """Write the labels as samif uses them, after all corrections, in any format that `data import` reads."""
    from flows.workspace.image_roots import images_root
    from samif.config import ReadRules, load_params
    from samif.dataset.check import raise_on_errors
    from samif.dataset.coco import read_coco
    from samif.dataset.formats import export_labels
    from samif.dataset.model import Dataset
    from samif.errors import ObjectMissing

    if (images is None) != (annotations is None):
        raise typer.BadParameter("give --images and --annotations together, or neither")
    findings: list[Finding] = []
    if images is not None and annotations is not None:
        dataset, findings = read_coco(images, annotations, ReadRules(broken_images="quarantine"))
        raise_on_errors(findings)
    else:
        layout = Layout(workspace.resolve())
        if not layout.index(split).is_file():
            raise ObjectMissing(
                f"{layout.index(split)} does not exist; run 'samif run', or give --images and --annotations"
            )
        dataset = Dataset.load(layout.index(split), images_root(layout, load_params(layout.params), split))
    lost = export_labels(dataset, out, format_, images=with_images, force=force)
    _print_dataset(dataset, findings)
    for sentence in lost:
        console().print(sentence, soft_wrap=True)
    console().print(f"annotations: {out}", markup=False, soft_wrap=True)


def _print_dataset(dataset: Dataset, findings: list[Finding] | tuple[Finding, ...]) -> None:
    """Objects by class, then what was lost or changed, by kind."""
    from samif.dataset.check import class_counts, kinds

    rows = [[name, str(i), str(p)] for name, (i, p) in class_counts(dataset).items()]
    print_rows(["class", "instances", "images"], rows, right=("instances", "images"))
    if findings:
        told = [
            [{"image": "image", "label": "label", "outline": "outline"}.get(k.loss, "-"), str(k.count),
             f"{k.what}; {k.remedy}", " | ".join(k.places)]
            for k in kinds(findings)
        ]  # fmt: skip
        print_rows(["lost", "count", "finding", "where"], told, right=("count",))
    labels = sum(len(image.annotations) for image in dataset.images)
    lost = sum(finding.count for finding in findings if finding.loss in ("image", "label"))
    console().print(f"{len(dataset.images)} images, {labels} labels, {lost} images or labels left out")

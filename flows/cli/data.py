"""`samif data check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, group, print_json, print_rows
from flows.runtime.progress import say
from flows.workspace.layout import SPLITS, Layout
from flows.workspace.source_paths import check_sources, source_at
from samif.config import CocoSource, ReadRules, load_params
from samif.errors import DataError, ObjectMissing

if TYPE_CHECKING:
    from flows.advice.check import Advised
    from samif.dataset.check import Kind
    from samif.dataset.model import Dataset

data_app = group("data", "Check images and labels.")


@data_app.command("check")
def check(
    images: Annotated[Path | None, typer.Option(help="Folder of images.", show_default="the workspace's")] = None,
    annotations: Annotated[Path | None, typer.Option(help="COCO instance file.")] = None,
    labels_on: Annotated[
        Literal["auto", "upright", "stored"] | None,
        typer.Option(help="As dataset.labels_on.", show_default="the workspace's, or auto"),
    ] = None,
    advice: Annotated[bool, typer.Option(help="Advise on images and labels too; reads every image.")] = True,
    page: Annotated[
        Path | None, typer.Option(help="Page of the advice.", show_default="reports/data.html of the workspace")
    ] = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Check images and COCO files: findings per image and annotation, number of objects per class. Advise per class:
    are its images enough and varied, what to photograph next, which labels are probably wrong."""
    from flows.cli.data_advice import print_advice
    from flows.runtime.progress import track
    from samif.dataset.check import class_counts, kinds
    from samif.dataset.coco import read_coco

    if (images is None) != (annotations is None):
        raise typer.BadParameter("give --images and --annotations together, or neither")
    reports = []
    rules, sources = _sources(images, annotations, workspace)
    if labels_on is not None:
        rules = rules.model_copy(update={"labels_on": labels_on})
    for source in sources:
        with track(1, "files", f"check {Path(source.annotations).name}") as progress:
            dataset, findings = read_coco(Path(source.images), Path(source.annotations), rules)
            progress.advance()
        reports.append((source, dataset, findings, class_counts(dataset)))
    errors = sum(f.count for _, _, findings, _ in reports for f in findings if f.level == "error")
    advised: Advised | None = None
    if advice and not errors and reports[0][1].images:
        advised = _advise([dataset for _, dataset, _, _ in reports], images is None, workspace, page)
    if as_json:
        print_json(
            [
                {
                    "images": source.images,
                    "annotations": source.annotations,
                    "image_count": len(dataset.images),
                    "digest": dataset.digest,
                    "findings": findings,
                    "kinds": kinds(findings),
                    "classes": {name: {"instances": i, "images": p} for name, (i, p) in counts.items()},
                    "advice": None if advised is None or row else advised.advice,
                }
                for row, (source, dataset, findings, counts) in enumerate(reports)
            ]
        )
    else:
        out = console()
        for source, dataset, findings, counts in reports:
            out.print(f"{source.annotations}: {len(dataset.images)} images", style="bold", soft_wrap=True)
            rows = [[n, str(i), str(p)] for n, (i, p) in counts.items()]
            print_rows(["class", "instances", "images"], rows, right=("instances", "images"))
            if findings:
                told = [[k.level, str(k.count), _told(k), " | ".join(k.places)] for k in kinds(findings)]
                print_rows(["level", "count", "finding", "where"], told, right=("count",))
            hint = "; --json lists each with its place" if len(findings) > len(kinds(findings)) else ""
            out.print(f"{sum(f.count for f in findings)} findings{hint}\n")
        if advised is not None:
            print_advice(advised)
    if errors:
        raise DataError(f"{errors} errors in the images and labels; each finding says what to do")


_EFFECT = {"image": "image left out: ", "label": "label left out: ", "outline": "label changed: "}


def _told(kind: Kind) -> str:
    effect = _EFFECT.get(kind.loss, "") if kind.level == "warning" else ""
    return f"{effect}{kind.what}; {kind.remedy}"


def _advise(datasets: list[Dataset], of_workspace: bool, workspace: Path, page: Path | None) -> Advised:
    """Advice about the training images, which are the first, and the validation images, if there are any."""
    from flows.advice.check import advise_files, advise_workspace

    if not of_workspace:
        return advise_files(datasets[0], page)
    layout = Layout(workspace.resolve())
    return advise_workspace(layout, load_params(layout.params), dict(zip(SPLITS, datasets, strict=False)), page)


def _sources(images: Path | None, annotations: Path | None, workspace: Path) -> tuple[ReadRules, list[CocoSource]]:
    """Rules and files of the workspace, or the files that are named."""
    if images is not None and annotations is not None:
        return ReadRules(), [CocoSource(images=str(images), annotations=str(annotations))]
    layout = Layout(workspace.resolve())
    params = load_params(layout.params)
    dataset = params.dataset
    if dataset.train is None:
        if not layout.drawn.is_dir():
            raise ObjectMissing("the first 'samif run' draws the demo line; run it, or give --images and --annotations")
        folders = [layout.drawn / split for split in ("train", "val")]
        return dataset, [CocoSource(images=str(f / "images"), annotations=str(f / "annotations.json")) for f in folders]
    for note in check_sources(layout, params):
        say(note)
    return dataset, [source_at(layout.root, source) for source in (dataset.train, dataset.val) if source is not None]

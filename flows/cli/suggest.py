"""`samif suggest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli.app import (
    HERE,
    AsJson,
    Checkpoint,
    Recursive,
    SemanticCheckpoint,
    Workspace,
    app,
    console,
    print_json,
    print_rows,
    print_skipped,
)
from flows.cli.data_import import FormatName


@app.command()
def suggest(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    model: Annotated[
        str | None, typer.Option(help="NAME@alias, NAME/VERSION, or a folder.", show_default="the newest classifier")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Images to suggest.")] = 10,
    strategy: Annotated[
        Literal["typical", "uncertain", "random"],
        typer.Option(help="Typical images, then uncertain ones; uncertain ones alone; any."),
    ] = "typical",
    labelled: Annotated[
        list[Path] | None,
        typer.Option(help="Images, or a folder of them, labelled already beside the workspace's; repeat for several."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the suggested images, with proposed labels to correct.")
    ] = None,
    format_: Annotated[FormatName, typer.Option("--format", help="Format of the proposed labels.")] = "coco",
    seed: Annotated[int, typer.Option(help="Seed of clusters, dropout and the random order.")] = 0,
    recursive: Recursive = False,
    checkpoint: Checkpoint = None,
    semantic_checkpoint: SemanticCheckpoint = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Choose the images to label next; write them with masks and names to correct."""
    from flows.inference.image_files import find_images
    from flows.inference.source import find
    from flows.runtime.device import device_here
    from flows.runtime.writable import check_folder
    from flows.suggest.suggest import newest_classifier, write_proposals
    from flows.suggest.suggest import suggest as choose_images
    from flows.workspace.layout import Layout
    from samif.config import load_params
    from samif.dataset.formats.export import check_output_folder
    from samif.inference.load import load_segmenter

    layout = Layout(workspace.resolve())
    given = find_images(images, recursive)
    known = find_images(labelled, True).paths if labelled else []
    if out is not None:
        check_folder(out, "--out")
        check_output_folder(out, force=False)
    found = find(model or newest_classifier(layout, load_params(layout.params)), workspace)
    segmenter = load_segmenter(found, checkpoint, semantic_checkpoint, device_here())
    done = choose_images(segmenter, found, given.images, known, layout, count, strategy, seed)
    if not as_json:  # before the labels are written: a format may not hold them
        print_rows(["image", "why"], [[s.image.name, s.choice.why] for s in done.images])
    lost = write_proposals(segmenter, done, out, format_) if out is not None and done.images else []
    skipped = [*given.skipped, *done.skipped]
    if as_json:
        suggestions = [
            {"image": s.image.path, "name": s.image.name, "by": s.choice.by, "why": s.choice.why} for s in done.images
        ]
        print_json(
            {
                "images": suggestions,
                "candidates": done.candidates,
                "labelled": done.labelled,
                "out": out if done.images else None,
                "lost": lost,
                "skipped": skipped,
            }
        )
        return
    print_skipped(skipped)
    say = console()
    say.print(
        f"{len(done.images)} of {done.candidates} images; {done.labelled} are labelled already", soft_wrap=True
    )  # fmt: skip
    if len(done.images) < min(count, done.candidates):
        say.print("the others are near-duplicates of images that are labelled or suggested", soft_wrap=True)
    for sentence in lost:
        say.print(sentence, soft_wrap=True)
    if out is not None and done.images:
        say.print(f"{out}: the images with proposed labels; correct them, then 'samif data import'", soft_wrap=True)

"""`samif predict`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

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
from flows.cli.registry import open_registry, tell_hand_move


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    model: Annotated[str, typer.Option(help="NAME@alias, NAME/VERSION, or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json, instances.json and overlays.")] = Path(
        "predictions"
    ),
    score: Annotated[
        float | None, typer.Option(min=0, max=1, show_default="the model's", help="Score threshold.")
    ] = None,
    recursive: Recursive = False,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="COCO file whose image and category ids the results take.", show_default="one of the workspace"
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    semantic_checkpoint: SemanticCheckpoint = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Segment images with a model; write COCO results, a COCO file and overlay images."""
    from flows.inference.image_files import find_images
    from flows.inference.predict import predict as predict_images
    from flows.inference.source import find
    from flows.runtime.progress import track
    from flows.runtime.writable import check_folder
    from flows.workspace.layout import Layout
    from samif.inference.model import open_model

    given = find_images(images, recursive)
    check_folder(out, "--out")
    found = find(model, workspace)
    loaded = open_model(found, checkpoint, semantic_checkpoint)
    known = None if found.params is None else (Layout(workspace.resolve()), found.params)
    with track(len(given.images), "images", "predict") as progress:
        done = predict_images(loaded, given.images, out, score, progress.advance, annotations, known)
    skipped = [*given.skipped, *done.skipped]
    if as_json:
        print_json(
            {
                "results": out / "results.json",
                "instances": out / "instances.json",
                "images": len(done.predictions),
                "ids": done.ids.file,
                "notes": done.notes,
                "skipped": skipped,
            }
        )
        return
    rows = []
    for prediction in done.predictions:
        counts = Counter(prediction.detections.class_names)
        rows.append([prediction.image.name, ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"])
    print_rows(["image", "found"], rows)
    print_skipped(skipped)
    say = console()
    overlays = f"{len(done.predictions)} overlay{'s' if len(done.predictions) != 1 else ''}"
    say.print(f"{out / 'results.json'}, {out / 'instances.json'} and {overlays}", soft_wrap=True)
    if done.ids.file is not None:
        say.print(f"image and category ids are those of {done.ids.file}", soft_wrap=True)
    for note in done.notes:
        say.print(note, soft_wrap=True)
    if found.params is not None:
        tell_hand_move(open_registry(workspace), model)

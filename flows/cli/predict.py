"""`samif predict`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, app, console, print_json, print_rows


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    model: Annotated[str, typer.Option(help="NAME@alias, NAME/VERSION, or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json and overlays.")] = Path("predictions"),
    score: Annotated[
        float | None, typer.Option(min=0, max=1, show_default="the model's", help="Score threshold.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Checkpoint of an encoder that is not bundled.")] = None,
    semantic_checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint of the semantic encoder, if there is one.")
    ] = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Segment images with a model; write COCO results and overlay images."""
    from flows.inference.predict import find_images
    from flows.inference.predict import predict as predict_images
    from flows.inference.source import find
    from flows.runtime.progress import track
    from samif.inference.model import open_model

    files = find_images(images)
    loaded = open_model(find(model, workspace), checkpoint, semantic_checkpoint)
    with track(len(files), "images", "predict") as progress:
        predictions = predict_images(loaded, files, out, score, progress.advance)
    if as_json:
        print_json({"results": out / "results.json", "images": len(predictions)})
        return
    rows = []
    for prediction in predictions:
        counts = Counter(prediction.detections.class_names)
        rows.append([prediction.file.name, ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"])
    print_rows(["image", "found"], rows)
    console().print(f"{out / 'results.json'} and {len(files)} overlays", soft_wrap=True)

"""`samif predict`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, app, console, print_json, print_rows
from flows.runtime.device import device_here
from flows.workspace.layout import Layout
from samif.config import load_params


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    model: Annotated[str, typer.Option(help="NAME@alias, NAME/VERSION, or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json and overlays.")] = Path("predictions"),
    score: Annotated[
        float | None, typer.Option(min=0, max=1, show_default="the model's", help="Score threshold.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Checkpoint of the encoder, if it is not tiny.")] = None,
    semantic_checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint of the semantic encoder, if there is one.")
    ] = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Segment images with a model; write COCO results and overlay images."""
    from flows.inference.predict import find_images, load_segmenter
    from flows.inference.predict import predict as predict_images
    from flows.registry.model_files import find_model
    from flows.registry.registry import Registry
    from flows.runtime.progress import track

    files = find_images(images)
    layout = Layout(workspace.resolve())
    params = load_params(layout.params) if layout.params.exists() else None
    registry = Registry(params.registry.tracking_uri, layout.root) if params else None
    bundle = find_model(model, layout, registry)
    segmenter = load_segmenter(bundle, params, checkpoint, semantic_checkpoint, device_here())
    least = segmenter.evaluate_params.operating_score if score is None else score
    with track(len(files), "images", "predict") as progress:
        predictions = predict_images(segmenter, files, out, least, progress.advance)
    if as_json:
        print_json({"results": out / "results.json", "images": len(predictions)})
        return
    rows = []
    for prediction in predictions:
        counts = Counter(prediction.instances.labels)
        rows.append([prediction.file.name, ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"])
    print_rows(["image", "found"], rows)
    console().print(f"{out / 'results.json'} and {len(files)} overlays", soft_wrap=True)

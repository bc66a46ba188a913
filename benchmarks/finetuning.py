"""What fine-tuning of the decoder is worth on the validation images, which it never saw:
`python -m benchmarks.finetuning NAME=WORKSPACE...`. Prints a table: before and after, base and novel objects.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.loaders.inputs import decoder_of, sam_of, source_of
from flows.runtime.tuning import tune_process
from flows.workspace.layout import Layout
from samif.config import load_params
from samif.finetune.quality import Quality, measure
from samif.sam.decoder import InstanceDecoder

COLUMNS = ("iou_base", "iou_other", "recall_base", "recall_other", "background_silent")


def main(workspaces: Annotated[list[str], typer.Argument(metavar="NAME=WORKSPACE")]) -> None:
    """Measure each workspace's decoder and the one that it started from."""
    tune_process()
    print("| | images | mask IoU base | novel | recall at 100 base | novel | background silent |")
    print("|---|---|---|---|---|---|---|")
    for text in workspaces:
        name, _, folder = text.partition("=")
        layout = Layout(Path(folder).resolve())
        params = load_params(layout.params)
        source = source_of(layout, params, "val")
        classes = frozenset(params.dataset.base_classes)
        before = InstanceDecoder.of(sam_of(params.encoder).sam).eval()
        for when, decoder in (("before", before), ("after", decoder_of(layout))):
            quality = measure(decoder, source.dataset.images, classes, source.read, seed=0)
            print(f"| {name}, {when} | {quality.images} | {_cells(quality)} |", flush=True)


def _cells(quality: Quality) -> str:
    values = asdict(quality)
    return " | ".join("-" if values[key] is None else f"{100 * values[key]:.1f}" for key in COLUMNS)


if __name__ == "__main__":
    typer.run(main)

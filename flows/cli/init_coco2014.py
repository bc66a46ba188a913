"""`samif init-coco2014`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import app, console


@app.command("init-coco2014")
def init_coco2014(
    folder: Annotated[Path, typer.Argument(help="Folder of the new workspace.")],
    root: Annotated[Path, typer.Argument(help="Contains train2014, val2014 and annotations; images are not copied.")],
    val_ids: Annotated[
        Path | None,
        typer.Option(help="Ids of the test images.", show_default="minival2014 or val2017 in annotations"),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a part of COCO2014, which is not the published protocol.")
    ] = False,
    shots: Annotated[int, typer.Option(help="Labelled objects per novel class.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the shot draw.")] = 0,
    encoder: Annotated[str, typer.Option(help="photo, tiny, mobile_sam, vit_b, vit_l or vit_h.")] = "photo",
    checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint of the encoder: file, https:// or s3:// address.")
    ] = None,
    checkpoint_sha256: Annotated[
        str | None, typer.Option(help="SHA-256 of the checkpoint; another file is refused.")
    ] = None,
    line: Annotated[str | None, typer.Option(help="Name of the line in the registry.", show_default="folder")] = None,
) -> None:
    """Create a workspace of the published COCO2014 protocol: 60 base classes, 20 novel classes in one session."""
    from flows.workspace.init_coco2014 import FOLDER
    from flows.workspace.init_coco2014 import init_coco2014 as make
    from samif.dataset.coco2014 import CLAIMS

    made = make(
        folder, root, test_ids=val_ids, partial=partial, shots=shots, seed=seed, encoder=encoder,
        checkpoint=checkpoint, checkpoint_sha256=checkpoint_sha256, line=line,
    )  # fmt: skip
    out = console()
    parts = made.parts
    novel = sum(len(session.classes) for session in made.params.sessions.values())
    out.print(
        f"workspace {folder}: {parts.train.images:,} training and {parts.test.images:,} test images, "
        f"{len(made.params.dataset.base_classes)} base and {novel} novel classes",
        soft_wrap=True,
    )
    assert made.params.dataset.protocol is not None
    out.print(CLAIMS[made.params.dataset.protocol], style="bold" if partial else None)
    if parts.absent:
        out.print(f"{parts.absent:,} listed images are not there and were left out", soft_wrap=True)
    if made.without:
        out.print(f"too few objects, left out: {', '.join(made.without)}", soft_wrap=True)
    if parts.left_out:
        record = folder / FOLDER / "protocol.json"
        out.print(
            f"{len(parts.left_out)} labels enclose no pixel and were left out, listed in {record}", soft_wrap=True
        )
    if line is None and made.params.line != folder.resolve().name:
        out.print(f"line '{made.params.line}': small letters, digits, - and _ only", soft_wrap=True)
    out.print(f"next: cd {shlex.quote(str(folder))} && samif run", soft_wrap=True)

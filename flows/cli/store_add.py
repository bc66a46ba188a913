"""`samif store add`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import HERE, AsJson, Recursive, Workspace, console, print_json, print_rows, print_skipped
from flows.cli.store import Location, store_app
from flows.workspace.layout import Layout
from samif.config import EmbedParams, EncoderParams, load_params
from samif.errors import ConfigError


@store_app.command()
def add(
    places: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", show_default=False)],
    encoder: Annotated[
        str | None, typer.Option(help="Encoder architecture.", show_default="the workspace's, or tiny")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint of --encoder: file, https:// or s3:// address.")
    ] = None,
    store: Location = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers, each with one encoder.", show_default="2")
    ] = None,
    recursive: Recursive = False,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Embed unlabelled images; unreadable ones are quarantined and listed."""
    from flows.embedding.folder import add_images
    from flows.inference.image_files import find_images
    from flows.store import open_store

    layout = Layout(workspace.resolve())
    params = load_params(layout.params) if layout.params.exists() else None
    if store is None and params is None:
        raise ConfigError(f"there is no params.yaml in {layout.root}; name a store with --store")
    embed = params.embed if params else EmbedParams()
    if workers is not None:
        embed = embed.model_copy(update={"workers": workers})
    wanted = _encoder(params.encoder if params else EncoderParams(), encoder, checkpoint)
    base = layout.root if store is None else Path.cwd()
    opened = open_store(store or embed.store, base, wanted.stored_as, embed.cache_gib)
    found = find_images(places, recursive)
    added = add_images(found.paths, embed, wanted, opened)
    if as_json:
        print_json(
            {
                "store": opened.location,
                "encoder": added.manifest.encoder,
                "files": added.files,
                "images": len(added.manifest.images),
                "computed": added.computed,
                "quarantined": added.quarantined,
                "skipped": found.skipped,
            }
        )
        return
    if added.quarantined:
        rows = [[_shown(q.path), f"{q.reason}; {q.remedy}"] for q in added.quarantined]
        print_rows(["left out", "because it"], rows)
    print_skipped(found.skipped)
    console().print(
        f"{added.files} files: {len(added.manifest.images)} images in {opened.location}, {added.computed} of them "
        f"computed now; {len(added.quarantined)} files left out",
        soft_wrap=True,
    )


def _encoder(known: EncoderParams, name: str | None, checkpoint: str | None) -> EncoderParams:
    """The workspace's encoder, or the one that the command line names, otherwise used alike."""
    from samif.sam.zoo import find_architecture

    if name is None and checkpoint is None:
        return known
    architecture = find_architecture(name or known.name)
    changed = {"name": architecture.name, "checkpoint": checkpoint, "sha256": None}
    return EncoderParams.model_validate(known.model_dump() | changed)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

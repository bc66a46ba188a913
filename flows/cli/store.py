"""`samif store stat | verify | gc`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, group, print_json, print_rows
from flows.workspace.layout import Layout
from samif.config import load_params
from samif.errors import ConfigError, IntegrityError, ServiceUnavailable

if TYPE_CHECKING:
    from flows.artifacts.embedding_manifest import EmbeddingManifest
    from flows.store import EmbeddingStore

store_app = group("store", "Embedding store: show, verify, clean up, fill.")

Location = Annotated[
    str | None, typer.Option("--store", help="A folder or s3://bucket/prefix.", show_default="the workspace's")
]


@store_app.command()
def stat(store: Location = None, workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """Show the contents by encoder, and damage that needs no hashing to detect."""
    from flows.store.gc import stat as stat_namespaces

    opened = _open(store, workspace)
    rows = list(stat_namespaces(opened.storage))
    if as_json:
        print_json({"store": opened.location, "namespaces": rows})
        return
    names = _encoder_names(workspace)
    print_rows(
        ["namespace", "encoder", "dtype", "shards", "images", "size", "damaged"],
        [
            [
                r.namespace, _encoder(r.encoder, names), r.dtype or "?", str(r.shards), str(r.images), _size(r.bytes),
                str(len(r.damages)),
            ]
            for r in rows
        ],
        right=("shards", "images", "size", "damaged"),
        whole=("namespace", "dtype"),
    )  # fmt: skip
    out = console()
    for row in rows:
        for damage in row.damages:
            out.print(f"damaged: {damage}", soft_wrap=True)
    out.print(f"{opened.location}: {sum(r.images for r in rows)} images, {_size(sum(r.bytes for r in rows))}")


@store_app.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged shards; runs may write to the store meanwhile.")
    ] = False,
    store: Location = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Verify every checksum; exits 1 on damage that --repair did not remove."""
    from flows.runtime.progress import track
    from flows.store.catalogue import Catalogue
    from flows.store.gc import namespaces
    from flows.store.verify import repair as repair_shard
    from flows.store.verify import verify as verify_namespace

    opened = _open(store, workspace)
    storage = opened.storage
    catalogues = {folder: Catalogue(storage, folder) for folder in namespaces(storage)}
    shards = sum(len(catalogue.shards()) for catalogue in catalogues.values())
    damages, left = [], []
    with track(shards, "shards", "verify") as progress:
        for folder, catalogue in catalogues.items():
            found = verify_namespace(storage, folder, catalogue, progress.advance)
            damages += found
            if repair:
                left += [damage.names[0] for damage in found if not repair_shard(storage, folder, damage)]
    if left:
        raise ServiceUnavailable(f"{left[0]} in {opened.location} cannot be removed; correct the permissions there")
    if as_json:
        told = [{"shard": d.shard, "reason": d.reason, "files": d.names} for d in damages]
        print_json({"store": opened.location, "shards": shards, "damages": told, "repaired": repair})
    elif damages:
        print_rows(["damaged", "because"], [[d.shard, d.reason] for d in damages])
    if damages and not repair:
        count = len({damage.shard for damage in damages})
        places = "1 place" if count == 1 else f"{count} places"
        raise IntegrityError(
            f"the embedding store {opened.location} is damaged in {places}; 'samif store verify --repair' removes "
            "that, and the next 'samif run' computes it again"
        )
    if not as_json:
        done = f"removed {len(damages)}; 'samif run' computes them again" if damages else "all intact"
        console().print(f"{opened.location}: {shards} shards, {done}", soft_wrap=True)


@store_app.command()
def gc(
    keep: Annotated[
        list[Path],
        typer.Argument(help="Workspaces or embedding manifests whose embeddings are kept."),
    ],
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete them; without this option they are only listed.")
    ] = False,
    store: Location = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """List or delete embeddings that none of the given workspaces needs and that are older than an hour.

    Name everything that uses the store, including other branches, by their embeddings.parquet and semantic.parquet.
    """
    from flows.store.gc import garbage

    manifests = [manifest for path in keep for manifest in _manifests(path)]
    opened = _open(store, workspace)
    found = list(garbage(opened.storage, manifests))
    if delete:
        for part in found:
            opened.storage.delete(part.names)
            left = {entry.name for entry in opened.storage.entries(part.namespace)}.intersection(part.names)
            if left:
                raise ServiceUnavailable(
                    f"{len(left)} of {len(part.names)} files in {opened.location} cannot be removed, such as "
                    f"{min(left)}; correct the permissions there"
                )
    if as_json:
        print_json({"store": opened.location, "deleted": delete, "garbage": found})
        return
    names = {manifest.encoder.digest: manifest.encoder.name for manifest in manifests}
    print_rows(
        ["namespace", "encoder", "shards", "size", "why"],
        [[g.namespace, _encoder(g.encoder, names), str(g.shards), _size(g.bytes), g.why] for g in found if g.names],
        right=("shards", "size"),
        whole=("namespace",),
    )
    size, young = _size(sum(g.bytes for g in found)), sum(g.too_young for g in found)
    told = f"removed {size}" if delete else f"{size} could go, nothing was removed: add --delete"
    later = f"; {young} files are younger than an hour and stay" if young else ""
    console().print(f"{opened.location}: {told}{later}", soft_wrap=True)


def _open(store: str | None, workspace: Path) -> EmbeddingStore:
    from flows.store import open_store

    if store is not None:
        return open_store(store, Path.cwd())
    layout = Layout(workspace.resolve())
    if not layout.params.exists():
        raise ConfigError(f"there is no params.yaml in {layout.root}; name a store with --store")
    embed = load_params(layout.params).embed
    return open_store(embed.store, layout.root, cache_gib=embed.cache_gib)


def _manifests(path: Path) -> list[EmbeddingManifest]:
    """That of a file; those of a workspace, of whose encoders only the first must have run."""
    from flows.artifacts.embedding_manifest import EmbeddingManifest

    layout = Layout(path)
    places = [layout.embeddings, *([layout.semantic] if layout.semantic.exists() else [])] if path.is_dir() else [path]
    return [EmbeddingManifest.load(place) for place in places]


def _encoder_names(workspace: Path) -> dict[str, str]:
    """Names of the encoders that the workspace's embeddings were made with, by their digests."""
    root = workspace.resolve()
    if not Layout(root).embeddings.exists():
        return {}
    return {manifest.encoder.digest: manifest.encoder.name for manifest in _manifests(root)}


def _encoder(digest: str | None, names: dict[str, str]) -> str:
    if digest is None:
        return "?"
    return f"{names[digest]} {digest[:12]}" if digest in names else digest[:12]


def _size(count: int) -> str:
    from rich.filesize import decimal

    return decimal(count)

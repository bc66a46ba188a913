"""Can the cluster reach what a run needs?

A job is a fresh clone of the workspace's small files. Images, embeddings, DVC's cache and the registry must lie where
the cluster finds them: in a bucket, behind a server, or in a folder that it sees at the same path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from flows.http.auth import is_loopback
from flows.workspace.dvc_config import default_remote
from flows.workspace.layout import Layout
from samif.config import CocoSource, Params
from samif.errors import SamifError


def sources_of(params: Params) -> list[CocoSource]:
    """Every folder of images with its annotations that a run reads."""
    own = [source for source in (params.dataset.train, params.dataset.val) if source is not None]
    return own + [session.source for session in params.sessions.values() if session.source is not None]


def is_here(address: str) -> bool:
    """Whether a cluster's address is one of this machine."""
    return is_loopback(urlsplit(address).hostname or "")


def check_reach(layout: Layout, params: Params, shared: Sequence[Path]) -> None:
    """Refuse a run whose data a cluster elsewhere cannot reach.

    Args:
        shared: folders that the cluster sees at the same paths.

    Raises:
        SamifError: names the first thing out of reach and what to do.
    """
    for sentence in _out_of_reach(layout, params, shared):
        raise SamifError(sentence)


def _out_of_reach(layout: Layout, params: Params, shared: Sequence[Path]) -> Iterator[str]:
    remote = default_remote(layout)
    remote_reached = remote is not None and ("://" in remote or _is_under(remote, shared))
    for source in sources_of(params):
        for path in (source.images, source.annotations):
            if not (_is_under(path, shared) or (remote_reached and _is_tracked(layout, path))):
                yield (
                    f"{path} is only on this machine, the cluster cannot read it; put it in a folder that the cluster "
                    "sees at the same path and name that with --shared, or keep it inside the workspace by 'dvc add' "
                    "with a DVC remote"
                )
    for key, checkpoint in _checkpoints(params).items():
        if checkpoint and "://" not in checkpoint and not _is_under(checkpoint, shared):
            yield (
                f"the checkpoint {checkpoint} is only on this machine, the cluster cannot read it; give an https:// or "
                f"s3:// address in '{key}', or name its folder with --shared"
            )
    if "://" not in params.embed.store and not _is_under(params.embed.store, shared):
        yield (
            f"the embedding store {params.embed.store} is only on this machine, the cluster's would be lost with the "
            "job; set 'embed.store' in params.yaml to s3://bucket/prefix or to a folder named with --shared"
        )
    if not remote_reached:
        yield (
            "the workspace has no DVC remote that the cluster can reach, so the run's results would be lost with the "
            "job; add one by 'dvc remote add --default NAME s3://bucket/prefix'"
        )
    address = params.registry.tracking_uri
    if address is None or urlsplit(address).scheme not in ("http", "https") or is_here(address):
        yield (
            "the registry is only on this machine, the cluster cannot register a version; set 'registry.tracking_uri' "
            "in params.yaml to an MLflow server that both reach"
        )


def _checkpoints(params: Params) -> dict[str, str | None]:
    semantic = params.semantic.checkpoint if params.semantic else None
    return {"encoder.checkpoint": params.encoder.checkpoint, "semantic.checkpoint": semantic}


def _is_under(path: str, folders: Iterable[Path]) -> bool:
    return Path(path).is_absolute() and any(Path(path).is_relative_to(folder) for folder in folders)


def _is_tracked(layout: Layout, path: str) -> bool:
    """Inside the workspace, and it or a folder around it is an output of a .dvc file there."""
    inside = Path(path)
    if inside.is_absolute() or ".." in inside.parts:
        return False
    return any((layout.root / f"{part}.dvc").is_file() for part in (inside, *inside.parents) if part.name)

"""Can the cluster reach what a run needs?

A job is a fresh clone of the workspace's small files. Images, embeddings, DVC's cache and the registry must lie where
the cluster finds them: in a bucket, behind a server, or in a folder that it sees at the same path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from flows.http.auth import is_loopback
from flows.pipeline.reproduce import dvc_environment
from flows.workspace.data_state import checkpoints_of, dvc_file_of, sources_of
from flows.workspace.dvc_config import default_remote
from flows.workspace.layout import Layout
from samif.config import Params
from samif.errors import DataError


def is_local(address: str) -> bool:
    """Whether a cluster's address is one of this machine."""
    return is_loopback(urlsplit(address).hostname or "")


def unreachable(layout: Layout, params: Params, shared: Sequence[Path]) -> str | None:
    """The first thing that a cluster elsewhere cannot reach and what to do, in one sentence; none if it reaches all.

    Args:
        shared: folders that the cluster sees at the same paths.
    """
    return next(_unreachable(layout, params, shared), None)


def check_tracked(layout: Layout, params: Params) -> None:
    """Refuse images and annotations that have changed since 'dvc add': a cluster would get them as they were then.

    Raises:
        DataError: names the .dvc file.
    """
    paths = [path for source in sources_of(params) for path in (source.images, source.annotations)]
    files = {file for path in paths if (file := dvc_file_of(layout, path)) is not None}
    if not files:
        return
    from dvc.repo import Repo

    with dvc_environment(layout.root), contextlib.closing(Repo(str(layout.root))) as repo:
        for file in sorted(files):
            name = file.relative_to(layout.root).as_posix()
            states = [entry.get("changed outs", {}) for entry in repo.status(targets=[name]).get(name, [])]
            changed = [path for state in states for path, change in state.items() if change == "modified"]
            if changed:
                raise DataError(
                    f"{changed[0]} has changed since {name} was written, and the cluster would get it as it was; run "
                    f"'dvc add {changed[0]}' and 'dvc push', and submit again"
                )


def _unreachable(layout: Layout, params: Params, shared: Sequence[Path]) -> Iterator[str]:
    remote = default_remote(layout)
    remote_reached = remote is not None and ("://" in remote or _is_under(remote, shared))
    for source in sources_of(params):
        for path in (source.images, source.annotations):
            if remote_reached and dvc_file_of(layout, path) is not None:
                continue
            place = layout.root / path
            if not _is_under(str(place), shared):
                yield (
                    f"{path} is only on this machine, the cluster cannot read it; put it in a folder that the cluster "
                    "sees at the same path and name that with --shared, or keep it inside the workspace by 'dvc add' "
                    "with a DVC remote"
                )
            elif not place.exists():
                yield (
                    f"{path} does not exist on this machine, so a change of it could not be noticed; mount its folder "
                    "at the same path here, or correct params.yaml"
                )
    for key, checkpoint in checkpoints_of(params).items():
        if "://" not in checkpoint and not _is_under(checkpoint, shared):
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
    if address is None or urlsplit(address).scheme not in ("http", "https") or is_local(address):
        yield (
            "the registry is only on this machine, the cluster cannot register a version; set 'registry.tracking_uri' "
            "in params.yaml to an MLflow server that both reach"
        )


def _is_under(path: str, folders: Iterable[Path]) -> bool:
    return Path(path).is_absolute() and any(Path(path).is_relative_to(folder) for folder in folders)

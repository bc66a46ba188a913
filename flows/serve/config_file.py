"""`samif serve --write-config`: the service as a configuration of Ray Serve, for a cluster that exists."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.http.auth import VARIABLE
from flows.runtime.remote_files import is_remote, local_path
from flows.serve.application import IMPORT_PATH, Arguments
from flows.serve.routes import line_of
from flows.serve.settings import ReplicaCount, Settings
from samif.errors import ConfigError
from samif.inference.load import CLASSIFIER
from samif.io import files

_HEAD = f"""\
# Written by samif serve --write-config. Deploy it with: serve deploy FILE
# It replaces all applications of the cluster's Ray Serve. Every node needs samif, the workspaces under these paths, and
# in its environment {VARIABLE} and the credentials of registry and buckets; none of them is in this file.
"""


def write_serve_config(
    path: Path, lines: Sequence[Settings], state: Path, count: ReplicaCount, host: str, port: int
) -> None:
    """Write the configuration, whole or not at all.

    Args:
        state: folder of each node's own, of which every line has a part.
        count: replicas of each line.

    Raises:
        ConfigError: a setting does not fit, or a reference may mean another version each time it is looked up.
    """
    applications = [
        {
            "name": line.name,
            "route_prefix": line.route,
            "import_path": IMPORT_PATH,
            "args": _shown(Arguments.of(_located(line), state, count)),
        }
        for line in lines
    ]
    http = {"host": host, "port": port}
    out = io.StringIO()
    YAML().dump({"proxy_location": "EveryNode", "http_options": http, "applications": applications}, out)
    files.commit(path, (_HEAD + out.getvalue()).encode())


def _located(line: Settings) -> Settings:
    """The same with paths that do not depend on the current folder."""
    ref = line.ref
    if line_of(ref) is None:
        folders = [place.resolve() for place in (Path(ref), line.root / ref) if (place / CLASSIFIER).is_file()]
        if not folders:
            raise ConfigError(f"'{ref}' names no version for a config file; write NAME@alias, NAME/VERSION or a folder")
        ref = str(folders[0])
    checkpoint, semantic = _absolute(line.checkpoint), _absolute(line.semantic_checkpoint)
    return replace(line, ref=ref, checkpoint=checkpoint, semantic_checkpoint=semantic)


def _absolute(checkpoint: str | None) -> str | None:
    if checkpoint is None or is_remote(checkpoint):
        return checkpoint
    return str(local_path(checkpoint).resolve())


def _shown(arguments: Arguments) -> dict[str, Any]:
    """What differs from the defaults, and always the size of a replica."""
    size = {key: getattr(arguments, key) for key in ("replicas", "cpus", "gpus")}
    return arguments.model_dump(exclude_defaults=True) | size

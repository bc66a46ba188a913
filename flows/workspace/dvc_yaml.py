"""dvc.yaml of a workspace: its text, the stages' revisions, how they are started, and results that params.yaml no
longer has."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import cache
from importlib.resources import files
from pathlib import Path

from flows.runtime.remote_files import is_remote, local_path
from flows.workspace.layout import Layout
from samif.config import BASE, SHIPPED, EncoderParams, Params
from samif.io.files import commit

REVISIONS = {
    "dataset": 5,
    "embed": 4,
    "pretrain_decoder": 3,
    "propose": 2,
    "train_base": 5,
    "session": 4,
    "evaluate": 7,
    "report": 7,
}
"""Raise a stage's number when a change of the software changes what the stage writes: then, and only then,
an upgrade runs it again everywhere (docs/adr/0003)."""


def render_pipeline(params: Params) -> str:
    """The text of dvc.yaml. It depends on whether the images are drawn, whether `val` is given, whether there is a
    semantic encoder, and where the encoder's weights are: the stages that read them run again when their content
    changes. A local checkpoint is a dependency, the digest of shipped weights is in the command, and any other
    checkpoint is pinned by `encoder.sha256` or by the encoder's name."""
    from jinja2 import Environment, StrictUndefined

    checkpoint = _local_checkpoint(params.encoder)
    template = (files("flows") / "templates" / "dvc.yaml.j2").read_text(encoding="utf-8")
    return (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
        .from_string(template)
        .render(
            revisions=REVISIONS,
            own_data=params.dataset.train is not None,
            own_val=params.dataset.val is not None,
            semantic=params.semantic is not None,
            shipped=shipped_digest(params.encoder),
            checkpoint=json.dumps(checkpoint) if checkpoint else "",
            pinned=params.encoder.sha256 is not None and not checkpoint,
        )
    )


def shipped_digest(encoder: EncoderParams) -> str:
    """First digits of the SHA-256 of the shipped weights that an encoder takes, nothing where it takes others."""
    if encoder.checkpoint is not None or encoder.name not in SHIPPED:
        return ""
    return _digest(encoder.name)


def _local_checkpoint(encoder: EncoderParams) -> str:
    if encoder.checkpoint is None or is_remote(encoder.checkpoint):
        return ""
    return str(local_path(encoder.checkpoint))


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((files("samif") / "assets" / f"{name}.safetensors").read_bytes()).hexdigest()[:12]


def launcher_text() -> str:
    """The script that starts a stage. Its path in the commands is the same on every machine, where `samif` lies is
    not."""
    return (files("flows") / "templates" / "samif.sh").read_text(encoding="utf-8")


def sync_pipeline(layout: Layout, params: Params) -> bool:
    """Bring dvc.yaml and the script that starts its stages to what this version of samif writes; True if dvc.yaml had
    to change."""
    launcher = launcher_text()
    if not layout.launcher.exists() or layout.launcher.read_text(encoding="utf-8") != launcher:
        commit(layout.launcher, launcher.encode())
    text = render_pipeline(params)
    if layout.pipeline.exists() and layout.pipeline.read_text(encoding="utf-8") == text:
        return False
    if layout.lock.exists():
        _rename_commands(layout.lock)
    commit(layout.pipeline, text.encode())
    return True


def _rename_commands(lock: Path) -> None:
    """Write the commands of an earlier release as this one does: a stage would run again though nothing of it is
    new."""
    text = lock.read_text(encoding="utf-8")
    renamed = text.replace("    cmd: samif stage ", "    cmd: sh .dvc/samif stage ")
    if renamed != text:
        commit(lock, renamed.encode())


def leftovers(layout: Layout, params: Params) -> list[Path]:
    """Results of sessions that params.yaml no longer has.

    The report depends on the folders of all classifiers and evaluations, so a leftover would enter it.
    """
    known = {BASE, *params.sessions}
    return [
        path
        for folder in (layout.classifier().parent, layout.evaluation().parent, layout.metrics(BASE).parent)
        if folder.is_dir()
        for path in folder.iterdir()
        if (path.is_dir() or path.suffix == ".json") and path.stem not in known
    ]


def prune(layout: Layout, params: Params) -> list[Path]:
    """Remove the leftovers (DVC's cache keeps them); returns what went."""
    stale = leftovers(layout, params)
    for path in stale:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return stale

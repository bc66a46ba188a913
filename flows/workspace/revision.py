"""Which state of code and data a workspace is at, by git and by DVC; and which states a commit holds."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Literal

from flows.workspace.layout import Layout

LockState = Literal["committed", "uncommitted", "ignored", "no git"]
"""Whether a commit holds a dvc.lock; `ignored` where git was told to leave it out, `no git` outside any repository."""

_GIT_SECONDS = 60.0


def commit_of(root: Path) -> str | None:
    """Commit of the git repository that the workspace lies in, `+changes` appended if files differ from it."""
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        return None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return head.decode().strip() + ("+changes" if changes is None or changes.strip() else "")


def data_revision_of(layout: Layout) -> str | None:
    """DVC's hashes of the checked indexes, which hold the SHA-256 of every image; None before the first run."""
    if not layout.lock.exists():
        return None
    from ruamel.yaml import YAML

    stage = YAML(typ="safe").load(layout.lock.read_bytes()).get("stages", {}).get("dataset")
    if stage is None:
        return None
    hashes = {out["path"]: out["md5"] for out in stage["outs"]}
    names = (layout.index(split).relative_to(layout.root).as_posix() for split in ("train", "val"))
    return " ".join(f"{Path(name).stem}:{hashes.get(name, 'none')}" for name in names)


def lock_state(layout: Layout, sha256: str | None) -> LockState:
    """Whether some commit, on any branch or tag, holds the dvc.lock with this SHA-256.

    The run that makes a version also writes its dvc.lock, so it can only be committed afterwards: the question is for
    the moment of a promotion.
    """
    root = layout.root.resolve()
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return "no git"
    commits = (_git(root, "rev-list", "--all", "--", layout.lock.name) or b"").split()
    for commit in commits:
        content = _git(root, "show", f"{commit.decode()}:./{layout.lock.name}")
        if content is not None and hashlib.sha256(content).hexdigest() == sha256:
            return "committed"
    return "ignored" if is_ignored(layout.lock) else "uncommitted"


def is_ignored(path: Path) -> bool:
    """Whether git was told to leave a file out."""
    return _git(path.parent, "check-ignore", "--quiet", path.name) is not None


def _git(root: Path, *words: str) -> bytes | None:
    """What a git command prints; None where it fails or there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=True, timeout=_GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout

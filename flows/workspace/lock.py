"""Holding a workspace alone, for a run or an edit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.runtime.locks import held
from flows.workspace.layout import Layout
from samif.errors import ConfigError, SamifError


class BusyError(SamifError):
    """Another command holds the workspace."""


def busy_error(root: Path) -> BusyError:
    """The error of a command that does not get the workspace."""
    return BusyError(f"another samif command is at work in {root}; try again when it has ended")


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the workspace alone: a run and an edit of params.yaml must not meet.

    Raises:
        SamifError: `root` is no workspace, or (BusyError) another command holds it.
    """
    layout = Layout(root)
    if not layout.params.exists():
        raise ConfigError(f"{root} is not a workspace (no params.yaml); run 'samif init' to make one")
    with held(layout.state / "lock", busy_error(root)):
        yield

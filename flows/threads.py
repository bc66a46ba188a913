"""OpenMP's threads, set for machines that do other work as well."""

from __future__ import annotations

import os


def wait_without_spinning() -> None:
    """Let threads sleep while they wait for each other; to be called before torch is loaded, and inherited by children.

    By default they spin. Where another process holds one of their cores, each spins until that core is free: a session
    that takes half a minute beside such a process took seven.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

"""A test as somebody who may not read everything."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.console import SAMIF, Done

OTHER_USER = 54321
"""A user id that has no entry in the password database."""


@contextmanager
def unprivileged_folder() -> Iterator[Path]:
    """A new folder of this process, which is not root meanwhile. pytest's own may only be entered by its owner."""
    with TemporaryDirectory(dir="/tmp", prefix="samif-") as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        nobody = pwd.getpwnam("nobody").pw_uid
        os.chown(name, nobody, -1)
        os.seteuid(nobody)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def as_other_user(cwd: Path, *words: str | Path, **environment: str) -> Done:
    """Run `samif WORDS` as a user id without an entry in the password database and with no other environment.

    It may read everything, as the interpreter may lie in root's home folder, but write only what is everybody's.
    """
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to become another user")
    rights = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    become = ["setpriv", "--reuid", str(OTHER_USER), "--regid", str(OTHER_USER), "--clear-groups", *rights]
    command = [*become, str(SAMIF), *map(str, words)]
    bare = {"PATH": os.defpath, "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment
    ended = subprocess.run(command, cwd=cwd, env=bare, capture_output=True, text=True, timeout=900)
    return Done(ended.returncode, ended.stdout, ended.stderr)

"""A test as somebody who may not read everything."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


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

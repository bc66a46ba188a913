"""The one way to name a file by its content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from samif.errors import SamifError


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        SamifError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SamifError(f"cannot read {path}: {error.strerror}; make or fetch it again") from None

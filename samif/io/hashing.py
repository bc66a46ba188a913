"""The one way to name a file by its content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from samif.errors import DataError, ObjectMissing


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        ObjectMissing: there is no such file.
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise ObjectMissing(f"cannot read {path}: No such file or directory; make or fetch it again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; make or fetch it again") from None

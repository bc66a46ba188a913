"""Files with secrets: only their owner may read them, and they are written atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, atomically."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(part, path)


def export_lines(variables: Mapping[str, str]) -> str:
    """The text of a shell file: one `export` per line."""
    quoted = {name: "'" + value.replace("'", "'\\''") + "'" for name, value in variables.items()}
    return "".join(f"export {name}={value}\n" for name, value in quoted.items())

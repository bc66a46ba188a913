"""Where the replicas of one machine say what they serve, so that any of them, and the command line, can tell."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Board:
    """A folder with one small JSON file per replica."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "replicas"
        self._folder.mkdir(parents=True, exist_ok=True)

    def publish(self, content: dict[str, Any]) -> None:
        """Say what this process serves."""
        path = self._folder / f"{os.getpid()}.json"
        part = path.with_suffix(".part")  # nobody needs it after a crash of the machine, so it is not made durable
        part.write_text(json.dumps({"pid": os.getpid()} | content), encoding="utf-8")
        part.replace(path)

    def read(self) -> list[dict[str, Any]]:
        """What the living replicas say, oldest process first."""
        found = []
        for path in sorted(self._folder.glob("[0-9]*.json")):
            if Path(f"/proc/{path.stem}").exists():
                found.append(json.loads(path.read_bytes()))
        return found

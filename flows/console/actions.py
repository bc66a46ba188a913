"""The journal of actions: who did what in the console, one JSON object per line, appended and flushed to the disk."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from flows.console.accounts import Account
from samif.errors import DataError


class Actions:
    """The journal of one workspace, `.samif/console/actions.jsonl`; several processes may append to it.

    An entry: {"schema": 1, "time", "who", "role", "action", ...facts}.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()

    def add(self, account: Account, action: str, **facts: Any) -> None:
        """Append an entry; it is on the disk when this returns.

        Raises:
            DataError: the file cannot be written.
        """
        entry = {
            "schema": 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": account.name,
            "role": account.role,
            "action": action,
        } | facts
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
        try:
            with self._lock:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                try:
                    os.write(file, line)  # one call, so that lines of two processes do not mix
                    os.fsync(file)
                finally:
                    os.close(file)
        except OSError as error:
            raise DataError(f"{self._path} cannot be written ({error.strerror}); free the disk or its rights") from None

    def newest(self, count: int) -> list[dict[str, Any]]:
        """The last `count` entries, newest first; a line that was cut short by a crash is left out."""
        try:
            lines = self._path.read_bytes().splitlines()[-count:]
        except FileNotFoundError:
            return []
        found = []
        for line in reversed(lines):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

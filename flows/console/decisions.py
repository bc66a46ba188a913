"""What was decided about the items of the review queue, in a file of the workspace."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from flows.console.label_file import LOCK_SECONDS
from flows.http.errors import HttpError
from flows.runtime.locks import held
from samif.config import Strict
from samif.errors import IntegrityError, SystemRefused
from samif.io import files

Decision = Literal["accept", "fix", "never"]


class Decided(Strict):
    """What `who` decided about an item, and when (ISO 8601)."""

    decision: Decision
    who: str
    at: str


_FILE = TypeAdapter(dict[str, Decided])


class Decisions:
    """The decisions of one workspace, by the id of the item."""

    def __init__(self, state: Path) -> None:
        self._path = state / "review.json"

    def all(self) -> dict[str, Decided]:
        """All decisions.

        Raises:
            IntegrityError: the file is damaged.
        """
        try:
            return _FILE.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError:
            raise IntegrityError(f"{self._path} is damaged; move it away, and decide again") from None

    def add(self, id_: str, decision: Decision, who: str) -> None:
        """Note a decision.

        Raises:
            HttpError: 409; somebody decided about the item already.
        """
        with self._locked():
            found = self.all()
            if id_ in found:
                raise HttpError(409, "decided", f"{found[id_].who} decided about this already; read the list again")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self._write(found | {id_: Decided(decision=decision, who=who, at=now)})

    def remove(self, id_: str) -> None:
        """Put an item back into the queue."""
        with self._locked():
            self._write({key: found for key, found in self.all().items() if key != id_})

    def _locked(self) -> AbstractContextManager[None]:
        busy = SystemRefused(f"another process holds {self._path} for long; decide again when it has ended")
        return held(self._path.with_suffix(".lock"), busy, LOCK_SECONDS)

    def _write(self, decisions: dict[str, Decided]) -> None:
        content = {key: found.model_dump() for key, found in decisions.items()}
        files.commit(self._path, json.dumps(content, ensure_ascii=False).encode())

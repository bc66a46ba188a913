"""Promotions that wait for an approver, in a file of the workspace. The journal of the registry gets them once they are
carried out."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from flows.http.errors import HttpError
from flows.runtime.locks import held
from flows.workspace.lock import busy_error
from samif.config import Strict
from samif.errors import IntegrityError
from samif.io import files


class PromotionRequest(Strict):
    """A version that somebody asks to promote on a verdict: `verdict` is its digest, `about` the gate's sentence."""

    id: str
    version: int
    verdict: str
    who: str
    why: str
    about: str
    at: str


class Approvals:
    """The requests of one workspace."""

    def __init__(self, state: Path) -> None:
        self._path = state / "requests.json"

    def all(self) -> list[PromotionRequest]:
        """Those that wait, oldest first.

        Raises:
            IntegrityError: the file is damaged.
        """
        try:
            return [PromotionRequest.model_validate(item) for item in json.loads(self._path.read_bytes())]
        except FileNotFoundError:
            return []
        except (ValueError, ValidationError):
            raise IntegrityError(f"{self._path} is damaged; move it away and request the promotion again") from None

    def find(self, id_: str) -> PromotionRequest:
        """A request by its id.

        Raises:
            HttpError: 404; it was carried out, withdrawn or never made.
        """
        for request in self.all():
            if request.id == id_:
                return request
        raise HttpError(404, "request", "this request no longer waits; read the list again")

    def add(self, version: int, verdict: str, who: str, why: str, about: str) -> PromotionRequest:
        """Add a request; one of the same version takes the place of the old one."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        request = PromotionRequest(
            id=uuid4().hex, version=version, verdict=verdict, who=who, why=why, about=about, at=now
        )  # fmt: skip
        with self._locked():
            self._write([item for item in self.all() if item.version != version] + [request])
        return request

    def remove(self, id_: str) -> None:
        """Take a request off the list, if it is there."""
        with self._locked():
            self._write([item for item in self.all() if item.id != id_])

    def _locked(self) -> AbstractContextManager[None]:
        return held(self._path.with_suffix(".lock"), busy_error(self._path.parent))

    def _write(self, requests: list[PromotionRequest]) -> None:
        files.commit(self._path, json.dumps([r.model_dump() for r in requests], ensure_ascii=False).encode())

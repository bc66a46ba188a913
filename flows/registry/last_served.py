"""Which version each reference named when it was last served here: what is served while the registry is away."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.registry.version_files import is_whole
from samif.errors import IntegrityError, ObjectMissing
from samif.io.document import Document

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LastServed:
    """A registered version, and the folder of its files."""

    name: str
    number: int
    folder: Path


class _Record(Document):
    WHAT = "a record of the version that was last served"
    REMEDY = "the next version that is served replaces it"

    registry: str
    ref: str
    name: str
    number: int
    digests: dict[str, str]


class LastServedVersions:
    """One small file per registry and reference, beside the folder of downloaded versions.

    Args:
        models: the folder of downloaded versions, each in a folder named by its card digest.
        registry: address of the registry, without credentials.
    """

    def __init__(self, models: Path, registry: str) -> None:
        self._models, self._registry = models, registry

    def write(self, ref: str, name: str, number: int, digests: Mapping[str, str]) -> None:
        """Record that `ref` named this version; `digests["card"]` is that of its card. A file that cannot be written is
        logged, and nothing else, because the version is served all the same."""
        record = _Record(registry=self._registry, ref=ref, name=name, number=number, digests=dict(digests))
        path = self._path(ref)
        try:
            if not path.exists() or path.read_bytes() != record.content():
                record.save(path)
        except OSError:
            logger.warning("%s cannot be written: without the registry %s cannot be served", path, ref, exc_info=True)

    def read(self, ref: str) -> LastServed | None:
        """The version that `ref` named when it was last served here; None where there was none, or where its files are
        gone or not those of its card, which is logged."""
        path = self._path(ref)
        try:
            record = _Record.load(path)
        except ObjectMissing:
            return None
        except IntegrityError as error:
            logger.warning("%s", error)
            return None
        card = record.digests.get("card", "")
        if not card or not is_whole(self._models / card, card):
            logger.warning("the files of %s/%d, last served, are gone or damaged", record.name, record.number)
            return None
        return LastServed(record.name, record.number, self._models / card)

    def _path(self, ref: str) -> Path:
        key = hashlib.sha256(f"{self._registry}\n{ref}".encode()).hexdigest()
        return self._models.parent / "served" / f"{key[:32]}.json"

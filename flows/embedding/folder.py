"""Unlabelled images: index files by content and embed them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.quarantine import Quarantined
from flows.embedding.flow import embed_images
from flows.runtime.progress import track
from flows.store import EmbeddingStore
from samif.config import EmbedParams, EncoderParams
from samif.dataset.images import ImageError, image_sha256
from samif.errors import DataError


@dataclass(frozen=True)
class Added:
    """Result of adding files.

    Attributes:
        manifest: the images that the store now holds.
        files: number of given files.
        computed: number of embeddings that this call computed; the others existed, or their files were given twice.
        quarantined: files that could not be used, by path.
    """

    manifest: EmbeddingManifest
    files: int
    computed: int
    quarantined: tuple[Quarantined, ...]


def add_images(
    paths: Sequence[Path], params: EmbedParams, encoder_params: EncoderParams, store: EmbeddingStore
) -> Added:
    """Embed image files of no data set; files that cannot be used are quarantined.

    Raises:
        DataError: none of them can be used.
        SamifError: as `embed_images`.
    """
    indexed: list[tuple[Path, str]] = []
    quarantined: list[Quarantined] = []
    with track(len(paths), "files", "index") as tracker, ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(_index, (path.absolute() for path in paths)):
            if isinstance(found, Quarantined):
                quarantined.append(found)
                tracker.quarantine(1)
            else:
                indexed.append(found)
            tracker.advance()
    embedded = embed_images(indexed, params, encoder_params, store)
    quarantined += embedded.quarantined
    if not embedded.manifest.images:
        first = quarantined[0]
        raise DataError(
            f"none of {len(paths)} files can be used, the first is {first.path}: it {first.reason}; {first.remedy}"
        )
    return Added(
        embedded.manifest, len(paths), embedded.computed, tuple(sorted(quarantined, key=lambda image: image.path))
    )


def _index(path: Path) -> tuple[Path, str] | Quarantined:
    try:
        return path, image_sha256(path)
    except ImageError as error:
        return Quarantined.of(path, "", error)

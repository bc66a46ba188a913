"""Embeddings of unlabelled images that the workspace's store holds, as `samif store add` leaves them."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.image_keys import ImageKeys
from flows.loaders.inputs import store_of
from flows.store import EmbeddingReader
from flows.workspace.layout import Layout
from samif.config import Params
from samif.errors import IntegrityError, ObjectMissing, ServiceUnavailable

if TYPE_CHECKING:
    from torch import Tensor

    from samif.sam.encoder import ImageEncoder

logger = logging.getLogger(__name__)


class StoredEmbeddings:
    """Embeddings of some images (SHA-256 of their files) by an encoder. A store that cannot be read holds none."""

    def __init__(self, layout: Layout, params: Params, encoder: ImageEncoder, images: Collection[str]) -> None:
        self._held: frozenset[str] = frozenset()
        store = store_of(layout, params)
        try:
            missing = store.namespace(encoder.digest, encoder.preprocessing_digest).missing(images)
            self._held = frozenset(images) - frozenset(missing)
            manifest = EmbeddingManifest(
                encoder=EncoderIdentity(name=params.encoder.name, digest=encoder.digest),
                preprocessing=encoder.preprocessing_digest,
                shape=encoder.embedding_shape,
                dtype=store.stored_as,
                images=ImageKeys.of(sorted(self._held)),
            )
            self._reader = EmbeddingReader(store, manifest)
        except ServiceUnavailable as error:
            logger.warning("stored embeddings are not used: %s", error)
            self._held = frozenset()

    def get(self, image: str) -> Tensor | None:
        """The embedding (V * C, h, w) of an image; None where there is none that can be read."""
        if image not in self._held:
            return None
        try:
            return self._reader.read([image])[0]
        except (IntegrityError, ObjectMissing, ServiceUnavailable) as error:
            logger.warning("the stored embedding of %s is not used: %s", image, error)
            return None

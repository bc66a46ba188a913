"""What a run left of images: embeddings, semantic features and proposals, found by the content of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.proposal_file import ProposalFile
from flows.loaders.inputs import Read, index_of, reader_of, store_of
from flows.workspace.layout import SPLITS, Layout
from samif.advice.label_errors import BadMask, bad_masks
from samif.advice.label_features import label_features
from samif.config import Params
from samif.dataset.model import Annotation, ImageRecord
from samif.errors import IntegrityError, ObjectMissing
from samif.sam.frame import view_count
from samif.sam.zoo import find_architecture

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunOutputs:
    """Readers of what a run left, for images that were in it and have not changed; their labels may have."""

    embedded: frozenset[str]
    read: Read
    read_semantic: Read | None
    proposed: dict[str, tuple[ProposalFile, ImageRecord]]
    tiles: int

    def features(self, image: ImageRecord, labels: Sequence[Annotation]) -> NDArray[np.float32] | None:
        """Features (L, D) of these labels of an image; None where it is not embedded."""
        if image.sha256 not in self.embedded:
            return None
        semantic: torch.Tensor | None = None if self.read_semantic is None else self.read_semantic([image])[0]
        return label_features(self.read([image])[0], [a.rle for a in labels], self.tiles, semantic)

    def bad_masks(self, image: ImageRecord, labels: Sequence[Annotation]) -> list[BadMask]:
        """These labels' doubtful masks; none where the image has no proposals."""
        if image.sha256 not in self.proposed:
            return []
        file, record = self.proposed[image.sha256]
        return bad_masks(labels, file.of(record))


def find_outputs(layout: Layout, params: Params) -> RunOutputs:
    """The outputs of the last run.

    Raises:
        ObjectMissing: the workspace was not run as far as the stage `embed`.
        IntegrityError: they are damaged, or of another encoder than params.yaml names.
        ServiceUnavailable: the embedding store cannot be reached.
    """
    if not layout.embeddings.is_file():
        raise ObjectMissing("no image is embedded yet")
    manifest = EmbeddingManifest.load(layout.embeddings)
    channels = find_architecture(params.encoder.name).embedding[0] * view_count(params.encoder.tiles)
    if manifest.encoder.name != params.encoder.name or manifest.shape[0] != channels:
        raise IntegrityError("the embeddings are of another encoder than params.yaml names")
    store, semantic = store_of(layout, params), None
    embedded = frozenset(manifest.images)
    if params.semantic is not None and layout.semantic.is_file():
        found = EmbeddingManifest.load(layout.semantic)
        semantic, embedded = reader_of(store, found), embedded & frozenset(found.images)
    proposed: dict[str, tuple[ProposalFile, ImageRecord]] = {}
    for split in SPLITS:
        if layout.proposals(split).is_file() and layout.index(split).is_file():
            file = ProposalFile(layout.proposals(split))
            proposed |= {image.sha256: (file, image) for image in index_of(layout, params, split).images}
    return RunOutputs(embedded, reader_of(store, manifest), semantic, proposed, params.encoder.tiles)

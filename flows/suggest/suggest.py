"""Choose the images of a folder to label next, and write them with proposed labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.proposal_file import ProposalFile
from flows.inference.image_files import ImageFile, Skipped
from flows.loaders.inputs import index_of, source_of
from flows.runtime.progress import track
from flows.suggest.stored import StoredEmbeddings
from flows.workspace.layout import SPLITS, Layout
from flows.workspace.shots import read_labels
from flows.workspace.source_paths import source_at
from samif.config import BASE, CocoSource, Params
from samif.dataset.formats import export_labels
from samif.dataset.images import ImageError, read_image
from samif.dataset.model import Annotation, Category, Dataset, ImageRecord
from samif.dataset.near_duplicates import Array, thumbnail
from samif.errors import DataError
from samif.inference.load import DECODER, FoundModel
from samif.io.hashing import file_sha256
from samif.masks.rle import areas
from samif.sam.frame import Frame
from samif.suggest.features import image_features, name_changes
from samif.suggest.select import Choice, Features, Strategy, choose

if TYPE_CHECKING:
    from torch import Tensor

    from samif.inference.segment import Segmenter

logger = logging.getLogger(__name__)

LABELLED = "labelled already"
"""Why an image is passed over."""


@dataclass(frozen=True)
class Look:
    """What the choice knows of an image: its features, and its thumbnail unless its file cannot be read."""

    features: Features
    thumbnail: Array | None


@dataclass(frozen=True)
class Suggestion:
    """An image to label, and why."""

    image: ImageFile
    choice: Choice


@dataclass(frozen=True)
class Suggested:
    """Images to label, best first; files that were passed over; and how many could be chosen from."""

    images: tuple[Suggestion, ...]
    skipped: tuple[Skipped, ...]
    candidates: int
    labelled: int


def newest_classifier(layout: Layout, params: Params) -> str:
    """Folder of the classifier of the last session, or the base classifier."""
    return str(layout.classifier(next(reversed(params.sessions), BASE)))


def suggest(
    segmenter: Segmenter,
    found: FoundModel,
    images: Sequence[ImageFile],
    labelled: Sequence[Path],
    layout: Layout | None,
    count: int,
    strategy: Strategy,
    seed: int = 0,
) -> Suggested:
    """Choose up to `count` of the image files; those that are labelled already or cannot be read are passed over.

    Args:
        found: the model that `segmenter` was loaded from.
        labelled: files of images that are labelled already, beside those of the workspace.
        layout: of the workspace, if there is one: the images of its data set and sessions are labelled, and embeddings
            in its store are used.
    """
    known: dict[str, Look] = {}
    digests = _digests(images)
    stored: StoredEmbeddings | None = None
    if layout is not None and found.params is not None:
        known |= workspace_looks(segmenter, found, layout, found.params)
        stored = StoredEmbeddings(layout, found.params, segmenter.encoder, set(digests.values()) - known.keys())
    skipped: list[Skipped] = []
    candidates: list[ImageFile] = []
    looks: list[Look] = []
    uncertainty: list[float] = []
    with track(len(labelled) + len(images), "images", "suggest") as progress:
        for path in labelled:
            try:
                if (sha256 := file_sha256(path)) not in known:
                    known[sha256] = _look(segmenter, path, seed)[0]
            except DataError as error:
                skipped.append(Skipped(path, _told(error)))
            progress.advance()
        for image in images:
            try:
                if (digest := digests.get(image.path)) in known:
                    skipped.append(Skipped(image.path, LABELLED))
                else:
                    embedding = stored.get(digest) if stored is not None and digest is not None else None
                    look, changes = _look(segmenter, image.path, seed, embedding)
                    candidates.append(image)
                    looks.append(look)
                    uncertainty.append(changes)
            except DataError as error:
                skipped.append(Skipped(image.path, _told(error)))
            progress.advance()
    if not candidates:
        return Suggested((), tuple(skipped), 0, len(known))
    labelled_features = np.array([look.features for look in known.values()])
    thumbnails = [look.thumbnail for look in (*looks, *known.values()) if look.thumbnail is not None]
    features = np.stack([look.features for look in looks])
    chosen = choose(features, labelled_features, np.array(uncertainty), thumbnails, count, strategy, seed)
    suggestions = tuple(Suggestion(candidates[choice.index], choice) for choice in chosen)
    return Suggested(suggestions, tuple(skipped), len(candidates), len(known))


def write_proposals(segmenter: Segmenter, suggested: Suggested, out: Path, format_: str) -> list[str]:
    """Write the suggested images to a folder, with proposed masks and names to correct.

    Objects of known classes have their name, others the class `unknown`, which is to be replaced by a name.

    Returns:
        What the format does not hold, one sentence each.

    Raises:
        DataError: `out` is not empty or cannot be written, or the format cannot hold the labels.
    """
    from samif.inference.segment import UNKNOWN

    paths = [suggestion.image.path.resolve() for suggestion in suggested.images]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    records: list[ImageRecord] = []
    labels = 0
    for number, path in enumerate(paths, start=1):
        pixels = read_image(path)
        instances = segmenter.segment(pixels).above(segmenter.default_score)
        annotations = tuple(
            Annotation(labels + i, name, mask, False, (box[0], box[1], box[2], box[3]), float(area))
            for i, (name, mask, box, area) in enumerate(
                zip(instances.labels, instances.masks, instances.boxes.tolist(), areas(instances.masks), strict=True),
                start=1,
            )
        )
        labels += len(annotations)
        name = path.relative_to(root).as_posix()
        records.append(ImageRecord(number, name, pixels.shape[1], pixels.shape[0], file_sha256(path), annotations))
    names = (*segmenter.classifier.classes, UNKNOWN)
    categories = tuple(Category(number, name) for number, name in enumerate(names, start=1))
    return export_labels(Dataset(root, categories, tuple(records)), out, format_, images=True)


def _digests(images: Sequence[ImageFile]) -> dict[Path, str]:
    """SHA-256 of each image file that can be read."""
    found: dict[Path, str] = {}
    for image in images:
        try:
            found[image.path] = file_sha256(image.path)
        except DataError as error:  # reading the image says so again
            logger.info("%s", error)
    return found


def _look(segmenter: Segmenter, path: Path, seed: int, embedding: Tensor | None = None) -> tuple[Look, float]:
    """What an image file looks like, and the uncertainty of its names; `embedding` (V * C, h, w) is computed unless it
    is given."""
    pixels = read_image(path)
    seen = segmenter.embed([pixels])[0] if embedding is None else segmenter.with_semantic(pixels, embedding)
    proposals = segmenter.propose(pixels, seen)
    frame = segmenter.encoder.frame(pixels)
    vector = image_features(seen.embedding, frame, proposals, seen.semantic)
    return Look(vector, thumbnail(pixels)), name_changes(proposals, segmenter.classifier, seed)


def _thumbnail(path: Path) -> Array | None:
    try:
        return thumbnail(read_image(path))
    except DataError as error:
        logger.info("near-duplicates of %s are not found: %s", path, error)
        return None


def _told(error: DataError) -> str:
    return error.what if isinstance(error, ImageError) else str(error)


def workspace_looks(
    segmenter: Segmenter, found: FoundModel, layout: Layout, params: Params
) -> Iterator[tuple[str, Look]]:
    """SHA-256 and looks of the images of a workspace's data set and sessions. What its stages computed is read where
    the model has the same encoder and decoder."""
    paths: list[Path] = []
    for split in SPLITS:
        if layout.index(split).is_file() and _is_own(segmenter, found, layout, split):
            source, proposals = source_of(layout, params, split), ProposalFile(layout.proposals(split))
            with track(len(source.dataset.images), "images", f"labelled, {split}") as progress:
                for image in source.dataset.images:
                    frame = Frame(image.height, image.width, segmenter.encoder.image_size, segmenter.encoder.tiles)
                    embedding, semantic = source.look(image)
                    semantic = None if segmenter.semantic is None else semantic
                    features = image_features(embedding, frame, proposals.of(image), semantic)
                    yield image.sha256, Look(features, _thumbnail(source.dataset.path_of(image)))
                    progress.advance()
        elif layout.index(split).is_file():
            index = index_of(layout, params, split)
            paths += [index.path_of(image) for image in index.images]
        elif (place := params.dataset.train if split == "train" else params.dataset.val) is not None:
            paths += _files_of(layout, place)
    paths += [p for session in params.sessions.values() if session.source for p in _files_of(layout, session.source)]
    if not paths:
        return
    with track(len(paths), "images", "labelled") as progress:
        for path in paths:
            try:
                yield file_sha256(path), _look(segmenter, path, 0)[0]
            except DataError as error:  # it is not among the candidates either, or is left out there as well
                logger.info("%s is passed over: %s", path, error)
            progress.advance()


def _is_own(segmenter: Segmenter, found: FoundModel, layout: Layout, split: str) -> bool:
    """Whether the workspace's embeddings and proposals are those that the model would compute."""
    decoder = layout.decoder / DECODER
    if not (layout.embeddings.is_file() and layout.proposals(split).is_file() and decoder.is_file()):
        return False
    manifest, encoder = EmbeddingManifest.load(layout.embeddings), segmenter.encoder
    same = (manifest.encoder.digest, manifest.preprocessing) == (encoder.digest, encoder.preprocessing_digest)
    return same and file_sha256(decoder) == file_sha256(found.files.decoder)


def _files_of(layout: Layout, source: CocoSource) -> list[Path]:
    """The image files of a COCO source."""
    dataset, _ = read_labels(source_at(layout.root, source))
    return [dataset.path_of(image) for image in dataset.images]

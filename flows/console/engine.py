"""Encoder, decoder and classifier of a workspace for labelling: a click becomes an outline with a name.

The decoder is the workspace's frozen one, and the classifier that of its newest session. A workspace that was not run
yet has the encoder's own decoder, and no names. Embeddings come from the store; what it lacks is computed and stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.image_keys import ImageKeys
from flows.inference.source import find
from flows.loaders.inputs import encoder_of, store_of
from flows.runtime.device import device_here
from flows.store import EmbeddingReader, EmbeddingStore
from flows.suggest.suggest import newest_classifier
from flows.workspace.layout import Layout
from samif.classifier.samples import features_of
from samif.config import Params, ProposeParams, load_params
from samif.dataset.images import read_image
from samif.errors import ObjectMissing
from samif.inference.interactive import PromptedImage, Prompts, is_same_object, part_around
from samif.inference.load import CLASSIFIER, load_segmenter
from samif.inference.propose import propose
from samif.inference.segment import UNKNOWN, Segmenter
from samif.masks.rle import Rle, decode_whole, encode_whole
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.sam.frame import Frame, View, split_views

IMAGES = 6
"""Images whose pixels and embeddings stay in memory."""
MOST_NAMES = 5
Where = Literal["memory", "store", "computed"]
Box = tuple[int, int, int, int]
"""x, y, width and height in image pixels."""


@dataclass(frozen=True)
class Named:
    """A class and its probability; `unknown` is none of the classes."""

    name: str
    probability: float


@dataclass(frozen=True)
class Outlined:
    """A mask with its names, most probable first. `part` is where the object is seen better, if anywhere."""

    mask: NDArray[np.bool_]
    rle: Rle
    iou: float
    names: tuple[Named, ...]
    part: Box | None


@dataclass(frozen=True)
class Draft:
    """An object that was found without a prompt; `name` is empty where no class is probable."""

    name: str
    rle: Rle
    score: float


@dataclass(frozen=True)
class _Models:
    """What is loaded, for a state of the workspace's files."""

    state: Hashable
    classifier: Path
    encoder: ImageEncoder
    decoder: InstanceDecoder
    propose: ProposeParams
    store: EmbeddingStore
    segmenter: Segmenter | None


@dataclass
class _Seen:
    """An image: its pixels (H, W, 3), what the encoders saw, and its parts that are ready for prompts."""

    pixels: NDArray[np.uint8]
    embedding: Tensor
    semantic: Tensor | None
    parts: dict[Box | None, PromptedImage] = field(default_factory=dict)


class Engine:
    """One workspace's models. Thread-safe: one request computes at a time."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._lock = layout, RLock()
        self._models: _Models | None = None
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def embed(self, path: Path, sha256: str) -> Where:
        """Make an image ready for prompts; where its embedding was.

        Raises:
            SamifError: the image or a model cannot be read.
        """
        with self._lock:
            models = self._load()
            if sha256 in self._seen:
                self._seen.move_to_end(sha256)
                return "memory"
            pixels = read_image(path, sha256=sha256)
            embedding, where = _embedded(models, pixels, sha256)
            semantic = models.segmenter.semantic if models.segmenter else None
            seen = _Seen(pixels, embedding, None if semantic is None else semantic.encode([pixels])[0])
            self._seen[sha256] = seen
            self._part(sha256, None)
            if len(self._seen) > IMAGES:
                self._seen.popitem(last=False)
            return where

    def outline(
        self,
        path: Path,
        sha256: str,
        prompts: Prompts,
        before: Rle | None = None,
        part: Box | None = None,
        sharpen: bool = False,
    ) -> Outlined:
        """The outline of the object that is prompted, with its names.

        Args:
            before: the mask so far.
            part: what `Outlined.part` gave: the part of the image to look at instead of the whole.
            sharpen: `before` is the mask of the same prompts in the whole image; it stays unless the part shows the
                same object.
        """
        with self._lock:
            self.embed(path, sha256)
            image = self._part(sha256, part)
            so_far = None if before is None else decode_whole(before)
            found = image.answer(prompts, None if sharpen else so_far)
            if sharpen and so_far is not None and not is_same_object(so_far, found.mask):
                return Outlined(so_far, encode_whole(so_far), found.iou, self._names(sha256, so_far), None)
            rle = encode_whole(found.mask)
            better = part_around(rle) if part is None else part
            return Outlined(found.mask, rle, found.iou, self._names(sha256, found.mask), better)

    def names(self, path: Path, sha256: str, rle: Rle) -> tuple[Named, ...]:
        """The names of a mask, most probable first; none without a classifier."""
        with self._lock:
            self.embed(path, sha256)
            return self._names(sha256, decode_whole(rle))

    def drafts(self, path: Path, sha256: str) -> list[Draft]:
        """Everything that is found in an image, to be corrected."""
        with self._lock:
            self.embed(path, sha256)
            models, seen = self._load(), self._seen[sha256]
            if models.segmenter is not None:
                found = models.segmenter.segment(seen.pixels).above(models.segmenter.default_score)
                return [
                    Draft("" if name == UNKNOWN else name, mask, float(score))
                    for name, mask, score in zip(found.labels, found.masks, found.scores, strict=True)
                ]
            frame = models.encoder.frame(seen.pixels)
            proposals = propose(models.decoder, seen.embedding, frame, models.propose)
            return [
                Draft("", mask, float(quality))
                for mask, quality in zip(proposals.masks, proposals.quality, strict=True)
            ]

    def _names(self, sha256: str, mask: NDArray[np.bool_]) -> tuple[Named, ...]:
        segmenter, seen = self._load().segmenter, self._seen[sha256]
        if segmenter is None or not mask.any():
            return ()
        # features are pooled in the whole image, as for the proposals that the classifier learnt from
        proposal = self._part(sha256, None).proposal(mask).with_semantic(seen.semantic)
        space = segmenter.classifier.space
        probability = segmenter.classifier.probabilities(features_of(proposal, space.parts))[0]
        names = [*segmenter.classifier.classes, UNKNOWN]
        best = np.argsort(-probability)[:MOST_NAMES]
        return tuple(Named(names[i], float(probability[i])) for i in best)

    def _part(self, sha256: str, part: Box | None) -> PromptedImage:
        """The image, or a part of it, ready for prompts."""
        models, seen = self._load(), self._seen[sha256]
        if part not in seen.parts:
            height, width = seen.pixels.shape[:2]
            size = models.encoder.image_size
            view, embedding = split_views(seen.embedding, models.encoder.frame(seen.pixels))[0]
            if part is not None:
                x, y, w, h = part
                cut = np.ascontiguousarray(seen.pixels[y : y + h, x : x + w])
                encoded = models.encoder.encode([cut])[0]
                view = View(x, y, Frame(h, w, size))
                embedding = split_views(encoded, models.encoder.frame(cut))[0][1]
            seen.parts[part] = PromptedImage(
                models.decoder, embedding, view, height, width, models.propose.multimask
            )  # fmt: skip
        return seen.parts[part]

    def _load(self) -> _Models:
        """The models for the workspace as it is now; loaded anew after a run and after a change of params.yaml."""
        models = self._models
        if models is None or models.state != self._state(models.classifier):
            params = load_params(self._layout.params)
            classifier = Path(newest_classifier(self._layout, params)) / CLASSIFIER
            state = self._state(classifier)
            self._models = models = _loaded(self._layout, params, classifier, state)
            self._seen.clear()
        return models

    def _state(self, classifier: Path) -> Hashable:
        return tuple(_facts(path) for path in (self._layout.params, classifier, self._layout.decoder))


def _facts(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _loaded(layout: Layout, params: Params, classifier: Path, state: Hashable) -> _Models:
    store = store_of(layout, params)
    if classifier.is_file():
        try:
            segmenter = load_segmenter(find(str(classifier.parent), layout.root), device=device_here())
            return _Models(
                state, classifier, segmenter.encoder, segmenter.decoder, segmenter.propose_params, store, segmenter
            )  # fmt: skip
        except ObjectMissing:  # a run is replacing the files
            pass
    encoder = encoder_of(params.encoder, device_here())
    decoder = InstanceDecoder.of(encoder.sam).eval().requires_grad_(False).to(encoder.device)
    return _Models(state, classifier, encoder, decoder, params.propose, store, None)


def _embedded(models: _Models, pixels: NDArray[np.uint8], sha256: str) -> tuple[Tensor, Where]:
    """The embedding (V * C, h, w) of an image: from the store, or computed and stored."""
    encoder = models.encoder
    namespace = models.store.namespace(encoder.digest, encoder.preprocessing_digest)
    if namespace.missing([sha256]):
        computed = encoder.encode([pixels])
        namespace.write([sha256], computed)
        return computed[0], "computed"
    manifest = EmbeddingManifest(
        encoder=EncoderIdentity(name=encoder.name, digest=encoder.digest), preprocessing=encoder.preprocessing_digest,
        shape=encoder.embedding_shape, dtype=models.store.stored_as, images=ImageKeys.of([sha256]),
    )  # fmt: skip
    return EmbeddingReader(models.store, manifest).read([sha256])[0], "store"

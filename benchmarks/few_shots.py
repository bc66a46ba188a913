"""A workspace after `samif run` whose novel classes are taught from any samples and scored, in seconds.

Samples may come from changed images: darker, closer, covered. They are extracted once and kept in `.samif/few_shots`.

Shape legend: H, W of an image in pixels, N labels of one image, S samples of one object, D feature width.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy import ndimage

from flows.loaders.inputs import decoder_of, encoder_of
from flows.protocol.flow import line_of
from flows.runtime.progress import track
from flows.workspace.layout import Layout
from samif.classifier.heads import Array
from samif.classifier.incremental import InstanceKey, extract_shot_features
from samif.classifier.model import Classifier
from samif.config import BASE, digest, load_params
from samif.dataset.images import read_image
from samif.dataset.model import Dataset, ImageRecord
from samif.evaluate.evaluate import Scored, evaluate
from samif.io.hashing import file_sha256
from samif.masks.rle import areas, boxes, decode, encode

if TYPE_CHECKING:
    from samif.sam.decoder import InstanceDecoder
    from samif.sam.encoder import ImageEncoder

Pixels = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Sample = tuple[str, InstanceKey]
"""Name of a change, and the labelled object in the image that was changed."""
AS_TAKEN = "as taken"
DARK, BRIGHT = 0.4, 1.8
"""Factors on the pixel values, 0..255, which are cut off at 255."""
NEARER = 2
"""Times as near, or as far away."""
COPIES = 9


@dataclass(frozen=True)
class Change:
    """A change of an image (H, W, 3) and the masks (N, H, W) of its labels. `each`: it depends on the object, so that
    every object has an image of its own."""

    apply: Callable[[Pixels, Masks, np.random.Generator], tuple[Pixels, Masks]]
    each: bool = False


def _times(factor: float) -> Change:
    def apply(pixels: Pixels, masks: Masks, rng: np.random.Generator) -> tuple[Pixels, Masks]:
        return np.clip(pixels * factor, 0, 255).astype(np.uint8), masks

    return Change(apply)


def _far(pixels: Pixels, masks: Masks, rng: np.random.Generator) -> tuple[Pixels, Masks]:
    """The image at half its size, mirrored at its borders."""
    height, width = pixels.shape[:2]
    small = _resized(pixels, height // NEARER, width // NEARER)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    margin = ((top, height - small.shape[0] - top), (left, width - small.shape[1] - left))
    smaller = np.stack([_resized(mask, *small.shape[:2]) for mask in masks])
    return np.pad(small, (*margin, (0, 0)), mode="symmetric"), np.pad(smaller, ((0, 0), *margin))


def _close(pixels: Pixels, masks: Masks, rng: np.random.Generator) -> tuple[Pixels, Masks]:
    """The half of the image's height and width around the object, at full size."""
    height, width = pixels.shape[:2]
    h, w = height // NEARER, width // NEARER
    y, x = (int(np.median(places)) for places in np.nonzero(masks[0]))
    top, left = int(np.clip(y - h // 2, 0, height - h)), int(np.clip(x - w // 2, 0, width - w))
    window = (slice(top, top + h), slice(left, left + w))
    return _resized(pixels[window], height, width), np.stack([_resized(m[window], height, width) for m in masks])


def _covered(pixels: Pixels, masks: Masks, rng: np.random.Generator) -> tuple[Pixels, Masks]:
    """One half of the object under a sheet in the image's mean colour."""
    y, x = np.nonzero(masks[0])
    turn = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    side = np.cos(turn) * (columns - np.median(x)) + np.sin(turn) * (rows - np.median(y)) > 0
    reach = 0.1 * math.sqrt(float(masks[0].sum()))
    near = (rows >= y.min() - reach) & (rows <= y.max() + reach)
    near &= (columns >= x.min() - reach) & (columns <= x.max() + reach)
    shown = pixels.copy()
    shown[side & near] = pixels.mean(axis=(0, 1)).astype(np.uint8)
    return shown, masks & ~side


def _boxed(pixels: Pixels, masks: Masks, rng: np.random.Generator) -> tuple[Pixels, Masks]:
    """The same image; every outline is its box."""
    boxed = np.zeros_like(masks)
    for box, mask in zip(boxed, masks, strict=True):
        y, x = np.nonzero(mask)
        box[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return pixels, boxed


def _copy(number: int) -> Change:
    """A photograph of the same scene a moment later: moved by up to 1.5 % and turned by up to 1 degree, brighter or
    darker by up to 4 %, with noise and another JPEG quality."""

    def apply(pixels: Pixels, masks: Masks, _: np.random.Generator) -> tuple[Pixels, Masks]:
        rng = np.random.default_rng(number)
        turn = math.radians(rng.uniform(-1, 1))
        matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        middle = np.array(pixels.shape[:2]) / 2
        offset = middle - matrix @ middle + rng.uniform(-0.015, 0.015, 2) * max(pixels.shape[:2])
        moved = np.stack(
            [ndimage.affine_transform(p, matrix, offset, order=1, mode="nearest") for p in np.moveaxis(pixels, 2, 0)],
            axis=-1,
        )
        noisy = moved * rng.uniform(0.96, 1.04) + rng.normal(0, 2, moved.shape)
        file = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(75, 96)))
        seen = [ndimage.affine_transform(m.astype(np.uint8), matrix, offset, order=0) > 0 for m in masks]
        return np.asarray(Image.open(file)), np.stack(seen)

    return Change(apply)


CHANGES = {
    "dark": _times(DARK),
    "bright": _times(BRIGHT),
    "far": Change(_far),
    "close": Change(_close, each=True),
    "covered": Change(_covered, each=True),
    "box": Change(_boxed),
    **{f"copy {number}": _copy(number) for number in range(1, COPIES + 1)},
}


class FewShots:
    """A workspace after `samif run`, with its novel classes in the order of its sessions."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root.resolve())
        self.params = load_params(self.layout.params)
        self.line = line_of(self.layout, self.params)
        self.base = Classifier.load(self.layout.classifier(BASE) / "classifier.safetensors")
        self.sessions = [session.classes for session in self.line.sessions.values()]
        self.novel = [name for classes in self.sessions for name in classes]
        self._samples: dict[str, dict[InstanceKey, Array]] = {}

    def instances(self, classes: Iterable[str]) -> list[InstanceKey]:
        """Every labelled object of these classes in the training images."""
        wanted = set(classes)
        return [
            (p.id, a.id) for p in self.line.train.images for a in p.annotations if a.category in wanted and not a.crowd
        ]

    def samples(self, wanted: Iterable[Sample]) -> dict[Sample, Array]:
        """The samples (S, D) of objects in changed images; what is not kept yet is extracted and kept."""
        by_change: dict[str, list[InstanceKey]] = {}
        for change, key in wanted:
            by_change.setdefault(change, []).append(key)
        for change, keys in by_change.items():
            kept = self._samples.setdefault(change, self._load(change))
            missing = [key for key in dict.fromkeys(keys) if key not in kept]
            if missing:
                kept |= self._extract(change, missing)
                self._save(change, kept)
        return {(change, key): self._samples[change][key] for change, keys in by_change.items() for key in keys}

    def teach(self, shots: Mapping[str, Sequence[Sample]]) -> Classifier:
        """The base classifier with these classes."""
        classifier = self.base
        for name, wanted in shots.items():
            found = self.samples(wanted)
            classifier = classifier.add(name, [found[sample] for sample in wanted])
        return classifier

    def scored(self, classifier: Classifier) -> Scored:
        """The evaluation on the validation images."""
        line = self.line
        return evaluate("taught", line.val, line.proposals_of, classifier, line.base_classes, self.params.evaluate)

    def features_of_masks(self, dataset: Dataset) -> dict[int, Array]:
        """Samples (S, D) of every annotation of these images by its id, as of a session with images of its own."""
        keys = [(image.id, a.id) for image in dataset.images for a in image.annotations]
        return {key[1]: samples for key, samples in self._shot_features(keys, dataset, "masks").items()}

    def _extract(self, change: str, keys: Sequence[InstanceKey]) -> dict[InstanceKey, Array]:
        if change == AS_TAKEN:
            return self._shot_features(keys, self.line.train, change)
        with tempfile.TemporaryDirectory() as folder:
            changed, place = self._changed(CHANGES[change], keys, Path(folder))
            found = self._shot_features(list(place.values()), changed, change)
        return {key: found[place[key]] for key in keys}

    def _changed(
        self, change: Change, keys: Sequence[InstanceKey], folder: Path
    ) -> tuple[Dataset, dict[InstanceKey, InstanceKey]]:
        """The changed images as a data set in a folder, and where each object is in it."""
        images: list[ImageRecord] = []
        place: dict[InstanceKey, InstanceKey] = {}
        for image_id in dict.fromkeys(image for image, _ in keys):
            image = self.line.train.image(image_id)
            pixels = read_image(self.line.train.path_of(image))
            wanted = [a for a in image.annotations if (image_id, a.id) in set(keys)]
            for labels in [[a] for a in wanted] if change.each else [wanted]:
                number = len(images) + 1
                rng = np.random.default_rng([image_id, labels[0].id])
                shown, masks = change.apply(pixels, decode([a.rle for a in labels]), rng)
                codes = encode(masks)
                annotations = tuple(
                    replace(a, rle=code, bbox=tuple(box), area=float(area))
                    for a, code, box, area in zip(labels, codes, boxes(codes).tolist(), areas(codes), strict=True)
                )
                Image.fromarray(shown).save(folder / f"{number}.png")
                height, width = shown.shape[:2]
                images.append(ImageRecord(number, f"{number}.png", width, height, "", annotations))
                place |= {(image_id, a.id): (number, a.id) for a in labels}
        return Dataset(folder, self.line.train.categories, tuple(images)), place

    def _shot_features(self, keys: Sequence[InstanceKey], dataset: Dataset, what: str) -> dict[InstanceKey, Array]:
        decoder, encoder = self._model
        with track(len({image for image, _ in keys}), "images", f"samples, {what}") as progress:
            return extract_shot_features(
                keys, dataset, decoder, encoder.encode, self.base.space.parts, self.params.incremental, None,
                progress.advance, encoder.tiles,
            )  # fmt: skip

    @cached_property
    def _model(self) -> tuple[InstanceDecoder, ImageEncoder]:
        return decoder_of(self.layout), encoder_of(self.params.encoder)

    def _path(self, change: str) -> Path:
        files = [self.layout.decoder / "decoder.safetensors", self.layout.index("train")]
        key = digest({"files": [file_sha256(path) for path in files]}, self.params.incremental)
        return self.layout.state / "few_shots" / key[:16] / f"{change}.safetensors"

    def _load(self, change: str) -> dict[InstanceKey, Array]:
        if not (path := self._path(change)).is_file():
            return {}
        tensors = load_file(path)
        index = tensors["index"]
        cut = np.split(tensors["samples"], np.cumsum(index[:, 2])[:-1])
        return {(row[0], row[1]): samples for row, samples in zip(index.tolist(), cut, strict=True)}

    def _save(self, change: str, kept: Mapping[InstanceKey, Array]) -> None:
        path = self._path(change)
        path.parent.mkdir(parents=True, exist_ok=True)
        index = np.array([[*key, len(samples)] for key, samples in kept.items()], dtype=np.int64)
        save_file({"samples": np.concatenate(list(kept.values())), "index": index}, path)


def _resized(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    if array.dtype == bool:
        image = Image.fromarray(array.astype(np.uint8) * 255).resize((width, height), Image.Resampling.NEAREST)
        return np.asarray(image) > 0
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.LANCZOS))

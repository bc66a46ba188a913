"""The Python API: load a model by name or folder, and segment images with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samif.errors import DataError, ObjectMissing

if TYPE_CHECKING:
    from samif.inference.detections import Detections
    from samif.inference.load import FoundModel
    from samif.inference.segment import Segmenter

SOURCES = "samif.model_sources"
"""Group of package entry points, each a function `find(address: str) -> FoundModel`: where models are looked up."""

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""An image file, a PIL image, or an array (H, W, 3) uint8 RGB."""


def load_model(
    address: str | os.PathLike[str],
    *,
    checkpoint: str | None = None,
    semantic_checkpoint: str | None = None,
    device: str | None = None,
) -> Model:
    """Load a model from a registry or a folder.

    Args:
        address: `models:/NAME@alias`, `models:/NAME/VERSION`, the same without `models:/`, or a folder with
            classifier.safetensors and decoder.safetensors. The registry is the one at MLFLOW_TRACKING_URI, else that of
            the workspace in the current directory.
        checkpoint: path or address of the encoder's checkpoint, where the encoder does not ship with samif and
            params.yaml of the current directory does not name it.
        semantic_checkpoint: the same of the semantic encoder, where the model has one.
        device: "cpu" or "cuda"; by default the GPU where there is one.

    Raises:
        SamifError: one sentence: there is no such model, the registry does not answer, a file is damaged or is not the
            one that the model's card names.
    """
    return open_model(_find(os.fspath(address)), checkpoint, semantic_checkpoint, device)


def open_model(
    found: FoundModel,
    checkpoint: str | None = None,
    semantic_checkpoint: str | None = None,
    device: str | None = None,
) -> Model:
    """Load a model whose files were found; arguments as of `load_model`."""
    import torch

    from samif.inference.load import load_segmenter

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Model(load_segmenter(found, checkpoint, semantic_checkpoint, device))


class Model:
    """A loaded model. One model may be used by one thread at a time."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that the model knows, in the order of its classifier."""
        return self._segmenter.classifier.classes

    @property
    def categories(self) -> tuple[str, ...]:
        """`class_names` and `unknown`: categories 1, 2, ... of COCO results."""
        from samif.inference.segment import UNKNOWN

        return (*self.class_names, UNKNOWN)

    @property
    def default_score(self) -> float:
        """Minimum score of a detection unless `predict` is given another one."""
        return self._segmenter.default_score

    @overload  # a string is a sequence of strings for the type checker, not here
    def predict(self, images: ImageLike, score: float | None = None) -> Detections: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Sequence[ImageLike], score: float | None = None) -> list[Detections]: ...
    def predict(
        self, images: ImageLike | Sequence[ImageLike], score: float | None = None
    ) -> Detections | list[Detections]:
        """Segment one image, or each of several.

        Args:
            images: an image file, a PIL image or an array (H, W, 3) uint8 RGB; or a list of these. EXIF orientation of
                files and PIL images is applied.
            score: minimum score of a detection in 0..1; objects of no known class (`unknown`) are kept below it.

        Raises:
            DataError: an image cannot be read, or has another type or shape.
        """
        from samif.inference.detections import Detections

        if isinstance(images, Sequence) and not isinstance(images, str):
            return [self.predict(image, score) for image in images]
        found = self._segmenter.segment(_pixels(images))
        least = self.default_score if score is None else score
        return Detections.of(found.above(least), self.categories)


def _find(address: str) -> FoundModel:
    """Ask the installed model sources; without any, only folders are known."""
    from samif.inference.load import CLASSIFIER, FoundModel, read_model_folder

    for source in entry_points(group=SOURCES):
        found: FoundModel = source.load()(address)
        return found
    if not (Path(address) / CLASSIFIER).is_file():
        raise ObjectMissing(
            f"there is no {CLASSIFIER} in '{address}', and no package that looks up models in a registry is installed; "
            "give the folder of a model"
        )
    return FoundModel(address, read_model_folder(Path(address)))


def _pixels(image: ImageLike) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, upright."""
    from samif.dataset.images import read_image, upright_rgb

    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if not isinstance(image, np.ndarray):
        raise DataError(f"expected a path, a PIL image or an array (H, W, 3) uint8, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"expected an image of shape (H, W, 3) and type uint8, got shape {image.shape} and type {image.dtype}"
        )
    return np.ascontiguousarray(image)

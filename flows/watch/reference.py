"""The reference of a version: observations of ordinary images, from which the baseline and its limits are computed.

Reference images are the validation images without a labelled object of a class that the version does not know, or a
folder of ordinary images of the line. The observations are stored; limits are computed anew, with params.yaml as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flows.comparison.scorer import Scorer
from flows.loaders.inputs import check_encoder, dataset_of, source_of
from flows.registry.registry import Registry
from flows.runtime.progress import say, track
from flows.workspace.layout import Layout
from samif.config import Params, digest
from samif.dataset.images import ImageError
from samif.dataset.model import ImageRecord
from samif.errors import DataError, IntegrityError
from samif.io import files
from samif.versions.card import Card

if TYPE_CHECKING:
    from flows.loaders.inputs import Source
    from flows.watch.stream import StreamObserver
    from samif.watch.charts import Baseline
    from samif.watch.observe import Observation

FORMAT = "samif-watch-reference-3"
MAX_IMAGES = 2000
"""Training images from which the embedding components are fitted, and validation images that are observed; evenly
chosen."""
ARRAYS = ("values", "embeddings", "uncertainty", "training", "features")
UNRELATED = {"replay_hours", "replay_images", "max_novel_share", "max_forgetting", "webhook"}
"""Keys of `watch` that the baseline does not depend on."""


@dataclass(frozen=True)
class Reference:
    """Observations of reference images by a version.

    Attributes:
        card: digest of the version's card.
        source: origin of the images, for display.
        inputs: digest of the data sets that the images were taken from; empty where they come from a folder.
        names: of the statistics.
        observations: one per reference image.
        training: pooled embeddings (N, D) of training images.
    """

    card: str
    source: str
    inputs: str
    names: tuple[str, ...]
    observations: list[Observation]
    training: NDArray[np.float32]

    def baseline(self, params: Params) -> tuple[Baseline, str]:
        """The baseline with limits by params.yaml, and the digest of everything that it is computed from.

        Raises:
            DataError: there are too few images.
        """
        from samif.watch.calibrate import calibrate, embedding_projection

        watch = params.watch
        projection = embedding_projection(self.training, watch.embedding_components)
        content = hashlib.sha256(b"".join(array.tobytes() for array in self._arrays().values())).hexdigest()
        facts, settings = {"card": self.card, "observations": content}, watch.model_dump(mode="json", exclude=UNRELATED)
        return calibrate(self.observations, self.names, projection, watch), digest(facts, settings)

    def save(self, path: Path) -> None:
        """Write as safetensors, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {"card": self.card, "source": self.source, "inputs": self.inputs}
        facts |= {"names": list(self.names), "objects": [list(image.names) for image in self.observations]}
        meta = {"format": FORMAT, "facts": json.dumps(facts, ensure_ascii=False)}
        files.commit(path, save(self._arrays(), meta))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        from samif.watch.observe import vector

        images = self.observations
        width = max(image.features.shape[1] for image in images)
        features = [*(image.features for image in images if image.names), np.zeros((0, width), np.float32)]
        return {
            "values": np.stack([vector(image.values, self.names) for image in images]),
            "embeddings": np.stack([image.embedding for image in images]),
            "uncertainty": np.stack([image.uncertainty for image in images]),
            "training": self.training,
            "features": np.concatenate(features),
        }

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read a file that `save` wrote.

        Raises:
            IntegrityError: the file is damaged, or of an earlier release.
        """
        from samif.watch.observe import Observation

        try:
            with safe_open(path, "numpy") as file:
                meta = file.metadata() or {}
                if meta["format"] != FORMAT:
                    raise IntegrityError(
                        f"{path} was made by an earlier release; run 'samif watch reference' (with --images, if it was "
                        "made from a folder) to make it again"
                    )
                facts = json.loads(meta["facts"])
                arrays = {key: file.get_tensor(key) for key in ARRAYS}
            names, objects = tuple(facts["names"]), [tuple(found) for found in facts["objects"]]
            rows = [
                {n: float(v) for n, v in zip(names, row, strict=True) if not np.isnan(v)} for row in arrays["values"]
            ]
            features = np.split(arrays["features"], np.cumsum([len(found) for found in objects])[:-1])
            columns = zip(rows, arrays["embeddings"], objects, features, arrays["uncertainty"], strict=True)
            observations = [Observation(*row) for row in columns]
            return cls(facts["card"], facts["source"], facts["inputs"], names, observations, arrays["training"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise IntegrityError(f"{path} is damaged ({error}); run 'samif watch reference' to make it again") from None


class References:
    """The references of a workspace, one per version."""

    def __init__(self, layout: Layout, params: Params, registry: Registry) -> None:
        self._layout, self._params, self._registry = layout, params, registry

    def get(self, ref: str) -> Reference:
        """The reference of a version: the stored one, or one made now from the validation images.

        A reference made from a folder stays valid until another is made; one from validation images as long as the data
        sets are the same.
        """
        folder = self._registry.download(ref)
        card = Card.load(folder / "card.json")
        path = self._path(card)
        if path.exists():
            stored = Reference.load(path)
            if stored.card == card.digest and stored.inputs in ("", self._inputs()):
                return stored
        return self.from_validation(ref)

    def from_validation(self, ref: str) -> Reference:
        """Observe the validation images with a version, and store that as its reference.

        Raises:
            SamifError: the workspace has no checked images, or embeddings of another encoder than the version's.
        """
        from samif.classifier.model import Classifier
        from samif.watch.observe import observe

        folder = self._registry.download(ref)
        card = Card.load(folder / "card.json")
        check_encoder(self._layout, card.encoder.digest)
        classifier = Classifier.load(folder / "classifier.safetensors")
        proposals_of = Scorer(self._layout, self._params, self._registry).proposals(card, folder)
        source = source_of(self._layout, self._params, "val")
        known = set(classifier.classes)
        ordinary = [i for i in source.dataset.images if all(a.category in known for a in i.annotations)]
        images = _evenly(ordinary)
        observations = []
        with track(len(images), "images", f"reference of {ref}") as progress:
            for image in images:
                size = (image.height, image.width)
                embedding = source.read([image])[0]
                proposals = proposals_of(image)
                observations.append(observe(proposals, embedding, size, classifier, card.inference.evaluate))
                progress.advance()
        return self._store(card, "validation images", self._inputs(), observations)

    def from_folder(self, ref: str, observer: StreamObserver, folder: Path) -> Reference:
        """Observe ordinary images of the line, oldest first, and store that as the version's reference.

        Raises:
            DataError: none of them can be used.
        """
        from flows.watch.stream import new_files

        card = Card.load(self._registry.download(ref) / "card.json")
        found = new_files(folder, ())
        observations = []
        with track(len(found), "images", f"reference of {ref}") as progress:
            for file in found:
                try:
                    observations.append(observer.observe(folder / file.name))
                except ImageError as error:
                    progress.quarantine(1)
                    progress.note(f"skipped: {error}")
                progress.advance()
        if not observations:
            raise DataError(f"there is no usable image in {folder}; give a folder of ordinary images of the line")
        return self._store(card, f"{len(observations)} images of {folder.name}", "", observations)

    def _store(self, card: Card, source: str, inputs: str, observations: list[Observation]) -> Reference:
        from samif.watch.observe import statistic_names

        if not observations:
            raise DataError(
                f"every validation image shows an object of a class that '{card.name}' does not know; give a folder of "
                "ordinary images to 'samif watch reference --images'"
            )
        training = _training(source_of(self._layout, self._params, "train"))
        made = Reference(card.digest, source, inputs, statistic_names(card.classes), observations, training)
        made.save(self._path(card))
        return made

    def _inputs(self) -> str:
        return digest({split: dataset_of(self._layout, self._params, split).digest for split in ("train", "val")})

    def _path(self, card: Card) -> Path:
        return self._layout.state / "watch" / "references" / f"{card.digest[:32]}.safetensors"


def _training(source: Source) -> NDArray[np.float32]:
    from samif.watch.observe import pooled

    images = _evenly(source.dataset.images)
    with track(len(images), "images", "pool the training embeddings") as progress:
        rows = []
        for image in images:
            rows.append(pooled(source.read([image])[0], (image.height, image.width)))
            progress.advance()
    return np.stack(rows)


def _evenly(images: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
    if len(images) <= MAX_IMAGES:
        return images
    say(f"{MAX_IMAGES} of {len(images)} images are used")
    return [images[i] for i in np.linspace(0, len(images) - 1, MAX_IMAGES).astype(int)]

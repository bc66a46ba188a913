"""What is normal for a version: what it sees in reference images, kept per version, and the limits that follow.

Reference images are the validation images that show no labelled part which the version does not know, or a folder
of ordinary images from the line. What they showed is kept; limits are made from it anew, by params.yaml as it is.
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
from samif.errors import SamifError
from samif.io import files
from samif.versions.card import Card

if TYPE_CHECKING:
    from flows.loaders.inputs import Source
    from flows.watch.stream import Eye
    from samif.watch.charts import Normal
    from samif.watch.observe import Observation

FORMAT = "samif-watch-reference-2"
MOST_TRAINING = 2000
"""Training images that directions are found from, evenly chosen."""
MOST_REFERENCE = 2000
"""Validation images that are looked at, evenly chosen."""
VALIDATION = "validation images"


@dataclass(frozen=True)
class Reference:
    """What reference images showed a version.

    Attributes:
        card: digest of the version's card.
        source: where they come from, for people.
        inputs: digest of the data sets they were taken from.
        names: of the statistics.
        seen: one per reference image.
        training: pooled embeddings (N, D) of training images.
    """

    card: str
    source: str
    inputs: str
    names: tuple[str, ...]
    seen: list[Observation]
    training: NDArray[np.float32]

    def normal(self, params: Params) -> tuple[Normal, str]:
        """What an undisturbed stream shows, with limits by params.yaml; and the digest of all that it rests on.

        Raises:
            SamifError: there are too few images.
        """
        from samif.watch.calibrate import calibrate, embedding_space

        watch = params.watch
        space = embedding_space(self.training, watch.directions)
        content = hashlib.sha256(b"".join(array.tobytes() for array in self._arrays().values())).hexdigest()
        aside = {"replay_hours", "replay_images", "max_novel_share", "max_forgetting", "webhook"}
        identity = digest({"card": self.card, "seen": content}, watch.model_dump(mode="json", exclude=aside))
        return calibrate(self.seen, self.names, space, watch), identity

    def save(self, path: Path) -> None:
        """Write as safetensors, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {"card": self.card, "source": self.source, "inputs": self.inputs}
        facts |= {"names": list(self.names), "objects": [list(seen.names) for seen in self.seen]}
        meta = {"format": FORMAT, "facts": json.dumps(facts, ensure_ascii=False)}
        files.commit(path, save(self._arrays(), meta))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        from samif.watch.observe import vector

        width = max(seen.features.shape[1] for seen in self.seen)
        return {
            "values": np.stack([vector(seen.values, self.names) for seen in self.seen]),
            "embeddings": np.stack([seen.embedding for seen in self.seen]),
            "doubt": np.stack([seen.doubt for seen in self.seen]),
            "training": self.training,
            "features": np.concatenate(
                [*(seen.features for seen in self.seen if seen.names), np.zeros((0, width), np.float32)]
            ),
        }

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what `save` wrote.

        Raises:
            SamifError: the file is damaged, or of an earlier release.
        """
        from samif.watch.observe import Observation

        try:
            with safe_open(path, "numpy") as file:
                meta = file.metadata() or {}
                if meta["format"] != FORMAT:
                    raise SamifError(
                        f"{path} was made by an earlier release, which looked at less; run 'samif watch reference' "
                        "(with --images, if it was made from a folder) to make it again"
                    )
                facts = json.loads(meta["facts"])
                arrays = {
                    key: file.get_tensor(key) for key in ("values", "embeddings", "doubt", "training", "features")
                }
            names, objects = tuple(facts["names"]), [tuple(found) for found in facts["objects"]]
            rows = [
                {n: float(v) for n, v in zip(names, row, strict=True) if not np.isnan(v)} for row in arrays["values"]
            ]
            features = np.split(arrays["features"], np.cumsum([len(found) for found in objects])[:-1])
            columns = zip(rows, arrays["embeddings"], objects, features, arrays["doubt"], strict=True)
            seen = [Observation(*row) for row in columns]
            return cls(facts["card"], facts["source"], facts["inputs"], names, seen, arrays["training"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise SamifError(f"{path} is damaged ({error}); run 'samif watch reference' to make it again") from None


class References:
    """The references of a workspace, one per version."""

    def __init__(self, layout: Layout, params: Params, registry: Registry) -> None:
        self._layout, self._params, self._registry = layout, params, registry

    def of(self, ref: str) -> Reference:
        """The reference of a version: the kept one, or one made now from the validation images.

        A kept one from a folder holds until another is made; one from validation images as long as they are the same.
        """
        folder = self._registry.download(ref)
        card = Card.load(folder / "card.json")
        path = self._path(card)
        if path.exists():
            kept = Reference.load(path)
            if kept.card == card.digest and kept.inputs in ("", self._inputs()):
                return kept
        return self.make(ref)

    def make(self, ref: str) -> Reference:
        """Look at the validation images as a version sees them, and keep that.

        Raises:
            SamifError: the workspace has no checked images, or other embeddings than the version's.
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
        ordinary = [p for p in source.dataset.images if all(a.category in known for a in p.annotations)]
        images = _evenly(ordinary, MOST_REFERENCE)
        seen = []
        with track(len(images), "images", f"what is normal for {ref}") as progress:
            for image in images:
                size = (image.height, image.width)
                embedding = source.read([image])[0]
                seen.append(observe(proposals_of(image), embedding, size, classifier, card.inference.evaluate))
                progress.advance()
        return self._keep(card, VALIDATION, self._inputs(), seen)

    def make_from(self, ref: str, eye: Eye, folder: Path) -> Reference:
        """Look at ordinary images of the line, oldest first, and keep that as the version's reference.

        Raises:
            SamifError: none of them can be used.
        """
        from flows.watch.stream import arrived

        card = Card.load(self._registry.download(ref) / "card.json")
        found = arrived(folder, ())
        seen = []
        with track(len(found), "images", f"what is normal for {ref}") as progress:
            for file in found:
                try:
                    seen.append(eye.see(folder / file.name))
                except ImageError as error:
                    progress.quarantine(1)
                    progress.note(f"left out: {error}")
                progress.advance()
        if not seen:
            raise SamifError(f"there is no usable image in {folder}; give a folder of ordinary images of the line")
        return self._keep(card, f"{len(seen)} images of {folder.name}", "", seen)

    def _keep(self, card: Card, source: str, inputs: str, seen: list[Observation]) -> Reference:
        from samif.watch.observe import statistics_of

        if not seen:
            raise SamifError(
                f"every validation image shows a part that '{card.name}' does not know; give a folder of ordinary "
                "images to 'samif watch reference --images'"
            )
        training = _training(source_of(self._layout, self._params, "train"))
        made = Reference(card.digest, source, inputs, statistics_of(card.classes), seen, training)
        made.save(self._path(card))
        return made

    def _inputs(self) -> str:
        return digest({split: dataset_of(self._layout, self._params, split).digest for split in ("train", "val")})

    def _path(self, card: Card) -> Path:
        return self._layout.state / "watch" / "references" / f"{card.digest[:32]}.safetensors"


def _training(source: Source) -> NDArray[np.float32]:
    from samif.watch.observe import pooled

    images = _evenly(source.dataset.images, MOST_TRAINING)
    with track(len(images), "images", "where the training images lie") as progress:
        rows = []
        for image in images:
            rows.append(pooled(source.read([image])[0], (image.height, image.width)))
            progress.advance()
    return np.stack(rows)


def _evenly(images: Sequence[ImageRecord], most: int) -> Sequence[ImageRecord]:
    if len(images) <= most:
        return images
    say(f"{most} of {len(images)} images are looked at")
    return [images[i] for i in np.linspace(0, len(images) - 1, most).astype(int)]

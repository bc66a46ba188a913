"""A line that can be watched: a served line whose workspace has checked images and their embeddings, and a camera."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.quarantine import Quarantine
from flows.loaders.inputs import store_of
from flows.registry.registry import Registry
from flows.workspace.layout import Layout
from samif.config import Params, load_params
from samif.dataset.images import read_image
from samif.dataset.model import Category, Dataset
from samif.io.hashing import file_sha256
from samif.sam.encoder import ImageEncoder
from samif.sam.zoo import load_sam
from tests.support.handmade import annotation, image, rectangle
from tests.support.served_line import CLASSES, ServedLine

SIZE = (40, 60)
REFERENCE = 24
WATCH = {"window": 5, "horizon": 60, "simulations": 200, "embedding_components": 4, "replay_images": 2}


class WatchedLine(ServedLine):
    """Version 1 knows two classes and is live; validation images from REFERENCE on show a class that it does not."""

    def __init__(self, root: Path, database: Path) -> None:
        super().__init__(root, database)
        self.layout, self.camera = Layout(root), root.parent / f"{root.name}-camera"
        self.camera.mkdir()
        self.set_watch()
        for split, count in (("train", 24), ("val", REFERENCE + 2)):
            self._write_images(split, count)
        for stage in ("dataset", "embed"):
            self.layout.quarantine(stage).parent.mkdir(parents=True, exist_ok=True)
            Quarantine(policy="refuse", images=()).save(self.layout.quarantine(stage))
        self._embed()
        self.add("base", 2)
        self.alias("champion", 1)

    def copy(self, root: Path) -> WatchedLine:
        """The same workspace, registry included, in another folder, with an empty camera folder."""
        shutil.copytree(self.root, root)
        twin = copy(self)
        twin.root, twin.layout, twin.registry = root, Layout(root), Registry(None, root)
        twin.camera = root.parent / f"{root.name}-camera"
        twin.camera.mkdir()
        return twin

    @property
    def params(self) -> Params:
        return load_params(self.layout.params)

    def set_watch(self, **changes: object) -> None:
        """Change the section `watch` of params.yaml."""
        content = YAML(typ="safe").load(self.layout.params)
        content["watch"] = WATCH | changes
        with self.layout.params.open("w", encoding="utf-8") as file:
            YAML().dump(content, file)

    def shoot(self, count: int, start: int = 0, dark: bool = False) -> list[Path]:
        """The camera brings images."""
        return [save(self.camera / f"{start + i:04d}.png", 10_000 + start + i, dark) for i in range(count)]

    def _write_images(self, split: str, count: int) -> None:
        folder = self.layout.drawn / split / "images"
        folder.mkdir(parents=True)
        images = []
        for number in range(1, count + 1):
            path = save(folder / f"{number}.png", 100 * (split == "val") + number)
            name = CLASSES[2] if split == "val" and number > REFERENCE else CLASSES[0]
            shown = annotation(number, name, rectangle(SIZE, 5, 5, 20, 20))
            images.append(replace(image(number, SIZE, shown), sha256=file_sha256(path)))
        Dataset(folder, tuple(Category(i + 1, name) for i, name in enumerate(CLASSES)), tuple(images)).save(
            self.layout.index(split)
        )

    def _embed(self) -> None:
        encoder = ImageEncoder(load_sam("tiny"))
        digests = self._embed_each(encoder, ("train", "val"))
        EmbeddingManifest(
            encoder=EncoderIdentity(name="tiny", digest=encoder.digest),
            preprocessing=encoder.preprocessing_digest,
            shape=encoder.embedding_shape,
            images=tuple(sorted(digests)),
        ).save(self.layout.embeddings)

    def _embed_each(self, encoder: object, splits: Sequence[str]) -> list[str]:
        paths = [path for split in splits for path in sorted((self.layout.drawn / split / "images").iterdir())]
        digests = [file_sha256(path) for path in paths]
        store = store_of(self.layout, self.params)
        namespace = store.namespace(encoder.digest, encoder.preprocessing_digest)  # type: ignore[attr-defined]
        namespace.write(digests, encoder.encode([read_image(path) for path in paths]))  # type: ignore[attr-defined]
        return digests


def save(path: Path, seed: int, dark: bool = False) -> Path:
    """An image of blobs, some brighter and some darker; `dark` ones have a fifth of the light."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 220, (5, 7, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC))
    Image.fromarray((pixels * (0.2 if dark else 1.0)).astype(np.uint8)).save(path)
    return path

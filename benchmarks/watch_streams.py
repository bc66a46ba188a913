"""Streams of generated images for `benchmarks.watch`, observed by one version. The observations are stored: they take
minutes, their evaluation takes seconds."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from flows.inference.predict import load_segmenter
from flows.registry.model_files import find_model
from flows.registry.registry import Registry
from flows.runtime.tuning import tune_process
from flows.workspace.layout import Layout
from samif.config import load_params
from samif.dataset.draw.line import CLASSES, QUALITY, draw_scene
from samif.dataset.draw.part import Part
from samif.dataset.draw.parts import BASE_PARTS, make_parts
from samif.inference.segment import Segmenter
from samif.io import files
from samif.watch.observe import Observation, observe_image

LENGTH, CHANGE = 140, 40
"""Images per stream, and the image after which a disturbance begins."""
DIMMEST = np.array([0.5, 0.46, 0.39])
"""Factors of red, green and blue at the end of a drift: half of the light, and a warmer lamp."""
SHARE = 0.5
"""Share of images with an unknown part after the change."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Stream:
    """Observations of one seed: `undisturbed` (LENGTH), and the images after CHANGE where the light drifts (`drifted`)
    or a part of class `novel_class` appears (`novel`)."""

    undisturbed: list[Observation]
    drifted: list[Observation]
    novel: list[Observation]
    novel_class: str

    def of(self, kind: str) -> list[Observation]:
        return self.undisturbed if kind == "undisturbed" else self.undisturbed[:CHANGE] + getattr(self, kind)


def observe_stream(workspace: Path, model: str, unknown: tuple[str, ...], seed: int, cache: Path) -> Stream:
    """The observations of a seed's stream by `model`; from the cache where they are there."""
    file = cache / f"{model.replace('/', '-')}-{seed}.npz"
    if not file.exists():
        segmenter, size = _open(workspace, model)
        stream = _observe(segmenter, unknown, seed, size)
        _store([*stream.undisturbed, *stream.drifted, *stream.novel], stream.novel_class, file)
    observations, novel_class = _stored(file)
    rest = (len(observations) - LENGTH) // 2
    return Stream(
        observations[:LENGTH], observations[LENGTH : LENGTH + rest], observations[LENGTH + rest :], novel_class
    )


def observe_ordinary(
    workspace: Path, model: str, unknown: tuple[str, ...], count: int, cache: Path
) -> list[Observation]:
    """Observations of so many ordinary images of no stream, as for `samif watch reference --images`."""
    file = cache / f"{model.replace('/', '-')}-ordinary-{count}.npz"
    if not file.exists():
        segmenter, size = _open(workspace, model)
        parts, observations = make_parts(), []
        for index in range(count):
            image = _draw_ordinary(np.random.default_rng([6, index]), parts, unknown, size)
            observations.append(observe_image(segmenter, _as_jpeg(image, index)))
        _store(observations, "", file)
    return _stored(file)[0]


def _open(workspace: Path, model: str) -> tuple[Segmenter, int]:
    torch.set_num_threads(1)
    tune_process()
    layout = Layout(workspace)
    params = load_params(layout.params)
    registry = Registry(params.registry.tracking_uri, layout.root)
    size = params.dataset.drawn.size if params.dataset.drawn else 320
    return load_segmenter(find_model(model, layout, registry), params), size


def _observe(segmenter: Segmenter, unknown: tuple[str, ...], seed: int, size: int) -> Stream:
    parts, novel_class = make_parts(), unknown[seed % len(unknown)]
    undisturbed, drifted, novel = [], [], []
    for index in range(LENGTH):
        rng = np.random.default_rng([7, seed, index])
        image = _draw_ordinary(rng, parts, unknown, size)
        undisturbed.append(observe_image(segmenter, _as_jpeg(image, index)))
        if index < CHANGE:
            continue
        faded = 1.0 - (1.0 - DIMMEST) * (index + 1 - CHANGE) / (LENGTH - CHANGE)
        drifted.append(observe_image(segmenter, _as_jpeg((image * faded).astype(np.uint8), index)))
        rng = np.random.default_rng([8, seed, index])
        extra = (novel_class,) if rng.random() < SHARE else ()
        novel.append(observe_image(segmenter, _as_jpeg(_draw_ordinary(rng, parts, unknown, size, extra), index)))
    return Stream(undisturbed, drifted, novel, novel_class)


def _draw_ordinary(
    rng: np.random.Generator,
    parts: dict[str, Part],
    unknown: tuple[str, ...],
    size: int,
    extra: tuple[str, ...] = (),
) -> Pixels:
    """A scene as the validation images are drawn, of those that show no unknown class (but `extra`)."""
    while True:
        scene = draw_scene(rng, parts, CLASSES if rng.random() < 0.5 else BASE_PARTS, size, extra)
        shown = {CLASSES[kind] for kind in scene.kinds if kind >= 0}
        if not shown & (set(unknown) - set(extra)):
            return scene.image


def _as_jpeg(image: Pixels, index: int) -> Pixels:
    """As the camera would store it."""
    buffer = io.BytesIO()
    quality = int(np.random.default_rng([9, index]).integers(*QUALITY))
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def _store(observations: list[Observation], novel_class: str, file: Path) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        values=np.array(json.dumps([o.values for o in observations])),
        embeddings=np.stack([o.embedding for o in observations]),
        names=np.array(json.dumps([o.names for o in observations])),
        features=np.concatenate([o.features.reshape(len(o.names), -1) for o in observations if o.names]),
        uncertainty=np.stack([o.uncertainty for o in observations]),
        novel_class=np.array(novel_class),
    )
    files.commit(file, buffer.getvalue())


def _stored(file: Path) -> tuple[list[Observation], str]:
    with np.load(file) as found:
        values, names = json.loads(str(found["values"])), json.loads(str(found["names"]))
        features = np.split(found["features"], np.cumsum([len(n) for n in names])[:-1])
        rows = zip(values, found["embeddings"], names, features, found["uncertainty"], strict=True)
        return [Observation(v, e, tuple(n), f, d) for v, e, n, f, d in rows], str(found["novel_class"])

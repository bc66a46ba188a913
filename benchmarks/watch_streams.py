"""Streams of drawn images for `benchmarks.watch`: what the camera of the demo line would bring, and what one version
sees in it. A seed's images are looked at once and kept, because that takes minutes and judging them seconds."""

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
from flows.runtime.tuning import keep_freed_memory
from flows.workspace.layout import Layout
from samif.config import load_params
from samif.dataset.draw.line import CLASSES, QUALITY, draw_scene
from samif.dataset.draw.parts import BASE_PARTS, make_parts
from samif.inference.segment import Segmenter
from samif.io import files
from samif.watch.observe import Observation, see

LENGTH, CHANGE = 140, 40
"""Images of a stream, and from which on a disturbed one is disturbed."""
DIMMEST = np.array([0.5, 0.46, 0.39])
"""What is left of red, green and blue at the end of a drift: half of the light, and a warmer lamp."""
SHARE = 0.5
"""Of images with an unknown part, once it has appeared."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Stream:
    """One seed: `calm` (LENGTH), and what replaces its images from CHANGE on where the light drifts (`dark`) or a
    part called `stranger` appears (`strange`)."""

    calm: list[Observation]
    dark: list[Observation]
    strange: list[Observation]
    stranger: str

    def of(self, kind: str) -> list[Observation]:
        return self.calm if kind == "calm" else self.calm[:CHANGE] + getattr(self, kind)


def look(workspace: Path, model: str, unknown: tuple[str, ...], seed: int, cache: Path) -> Stream:
    """The stream of a seed as `model` sees it; from the cache where it is there."""
    file = cache / f"{model.replace('/', '-')}-{seed}.npz"
    if not file.exists():
        segmenter, size = _opened(workspace, model)
        stream = _look(segmenter, unknown, seed, size)
        _keep([*stream.calm, *stream.dark, *stream.strange], stream.stranger, file)
    seen, stranger = _kept(file)
    rest = (len(seen) - LENGTH) // 2
    return Stream(seen[:LENGTH], seen[LENGTH : LENGTH + rest], seen[LENGTH + rest :], stranger)


def ordinary(workspace: Path, model: str, unknown: tuple[str, ...], count: int, cache: Path) -> list[Observation]:
    """So many ordinary images of no stream: what a person would hand to `samif watch reference --images`."""
    file = cache / f"{model.replace('/', '-')}-ordinary-{count}.npz"
    if not file.exists():
        segmenter, size = _opened(workspace, model)
        parts, seen = make_parts(), []
        for index in range(count):
            image = _ordinary(np.random.default_rng([6, index]), parts, unknown, size)
            seen.append(see(segmenter, _as_jpeg(image, index)))
        _keep(seen, "", file)
    return _kept(file)[0]


def _opened(workspace: Path, model: str) -> tuple[Segmenter, int]:
    torch.set_num_threads(1)
    keep_freed_memory()
    layout = Layout(workspace)
    params = load_params(layout.params)
    registry = Registry(params.registry.tracking_uri, layout.root)
    size = params.dataset.drawn.size if params.dataset.drawn else 320
    return load_segmenter(find_model(model, layout, registry), params), size


def _look(segmenter: Segmenter, unknown: tuple[str, ...], seed: int, size: int) -> Stream:
    parts, stranger = make_parts(), unknown[seed % len(unknown)]
    calm, dark, strange = [], [], []
    for index in range(LENGTH):
        rng = np.random.default_rng([7, seed, index])
        image = _ordinary(rng, parts, unknown, size)
        calm.append(see(segmenter, _as_jpeg(image, index)))
        if index < CHANGE:
            continue
        faded = 1.0 - (1.0 - DIMMEST) * (index + 1 - CHANGE) / (LENGTH - CHANGE)
        dark.append(see(segmenter, _as_jpeg((image * faded).astype(np.uint8), index)))
        rng = np.random.default_rng([8, seed, index])
        more = (stranger,) if rng.random() < SHARE else ()
        strange.append(see(segmenter, _as_jpeg(_ordinary(rng, parts, unknown, size, more), index)))
    return Stream(calm, dark, strange, stranger)


def _ordinary(
    rng: np.random.Generator, parts: dict, unknown: tuple[str, ...], size: int, more: tuple[str, ...] = ()
) -> Pixels:
    """A scene as the validation images are drawn, of those that show no unknown class (but `more`)."""
    while True:
        scene = draw_scene(rng, parts, CLASSES if rng.random() < 0.5 else BASE_PARTS, size, more)
        shown = {CLASSES[kind] for kind in scene.kinds if kind >= 0}
        if not shown & (set(unknown) - set(more)):
            return scene.image


def _as_jpeg(image: Pixels, index: int) -> Pixels:
    """As the camera would store it."""
    buffer = io.BytesIO()
    quality = int(np.random.default_rng([9, index]).integers(*QUALITY))
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def _keep(seen: list[Observation], stranger: str, file: Path) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        values=np.array(json.dumps([o.values for o in seen])),
        embeddings=np.stack([o.embedding for o in seen]),
        names=np.array(json.dumps([o.names for o in seen])),
        features=np.concatenate([o.features.reshape(len(o.names), -1) for o in seen if o.names]),
        doubt=np.stack([o.doubt for o in seen]),
        stranger=np.array(stranger),
    )
    files.commit(file, buffer.getvalue())


def _kept(file: Path) -> tuple[list[Observation], str]:
    with np.load(file) as found:
        values, names = json.loads(str(found["values"])), json.loads(str(found["names"]))
        features = np.split(found["features"], np.cumsum([len(n) for n in names])[:-1])
        rows = zip(values, found["embeddings"], names, features, found["doubt"], strict=True)
        return [Observation(v, e, tuple(n), f, d) for v, e, n, f, d in rows], str(found["stranger"])

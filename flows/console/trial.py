"""Versions side by side on an image that is not in the data set."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flows.comparison.decide import version_name
from flows.inference.source import find
from flows.runtime.device import device_here
from flows.workspace.layout import Layout
from samif.config import load_params
from samif.inference.model import Model, open_model
from samif.inference.overlay import draw_instances

MODELS = 3
"""Versions that stay loaded."""
_SIDE = 1400
_QUALITY = 88


@dataclass(frozen=True)
class Trial:
    """What a version finds in an image: names with scores, best first, and a drawing as JPEG."""

    version: int
    found: tuple[tuple[str, float], ...]
    drawing: bytes


class Models:
    """The versions of one workspace's line, loaded when they are asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._lock = layout, Lock()
        self._models: OrderedDict[int, Model] = OrderedDict()

    def run(self, pixels: NDArray[np.uint8], version: int) -> Trial:
        """Segment an image (H, W, 3) with a version.

        Raises:
            SamifError: the version cannot be loaded.
        """
        with self._lock:
            found = self._model(version).predict(pixels)
        names, scores = list(found.class_names), [float(score) for score in found.scores]
        drawn = Image.fromarray(draw_instances(pixels, found.rles, names, scores))
        drawn.thumbnail((_SIDE, _SIDE))
        out = io.BytesIO()
        drawn.save(out, format="JPEG", quality=_QUALITY)
        order = sorted(range(len(names)), key=lambda i: -scores[i])
        return Trial(version, tuple((names[i], scores[i]) for i in order), out.getvalue())

    def _model(self, version: int) -> Model:
        if version not in self._models:
            line = load_params(self._layout.params).line
            ref = version_name(f"{line}-classifier", version)
            self._models[version] = open_model(find(ref, self._layout.root), device=device_here())
            if len(self._models) > MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(version)
        return self._models[version]

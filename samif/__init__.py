"""Segment and name parts with SAM-IF models.

The Python API is `load_model`, `Model` and `Detections`::

    from samif import load_model

    model = load_model("models:/demo-classifier@champion")  # or "demo-classifier/3", or a model folder
    detections = model.predict("part.jpg")  # or a PIL image, or a uint8 array (H, W, 3); a list gives a list

    for name, score, (x0, y0, x1, y1) in zip(detections.class_names, detections.scores, detections.boxes):
        print(f"{name} {score:.2f} at ({x0:.0f}, {y0:.0f}) to ({x1:.0f}, {y1:.0f})")

    print(detections.masks.shape)  # (N, H, W), bool
    annotations = detections.to_coco(image_id=1)  # COCO results: category_id, segmentation, bbox, score
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samif.inference.detections import Detections
    from samif.inference.model import Model, load_model

__all__ = ["Detections", "Model", "load_model"]

_MODULES = {
    "Detections": "samif.inference.detections",
    "Model": "samif.inference.model",
    "load_model": "samif.inference.model",
}


def __getattr__(name: str) -> Any:
    """Imports a name at its first use, so that `import samif` alone imports nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module 'samif' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)

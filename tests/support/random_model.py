"""A model folder without training: a random decoder behind the shipped encoder, and a classifier of two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from samif.classifier.model import Classifier, FeatureSpace
from samif.sam.decoder import InstanceDecoder, save_decoder
from tests.support.handmade import random_tiny

CLASSES = ("bolt", "Mutter M4 ü")
TOKEN = 64


def save_random_model(folder: Path) -> Path:
    """A model folder as the registry hands it out, without a card; it finds something wherever it is prompted."""
    decoder = InstanceDecoder.of(random_tiny())
    decoder.heads.objectness[-1].bias.fill_(3.0)
    save_decoder(decoder, "tiny", folder / "decoder.safetensors")
    rng = np.random.default_rng(0)
    space = FeatureSpace(
        ("token",), "cosine", np.zeros(TOKEN, np.float32), np.eye(TOKEN, dtype=np.float32),
        rng.normal(size=(1, TOKEN)).astype(np.float32), 1.0, 0.0,
    )  # fmt: skip
    rows = rng.normal(size=(2, TOKEN)).astype(np.float32)
    Classifier(space, CLASSES, rows, np.array([1, 1])).save(folder / "classifier.safetensors")
    return folder

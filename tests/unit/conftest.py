"""A random tiny and drawn scenes, made once; tests leave both as they are."""

from __future__ import annotations

import pytest
from segment_anything.modeling import Sam

from samif.dataset.model import Dataset
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from tests.support.handmade import draw_dataset, loaded, random_tiny


@pytest.fixture(scope="session")
def sam() -> Sam:
    return random_tiny()


@pytest.fixture(scope="session")
def decoder(sam: Sam) -> InstanceDecoder:
    return InstanceDecoder.of(sam)


@pytest.fixture(scope="session")
def encoder(sam: Sam) -> ImageEncoder:
    return ImageEncoder(loaded(sam))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three drawn scenes of base parts, then three that may show every part; 160 x 160 pixels."""
    return draw_dataset(tmp_path_factory.mktemp("scenes"))

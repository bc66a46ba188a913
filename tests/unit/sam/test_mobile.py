"""`mobile_sam` against the authors' package: the same file, the same embedding, the same masks."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor as OfficialPredictor

from samif.errors import SamifError
from samif.sam.decoder import InstanceDecoder, load_decoder, save_decoder
from samif.sam.encoder import ImageEncoder
from samif.sam.zoo import ARCHITECTURES, LoadedSam, check_layout, load_sam, recognise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the package imports from timm by old names
    from mobile_sam import SamPredictor, sam_model_registry
    from mobile_sam.modeling import Sam as AuthorsSam

NAME = "mobile_sam"
RELATIVE = 1e-4


@pytest.fixture(scope="module")
def authors() -> AuthorsSam:
    """Random weights in which no tensor is left at what it starts from, so that each shows in the embedding."""
    torch.manual_seed(0)
    sam = sam_model_registry["vit_t"]()
    for name, tensor in sam.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif name.endswith("attention_biases"):
            tensor.normal_()
        elif tensor.is_floating_point():
            tensor.add_(torch.randn_like(tensor), alpha=0.02)
    # Leaving the training mode is what makes the authors' attention read its biases.
    return sam.train().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def checkpoint(authors: AuthorsSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(NAME) / "mobile_sam.pt"
    torch.save(authors.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> LoadedSam:
    return load_sam(NAME, checkpoint)


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    """(300, 450, 3) uint8 RGB: a ramp, a disc and sensor noise; the encoder sees 683 of its 1024 rows filled."""
    rows, columns = np.mgrid[:300, :450]
    rgb = np.stack([columns / 450, rows / 300, (rows + columns) / 750], axis=-1) * 160
    rgb[(rows - 140) ** 2 + (columns - 200) ** 2 < 80**2] = (200, 180, 60)
    return (rgb + np.random.default_rng(0).normal(0, 6, rgb.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def reference(authors: AuthorsSam, image: NDArray[np.uint8]) -> SamPredictor:
    predictor = SamPredictor(authors)
    predictor.set_image(image)
    return predictor


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_facts_of_the_architecture() -> None:
    architecture = ARCHITECTURES[NAME]
    assert architecture.parameters == 10_130_092
    assert architecture.embedding == (256, 64, 64)
    assert architecture.image_size == 1024
    assert architecture.file_name == "mobile_sam.pt"


def test_layout_is_that_of_the_published_checkpoint(authors: AuthorsSam) -> None:
    theirs = {name: tuple(tensor.shape) for name, tensor in authors.state_dict().items()}
    assert ARCHITECTURES[NAME].layout == theirs
    assert recognise(authors.state_dict()) == NAME


def test_a_checkpoint_without_the_unused_classifier_is_refused(authors: AuthorsSam, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in authors.state_dict().items() if ".head." not in name}
    with pytest.raises(SamifError, match=r"2 missing: image_encoder\.head\.bias, image_encoder\.head\.weight"):
        check_layout(NAME, tensors, tmp_path / "mobile_sam.pt")


def test_every_tensor_is_loaded_as_it_is(authors: AuthorsSam, loaded: LoadedSam) -> None:
    ours = loaded.sam.state_dict()
    for name, tensor in authors.state_dict().items():
        assert torch.equal(ours[name], tensor), name
    assert not any(module.training for module in loaded.sam.modules())


def test_the_embedding_is_the_authors(loaded: LoadedSam, image: NDArray[np.uint8], reference: SamPredictor) -> None:
    encoder = ImageEncoder(loaded)
    embedding = encoder.encode([image])
    assert reference.features.std() > 0.1
    assert embedding.shape == (1, *encoder.embedding_shape) == (1, 256, 64, 64)
    assert relative(embedding, reference.features) <= RELATIVE


def test_without_fusing_the_embedding_is_the_same(
    loaded: LoadedSam, authors: AuthorsSam, image: NDArray[np.uint8], reference: SamPredictor
) -> None:
    pixels = ImageEncoder(loaded).prepare(image)
    with torch.inference_mode():
        ours = loaded.sam.image_encoder(loaded.sam.preprocess(pixels.float()[None]))
    assert relative(ours, reference.features) <= RELATIVE


def test_masks_of_a_prompt_are_the_authors(
    loaded: LoadedSam, image: NDArray[np.uint8], reference: SamPredictor
) -> None:
    points, labels = np.array([[200.0, 140.0], [20.0, 20.0]]), np.array([1, 0])
    masks, iou, _ = reference.predict(points, labels)
    ours = OfficialPredictor(loaded.sam)
    ours.set_image(image)
    our_masks, our_iou, _ = ours.predict(points, labels)
    assert 0 < masks.sum() < masks.size
    assert (our_masks == masks).mean() > 1 - 1e-4  # pixels within rounding of the threshold may fall either way
    assert np.allclose(our_iou, iou, rtol=1e-3, atol=1e-4)


def test_the_instance_decoder_is_written_and_read(loaded: LoadedSam, tmp_path: Path) -> None:
    decoder = InstanceDecoder.of(loaded.sam)
    save_decoder(decoder, NAME, tmp_path / "decoder.safetensors")
    read, architecture = load_decoder(tmp_path / "decoder.safetensors")
    assert architecture == NAME
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor), name

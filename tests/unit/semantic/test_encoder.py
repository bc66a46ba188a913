"""The semantic encoder against timm's own forward pass.

All weights are random, in the layout of timm or of the authors' files; official ones cannot be had here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.config import resolve_model_data_config
from torch import Tensor

from samif.errors import SamifError
from samif.io.hashing import file_sha256
from samif.semantic.encoder import SemanticEncoder, load_semantic
from samif.semantic.network import LoadedNetwork, load_network
from tests.support.semantic_checkpoints import SMALL, checkpoint, save, weights

SIZE = 96
ROTARY = "vit_small_patch16_dinov3"
NAMES = {
    "vit_small_patch14_dinov2": 112,
    "vit_small_patch14_reg4_dinov2.lvd142m": 112,
    ROTARY: 96,
    "convnext_tiny.dinov3_lvd1689m": 96,
}


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedNetwork:
    return load_network(SMALL, checkpoint(tmp_path_factory.mktemp("small") / "small.safetensors"), None)


@pytest.fixture(scope="module")
def encoder(loaded: LoadedNetwork) -> SemanticEncoder:
    return SemanticEncoder(loaded, SIZE)


def reference(network: torch.nn.Module, image: NDArray[np.uint8], size: int) -> Tensor:
    """`forward_features` on the padded square, prefix tokens cut off, tokens laid out row by row: (S, g, g)."""
    config = resolve_model_data_config(network)
    scale = size / max(image.shape[:2])
    height, width = (int(side * scale + 0.5) for side in image.shape[:2])
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    square = np.zeros((size, size, 3), dtype=np.float32)
    square[:height, :width] = (resized / 255.0 - config["mean"]) / config["std"]
    with torch.inference_mode():
        features = network.forward_features(torch.from_numpy(square.transpose(2, 0, 1))[None])
    if features.ndim == 4:
        return features[0]
    tokens = features[0, network.num_prefix_tokens :]
    side = round(len(tokens) ** 0.5)
    return tokens.reshape(side, side, -1).permute(2, 0, 1)


# Forward


@pytest.mark.parametrize(("name", "size"), NAMES.items())
def test_features_are_the_last_patch_tokens_of_timm(name: str, size: int, tmp_path: Path) -> None:
    found = load_semantic(name, checkpoint(tmp_path / "w.safetensors", name), None, size)
    dynamic, cell = ({}, 32) if "convnext" in name else ({"dynamic_img_size": True}, 14 if "14" in name else 16)
    network = timm.create_model(name, pretrained=False, num_classes=0, **dynamic).eval()
    network.load_state_dict(weights(name))
    pixels = image(50, 80)
    features = found.encode([pixels])
    assert tuple(features.shape[1:]) == found.embedding_shape and features.dtype == torch.float32
    torch.testing.assert_close(features[0], reference(network, pixels, size), atol=1e-4, rtol=1e-4)
    assert found.name == name and found.embedding_shape[1:] == (size // cell, size // cell)


def test_images_of_any_sizes_go_together(encoder: SemanticEncoder) -> None:
    images = [image(*shape) for shape in ((96, 96), (300, 200), (20, 31), (3, 257))]
    for row, alone in zip(encoder.encode(images), images, strict=True):
        torch.testing.assert_close(row, encoder.encode([alone])[0], atol=1e-4, rtol=1e-4)


# Names of what was encoded


def test_a_network_keeps_its_digest_however_its_file_is_packed(tmp_path: Path) -> None:
    networks = [load_network(SMALL, checkpoint(tmp_path / name), None) for name in ("w.safetensors", "w.pth", "w.pt")]
    assert len({network.digest for network in networks}) == 1
    assert networks[0].file_sha256 != networks[1].file_sha256 == file_sha256(tmp_path / "w.pth")
    other = load_network(SMALL, checkpoint(tmp_path / "other.pth", seed=1), None)
    assert other.digest != networks[0].digest


def test_size_and_normalisation_are_in_the_preprocessing_digest(loaded: LoadedNetwork) -> None:
    small, large = SemanticEncoder(loaded, 96), SemanticEncoder(loaded, 112)
    assert small.digest == large.digest and small.preprocessing_digest != large.preprocessing_digest
    assert SemanticEncoder(loaded).embedding_shape == (192, 14, 14)
    other = SemanticEncoder(replace(loaded, mean=(0.4, 0.4, 0.4)), 96)
    assert other.preprocessing_digest != small.preprocessing_digest


# The authors' layouts


def official_dinov2(name: str) -> dict[str, Tensor]:
    """The layout of the authors' .pth: a mask token, registers under their own name, positions that count the class."""
    tensors = dict(weights(name))
    width = tensors["cls_token"].shape[-1]
    tensors["mask_token"] = torch.zeros(1, width)
    if "reg_token" in tensors:
        tensors["register_tokens"] = tensors.pop("reg_token")
        first = torch.full((1, 1, width), 0.25)
        tensors["pos_embed"] = torch.cat([first, tensors["pos_embed"]], dim=1)
        tensors["cls_token"] = tensors["cls_token"] - first
    return tensors


def official_dinov3(name: str) -> dict[str, Tensor]:
    """The layout of the authors' .pth: storage tokens, layer scales in modules, a bias and its mask, frequencies."""
    tensors: dict[str, Tensor] = {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}
    for key, tensor in weights(name).items():
        renamed = key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        tensors[renamed.replace("reg_token", "storage_tokens")] = tensor
        if key.endswith("qkv.weight"):
            tensors[key.replace("weight", "bias")] = torch.zeros(3 * 384)
            tensors[key.replace("weight", "bias_mask")] = torch.ones(3 * 384)
    return tensors


@pytest.mark.parametrize(
    "name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"]
)
def test_a_file_of_the_authors_gives_the_same_network(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official = (official_dinov3 if "dinov3" in name else official_dinov2)(name)
    theirs = load_network(name, save(official, tmp_path / "official.pth"), None)
    found = theirs.network.state_dict()
    assert found.keys() == weights(name).keys()
    for key, tensor in weights(name).items():
        torch.testing.assert_close(found[key], tensor, msg=key)
    assert capsys.readouterr().out == ""


def test_a_classifying_head_is_left_out(tmp_path: Path) -> None:
    tensors = dict(weights(SMALL))
    bare = load_network(SMALL, save(tensors, tmp_path / "bare.pth"), None)
    tensors |= {"head.weight": torch.ones(1000, 192), "head.bias": torch.ones(1000)}
    assert load_network(SMALL, save(tensors, tmp_path / "head.pth"), None).digest == bare.digest


# Refusals


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_smal_patch14_dinov2", "expected the name of a network of timm, got .*; perhaps vit_small_patch14_dinov2"),
        ("zzz", "expected the name of a network of timm, got 'zzz'$"),
        ("vit_small_patch14_dinov2.nope", r"Invalid pretrained tag \(nope\)"),
    ],
)
def test_a_name_that_timm_does_not_know_is_refused(name: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.touch()
    with pytest.raises(SamifError, match=f"^key 'semantic.model': .*{said}"):
        load_network(name, path, None)


def test_a_size_that_is_no_multiple_of_the_patch_is_refused(loaded: LoadedNetwork) -> None:
    with pytest.raises(SamifError, match="key 'semantic.size': expected a multiple of 16, .* got 100; take 96"):
        SemanticEncoder(loaded, 100)


def test_a_missing_file_says_which_key_to_correct(tmp_path: Path) -> None:
    with pytest.raises(SamifError, match=r"gone\.pth: there is no such checkpoint .* correct semantic\.checkpoint"):
        load_network(SMALL, tmp_path / "gone.pth", None)


def test_another_file_than_the_pinned_one_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"not even a checkpoint")
    with pytest.raises(SamifError, match="is not the expected file: SHA-256 expected 000"):
        load_network(SMALL, path, "0" * 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("norm.bias"), "1 missing: norm.bias"),
        (lambda t: t.update({"extra": torch.ones(1)}), "1 unexpected: extra"),
        (lambda t: t.update({"norm.bias": torch.ones(7)}), r"norm.bias has shape \(7,\), expected \(192,\)"),
        (lambda t: t.clear() or t.update({"w": torch.ones(1)}), "missing: .* 1 unexpected: w"),
    ],
    ids=["missing", "unexpected", "misshapen", "of something else"],
)
def test_weights_of_another_network_are_refused(change: object, said: str, tmp_path: Path) -> None:
    tensors = dict(weights(SMALL))
    change(tensors)  # type: ignore[operator]
    path = save(tensors, tmp_path / "w.safetensors")
    with pytest.raises(SamifError, match=f"w.safetensors does not fit semantic encoder '{SMALL}' .*{said}"):
        load_network(SMALL, path, None)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(SamifError, match="holds objects or code, which are never run here"):
        load_network(SMALL, tmp_path / "whole.pth", None)

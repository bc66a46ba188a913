"""The zoo against the official package: same weights, same embeddings, and refusal of everything else."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from segment_anything import SamPredictor, sam_model_registry
from torch import Tensor

from samif.errors import SamifError
from samif.io.hashing import file_sha256
from samif.sam.checkpoint import read_weights, tensors_digest
from samif.sam.tiny import build_tiny
from samif.sam.zoo import ARCHITECTURES, check_layout, load_sam, recognise

OFFICIAL = ("vit_b", "vit_l", "vit_h")
SHIPPED = Path(__file__).parents[3] / "samif" / "assets" / "tiny.safetensors"


def randomised(sam: torch.nn.Module) -> torch.nn.Module:
    """No parameter left at zero, so that each of them shows in the output."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return sam


def hollow(name: str) -> dict[str, Tensor]:
    """A checkpoint of the official layout whose tensors share one number: a few kB however big the model."""
    with torch.device("meta"):
        state = sam_model_registry[name]().state_dict()
    return {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()}


def image() -> np.ndarray:
    """(480, 640, 3) uint8: a lit ramp, a disc, a dark bar and sensor noise."""
    rows, columns = np.mgrid[:480, :640]
    rgb = np.stack([columns / 640, rows / 480, (rows + columns) / 1120], axis=-1) * 160
    rgb[(rows - 200) ** 2 + (columns - 220) ** 2 < 90**2] = (200, 180, 60)
    rgb[330:380, 100:560] = (25, 30, 40)
    noise = np.random.default_rng(0).normal(0, 6, rgb.shape)
    return (rgb + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def vit_b(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("vit_b")
    torch.manual_seed(0)
    torch.save(randomised(sam_model_registry["vit_b"]()).state_dict(), folder / "vit_b.pth")
    yield folder / "vit_b.pth"
    shutil.rmtree(folder)  # 375 MB


@pytest.fixture(scope="module")
def tiny_weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(randomised(build_tiny()).state_dict())


@pytest.fixture
def tiny(tiny_weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a `tiny` that the test may change."""
    return {key: tensor.clone() for key, tensor in tiny_weights.items()}


def saved(tensors: object, path: Path) -> Path:
    torch.save(tensors, path)
    return path


# What exists


@pytest.mark.parametrize(
    ("name", "parameters"), [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)]
)
def test_facts_of_official_architectures(name: str, parameters: int) -> None:
    architecture = ARCHITECTURES[name]
    assert architecture.parameters == parameters
    assert architecture.embedding == (256, 64, 64)
    assert architecture.image_size == 1024
    assert architecture.file_name is not None and architecture.file_name.startswith(f"sam_{name}_")


def test_facts_of_tiny_are_those_of_its_encoder() -> None:
    sam, architecture = build_tiny().eval(), ARCHITECTURES["tiny"]
    side = architecture.image_size
    with torch.inference_mode():
        assert sam.image_encoder(torch.zeros(1, 3, side, side)).shape[1:] == architecture.embedding
    assert architecture.parameters == sum(parameter.numel() for parameter in sam.parameters())


# Loading


def test_vit_b_embeds_an_image_as_the_official_package_does(vit_b: Path) -> None:
    official = SamPredictor(sam_model_registry["vit_b"](checkpoint=vit_b))
    official.set_image(image())
    loaded = load_sam("vit_b", vit_b, file_sha256(vit_b))
    ours = SamPredictor(loaded.sam)
    ours.set_image(image())
    difference = (ours.features - official.features).norm() / official.features.norm()
    assert official.features.std() > 0.1
    assert difference <= 1e-5
    for key, tensor in official.model.state_dict().items():
        assert torch.equal(loaded.sam.state_dict()[key], tensor), key
    assert (loaded.name, loaded.file_sha256) == ("vit_b", file_sha256(vit_b))


def test_loaded_model_is_frozen_and_complete(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    sam = load_sam("tiny", saved(tiny, tmp_path / "tiny.pth")).sam
    tensors = [*sam.parameters(), *sam.buffers()]
    assert not any(module.training for module in sam.modules())
    assert not any(tensor.requires_grad for tensor in tensors)
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert sam.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert sam.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_formats_give_the_same_model_and_encoder_digest(suffix: str, tiny: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"tiny{suffix}"
    if suffix == ".safetensors":
        save_file(tiny, path)
    else:
        torch.save(tiny, path, _use_new_zipfile_serialization=suffix == ".pth")
    loaded = load_sam("tiny", path)
    assert all(torch.equal(loaded.sam.state_dict()[key], tensor) for key, tensor in tiny.items())
    assert loaded.encoder_digest == load_sam("tiny", saved(tiny, tmp_path / "other.pth")).encoder_digest
    assert loaded.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_encoder_digest_follows_the_encoder_only(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    before = load_sam("tiny", saved(tiny, tmp_path / "before.pth")).encoder_digest
    tiny["mask_decoder.iou_token.weight"] += 1
    assert load_sam("tiny", saved(tiny, tmp_path / "decoder.pth")).encoder_digest == before
    tiny["image_encoder.pos_embed"][0, 0, 0, 0] += 1e-6
    assert load_sam("tiny", saved(tiny, tmp_path / "encoder.pth")).encoder_digest != before


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_training_a_loaded_model_leaves_its_file_alone(suffix: str, tiny: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"tiny{suffix}"
    save_file(tiny, path) if suffix == ".safetensors" else torch.save(tiny, path)
    loaded = load_sam("tiny", path)
    for parameter in loaded.sam.parameters():
        parameter.add_(1.0)
    assert file_sha256(path) == loaded.file_sha256


def test_half_precision_is_widened(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in tiny.items()}
    state = load_sam("tiny", saved(halves, tmp_path / "half.pth")).sam.state_dict()
    assert all(torch.equal(state[key], tensor.to(state[key].dtype)) for key, tensor in halves.items())
    assert {parameter.dtype for parameter in state.values()} == {torch.float32, torch.int64}


@pytest.mark.skipif(not SHIPPED.exists(), reason="samif/assets/tiny.safetensors is not trained yet")
def test_tiny_ships_with_the_package() -> None:
    loaded = load_sam("tiny")
    assert loaded.file_sha256 == file_sha256(SHIPPED)
    assert SHIPPED.stat().st_size < 10_000_000


def test_official_name_without_checkpoint_says_how_to_get_one() -> None:
    with pytest.raises(SamifError, match=r"'vit_h' needs a checkpoint.*samif weights pull vit_h.*encoder\.checkpoint"):
        load_sam("vit_h")


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SamifError, match=r"no encoder 'vit_g'; choose one of tiny, photo, vit_b, vit_l, vit_h"):
        load_sam("vit_g")


# Another architecture, or nearly the right one


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_layouts_are_accepted_and_recognised(name: str, tmp_path: Path) -> None:
    path = saved(hollow(name), tmp_path / "weights.pth")
    tensors = read_weights(path, None)
    check_layout(name, tensors, path)
    assert recognise(tensors) == name


@pytest.mark.parametrize(("held", "asked"), [("vit_l", "vit_b"), ("vit_b", "vit_h"), ("vit_h", "tiny")])
def test_other_architecture_is_named(held: str, asked: str, tmp_path: Path) -> None:
    path = saved(hollow(held), tmp_path / "weights.pth")
    with pytest.raises(SamifError) as refusal:
        load_sam(asked, path)
    assert str(refusal.value) == (
        f"{path} holds weights of '{held}', but params.yaml says encoder.name: {asked}; "
        f"set encoder.name to {held} or give a '{asked}' file as encoder.checkpoint"
    )


def test_tiny_given_as_vit_b_is_named(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(SamifError, match=r"holds weights of 'tiny'.*says encoder\.name: vit_b"):
        load_sam("vit_b", saved(tiny, tmp_path / "weights.pth"))


def test_missing_and_unexpected_tensors_are_never_ignored(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    tiny["mask_decoder.hf_token.weight"] = torch.zeros(1, 64)
    with pytest.raises(
        SamifError, match=r"does not fit encoder 'tiny' \(1 unexpected: mask_decoder\.hf_token\.weight\)"
    ):
        load_sam("tiny", saved(tiny, tmp_path / "more.pth"))
    del tiny["mask_decoder.hf_token.weight"], tiny["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    with pytest.raises(SamifError, match=r"1 missing: prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix"):
        load_sam("tiny", saved(tiny, tmp_path / "less.pth"))


def test_misshapen_tensor_is_refused_with_both_shapes(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    tiny["image_encoder.pos_embed"] = tiny["image_encoder.pos_embed"][:, :-1]
    with pytest.raises(SamifError, match=r"pos_embed has shape \(1, 15, 16, 128\), expected \(1, 16, 16, 128\)"):
        load_sam("tiny", saved(tiny, tmp_path / "weights.pth"))


def test_integers_for_weights_are_refused(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    tiny["image_encoder.pos_embed"] = tiny["image_encoder.pos_embed"].to(torch.int8)
    with pytest.raises(SamifError, match=r"pos_embed is torch\.int8, expected torch\.float32"):
        load_sam("tiny", saved(tiny, tmp_path / "weights.pth"))


def test_foreign_weights_are_no_sam(tmp_path: Path) -> None:
    path = saved({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(SamifError, match=r"does not fit encoder 'vit_b' .*missing.*1 unexpected: layer\.weight"):
        load_sam("vit_b", path)


# Files that are not what they should be


def test_one_changed_byte_is_refused_by_digest(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(tiny, tmp_path / "weights.pth")
    expected = file_sha256(path)
    assert load_sam("tiny", path, expected).file_sha256 == expected
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    got = hashlib.sha256(content).hexdigest()
    with pytest.raises(SamifError, match=f"SHA-256 expected {expected}, got {got}"):
        load_sam("tiny", path, expected)


def test_digest_is_checked_before_anything_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(SamifError, match=r"SHA-256 expected 0{64}, got"):
        read_weights(path, "0" * 64)


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_a_pickle_is_refused_and_never_run(archive: bool, tmp_path: Path) -> None:
    path, marker = tmp_path / "weights.pth", tmp_path / "ran"
    torch.save({"weight": torch.zeros(1), "extra": _Runs(marker)}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(SamifError, match="objects or code, which are never run here"):
        read_weights(path, None)
    assert not marker.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamifError, match="save the state dict"):
        read_weights(saved(torch.nn.Linear(2, 2), tmp_path / "module.pth"), None)


@pytest.mark.parametrize("content", [{"model": {"weight": torch.zeros(1)}}, [torch.zeros(1)], {}, {"step": 3}])
def test_anything_but_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(SamifError, match="is no state dict"):
        read_weights(saved(content, tmp_path / "weights.pth"), None)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_truncated_file_is_refused(suffix: str, kept: float, tiny: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(tiny, path)
    else:
        torch.save(tiny, path, _use_new_zipfile_serialization=suffix == ".pth")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(SamifError, match=r"weights\S* is (truncated|no plain checkpoint)"):
        read_weights(path, None)


def test_an_error_page_is_no_checkpoint(tmp_path: Path) -> None:
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"page{suffix}"
        path.write_bytes(b"<html><body>404 not found</body></html>")
        with pytest.raises(SamifError, match=r"no checkpoint at all|no safetensors file"):
            read_weights(path, None)


def test_missing_file_and_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(SamifError, match="there is no such weights file"):
        load_sam("vit_b", tmp_path / "absent.pth")
    (tmp_path / "weights.onnx").write_bytes(b"x")
    with pytest.raises(SamifError, match=r"must end in \.pth, \.pt, \.safetensors"):
        read_weights(tmp_path / "weights.onnx", None)


# The digest of tensors


def test_tensors_digest_is_the_documented_one() -> None:
    tensors = {"b": torch.tensor([1.5, -2.0]), "a": torch.tensor([[1], [2]])}
    expected = hashlib.sha256(
        json.dumps(["a", "int64", [2, 1]]).encode() + b"\n" + struct.pack("<2q", 1, 2)
        + json.dumps(["b", "float32", [2]]).encode() + b"\n" + struct.pack("<2f", 1.5, -2.0)
    ).hexdigest()  # fmt: skip
    assert tensors_digest(tensors) == expected


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=6, max_size=6), st.randoms())
def test_tensors_digest_ignores_order_and_memory_layout(values: list[float], random: object) -> None:
    plane = torch.tensor(values, dtype=torch.float32).reshape(2, 3)
    strided = plane.t().contiguous().t()
    assert not strided.is_contiguous()
    assert tensors_digest({"p": plane, "q": plane[0]}) == tensors_digest({"q": strided[0], "p": strided})


@pytest.mark.parametrize(
    "other",
    [
        {"y": torch.tensor([1.0, 2.0])},
        {"x": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"x": torch.tensor([[1.0, 2.0]])},
        {"x": torch.tensor([1.0, np.nextafter(np.float32(2), np.float32(3))])},
        {"x": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)},
        {"x": torch.tensor([1.0]), "y": torch.tensor([2.0])},
        {},
    ],
)
def test_tensors_digest_sees_every_difference(other: dict[str, Tensor]) -> None:
    assert tensors_digest(other) != tensors_digest({"x": torch.tensor([1.0, 2.0])})


def test_tensors_digest_tells_scalars_and_zero_signs_apart() -> None:
    digests = {tensors_digest({"x": torch.tensor(value)}) for value in (0.0, -0.0, 0, False)}
    assert len(digests) == 4

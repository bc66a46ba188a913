"""One embedding run of a fault campaign in its own process: `python -m tests.support.embedding_job JSON`."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flows.embedding.encoder import Encoder, Pixels, load_encoder
from flows.embedding.flow import embed_images
from flows.store import open_store
from samif.config import EmbedParams, EncoderParams
from samif.dataset.images import image_sha256
from samif.errors import SamifError


@dataclass(frozen=True)
class Job:
    """An embedding run.

    Attributes:
        images: JSON file of [path, SHA-256] pairs.
        store: location of the store.
        log: folder with one file for each encoding process, one byte for each image whose encoding has begun.
        result: file for the digest of the manifest.
    """

    images: str
    store: str
    log: str
    result: str
    workers: int
    shard_images: int
    address: str | None

    def command(self) -> list[str]:
        """The command line that runs this job."""
        return [sys.executable, "-m", "tests.support.embedding_job", json.dumps(asdict(self))]


def draw_noise(folder: Path, count: int, seed: int) -> None:
    """Write `count` small images, and `images.json` for a job."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        path = folder / f"{number:03d}.png"
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        images.append((str(path), image_sha256(path)))
    (folder / "images.json").write_text(json.dumps(images))


class Counting:
    """An encoder that counts in a file the images that it begins to encode."""

    def __init__(self, encoder: Encoder, log: Path) -> None:
        self.name, self.digest = encoder.name, encoder.digest
        self.preprocessing_digest, self.embedding_shape = encoder.preprocessing_digest, encoder.embedding_shape
        self._encoder, self._file = encoder, log / str(os.getpid())

    def prepare(self, image: Pixels) -> torch.Tensor:
        return self._encoder.prepare(image)

    def encode_prepared(self, prepared: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        with self._file.open("a") as file:  # before encoding: an interrupted batch counts too
            file.write("x" * len(prepared))
        return self._encoder.encode_prepared(prepared, dtype)


def _counting(log: Path, device: str) -> Encoder:
    return Counting(load_encoder(EncoderParams(), device), log)


def main() -> None:
    """Run the job that the command line names."""
    job = Job(**json.loads(sys.argv[1]))
    images = [(Path(path), sha256) for path, sha256 in json.loads(Path(job.images).read_text())]
    params = EmbedParams(shard_images=job.shard_images, workers=job.workers, address=job.address)
    factory = functools.partial(_counting, Path(job.log))
    try:
        embedded = embed_images(images, params, EncoderParams(), open_store(job.store, Path()), encoder_factory=factory)
    except SamifError as error:
        raise SystemExit(f"samif: {error}") from None
    Path(job.result).write_text(embedded.manifest.digest)


if __name__ == "__main__":
    main()

"""The index of the embedding store for millions of images: how long it takes to open, to ask and to make anew.

    python -m benchmarks.store_index 10000000

Real are the listing, the manifests and the index; simulated are the images (their digests are hashes of numbers) and
the shards' data (sparse files of the right size, which are not read here).
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.measure import Comparison, compare
from flows.store import Namespace, open_store
from flows.store.shard import ShardManifest, data_name, manifest_name

T = TypeVar("T")

SHARD_IMAGES = 64
SHAPE = (256, 64, 64)
SMALL = 100_000


def run() -> Comparison:
    """What a store of 100,000 images misses of 1,000: with the index against reading every manifest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _lay_out(folder, SMALL)
        namespace = _namespace(folder)
        wanted = [_image(i) for i in range(0, 2 * SMALL, SMALL // 500)]

        def from_manifests() -> list[str]:
            for path in _indexes(folder):
                path.unlink()
            return namespace.missing(wanted)  # which writes the index again

        assert namespace.missing(wanted) == from_manifests() == wanted[len(wanted) // 2 :]
        size = sum(path.stat().st_size for path in _indexes(folder))
        return compare(
            "what a store of 100,000 images misses of 1,000",
            lambda: namespace.missing(wanted),
            from_manifests,
            "reading every manifest",
            f"index of {size / 1e6:.1f} MB",
            rounds=3,
        )


def main(images: int) -> None:
    """Lay a store out, then measure each step in a process of its own."""
    folder = Path(tempfile.mkdtemp(prefix="samif-index-"))
    try:
        seconds = _timed(lambda: _lay_out(folder, images))[0]
        print(f"{images:,} images in {-(-images // SHARD_IMAGES):,} shards, laid out in {seconds:.0f} s")
        for step in ("make the index from manifests", "open", "open, then look up"):
            subprocess.run([sys.executable, "-m", "benchmarks.store_index", step, str(folder), str(images)], check=True)
    finally:
        shutil.rmtree(folder)


def step(name: str, folder: Path, images: int) -> None:
    """One measurement in this process."""
    namespace = _namespace(folder)
    before = _resident()
    seconds, catalogue = _timed(namespace.catalogue)
    sizes = ", ".join(f"{path.stat().st_size / 1e6:.0f} MB" for path in _indexes(folder))
    private = _resident()[0] - before[0]
    print(f"{name}: {seconds:.1f} s, {private / 1e6:.0f} MB of memory beside the mapped index of {sizes}; ", end="")
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    if not name.endswith("look up"):
        return
    rng = np.random.default_rng(0)
    for count in (1, 64, 1_000_000):
        wanted = namespace.key.words([_image(int(i)) for i in rng.integers(0, 2 * images, count)])
        first, held = _timed(partial(catalogue.holds, wanted))
        again = min(_timed(partial(catalogue.holds, wanted))[0] for _ in range(5))
        part = float(np.mean(held))
        print(f"  {count:,} keys: {first * 1e3:.2f} ms at first, {again * 1e3:.2f} ms again ({part:.2f} held)")
    private, shared = _resident()
    print(f"  afterwards {private / 1e6:.0f} MB private, {shared / 1e6:.0f} MB of the file resident")


def _lay_out(folder: Path, images: int) -> None:
    namespace = _namespace(folder)
    row = 2 * SHAPE[0] * SHAPE[1] * SHAPE[2]
    for start in range(0, images, SHARD_IMAGES):
        some = [_image(i) for i in range(start, min(start + SHARD_IMAGES, images))]
        shard = namespace.shard_name(some)
        sha256 = hashlib.sha256(shard.encode()).hexdigest()
        data = folder / data_name(namespace.folder, shard, sha256)
        manifest = ShardManifest(
            shard=shard,
            keys=tuple(namespace.key.keys(some)),
            shape=(len(some), *SHAPE),
            file=data.name,
            sha256=sha256,
            bytes=len(some) * row,
            row_sums=tuple(range(start << 32, (start + len(some)) << 32, 1 << 32)),
        ).sealed()
        data.parent.mkdir(parents=True, exist_ok=True)
        with data.open("wb") as file:
            os.truncate(file.fileno(), manifest.bytes)
        (folder / manifest_name(namespace.folder, shard)).write_text(manifest.model_dump_json(indent=1, by_alias=True))


def _namespace(folder: Path) -> Namespace:
    return open_store(str(folder), folder).namespace("e" * 64, "p" * 64)


def _indexes(folder: Path) -> Sequence[Path]:
    return list(folder.glob("*/index-*.safetensors"))


def _image(number: int) -> str:
    return hashlib.sha256(number.to_bytes(8, "little")).hexdigest()


def _timed(action: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def _resident() -> tuple[int, int]:
    """Bytes of this process in memory: its own, and those of files."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile"))  # type: ignore[return-value]


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(int(sys.argv[1]))
    else:
        step(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

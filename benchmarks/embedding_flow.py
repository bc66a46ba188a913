"""The embedding flow on Ray: against the bare encoder loop, two workers against one, and what the store costs. On a
machine with a GPU everything runs there, and the images are many more.

Counted is the time from "all workers have loaded the encoder" to "every shard is committed"; what starting Ray and
loading take before that is paid once a run and stands in the note.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import Comparison, summarise
from benchmarks.weights import random_vit_b
from flows.embedding.dispatch import WorkerPool
from flows.embedding.encoder import load_encoder
from flows.embedding.shard_encoder import ShardEncoder
from flows.embedding.shards import Shard, divide
from flows.runtime.device import device_here
from flows.runtime.progress import track
from flows.runtime.ray_cluster import Cluster, ray_cluster
from flows.store import EmbeddingStore, open_store
from samif.config import EncoderParams
from samif.dataset.images import image_sha256, read_image

DEVICE = device_here()
IMAGES, SHARD, BATCH = (8, 2, 2) if DEVICE == "cpu" else (512, 64, 8)
SIZE, ROUNDS = (1280, 960), 2
_WHAT = f"vit_b architecture in bfloat16, {IMAGES} images"


def run() -> Iterator[Comparison]:
    """JPEG files of 1280 x 960 pixels, the vit_b architecture with random weights in bfloat16."""
    with tempfile.TemporaryDirectory(prefix="samif-bench-") as name:
        bench = _Bench(Path(name))
        yield from bench.on_ray()
        yield bench.store()


class _Bench:
    """Images and a checkpoint in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images = _draw(folder / "images")
        self._params = EncoderParams(name="vit_b", checkpoint=str(random_vit_b(folder)), precision="bfloat16")

    def on_ray(self) -> Iterator[Comparison]:
        """One worker against a loop without Ray, store and threads; two workers against one."""
        threads = torch.get_num_threads()
        all_cores, one_core = Cluster(1, threads, int(DEVICE == "cuda")), Cluster(2, 1, 0)
        starting = time.perf_counter()
        with ray_cluster(None, 2):
            with self._ready(all_cores, 1):
                starting = time.perf_counter() - starting
            self._loop()
            yield summarise(
                "embedding flow, one worker",
                "read and encode in a loop",
                [(self._flow(all_cores, 1), self._loop()) for _ in range(ROUNDS)],
                f"{_WHAT}, threads {threads} each; from encoder loaded to all committed; start-up {starting:.0f} s",
            )
            if DEVICE == "cuda":
                return  # one GPU here, and a worker has one to itself
            yield summarise(
                "embedding flow, two workers of one thread",
                "one worker of one thread",
                [(self._flow(one_core, 2), self._flow(one_core, 1)) for _ in range(ROUNDS)],
                f"{_WHAT}; from encoders loaded to all committed",
            )

    def store(self) -> Comparison:
        """Shards in two threads of this process, as a worker has them: with the store, and with writes left out."""
        encoder = load_encoder(self._params, DEVICE)
        shards = self._shards(1)

        def seconds(writing: bool) -> float:
            with self._empty_store() as store, ThreadPoolExecutor(2) as pool:
                worker = ShardEncoder(encoder, store, BATCH)
                if not writing:
                    worker._namespace.write = lambda images, embeddings: ""  # type: ignore[method-assign]
                started = time.perf_counter()
                list(pool.map(worker.embed, shards))
                return time.perf_counter() - started

        seconds(True)
        return summarise(
            "embedding with the store",
            "the same without writing",
            [(seconds(True), seconds(False)) for _ in range(ROUNDS)],
            f"{_WHAT} in {len(shards)} shards, in one process",
        )

    def _flow(self, cluster: Cluster, workers: int) -> float:
        """Seconds from workers ready to all committed."""
        with self._ready(cluster, workers) as pool, track(IMAGES, "images", "embed") as tracker:
            started = time.perf_counter()
            pool.embed(self._shards(workers), tracker)
            return time.perf_counter() - started

    def _shards(self, workers: int) -> Sequence[Shard]:
        return divide(self._images, np.arange(len(self._images)), SHARD, workers)

    def _loop(self) -> float:
        """Seconds to read and encode, batch by batch, and keep the embeddings in memory as the store would."""
        encoder = load_encoder(self._params, DEVICE)
        kept = []
        started = time.perf_counter()
        for start in range(0, IMAGES, BATCH):
            prepared = [encoder.prepare(read_image(path)) for path, _ in self._images[start : start + BATCH]]
            kept.append(encoder.encode_prepared(prepared, torch.float16))
        return time.perf_counter() - started

    @contextmanager
    def _ready(self, cluster: Cluster, workers: int) -> Iterator[WorkerPool]:
        """Workers that have loaded the encoder, over an empty store."""
        import ray

        factory = functools.partial(load_encoder, self._params)
        with self._empty_store() as store:
            pool = WorkerPool(cluster, workers, factory, factory("cpu").digest, store, BATCH, "vit_b")
            ray.get([worker.ready.remote() for worker in pool._workers])
            yield pool

    @contextmanager
    def _empty_store(self) -> Iterator[EmbeddingStore]:
        try:
            yield open_store("store", self._folder)
        finally:
            shutil.rmtree(self._folder / "store", ignore_errors=True)


def _draw(folder: Path) -> list[tuple[Path, str]]:
    """Smooth noise, which JPEG packs about as well as a photo."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = []
    for number in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8))
        path = folder / f"{number:04d}.jpg"
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
        images.append((path, image_sha256(path)))
    return images

"""The embedding flow on Ray: against the bare encoder loop, two workers against one, and what the store costs.

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
from flows.cluster import Cluster, ray_cluster
from flows.embedding.dispatch import WorkerPool, divide
from flows.embedding.encoder import load_encoder
from flows.embedding.shard_encoder import ShardEncoder
from flows.progress import track
from flows.store import open_store
from samif.config import EncoderParams
from samif.dataset.pictures import picture_sha256, read_picture

PICTURES, SIZE, SHARD, BATCH, ROUNDS = 256, (1280, 960), 32, 8, 5
Pictures = Sequence[tuple[Path, str]]


def run() -> list[Comparison]:
    """256 JPEG files of 1280 x 960 pixels, `tiny`."""
    with tempfile.TemporaryDirectory(prefix="samif-bench-") as name:
        folder = Path(name)
        pictures = _draw(folder / "pictures")
        return [*_on_ray(pictures, folder), _store(pictures, folder)]


def _on_ray(pictures: Pictures, folder: Path) -> Iterator[Comparison]:
    threads = torch.get_num_threads()
    all_cores, one_core = Cluster(1, threads, 0), Cluster(2, 1, 0)
    starting = time.perf_counter()
    with ray_cluster(None, 2):
        with _ready(folder, all_cores, 1):
            starting = time.perf_counter() - starting
        _flow(pictures, folder, all_cores, 1)
        _bare_loop(pictures)
        yield summarise(
            "embedding flow, one worker",
            "read and encode in a loop",
            [(_flow(pictures, folder, all_cores, 1), _bare_loop(pictures)) for _ in range(ROUNDS)],
            f"{PICTURES} pictures, {threads} threads each; from encoder loaded to all committed; start-up, once a run, "
            f"{starting:.1f} s",
        )
        yield summarise(
            "embedding flow, two workers of one thread",
            "one worker of one thread",
            [(_flow(pictures, folder, one_core, 2), _flow(pictures, folder, one_core, 1)) for _ in range(ROUNDS)],
            f"{PICTURES} pictures; from encoders loaded to all committed",
        )


@contextmanager
def _ready(folder: Path, cluster: Cluster, workers: int) -> Iterator[WorkerPool]:
    """Workers that have loaded the encoder, over an empty store."""
    factory = functools.partial(load_encoder, EncoderParams())
    with _empty_store(folder) as place:
        pool = WorkerPool(cluster, workers, factory, factory("cpu").digest, open_store(str(place), folder), BATCH)
        pool.wait_until_ready()
        yield pool


def _flow(pictures: Pictures, folder: Path, cluster: Cluster, workers: int) -> float:
    """Seconds from workers ready to all committed."""
    with _ready(folder, cluster, workers) as pool, track(len(pictures), "pictures", "embed") as tracker:
        started = time.perf_counter()
        pool.embed(divide(pictures, SHARD, workers), tracker)
        return time.perf_counter() - started


def _bare_loop(pictures: Pictures) -> float:
    """Seconds to read and encode, batch by batch, and keep the embeddings in memory as the store would."""
    encoder = load_encoder(EncoderParams(), "cpu")
    kept = []
    started = time.perf_counter()
    for start in range(0, len(pictures), BATCH):
        prepared = [encoder.prepare(read_picture(path)) for path, _ in pictures[start : start + BATCH]]
        kept.append(encoder.encode_prepared(prepared).half())
    return time.perf_counter() - started


def _store(pictures: Pictures, folder: Path) -> Comparison:
    """Shards in two threads of this process, as a worker has them; with the store, and with writes that do nothing."""
    encoder = load_encoder(EncoderParams(), "cpu")
    shards = divide(pictures, SHARD, 1)

    def seconds(writing: bool) -> float:
        with _empty_store(folder) as place, ThreadPoolExecutor(2) as pool:
            worker = ShardEncoder(encoder, open_store(str(place), folder), BATCH)
            if not writing:
                worker._namespace.write = lambda names, embeddings: ""  # type: ignore[method-assign]
            started = time.perf_counter()
            list(pool.map(worker.embed, shards))
            return time.perf_counter() - started

    seconds(True)
    return summarise(
        "embedding with the store",
        "the same without writing",
        [(seconds(True), seconds(False)) for _ in range(ROUNDS)],
        f"{PICTURES} pictures in {len(shards)} shards, in one process",
    )


@contextmanager
def _empty_store(folder: Path) -> Iterator[Path]:
    place = folder / "store"
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _draw(folder: Path) -> list[tuple[Path, str]]:
    """Smooth noise, which JPEG packs about as well as a photo."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8))
        path = folder / f"{number:04d}.jpg"
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
        pictures.append((path, picture_sha256(path)))
    return pictures

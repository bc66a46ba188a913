"""Embedding on a real Ray: the same manifest and embeddings, whatever dies on the way."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flows.embedding import dispatch
from flows.embedding.encoder import Pixels
from flows.embedding.flow import Embedded, embed_images
from flows.embedding.shard_encoder import ShardEncoder, ShardOutcome
from flows.embedding.shards import Shard, divide
from flows.runtime.cost import WORKERS
from flows.runtime.progress import Tracker
from flows.runtime.ray_cluster import Cluster, fit, ray_cluster
from flows.store import EmbeddingReader, EmbeddingStore
from samif.config import EmbedParams, EncoderParams, StoredAs
from samif.errors import SamifError

SHAPE = (3, 4, 4)
IMAGES = 24
PARAMS = EmbedParams(shard_images=4, batch_images=2, workers=2)
IN_THIS_PROCESS = PARAMS.model_copy(update={"shard_images": IMAGES})


@dataclass
class StandIn:
    """Averages 8 x 8 pixels; notes each image that it encodes in a file named by its process.

    Nothing is encoded before so many processes work `together`, so that tests do not hang on who starts first.
    """

    log: Path
    delay: float
    together: int
    name: str = "stand-in"
    digest: str = "e" * 64
    preprocessing_digest: str = "p" * 64
    embedding_shape: tuple[int, int, int] = SHAPE

    def prepare(self, image: Pixels) -> torch.Tensor:
        return torch.from_numpy(image).permute(2, 0, 1)

    def encode_prepared(self, prepared: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        (self.log / str(os.getpid())).touch()
        wait_for(lambda: len(list(self.log.iterdir())) >= self.together)
        time.sleep(self.delay * len(prepared))
        with (self.log / str(os.getpid())).open("a") as file:
            file.write("x" * len(prepared))
        return torch.stack([averages(image) for image in prepared]).to(dtype)


def averages(prepared: torch.Tensor) -> torch.Tensor:
    return prepared.float().unfold(1, 8, 8).unfold(2, 8, 8).mean((3, 4)).half().float()


def stand_in(log: Path, delay: float, together: int, device: str) -> StandIn:
    assert device == "cpu"
    return StandIn(log, delay, together)


@dataclass
class Bench:
    """Images, a store, and the encoder's notes."""

    folder: Path
    images: list[tuple[Path, str]]
    store: EmbeddingStore
    advanced: int = 0
    quarantined: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def embed(self, params: EmbedParams = PARAMS, delay: float = 0.0, together: int = 1) -> str:
        embedded = self.run(params, delay, together)
        assert embedded.quarantined == ()
        return embedded.manifest.digest

    def run(self, params: EmbedParams = PARAMS, delay: float = 0.0, together: int = 1) -> Embedded:
        factory = functools.partial(stand_in, self.log, delay, together)
        embedded = embed_images(self.images, params, EncoderParams(), self.store, self._progress, factory)
        out = {image.sha256 for image in embedded.quarantined}
        good = [(path, sha256) for path, sha256 in self.images if sha256 not in out]
        got = EmbeddingReader(self.store, embedded.manifest).read([sha256 for _, sha256 in good])
        pixels = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path, _ in good]
        assert torch.equal(got, torch.stack([averages(image) for image in pixels]))
        return embedded

    def encoded(self) -> dict[int, int]:
        """Images encoded by each process."""
        return {int(file.name): file.stat().st_size for file in self.log.iterdir()}

    def missing(self) -> list[str]:
        return self.store.namespace("e" * 64, "p" * 64).missing([sha256 for _, sha256 in self.images])

    @contextmanager
    def _progress(self, total: int, unit: str, description: str) -> Iterator[Tracker]:
        self.advanced = self.quarantined = 0
        yield self
        assert self.advanced == total

    def advance(self, n: int = 1) -> None:
        self.advanced += n

    def quarantine(self, n: int) -> None:
        self.quarantined += n

    def note(self, text: str) -> None:
        self.notes.append(text)


def _deadly(driver: int, log: Path, device: str) -> StandIn:
    """An encoder that cannot be loaded without killing the process, except here."""
    if os.getpid() != driver:
        os.kill(os.getpid(), signal.SIGKILL)
    return StandIn(log, 0.0, 1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "log").mkdir()
    random = np.random.default_rng(0)
    images = []
    for index in range(IMAGES):
        path = tmp_path / f"{index}.png"
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        images.append((path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return Bench(tmp_path, images, EmbeddingStore(tmp_path / "store"))


@pytest.fixture
def undisturbed(bench: Bench) -> str:
    """Digest of the manifest when all is computed in one shard, in this process."""
    store, bench.store = bench.store, EmbeddingStore(bench.folder / "other")
    digest = bench.embed(IN_THIS_PROCESS)
    assert bench.encoded() == {os.getpid(): IMAGES}
    (bench.log / str(os.getpid())).unlink()
    bench.store = store
    return digest


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One private cluster for the tests that do not care who started it."""
    with ray_cluster(None, 2):
        yield


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited for 60 s")


def alive(process: int) -> bool:
    """Whether a process runs; what only waits for its parent to take notice does not."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_one_shard_needs_no_cluster(bench: Bench, undisturbed: str) -> None:
    import ray

    assert not ray.is_initialized()
    assert bench.embed(IN_THIS_PROCESS) == undisturbed
    assert bench.embed() == undisturbed  # nothing is missing: no cluster for six shards either
    assert bench.encoded() == {os.getpid(): IMAGES}
    assert not ray.is_initialized()


def test_the_digest_of_an_encoder_needs_no_network(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is in the store: the weights are hashed, the network is not built."""
    images = bench.images[:2]
    first = embed_images(images, IN_THIS_PROCESS, EncoderParams(), bench.store)

    def build(*_: object) -> None:
        raise AssertionError("the network was built")

    monkeypatch.setattr("samif.sam.encoder._network", build)
    again = embed_images(images, IN_THIS_PROCESS, EncoderParams(), bench.store)
    assert (first.computed, again.computed, again.manifest) == (2, 0, first.manifest)


def test_an_image_given_twice_is_computed_once(bench: Bench) -> None:
    bench.images = bench.images[:3] * 2
    bench.embed(PARAMS)
    assert bench.encoded() == {os.getpid(): 3}


def test_three_nodes_of_which_one_is_killed(bench: Bench, undisturbed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.cluster_utils import Cluster

    # What the dead node held is given away after this silence, long before Ray gives the node up.
    monkeypatch.setattr(dispatch, "LIVENESS_SECONDS", 1.5)
    monkeypatch.setenv("RAY_worker_niceness", "0")  # as `ray_cluster` does for its own
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        doomed = cluster.add_node(num_cpus=1)
        with ray_cluster(cluster.address, 4) as share:
            assert (share.workers, share.cpus_per_worker, share.gpus_per_worker) == (3, 1, 0)
        params = PARAMS.model_copy(update={"workers": 3, "address": cluster.address})

        def kill() -> None:
            wait_for(lambda: len(bench.encoded()) == 3)
            cluster.remove_node(doomed, allow_graceful=False)

        with meanwhile(kill):
            assert bench.embed(params, delay=0.3, together=3) == undisturbed
        assert not ray.is_initialized(), "the cluster is left"
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def test_an_address_without_a_cluster_is_refused() -> None:
    with (
        pytest.raises(SamifError, match=r"no Ray cluster can be used at '127\.0\.0\.1:1'"),
        ray_cluster("127.0.0.1:1", 1),
    ):
        pass


def test_workers_share_the_work(bench: Bench, undisturbed: str, ray_here: None) -> None:
    before = WORKERS.cpu_seconds
    assert bench.embed(together=2) == undisturbed
    assert WORKERS.cpu_seconds > before and WORKERS.peak_memory_mb > 0, "workers report what they cost"
    encoded = bench.encoded()
    assert len(encoded) == 2
    assert os.getpid() not in encoded
    assert sum(encoded.values()) == IMAGES
    bench.images = bench.images[:5]
    assert bench.embed() != undisturbed
    assert sum(bench.encoded().values()) == IMAGES


def test_workers_and_their_calls_have_names(bench: Bench, ray_here: None) -> None:
    import ray

    seen: list[str] = []

    def look() -> None:
        wait_for(lambda: len(bench.missing()) < IMAGES)
        seen.extend(ray.util.list_named_actors())

    with meanwhile(look):
        bench.embed(delay=0.05, together=2)
    assert len(seen) == 2 and all(re.fullmatch(r"embed stand-in [12] \([0-9a-f]{8}\)", name) for name in seen)
    named: list[str] = []

    class Call:
        def options(self, name: str) -> Call:
            named.append(name)
            return self

        def remote(self, *_: object) -> object:
            return object()

    shards = divide(bench.images, np.arange(len(bench.images)), 4, 2)
    assigned = dispatch._Dispatch(shards, [SimpleNamespace(ready=Call(), embed=Call())], Call, bench)
    assigned._ping(0)
    assigned._answering.add(0)
    assigned._feed()
    assert named == ["ready", "shard 1 of 6: 4 images", "shard 2 of 6: 4 images"]


def test_a_killed_worker_is_replaced(bench: Bench, undisturbed: str, ray_here: None) -> None:
    def kill() -> None:
        wait_for(lambda: len(bench.missing()) < IMAGES)
        os.kill(next(iter(bench.encoded())), signal.SIGKILL)

    with meanwhile(kill):
        assert bench.embed(PARAMS.model_copy(update={"workers": 1}), delay=0.05) == undisturbed
    encoded = bench.encoded()
    assert len(encoded) == 2
    assert IMAGES <= sum(encoded.values()) <= IMAGES + 2 * PARAMS.shard_images
    assert bench.store.namespace("e" * 64, "p" * 64).verify() == []


class Lethal(StandIn):
    """Its decoder does not survive an image whose first pixel is white."""

    def prepare(self, image: Pixels) -> torch.Tensor:
        if image[0, 0].min() == 255:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare(image)


def lethal(log: Path, device: str) -> Lethal:
    return Lethal(log, 0.0, 1)


def test_an_image_that_kills_its_reader_is_found_among_the_others(bench: Bench, ray_here: None) -> None:
    bench.images = bench.images[:6]
    path, _ = bench.images[4]
    Image.new("RGB", (32, 32), "white").save(path)
    bench.images[4] = (path, hashlib.sha256(path.read_bytes()).hexdigest())
    params = EmbedParams(shard_images=2, batch_images=2, workers=1)
    factory = functools.partial(lethal, bench.log)
    embedded = embed_images(bench.images, params, EncoderParams(), bench.store, bench._progress, factory)
    assert [(q.path, q.reason) for q in embedded.quarantined] == [(path, "kills every worker that reads it")]
    assert bench.missing() == [bench.images[4][1]]


def test_a_killed_driver_leaves_finished_shards_and_nothing_half_done(bench: Bench, undisturbed: str) -> None:
    params = PARAMS.model_copy(update={"shard_images": 2})  # many, so that some are in nobody's hand yet
    driver = multiprocessing.get_context("spawn").Process(target=bench.embed, args=(params, 0.2, 2))
    driver.start()
    wait_for(lambda: len(bench.missing()) < IMAGES)
    driver.kill()
    wait_for(lambda: not any(alive(process) for process in bench.encoded()))
    assert bench.store.namespace("e" * 64, "p" * 64).verify() == []
    assert 0 < len(bench.missing()) < IMAGES
    assert bench.embed(IN_THIS_PROCESS) == undisturbed
    in_hand = 2 * params.workers * params.shard_images
    assert IMAGES <= sum(bench.encoded().values()) <= IMAGES + in_hand


def test_a_broken_image_is_left_out_until_it_is_mended(bench: Bench, undisturbed: str, ray_here: None) -> None:
    path, sha256 = bench.images[-1]
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    embedded = bench.run()
    assert [(q.path, q.sha256, q.reason) for q in embedded.quarantined] == [
        (path, sha256, "has changed since it was indexed")
    ]
    assert (embedded.computed, bench.quarantined) == (IMAGES - 1, 1)
    assert sha256 not in embedded.manifest.images
    path.write_bytes(whole)
    before = sum(bench.encoded().values())
    assert bench.embed() == undisturbed
    assert sum(bench.encoded().values()) == before + 1


class Crowded(StandIn):
    """Memory that holds three images."""

    def encode_prepared(self, prepared: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        if len(prepared) > 3:
            raise torch.OutOfMemoryError(f"no room for {len(prepared)}")
        return super().encode_prepared(prepared, dtype)


def test_a_batch_is_halved_where_memory_runs_out(bench: Bench, undisturbed: str) -> None:
    params = EmbedParams(batch_images=IMAGES, shard_images=IMAGES)
    images, store, log = bench.images, bench.store, bench.log
    factory = functools.partial(Crowded, log, 0.0, 1)
    embedded = embed_images(
        images,
        params,
        EncoderParams(),
        store,
        bench._progress,
        lambda device: factory(),  # in this process
    )
    assert embedded.manifest.digest == undisturbed
    assert bench.notes == [
        f"memory ran out at {size} images at once; going on with {size // 2}" for size in (24, 12, 6)
    ]
    assert bench.encoded() == {os.getpid(): IMAGES}


def test_an_encoder_that_holds_no_image_is_one_sentence(bench: Bench) -> None:
    class Full(StandIn):
        def encode_prepared(self, prepared: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    encoder = ShardEncoder(Full(bench.log, 0.0, 1), bench.store, 4)
    with pytest.raises(SamifError, match="memory does not hold encoder 'stand-in' and one image; give"):
        encoder.embed(tuple(bench.images))


@dataclass
class Large(StandIn):
    """Values up to 255,000 in two channels: beyond float16, which ends at 65,504."""

    embedding_shape: tuple[int, int, int] = (2, 4, 4)

    def encode_prepared(self, prepared: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        return (1000.0 * super().encode_prepared(prepared, torch.float32)[:, :2]).to(dtype)


@pytest.mark.parametrize(("stored", "kept"), [("int8", True), ("float16", False)])
def test_values_beyond_float16_are_stored_or_refused(bench: Bench, stored: StoredAs, kept: bool) -> None:
    store = EmbeddingStore(bench.folder / stored, stored)
    encoder = Large(bench.log, 0.0, 1)
    run = functools.partial(
        embed_images, bench.images, IN_THIS_PROCESS, EncoderParams(), store, bench._progress, lambda device: encoder
    )
    if not kept:
        with pytest.raises(SamifError, match="is not finite as float16; .*int8"):
            run()
        return
    names = [sha256 for _, sha256 in bench.images]
    got = EmbeddingReader(store, run().manifest).read(names)
    pixels = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path, _ in bench.images]
    expected = 1000.0 * torch.stack([averages(image)[:2] for image in pixels])
    assert ((got - expected).abs() / expected.abs().amax((2, 3), keepdim=True)).max() <= 4e-3


def test_a_shard_is_written_while_the_next_is_encoded(bench: Bench) -> None:
    """The second shard is encoded to its end although the first is not yet committed."""
    shards: list[Shard] = [tuple(bench.images[:8]), tuple(bench.images[8:16])]
    encoded = threading.Event()
    encoder = ShardEncoder(StandIn(bench.log, 0.0, 1), bench.store, 4)
    write = encoder._namespace.write

    def slow(images: Sequence[str], embeddings: torch.Tensor) -> str:
        if images[0] == shards[0][0][1]:
            assert encoded.wait(30)
        else:
            encoded.set()
        return write(images, embeddings)

    encoder._namespace.write = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(encoder.embed, shards[0])
        wait_for(lambda: bench.encoded().get(os.getpid(), 0) == 8)
        second = pool.submit(encoder.embed, shards[1])
        assert (first.result(), second.result()) == (ShardOutcome(8), ShardOutcome(8))
    assert len(bench.missing()) == IMAGES - 16


@pytest.mark.parametrize(
    ("workers", "nodes", "share"),
    [
        (2, [(2, 0)], Cluster(2, 1, 0)),
        (1, [(2, 0)], Cluster(1, 2, 0)),
        (4, [(1, 0), (1, 0), (1, 0)], Cluster(3, 1, 0)),
        (8, [(16, 2)], Cluster(2, 8, 1)),
        (8, [(64, 0), (8, 1)], Cluster(1, 8, 1)),  # the many CPUs are not where the GPU is
        (2, [(16, 4), (4, 0)], Cluster(2, 8, 1)),
        (3, [(12, 2), (4, 1)], Cluster(3, 4, 1)),
        (2, [(0, 0)], Cluster(1, 1, 0)),
    ],
)
def test_workers_share_the_nodes(workers: int, nodes: list[tuple[int, int]], share: Cluster) -> None:
    assert fit(workers, nodes) == share


def test_a_damaged_shard_is_computed_again(bench: Bench, undisturbed: str) -> None:
    bench.embed(IN_THIS_PROCESS)
    data = sorted(Path(bench.store.location).rglob("*.safetensors"))[0]
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    before = sum(bench.encoded().values())
    with pytest.raises(SamifError, match=f"{data.name.split('.')[0]}.*run 'samif run'"):
        bench.embed(IN_THIS_PROCESS)
    assert bench.embed(IN_THIS_PROCESS) == undisturbed
    assert sum(bench.encoded().values()) == before + IMAGES


def test_a_worker_that_keeps_dying_is_one_sentence(
    bench: Bench, ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_DEATHS_WITHOUT_PROGRESS", 1)
    factory = functools.partial(_deadly, os.getpid(), bench.log)
    with pytest.raises(SamifError, match="embedding workers keep dying") as failure:
        embed_images(bench.images, PARAMS, EncoderParams(), bench.store, bench._progress, factory)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("count", "largest", "workers", "sizes"),
    [
        (8, 4, 2, [4, 4]),
        (9, 4, 2, [2, 2, 2, 3]),
        (5, 4, 2, [2, 3]),
        (5, 4, 8, [1, 1, 1, 1, 1]),
        (260, 64, 2, [43, 43, 44, 43, 43, 44]),
        (3, 4, 1, [3]),
    ],
)
def test_work_is_divided_evenly(count: int, largest: int, workers: int, sizes: list[int]) -> None:
    images = [(Path("/", str(index)), str(index)) for index in range(count)]
    shards = divide(images, np.arange(count), largest, workers)
    assert [len(shard) for shard in shards] == sizes
    assert [image for shard in shards for image in shard] == images

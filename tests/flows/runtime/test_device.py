"""Where a worker computes, told by a real Ray that believes in one GPU. PyTorch finds none where the tests run, so what
it says of a GPU is put in its mouth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from flows.embedding.dispatch import WorkerPool
from flows.embedding.encoder import load_encoder
from flows.finetuning import distributed
from flows.runtime.device import device_of_worker
from flows.runtime.ray_cluster import Cluster, ray_cluster, set_ray_environment
from flows.serve.server import share
from flows.store import open_store
from samif.config import EncoderParams
from samif.errors import SamifError


@pytest.fixture(scope="module", autouse=True)
def one_gpu() -> Iterator[None]:
    set_ray_environment(None)
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def asked(gpus: int, usable: bool) -> str:
    """The device of a worker with so many GPUs."""

    def worker() -> str:
        torch.cuda.is_available = lambda: usable
        try:
            return device_of_worker()
        except SamifError as error:
            return str(error)

    return str(ray.get(ray.remote(max_calls=1)(worker).options(num_gpus=gpus).remote()))


def test_a_worker_computes_on_the_gpu_that_was_reserved_for_it() -> None:
    assert asked(1, usable=True) == "cuda"


def test_a_worker_without_one_leaves_the_machine_s_gpu_alone() -> None:
    assert asked(0, usable=True) == "cpu"


def test_a_gpu_that_cannot_be_used_is_said_in_one_sentence() -> None:
    assert "a GPU that PyTorch cannot use; repair the driver there, or start that node with --num-gpus=0" in asked(
        1, usable=False
    )


# What is reserved. The tests of embedding and finetuning run on a Ray without a GPU, where a worker that asked for a
# part of one would never start.


def free_gpus() -> float:
    return float(ray.available_resources().get("GPU", 0.0))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, f"{free_gpus()} GPUs are free"
        time.sleep(0.05)


def test_an_embedding_worker_reserves_a_whole_gpu(tmp_path: Path) -> None:
    def factory(device: str) -> Any:
        return load_encoder(EncoderParams(), device)

    with ray_cluster(None, 1) as cluster:
        assert cluster == Cluster(workers=1, cpus_per_worker=2, gpus_per_worker=1)
        pool = WorkerPool(cluster, 1, factory, "0" * 64, open_store(str(tmp_path), tmp_path), 1, "tiny")
        ray.get(pool._workers[0].__ray_ready__.remote())
        until(lambda: free_gpus() == 0.0)
        del pool  # a worker ends with the last handle to it
    until(lambda: free_gpus() == 1.0)


@pytest.mark.parametrize("gpus", [0, 1])
def test_finetuning_reserves_gpus_for_its_workers_only(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.train.torch

    asked: list[Any] = []

    class Trainer:
        def __init__(self, _: object, scaling_config: Any, **__: object) -> None:
            asked.append(scaling_config)

        def fit(self) -> object:
            asked.append(free_gpus())
            return SimpleNamespace(return_value="trained")

    monkeypatch.setattr(ray.train.torch, "TorchTrainer", Trainer)
    tracker: Any = SimpleNamespace(advance=lambda _: None, note=lambda _: None)
    job: Any = None
    assert distributed._fit(job, 2, Cluster(2, 1, gpus), tracker) == "trained"
    scaling, beside = asked
    assert (scaling.use_gpu, scaling.num_gpus_per_worker) == (gpus > 0, gpus)
    assert beside == 1.0, "the actor that counts steps reserves none"


@pytest.mark.parametrize(
    ("cluster", "replicas", "gpus"),
    [
        (Cluster(2, 4, 0), 2, 0.0), (Cluster(2, 4, 0), 5, 0.0), (Cluster(1, 4, 1), 1, 1.0), (Cluster(1, 4, 1), 4, 0.25),
    ],
)  # fmt: skip
def test_replicas_reserve_a_share_of_a_gpu_only_where_there_is_one(
    cluster: Cluster, replicas: int, gpus: float
) -> None:
    assert share(cluster, replicas)[1] == gpus

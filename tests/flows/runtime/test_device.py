"""Where a worker computes, told by a real Ray that believes in one GPU. PyTorch finds none where the tests run, so what
it says of a GPU is put in its mouth."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
import torch

from flows.runtime.device import device_of_worker
from flows.runtime.ray_cluster import set_ray_environment
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

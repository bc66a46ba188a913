"""The device that a process computes on."""

from __future__ import annotations

import socket

from samif.errors import ServiceUnavailable


def device_here() -> str:
    """Outside Ray: "cuda" if PyTorch can use a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of_worker() -> str:
    """In a Ray worker: "cuda" only if Ray reserved a GPU for this worker, however many the machine has.

    Raises:
        ServiceUnavailable: PyTorch cannot use the GPU that Ray reserved.
    """
    import ray
    import torch

    if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        return "cpu"
    if not torch.cuda.is_available():
        raise ServiceUnavailable(
            f"Ray gave a worker on {socket.gethostname()} a GPU that PyTorch cannot use; repair the driver there, or "
            "start that node with --num-gpus=0"
        )
    return "cuda"

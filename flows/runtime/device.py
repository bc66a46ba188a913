"""Which device a process computes on."""

from __future__ import annotations

import socket

from samif.errors import SamifError


def device_here() -> str:
    """In a process outside Ray: the GPU where there is one that PyTorch can use."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of_worker() -> str:
    """In a worker of Ray: a GPU only where Ray reserved one for this worker, however many the machine has.

    Raises:
        SamifError: Ray reserved one that PyTorch cannot use.
    """
    import ray
    import torch

    if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        return "cpu"
    if not torch.cuda.is_available():
        raise SamifError(
            f"Ray gave a worker on {socket.gethostname()} a GPU that PyTorch cannot use; mend the driver there, or "
            "start that node with --num-gpus=0"
        )
    return "cuda"

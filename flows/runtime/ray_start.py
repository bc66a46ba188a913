"""Start of a private Ray cluster, repeated if the machine is too busy for Ray's time limit."""

from __future__ import annotations

import logging
from contextlib import suppress

import psutil

from samif.errors import ServiceUnavailable

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
"""A node gets 30 s from Ray, which has no setting for it: too short on a machine with other work."""
_OBJECT_STORE_BYTES = 512 * 2**20
"""Stages pass names and paths through Ray, no images."""


def start_cluster(cpus: int, folder: str) -> None:
    """Start a cluster of one node with `cpus` CPUs, its files in `folder`, and connect this process to it.

    Raises:
        ServiceUnavailable: no attempt was successful; no process is left.
    """
    import ray

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=folder,
            )
            return
        except OSError:
            _end_children(folder)
            raise
        except Exception as error:  # Ray raises Exception itself when the time is over
            _end_children(folder)
            reason = str(error).strip().split("\n")[0].rstrip(".")
            logger.info("start %d of Ray failed: %s", attempt, reason)
    raise ServiceUnavailable(
        f"Ray did not start on this machine, {_ATTEMPTS} attempts were made ({reason}); stop other processes, or set "
        "'embed.address' in params.yaml to a running cluster, then run the same command again"
    )


def _end_children(folder: str) -> None:
    """Kill what a failed start has left: Ray itself ends it only when this process ends."""
    left = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(folder in word for word in child.cmdline()):
                child.kill()
                left.append(child)
    psutil.wait_procs(left, timeout=10)

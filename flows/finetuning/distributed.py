"""Fine-tuning on a Ray cluster: start the workers, show progress, turn a failure into one sentence."""

from __future__ import annotations

import functools
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any, cast
from uuid import uuid4

from flows.finetuning.worker import Job, ProgressActor, work
from flows.runtime.cost import WORKERS
from flows.runtime.progress import Tracker
from flows.runtime.ray_cluster import Cluster, picklable, ray_cluster
from flows.runtime.system_errors import system_error
from samif.errors import ConfigError, SamifError, ServiceUnavailable
from samif.finetune.train import TrainingResult

_RETRIES = 2
"""All workers start again this often after one has died: fine-tuning takes minutes and is deterministic, so it needs no
checkpoint."""
_START_SECONDS = "300"
"""For the workers to start; Ray's 60 s are too short on a machine with other work."""
_POLL_SECONDS = 0.5
_TIMEOUT_SECONDS = 24 * 3600
"""Of collective operations: other workers wait while the first one evaluates. Ray reports a dead one much earlier."""


def has_gpu(address: str | None) -> bool:
    """Whether a worker would have a GPU: of the cluster at `address` or RAY_ADDRESS, otherwise of this machine.

    Raises:
        ServiceUnavailable: no cluster answers at the address.
    """
    if address is None and not os.environ.get("RAY_ADDRESS"):
        import torch

        return torch.cuda.is_available()
    with ray_cluster(address, 1) as cluster:
        return cluster.gpus_per_worker > 0


def finetune_distributed(job: Job, workers: int, address: str | None, tracker: Tracker) -> TrainingResult:
    """Fine-tune a decoder with `workers` workers of a Ray cluster, each with a GPU if there are GPUs.

    The result differs from that of one worker by the order of additions. The embeddings must be visible to the workers
    under the same path.

    Args:
        address: of the cluster, see `ray_cluster`.
        tracker: advanced by one for each step.

    Raises:
        ConfigError: there are more workers than images in a step or than fit on the cluster.
        ServiceUnavailable: no cluster answers, or workers keep dying.
        SamifError: the error that a worker raised.
    """
    if workers > job.params.images_per_step:
        raise ConfigError(
            f"pretrain_decoder.workers is {workers}, but a step has only {job.params.images_per_step} images to "
            "share; lower it or raise pretrain_decoder.images_per_step in params.yaml"
        )
    with ray_cluster(address, workers, "samif finetune decoder") as cluster:
        if cluster.workers < workers:
            what = "GPUs" if cluster.gpus_per_worker else "CPUs"
            raise ConfigError(
                f"pretrain_decoder.workers is {workers}, but the cluster has {what} for {cluster.workers}; the number "
                "changes the decoder in its last bits, so it is not lowered silently: correct it in params.yaml, or "
                "use a larger cluster"
            )
        return _fit(job, workers, cluster, tracker)


def _fit(job: Job, workers: int, cluster: Cluster, tracker: Tracker) -> TrainingResult:
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _START_SECONDS)
    import ray
    import ray.train.torch

    train: Any = ray.train  # its types are those of an older interface
    name = f"finetune decoder ({uuid4().hex[:8]})"
    progress: Any = ray.remote(ProgressActor).options(name=f"{name}: progress", num_cpus=0).remote()
    resources = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
    with tempfile.TemporaryDirectory(prefix="samif-train-", ignore_cleanup_errors=True) as folder:
        trainer = train.torch.TorchTrainer(
            functools.partial(work, job, progress),
            torch_config=train.torch.TorchConfig(timeout_s=_TIMEOUT_SECONDS),
            scaling_config=train.ScalingConfig(
                num_workers=workers, use_gpu=cluster.gpus_per_worker > 0, resources_per_worker=resources
            ),
            run_config=train.RunConfig(
                name=name,
                storage_path=folder,
                failure_config=train.FailureConfig(max_failures=_RETRIES, controller_failure_limit=_RETRIES),
                logging_config=train.LoggingConfig(log_level="ERROR"),
            ),
        )
        started = time.monotonic()
        try:
            finetuned = cast(TrainingResult, _watch(trainer, progress, tracker).return_value)
            for usage in ray.get(progress.spent.remote()):
                WORKERS.add(usage)
            return finetuned
        except train.TrainingFailedError as error:
            raise _error_of(error, workers) from None
        finally:
            WORKERS.hold_gpus(time.monotonic() - started, workers * cluster.gpus_per_worker)


def _watch(trainer: Any, progress: Any, tracker: Tracker) -> Any:
    """Fit in a thread, so that an interrupt ends this stage as it ends the others."""
    import ray

    result: Future[Any] = Future()

    def fit() -> None:
        try:
            result.set_result(trainer.fit())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    attempt, shown = 1, 0
    while True:
        finished = wait([result], timeout=_POLL_SECONDS).done
        now, steps = ray.get(progress.read.remote())
        if now > attempt:
            attempt = now
            tracker.note(f"a worker died; all start again, attempt {now} of {_RETRIES + 1}")
        if steps > shown:
            tracker.advance(steps - shown)
            shown = steps
        if finished:
            return result.result()


def _error_of(error: Exception, workers: int) -> SamifError:
    """The error for a person: what a worker raised, else that workers died, else the first cause."""
    from ray.exceptions import RayError

    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    causes = [getattr(failure, "health_check_failure", failure) for failure in failures.values()]
    for cause in causes:
        if (known := system_error(cause)) is not None:
            return picklable(known)
    for cause in causes:
        if isinstance(cause, RayError):
            return ServiceUnavailable(
                f"workers that fine-tune the decoder keep dying ({_first_line(cause)}); lower "
                "'pretrain_decoder.workers' in params.yaml if memory ran out, then run 'samif run' again"
            )
    cause = next(iter(causes), getattr(error, "controller_failure", error))
    return ServiceUnavailable(
        f"{workers} workers could not fine-tune the decoder ({type(cause).__name__}: {_first_line(cause)}); check "
        "that the cluster has room for all of them, or set 'pretrain_decoder.workers' in params.yaml to 1, then run "
        "'samif run' again"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")

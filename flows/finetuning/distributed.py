"""Start the workers, show how far they are, and say in one sentence why there is no decoder."""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any, cast

from flows.finetuning.worker import Board, Job, work
from flows.runtime.progress import Tracker
from flows.runtime.ray_cluster import Cluster, ray_cluster
from samif.errors import SamifError
from samif.finetune.train import TrainingResult

_RETRIES = 2
"""So often all start again after one has died: what is fine-tuned in minutes needs no checkpoint, and comes out the
same."""
_START_SECONDS = "300"
"""For the workers to come up; Ray's 60 are not enough where a machine has other things to do."""
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 24 * 3600
"""For the others while the first worker measures. Ray tells them of one that is dead, long before."""


def has_gpu(address: str | None) -> bool:
    """Whether a worker would have a GPU: one of the cluster at `address` or RAY_ADDRESS, otherwise of this machine.

    Raises:
        SamifError: no cluster answers at the address.
    """
    if address is None and "RAY_ADDRESS" not in os.environ:
        import torch

        return torch.cuda.is_available()
    with ray_cluster(address, 1) as cluster:
        return cluster.gpus_per_worker > 0


def finetune_distributed(job: Job, workers: int, address: str | None, tracker: Tracker) -> TrainingResult:
    """Fine-tune a decoder with `workers` workers of a Ray cluster, each with a GPU where there are GPUs.

    It differs from what one worker gives by the order in which numbers are added. The embeddings must be visible to
    the workers under the same path.

    Args:
        address: of the cluster, see `ray_cluster`.
        tracker: advanced by one for each step.

    Raises:
        SamifError: there are more workers than images in a step or than the cluster has room for, a worker refused,
            or workers keep dying.
    """
    if workers > job.params.images_per_step:
        raise SamifError(
            f"pretrain_decoder.workers is {workers}, but a step has only {job.params.images_per_step} images to "
            "share; lower it or raise pretrain_decoder.images_per_step in params.yaml"
        )
    with ray_cluster(address, workers) as cluster:
        if cluster.workers < workers:
            what = "GPUs" if cluster.gpus_per_worker else "CPUs"
            raise SamifError(
                f"pretrain_decoder.workers is {workers}, but the cluster has {what} for {cluster.workers}; the number "
                "decides the decoder to the last bit, so it is not lowered silently: correct it in params.yaml, or "
                "use a larger cluster"
            )
        return _fit(job, workers, cluster, tracker)


def _fit(job: Job, workers: int, cluster: Cluster, tracker: Tracker) -> TrainingResult:
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _START_SECONDS)
    import ray
    import ray.train.torch

    train: Any = ray.train  # its types are those of an older interface
    board = ray.remote(Board).options(num_cpus=0).remote()
    resources = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
    with tempfile.TemporaryDirectory(prefix="samif-train-", ignore_cleanup_errors=True) as folder:
        trainer = train.torch.TorchTrainer(
            functools.partial(work, job, board),
            torch_config=train.torch.TorchConfig(timeout_s=_PATIENCE_SECONDS),
            scaling_config=train.ScalingConfig(
                num_workers=workers, use_gpu=cluster.gpus_per_worker > 0, resources_per_worker=resources
            ),
            run_config=train.RunConfig(
                name="decoder",
                storage_path=folder,
                failure_config=train.FailureConfig(max_failures=_RETRIES, controller_failure_limit=_RETRIES),
                logging_config=train.LoggingConfig(log_level="ERROR"),
            ),
        )
        try:
            return cast(TrainingResult, _watch(trainer, board, tracker).return_value)
        except train.TrainingFailedError as error:
            raise _sentence(error, workers) from None


def _watch(trainer: Any, board: Any, tracker: Tracker) -> Any:
    """Fit in a thread of its own, so that an interrupt ends the stage as it ends others."""
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
        finished = wait([result], timeout=_LOOK_SECONDS).done
        now, steps = ray.get(board.read.remote())
        if now > attempt:
            attempt = now
            tracker.note(f"a worker was lost; all start again, attempt {now} of {_RETRIES + 1}")
        if steps > shown:
            tracker.advance(steps - shown)
            shown = steps
        if finished:
            return result.result()


def _sentence(error: Exception, workers: int) -> SamifError:
    """What a worker refused; else that one died, which the others then also complain of; else whatever went wrong."""
    from ray.exceptions import RayError

    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    causes = [getattr(failure, "health_check_failure", failure) for failure in failures.values()]
    for cause in causes:
        if isinstance(cause, SamifError):
            return SamifError(str(cause))
    for cause in causes:
        if isinstance(cause, RayError):
            return SamifError(
                f"workers that fine-tune the decoder keep dying ({_first_line(cause)}); lower "
                "'pretrain_decoder.workers' in params.yaml if memory ran out, then rerun 'samif run'"
            )
    cause = next(iter(causes), getattr(error, "controller_failure", error))
    return SamifError(
        f"{workers} workers could not fine-tune the decoder ({type(cause).__name__}: {_first_line(cause)}); see that "
        "the cluster has room for them all at once, or set 'pretrain_decoder.workers' in params.yaml to 1, then rerun "
        "'samif run'"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")

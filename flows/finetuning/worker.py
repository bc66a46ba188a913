"""What each worker does: its share of every step, gradients added up by torch.distributed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.runtime.cost import Usage, UsageMeter
from flows.runtime.ray_cluster import picklable
from samif.config import PretrainDecoderParams
from samif.dataset.model import ImageRecord
from samif.errors import SamifError
from samif.finetune.train import DistributedContext, TrainingResult, finetune, run_worker
from samif.finetune.training_set import ReadEmbeddings
from samif.sam.decoder import InstanceDecoder

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Job:
    """What is fine-tuned on what. The decoder travels with it, since heads that a checkpoint lacks start at random.

    Attributes:
        open_reader: gives the reader of embeddings on a worker; must be picklable.
        tiles: tiles per image side that embeddings were made with.
    """

    decoder: InstanceDecoder
    images: Sequence[ImageRecord]
    classes: frozenset[str]
    open_reader: Callable[[], ReadEmbeddings]
    params: PretrainDecoderParams
    tiles: int = 1


class ProgressActor:
    """The Ray actor that holds the progress of the first worker."""

    def __init__(self) -> None:
        self._attempt, self._steps = 0, 0
        self._usage: list[Usage] = []

    def start(self) -> None:
        self._attempt, self._steps = self._attempt + 1, 0

    def advance(self, n: int) -> None:
        self._steps += n

    def spend(self, usage: Usage) -> None:
        self._usage.append(usage)

    def spent(self) -> list[Usage]:
        """What each worker that ended has used."""
        return self._usage

    def read(self) -> tuple[int, int]:
        """Number of the attempt, from 1, and steps done in it."""
        return self._attempt, self._steps


def work(job: Job, progress: Any) -> TrainingResult | None:
    """Runs on every worker at once, inside a process group of torch.distributed.

    Returns:
        The result on the first worker, None on the others.
    """
    import ray
    import ray.train
    from ray.train.torch import get_device

    context, meter = ray.train.get_context(), UsageMeter()
    distributed = DistributedContext(context.get_world_rank(), context.get_world_size(), _all_reduce, get_device().type)
    if distributed.rank == 0:
        progress.start.remote()
    try:
        given = (job.decoder, job.images, job.classes, job.open_reader(), job.params)
        if distributed.rank > 0:
            run_worker(*given, distributed, job.tiles)
            return None
        return finetune(*given, lambda n: progress.advance.remote(n), distributed, job.tiles)
    except SamifError as error:
        raise picklable(error) from None
    finally:
        ray.get(progress.spend.remote(meter.read()))


def _all_reduce(tensor: Tensor) -> None:
    import torch.distributed

    torch.distributed.all_reduce(tensor)

"""A decoder fine-tuned by two workers of Ray Train against the same decoder fine-tuned in this process, on a small
drawn line."""

from __future__ import annotations

import functools
import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray.exceptions import ActorDiedError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError
from torch import Tensor

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.finetuning import distributed
from flows.finetuning.distributed import finetune_distributed
from flows.finetuning.worker import Job
from flows.loaders.inputs import Read, reader_of, sam_of, source_of, store_of
from flows.runtime.cost import WORKERS
from flows.runtime.ray_cluster import ray_cluster
from flows.stages import pretrain_decoder, run_stage
from flows.workspace.layout import Layout
from samif.config import Params, digest
from samif.dataset.model import ImageRecord
from samif.errors import SamifError
from samif.finetune.train import TrainingResult, finetune
from samif.finetune.training_set import learnable
from samif.sam.decoder import InstanceDecoder

pytestmark = pytest.mark.slow

BASE = ["hex_nut", "washer", "gear", "bolt"]
STEPS = 8
WEIGHTS, CURVE = 0.05, 0.005
"""How far two workers may be from one (ADR 20): as part of the way that fine-tuning moved the weights, and in loss."""


def parameters(**section: object) -> Params:
    return Params.model_validate(
        {
            "line": "demo",
            "dataset": {
                "drawn": {"base_images": 6, "mixed_images": 1, "val_images": 1, "size": 160},
                "base_classes": BASE,
            },
            "pretrain_decoder": {"steps": STEPS, "images_per_step": 3, "learning_rate": 0.005, **section},
        }
    )


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("pretrain"))
    for stage in ("dataset", "embed"):
        run_stage(stage, None, layout, parameters())
    return layout


@pytest.fixture(scope="module")
def job(layout: Layout) -> Job:
    """A decoder that finds objects everywhere and draws empty masks, so that whatever it learns is kept."""
    params = parameters()
    decoder = InstanceDecoder.of(sam_of(params.encoder).sam)
    with torch.no_grad():
        decoder.heads.objectness[-1].bias.fill_(5.0)
        for mlp in decoder.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.zero_()
            mlp.layers[-1].bias.zero_()
    classes = frozenset(BASE)
    images = learnable(source_of(layout, params, "train").dataset.images, classes)
    reader = functools.partial(reader_of, store_of(layout, params), EmbeddingManifest.load(layout.embeddings))
    return Job(decoder, images, classes, reader, params.pretrain_decoder)


@pytest.fixture(scope="module")
def alone(job: Job) -> TrainingResult:
    return finetune(job.decoder, job.images, job.classes, job.open_reader(), job.params)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A private cluster of two CPUs, wherever the tests run, with time to start workers beside other work."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1800")
        with ray_cluster(None, 2):
            yield


@pytest.fixture(scope="module")
def together(job: Job, ray_here: None) -> tuple[TrainingResult, Noted]:
    noted = Noted()
    return finetune_distributed(job, 2, None, noted), noted


class Noted:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.advanced, self.notes = 0, list[str]()

    def advance(self, n: int = 1) -> None:
        self.advanced += n

    def quarantine(self, n: int) -> None:
        raise AssertionError("nothing is set aside here")

    def note(self, text: str) -> None:
        self.notes.append(text)


def deadly(open_reader: Callable[[], Read], marker: Path) -> Read:
    """The second worker kills itself in its fifth step, once."""
    read, steps = open_reader(), 0

    def reading(images: Sequence[ImageRecord]) -> Tensor:
        nonlocal steps
        steps += 1
        if os.environ["RANK"] == "1" and steps == 5 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return read(images)

    return reading


def length(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Of the way from one set of weights to another."""
    return math.sqrt(sum(float((a[name] - b[name]).square().sum()) for name in a))


def test_two_workers_come_to_the_decoder_of_one(
    alone: TrainingResult, together: tuple[TrainingResult, Noted], job: Job
) -> None:
    finetuned, noted = together
    start, one, two = (decoder.state_dict() for decoder in (job.decoder, alone.decoder, finetuned.decoder))
    assert alone.kept == finetuned.kept == "after"
    assert 0 < length(one, two) < WEIGHTS * length(one, start)
    for a, b in zip(alone.curve, finetuned.curve, strict=True):
        assert a == pytest.approx(b, abs=CURVE)
    assert finetuned.before == alone.before and finetuned.after.score == pytest.approx(alone.after.score, abs=0.02)
    assert noted.advanced == STEPS and not noted.notes


def test_one_worker_is_to_the_bit_what_the_calling_process_is(alone: TrainingResult, job: Job, ray_here: None) -> None:
    """So that it may be a worker where there is a GPU."""
    before = WORKERS.cpu_seconds
    one, here = finetune_distributed(job, 1, None, Noted()), alone.decoder.state_dict()
    assert WORKERS.cpu_seconds > before, "workers report what they cost"
    assert all(torch.equal(tensor, here[name]) for name, tensor in one.decoder.state_dict().items())
    assert one.curve == alone.curve


@pytest.mark.parametrize(("gpu", "where"), [(False, "here"), (True, "1 worker")])
def test_one_worker_goes_where_a_gpu_is(layout: Layout, monkeypatch: pytest.MonkeyPatch, gpu: bool, where: str) -> None:
    """That there is one is only said: no machine of the tests has any."""

    def stop(words: str) -> None:
        raise SamifError(words)

    monkeypatch.setattr(pretrain_decoder, "has_gpu", lambda address: gpu)
    monkeypatch.setattr(pretrain_decoder, "finetune", lambda *_, **__: stop("here"))
    monkeypatch.setattr(pretrain_decoder, "finetune_distributed", lambda _, workers, *__: stop(f"{workers} worker"))
    with pytest.raises(SamifError, match=f"^{where}$"):
        run_stage("pretrain_decoder", None, layout, parameters())


def test_a_gpu_is_looked_for_where_the_work_goes(ray_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert distributed.has_gpu(None)
    assert not distributed.has_gpu("auto")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert not distributed.has_gpu(None)


def test_a_killed_worker_changes_nothing(
    together: tuple[TrainingResult, Noted], job: Job, ray_here: None, tmp_path: Path
) -> None:
    noted, marker = Noted(), tmp_path / "killed"
    again = finetune_distributed(
        replace(job, open_reader=functools.partial(deadly, job.open_reader, marker)), 2, None, noted
    )
    assert marker.exists() and noted.notes == ["a worker died; all start again, attempt 2 of 3"]
    assert noted.advanced == STEPS
    undisturbed = together[0].decoder.state_dict()
    assert all(torch.equal(tensor, undisturbed[name]) for name, tensor in again.decoder.state_dict().items())
    assert again.curve == together[0].curve


def test_what_a_worker_refuses_ends_the_stage_in_its_sentence(
    layout: Layout, ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver opens no embedding, so that it is a worker that finds them damaged."""
    monkeypatch.setattr(distributed, "_RETRIES", 0)
    shutil.copytree(layout.root, tmp_path / "ws")
    damaged = Layout(tmp_path / "ws")
    for shard in damaged.state.rglob("*.safetensors"):
        shard.write_bytes(b"not any more")
    with pytest.raises(SamifError) as refusal:
        run_stage("pretrain_decoder", None, damaged, parameters(workers=2))
    assert re.search(
        r"^no shard in .* damaged shards there: .* run 'samif run', which computes it again$", str(refusal.value)
    )
    assert "\n" not in str(refusal.value)
    assert not damaged.decoder.exists()


def worker_died() -> Exception:
    return WorkerHealthCheckFailedError("A worker health check failed.\nWorker info: ...", ActorDiedError())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            WorkerGroupError("", {0: RuntimeError("Connection closed by peer"), 1: SamifError("the shard is gone")}),
            r"^the shard is gone$",
        ),
        (
            WorkerGroupError("", {0: RuntimeError("Connection closed by peer"), 1: worker_died()}),
            r"^workers that fine-tune the decoder keep dying \(.+\); lower 'pretrain_decoder\.workers'",
        ),
        (
            WorkerGroupError("", {1: ValueError("no such cell.\nSee above")}),
            r"^2 workers could not fine-tune the decoder \(ValueError: no such cell\); check that",
        ),
        (
            ControllerError(WorkerGroupStartupTimeoutError(2)),
            r"^2 workers could not fine-tune the decoder \(WorkerGroupStartupTimeoutError: .+\); check that "
            "the cluster has",
        ),
    ],
)
def test_a_failure_is_one_sentence(error: Exception, sentence: str) -> None:
    said = str(distributed._error_of(error, 2))
    assert re.search(sentence, said) and "\n" not in said


def test_more_workers_than_images_in_a_step_are_refused(job: Job) -> None:
    with pytest.raises(SamifError, match=r"workers is 4, but a step has only 3 images to share; lower it or raise"):
        finetune_distributed(job, 4, None, Noted())


def test_fewer_workers_than_asked_for_are_refused(job: Job, ray_here: None) -> None:
    with pytest.raises(
        SamifError,
        match=r"workers is 3, but the cluster has CPUs for 2; the number changes the decoder in its last bits",
    ):
        finetune_distributed(job, 3, None, Noted())


def test_the_number_of_workers_is_part_of_what_decides_a_result() -> None:
    """One worker, the default, leaves dumps and digests as they were before there were several."""
    plain, one, two = (parameters(**given).pretrain_decoder for given in ({}, {"workers": 1}, {"workers": 2}))
    assert "workers" not in one.model_dump() and digest(plain) == digest(one) != digest(two)

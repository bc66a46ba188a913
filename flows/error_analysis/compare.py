"""Whether a session helped, such as one of accepted errors: against the classifier before it, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from flows.artifacts.proposal_file import ProposalFile
from flows.error_analysis.collect import VALIDATION
from flows.inference.source import find
from flows.loaders.inputs import dataset_of
from flows.runtime.device import device_here
from flows.runtime.progress import track
from flows.workspace.layout import Layout
from flows.workspace.shots import read_labels
from flows.workspace.source_paths import source_at
from samif.classifier.model import Classifier
from samif.classifier.operating_point import IMAGES as PER_IMAGES
from samif.config import Params
from samif.dataset.formats import import_labels
from samif.dataset.images import read_image
from samif.dataset.model import Dataset, ImageRecord
from samif.errors import ConfigError, DataError, IntegrityError
from samif.evaluate.evaluate import evaluate
from samif.evaluate.match_cache import build_match_cache
from samif.evaluate.model import Evaluation
from samif.inference.load import load_segmenter
from samif.inference.propose import Proposals
from samif.io.hashing import file_sha256
from samif.versions.compare import Change, Comparison, ScoredVersion, compare

Outcome = Literal["better", "worse", "no clear change", "not measured"]


@dataclass(frozen=True)
class Row:
    """A quantity before and after, with the interval of after - before."""

    what: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    outcome: Outcome

    @property
    def change(self) -> float | None:
        """after - before."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class Round:
    """A session against the classifier before it.

    Attributes:
        images: what the images are, in the plural.
        left_out: images that this session or an earlier one learnt from; they are not scored.
    """

    session: str
    before: str
    comparison: Comparison
    images: str
    left_out: int

    def rows(self) -> Iterator[Row]:
        """False names per image, the share of objects that are rightly named in per cent, and AP in points."""
        found = self.comparison
        if found.false_names is not None:
            yield _row("false names per image", found.false_names, 1.0 / PER_IMAGES, -1)
        if found.named is not None:
            yield _row("rightly named, %", found.named)
        for group, change in found.groups.items():
            if change.instances:
                yield _row(f"{found.metric.upper()} {group}", change)


def compare_round(
    layout: Layout, params: Params, name: str | None, reviewed: Path | None = None, format_: str | None = None
) -> Round:
    """Compare a session with the classifier before it, by default the last one.

    Images that a session learnt from are left out: on them the next evaluation is too favourable.

    Args:
        reviewed: file or folder of labels of other images, which are then segmented; None takes the validation images.
        format_: of these labels; None guesses it.

    Raises:
        ConfigError: there is no such session.
        ObjectMissing: it was not run yet.
        DataError: no image is left.
    """
    if not params.sessions:
        raise ConfigError(f"there is no session in {layout.params}; 'samif errors accept' adds one")
    name = name or next(reversed(params.sessions))
    if name not in params.sessions:
        raise ConfigError(f"there is no session '{name}' in {layout.params}; it has {', '.join(params.sessions)}")
    before = params.sessions[name].after
    if reviewed is None:
        every, images = dataset_of(layout, params, "val"), VALIDATION
        for each in (before, name):
            if Evaluation.load(layout.evaluation(each) / "evaluation.json").dataset != every.digest:
                raise IntegrityError(f"the evaluation of '{each}' is of other validation images; run 'samif run' again")
        proposals_of: Callable[[ImageRecord], Proposals] = ProposalFile(layout.proposals("val")).of
    else:
        with TemporaryDirectory(prefix="samif-") as folder:
            every = import_labels(reviewed, Path(folder) / "labels.json", format_, allow_empty=True).dataset
        images, proposals_of = "reviewed images", _computed(layout, name, every)
    learnt = _learnt_from(layout, params, name)
    dataset = every.only(image.id for image in every.images if image.sha256 not in learnt)
    if not dataset.images:
        raise DataError(
            f"'{name}' learnt from all {len(every.images)} {images}, so none of them can tell whether it helped; label "
            "other images and name them with --reviewed"
        )
    with track(2 * len(dataset.images), "images", f"compare {name} with {before}") as progress:
        one, two = (_score(layout, params, n, dataset, proposals_of, progress.advance) for n in (before, name))
    policy = params.gates
    comparison = compare(one, two, policy.metric, policy.resamples, policy.confidence, policy.seed)
    return Round(name, before, comparison, images, len(every.images) - len(dataset.images))


def _score(
    layout: Layout,
    params: Params,
    name: str,
    dataset: Dataset,
    proposals_of: Callable[[ImageRecord], Proposals],
    advance: Callable[[int], None],
) -> ScoredVersion:
    classifier = Classifier.load(layout.classifier(name) / "classifier.safetensors")
    base = params.dataset.base_classes
    scored = evaluate(name, dataset, proposals_of, classifier, base, params.evaluate, advance)
    matches = build_match_cache(dataset, scored.detections, classifier.classes, scored.unlabelled_false_positives)
    return ScoredVersion(scored.evaluation, matches, scored.detections, scored.matched)


def _computed(layout: Layout, name: str, dataset: Dataset) -> Callable[[ImageRecord], Proposals]:
    """Proposals of the images by the encoder and decoder that all classifiers of the workspace share."""
    segmenter = load_segmenter(find(str(layout.classifier(name)), layout.root), device=device_here())

    found: dict[int, Proposals] = {}

    def proposals_of(image: ImageRecord) -> Proposals:
        if image.id not in found:
            pixels = read_image(dataset.path_of(image))
            found[image.id] = segmenter.propose(pixels, segmenter.embed([pixels])[0])
        return found[image.id]

    return proposals_of


def _learnt_from(layout: Layout, params: Params, name: str) -> set[str]:
    """SHA-256 of the images of their own that this session and those before it have."""
    chain = list(params.sessions)
    found: set[str] = set()
    for session in chain[: chain.index(name) + 1]:
        if (source := params.sessions[session].source) is not None:
            dataset, _ = read_labels(source_at(layout.root, source), params.dataset)
            found |= {file_sha256(dataset.path_of(image)) for image in dataset.images}
    return found


def _row(what: str, change: Change, scale: float = 1.0, better: Literal[1, -1] = 1) -> Row:
    outcome: Outcome = "no clear change"
    if change.low is None or change.high is None:
        outcome = "not measured"
    elif not change.is_noise:
        outcome = "better" if better * change.low > 0 else "worse"

    def scaled(value: float | None) -> float | None:
        return None if value is None else scale * value

    return Row(what, scaled(change.before), scaled(change.after), scaled(change.low), scaled(change.high), outcome)

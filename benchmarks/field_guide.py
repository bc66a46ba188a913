"""What the field guide advises, measured: `python -m benchmarks.field_guide NAME=WORKSPACE...`.

A workspace is one after `samif run`. Its novel classes are taught to its base classifier from good and poor samples of
labelled objects, and scored on its validation images; then background samples are added. The tables go to
benchmarks/FIELD_GUIDE.md, or to `--out`.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.few_shots import AS_TAKEN, BRIGHT, COPIES, DARK, FewShots, Sample
from flows.runtime.tuning import tune_process
from samif.classifier.incremental import InstanceKey
from samif.classifier.model import Classifier
from samif.dataset.model import Annotation, Dataset
from samif.dataset.sessions import draw_shots
from samif.evaluate.errors import Cause, ErrorCase, find_errors
from samif.evaluate.evaluate import Scored
from samif.evaluate.matching import match_all
from samif.evaluate.naming import naming_evidence
from samif.masks.rle import areas, boxes
from samif.protocol.summary import Mean, mean_of

OUT = Path("benchmarks/FIELD_GUIDE.md")
SHOTS = (1, 2, 5, 10, 20, 30)
K = COPIES + 1
BACKGROUND = (0, 5, 10, 20)
LOOSE = 0.5
"""False names per image without background samples, at the score that shows what these samples change: the operating
point leaves hardly a false name to remove."""
ACCEPTED: tuple[Cause, ...] = ("unknown object", "background", "part of an object")
"""False names that `samif errors accept` takes as background."""


@dataclass(frozen=True)
class Draw:
    """What a class may be taught from: the objects of K images in the order drawn, all of its objects in training
    images, and an object of the image of a poor sample."""

    drawn: Sequence[InstanceKey]
    every: Sequence[InstanceKey]
    single: InstanceKey


Choose = Callable[[FewShots, Draw], list[Sample]]


def _all(change: str) -> Choose:
    return lambda _, draw: [(change, key) for key in draw.drawn]


def _mixed(*changes: str) -> Choose:
    return lambda _, draw: [(changes[i % len(changes)], key) for i, key in enumerate(draw.drawn)]


def _most_alike(lab: FewShots, draw: Draw) -> list[Sample]:
    """The object of the poor sample, and the nine whose features have the highest cosine similarity with its."""
    found = lab.samples([(AS_TAKEN, key) for key in draw.every])
    means = np.stack([lab.base.space.project(found[AS_TAKEN, key]).mean(axis=0) for key in draw.every])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    nearest = np.argsort(-(means @ means[list(draw.every).index(draw.single)]), kind="stable")[:K]
    return [(AS_TAKEN, draw.every[row]) for row in nearest]


ADVICE = f"**{K} different images: the advice**"
SAMPLES: dict[str, Choose] = {
    ADVICE: _all(AS_TAKEN),
    "1 image": lambda _, draw: [(AS_TAKEN, draw.single)],
    f"{K} near-duplicates of that image": lambda _, draw: [
        (AS_TAKEN, draw.single), *((f"copy {number}", draw.single) for number in range(1, COPIES + 1))
    ],
    f"{K} objects most alike": _most_alike,
    "all dark": _all("dark"),
    "all bright": _all("bright"),
    "a third each dark, bright, as taken": _mixed(AS_TAKEN, "dark", "bright"),
    "all far": _all("far"),
    "all close": _all("close"),
    "a third each far, close, as taken": _mixed(AS_TAKEN, "far", "close"),
    "boxes in place of outlines": _all("box"),
    "all half covered": _all("covered"),
}  # fmt: skip


def draws_of(lab: FewShots, seed: int) -> dict[str, Draw]:
    """A draw for each novel class. The images of the poor samples are drawn from one half of the training images: the
    one that shows most novel classes, then the one that shows most of the others, until all have one."""
    drawn = draw_shots(lab.line.train, lab.novel, K, seed)
    images = lab.line.train.images
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    shown = [{a.category: (images[row].id, a.id) for a in images[row].annotations if not a.crowd} for row in order]
    half, rest = shown[: len(shown) // 2], shown[len(shown) // 2 :]
    single: dict[str, InstanceKey] = {}
    for part in (half, rest):
        while missing := {name for name in lab.novel if name not in single and any(name in s for s in part)}:
            best = max(part, key=lambda classes: len(missing & classes.keys()))
            single |= {name: best[name] for name in missing & best.keys()}
    return {name: Draw(keys, lab.instances([name]), single[name]) for name, keys in drawn.items()}


@dataclass(frozen=True)
class Result:
    """Mean over the novel classes: AP in points, and the share (0..100) of their objects that are rightly named."""

    ap: float
    named: float


def result_of(lab: FewShots, classifier: Classifier) -> Result:
    """What the novel classes score; 0 for those that were not taught."""
    found = lab.scored(classifier).evaluation
    assert found.naming is not None
    known = [name for name in lab.novel if name in found.per_class]
    ap = [score for name in known if (score := found.per_class[name].ap) is not None]
    named = [rate.value for name in known if (rate := found.naming.classes[name].rates.named) is not None]
    return Result(sum(ap) / len(lab.novel), 100 * sum(named) / len(lab.novel))


def taught(lab: FewShots, drawn: Mapping[str, Sequence[InstanceKey]]) -> Classifier:
    """The base classifier with these classes, from images as they were taken."""
    return lab.teach({name: [(AS_TAKEN, key) for key in keys] for name, keys in drawn.items()})


def shots_rows(lab: FewShots, seeds: int) -> Iterator[str]:
    """AP and named share over the number of shots; a class that has fewer objects takes all of them."""
    yield "| labelled objects per class | novel AP | rightly named, % |"
    yield "|---|---|---|"
    lab.samples([(AS_TAKEN, key) for key in lab.instances(lab.novel)])
    counts = {name: len(lab.instances([name])) for name in lab.novel}
    for shots in SHOTS:
        number = {name: min(shots, count) for name, count in counts.items()}
        if max(number.values()) < shots:
            break
        found = []
        for seed in range(seeds):
            drawn = {name: draw_shots(lab.line.train, [name], number[name], seed)[name] for name in lab.novel}
            found.append(result_of(lab, taught(lab, drawn)))
        fewest = min(number.values())
        what = str(shots) if fewest == shots else f"{shots}, or all of {fewest} and more"
        yield f"| {what} | {mean_of([r.ap for r in found])} | {mean_of([r.named for r in found])} |"


def samples_rows(lab: FewShots, seeds: int, without: Sequence[str] = ()) -> Iterator[str]:
    """AP and named share of each kind of sample, and their difference to the advice, draw by draw."""
    yield "| sample | novel AP | rightly named, % | novel AP against the advice |"
    yield "|---|---|---|---|"
    advised: list[Result] = []
    draws = [draws_of(lab, seed) for seed in range(seeds)]
    for kind, choose in SAMPLES.items():
        shots = [{name: choose(lab, draw) for name, draw in of.items()} for of in draws]
        if any(change in without for of in shots for samples in of.values() for change, _ in samples):
            continue
        lab.samples(sample for of in shots for samples in of.values() for sample in samples)
        found = [result_of(lab, lab.teach(of)) for of in shots]
        advised = advised or found
        change = "" if kind == ADVICE else signed(mean_of([a.ap - b.ap for a, b in zip(found, advised, strict=True)]))
        yield f"| {kind} | {mean_of([r.ap for r in found])} | {mean_of([r.named for r in found])} | {change} |"


@dataclass(frozen=True)
class Names:
    """Of some images, at a score: false names per image, and the share (0..100) of known objects rightly named."""

    false: float
    named: float


def names_at(dataset: Dataset, scored: Scored, classes: Sequence[str], score: float) -> Names:
    """Count them, whatever the operating point rejects."""
    evidence = naming_evidence(dataset, _on(dataset, scored), classes)
    kept = evidence.scores >= score
    objects = sum(evidence.objects.values())
    false, right = int((kept & ~evidence.right).sum()), int((kept & evidence.right).sum())
    return Names(false / len(dataset.images), 100 * right / max(1, objects))


def loose_score(dataset: Dataset, scored: Scored, classes: Sequence[str]) -> float:
    """The lowest score with at most LOOSE false names per image."""
    evidence = naming_evidence(dataset, _on(dataset, scored), classes)
    false = np.sort(evidence.scores[~evidence.right])[::-1]
    allowed = math.floor(LOOSE * len(dataset.images))
    return float(np.nextafter(false[allowed], 1.0)) if len(false) > allowed else 0.0


def _on(dataset: Dataset, scored: Scored) -> list[dict[str, object]]:
    ids = {image.id for image in dataset.images}
    return [item for item in scored.detections if item["image_id"] in ids]


Negatives = list[NDArray[np.float32]]


def untaught(lab: FewShots, seed: int) -> tuple[Classifier, Negatives, Dataset]:
    """Objects of the last session's classes, which are not taught, as background samples; all validation images."""
    names = [name for classes in lab.sessions[:-1] for name in classes]
    classifier = taught(lab, draw_shots(lab.line.train, names, K, seed))
    keys = lab.instances(lab.sessions[-1])
    chosen = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))[: max(BACKGROUND)]]
    found = lab.samples([(AS_TAKEN, key) for key in chosen])
    return classifier, [found[AS_TAKEN, key] for key in chosen], lab.line.val


def accepted(lab: FewShots, seed: int) -> tuple[Classifier, Negatives, Dataset]:
    """False names on one half of the validation images, the surest first, as background samples; the other half."""
    classifier = taught(lab, draw_shots(lab.line.train, lab.novel, K, seed))
    val = lab.line.val
    order = np.random.default_rng(seed).permutation([image.id for image in val.images]).tolist()
    half, other = val.only(order[: len(order) // 2]), val.only(order[len(order) // 2 :])
    detections = [{k: v for k, v in item.items() if k != "rejected"} for item in _on(half, lab.scored(classifier))]
    matched = match_all(half, detections, classifier.classes, 0.0)
    errors = [error for error in find_errors(matched, detections, classifier.classes) if error.cause in ACCEPTED]
    surest = sorted(errors, key=lambda error: -(error.score or 0.0))[: max(BACKGROUND)]
    images = [replace(image, annotations=_outlines(surest, image.id)) for image in half.images]
    outlined = Dataset(half.root, half.categories, tuple(image for image in images if image.annotations))
    found = lab.features_of_masks(outlined)
    return classifier, [found[number] for number in range(len(surest))], other


def _outlines(errors: Sequence[ErrorCase], image_id: int) -> tuple[Annotation, ...]:
    here = [(number, error) for number, error in enumerate(errors) if error.image.id == image_id]
    return tuple(
        Annotation(number, error.name or "", error.rle, False, tuple(boxes([error.rle])[0].tolist()),
                   float(areas([error.rle])[0]))
        for number, error in here
    )  # fmt: skip


SOURCES: dict[str, Callable[[FewShots, int], tuple[Classifier, Negatives, Dataset]]] = {
    "untaught objects": untaught,
    "accepted false names": accepted,
}


def background_rows(lab: FewShots, seeds: int) -> Iterator[str]:
    """False names per image and named share over the number of background samples."""
    yield "| background samples | number | false names per image | at a low score | rightly named there, % |"
    yield "|---|---|---|---|---|"
    for source, make in SOURCES.items():
        made = [make(lab, seed) for seed in range(seeds)]
        low = [loose_score(images, lab.scored(classifier), classifier.classes) for classifier, _, images in made]
        for count in BACKGROUND:
            strict, loose = [], []
            for (classifier, negatives, images), score in zip(made, low, strict=True):
                after = classifier.reject(negatives[:count])
                scored = lab.scored(after)
                point = after.operating_score(lab.params.evaluate.operating_score)
                strict.append(names_at(images, scored, after.classes, point).false)
                loose.append(names_at(images, scored, after.classes, score))
            yield (
                f"| {source} | {count} | {precise(mean_of(strict))} | {precise(mean_of([n.false for n in loose]))} | "
                f"{mean_of([n.named for n in loose])} |"
            )


def precise(mean: Mean | None) -> str:
    """With two decimals."""
    assert mean is not None
    return f"{mean.mean:.2f}" if mean.half is None else f"{mean.mean:.2f} ± {mean.half:.2f}"


def signed(mean: Mean | None) -> str:
    """A difference, with its sign."""
    assert mean is not None
    return f"{mean.mean:+.1f}" if mean.half is None else f"{mean.mean:+.1f} ± {mean.half:.1f}"


TEXT = f"""# Measurements of the field guide

`python -m benchmarks.field_guide`, {{machine}}, on workspaces after `samif run`. The novel classes are taught to the
base classifier in one session and scored on the validation images. Means over {{seeds}} draws of the labelled objects
with 95 % intervals (Student's t); the difference to the advice is taken draw by draw. AP in points; *rightly named*:
share of the objects of the novel classes that have a mask with their name at the operating point.

- **{K} different images**: as `samif run` draws them, one object of each image first.
- **1 image**: one that shows most novel classes, and another one for classes that it does not show.
- **near-duplicates**: that image, and {COPIES} copies of it, moved by up to 1.5 %, turned by up to 1 degree, brighter
  or darker by up to 4 %, with noise and another JPEG quality.
- **most alike**: its object, and the {COPIES} of the training images whose features are nearest to it.
- **dark**, **bright**: pixel values times {DARK} and {BRIGHT}. **Far**: the image at half its size, mirrored around
  it. **Close**: the quarter of the image around the object, at full size. **Covered**: one half of the object under a
  uniform sheet. **Boxes**: the outline is the object's box. The validation images are not changed.
- **Background samples**: *untaught objects* are outlined objects of the last session's classes, which are not taught
  here; *accepted false names* are those of one half of the validation images, the surest first, and the other half is
  scored. The low score is the one with {LOOSE} false names per image before there are background samples; *rightly
  named* counts all classes there.
"""


def main(
    workspaces: Annotated[list[str], typer.Argument(metavar="NAME=WORKSPACE...")],
    seeds: Annotated[int, typer.Option(help="Draws of the labelled objects.")] = 5,
    without: Annotated[list[str] | None, typer.Option(help="Changes of images to leave out, for want of time.")] = None,
    out: Annotated[Path, typer.Option(help="File for the tables.")] = OUT,
) -> None:
    """Measure, print, record."""
    tune_process()
    lines = [TEXT.format(machine=machine(), seeds=seeds)]
    for item in workspaces:
        name, _, folder = item.partition("=")
        lab = FewShots(Path(folder))
        lines += [f"## {name}", "", *about(lab), ""]
        parts = {
            "number of labelled objects": shots_rows(lab, seeds),
            "kinds of samples": samples_rows(lab, seeds, without or []),
            "background samples": background_rows(lab, seeds),
        }
        for title, rows in parts.items():
            lines += [f"### {name}: {title}", ""]
            for row in rows:
                print(row, flush=True)
                lines.append(row)
            lines.append("")
    out.write_text("\n".join(lines), encoding="utf-8")


def about(lab: FewShots) -> list[str]:
    """What the results of a workspace rest on."""
    train, val = len(lab.line.train.images), len(lab.line.val.images)
    rotations = ", ".join(map(str, lab.params.incremental.rotations)) or "none"
    return [
        f"Encoder `{lab.params.encoder.name}`; {train} training and {val} validation images; "
        f"{len(lab.line.base_classes)} base classes; novel: {', '.join(lab.novel)}; rotations of a shot: {rotations}.",
    ]


def machine() -> str:
    """Processor cores and Python, for the record."""
    return f"{os.cpu_count()} CPU cores, Python {platform.python_version()}"


if __name__ == "__main__":
    typer.run(main)

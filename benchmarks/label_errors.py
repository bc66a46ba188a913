"""How many planted label errors `samif data check` finds: `python -m benchmarks.label_errors NAME=WORKSPACE...`.

A workspace is one whose images are embedded and proposed (`samif run`). In each draw, 5 % of the names are exchanged at
random, and 5 % of the masks are moved by half of their size, replaced by their box, halved, shrunk to half or grown to
twice of their area, or joined with the nearest label. Where cleanlab is installed, its `find_label_issues` judges the
same probabilities; it is no dependency (`pip install cleanlab` changes no version that is pinned here; its licence is
AGPL). The tables go to benchmarks/LABEL_ERRORS.md, or to `--out`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from scipy import ndimage

from flows.advice.run_outputs import RunOutputs, find_outputs
from flows.loaders.inputs import index_of
from flows.runtime.tuning import tune_process
from flows.workspace.layout import SPLITS, Layout
from samif.advice.label_errors import wrong_names
from samif.advice.naming import Array, LabelledObjects, out_of_fold
from samif.config import load_params
from samif.dataset.model import Annotation, ImageRecord
from samif.masks.rle import decode, encode, overlaps

OUT = Path("benchmarks/LABEL_ERRORS.md")
SHARE = 0.05
STILL_GOOD = 0.7
"""IoU with the given mask from which a planted mask is no error: a box is the right mask of a box."""
Mask = NDArray[np.bool_]
Plant = Callable[[Mask, Sequence[Mask], np.random.Generator], Mask]


def moved(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    y, x = np.nonzero(mask)
    turn = rng.uniform(0, 2 * np.pi)
    by = (round(0.5 * np.ptp(y) * np.sin(turn)), round(0.5 * np.ptp(x) * np.cos(turn)))
    return np.asarray(ndimage.shift(mask.astype(np.uint8), by, order=0) > 0)


def boxed(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    y, x = np.nonzero(mask)
    box = np.zeros_like(mask)
    box[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return box


def halved(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    y, x = np.nonzero(mask)
    half = mask.copy()
    half[(slice(None), slice(int(np.median(x)))) if rng.random() < 0.5 else slice(int(np.median(y)))] = False
    return half


def shrunk(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    depth = ndimage.distance_transform_edt(mask)
    return np.asarray(depth > np.quantile(depth[mask], 0.5))


def grown(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    away = ndimage.distance_transform_edt(~mask)
    ordered = np.sort(away[~mask])
    return np.asarray(mask | (away <= ordered[min(len(ordered) - 1, int(mask.sum()))]))


def joined(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    if not others:
        return grown(mask, others, rng)
    centres = [np.mean(np.nonzero(other), axis=1) for other in others]
    here = np.mean(np.nonzero(mask), axis=1)
    return mask | others[int(np.argmin([np.hypot(*(centre - here)) for centre in centres]))]


PLANTS: dict[str, Plant] = {
    "moved": moved, "box": boxed, "half": halved, "shrunk": shrunk, "grown": grown, "joined": joined
}  # fmt: skip


@dataclass
class Score:
    """Planted errors, those found, and all that were accused."""

    planted: int = 0
    found: int = 0
    accused: int = 0

    def add(self, planted: set[object], accused: set[object]) -> None:
        self.planted += len(planted)
        self.found += len(planted & accused)
        self.accused += len(accused)

    def __str__(self) -> str:
        precision = "–" if not self.accused else f"{self.found / self.accused:.2f}"
        return f"{precision} | {self.found / max(1, self.planted):.2f}"


def labelled(outputs: RunOutputs, images: Sequence[ImageRecord]) -> LabelledObjects:
    """All labelled objects of the images with their features."""
    labels = [[a for a in image.annotations if not a.crowd] for image in images]
    features = [outputs.features(image, of) for image, of in zip(images, labels, strict=True) if of]
    names = [a.category for of in labels for a in of]
    listed = tuple(sorted(set(names)))
    group = np.repeat(np.arange(len(images)), [len(of) for of in labels])
    kept = [part for part in features if part is not None]
    return LabelledObjects(
        np.concatenate(kept), listed, np.array([listed.index(name) for name in names], dtype=np.int64), group
    )


def names_score(objects: LabelledObjects, seeds: int) -> dict[str, Score]:
    """Exchanged names: ours, and cleanlab's where it is installed."""
    scores = {"samif": Score()}
    count = len(objects.category)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        rows = rng.choice(count, max(1, round(SHARE * count)), replace=False)
        category = objects.category.copy()
        category[rows] = (category[rows] + rng.integers(1, len(objects.names), len(rows))) % len(objects.names)
        swapped = objects.renamed(category)
        log_probability = out_of_fold(swapped)
        planted: set[object] = set(rows.tolist())
        scores["samif"].add(planted, {name.row for name in wrong_names(swapped, log_probability)})
        for method, found in cleanlab_issues(category, log_probability).items():
            scores.setdefault(method, Score()).add(planted, found)
    return scores


def cleanlab_issues(category: NDArray[np.int64], log_probability: Array) -> dict[str, set[object]]:
    """Rows that cleanlab's filters accuse, from the same probabilities; nothing where it is not installed."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return {}
    probability = np.exp(log_probability)
    return {
        f"cleanlab, {method}": set(
            np.flatnonzero(find_label_issues(category, probability, filter_by=method, n_jobs=1)).tolist()
        )
        for method in ("prune_by_noise_rate", "confident_learning")
    }


def masks_score(
    outputs: RunOutputs, images: Sequence[ImageRecord], seeds: int
) -> tuple[Score, Counter[str], Counter[str]]:
    """Bad masks: the score, and of each kind the number planted and found."""
    score, planted_kinds, found_kinds = Score(), Counter[str](), Counter[str]()
    places = [(image, row) for image in images for row in range(len([a for a in image.annotations if not a.crowd]))]
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 1])
        chosen = {
            (places[at][0].id, places[at][1]): list(PLANTS)[number % len(PLANTS)]
            for number, at in enumerate(rng.choice(len(places), max(1, round(SHARE * len(places))), replace=False))
        }
        for image in images:
            labels = [a for a in image.annotations if not a.crowd]
            bad = {row: chosen[image.id, row] for row in range(len(labels)) if (image.id, row) in chosen}
            changed, kinds = spoil(labels, bad, rng)
            accused: set[object] = {found.row for found in outputs.bad_masks(image, changed)}
            score.add(set(kinds), accused)
            planted_kinds.update(kinds.values())
            found_kinds.update(kind for row, kind in kinds.items() if row in accused)
    return score, planted_kinds, found_kinds


def spoil(
    labels: Sequence[Annotation], bad: dict[int, str], rng: np.random.Generator
) -> tuple[list[Annotation], dict[int, str]]:
    """The labels with these masks spoilt, and the kind of each that is an error now."""
    changed, kinds = list(labels), dict[int, str]()
    if not bad:
        return changed, kinds
    masks = list(decode([a.rle for a in labels]))
    for row, kind in bad.items():
        mask = PLANTS[kind](masks[row], [m for i, m in enumerate(masks) if i != row], rng)
        code = encode(mask[None])[0]
        if mask.any() and float(overlaps([code], [labels[row].rle])[0, 0]) < STILL_GOOD:
            changed[row], kinds[row] = replace(labels[row], rle=code), kind
    return changed, kinds


def main(
    workspaces: Annotated[list[str], typer.Argument(metavar="NAME=WORKSPACE...")],
    seeds: int = 5,
    out: Path = OUT,
) -> None:
    """Plant, find, print, record."""
    tune_process()
    names = [
        "| data set | labels | method | precision | recall | accused without an error planted |",
        "|---|---|---|---|---|---|",
    ]
    masks = [
        "| data set | precision | recall | accused without an error planted | found of each kind |",
        "|---|---|---|---|---|",
    ]
    for item in workspaces:
        name, _, folder = item.partition("=")
        layout = Layout(Path(folder).resolve())
        params = load_params(layout.params)
        outputs = find_outputs(layout, params)
        images = [image for split in SPLITS for image in index_of(layout, params, split).images]
        objects = labelled(outputs, images)
        log_probability = out_of_fold(objects)
        clean = {"samif": len(wrong_names(objects, log_probability))}
        clean |= {method: len(rows) for method, rows in cleanlab_issues(objects.category, log_probability).items()}
        for method, score in names_score(objects, seeds).items():
            names.append(f"| {name} | {len(objects.category)} | {method} | {score} | {clean[method]} |")
            print(names[-1], flush=True)
        score, planted, found = masks_score(outputs, images, seeds)
        accused = sum(len(outputs.bad_masks(i, [a for a in i.annotations if not a.crowd])) for i in images)
        kinds = ", ".join(f"{kind} {found[kind]}/{planted[kind]}" for kind in PLANTS)
        masks.append(f"| {name} | {score} | {accused} | {kinds} |")
        print(masks[-1], flush=True)
    text = "\n".join(
        [
            "# Label errors", "",
            f"`python -m benchmarks.label_errors`: {100 * SHARE:.0f} % of the labels spoilt, {seeds} draws.", "",
            "## Exchanged names", "", *names, "", "## Bad masks", "", *masks, "",
        ]
    )  # fmt: skip
    out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

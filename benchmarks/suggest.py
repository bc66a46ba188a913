"""`samif suggest` against random images: `python -m benchmarks.suggest NAME=WORKSPACE...`.

A workspace is one after `samif run`. Images are chosen among its training images, their objects of the novel classes
are taught to the base classifier, and the next images are chosen with the classifier that results. The tables go to
benchmarks/SUGGEST.md, or to `--out`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.few_shots import AS_TAKEN, FewShots
from benchmarks.field_guide import about, machine, result_of, signed
from flows.artifacts.proposal_file import ProposalFile
from flows.loaders.inputs import source_of
from flows.runtime.progress import track
from flows.runtime.tuning import tune_process
from samif.classifier.model import Classifier
from samif.dataset.images import read_image
from samif.dataset.model import ImageRecord
from samif.dataset.near_duplicates import Array, thumbnail
from samif.inference.propose import Proposals
from samif.protocol.summary import mean_of
from samif.sam.frame import Frame
from samif.suggest.features import image_features, name_changes
from samif.suggest.select import STRATEGIES, Features, Strategy, choose

OUT = Path("benchmarks/SUGGEST.md")
COUNTS = (2, 5, 10, 20)
POOL = 0.8
"""Share of the images that a draw chooses from."""

TEXT = f"""# Suggested images against random ones

`python -m benchmarks.suggest`, {{machine}}, on workspaces after `samif run`. In each of {{seeds}} draws,
{100 * POOL:.0f} % of the training images are the images to choose from. Images are chosen, all of their objects of the
novel classes are taught to the base classifier, and further images are chosen with the classifier that results, up to
20. Novel AP in points; a class that no chosen image shows counts as 0. Means with 95 % intervals (Student's t);
differences to random images are taken draw by draw. *All images*: on some lines most show no new part. *Images with a
new part*: somebody photographed the new parts.

The base classifier learnt from the base objects of the same images, so its names of these are surer than they would be
on new images. Images that no classifier has seen may be suggested better or worse.
"""


class Folder:
    """Images to choose from: their features, and what their labels and proposals are."""

    def __init__(self, lab: FewShots, images: Sequence[ImageRecord]) -> None:
        self.lab, self.images = lab, images
        source, kept = source_of(lab.layout, lab.params, "train"), ProposalFile(lab.layout.proposals("train"))
        self.proposals: list[Proposals] = [kept.of(image) for image in images]
        vectors, self.thumbnails = [], list[Array]()
        with track(len(images), "images", "image features") as progress:
            for image, proposals in zip(images, self.proposals, strict=True):
                embedding, semantic = source.look(image)
                # pooling takes no notice of the encoder's pixels
                frame = Frame(image.height, image.width, max(image.height, image.width), source.tiles)
                vectors.append(image_features(embedding, frame, proposals, semantic))
                self.thumbnails.append(thumbnail(read_image(source.dataset.path_of(image))))
                progress.advance()
        self.features: Features = np.stack(vectors)

    def next(self, free: list[int], taken: list[int], classifier: Classifier, count: int, by: Strategy, seed: int
    ) -> list[int]:  # fmt: skip
        """Up to `count` of the free images."""
        uncertainty = np.zeros(len(free))
        if by != "random":
            uncertainty = np.array([name_changes(self.proposals[row], classifier, seed) for row in free])
        thumbnails = [self.thumbnails[row] for row in (*free, *taken)]
        chosen = choose(self.features[free], self.features[taken], uncertainty, thumbnails, count, by, seed)
        return [free[choice.index] for choice in chosen]

    def taught(self, rows: Sequence[int]) -> Classifier:
        """The base classifier with what the labels of these images teach."""
        shots = {
            name: [(AS_TAKEN, (i.id, a.id)) for i in (self.images[r] for r in rows) for a in i.annotations
                   if a.category == name and not a.crowd]
            for name in self.lab.novel
        }  # fmt: skip
        return self.lab.teach({name: keys for name, keys in shots.items() if keys})


def curve(folder: Folder, by: Strategy, seed: int) -> list[float]:
    """Novel AP after each of COUNTS images."""
    rng = np.random.default_rng(seed)
    pool = rng.choice(len(folder.images), max(1, round(POOL * len(folder.images))), replace=False).tolist()
    taken: list[int] = []
    classifier, found = folder.lab.base, []
    for count in COUNTS:
        free = [row for row in pool if row not in taken]
        taken += folder.next(free, taken, classifier, count - len(taken), by, seed)
        classifier = folder.taught(taken)
        found.append(result_of(folder.lab, classifier).ap)
    return found


def main(
    workspaces: Annotated[list[str], typer.Argument(metavar="NAME=WORKSPACE...")],
    seeds: Annotated[int, typer.Option(help="Draws of the images to choose from.")] = 5,
    out: Annotated[Path, typer.Option(help="File for the tables.")] = OUT,
) -> None:
    """Choose, teach, score, record."""
    tune_process()
    lines = [TEXT.format(machine=machine(), seeds=seeds)]
    for item in workspaces:
        name, _, place = item.partition("=")
        lab = FewShots(Path(place))
        lab.samples([(AS_TAKEN, key) for key in lab.instances(lab.novel)])
        every = lab.line.train.images
        shown = [image for image in every if {a.category for a in image.annotations} & set(lab.novel)]
        lines += [f"## {name}", "", *about(lab), ""]
        for title, images in (("all images", every), ("images with a new part", shown)):
            if title != "all images" and len(shown) == len(every):
                continue
            folder = Folder(lab, images)
            curves = {by: np.array([curve(folder, by, seed) for seed in range(seeds)]) for by in STRATEGIES}
            rows = [
                f"| {title}: {len(images)} | {' | '.join(f'{n} images' for n in COUNTS)} |",
                "|---|---|---|---|---|",
            ]
            rows += [f"| {by} | {' | '.join(str(mean_of(column.tolist())) for column in found.T)} |"
                     for by, found in curves.items()]  # fmt: skip
            for by in ("typical", "uncertain"):
                apart = (curves[by] - curves["random"]).T
                rows.append(f"| {by} less random | {' | '.join(signed(mean_of(c.tolist())) for c in apart)} |")
            print("\n".join([name, *rows]), flush=True)
            lines += [*rows, ""]
    out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

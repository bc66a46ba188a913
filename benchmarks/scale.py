"""Time and memory of what a run does with every image, at 10,000 images to a million, and of the stage `dataset` on
files of the size of COCO2014.

    python -m benchmarks.scale --keys 10000 100000 1000000
    python -m benchmarks.scale --coco2014

Real are the files, the COCO JSON, the stages and the store. Stand-ins are the images (16 x 16 pixels, or 640 x 480 of
one colour for COCO2014; each file has content of its own) and the encoder, which gives embeddings of eight bytes: no
machine without a GPU encodes a million images. The images are embedded in this process, a shard after the other, not by
workers on Ray. Each step runs in a process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PER_FOLDER = 1000
SHARD_IMAGES = 64
CLASSES = 20
VAL_SHARE = 10
COCO2014 = {"train": (82_783, 604_907), "val": (40_504, 291_875)}
"""Images and annotations of instances_train2014.json and instances_val2014.json."""


class StandIn:
    """An encoder of images that takes no time."""

    name, digest, preprocessing_digest, embedding_shape = "stand-in", "e" * 64, "p" * 64, (1, 2, 2)

    def prepare(self, image: npt.NDArray[np.uint8]) -> Any:
        import torch

        return torch.from_numpy(image[:2, :2, 0].astype(np.float32))[None]

    def encode_prepared(self, prepared: Sequence[Any], dtype: Any) -> Any:
        import torch

        return torch.stack(list(prepared)).to(dtype)


def main() -> None:
    """Measure, print, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[], metavar="N", help="numbers of images")
    parser.add_argument("--coco2014", action="store_true", help="the stage `dataset` on files of COCO2014's size")
    parser.add_argument("--folder", type=Path, help="where the files are made (5 GB for a million)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "WORKSPACE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        measure(args.step[0], Path(args.step[1]))
        return
    table: dict[str, dict[int, dict[str, float]]] = {name: {} for name in STEPS}
    for count in args.keys:
        with tempfile.TemporaryDirectory(prefix="samif-scale-", dir=args.folder) as name:
            root = Path(name)
            write_line(root, count)
            for step in STEPS:
                table[step][count] = run(step, root)
                print(f"{count:,} {step}: {table[step][count]}", flush=True)
    lines = rows(table, args.keys) if args.keys else []
    if args.coco2014:
        with tempfile.TemporaryDirectory(prefix="samif-scale-", dir=args.folder) as name:
            write_coco2014(Path(name))
            found = run("dataset", Path(name))
            print(f"COCO2014: {found}", flush=True)
            lines += ["", f"COCO2014, stage `dataset`: {told(found)}."]
    machine = f"{os.cpu_count()} CPU cores, no GPU, {platform.machine()}, Python {platform.python_version()}"
    page = f"`python -m benchmarks.scale {' '.join(sys.argv[1:])}` on {machine}.\n\n" + "\n".join(lines) + "\n"
    print(page)
    if args.out:
        args.out.write_text(page, encoding="utf-8")


def run(step: str, root: Path) -> dict[str, float]:
    """One step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--step", step, str(root)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(step: str, root: Path) -> None:
    """Print seconds and bytes of a step: `base` is what the process takes when everything is imported."""
    action = STEPS[step](root)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started, before = time.perf_counter(), time.process_time()
    action()
    wall, processor = time.perf_counter() - started, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"wall": wall, "processor": processor, "base": base, "peak": peak}))


def _dataset(root: Path) -> Callable[[], object]:
    from flows.stages import dataset

    layout, params = _line(root)
    return lambda: dataset.run(layout, params, None)


def _read_index(root: Path) -> Callable[[], object]:
    from flows.loaders.inputs import index_of

    layout, params = _line(root)
    return lambda: sum(len(image.annotations) for image in index_of(layout, params, "train").images)


def _digest(root: Path) -> Callable[[], object]:
    from flows.loaders.inputs import index_of

    layout, params = _line(root)
    return lambda: [index_of(layout, params, split).digest for split in ("train", "val")]


def _embed(root: Path) -> Callable[[], object]:
    import torch

    from flows.embedding import flow
    from flows.embedding.encoder import EncoderInfo
    from flows.embedding.shard_encoder import ShardEncoder
    from flows.embedding.shards import divide
    from flows.loaders.image_paths import ImagePaths
    from flows.loaders.inputs import index_of, store_of

    layout, params = _line(root)
    store, encoder = store_of(layout, params), StandIn()

    class Here:
        """In the place of `flow.WorkerPool`: the shards are encoded here."""

        def __init__(self, *_: object) -> None:
            self._encoder = ShardEncoder(encoder, store, SHARD_IMAGES)

        def embed(self, shards: Sequence[Any], tracker: Any) -> list[Any]:
            for shard in shards:
                tracker.advance(self._encoder.embed(shard).images)
            return []

    class Cluster:
        workers = 1

        def __enter__(self) -> Cluster:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    vars(flow).update(WorkerPool=Here, ray_cluster=lambda *_: Cluster())
    torch.set_num_threads(1)
    divide([], np.zeros(0, np.int64), 1, 1)

    def action() -> None:
        images = ImagePaths([index_of(layout, params, split) for split in ("train", "val")])
        done = flow.embed_images(
            images, params.embed, params.encoder, store, encoder_factory=lambda _: encoder, info=EncoderInfo.of(encoder)
        )
        done.manifest.save(layout.embeddings)

    return action


def _lacks(root: Path) -> Callable[[], object]:
    from flows.artifacts.embedding_manifest import EmbeddingManifest
    from flows.loaders.inputs import store_of

    layout, params = _line(root)
    namespace = store_of(layout, params).namespace(StandIn.digest, StandIn.preprocessing_digest)
    return lambda: namespace.lacks(EmbeddingManifest.load(layout.embeddings).images).sum()


def _manifest(root: Path) -> Callable[[], object]:
    from flows.artifacts.embedding_manifest import EmbeddingManifest

    layout, _ = _line(root)
    return lambda: EmbeddingManifest.load(layout.embeddings).save(root / "again.parquet")


def _verify(root: Path) -> Callable[[], object]:
    from flows.loaders.inputs import store_of

    layout, params = _line(root)
    namespace = store_of(layout, params).namespace(StandIn.digest, StandIn.preprocessing_digest)
    return namespace.verify


STEPS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "dataset": _dataset,
    "read index": _read_index,
    "data digest": _digest,
    "embed": _embed,
    "embed again": _embed,
    "manifest": _manifest,
    "store lacks": _lacks,
    "store verify": _verify,
}
"""`dataset`: the stage. `read index`: every training image with its labels, as the later stages read them. `data
digest`: that of the version's card. `embed`: the stage with the stand-in; `embed again`: nothing is missing.
`manifest`: reading and writing it. `store lacks`: what a run looks up where every stage is skipped. `store verify`: all
checksums."""


def _line(root: Path) -> tuple[Any, Any]:
    from flows.workspace.layout import Layout
    from samif.config import load_params

    layout = Layout(root / "ws")
    return layout, load_params(layout.params)


def write_line(root: Path, count: int) -> None:
    """A workspace of `count` small images, a tenth of them for validation, each with two labels."""
    held_out = count // VAL_SHARE
    for split, first, images in (("train", 0, count - held_out), ("val", count - held_out, held_out)):
        polygons = iter(lambda: [2.0, 2.0, 9.0, 2.0, 9.0, 9.0, 2.0, 9.5], None)
        _write_split(root / split, first, images, 2 * images, (16, 16), polygons, "PNG")
    _write_params(root)


def write_coco2014(root: Path) -> None:
    """The same with as many images and labels as COCO2014, with polygons of the number of points that COCO's have: 23
    in the mean, some of several hundred."""
    rng, first = np.random.default_rng(0), 0
    for split, (images, labels) in COCO2014.items():
        _write_split(root / split, first, images, labels, (640, 480), _polygons(rng), "JPEG")
        first += images
    _write_params(root)


def _polygons(rng: np.random.Generator) -> Iterator[list[float]]:
    while True:
        points = int(np.clip(rng.lognormal(2.85, 0.75), 4, 600))
        angle = np.sort(rng.uniform(0, 2 * math.pi, points))
        radius = rng.uniform(8, 90) * rng.uniform(0.8, 1.0, points)
        x, y = rng.uniform(90, 550) + radius * np.cos(angle), rng.uniform(90, 390) + radius * np.sin(angle)
        yield np.stack([x.clip(0, 640), y.clip(0, 480)], 1).round(2).reshape(-1).tolist()


def _write_split(
    folder: Path,
    first: int,
    images: int,
    labels: int,
    size: tuple[int, int],
    polygons: Iterator[list[float]],
    format_: str,
) -> None:
    """Image files, and their COCO file, which is written a record at a time; labels are in no order, as in COCO."""
    from PIL import Image

    drawn = io.BytesIO()
    Image.new("RGB", size, (90, 120, 150)).save(drawn, format_)
    content, suffix = drawn.getvalue(), format_.lower()
    order = np.random.default_rng(first).permutation(labels) % images
    folder.mkdir(parents=True)
    with (folder / "labels.json").open("w", encoding="utf-8") as file:
        file.write('{"info": {}, "images": [')
        for number in range(images):
            name = f"{number // PER_FOLDER:04}/{first + number:012}.{suffix}"
            path = folder / "images" / name
            if number % PER_FOLDER == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(content + (first + number).to_bytes(8, "little"))  # behind the end: decoders ignore it
            record = {"id": first + number, "file_name": name, "width": size[0], "height": size[1]}
            file.write((", " if number else "") + json.dumps(record))
        file.write('], "annotations": [')
        for number, image in enumerate(order.tolist()):
            outline = next(polygons)
            record = {
                "id": number, "image_id": first + image, "category_id": number % CLASSES + 1, "iscrowd": 0,
                "area": 50.0, "bbox": [2, 2, 7, 7], "segmentation": [outline],
            }  # fmt: skip
            file.write((", " if number else "") + json.dumps(record))
        classes = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
        file.write('], "categories": ' + json.dumps(classes) + "}")


def _write_params(root: Path) -> None:
    from ruamel.yaml import YAML

    from samif.config import Params

    places = {split: root / split for split in ("train", "val")}
    splits = {s: {"images": str(p / "images"), "annotations": str(p / "labels.json")} for s, p in places.items()}
    params = Params.model_validate(
        {"line": "scale", "dataset": {**splits, "base_classes": ["class 1"]}, "encoder": {"name": "tiny"}}
    )
    (root / "ws").mkdir()
    with (root / "ws" / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params.model_dump(mode="json"), file)


def rows(table: dict[str, dict[int, dict[str, float]]], counts: Sequence[int]) -> list[str]:
    """The table in Markdown. The slope is that of the processor time over the last two counts, 1 where it is
    proportional: wall times depend on what else runs. Bytes per image are those from one count to the next, or of the
    only one."""
    heads = [f"{count:,}: wall, processor, peak" for count in counts]
    lines = [f"| step | {' | '.join(heads)} | slope | bytes per image |", "|---" * (len(heads) + 3) + "|"]
    for step, found in table.items():
        slope = "-"
        if len(counts) > 1:
            a, b = counts[-2:]
            slope = f"{math.log(found[b]['processor'] / found[a]['processor']) / math.log(b / a):.2f}"
        last, more = found[counts[-1]], counts[-1]
        per_image = (last["peak"] - last["base"]) / more
        if len(counts) > 1:
            per_image = (last["peak"] - found[counts[-2]]["peak"]) / (more - counts[-2])
        lines.append(f"| {step} | {' | '.join(told(found[c]) for c in counts)} | {slope} | {per_image:,.0f} |")
    return lines


def told(found: dict[str, float]) -> str:
    return f"{found['wall']:.1f} s, {found['processor']:.1f} s, {found['peak'] / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()

"""Which COCO file the results of a prediction take their ids from."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.inference.image_files import ImageFile
from flows.workspace.layout import SPLITS, Layout
from samif.config import CocoSource, Params
from samif.errors import DataError, ObjectMissing
from samif.inference.coco_ids import CocoIds, ResultIds, category_ids, ids_of_file, read_ids, shortened

logger = logging.getLogger(__name__)

Sizes = Sequence[tuple[int, int]]


def result_ids(
    images: Sequence[ImageFile],
    sizes: Sizes,
    classes: Sequence[str],
    unknown: str,
    annotations: Path | None = None,
    workspace: tuple[Layout, Params] | None = None,
) -> ResultIds:
    """Ids for results: of the COCO file that is named, else of a file of the workspace that lists every image, else
    numbers from 1.

    Args:
        sizes: upright (width, height) of each image in pixels.
        classes: of the model, `unknown` among them.

    Raises:
        SamifError: `annotations` is missing or no COCO instance file.
    """
    names = [image.name for image in images]
    if annotations is not None:
        return ids_of_file(read_ids(annotations), names, sizes, classes, unknown)
    known = list(_files_of(*workspace)) if workspace is not None else []
    for coco, folder in known:  # by place first: the splits of a data set may use the same names
        inside = [name for image in images if (name := _inside(folder, image)) is not None and coco.lists(name)]
        if len(inside) == len(images):
            return ids_of_file(coco, inside, sizes, classes, unknown)
    for coco, _ in known:
        entries = [coco.image(name) for name in names]
        if all(e is not None and e.size in (None, size) for e, size in zip(entries, sizes, strict=True)):
            return ids_of_file(coco, names, sizes, classes, unknown)
    return _numbered(names, classes, unknown, [coco for coco, _ in known])


def _numbered(names: Sequence[str], classes: Sequence[str], unknown: str, files: Sequence[CocoIds]) -> ResultIds:
    ids, notes = category_ids(classes, unknown, files[0] if files else None)
    images = tuple(range(1, len(names) + 1))
    if files:
        most = max(files, key=lambda coco: sum(coco.image(name) is not None for name in names))
        absent = [name for name in names if most.image(name) is None]
        what = f"{len(absent)} of {len(names)} images" if absent else "images of these sizes"
        which = f" ({shortened(absent)})" if absent else ""
        told = (
            f"image ids count from 1, category ids are those of {files[0].path}: {what} are not in the workspace's "
            f"{most.path}{which}; --annotations FILE takes the ids of another COCO file"
        )
    else:
        told = "image and category ids count from 1; --annotations FILE takes the ids of a COCO file"
    return ResultIds(images, (True,) * len(images), ids, None, (told, *notes))


def _files_of(layout: Layout, params: Params) -> Iterator[tuple[CocoIds, Path]]:
    """COCO files of a workspace that can be read, validation first, each with its image folder."""
    dataset = params.dataset
    if dataset.train is None:
        folders = [layout.drawn / split for split in reversed(SPLITS)]
        sources = [CocoSource(images=str(f / "images"), annotations=str(f / "annotations.json")) for f in folders]
    else:
        own = [session.source for session in params.sessions.values() if session.source is not None]
        sources = [*([dataset.val] if dataset.val else []), dataset.train, *own]
    for source in sources:
        try:
            yield read_ids(layout.root / source.annotations), (layout.root / source.images).resolve()
        except (DataError, ObjectMissing) as error:
            logger.info("ids are not taken from it: %s", error)


def _inside(folder: Path, image: ImageFile) -> str | None:
    """File name of an image relative to a folder, None if it is not in it. The file itself may be a link, as those that
    DVC makes into its cache."""
    path = image.path.parent.resolve() / image.path.name
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None

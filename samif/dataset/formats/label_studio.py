"""Label Studio: the export as JSON, a list of tasks whose coordinates are per cent of the image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from samif.dataset.findings import NOTHING_TO_DO
from samif.dataset.formats.documents import read_json
from samif.dataset.formats.image_files import sizes
from samif.dataset.formats.labels import LabelledImage, Labels, Outline, Source
from samif.dataset.formats.outlines import ellipse, encode, numbers, points, rectangle
from samif.dataset.values import get, whole
from samif.errors import DataError
from samif.io.image_formats import is_image_name

_KINDS = ("polygon", "brush", "rectangle", "ellipse")
_UPLOAD = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that is uploaded."""


def read(source: Source) -> Labels:
    """Labels of one file.

    Raises:
        DataError: it is no list of tasks.
    """
    content = read_json(source.path)
    if not is_label_studio(content):
        raise DataError(f"{source.path} is no JSON export of Label Studio; export the project as JSON, not JSON-MIN")
    images = []
    for task in content:
        name = _image_name(task)
        results = _results(source, task, name)
        path = _path(source, name, len(results))
        if path is None:
            continue
        size, regions = _regions(results)
        actual = sizes(path)
        if actual is not None and size == actual[1] and source.options.labels_on != "stored":
            size = actual[0]  # per cent are of the upright image, but the size is the one of the file as stored
        frame = size or (actual[0] if actual else None)
        if frame is not None:
            outlines = [o for region in regions for o in _outlines(source, name, region, frame)]
            images.append(LabelledImage(path, size, outlines))
        else:
            source.no_file(name, "has an image that cannot be read", len(results))
    return Labels([], images)


def is_label_studio(content: object) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(get(task, "data"), dict) and isinstance(get(task, "annotations"), list) for task in content)
    )


def _image_name(task: dict[str, Any]) -> str:
    """The value of the task's data that names an image."""
    data = task["data"]
    texts = [data[key] for key in ("image", *data) if isinstance(data.get(key), str)]
    paths = [text for text in texts if is_image_name(re.split(r"[?#]", text)[0] if "?d=" not in text else text)]
    return str((paths or texts or [task.get("file_upload") or ""])[0])


def _path(source: Source, name: str, labels: int) -> Path | None:
    """The image of a task, also under the name that it had before it was uploaded."""
    base = PurePosixPath(name.replace("\\", "/")).name
    if _UPLOAD.match(base) and source.finder.find(name, source.folder).path is None:
        original = source.finder.find(_UPLOAD.sub("", base, count=1), source.folder)
        if original.path is not None:
            source.findings.tally("images found by their name before they were uploaded", NOTHING_TO_DO, base)
            return original.path
    return source.image(name, source.folder, labels)


def _results(source: Source, task: dict[str, Any], name: str) -> list[Any]:
    """The results of one annotation of the task: the ground truth if there is one, else the newest."""
    annotations = [a for a in task["annotations"] if isinstance(a, dict) and not a.get("was_cancelled")]
    if not annotations:
        source.findings.tally("tasks without a submitted annotation, taken as images without objects",
                              "finish or delete them", name)  # fmt: skip
        return []
    if task.get("predictions"):
        source.findings.tally("tasks with predictions, which were not imported", NOTHING_TO_DO, name)
    best = max(annotations, key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or "")))
    if len(annotations) > 1:
        source.change(name, f"has {len(annotations)} annotations, of which one was taken", "mark one as ground truth",
                      "have several annotations, of which the ground truth or the newest was taken")  # fmt: skip
    results = best.get("result")
    return results if isinstance(results, list) else []


def _regions(results: list[Any]) -> tuple[tuple[int, int] | None, list[dict[str, Any]]]:
    """Size of the image, and the regions with their classes: results of one id are a shape and its labels."""
    by_id: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    size = None
    for position, result in enumerate(result for result in results if isinstance(result, dict)):
        width, height = whole(result.get("original_width")), whole(result.get("original_height"))
        size = (width, height) if width and height else size
        merged = by_id[str(result.get("id") or f"without id {position}")]
        old = merged.get("value", {})
        value = result.get("value")
        kinds = (str(merged.get("type", "")), str(result.get("type", "")))
        merged.update(result)
        merged["value"] = {**old, **value} if isinstance(value, dict) else old
        merged["type"] = next((kind for kind in kinds if kind.startswith(_KINDS)), kinds[1])
    return size, list(by_id.values())


def _outlines(source: Source, place: str, region: dict[str, Any], size: tuple[int, int]) -> Iterator[Outline]:
    value = region["value"]
    kind = next((kind for kind in _KINDS if str(region["type"]).startswith(kind)), None)
    if kind is None:
        source.other_shape(region["type"], place)
        return
    names = next((v for k, v in value.items() if k.endswith("labels") and isinstance(v, list) and v), [None])
    category = source.class_name(names[0], place)
    if category is None:
        return
    if len(names) > 1:
        source.change(place, f"has a region of several classes, '{category}' was taken", "choose one class",
                      "have a region of several classes, of which the first was taken")  # fmt: skip
    if region.get("image_rotation"):
        source.leave_out(place, "was labelled while it was turned", "turn the image file and label it upright")
        return
    sx, sy = size[0] / 100, size[1] / 100
    if kind == "brush":
        mask = brush_mask(value.get("rle"), *size)
        if mask is None or not mask.any():
            source.leave_out(place, "has a brush mask that is empty or cannot be decoded", "paint the object again")
        else:
            yield Outline(category, (encode(mask),))
    elif kind == "polygon":
        flat = points(value.get("points"), sx, sy)
        if flat is None:
            source.leave_out(place, "has a polygon without valid points", "outline the object again")
        else:
            yield Outline(category, (flat,))
    else:
        keys = ("x", "y", "width", "height") if kind == "rectangle" else ("x", "y", "radiusX", "radiusY")
        found, turn = numbers([value.get(key) for key in keys]), numbers([value.get("rotation") or 0])
        if found is None or turn is None:
            source.leave_out(place, f"has a {kind} without valid numbers", "outline the object again")
            return
        x, y, a, b = found[0] * sx, found[1] * sy, found[2] * sx, found[3] * sy
        if kind == "rectangle":  # turned about its top left corner
            yield Outline(category, (rectangle(x, y, a, b, turn[0], about=(x, y)),), box=True)
        else:
            source.findings.tally("ellipses taken as polygons", NOTHING_TO_DO)
            yield Outline(category, (ellipse(x, y, a, b, turn[0]),))


def brush_mask(packed: object, width: int, height: int) -> npt.NDArray[np.bool_] | None:
    """Mask (height, width) of Label Studio's packed runs; None where they are damaged or of another size.

    The stream is read bit by bit, highest first: number of values (32 bits), bits per value less one (5), bits of four
    lengths of counts less one (4 each); then blocks of a bit (1: one value repeated, 0: that many values), the index of
    the length (2), the count less one, and the values. Values are RGBA, of which alpha is the mask.
    """
    if not isinstance(packed, list) or not all(isinstance(v, int) and 0 <= v < 256 for v in packed):
        return None
    bits = np.unpackbits(np.array(packed, dtype=np.uint8))
    text = bits.astype(np.uint8).tobytes().translate(bytes.maketrans(b"\x00\x01", b"01"))
    place = 0

    def take(number: int) -> int:
        nonlocal place
        place += number
        return int(text[place - number : place], 2)  # raises ValueError past the end

    try:
        total, depth = take(32), take(5) + 1
        lengths = [take(4) + 1 for _ in range(4)]
        if total != width * height * 4 or depth > 16:
            return None
        values = np.zeros(total, dtype=np.uint16)
        at = 0
        while at < total:
            repeated = take(1)
            count = take(lengths[take(2)]) + 1
            if at + count > total or place + (depth if repeated else depth * count) > len(bits):
                return None
            if repeated:
                values[at : at + count] = take(depth)
            else:
                digits = bits[place : place + depth * count].reshape(count, depth)
                values[at : at + count] = digits @ (1 << np.arange(depth - 1, -1, -1))
                place += depth * count
            at += count
    except ValueError:
        return None
    return values.reshape(height, width, 4)[..., 3] > 127


def pack_brush(mask: npt.NDArray[np.bool_]) -> list[int]:
    """A mask (H, W) as the packed runs that `brush_mask` reads: blocks of one repeated value each."""
    flat = np.repeat(mask.ravel(), 4)
    ends = np.append(np.flatnonzero(np.diff(flat)) + 1, len(flat))
    lengths = (4, 8, 12, 16)
    bits = [f"{len(flat):032b}{8 - 1:05b}", *(f"{length - 1:04b}" for length in lengths)]
    at = 0
    for end in ends.tolist():
        value = 255 * int(flat[at])
        while at < end:
            count = min(end - at, 1 << lengths[-1])
            index = next(i for i, length in enumerate(lengths) if count <= 1 << length)
            bits.append(f"1{index:02b}{count - 1:0{lengths[index]}b}{value:08b}")
            at += count
    text = "".join(bits)
    return list(np.packbits(np.frombuffer(text.encode(), dtype=np.uint8) - 48).tolist())

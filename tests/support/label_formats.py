"""One drawn data set, written as each tool writes it.

Shapes are polygons with whole coordinates that do not overlap, so that formats of polygons and formats of masks hold
the same pixels.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

WIDTH, HEIGHT = 96, 64
CLASSES = ("bolt", "nut, M8", "washer")
Polygon = list[float]


@dataclass(frozen=True)
class Drawn:
    """An object: class, and one polygon or several."""

    category: str
    polygons: tuple[tuple[float, ...], ...]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(HEIGHT, WIDTH) pixels of the polygons, as pycocotools fills them."""
        rles = coco_mask.frPyObjects([list(p) for p in self.polygons], HEIGHT, WIDTH)
        return np.asarray(coco_mask.decode(coco_mask.merge(rles)), dtype=bool)


# In the order in which samif numbers objects: by class, then from above.
SCENES: dict[str, tuple[Drawn, ...]] = {
    "a1.png": (
        Drawn("bolt", ((5, 5, 30, 7, 28, 20, 6, 18),)),
        Drawn("nut, M8", ((50, 10, 70, 10, 80, 25, 60, 40, 45, 25),)),
    ),
    "b2.png": (
        Drawn("bolt", ((60, 8, 90, 12, 88, 20, 58, 18),)),
        Drawn("bolt", ((60, 40, 90, 44, 88, 56, 58, 50),)),
        Drawn("washer", ((10, 30, 40, 30, 40, 60, 10, 60),)),
    ),
    "c3.png": (Drawn("nut, M8", ((20, 12, 60, 14, 70, 40, 30, 50),)),),
}


def draw_images(folder: Path, names: tuple[str, ...] = tuple(SCENES)) -> Path:
    """The images of the scenes, noise with a grey value per object."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 100, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for value, drawn in enumerate(SCENES.get(name, ())):
            pixels[drawn.mask] = 150 + 20 * value
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


def pairs(polygon: tuple[float, ...]) -> list[list[float]]:
    return [[x, y] for x, y in zip(polygon[0::2], polygon[1::2], strict=True)]


def png(mask: npt.NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(buffer, "PNG")
    return buffer.getvalue()


def write_coco(root: Path) -> Path:
    draw_images(root / "images")
    id_of = {name: number for number, name in enumerate(sorted(CLASSES), start=1)}
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": number, "name": name} for name, number in id_of.items()]
    for number, (name, objects) in enumerate(SCENES.items(), start=1):
        content["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for drawn in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": id_of[drawn.category],
                    "segmentation": [list(polygon) for polygon in drawn.polygons],
                    "iscrowd": 0,
                }
            )
    return dump(root / "instances.json", content)


def write_yolo(root: Path) -> Path:
    draw_images(root / "images" / "train")
    (root / "labels" / "train").mkdir(parents=True)
    for name, objects in SCENES.items():
        lines = [
            f"{CLASSES.index(d.category)} " + " ".join(f"{x / WIDTH!r} {y / HEIGHT!r}" for x, y in pairs(d.polygons[0]))
            for d in objects
        ]
        (root / "labels" / "train" / name).with_suffix(".txt").write_text("\n".join(lines) + "\n")
    names = "\n".join(f"  {number}: {json.dumps(name)}" for number, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nnames:\n{names}\n")
    return root


def write_labelme(root: Path) -> Path:
    draw_images(root)
    for name, objects in SCENES.items():
        shapes = [
            {
                "label": d.category,
                "points": pairs(d.polygons[0]),
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            for d in objects
        ]
        dump((root / name).with_suffix(".json"), labelme(name, shapes))
    return root


def labelme(name: str, shapes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None,
            "imageHeight": HEIGHT, "imageWidth": WIDTH}  # fmt: skip


def labelme_mask(drawn: Drawn) -> dict[str, Any]:
    """A shape of the kind `mask`: the PNG of its box."""
    rows, columns = np.nonzero(drawn.mask)
    top, left, bottom, right = rows.min(), columns.min(), rows.max(), columns.max()
    part = drawn.mask[top : bottom + 1, left : right + 1]
    return {"label": drawn.category, "points": [[int(left), int(top)], [int(right), int(bottom)]], "group_id": None,
            "shape_type": "mask", "flags": {}, "mask": base64.b64encode(png(part)).decode()}  # fmt: skip


def write_labelme_masks(root: Path) -> Path:
    draw_images(root)
    for name, objects in SCENES.items():
        dump((root / name).with_suffix(".json"), labelme(name, [labelme_mask(drawn) for drawn in objects]))
    return root


def write_voc(root: Path) -> Path:
    """As CVAT writes it: palette images, and labelmap.txt."""
    draw_images(root / "JPEGImages")
    for folder in ("SegmentationClass", "SegmentationObject"):
        (root / folder).mkdir(parents=True)
    colours = {"background": (0, 0, 0), "bolt": (128, 0, 0), "nut, M8": (0, 128, 0), "washer": (128, 128, 0)}
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in colours.items()]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")
    for name, objects in SCENES.items():
        classes, instances = np.zeros((2, HEIGHT, WIDTH), dtype=np.uint8)
        for number, drawn in enumerate(objects, start=1):
            classes[drawn.mask] = list(colours).index(drawn.category)
            instances[drawn.mask] = number
        for folder, values in (("SegmentationClass", classes), ("SegmentationObject", instances)):
            image = Image.fromarray(values).convert("P")
            image.putpalette([value for colour in colours.values() for value in colour])
            image.save((root / folder / name).with_suffix(".png"))
    return root


def write_via(root: Path) -> Path:
    draw_images(root)
    regions = {
        name: [
            {
                "shape_attributes": {
                    "name": "polygon",
                    "all_points_x": list(d.polygons[0][0::2]),
                    "all_points_y": list(d.polygons[0][1::2]),
                },
                "region_attributes": {"class": d.category},
            }
            for d in objects
        ]
        for name, objects in SCENES.items()
    }
    return dump(root / "via.json", via(regions))


def via(regions: dict[str, list[Any]]) -> dict[str, Any]:
    records = {f"{n}123": {"filename": n, "size": 123, "regions": r, "file_attributes": {}} for n, r in regions.items()}
    options = {name: name for name in CLASSES}
    attributes = {"region": {"class": {"type": "dropdown", "options": options}}, "file": {}}
    return {"_via_settings": {}, "_via_img_metadata": records, "_via_attributes": attributes}


def write_cvat(root: Path) -> Path:
    draw_images(root / "images")
    body = []
    for name, objects in SCENES.items():
        shapes = [
            f'<polygon label={quoteattr(d.category)} occluded="0" points="'
            + ";".join(f"{x:.2f},{y:.2f}" for x, y in pairs(d.polygons[0]))
            + '" z_order="0"></polygon>'
            for d in objects
        ]
        body.append(cvat_image(name, "".join(shapes), len(body)))
    return cvat(root / "annotations.xml", "".join(body))


def cvat_image(name: str, shapes: str, number: int = 0) -> str:
    return f'<image id="{number}" name={quoteattr(name)} width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'


def cvat(path: Path, images: str) -> Path:
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    head = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{head}{images}</annotations>\n')
    return path


def cvat_mask(drawn: Drawn) -> str:
    rows, columns = np.nonzero(drawn.mask)
    top, left, bottom, right = rows.min(), columns.min(), rows.max(), columns.max()
    part = drawn.mask[top : bottom + 1, left : right + 1]
    edges = np.flatnonzero(np.diff(np.concatenate(([0], part.ravel().astype(int), [2]))))
    runs = np.diff(np.concatenate(([0], edges))).tolist()
    counts = ", ".join(map(str, runs))
    return (
        f'<mask label={quoteattr(drawn.category)} rle="{counts}" left="{left}" top="{top}" '
        f'width="{part.shape[1]}" height="{part.shape[0]}" z_order="0"></mask>'
    )


def write_cvat_masks(root: Path) -> Path:
    draw_images(root / "images")
    images = [cvat_image(n, "".join(map(cvat_mask, objects))) for n, objects in SCENES.items()]
    return cvat(root / "annotations.xml", "".join(images))


def write_label_studio(root: Path) -> Path:
    return _label_studio(root, lambda d: ls_result("polygonlabels", d.category, points=[
        [100 * x / WIDTH, 100 * y / HEIGHT] for x, y in pairs(d.polygons[0])
    ]))  # fmt: skip


def write_label_studio_brush(root: Path) -> Path:
    return _label_studio(root, lambda d: ls_result("brushlabels", d.category, format="rle", rle=pack(d.mask)))


def _label_studio(root: Path, result: Callable[[Drawn], dict[str, Any]]) -> Path:
    draw_images(root / "images")
    tasks = [
        ls_task(f"/data/local-files/?d=line%205/{name}", [result(drawn) for drawn in objects])
        for name, objects in SCENES.items()
    ]
    return dump(root / "project.json", tasks)


def ls_task(image: str, *results: list[dict[str, Any]]) -> dict[str, Any]:
    annotations = [{"id": number, "was_cancelled": False, "result": r} for number, r in enumerate(results)]
    return {"id": 1, "data": {"image": image}, "annotations": annotations, "predictions": []}


def ls_result(kind: str, category: str | None, **value: Any) -> dict[str, Any]:
    classes = {} if category is None else {kind: [category]}
    return {"type": kind, "value": value | classes, "original_width": WIDTH, "original_height": HEIGHT,
            "image_rotation": 0, "from_name": "label", "to_name": "image"}  # fmt: skip


def pack(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Label Studio's packed RGBA runs: blocks of repeated values, and one literal block at the start."""
    values = np.zeros((*mask.shape, 4), dtype=np.uint8)
    values[mask] = 255
    flat = values.ravel()
    lengths = (3, 6, 12, 16)  # bits of a count
    bits = f"{len(flat):032b}{8 - 1:05b}" + "".join(f"{length - 1:04b}" for length in lengths)
    bits += "0" + "00" + f"{4 - 1:03b}" + "".join(f"{value:08b}" for value in flat[:4])
    at = 4
    ends = np.concatenate((np.flatnonzero(np.diff(flat)) + 1, [len(flat)]))
    for end in ends[ends > 4]:
        count = int(end) - at
        index = next(i for i, length in enumerate(lengths) if count <= 1 << length)
        bits += "1" + f"{index:02b}" + f"{count - 1:0{lengths[index]}b}" + f"{flat[at]:08b}"
        at = int(end)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def write_masks(root: Path) -> Path:
    """A folder per class, a value per object."""
    draw_images(root / "images")
    for name, objects in SCENES.items():
        for category in {drawn.category for drawn in objects}:
            values = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            for number, drawn in enumerate((d for d in objects if d.category == category), start=1):
                values[drawn.mask] = number * 40
            save_mask(root / "masks" / category / name, values)
    return root


def write_masks_of_objects(root: Path) -> Path:
    """A folder per image, a file per object."""
    draw_images(root / "images")
    for name, objects in SCENES.items():
        for number, drawn in enumerate(objects):
            file = root / "masks" / Path(name).stem / f"{drawn.category}_{number}.png"
            save_mask(file, drawn.mask.astype(np.uint8) * 255)
    return root


def save_mask(path: Path, values: npt.NDArray[Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def dump(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


WRITERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "coco": ("coco", write_coco),
    "yolo": ("yolo", write_yolo),
    "labelme": ("labelme", write_labelme),
    "labelme masks": ("labelme", write_labelme_masks),
    "voc": ("voc", write_voc),
    "via": ("via", write_via),
    "cvat": ("cvat", write_cvat),
    "cvat masks": ("cvat", write_cvat_masks),
    "label studio": ("label-studio", write_label_studio),
    "label studio brush": ("label-studio", write_label_studio_brush),
    "masks": ("masks", write_masks),
    "masks of objects": ("masks", write_masks_of_objects),
}
"""Name -> the format that samif must recognise, and the function that writes into a folder and returns the source."""

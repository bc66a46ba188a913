"""Which format a file or folder of labels is in, by its content."""

from __future__ import annotations

from pathlib import Path

from samif.dataset.formats import coco, label_studio, labelme, via, voc, yolo
from samif.dataset.formats.documents import read_bytes, read_json, read_xml
from samif.dataset.formats.mask_folder import mask_roots
from samif.errors import DataError, ObjectMissing

FORMATS = ("coco", "yolo", "labelme", "voc", "via", "cvat", "label-studio", "masks")

_MOST = 20
"""Files of a kind in a folder that are opened for the guess."""


def guess_format(path: Path) -> tuple[str, str]:
    """Name of the format (one of `FORMATS`), and what it was recognised by.

    Raises:
        ObjectMissing: there is no such file or folder.
        DataError: the format is none of those.
    """
    if not path.exists():
        raise ObjectMissing(f"{path} does not exist; name the file or folder of the labels")
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    if found is None:
        raise DataError(
            f"{path} is in no format that samif imports ({', '.join(FORMATS)}); name the format with --format, or "
            "export the labels in one of them"
        )
    return found


def _of_file(path: Path) -> tuple[str, str] | None:
    if path.suffix.lower() in (".yaml", ".yml"):
        return ("yolo", f"the 'names' in {path.name}") if "names" in yolo.load_config(path) else None
    data = read_bytes(path)
    if data[:2] == b"PK":
        raise DataError(f"{path} is a zip archive; unpack it and name the folder")
    if data.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<":
        return _of_xml(path)
    if path.suffix.lower() == ".csv":
        raise DataError(f"{path} is a CSV file; export the annotations as JSON")
    if path.suffix.lower() == ".txt":
        raise DataError(f"{path} is a text file; name the folder of the data set, or its data.yaml")
    return _of_json(path, read_json(path))


def _of_xml(path: Path) -> tuple[str, str] | None:
    tag = read_xml(path).tag
    if tag == "annotation":
        raise DataError(f"{path} is a Pascal VOC file of boxes; name the folder that holds SegmentationClass")
    return ("cvat", f"the element 'annotations' in {path.name}") if tag == "annotations" else None


def _of_json(path: Path, content: object) -> tuple[str, str] | None:
    if coco.is_coco(content):
        return "coco", f"'images', 'annotations' and 'categories' in {path.name}"
    if labelme.is_labelme(content):
        return "labelme", f"'shapes' and 'imagePath' in {path.name}"
    if label_studio.is_label_studio(content):
        return "label-studio", f"tasks with 'data' and 'annotations' in {path.name}"
    if isinstance(content, dict) and {"project", "file", "metadata"} <= content.keys():
        raise DataError(f"{path} is a project of VGG Image Annotator 3; export it as COCO")
    if via.is_via(content):
        return "via", f"'regions' by 'filename' in {path.name}"
    if isinstance(content, list) and any(isinstance(task, dict) and "label" in task for task in content):
        raise DataError(f"{path} is an export of Label Studio as JSON-MIN; export the project as JSON")
    return None


def _of_folder(path: Path) -> tuple[str, str] | None:
    for folder in (path, path.parent):
        if (folder / voc.CLASSES).is_dir() and folder in (path, path if path.name not in _VOC_FOLDERS else path.parent):
            return "voc", f"the folder {voc.CLASSES}"
    config = yolo.config_of(path)
    if config is not None:
        return "yolo", f"the 'names' in {config.name}"
    for file in [*_first(path, "*.xml"), *_first(path, "*.json")]:
        try:
            found = _of_file(file)
        except DataError:
            continue
        if found is not None:
            if found[0] in ("via", "label-studio"):
                raise DataError(f"{path} holds {file.name}, a file of the format {found[0]}; name that file")
            return found
    if mask_roots(path):
        return "masks", f"the folder {mask_roots(path)[0].name}"
    if (path / "classes.txt").is_file() or any(path.glob("labels/**/*.txt")):
        return "yolo", "the text files of labels"
    return None


_VOC_FOLDERS = (voc.CLASSES, voc.OBJECTS)


def _first(path: Path, pattern: str) -> list[Path]:
    """The first files of a pattern in a folder and below it."""
    return sorted(path.rglob(pattern), key=lambda file: (len(file.parts), file))[:_MOST]

"""The JSON of a COCO instance file: any Unicode encoding, gzip; other formats are named in one sentence."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samif.errors import DataError, ObjectMissing

KEYS = ("images", "annotations", "categories")
_IMPORT = "convert it with 'samif data import'"
_EXPORT = "export the annotations as COCO instances"


def load_json(path: Path) -> dict[str, list[Any]]:
    """The content of a COCO instance file, whose lists are there but whose records are not checked.

    UTF-8, UTF-16 and UTF-32 are read, with and without a byte order mark, and so is a gzip file.

    Raises:
        ObjectMissing: there is no such file.
        DataError: the file cannot be read, is not JSON, or is JSON of another format, which is named.
    """
    with reading_json(path):
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        raw = _parsed(data, path)
    other = _other_list(raw) if isinstance(raw, list) else _other_object(raw)
    if other is not None:
        what, remedy = other
        raise DataError(f"{path} {what}; {remedy}")
    content: dict[str, list[Any]] = raw
    return content


@contextmanager
def reading_json(path: Path) -> Iterator[None]:
    """Whatever reading and parsing a file raises becomes one sentence.

    Raises:
        ObjectMissing: there is no such file.
        DataError: it cannot be read, or is not JSON.
    """
    try:
        yield
    except FileNotFoundError:
        raise ObjectMissing(f"{path} does not exist; name the COCO annotation file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is a damaged or incomplete gzip file; copy it again from its origin") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name the COCO annotation file") from None
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[0]:02x} at position {error.start}"
        raise DataError(
            f"{path} is not JSON (it is not in Unicode: {byte}); save it as UTF-8 or {_EXPORT} again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); {_EXPORT} again") from None


def several_documents(path: Path) -> DataError:
    """The error for more than one JSON object in a file."""
    return DataError(f"{path} is not JSON (it is a sequence of JSON documents, one a line); {_EXPORT} again")


def _parsed(data: bytes, path: Path) -> Any:
    if not data.strip():
        raise DataError(f"{path} is not JSON (it is empty); {_EXPORT} again")
    if data.lstrip()[:1] == b"<":
        raise DataError(f"{path} is not JSON (it is XML, as CVAT and Pascal VOC write it); {_IMPORT}, or {_EXPORT}")
    if data[:2] == b"PK":
        raise DataError(f"{path} is not JSON (it is a zip archive); unpack it and name the JSON file inside")
    try:
        return json.loads(data)
    except UnicodeDecodeError as error:
        bad = error.object[error.start : error.start + 1]
        raise UnicodeDecodeError(error.encoding, bad, error.start, error.end, error.reason) from None
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or data.lstrip()[:1] != b"{":
            raise
        raise several_documents(path) from None


def _other_list(raw: list[Any]) -> tuple[str, str]:
    """What a file is whose content is a list, and the remedy."""
    first = next((record for record in raw if isinstance(record, dict)), {})
    if "image_id" in first and "score" in first:
        return "holds COCO results (detections with a score), not labels", "name the COCO instance file of the labels"
    if "annotations" in first and ("data" in first or "completed_by" in first or "file_upload" in first):
        return "is an export of Label Studio, not a COCO instance file", f"{_IMPORT}, or export it as COCO"
    if "image" in first and "annotations" in first:
        return "is a CreateML file, not a COCO instance file", _EXPORT
    if "image_id" in first and "category_id" in first:
        return "holds only the list of annotations, without images and categories", "export the whole COCO file"
    return "holds a list, not a COCO object", _EXPORT


def _other_object(raw: Any) -> tuple[str, str] | None:
    """What a file is that is no COCO instance file, and the remedy; None for a COCO instance file."""
    if not isinstance(raw, dict):
        return f"holds a {type(raw).__name__}, not a COCO object", _EXPORT
    missing = [key for key in KEYS if not isinstance(raw.get(key), list)]
    if missing:
        format_ = _format_of(raw)
        if format_ is not None:
            imported = format_ in ("a VGG Image Annotator file", "a labelme file")
            return f"is {format_}, not a COCO instance file", f"{_IMPORT}, or {_EXPORT}" if imported else _EXPORT
        return f"has no list '{missing[0]}', a COCO file has {', '.join(KEYS)}", _EXPORT
    annotations = [record for record in raw["annotations"] if isinstance(record, dict)]
    if any("segments_info" in record for record in annotations):
        return (
            "is a COCO panoptic file, whose masks are in PNG files, not a COCO instance file",
            "convert it with panopticapi's panoptic2detection_coco_format, or export the annotations as COCO instances",
        )
    if annotations and all("caption" in record for record in annotations):
        return "is a COCO captions file, which outlines nothing", "name the COCO instance file"
    images = [record for record in raw["images"] if isinstance(record, dict)]
    if images and all("file_name" not in record and "coco_url" in record for record in images):
        return (
            "is an LVIS file, whose images have a 'coco_url' and no 'file_name'",
            "write the last two parts of 'coco_url' into 'file_name' of every image",
        )
    return None


def _format_of(raw: dict[str, Any]) -> str | None:
    values = [value for value in raw.values() if isinstance(value, dict)]
    if "_via_img_metadata" in raw or "via_settings" in raw or "_via_settings" in raw:
        return "a VGG Image Annotator file"
    if values and all("regions" in value and "filename" in value for value in values):
        return "a VGG Image Annotator file"
    if "shapes" in raw and ("imagePath" in raw or "imageData" in raw or "version" in raw):
        return "a labelme file"
    if "items" in raw and "categories" in raw:
        return "a Datumaro file"
    if "objects" in raw and "size" in raw:
        return "a Supervisely annotation"
    if "samples" in raw:
        return "a FiftyOne dataset"
    if raw.get("type") == "FeatureCollection":
        return "a GeoJSON file"
    if "result" in raw or "completions" in raw:
        return "a task of Label Studio"
    return None

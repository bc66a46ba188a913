"""A wheel of the samif that is running: its packages as they are installed, nothing of a checkout around them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from samif.errors import ConfigError

PACKAGES = ("samif", "flows")
MOST_BYTES = 64 * 2**20
"""Ray refuses packages beyond a few hundred MB; ours has 10. More means that a file is in it by mistake."""

_SKIPPED = frozenset({"__pycache__"})
_EPOCH = (2020, 1, 1, 0, 0, 0)  # the same files give the same bytes


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this samif into a folder; the same packages give the same name and bytes.

    It names no dependencies, so that installing it looks nothing up and replaces nothing: a cluster has them in its
    image. Its build tag carries the digest of the content, because Ray takes equal file names for equal files.

    Raises:
        SamifError: a package is not a folder of files, or the wheel would be larger than `MOST_BYTES`.
    """
    return write_wheel(folder, {name: path.read_bytes() for name, path in _sources().items()})


def write_wheel(folder: Path, sources: Mapping[str, bytes]) -> Path:
    """Write a wheel called samif that holds `sources` (path in the wheel -> content); returns its path."""
    version = metadata.version("samif")
    info = f"samif-{version}.dist-info"
    files = dict(sources) | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: samif\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: samif\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": b"[console_scripts]\nsamif = flows.cli:main\n",
    }
    size = sum(map(len, files.values()))
    if size > MOST_BYTES:
        largest = max(files, key=lambda name: len(files[name]))
        raise ConfigError(
            f"the package to send holds {size / 2**20:.0f} MiB, at most {MOST_BYTES / 2**20:.0f} are sent; the largest "
            f"file is {largest}: move it out of the package"
        )
    rows = [(name, f"sha256={_urlsafe(content)}", str(len(content))) for name, content in sorted(files.items())]
    record = io.StringIO()
    csv.writer(record, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
    digest = hashlib.sha256(record.getvalue().encode()).hexdigest()
    path = folder / f"samif-{version}-0x{digest[:16]}-py3-none-any.whl"  # a build tag begins with a digit
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in [*sorted(files.items()), (f"{info}/RECORD", record.getvalue().encode())]:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def _sources() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                f"the package {package} is not installed as a folder, so it cannot be sent; reinstall samif"
            )
        root = Path(spec.submodule_search_locations[0])
        for path in root.rglob("*"):
            inside = path.relative_to(root)
            if path.is_file() and not _SKIPPED & set(inside.parts) and not path.name.startswith("."):
                found[f"{package}/{inside.as_posix()}"] = path
    return found


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()

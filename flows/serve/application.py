"""The service as applications of an existing Ray cluster: what `serve deploy` and KubeRay's RayService import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator

from flows.http.auth import VARIABLE, digest_of, find_token
from flows.serve.routes import SINGLE, line_of, routes_of
from flows.serve.settings import CanarySettings, KeepSettings, Limits, ReplicaCount, Settings, ShadowSettings
from samif.config import Strict
from samif.errors import ConfigError
from samif.io.address import has_credentials

IMPORT_PATH = "flows.serve.application:application"


class Arguments(Strict):
    """`args` of the application, as `samif serve` has them as options.

    Attributes:
        model: NAME@alias (followed), NAME/VERSION, or a folder.
        workspace: a folder that every node of the cluster sees at the same path.
        state: a folder of each node's own, which its replicas make and share; each line has a part of it.
        replicas: a number, or LEAST-MOST for as many as the load asks for.
        target_requests: per replica, where their number follows the load; none means two per image of a batch.
        cpus, gpus: of each replica.
        canary: NAME@alias that answers `percent` of the requests.
        keep: a folder for answers with their images, of every node's own or shared by all.
        wait_for_model: come up without a model where none can be loaded. A RayService waits for all of its
            applications, so that one line without a champion would keep the others from going live.
    """

    model: str
    workspace: str
    state: str
    replicas: Annotated[int, Field(ge=1)] | str = 1
    target_requests: Annotated[float, Field(gt=0.0)] | None = None
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0.0)] = 0.0
    batch: Annotated[int, Field(ge=1, le=64)] = 1
    interval: Annotated[float, Field(ge=0.05, le=60.0)] = 0.3
    checkpoint: str | None = None
    semantic_checkpoint: str | None = None
    shadow: str | None = None
    shadow_folder: str | None = None
    shadow_samples: Annotated[int, Field(ge=1)] = 100
    canary: str | None = None
    percent: Annotated[float, Field(gt=0.0, le=50.0)] = 10.0
    keep: str | None = None
    keep_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    keep_unknown: bool = False
    keep_uncertain: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    keep_images: Annotated[int, Field(ge=1)] = 1000
    keep_mb: Annotated[float, Field(gt=0.0)] = 1000.0
    max_mb: Annotated[float, Field(gt=0.0)] = 32.0
    max_megapixels: Annotated[float, Field(gt=0.0, le=200.0)] = 50.0
    upload_seconds: Annotated[float, Field(gt=0.0)] = 15.0
    work_seconds: Annotated[float, Field(gt=0.0)] = 60.0
    queue: Annotated[int, Field(ge=1)] = 32
    wait_for_model: bool = False

    @field_validator("replicas")
    @classmethod
    def _counted(cls, value: int | str) -> int | str:
        try:
            ReplicaCount.parse(str(value))
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("checkpoint", "semantic_checkpoint")
    @classmethod
    def _secretless(cls, value: str | None) -> str | None:
        if value is not None and has_credentials(value):
            raise ValueError("an address with a password or signature; give the credentials to the cluster's nodes")
        return value

    @property
    def count(self) -> ReplicaCount:
        """Number of replicas."""
        return ReplicaCount.parse(str(self.replicas), self.target_requests)

    @classmethod
    def of(cls, settings: Settings, state: Path, count: ReplicaCount, gpus: float = 0.0) -> Self:
        """The arguments from which `settings` makes the same settings, apart from the token and the application's name.

        Args:
            state: the folder of which the line has a part.
            gpus: of each replica.

        Raises:
            ConfigError: a value does not fit.
        """
        limits, shadow, keep = settings.limits, settings.shadow, settings.keep
        values: dict[str, Any] = {
            "model": settings.ref,
            "workspace": str(settings.root),
            "state": str(state),
            "replicas": count.least if count.least == count.most else str(count),
            "target_requests": count.target,
            "cpus": settings.threads,
            "gpus": gpus,
            "batch": settings.batch,
            "interval": settings.interval,
            "checkpoint": settings.checkpoint,
            "semantic_checkpoint": settings.semantic_checkpoint,
            "max_mb": limits.bytes / 1e6,
            "max_megapixels": limits.pixels / 1e6,
            "upload_seconds": limits.upload_seconds,
            "work_seconds": limits.work_seconds,
            "queue": limits.queue,
            "wait_for_model": settings.wait_for_model,
        }
        if shadow is not None:
            values |= {"shadow": shadow.ref, "shadow_samples": shadow.samples}
            values |= {"shadow_folder": str(shadow.folder) if shadow.folder else None}
        if settings.canary is not None:
            values |= {"canary": settings.canary.ref, "percent": settings.canary.percent}
        if keep is not None:
            values |= {"keep": str(keep.folder), "keep_share": keep.share, "keep_unknown": keep.unknown}
            values |= {"keep_uncertain": keep.uncertain, "keep_images": keep.images, "keep_mb": keep.bytes / 1e6}
        return cls.parse(values)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Checked arguments.

        Raises:
            ConfigError: they do not fit.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"args of the application: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    def settings(self, token_sha256: str | None) -> Settings:
        """What the replicas of the line are started with."""
        shadow = None
        if self.shadow is not None:
            folder = Path(self.shadow_folder) if self.shadow_folder else None
            shadow = ShadowSettings(self.shadow, folder, self.shadow_samples)
        keep = None
        if self.keep is not None:
            keep = KeepSettings(
                Path(self.keep),
                self.keep_share,
                self.keep_unknown,
                self.keep_uncertain,
                self.keep_images,
                round(self.keep_mb * 1e6),
            )
        return Settings(
            ref=self.model,
            root=Path(self.workspace),
            state=Path(self.state) / (line_of(self.model) or SINGLE),
            token_sha256=token_sha256,
            checkpoint=self.checkpoint,
            semantic_checkpoint=self.semantic_checkpoint,
            interval=self.interval,
            threads=self.cpus,
            batch=self.batch,
            limits=Limits(
                round(self.max_mb * 1e6),
                round(self.max_megapixels * 1e6),
                self.upload_seconds,
                self.work_seconds,
                self.queue,
            ),
            shadow=shadow,
            keep=keep,
            canary=CanarySettings(self.canary, self.percent) if self.canary is not None else None,
            wait_for_model=self.wait_for_model,
        )


def application(arguments: dict[str, Any]) -> Any:
    """What `import_path: flows.serve.application:application` builds; the token is that of SAMIF_SERVE_TOKEN.

    Raises:
        ConfigError: the arguments do not fit, shadow or canary are not of the line, or there is no token.
    """
    given = Arguments.parse(arguments)
    routes_of([given.model], [Path(given.workspace)], _some(given.shadow), _some(given.canary))
    if VARIABLE not in os.environ:
        raise ConfigError(f"{VARIABLE} is not set on the cluster's nodes; the service is not for everybody")
    token, _ = find_token(None, Path(os.devnull), "0.0.0.0", True)
    assert token is not None
    from flows.serve.replica import deployment

    return deployment(given.settings(digest_of(token)), given.count, given.cpus, given.gpus)


def _some(ref: str | None) -> list[str]:
    return [] if ref is None else [ref]

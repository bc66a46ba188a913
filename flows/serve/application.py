"""The service as an application of an existing Ray cluster, as KubeRay's RayService imports it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from flows.http.auth import VARIABLE, digest_of, find_token
from flows.serve.routes import SINGLE, line_of, routes_of
from flows.serve.settings import CanarySettings, KeepSettings, Settings, ShadowSettings
from samif.config import Strict
from samif.errors import ConfigError


class Arguments(Strict):
    """`args` of the application, as `samif serve` has them as options.

    Attributes:
        model: NAME@alias (followed), NAME/VERSION, or a folder.
        workspace: a folder that every node of the cluster sees at the same path.
        state: a folder of each node's own, which its replicas make and share; each line has a part of it.
        cpus, gpus: of each replica.
        canary: NAME@alias that answers `percent` of the requests.
        keep: a folder for answers with their images, of every node's own or shared by all.
        wait_for_model: come up without a model where none can be loaded. A RayService waits for all of its
            applications, so that one line without a champion would keep the others from going live.
    """

    model: str
    workspace: str
    state: str
    replicas: Annotated[int, Field(ge=1)] = 1
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0.0)] = 0.0
    batch: Annotated[int, Field(ge=1, le=64)] = 1
    interval: Annotated[float, Field(ge=0.05, le=60.0)] = 0.3
    checkpoint: str | None = None
    shadow: str | None = None
    canary: str | None = None
    percent: Annotated[float, Field(gt=0.0, le=50.0)] = 10.0
    keep: str | None = None
    keep_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    keep_unknown: bool = False
    keep_uncertain: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    keep_images: Annotated[int, Field(ge=1)] = 1000
    keep_mb: Annotated[float, Field(gt=0.0)] = 1000.0
    wait_for_model: bool = False


def application(arguments: dict[str, Any]) -> Any:
    """What `import_path: flows.serve.application:application` builds; the token is that of SAMIF_SERVE_TOKEN.

    Raises:
        ConfigError: the arguments do not fit, shadow or canary are not of the line, or there is no token.
    """
    try:
        given = Arguments.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"args of the application: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    routes_of([given.model], [Path(given.workspace)], _some(given.shadow), _some(given.canary))
    if VARIABLE not in os.environ:
        raise ConfigError(f"{VARIABLE} is not set on the cluster's nodes; the service is not for everybody")
    token, _ = find_token(None, Path(os.devnull), "0.0.0.0", True)
    assert token is not None
    settings = Settings(
        ref=given.model,
        root=Path(given.workspace),
        state=Path(given.state) / (line_of(given.model) or SINGLE),
        token_sha256=digest_of(token),
        checkpoint=given.checkpoint,
        interval=given.interval,
        threads=given.cpus,
        batch=given.batch,
        shadow=ShadowSettings(given.shadow) if given.shadow else None,
        canary=CanarySettings(given.canary, given.percent) if given.canary else None,
        keep=KeepSettings(
            Path(given.keep),
            given.keep_share,
            given.keep_unknown,
            given.keep_uncertain,
            given.keep_images,
            int(given.keep_mb * 1e6),
        )
        if given.keep
        else None,
        wait_for_model=given.wait_for_model,
    )
    from flows.serve.replica import deployment

    return deployment(settings, given.replicas, given.cpus, given.gpus)


def _some(ref: str | None) -> list[str]:
    return [] if ref is None else [ref]

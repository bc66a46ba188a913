"""`samif serve --write-config`: the file that it writes, and the application that Ray Serve builds from it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from ray.serve.schema import ServeDeploySchema
from ruamel.yaml import YAML
from typer.testing import CliRunner

import flows.cli.serve  # noqa: F401  (registers its command)
from flows.cli.app import app
from flows.http.auth import VARIABLE, digest_of
from flows.serve.application import Arguments, application
from flows.serve.config_file import write_serve_config
from flows.serve.settings import CanarySettings, KeepSettings, Limits, ReplicaCount, Settings, ShadowSettings
from samif.errors import ConfigError, SamifError

TOKEN = "a-token-of-the-tests-own"
STATE = Path("/tmp/samif-serve-8090")
FULL = Settings(
    ref="demo@champion",
    root=Path("/lines/demo"),
    state=STATE / "demo",
    token_sha256=digest_of(TOKEN),
    checkpoint="s3://weights/sam.pth",
    semantic_checkpoint="/weights/vit.safetensors",
    interval=0.5,
    threads=3,
    batch=4,
    limits=Limits(2_299_999, 12_345_678, 1.5, 2.5, 7),
    shadow=ShadowSettings("demo@challenger", Path("/samples"), 5),
    keep=KeepSettings(Path("/kept"), 0.2, True, 0.3, 7, 2_299_999),
    wait_for_model=True,
)
CANARY = replace(FULL, shadow=None, canary=CanarySettings("demo@challenger", 25.0))
"""A line has a shadow or a canary."""
BESIDE = {"name", "route"}
"""Fields that are beside `args` in the file."""


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = YAML(typ="safe").load(path.read_text())
    ServeDeploySchema.model_validate(config)
    return config


def built(app: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(VARIABLE, TOKEN)
    return application(app["args"])._bound_deployment


@pytest.mark.parametrize("count", [ReplicaCount(), ReplicaCount(3, 3), ReplicaCount(1, 4), ReplicaCount(2, 9, 1.5)])
def test_every_setting_comes_back(count: ReplicaCount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    least = Settings(FULL.ref, FULL.root, FULL.state, FULL.token_sha256)
    for field in fields(Settings):
        if field.name not in BESIDE | {"ref", "root", "state", "token_sha256"}:
            values = {repr(getattr(settings, field.name)) for settings in (FULL, CANARY, least)}
            assert len(values) > 1, f"{field.name} is not tested"
    for settings in (FULL, CANARY, least):
        write_serve_config(tmp_path / "serve.yaml", [settings], STATE, count, "0.0.0.0", 8090)
        [app] = read(tmp_path / "serve.yaml")["applications"]
        assert built(app, monkeypatch).init_args == (settings,)
        assert Arguments.parse(app["args"]).count == count
        assert Arguments.of(settings, STATE, count) == Arguments.parse(app["args"])


def test_a_file_of_two_lines(tmp_path: Path) -> None:
    lines = [replace(FULL, ref=f"{name}@champion", name=name, route=f"/{name}") for name in ("a", "b")]
    write_serve_config(tmp_path / "serve.yaml", lines, STATE, ReplicaCount(), "::", 8091)
    config = read(tmp_path / "serve.yaml")
    assert config["http_options"] == {"host": "::", "port": 8091}
    assert [(app["name"], app["route_prefix"], app["args"]["model"]) for app in config["applications"]] == [
        ("a", "/a", "a@champion"), ("b", "/b", "b@champion")
    ]  # fmt: skip


def run(*words: str) -> str:
    """The command's output, or the error that it ends with."""
    done = CliRunner().invoke(app, ["serve", *words])
    if isinstance(done.exception, SamifError):
        return str(done.exception)
    return done.output if done.exit_code == 0 else f"exit {done.exit_code}: {done.output} {done.exception!r}"


def test_the_command_writes_it_and_serves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").touch()
    words = [
        "demo@champion",
        "-w",
        str(tmp_path),
        "--write-config",
        "serve.yaml",
        "--replicas",
        "1-4",
        "--port",
        "9001",
    ]
    words += ["--threads", "2", "--keep", "kept", "--checkpoint", "weights.pth", "--max-mb", "2"]
    assert "serve.yaml is written" in run(*words)
    [app] = read(tmp_path / "serve.yaml")["applications"]
    expected = {"model": "demo@champion", "workspace": str(tmp_path), "replicas": "1-4", "cpus": 2, "gpus": 0.0}
    expected |= {"keep": str(tmp_path / "kept"), "checkpoint": str(tmp_path / "weights.pth"), "max_mb": 2.0}
    assert {key: app["args"][key] for key in expected} == expected
    assert app["args"]["state"].endswith("/samif-serve-9001") and "batch" not in app["args"]
    assert TOKEN not in (tmp_path / "serve.yaml").read_text() and VARIABLE in (tmp_path / "serve.yaml").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"serve.yaml", "weights.pth"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["demo@champion", "--no-token"], "takes neither --token-file nor --no-token"),
        (["demo@champion", "--token-file", "t"], "takes neither --token-file nor --no-token"),
        (["demo@champion", "--replicas", "0"], "'0' is no number of replicas; write a number such as 2, or LEAST-MOST"),
        (["demo@champion", "--replicas", "4-1"], "'4-1' is no number of replicas"),
        (["demo@champion", "--replicas", "two"], "'two' is no number of replicas"),
        (["demo@champion", "--replicas", "-1"], "'-1' is no number of replicas"),
        (["demo"], "'demo' names no version for a config file"),
        (["models/gone"], "'models/gone' names no version for a config file"),
        (["demo@champion", "--checkpoint", "https://ann:secret@host/sam.pth"], "password or signature"),
        (["demo@champion", "--checkpoint", "ftp://host/sam.pth"], "not ftp://"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(*words, "--write-config", "serve.yaml")
    assert sentence in said and "secret@" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": "0-2"}, {"replicas": "3-2"}, {"replicas": 0}, {"replicas": True}, {"replicas": 1.0},
        {"cpus": "2"}, {"queue": 0}, {"max_megapixels": 201.0}, {"target_requests": 0.0}, {"token": TOKEN},
    ],
)  # fmt: skip
def test_arguments_are_strict(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"args of the application: {next(iter(wrong))}"):
        Arguments.parse({"model": "demo@champion", "workspace": "/w", "state": "/s"} | wrong)


@pytest.mark.parametrize(
    ("replicas", "batch", "target", "expected"),
    [
        (2, 1, None, None), ("2", 1, 3.0, None), ("2-2", 1, None, None),
        ("1-4", 1, None, (1, 4, 2.0)), ("2-3", 8, None, (2, 3, 16.0)), ("1-2", 8, 5.0, (1, 2, 5.0)),
    ],
)  # fmt: skip
def test_the_number_of_replicas_follows_the_load_where_it_may(
    replicas: int | str,
    batch: int,
    target: float | None,
    expected: tuple[int, int, float] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = {"model": "demo@champion", "workspace": "/w", "state": "/s", "replicas": replicas, "batch": batch}
    deployment = built({"args": args | {"target_requests": target}}, monkeypatch)
    scaling = deployment._deployment_config.autoscaling_config
    if expected is None:
        assert scaling is None and deployment.num_replicas == 2
        return
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == expected
    assert scaling.initial_replicas == expected[0]
    assert deployment.max_ongoing_requests > expected[2]

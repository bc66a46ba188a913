"""The manifests hold, and worse ones are refused."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.serve.application import application
from flows.serve.settings import KeepSettings
from samif.errors import SamifError
from tests.support.manifests import FOLDER, containers, faults, load, two_lines


def test_the_manifests_hold() -> None:
    manifests = load()
    assert faults(manifests) == []
    kinds = {place.partition("/")[0] for place in manifests}
    assert kinds >= {"RayCluster", "RayJob", "RayService", "CronJob", "NetworkPolicy"}
    assert len(list(containers(manifests))) == 8


GPU = "RayCluster/samif/spec/workerGroupSpecs/0"
HEAD = "RayCluster/samif/spec/headGroupSpec"
CRON = "CronJob/samif-retrain/spec/jobTemplate/spec/template"
LEAVE_OUT = object()


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("CronJob/samif-retrain/spec/schedul", "@daily", "CronJob/samif-retrain: spec.*'schedul' was unexpected"),
        ("CronJob/samif-retrain/spec/schedule", LEAVE_OUT, "'schedule' is a required property"),
        ("CronJob/samif-retrain/spec/concurrencyPolicy", 3, "spec.concurrencyPolicy"),
        (f"{GPU}/template/spec/containers/0/volumeMount", [], "samif gpu: .*'volumeMount' was unexpected"),
        (
            f"{GPU}/template/spec/containers/0/resources/limits",
            ["cpu"],
            "samif gpu: spec.containers.0.resources.lim",
        ),
        ("RayCluster/samif/spec/workerGroups", [], "RayCluster/samif: unknown field 'workerGroups'"),
        (f"{GPU}/minReplica", 0, "unknown field 'minReplica'"),
        (f"{GPU}/minReplicas", 3, "0 replicas, between 3"),
        (f"{HEAD}/rayStartParams/num-cpus", 0, "rayStartParams are text"),
        ("RayCluster/samif/spec/rayVersion", "2.44.0", "rayVersion is 2.44.0, the image has"),
        ("RayCluster/samif/spec/authOptions/mode", "disabled", "everybody may use the cluster"),
        ("RayCluster/samif/spec/enableInTreeAutoscaling", False, "no workers, and nobody to call for them"),
        (f"{GPU}/template/spec/containers/0/resources/limits/nvidia.com~gpu", LEAVE_OUT, "workers without a GPU"),
        (f"{CRON}/spec/containers/0/image", "samif:latest", "image 'samif:latest' is not samif:"),
        (f"{CRON}/spec/containers/0/env/1", {"name": "RAY_AUTH_TOKEN", "value": "abc"}, "RAY_AUTH_TOKEN has its value"),
        (
            f"{CRON}/spec/containers/0/env/1/valueFrom/secretKeyRef/key",
            "token",
            "no key 'token' in a secret",
        ),
        ("RayCluster/samif/spec/authOptions/secretName", "ray", "no key 'auth_token' in a secret 'ray'"),
        ("Kustomization//secretGenerator/0/envs", ["secrets/bucket.env"], "secrets/bucket.env.example is not there"),
        (f"{CRON}/spec/volumes/0/persistentVolumeClaim/claimName", "lines", "there is no claim 'lines'"),
        (f"{CRON}/spec/volumes/0/name", "line", "there is no volume lines"),
        (f"{CRON}/spec/containers/0/envFrom/0/configMapRef/name", "samif", "there is no ConfigMap 'samif'"),
        ("Kustomization//resources/6", "cron.yaml", "cron.yaml: applied and not there"),
        (f"{CRON}/spec/securityContext/runAsNonRoot", False, "samif-retrain pod: submit: may run as root"),
        (f"{GPU}/template/spec/containers/0/securityContext/capabilities", {}, "ray-worker: may gain rights"),
        (f"{CRON}/spec/containers/0/resources/limits/memory", LEAVE_OUT, "no limits of memory"),
        (f"{CRON}/spec/automountServiceAccountToken", True, "submit: holds a token of the Kubernetes API"),
        ("NetworkPolicy/deny-all/spec/policyTypes", ["Ingress"], "deny-all: does not close everything"),
        ("NetworkPolicy/serve/spec/ingress/0/from", LEAVE_OUT, "serve: ingress for everybody"),
        ("NetworkPolicy/serve/spec/ingress/0/ports/0/port", 8080, "serve: ingress does not agree with port 'serve'"),
        ("NetworkPolicy/submitters/spec/egress/0/ports/0/port", 10001, "submit: port 8265 of samif-head-svc is closed"),
        (f"{CRON}/metadata/labels/app.kubernetes.io~component", "trainer", "submit: is no submitter to the network"),
        (f"{CRON}/spec/containers/0/command/2", "--address=http://ray-head-svc:8265", "there is no service 'ray-head"),
        (f"{CRON}/spec/containers/0/command/3", "--workspaces=/lines/demo", "No such option: --workspaces"),
        ("RayJob/samif-run-/spec/entrypoint", "samif runs", "there is no command 'runs'"),
        ("RayJob/samif-run-/spec/entrypoint", "samif run --why", "requires an argument"),
    ],
)
def test_worse_manifests_are_refused(path: str, value: object, sentence: str) -> None:
    manifests = copy.deepcopy(load())
    kind, name, *way = path.split("/")
    place: Any = manifests[f"{kind}/{name}"]
    *way, last = [int(step) if step.isdigit() else step.replace("~", "/") for step in way]
    for step in way:
        place = place[step]
    if value is LEAVE_OUT:
        del place[last]
    else:
        place[last] = value
    found = faults(manifests)
    assert any(re.search(sentence, fault) for fault in found), found


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("gpus: 1.0", "gpus: 2.0", "a replica does not fit on a worker"),
        ("replicas: 2", "replicas: 9", "more replicas than workers"),
        ("model:", "modell:", "args: .*modell"),
        (":application", ":app", "flows.serve.application:app is not there"),
        ("port: 8000", "port: 8080", "the proxies listen where nobody asks"),
        ("state: /tmp", "state: /lines", "/lines/samif-serve is shared by machines"),
        ("name: other", "name: samif", "two applications have one name"),
        ("route_prefix: /other", "route_prefix: /", "two applications have one route_prefix"),
        ("wait_for_model: true", "wait_for_model: 2", "args: .*wait_for_model"),
    ],
)
def test_a_worse_service_is_refused(old: str, new: str, sentence: str) -> None:
    manifests = copy.deepcopy(load())
    spec = manifests["RayService/samif-serve"]["spec"]
    spec["serveConfigV2"] = two_lines(spec["serveConfigV2"])
    assert not any(fault.startswith("RayService: ") for fault in faults(manifests))
    assert old in spec["serveConfigV2"]
    spec["serveConfigV2"] = spec["serveConfigV2"].replace(old, new, 1)
    assert any(re.search(sentence, fault, re.DOTALL) for fault in faults(manifests))


def test_kustomize_takes_them(tmp_path: Path) -> None:
    """With the secrets' files in place, as the README beside them says."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    for example in folder.glob("secrets/*.example"):
        shutil.copy(example, example.with_suffix(""))
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made = {(doc["kind"], doc["metadata"]["name"]) for doc in YAML(typ="safe").load_all(done.stdout)}
    assert {("Secret", "samif-ray"), ("RayCluster", "samif"), ("CronJob", "samif-retrain")} <= made


# the application that RayService imports


def test_the_application_is_that_of_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = YAML(typ="safe").load(load()["RayService/samif-serve"]["spec"]["serveConfigV2"])
    arguments = {**config["applications"][0]["args"], "workspace": str(tmp_path), "state": str(tmp_path / "state")}
    monkeypatch.delenv("SAMIF_SERVE_TOKEN", raising=False)
    with pytest.raises(SamifError, match="SAMIF_SERVE_TOKEN is not set on the cluster's nodes"):
        application(arguments)
    monkeypatch.setenv("SAMIF_SERVE_TOKEN", "a-token-of-the-tests-own")
    app = application(arguments)
    deployment = app._bound_deployment
    assert deployment.num_replicas == 2
    assert {key: deployment.ray_actor_options[key] for key in ("num_cpus", "num_gpus")} == {
        "num_cpus": 4,
        "num_gpus": 1.0,
    }
    assert not (tmp_path / "state").exists(), "replicas make it where they are"
    with pytest.raises(SamifError, match="args of the application: replica: Extra inputs are not permitted"):
        application({**arguments, "replica": 2})


def test_the_application_keeps_answers_by_the_rule_of_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMIF_SERVE_TOKEN", "a-token-of-the-tests-own")
    plain = {"model": "demo@champion", "workspace": str(tmp_path), "state": str(tmp_path / "state")}

    def kept(**rule: object) -> KeepSettings | None:
        made: KeepSettings | None = application(plain | rule)._bound_deployment.init_args[0].keep
        return made

    assert kept() is None and kept(keep_share=0.5) is None
    assert kept(keep="/kept") == KeepSettings(Path("/kept"))
    rule = {"keep_share": 0.2, "keep_unknown": True, "keep_uncertain": 0.3, "keep_images": 7, "keep_mb": 2.5}
    assert kept(keep="/kept", **rule) == KeepSettings(Path("/kept"), 0.2, True, 0.3, 7, 2_500_000)
    for wrong in ({"keep_share": 1.5}, {"keep_uncertain": 0.0}, {"keep_images": 0}):
        with pytest.raises(SamifError, match=next(iter(wrong))):
            kept(keep="/kept", **wrong)


def test_two_lines_of_one_service_share_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMIF_SERVE_TOKEN", "a-token-of-the-tests-own")
    config = two_lines(load()["RayService/samif-serve"]["spec"]["serveConfigV2"])
    deployments = [application(app["args"])._bound_deployment for app in YAML(typ="safe").load(config)["applications"]]
    settings = [deployment.init_args[0] for deployment in deployments]
    assert [(str(one.state), one.wait_for_model) for one in settings] == [
        ("/tmp/samif-serve/demo", False), ("/tmp/samif-serve/other", True)
    ]  # fmt: skip
    metrics = [deployment.ray_actor_options["runtime_env"]["env_vars"] for deployment in deployments]
    assert [found["PROMETHEUS_MULTIPROC_DIR"] for found in metrics] == [f"{one.state}/metrics" for one in settings]

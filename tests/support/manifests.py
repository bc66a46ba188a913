"""The manifests of infra/kubernetes and what is wrong with them: by Kubernetes' published schemas, and by what no
schema says: references, ports, rights, secrets."""

from __future__ import annotations

import copy
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import kubernetes_validate
from ruamel.yaml import YAML

from flows.serve.application import Arguments
from tests.support.infra_commands import check_samif

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "kubernetes"
KUBERNETES = "1.33.0"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"samif:{PROJECT['version']}"
RAY = re.search(r"^ray==(.*)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]

# The fields of KubeRay's own kinds that these manifests use (ray.io/v1 of KubeRay 1.6). Pods inside them are checked
# against Kubernetes' schema; an unknown field here is a slip of the pen, or a new one to be added knowingly.
CLUSTER = {
    "rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs",
}  # fmt: skip
FIELDS = {
    "RayCluster": CLUSTER,
    "RayJob": {
        "entrypoint", "submissionMode", "backoffLimit", "activeDeadlineSeconds", "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished", "submitterPodTemplate", "rayClusterSpec",
    },
    "RayService": {"serveConfigV2", "rayClusterConfig", "excludeHeadPodFromServeSvc"},
    "head": {"rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}  # fmt: skip
INNER = {"RayCluster": None, "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
NEEDED = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}

Object = dict[str, Any]
Manifests = dict[str, Object]
"""Kind/name -> object."""


def load() -> Manifests:
    found: Manifests = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in YAML(typ="safe").load_all(path.read_text()):
            name = document.get("metadata", {}).get("name") or document.get("metadata", {}).get("generateName", "")
            found[f"{document['kind']}/{name}"] = document
    return found


def faults(manifests: Manifests) -> list[str]:
    """What is wrong with the manifests, one sentence each; first of all what the schemas say."""
    return list(_schemas(manifests)) or [sentence for check in CHECKS for sentence in check(manifests)]


def clusters(manifests: Manifests) -> Iterator[tuple[str, Object]]:
    """Every description of a Ray cluster, whatever it stands in."""
    for place, document in manifests.items():
        if document["kind"] in INNER:
            inner = INNER[document["kind"]]
            yield place, document["spec"][inner] if inner else document["spec"]


def pods(manifests: Manifests) -> Iterator[tuple[str, Object]]:
    """Every pod template: the place where it stands, and it."""
    for place, cluster in clusters(manifests):
        yield f"{place} head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{place} {group['groupName']}", group["template"]
    for place, document in manifests.items():
        if document["kind"] == "RayJob":
            yield f"{place} submitter", document["spec"]["submitterPodTemplate"]
        if document["kind"] == "CronJob":
            yield f"{place} pod", document["spec"]["jobTemplate"]["spec"]["template"]


def containers(manifests: Manifests) -> Iterator[tuple[str, Object, Object]]:
    for place, template in pods(manifests):
        for container in template["spec"]["containers"]:
            yield f"{place}: {container['name']}", container, template


def _schemas(manifests: Manifests) -> Iterator[str]:
    objects = {
        place: document
        for place, document in manifests.items()
        if not document["apiVersion"].startswith(("ray.io/", "kustomize."))
    }
    for place, template in pods(manifests):
        pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
        pod.setdefault("metadata", {})["name"] = "pod"
        objects[place] = pod
    assert len(objects) == len(manifests) - 4 + len(list(pods(manifests)))
    for place, document in objects.items():
        yield from (f"{place}: {sentence}" for sentence in _against_schema(json.dumps(document)))


@cache
def _against_schema(document: str) -> tuple[str, ...]:
    try:
        kubernetes_validate.validate(json.loads(document), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return (f"{'.'.join(map(str, error.path))}: {error.message[:200]}",)
    return ()


def _kuberay(manifests: Manifests) -> Iterator[str]:
    for place, document in manifests.items():
        if document["kind"] in INNER:
            if document["apiVersion"] != "ray.io/v1":
                yield f"{place}: apiVersion is {document['apiVersion']}"
            unknown = document["spec"].keys() - FIELDS[document["kind"]]
            yield from (f"{place}: unknown field '{name}'" for name in sorted(unknown))
    for place, cluster in clusters(manifests):
        yield from (f"{place}: unknown field '{name}'" for name in sorted(cluster.keys() - CLUSTER))
        yield from (f"{place}: no {name}" for name in sorted(NEEDED - cluster.keys()))
        if cluster.get("rayVersion") != RAY:
            yield f"{place}: rayVersion is {cluster.get('rayVersion')}, the image has {RAY}"
        if cluster.get("authOptions", {}).get("mode") != "token":
            yield f"{place}: everybody may use the cluster"
        for kind, group in [("head", cluster["headGroupSpec"]), *(("worker", g) for g in cluster["workerGroupSpecs"])]:
            yield from (f"{place}: unknown field '{name}'" for name in sorted(group.keys() - FIELDS[kind]))
            if not all(isinstance(value, str) for value in group["rayStartParams"].values()):
                yield f"{place}: rayStartParams are text"
            first = group["template"]["spec"]["containers"][0]
            if kind == "worker":
                if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
                    yield f"{place}: {group['replicas']} replicas, between {group['minReplicas']} and less"
                if first["resources"]["limits"].get("nvidia.com/gpu") != 1:
                    yield f"{place}: workers without a GPU"
        idle = any(group["replicas"] == 0 for group in cluster["workerGroupSpecs"])
        if idle and not cluster.get("enableInTreeAutoscaling"):
            yield f"{place}: no workers, and nobody to call for them"


def _images(manifests: Manifests) -> Iterator[str]:
    for place, container, _ in containers(manifests):
        if container["image"] != IMAGE:
            yield f"{place}: image '{container['image']}' is not {IMAGE}"
    for image in manifests["Kustomization/"]["images"]:
        if f"{image['name']}:{image['newTag']}" != IMAGE:
            yield f"Kustomization: image {image['name']}:{image['newTag']} is not {IMAGE}"


def _secrets(manifests: Manifests) -> Iterator[str]:
    """Every secret by reference; every reference leads to a name and key that secrets/ asks for."""
    known = {}
    for generator in manifests["Kustomization/"]["secretGenerator"]:
        example = FOLDER / f"{generator['envs'][0]}.example"
        if not example.exists():
            yield f"Kustomization: {example.relative_to(ROOT)} is not there"
            continue
        lines = example.read_text().splitlines()
        known[generator["name"]] = {line.partition("=")[0] for line in lines}
        yield from (f"{example.name}: a value stands in it" for line in lines if not line.endswith("="))
    if any(document["kind"] == "Secret" for document in manifests.values()):
        yield "a Secret stands among the manifests"
    used: set[str] = set()
    for place, container, _ in containers(manifests):
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference is None:
                if re.search(r"PASSWORD|SECRET|TOKEN|KEY|USERNAME", variable["name"]):
                    yield f"{place}: {variable['name']} has its value inline"
                continue
            used.add(reference["name"])
            if reference["key"] not in known.get(reference["name"], set()):
                yield f"{place}: there is no key '{reference['key']}' in a secret '{reference['name']}'"
        if any("secretRef" in source for source in container.get("envFrom", [])):
            yield f"{place}: takes a whole secret"
    for place, cluster in clusters(manifests):
        name = cluster.get("authOptions", {}).get("secretName")
        used.add(name)
        if "auth_token" not in known.get(name, set()):
            yield f"{place}: there is no key 'auth_token' in a secret '{name}'"
    yield from (f"secret '{name}' is asked for and not used" for name in sorted(known.keys() - used))


def _references(manifests: Manifests) -> Iterator[str]:
    for place, template in pods(manifests):
        volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and f"PersistentVolumeClaim/{claim}" not in manifests:
                yield f"{place}: there is no claim '{claim}'"
        for container in template["spec"]["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            if mounted - volumes.keys():
                yield f"{place}: there is no volume {', '.join(sorted(mounted - volumes.keys()))}"
            for source in container.get("envFrom", []):
                name = source["configMapRef"]["name"]
                if f"ConfigMap/{name}" not in manifests:
                    yield f"{place}: there is no ConfigMap '{name}'"
    listed = set(manifests["Kustomization/"]["resources"]) | {"rayjob.yaml", "kustomization.yaml"}
    there = {path.name for path in FOLDER.glob("*.yaml")}
    yield from (f"{name}: applied and not there, or there and not applied" for name in sorted(listed ^ there))


def _rights(manifests: Manifests) -> Iterator[str]:
    if manifests["Namespace/samif"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] != "restricted":
        yield "Namespace/samif: pods may have more than restricted rights"
    for place, container, template in containers(manifests):
        pod, own = template["spec"].get("securityContext", {}), container.get("securityContext", {})
        if not pod.get("runAsNonRoot") or pod.get("runAsUser") != 1000:
            yield f"{place}: may run as root"
        if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{place}: any system call"
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{place}: may gain rights"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{place}: may change its image"
        if "scratch" not in {mount["name"] for mount in container["volumeMounts"]}:
            yield f"{place}: has no place for its files"
        for kind in ("requests", "limits"):
            missing = {"cpu", "memory"} - container.get("resources", {}).get(kind, {}).keys()
            yield from (f"{place}: no {kind} of {name}" for name in sorted(missing))
        scaling = place.startswith("RayCluster/") and " head" in place  # its autoscaler asks the Kubernetes API
        if not scaling and template["spec"].get("automountServiceAccountToken") is not False:
            yield f"{place}: holds a token of the Kubernetes API"


def _network(manifests: Manifests) -> Iterator[str]:
    """Everything is closed; and what must be reached is open, at the ports that containers name."""
    policies = {
        place.partition("/")[2]: doc["spec"] for place, doc in manifests.items() if doc["kind"] == "NetworkPolicy"
    }
    closed = policies.get("deny-all", {})
    if closed.get("podSelector") != {} or set(closed.get("policyTypes", [])) != {"Ingress", "Egress"}:
        yield "NetworkPolicy/deny-all: does not close everything"
    for name, spec in policies.items():
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, []):
                if not rule or (side == "from" and not rule.get("from")):
                    yield f"NetworkPolicy/{name}: {direction} for everybody"
    named = {port["name"]: port["containerPort"] for _, c, _ in containers(manifests) for port in c.get("ports", [])}

    def ports(policy: str, direction: str) -> set[int]:
        rules = policies.get(policy, {}).get(direction, [])
        return {port["port"] for rule in rules for port in rule.get("ports", [])}

    for policy, direction, port in (
        ("ray-head", "ingress", "dashboard"),
        ("submitters", "egress", "dashboard"),
        ("serve", "ingress", "serve"),
    ):
        if ports(policy, direction) != {named[port]}:
            yield f"NetworkPolicy/{policy}: {direction} does not agree with port '{port}' ({named[port]})"
    if "samif" not in {t["metadata"]["labels"].get("app.kubernetes.io/part-of") for _, t in pods(manifests)}:
        yield "NetworkPolicy/bucket-and-registry: selects nothing"
    for place, template in pods(manifests):
        if template["metadata"]["labels"].get("app.kubernetes.io/part-of") != "samif":
            yield f"{place}: reaches neither bucket nor registry"
    for place, container, template in containers(manifests):
        for host, port in re.findall(r"http://([\w-]+):(\d+)", " ".join(container.get("command", []))):
            if host not in {f"{name.partition('/')[2]}-head-svc" for name, _ in clusters(manifests)}:
                yield f"{place}: there is no service '{host}'"
            elif int(port) not in ports("submitters", "egress"):
                yield f"{place}: port {port} of {host} is closed to it"
            if template["metadata"]["labels"].get("app.kubernetes.io/component") != "submitter":
                yield f"{place}: is no submitter to the network"


def _commands(manifests: Manifests) -> Iterator[str]:
    lines = [container["command"] for _, container, _ in containers(manifests) if "command" in container]
    lines += [shlex.split(doc["spec"]["entrypoint"]) for doc in manifests.values() if doc["kind"] == "RayJob"]
    for line in lines:
        yield from check_samif(line)


def _serve(manifests: Manifests) -> Iterator[str]:
    service = manifests["RayService/samif-serve"]["spec"]
    config = YAML(typ="safe").load(service["serveConfigV2"])
    applications = config["applications"]
    for key in ("name", "route_prefix"):
        if len({app[key] for app in applications}) < len(applications):
            yield f"RayService: two applications have one {key}"
    worker = service["rayClusterConfig"]["workerGroupSpecs"][0]
    container = worker["template"]["spec"]["containers"][0]
    resources = container["resources"]["limits"]
    shared = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "lines"]
    replicas = 0
    for app in applications:
        module, _, name = app["import_path"].partition(":")
        if not callable(getattr(import_module(module), name, None)):
            yield f"RayService: {app['import_path']} is not there"
        try:
            given = Arguments.model_validate(app["args"])
        except ValueError as error:
            yield f"RayService: args: {error}"
            return
        if given.cpus > int(resources["cpu"]) or given.gpus > resources.get("nvidia.com/gpu", 0):
            yield "RayService: a replica does not fit on a worker"
        if any(Path(given.state).is_relative_to(mount) for mount in shared):
            yield f"RayService: {given.state} is shared by machines, whose process ids meet there"
        replicas += given.count.most
    if replicas > worker["maxReplicas"]:
        yield "RayService: more replicas than workers"
    if config["http_options"]["port"] != 8000:
        yield "RayService: the proxies listen where nobody asks"


CHECKS = (_kuberay, _images, _secrets, _references, _rights, _network, _commands, _serve)


def two_lines(config: str) -> str:
    """The service's configuration with the application that its comment shows."""
    return re.sub(r"^( *)# ([- ] )", r"\1\2", config, flags=re.MULTILINE)

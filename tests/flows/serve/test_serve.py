"""`samif serve` as its users meet it: a process of its own for two lines, real HTTP, the registry on SQLite."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests
import schemathesis
import torch
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from flows.artifacts.kept_answers import KeptAnswer, KeptAnswers
from flows.inference.image_files import find_images
from flows.inference.predict import load_segmenter, predict
from flows.registry.model_files import find_model
from samif.config import load_params
from samif.inference.model import Model
from tests.support.hostile import CASES, answer
from tests.support.served_line import CLASSES, TOKEN, ServedLine, Service, asked, number, png, service, slot, until

IMAGES = [png(seed, 60 + seed, 40) for seed in range(3)]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> ServedLine:
    """Versions: 1 knows two classes, 2 four, 3 was made with another decoder, 4 does not fit its decoder."""
    line = ServedLine(tmp_path_factory.mktemp("served") / "line", migrated)
    line.add("base", 2)
    line.add("s1", 4, after="base")
    line.add("base", 3, decoder=1)
    line.add("base", 2, width=32)
    line.alias("champion", 1)
    line.alias("challenger", 2)
    return line


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> ServedLine:
    """A line without a champion, whose params.yaml cannot be read."""
    line = ServedLine(tmp_path_factory.mktemp("served") / "other", migrated, line="other")
    line.add("base", 2)
    (line.root / "params.yaml").rename(line.root / "good.yaml")
    (line.root / "params.yaml").write_text("line: other\nlines: 2\n")
    return line


@pytest.fixture(scope="module")
def both(line: ServedLine, other: ServedLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    samples = tmp_path_factory.mktemp("samples")
    options = ["--shadow", "demo@challenger", "--shadow-folder", str(samples), "--shadow-samples", "2"]
    options += ["--workspace", str(other.root), "--max-mb", "2", "--upload-seconds", "1"]
    options += ["--keep", str(samples.with_name("kept")), "--keep-share", "1", "--keep-images", "3"]
    with service(line, "demo@champion", "other@champion", *options) as running:
        yield running


@pytest.fixture(scope="module")
def served(both: Service) -> Service:
    return both.of("demo")


@pytest.fixture(autouse=True)
def version_one(request: pytest.FixtureRequest) -> None:
    """Each test that meets the service finds version 1 live."""
    if "served" in request.fixturenames:
        line, served = request.getfixturevalue("line"), request.getfixturevalue("served")
        put_live(line, served, 1)


def put_live(line: ServedLine, served: Service, version: int) -> None:
    line.alias("champion", version)
    until(lambda: slot(served)["live"]["version"] == version and not slot(served)["behind"])


@pytest.fixture(scope="module")
def predicted(line: ServedLine, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[list[dict]]]:
    """What `samif predict` finds in each image with versions 1 to 3, on as many threads as the service has."""
    folder, found = tmp_path_factory.mktemp("predicted"), {}
    for i, content in enumerate(IMAGES):
        (folder / f"{i}.png").write_bytes(content)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for version in (1, 2, 3):
        bundle = find_model(f"demo/{version}", None, line.registry)
        segmenter = load_segmenter(bundle, load_params(line.root / "params.yaml"))
        predict(Model(segmenter), find_images([folder]).images, folder / str(version), 0.0)
        content = json.loads((folder / str(version) / "instances.json").read_text())
        names = {c["id"]: c["name"] for c in content["categories"]}
        found[version] = [
            [
                {"segmentation": a["segmentation"], "bbox": a["bbox"], "label": (name := names[a["category_id"]]),
                 "score": a["score"], "unknown": name == "unknown"}
                for a in content["annotations"] if a["image_id"] == image
            ]
            for image in (1, 2, 3)
        ]  # fmt: skip
    torch.set_num_threads(before)
    assert all(found[v][i] for v in found for i in range(3)) and found[1] != found[2]
    return found


# Answers


def test_an_answer_is_what_predict_finds_and_says_what_made_it(
    line: ServedLine, served: Service, predicted: dict[int, list[list[dict]]]
) -> None:
    answered = served.segment(IMAGES[0])
    content = answered.json()
    assert answered.status_code == 200 and content["instances"] == predicted[1][0]
    card = line.registry.show("demo/1").card
    assert content["model"]["name"] == "demo-classifier" and content["model"]["version"] == 1
    digests = {part: getattr(card.identity, part) for part in ("classifier", "decoder", "encoder")}
    assert content["model"]["digests"] == digests | {"card": card.digest}
    assert (content["width"], content["height"]) == (60, 40)
    assert set(content["timings"]) == {"receive", "decode", "wait", "encode", "segment"}
    by_form = served.ask("POST", "/v1/segment", files={"image": ("x.png", IMAGES[0])})
    assert by_form.json()["instances"] == content["instances"]
    best = max(i["score"] for i in content["instances"] if not i["unknown"])
    few = served.segment(IMAGES[0], params={"score": best - 1e-4}).json()["instances"]
    assert 0 < len([i for i in few if not i["unknown"]]) <= len(content["instances"])


@pytest.mark.parametrize("given", [None, f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN])
def test_who_may_ask(both: Service, given: str | None) -> None:
    headers = {"Content-Type": "image/png"} | ({"Authorization": given} if given is not None else {})
    for line in ("demo", "other"):
        for path in ("/metrics", "/v1/model", "/v1/shadow", "/v1/canary", "/v1/segment"):
            method = "POST" if path == "/v1/segment" else "GET"
            refused = requests.request(method, both.of(line).url + path, data=IMAGES[0], headers=headers, timeout=30)
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert refused.json()["error"]["code"] == "token"
        for path in ("/healthz", "/openapi.json"):
            assert requests.get(both.of(line).url + path, headers=headers, timeout=30).status_code == 200


def test_the_token_is_in_no_log_and_no_process_list(both: Service) -> None:
    started = psutil.Process(both.process.pid)
    words = [" ".join(process.cmdline()) for process in (started, *started.children(recursive=True))]
    assert len(words) > 5 and not [line for line in words if TOKEN in line]
    assert TOKEN not in both.log.read_text()


def test_twenty_images_at_once_all_get_their_own_answer(
    served: Service, predicted: dict[int, list[list[dict]]]
) -> None:
    found: dict[int, list[dict]] = {}

    def ask(i: int) -> None:
        found[i] = served.segment(IMAGES[i % 3]).json()["instances"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == predicted[1][i % 3] for i in range(20))


# Following the alias


def test_under_load_every_answer_is_of_the_version_that_it_names(
    line: ServedLine, served: Service, predicted: dict[int, list[list[dict]]]
) -> None:
    loads, swaps = number(served, "samif_loads_total"), slot(served)["swaps"]
    answers: list[tuple[int, int, dict]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for i, content in enumerate(IMAGES):
                answered = served.segment(content)
                answers.append((answered.status_code, i, answered.json()))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in (2, 1, 2, 1):
        line.alias("champion", version)
        until(lambda version=version: bool(answers) and answers[-1][2]["model"]["version"] == version)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in answers} == {200}
    for _, i, content in answers:
        assert content["instances"] == predicted[content["model"]["version"]][i]
    assert {content["model"]["version"] for _, _, content in answers} == {1, 2}
    assert slot(served)["swaps"] == swaps + 4 and slot(served)["previous"]["version"] == 2
    # version 2 was read once at most; back and forth nothing is read, and never a decoder or an encoder
    assert number(served, "samif_loads_total") <= loads + 1


def test_another_decoder_is_loaded_beside_and_then_takes_over(
    line: ServedLine, served: Service, predicted: dict[int, list[list[dict]]]
) -> None:
    put_live(line, served, 3)
    content = served.segment(IMAGES[1]).json()
    assert (content["model"]["version"], content["instances"]) == (3, predicted[3][1])
    put_live(line, served, 1)
    assert served.segment(IMAGES[1]).json()["instances"] == predicted[1][1]


def test_a_version_that_does_not_fit_leaves_the_old_one(line: ServedLine, served: Service) -> None:
    refused = number(served, 'samif_swap_failures_total{slot="champion"}')
    line.alias("champion", 4)
    until(lambda: slot(served)["failure"] is not None and slot(served)["failure"]["version"] == "demo-classifier/4")
    seen = slot(served)
    assert "takes features of width 32, got 64" in seen["failure"]["why"] and seen["behind"]
    assert served.segment(IMAGES[0]).json()["model"]["version"] == 1
    assert number(served, 'samif_swap_failures_total{slot="champion"}') == refused + 1
    until(lambda: "demo-classifier/4 was refused" in served.log.read_text())
    until(lambda: number(served, 'samif_behind{slot="champion"}') == 1)


def test_a_tampered_version_leaves_the_old_one(line: ServedLine, served: Service) -> None:
    bad = line.add("base", 4)
    path = line.artifacts(bad) / "classifier.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    line.alias("champion", bad)
    until(lambda: slot(served)["failure"] is not None and slot(served)["failure"]["version"].endswith(f"/{bad}"))
    assert "is not the classifier of card" in slot(served)["failure"]["why"]
    assert served.segment(IMAGES[0]).json()["model"]["version"] == 1


def test_a_registry_that_is_gone_stops_nothing(line: ServedLine, served: Service) -> None:
    line.alias("champion", None)
    until(lambda: slot(served)["registry"] is not None)
    assert "has no alias 'champion'" in slot(served)["registry"]
    assert served.segment(IMAGES[0]).json()["model"]["version"] == 1
    assert number(served, 'samif_registry_unreachable{slot="champion"}') == 1


# Two lines


def test_a_line_that_cannot_be_loaded_is_waited_for_beside_one_that_answers(
    both: Service, served: Service, other: ServedLine
) -> None:
    waited = both.of("other")
    assert "other@champion is not served yet, but tried again until it can be: " in both.log.read_text()
    assert requests.get(both.url + "/v1/model", timeout=30).status_code == 404
    with asked(served) as answers:
        refused = waited.segment(IMAGES[0])
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert waited.ask("GET", "/readyz").status_code == 503
        assert "'lines'" in slot(waited)["registry"]
        (other.root / "good.yaml").rename(other.root / "params.yaml")
        until(lambda: "has no alias 'champion'" in slot(waited)["registry"])
        other.alias("champion", 1)
        until(lambda: waited.segment(IMAGES[0]).status_code == 200)
    assert set(answers) == {(200, "demo-classifier")}
    assert waited.segment(IMAGES[0]).json()["model"]["name"] == "other-classifier"
    until(lambda: "other@champion is other-classifier/1 since" in both.log.read_text())


def test_a_full_queue_and_a_killed_replica_are_one_line_s_own_affair(both: Service, served: Service) -> None:
    failing, statuses = both.of("other"), list[int]()
    killed = failing.ask("GET", "/v1/model").json()["replicas"][0]["pid"]
    with asked(served) as answers:
        crowd = [
            threading.Thread(target=lambda: statuses.append(failing.segment(IMAGES[0]).status_code)) for _ in range(64)
        ]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        assert {200, 503} <= set(statuses) <= {200, 408, 503}  # on a slow machine an upload takes its second, too
        before = len(answers)
        os.kill(killed, signal.SIGKILL)
        until(lambda: failing.segment(IMAGES[0]).status_code == 200)
    assert set(answers) == {(200, "demo-classifier")} and len(answers) > before
    assert [view["pid"] for view in failing.replicas] != [killed]
    until(lambda: f"replica {killed} of other@champion has ended" in both.log.read_text())


# Shadow


def test_the_challenger_is_counted_and_sampled_but_never_answers(served: Service) -> None:
    for content in IMAGES:
        labels = {i["label"] for i in served.segment(content).json()["instances"]}
        assert labels <= {*CLASSES[:2], "unknown"}
    until(lambda: served.ask("GET", "/v1/shadow").json()["counts"].get("images", 0) > 0)
    until(lambda: served.ask("GET", "/v1/shadow").json()["counts"].get("kept", 0) > 0)
    told = served.ask("GET", "/v1/shadow").json()
    assert told["ref"] == "demo@challenger" and told["replicas"][0]["live"]["version"] == 2
    assert told["counts"]["renamed"] > 0
    assert number(served, "samif_shadow_disagreements_total") >= told["counts"]["renamed"]
    folders = [path for path in Path(told["folder"]).iterdir() if path.is_dir()]
    assert 1 <= len(folders) <= 3  # the third while the oldest is being taken away
    newest = max(folders)
    until(lambda: (newest / "disagreement.json").exists())
    content = json.loads((newest / "disagreement.json").read_text())
    assert content["challenger"]["version"] == "demo-classifier/2"
    names = {item["challenger"] for item in content["disagreements"]} | {None}
    assert names & set(CLASSES[2:])
    with Image.open(newest / "image.png") as image, Image.open(newest / "overlay.jpg") as overlay:
        assert overlay.size == (2 * image.width, image.height)


# Kept answers


def test_answers_are_kept_with_their_images_as_they_were_given(served: Service, line: ServedLine) -> None:
    folder = Path(served.ask("GET", "/v1/shadow").json()["folder"]).parent.with_name("kept") / "demo"
    body = png(77)
    given = served.segment(body).json()

    def found() -> list[KeptAnswer]:
        digest = hashlib.sha256(body).hexdigest()
        return [answer for answer in KeptAnswers(folder).answers() if answer.sha256 == digest]

    until(lambda: bool(found()))
    (answer,) = found()
    assert (answer.model, answer.reasons, answer.classes) == ("demo-classifier/1", ("share",), CLASSES[:2])
    assert [item.model_dump() for item in answer.instances] == given["instances"]
    assert (folder / "images" / answer.image).read_bytes() == body
    assert len(list((folder / "images").glob("*.png"))) <= 3
    until(lambda: served.replicas[0]["kept"].get("kept", 0) > 0)  # type: ignore[attr-defined]
    assert served.replicas[0]["keep_problem"] is None and number(served, "samif_keep_total") > 0


# Bad input


def test_hostile_uploads_get_a_sentence_and_leave_no_trace(served: Service) -> None:
    port = urlsplit(served.url).port
    pid = served.ask("GET", "/v1/model").json()["replicas"][0]["pid"]

    def round_of_uploads() -> int:
        got = {name: answer(port, make().replace(b" /v1/", b" /demo/v1/", 1)) for name, (make, _) in CASES.items()}
        assert not {name: code for name, code in got.items() if code not in CASES[name][1]}
        return int(psutil.Process(pid).memory_info().rss)

    # A leak grows in every round; the allocator takes 50 MiB at once for a thread that decodes for the first time.
    sizes = [round_of_uploads()]
    while len(sizes) == 1 or sizes[-1] - sizes[-2] >= 2 * 2**20:
        assert len(sizes) < 7, f"the replica grows in each round: {[size >> 20 for size in sizes]} MiB"
        sizes.append(round_of_uploads())
    assert served.segment(IMAGES[0]).status_code == 200


def test_the_interface_is_as_its_document_says(served: Service) -> None:
    schema = schemathesis.openapi.from_url(served.url + "/openapi.json")
    checks = [
        not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    ]  # fmt: skip
    names = []
    for found in schema.get_all_operations():
        operation = found.ok()
        names.append(operation.label)

        @settings(max_examples=8, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def meets(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=checks, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)

        meets()
    assert "POST /v1/segment" in names and len(names) == 8

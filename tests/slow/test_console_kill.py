"""A console that is killed at any moment while two people save labels: what it acknowledged is there, whole."""

from __future__ import annotations

import json
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from samif.config import ReadRules
from samif.dataset.coco import read_coco
from samif.masks.rle import encode
from tests.support.console_page import running_console
from tests.support.small_line import write_small

pytestmark = pytest.mark.slow

KILLS = 30
MOST_SECONDS = 0.4
"""Between the first saves and the end."""
HEIGHT, WIDTH = 120, 160
PEOPLE = {"ann": "ann-0123456789abcdef", "ben": "ben-0123456789abcdef"}
SHARED = "shared.png"
NAMES = (SHARED, *(f"{who}.png" for who in PEOPLE))
Objects = tuple[tuple[str, str], ...]
"""Class name and counts of every object."""


@dataclass
class Sent:
    """What was sent and acknowledged, by image: revision and objects. `acknowledged` also has what was found in
    the file after a kill, `answered` only what the server answered."""

    acknowledged: dict[str, dict[int, Objects]] = field(default_factory=lambda: {name: {} for name in NAMES})
    answered: set[tuple[str, int]] = field(default_factory=set)
    in_flight: list[tuple[str, int, Objects]] = field(default_factory=list)
    twice: list[tuple[str, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def acknowledge(self, name: str, revision: int, objects: Objects) -> None:
        with self.lock:
            if revision in self.acknowledged[name]:
                self.twice.append((name, revision))
            self.acknowledged[name][revision] = objects
            self.answered.add((name, revision))

    def newest(self, name: str) -> int:
        return max(self.acknowledged[name], default=0)


def objects_of(seed: int, who: str, count: int) -> list[dict[str, Any]]:
    """Objects of noise, whose codes are long, under names that no other save has."""
    masks = np.random.default_rng(seed).random((count, HEIGHT, WIDTH)) < 0.5
    return [{"name": f"{who} {seed} {n}", "rle": rle} for n, rle in enumerate(encode(masks))]


def plain(objects: list[dict[str, Any]]) -> Objects:
    return tuple(sorted((o["name"], o["rle"]["counts"]) for o in objects))


def save_until_it_ends(origin: str, who: str, sent: Sent, seed: int) -> None:
    """Save the own and the shared image in turn; end when the server does."""
    address = f"{origin}/api/workspaces/1/sets/photos/labels"
    headers = {"Authorization": f"Bearer {PEOPLE[who]}", "X-Samif-Console": "1"}
    with httpx.Client(headers=headers, timeout=60) as client:
        turn = 0
        try:
            revisions = {n: client.get(address, params={"name": n}).json()["revision"] for n in (SHARED, f"{who}.png")}
        except httpx.TransportError:
            return
        while True:
            turn += 1
            name = SHARED if turn % 2 else f"{who}.png"
            objects = objects_of(1000 * seed + turn, who, 1 + turn % 5)
            flight = name, revisions[name] + 1, plain(objects)
            try:
                body = {"revision": revisions[name], "objects": objects}
                answer = client.put(address, params={"name": name}, json=body)
            except httpx.TransportError:
                with sent.lock:
                    sent.in_flight.append(flight)
                return
            if answer.status_code == 200:
                revisions[name] = answer.json()["revision"]
                sent.acknowledge(*flight)
            elif answer.status_code == 409:
                revisions[name] = answer.json()["saved"]["revision"]
            else:
                sent.errors.append(answer.text)
                return


def check(root: Path, sent: Sent) -> None:
    """The file is COCO that samif reads, and holds the newest acknowledged labels, or ones that were on their way."""
    path = root / "ws" / "labels" / "photos.json"
    content = json.loads(path.read_bytes())
    dataset, findings = read_coco(root / "photos", path, ReadRules())
    assert [f for f in findings if f.level == "error"] == [] and len(dataset.images) == len(content["images"])
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    names = {c["id"]: c["name"] for c in content["categories"]}
    for record in content["images"]:
        name, revision = record["file_name"], record["revision"]
        mine = [a for a in content["annotations"] if a["image_id"] == record["id"]]
        found = tuple(sorted((names[a["category_id"]], a["segmentation"]["counts"]) for a in mine))
        assert revision >= sent.newest(name), (name, revision)
        expected = [objects for n, r, objects in sent.in_flight if (n, r) == (name, revision)]
        if revision in sent.acknowledged[name]:
            expected = [sent.acknowledged[name][revision]]
        assert found in expected, (name, revision, sent.newest(name))
        sent.acknowledged[name].setdefault(revision, found)
    assert {r["file_name"] for r in content["images"]} >= {n for n in NAMES if sent.acknowledged[n]}
    lines = (root / "ws" / ".samif" / "console" / "actions.jsonl").read_text().splitlines()
    journal = {(a["image"], a["revision"]) for a in map(json.loads, lines)}
    assert sent.answered <= journal
    sent.in_flight.clear()


def test_every_acknowledged_save_survives_thirty_kills(tmp_path: Path) -> None:
    root, rng = tmp_path, random.Random(18)
    write_small(root)
    (root / "photos").mkdir()
    for name in NAMES:
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "photos" / name)
    (root / "accounts").write_text("".join(f"labeller {who} {token}\n" for who, token in PEOPLE.items()))
    words = ("-w", root / "ws", "--images", root / "photos", "--accounts", root / "accounts")
    sent = Sent()
    for number in range(KILLS):
        with running_console(*words, cwd=root) as console:
            before = {name: sent.newest(name) for name in NAMES}
            threads = [
                Thread(target=save_until_it_ends, args=(console.origin, who, sent, 2 * number + i + 1))
                for i, who in enumerate(PEOPLE)
            ]
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and all(sent.newest(name) == before[name] for name in NAMES):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, MOST_SECONDS))
            console.process.send_signal(signal.SIGKILL)
            console.process.wait()
            for thread in threads:
                thread.join(90)
        assert sent.errors == [] and sent.twice == []
        check(root, sent)
    assert len(sent.answered) >= KILLS, "each life of the server acknowledged some saves"
    with running_console(*words, cwd=root) as console:
        headers = {"Authorization": f"Bearer {PEOPLE['ann']}"}
        for name in NAMES:
            address = f"{console.origin}/api/workspaces/1/sets/photos/labels"
            found = httpx.get(address, params={"name": name}, headers=headers).json()
            assert found["revision"] == sent.newest(name)
            assert plain(found["objects"]) == sent.acknowledged[name][found["revision"]]

"""What is served while the registry is away: real files of a line, and an address at which nothing listens."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from flows.registry.registry import Registry
from flows.serve.model_slot import ModelSlot
from flows.serve.server import loadable
from flows.serve.settings import Settings
from flows.serve.versions import Source
from samif.errors import ServiceUnavailable
from tests.support.served_line import ServedLine
from tests.support.services import free_port


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """A line whose version 1 was served, and whose registry has gone since."""
    root = tmp_path_factory.mktemp("served") / "line"
    line = ServedLine(root, migrated)
    line.add("base", 2)
    line.alias("champion", 1)
    slot = ModelSlot(Source(Settings("demo@champion", root, root, None)), "demo@champion")
    slot.start()
    assert slot.state.live is not None
    address = f"http://127.0.0.1:{free_port()}"
    text = re.sub("tracking_uri:.*", f"tracking_uri: {address}", (root / "params.yaml").read_text())
    (root / "params.yaml").write_text(text)
    Registry(address, root).last_served.write("demo@champion", "demo-classifier", 1, slot.state.live.digests)
    return root


@pytest.fixture
def away(served: Path, tmp_path: Path) -> Settings:
    """A copy of that line's workspace."""
    shutil.copytree(served, tmp_path / "line")
    (tmp_path / "state").mkdir()
    return Settings("demo@champion", tmp_path / "line", tmp_path / "state", None)


def model_file(settings: Settings, name: str) -> Path:
    (path,) = (settings.root / ".samif" / "models").glob(f"*/{name}")
    return path


def test_the_version_served_last_is_loaded_and_verified(away: Settings, caplog: pytest.LogCaptureFixture) -> None:
    slot = ModelSlot(Source(away), away.ref)
    slot.start()
    live = slot.state.live
    assert live is not None and (live.title, live.digests["card"]) == (
        "demo-classifier/1", model_file(away, "card.json").parent.name
    )  # fmt: skip
    assert "does not answer" in (slot.registry_error or "") and slot.state.since is None
    assert [message for message in caplog.messages if message.startswith(slot.unconfirmed or "-")]
    assert loadable([away], lambda _: None) == [away]


@pytest.mark.parametrize("name", ["classifier.safetensors", "decoder.safetensors", "card.json"])
@pytest.mark.parametrize("changed", [True, False])
def test_files_that_are_not_those_that_were_served_are_not_served(away: Settings, name: str, changed: bool) -> None:
    path = model_file(away, name)
    if changed:
        path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    else:
        path.unlink()
    with pytest.raises(ServiceUnavailable, match="nothing is served meanwhile"):
        ModelSlot(Source(away), away.ref).start()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema": 2}', b"\xff\xfe", b'{"schema": 1, "ref": 3}'])
def test_a_damaged_record_serves_nothing(away: Settings, content: bytes, tmp_path: Path) -> None:
    for path in (away.root / ".samif" / "served").iterdir():
        path.write_bytes(content)
    with pytest.raises(ServiceUnavailable, match="nothing is served meanwhile"):
        ModelSlot(Source(away), away.ref).start()


def test_another_reference_or_registry_is_not_served(away: Settings) -> None:
    with pytest.raises(ServiceUnavailable, match="no version of demo@challenger was served here"):
        ModelSlot(Source(away), "demo@challenger").start()
    text = (away.root / "params.yaml").read_text().replace("127.0.0.1", "localhost")
    (away.root / "params.yaml").write_text(text)
    with pytest.raises(ServiceUnavailable, match="nothing is served meanwhile"):
        ModelSlot(Source(away), away.ref).start()


def test_a_service_without_registry_or_earlier_version_waits(away: Settings) -> None:
    for path in (away.root / ".samif" / "served").iterdir():
        path.unlink()
    said: list[str] = []
    (waiting,) = loadable([away], said.append)
    assert waiting.wait_for_model and len(said) == 1
    assert said[0].startswith("demo@champion is not served yet, but tried again until it can be: the registry at http")
    slot = ModelSlot(Source(waiting), waiting.ref)
    slot.poll()
    assert slot.state.live is None and "nothing is served meanwhile" in (slot.registry_error or "")


def test_a_folder_that_cannot_be_written_stops_nothing(
    tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = ServedLine(tmp_path / "line", migrated)
    line.add("base", 2)
    settings = Settings("demo/1", line.root, tmp_path, None)
    (line.root / ".samif" / "served").write_text("a file in its place")
    slot = ModelSlot(Source(settings), settings.ref)
    slot.start()
    assert slot.state.live is not None
    assert [message for message in caplog.messages if "without the registry demo/1 cannot be served" in message]

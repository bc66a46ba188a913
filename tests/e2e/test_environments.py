"""Odd users, terminals, disks and names: the command works, or says in one sentence what to do."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from PIL import Image, ImageDraw

from tests.support.console import SAMIF, Done, refusal, samif
from tests.support.random_model import save_random_model
from tests.support.unprivileged import OTHER_USER, as_other_user

CLASSES = ("bolt [M4]", "ネジ :smile:", "clip")
ODD_NAMES = ("Linie [alt] #2", "工場 ライン", "a$b", "it's", "[bold]x[/bold]", ":warning: 100%")


def labelled(folder: Path, count: int = 4) -> list[str | Path]:
    """Images and a COCO file; the options of `samif init` that name them."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        image = Image.new("RGB", (96, 72), (190, 190, 180 + number))
        for category, x in enumerate((6, 36, 66), start=1):
            ImageDraw.Draw(image).rectangle((x, 20, x + 20, 50), fill=(60 * category, 200 - 50 * category, 40))
            outline = [x, 20, x + 20, 20, x + 20, 50, x, 50]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category, "segmentation": [outline],
                 "bbox": [x, 20, 20, 30], "area": 600, "iscrowd": 0}
            )  # fmt: skip
        image.save(folder / f"p [{number}].png")
        images.append({"id": number, "file_name": f"p [{number}].png", "width": 96, "height": 72})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    file = folder.parent / f"{folder.name}.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return ["--train-images", folder, "--train-annotations", file, "--encoder", "tiny"]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody may enter, with data, a workspace and a model."""
    with TemporaryDirectory(prefix="samif-env-") as name:
        os.chmod(name, 0o755)
        root = Path(name)
        assert samif(root, "init", "ws", *labelled(root / "train")).code == 0
        (root / "model").mkdir()
        save_random_model(root / "model")
        yield root


def clean(done: Done) -> Done:
    assert "internal error" not in done.err and "Traceback" not in done.err, done.err
    return done


# Names


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_are_printed_as_they_are_and_quoted_in_commands(tmp_path: Path, name: str) -> None:
    done = clean(samif(tmp_path, "init", name, *labelled(tmp_path / "data [1] #2" / "träin & val")))
    assert done.code == 0, done.err
    first, *_, last = done.out.splitlines()
    assert first.startswith(f"workspace {name}: 3 base classes")
    assert last.startswith("next: cd ") and last.endswith(" && samif run")
    words = shlex.split(last.removeprefix("next: "))
    assert words == ["cd", name, "&&", "samif", "run"]
    shell = subprocess.run(["sh", "-c", f"{last.removeprefix('next: ').partition(' && ')[0]} && pwd"], cwd=tmp_path,
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert shell.stdout.strip() == str(tmp_path / name)


def test_names_of_images_and_classes_are_printed_as_they_are(place: Path) -> None:
    done = clean(samif(place, "data", "check", "-w", "ws"))
    assert done.code == 0 and "bolt [M4]" in done.out and "ネジ :smile:" in done.out
    out = place / "pred [1]"
    done = clean(samif(place, "predict", "train", "--model", "model", "-w", "ws", "--out", out, "--score", "0.05"))
    assert done.code == 0 and "p [1].png" in done.out and f"{out}/results.json" in done.out
    assert "image and category ids are those of" in done.out
    refused = refusal(
        samif(place, "predict", "no [bold]such[/bold].png", "--model", "model"), "no [bold]such[/bold].png"
    )
    assert refused.endswith("give images or folders of images")


# Terminals


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "cp437"])
def test_a_terminal_whose_encoding_lacks_characters(
    place: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    monkeypatch.setenv("PYTHONUTF8", "0")
    done = clean(samif(place, "data", "check", "-w", "ws"))
    assert done.code == 0 and "bolt [M4]" in done.out and "??" in done.out
    report = clean(samif(place, "data", "check", "-w", "ws", "--json")).json
    assert set(report[0]["classes"]) == set(CLASSES)
    assert clean(samif(place, "why", "-w", "ws")).code == 0


def test_an_output_that_is_closed_early_or_full(place: Path) -> None:
    for words in (["--help"], ["data", "check", "-w", "ws", "--json"], ["data", "check", "-w", "ws"]):
        line = f"{shlex.join([str(SAMIF), *words])} | head -c 1 >/dev/null"
        closed = subprocess.run(["sh", "-c", line], cwd=place, capture_output=True, text=True, check=False)
        assert "Traceback" not in closed.stderr and "rror" not in closed.stderr, closed.stderr
        with open("/dev/full", "w") as full:
            ended = subprocess.run(
                [SAMIF, *words], cwd=place, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1].startswith("samif: there is no space left on the disk")
        assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr


# Users


@pytest.fixture(scope="module")
def own(place: Path) -> Path:
    """A workspace that belongs to the user without a name."""
    copied = shutil.copytree(place / "ws", place / "own")
    for path in (copied, *copied.rglob("*")):
        os.chown(path, OTHER_USER, OTHER_USER)
    return copied


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "/"}, {"HOME": "/nonexistent"}])
def test_a_user_without_a_name(place: Path, own: Path, home: dict[str, str]) -> None:
    for words in (["why", "-w", own], ["registry", "list", "-w", own], ["data", "check", "-w", own]):
        done = clean(as_other_user(place, *words, **home))
        assert done.code == (1 if words[0] == "registry" else 0), done.err
        assert "atplotlib" not in done.err
    told = clean(as_other_user(place, "doctor", "-w", own, **home)).out
    assert "does not import" not in told


def test_a_user_without_a_name_predicts(place: Path) -> None:
    with TemporaryDirectory(prefix="samif-out-") as name:
        os.chown(name, OTHER_USER, OTHER_USER)
        done = clean(
            as_other_user(place, "predict", place / "train", "--model", place / "model", "--out", f"{name}/new")
        )
        assert done.code == 0, done.err
        assert (Path(name) / "new" / "results.json").exists()


# Disks


def test_folders_that_may_not_be_written(place: Path) -> None:
    options = labelled(place / "more") if not (place / "more").exists() else []
    before = sorted(path.name for path in place.iterdir())
    refusal(as_other_user(place, "init", "new", *options), "permission denied")
    refusal(as_other_user(place, "run", "-w", "ws"), "cannot write to", "check its permissions")
    refusal(as_other_user(place, "session", "add", "w2=clip", "-w", "ws"), "cannot write to")
    words = ["predict", "train", "--model", "model", "--out", "out/new"]
    refusal(as_other_user(place, *words), "nothing can be written to out/new", "give another folder with --out")
    assert sorted(path.name for path in place.iterdir()) == before


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_disk_that_takes_no_more(place: Path, limit: int) -> None:
    """Files above a limit, which the system refuses as it does on a full disk."""
    before = sorted(path.name for path in place.iterdir())
    for words in (
        ["init", "full", "--train-images", "train", "--train-annotations", "train.json", "--encoder", "tiny"],
    ):
        ended = subprocess.run(
            [SAMIF, *words], cwd=place, capture_output=True, text=True, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        refusal(Done(ended.returncode, ended.stdout, ended.stderr), "larger than this user or file system allows")
    assert sorted(path.name for path in place.iterdir()) == before


def test_a_name_that_is_too_long(place: Path) -> None:
    refusal(samif(place, "init", "x" * 300, *labelled(place / "long")), "too long for the file system")


# Interruption


def test_ctrl_c_ends_with_a_sentence_and_130(place: Path, tmp_path: Path) -> None:
    Image.effect_noise((96, 72), 60).save(tmp_path / "0.png")
    for number in range(1, 2000):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{number}.png")
    command = [SAMIF, "predict", tmp_path, "--model", "model", "--out", tmp_path / "out"]
    with subprocess.Popen(
        command, cwd=place, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background job ignores
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert "0/2000 images" in process.stderr.readline()
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(60) == 130
    assert said.splitlines()[-1] == "samif: interrupted; run the same command again to continue"
    assert "Traceback" not in said and not (tmp_path / "out" / "results.json").exists()

"""Edits of params.yaml as text: a session goes in or out, and every other byte stays, comments included.

ruamel's parser says where a node begins and ends; dumping a parsed file again would move or lose comments.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from samif.config import CocoSource, DataProtocol, EncoderParams, SessionParams
from samif.dataset.coco2014 import CLAIMS

_WIDTH = 110
_FOR_ENCODER = {
    "photo": {
        "pretrain_decoder": {"multimask": True},
        "propose": {"multimask": True, "duplicate_iou": 0.65, "max_proposals": 200},
    }
}
"""Values that differ from the template's by encoder, as measured (benchmarks/PHOTO.md)."""


def new_text(
    line: str,
    base_classes: list[str],
    encoder: EncoderParams,
    sessions: Mapping[str, SessionParams],
    train: CocoSource | None = None,
    val: CocoSource | None = None,
    protocol: DataProtocol | None = None,
    workspace: str | None = None,
    labels_on: str = "auto",
) -> str:
    """The text of a commented params.yaml; without `train` the images are the drawn demo line's."""
    yaml = _yaml()
    template = files("flows") / "templates" / "params.yaml"
    tree: CommentedMap = yaml.load(template.read_text(encoding="utf-8"))
    tree["line"] = line
    tree["dataset"]["base_classes"] = [_quoted(name) for name in base_classes]
    if train is not None:
        del tree["dataset"]["drawn"]
        for place, (key, source) in enumerate((("train", train), ("val", val))):
            if source is not None:
                tree["dataset"].insert(place, key, source.model_dump())
    if protocol is not None:
        tree["dataset"].insert(0, "protocol", protocol, comment=CLAIMS[protocol])
        tree["dataset"]["crowds"] = "ignore"
    tree["dataset"]["labels_on"] = labels_on
    tree["encoder"].update(encoder.model_dump())
    for section, values in _FOR_ENCODER.get(encoder.name, {}).items():
        tree[section].update(values)
    text = _dump(yaml, tree)
    if workspace is not None:
        key = f'workspace: "{workspace}"'.ljust(31) + "# its clones keep it; no other registers under the line's name"
        text = re.sub(r"(?m)^line: .*\n", lambda found: f"{found[0]}{key}\n", text, count=1)
    for name, session in sessions.items():
        text = with_session(text, name, session)
    return text


def with_session(text: str, name: str, session: SessionParams) -> str:
    """The text with one session more, at the end of `sessions`."""
    found = _find(text)
    if found is None:
        return text.rstrip("\n") + "\n\nsessions:\n" + _block(name, session, 2)
    key, sessions = found
    if sessions.flow_style:  # `sessions: {}`, or all of them on one line
        block = "".join(_block(n, s, 2) for n, s in {**_entries(text), name: session}.items())
        tail = text[sessions.end_mark.index :]
        comment, newline, rest = tail.partition("\n")
        # The comment behind the braces keeps its column.
        gap = " " * (sessions.end_mark.index - key.end_mark.index - 1) if comment.strip() else ""
        return text[: key.end_mark.index] + ":" + gap + comment.rstrip() + (newline or "\n") + block + rest
    lines = text.splitlines(keepends=True)
    end = _last_line(sessions)
    if not lines[end].endswith("\n"):
        lines[end] += "\n"
    lines.insert(end + 1, _block(name, session, sessions.value[0][0].start_mark.column))
    return "".join(lines)


def without_session(text: str, name: str) -> str:
    """The text with one session less, together with the comment lines right above it."""
    found = _find(text)
    assert found is not None, "the caller has seen this session in the file"
    key, sessions = found
    if sessions.flow_style:
        entries = _entries(text)
        empty = text[: sessions.start_mark.index] + "{}" + text[sessions.end_mark.index :]
        for other, session in entries.items():
            if other != name:
                empty = with_session(empty, other, session)
        return empty
    own_key, own_value = next((k, v) for k, v in sessions.value if k.value == name)
    lines = text.splitlines(keepends=True)
    first, last = own_key.start_mark.line, _last_line(own_value)
    while lines[first - 1].lstrip().startswith("#") and lines[first - 1].startswith(" " * own_key.start_mark.column):
        first -= 1
    if len(sessions.value) == 1:
        head = lines[key.start_mark.line]
        cut = key.end_mark.column + 1
        lines[key.start_mark.line] = head[:cut] + " {}" + head[cut:].removeprefix("   ")
    del lines[first : last + 1]
    return "".join(lines)


def with_value(text: str, section: str, key: str, value: float) -> str:
    """The text with one number of a section changed, or added where the section leaves it to its default."""
    root = YAML().compose(io.StringIO(text))
    found = next((v for k, v in root.value if k.value == section), None)
    if not isinstance(found, MappingNode):
        return text.rstrip("\n") + f"\n\n{section}:\n  {key}: {value:g}\n"
    old = next((v for k, v in found.value if k.value == key), None)
    if old is not None:
        return text[: old.start_mark.index] + f"{value:g}" + text[old.end_mark.index :]
    if found.flow_style:
        comma = ", " if found.value else ""
        at = found.start_mark.index + 1
        return text[:at] + f"{key}: {value:g}{comma}" + text[at:]
    first = found.value[0][0].start_mark
    return text[: first.index] + f"{key}: {value:g}\n{' ' * first.column}" + text[first.index :]


def _find(text: str) -> tuple[ScalarNode, MappingNode] | None:
    root = YAML().compose(io.StringIO(text))
    return next(((k, v) for k, v in root.value if k.value == "sessions"), None)


def _entries(text: str) -> dict[str, SessionParams]:
    return {n: SessionParams.model_validate(s) for n, s in YAML(typ="safe").load(text)["sessions"].items()}


def _last_line(node: Node) -> int:
    """Line of the last character of a node's content (a block's own end mark runs on over comments)."""
    while isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(node, MappingNode) else last
    line: int = node.end_mark.line
    return line


def _block(name: str, session: SessionParams, indent: int) -> str:
    taught = {"classes", "shots", "seed"} if session.background else set()
    body = CommentedMap(session.model_dump(exclude_none=True, exclude=taught))
    if session.classes:
        body["classes"] = _flow_list(session.classes)
    text = _dump(_yaml(), CommentedMap({name: body}))
    return "".join(" " * indent + line for line in text.splitlines(keepends=True))


def _flow_list(items: list[str]) -> CommentedSeq:
    sequence = CommentedSeq([_quoted(item) for item in items])
    sequence.fa.set_flow_style()
    return sequence


def _quoted(text: str) -> str:
    """A name in quotes unless it is a plain word: ruamel leaves some bare that read back as something else."""
    return text if re.fullmatch(r"[^\W\d][\w-]*", text) else DoubleQuotedScalarString(text)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    return yaml


def _dump(yaml: YAML, tree: Any) -> str:
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()

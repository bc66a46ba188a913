"""reference/params.md, made from the pydantic models of params.yaml at every build.

A field's text is the string below it in its model; types, limits and defaults come from pydantic's JSON schema.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from typing import Any, get_args

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from samif.config import Params

PAGE = "reference/params.md"
INTRODUCTION = """# params.yaml

All parameters of a line are in this file. `samif run` executes the stages that depend on what changed;
`samif why` lists them beforehand. Unknown keys, missing keys and values of the wrong type are refused with the key, the
expected value and the value found.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content=params_reference()))
    return files


def params_reference() -> str:
    """Markdown: the keys of the file, then a heading and a table for each section."""
    return "\n".join([INTRODUCTION, *_table(Params, ""), *_sections(Params, "")])


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Field name -> the text below it, of the model and the models that it extends."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if owner is BaseModel or not issubclass(owner, BaseModel):
            continue
        (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                assert isinstance(text.value, ast.Constant)
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        part = model_in(field.annotation)
        if part is None:
            continue
        key = f"{prefix}{name}" + (".NAME" if "dict" in str(field.annotation) else "")
        yield f"\n{'#' * min(4, key.replace('.NAME', '').count('.') + 2)} {key}\n"
        yield inspect.cleandoc(part.__doc__ or "").replace("\n", " ").replace("  ", "\n\n") + "\n"
        yield from _table(part, f"{key}.")
        yield from _sections(part, f"{key}.")


def _table(model: type[BaseModel], prefix: str) -> Iterator[str]:
    schema = model.model_json_schema()
    texts = descriptions(model)
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    for name, field in model.model_fields.items():
        part = model_in(field.annotation)
        if part is not None:
            value, default = "section", "" if field.is_required() else "see below"
            if not field.is_required() and field.get_default() is None:
                default = "`null`"
        else:
            value = _value(schema["properties"][name], schema.get("$defs", {}))
            default = "required" if field.is_required() else f"`{json.dumps(field.get_default())}`"
        yield f"| `{prefix}{name}` | {value} | {default} | {_cell(texts.get(name) or _summary(part))} |"


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, also optional or as values of a dictionary."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := model_in(part)) is not None), None)


def _value(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _value(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return " or ".join(_value(part, definitions) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_value(schema['items'], definitions)}"
    if schema.get("type") == "object":
        return f"mapping of name to {_value(schema.get('additionalProperties', {}), definitions)}"
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    name = {"null": "`null`", "number": "number", "string": "text"}.get(schema["type"], schema["type"])
    return " ".join([name, ", ".join(limits)]).strip()


def _summary(model: type[BaseModel] | None) -> str:
    return "" if model is None else inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

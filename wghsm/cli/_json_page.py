"""docs/json.md: what scripts may rely on, and every document of `--json` field by field. Pure.

    OUTPUTS -> JSON Schema of each shape -> a row for each field

Called by `wghsm schema --markdown`; a test holds docs/json.md to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from wghsm.cli._json_table import OUTPUTS, VERSION, Output

__all__ = ["Field", "fields", "markdown"]


@dataclass(frozen=True)
class Field:
    """One field of a document. `path`: its name and those above it, with `[]` for each element of a list."""

    path: str
    type: str
    optional: bool
    about: str


_HEAD = f"""\
# What `--json` prints

Every command that has results prints them as JSON with `--json`. This page is made from the code:
`wghsm schema --markdown > docs/json.md`. The JSON Schema of a command's output:

```
wghsm schema --output "peer list"
```

## What scripts may rely on

This is version {VERSION}, which also stands in the `$id` of each schema. Within a version fields may be added, and
words to those that a field may have; pass over what you do not know. No field goes, gets another name or another
type, and none that is always there becomes null or is left out.

- Names are in lower case with underscores. Keys of a map are what they name: a variable, an attribute, a process.
- A moment is text in UTC, as RFC 3339 writes it with `Z`. What a running gateway tells is Unix time in seconds, as a
  number. A span has its unit in its name or is in seconds.
- Public keys are base64, as WireGuard writes them; CKA_ID and hashes are hex.
- No secret is shown but with `--out -`, and on a terminal by `wghsm psk export`.

## When a command fails

The exit code ([commands.md](commands.md#exit-codes)) says whether it did what it was asked, with `--json` and without.

- A command that cannot do its work prints nothing on standard output. On standard error there is a line beginning with
  `wghsm:` that says what, where and what to do; of a gateway file a line for each fault, beginning with file and line.
- Where the verdict is the result, the document is there with an exit code that is not 0: `check`, `plan`, `reload`,
  `token doctor`, `audit verify`, `ceremony verify`, `inventory`, and the changes of peers, which are in the file when
  the gateway refuses them.
- `key list`, `key show`, `key public` and `psk list` ask every token of the gateway file. Where one does not answer,
  the document tells of the others; the line on standard error and the exit code tell of that one, or that they differ.

What is on standard output is one whole document; `audit show` prints one on each line. Questions, warnings and notes go
to standard error. Colours are for terminals: none elsewhere, and none with the environment variable `NO_COLOR`.

## Documents

`[]` is each element of a list. A field that may be left out is marked with `?`.
"""


def markdown() -> str:
    """docs/json.md. Commands that print the same stand together."""
    groups: list[tuple[Output, list[str]]] = []
    for command, output in OUTPUTS.items():
        same = next((names for other, names in groups if other == output), None)
        if same is None:
            groups.append((output, [command]))
        else:
            same.append(command)
    lines = [_HEAD.rstrip("\n")]
    for output, names in groups:
        lines += ["", "### " + ", ".join(f"`wghsm {name}`" for name in names), "", _about(output), ""]
        lines += ["| field | type | |", "|---|---|---|"]
        for field in fields(output):
            about = field.about.replace("|", "\\|")
            lines.append(f"| `{field.path}`{'?' if field.optional else ''} | {field.type} | {about} |")
    return "\n".join(lines) + "\n"


def fields(output: Output) -> Iterator[Field]:
    """Every field of a document, those of an object after the object."""
    made = msgspec.json.schema(output.shape)
    # In a shape that leaves out what is empty, a field with a default need not be there.
    sparse = output.lines and output.shape.__struct_config__.omit_defaults
    return _below(made, made["$defs"], "[]." if made.get("type") == "array" else "", sparse=sparse)


def _about(output: Output) -> str:
    """A sentence on the whole."""
    made = msgspec.json.schema(output.shape)
    is_list = made.get("type") == "array"
    about = _resolved(made["items"] if is_list else made, made["$defs"])["description"].split("\n\n")[0]
    sentence = " ".join(about.split())
    what = "A list. Each element: " if is_list else "Each line: " if output.lines else ""
    return what + sentence[0].lower() + sentence[1:] if what else sentence


def _below(node: Mapping[str, Any], parts: Mapping[str, Any], path: str, *, sparse: bool) -> Iterator[Field]:
    """The fields below `node`."""
    node = _resolved(_without_null(node), parts)
    if node.get("type") == "array" and "items" in node and node["items"]:
        node = _resolved(node["items"], parts)
    required = node.get("required", ())
    for name, field in node.get("properties", {}).items():
        optional = name not in required and ("default" not in field or sparse)
        yield Field(f"{path}{name}", _type(field, parts), optional, field.get("description", ""))
        of_list = _resolved(_without_null(field), parts).get("type") == "array"
        yield from _below(field, parts, f"{path}{name}{'[]' if of_list else ''}.", sparse=sparse)


def _type(field: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(each, parts) for each in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{each}`" if isinstance(each, str) else str(each).lower() for each in field["enum"])
    node = _resolved(field, parts)
    match node.get("type"):
        case "array" if "prefixItems" in node:
            return f"list of {len(node['prefixItems'])} {_plural(node['prefixItems'][0], parts)}"
        case "array":
            return f"list of {_plural(node['items'], parts)}"
        case "object" if "properties" not in node:
            return f"map of {_plural(node['additionalProperties'], parts)}"
        case None:
            return "any"
        case kind:
            return str(kind)


def _plural(node: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    one = _type(node, parts)
    return one if one.startswith(("list", "map", "`")) or " or " in one else f"{one}s"


def _without_null(node: Mapping[str, Any]) -> Mapping[str, Any]:
    kinds = [each for each in node.get("anyOf", ()) if each.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else node


def _resolved(node: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference leads to."""
    if "$ref" not in node:
        return node
    found: Mapping[str, Any] = parts[str(node["$ref"]).rpartition("/")[2]]
    return found

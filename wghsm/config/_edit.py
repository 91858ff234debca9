"""Changes to the peers of a gateway file's text: the pieces that change and nothing else, so comments and order stay.

    text -> ruamel.yaml's nodes with their places -> one piece of the text replaced -> text

    with_peer(text, fields)               a peer more, at the end of peers:
    with_fields(text, position, fields)   keys of one peer set, or taken out (None)
    without_peer(text, position)          a peer less; comments above it stay

Pure. The text must be a good gateway file or file of peers; values are text, numbers, true or false, or lists of text.
Whoever writes the result loads it first and compares (`wghsm peer` does). Called by the commands that change the file.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML

__all__ = ["Value", "with_fields", "with_peer", "without_peer", "yaml_word"]

Value = str | int | bool | Sequence[str]

_PLAIN = re.compile(
    r"[A-Za-z][A-Za-z0-9_./+:-]*[A-Za-z0-9_./+-]?|[A-Za-z0-9+/]{43}=|[0-9.]+/[0-9]+|[0-9]{4}-[0-9-]+(T[0-9:]+Z)?"
)
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def with_peer(text: str, fields: Mapping[str, Value]) -> str:
    """The text with a peer of these fields, in their order, after the others."""
    bom, text = _bom(text)
    root = _root(text)
    if root is None:
        return f"{bom}{text}{_break_before(text, len(text))}peers:\n{_block(fields, 2, 4)}"
    pair = _find(root, "peers")
    if pair is None:
        return bom + _new_section(text, root, fields)
    key, value = pair
    if _is_sequence(value) and value.flow_style:
        return bom + _into_flow(text, root, key, value, fields)
    if not _is_sequence(value):
        # Nothing after the colon, or null.
        return bom + _first_block(text, key, value, fields)
    items = value.value
    last = items[-1]
    end = _line_end(text, _end(text, last))
    apart = len(items) > 1 and re.search(r"\n\s*\n", text[_end(text, items[-2]) : last.start_mark.index])
    dash = value.start_mark.column
    inner = dash + 2 if last.flow_style else last.start_mark.column
    piece = ("\n" if apart else "") + _block(fields, dash, inner)
    return bom + _insert_line(text, end, piece)


def with_fields(text: str, position: int, fields: Mapping[str, Value | None]) -> str:
    """The text with these keys of the peer at `position` set, or taken out where the value is None."""
    bom, text = _bom(text)
    for key, value in fields.items():
        peer = _peers(text)[position]
        text = _without_key(text, peer, key) if value is None else _with_key(text, peer, key, value)
    return bom + text


def without_peer(text: str, position: int) -> str:
    """The text without the peer at `position`. Raises IndexError."""
    bom, text = _bom(text)
    pair = _find(_root(text), "peers")
    if pair is None:
        raise IndexError(position)
    sequence = pair[1]
    items = sequence.value
    item = items[position]
    if sequence.flow_style:
        return bom + _cut_flow(text, [(each.start_mark.index, _end(text, each)) for each in items], position)
    start = text.rfind("\n", 0, item.start_mark.index) + 1
    dash = sequence.start_mark.column
    while text[start + dash : start + dash + 1] != "-" or text[start : start + dash].strip(" "):
        start = text.rfind("\n", 0, start - 1) + 1
    return bom + text[:start] + text[_line_end(text, _end(text, item)) :]


def yaml_word(value: Value) -> str:
    """A value as a gateway file writes it, in quotes where YAML wants them."""
    return _word(value, quoted=False)


def _bom(text: str) -> tuple[str, str]:
    return ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)


def _root(text: str) -> Any:
    return YAML(typ="rt").compose(text)


def _peers(text: str) -> list[Any]:
    pair = _find(_root(text), "peers")
    return [] if pair is None else list(pair[1].value)


def _find(mapping: Any, key: str) -> tuple[Any, Any] | None:
    return next(((name, value) for name, value in mapping.value if name.value == key), None)


def _is_sequence(node: Any) -> bool:
    return isinstance(node.value, list)


def _end(text: str, node: Any) -> int:
    """Where a node's last character ends; ruamel ends a block at the next one, behind blank lines and comments."""
    if isinstance(node.value, list) and not node.flow_style:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    end = int(node.end_mark.index)
    return len(text[:end].rstrip()) if getattr(node, "style", None) in ("|", ">") else end


def _line_end(text: str, place: int) -> int:
    """Where the line after the one of `place` begins; the end of the text if there is none."""
    found = text.find("\n", place)
    return len(text) if found < 0 else found + 1


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _break_before(text: str, place: int) -> str:
    """What must be written at `place` so that a line begins there."""
    return "" if place == 0 or text[place - 1] == "\n" else _newline(text)


def _insert_line(text: str, place: int, piece: str) -> str:
    """The text with whole lines at `place`, which is the beginning of a line or the end of the text."""
    piece = piece.replace("\n", _newline(text))
    return text[:place] + _break_before(text, place) + piece + text[place:]


def _word(value: Value, *, quoted: bool) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            plain = not quoted and _PLAIN.fullmatch(value) and value.lower() not in _WORDS
            return value if plain else json.dumps(value, ensure_ascii=False)
        case _:
            return "[" + ", ".join(_word(each, quoted=quoted) for each in value) + "]"


def _block(fields: Mapping[str, Value], dash: int, inner: int) -> str:
    """A peer as an entry of a block list: lines with a newline each."""
    first = " " * dash + "-" + " " * (inner - dash - 1)
    lines = [f"{key}: {_word(value, quoted=False)}\n" for key, value in fields.items()]
    return first + (" " * inner).join(lines)


def _flow(fields: Mapping[str, Value], *, quoted: bool) -> str:
    words = (f"{json.dumps(key) if quoted else key}: {_word(value, quoted=True)}" for key, value in fields.items())
    return "{" + ", ".join(words) + "}"


def _quoted(mapping: Any) -> bool:
    """Whether the keys of a mapping stand in quotes, as in JSON."""
    return bool(mapping.value) and mapping.value[0][0].style == '"'


def _new_section(text: str, root: Any, fields: Mapping[str, Value]) -> str:
    if root.flow_style:
        end = _end(text, root.value[-1][1])
        key = '"peers"' if _quoted(root) else "peers"
        return f"{text[:end]}, {key}: [{_flow(fields, quoted=_quoted(root))}]{text[end:]}"
    end = _line_end(text, _end(text, root.value[-1][1]))
    column = root.start_mark.column
    return _insert_line(text, end, " " * column + "peers:\n" + _block(fields, column + 2, column + 4))


def _into_flow(text: str, root: Any, key: Any, value: Any, fields: Mapping[str, Value]) -> str:
    start, end = value.start_mark.index, value.end_mark.index
    if value.value:
        last = _end(text, value.value[-1])
        return f"{text[:last]}, {_flow(fields, quoted=_quoted(value.value[-1]))}{text[last:]}"
    if root.flow_style or text[start + 1 : end - 1].strip():
        return f"{text[: start + 1]}{_flow(fields, quoted=_quoted(root))}{text[start + 1 :]}"
    return _first_block(text, key, value, fields)


def _first_block(text: str, key: Any, value: Any, fields: Mapping[str, Value]) -> str:
    """The first peer of a list that is empty: `peers:`, `peers: ~` or `peers: []`; a comment behind it stays."""
    colon = text.index(":", key.end_mark.index) + 1
    if value.value or value.end_mark.index > value.start_mark.index:
        text = text[:colon] + text[value.end_mark.index :]
    column = key.start_mark.column
    return _insert_line(text, _line_end(text, colon), _block(fields, column + 2, column + 4))


def _with_key(text: str, peer: Any, key: str, value: Value) -> str:
    pair = _find(peer, key)
    quoted = bool(peer.flow_style)
    if pair is not None:
        name, old = pair
        start, end = old.start_mark.index, _end(text, old)
        if "\n" in text[name.end_mark.index : start]:
            # A list on lines of its own becomes one on the key's line.
            start = text.index(":", name.end_mark.index) + 1
            return f"{text[:start]} {_word(value, quoted=quoted)}{text[end:]}"
        gap = "" if text[start - 1] == " " else " "
        return (
            text[:start] + gap + _word(value, quoted=quoted or getattr(old, "style", None) in ('"', "'")) + text[end:]
        )
    last = peer.value[-1][1]
    if peer.flow_style:
        end = _end(text, last)
        shown = json.dumps(key) if _quoted(peer) else key
        return f"{text[:end]}, {shown}: {_word(value, quoted=True)}{text[end:]}"
    line = " " * peer.start_mark.column + f"{key}: {_word(value, quoted=False)}\n"
    return _insert_line(text, _line_end(text, _end(text, last)), line)


def _without_key(text: str, peer: Any, key: str) -> str:
    names = [name.value for name, _ in peer.value]
    if key not in names:
        return text
    place = names.index(key)
    name, value = peer.value[place]
    if peer.flow_style:
        return _cut_flow(text, [(each.start_mark.index, _end(text, kept)) for each, kept in peer.value], place)
    end = _line_end(text, _end(text, value))
    if place or "-" not in text[text.rfind("\n", 0, name.start_mark.index) + 1 : name.start_mark.index]:
        return text[: text.rfind("\n", 0, name.start_mark.index) + 1] + text[end:]
    # Behind the dash: the next key takes its place, below the comments between them.
    following = peer.value[1][0].start_mark.index
    between = text[end:following]
    if between.strip():
        return text[: name.start_mark.index].rstrip(" ") + _newline(text) + between + text[following:]
    return text[: name.start_mark.index] + text[following:]


def _cut_flow(text: str, spans: list[tuple[int, int]], place: int) -> str:
    """The text without one of the entries of a flow list or mapping, and without its comma."""
    start, end = spans[place]
    if place + 1 < len(spans):
        return text[:start] + text[spans[place + 1][0] :]
    if place:
        return text[: spans[place - 1][1]] + text[end:]
    return text[:start] + text[end:]

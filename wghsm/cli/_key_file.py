"""The gateway file's `key` and `previous_key`, changed in its text; comments, quotes and order stay.

    with_keys(text, key, previous)      another key; previous_key set after it, or none
    without_previous(text)              previous_key gone
    changed_keys(...)                   either, proved: the changed text says this and nothing else is different

Called by `wghsm key rotate` and `wghsm key retire`. The text must have been loaded before.
"""

import json
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode

__all__ = ["changed_keys", "with_keys", "without_previous"]

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})


def changed_keys(text: str, name: str, key: str, previous: str | None) -> str:
    """The text of the gateway file `name` with these two keys and nothing else changed. Raises CommandError."""
    from wghsm.config import ConfigError, load_text

    before = load_text(text.removeprefix("\ufeff"), name)
    wanted = before.interface.model_copy(update={"key": key, "previous_key": previous})
    try:
        changed = text
        if before.interface.previous_key is not None:
            changed = without_previous(changed)
        if (before.interface.key, None) != (key, previous):
            changed = with_keys(changed, key, previous)
        proved = load_text(changed.removeprefix("\ufeff"), name) == before.model_copy(update={"interface": wanted})
    except (ConfigError, StopIteration, YAMLError):
        proved = False
    if not proved:
        line = "" if previous is None else f", previous_key: {previous}"
        raise CommandError(
            f"{name} is written in a way that cannot be changed safely; write key: {key}{line} on lines of their own "
            "under interface: yourself",
            ExitCode.BAD_CONFIG,
        )
    return changed


def with_keys(text: str, key: str, previous: str | None) -> str:
    """The text with `key`, and with `previous_key` after it where `previous` is no None; it must have none so far."""
    interface = _interface(text)
    name, value = next(pair for pair in interface.value if pair[0].value == "key")
    start, end = int(value.start_mark.index), int(value.end_mark.index)
    if previous is None:
        return text[:start] + _word(key, value) + text[end:]
    entry = f"{_quoted('previous_key', name)}: {_word(previous, value)}"
    if interface.flow_style:
        return f"{text[:start]}{_word(key, value)}, {entry}{text[end:]}"
    newline = "\r\n" if "\r\n" in text else "\n"
    line_end = text.find("\n", end)
    if line_end < 0:
        text, line_end = text + newline, len(text + newline) - 1
    line = " " * int(name.start_mark.column) + entry + newline
    return text[:start] + _word(key, value) + text[end : line_end + 1] + line + text[line_end + 1 :]


def without_previous(text: str) -> str:
    """The text without `previous_key`; its own line goes with what else stands on it."""
    interface = _interface(text)
    names = [name.value for name, _ in interface.value]
    place = names.index("previous_key")
    name, value = interface.value[place]
    start, end = name.start_mark.index, value.end_mark.index
    if not interface.flow_style:
        return _cut(text, start, end)
    comma = _comma(text, end)
    if comma is not None:
        return _cut(text, start, comma + 1)
    before = _comma(text, interface.value[place - 1][1].end_mark.index)
    if before is None:
        return _cut(text, start, end)
    # The comma before the last entry is no comma of JSON, and the file may be JSON.
    after = _cut(text, start, end)[before + 1 :]
    return text[:before] + (after.lstrip(" ") if after.lstrip(" ").startswith("}") else after)


def _interface(text: str) -> Any:
    root = YAML(typ="rt").compose(text)
    return next(value for name, value in root.value if name.value == "interface")


def _word(label: str, like: Any) -> str:
    """The label as a scalar in the quotes of the node `like`; quoted in any case where YAML might read it otherwise."""
    plain = _PLAIN.fullmatch(label) and label.lower() not in _WORDS
    return label if plain and like.style not in ("'", '"') else json.dumps(label, ensure_ascii=False)


def _quoted(word: str, like: Any) -> str:
    return json.dumps(word) if like.style == '"' else word


def _comma(text: str, place: int) -> int | None:
    """The comma that follows at `place` after spaces, ends of lines and comments; None if something else does."""
    while place < len(text):
        if text[place] == ",":
            return place
        if text[place] == "#":
            place = text.find("\n", place)
            if place < 0:
                return None
        elif not text[place].isspace():
            return None
        place += 1
    return None


def _cut(text: str, start: int, end: int) -> str:
    """The text without that piece, and without its line where nothing but a comment is left of it."""
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    last = len(text) if last < 0 else last + 1
    before, after = text[first:start], text[end:last]
    if not before.strip() and (not after.strip() or after.lstrip().startswith("#")):
        return text[:first] + text[last:]
    if before.rstrip().endswith("{"):
        return text[:start] + after.lstrip(" ") + text[last:]
    return text[:start].rstrip(" ") + text[end:]

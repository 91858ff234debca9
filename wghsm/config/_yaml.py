"""YAML text to a tree of plain text with line numbers. Nothing is constructed and no type is guessed.

Called by `_load` only. The tree is built from parser events, so that

- a tag can never make an object, and `off`, `0123` or `1e3` stay what the operator wrote;
- duplicate keys, aliases, tags and a second document are errors with their line;
- every value keeps its line (the line of its key within a mapping).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

__all__ = ["Document", "Path", "Raw", "Scalar", "built", "parse"]

MAX_DEPTH = 16
"""Levels of nesting that a gateway file may have; the schema needs four."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as written. `plain` says that it stood without quotes. The text may be a secret: no repr."""

    text: str = field(repr=False)
    plain: bool

    @property
    def is_null(self) -> bool:
        """True for an empty value, `~` and `null`."""
        return self.plain and self.text in {"", "~", "null", "Null", "NULL"}


Raw = dict[str, "Raw"] | list["Raw"] | Scalar
Path = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """The tree (None: unusable), the line of each node by its path, and (line, message, remedy) of each fault."""

    root: Raw | None = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    told: set[Path] = field(default_factory=set)
    """Nodes without a usable value whose fault is already among the faults."""

    def line(self, path: Path) -> int:
        """Line of a node, or of the nearest node above it that exists; 1 if there is none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _UnusableError(Exception):
    """The tree cannot be completed; the fault is already noted."""


def parse(text: str) -> Document:
    """Parse one YAML document. Never raises for bad text: faults are in the result."""
    document = Document()
    try:
        _Builder(document, YAML(typ="safe", pure=True).parse(text)).build()
    except _UnusableError:
        document.root = None
    except MarkedYAMLError as error:
        document.root = None
        # Of an open bracket or quote the beginning says more than the place where the parser gave up.
        opened = re.search("flow|quoted", error.context or "") is not None
        mark = (opened and error.context_mark) or error.problem_mark or error.context_mark
        document.faults.append(_syntax(mark.line + 1 if mark else 1, str(error.problem or error.context)))
    except ReaderError as error:
        document.root = None
        line = text.count("\n", 0, error.position) + 1
        document.faults.append((line, "a character that YAML does not allow", "remove it, or retype the line"))
    except Exception:  # the parser answers some hostile texts with OverflowError, ValueError and the like
        document.root = None
        line = max(document.lines.values(), default=1)
        document.faults.append((line, "not readable as YAML, here or a little below", _QUOTE))
    return document


def built(events: Iterator[Any]) -> Document:
    """The tree of a parser's events, which ruamel's and PyYAML's are alike. Raises what the parser raises."""
    document = Document()
    try:
        _Builder(document, events).build()
    except _UnusableError:
        document.root = None
    return document


_QUOTE = "put a value that has one of : # [ ] { } * & ! @ ` % in quotes"


def _syntax(line: int, problem: str) -> tuple[int, str, str]:
    # A long quoted piece may be the operator's text, which may be a secret; token names look like '<name>'.
    problem = re.sub(r"'[^'<>]{7,}'|\"[^\"<>]{7,}\"", "...", problem)
    if "\\t" in problem or "tab" in problem:
        return line, "a tab where YAML wants spaces", "indent with spaces"
    return line, f"not YAML: {problem}", f"check the indentation and the colons here and above, and {_QUOTE}"


class _Builder:
    """Turns parser events into a tree. They are untyped, hence `Any` within this class."""

    def __init__(self, document: Document, events: Iterator[Any]) -> None:
        self._document = document
        self._events = events

    def build(self) -> None:
        root_seen = False
        for event in self._events:
            kind = type(event).__name__
            if kind in {"StreamStartEvent", "StreamEndEvent", "DocumentEndEvent"}:
                continue
            if kind == "DocumentStartEvent":
                if root_seen:
                    self._stop(event, "a second YAML document", "keep one gateway to a file; remove the line ---")
                root_seen = True
                continue
            self._document.root = self._node(event, (), self._line(event))

    def _node(self, event: Any, path: Path, line: int) -> Raw:
        kind = type(event).__name__
        self._document.lines[path] = line
        if len(path) > MAX_DEPTH:
            self._stop(event, "nested too deep", "see docs/configuration.md for the shape of the file")
        if kind == "AliasEvent":
            self._fault(event, "a YAML alias (*) has no place here", "write the value out, or put it in quotes")
            self._document.told.add(path)
            return Scalar("", plain=True)
        if event.tag is not None:
            self._fault(event, "a YAML tag (!) has no place here", "remove it, or put the value in quotes")
        if kind == "MappingStartEvent":
            return self._mapping(path)
        if kind == "SequenceStartEvent":
            return self._sequence(path)
        return Scalar(str(event.value), plain=event.style is None or event.style == "")

    def _mapping(self, path: Path) -> Raw:
        result: dict[str, Raw] = {}
        for event in self._events:
            if type(event).__name__ == "MappingEndEvent":
                break
            line = self._line(event)
            if type(event).__name__ != "ScalarEvent":
                self._stop(event, "a key that is not a word", f"write key: value, and {_QUOTE}")
            key = str(event.value)
            here = (*path, key)
            if key in result:
                first = self._document.lines[here]
                # The key itself may be a pasted secret, so the first line names it, not the text.
                self._fault(event, f"the same key as on line {first}", "keep one of the two")
                shadow = _Builder(Document(), self._events)
                shadow._node(next(self._events), here, line)
                self._document.faults += shadow._document.faults
                continue
            result[key] = self._node(next(self._events), here, line)
        return result

    def _sequence(self, path: Path) -> Raw:
        result: list[Raw] = []
        for event in self._events:
            if type(event).__name__ == "SequenceEndEvent":
                break
            result.append(self._node(event, (*path, len(result)), self._line(event)))
        return result

    @staticmethod
    def _line(event: Any) -> int:
        return int(event.start_mark.line) + 1

    def _fault(self, event: Any, message: str, remedy: str) -> None:
        self._document.faults.append((self._line(event), message, remedy))

    def _stop(self, event: Any, message: str, remedy: str) -> None:
        self._fault(event, message, remedy)
        raise _UnusableError

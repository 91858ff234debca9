"""The tree of a gateway file, in a fraction of `_yaml`'s time: by libyaml, as long as the text is in order.

    quick    text --libyaml--> events --> Document without lines, or with one fault that says nothing
    lined    text --libyaml--> events --> Document with lines; of a text with a fault that of `_yaml`

Ten thousand peers are read by the first in 0.2 s, and by `_yaml` in four. Whatever is not plainly in order (and
whatever the two parsers could see in two ways) is left to `_yaml`, which says what is wrong with it. A test holds both
against each other. Called by `_load` and `_include`.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

from wghsm.config._yaml import MAX_DEPTH, Document, Raw, Scalar, built, parse

try:
    from yaml import YAMLError
    from yaml.cyaml import CParser
    from yaml.events import (
        DocumentEndEvent,
        DocumentStartEvent,
        MappingEndEvent,
        MappingStartEvent,
        ScalarEvent,
        SequenceEndEvent,
        SequenceStartEvent,
        StreamEndEvent,
        StreamStartEvent,
    )
except ImportError:  # no PyYAML, or one that was built without libyaml
    CParser = None

__all__ = ["lined", "quick", "tree"]

_PLAIN = re.compile("[\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
"""No tab, no line break of YAML 1.1 alone, nothing that YAML does not allow."""

_ODD = re.compile(r"""^%|[|>][0-9+-]*\#|[^\s\[{,]["']:\S|\r(?!\n)""", re.MULTILINE)
"""Directives; what libyaml alone takes: a comment right behind | or >, no space after a quoted key; lone returns."""


class _UnusualError(Exception):
    """Something that only `_yaml` can judge."""


def quick(text: str) -> Document:
    """The tree of the text, without lines; a document with a fault in place of whatever is unusual. Raises nothing."""
    if _is_odd(text):
        return _unusual()
    parser = CParser(text)
    try:
        return Document(_document(parser.get_event))
    except (_UnusualError, YAMLError, RecursionError, ValueError):
        return _unusual()
    finally:
        parser.dispose()


def lined(text: str) -> Document:
    """What `_yaml.parse` gives: the tree of the text, its lines, and its faults."""
    if _is_odd(text):
        return parse(text)
    parser = CParser(text)
    try:
        document = built(_events(parser))
    except (_UnusualError, YAMLError):
        return parse(text)
    finally:
        parser.dispose()
    return parse(text) if document.faults else document


def tree(text: str) -> Document:
    """The tree of the text, without lines where it has no fault."""
    document = quick(text)
    return parse(text) if document.faults else document


def _is_odd(text: str) -> bool:
    """Whether the two parsers may see different things in it."""
    return CParser is None or not _PLAIN.fullmatch(text) or _ODD.search(text) is not None


def _events(parser: Any) -> Iterator[Any]:
    while parser.check_event():
        event = parser.get_event()
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise _UnusualError
        yield event


def _unusual() -> Document:
    return Document(faults=[(1, "not read", "")])


def _document(get: Any) -> Raw:
    """The root of the one document. libyaml's events are untyped, hence `Any` here."""
    _expect(get(), StreamStartEvent)
    _expect(get(), DocumentStartEvent)
    root = _node(get, get(), 0)
    _expect(get(), DocumentEndEvent)
    _expect(get(), StreamEndEvent)
    return root


def _expect(event: Any, kind: Any) -> None:
    if type(event) is not kind:
        raise _UnusualError


def _node(get: Any, event: Any, depth: int) -> Raw:
    kind = type(event)
    if kind is ScalarEvent:
        if event.tag is not None or event.anchor is not None:
            raise _UnusualError
        return Scalar(event.value, plain=not event.style)
    if kind not in (MappingStartEvent, SequenceStartEvent):
        raise _UnusualError
    if event.tag is not None or event.anchor is not None or depth >= MAX_DEPTH:
        raise _UnusualError
    return _mapping(get, depth + 1) if kind is MappingStartEvent else _sequence(get, depth + 1)


def _mapping(get: Any, depth: int) -> Raw:
    result: dict[str, Raw] = {}
    while type(event := get()) is not MappingEndEvent:
        if type(event) is not ScalarEvent or event.tag is not None or event.anchor is not None:
            raise _UnusualError
        # Ten thousand peers have the same few keys.
        key = sys.intern(event.value)
        if key in result:
            raise _UnusualError
        result[key] = _node(get, get(), depth)
    return result


def _sequence(get: Any, depth: int) -> Raw:
    result: list[Raw] = []
    while type(event := get()) is not SequenceEndEvent:
        result.append(_node(get, event, depth))
    return result

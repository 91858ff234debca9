"""A transcript against the tokens of today: what differs, in words. Pure.

What a token holds and is must be the same. Software changes with every update, and keys come and go: those differences
are told and break nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wghsm.ceremony.record import ObjectSeen, Software, TokenSeen, Transcript

__all__ = ["Difference", "compare"]

_TOKEN = ("label", "serial", "manufacturer", "model", "hardware", "firmware")
_OBJECT = ("id", "key_type", "length", "algorithm", "public_key", "check_value", "made", "value_readable")


@dataclass(frozen=True)
class Difference:
    """`where` is the token or the software, `what` names the fact. One that `breaks` contradicts the transcript."""

    where: str
    what: str
    then: str
    now: str
    breaks: bool = True


def compare(transcript: Transcript, today: Sequence[TokenSeen], software: Sequence[Software]) -> list[Difference]:
    """Everything that differs. `today` holds the tokens in the transcript's order."""
    found: list[Difference] = []
    for then, now in zip(transcript.tokens, today, strict=True):
        found += _token(then, now)
    before = {one.name: one for one in transcript.software}
    for each in software:
        was = before.pop(each.name, None)
        if was is None or was.sha256 != each.sha256:
            said = "not there" if was is None else f"{was.version}, {was.sha256}"
            found.append(Difference("software", each.name, said, f"{each.version}, {each.sha256}", breaks=False))
    found += [
        Difference("software", name, f"{one.version}, {one.sha256}", "not there", breaks=False)
        for name, one in before.items()
    ]
    return found


def _token(then: TokenSeen, now: TokenSeen) -> Iterator[Difference]:
    where = f"token {then.label!r}"
    for name in _TOKEN:
        if getattr(then, name) != getattr(now, name):
            yield Difference(where, name, getattr(then, name), getattr(now, name))
    if then.module.sha256 != now.module.sha256:
        yield Difference(where, "module", then.module.sha256, now.module.sha256, breaks=False)
    there = {(one.kind, one.label, one.id): one for one in now.objects}
    for was in then.objects:
        same = there.pop((was.kind, was.label, was.id), None)
        if same is None:
            # Another object of that label has taken its place, or none has.
            same = next((one for place, one in there.items() if place[:2] == (was.kind, was.label)), None)
            if same is not None:
                there.pop((same.kind, same.label, same.id))
        if same is None:
            yield Difference(where, f"{was.kind} {was.label!r}", "there", "missing")
        else:
            yield from _object(where, was, same)
    for new in there.values():
        yield Difference(where, f"{new.kind} {new.label!r}", "not there", "there", breaks=False)


def _object(where: str, then: ObjectSeen, now: ObjectSeen) -> Iterator[Difference]:
    name = f"{then.kind} {then.label!r}"
    for fact in _OBJECT:
        was, is_now = getattr(then, fact), getattr(now, fact)
        if was != is_now:
            yield Difference(where, f"{name}: {fact.replace('_', ' ')}", str(was), str(is_now))
    for attribute in sorted(then.attributes.keys() | now.attributes.keys()):
        was, is_now = then.attributes.get(attribute), now.attributes.get(attribute)
        if was != is_now:
            yield Difference(where, f"{name}: CKA_{attribute}", _said(was), _said(is_now))


def _said(value: bool | None) -> str:
    return "not stated" if value is None else str(value).lower()

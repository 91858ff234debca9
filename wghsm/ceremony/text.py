"""The transcript as plain text, for a terminal, a mail or a printer without graphics."""

from collections.abc import Iterator
from textwrap import wrap

from wghsm.ceremony.record import ObjectSeen, Transcript, encode, fingerprint

__all__ = ["grouped", "render_text", "said"]

_WIDTH = 78


def render_text(transcript: Transcript) -> str:
    """The whole transcript in lines of at most 78 characters, but for hashes and paths."""
    return "\n".join(_lines(transcript)) + "\n"


def grouped(value: str) -> str:
    """Hex digits in groups of four, as people compare them."""
    return " ".join(value[place : place + 4] for place in range(0, len(value), 4))


def said(value: bool | None) -> str:
    """What a token said of an attribute."""
    return "not stated" if value is None else "true" if value else "false"


def _lines(one: Transcript) -> Iterator[str]:
    yield f"KEY CEREMONY OF GATEWAY {one.order.gateway}"
    yield "=" * _WIDTH
    yield f"ceremony   {one.id}"
    yield f"machine    {one.host}"
    yield f"begun      {one.sittings[0]}"
    yield from (f"taken up   {again}" for again in one.sittings[1:])
    yield f"ended      {one.ended}"
    yield "SHA-256 of the transcript's JSON file:"
    yield f"  {fingerprint(encode(one).encode())}"
    yield from _heading("Participants")
    yield from (f"  {person.name}: {person.role}" for person in one.participants)
    yield from _heading("What was done")
    for number, step in enumerate(one.steps, 1):
        yield f"{number:2}. {step.title} ({step.began} to {step.ended})"
        for did in step.did:
            yield from wrap(did, _WIDTH, initial_indent="    - ", subsequent_indent="      ", break_long_words=False)
    for token in one.tokens:
        yield from _heading(f"Token {token.label!r}")
        yield f"  {token.manufacturer} {token.model}, serial {token.serial}"
        yield f"  hardware {token.hardware}, firmware {token.firmware}"
        yield f"  module {token.module.path}, {token.module.version}"
        yield f"    SHA-256 {token.module.sha256}"
        yield f"  {token.uri}"
        for each in token.objects:
            yield from _object(each)
        yield ""
        yield "  Examination:"
        for finding in token.findings:
            said_of_it = f"{finding.level:6} {finding.check}: {finding.text}"
            yield from wrap(said_of_it, _WIDTH, initial_indent="  ", subsequent_indent="           ")
    yield from _heading("Software")
    for program in one.software:
        yield f"  {program.name} {program.version}"
        yield f"    {program.sha256}"
    yield from _heading("Signatures")
    yield "We were present, and what is written here is what we saw."
    for person in one.participants:
        yield ""
        yield f"{person.name} ({person.role})"
        yield ""
        yield f"  {'.' * 38}  {'.' * 34}"
        yield f"  {'signature':38}  place, date"


def _object(one: ObjectSeen) -> Iterator[str]:
    yield ""
    yield f"  {one.kind} {one.label!r}" + (f", {one.algorithm}" if one.algorithm else "") + f", id {one.id or '-'}"
    if one.public_key is not None:
        yield f"    public key   {one.public_key}"
    if one.fingerprint is not None:
        yield f"    SHA-256      {grouped(one.fingerprint)}"
    if one.check_value is not None:
        yield f"    check value  {grouped(one.check_value)}"
    if one.made is not None:
        yield f"    made         {one.made}"
    if one.key_type is not None:
        yield f"    CKA_KEY_TYPE {one.key_type}"
    if one.length is not None:
        yield f"    length       {one.length} bytes"
    value = "given out by the token: NOT IN CUSTODY" if one.value_readable else "refused by the token"
    yield f"    CKA_VALUE    {value}"
    words = ", ".join(f"{name} {said(value)}" for name, value in one.attributes.items())
    yield from wrap(words, _WIDTH, initial_indent="    ", subsequent_indent="    ")


def _heading(text: str) -> Iterator[str]:
    yield ""
    yield text
    yield "-" * len(text)

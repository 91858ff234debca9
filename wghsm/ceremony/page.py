"""The transcript as one HTML file that prints well on A4: no script, no font, nothing that is fetched.

    head: what, where, when, fingerprint of the JSON file -> people -> keys with QR codes -> steps
    -> each token with the attributes of all its objects -> software -> places to sign

Whatever comes from tokens and people is escaped.
"""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources

import segno

from wghsm.ceremony.record import ObjectSeen, Participant, TokenSeen, Transcript, encode, fingerprint
from wghsm.ceremony.text import grouped

__all__ = ["render_page"]

_BESIDE = 4
"""Objects in one table of attributes: more are too narrow on A4."""
_KINDS = {
    "key": "Gateway's key",
    "audit-key": "Audit key",
    "psk-root": "Root of pre-shared keys",
    "psk-wrap-key": "Wrapping key of pre-shared keys",
    "other": "Other object",
}
_MARKS = {True: "<b>yes</b>", False: '<span class="no">no</span>', None: '<span class="unsaid">&ndash;</span>'}


def render_page(transcript: Transcript) -> str:
    """The page as one text."""
    style = resources.files("wghsm.ceremony").joinpath("page.css").read_text("utf-8")
    title = f"Key ceremony of {transcript.order.gateway}"
    body = "\n".join(_body(transcript))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>\n{style}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _body(one: Transcript) -> Iterator[str]:
    digest = fingerprint(encode(one).encode())
    yield '<header><p class="over">Key ceremony · transcript</p>'
    yield f"<h1>Gateway {escape(one.order.gateway)}</h1>"
    begun, *again = one.sittings
    yield _facts(
        [
            ("Begun", _moment(begun)),
            *(("Taken up again", _moment(each)) for each in again),
            ("Ended", _moment(one.ended)),
            ("Machine", escape(one.host)),
            ("Tokens", escape(", ".join(f"{token.label} ({token.serial})" for token in one.tokens))),
            ("Ceremony", _code(one.id)),
        ]
    )
    yield f'<div class="seal"><p>SHA-256 of the transcript&rsquo;s JSON file</p>{_hash(digest)}</div></header>'
    yield "<section><h2>Participants</h2>"
    yield _table(("Name", "Role"), ((escape(person.name), escape(person.role)) for person in one.participants))
    yield "</section>"
    yield "<section><h2>Keys</h2>"
    for token in one.tokens:
        for each in token.objects:
            if each.public_key is not None or each.check_value is not None:
                yield _card(token, each)
    yield "</section>"
    yield '<section><h2>What was done</h2><ol class="steps">'
    for step in one.steps:
        yield (
            f"<li><h3>{escape(step.title)}</h3><p class='when'>{_span(step.began, step.ended)}</p><ul>"
            + "".join(f"<li>{escape(did)}</li>" for did in step.did)
            + "</ul></li>"
        )
    yield "</ol></section>"
    for token in one.tokens:
        yield from _token(token)
    yield "<section><h2>Software of the machine</h2>"
    rows = ((escape(each.name), escape(each.version), _hash(each.sha256)) for each in one.software)
    yield _table(("Name", "Version", "SHA-256"), rows, "software")
    yield "</section>"
    yield '<section class="signatures"><h2>Signatures</h2>'
    yield "<p>We were present. What this transcript says is what we saw. The SHA-256 of its JSON file is</p>"
    yield f"<p>{_hash(digest)}</p>"
    yield "".join(_signature(person) for person in one.participants)
    yield "</section>"


def _card(token: TokenSeen, one: ObjectSeen) -> str:
    rows = [("Token", escape(f"{token.label}, serial {token.serial}"))]
    if one.algorithm:
        rows.append(("Algorithm", escape(one.algorithm)))
    if one.public_key is not None:
        rows.append(("Public key", _code(one.public_key)))
    if one.fingerprint is not None:
        rows.append(("SHA-256 of it", _hash(one.fingerprint)))
    if one.check_value is not None:
        rows.append(("Check value", _hash(one.check_value)))
    if one.made is not None:
        rows.append(("Made", _moment(one.made)))
    code = "" if one.public_key is None else _qr(one.public_key, f"QR code of the public key {one.label}")
    kind = "card" if code else "card plain"
    return (
        f'<article class="{kind}"><div><p class="over">{_KINDS[one.kind]}</p><h3>{escape(one.label)}</h3>'
        f"{_facts(rows)}</div>{code}</article>"
    )


def _token(token: TokenSeen) -> Iterator[str]:
    yield f'<section><h2>Token <span class="name">{escape(token.label)}</span></h2>'
    yield _facts(
        [
            ("Maker, model", escape(f"{token.manufacturer}, {token.model}")),
            ("Serial", _code(token.serial)),
            ("Hardware, firmware", escape(f"{token.hardware}, {token.firmware}")),
            ("Flags", escape(", ".join(token.flags)) or "none"),
            ("URI", _code(token.uri)),
            ("Module", f"{escape(token.module.version)}<br>{_code(token.module.path)}"),
            ("SHA-256 of it", _hash(token.module.sha256)),
        ]
    )
    if token.objects:
        yield "<h3>What the token says of what is in it</h3>"
        for first in range(0, len(token.objects), _BESIDE):
            yield _attributes(token.objects[first : first + _BESIDE])
        yield '<p class="note">&ndash; : not stated by the token, or not asked of this kind.</p>'
    if token.findings:
        yield "<h3>Examination</h3>"
        yield _table(
            ("", "Check", "Finding"),
            (
                (
                    f'<span class="level {escape(each.level)}">{escape(each.level)}</span>',
                    escape(each.check),
                    escape(each.text),
                )
                for each in token.findings
            ),
            "findings",
        )
    yield "</section>"


def _attributes(objects: Sequence[ObjectSeen]) -> str:
    names = dict.fromkeys(name for each in objects for name in each.attributes)
    given = {True: '<b class="bad">given out</b>', False: "<b>refused</b>"}
    rows: list[Iterable[str]] = [
        ("Kind", *(_KINDS[each.kind] for each in objects)),
        ("CKA_ID", *(_code(each.id) if each.id else "&ndash;" for each in objects)),
        ("CKA_KEY_TYPE", *(_code(each.key_type) if each.key_type else "&ndash;" for each in objects)),
        ("CKA_VALUE_LEN", *("&ndash;" if each.length is None else str(each.length) for each in objects)),
        *((f"CKA_{name}", *(_MARKS[each.attributes.get(name)] for each in objects)) for name in names),
        ("CKA_VALUE", *(given[each.value_readable] for each in objects)),
    ]
    return _table(("", *(escape(each.label) for each in objects)), rows, "attributes")


def _signature(person: Participant) -> str:
    return (
        f'<div class="sign"><p><b>{escape(person.name)}</b>, {escape(person.role)}</p>'
        '<div class="lines"><span>Signature</span><span>Place, date</span></div></div>'
    )


def _qr(text: str, title: str) -> str:
    code = segno.make(text, error="m", micro=False)
    drawn = code.svg_inline(border=2, omitsize=True, svgclass="qr", lineclass=None, title=escape(title))
    return f'<figure class="code">{drawn}</figure>'


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows) + "</dl>"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _hash(value: str) -> str:
    return f'<code class="hash">{escape(grouped(value))}</code>'


def _code(value: str) -> str:
    return f"<code>{escape(value)}</code>"


def _moment(when: str) -> str:
    """2026-01-31T12:00:00Z -> 2026-01-31 12:00:00 UTC."""
    return escape(when.replace("T", " ").replace("Z", " UTC"))


def _span(began: str, ended: str) -> str:
    same = began[:10] == ended[:10]
    return f"{_moment(began).removesuffix(' UTC')} to {_moment(ended[11:] if same else ended)}"

"""One line of the audit log: what happened (`Event`) and its place in the chain (`Record`).

    Event + v, stream, seq, time, prev -> Record -> encode -> one line of ASCII JSON without a line feed

Pure. Called by the chain, which makes the lines, and by whoever reads them. docs/audit.md describes every field, and
`json_schema` gives it to machines.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

import msgspec

__all__ = [
    "FIRST_PREV",
    "KINDS",
    "MAX_LINE",
    "VERSION",
    "Event",
    "Kind",
    "Record",
    "Who",
    "decode",
    "encode",
    "json_schema",
    "microseconds",
    "rfc3339",
]

VERSION: Literal[1] = 1
FIRST_PREV = "0" * 64
"""`prev` of the first record of a stream."""
MAX_LINE = 2048
"""Longest line in bytes: what every syslog server takes (RFC 5424 section 6.1)."""

Kind = Literal[
    "start",
    "stop",
    "key.use",
    "pin.login",
    "config.change",
    "peer.change",
    "psk.export",
    "key.change",
    "control.refused",
    "fault",
    "recovery",
    "aggregate",
    "gap",
    "retention",
    "checkpoint",
]
KINDS: tuple[str, ...] = get_args(Kind)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 160

_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Stream = Annotated[
    str,
    msgspec.Meta(
        pattern="^[A-Za-z0-9_=+.@-]{1,64}/[a-z]{1,16}/[0-9a-f]{32}$",
        description="The gateway's name, the log (gateway or commands) and 16 random bytes in hex.",
    ),
]
_Time = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
        description="RFC 3339, UTC, with microseconds: the wall clock of the gateway's host.",
    ),
]


def _said(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Who(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asked, from the kernel: peer credentials of a socket, or the ids of the command's own process."""

    uid: Annotated[int, _said("the user")]
    gid: Annotated[int | None, _said("the group")] = None
    pid: Annotated[int | None, _said("the process")] = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. `result` is "ok" or a word for what went wrong; what does not apply is left empty.

    `peer` is a WireGuard public key in base64, `key` a public key in base64 or a label, `token` a label with a serial
    number, `latency_us` microseconds. `detail` is small: `MAX_LINE` bounds the whole line.
    """

    kind: Kind
    operation: str
    result: str = "ok"
    peer: str = ""
    key: str = ""
    token: str = ""
    latency_us: int | None = None
    who: Who | None = None
    detail: dict[str, str | int] = {}


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record, in the order of its fields on the line. Empty fields are left out."""

    v: Annotated[Literal[1], _said("The version of the record.")]
    stream: _Stream
    seq: Annotated[int, msgspec.Meta(ge=0, description="0, 1, 2, ... without a gap, over all files of a stream.")]
    time: _Time
    prev: Annotated[
        _Hash, msgspec.Meta(description="SHA-256 of the line before, without its line feed; 64 zeros first.")
    ]
    kind: Annotated[Kind, _said("What it is about.")]
    operation: Annotated[str, _said("What was done, or tried.")]
    result: Annotated[str, _said("ok, or a word for what went wrong.")]
    peer: Annotated[str, _said("The peer's public key, base64.")] = ""
    key: Annotated[str, _said("The key: a public key in base64, or a label.")] = ""
    token: Annotated[str, _said("The token: its label and serial number.")] = ""
    latency_us: Annotated[int | None, _said("How long the token took, in microseconds.")] = None
    who: Annotated[Who | None, _said("Who asked.")] = None
    detail: Annotated[dict[str, str | int], _said("What else belongs to it, by name.")] = {}


_decoder = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder()


def encode(event: Event, stream: str, seq: int, now: int, prev: str) -> bytes:
    """The line of `event`, at most `MAX_LINE` bytes of ASCII: long texts are cut. `now` is in us since 1970."""
    try:
        line = _line(event, stream, seq, now, prev)
    except UnicodeEncodeError:
        line = b""
    if 0 < len(line) <= MAX_LINE:
        return line
    short = {name: _cut(value) for name, value in event.detail.items()}
    texts = {name: _printable(getattr(event, name)) for name in ("operation", "result", "peer", "key", "token")}
    event = msgspec.structs.replace(event, detail=short, **texts)
    line = _line(event, stream, seq, now, prev)
    if len(line) <= MAX_LINE:
        return line
    return _line(msgspec.structs.replace(event, detail={"left_out": len(event.detail)}), stream, seq, now, prev)


def decode(line: bytes | str) -> Record:
    """The record of a line. Raises msgspec.MsgspecError."""
    return _decoder.decode(line)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a record, with `$defs`."""
    (schema,), parts = msgspec.json.schema_components([Record], ref_template="#/$defs/{name}")
    root = dict(parts.pop("Record")) if "$ref" in schema else dict(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": parts}


def rfc3339(now: int) -> str:
    """`now` (us since 1970, UTC) as it stands in a record."""
    return (_EPOCH + timedelta(microseconds=now)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def microseconds(time: str) -> int:
    """The other way round. Raises ValueError."""
    return (datetime.fromisoformat(time) - _EPOCH) // timedelta(microseconds=1)


def _line(event: Event, stream: str, seq: int, now: int, prev: str) -> bytes:
    line = _encoder.encode(
        Record(
            v=VERSION,
            stream=stream,
            seq=seq,
            time=rfc3339(now),
            prev=prev,
            kind=event.kind,
            operation=event.operation,
            result=event.result,
            peer=event.peer,
            key=event.key,
            token=event.token,
            latency_us=event.latency_us,
            who=event.who,
            detail=event.detail,
        )
    )
    # Syslog servers change bytes that are not ASCII, and the anchor must be the same line.
    return line if line.isascii() else json.dumps(json.loads(line), separators=(",", ":")).encode("ascii")


def _cut(value: str | int) -> str | int:
    return value if isinstance(value, int) else _printable(value)


def _printable(text: str) -> str:
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in text[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."

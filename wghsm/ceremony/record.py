"""What a ceremony writes down: the journal while it goes on, the transcript at its end. No secret has a field here.

Times are RFC 3339 in UTC, hashes SHA-256 in hex, public keys base64. docs/ceremony.md describes the transcript.
"""

import hashlib
from typing import Literal

import msgspec

__all__ = [
    "Done",
    "Finding",
    "Journal",
    "ObjectSeen",
    "Order",
    "Participant",
    "Software",
    "TokenSeen",
    "Transcript",
    "encode",
    "fingerprint",
    "journal_of",
    "transcript_of",
]

Kind = Literal["key", "audit-key", "psk-root", "psk-wrap-key", "other"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the ceremony is to make: labels, and the URIs of the tokens, the first one first.

    `copy` says how the gateway's key gets into the others: `wrapped:LABEL` under their common AES key, `import`: made
    outside and brought into all, or `maker`: by their maker's means, after the ceremony.
    """

    gateway: str
    uris: list[str]
    key: str
    psk_root: str | None = None
    wrap_key: str | None = None
    audit_key: str | None = None
    copy: str = "maker"


class Participant(msgspec.Struct, frozen=True):
    """One of the people, and what they are there for."""

    name: str
    role: str


class Software(msgspec.Struct, frozen=True, kw_only=True):
    """A program or a library: `sha256` of the file `path`, or of a tree as docs/ceremony.md says."""

    name: str
    version: str
    path: str
    sha256: str


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor."""

    check: str
    level: str
    text: str
    remedy: str = ""


class ObjectSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A key or a secret as the token describes it. `public_key`: 32 bytes, or of an audit key its SPKI.

    `key_type` is CKA_KEY_TYPE in hex, of keys; `length` CKA_VALUE_LEN in bytes, of secrets.
    """

    kind: Kind
    label: str
    id: str
    attributes: dict[str, bool | None]
    value_readable: bool = False
    key_type: str | None = None
    length: int | None = None
    algorithm: str = ""
    public_key: str | None = None
    fingerprint: str | None = None
    check_value: str | None = None
    made: str | None = None


class TokenSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One token, what is in it, and what the doctor said."""

    uri: str
    label: str
    serial: str
    manufacturer: str
    model: str
    hardware: str
    firmware: str
    flags: list[str]
    module: Software
    objects: list[ObjectSeen] = []
    findings: list[Finding] = []


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A step that was carried out: `did` is what was done, a sentence each."""

    name: str
    title: str
    began: str
    ended: str
    did: list[str]


class Journal(msgspec.Struct, kw_only=True):
    """How far a ceremony has come. `begun`: the step that has begun to make something, and is not done."""

    v: Literal[1] = 1
    id: str
    order: Order
    sittings: list[str]
    participants: list[Participant] = []
    pin_entry: Literal["halves", "turns"] = "halves"
    software: list[Software] = []
    steps: list[Done] = []
    tokens: list[TokenSeen] = []
    begun: str = ""


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """The whole ceremony. `sittings`: when it was begun, and taken up again after an interruption."""

    v: Literal[1] = 1
    id: str
    host: str
    order: Order
    sittings: list[str]
    ended: str
    participants: list[Participant]
    software: list[Software]
    steps: list[Done]
    tokens: list[TokenSeen]


def encode(document: Journal | Transcript) -> str:
    """JSON text, the same for the same document; `fingerprint` of it stands on the paper."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def journal_of(text: bytes) -> Journal:
    """The journal that `encode` wrote. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(text, type=Journal)


def transcript_of(text: bytes) -> Transcript:
    """The transcript that `encode` wrote. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(text, type=Transcript)


def fingerprint(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()

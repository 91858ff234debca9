"""The chain and its checkpoints."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wghsm.audit import Chain, Event, Head, PublicKey, Statement, decode, stream_name
from wghsm.audit.record import FIRST_PREV

NOW = 1_767_261_600_000_000
SECOND = 1_000_000
START = Event(kind="start", operation="begin")
USE = Event(kind="key.use", operation="create_initiation")
HSM = "hsm (serial 1)"
STREAM = stream_name("wg0", "gateway", bytes(16))


def test_each_record_carries_the_hash_of_the_line_before() -> None:
    chain = Chain(STREAM)
    lines = [chain.append(START, NOW), chain.append(USE, NOW + 1), chain.append(USE, NOW + 2)]
    prev = FIRST_PREV
    for seq, line in enumerate(lines):
        record = decode(line)
        assert (record.seq, record.prev, record.stream) == (seq, prev, STREAM)
        prev = hashlib.sha256(line).hexdigest()
    assert chain.head == Head(2, prev)


def test_a_stream_begins_with_a_start() -> None:
    with pytest.raises(ValueError, match="start"):
        Chain(STREAM).append(USE, NOW)


def test_a_chain_goes_on_where_it_ended() -> None:
    chain = Chain(STREAM)
    chain.append(START, NOW)
    again = Chain(STREAM, chain.head)
    assert again.append(USE, NOW) == chain.append(USE, NOW)


def test_a_checkpoint_is_due_at_first_each_minute_and_each_thousand_records() -> None:
    chain = Chain(STREAM)
    assert not chain.due(NOW)
    chain.append(START, NOW)
    assert chain.due(NOW)
    chain.checkpoint(chain.statement(NOW), bytes(64), "f" * 64, "ed25519", NOW)
    assert not chain.due(NOW)
    assert not chain.due(NOW + 60 * SECOND - 1)
    assert chain.due(NOW + 60 * SECOND)
    assert chain.due(NOW - SECOND), "a clock that went back must not put it off for long"
    for _ in range(998):
        chain.append(USE, NOW)
    assert not chain.due(NOW)
    chain.append(USE, NOW)
    assert chain.due(NOW)


def test_records_may_come_while_a_checkpoint_is_signed() -> None:
    chain = Chain(STREAM)
    chain.append(START, NOW)
    statement = chain.statement(NOW)
    chain.append(USE, NOW)
    record = decode(chain.checkpoint(statement, b"s" * 64, "f" * 64, "ed25519", NOW + 5, token=HSM))
    assert (record.seq, record.kind, record.key, record.token) == (2, "checkpoint", "f" * 64, HSM)
    assert record.detail == {
        "seq": 0,
        "hash": statement.hash,
        "time": "2026-01-01T10:00:00.000000Z",
        "algorithm": "ed25519",
        "signature": base64.b64encode(b"s" * 64).decode(),
    }
    assert chain.sealed == 0


def test_a_checkpoint_of_another_stream_or_of_the_future_is_refused() -> None:
    chain, other = Chain(STREAM), Chain(stream_name("wg1", "gateway", bytes(16)))
    chain.append(START, NOW)
    other.append(START, NOW)
    for statement in (other.statement(NOW), Statement(STREAM, 1, "0" * 64, "2026-01-01T10:00:00.000000Z")):
        with pytest.raises(ValueError, match="not one of this chain"):
            chain.checkpoint(statement, bytes(64), "", "ed25519", NOW)


def test_the_bytes_that_are_signed() -> None:
    statement = Statement(STREAM, 4711, "ab" * 32, "2026-01-01T10:00:00.000000Z")
    assert statement.to_bytes().decode() == (
        f"wghsm audit checkpoint v1\nstream wg0/gateway/{'00' * 16}\nseq 4711\nhash {'ab' * 32}\n"
        "time 2026-01-01T10:00:00.000000Z\n"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"stream": f"wg0/gateway/{'00' * 16}\nseq 5"},
        {"stream": "wg0"},
        {"seq": -1},
        {"seq": 2**63},
        {"hash": "AB" * 32},
        {"hash": "ab" * 32 + "\n"},
        {"time": "2026-01-01T10:00:00Z"},
    ],
)
def test_nothing_else_can_be_put_into_a_statement(change: dict[str, str | int]) -> None:
    fields: dict[str, str | int] = {
        "stream": STREAM,
        "seq": 1,
        "hash": "ab" * 32,
        "time": "2026-01-01T10:00:00.000000Z",
        **change,
    }
    with pytest.raises(ValueError, match="no statement"):
        Statement(str(fields["stream"]), int(fields["seq"]), str(fields["hash"]), str(fields["time"]))


@pytest.mark.parametrize(
    ("gateway", "log", "identity"), [("", "x", 16), ("a/b", "x", 16), ("wg0", "X", 16), ("wg0", "x", 15)]
)
def test_a_streams_name_is_made_of_plain_words(gateway: str, log: str, identity: int) -> None:
    with pytest.raises(ValueError, match="stream"):
        stream_name(gateway, log, bytes(identity))


def test_both_kinds_of_signatures_are_checked() -> None:
    statement = Statement(STREAM, 1, "ab" * 32, "2026-01-01T10:00:00.000000Z")
    other = Statement(STREAM, 2, "ab" * 32, "2026-01-01T10:00:00.000000Z")
    edwards, p256 = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
    r, s = decode_dss_signature(p256.sign(statement.to_bytes(), ec.ECDSA(SHA256())))
    signatures = (edwards.sign(statement.to_bytes()), r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    keys: tuple[ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey, ...] = (edwards.public_key(), p256.public_key())
    for key, signature in zip(keys, signatures, strict=True):
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        public = PublicKey(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        assert public.fingerprint == hashlib.sha256(spki).hexdigest()
        assert public.signed(statement, signature)
        assert not public.signed(other, signature)
        assert not public.signed(statement, signature[:-1])
        assert not public.signed(statement, bytes(64))
        assert not public.signed(statement, signature[:-1] + bytes([signature[-1] ^ 1]))


@pytest.mark.parametrize("curve", [ec.SECP384R1(), None])
def test_another_kind_of_key_is_refused(curve: ec.EllipticCurve | None) -> None:
    pem = b"wrong"
    if curve is not None:
        pem = ec.generate_private_key(curve).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="key"):
        PublicKey(pem)


def test_lines_are_json() -> None:
    assert json.loads(Chain(STREAM).append(START, NOW))["kind"] == "start"

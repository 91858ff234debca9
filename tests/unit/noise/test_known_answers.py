"""Whole handshakes, byte for byte, in both roles."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.unit.noise import vectors as v
from wghsm.noise import (
    CookieChecker,
    CookieMaker,
    CookieReply,
    Initiation,
    Initiator,
    Rejected,
    Responder,
    Response,
    SessionKeys,
    SoftwareCustody,
    TransportHeader,
    cookie_key,
    mac1_key,
    source_bytes,
)
from wghsm.noise._transcript import Transcript
from wghsm.noise._xchacha import xchacha_open
from wghsm.noise.curve import exchange, public_key
from wghsm.noise.messages import with_macs

pytestmark = pytest.mark.usefixtures("twin")

TRANSCRIPTS = v.load("wireguard_handshake.json")["transcripts"]


def _custodies() -> tuple[SoftwareCustody, SoftwareCustody]:
    return (
        SoftwareCustody(v.S_I, {v.PUBLIC_S_R: v.PSK}),
        SoftwareCustody(v.S_R, {v.PUBLIC_S_I: v.PSK}),
    )


def test_section_17_public_keys() -> None:
    initiator, responder = _custodies()
    assert initiator.public_key == v.PUBLIC_S_I
    assert responder.public_key == v.PUBLIC_S_R
    assert public_key(v.E_I) == v.PUBLIC_E_I
    assert public_key(v.E_R) == v.PUBLIC_E_R


def test_section_17_initiator() -> None:
    custody, _ = _custodies()
    initiator = Initiator(custody, v.PUBLIC_S_R)
    fields = initiator.write_initiation(bytearray(v.E_I), v.TIMESTAMP)
    assert not isinstance(fields, Rejected)
    assert initiator._transcript.chaining_key == v.CHAINING_KEY_1
    assert initiator._transcript.hash == v.HASH_1
    message = Initiation(v.I_I, fields.ephemeral, fields.static, fields.timestamp)
    assert CookieMaker(v.PUBLIC_S_R).authenticate(message, 0) == v.MESSAGE_1

    response = Response.decode(v.MESSAGE_2)
    assert isinstance(response, Response)
    assert (response.sender, response.receiver) == (v.I_R, v.I_I)
    keys = initiator.read_response(response.ephemeral, response.empty)
    assert isinstance(keys, SessionKeys)
    assert keys.send == v.T_I2R
    assert keys.receive == v.T_R2I
    header = TransportHeader(v.I_R, 0).encode()
    assert header + ChaCha20Poly1305(keys.send).encrypt(bytes(12), b"", None) == v.KEEPALIVE_I2R


def test_section_17_responder() -> None:
    _, custody = _custodies()
    assert CookieChecker(v.PUBLIC_S_R).mac1_valid(v.MESSAGE_1)
    initiation = Initiation.decode(v.MESSAGE_1)
    assert isinstance(initiation, Initiation)
    assert initiation.sender == v.I_I
    assert initiation.ephemeral == v.PUBLIC_E_I
    responder = Responder(custody)
    assert responder.read_static(initiation.ephemeral, initiation.static) == v.PUBLIC_S_I
    assert responder.read_timestamp(initiation.timestamp) == v.TIMESTAMP
    assert responder._transcript.chaining_key == v.CHAINING_KEY_1
    assert responder._transcript.hash == v.HASH_1
    fields = responder.write_response(bytearray(v.E_R))
    assert not isinstance(fields, Rejected)
    assert responder._transcript.chaining_key == v.CHAINING_KEY_2
    assert responder._transcript.hash == v.HASH_2
    message = Response(v.I_R, v.I_I, fields.ephemeral, fields.empty)
    assert with_macs(message, mac1_key(v.PUBLIC_S_I)) == v.MESSAGE_2
    assert CookieChecker(v.PUBLIC_S_I).mac1_valid(v.MESSAGE_2)
    keys = responder.session_keys()
    assert keys.send == v.T_R2I
    assert keys.receive == v.T_I2R


def test_section_17_cookie() -> None:
    message = Initiation.decode(v.MESSAGE_1)
    assert isinstance(message, Initiation)
    assert source_bytes(bytes((192, 0, 2, 1)), 51820) == v.COOKIE_SOURCE
    checker = CookieChecker(v.PUBLIC_S_R)
    reply = checker.reply(message, v.COOKIE_SOURCE, v.COOKIE_NONCE, v.COOKIE_SECRET, now=0)
    assert reply.encode() == v.COOKIE_REPLY
    assert xchacha_open(cookie_key(v.PUBLIC_S_R), v.COOKIE_NONCE, reply.cookie, message.mac1) == v.COOKIE

    maker = CookieMaker(v.PUBLIC_S_R)
    assert maker.authenticate(message, 0) == v.MESSAGE_1
    decoded = CookieReply.decode(v.COOKIE_REPLY)
    assert isinstance(decoded, CookieReply)
    assert maker.consume_reply(decoded, 0) is None
    with_cookie = maker.authenticate(message, 1)
    assert with_cookie == v.MESSAGE_1[:-16] + v.MESSAGE_1_MAC2
    assert checker.mac2_valid(with_cookie, v.COOKIE_SOURCE, 1)
    assert not checker.mac2_valid(v.MESSAGE_1, v.COOKIE_SOURCE, 1)


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=["no psk", "psk", "psk and mac2"])
def test_recorded_handshake_as_initiator(transcript: dict[str, Any]) -> None:
    t = {name: bytes.fromhex(value) for name, value in transcript.items() if isinstance(value, str)}
    custody = SoftwareCustody(t["initiator_static"], {t["responder_static_pub"]: t["psk"]})
    assert custody.public_key == t["initiator_static_pub"]
    initiator = Initiator(custody, t["responder_static_pub"])
    fields = initiator.write_initiation(bytearray(t["initiator_ephemeral"]), t["tai64n"])
    assert not isinstance(fields, Rejected)
    message = Initiation(transcript["initiator_index"], fields.ephemeral, fields.static, fields.timestamp)
    assert with_macs(message, mac1_key(t["responder_static_pub"]), t.get("cookie")) == t["initiation"]
    response = Response.decode(t["response"])
    assert isinstance(response, Response)
    keys = initiator.read_response(response.ephemeral, response.empty)
    assert isinstance(keys, SessionKeys)
    assert keys.send == t["initiator_send_key"]
    assert keys.receive == t["initiator_recv_key"]

    # The cookie reply answers the initiation whose mac1 it seals; with or without mac2, mac1 is the same.
    maker = CookieMaker(t["responder_static_pub"])
    maker.authenticate(message, 0)
    reply = CookieReply.decode(t["cookie_reply"])
    assert isinstance(reply, CookieReply)
    assert reply.receiver == transcript["initiator_index"]
    assert maker.consume_reply(reply, 0) is None
    assert maker.authenticate(message, 0) == with_macs(
        message, mac1_key(t["responder_static_pub"]), t["cookie_reply_cookie"]
    )


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=["no psk", "psk", "psk and mac2"])
def test_recorded_handshake_as_responder(transcript: dict[str, Any]) -> None:
    t = {name: bytes.fromhex(value) for name, value in transcript.items() if isinstance(value, str)}
    custody = SoftwareCustody(t["responder_static"], {t["initiator_static_pub"]: t["psk"]})
    initiation = Initiation.decode(t["initiation"])
    assert isinstance(initiation, Initiation)
    with Responder(custody) as responder:
        assert responder.read_static(initiation.ephemeral, initiation.static) == t["initiator_static_pub"]
        assert responder.read_timestamp(initiation.timestamp) == t["tai64n"]
        fields = responder.write_response(bytearray(t["responder_ephemeral"]))
        assert not isinstance(fields, Rejected)
        message = Response(transcript["responder_index"], transcript["initiator_index"], fields.ephemeral, fields.empty)
        assert with_macs(message, mac1_key(t["initiator_static_pub"])) == t["response"]
        keys = responder.session_keys()
    assert keys.send == t["initiator_recv_key"]
    assert keys.receive == t["initiator_send_key"]


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=["no psk", "psk", "psk and mac2"])
def test_recorded_transport(transcript: dict[str, Any]) -> None:
    """Headers and keys of the recorded data messages; the tunnel seals and opens with the same library."""
    t = {name: bytes.fromhex(value) for name, value in transcript.items() if isinstance(value, str)}
    cases = [
        ("transport_0_keepalive", "initiator_send_key", "responder_index", 0, b""),
        ("transport_1", "initiator_send_key", "responder_index", 1, t["transport_1_data_plain"]),
        ("responder_transport_0_keepalive", "initiator_recv_key", "initiator_index", 0, b""),
    ]
    for name, key, index, counter, plain in cases:
        header = TransportHeader.decode(t[name])
        assert header == TransportHeader(transcript[index], counter)
        sealed = ChaCha20Poly1305(t[key]).encrypt(bytes(4) + counter.to_bytes(8, "little"), plain, None)
        assert header.encode() + sealed == t[name]


def test_noise_conversation_of_cacophony() -> None:
    """The transcript alone, in the pattern's own order, against another implementation's conversation."""
    (vector,) = v.load("noise_ikpsk2.json")["vectors"]
    hexed: dict[str, bytes] = {
        name: bytes.fromhex(value)
        for name, value in vector.items()
        if name.startswith(("init_", "resp_")) and isinstance(value, str)
    }
    (psk,) = (bytes.fromhex(value) for value in vector["init_psks"])
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    s_i, e_i, s_r, e_r = (hexed[name] for name in ("init_static", "init_ephemeral", "resp_static", "resp_ephemeral"))
    assert public_key(s_r) == hexed["init_remote_static"]

    ours, theirs = Transcript(hexed["init_prologue"]), Transcript(hexed["resp_prologue"])
    sent = public_key(e_i)
    ours.mix_hash(public_key(s_r))
    ours.mix_ephemeral(sent)
    assert ours.mix_dh(exchange(e_i, public_key(s_r)))
    sent += ours.seal(public_key(s_i))
    assert ours.mix_dh(exchange(s_i, public_key(s_r)))
    sent += ours.seal(messages[0][0])
    assert sent == messages[0][1]

    theirs.mix_hash(public_key(s_r))
    theirs.mix_ephemeral(sent[:32])
    assert theirs.mix_dh(exchange(s_r, sent[:32]))
    assert theirs.open(sent[32:80]) == public_key(s_i)
    assert theirs.mix_dh(exchange(s_r, public_key(s_i)))
    assert theirs.open(sent[80:]) == messages[0][0]

    answer = public_key(e_r)
    theirs.mix_ephemeral(answer)
    assert theirs.mix_dh(exchange(e_r, public_key(e_i)))
    assert theirs.mix_dh(exchange(e_r, public_key(s_i)))
    theirs.mix_psk(bytearray(psk))
    answer += theirs.seal(messages[1][0])
    assert answer == messages[1][1]

    ours.mix_ephemeral(answer[:32])
    assert ours.mix_dh(exchange(e_i, answer[:32]))
    assert ours.mix_dh(exchange(s_i, answer[:32]))
    ours.mix_psk(bytearray(psk))
    assert ours.open(answer[32:]) == messages[1][0]

    assert ours.hash.hex() == theirs.hash.hex() == vector["handshake_hash"]
    assert ours.split() == theirs.split()
    keys = [ChaCha20Poly1305(key) for key in ours.split()]
    for number, (payload, ciphertext) in enumerate(messages[2:]):
        nonce = bytes(4) + (number // 2).to_bytes(8, "little")
        assert keys[number % 2].encrypt(nonce, payload, None) == ciphertext

"""Primitives against their published vectors."""

import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.noise.vectors import load
from wghsm.noise import SoftwareCustody, is_low_order
from wghsm.noise._kdf import aead_open, aead_seal, blake2s, hmac_blake2s, kdf1, kdf2, kdf3, mac
from wghsm.noise._transcript import Transcript
from wghsm.noise._xchacha import hchacha20, xchacha_open, xchacha_seal
from wghsm.noise.constants import CONSTRUCTION, IDENTIFIER
from wghsm.noise.curve import LOW_ORDER_POINTS, Ephemeral, exchange, is_zero, public_key


def test_blake2s_known_answers() -> None:
    unkeyed = [vector for vector in load("blake2s.json")["kat"] if not vector["key"]]
    assert len(unkeyed) == 256
    for vector in unkeyed:
        assert blake2s(bytes.fromhex(vector["in"])).hex() == vector["out"]


def test_mac_known_answers() -> None:
    vectors = load("blake2s.json")["mac16"]
    assert vectors
    for vector in vectors:
        data = bytes.fromhex(vector["input"])
        assert mac(bytes.fromhex(vector["key"]), data).hex() == vector["mac16"]
        assert mac(bytearray.fromhex(vector["key16"]), data[:3], data[3:]).hex() == vector["mac16_key16"]


def test_kdf_known_answers() -> None:
    for vector in load("kdf_blake2s.json")["vectors"]:
        key, data = bytearray.fromhex(vector["key"]), bytes.fromhex(vector["input"])
        outputs = [vector["t0"], vector["t1"], vector["t2"]]
        assert kdf1(key, data).hex() == outputs[0]
        assert [output.hex() for output in kdf2(key, data)] == outputs[:2]
        assert [output.hex() for output in kdf3(key, data)] == outputs


@given(st.binary(max_size=64), st.binary(max_size=200), st.binary(max_size=70))
def test_hmac_equals_the_standard_library(key: bytes, first: bytes, second: bytes) -> None:
    assert hmac_blake2s(bytearray(key), first, second) == hmac.digest(key, first + second, "blake2s")


def test_hmac_refuses_a_key_longer_than_a_block() -> None:
    with pytest.raises(ValueError, match="at most 64 bytes"):
        hmac_blake2s(bytearray(65), b"")


def test_constants_of_the_construction() -> None:
    assert blake2s(CONSTRUCTION).hex() == "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"
    start = Transcript()
    assert start.chaining_key == blake2s(CONSTRUCTION)
    assert start.hash == blake2s(blake2s(CONSTRUCTION), IDENTIFIER)
    assert start.hash.hex() == "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"


def test_chacha20poly1305_of_the_library_known_answers() -> None:
    """The tunnel and the handshake rely on the library: all nonces of the protocol's length."""
    vectors = [vector for vector in load("chacha20poly1305.json")["wycheproof"] if vector["ivSize"] == 96]
    assert {vector["result"] for vector in vectors} == {"valid", "invalid"}
    for vector in vectors:
        key, nonce, aad, message, ciphertext, tag = (
            bytes.fromhex(vector[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        sealed = ChaCha20Poly1305(bytearray(key)).encrypt(nonce, message, aad)
        assert (sealed == ciphertext + tag) == (vector["result"] == "valid")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=64), st.binary(max_size=64), st.data())
def test_aead_under_counter_zero(key: bytes, message: bytes, aad: bytes, data: st.DataObject) -> None:
    sealed = aead_seal(bytearray(key), message, aad)
    assert sealed == ChaCha20Poly1305(key).encrypt(bytes(12), message, aad)
    assert aead_open(bytearray(key), sealed, aad) == message
    bad = bytearray(sealed)
    bad[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    assert aead_open(bytearray(key), bytes(bad), aad) is None
    assert aead_open(bytearray(key), sealed, aad + b"x") is None


def test_aead_open_of_less_than_a_tag() -> None:
    assert aead_open(bytearray(32), bytes(15), b"") is None


def test_hchacha20_known_answer() -> None:
    (vector,) = load("xchacha20poly1305.json")["hchacha20"]
    assert hchacha20(bytes.fromhex(vector["key"]), bytes.fromhex(vector["nonce"])).hex() == vector["out"]


def test_xchacha20poly1305_known_answers() -> None:
    data = load("xchacha20poly1305.json")
    vectors = [{"result": "valid", "iv": vector["nonce"], **vector} for vector in data["draft"]] + data["wycheproof"]
    results = set()
    for vector in vectors:
        key, nonce, aad, message, ciphertext, tag = (
            bytes.fromhex(vector[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        results.add(vector["result"])
        if len(nonce) != 24:
            assert vector["result"] == "invalid"
            with pytest.raises(ValueError, match="nonce"):
                xchacha_open(key, nonce, ciphertext + tag, aad)
            continue
        valid = vector["result"] == "valid"
        assert xchacha_open(key, nonce, ciphertext + tag, aad) == (message if valid else None)
        assert (xchacha_seal(key, nonce, message, aad) == ciphertext + tag) == valid
    assert results == {"valid", "invalid"}


def test_x25519_rfc7748() -> None:
    data = load("x25519.json")
    for vector in data["rfc7748"]:
        assert exchange(bytes.fromhex(vector["scalar"]), bytes.fromhex(vector["u"])).hex() == vector["out"]
    expected = {entry["n"]: entry["out"] for entry in data["rfc7748_iterated"]}
    scalar = point = b"\x09" + bytes(31)
    for count in range(1, max(expected) + 1):
        scalar, point = bytes(exchange(scalar, point)), scalar
        if count in expected:
            assert scalar.hex() == expected[count]


def test_x25519_wycheproof_through_the_custody() -> None:
    vectors = load("x25519.json")["wycheproof"]
    assert len(vectors) == 518
    zeros = 0
    for vector in vectors:
        public = bytes.fromhex(vector["public"])
        custody = SoftwareCustody(bytes.fromhex(vector["private"]))
        shared = custody.dh(public)
        assert shared.hex() == vector["shared"]
        assert custody.static_static(public) == shared
        assert is_zero(shared) == is_low_order(public) == ("ZeroSharedSecret" in vector["flags"])
        zeros += is_zero(shared)
    assert zeros == 31


def test_low_order_points() -> None:
    points = [bytes.fromhex(point) for point in load("x25519.json")["low_order"]]
    assert all(is_low_order(point) for point in points)
    assert {point[:31] + bytes([point[31] & 0x7F]) for point in points} == LOW_ORDER_POINTS
    assert not is_low_order(b"\x09" + bytes(31))
    assert not is_low_order(public_key(b"\x01" * 32))


@given(st.binary(min_size=32, max_size=32))
def test_random_points_are_judged_by_their_results(public: bytes) -> None:
    assert is_low_order(public) == is_zero(exchange(b"\x42" * 32, public))


@given(st.binary(min_size=32, max_size=32), st.lists(st.binary(min_size=32, max_size=32), max_size=3))
def test_a_loaded_ephemeral_is_the_key_that_was_given(private: bytes, others: list[bytes]) -> None:
    given_key = bytearray(private)
    loaded = Ephemeral(given_key)
    # The caller wipes its copy; the loaded one is its own.
    given_key[:] = bytes(32)
    assert loaded.public_key() == public_key(private)
    for other in [*map(public_key, others), *LOW_ORDER_POINTS]:
        assert loaded.exchange(other) == exchange(private, other)
    assert all(is_zero(loaded.exchange(point)) for point in LOW_ORDER_POINTS)
    with pytest.raises(ValueError, match="32"):
        Ephemeral(private[:-1])

"""PSKs: derived ones against Python's HMAC, objects put and read back, roots that only sign (every module)."""

import hashlib
import hmac
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wghsm.pkcs11_backend import AmbiguousKey, KeyNotFound, KeyUnfit, LabelTaken, TokenFault, TokenPool
from wghsm.pkcs11_backend._objects import CKA
from wghsm.pkcs11_backend._psk import psk_message
from wghsm.pkcs11_backend.provision import derive_root, destroy_secret, generate_key, list_secrets, put_psk


def _root_of(pool: TokenPool, label: str, secret: bytes) -> None:
    """Put a root with a known value into the token, as no command does."""
    with pool.control() as calls:
        calls.create(
            (
                (CKA["CLASS"], 4),
                (CKA["KEY_TYPE"], 0x10),
                (CKA["TOKEN"], True),
                (CKA["PRIVATE"], True),
                (CKA["SENSITIVE"], True),
                (CKA["EXTRACTABLE"], False),
                (CKA["SIGN"], True),
                (CKA["LABEL"], label.encode()),
                (CKA["ID"], secret[:4]),
                (CKA["VALUE"], bytearray(secret)),
            )
        )


@pytest.mark.needs("roots")
def test_a_derived_psk_is_the_documented_hmac(pool: TokenPool, label: str) -> None:
    secret = bytes(range(32))
    _root_of(pool, label, secret)
    root = pool.find_root(label)

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1))
    def equal(gateway: bytes, peer: bytes, epoch: int) -> None:
        message = b"wghsm-psk-v1" + b"\x00" + gateway + peer + epoch.to_bytes(4, "big")
        with pool.session() as session:
            psk = session.derived_psk(root, gateway, peer, epoch)
        assert isinstance(psk, bytearray)
        assert psk == hmac.new(secret, message, hashlib.sha256).digest()

    equal()


@pytest.mark.parametrize(("gateway", "peer", "epoch"), [(31, 32, 0), (32, 33, 0), (32, 32, -1), (32, 32, 2**32)])
def test_what_is_signed_has_fixed_lengths(gateway: int, peer: int, epoch: int) -> None:
    with pytest.raises(ValueError, match=r"32 bytes|u32"):
        psk_message(bytes(gateway), bytes(peer), epoch)


@pytest.mark.needs("roots")
def test_a_made_root_only_signs(pool: TokenPool, label: str) -> None:
    report = derive_root(pool, label)
    assert (report.kind, report.length) == ("psk-root", 32)
    for name in ("SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "PRIVATE", "SIGN"):
        assert report.attributes[name] is True, name
    for name in ("EXTRACTABLE", "VERIFY", "ENCRYPT", "DECRYPT", "WRAP", "UNWRAP", "DERIVE"):
        assert report.attributes[name] is False, name
    root = pool.find_root(label)
    with pool.control() as calls, pytest.raises(TokenFault):
        calls.read_secret(root.handle)
    with pool.session() as session:
        one = session.derived_psk(root, bytes(32), bytes(32), 1)
        assert one == session.derived_psk(root, bytes(32), bytes(32), 1)
        assert one != session.derived_psk(root, bytes(32), bytes(32), 2)
    pool.recover(2)
    with pool.session() as session:
        assert one == session.derived_psk(root, bytes(32), bytes(32), 1)
    with pytest.raises(LabelTaken):
        derive_root(pool, label)


@pytest.mark.needs("psk objects")
def test_a_psk_object_comes_back_as_it_was(pool: TokenPool, label: str) -> None:
    value = bytearray(X25519PrivateKey.generate().private_bytes_raw())
    put_psk(pool, label, value)
    psk = pool.find_psk(label)
    with pool.session() as session:
        assert session.read_psk(psk) == value
        assert bytes(session._ready()._secret) == bytes(32)
    report = next(report for report in list_secrets(pool) if report.label == label)
    assert (report.kind, report.attributes["PRIVATE"], report.attributes["SENSITIVE"]) == ("psk", True, False)
    assert not any(report.attributes[use] for use in ("SIGN", "DERIVE", "ENCRYPT", "DECRYPT", "WRAP", "UNWRAP"))


@pytest.mark.needs("psk objects")
def test_a_psk_is_replaced_only_when_asked(pool: TokenPool, label: str) -> None:
    put_psk(pool, label, bytearray(b"a" * 32))
    psk = pool.find_psk(label)
    with pytest.raises(LabelTaken):
        put_psk(pool, label, bytearray(b"b" * 32))
    assert put_psk(pool, label, bytearray(b"b" * 32), replace=True) is psk
    with pool.session() as session:
        assert session.read_psk(psk) == b"b" * 32
    assert sum(report.label == label for report in list_secrets(pool)) == 1


@pytest.mark.needs("psk objects")
def test_a_deleted_psk_is_gone(pool: TokenPool, label: str) -> None:
    pool.put_psk(label, bytearray(b"c" * 32))
    assert pool.delete_psk(label) is True
    assert pool.delete_psk(label) is False
    with pytest.raises(KeyNotFound, match="wghsm psk put"):
        pool.find_psk(label)
    pool.recover(1)


@pytest.mark.needs("roots")
def test_two_secrets_with_one_label_are_refused_until_one_is_destroyed(pool: TokenPool, label: str) -> None:
    for secret in (b"e" * 32, b"f" * 32):
        _root_of(pool, label, secret)
    with pytest.raises(AmbiguousKey, match=f"wghsm psk destroy {re.escape(label)} --id"):
        pool.find_root(label)
    with pytest.raises(AmbiguousKey, match="--id"):
        destroy_secret(pool, label)
    identity = next(report.id for report in list_secrets(pool) if report.label == label)
    destroy_secret(pool, label, bytes.fromhex(identity))
    assert pool.find_root(label).label == label


@pytest.mark.needs("psk objects")
def test_a_psk_deleted_elsewhere_does_not_stop_recovery(pool: TokenPool, label: str) -> None:
    psk = pool.put_psk(label, bytearray(b"d" * 32))
    destroy_secret(pool, label)
    pool.recover(1)
    with pool.session() as session, pytest.raises(TokenFault):
        session.read_psk(psk)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_psk_has_32_bytes(pool: TokenPool, label: str, length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        pool.put_psk(label, bytearray(length))


@pytest.mark.needs("roots", "psk objects")
def test_roots_psks_and_keys_are_not_mixed_up(pool: TokenPool, label: str) -> None:
    derive_root(pool, label + "r")
    put_psk(pool, label + "p", bytearray(range(32)))
    generate_key(pool, label + "k")
    with pytest.raises(KeyUnfit, match="no PSK object"):
        pool.find_psk(label + "r")
    with pytest.raises(KeyUnfit):
        pool.find_root(label + "p")
    with pytest.raises(LabelTaken, match="no PSK object"):
        pool.put_psk(label + "r", bytearray(range(32)))
    with pytest.raises(LabelTaken, match="no PSK object"):
        pool.delete_psk(label + "r")
    for find in (pool.find_root, pool.find_psk):
        with pytest.raises(KeyNotFound):
            find(label + "k")
    with pytest.raises(KeyNotFound):
        pool.find_key(label + "p")

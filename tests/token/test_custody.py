"""Custody: a key made in the token derives, equals a software peer, and cannot be read or loosened (every module)."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tests.token.conftest import TokenUnderTest, import_key, spelled
from wghsm.pkcs11_backend import (
    AmbiguousKey,
    CurveUnsupported,
    KeyNotFound,
    KeyUnfit,
    LabelTaken,
    PointRefused,
    TokenFault,
    TokenPool,
)
from wghsm.pkcs11_backend._calls import check_point
from wghsm.pkcs11_backend._objects import CKA
from wghsm.pkcs11_backend.dialect import DIALECTS, parse_point
from wghsm.pkcs11_backend.provision import destroy_key, generate_key, list_keys, show_key

_P = 2**255 - 19
_ORDER_8 = (
    int.from_bytes(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little"),
    int.from_bytes(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little"),
)


def _id_of(pool: TokenPool, label: str) -> str:
    return next(report.id for report in list_keys(pool) if report.label == label and report.id)


def _count(pool: TokenPool, label: str) -> int:
    return sum(report.label == label for report in list_keys(pool))


def test_a_key_of_the_token_equals_a_software_peer(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    key = token.key(pool, label)
    ours = X25519PublicKey.from_public_bytes(key.public_key)
    with pool.session() as session:
        for _ in range(20):
            peer = X25519PrivateKey.generate()
            shared = session.derive(key, peer.public_key().public_bytes_raw())
            assert isinstance(shared, bytearray)
            assert shared == peer.exchange(ours)


@pytest.mark.needs("key import")
def test_an_imported_key_gives_the_same_bytes_as_software(pool: TokenPool, label: str) -> None:
    private = X25519PrivateKey.generate()
    import_key(pool, label, private.private_bytes_raw())
    key = pool.find_key(label)
    assert key.public_key == private.public_key().public_bytes_raw()
    report = show_key(pool, label)
    assert report.attributes["NEVER_EXTRACTABLE"] is False
    assert report.attributes["LOCAL"] is False


@pytest.mark.needs("key import")
def test_an_imported_key_cannot_be_taken_out(pool: TokenPool, label: str) -> None:
    import_key(pool, label, X25519PrivateKey.generate().private_bytes_raw())
    report = show_key(pool, label)
    assert report.attributes["SENSITIVE"] is True
    for name in ("EXTRACTABLE", "SIGN", "DECRYPT", "UNWRAP"):
        assert report.attributes[name] is False, name
    assert report.value_readable is False


def test_the_attributes_prove_custody(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    label = token.key(pool, label).label
    report = show_key(pool, label)
    for name in ("SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "PRIVATE", "DERIVE"):
        assert report.attributes[name] is True, name
    # Of a key that came with the card, whether its label may be changed is the card's affair.
    wanted = ("EXTRACTABLE", "SIGN", "DECRYPT", "UNWRAP", *(("MODIFIABLE",) if token.key_label is None else ()))
    for name in wanted:
        assert report.attributes[name] is False, name
    assert report.value_readable is False
    assert report.public_key_checked
    listed = {listed.label: listed for listed in list_keys(pool)}
    assert listed[label].public_key == report.public_key


def test_the_value_is_refused(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    key = token.key(pool, label)
    with pool.control() as calls:
        assert calls.attribute(key.handle, CKA["VALUE"]) is None
        with pytest.raises(TokenFault) as caught:
            calls.read_secret(key.handle)
    # The card has no such attribute to begin with.
    assert caught.value.name in ("CKR_ATTRIBUTE_SENSITIVE", "CKR_ATTRIBUTE_TYPE_INVALID")


@pytest.mark.parametrize(("name", "value"), [("SENSITIVE", False), ("EXTRACTABLE", True)])
@pytest.mark.needs("copies kept as strict")
def test_custody_cannot_be_loosened(pool: TokenPool, token: TokenUnderTest, label: str, name: str, value: bool) -> None:
    key = token.key(pool, label)
    with pool.control() as calls:
        with pytest.raises(TokenFault):
            calls.set_attributes(key.handle, ((CKA[name], value),))
        with pytest.raises(TokenFault):
            calls.copy(key.handle, ((CKA[name], value),))
    assert show_key(pool, key.label).attributes[name] is not value


def test_derived_secrets_leave_no_object_behind(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    key = token.key(pool, label)
    peer = X25519PrivateKey.generate().public_key().public_bytes_raw()
    with pool.control() as calls:
        before = sorted(calls.find(()))
    with pool.session() as session:
        for _ in range(5):
            session.derive(key, peer)
    with pool.control() as calls:
        assert sorted(calls.find(())) == before


@pytest.mark.parametrize("high", [0, 2**255])
@pytest.mark.parametrize("point", [0, 1, _P - 1, _P, _P + 1, *_ORDER_8])
def test_a_low_order_point_never_reaches_the_token(point: int, high: int) -> None:
    public = (point | high).to_bytes(32, "little")
    with pytest.raises(ValueError, match="shared key"):
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    with pytest.raises(PointRefused, match="low order"):
        check_point(public)


def test_other_points_are_let_through() -> None:
    for _ in range(50):
        check_point(X25519PrivateKey.generate().public_key().public_bytes_raw())


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_point_has_32_bytes(length: int) -> None:
    with pytest.raises(PointRefused):
        check_point(bytes(length))


def test_refused_points_leave_the_session_usable(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    key = token.key(pool, label)
    peer = X25519PrivateKey.generate()
    with pool.session() as session:
        with pytest.raises(PointRefused):
            session.derive(key, bytes(32))
        expected = peer.exchange(X25519PublicKey.from_public_bytes(key.public_key))
        assert session.derive(key, peer.public_key().public_bytes_raw()) == expected


@pytest.mark.needs("key generation")
def test_a_label_is_given_once(pool: TokenPool, label: str) -> None:
    key = generate_key(pool, label)
    with pytest.raises(LabelTaken, match="nothing was changed"):
        generate_key(pool, label)
    assert pool.find_key(label).public_key == key.public_key


def test_no_such_key_names_what_is_there(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    label = token.key(pool, label).label
    with pytest.raises(KeyNotFound) as caught:
        pool.find_key("absent")
    assert "'absent'" in str(caught.value)
    assert label in str(caught.value)
    assert "wghsm key generate absent" in str(caught.value)
    assert caught.value.final


@pytest.mark.needs("key generation", "key import")
def test_two_keys_with_one_label_are_refused_until_one_is_destroyed(pool: TokenPool, label: str) -> None:
    generate_key(pool, label)
    import_key(pool, label, X25519PrivateKey.generate().private_bytes_raw())
    with pytest.raises(AmbiguousKey) as caught:
        pool.find_key(label)
    identity = _id_of(pool, label)
    assert identity in str(caught.value)
    with pytest.raises(AmbiguousKey, match="--id"):
        destroy_key(pool, label)
    assert destroy_key(pool, label, bytes.fromhex(identity)) == 2
    assert _count(pool, label) == 1


@pytest.mark.needs("destroying")
def test_destroying_takes_both_halves(pool: TokenPool, label: str) -> None:
    generate_key(pool, label)
    assert destroy_key(pool, label) == 2
    with pytest.raises(KeyNotFound):
        pool.find_key(label)
    with pytest.raises(KeyNotFound, match="no key with the label"):
        destroy_key(pool, label)


@pytest.mark.needs("key import")
def test_a_key_that_may_not_derive_is_unfit(pool: TokenPool, label: str) -> None:
    import_key(pool, label, X25519PrivateKey.generate().private_bytes_raw(), derive=False)
    with pytest.raises(KeyUnfit, match="CKA_DERIVE"):
        pool.find_key(label)


@pytest.mark.needs("key import")
def test_a_public_object_of_another_key_is_noticed(pool: TokenPool, label: str) -> None:
    dialect = spelled(pool)
    import_key(pool, label, X25519PrivateKey.generate().private_bytes_raw())
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    with pool.control() as calls:
        calls.create(
            (
                (CKA["CLASS"], 2),
                (CKA["KEY_TYPE"], dialect.key_type),
                (CKA["EC_PARAMS"], dialect.ec_params[0]),
                (CKA["EC_POINT"], b"\x04\x20" + other),
                (CKA["TOKEN"], True),
                (CKA["PRIVATE"], False),
                (CKA["LABEL"], label.encode()),
            )
        )
    with pytest.raises(KeyUnfit, match="does not belong"):
        pool.find_key(label)


@pytest.mark.needs("key generation")
def test_a_key_of_another_curve_is_refused(pool: TokenPool, label: str) -> None:
    with pool.control() as calls:
        calls.generate_pair(
            0x1040,
            ((CKA["EC_PARAMS"], bytes.fromhex("06082a8648ce3d030107")), (CKA["TOKEN"], True)),
            (
                (CKA["TOKEN"], True),
                (CKA["PRIVATE"], True),
                (CKA["SENSITIVE"], True),
                (CKA["LABEL"], label.encode()),
            ),
        )
    with pytest.raises(CurveUnsupported, match="no X25519 key"):
        pool.find_key(label)
    report = next(report for report in list_keys(pool) if report.label == label)
    assert (report.dialect, report.public_key) == (None, None)


def test_points_are_read_in_every_form() -> None:
    raw = bytes(range(32))
    assert parse_point(raw) == parse_point(b"\x04\x20" + raw) == parse_point(b"\x40" + raw) == raw
    for bad in (b"", raw[:31], b"\x04" + raw, b"\x04\x21" + raw, b"\x03\x20" + raw):
        assert parse_point(bad) is None


def test_dialects_do_not_overlap() -> None:
    spelled = [(dialect.key_type, params) for dialect in DIALECTS for params in dialect.ec_params]
    assert len(spelled) == len(set(spelled))

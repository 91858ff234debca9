"""Dialects: what is found by trying, on a token that spells X25519 like the standard and is as strict as others."""

import dataclasses
from collections.abc import Iterator

import pytest

from tests.token.conftest import answers, environment
from tests.token.rig import RigToken, rig_token
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import CurveUnsupported, TokenFault, TokenPool
from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._objects import BASE_POINT, CKA
from wghsm.pkcs11_backend.dialect import (
    CKM_ECDH1_DERIVE,
    NSS,
    SOFTHSM,
    STANDARD,
    dialect_of_key,
    dialect_of_token,
    dialects_to_try,
)
from wghsm.pkcs11_backend.provision import generate_key, list_keys, show_key

_NAMED = bytes.fromhex("130a63757276653235353139")


@pytest.fixture(scope="module")
def made() -> Iterator[RigToken]:
    with rig_token() as token, environment(token.made.environment):
        yield token


@pytest.fixture
def token(made: RigToken) -> Iterator[RigToken]:
    made.rig.present()
    yield made
    made.rig.clear()
    made.rig.present()


@pytest.fixture
def pool(token: RigToken) -> Iterator[TokenPool]:
    with TokenPool.open(token.made.uri, bytearray(token.pin), 2, read_write=True) as opened:
        yield opened


@pytest.fixture
def label(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[-60:]


def _there(pool: TokenPool) -> list[int]:
    with pool.control() as calls:
        return sorted(calls.find(()))


def test_the_standards_spelling(pool: TokenPool, label: str) -> None:
    key = generate_key(pool, label)
    assert key.dialect.name == STANDARD.name
    assert show_key(pool, label).key_type == 0x41
    assert answers(pool, key)


def test_a_token_that_takes_the_curve_by_name_only(token: RigToken, pool: TokenPool, label: str) -> None:
    token.rig.present(named_curve_only=1)
    key = generate_key(pool, label)
    with pool.control() as calls:
        assert calls.attribute(key.handle, CKA["EC_PARAMS"]) == _NAMED
    assert answers(pool, key)


@pytest.mark.parametrize(
    "strictness",
    [
        {},
        {"derive_refuses": CKA["PRIVATE"]},
        {"derive_refuses": CKA["VALUE_LEN"]},
        {"derive_needs": CKA["DERIVE"]},
        {"derive_needs": CKA["SIGN"]},
    ],
    ids=lambda strictness: "-".join(f"{name}-{value:#x}" for name, value in strictness.items()) or "none",
)
def test_the_derived_secrets_template_is_found_by_trying(
    token: RigToken, pool: TokenPool, label: str, strictness: dict[str, int]
) -> None:
    token.rig.present(**strictness)
    key = generate_key(pool, label)
    assert answers(pool, key)
    # Found once, then used: a derive stays three calls.
    before = token.rig.calls("C_DeriveKey")
    assert answers(pool, key)
    assert token.rig.calls("C_DeriveKey") == before + 1
    pool.recover(2)
    assert answers(pool, key)


@pytest.mark.parametrize("mechanism", [0x1055, 0x1056])
def test_any_key_pair_mechanism_is_tried_that_is_listed(
    token: RigToken, pool: TokenPool, label: str, mechanism: int
) -> None:
    token.rig.present(montgomery=int(mechanism == 0x1056))
    token.rig.hide(0x1040)
    pool.recover(2)
    key = generate_key(pool, label)
    assert key.dialect.generate == mechanism
    assert answers(pool, key)


def _refused(pool: TokenPool, label: str, match: str) -> None:
    before = _there(pool)
    with pytest.raises(CurveUnsupported, match=match) as caught:
        generate_key(pool, label)
    assert (caught.value.exit_code, caught.value.final) == (ExitCode.TOKEN_UNUSABLE, True)
    assert "\n" not in str(caught.value)
    assert _there(pool) == before


@pytest.mark.parametrize("ckr", [0x140, 0x130, 0x0D1, 0x013, 0x070, 0x006])
def test_a_token_that_refuses_the_curve(token: RigToken, pool: TokenPool, label: str, ckr: int) -> None:
    token.rig.fail("C_GenerateKeyPair", ckr)
    _refused(pool, label, "refuses to make an X25519 key.*FIPS")


def test_a_fault_while_a_key_is_made_is_no_refusal(token: RigToken, pool: TokenPool, label: str) -> None:
    before = token.rig.calls("C_GenerateKeyPair")
    token.rig.fail("C_GenerateKeyPair", 0x32)
    with pytest.raises(TokenFault, match="CKR_DEVICE_REMOVED"):
        generate_key(pool, label)
    assert token.rig.calls("C_GenerateKeyPair") == before + 1


def test_a_token_without_the_derive(token: RigToken, pool: TokenPool, label: str) -> None:
    generate_key(pool, label)
    token.rig.hide(CKM_ECDH1_DERIVE)
    pool._keys.clear()
    pool.recover(2)
    with pytest.raises(CurveUnsupported, match="does not offer CKM_ECDH1_DERIVE"):
        pool.find_key(label)
    _refused(pool, label + "2", "offers no X25519 key generation")


def test_a_token_that_gives_only_kdf_output(token: RigToken, pool: TokenPool, label: str) -> None:
    token.rig.present(kdf_only=1)
    _refused(pool, label, "refuses to derive .*CKR_MECHANISM_PARAM_INVALID.*CKD_NULL and a readable 32-byte result")


def test_a_token_whose_results_cannot_be_read(token: RigToken, pool: TokenPool, label: str) -> None:
    token.rig.fail("C_GetAttributeValue", 0x11, attribute=CKA["VALUE"])
    _refused(pool, label, "refuses to derive .*CKR_ATTRIBUTE_SENSITIVE.*a readable 32-byte result")


def test_a_fault_while_a_key_is_proved_tries_no_other_template(token: RigToken, pool: TokenPool, label: str) -> None:
    generate_key(pool, label)
    before = token.rig.calls("C_DeriveKey")
    token.rig.fail("C_DeriveKey", 0x30)
    with pytest.raises(TokenFault, match="CKR_DEVICE_ERROR"):
        pool.find_key(label)
    assert token.rig.calls("C_DeriveKey") == before + 1


def test_points_go_out_raw_unless_the_dialect_says_otherwise(token: RigToken, pool: TokenPool, label: str) -> None:
    key = generate_key(pool, label)
    wrapped = dataclasses.replace(key.dialect, point_prefix=b"\x04\x20")
    with pool.control() as calls:
        assert isinstance(calls, Calls)
        with pytest.raises(TokenFault, match="CKR_MECHANISM_PARAM_INVALID"):
            calls.derive(key.handle, BASE_POINT, wrapped)
        token.rig.present(raw_point_only=0)
        # SoftHSM takes both forms, and both mean the same point.
        assert calls.derive(key.handle, BASE_POINT, wrapped) == key.public_key
        assert calls.derive(key.handle, BASE_POINT, key.dialect) == key.public_key


def test_keys_listed_are_named_by_their_own_spelling(pool: TokenPool, label: str) -> None:
    generate_key(pool, label)
    assert {report.dialect for report in list_keys(pool) if report.label == label} == {STANDARD.name}


@pytest.mark.parametrize(
    ("key_type", "params", "dialect"),
    [
        (0x41, "06032b656e", STANDARD),
        (0x41, "130a63757276653235353139", STANDARD),
        (0x41, "060a2b060104019755010501", STANDARD),
        (0x40, "06032b656e", SOFTHSM),
        (0x40, "130a63757276653235353139", SOFTHSM),
        (0x03, "06092b06010401da470f01", NSS),
        # The same OID under the Edwards type is Ed25519, and X448 is not X25519.
        (0x40, "06092b06010401da470f01", None),
        (0x41, "06032b656f", None),
        (0x03, "06082a8648ce3d030107", None),
        (0x41, "", None),
        (None, "06032b656e", None),
    ],
)
def test_a_keys_own_words_name_its_dialect(key_type: int | None, params: str, dialect: object) -> None:
    assert dialect_of_key(key_type, bytes.fromhex(params)) is dialect


def test_a_mechanism_list_is_a_proof_or_a_hint() -> None:
    derive = CKM_ECDH1_DERIVE
    assert dialects_to_try(frozenset({0x1040, 0x1055, 0x1056, derive})) == (STANDARD, SOFTHSM, NSS)
    assert dialects_to_try(frozenset({0x1040, 0x1055, 0x1056})) == ()
    assert dialect_of_token(frozenset({0x1056, derive})) is STANDARD
    # Any token with elliptic curves lists this: it may have P-256 only.
    assert dialect_of_token(frozenset({0x1040, derive})) is None
    assert dialects_to_try(frozenset({0x1040, derive})) == (NSS,)

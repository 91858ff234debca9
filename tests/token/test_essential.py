"""What a gateway finds out about its token before it serves: one clear sentence for each reason not to."""

import logging
import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from tests.token.custodian_process import Custodian, state_folder
from tests.token.odd_token import OddToken, odd_gateway, odd_token
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenError, TokenFault, TokenPool, essential_checks
from wghsm.pkcs11_backend._doctor_essential import root_check_value
from wghsm.pkcs11_backend.provision import derive_root, generate_key, put_psk


@pytest.fixture(scope="module")
def odd() -> Iterator[OddToken]:
    with odd_token() as made, patch.dict(os.environ, made.environment):
        with TokenPool.open(made.uri, made.pin, 1, read_write=True) as pool:
            generate_key(pool, "gateway")
            generate_key(pool, "other")
            derive_root(pool, "root")
            derive_root(pool, "other-root")
            put_psk(pool, "psk", bytearray(range(32)))
        yield made


@pytest.fixture(autouse=True)
def plain(odd: OddToken) -> None:
    odd.set()


def _checked(odd: OddToken, key: str = "gateway", root: str | None = "root") -> TokenError | None:
    with TokenPool.open(odd.uri, odd.pin, 1) as pool:
        return essential_checks(pool, key, root)


def test_a_good_token_passes(odd: OddToken, caplog: pytest.LogCaptureFixture) -> None:
    for root in ("root", None):
        assert _checked(odd, root=root) is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("oddity", "said"),
    [
        (
            {"C_DeriveKey": 0x140},
            "refuses X25519 with key 'gateway' (CKR_CURVE_NOT_SUPPORTED), as tokens in FIPS mode do",
        ),
        ({"C_DeriveKey": 0x70}, "refuses X25519 with key 'gateway' (CKR_MECHANISM_INVALID)"),
        ({"kdf_only": 1}, "only through a key derivation function (CKD_NULL: CKR_MECHANISM_PARAM_INVALID)"),
        ({"unreadable": 1}, "does not give the shared secret out (CKR_ATTRIBUTE_SENSITIVE)"),
        ({"wrong": 1}, "what the token computes is not X25519"),
        ({"C_SignInit": 0x70}, "computes no HMAC-SHA256 with secret 'root' (CKR_MECHANISM_INVALID)"),
    ],
    ids=["curve", "mechanism", "KDF", "unreadable", "wrong", "HMAC"],
)
def test_an_unusable_token_gives_one_sentence(odd: OddToken, oddity: dict[str, int], said: str) -> None:
    odd.set(**oddity)
    error = _checked(odd)
    assert error is not None
    assert said in str(error)
    assert str(error).startswith("token 'odd'")
    assert "\n" not in str(error)
    assert error.final
    assert error.exit_code is ExitCode.TOKEN_UNUSABLE


@pytest.mark.parametrize(
    ("key", "root", "said"),
    [
        ("absent", None, "no private key with the label 'absent'; there is: 'gateway', 'other'"),
        ("gateway", "absent", "no secret with the label 'absent'"),
        ("gateway", "psk", "may not sign"),
        ("root", None, "no private key"),
    ],
)
def test_what_is_not_there(odd: OddToken, key: str, root: str | None, said: str) -> None:
    error = _checked(odd, key, root)
    assert error is not None
    assert said in str(error)
    assert error.exit_code is ExitCode.TOKEN_UNUSABLE


def test_a_root_is_not_asked_for_where_none_is_needed(odd: OddToken) -> None:
    odd.set(C_SignInit=0x70)
    assert _checked(odd, root=None) is None


def test_a_fault_that_may_pass_is_not_final(odd: OddToken) -> None:
    odd.set(C_DeriveKey=0x30)
    error = _checked(odd)
    assert isinstance(error, TokenFault)
    assert (error.name, error.level, error.final) == ("CKR_DEVICE_ERROR", 2, False)


def test_a_key_that_can_be_read_is_warned_of(odd: OddToken, caplog: pytest.LogCaptureFixture) -> None:
    odd.set(value_readable=1)
    with caplog.at_level(logging.WARNING):
        assert _checked(odd) is None
    (record,) = caplog.records
    assert "token 'odd' would give the value of key 'gateway' to whoever has the PIN" in record.getMessage()


def test_the_check_value_tells_roots_apart_and_is_no_psk(odd: OddToken) -> None:
    with TokenPool.open(odd.uri, odd.pin, 1) as pool:
        values = [root_check_value(pool, label) for label in ("root", "root", "other-root")]
    assert values[0] == values[1] != values[2]
    assert {len(value) for value in values} == {8}


def test_a_custodian_refuses_to_start() -> None:
    with odd_gateway() as (odd, token), state_folder() as state:
        for oddity, said in (
            ({"C_DeriveKey": 0x140}, "refuses X25519"),
            ({"kdf_only": 1}, "only through a key derivation function"),
            ({"unreadable": 1}, "does not give the shared secret out"),
            ({"C_SignInit": 0x70}, "computes no HMAC-SHA256"),
            ({"wrong": 1}, "not X25519"),
            ({"sessions": 2}, "worker session 2 of 2 failed: CKR_SESSION_COUNT; ask for fewer worker sessions"),
        ):
            odd.set(**oddity)
            with Custodian(token, state) as custodian:
                fault = custodian.fault()
            assert said in fault.text
            if "sessions" not in oddity:
                assert fault.exit_code == ExitCode.TOKEN_UNUSABLE
        odd.set(value_readable=1)
        with Custodian(token, state) as custodian:
            custodian.ready()
            assert "would give the value of key 'gateway'" in custodian.log_text()

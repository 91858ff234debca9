"""A token that asks for its PIN itself (CKF_PROTECTED_AUTHENTICATION_PATH), and PIN flags that forbid a login."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from tests.token.custodian_process import Custodian, GatewayToken, state_folder
from tests.token.odd_token import PIN_FINAL_TRY, PIN_LOCKED, PINPAD, OddToken, odd_gateway, odd_token
from wghsm.exits import ExitCode
from wghsm.ipc import messages as m
from wghsm.pkcs11_backend import (
    PinFinalTry,
    PinLocked,
    PinRefused,
    PinUnavailable,
    TokenFault,
    TokenPool,
    TokenUri,
    open_pin,
)
from wghsm.pkcs11_backend.provision import generate_key


@pytest.fixture
def odd() -> Iterator[OddToken]:
    with odd_token() as made, patch.dict(os.environ, made.environment):
        yield made


def _typed(odd: OddToken) -> str:
    return odd.pin.decode()


@pytest.mark.parametrize("source", [None, "protected"])
def test_where_the_token_asks_there_is_nothing_to_read(source: str | None) -> None:
    with open_pin(source) as opened:
        assert opened.pinpad
        assert opened.typed
        assert opened.read_for_login() is None
        with pytest.raises(PinUnavailable, match=r"token URI: .*pin-source.* gives no PIN to set; write pin-source="):
            opened.read()


def test_a_login_at_the_pinpad_and_after_a_fault(odd: OddToken) -> None:
    odd.set(flags=PINPAD, pinpad=_typed(odd))
    with TokenPool.open(odd.uri, None, 2, read_write=True) as pool:
        generate_key(pool, "gateway")
        pool.recover(2)
        assert pool.find_key("gateway").public_key


def test_a_pin_may_also_be_sent_to_a_token_with_a_pinpad(odd: OddToken) -> None:
    odd.set(flags=PINPAD)
    TokenPool.open(odd.uri, odd.pin, 1).close()


def test_a_token_without_a_pinpad_says_what_to_write(odd: OddToken) -> None:
    with pytest.raises(PinUnavailable, match=r"'odd' has no pinpad .* write pin-source=file:/path") as caught:
        TokenPool.open(odd.uri, None, 1)
    assert caught.value.exit_code is ExitCode.BAD_CONFIG
    assert caught.value.final


def test_nobody_at_the_pinpad_is_no_refusal(odd: OddToken) -> None:
    odd.set(flags=PINPAD)
    with pytest.raises(TokenFault, match=r"CKR_FUNCTION_CANCELED; type the PIN at its pinpad") as caught:
        TokenPool.open(odd.uri, None, 1)
    assert not caught.value.final
    odd.set(flags=PINPAD, pinpad=_typed(odd))
    TokenPool.open(odd.uri, None, 1).close()


def test_a_wrong_pin_at_the_pinpad_is_not_asked_for_again(odd: OddToken) -> None:
    odd.set(flags=PINPAD, pinpad="wrong-1234")
    with pytest.raises(PinRefused, match="refused what was typed at its pinpad"):
        TokenPool.open(odd.uri, None, 1)
    odd.set(flags=PINPAD, pinpad=_typed(odd))
    with pytest.raises(PinRefused, match="has refused this PIN before"):
        TokenPool.open(odd.uri, None, 1)


@pytest.mark.parametrize(("flags", "pin"), [(PIN_FINAL_TRY, b"x"), (PIN_FINAL_TRY | PINPAD, None)])
def test_the_final_try_is_not_spent(odd: OddToken, flags: int, pin: bytes | None) -> None:
    odd.set(flags=flags, C_Login=0xA4, pinpad="x")
    with pytest.raises(PinFinalTry, match=r"one more wrong PIN locks it .* wghsm token doctor --yes") as caught:
        TokenPool.open(odd.uri, None if pin is None else bytearray(pin), 1)
    assert caught.value.exit_code is ExitCode.PIN_REFUSED
    odd.set(flags=flags, pinpad=_typed(odd))
    TokenPool.open(odd.uri, None if pin is None else odd.pin, 1, at_final_try=True).close()


def test_a_locked_pin_is_not_sent(odd: OddToken) -> None:
    odd.set(flags=PIN_LOCKED | PIN_FINAL_TRY)
    with pytest.raises(PinLocked, match="its PIN is locked; the security officer must set a new one"):
        TokenPool.open(odd.uri, odd.pin, 1, at_final_try=True)


def test_the_commands_ask_at_the_pinpad(odd: OddToken) -> None:
    odd.set(flags=PINPAD, pinpad=_typed(odd))
    uri = odd.uri.partition("&pin-source")[0] + "&pin-source=protected"
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", "key", "list", "--token", uri, "--json"],
        env={**os.environ, **odd.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert done.stderr == "type the PIN of token 'odd' at its pinpad\n"


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[OddToken, GatewayToken]]:
    with odd_gateway() as made:
        yield made


def _uri(odd: OddToken, source: str) -> str:
    return odd.uri.partition("&pin-source")[0] + (f"&pin-source={source}" if source else "")


@pytest.mark.parametrize("source", ["protected", ""])
def test_a_custodian_says_that_an_operator_must_be_there(gateway: tuple[OddToken, GatewayToken], source: str) -> None:
    odd, token = gateway
    odd.set(flags=PINPAD, pinpad=_typed(odd))
    with state_folder() as state, Custodian(token, state, changes={"uri": _uri(odd, source)}) as custodian:
        waiting = custodian.receive(custodian.home, m.TokenStatus)
        assert waiting.state == "away"
        assert waiting.detail == "waiting for its PIN to be typed at the token's pinpad: an operator must be there"
        ready = custodian.receive(custodian.home, m.TokenStatus)
        assert ready.state == "ready"
        assert ready.detail == "after a restart an operator must type its PIN at the token's pinpad"
        custodian.ready()
        assert custodian.log_text().count("an operator must be there") == 1


def test_a_custodian_at_a_pinpad_keeps_no_latch(gateway: tuple[OddToken, GatewayToken]) -> None:
    odd, token = gateway
    with state_folder() as state:
        odd.set(flags=PINPAD, pinpad="wrong-1234")
        with Custodian(token, state, changes={"uri": _uri(odd, "protected")}) as custodian:
            fault = custodian.fault()
        assert fault.exit_code == ExitCode.PIN_REFUSED
        assert "typed at its pinpad" in fault.text
        odd.set(flags=PINPAD, pinpad=_typed(odd))
        with Custodian(token, state, changes={"uri": _uri(odd, "protected")}, incarnation=2) as custodian:
            custodian.ready()


def test_a_custodian_without_pin_and_pinpad(gateway: tuple[OddToken, GatewayToken]) -> None:
    odd, token = gateway
    odd.set()
    with state_folder() as state, Custodian(token, state, changes={"uri": _uri(odd, "")}) as custodian:
        fault = custodian.fault()
    assert fault.exit_code == ExitCode.BAD_CONFIG
    assert "has no pinpad" in fault.text


def test_a_custodian_takes_the_pin_of_a_command(gateway: tuple[OddToken, GatewayToken]) -> None:
    odd, token = gateway
    odd.set()
    # Only root may read the file: the command runs before the custodian drops.
    uri = _uri(odd, f"command:/bin/cat%20{odd.made.pin_file}")
    with state_folder() as state:
        with Custodian(token, state, changes={"uri": uri}) as custodian:
            custodian.receive(custodian.home, m.Ready)
        with Custodian(token, state, changes={"uri": uri + ".absent"}) as custodian:
            fault = custodian.fault()
    assert fault.exit_code == ExitCode.BAD_CONFIG
    assert "PIN command /bin/cat: it failed (exit status 1): " in fault.text
    assert "No such file" in fault.text


@pytest.mark.parametrize(("flag", "said"), [(PIN_FINAL_TRY, "no PIN was sent"), (PIN_LOCKED, "is locked")])
def test_a_custodian_leaves_a_token_in_danger_alone(
    gateway: tuple[OddToken, GatewayToken], flag: int, said: str
) -> None:
    odd, token = gateway
    odd.set(flags=flag)
    with state_folder() as state:
        with Custodian(token, state) as custodian:
            fault = custodian.fault()
        assert not (state / "custodian" / "pin-refused").exists()
    assert fault.exit_code == ExitCode.PIN_REFUSED
    assert said in fault.text


def test_a_gateway_opens_no_session_that_may_write_unless_psks_come_at_run_time(
    gateway: tuple[OddToken, GatewayToken],
) -> None:
    odd, token = gateway
    odd.set(read_only=1)
    with state_folder() as state:
        with Custodian(token, state) as custodian:
            custodian.ready()
        with Custodian(token, state, changes={"runtime_psks": True}) as custodian:
            fault = custodian.fault()
    assert "CKR_TOKEN_WRITE_PROTECTED" in fault.text


def test_the_uri_keeps_its_pin_source() -> None:
    for source in ("protected", "command:/usr/bin/pin%20gw", None):
        text = "pkcs11:token=gw?module-path=/m.so" + (f"&pin-source={source}" if source else "")
        assert str(TokenUri.parse(text)) == text

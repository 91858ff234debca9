"""The custodian as a process while its token fails: away and back, several tokens, starts without one, stuck calls."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.network.support import until
from tests.token.custodian_process import UID, GatewayToken, gateway_token, provision, state_folder
from tests.token.faulty_token import IDLE, FaultyToken, Watched, faulty_token, twins
from tests.unit.custodian.support import SoftwarePeer
from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, Counter
from wghsm.ipc import messages as m
from wghsm.softhsm_setup import make_token, softhsm_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HANDSHAKE = ChannelKind.HANDSHAKE_CUSTODIAN
DEVICE_ERROR, GENERAL_ERROR, PIN_INCORRECT, PIN_LOCKED, MECHANISM_INVALID = 0x30, 0x05, 0xA0, 0xA4, 0x70


@pytest.fixture(scope="module")
def made() -> Iterator[FaultyToken]:
    with faulty_token() as token:
        yield token


@pytest.fixture
def token(made: FaultyToken) -> Iterator[FaultyToken]:
    yield made
    made.rig.clear()


@pytest.fixture
def state() -> Iterator[Path]:
    with state_folder() as folder:
        yield folder


def test_away_and_back(token: FaultyToken, state: Path) -> None:
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer]) as custodian:
        custodian.ready()
        assert (custodian.began.state, custodian.began.token) == ("ready", "token 'gw'")
        assert custodian.accepts(peer)
        token.rig.fail("*", DEVICE_ERROR)
        assert not custodian.accepts(peer)
        away = custodian.status("away")
        assert "CKR_DEVICE_ERROR" in away.detail
        # The breaker is open: a request costs the token nothing.
        calls = token.rig.calls("C_DeriveKey")
        for _ in range(20):
            assert not custodian.accepts(peer)
        assert token.rig.calls("C_DeriveKey") == calls
        token.rig.clear()
        back = custodian.status("ready")
        assert back.since_unix > away.since_unix
        assert custodian.accepts(peer)
        log = custodian.log_text()
        assert log.count("the token is away since 20") == 1
        assert log.count("the token is back: token 'gw'") == 1
        counted = custodian.counters()
        assert counted[Counter.TOKEN_AWAY] == 1
        assert counted[Counter.TOKEN_REPAIRED] == 1
        assert counted[Counter.TOKEN_FAULT] >= 21


def test_a_fault_on_one_request_does_not_climb(token: FaultyToken, state: Path) -> None:
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer]) as custodian:
        custodian.ready()
        before = token.rig.calls("C_OpenSession")
        token.rig.fail("C_DeriveKey", GENERAL_ERROR, times=1)
        assert not custodian.accepts(peer)
        assert custodian.accepts(peer)
        assert token.rig.calls("C_OpenSession") == before
        until(lambda: custodian.counters().get(Counter.TOKEN_CHECKED) == 1, "the check")
        assert Counter.TOKEN_AWAY not in custodian.counters()
        assert token.rig.calls("C_OpenSession") == before


def test_a_token_that_nobody_uses_is_known_to_be_away_and_back(token: FaultyToken, state: Path) -> None:
    with Watched(token, state, program=IDLE) as custodian:
        custodian.ready()
        until(lambda: custodian.counters().get(Counter.TOKEN_CHECKED, 0) >= 2, "two checks")
        assert Counter.TOKEN_FAULT not in custodian.counters()
        token.rig.fail("*", DEVICE_ERROR)
        assert "CKR_DEVICE_ERROR" in custodian.status("away").detail
        token.rig.clear()
        custodian.status("ready")
        assert "a request failed" not in custodian.log_text()


def test_a_root_that_fails_is_found_out(token: FaultyToken, state: Path) -> None:
    plain = SoftwarePeer(1, token.public_key, m.PskDerived(5))
    with Watched(token, state, [plain]) as custodian:
        custodian.ready()
        # The key derives, the root does not sign: the check must notice.
        token.rig.fail("C_Sign", DEVICE_ERROR)
        assert not custodian.accepts(plain)
        custodian.status("away")
        token.rig.clear()
        custodian.status("ready")


def test_a_wrapping_key_that_fails_is_found_out(token: FaultyToken, state: Path) -> None:
    psk = os.urandom(32)
    public = SoftwarePeer(1, token.public_key).public
    (sealed,) = provision(token.made, wrap=[public.hex(), psk.hex()])["wrapped"]
    peer = SoftwarePeer(1, token.public_key, m.PskWrapped(5, bytes.fromhex(sealed)), psk)
    changes = {"psk_wrap_key": "wrap"}
    with Watched(token, state, [peer], changes=changes) as custodian:
        custodian.ready()
        assert custodian.accepts(peer)
        # The key derives and the root signs: the check must notice all the same.
        token.rig.fail("C_Decrypt", DEVICE_ERROR)
        assert not custodian.accepts(peer)
        custodian.status("away")
        token.rig.clear()
        custodian.status("ready")
        assert custodian.accepts(peer)
    token.rig.fail("C_EncryptInit", MECHANISM_INVALID)
    with Watched(token, state, [peer], incarnation=2, changes=changes) as custodian:
        fault = custodian.fault()
    assert fault.exit_code == ExitCode.TOKEN_UNUSABLE
    assert "'gw' computes no AES-GCM with secret 'wrap' (CKR_MECHANISM_INVALID), which wrapped PSKs need" in fault.text


@pytest.mark.parametrize(("ckr", "said"), [(PIN_INCORRECT, "CKR_PIN_INCORRECT"), (PIN_LOCKED, "CKR_PIN_LOCKED")])
def test_a_refused_pin_latches_for_good(token: FaultyToken, state: Path, ckr: int, said: str) -> None:
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer]) as custodian:
        custodian.ready()
        token.rig.fail("C_Login", ckr)
        token.rig.fail("C_DeriveKey", DEVICE_ERROR)
        logins = token.rig.calls("C_Login")
        custodian.asked(peer)
        fault = custodian.fault()
        assert fault.exit_code == ExitCode.PIN_REFUSED
        assert said in fault.text
        assert token.rig.calls("C_Login") == logins + 1
    token.rig.clear()
    latch = state / "custodian" / "pin-refused"
    assert latch.exists() == (ckr == PIN_INCORRECT)
    if latch.exists():
        with Watched(token, state, [peer], incarnation=2) as custodian:
            assert str(latch) in custodian.fault().text


def test_a_call_that_never_returns_ends_the_process(token: FaultyToken, state: Path) -> None:
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer]) as custodian:
        custodian.ready()
        token.rig.hang("C_DeriveKey")
        custodian.send(_HANDSHAKE, peer.initiation(1, 10**18))
        fault = custodian.fault()
        assert fault.exit_code == ExitCode.FAILURE
        assert "has not answered" in fault.text
    token.rig.clear()
    with Watched(token, state, [peer], incarnation=2) as custodian:
        custodian.ready()
        assert custodian.accepts(peer)


def test_a_module_that_crashes_takes_the_custodian_alone(token: FaultyToken, state: Path) -> None:
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer]) as custodian:
        custodian.ready()
        token.rig.crash("C_DeriveKey", times=1)
        custodian.send(_HANDSHAKE, peer.initiation(1, 10**18))
        assert custodian.end() == -signal.SIGSEGV


# Starts.


def _absent(token: GatewayToken) -> str:
    return token.made.uri.replace("token=gw", "token=absent")


def test_no_token_at_the_start_fails(token: FaultyToken, state: Path) -> None:
    with Watched(token, state, changes={"uri": _absent(token)}) as custodian:
        fault = custodian.fault()
    assert fault.exit_code == ExitCode.TOKEN_UNUSABLE
    assert "'absent'" in fault.text
    token.rig.fail("C_OpenSession", DEVICE_ERROR)
    with Watched(token, state) as custodian:
        fault = custodian.fault()
    assert fault.exit_code == ExitCode.TOKEN_UNUSABLE
    assert "CKR_DEVICE_ERROR" in fault.text


def test_no_token_at_the_start_is_waited_for(token: FaultyToken, state: Path) -> None:
    peer = SoftwarePeer(1, token.public_key)
    ourselves = SoftwarePeer(2, token.public_key)
    ourselves.public = token.public_key
    token.rig.fail("C_OpenSession", DEVICE_ERROR)
    with Watched(token, state, [peer, ourselves], changes={"at_start": "wait"}) as custodian:
        away = custodian.status("away")
        assert "CKR_DEVICE_ERROR" in away.detail
        assert away.token == ""
        custodian.receive(custodian.home, m.Ready)
        custodian.attach()
        assert not custodian.accepts(peer)
        token.rig.clear()
        # Whoever waited for our identity goes on by it.
        assert custodian.receive(_HANDSHAKE, m.Identity).public_key == token.public_key
        assert custodian.receive(custodian.home, m.Identity).public_key == token.public_key
        assert custodian.status("ready").token.endswith("'gw'")
        assert custodian.accepts(peer)
        assert custodian.ask(m.CreateInitiation(900, 2, 1, 0)) == m.Refused(900)


def test_waiting_helps_neither_a_wrong_pin_nor_a_missing_key(state: Path) -> None:
    with gateway_token() as token:
        with Watched(token, state, changes={"at_start": "wait", "key": "absent"}) as custodian:
            assert custodian.fault().exit_code == ExitCode.TOKEN_UNUSABLE
        token.made.pin_file.write_bytes(b"wrong-4711\n")
        with Watched(token, state, changes={"at_start": "wait"}) as custodian:
            assert custodian.fault().exit_code == ExitCode.PIN_REFUSED


# Several tokens.


def _both(second: GatewayToken, **more: object) -> dict[str, object]:
    return {"twins": [second.made.uri], "psk_root": None, **more}


def test_another_token_takes_over_and_hands_back(state: Path) -> None:
    with twins() as (first, second):
        peer = SoftwarePeer(1, first.public_key)
        with Watched(first, state, [peer], changes=_both(second)) as custodian:
            custodian.ready()
            assert custodian.began.token.endswith("'first'")
            assert custodian.accepts(peer)
            for _ in range(2):
                first.rig.fail("*", DEVICE_ERROR)
                assert not custodian.accepts(peer)
                custodian.status("ready", "'second'")
                assert custodian.accepts(peer)
                first.rig.clear()
                custodian.status("ready", "'first'")
                assert custodian.accepts(peer)
            log = custodian.log_text()
            assert "token 'second' holds the same keys and could take over" in log
            assert "token 'second' is in use in place of token 'first'" in log
            assert "token 'first' is back and in use again in place of token 'second'" in log
            assert custodian.counters()[Counter.TOKEN_SWITCHED] == 4


def test_the_first_token_may_be_missing_at_the_start(state: Path) -> None:
    with twins() as (first, second):
        peer = SoftwarePeer(1, first.public_key)
        first.rig.fail("C_OpenSession", DEVICE_ERROR)
        with Watched(first, state, [peer], changes=_both(second)) as custodian:
            custodian.ready()
            assert custodian.began.token.endswith("'second'")
            assert custodian.accepts(peer)
            first.rig.clear()
            custodian.status("ready", "'first'")
            assert custodian.accepts(peer)


def test_both_away(state: Path) -> None:
    with twins() as (first, second):
        peer = SoftwarePeer(1, first.public_key)
        with Watched(first, state, [peer], changes=_both(second)) as custodian:
            custodian.ready()
            assert custodian.accepts(peer)
            store = first.made.directory / "tokens"
            shutil.move(store, store.with_name("held"))
            first.rig.fail("*", DEVICE_ERROR)
            try:
                assert not custodian.accepts(peer)
                assert "CKR_DEVICE_ERROR" in custodian.status("away").detail
            finally:
                shutil.move(store.with_name("held"), store)
                first.rig.clear()
            custodian.status("ready")
            assert custodian.accepts(peer)


def test_a_twin_opens_the_same_wrapped_psks(state: Path) -> None:
    psk, wrap_key = os.urandom(32), os.urandom(32).hex()
    with twins() as (first, second):
        public = SoftwarePeer(1, first.public_key).public
        sealed, _ = (
            bytes.fromhex(provision(token.made, wrap=[public.hex(), psk.hex()], wrap_key=wrap_key)["wrapped"][0])
            for token in (first, second)
        )
        peer = SoftwarePeer(1, first.public_key, m.PskWrapped(5, sealed), psk)
        with Watched(first, state, [peer], changes=_both(second, psk_wrap_key="wrap")) as custodian:
            custodian.ready()
            assert custodian.accepts(peer)
            first.rig.fail("*", DEVICE_ERROR)
            assert not custodian.accepts(peer)
            custodian.status("ready", "'second'")
            assert custodian.accepts(peer)


@pytest.mark.parametrize(
    ("same", "section", "said"),
    [
        (False, {}, "another key"),
        (True, {"psk_root": "root"}, "another PSK root"),
        (True, {"psk_wrap_key": "wrap"}, "another wrapping key"),
    ],
)
def test_a_twin_that_differs_is_refused(state: Path, same: bool, section: dict[str, str], said: str) -> None:
    with twins(same=same) as (first, second):
        peer = SoftwarePeer(1, first.public_key)
        for token in (first, second) if "psk_wrap_key" in section else ():
            provision(token.made, wrap=[peer.public.hex(), os.urandom(32).hex()])
        with Watched(first, state, [peer], changes=_both(second, **section)) as custodian:
            custodian.ready()
            assert custodian.accepts(peer)
            first.rig.fail("*", DEVICE_ERROR)
            assert not custodian.accepts(peer)
            custodian.status("away")
            first.rig.clear()
            custodian.status("ready", "'first'")
            lines = [line for line in custodian.log_text().splitlines() if said in line and "could not take" in line]
            assert len(lines) == 1
            assert "token 'second' could not take over: token 'second' holds" in lines[0]


def test_a_twins_wrong_pin_is_sent_once(state: Path) -> None:
    with twins() as (first, second):
        second.made.pin_file.write_bytes(b"wrong-4711\n")
        peer = SoftwarePeer(1, first.public_key)
        for incarnation in (1, 2):
            with Watched(first, state, [peer], incarnation=incarnation, changes=_both(second)) as custodian:
                custodian.ready()
                first.rig.fail("*", DEVICE_ERROR)
                assert not custodian.accepts(peer)
                custodian.status("away")
                first.rig.clear()
                custodian.status("ready", "'first'")
                said = "refused the PIN" if incarnation == 1 else "has refused this PIN before"
                assert custodian.log_text().count(said) >= 1
        latches = list((state / "custodian").glob("pin-refused*"))
        assert len(latches) == 1
        assert latches[0].stat().st_uid == UID


def test_two_tokens_of_one_module(state: Path) -> None:
    private = bytes(range(1, 33)).hex()
    with softhsm_token(label="first", uid=UID) as made:
        (folder,) = (made.directory / "tokens").iterdir()
        first = GatewayToken(made, bytes.fromhex(str(provision(made, private=private)["public"])), b"")
        second = GatewayToken(make_token(made.directory, label="second", uid=UID), first.public_key, b"")
        provision(second.made, private=private)
        peer = SoftwarePeer(1, first.public_key)
        with Watched(first, state, [peer], changes=_both(second)) as custodian:
            custodian.ready()
            assert custodian.accepts(peer)
            shutil.move(folder, made.directory / "held")
            assert not custodian.accepts(peer)
            custodian.status("ready", "'second'")
            assert custodian.accepts(peer)
            shutil.move(made.directory / "held", folder)
            assert custodian.accepts(peer)
        # SoftHSM notices what is new at C_Initialize only, so the way back is a new start.
        with Watched(first, state, [peer], incarnation=2, changes=_both(second)) as custodian:
            custodian.ready()
            assert custodian.began.token.endswith("'first'")
            assert custodian.accepts(peer)

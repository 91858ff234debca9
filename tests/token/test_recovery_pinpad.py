"""A token whose PIN is typed at its pinpad and that fails under a custodian: the person is waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.network.support import until
from tests.token.custodian_process import GatewayToken, state_folder
from tests.token.faulty_token import Watched
from tests.token.odd_token import PINPAD, OddToken, odd_gateway
from tests.token.short_custodian import TIMES
from tests.unit.custodian.support import SoftwarePeer
from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, Counter
from wghsm.ipc import messages as m

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_PINPAD = "waiting for its PIN to be typed at the token's pinpad: an operator must be there"
AFTER_A_RESTART = "after a restart an operator must type its PIN at the token's pinpad"
DEVICE_ERROR = 0x30


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[OddToken, GatewayToken]]:
    with odd_gateway() as one:
        yield one


@pytest.fixture
def state() -> Iterator[Path]:
    with state_folder() as folder:
        yield folder


def _uri(odd: OddToken) -> str:
    return odd.uri.partition("&pin-source")[0] + "&pin-source=protected"


def test_who_types_at_the_pinpad_has_all_the_time(made: tuple[OddToken, GatewayToken], state: Path) -> None:
    odd, token = made
    typed = odd.pin.decode()
    odd.set(flags=PINPAD, pinpad=typed)
    # More of them than sessions: those that wait for one wait for the login as well.
    peers = [SoftwarePeer(slot, token.public_key) for slot in range(1, 7)]
    with Watched(token, state, peers, changes={"uri": _uri(odd)}) as custodian:
        custodian.ready()
        assert custodian.accepts(peers[0])
        custodian.forget_status()
        odd.set(flags=PINPAD, pinpad_wait=1, C_DeriveKey=DEVICE_ERROR)
        for peer in peers:
            custodian.begin(peer)
        waiting = custodian.status("away")
        assert waiting.detail == AT_PINPAD
        enough = time.monotonic_ns() + 2 * max(TIMES.stuck, TIMES.stuck_repair)
        until(lambda: time.monotonic_ns() > enough or custodian.process.poll() is not None, "twice the limit", 60.0)
        assert custodian.process.poll() is None, custodian.log_text()
        odd.set(flags=PINPAD, pinpad=typed)
        back = custodian.status("ready")
        assert back.detail == AFTER_A_RESTART
        for _ in peers:
            custodian.receive(ChannelKind.HANDSHAKE_CUSTODIAN, m.Message)
        custodian.until_accepted(peers[0])
        log = custodian.log_text()
        assert log.count(f"the token is away: {AT_PINPAD}") == 2, log
        assert custodian.counters()[Counter.TOKEN_REPAIRED] == 1


def test_nobody_comes_to_the_pinpad(made: tuple[OddToken, GatewayToken], state: Path) -> None:
    odd, token = made
    typed = odd.pin.decode()
    odd.set(flags=PINPAD, pinpad=typed)
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer], changes={"uri": _uri(odd)}) as custodian:
        custodian.ready()
        odd.set(flags=PINPAD, C_DeriveKey=DEVICE_ERROR)
        assert not custodian.accepts(peer)
        # The pinpad gives up by itself; it is asked again, after a while.
        assert "type the PIN at its pinpad" in custodian.status("away").detail
        odd.set(flags=PINPAD, pinpad=typed)
        custodian.status("ready")
        custodian.until_accepted(peer)


def test_a_wrong_pin_is_typed_once(made: tuple[OddToken, GatewayToken], state: Path) -> None:
    odd, token = made
    odd.set(flags=PINPAD, pinpad=odd.pin.decode())
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer], changes={"uri": _uri(odd)}) as custodian:
        custodian.ready()
        odd.set(flags=PINPAD, pinpad="wrong-4711", C_DeriveKey=DEVICE_ERROR)
        custodian.asked(peer)
        fault = custodian.fault()
        assert fault.exit_code == ExitCode.PIN_REFUSED
        assert "refused what was typed at its pinpad" in fault.text


def test_a_login_that_waits_at_the_start(made: tuple[OddToken, GatewayToken], state: Path) -> None:
    odd, token = made
    odd.set(flags=PINPAD, pinpad_wait=1)
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer], changes={"uri": _uri(odd), "at_start": "wait"}) as custodian:
        assert custodian.receive(custodian.home, m.TokenStatus).detail == AT_PINPAD
        odd.set(flags=PINPAD, pinpad=odd.pin.decode())
        custodian.status("ready")

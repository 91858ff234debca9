"""What a thousand handshakes leave in a custodian's memory: no shared secret, no session key, no PSK (every module)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.network.support.memory import scan_memory
from tests.token.custodian_process import Custodian, GatewayToken, gateway_token, rest, state_folder
from tests.token.real_token import REAL, RealToken
from tests.unit.custodian.support import SoftwarePeer
from wghsm.ipc import ChannelKind, Counter
from wghsm.ipc import messages as m
from wghsm.noise import Rejected
from wghsm.noise.curve import exchange
from wghsm.process import boottime

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_HANDSHAKES = 1000
_PEERS = 40
# Searching for all would take minutes: the first ones, the last ones, and some between.
_SOUGHT = frozenset((*range(10), *range(10, 960, 50), *range(980, _HANDSHAKES)))

TOKENS: Mapping[str, Callable[[], contextlib.AbstractContextManager[GatewayToken]]] = {
    "softhsm": gateway_token,
    **REAL,
}


@pytest.fixture
def state() -> Iterator[Path]:
    with state_folder() as folder:
        yield folder


@pytest.mark.parametrize("name", TOKENS)
def test_a_thousand_handshakes_leave_nothing(name: str, state: Path) -> None:
    with TOKENS[name]() as token:
        peers = _peers(token)
        changes = token.settings if isinstance(token, RealToken) else {}
        with Custodian(token, state, peers=peers, cache=False, sessions=4, changes=changes) as custodian:
            custodian.ready()
            secrets = {f"PSK {peer.slot}": peer.secret for peer in peers if any(peer.secret)}
            shared = {
                f"static-static {peer.slot}": bytes(exchange(peer.private, token.public_key)) for peer in peers[:10]
            }
            for number in range(_HANDSHAKES):
                peer = peers[number % _PEERS]
                receive, send = _handshake(custodian, peer, number)
                if number in _SOUGHT:
                    secrets |= {f"receive key {number}": receive, f"send key {number}": send}
                    shared[f"ephemeral-static {number}"] = bytes(exchange(peer.ephemeral, token.public_key))
            assert custodian.counters()[Counter.DERIVE] == 2 * _HANDSHAKES
            control = {"control": token.public_key}
            found = scan_memory(custodian.process.pid, {**secrets, **shared, **control}, encoded=False)
            assert found.scanned > 10 << 20
            assert found.names() == {"control"}


def _peers(token: GatewayToken) -> list[SoftwarePeer]:
    """As many with a derived PSK as without, where the token has them."""
    plain = [SoftwarePeer(slot, token.public_key) for slot in range(_PEERS)]
    if isinstance(token, RealToken) and "derived" not in token.kinds:
        return plain
    secrets = token.log_in([peer.public for peer in plain])
    return [
        SoftwarePeer(peer.slot, token.public_key, m.PskDerived(5), secret) if peer.slot % 2 else peer
        for peer, secret in zip(plain, secrets, strict=True)
    ]


def _handshake(custodian: Custodian, peer: SoftwarePeer, number: int) -> tuple[bytes, bytes]:
    rest(peer)
    custodian.send(ChannelKind.HANDSHAKE_CUSTODIAN, peer.initiation(number, time.time_ns()))
    answer = custodian.receive(ChannelKind.HANDSHAKE_CUSTODIAN, m.Message)
    peer.last_initiation = boottime()
    assert isinstance(answer, m.InitiationAccepted), custodian.log_text()
    theirs = peer.finish(answer)
    assert not isinstance(theirs, Rejected)
    receive, send = custodian.installed()
    # Otherwise the epoch before has its turn at the next attempt.
    custodian.send(ChannelKind.HANDSHAKE_CUSTODIAN, m.ConfirmSession(answer.session, peer.slot))
    assert (bytes(theirs.send), bytes(theirs.receive)) == (receive.key, send.key)
    return receive.key, send.key

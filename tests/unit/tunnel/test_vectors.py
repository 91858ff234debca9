"""Transport messages of whole WireGuard handshakes, in both directions, to the byte."""

from typing import Any

import pytest

from tests.unit.tunnel.support import MTU, PEER, START, Egress, Ingress, counter_of, vectors
from wghsm.ipc import Counter, Role
from wghsm.ipc import messages as m

pytestmark = pytest.mark.usefixtures("engine")

_TRANSCRIPTS = vectors("wireguard_handshake.json")["transcripts"]
_DATA = bytes.fromhex(_TRANSCRIPTS[0]["transport_1_data_plain"])


def _send_key(session: int, key: str, index: int) -> m.InstallSend:
    return m.InstallSend(session, PEER, index, True, START, bytes.fromhex(key))


def _receive_key(session: int, key: str, index: int) -> m.InstallReceive:
    return m.InstallReceive(session, PEER, index, False, START, bytes.fromhex(key), 0)


@pytest.mark.parametrize("transcript", _TRANSCRIPTS)
def test_egress_as_initiator(transcript: dict[str, Any]) -> None:
    egress = Egress()
    egress.sender.install(_send_key(1, transcript["initiator_send_key"], transcript["responder_index"]), START)
    egress.sender.activate(m.Activate(1, PEER, confirm=True), START)
    egress.sender.routes.insert(bytes(4), 0, PEER)
    egress.sender.read(_DATA, START)
    assert [sealed.hex() for sealed in egress.sent] == [transcript["transport_0_keepalive"], transcript["transport_1"]]
    assert len(_DATA) % 16 == 0
    assert egress.sender.mtu == MTU


@pytest.mark.parametrize("transcript", _TRANSCRIPTS)
def test_ingress_as_responder(transcript: dict[str, Any]) -> None:
    ingress = Ingress()
    ingress.receiver.install(_receive_key(1, transcript["initiator_send_key"], transcript["responder_index"]), START)
    ingress.receiver.routes.insert(bytes(4), 0, PEER)
    assert ingress.open(bytes.fromhex(transcript["transport_0_keepalive"])) == []
    assert ingress.open(bytes.fromhex(transcript["transport_1"])) == [_DATA[:20]]
    assert ingress.open(bytes.fromhex(transcript["transport_1"])) == []
    assert ingress.stats.counters(Role.INGRESS) == {Counter.REPLAYED: 1}


@pytest.mark.parametrize("transcript", _TRANSCRIPTS)
def test_the_other_direction(transcript: dict[str, Any]) -> None:
    expected = bytes.fromhex(transcript["responder_transport_0_keepalive"])
    egress = Egress()
    egress.sender.install(_send_key(1, transcript["initiator_recv_key"], transcript["initiator_index"]), START)
    egress.sender.activate(m.Activate(1, PEER, confirm=True), START)
    assert egress.sent == [expected]
    assert counter_of(expected) == (transcript["initiator_index"], 0)
    ingress = Ingress()
    ingress.receiver.install(_receive_key(1, transcript["initiator_recv_key"], transcript["initiator_index"]), START)
    assert ingress.open(expected) == []
    assert ingress.stats.counters(Role.INGRESS) == {}

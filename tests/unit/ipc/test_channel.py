"""The channels: the table is kept, order is kept, secrets are wiped, descriptors arrive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.ipc import Channel, ChannelClosed, ChannelKind, ProtocolError, Role, messages, socket_pair
from wghsm.ipc import messages as m
from wghsm.ipc.channel import MAX_MESSAGE, VERSION
from wghsm.ipc.roles import ENDS
from wghsm.ipc.table import ACCEPTS

if TYPE_CHECKING:
    from collections.abc import Iterator

KIND = ChannelKind.CUSTODIAN_EGRESS
INSTALL = m.InstallSend(1, 2, 3, True, 5, b"k" * 32)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    first, second = socket_pair()
    ends = Channel(first, KIND, Role.CUSTODIAN), Channel(second, KIND, Role.EGRESS)
    yield ends
    for end in ends:
        end.close()


def raw_pair(kind: ChannelKind, role: Role) -> tuple[Channel, object]:
    first, second = socket_pair()
    return Channel(first, kind, role), second


def test_a_message_arrives_as_it_was_sent(pair: tuple[Channel, Channel]) -> None:
    custodian, egress = pair
    custodian.send(INSTALL)
    assert egress.receive() == (INSTALL, [])
    assert egress.receive() is None


def test_keys_do_not_stay_in_the_buffers(pair: tuple[Channel, Channel]) -> None:
    custodian, egress = pair
    custodian.send(INSTALL)
    egress.receive()
    assert b"kkkk" not in custodian._out
    assert b"kkkk" not in egress._in


def test_keys_stand_in_no_repr() -> None:
    for message in (INSTALL, m.InstallReceive(1, 2, 3, True, 5, b"k" * 32, 7), m.PutPsk(1, "l", b"k" * 32)):
        assert "kkk" not in repr(message)


def test_a_message_that_the_table_does_not_list_is_fatal(pair: tuple[Channel, Channel]) -> None:
    custodian, egress = pair
    egress.send(INSTALL)
    with pytest.raises(ProtocolError, match="does not allow"):
        custodian.receive()


@given(st.binary(min_size=1, max_size=300))
def test_no_bytes_pass_but_messages(data: bytes) -> None:
    channel, other = raw_pair(KIND, Role.EGRESS)
    other.send(data)  # type: ignore[attr-defined]
    with pytest.raises(ProtocolError):
        while channel.receive() is None:
            pass
    channel.close()
    other.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("hello", [m.Hello(VERSION + 1, "custodian"), m.Hello(VERSION, "handshake"), INSTALL])
def test_the_first_message_is_a_fitting_hello(hello: m.Message) -> None:
    channel, other = raw_pair(KIND, Role.EGRESS)
    other.send(msgspec.msgpack.encode(hello))  # type: ignore[attr-defined]
    with pytest.raises(ProtocolError):
        channel.receive()
    channel.close()


def test_a_full_socket_keeps_order_or_refuses(pair: tuple[Channel, Channel]) -> None:
    custodian, egress = pair
    sent = 0
    while custodian.try_send(msgspec.structs.replace(INSTALL, session=sent)):
        sent += 1
    assert sent > 4000
    for extra in range(10):
        custodian.send(msgspec.structs.replace(INSTALL, session=sent + extra))
    assert custodian.backlog == 10
    received = 0
    while received < sent + 10:
        item = egress.receive()
        if item is None:
            custodian.flush()
            continue
        assert isinstance(item[0], m.InstallSend)
        assert item[0].session == received
        received += 1
    assert custodian.backlog == 0


def test_the_end_of_the_other_side_is_seen(pair: tuple[Channel, Channel]) -> None:
    custodian, egress = pair
    custodian.close()
    with pytest.raises(ChannelClosed):
        egress.receive()
        egress.receive()
    with pytest.raises(ChannelClosed):
        egress.send(INSTALL)


def test_descriptors_travel_and_survive_waiting() -> None:
    first, second = socket_pair()
    supervisor = Channel(first, ChannelKind.SUPERVISOR_EGRESS, Role.SUPERVISOR)
    egress = Channel(second, ChannelKind.SUPERVISOR_EGRESS, Role.EGRESS)
    while supervisor.try_send(m.Mtu(1)):
        pass
    reader, writer = os.pipe()
    supervisor.send(m.TunDevice(1420), [writer])
    os.close(writer)
    while True:
        item = egress.receive()
        if item is None:
            supervisor.flush()
        elif isinstance(item[0], m.TunDevice):
            break
    (received,) = item[1]
    assert not os.get_inheritable(received)
    os.write(received, b"x")
    assert os.read(reader, 1) == b"x"
    os.close(received)
    os.close(reader)


def test_a_message_that_is_too_long_is_refused_by_its_sender(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(ValueError, match="in parts"):
        pair[0].send(msgspec.structs.replace(INSTALL, key=bytes(MAX_MESSAGE)))


def test_no_role_takes_an_end_that_is_not_its_own() -> None:
    first, second = socket_pair()
    with pytest.raises(ValueError, match="no end"):
        Channel(first, KIND, Role.CONTROL)
    first.close()
    second.close()


def test_the_table_knows_both_ends_of_every_channel_and_no_other() -> None:
    assert set(ACCEPTS) == {(kind, role) for kind, ends in ENDS.items() for role in ends}


def test_every_message_with_a_number_is_in_the_table_and_has_its_own() -> None:
    tagged = [
        kind
        for name in messages.__all__
        if isinstance(kind := getattr(messages, name), type)
        and issubclass(kind, m.Message)
        and kind.__struct_config__.tag is not None
    ]
    tags = [kind.__struct_config__.tag for kind in tagged]
    assert len(set(tags)) == len(tags)
    listed = {kind for kinds in ACCEPTS.values() for kind in kinds}
    records = {m.PskNone, m.PskDerived, m.PskObject, m.PskWrapped}
    assert set(tagged) - {m.Hello} - records == listed


def test_session_keys_go_from_the_custodian_to_the_tunnel_and_nowhere_else() -> None:
    for (kind, receiver), kinds in ACCEPTS.items():
        if m.InstallSend in kinds:
            assert (kind, receiver) == (ChannelKind.CUSTODIAN_EGRESS, Role.EGRESS)
        if m.InstallReceive in kinds:
            assert (kind, receiver) == (ChannelKind.CUSTODIAN_INGRESS, Role.INGRESS)
        if m.PutPsk in kinds:
            assert (kind, receiver) == (ChannelKind.CONTROL_CUSTODIAN, Role.CUSTODIAN)

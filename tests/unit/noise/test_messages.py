"""Wire messages: layout, round trips, and what is refused."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.noise import vectors as v
from wghsm.noise import (
    CookieReply,
    Initiation,
    MessageType,
    Reason,
    Rejected,
    Response,
    TransportHeader,
    message_type,
)
from wghsm.noise.messages import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    RESPONSE_SIZE,
    TRANSPORT_MINIMUM_SIZE,
)

Message = Initiation | Response | CookieReply | TransportHeader
KINDS: list[tuple[type[Message], int, int]] = [
    (Initiation, 1, INITIATION_SIZE),
    (Response, 2, RESPONSE_SIZE),
    (CookieReply, 3, COOKIE_REPLY_SIZE),
    (TransportHeader, 4, TRANSPORT_MINIMUM_SIZE),
]
u32 = st.integers(0, 2**32 - 1)


def octets(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Initiation, u32, octets(32), octets(48), octets(28), octets(16), octets(16)),
    st.builds(Response, u32, u32, octets(32), octets(16), octets(16), octets(16)),
    st.builds(CookieReply, u32, octets(24), octets(32)),
)


def test_sizes_are_the_protocols() -> None:
    assert [size for _, _, size in KINDS] == [148, 92, 64, 32]


@given(MESSAGES)
def test_round_trip(message: Message) -> None:
    assert type(message).decode(message.encode()) == message
    assert type(message).decode(memoryview(message.encode())) == message


@given(MESSAGES)
def test_the_type_tells_the_class(message: Message) -> None:
    kind = message_type(message.encode())
    assert isinstance(kind, MessageType)
    assert (type(message), int(kind)) in [(cls, number) for cls, number, _ in KINDS]


@given(u32, st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=64))
def test_transport_header(receiver: int, counter: int, sealed: bytes) -> None:
    header = TransportHeader(receiver, counter)
    data = header.encode() + sealed
    assert data[:16] == b"\x04\0\0\0" + struct.pack("<IQ", receiver, counter)
    assert message_type(data) is MessageType.TRANSPORT
    assert TransportHeader.decode(data) == header


def test_fields_stand_where_the_protocol_puts_them() -> None:
    data = bytes(range(1, 149))
    initiation = Initiation.decode(b"\x01\0\0\0" + data[4:])
    assert initiation == Initiation(
        0x08070605, data[8:40], data[40:88], data[88:116], mac1=data[116:132], mac2=data[132:]
    )
    response = Response.decode(b"\x02\0\0\0" + data[4:92])
    assert response == Response(0x08070605, 0x0C0B0A09, data[12:44], data[44:60], mac1=data[60:76], mac2=data[76:92])
    reply = CookieReply.decode(b"\x03\0\0\0" + data[4:64])
    assert reply == CookieReply(0x08070605, data[8:32], data[32:64])


@pytest.mark.parametrize(("cls", "number", "size"), KINDS)
def test_every_other_length_is_refused(cls: type[Message], number: int, size: int) -> None:
    head = number.to_bytes(4, "little")
    for length in range(200):
        data = (head + bytes(200))[:length]
        accepted = length >= size if cls is TransportHeader else length == size
        assert (not isinstance(message_type(data), Rejected)) == accepted
        if accepted:
            assert isinstance(cls.decode(data), cls)
        else:
            assert message_type(data) == Rejected(Reason.LENGTH)
            assert cls.decode(data) == Rejected(Reason.LENGTH)


@pytest.mark.parametrize(("cls", "number", "size"), KINDS)
@given(kind=u32)
def test_every_other_type_is_refused(cls: type[Message], number: int, size: int, kind: int) -> None:
    if kind != number:
        assert isinstance(cls.decode(kind.to_bytes(4, "little") + bytes(size - 4)), Rejected)


@pytest.mark.parametrize(("cls", "number", "size"), KINDS)
def test_reserved_bytes_are_refused(cls: type[Message], number: int, size: int) -> None:
    for position in (1, 2, 3):
        for bit in range(8):
            data = bytearray(number.to_bytes(4, "little") + bytes(size - 4))
            data[position] ^= 1 << bit
            assert message_type(bytes(data)) == Rejected(Reason.TYPE)
            assert cls.decode(bytes(data)) == Rejected(Reason.TYPE)


def test_one_message_is_not_taken_for_another() -> None:
    assert Response.decode(v.MESSAGE_1) == Rejected(Reason.TYPE)
    assert Initiation.decode(v.MESSAGE_2) == Rejected(Reason.TYPE)


@given(st.binary(max_size=160))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    assert isinstance(message_type(data), MessageType | Rejected)
    for cls, _, _ in KINDS:
        assert isinstance(cls.decode(data), cls | Rejected)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Initiation(0, bytes(31), bytes(48), bytes(28)),
        lambda: Initiation(0, bytes(32), bytes(49), bytes(28)),
        lambda: Initiation(0, bytes(32), bytes(48), bytes(12)),
        lambda: Initiation(0, bytes(32), bytes(48), bytes(28), bytes(15)),
        lambda: Initiation(0, bytes(32), bytes(48), bytes(28), bytes(16), b""),
        lambda: Response(0, 0, b"", bytes(16)),
        lambda: Response(0, 0, bytes(32), b""),
        lambda: Response(0, 0, bytes(32), bytes(16), b""),
        lambda: Response(0, 0, bytes(32), bytes(16), bytes(16), b""),
        lambda: CookieReply(0, bytes(12), bytes(32)),
        lambda: CookieReply(0, bytes(24), bytes(16)),
    ],
)
def test_a_field_of_our_own_with_a_wrong_length_is_a_fault(build: Callable[[], Message]) -> None:
    with pytest.raises(ValueError, match="a field of"):
        build().encode()


@pytest.mark.parametrize("index", [-1, 2**32])
def test_an_index_is_a_u32(index: int) -> None:
    with pytest.raises(struct.error):
        Initiation(index, bytes(32), bytes(48), bytes(28)).encode()

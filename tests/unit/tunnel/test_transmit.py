"""Sends of whole batches, and what is done where the kernel or the device cannot."""

import errno
import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from wghsm.ipc import messages as m
from wghsm.process.endpoints import Destination, destination_of
from wghsm.tunnel.seal import Outgoing
from wghsm.tunnel.sender import SendPeer
from wghsm.tunnel.transmit import Transmitter

_UDP_SEGMENT = (socket.IPPROTO_UDP, 103)
_IP_TOS = (socket.IPPROTO_IP, socket.IP_TOS)
_PKTINFO = (socket.IPPROTO_IP, 8)


@dataclass
class _Socket:
    """Refuses what `refuse` says: an errno by the type of a control message, or by None for any send."""

    has_segments: bool = True
    refuse: dict[tuple[int, int] | None, list[int]] = field(default_factory=dict)
    sent: list[tuple[bytes, dict[tuple[int, int], bytes]]] = field(default_factory=list)
    tries: int = 0

    def __post_init__(self) -> None:
        self._real = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def fileno(self) -> int:
        return self._real.fileno()

    def getsockopt(self, level: int, option: int, /) -> int:
        if not self.has_segments:
            raise OSError(errno.ENOPROTOOPT, "no such option")
        assert (level, option) == _UDP_SEGMENT
        return 0

    def sendmsg(
        self,
        buffers: Iterable[bytes | memoryview],
        ancdata: Iterable[tuple[int, int, bytes]],
        _flags: int,
        _address: tuple[str | int, ...],
        /,
    ) -> int:
        self.tries += 1
        control = {(level, kind): data for level, kind, data in ancdata}
        for what in (*control, None):
            if self.refuse.get(what):
                number = self.refuse[what].pop(0)
                raise BlockingIOError(number, "full") if number == errno.EAGAIN else OSError(number, "refused")
        data = b"".join(buffers)
        self.sent.append((data, control))
        return len(data)


class _Sends:
    def __init__(self, sock: _Socket, local: str = "") -> None:
        self.sock = sock
        self.failed = 0
        self.peer = SendPeer(3, 0)
        destination = destination_of(m.Endpoint("192.0.2.7", 51820, local=local))
        assert destination is not None
        self.peer.destination = destination
        self.transmitter = Transmitter(sock, self._fail)

    def _fail(self, number: int) -> None:
        self.failed += number

    @property
    def destination(self) -> Destination:
        assert self.peer.destination is not None
        return self.peer.destination

    def send(self, *sizes: int, ecn: int = 0) -> int:
        batch = Outgoing(lambda: None)
        for size in sizes:
            batch.add(bytes(size), ecn)
        return self.transmitter.send(self.peer, self.destination, batch)

    def take(self) -> list[tuple[int, set[tuple[int, int]]]]:
        sent, self.sock.sent = self.sock.sent, []
        return [(len(data), set(control)) for data, control in sent]


def test_a_batch_is_one_send_with_its_segment_size_and_ecn() -> None:
    sends = _Sends(_Socket())
    assert sends.send(100, 100, 60, ecn=2) == 260
    ((data, control),) = sends.sock.sent
    assert len(data) == 260
    assert int.from_bytes(control[_UDP_SEGMENT], "little") == 100
    assert int.from_bytes(control[_IP_TOS], "little") == 2
    sends.take()
    assert sends.send(100) == 100
    assert sends.take() == [(100, set())]
    assert sends.failed == 0


def test_an_old_kernel_sends_one_by_one_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    sends = _Sends(_Socket(has_segments=False))
    for _ in range(2):
        assert sends.send(100, 100, 60, ecn=1) == 260
        assert sends.take() == [(100, {_IP_TOS}), (100, {_IP_TOS}), (60, {_IP_TOS})]
    assert len(caplog.records) == 1


def test_a_device_that_cannot_checksum_ends_batches_for_this_socket(caplog: pytest.LogCaptureFixture) -> None:
    sends = _Sends(_Socket(refuse={_UDP_SEGMENT: [errno.EIO] * 9}))
    assert sends.send(100, 100) == 200
    assert sends.take() == [(100, set())] * 2
    assert sends.send(100, 100) == 200
    assert sends.sock.tries == 5
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert sends.failed == 0


@pytest.mark.parametrize("number", [errno.EMSGSIZE, errno.EINVAL])
def test_a_way_that_is_too_narrow_ends_batches_for_this_destination(number: int) -> None:
    sends = _Sends(_Socket(refuse={_UDP_SEGMENT: [number]}))
    assert sends.send(100, 100) == 200
    assert sends.take() == [(100, set())] * 2
    assert sends.send(100, 100) == 200
    assert sends.take() == [(100, set())] * 2
    sends.peer.destination = destination_of(m.Endpoint("192.0.2.8", 51820))
    assert sends.send(100, 100) == 200
    assert sends.take() == [(200, {_UDP_SEGMENT})]


def test_a_full_socket_is_waited_for() -> None:
    sends = _Sends(_Socket(refuse={None: [errno.EAGAIN]}))
    assert sends.send(100, 100) == 200
    assert sends.failed == 0
    sends = _Sends(_Socket(refuse={None: [errno.EAGAIN] * 2}))
    assert sends.send(100, 100) == 0
    assert sends.failed == 2


def test_a_lost_source_is_forgotten_and_batches_go_on() -> None:
    sends = _Sends(_Socket(refuse={_PKTINFO: [errno.EINVAL] * 2}), local="192.0.2.1")
    assert sends.send(100, 100, 100) == 300
    assert sends.take() == [(100, set())] * 3
    assert sends.destination.endpoint.local == ""
    assert sends.send(100, 100) == 200
    assert sends.take() == [(200, {_UDP_SEGMENT})]
    assert sends.failed == 0


def test_what_nobody_takes_is_counted() -> None:
    sends = _Sends(_Socket(refuse={None: [errno.ENETUNREACH] * 9}))
    assert sends.send(100, 100) == 0
    assert sends.failed == 2
    assert sends.destination.segments

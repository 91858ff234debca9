"""Writes that the TUN takes, refuses, or cannot take any more."""

import errno

import pytest

from tests.unit.tunnel.inner import Flow
from wghsm.process import ChildFault
from wghsm.tunnel.coalesce import Coalescer
from wghsm.tunnel.deliver import Delivery
from wghsm.tunnel.virtio import PLAIN


class _Tun:
    def __init__(self, refuses: int = 0, *, merged_only: bool = False, full: bool = False) -> None:
        self.refuses = refuses
        self.merged_only = merged_only
        self.full = full
        self.written: list[bytes] = []
        self.lost = 0

    def write(self, data: bytes | memoryview) -> int | None:
        if self.refuses and not (self.merged_only and bytes(data[:10]) == PLAIN):
            raise OSError(self.refuses, "refused")
        if self.full:
            return None
        self.written.append(bytes(data))
        return len(data)

    def lose(self) -> None:
        self.lost += 1


def _packets() -> list[bytes]:
    flow = Flow(4)
    return [flow.udp(bytes([number]) * 50, identity=number) for number in range(3)]


def _merged() -> bytes:
    coalescer = Coalescer()
    for packet in _packets():
        coalescer.add(packet)
    (write,) = coalescer.take()
    return write


def test_a_super_packet_is_one_write() -> None:
    tun = _Tun()
    Delivery(tun.write, tun.lose, vnet=True).deliver(_merged())
    assert tun.written == [_merged()]


def test_the_reader_of_many_datagrams_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    yielded: list[int] = []
    tun = _Tun()
    monkeypatch.setattr("os.sched_yield", lambda: yielded.append(len(tun.written)))
    delivery = Delivery(tun.write, tun.lose, vnet=True)
    delivery.deliver(PLAIN + _packets()[0])
    delivery.deliver(_merged())
    assert yielded == [2]


def test_a_refused_super_packet_is_written_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    tun = _Tun(errno.EINVAL, merged_only=True)
    delivery = Delivery(tun.write, tun.lose, vnet=True)
    for _ in range(2):
        delivery.deliver(_merged())
    assert tun.written == [PLAIN + packet for packet in _packets()] * 2
    assert tun.lost == 0
    assert len(caplog.records) == 1


def test_a_tun_without_virtio_net_hdr_gets_the_packet_alone() -> None:
    tun = _Tun()
    Delivery(tun.write, tun.lose, vnet=False).deliver(PLAIN + _packets()[0])
    assert tun.written == [_packets()[0]]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.ENOBUFS])
def test_a_packet_that_is_refused_is_a_loss(number: int) -> None:
    tun = _Tun(number)
    Delivery(tun.write, tun.lose, vnet=True).deliver(PLAIN + _packets()[0])
    assert tun.lost == 1


def test_a_full_tun_is_a_loss() -> None:
    tun = _Tun(full=True)
    Delivery(tun.write, tun.lose, vnet=True).deliver(_merged())
    assert tun.lost == 1


def test_a_tun_that_is_gone_ends_the_process() -> None:
    tun = _Tun(errno.EBADFD)
    with pytest.raises(ChildFault, match="gone"):
        Delivery(tun.write, tun.lose, vnet=True).deliver(_merged())

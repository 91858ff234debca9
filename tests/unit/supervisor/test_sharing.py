"""Sockets of several workers on one port: each datagram finds its worker, by its index, whatever closes meanwhile."""

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import Literal

import pytest

from wghsm.ipc import index_of, worker_of_peer
from wghsm.supervisor._sockets import UdpPair

HOSTS = {"4": "127.0.0.1", "6": "::1"}


@pytest.fixture(params=[2, 3, 4, 32])
def pair(request: pytest.FixtureRequest) -> Iterator[UdpPair]:
    made = UdpPair(0, 0, request.param)
    yield made
    made.close()


def workers_of(pair: UdpPair) -> int:
    return len(pair.descriptors) // len(pair.families)


def where(pair: UdpPair, family: Literal["4", "6"]) -> int:
    """The worker that a datagram has come to."""
    place = pair.families.index(family)
    sockets = {pair.descriptors_of(worker)[place]: worker for worker in range(workers_of(pair))}
    (found,) = select.select(list(sockets), [], [], 10)[0]
    os.read(found, 2048)
    return sockets[found]


def message(kind: int, index: int) -> bytes:
    """A message with this receiver index, and another worker's in the field that is the sender's."""
    if kind == 2:
        return struct.pack("<III", kind, index ^ 1, index) + bytes(80)
    return struct.pack("<II", kind, index) + bytes(56)


@pytest.mark.parametrize("family", ["4", "6"])
def test_the_receiver_index_decides(pair: UdpPair, family: Literal["4", "6"]) -> None:
    workers = workers_of(pair)
    with socket.socket(socket.AF_INET if family == "4" else socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        for peer in range(2 * workers):
            for kind in (2, 3, 4):
                for index in (0, 0x12345678, 0xFFFFFFFF):
                    sender.sendto(message(kind, index_of(index, peer, workers)), (HOSTS[family], pair.port))
                    assert where(pair, family) == worker_of_peer(peer, workers)


def test_initiations_are_spread_over_all(pair: UdpPair) -> None:
    found = set()
    for _ in range(40 * workers_of(pair)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(struct.pack("<II", 1, 0) + bytes(140), (HOSTS["4"], pair.port))
            found.add(where(pair, "4"))
    assert found == set(range(workers_of(pair)))


def test_whatever_is_no_message_is_taken_by_somebody(pair: UdpPair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in (b"\4", b"\4\0\0\0", bytes(100), b"\xff" * 100):
            sender.sendto(data, (HOSTS["4"], pair.port))
            where(pair, "4")


def test_a_port_is_shared_with_nobody_else(pair: UdpPair) -> None:
    for workers in (1, 2):
        with pytest.raises(OSError, match="in use") as caught:
            UdpPair(pair.port, 0, workers)
        assert caught.value.errno == errno.EADDRINUSE


def test_a_worker_that_ends_changes_nothing_for_the_others(pair: UdpPair) -> None:
    workers = workers_of(pair)
    copies = [os.dup(fd) for fd in pair.descriptors_of(0)]
    for fd in copies:
        os.close(fd)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(message(4, index_of(0, workers - 1, workers)), (HOSTS["4"], pair.port))
        assert where(pair, "4") == workers - 1

"""Queues of the TUN: a packet waits where its worker reads, by the longest prefix; and what a refusal leaves."""

import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from tests.network.support import unique_interface
from tests.network.support.process import until
from wghsm.ipc import messages as m
from wghsm.supervisor._steering import Steering
from wghsm.supervisor._tun import Tun

WORKERS = 4


@pytest.fixture
def tun() -> Iterator[Tun]:
    made = Tun(unique_interface("wgq"), queues=WORKERS)
    subprocess.run(["ip", "link", "set", made.name(), "up"], check=True)
    yield made
    made.close()


def route(prefix: str, peer: int | None) -> m.Route:
    network = ip_network(prefix)
    return m.Route(network.network_address.packed, network.prefixlen, peer)


def queue_of(tun: Tun, address: str) -> int:
    """The queue that a packet to this address comes out of."""
    target = ip_address(address).packed
    if len(target) == 4:
        packet = bytes.fromhex("4500001c000000004011000000000000") + target + bytes(8)
    else:
        packet = bytes.fromhex("6000000000081140") + bytes(16) + target + bytes(8)
    kind = 0x0800 if len(target) == 4 else 0x86DD
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
        sock.sendto(packet, (tun.name(), kind))
    found: list[int] = []

    def came() -> bool:
        # The kernel has packets of its own to say.
        for queue, fd in enumerate(tun.fds):
            try:
                while packet not in os.read(fd, 2048):
                    pass
            except BlockingIOError:
                continue
            found.append(queue)
        return bool(found)

    until(came, "the packet", pause=0.001)
    (queue,) = found
    return queue


def test_the_longest_prefix_decides(tun: Tun) -> None:
    steering = Steering(tun.fd, WORKERS)
    assert steering.works
    steering.change(
        [
            route("0.0.0.0/0", 1),
            route("10.1.0.0/16", 2),
            route("10.1.2.0/24", 7),
            route("10.1.2.3/32", 5),
            route("fd00::/8", 3),
            route("fd00::7/128", 6),
        ]
    )
    wanted = {"192.0.2.1": 1, "10.1.9.9": 2, "10.1.2.9": 3, "10.1.2.3": 1, "fd01::1": 3, "fd00::7": 2, "2001:db8::1": 0}
    assert {address: queue_of(tun, address) for address in wanted} == wanted
    # Moved, gone, and gone twice.
    steering.change([route("10.1.2.0/24", 2), route("10.1.2.3/32", None), route("10.1.2.3/32", None)])
    steering.change([route("fd00::7/128", None), route("fd00::/8", 0)])
    assert [queue_of(tun, address) for address in ("10.1.2.9", "10.1.2.3", "fd00::7")] == [2, 2, 0]
    # The TUN keeps the program.
    steering.close()
    assert queue_of(tun, "10.1.9.9") == 2


def test_a_kernel_that_refuses_is_told_once(
    tun: Tun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    steering = Steering(tun.fd, WORKERS)
    assert not steering.works
    steering.change([route("10.1.0.0/16", 2)])
    assert [record.getMessage() for record in caplog.records] == [
        "the kernel does not steer packets to their workers (Function not implemented): they are handed over, "
        "which takes longer"
    ]


def test_one_worker_needs_none() -> None:
    steering = Steering(-1, 1)
    assert not steering.works
    steering.change([route("10.1.0.0/16", 2)])
    steering.close()

"""Endpoints from recvmsg to sendmsg, also through the kernel."""

import socket
import struct

import pytest

from wghsm.ipc.messages import Endpoint
from wghsm.process.endpoints import CONTROL_SPACE, destination_of, endpoint_of, packet_info

_IPV6_RECVPKTINFO = 49
_IP_PKTINFO = 8


def test_ipv4_source() -> None:
    info = struct.pack("@i4s4s", 7, bytes([192, 0, 2, 1]), bytes([192, 0, 2, 255]))
    assert endpoint_of((("198.51.100.9", 4000), info)) == Endpoint("198.51.100.9", 4000, 0, "192.0.2.1", 7)


def test_ipv6_link_local_source_keeps_its_scope() -> None:
    info = struct.pack("@16sI", socket.inet_pton(socket.AF_INET6, "fe80::1"), 7)
    made = endpoint_of((("fe80::2", 4000, 0, 7), info))
    assert made == Endpoint("fe80::2", 4000, 7, "fe80::1", 7)
    back = destination_of(made)
    assert back is not None
    assert back.address == ("fe80::2", 4000, 0, 7)
    assert back.control == [(socket.IPPROTO_IPV6, 50, info)]


def test_without_packet_info() -> None:
    assert endpoint_of((("198.51.100.9", 4000), b"")) == Endpoint("198.51.100.9", 4000)


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("example.com", 1),
        Endpoint("", 1),
        Endpoint("192.0.2.1", 0),
        Endpoint("192.0.2.1", 65536),
        Endpoint("fe80::1%eth0", 1),
        Endpoint("192.0.2.1", 1, local="here"),
        Endpoint("2001:db8::1", 1, scope=-1),
    ],
)
def test_what_is_no_endpoint(endpoint: Endpoint) -> None:
    assert destination_of(endpoint) is None


def test_a_source_of_the_other_family_is_left_out() -> None:
    made = destination_of(Endpoint("192.0.2.1", 1, local="2001:db8::1"))
    assert made is not None
    assert made.control == []


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_through_the_kernel(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family, socket.SOCK_DGRAM) as near, socket.socket(family, socket.SOCK_DGRAM) as far:
        if family == socket.AF_INET:
            near.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            near.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        for sock in (near, far):
            sock.bind((host, 0))
            sock.settimeout(30)
        far.sendto(b"there", near.getsockname())
        _, control, _, address = near.recvmsg(100, CONTROL_SPACE)
        endpoint = endpoint_of((address, packet_info(control)))
        assert (endpoint.host, endpoint.port, endpoint.local) == (host, far.getsockname()[1], host)
        back = destination_of(endpoint)
        assert back is not None
        near.sendmsg([b"back"], back.control, 0, back.address)
        assert far.recvfrom(100)[0] == b"back"
        plain = back.without_source()
        assert plain.control == []
        near.sendmsg([b"again"], plain.control, 0, plain.address)
        assert far.recvfrom(100)[0] == b"again"

"""The real egress and ingress processes with fixed keys: two namespaces, real TUN devices, real sockets."""

import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.network.fixed_key_gateway import PEER, UIDS, Gateway, inside, install, open_udp
from tests.network.support import Lab, Link, Pinger, ping, ping_until, scan_memory, until
from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, PeerField, Role
from wghsm.ipc import messages as m


@dataclass
class Pair:
    """Two gateways on one cable, without a session."""

    link: Link
    left: Gateway
    right: Gateway

    def endpoints(self, family: int) -> None:
        """Tell the left gateway where the right one is; the right one learns it."""
        self.left.endpoint(self.link.right.address(family), self.right.port)


@pytest.fixture
def pair(lab: Lab) -> Pair:
    near, far = lab.namespace("near"), lab.namespace("far")
    link = lab.connect(near, far)
    left = lab.add(Gateway(near, lab.scratch, ["10.8.0.1/24", "fd08::1/64"], ["10.8.0.2/32", "fd08::2/128"]))
    right = lab.add(Gateway(far, lab.scratch, ["10.8.0.2/24", "fd08::2/64"], ["10.8.0.1/32", "fd08::1/128"]))
    return Pair(link, left, right)


@pytest.mark.parametrize("family", [4, 6])
def test_packets_both_ways_inside_both_families(pair: Pair, family: int) -> None:
    pair.endpoints(family)
    install(pair.left, pair.right, 1, 100)
    for address, back, largest in (("10.8.0.2", "10.8.0.1", 1392), ("fd08::2", "fd08::1", 1372)):
        for size in (0, 1, 56, largest):
            assert ping(pair.left.namespace, address, count=3, interval=0.01, size=size).lost == 0
        assert ping(pair.right.namespace, back).lost == 0
    for gateway, other in ((pair.left, pair.right), (pair.right, pair.left)):
        # The kernel asks for IPv6 routers, whom no allowed IP covers.
        assert gateway.counters(Role.EGRESS).keys() <= {"no-peer"}
        assert gateway.counters(Role.INGRESS) == {}
        for sent, received in (
            (PeerField.TX_BYTES, PeerField.RX_BYTES),
            (PeerField.TX_PACKETS, PeerField.RX_PACKETS),
        ):
            assert gateway.stats.get(PEER, sent) == other.stats.get(PEER, received) > 0
        assert gateway.stats.get(PEER, PeerField.LAST_DATA_RECEIVED) > 0


def test_staged_packets_wait_for_the_session(pair: Pair, lab: Lab) -> None:
    pair.endpoints(4)
    command = ["ping", "-n", "-c", "1", "-W", "30", "10.8.0.2"]
    with pair.left.namespace.start(*command, folder=lab.scratch, label="waiting") as waiting:
        wanted = pair.left.handshake[Role.EGRESS].expect(m.HandshakeWanted)
        assert wanted == m.HandshakeWanted(PEER, "no-session")
        install(pair.left, pair.right, 1, 100)
        assert waiting.wait() == 0


def test_rekeys_in_both_roles_lose_nothing(pair: Pair, lab: Lab) -> None:
    pair.endpoints(4)
    install(pair.left, pair.right, 1, 100)
    pinger = lab.add(Pinger(pair.left.namespace, "10.8.0.2", lab.scratch, interval=0.01))
    for session in range(2, 12):
        enough = pair.right.stats.get(PEER, PeerField.RX_PACKETS) + 5
        roles = (pair.left, pair.right) if session % 3 else (pair.right, pair.left)
        install(*roles, session, 100 * session)
        _wait_for_packets(pair.right, enough)
    pinger.answer_after(time.time())
    result = pinger.stop()
    assert result.received >= 30
    assert result.missing == ()


def _wait_for_packets(gateway: Gateway, number: int) -> None:
    until(lambda: gateway.stats.get(PEER, PeerField.RX_PACKETS) >= number, "more packets")


def test_roaming_to_a_new_port_and_address(pair: Pair) -> None:
    pair.endpoints(4)
    install(pair.left, pair.right, 1, 100)
    ping_until(pair.left.namespace, "10.8.0.2")
    pair.left.bind()
    assert ping(pair.left.namespace, "10.8.0.2").lost == 0
    pair.endpoints(6)
    assert ping(pair.left.namespace, "10.8.0.2").lost == 0
    moved = pair.right.handshake[Role.INGRESS].waiting(m.EndpointMoved)
    assert (moved[-1].endpoint.host, moved[-1].endpoint.port) == (pair.link.left.ipv6, pair.left.port)
    assert moved[-1].endpoint.local == pair.link.right.ipv6


def test_answers_leave_from_the_address_that_was_spoken_to(pair: Pair) -> None:
    namespace = pair.right.namespace
    namespace.run("ip", "address", "add", "10.77.1.200/24", "dev", pair.link.right.interface)
    pair.left.endpoint("10.77.1.200", pair.right.port)
    install(pair.left, pair.right, 1, 100)
    ping_until(pair.left.namespace, "10.8.0.2")
    moved = pair.left.handshake[Role.INGRESS].waiting(m.EndpointMoved)
    assert moved[-1].endpoint.host == "10.77.1.200"
    namespace.run("ip", "address", "del", "10.77.1.200/24", "dev", pair.link.right.interface)
    pair.endpoints(4)
    assert ping(pair.right.namespace, "10.8.0.1").lost == 0
    assert pair.right.counters(Role.EGRESS).keys() <= {"no-peer"}


def test_hostile_datagrams_are_counted_and_handshakes_handed_over(pair: Pair) -> None:
    pair.endpoints(4)
    install(pair.left, pair.right, 1, 100)
    there = (pair.link.right.ipv4, pair.right.port)
    messages = {kind: bytes([kind, 0, 0, 0]) + bytes(size - 4) for kind, size in ((1, 148), (2, 92), (3, 64))}
    with inside(pair.left.namespace):
        stranger = open_udp("4")
    with stranger:
        for data in (b"", b"x", bytes(60), messages[1][:-1], b"\x04\x00\x00\x00" + bytes(60)):
            stranger.sendto(data, there)
        stranger.sendto(b"\x04\x00\x00\x00" + (101).to_bytes(4, "little") + bytes(60), there)
        for data in messages.values():
            stranger.sendto(data, there)
        for data in messages.values():
            passed = pair.right.handshake[Role.INGRESS].expect(m.Datagram)
            assert passed.data == data
            assert passed.source.host == pair.link.left.ipv4
            assert passed.source.port == stranger.getsockname()[1]
            assert passed.source.local == pair.link.right.ipv4
    assert pair.right.counters(Role.INGRESS) == {
        "malformed": 3,
        "unknown-type": 1,
        "unknown-index": 1,
        "authentication-failed": 1,
    }
    assert ping(pair.left.namespace, "10.8.0.2").lost == 0


def test_the_source_inside_must_be_allowed(pair: Pair) -> None:
    pair.endpoints(4)
    install(pair.left, pair.right, 1, 100)
    pair.left.namespace.run("ip", "address", "add", "10.8.0.9/32", "dev", pair.left.tun)
    done = pair.left.namespace.run("ping", "-c", "1", "-W", "1", "-I", "10.8.0.9", "10.8.0.2", check=False)
    assert done.returncode != 0
    assert pair.right.counters(Role.INGRESS) == {"source-not-allowed": 1}


def test_link_down_forgets_and_link_up_serves_again(pair: Pair) -> None:
    pair.endpoints(4)
    install(pair.left, pair.right, 1, 100)
    ping_until(pair.left.namespace, "10.8.0.2")
    pair.left.link(up=False)
    pair.left.link(up=True)
    for role in UIDS:
        end = pair.left.handshake[role]
        end.send(m.AwaitSessions())
        assert end.expect(m.SessionSnapshot).sessions == []
    install(pair.left, pair.right, 2, 200)
    assert ping(pair.left.namespace, "10.8.0.2").lost == 0


def test_a_down_device_costs_packets_only(pair: Pair) -> None:
    pair.endpoints(4)
    install(pair.left, pair.right, 1, 100)
    pair.right.namespace.run("ip", "link", "set", pair.right.tun, "down")
    ping(pair.left.namespace, "10.8.0.2", count=2, wait=0.5)
    until(lambda: pair.right.counters(Role.INGRESS).get("tun-write-failed"), "a failed write")
    pair.right.namespace.run("ip", "link", "set", pair.right.tun, "up")
    assert ping(pair.left.namespace, "10.8.0.2").lost == 0


def test_an_unreachable_endpoint_costs_packets_only(pair: Pair) -> None:
    pair.endpoints(4)
    install(pair.left, pair.right, 1, 100)
    pair.left.endpoint("203.0.113.1", 9)
    ping(pair.left.namespace, "10.8.0.2", count=2, wait=0.5)
    until(lambda: pair.left.counters(Role.EGRESS).get("send-failed"), "a failed send")
    pair.endpoints(4)
    assert ping(pair.left.namespace, "10.8.0.2").lost == 0


def test_a_new_handshake_process_takes_over(pair: Pair) -> None:
    pair.endpoints(4)
    install(pair.left, pair.right, 1, 100)
    for role, kind, index in (
        (Role.EGRESS, ChannelKind.HANDSHAKE_EGRESS, 101),
        (Role.INGRESS, ChannelKind.HANDSHAKE_INGRESS, 100),
    ):
        pair.left.handshake[role].channel.close()
        assert ping(pair.left.namespace, "10.8.0.2").lost == 0
        end = pair.left.reattach(kind, role)
        end.send(m.AwaitSessions())
        snapshot = end.expect(m.SessionSnapshot)
        assert snapshot.last
        (info,) = snapshot.sessions
        assert (info.session, info.peer, info.index, info.initiator, info.slot) == (1, PEER, index, True, "current")
        (moved,) = snapshot.endpoints
        assert (moved.endpoint.host, moved.endpoint.port) == (pair.link.right.ipv4, pair.right.port)


def test_privileges_are_gone(pair: Pair) -> None:
    for role, child in pair.left.children.items():
        lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        assert status["Uid"] == status["Gid"] == [str(UIDS[role])] * 4
        assert status["CapPrm"] == status["CapEff"] == [f"{1 << 14:016x}"]
        assert status["NoNewPrivs"] == ["1"]
        assert int(status["VmLck"][0]) > 0


def test_each_process_holds_its_own_keys_and_drops_them_when_they_expire(lab: Lab) -> None:
    near, far = lab.namespace("near"), lab.namespace("far")
    link = lab.connect(near, far)
    times = "reject_after_time=8 * 10**9"
    left = lab.add(Gateway(near, lab.scratch, ["10.8.0.1/24"], ["10.8.0.2/32"], times))
    right = lab.add(Gateway(far, lab.scratch, ["10.8.0.2/24"], ["10.8.0.1/32"], times))
    left.endpoint(link.right.ipv4, right.port)
    keys = install(left, right, 1, 100)
    assert _held(left, keys) == {Role.EGRESS: {"initiator's"}, Role.INGRESS: {"responder's"}}
    ping(near, "10.8.0.2", count=2, interval=0.01)
    until(lambda: _sessions(left) == 0, "no session")
    assert _held(left, keys) == {Role.EGRESS: set(), Role.INGRESS: set()}
    before = right.stats.get(PEER, PeerField.RX_PACKETS)
    ping(near, "10.8.0.2", count=1, wait=0.2)
    assert left.handshake[Role.EGRESS].expect(m.HandshakeWanted) == m.HandshakeWanted(PEER, "no-session")
    assert right.stats.get(PEER, PeerField.RX_PACKETS) == before


def _held(gateway: Gateway, keys: dict[str, bytes]) -> dict[Role, set[str]]:
    return {role: scan_memory(child.pid, keys).names() for role, child in gateway.children.items()}


def _sessions(gateway: Gateway) -> int:
    count = 0
    for end in gateway.handshake.values():
        end.send(m.AwaitSessions())
        count += len(end.expect(m.SessionSnapshot).sessions)
    return count


def test_the_end_of_the_supervisor_ends_both(pair: Pair) -> None:
    for end in pair.left.supervisor.values():
        end.channel.close()
    for child in pair.left.children.values():
        assert child.wait(30) == ExitCode.OK


def test_a_deleted_device_ends_egress_with_a_reason(pair: Pair) -> None:
    pair.left.namespace.run("ip", "link", "delete", pair.left.tun)
    fault = pair.left.supervisor[Role.EGRESS].expect(m.Fault)
    assert fault.exit_code == ExitCode.SYSTEM
    assert fault.text.startswith("the TUN device is gone")
    assert pair.left.children[Role.EGRESS].wait(30) == ExitCode.SYSTEM


def test_a_message_that_is_not_allowed_ends_the_process(pair: Pair) -> None:
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with first, second:
        pair.left.supervisor[Role.EGRESS].send(m.Attach(ChannelKind.HANDSHAKE_EGRESS, 2), [second.fileno()])
        first.send(b"\x93\x01\x01\xa9handshake")
        first.send(b"\x91\x3e")
        assert pair.left.children[Role.EGRESS].wait(30) == ExitCode.PROTOCOL

"""The control process's wishes against a supervisor without processes: sent messages are collected, answers made up."""

import dataclasses
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING, cast

import pytest

from tests.unit.supervisor.support import KEYS, change, gateway, peer
from wghsm import config
from wghsm.ipc import PeerField, Role, StatsFile, create_stats, identity_number
from wghsm.ipc import messages as m
from wghsm.process import Loop
from wghsm.supervisor._applying import Applying
from wghsm.supervisor._audit import Audit
from wghsm.supervisor._inboxes import Inboxes
from wghsm.supervisor._links import Links, LinkStatus
from wghsm.supervisor._requests import Requests
from wghsm.supervisor._sockets import UdpPair, UnixListener
from wghsm.supervisor._state import State
from wghsm.supervisor._steering import Steering
from wghsm.supervisor.model import Prefix, initial

if TYPE_CHECKING:
    from wghsm.supervisor._children import Children
    from wghsm.supervisor._filter import PacketFilter
    from wghsm.supervisor._tun import Tun


class FakeChildren:
    """Every role is there and takes what it is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Role, m.Message]] = []
        self.killed: list[Role] = []
        self.control = 1
        self.handshake = True

    def send(self, role: Role, message: m.Message, _fds: Sequence[int] = ()) -> bool:
        if role is Role.HANDSHAKE and not self.handshake:
            return False
        self.sent.append((role, message))
        return True

    def incarnation(self, _role: Role) -> int:
        return self.control

    def views(self) -> list[m.ProcessView]:
        return [m.ProcessView(Role.EGRESS, 5, "ready", 2, 7, "compiled")]

    def kill(self, role: Role, _reason: str) -> None:
        self.killed.append(role)


class FakeLinks:
    """Remembers routes."""

    def __init__(self) -> None:
        self.routes: list[tuple[tuple[Prefix, ...], tuple[Prefix, ...]]] = []

    def change_routes(self, added: tuple[Prefix, ...], removed: tuple[Prefix, ...]) -> None:
        self.routes.append((added, removed))


class World:
    """Requests with everything around it."""

    def __init__(self, file: config.Gateway) -> None:
        self.children = FakeChildren()
        self.links = FakeLinks()
        self.loop = Loop()
        self.stopped = False
        self.stopped_by: m.Asker | None = None
        self.fd = create_stats()
        self.state = State(
            gateway=file,
            file="/etc/gw.yaml",
            model=initial(file),
            tun=cast("Tun", None),
            links=cast("Links", self.links),
            packet_filter=cast("PacketFilter", None),
            link=LinkStatus(up=True, mtu=1420),
            udp=UdpPair(0, 0),
            uapi=cast("UnixListener", None),
            admin=cast("UnixListener", None),
            stats_fd=self.fd,
            stats=StatsFile(self.fd, Role.SUPERVISOR),
            steering=Steering(-1, 1),
            inboxes=Inboxes(1),
            path_mtu=1420,
        )
        children = cast("Children", self.children)
        self.audited: list[m.AuditEvent] = []
        self.audit = Audit(self._take, wanted=True)
        self.applying = Applying(self.state, children, self.loop, self.audit, lambda: None)
        self.requests = Requests(self.state, children, self.applying, self.audit, self._stop)
        for role in (Role.CUSTODIAN, Role.HANDSHAKE, Role.EGRESS, Role.INGRESS):
            assert self.applying.joined(role) == []
            self.applying.serves(role)

    def _stop(self, who: m.Asker | None) -> None:
        self.stopped = True
        self.stopped_by = who

    def _take(self, event: m.AuditEvent) -> bool:
        self.audited.append(event)
        return True

    def obey(self) -> None:
        """Let the processes answer until nothing is left to do."""
        taken = 0
        while taken < len(self.children.sent):
            role, message = self.children.sent[taken]
            taken += 1
            if isinstance(message, m.Routes):
                if message.last:
                    self.applying.answered(role, m.Prepared(message.change))
            elif isinstance(
                message, m.CustodianPeers | m.HandshakePeers | m.TunnelPeers | m.RoutesCommit | m.UdpSockets
            ):
                self.applying.answered(role, m.Applied(message.change))

    def results(self) -> list[m.RequestResult]:
        return [message for _, message in self.children.sent if isinstance(message, m.RequestResult)]

    def set(self, wanted: m.DeviceChange, number: int = 1) -> m.RequestResult:
        self.requests.handle(m.DeviceSet(number, wanted))
        self.obey()
        return self.results()[-1]

    def close(self) -> None:
        self.state.stats.close()
        self.state.udp.close()
        os.close(self.fd)
        self.loop.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World(gateway(peer(0, "10.0.0.0/24"), peer(1, "10.1.0.0/24", "fd01::/64")))
    yield made
    made.close()


def test_a_change_is_in_force_before_it_is_answered(world: World) -> None:
    world.requests.handle(m.DeviceSet(4, change(m.PeerChange(KEYS[5], add_allowed_ips=["10.1.0.0/24"]))))
    assert not world.results()
    assert KEYS[5] not in world.state.model.peers
    world.obey()
    assert world.results() == [m.RequestResult(4, 0)]
    assert world.state.model.peers[KEYS[5]].slot == 2
    assert world.links.routes == [((), ())]


def test_routes_follow(world: World) -> None:
    world.set(change(m.PeerChange(KEYS[0], replace_allowed_ips=True, add_allowed_ips=["10.7.0.0/24"])))
    assert world.links.routes == [((ip_network("10.7.0.0/24"),), (ip_network("10.0.0.0/24"),))]


def test_changes_wait_for_each_other(world: World) -> None:
    world.requests.handle(m.DeviceSet(1, change(m.PeerChange(KEYS[5]))))
    world.requests.handle(m.DeviceSet(2, change(m.PeerChange(KEYS[5], remove=True))))
    world.obey()
    assert [result.request for result in world.results()] == [1, 2]
    assert KEYS[5] not in world.state.model.peers


def test_parts_are_one_change(world: World) -> None:
    world.requests.handle(m.DeviceSet(1, change(m.PeerChange(KEYS[5])), False))
    world.requests.handle(m.DeviceSet(1, change(m.PeerChange(KEYS[6], add_allowed_ips=["bad"])), True))
    assert world.results()[-1].errno == errno.EINVAL
    assert set(world.state.model.peers) == {KEYS[0], KEYS[1]}
    world.requests.handle(m.DeviceSet(2, change(m.PeerChange(KEYS[5])), False))
    world.requests.handle(m.DeviceSet(2, change(m.PeerChange(KEYS[6])), True))
    world.obey()
    assert set(world.state.model.peers) == {KEYS[0], KEYS[1], KEYS[5], KEYS[6]}


def test_a_new_port_goes_to_three_processes(world: World) -> None:
    before = world.state.udp.port
    assert world.set(m.DeviceChange(listen_port=0, fwmark=9)).errno == 0
    told = [(role, message.port) for role, message in world.children.sent if isinstance(message, m.UdpSockets)]
    assert world.state.udp.port != before
    assert sorted(told) == sorted((role, world.state.udp.port) for role in (Role.EGRESS, Role.HANDSHAKE, Role.INGRESS))
    assert world.state.model.fwmark == 9


def test_a_check_says_what_would_be_and_changes_nothing(world: World) -> None:
    before, model = world.state.udp.port, world.state.model
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        for number, wanted in {
            0: m.DeviceChange(listen_port=0, fwmark=7, replace_peers=True, peers=[m.PeerChange(KEYS[5])]),
            errno.EADDRINUSE: m.DeviceChange(listen_port=taken.getsockname()[1]),
            errno.EINVAL: change(m.PeerChange(KEYS[5], add_allowed_ips=["bad"])),
        }.items():
            world.requests.handle(m.DeviceSet(1, wanted, check_only=True))
            assert world.results()[-1].errno == number
    assert [message for _, message in world.children.sent if not isinstance(message, m.RequestResult)] == []
    assert (world.state.udp.port, world.state.model) == (before, model)


def test_a_mark_alone_tells_the_sockets_again(world: World) -> None:
    port = world.state.udp.port
    assert world.set(m.DeviceChange(fwmark=9)).errno == 0
    assert [message.port for _, message in world.children.sent if isinstance(message, m.UdpSockets)] == [port] * 3
    assert world.set(m.DeviceChange(fwmark=9)).errno == 0
    assert len([0 for _, message in world.children.sent if isinstance(message, m.UdpSockets)]) == 3


def test_a_port_that_cannot_be_had_changes_nothing(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        wanted = m.DeviceChange(listen_port=taken.getsockname()[1], peers=[m.PeerChange(KEYS[0], remove=True)])
        before = world.state.udp.port
        assert world.set(wanted).errno == errno.EADDRINUSE
    assert world.state.udp.port == before
    assert KEYS[0] in world.state.model.peers


def test_the_same_port_is_no_change(world: World) -> None:
    assert world.set(m.DeviceChange(listen_port=world.state.udp.port)).errno == 0
    assert not any(isinstance(message, m.UdpSockets) for _, message in world.children.sent)


def test_a_restarted_control_process_gets_no_answer_of_its_predecessor(world: World) -> None:
    world.requests.handle(m.DeviceSet(1, change(m.PeerChange(KEYS[5]))))
    world.requests.handle(m.DeviceSet(2, change(m.PeerChange(KEYS[6]))))
    world.children.control = 0
    world.requests.left(Role.CONTROL)
    world.applying.left(Role.CONTROL)
    world.children.control = 2
    world.obey()
    assert world.results() == []
    assert KEYS[5] in world.state.model.peers
    assert KEYS[6] not in world.state.model.peers


def test_a_process_that_does_not_answer_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wghsm.supervisor._applying._ANSWER_WITHIN", 1)
    world.requests.handle(m.DeviceSet(1, change(m.PeerChange(KEYS[0], remove=True))))
    world.loop.run_once(5.0)
    assert sorted(world.children.killed) == [Role.CUSTODIAN, Role.HANDSHAKE]


@pytest.fixture
def named() -> Iterator[World]:
    """Give two peers whose endpoints are names."""
    host = config.Endpoint("gw.example", 7)
    made = World(gateway(peer(0, endpoint=host), peer(1, endpoint=host)))
    yield made
    made.close()


def told_endpoints(world: World) -> list[m.Endpoint | None]:
    told = [message for role, message in world.children.sent if role is Role.HANDSHAKE]
    return [peer.endpoint for each in told if isinstance(each, m.HandshakePeers) for peer in each.upsert]


def test_resolved_endpoints_are_for_peers_that_have_none(named: World) -> None:
    named.state.endpoints[1] = m.Endpoint("192.0.2.1", 1)
    resolved = {KEYS[0]: m.Endpoint("192.0.2.7", 7), KEYS[1]: m.Endpoint("192.0.2.8", 8), KEYS[9]: m.Endpoint("::1", 9)}
    named.requests.set_endpoints(resolved)
    named.obey()
    assert named.state.endpoints == {0: m.Endpoint("192.0.2.7", 7), 1: m.Endpoint("192.0.2.1", 1)}
    assert told_endpoints(named) == [m.Endpoint("192.0.2.7", 7)]
    assert set(named.state.model.peers) == {KEYS[0], KEYS[1]}
    # It is what the file asks for, and nobody's change.
    assert named.state.model.peers[KEYS[0]].host == config.Endpoint("gw.example", 7)


def test_a_name_that_the_file_has_changed_replaces_a_known_endpoint(named: World) -> None:
    named.state.endpoints[1] = m.Endpoint("192.0.2.1", 1)
    named.state.outdated.add(1)
    for last in (8, 9):
        named.requests.set_endpoints({KEYS[1]: m.Endpoint("192.0.2.8", last)})
        named.obey()
    assert named.state.endpoints == {1: m.Endpoint("192.0.2.8", 8)}


def test_a_removed_peer_s_endpoint_and_numbers_are_forgotten(world: World) -> None:
    world.state.endpoints[0] = m.Endpoint("192.0.2.1", 1)
    world.state.stats.set(2, PeerField.RX_BYTES, 99)
    world.set(change(m.PeerChange(KEYS[0], remove=True), m.PeerChange(KEYS[7])))
    assert world.state.endpoints == {}
    assert world.state.stats.get(2, PeerField.RX_BYTES) == 0


def test_the_device_counts_handshakes_too(world: World) -> None:
    world.state.identity = m.Identity(KEYS[20], KEYS[21])
    world.state.endpoints[1] = m.Endpoint("192.0.2.1", 1)
    for field, value in ((PeerField.RX_BYTES, 1), (PeerField.HANDSHAKE_RX_BYTES, 10)):
        world.state.stats.set(1, field, value)
    for field, value in ((PeerField.TX_BYTES, 100), (PeerField.HANDSHAKE_TX_BYTES, 1000)):
        world.state.stats.set(1, field, value)
    world.state.stats.set(1, PeerField.LAST_HANDSHAKE_UNIX, 12345)
    world.state.stats.set(1, PeerField.PSK_CONFIRMED, 5)
    world.state.stats.set(0, PeerField.IDENTITY, identity_number(KEYS[22]))
    world.state.stats.set(1, PeerField.IDENTITY, identity_number(KEYS[21]))
    world.requests.handle(m.DeviceGet(3))
    role, part = world.children.sent[-1]
    assert role is Role.CONTROL
    assert isinstance(part, m.DevicePart)
    assert part.device == m.DeviceView(
        "wgt0", KEYS[20], world.state.udp.port, 0, True, KEYS[21], "gateway", mtu=1420, mtu_from="path"
    )
    assert part.last
    assert part.peers[1] == m.PeerView(
        name="peer1",
        public_key=KEYS[1],
        psk="derived",
        endpoint=m.Endpoint("192.0.2.1", 1),
        persistent_keepalive=25,
        allowed_ips=["10.1.0.0/24", "fd01::/64"],
        last_handshake_unix=12345,
        rx_bytes=11,
        tx_bytes=1100,
        psk_epoch=0,
        psk_confirmed=3,
        identity=KEYS[21],
    )
    # A key that is not the gateway's any more.
    assert part.peers[0].identity == b""


def test_many_prefixes_go_in_many_parts(world: World) -> None:
    prefixes = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(4000)]
    world.set(change(m.PeerChange(KEYS[0], replace_allowed_ips=True, add_allowed_ips=prefixes)))
    world.children.sent.clear()
    world.requests.handle(m.DeviceGet(3))
    parts = [message for _, message in world.children.sent if isinstance(message, m.DevicePart)]
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [part.device is not None for part in parts] == [True] + [False] * (len(parts) - 1)
    shown = [
        prefix for part in parts for view in part.peers if view.public_key == KEYS[0] for prefix in view.allowed_ips
    ]
    assert sorted(shown) == sorted(prefixes)


def test_status(world: World) -> None:
    world.state.token = m.TokenStatus("away", 5, "why")
    world.requests.handle(m.StatusGet(8))
    part = world.children.sent[-1][1]
    assert isinstance(part, m.StatusPart)
    assert (part.request, part.file, part.token) == (8, "/etc/gw.yaml", world.state.token)
    assert part.processes == world.children.views()
    assert part.counters == {}


def test_who_is_not_served_is_told_in_bearable_parts(world: World) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    crowd = [
        peer(0).model_copy(update={"name": f"{number}", "public_key": number.to_bytes(32), "disabled": True})
        for number in range(700)
    ]
    expired = peer(2).model_copy(update={"expires": past})
    both = peer(3).model_copy(update={"expires": past, "disabled": True})
    # Peers 0 and 1 are served, one of them against the file; 4 is not yet.
    served = peer(0).model_copy(update={"disabled": True})
    world.state.gateway = gateway(served, peer(1), expired, both, peer(4), *crowd)
    world.requests.handle(m.StatusGet(8))
    parts = [message for _, message in world.children.sent if isinstance(message, m.StatusPart)]
    assert [part.last for part in parts] == [False, False, True]
    found = [each for part in parts for each in part.inactive]
    moment = int(past.timestamp()) * 10**9
    assert found[:2] == [
        m.InactivePeer("peer2", KEYS[2], "expired", moment),
        m.InactivePeer("peer3", KEYS[3], "disabled", moment),
    ]
    assert [each.name for each in found[2:]] == [f"{number}" for number in range(700)]


def test_rekey(world: World) -> None:
    world.requests.handle(m.RekeyRequest(1, [KEYS[1]]))
    assert (Role.HANDSHAKE, m.Rekey([1])) in world.children.sent
    world.requests.handle(m.RekeyRequest(2, None))
    assert (Role.HANDSHAKE, m.Rekey([0, 1])) in world.children.sent
    world.requests.handle(m.RekeyRequest(3, [KEYS[9]]))
    world.children.handshake = False
    world.requests.handle(m.RekeyRequest(4, None))
    assert [result.errno for result in world.results()] == [0, 0, errno.ENOENT, errno.EAGAIN]


def test_stop_is_answered_first(world: World) -> None:
    world.requests.handle(m.StopRequest(6))
    assert world.results() == [m.RequestResult(6, 0)]
    assert world.stopped


def test_the_settings_of_each_role(world: World) -> None:
    state = dataclasses.replace(world.state, tun=cast("Tun", _Descriptor()), admin=cast("UnixListener", _Descriptor()))
    state.uapi = cast("UnixListener", _Descriptor())
    state.identity = m.Identity(KEYS[20])

    def kinds(role: Role) -> list[str]:
        return [type(message).__name__ for message, _ in state.feed(role)]

    assert kinds(Role.CUSTODIAN) == ["StatsTable", "TokenSettings", "CustodianPeers"]
    assert kinds(Role.HANDSHAKE) == ["StatsTable", "HandshakePeers", "UdpSockets", "LinkState"]
    tunnel = ["StatsTable", "TunnelPeers", "Routes", "RoutesCommit", "TunDevice", "UdpSockets", "LinkState"]
    assert kinds(Role.EGRESS) == kinds(Role.INGRESS) == tunnel
    assert kinds(Role.CONTROL) == ["StatsTable", "ControlSettings", "Identity"]


def test_a_custodian_is_told_of_every_token_and_later_to_wait(world: World) -> None:
    uris = tuple(f"pkcs11:token={name}?module-path=/m.so&pin-source=file:/{name}.pin" for name in "abc")
    with_all = world.state.gateway.model_copy(update={"token": config.Token(uris=uris)})
    state = dataclasses.replace(world.state, gateway=with_all)

    def told() -> m.TokenSettings:
        return next(message for message, _ in state.feed(Role.CUSTODIAN) if isinstance(message, m.TokenSettings))

    assert (told().uri, tuple(told().twins), told().at_start) == (uris[0], uris[1:], "fail")
    # Sessions may live by now: a custodian that finds no token must not end the gateway.
    state.served = True
    assert told().at_start == "wait"


class _Descriptor:
    fds = (0,)
    vnet = uso = True

    def fileno(self) -> int:
        return 0


def test_a_timestamp_is_forgotten_by_the_custodian(world: World) -> None:
    world.requests.handle(m.ForgetTimestamps(5, [KEYS[1]]))
    assert (Role.CUSTODIAN, m.ForgetTimestamps(5, [KEYS[1]])) in world.children.sent
    assert not world.results()
    world.requests.handle(m.RequestResult(5, 0, "forgotten"))
    assert world.results() == [m.RequestResult(5, 0, "forgotten")]
    world.requests.handle(m.RequestResult(5, 0, "again"))
    assert len(world.results()) == 1


def test_a_timestamp_of_a_stranger_is_nobodys(world: World) -> None:
    for keys in ([KEYS[9]], []):
        world.requests.handle(m.ForgetTimestamps(5, keys))
        assert world.results()[-1].errno == errno.ENOENT


def test_a_custodian_that_ends_answers_through_its_parent(world: World) -> None:
    world.requests.handle(m.ForgetTimestamps(5, [KEYS[1]]))
    world.requests.left(Role.CUSTODIAN)
    assert world.results()[-1].errno == errno.EIO


def test_another_control_process_gets_no_answer_that_it_has_not_asked_for(world: World) -> None:
    world.requests.handle(m.ForgetTimestamps(5, [KEYS[1]]))
    world.children.control = 2
    world.requests.handle(m.RequestResult(5, 0, "forgotten"))
    assert not world.results()

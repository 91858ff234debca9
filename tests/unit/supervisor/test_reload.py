"""A reload against a supervisor without processes: all of it or nothing, one after the other, and who is told."""

import errno
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.unit.config.samples import GOOD, KEY_C
from tests.unit.supervisor.support import KEYS, change
from tests.unit.supervisor.test_requests import FakeChildren, World
from wghsm import config
from wghsm.exits import ExitCode
from wghsm.ipc import Role, admin
from wghsm.ipc import messages as m
from wghsm.supervisor._fault import GatewayFault
from wghsm.supervisor._links import LinkStatus
from wghsm.supervisor._reload import Reloads
from wghsm.supervisor.restart import EndGateway, Restart, Verdict

if TYPE_CHECKING:
    from wghsm.supervisor._children import Children
    from wghsm.supervisor._filter import PacketFilter
    from wghsm.supervisor._links import Links

TEXT = GOOD.replace("listen_port: 51820", "listen_port: 0")
BOB = TEXT.index("  - name: bob")


class Renewed(FakeChildren):
    """Starts custodians that serve, or not, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.trials: list[Callable[[Verdict | None], None] | None] = []

    def renew(self, role: Role, tried: Callable[[Verdict | None], None] | None = None) -> None:
        assert role is Role.CUSTODIAN
        self.trials.append(tried)


class Wires:
    """Links that write down what they are asked for; `refused` is a call that the kernel does not like."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.refused = ""

    def __getattr__(self, name: str) -> Callable[..., bool]:
        def call(*arguments: Any) -> bool:
            if name == self.refused:
                raise GatewayFault(ExitCode.SYSTEM, f"no {name}")
            shown = [sorted(map(str, each)) if isinstance(each, set | frozenset) else str(each) for each in arguments]
            if any(shown):
                self.calls.append((name, shown[0] if len(shown) == 1 else shown))
            return True

        return call

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


class Site(World):
    """A gateway whose file can be changed and reloaded."""

    def __init__(self, folder: Path, text: str = TEXT) -> None:
        self.path = folder / "gw.yaml"
        self.path.write_text(text)
        super().__init__(config.load(self.path))
        self.renewed, self.wires = Renewed(), Wires()
        self.children = self.renewed
        self.state.file = str(self.path)
        self.state.links = cast("Links", self.wires)
        self.state.packet_filter = cast("PacketFilter", Wires())
        self.state.served = True
        children = cast("Children", self.renewed)
        self.applying._children = children
        self.requests._children = children
        self.wanted: list[tuple[bytes, config.Endpoint]] = []
        self.reloads = Reloads(
            self.state,
            children,
            self.loop,
            self.applying,
            self.audit,
            lambda key, host: self.wanted.append((key, host)),
        )

    def ask(self, number: int = 1, file: str = "", *, login: bool = False) -> None:
        self.reloads.ask(m.ReloadRequest(number, file, login=login))

    def answers(self) -> list[m.ReloadResult]:
        return [message for _, message in self.renewed.sent if isinstance(message, m.ReloadResult)]

    def wait(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.loop.run_once(5.0)
            self.obey()

    def reload(self, text: str) -> m.ReloadResult:
        """Write the file, ask, and let the processes obey until there is an answer."""
        self.path.write_text(text)
        count = len(self.answers())
        self.ask(count)
        self.wait(lambda: len(self.answers()) > count)
        assert self.answers()[-1].request == count
        return self.answers()[-1]

    def try_custodian(self, verdict: Verdict | None) -> None:
        """The custodian that was started last serves, or has ended."""
        self.wait(lambda: self.renewed.trials)
        tried = self.renewed.trials.pop()
        assert tried is not None
        tried(verdict)

    def settings(self) -> m.TokenSettings:
        """What a custodian that is started now is told."""
        (found,) = [message for message, _ in self.state.feed(Role.CUSTODIAN) if isinstance(message, m.TokenSettings)]
        return found

    def told(self) -> list[m.Message]:
        """What the processes have been told of peers and routes."""
        kinds = (m.CustodianPeers, m.HandshakePeers, m.TunnelPeers, m.Routes, m.UdpSockets)
        return [message for _, message in self.renewed.sent if isinstance(message, kinds)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_an_unchanged_file_tells_nobody_anything(site: Site) -> None:
    assert site.reload(TEXT) == m.ReloadResult(0, 0, "nothing has changed")
    assert site.told() == []
    assert site.wires.names() == ["settle"]


def test_one_changed_peer_is_all_that_is_told(site: Site) -> None:
    result = site.reload(TEXT.replace("persistent_keepalive: 25", "persistent_keepalive: 26"))
    assert (result.errno, result.text) == (0, "1 peer changed")
    (message,) = site.told()
    assert isinstance(message, m.HandshakePeers)
    (told,) = message.upsert
    # Roaming is not undone: the endpoint is not named.
    assert (told.peer, told.endpoint, told.persistent_keepalive) == (0, None, 26)


def test_a_raised_epoch_goes_to_the_custodian_alone(site: Site) -> None:
    assert site.reload(TEXT.replace("preshared_key: derived", "preshared_key: derived:4")).errno == 0
    (message,) = site.told()
    assert isinstance(message, m.CustodianPeers)
    assert [peer.psk for peer in message.upsert] == [m.PskDerived(4)]
    assert site.renewed.trials == []


def test_peers_come_and_go(site: Site) -> None:
    text = TEXT[:BOB] + f"  - {{name: carol, public_key: {KEY_C}, preshared_key: none, allowed_ips: [10.77.0.0/24]}}\n"
    result = site.reload(text)
    assert result.text == "1 peer added, 1 peer removed"
    peers = site.state.model.peers
    assert {peer.name: peer.slot for peer in peers.values()} == {"alice": 0, "carol": 2}
    assert site.wires.calls[0] == ("put_routes", ["(IPv4Network('10.77.0.0/24'), 254)"])


def test_a_bad_file_is_refused_with_its_line(site: Site) -> None:
    result = site.reload(TEXT.replace("mtu: 1420", "mtu: none"))
    line = 1 + TEXT[: TEXT.index("mtu: 1420")].count("\n")
    assert result.errno == errno.EINVAL
    assert [(each.file, each.line) for each in result.problems] == [(str(site.path), line)]
    assert result.text in site.state.reload_refused
    assert site.told() == []
    assert site.wires.calls == []
    assert site.reload(TEXT).errno == 0
    assert site.state.reload_refused == ""


def test_what_needs_a_restart_is_refused_as_a_whole(site: Site) -> None:
    changed = TEXT.replace("name: wg0", "name: wg1").replace("25\n", "26\n")
    result = site.reload(changed)
    assert (result.errno, result.text) == (
        errno.ENOTSUP,
        "what has changed needs a restart of the gateway: interface.name, state_directory",
    )
    assert site.told() == []


def test_another_file_is_not_reloaded(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(TEXT)
    site.ask(7, str(other))
    assert [(each.request, each.errno) for each in site.answers()] == [(7, errno.ENOENT)]
    link = tmp_path / "link.yaml"
    link.symlink_to(site.path)
    site.ask(8, str(link))
    site.wait(lambda: len(site.answers()) == 2)
    assert site.answers()[-1] == m.ReloadResult(8, 0, "nothing has changed")


def test_a_gateway_that_starts_is_not_reloaded(site: Site) -> None:
    site.state.served = False
    site.ask(7)
    assert [each.errno for each in site.answers()] == [errno.EAGAIN]


def test_reloads_and_changes_take_turns(site: Site) -> None:
    site.path.write_text(TEXT.replace("persistent_keepalive: 25", "persistent_keepalive: 26"))
    site.ask(1)
    site.requests.handle(m.DeviceSet(2, change(m.PeerChange(KEYS[9], persistent_keepalive=3))))
    site.ask(3)
    site.obey()
    assert site.results() == []
    site.wait(lambda: len(site.answers()) == 2)
    order = [each.request for _, each in site.renewed.sent if isinstance(each, m.ReloadResult | m.RequestResult)]
    assert order == [1, 2, 3]
    # The second one takes back what was changed in between.
    assert [each.text for each in site.answers()] == ["1 peer changed", "1 peer removed"]
    assert KEYS[9] not in site.state.model.peers


def test_a_control_process_that_was_restarted_is_not_answered(site: Site) -> None:
    site.path.write_text(TEXT.replace("persistent_keepalive: 25", "persistent_keepalive: 26"))
    site.ask(1)
    site.renewed.control = 2
    site.wait(lambda: site.told())
    site.obey()
    assert site.answers() == []
    assert next(iter(site.state.model.peers.values())).persistent_keepalive == 26


def test_a_refused_route_takes_everything_back(site: Site) -> None:
    before, port = site.state.model, site.state.udp.port
    site.wires.refused = "put_routes"
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        fresh = free.getsockname()[1]
    text = TEXT.replace("listen_port: 0", f"listen_port: {fresh}").replace("mtu: 1420", "mtu: 1300")
    result = site.reload(text.replace("[10.8.0.1/24, ", "[10.8.0.1/24, 10.9.0.1/24, "))
    assert (result.errno, result.text) == (errno.EIO, "no put_routes")
    assert site.wires.calls == [
        ("set_mtu", "1300"),
        ("add_address", "10.9.0.1/24"),
        ("remove_address", "10.9.0.1/24"),
        ("set_mtu", "1420"),
    ]
    assert (site.state.model, site.state.udp.port) == (before, port)
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("", fresh))


def test_a_link_that_is_down_has_no_routes(site: Site) -> None:
    site.state.link = LinkStatus(up=False, mtu=1420)
    site.wires.refused = "remove_address"
    text = TEXT.replace("10.8.0.3/32", "10.77.0.0/24").replace("[10.8.0.1/24, ", "[10.9.0.1/24, ")
    assert site.reload(text).text == "1 peer changed, settings changed: interface.addresses"
    # What is left over of the old file does not stop the new one.
    routes = [call for call in site.wires.calls if "route" in call[0] and "IP" in str(call[1])]
    assert routes == []


def test_another_port_is_told_to_three(site: Site) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        fresh = free.getsockname()[1]
    assert (
        site.reload(TEXT.replace("listen_port: 0", f"listen_port: {fresh}")).text
        == "settings changed: interface.listen_port"
    )
    assert site.state.udp.port == fresh
    roles = [role for role, message in site.renewed.sent if isinstance(message, m.UdpSockets)]
    assert sorted(roles) == [Role.EGRESS, Role.HANDSHAKE, Role.INGRESS]
    assert site.reload(TEXT.replace("listen_port: 0", f"listen_port: {fresh}")).text == "nothing has changed"
    # The kernel's choice again.
    assert site.reload(TEXT).errno == 0
    assert site.state.udp.port != fresh


def test_new_token_settings_are_tried_first(site: Site) -> None:
    site.path.write_text(TEXT.replace("key: gateway", "key: other").replace("25\n", "26\n"))
    site.ask(1)
    site.wait(lambda: site.renewed.trials)
    assert site.answers() == site.told() == []
    assert (site.settings().key, site.settings().at_start) == ("other", "fail")
    site.try_custodian(None)
    site.wait(site.answers)
    assert [(each.errno, each.text) for each in site.answers()] == [
        (0, "1 peer changed, settings changed: interface.key")
    ]
    assert site.state.gateway.interface.key == "other"
    assert site.renewed.trials == []


def test_token_settings_that_do_not_work_are_left(site: Site) -> None:
    before = site.state.model
    site.path.write_text(TEXT.replace("key: gateway", "key: other").replace("mtu: 1420", "mtu: 1300"))
    site.ask(1)
    site.try_custodian(EndGateway(ExitCode.TOKEN_UNUSABLE, "there is no key 'other'"))
    # Another custodian, with the settings before, comes first.
    assert (site.settings().key, site.settings().at_start) == ("gateway", "wait")
    assert site.answers() == []
    site.try_custodian(None)
    (answer,) = site.answers()
    assert answer.errno == errno.EIO
    assert "there is no key 'other'; those before stay in force" in answer.text
    assert site.renewed.trials == []
    assert site.wires.names() == ["set_mtu", "set_mtu"]
    assert site.state.model is before
    assert site.told() == []


def test_a_custodian_that_dies_on_its_way_back_is_restarted_as_ever(site: Site) -> None:
    site.path.write_text(TEXT.replace("key: gateway", "key: other"))
    site.ask(1)
    site.try_custodian(EndGateway(ExitCode.TOKEN_UNUSABLE, "there is no key 'other'"))
    site.try_custodian(Restart("custodian ended by SIGSEGV"))
    assert site.renewed.trials == [None]
    assert "those before stay in force" in site.answers()[0].text


@pytest.fixture
def pin(tmp_path: Path) -> Path:
    pin = tmp_path / "pin"
    pin.write_text("1234\n")
    return pin


@pytest.fixture
def pin_site(tmp_path: Path, pin: Path) -> Iterator[Site]:
    """Give a gateway whose PIN is in a file, and that has a custodian."""
    made = Site(tmp_path, TEXT.replace("file:/etc/wghsm/pin", f"file:{pin}"))
    made.settings()
    yield made
    made.close()


def _write_another(pin: Path) -> None:
    """Put another file in the PIN's place: the time alone could be the same within a tick of the clock."""
    other = pin.with_suffix(".new")
    other.write_text("5678\n")
    other.replace(pin)


def test_another_pin_takes_another_custodian(pin_site: Site, pin: Path) -> None:
    site, text = pin_site, pin_site.path.read_text()
    assert site.reload(text).text == "nothing has changed"
    _write_another(pin)
    site.ask(1)
    site.try_custodian(None)
    site.settings()
    site.wait(lambda: len(site.answers()) == 2)
    assert site.answers()[-1] == m.ReloadResult(1, 0, "a new login at the token")
    assert site.reload(text).text == "nothing has changed"
    # One that is gone, as with a stick that was pulled, is no other PIN.
    pin.unlink()
    assert site.reload(text).text == "nothing has changed"


def test_a_pin_that_is_refused_does_not_end_the_gateway(pin_site: Site, pin: Path) -> None:
    site = pin_site
    _write_another(pin)
    refused = EndGateway(ExitCode.PIN_REFUSED, "gw: the PIN is wrong")
    site.ask(1)
    site.try_custodian(refused)
    site.settings()
    site.try_custodian(refused)
    (answer,) = site.answers()
    assert answer.errno == errno.EIO
    assert "gw: the PIN is wrong; there is no custodian now" in answer.text
    assert site.state.token is not None
    assert (site.state.token.state, site.state.token.detail) == ("away", answer.text)
    # The next reload starts one, whatever has changed.
    site.ask(2)
    site.try_custodian(None)
    site.wait(lambda: len(site.answers()) == 2)
    assert site.answers()[-1].errno == 0


def test_a_login_can_be_asked_for(site: Site) -> None:
    site.ask(1, login=True)
    site.try_custodian(None)
    site.wait(site.answers)
    assert [each.text for each in site.answers()] == ["a new login at the token"]


def test_another_wrapping_key_must_open_what_is_wrapped(tmp_path: Path) -> None:
    before = TEXT.replace("token:\n", "token:\n  psk_wrap_key: wrap\n", 1)
    text = before.replace("preshared_key: derived", "preshared_key: wrapped:alice.psk", 1)
    (tmp_path / "alice.psk").write_text(config.format_wrapped([(3, b"3" * 60), (2, b"2" * 60), (1, b"1" * 60)], "a"))
    site = Site(tmp_path, before)
    key = site.state.gateway.peers[0].public_key
    site.path.write_text(text.replace("psk_wrap_key: wrap", "psk_wrap_key: other"))
    site.ask(1)
    site.wait(lambda: site.renewed.trials)
    where = f"{tmp_path}/alice.psk"
    assert site.settings().sealed == [
        m.SealedPsk(key, 3, b"3" * 60, f"{where}:2"),
        m.SealedPsk(key, 2, b"2" * 60, f"{where}:3"),
    ]
    site.try_custodian(EndGateway(ExitCode.TOKEN_UNUSABLE, "it does not open"))
    assert site.settings().sealed == []
    site.try_custodian(None)
    # Other settings are none of its concern.
    site.path.write_text(text.replace("key: gateway", "key: other"))
    site.ask(2)
    site.wait(lambda: site.renewed.trials)
    assert site.settings().sealed == []
    site.close()


def test_a_typed_pin_cannot_be_typed_again(tmp_path: Path) -> None:
    text = TEXT.replace("file:/etc/wghsm/pin", "prompt")
    site = Site(tmp_path, text)
    result = site.reload(text.replace("key: gateway", "key: other"))
    assert result.errno == errno.ENOTSUP
    assert "typed at a terminal" in result.text
    assert site.reload(text.replace("25\n", "26\n")).errno == 0
    site.close()


def test_names_of_endpoints_are_resolved_after_it(site: Site) -> None:
    site.state.endpoints[0] = m.Endpoint("198.51.100.7", 7)
    assert site.reload(TEXT.replace("192.0.2.7:51820", "gw.example:51820")).errno == 0
    key = site.state.gateway.peers[0].public_key
    assert site.wanted == [(key, config.Endpoint("gw.example", 51820))]
    assert site.state.endpoints[0] == m.Endpoint("198.51.100.7", 7)
    site.requests.set_endpoints({key: m.Endpoint("192.0.2.99", 51820)})
    site.obey()
    assert site.state.endpoints[0] == m.Endpoint("192.0.2.99", 51820)
    assert site.reload(TEXT).errno == 0
    assert site.state.endpoints[0] == m.Endpoint("192.0.2.7", 51820)


def test_systemd_hears_of_it(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        for text in (TEXT, "nonsense"):
            site.path.write_text(text)
            site.reloads.signal()
            site.wait(lambda: not site.applying._held)
            begin, end = systemd.recv(500).decode(), systemd.recv(500).decode()
            assert begin.startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert end.startswith("READY=1\nSTATUS=serving on port")
            assert ("refused" in end) is (text == "nonsense")


def test_the_config_that_is_shown(site: Site) -> None:
    site.set(change(m.PeerChange(KEYS[9], persistent_keepalive=3)))
    site.requests.handle(m.ConfigGet(5))
    parts = [message for _, message in site.renewed.sent if isinstance(message, m.ConfigPart)]
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    shown = json.loads(b"".join(part.data for part in parts))
    assert shown.keys() == set(admin.Config.__struct_fields__)
    assert config.from_document(shown["loaded"]) == site.state.gateway
    made = config.plan(config.from_document(shown["loaded"]), config.from_document(shown["running"]))
    assert [(each.field, each.peer) for each in made.changes] == [("", KEYS[9])]
    assert shown["file"] == str(site.path)

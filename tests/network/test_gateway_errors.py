"""What a gateway says to bad settings: one clear line and a code."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.network.support import KeyPair, Lab, Namespace, Pinger, ping, ping_until, until
from tests.network.support.gateway import CHILDREN, Gateway, Peer
from tests.network.support.gateway_token import GatewayToken, wghsm
from tests.network.support.site import Site
from tests.network.support.software_peer import udp_socket
from tests.network.support.view import among
from wghsm.exits import ExitCode

END_WITHIN = 5.0
"""Seconds from a signal to the end."""


def reason(code: int, said: str) -> str:
    """The one line of a gateway that would not start: it stands alone beside the log, and no traceback does."""
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("wghsm: ")]
    assert len(lines) == 1, (code, said)
    return lines[0]


def nothing_left(gateway: Gateway) -> bool:
    return not gateway.leftovers() and not Path("/run/wghsm", gateway.name).exists()


@pytest.fixture(scope="module")
def own_token() -> Iterator[GatewayToken]:
    """A token for tests that spoil it: wrong PINs, keys with one label."""
    with GatewayToken("spoilt") as made:
        made.generate("gateway")
        made.generate("twice")
        made.import_key("twice", os.urandom(32))
        made.make_other_curve("other-curve")
        yield made


def gateway_at(lab: Lab, token: GatewayToken, **settings: object) -> Gateway:
    return lab.add(Gateway(lab.namespace("alone"), lab.scratch, token, **settings))  # type: ignore[arg-type]


def trace(token: GatewayToken) -> dict[str, tuple[int, bytes]]:
    """What a login leaves in the store: a token notes each wrong PIN."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in token.store.rglob("*") if path.is_file()
    }


def test_a_wrong_pin_is_sent_once(lab: Lab, own_token: GatewayToken) -> None:
    pin_file = lab.scratch / "pin"
    pin_file.touch(mode=0o600)
    pin_file.write_text("not-the-pin\n")
    gateway = gateway_at(lab, own_token, token_section={"uri": own_token.uri_with(pin_file=pin_file)})
    before = trace(own_token)
    code, said = gateway.fails()
    assert code == ExitCode.PIN_REFUSED
    assert "PIN" in reason(code, said)
    assert own_token.label in reason(code, said)
    noted = trace(own_token)
    assert noted != before
    for _ in range(2):
        code, said = gateway.fails()
        assert code == ExitCode.PIN_REFUSED
        assert "was not sent again" in reason(code, said)
    assert trace(own_token) == noted
    assert "not-the-pin" not in gateway.log()
    pin_file.write_text("another-wrong-pin\n")
    code, said = gateway.fails()
    assert code == ExitCode.PIN_REFUSED
    assert "it was sent once" in reason(code, said)
    pin_file.write_bytes(own_token.pin + b"\n")
    gateway.start()
    gateway.stop()
    assert nothing_left(gateway)


def test_up_tells_the_same_reason(lab: Lab, own_token: GatewayToken) -> None:
    gateway = gateway_at(lab, own_token, key="absent")
    done = gateway.command("up", gateway.file, check=False)
    assert done.returncode == ExitCode.TOKEN_UNUSABLE
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "'absent'" in done.stderr
    assert not gateway.leftovers()


@dataclass(frozen=True)
class Unusable:
    """A setting that no restart helps: how the file differs, and what the line must name."""

    change: Callable[[GatewayToken], dict[str, object]]
    names: tuple[str, ...]


UNUSABLE = {
    "no token": Unusable(
        lambda token: {"token_section": {"uri": token.uri_with(label="absent")}}, ("absent", "spoilt")
    ),
    "no key": Unusable(lambda _: {"key": "absent"}, ("'absent'", "gateway", "wghsm key generate absent")),
    "two keys": Unusable(lambda _: {"key": "twice"}, ("'twice'", "2")),
    "another curve": Unusable(lambda _: {"key": "other-curve"}, ("'other-curve'", "X25519")),
    "no module": Unusable(
        lambda token: {"token_section": {"uri": token.uri_with(module="/usr/lib/absent.so")}}, ("/usr/lib/absent.so",)
    ),
    "no module at all": Unusable(
        lambda token: {"token_section": {"uri": token.uri_with(module="/etc/hostname")}}, ("/etc/hostname",)
    ),
    "no PSK root": Unusable(lambda _: {"psk_root": "absent-root"}, ("absent-root", "derive-root")),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_token_ends_it_with_one_line(lab: Lab, own_token: GatewayToken, case: str) -> None:
    gateway = gateway_at(lab, own_token, **UNUSABLE[case].change(own_token))
    code, said = gateway.fails()
    assert code == ExitCode.TOKEN_UNUSABLE
    line = reason(code, said)
    for name in UNUSABLE[case].names:
        assert name in line
    assert nothing_left(gateway)


def test_a_pin_file_that_others_can_read(lab: Lab, own_token: GatewayToken) -> None:
    open_to_all = lab.scratch / "pin"
    open_to_all.write_bytes(own_token.pin)
    open_to_all.chmod(0o644)
    gateway = gateway_at(lab, own_token, token_section={"uri": own_token.uri_with(pin_file=open_to_all)})
    code, said = gateway.fails()
    assert code == ExitCode.BAD_CONFIG
    assert f"chmod 600 {open_to_all}" in reason(code, said)


def test_no_pin_file(lab: Lab, own_token: GatewayToken) -> None:
    missing = lab.scratch / "no-pin-here"
    gateway = gateway_at(lab, own_token, token_section={"uri": own_token.uri_with(pin_file=missing)})
    code, said = gateway.fails()
    assert code == ExitCode.BAD_CONFIG
    assert str(missing) in reason(code, said)
    assert nothing_left(gateway)


def test_a_bad_file_is_told_whole_before_anything_starts(lab: Lab, token: GatewayToken) -> None:
    public = KeyPair.make().public
    peers = [
        Peer("first", public, ["10.8.0.2/32"]),
        Peer("second", public, ["10.8.0.2/32"]),
        Peer("third", "no-key", ["10.8.0.3/33"]),
    ]
    gateway = gateway_at(lab, token, peers=peers, interface={"mtv": 1420})
    for verb in ("run", "up", "check"):
        done = gateway.command(verb, gateway.file, check=False)
        assert done.returncode == ExitCode.BAD_CONFIG
        lines = done.stderr.splitlines()
        assert len(lines) >= 5
        assert all(line.startswith(f"{gateway.file}:") for line in lines)
        for words in (
            "unknown key mtv",
            "two peers with one public key",
            "10.8.0.2/32 is under two peers",
            "10.8.0.3/33",
        ):
            assert any(words in line for line in lines), words
    assert nothing_left(gateway)
    absent = gateway.command("run", lab.scratch / "absent.yaml", check=False)
    assert absent.returncode == ExitCode.BAD_CONFIG
    assert len(absent.stderr.splitlines()) == 1


def test_a_second_gateway_of_one_name_is_refused(lab: Lab, token: GatewayToken) -> None:
    first = gateway_at(lab, token).start()
    second = gateway_at(lab, token, name=first.name, listen_port=0)
    for namespace in (first.namespace, second.namespace):
        for verb in ("run", "up"):
            done = namespace.run(
                *["wghsm", verb, str(second.file)], check=False, env={**token.environment, "PATH": path_with_wghsm()}
            )
            assert done.returncode == ExitCode.ALREADY_RUNNING
            assert first.name in done.stderr
            assert str(first.pid) in done.stderr
    assert first.serves()
    first.stop()


def path_with_wghsm() -> str:
    from tests.network.support.gateway_token import wghsm

    return f"{Path(wghsm()[0]).parent}:{os.environ['PATH']}"


def test_a_name_or_port_that_is_taken(lab: Lab, token: GatewayToken) -> None:
    gateway = gateway_at(lab, token)
    gateway.namespace.run("ip", "tuntap", "add", gateway.name, "mode", "tun")
    code, said = gateway.fails()
    assert code == ExitCode.SYSTEM
    assert gateway.name in reason(code, said)
    assert gateway.name in gateway.namespace.interfaces()
    gateway.namespace.run("ip", "link", "delete", gateway.name)
    for family, address in ((4, "127.0.0.1"), (6, "::1")):
        with udp_socket(gateway.namespace, family, address, gateway.listen_port):
            code, said = gateway.fails()
        assert code == ExitCode.SYSTEM
        assert str(gateway.listen_port) in reason(code, said)
        assert nothing_left(gateway)
    gateway.start()
    gateway.stop()


def test_a_route_that_is_taken(lab: Lab, token: GatewayToken) -> None:
    gateway = gateway_at(lab, token, peers=[Peer("far", KeyPair.make().public, ["10.99.0.0/24"])])
    gateway.namespace.run("ip", "route", "add", "10.99.0.0/24", "dev", "lo")
    code, said = gateway.fails()
    assert code == ExitCode.SYSTEM
    assert "10.99.0.0/24" in reason(code, said)
    assert nothing_left(gateway)
    assert "10.99.0.0/24 dev lo" in gateway.namespace.run("ip", "route").stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_five_seconds_and_nothing_is_left(
    lab: Lab, token: GatewayToken, number: signal.Signals
) -> None:
    site = Site(lab, token)
    client = site.client("client", "derived")
    far = Peer("far", KeyPair.make().public, ["10.99.0.0/24", "fd99::/64"])
    site.gateway.peers = [*site.gateway.peers, far]
    site.gateway.write()
    site.start()
    client.start()
    ping_until(client.namespace, site.inner4)
    lab.add(Pinger(client.namespace, site.inner4, lab.scratch)).answer_after(0)
    pids = list(site.gateway.pids().values())
    assert len(pids) == len(CHILDREN)
    assert len(site.gateway.leftovers(pids)) > len(CHILDREN) + 4
    assert site.gateway.stop(number) < END_WITHIN
    assert site.gateway.leftovers(pids) == []
    assert not Path("/run/wghsm", site.gateway.name).exists()


def test_ctrl_c_while_children_begin_ends_it_without_a_trace(lab: Lab, token: GatewayToken) -> None:
    gateway = gateway_at(lab, token)
    supervisor = gateway.begin().pid
    list_of_children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    children = until(list_of_children.read_text, "a child begins", pause=0).split()
    # A terminal sends it to the whole group.
    for pid in (*map(int, children), supervisor):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    assert gateway.wait() in (ExitCode.OK, ExitCode.INTERRUPTED)
    assert "Traceback" not in gateway.log()
    assert nothing_left(gateway)


def test_the_interface_deleted_from_outside_ends_it(lab: Lab, token: GatewayToken) -> None:
    gateway = gateway_at(lab, token).start()
    pids = list(gateway.pids().values())
    gateway.namespace.run("ip", "link", "delete", gateway.name)
    assert gateway.wait() == ExitCode.SYSTEM
    assert "deleted" in reason(1, gateway.log())
    assert gateway.leftovers(pids) == []


def test_a_gateway_without_addresses_and_peers(lab: Lab, token: GatewayToken) -> None:
    gateway = gateway_at(lab, token, addresses=[]).start()
    assert gateway.show() == {}
    assert f"interface: {gateway.name}" in gateway.namespace.run("wg", "show", gateway.name).stdout
    assert json.loads(gateway.command("status", gateway.name, "--json").stdout)[0]["peers"] == []
    assert gateway.stop() < END_WITHIN


def peering(lab: Lab, token: GatewayToken, near: Namespace, far: Namespace, ends: tuple[str, str]) -> list[Gateway]:
    """Two gateways with keys of their own in one token, that know each other's endpoints."""
    labels = [f"side-{os.urandom(4).hex()}" for _ in range(2)]
    publics = [token.generate(label) for label in labels]
    made = []
    for place, namespace in enumerate((near, far)):
        other = 1 - place
        peer = Peer(
            "other", publics[other], [f"10.{8 + other}.0.0/24"], endpoint=f"{ends[other]}:{51820 + other}", keepalive=1
        )
        made.append(
            lab.add(
                Gateway(
                    *(namespace, lab.scratch, token, [peer]),
                    addresses=[f"10.{8 + place}.0.1/24"],
                    listen_port=51820 + place,
                    key=labels[place],
                    interface={"table": "off"},
                )
            )
        )
    return made


def test_two_gateways_in_two_namespaces_share_a_token_and_talk(lab: Lab, token: GatewayToken) -> None:
    near, far = lab.namespace("near"), lab.namespace("far")
    link = lab.connect(near, far)
    left, right = peering(lab, token, near, far, (link.left.ipv4, link.right.ipv4))
    for gateway, address in ((left, "10.9.0.0/24"), (right, "10.8.0.0/24")):
        gateway.start()
        gateway.namespace.run("ip", "route", "add", address, "dev", gateway.name)
    for namespace, address in ((near, "10.9.0.1"), (far, "10.8.0.1")):
        ping_until(namespace, address)
        assert ping(namespace, address, size=1300).lost == 0
    shown = near.run(*among(left, right), *wghsm("status", "--json")).stdout
    assert {each["name"] for each in json.loads(shown)} == {left.name, right.name}
    left.stop()
    assert right.serves()
    assert left.leftovers() == []
    right.stop()


def test_two_gateways_in_one_namespace(lab: Lab, token: GatewayToken) -> None:
    space = lab.namespace("both")
    left, right = peering(lab, token, space, space, ("127.0.0.1", "127.0.0.1"))
    left.start()
    right.start()
    until(
        lambda: all(peer.latest_handshake for gateway in (left, right) for peer in gateway.show().values()), "sessions"
    )
    left.stop()
    assert right.serves()
    assert set(space.interfaces()) & {left.name, right.name} == {right.name}
    right.stop()
    assert left.leftovers() == right.leftovers() == []

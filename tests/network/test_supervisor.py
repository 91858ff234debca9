"""The supervisor with children without bodies: spawn, drop, restart, end; sockets, link and routes; refusals."""

import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.network.support import KeyPair, Lab, Namespace, Process, unique_interface, until
from wghsm.exits import ExitCode
from wghsm.process.privileges import Capability
from wghsm.supervisor import runtime_directory, uapi_socket_path
from wghsm.supervisor._run import KEPT

ROLES = ("custodian", "handshake", "egress", "ingress", "control")
UIDS = {"custodian": 61100, "handshake": 61101, "egress": 61102, "ingress": 61103, "control": 61104}
PROGRAM = Path(__file__).parent / "support" / "plain_gateway.py"

Event = list[Any]


class Plain:
    """A gateway whose children have no bodies, with its namespace and its children's notes."""

    def __init__(self, lab: Lab, namespace: Namespace | None = None, name: str | None = None) -> None:
        self.lab = lab
        self.namespace = namespace or lab.namespace("sup")
        self.name = name or unique_interface("wgs")
        self.folder = lab.scratch / f"{self.name}-{len(list(lab.scratch.iterdir()))}"
        self.folder.mkdir()
        self.interface: dict[str, object] = {"addresses": ["10.8.0.1/24", "fd08::1/64"]}
        self.peers: list[dict[str, object]] = []
        self.hooks: dict[str, list[list[str]]] = {}
        self.uri = "pkcs11:token=t?module-path=/nowhere.so&pin-source=file:/nowhere"
        self.process: Process | None = None
        self.starts = 0

    def peer(self, name: str, *prefixes: str, endpoint: str | None = None) -> str:
        key = KeyPair.make().public
        entry: dict[str, object] = {
            "name": name,
            "public_key": key,
            "preshared_key": "none",
            "allowed_ips": list(prefixes),
        }
        self.peers.append(entry | ({"endpoint": endpoint} if endpoint else {}))
        return key

    def order(self, role: str, **orders: object) -> None:
        (self.folder / f"{role}.orders").write_text(json.dumps(orders))

    def write(self) -> Path:
        file = self.folder / "gateway.yaml"
        said = {
            "version": 1,
            "token": {"uri": self.uri},
            "interface": {"name": self.name, "key": "gateway", **self.interface},
            "peers": self.peers,
            "hooks": self.hooks,
            "state_directory": str(self.folder / "state"),
        }
        file.write_text(json.dumps(said))
        return file

    def begin(self, *arguments: str) -> Process:
        file = self.write()
        self.starts += 1
        self.process = self.lab.add(
            self.namespace.start(
                sys.executable,
                PROGRAM,
                file,
                self.folder,
                *arguments,
                folder=self.folder,
                label=f"run{self.starts}",
                env={"SOFTHSM2_CONF": "/conf", "PYTHONPATH": "/evil"},
            )
        )
        return self.process

    def start(self) -> "Plain":
        process = self.begin()
        assert json.loads(process.next_line(60)) == [0, ""], process.stderr()
        return self

    def fails(self) -> tuple[int, str]:
        """Start it, and give how its start ended: code and the one line."""
        process = self.begin()
        code, text = json.loads(process.next_line(60))
        assert process.wait(60) == code
        assert process.stderr().rstrip().endswith(f"wghsm: {text}")
        return code, text

    @property
    def running(self) -> Process:
        assert self.process is not None
        return self.process

    def events(self, role: str, event: str | None = None) -> list[Event]:
        path = self.folder / f"{role}.events"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [each for each in found if event is None or each[1] == event]

    def pid(self, role: str) -> int:
        return int(self.events(role, "start")[-1][0])

    def pids(self) -> list[int]:
        return [self.pid(role) for role in ROLES]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        began = time.monotonic()
        self.running.signal(number)
        assert self.running.wait(20) == 0, self.running.stderr()
        return time.monotonic() - began

    def log_has(self, text: str) -> None:
        until(lambda: text in self.running.stderr(), f"{text!r} in the log", 60)

    def leftovers(self, pids: Sequence[int]) -> list[str]:
        left = [f"process {pid}" for pid in pids if alive(pid)]
        left += [f"interface {self.name}"] if self.name in self.namespace.interfaces() else []
        left += [str(path) for path in (uapi_socket_path(self.name), runtime_directory(self.name)) if path.exists()]
        return left

    def routes(self, *arguments: str) -> set[str]:
        lines = self.namespace.run("ip", *arguments, check=False).stdout.splitlines()
        return {line.split()[0] for line in lines if f"dev {self.name} " in f"{line} "}

    def close(self) -> None:
        """Remove what a killed gateway leaves."""
        uapi_socket_path(self.name).unlink(missing_ok=True)
        folder = runtime_directory(self.name)
        if folder.exists():
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()


def alive(pid: int) -> bool:
    try:
        state = Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def status_of(pid: int) -> dict[str, str]:
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


@pytest.fixture
def plain(lab: Lab) -> Iterator[Plain]:
    made = Plain(lab)
    yield made
    if made.process is not None:
        made.process.stop()
    made.close()


def test_every_child_is_its_own_user_and_nothing_more(plain: Plain) -> None:
    plain.start()
    for role in ROLES:
        pid = plain.pid(role)
        status = status_of(pid)
        kept = 1 << Capability.IPC_LOCK if role in ("custodian", "egress", "ingress") else 0
        assert status["Uid"].split() == status["Gid"].split() == [str(UIDS[role])] * 4
        assert status["Groups"] == ""
        assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == int(status["CapBnd"], 16) == kept
        assert status["NoNewPrivs"] == "1"
        # The files of a process that may not be dumped belong to root.
        assert Path("/proc", str(pid), "environ").stat().st_uid == 0
        environment = Path("/proc", str(pid), "environ").read_bytes().decode().split("\0")
        names = {each.partition("=")[0] for each in environment if each}
        assert names == {"PATH", "LANG"} | ({"SOFTHSM2_CONF"} if role == "custodian" else set())


def _descriptors(plain: Plain, role: str) -> list[str]:
    """What a child holds beside standard input, output and errors."""
    folder = Path("/proc", str(plain.pid(role)), "fd")
    return [str(each.readlink()) for each in folder.iterdir() if int(each.name) > 2]


def _sockets(plain: Plain, role: str) -> int:
    return sum(each.startswith("socket:") for each in _descriptors(plain, role))


@pytest.mark.parametrize(("role", "expected"), [("control", 1 + 2), ("handshake", 4)])
def test_a_child_inherits_its_channel_only(plain: Plain, role: str, expected: int) -> None:
    plain.start()
    # Its channel and its pairs; the control process has taken two listening sockets as well.
    until(lambda: _sockets(plain, role) >= expected, "its pairs have come")
    assert _sockets(plain, role) == expected, _descriptors(plain, role)
    others = [each for each in _descriptors(plain, role) if not each.startswith(("socket:", "anon_inode:"))]
    assert not [each for each in others if not each.startswith(str(plain.folder)) and "memfd:wghsm-stats" not in each]


def test_the_supervisor_keeps_little_of_root(plain: Plain) -> None:
    plain.start()
    status = status_of(plain.running.pid)
    allowed = sum(1 << capability for capability in KEPT)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == allowed
    assert resource.prlimit(plain.running.pid, resource.RLIMIT_CORE) == (0, 0)


def test_control_is_started_before_the_custodian(plain: Plain) -> None:
    plain.start()
    assert plain.pid("control") < plain.pid("custodian") or plain.events("control", "start")[0][2] == 1


def test_the_sockets_are_there_and_root_s(plain: Plain) -> None:
    plain.start()
    for path in (uapi_socket_path(plain.name), runtime_directory(plain.name) / "admin.sock"):
        assert path.stat().st_mode & 0o077 == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert plain.events("control", "control")[0][2] == 2


def test_each_pair_exists_once(plain: Plain) -> None:
    plain.start()
    starts = {role: plain.events(role, "start")[0][2] for role in ROLES}
    expected = {
        "custodian": ["handshake-custodian", "custodian-egress", "custodian-ingress"],
        "handshake": ["handshake-custodian", "handshake-egress", "handshake-ingress"],
        "egress": ["handshake-egress", "ingress-egress", "custodian-egress"],
        "ingress": ["handshake-ingress", "ingress-egress", "custodian-ingress"],
        "control": [],
    }
    for role, kinds in expected.items():
        until(lambda: len(plain.events(role, "attach")) == len(kinds), f"the pairs of {role}")  # noqa: B023
        attached = {event[2]: event[3] for event in plain.events(role, "attach")}
        assert attached == {kind: starts[next(each for each in kind.split("-") if each != role)] for kind in kinds}


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_child_comes_back_with_fresh_pairs(plain: Plain, role: str) -> None:
    plain.peer("alice", "10.8.0.2/32", "10.20.0.0/16")
    plain.start()
    # The gateway serves before every process has noted its pairs.
    for each in ("custodian", "handshake", "egress", "ingress"):
        until(lambda: len(plain.events(each, "attach")) == 3, f"the pairs of {each}")  # noqa: B023
    others = {each: plain.pid(each) for each in ROLES if each != role}
    before = plain.pid(role)
    os.kill(before, signal.SIGKILL)
    until(lambda: plain.pid(role) != before, f"{role} is back", 60)
    plain.log_has(f"{role} ended by SIGKILL; restart 1 in 0.1 s")
    until(lambda: plain.running.stderr().count(f"{role} serves") == 2, f"{role} serves again", 60)
    fresh = plain.events(role, "start")[-1][2]
    for other, pid in others.items():
        assert plain.pid(other) == pid
        kinds = {event[2] for event in plain.events(other, "attach") if role in event[2].split("-")}
        for kind in kinds:
            # The survivor has seen the end of the old pair: nobody kept a copy.
            until(
                lambda: [e[1:] for e in plain.events(other) if e[2] == kind][-1] == ["attach", kind, fresh],  # noqa: B023
                f"{other} has a fresh {kind}",
                60,
            )
            history = [event[1] for event in plain.events(other) if event[2] == kind]
            assert history == ["attach", "detach", "attach"]

    def told(pid: int) -> list[str]:
        return [event[2] for event in plain.events(role, "message") if event[0] == pid]

    # It says that it serves before it reads the rest of its settings.
    until(lambda: told(plain.pid(role)) == told(before), f"{role} has the same settings", 60)


def test_the_waiting_time_doubles(plain: Plain) -> None:
    plain.start()
    for number, delay in ((1, "0.1"), (2, "0.2"), (3, "0.4")):
        os.kill(plain.pid("handshake"), signal.SIGKILL)
        plain.log_has(f"handshake ended by SIGKILL; restart {number} in {delay} s")
        until(lambda: plain.running.stderr().count("handshake serves") == number + 1, "it serves", 60)  # noqa: B023


def test_a_child_that_breaks_the_table_is_killed(plain: Plain) -> None:
    plain.start()
    plain.order("ingress", chatter=True)
    os.kill(plain.pid("ingress"), signal.SIGKILL)
    plain.log_has("ingress sent a message that supervisor-ingress does not allow")
    plain.order("ingress")
    until(lambda: plain.running.stderr().count("ingress serves") >= 2, "it serves again", 60)


@pytest.mark.parametrize("code", [ExitCode.PIN_REFUSED, ExitCode.TOKEN_UNUSABLE])
def test_a_final_code_ends_the_gateway(plain: Plain, code: ExitCode) -> None:
    plain.start()
    pids = plain.pids()
    plain.order("custodian", fault=[code, "the one reason"])
    os.kill(plain.pid("custodian"), signal.SIGKILL)
    assert plain.running.wait(60) == code
    assert plain.running.stderr().endswith("wghsm: the one reason\n")
    assert plain.leftovers(pids) == []


@pytest.mark.parametrize("role", ROLES)
def test_a_fault_before_it_served_ends_the_start(plain: Plain, role: str) -> None:
    plain.order(role, fault=[ExitCode.SYSTEM, f"{role} cannot"])
    assert plain.fails() == (ExitCode.SYSTEM, f"{role} cannot")
    assert plain.leftovers(plain.pids()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_within_five_seconds(plain: Plain, number: signal.Signals) -> None:
    plain.interface["table"] = 4711
    plain.peer("alice", "10.20.0.0/16")
    plain.order("egress", stubborn=True)
    plain.start()
    assert plain.stop(number) < 5
    assert plain.leftovers(plain.pids()) == []
    assert plain.routes("route", "show", "table", "4711") == set()


def test_a_hang_up_reads_the_file_again(plain: Plain) -> None:
    plain.peer("alice", "10.20.0.0/16")
    plain.start()
    pids = plain.pids()
    plain.peers[0]["persistent_keepalive"] = 7
    plain.write()
    plain.running.signal(signal.SIGHUP)
    plain.log_has("reloaded: 1 peer changed")
    told = [event[3] for event in plain.events("handshake", "message") if event[2] == "HandshakePeers"]
    assert [each[2][0][3] for each in told] == [0, 7]
    assert plain.pids() == pids


def test_token_settings_that_a_custodian_refuses_do_not_end_the_gateway(plain: Plain) -> None:
    plain.order("custodian", lacks="other")
    plain.start()
    pids = plain.pids()
    plain.interface["key"] = "other"
    plain.write()
    plain.running.signal(signal.SIGHUP)
    plain.log_has("not reloaded: the new token settings do not work: the one reason; those before stay in force")
    until(lambda: plain.running.stderr().count("custodian serves") == 2, "a custodian serves again", 60)
    assert len(plain.events("custodian", "start")) == 3
    # Another one with the same orders does what it is told: the trial was the last one's.
    os.kill(plain.pid("custodian"), signal.SIGKILL)
    until(lambda: plain.running.stderr().count("custodian serves") == 3, "it is restarted as ever", 60)
    assert plain.pids()[1:] == pids[1:]


def test_a_custodian_that_does_not_end_is_replaced_too(plain: Plain) -> None:
    plain.order("custodian", stubborn=True)
    plain.start()
    plain.order("custodian")
    plain.interface["key"] = "other"
    plain.write()
    plain.running.signal(signal.SIGHUP)
    plain.log_has("reloaded: settings changed: interface.key")
    assert len(plain.events("custodian", "start")) == 2


def test_it_can_be_ended_before_it_serves(plain: Plain) -> None:
    plain.order("custodian", mute=True)
    process = plain.begin()
    plain.log_has("handshake serves")
    plain.running.signal(signal.SIGINT)
    assert process.wait(20) == ExitCode.INTERRUPTED
    assert json.loads(process.next_line()) == [ExitCode.INTERRUPTED, "interrupted"]
    assert plain.leftovers(plain.pids()) == []


def test_a_second_gateway_of_the_name_is_refused(lab: Lab, plain: Plain) -> None:
    plain.start()
    second = Plain(lab, name=plain.name)
    code, text = second.fails()
    assert code == ExitCode.ALREADY_RUNNING
    assert f"{plain.name} is running (pid {plain.running.pid})" in text
    assert uapi_socket_path(plain.name).exists()
    assert plain.stop() < 5


def test_all_ends_with_the_supervisor_and_the_next_one_starts(plain: Plain) -> None:
    plain.start()
    pids = plain.pids()
    plain.running.signal(signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in pids), "the children end", 20)
    until(lambda: plain.name not in plain.namespace.interfaces(), "the interface goes", 20)
    assert uapi_socket_path(plain.name).exists()
    plain.start()
    plain.stop()
    assert plain.leftovers(plain.pids()) == []


def test_addresses_mtu_and_routes(plain: Plain) -> None:
    plain.interface["mtu"] = 1380
    plain.peer("alice", "10.8.0.2/32", "10.20.0.0/16", "fd08::2/128", "fd20::/64")
    plain.peer("bob", "10.8.0.0/16")
    plain.start()
    (link,) = json.loads(plain.namespace.run("ip", "-json", "address", "show", plain.name).stdout)
    assert link["mtu"] == 1380
    assert {"UP", "NOARP"} <= set(link["flags"])
    found = {f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"]}
    # No link-local address: nobody inside solicits routers.
    assert found == {"10.8.0.1/24", "fd08::1/64"}
    # What the interface's own prefixes cover needs no route of its own.
    assert plain.routes("-4", "route") == {"10.8.0.0/24", "10.8.0.0/16", "10.20.0.0/16"}
    assert plain.routes("-6", "route") == {"fd08::/64", "fd20::/64"}


@pytest.mark.parametrize(("table", "there"), [("off", set()), (815, {"10.8.0.2", "10.20.0.0/16", "default"})])
def test_routes_in_another_table_or_none(plain: Plain, table: object, there: set[str]) -> None:
    plain.interface["table"] = table
    plain.peer("alice", "10.8.0.2/32", "10.20.0.0/16", "0.0.0.0/0")
    plain.start()
    assert plain.routes("-4", "route") == {"10.8.0.0/24"}
    assert plain.routes("-4", "route", "show", "table", "815") == there


def test_hooks_find_the_interface(plain: Plain) -> None:
    seen = plain.folder / "seen"
    look = 'echo "$0: $(ip -brief address show $WGHSM_INTERFACE | grep -c 10.8.0.1)"'
    plain.hooks = {when: [["/bin/sh", "-c", f"{look} >> {seen}; echo $0 is noted", when]] for when in ("up", "down")}
    plain.start()
    assert seen.read_text() == "up: 1\n"
    assert "the up hook /bin/sh: up is noted" in plain.running.stderr()
    plain.stop()
    assert seen.read_text() == "up: 1\ndown: 1\n"
    assert plain.leftovers(plain.pids()) == []


def test_an_up_hook_that_fails_ends_the_start(plain: Plain) -> None:
    undone = plain.folder / "undone"
    plain.hooks = {"up": [["/bin/sh", "-c", "echo no way; exit 7"]], "down": [["/usr/bin/touch", str(undone)]]}
    assert plain.fails() == (ExitCode.SYSTEM, "the up hook /bin/sh has failed with exit code 7: no way")
    assert undone.exists()
    assert plain.leftovers([]) == []


def test_a_route_in_the_way_is_named(plain: Plain) -> None:
    plain.namespace.run("ip", "route", "add", "10.20.0.0/16", "dev", "lo")
    plain.peer("alice", "10.20.0.0/16")
    code, text = plain.fails()
    assert code == ExitCode.SYSTEM
    assert "10.20.0.0/16 in table 254 exists already" in text
    assert plain.leftovers([]) == []


def test_an_interface_in_the_way_is_left_alone(plain: Plain) -> None:
    plain.namespace.run("ip", "link", "add", plain.name, "type", "veth", "peer", "name", "other0")
    code, text = plain.fails()
    assert code == ExitCode.SYSTEM
    assert f"an interface named {plain.name} exists already" in text
    assert plain.name in plain.namespace.interfaces()
    assert not uapi_socket_path(plain.name).exists()


def test_a_persistent_tun_device_is_not_taken_over(plain: Plain) -> None:
    plain.namespace.run("ip", "tuntap", "add", plain.name, "mode", "tun")
    assert "exists already" in plain.fails()[1]


def test_a_port_in_use_is_named(plain: Plain) -> None:
    holder = "import socket, time; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 50123))"
    program = f"{holder}; print('bound', flush=True); time.sleep(600)"
    taken = plain.namespace.start(sys.executable, "-c", program, folder=plain.folder, label="holder")
    with taken:
        assert taken.next_line() == "bound"
        plain.interface["listen_port"] = 50123
        code, text = plain.fails()
    assert code == ExitCode.SYSTEM
    assert "UDP port 50123" in text
    assert plain.leftovers([]) == []


def test_super_packets_of_the_tun_fit_one_send(plain: Plain) -> None:
    plain.start()

    def largest() -> int:
        (link,) = json.loads(plain.namespace.run("ip", "-json", "-details", "link", "show", plain.name).stdout)
        return int(link["gso_max_segs"])

    assert largest() == 65507 // (1420 + 32)
    for mtu, expected in (("9000", 65507 // 9032), ("576", 64)):
        plain.namespace.run("ip", "link", "set", plain.name, "mtu", mtu)
        until(lambda: largest() == expected, f"{expected} packets at an MTU of {mtu}")  # noqa: B023


def test_news_of_the_link_reach_the_children(plain: Plain) -> None:
    plain.start()

    def told(role: str, kind: str) -> list[object]:
        return [event[3] for event in plain.events(role, "message") if event[2] == kind]

    plain.namespace.run("ip", "link", "set", plain.name, "mtu", "1300")
    news: list[object] = [[22, True]]
    for state, up in (("down", False), ("up", True)):
        plain.namespace.run("ip", "link", "set", plain.name, state)
        news.append([22, up])
        for role in ("handshake", "egress", "ingress"):
            until(lambda: told(role, "LinkState") == news, f"{role} knows that the link is {state}")  # noqa: B023
    for role in ("egress", "ingress"):
        assert told(role, "Mtu") == [[35, 1300]]


def test_deleting_the_interface_ends_the_gateway(plain: Plain) -> None:
    plain.start()
    pids = plain.pids()
    plain.namespace.run("ip", "link", "delete", plain.name)
    assert plain.running.wait(20) == ExitCode.SYSTEM
    assert plain.running.stderr().endswith(f"wghsm: the interface {plain.name} was deleted from outside\n")
    assert plain.leftovers(pids) == []


def test_endpoints_are_addresses_at_once_and_names_soon(plain: Plain) -> None:
    plain.peer("alice", "10.20.0.0/16", endpoint="192.0.2.7:5000")
    key = plain.peer("bob", "10.21.0.0/16", endpoint="localhost:6000")
    plain.peer("carol", "10.22.0.0/16", endpoint="nosuchname.invalid:7000")
    plain.start()

    def upserts() -> list[list[Any]]:
        told = [event[3] for event in plain.events("handshake", "message") if event[2] == "HandshakePeers"]
        return [peer for message in told for peer in message[2]]

    until(lambda: len(upserts()) == 4, "bob's address is told", 60)
    first, resolved = upserts()[:3], upserts()[3]
    assert [peer[2] and peer[2][:2] for peer in first] == [["192.0.2.7", 5000], None, None]
    assert resolved[0] == 1
    assert resolved[2][0] in ("127.0.0.1", "::1")
    assert resolved[2][1] == 6000
    plain.log_has("endpoint name nosuchname.invalid:")
    # A successor knows it from the start.
    os.kill(plain.pid("handshake"), signal.SIGKILL)
    until(lambda: len(upserts()) == 7, "the successor has its peers", 60)
    assert upserts()[5][2][:2] == resolved[2][:2]
    assert key


def test_without_a_terminal_a_prompt_is_refused(plain: Plain) -> None:
    plain.uri = "pkcs11:token=t?module-path=/nowhere.so&pin-source=prompt"
    code, text = plain.fails()
    assert code == ExitCode.BAD_CONFIG
    assert "there is no terminal" in text


def test_without_root_there_is_one_clear_line(plain: Plain) -> None:
    process = plain.lab.add(
        plain.namespace.start(
            *("setpriv", "--reuid", "61199", "--regid", "61199", "--clear-groups", "--inh-caps=-all"),
            *(sys.executable, "-c", _UNPRIVILEGED),
            folder=plain.folder,
            label="unprivileged",
        )
    )
    assert process.wait(60) == ExitCode.NO_PRIVILEGE
    assert process.stderr() == "wghsm: a gateway needs root to make its interface; run as root\n"


_UNPRIVILEGED = """
import sys
from wghsm import config, supervisor
gateway = config.Gateway.model_validate({
    "version": 1,
    "token": config.Token(uri="pkcs11:token=t?module-path=/m.so&pin-source=file:/p"),
    "interface": config.Interface(name="wgs0", key="gateway"),
})
sys.exit(supervisor.run(gateway, file="none"))
"""

"""Where a gateway's secrets are, and where they are not: memory, files, environment, descriptors, privileges.

The test knows every secret: the private key was imported into the token, the PSKs were exported, the PIN stands in
its file, and one peer is played by the test itself, which so knows the keys of all its sessions. The newest keys must
be found where SEAMS.md puts them, or the scan proves nothing.
"""

import base64
import contextlib
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.network.support import KeyPair, Lab, make_psk, ping, ping_until, scan_files, scan_memory, until
from tests.network.support.gateway import CHILDREN, Peer
from tests.network.support.gateway_token import CUSTODIAN, GatewayToken, wghsm
from tests.network.support.site import PSK_ROOT, Site
from tests.network.support.software_peer import KnownSession, SoftwarePeer

ROLES = (*CHILDREN, "auditor")
UIDS = {"supervisor": 0, "auditor": CUSTODIAN + 6} | {role: CUSTODIAN + place for place, role in enumerate(CHILDREN)}
IPC_LOCK = 1 << 14
LOCKED = {"custodian", "egress", "ingress"}
SESSIONS = 5


@dataclass
class Scene:
    """A gateway after traffic and several re-keys, and everything secret about it."""

    site: Site
    pids: dict[str, int]
    sessions: dict[str, list[KnownSession]]
    lasting: dict[str, bytes]

    def halves(self, secrets: dict[str, bytes]) -> dict[str, bytes]:
        """Each secret whole, and its end alone: a freed block has lost its first 16 bytes to the allocator."""
        ends = {f"{name} (its end)": value[16:] for name, value in secrets.items() if len(value) > 19}
        return {**secrets, **ends}

    def found(self, role: str, secrets: dict[str, bytes]) -> set[str]:
        """Name those of the secrets that stand in a process's memory."""
        scan = scan_memory(self.pids[role], self.halves(secrets))
        assert scan.scanned > 4 << 20
        return {name.removesuffix(" (its end)") for name in scan.names()}


def cores_of(site: Site) -> Path:
    """The folder in which the gateway runs, where each of its children may write."""
    return site.gateway.scratch / "cores"


def clamped(private: bytes) -> bytes:
    return bytes([private[0] & 248, *private[1:31], private[31] & 127 | 64])


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    private = os.urandom(32)
    with GatewayToken() as token, Lab() as lab:
        token.import_key("known", private)
        token.derive_root(PSK_ROOT)
        yield play(lab, token, private)


def play(lab: Lab, token: GatewayToken, private: bytes) -> Scene:
    """Let stock peers and scripted ones make sessions, several each, and send through them."""
    site = Site(lab, token, key="known")
    token.command("audit", "key", "generate", "audit")
    site.gateway.sections = {"audit": {"key": "audit", "directory": str(site.gateway.state / "log")}}
    cores = cores_of(site)
    cores.mkdir()
    cores.chmod(0o777)
    site.gateway.program = ["env", f"--chdir={cores}", "prlimit", "--core=unlimited", *wghsm("run")]
    clients = [site.client("derived", "derived"), site.client("object", "object", 6)]
    place = site.client("place")
    scripted = {kind: os.urandom(32) for kind in ("derived", "object")}
    psk = base64.b64encode(os.urandom(32)).decode()
    label = f"psk-{site.gateway.name}"
    token.put_psk(label, psk)
    sources = {"derived": "derived", "object": f"object:{label}"}
    numbers = {"derived": 101, "object": 102}
    site.gateway.peers = [
        *site.gateway.peers,
        *(
            Peer(f"scripted-{kind}", public(key), [f"10.8.0.{numbers[kind]}/32"], sources[kind])
            for kind, key in scripted.items()
        ),
    ]
    site.gateway.write()
    site.start()
    for client in clients:
        client.start()
        ping_until(client.namespace, site.inner4)
    words = ("psk", "export", "scripted-derived", "-c", site.gateway.file, "--out", "-")
    psks = {"derived": site.gateway.command(*words).stdout.strip(), "object": psk}
    peers = {
        kind: lab.add(
            SoftwarePeer(
                place.namespace,
                key,
                base64.b64decode(site.gateway_key),
                place.gateway_endpoint,
                base64.b64decode(psks[kind]),
            )
        )
        for kind, key in scripted.items()
    }
    for _ in range(SESSIONS):
        for kind, peer in peers.items():
            peer.initiate()
            for _ in range(3):
                peer.ping(f"10.8.0.{numbers[kind]}", site.inner4)
    for client in clients:
        client.wait_for_age()
        known = client.latest_handshake()
        site.gateway.command("rekey", site.gateway.name, client.name)
        client.wait_for_handshake(known)
        assert ping(client.namespace, site.inner6, count=3).lost == 0
    lasting = {
        "private key": private,
        "private key, clamped": clamped(private),
        "PIN": token.pin,
        "PSK of a scripted peer, derived": base64.b64decode(psks["derived"]),
        "PSK of a scripted peer, object": base64.b64decode(psks["object"]),
    }
    for client in clients:
        secret = site.secret_of(client)
        assert secret is not None
        lasting[f"PSK of a stock peer, {client.name}"] = base64.b64decode(secret)
    pids = {"supervisor": site.gateway.pid, **site.gateway.pids()}
    return Scene(site, pids, {kind: peer.sessions for kind, peer in peers.items()}, lasting)


def public(private: bytes) -> str:
    return base64.b64encode(X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()).decode()


@pytest.mark.parametrize("role", ["supervisor", "handshake", "egress", "ingress", "control", "auditor"])
def test_no_lasting_secret_in_memory(scene: Scene, role: str) -> None:
    assert scene.found(role, scene.lasting) == set()


def test_the_custodian_holds_what_a_software_token_holds_and_no_psk(scene: Scene) -> None:
    # SoftHSM may keep the private key and the PIN in its heap (README says so); nothing else is excused.
    assert scene.found("custodian", scene.lasting) <= {"private key", "private key, clamped", "PIN"}


def session_keys(scene: Scene) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The gateway's send keys and receive keys, by kind of peer and age: 0 is the newest session."""
    send, receive = {}, {}
    for kind, sessions in scene.sessions.items():
        assert len(sessions) == SESSIONS
        for age, session in enumerate(reversed(sessions)):
            send[f"send key, {kind}, age {age}"] = session.receive
            receive[f"receive key, {kind}, age {age}"] = session.send
    return send, receive


@pytest.mark.parametrize("role", ["supervisor", "custodian", "handshake", "control", "auditor"])
def test_no_session_key_in_memory(scene: Scene, role: str) -> None:
    send, receive = session_keys(scene)
    assert scene.found(role, send | receive) == set()


def test_egress_holds_the_send_keys_of_live_sessions_alone(scene: Scene) -> None:
    send, receive = session_keys(scene)
    assert scene.found("egress", receive) == set()
    assert scene.found("egress", send) == {name for name in send if name.endswith("age 0")}


def test_ingress_holds_the_receive_keys_of_live_sessions_alone(scene: Scene) -> None:
    send, receive = session_keys(scene)
    assert scene.found("ingress", send) == set()
    # The session before the newest one may still have packets on their way.
    assert scene.found("ingress", receive) == {name for name in receive if name.endswith(("age 0", "age 1"))}


def test_no_secret_in_any_file_that_the_gateway_writes(scene: Scene) -> None:
    send, receive = session_keys(scene)
    secrets = scene.halves({**scene.lasting, **send, **receive})
    gateway, token = scene.site.gateway, scene.site.token
    state = gateway.state / "custodian"
    assert [path.name for path in state.iterdir() if path.suffix == ".sqlite"]
    assert [path.name for path in (gateway.state / "log").iterdir() if path.suffix == ".jsonl"]
    logs = list(gateway.scratch.glob(f"{gateway.name}-*.[eo][ru][rt]"))
    assert [log for log in logs if log.stat().st_size]
    written = [gateway.state, Path("/run/wghsm", gateway.name), gateway.file, token.store, *logs]
    assert scan_files(written, secrets) == []
    # The control: the PIN's own file, which root wrote and no process of the gateway can.
    assert {hit.name for hit in scan_files([token.pin_file], secrets)} == {"PIN", "PIN (its end)"}


def test_files_of_the_gateway_belong_to_who_writes_them(scene: Scene) -> None:
    state = scene.site.gateway.state / "custodian"
    assert (state.stat().st_uid, state.stat().st_mode & 0o777) == (CUSTODIAN, 0o700)
    for path in state.rglob("*"):
        assert path.stat().st_uid == CUSTODIAN
        assert path.stat().st_mode & 0o077 == 0
    for place in (
        Path("/run/wghsm", scene.site.gateway.name, "admin.sock"),
        Path("/var/run/wireguard", f"{scene.site.gateway.name}.sock"),
    ):
        assert (place.stat().st_uid, place.stat().st_mode & 0o077) == (0, 0)


@pytest.mark.parametrize("role", ["supervisor", *ROLES])
def test_nothing_secret_in_environment_and_arguments(scene: Scene, role: str) -> None:
    process = Path("/proc", str(scene.pids[role]))
    send, receive = session_keys(scene)
    said = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
    assert (process / "cmdline").read_bytes()
    for name, value in {**scene.lasting, **send, **receive}.items():
        for form in (value, value.hex().encode(), base64.b64encode(value)):
            assert form not in said, name


def status_of(pid: int) -> dict[str, str]:
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


@pytest.mark.parametrize("role", ROLES)
def test_each_child_has_its_own_uid_and_hardly_a_capability(scene: Scene, role: str) -> None:
    status = status_of(scene.pids[role])
    uid = str(UIDS[role])
    assert status["Uid"].split() == status["Gid"].split() == [uid] * 4
    assert status["Groups"] == ""
    kept = IPC_LOCK if role in LOCKED else 0
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[kind], 16) == kept, kind
    for kind in ("CapInh", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"


def test_the_supervisor_is_root_with_a_short_list_of_capabilities(scene: Scene) -> None:
    status = status_of(scene.pids["supervisor"])
    assert status["Uid"].split() == ["0"] * 4
    held = {bit for bit in range(64) if int(status["CapEff"], 16) >> bit & 1}
    # CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_ADMIN, IPC_LOCK
    assert held <= {0, 1, 3, 5, 6, 7, 8, 10, 12, 14}
    assert int(status["CapBnd"], 16) & ~sum(1 << bit for bit in (0, 1, 3, 5, 6, 7, 8, 10, 12, 14)) == 0


@pytest.mark.parametrize("role", ["supervisor", *ROLES])
def test_no_core_is_dumped_and_nothing_is_swapped(scene: Scene, role: str) -> None:
    process = Path("/proc", str(scene.pids[role]))
    limit = next(
        line for line in (process / "limits").read_text().splitlines() if line.startswith("Max core file size")
    )
    assert limit.split()[4:6] == ["0", "0"]
    # The kernel gives the files of a process that is not dumpable to root.
    assert (process / "environ").stat().st_uid == 0
    status = status_of(scene.pids[role])
    if role in LOCKED:
        assert int(status["VmLck"].split()[0]) > 0
        assert status["VmSwap"].split()[0] == "0"


@dataclass(frozen=True)
class Held:
    """The descriptors of one process."""

    tun: int
    udp: int
    listening: int
    unix: frozenset[int]
    files: frozenset[str]


def held(pid: int) -> Held:
    """Sort a process's descriptors; sockets are known by their inode in the process's own network namespace.

    Left out is what it reads of itself, and has closed by the next look.
    """
    tables = {name: Path("/proc", str(pid), "net", name).read_text() for name in ("udp", "udp6", "unix")}
    links = []
    for link in Path("/proc", str(pid), "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(link.readlink()))
    sockets = {int(found[1]) for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    udp = {inode for inode in sockets for name in ("udp", "udp6") if re.search(rf"\s{inode}\s", tables[name])}
    rows = [line.split() for line in tables["unix"].splitlines()[1:]]
    unix = {int(row[6]) for row in rows}
    listening = {int(row[6]) for row in rows if int(row[3], 16) & 0x10000}
    passing = ("/memfd:", "/dev/", f"/proc/{pid}/")
    files = frozenset(link for link in links if link.startswith("/") and not link.startswith(passing))
    return Held(
        links.count("/dev/net/tun"), len(udp), len(sockets & listening), frozenset(sockets & unix - listening), files
    )


def test_each_process_holds_the_descriptors_that_are_its_business(scene: Scene) -> None:
    found = {role: held(pid) for role, pid in scene.pids.items()}
    shape = {role: (each.tun, each.udp, each.listening) for role, each in found.items()}
    assert shape == {
        "supervisor": (1, 2, 2),
        "custodian": (0, 0, 0),
        "handshake": (0, 2, 0),
        "egress": (1, 2, 0),
        "ingress": (1, 2, 0),
        "control": (0, 0, 2),
        "auditor": (0, 0, 0),
    }
    # A copy of a channel's end would hide the end of its owner.
    for role, each in found.items():
        for other, theirs in found.items():
            assert role == other or not each.unix & theirs.unix, (role, other)
    opened = {
        role: {path for path in each.files if not path.endswith((".out", ".err"))} for role, each in found.items()
    }
    assert opened.pop("supervisor") == {f"/run/wghsm/{scene.site.gateway.name}/lock"}
    assert {Path(path).parent for path in opened.pop("custodian")} <= {scene.site.gateway.state / "custodian"}
    assert {Path(path).name for path in opened.pop("auditor")} == {"log", "gateway.lock", "gateway.000001.jsonl"}
    assert not any(opened.values())


def test_the_custodian_alone_loads_the_vendors_module(scene: Scene) -> None:
    loaded = {role for role, pid in scene.pids.items() if "libsofthsm2" in Path("/proc", str(pid), "maps").read_text()}
    assert loaded == {"custodian"}


def test_a_psk_given_at_run_time_stays_in_the_token_alone(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token, interface={"authority": "runtime"})
    site.start()
    client = KeyPair.make()
    psks = [make_psk() for _ in range(3)]
    for number, psk in enumerate(psks):
        words = f"peer {client.public} allowed-ips 10.8.0.9/32 preshared-key /dev/stdin"
        site.namespace.run("wg", "set", site.gateway.name, *words.split(), stdin=psk + "\n")
        assert site.gateway.counter("psk-use") == 0, number
    secrets = {f"PSK {number}": base64.b64decode(psk) for number, psk in enumerate(psks)}
    pids = {"supervisor": site.gateway.pid, **site.gateway.pids()}
    scene = Scene(site, pids, {}, secrets)
    assert {role: scene.found(role, secrets) for role in pids} == {role: set() for role in pids}
    written = [site.gateway.state, Path("/run/wghsm", site.gateway.name), token.store, site.gateway.file]
    assert scan_files([*written, *lab.scratch.glob(f"{site.gateway.name}-*.err")], scene.halves(secrets)) == []
    assert token.secret_value(psk_label(client.public)) == base64.b64decode(psks[-1])


def psk_label(public_key: str) -> str:
    """Give the label that `authority: runtime` makes from a peer's key."""
    return "wghsm-psk-" + public_key.rstrip("=").replace("+", "-").replace("/", "_")


def test_a_child_that_aborts_leaves_no_core(scene: Scene) -> None:
    """Last: it ends the custodian."""
    os.kill(scene.pids["custodian"], signal.SIGABRT)
    until(lambda: scene.site.gateway.restarts("custodian") == 1 and scene.site.gateway.serves(), "another custodian")
    assert list(cores_of(scene.site).iterdir()) == []

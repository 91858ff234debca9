"""A gateway under test: its file, its start through the real command, what it says of itself, its end.

    gateway = lab.add(Gateway(space, lab.scratch, token, peers=[Peer(...)]))
    gateway.start()          `wghsm run FILE` in the namespace, until every process serves
    gateway.status()         over the admin socket;  gateway.pids(), gateway.counter("replayed"), gateway.log()
    gateway.stop()           SIGTERM, exit code;     gateway.leftovers() is empty then

Interface names are unique over runs, as those of the stock peers are.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from tests.json_output import check_json
from tests.network.support.gateway_token import GatewayToken, wghsm
from tests.network.support.netns import Namespace
from tests.network.support.process import Process, until
from tests.network.support.wireguard_go import SOCKETS, PeerState, device_and_log, show_dump, unique_interface
from wghsm.ipc.admin import AdminReply, AdminRequest, PeerStatus, Status, admin_socket_path

__all__ = ["CHILDREN", "Gateway", "Peer"]

CHILDREN = ("custodian", "handshake", "egress", "ingress", "control")
"""The roles below the supervisor."""

START_LIMIT = 60.0


@dataclass(frozen=True)
class Peer:
    """A peer's entry in the gateway file; `keepalive` in seconds; `settings`: keys that have no field here."""

    name: str
    public_key: str
    allowed_ips: Sequence[str]
    preshared_key: str = "none"
    endpoint: str | None = None
    keepalive: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)

    def entry(self) -> dict[str, object]:
        """Give what the file says."""
        said: dict[str, object] = {
            "name": self.name,
            "public_key": self.public_key,
            "preshared_key": self.preshared_key,
            "allowed_ips": list(self.allowed_ips),
        }
        if self.endpoint is not None:
            said["endpoint"] = self.endpoint
        if self.keepalive:
            said["persistent_keepalive"] = self.keepalive
        return {**said, **self.settings}


@dataclass
class Gateway:
    """One gateway; `interface` and `token_section` add to or change these sections of its file."""

    namespace: Namespace
    scratch: Path
    token: GatewayToken
    peers: Sequence[Peer] = ()
    addresses: Sequence[str] = ("10.8.0.1/24", "fd08::1/64")
    listen_port: int = 51820
    key: str = "gateway"
    psk_root: str | None = None
    interface: Mapping[str, object] = field(default_factory=dict)
    token_section: Mapping[str, object] = field(default_factory=dict)
    sections: Mapping[str, object] = field(default_factory=dict)
    """Further sections of the file, such as `audit`."""
    workers: int = 1
    short_times: bool = False
    program: Sequence[str] = ()
    """In place of `wghsm run`; FILE follows."""
    name: str = field(default_factory=lambda: unique_interface("wgg"))

    def __post_init__(self) -> None:
        """Write the file."""
        self.file = self.scratch / f"{self.name}.yaml"
        self.state = self.scratch / f"{self.name}-state"
        self._process: Process | None = None
        self._starts = 0
        self.write()

    def write(self) -> None:
        """Write the gateway file, as JSON, which is YAML as well."""
        root = {} if self.psk_root is None else {"psk_root": self.psk_root}
        uri = {} if "uris" in self.token_section else {"uri": self.token.uri}
        said = {
            "version": 1,
            "token": {**uri, **root, **self.token_section},
            "interface": {
                "name": self.name,
                "key": self.key,
                "listen_port": self.listen_port,
                "addresses": list(self.addresses),
                **self.interface,
            },
            "tunnel": {"workers": self.workers},
            "peers": [peer.entry() for peer in self.peers],
            "state_directory": str(self.state),
            **self.sections,
        }
        self.file.write_text(json.dumps(said, indent=2))

    # Its life.

    def begin(self) -> Process:
        """Start it without waiting for anything."""
        program = list(self.program) or wghsm("run")
        if self.short_times:
            program = [sys.executable, str(Path(__file__).with_name("short_times.py"))]
        self._starts += 1
        self._process = self.namespace.start(
            *program,
            self.file,
            folder=self.scratch,
            label=f"{self.name}-{self._starts}",
            env=self.token.environment,
        )
        return self._process

    def start(self) -> Self:
        """Start it and wait until every process serves."""
        process = self.begin()

        def serves() -> bool:
            if process.returncode is not None:
                raise RuntimeError(f"the gateway ended with {process.returncode}: {process.stderr()[-4000:]}")
            return self.serves()

        try:
            until(serves, f"the gateway {self.name} serves", START_LIMIT, pause=0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it says: {process.stderr()[-4000:]}") from None
        return self

    def fails(self, limit: float = START_LIMIT) -> tuple[int, str]:
        """Start it, wait for its end; give exit code and standard error."""
        process = self.begin()
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end; it says: {process.stderr()[-4000:]}") from None
        return code, process.stderr()

    @property
    def pid(self) -> int:
        """The process id of the supervisor."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs."""
        assert self._process is not None
        return self._process.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        assert self._process is not None
        self._process.signal(number)

    def wait(self, limit: float = 20.0) -> int:
        """Wait for its end and give the exit code."""
        assert self._process is not None
        return self._process.wait(limit)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """End it with a signal; give the seconds that it took. AssertionError unless it ends with 0."""
        began = time.monotonic()
        self.send_signal(number)
        code = self.wait()
        took = time.monotonic() - began
        assert code == 0, f"the gateway ended with {code}: {self.log()[-4000:]}"
        return took

    def close(self) -> None:
        """End it however it stands, and remove what a killed one leaves."""
        if self._process is not None:
            self._process.stop()
        holder = self._lock_holder()
        if holder is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                until(lambda: not Path("/proc", str(holder)).exists(), "the end of the gateway", 10)
        shutil.rmtree(self._run, ignore_errors=True)
        (SOCKETS / f"{self.name}.sock").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock_holder(self) -> int | None:
        """The supervisor of a gateway of this name that `wghsm up` has started, by its lock file."""
        try:
            pid = int((self._run / "lock").read_text())
            command = Path("/proc", str(pid), "cmdline").read_bytes()
        except (FileNotFoundError, ValueError):
            return None
        return pid if str(self.file).encode() in command else None

    @property
    def _run(self) -> Path:
        return admin_socket_path(self.name).parent

    # What it says.

    def command(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `wghsm ARGUMENTS` in its namespace, with the token's environment."""
        done = self.namespace.run(*wghsm(*arguments), check=check, env=self.token.environment)
        check_json(arguments, done.stdout)
        return done

    def ask(self, request: AdminRequest) -> AdminReply:
        """Ask over the admin socket; OSError or ValueError when nobody answers."""
        with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as stream:
            sock.settimeout(30)
            sock.connect(str(admin_socket_path(self.name)))
            sock.sendall(msgspec.json.encode(request) + b"\n")
            return msgspec.json.decode(stream.readline(), type=AdminReply)

    def status(self) -> Status:
        """Give its status."""
        status = self.ask(AdminRequest(verb="status")).status
        assert status is not None
        return status

    def serves(self) -> bool:
        """Whether every process serves, the token is open and the link up."""
        try:
            status = self.status()
        except (OSError, ValueError):
            return False
        ready = {each.role for each in status.processes}.issuperset(CHILDREN)
        ready = ready and all(each.state == "ready" for each in status.processes)
        return ready and status.token is not None and status.token.state == "ready" and status.up

    def pids(self) -> dict[str, int]:
        """Give the process ids of the children by role."""
        return {each.role: each.pid for each in self.status().processes}

    def restarts(self, role: str) -> int:
        """Give how often a role was restarted."""
        return next(each.restarts for each in self.status().processes if each.role == role)

    def peer(self, public_key: str) -> PeerStatus:
        """Give a peer's part of the status."""
        return next(each for each in self.status().peers if each.public_key == public_key)

    def counter(self, reason: str) -> int:
        """Give how often something was counted, by all processes together."""
        return sum(reasons.get(reason, 0) for reasons in self.status().counters.values())

    def show(self) -> dict[str, PeerState]:
        """Give what wg(8) shows of its peers."""
        return show_dump(self.namespace, self.name)

    @property
    def public_key(self) -> str:
        """Its public key, base64."""
        key = self.status().public_key
        assert key is not None
        return key

    def log(self) -> str:
        """Give what it has written to its standard error so far, over all its starts."""
        parts = sorted(self.scratch.glob(f"{self.name}-[0-9]*.err"))
        return "".join(part.read_text(errors="replace") for part in parts)

    def account(self) -> str:
        """Give what it has counted, its device's own counters and the last lines of its log."""
        try:
            counters = str(self.status().counters)
        except (OSError, ValueError) as error:
            counters = f"no answer: {error}"
        return f"gateway {self.name}: {counters}\n" + device_and_log(self.namespace, self.name, self.log())

    def leftovers(self, pids: Sequence[int] = ()) -> list[str]:
        """Name what is still there of a gateway that should be gone, with `pids` among it."""
        left = [f"process {pid}" for pid in pids if Path("/proc", str(pid)).exists()]
        if self.name in self.namespace.interfaces():
            left.append(f"interface {self.name}")
        for family in ("-4", "-6"):
            shown = self.namespace.run("ip", family, "route", "show", "table", "all").stdout
            left += [f"route {line}" for line in shown.splitlines() if f"dev {self.name} " in f"{line} "]
        left += [str(path) for path in (SOCKETS / f"{self.name}.sock", *self._run.glob("*.sock")) if path.exists()]
        bound = self.namespace.run("ss", "-Hlun", f"sport = :{self.listen_port}").stdout
        if self.listen_port and bound.strip():
            left.append(f"UDP port {self.listen_port}")
        return left

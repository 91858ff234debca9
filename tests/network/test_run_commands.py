"""`wghsm run`, `up` and `down` as an operator meets them, with a real token: exit codes, lines, PIN prompt."""

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.support import Lab, until
from tests.network.support.gateway import Gateway, Peer
from tests.network.support.gateway_token import GatewayToken, wghsm
from tests.network.support.view import among, with_file
from tests.network.support.wireguard_go import KeyPair
from wghsm.exits import ExitCode
from wghsm.supervisor import runtime_directory


@pytest.fixture
def gateway(lab: Lab, token: GatewayToken) -> Iterator[Gateway]:
    made = lab.add(Gateway(lab.namespace("cmd"), lab.scratch, token))
    yield made
    made.command("down", made.name, check=False)


def log_of(gateway: Gateway) -> str:
    return (runtime_directory(gateway.name) / "log").read_text()


def test_up_serves_and_down_removes(gateway: Gateway) -> None:
    done = gateway.command("up", gateway.file)
    assert done.stdout == f"{gateway.name} is up; log in /run/wghsm/{gateway.name}/log\n"
    assert gateway.serves()
    assert "the gateway serves" in log_of(gateway)
    pids = list(gateway.pids().values())
    gateway.command("down", gateway.name)
    assert gateway.leftovers(pids) == []
    assert not (runtime_directory(gateway.name) / "lock").exists()


def test_up_by_name(gateway: Gateway) -> None:
    def command(verb: str) -> None:
        gateway.namespace.run(*with_file(gateway.file), *wghsm(verb, gateway.name), env=gateway.token.environment)

    command("up")
    assert gateway.serves()
    assert gateway.status().file == f"/etc/wghsm/{gateway.name}.yaml"
    command("plan")
    command("down")


def test_up_twice_and_down_twice(gateway: Gateway) -> None:
    gateway.command("up", gateway.file)
    for verb in ("up", "run"):
        again = gateway.command(verb, gateway.file, check=False)
        assert again.returncode == ExitCode.ALREADY_RUNNING
        assert again.stderr.count("\n") == 1
        assert f"end it with: wghsm down {gateway.name}" in again.stderr
    gateway.command("down", gateway.name)
    gone = gateway.command("down", gateway.name, check=False)
    assert gone.returncode == ExitCode.NOT_RUNNING
    assert gone.stderr == f"wghsm: no gateway '{gateway.name}' is running\n"


def test_the_log_goes_where_it_is_wanted(gateway: Gateway) -> None:
    path = gateway.scratch / "own.log"
    gateway.command("up", "--log", path, gateway.file)
    assert "the gateway serves" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("verb", ["up", "run"])
def test_every_fault_of_the_file_is_told(gateway: Gateway, verb: str) -> None:
    gateway.file.write_text(gateway.file.read_text().replace('"listen_port": 51820', '"listen_port": 99999, "x": 1'))
    done = gateway.command(verb, gateway.file, check=False)
    assert done.returncode == ExitCode.BAD_CONFIG
    assert done.stderr.count("\n") == 2
    assert "99999" in done.stderr
    assert gateway.leftovers() == []


@pytest.mark.parametrize("verb", ["up", "run"])
def test_a_key_that_is_not_there_is_final(gateway: Gateway, verb: str) -> None:
    gateway.key = "no-such-key"
    gateway.write()
    done = gateway.command(verb, gateway.file, check=False)
    assert done.returncode == ExitCode.TOKEN_UNUSABLE
    reason = done.stderr.splitlines()[-1]
    assert reason.startswith("wghsm: ")
    assert "no-such-key" in reason
    assert gateway.leftovers() == []


def test_a_killed_gateway_is_not_running(gateway: Gateway) -> None:
    gateway.start()
    pids = list(gateway.pids().values())
    gateway.send_signal(signal.SIGKILL)
    gateway.wait()
    until(lambda: not any(Path("/proc", str(pid)).exists() for pid in pids), "the children end")
    assert gateway.command("down", gateway.name, check=False).returncode == ExitCode.NOT_RUNNING
    # Its socket is still there.
    for words in (["status"], ["status", gateway.name], ["reload", gateway.file], ["plan", gateway.file]):
        done = gateway.namespace.run(*among(gateway), *wghsm(*words), check=False)
        assert (done.returncode, done.stderr.count("\n")) == (ExitCode.NOT_RUNNING, 1)
        assert "running are" not in done.stderr
    gateway.command("up", gateway.file)


def test_wg_moves_prefixes_ports_and_marks(gateway: Gateway) -> None:
    alice, bob = KeyPair.make().public, KeyPair.make().public
    gateway.peers = [Peer("alice", alice, ["10.8.0.2/32", "10.30.0.0/16"])]
    gateway.write()
    gateway.start()
    name, space = gateway.name, gateway.namespace

    def routes() -> str:
        return space.run("ip", "route", "show", "dev", name).stdout

    assert "10.30.0.0/16" in routes()
    space.run("wg", "set", name, "peer", bob, "allowed-ips", "10.30.0.0/16,10.31.0.0/16", "endpoint", "192.0.2.1:9")
    shown = gateway.show()
    assert set(shown) == {alice, bob}
    assert sorted(gateway.peer(alice).allowed_ips) == ["10.8.0.2/32"]
    assert sorted(gateway.peer(bob).allowed_ips) == ["10.30.0.0/16", "10.31.0.0/16"]
    assert gateway.peer(bob).endpoint == "192.0.2.1:9"
    assert "10.31.0.0/16" in routes()
    space.run("wg", "set", name, "listen-port", "51999", "fwmark", "0x77")
    status = gateway.status()
    assert (status.listen_port, status.fwmark) == (51999, 0x77)
    assert "51999" in space.run("ss", "-Hlun").stdout
    assert "51820" not in space.run("ss", "-Hlun").stdout
    space.run("wg", "set", name, "peer", bob, "remove")
    assert set(gateway.show()) == {alice}
    assert "10.3" not in routes()


class Terminal:
    """A command with a controlling terminal of its own."""

    def __init__(self, gateway: Gateway, *arguments: str | Path) -> None:
        self._gateway = gateway
        self.master, slave = pty.openpty()
        argv = gateway.namespace.argv(*wghsm(*arguments))
        # setsid --ctty makes standard input the controlling terminal of a new session.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, **gateway.token.environment},
        )
        os.close(slave)
        self.said = b""

    def read_until(self, text: bytes, limit: float = 60.0) -> None:
        deadline = time.monotonic() + limit
        while text not in self.said:
            assert select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0], self.said
            try:
                self.said += os.read(self.master, 4096)
            except OSError:
                raise AssertionError(f"it ended: {self.said!r}") from None

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def wait(self) -> int:
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            rows = subprocess.run(["ps", "-eo", "pid,ppid,stat,wchan:20,args"], capture_output=True, text=True).stdout
            named = [row for row in rows.splitlines() if self._gateway.name in row]
            raise AssertionError("\n".join([repr(self.said), *named, log_of(self._gateway)])) from None
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.said += os.read(self.master, 4096)
            except OSError:
                break
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def asking(gateway: Gateway, token: GatewayToken) -> Gateway:
    uri = token.uri.replace(f"file:{token.pin_file}", "prompt")
    assert uri != token.uri
    gateway.token_section = {"uri": uri}
    gateway.write()
    return gateway


def test_a_pin_is_typed_at_the_terminal_of_up(asking: Gateway, token: GatewayToken) -> None:
    terminal = Terminal(asking, "up", asking.file)
    terminal.read_until(b"PIN")
    terminal.type(token.pin + b"\n")
    terminal.read_until(b"is up")
    assert terminal.wait() == 0
    assert token.pin not in terminal.said
    served = asking.status().token
    assert served is not None
    assert served.state == "ready"
    assert served.detail == "after a restart an operator must type its PIN at the terminal (pin-source=prompt)"
    assert f" is ready: {served.detail}" in log_of(asking)
    # The terminal is the operator's again: a custodian that dies waits, and says what to do; the rest goes on.
    pids = asking.pids()
    os.kill(pids["custodian"], signal.SIGKILL)

    def waiting() -> bool:
        states = {each.role: each.state for each in asking.status().processes}
        return states == {**dict.fromkeys(states, "ready"), "custodian": "waiting"}

    until(waiting, "the custodian waits for its PIN")
    told = asking.status().token
    assert told is not None
    assert told.state == "away"
    assert f"wghsm down {asking.name}" in told.detail
    assert asking.pids()["egress"] == pids["egress"]
    terminal.close()


def test_a_typed_wrong_pin_is_final(asking: Gateway) -> None:
    terminal = Terminal(asking, "up", asking.file)
    terminal.read_until(b"PIN")
    terminal.type(b"wrong-pin\n")
    assert terminal.wait() == ExitCode.PIN_REFUSED
    terminal.close()
    assert asking.leftovers() == []


def test_ctrl_c_at_the_prompt_leaves_nothing(asking: Gateway) -> None:
    terminal = Terminal(asking, "up", asking.file)
    terminal.read_until(b"PIN")
    terminal.type(b"\x03")
    assert terminal.wait() == ExitCode.INTERRUPTED
    terminal.close()
    assert asking.leftovers() == []
    assert asking.command("down", asking.name, check=False).returncode == ExitCode.NOT_RUNNING


def test_run_asks_at_its_own_terminal(asking: Gateway, token: GatewayToken) -> None:
    terminal = Terminal(asking, "run", asking.file)
    terminal.read_until(b"PIN")
    terminal.type(token.pin + b"\n")
    until(asking.serves, "the gateway serves", 60)
    terminal.type(b"\x03")
    assert terminal.wait() == 0
    terminal.close()
    assert asking.leftovers() == []

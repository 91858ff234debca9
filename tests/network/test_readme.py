"""README's quick start, the first steps and the operator's guide work as they stand: their blocks are run in order."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.network.support import Lab, Namespace, unique_interface, until

README = Path(__file__).parents[2] / "README.md"
FIRST_STEPS = README.parent / "docs/first-steps.md"
GUIDE = README.parent / "docs/operator-guide.md"
TUNNEL = "wg0"
_PROGRAMS = Path(sys.executable).parent


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Where each block belongs, and its text: "client", "gateway" or "yaml"."""
    yield from re.findall(r"^```(?:sh )?(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class _End:
    """One end: its namespace, its folder, and the name that wg0 has here."""

    def __init__(self, namespace: Namespace, folder: Path, etc: Path) -> None:
        self.namespace = namespace
        self.folder = folder
        self.interface = unique_interface()
        self._etc = etc
        self._environment: dict[str, str] = {"PATH": f"{_PROGRAMS}:{os.environ['PATH']}"}
        folder.mkdir()

    def here(self, text: str) -> str:
        """The text with the names of this run."""
        text = text.replace("wghsm init ", f"wghsm init --folder {self._etc} ")
        text = text.replace("/etc/wghsm", str(self._etc)).replace("/etc/wireguard", str(self.folder))
        return re.sub(rf"\b{TUNNEL}\b", self.interface, text)

    def run(self, text: str) -> str:
        """Run a block, each line must succeed; what it exports stays for the next block. Gives its output."""
        script = f"set -eu\ncd {self.folder}\n{self.here(text)}\n"
        for name, value in re.findall(r"^export (\w+)=(.*)$", script, re.MULTILINE):
            self._environment[name] = value
        return self.namespace.run("bash", "-c", script, env=self._environment, limit=120).stdout


@pytest.fixture
def ends(lab: Lab) -> Iterator[tuple[_End, _End, str]]:
    """The gateway's end, the client's end, and the address between them."""
    near, far = lab.namespace("near"), lab.namespace("far")
    link = lab.connect(near, far)
    etc = lab.scratch / "etc"
    etc.mkdir()
    gateway, client = (_End(space, lab.scratch / space.name, etc) for space in (near, far))
    yield gateway, client, link.left.ipv4
    near.run(_PROGRAMS / "wghsm", "down", gateway.interface, check=False)
    # A gateway leaves its log and its state, which the next one of its name will want.
    for folder in ("/run/wghsm", "/var/lib/wghsm"):
        shutil.rmtree(Path(folder, gateway.interface), ignore_errors=True)
    # A stock peer takes its socket away when it ends.
    for pid in far.run("ip", "netns", "pids", far.name).stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)
    socket = Path("/var/run/wireguard", f"{client.interface}.sock")
    until(lambda: not socket.exists(), "the stock peer ends")


def _quick_start() -> list[tuple[str, str]]:
    return list(blocks(README.read_text().partition("\n## Quick start\n")[2].partition("\n## ")[0]))


def test_the_quick_start(ends: tuple[_End, _End, str]) -> None:
    gateway, client, address = ends
    said: dict[str, str] = {}
    for where, text in _quick_start():
        end = gateway if where == "gateway" else client
        said[where] = end.run(text.replace("192.0.2.1", address))
        if (gateway.folder / "alice.conf").exists():
            (gateway.folder / "alice.conf").rename(client.folder / f"{client.interface}.conf")
    assert "0% packet loss" in said["client"]
    for word in ("alice", "latest handshake", "CKA_EXTRACTABLE"):
        assert word in said["gateway"]
    until(lambda: gateway.interface not in gateway.namespace.interfaces(), "the gateway's interface goes")


def test_the_first_steps(ends: tuple[_End, _End, str]) -> None:
    gateway, client, address = ends
    said: dict[str, list[str]] = {"gateway": [], "client": []}
    known: dict[str, str] = {"192.0.2.1": address}

    def filled(text: str) -> str:
        for word, value in known.items():
            text = text.replace(word, value)
        return text

    def key_in(text: str) -> str:
        found = re.search(r"^[A-Za-z0-9+/]{43}=$", text, re.MULTILINE)
        assert found, text
        return found[0]

    def yaml(text: str) -> None:
        (gateway.folder.parent / f"etc/{gateway.interface}.yaml").write_text(gateway.here(filled(text)))

    def at(end: _End, name: str) -> Callable[[str], None]:
        def run(text: str) -> None:
            said[name].append(end.run(filled(text)))

        return run

    ways = {"yaml": yaml, "gateway": at(gateway, "gateway"), "client": at(client, "client")}
    for where, text in blocks(FIRST_STEPS.read_text()):
        ways[where](text)
        if where == "client" and "CLIENT_PUBLIC_KEY" not in known:
            known["CLIENT_PUBLIC_KEY"] = key_in(said["client"][0])
        if (gateway.folder / "alice.psk").exists() and not (client.folder / "alice.psk").exists():
            known["GATEWAY_PUBLIC_KEY"] = key_in(said["gateway"][-1])
            (gateway.folder / "alice.psk").rename(client.folder / "alice.psk")
    assert len(said["gateway"]) == 3
    assert "0% packet loss" in said["client"][-1]
    for word in ("alice", "latest handshake"):
        assert word in said["gateway"][-1]
    until(lambda: gateway.interface not in gateway.namespace.interfaces(), "the gateway's interface goes")


def test_the_operators_guide(ends: tuple[_End, _End, str]) -> None:
    gateway, _, address = ends
    gateway.run(_quick_start()[0][1].replace("192.0.2.1", address))
    said = [gateway.run(text) for where, text in blocks(GUIDE.read_text()) if where == "gateway"]
    shown = json.loads((gateway.folder / "status.json").read_text())[0]
    assert (shown["token"]["state"], shown["reload_refused"]) == ("ready", "")
    assert {each["state"] for each in shown["processes"]} == {"ready"}
    assert json.loads((gateway.folder / "doctor.json").read_text())["verdict"] == "green"
    assert "wghsm_inventory_due 0.0" in (gateway.folder / "wghsm.prom").read_text()
    assert "nothing would change" in "".join(said)
    assert [each["name"] for each in shown["peers"]] == ["alice", "bob"]


def test_readme_names_the_pages_that_are_there() -> None:
    named = set(re.findall(r"\]\(([^)]+)\)", README.read_text()))
    for name in named:
        assert (README.parent / name).exists(), name
    assert {f"docs/{page.name}" for page in README.parent.glob("docs/*.md")} <= named

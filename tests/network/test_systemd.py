"""The unit under a real systemd: start, reload, credentials, watchdog, final faults, and what it may reach."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.support import KeyPair, Lab, Pinger, StockPeer, ping_until, until
from tests.network.support.systemd import UNITS, Machine

UNIT = "wghsm@wg0"
FILE = "/etc/wghsm/wg0.yaml"
EXPOSURE = 31
"""What `systemd-analyze security` may find, in tenths: 10 is as exposed as root without any fence."""

_CHECKOUT = Path(__file__).parents[2]
_MODULE = "SOFTHSM2_CONF=/etc/wghsm/hsm/softhsm2.conf"


class _Site:
    """A machine with a token and a gateway file, and a stock peer outside."""

    def __init__(self, lab: Lab) -> None:
        near, far = lab.namespace("near"), lab.namespace("far")
        self.link = lab.connect(near, far)
        self.machine: Machine = lab.add(Machine(near, lab.scratch))
        self.peer: StockPeer = lab.stock_peer(far, addresses=["10.8.0.2/24"])
        # A checkout may lie where the unit sees nothing, under /home or /tmp.
        self.drop_in("here", f"BindReadOnlyPaths={_CHECKOUT}", f"Environment={_MODULE}")
        self.machine.run("systemd-sysusers", "wghsm.conf")
        self.machine.run("systemd-tmpfiles", "--create", "wghsm.conf")
        self.machine.run("wghsm", "token", "init", "--softhsm", "/etc/wghsm/hsm", "--label", "gw")
        self.pin = "file:/etc/wghsm/hsm/gw.pin"
        self.write()
        made = self.machine.run("env", _MODULE, "wghsm", "key", "generate", "-c", FILE).stdout
        found = re.search(r"^[A-Za-z0-9+/]{43}=$", made, re.MULTILINE)
        assert found, made
        self.peer.set_peer(found[0], ["10.8.0.0/24"], endpoint=self.link.left.endpoint(4, 51820))

    def drop_in(self, name: str, *lines: str) -> None:
        text = "[Service]\n" + "".join(f"{line}\n" for line in lines)
        self.machine.write(f"{UNITS}/wghsm@.service.d/{name}.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def write(self, *others: str, workers: int = 1) -> None:
        """The gateway file, with peers of these names beside the stock peer."""
        uri = f"pkcs11:token=gw?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source={self.pin}"
        peers = {"stock": (self.peer.public_key, 2)}
        peers |= {name: (KeyPair.make().public, 10 + number) for number, name in enumerate(others)}
        entries = [
            {"name": name, "public_key": key, "preshared_key": "none", "allowed_ips": [f"10.8.0.{host}/32"]}
            for name, (key, host) in peers.items()
        ]
        interface = {"name": "wg0", "key": "gateway", "listen_port": 51820, "addresses": ["10.8.0.1/24"]}
        said = {"version": 1, "token": {"uri": uri}, "interface": interface, "peers": entries}
        said["tunnel"] = {"workers": workers}
        self.machine.write(FILE, json.dumps(said, indent=2))

    def shown(self, name: str) -> str:
        return self.machine.run("systemctl", "show", "--value", "-p", name, UNIT).stdout.strip()

    def is_serving(self) -> bool:
        return self.shown("StatusText").startswith("serving")


@pytest.fixture
def site(lab: Lab) -> Iterator[_Site]:
    made = _Site(lab)
    yield made
    made.machine.run("systemctl", "stop", UNIT, check=False)


def test_a_life_under_systemd(lab: Lab, site: _Site) -> None:
    machine = site.machine
    # A setting that systemd does not know would be warned of here.
    assert machine.run("systemd-analyze", "verify", "--man=no", f"{UNITS}/{UNIT}.service").stderr == ""
    machine.run("systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSURE}", f"{UNIT}.service")
    machine.run("systemctl", "start", UNIT)
    assert site.is_serving()
    users = machine.run("ps", "-eo", "user:20").stdout
    assert {"wghsm-custodian", "wghsm-handshake", "wghsm-egress", "wghsm-ingress", "wghsm-control"} <= set(
        users.split()
    )
    ping_until(site.peer.namespace, "10.8.0.1")
    pinger = lab.add(Pinger(site.peer.namespace, "10.8.0.1", lab.scratch))
    main = site.shown("MainPID")

    site.write("bob")
    machine.run("systemctl", "reload", UNIT)
    assert "bob" in machine.run("wghsm", "status", "wg0").stdout
    machine.write(FILE, "version: 1\ninterface: [")
    assert machine.run("systemctl", "reload", UNIT, check=False).returncode != 0
    assert f"{FILE}:" in machine.journal(UNIT)
    pinger.answer_after(time.time())
    assert pinger.stop().missing == ()
    assert site.shown("MainPID") == main

    machine.run("systemctl", "stop", UNIT)
    assert site.shown("ActiveState") == "inactive"
    assert site.shown("Result") == "success"
    assert "wg0" not in machine.run("ip", "link").stdout


def test_the_pin_as_a_credential_and_a_supervisor_that_hangs(site: _Site) -> None:
    machine = site.machine
    machine.run("mv", "/etc/wghsm/hsm/gw.pin", "/etc/wghsm.pin")
    site.drop_in("credential", "LoadCredential=pin:/etc/wghsm.pin", "WatchdogSec=2", "RestartSec=0")
    site.pin = "credential:pin"
    site.write()
    machine.run("systemctl", "start", UNIT)
    machine.run("kill", "-STOP", site.shown("MainPID"))
    until(lambda: site.shown("NRestarts") == "1" and site.is_serving(), "the gateway is started again", 120.0)
    assert "watchdog" in machine.journal().lower()


def test_several_workers_are_steered_with_the_drop_in_that_the_docs_name(site: _Site) -> None:
    machine, refused = site.machine, "the kernel does not steer"
    site.write(workers=2)
    machine.run("systemctl", "start", UNIT)
    assert machine.journal(UNIT).count(refused) == 1
    machine.run("systemctl", "stop", UNIT)
    text = (_CHECKOUT / "docs/scaling.md").read_text()
    fence = re.search(r"\n    \[Service\]\n((?:    [^\n]+\n)*    SystemCallFilter=bpf\n)", text)
    assert fence
    site.drop_in("workers", *map(str.strip, fence[1].splitlines()))
    machine.run("systemctl", "start", UNIT)
    ping_until(site.peer.namespace, "10.8.0.1")
    assert len(re.findall("ingress", machine.run("ps", "-eo", "user:20").stdout)) == 2
    assert machine.journal(UNIT).count("the gateway serves") == 2
    assert machine.journal(UNIT).count(refused) == 1


def test_a_fault_that_a_restart_cannot_mend(site: _Site) -> None:
    machine = site.machine
    machine.run("bash", "-c", "echo 12345678 >/etc/wghsm/hsm/gw.pin")
    assert machine.run("systemctl", "start", UNIT, check=False).returncode != 0
    assert site.shown("ActiveState") == "failed"
    assert site.shown("ExecMainStatus") == "3"
    assert site.shown("NRestarts") == "0"
    assert "PIN" in machine.journal(UNIT)

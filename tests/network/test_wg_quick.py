"""Debian's wg-quick(8) with `wghsm-quick` as its program: the example of docs/wg-quick.md, and what is refused."""

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.support import KeyPair, Lab, StockPeer, make_psk, ping, ping_until, unique_interface, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.view import with_file
from wghsm.exits import ExitCode
from wghsm.supervisor import running_pid, runtime_directory

PAGE = Path(__file__).parents[2] / "docs/wg-quick.md"
PROGRAM = Path(sys.executable).with_name("wghsm-quick")


class Quick:
    """The two files of the page, filled in, a namespace for them, and a client."""

    def __init__(self, lab: Lab, token: GatewayToken) -> None:
        self.lab, self.token = lab, token
        self.name = unique_interface("wgq")
        self.namespace = lab.namespace("quick")
        self.yaml = lab.scratch / f"{self.name}.yaml"
        self.conf = lab.scratch / f"{self.name}.conf"
        self.environment = {
            **token.environment,
            "WG_QUICK_USERSPACE_IMPLEMENTATION": str(PROGRAM),
            "WGHSM_GATEWAY_FILE": str(self.yaml),
        }
        self.keys, self.psk = KeyPair.make(), make_psk()
        text = PAGE.read_text()
        yaml, conf = (re.findall(rf"^```{kind}\n(.*?)^```$", text, re.M | re.S)[0] for kind in ("yaml", "ini"))
        yaml = re.sub(r"pkcs11:[^\"]*", lambda _: token.uri, yaml).replace("name: wg0", f"name: {self.name}")
        self.yaml.write_text(yaml + f"state_directory: {lab.scratch}/state\n")
        conf = conf.replace("CLIENT_PUBLIC_KEY", self.keys.public).replace("CLIENT_PRESHARED_KEY", self.psk)
        self.conf.write_text(conf)
        self.conf.chmod(0o600)

    def quick(self, verb: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.namespace.run("wg-quick", verb, self.conf, check=check, env=self.environment, limit=120)

    def program(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.namespace.run(PROGRAM, *words, check=False, env=self.environment)

    def shown(self, *words: str) -> str:
        return self.namespace.run(*words).stdout

    def client(self) -> StockPeer:
        space = self.lab.namespace("client")
        link = self.lab.connect(self.namespace, space)
        stock = self.lab.stock_peer(space, ["10.8.0.2/24", "fd08::2/64"], 51821, self.keys)
        endpoint = link.left.endpoint(4, 51820)
        stock.set_peer(self.token.public_key("gateway"), ["10.8.0.0/24", "fd08::/64"], endpoint, self.psk)
        return stock

    def gone(self) -> bool:
        return running_pid(self.name) is None

    def close(self) -> None:
        if self.name in self.namespace.interfaces():
            self.namespace.run("ip", "link", "delete", self.name)
        until(self.gone, "the end of the gateway")
        shutil.rmtree(runtime_directory(self.name), ignore_errors=True)


@pytest.fixture
def quick(lab: Lab, token: GatewayToken) -> Iterator[Quick]:
    made = Quick(lab, token)
    yield made
    made.close()


def test_up_and_down(quick: Quick, token: GatewayToken) -> None:
    quick.quick("up")
    (link,) = quick.shown("ip", "-brief", "link", "show", quick.name).splitlines()
    assert "UP" in link
    assert "mtu 1400" in quick.shown("ip", "link", "show", quick.name)
    addresses = quick.shown("ip", "-brief", "address", "show", quick.name)
    assert re.findall(r"\S+/\d+", addresses) == ["10.8.0.1/24", "fd08::1/64"]
    assert "10.30.0.0/16" in quick.shown("ip", "route", "show", "dev", quick.name)
    assert "peer" in quick.shown("wg", "show", quick.name)
    label = "wghsm-psk-" + quick.keys.public.rstrip("=").replace("+", "-").replace("/", "_")
    assert token.secret_value(label) == base64.b64decode(quick.psk)
    stock = quick.client()
    ping_until(stock.namespace, "10.8.0.1")
    assert ping(quick.namespace, "fd08::2", count=3).lost == 0
    again = quick.quick("up", check=False)
    assert again.returncode != 0
    assert "already exists" in again.stderr
    # As `systemctl reload wg-quick@NAME` does it.
    other = KeyPair.make().public
    conf = quick.conf.read_text()
    quick.conf.write_text(f"{conf}\n[Peer]\nPublicKey = {other}\nAllowedIPs = 10.8.0.3/32\n")
    handshake = stock.latest_handshake(token.public_key("gateway"))
    sync = f"wg syncconf {quick.name} <(wg-quick strip {quick.conf})"
    quick.namespace.run("bash", "-c", sync, env=quick.environment)
    assert set(quick.shown("wg", "show", quick.name, "peers").split()) == {quick.keys.public, other}
    assert ping(stock.namespace, "10.8.0.1", count=3).lost == 0
    assert stock.latest_handshake(token.public_key("gateway")) == handshake
    quick.quick("down")
    assert quick.name not in quick.namespace.interfaces()
    until(quick.gone, "the gateway ends with its interface")
    # Its last line comes when it has let go of everything.
    log = runtime_directory(quick.name) / "log"
    until(lambda: "was deleted from outside" in log.read_text(), "the reason in the log")
    quick.conf.write_text(conf)


def test_up_follows_down_at_once(quick: Quick) -> None:
    for _ in range(3):
        quick.quick("up")
        assert "listening port: 51820" in quick.shown("wg", "show", quick.name)
        quick.quick("down")


def test_a_default_route(quick: Quick) -> None:
    text = quick.conf.read_text().replace("10.30.0.0/16", "0.0.0.0/0, ::/0")
    quick.conf.write_text(text)
    quick.quick("up")
    mark = quick.shown("wg", "show", quick.name, "fwmark").strip()
    table = str(int(mark, 16))
    assert f"not from all fwmark {mark} lookup {table}" in quick.shown("ip", "-4", "rule", "show")
    for family in ("-4", "-6"):
        assert f"default dev {quick.name}" in quick.shown("ip", family, "route", "show", "table", table)
    # The mark keeps the gateway's own packets out of the tunnel.
    stock = quick.client()
    ping_until(stock.namespace, "10.8.0.1")
    assert ping(quick.namespace, "10.8.0.2", count=3).lost == 0
    quick.quick("down")
    assert table not in quick.shown("ip", "-4", "rule", "show")


def test_the_file_is_found_by_the_name_of_the_interface(quick: Quick) -> None:
    del quick.environment["WGHSM_GATEWAY_FILE"]
    told = quick.program(quick.name)
    assert told.returncode == ExitCode.BAD_CONFIG
    assert told.stderr.startswith(f"wghsm: there is no gateway file /etc/wghsm/{quick.name}.yaml; write it")
    for verb in ("up", "down"):
        words = [*with_file(quick.yaml), "wg-quick", verb, quick.conf]
        quick.namespace.run(*words, env=quick.environment, limit=120)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("name: ", "name: x", "write interface.name: "),
        ("  table: off\n", "  table: off\n  addresses: [10.8.0.1/24]\n", "take interface.addresses away"),
        ("table: off", "table: auto", "write interface.table: off"),
        ("authority: runtime", "authority: file", "write interface.authority: runtime"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(quick: Quick, old: str, new: str, reason: str) -> None:
    quick.yaml.write_text(quick.yaml.read_text().replace(old, new))
    told = quick.program(quick.name)
    assert told.returncode == ExitCode.BAD_CONFIG
    assert len(told.stderr.splitlines()) == 1
    assert reason in told.stderr
    assert quick.quick("up", check=False).returncode != 0
    assert quick.name not in quick.namespace.interfaces()


def test_a_private_key_in_the_conf_is_refused_and_nothing_is_left(quick: Quick) -> None:
    text = quick.conf.read_text().replace("[Interface]\n", f"[Interface]\nPrivateKey = {quick.keys.private}\n")
    quick.conf.write_text(text)
    told = quick.quick("up", check=False)
    assert told.returncode != 0
    assert "Operation not permitted" in told.stderr
    assert quick.name not in quick.namespace.interfaces()
    until(quick.gone, "the end of the gateway")


def test_in_the_foreground(quick: Quick) -> None:
    environment = {**os.environ, **quick.environment}
    process = quick.namespace.start(PROGRAM, "-f", quick.name, folder=quick.lab.scratch, label="f", env=environment)
    with process:
        until(lambda: "the gateway serves" in process.stderr(), "it serves", 60)
        assert running_pid(quick.name) == process.pid
    assert process.returncode == 0

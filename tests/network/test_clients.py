"""A client's days at a running gateway: added, disabled, enabled, expired, restored from a backup."""

import base64
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.network.support import Lab, StockPeer, ping, ping_until, until
from tests.network.support.client_conf import client_from, connect_client
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site
from tests.network.support.software_peer import SoftwarePeer
from wghsm.noise.tai64n import from_unix_ns


class Scene:
    """A gateway that runs, with a client that is never changed, and a way to one more."""

    def __init__(self, lab: Lab, token: GatewayToken) -> None:
        self.lab = lab
        self.site = Site(lab, token)
        self.stays: Client = self.site.client("stays")
        self.far = lab.namespace("far")
        self.link = lab.connect(self.site.namespace, self.far)
        self.endpoint = self.link.left.endpoint(4, self.site.gateway.listen_port)
        self.gateway = self.site.start()
        self.stays.start()
        ping_until(self.stays.namespace, self.site.inner4)

    def peer(self, *words: str) -> str:
        """Run `wghsm peer`."""
        done = self.gateway.command("peer", *words, "-c", self.gateway.file)
        return done.stdout + done.stderr

    def add(self, name: str) -> tuple[StockPeer, str]:
        """Add a client, and start it with the file that it was given."""
        said = json.loads(
            self.peer("add", name, "--generate-client-key", "--endpoint", self.endpoint, "--out", "-", "--json")
        )
        assert said["gateway"]["state"] == "in-force"
        return client_from(self.lab, self.far, said["config"], said["public_key"]), said["config"]

    def states(self) -> dict[str, str]:
        """The state of each peer by `peer list`, which `status` agrees with."""
        listed = {each["name"]: each["state"] for each in json.loads(self.peer("list", "--json"))}
        (status,) = json.loads(self.gateway.command("status", self.gateway.name, "--json").stdout)
        served = {each["name"]: "active" for each in status["peers"]}
        assert listed == served | {each["name"]: each["state"] for each in status["inactive"]}
        return listed

    def reaches(self, count: int = 2) -> int:
        """How many of `count` pings come back to the client that was added."""
        return ping(self.far, self.site.inner4, count=count, wait=1.0).received


@pytest.fixture
def scene(lab: Lab, token: GatewayToken) -> Iterator[Scene]:
    yield Scene(lab, token)


def test_a_client_from_its_first_to_its_last_day(scene: Scene) -> None:
    site, gateway = scene.site, scene.gateway
    phone, conf = scene.add("phone")
    ping_until(scene.far, site.inner4)
    ping_until(scene.far, site.inner6)
    assert scene.states() == {"stays": "active", "phone": "active"}
    scene.stays.wait_until_known()
    handshake = scene.stays.latest_handshake()

    scene.peer("disable", "phone")
    assert scene.reaches() == 0
    assert scene.states()["phone"] == "disabled"
    shown = gateway.command("status", gateway.name).stdout
    assert f"peer: phone, disabled\n  public key: {phone.public_key}\n" in shown
    planned = gateway.command("plan", gateway.file)
    assert "nothing would change" in planned.stdout

    scene.peer("enable", "phone")
    phone.remove_peer(site.gateway_key)
    connect_client(phone, conf)
    ping_until(scene.far, site.inner4)

    scene.peer("rename", "phone", "old phone")
    assert scene.reaches() == 2

    # The gateway takes it out by itself.
    moment = datetime.now(UTC) + timedelta(seconds=3)
    scene.peer("expire", "old phone", f"{moment:%Y-%m-%dT%H:%M:%SZ}")
    until(lambda: "peer old phone has expired" in gateway.log(), "the expiry")
    assert time.time() >= moment.replace(microsecond=0).timestamp()
    assert scene.reaches() == 0
    assert scene.states() == {"stays": "active", "old phone": "expired"}
    shown = gateway.command("status", gateway.name).stdout
    assert f"\n  expires: {moment.astimezone():%Y-%m-%d %H:%M:%S}" in shown.partition("peer: old phone, expired\n")[2]
    assert "nothing would change" in gateway.command("plan", gateway.file).stdout

    scene.peer("remove", "old phone", "--yes")
    assert scene.states() == {"stays": "active"}
    assert ping(scene.stays.namespace, site.inner4, count=2).received == 2
    assert scene.stays.latest_handshake() == handshake


def test_a_client_whose_clock_ran_ahead_is_let_in_again(scene: Scene) -> None:
    private = os.urandom(32)
    key = base64.b64decode(scene.site.gateway_key)
    peer = scene.lab.add(SoftwarePeer(scene.far, private, key, scene.endpoint))
    public = base64.b64encode(peer.public_key).decode()
    scene.peer("add", "restored", "--public-key", public, "--psk", "none", "--endpoint", scene.endpoint, "--out", "-")
    ahead = from_unix_ns(time.time_ns() + 365 * 86_400 * 10**9)
    peer.socket.sendto(peer.initiation(ahead)[2], peer.target)
    until(lambda: scene.gateway.peer(public).latest_handshake is not None or peer.socket.recv(2048), "a response")
    refused = scene.gateway.counter("old-timestamp")
    peer.socket.sendto(peer.initiation(from_unix_ns(time.time_ns()))[2], peer.target)
    until(lambda: scene.gateway.counter("old-timestamp") > refused, "it is refused")
    assert "whatever its time" in scene.peer("reset-timestamp", "restored", "--yes")
    peer._timestamp = None
    assert peer.initiate()
    scene.gateway.stop()
    assert "not running" in scene.peer("reset-timestamp", "restored", "--yes")
    assert scene.gateway.start().serves()

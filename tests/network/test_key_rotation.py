"""The gateway gets another key: stock clients move to it one by one, or at once where the old one was compromised."""

import dataclasses
import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from tests.network.support import Lab, Pinger, UdpStream, ping_until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.process import until
from tests.network.support.site import Client, Site
from wghsm.exits import ExitCode

_INSIDE = ["10.8.0.0/24", "fd08::/64"]


def _site(lab: Lab, token: GatewayToken) -> Site:
    """A gateway with a key of its own."""
    label = f"rotated-{secrets.token_hex(4)}x"
    token.generate(label)
    return Site(lab, token, key=label)


def _wrap_psk(client: Client) -> None:
    """Give the client a wrapped PSK, before the start."""
    gateway = client.site.gateway
    gateway.token_section = {"psk_wrap_key": f"{gateway.key}-wrap"}
    gateway.peers = [
        dataclasses.replace(peer, preshared_key="wrapped:client.psk") if peer.name == client.name else peer
        for peer in gateway.peers
    ]
    gateway.write()
    gateway.command("psk", "wrap", "--make-key", "-c", gateway.file)
    gateway.command("psk", "wrap", client.name, "--generate", "-c", gateway.file)
    client.secret = _handed_out(client)[1]


def _handed_out(client: Client) -> tuple[str, str]:
    """The gateway's public key and the client's PSK, as the operator hands them out."""
    gateway, name = client.site.gateway, client.name
    section = gateway.command("psk", "export", name, "-c", gateway.file, "--peer-section", "--out", "-").stdout
    found = re.search(r"^PublicKey = (\S+)\nPresharedKey = (\S+)$", section, re.MULTILINE)
    assert found
    return found[1], found[2]


def _move(client: Client, old: str, new: str, psk: str | None) -> None:
    """Put the gateway's new entry in the place of the old one."""
    assert client.stock is not None
    client.stock.remove_peer(old)
    client.stock.set_peer(new, _INSIDE, client.gateway_endpoint if client.dials else None, psk)


def _traffic(clients: Sequence[Client]) -> list[UdpStream]:
    """Packets of all, both ways."""
    return [
        client.site.lab.add(UdpStream(sender, receiver, address, client.site.lab.scratch, rate=50))
        for client in clients
        for sender, receiver, address in (
            (client.namespace, client.site.namespace, client.site.inner4),
            (client.site.namespace, client.namespace, client.ipv4),
        )
    ]


def _nothing_lost(streams: Sequence[UdpStream]) -> None:
    for stream in streams:
        stream.wait_for(50)
    assert [stream.finish().lost for stream in streams] == [()] * len(streams)


def _reach(client: Client) -> None:
    """Pings go through, from whoever calls; a session that is no use any more may have to be noticed first."""
    if client.dials:
        ping_until(client.namespace, client.site.inner4, limit=120)
    else:
        ping_until(client.site.namespace, client.ipv4, limit=120)


def _rekey(client: Client) -> None:
    before = client.wait_for_age()
    client.site.gateway.command("rekey", client.site.gateway.name, client.name)
    client.wait_for_handshake(before)


def _used(client: Client) -> str | None:
    return client.site.gateway.peer(client.public_key).gateway_key


def _uses(client: Client, key: str) -> None:
    until(lambda: _used(client) == key, f"{client.name} is seen to use {key}")


def test_clients_move_one_by_one(lab: Lab, token: GatewayToken) -> None:
    site = _site(lab, token)
    moves, stays = site.client("moves", "derived"), site.client("stays", family=6)
    called_moves, called_stays = (
        site.client("called-moves", dials=False),
        site.client("called-stays", "derived", dials=False),
    )
    clients = (moves, stays, called_moves, called_stays)
    gateway, label = site.gateway, site.gateway.key
    _wrap_psk(called_moves)
    old = site.gateway_key
    gateway.start()
    for client in clients:
        client.start()
        _reach(client)
        _uses(client, old)

    report = json.loads(gateway.command("key", "rotate", "-c", gateway.file, "--yes", "--json").stdout)
    new = report["public_key"]
    assert new not in (old, None)
    assert [one["peer"] for one in report["peers"] if one["new_psk"]] == ["moves", "called-stays"]
    # The gateway runs as before, until it reads its file again, and says so.
    assert gateway.status().previous_key is None
    early = gateway.command("key", "retire", "-c", gateway.file, check=False)
    assert (early.returncode, "first: wghsm reload" in early.stderr) == (ExitCode.FAILURE, True)
    streams = _traffic(clients)
    for stream in streams:
        stream.wait_for(20)
    gateway.command("reload", gateway.name)
    status = gateway.status()
    assert (status.public_key, status.key_label) == (new, f"{label}-2")
    assert (status.previous_key, status.previous_key_label) == (old, label)

    # Nobody has moved, and nobody notices, who calls and who is called; what they used is known still.
    assert [_used(client) for client in clients] == [old] * 4
    _nothing_lost(streams)
    for client in clients:
        _rekey(client)
        assert _used(client) == old
    _move(moves, old, *_handed_out(moves))
    _move(called_moves, old, new, called_moves.secret)
    assert _handed_out(called_moves) == (new, called_moves.secret)
    for client in (moves, called_moves):
        _reach(client)
        _uses(client, new)
    for client in (stays, called_stays):
        _reach(client)
        assert _used(client) == old

    _nothing_lost(_traffic(clients))

    said = gateway.command("status", gateway.name).stdout
    assert f"public key: {new} ({label}-2)" in said
    assert f"previous key: {old} ({label})" in said
    assert f"key rotation: 2 of 4 peers still use {label}: stays, called-stays\n" in said
    (plain,) = json.loads(gateway.command("status", gateway.name, "--json").stdout)
    assert plain["still_on_previous_key"] == ["stays", "called-stays"]

    # Retired against their will: cut off, they alone.
    refused = gateway.command("key", "retire", "-c", gateway.file, check=False)
    assert refused.returncode == ExitCode.FAILURE
    assert f"2 of 4 peers still use '{label}': stays, called-stays;" in refused.stderr
    busy = gateway.command("key", "destroy", label, "-c", gateway.file, "--yes", check=False)
    assert busy.returncode == ExitCode.BAD_CONFIG
    gateway.command("key", "retire", "-c", gateway.file, "--force")
    busy = gateway.command("key", "destroy", label, "-c", gateway.file, "--yes", check=False)
    assert (busy.returncode, "still runs with" in busy.stderr) == (ExitCode.FAILURE, True)
    streams = _traffic((moves, called_moves))
    for stream in streams:
        stream.wait_for(20)
    gateway.command("reload", gateway.name)
    assert gateway.status().previous_key is None
    # They had a session under the old key minutes ago, so they are called anew, and go on.
    for stream in streams:
        stream.wait_for(50)
        stream.finish()
    _is_cut_off(stays)
    _is_cut_off(called_stays)
    gateway.command("key", "destroy", label, "-c", gateway.file, "--yes")

    # They move late.
    _move(stays, old, new, None)
    _move(called_stays, old, *_handed_out(called_stays))
    for client in clients:
        _reach(client)
        _uses(client, new)


def _is_cut_off(client: Client) -> None:
    """There is somebody to talk to, and calls, but nobody who answers them; no session comes of it."""
    site = client.site
    space, address = (client.namespace, site.inner4) if client.dials else (site.namespace, client.ipv4)
    pinger = Pinger(space, address, site.lab.scratch)
    try:
        before, latest = _dropped(client), client.latest_handshake()
        until(lambda: _dropped(client) > before + 1, f"calls of {client.name} or to it are dropped", 60, pause=0.2)
        assert not pinger.answers()
    finally:
        pinger.stop()
    assert client.latest_handshake() == latest


def _dropped(client: Client) -> int:
    """How many initiations were dropped: the client's for another key, or the gateway's with a key it does not know."""
    if client.dials:
        return client.site.gateway.counter("bad-mac1")
    assert client.stock is not None
    return client.stock.log().count("Received invalid initiation message")


def test_a_compromised_key_serves_nobody(lab: Lab, token: GatewayToken) -> None:
    site = _site(lab, token)
    alice, bob = site.client("alice", "derived"), site.client("bob", dials=False)
    gateway, label, old = site.gateway, site.gateway.key, site.gateway_key
    _wrap_psk(bob)
    gateway.start()
    for client in (alice, bob):
        client.start()
        _reach(client)
    said = gateway.command("key", "rotate", "-c", gateway.file, "--compromised", "--yes").stdout
    assert "every peer is cut off until it has the new public key" in said
    assert "previous_key" not in Path(gateway.file).read_text()
    gateway.stop()
    gateway.start()
    assert gateway.status().key_label == f"{label}-2"
    for client in (alice, bob):
        _is_cut_off(client)
    for client in (alice, bob):
        _move(client, old, *_handed_out(client))
        _reach(client)
    gateway.command("key", "destroy", label, "-c", gateway.file, "--yes")

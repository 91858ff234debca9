"""tshark, which knows WireGuard, reads a conversation from the line, and decrypts it by a client's keys."""

import base64
import subprocess
from pathlib import Path

import pytest

from tests.network.support import Lab, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site
from tests.network.support.software_peer import SoftwarePeer

SESSIONS = 2


@pytest.mark.parametrize("family", [4, 6])
def test_tshark_decrypts_a_conversation(lab: Lab, token: GatewayToken, family: int) -> None:
    """Two handshakes with a derived PSK; in each session an echo, its answer and a keepalive."""
    site = Site(lab, token)
    client = site.client("alice", "derived", family)
    site.start()
    peer = SoftwarePeer(
        client.namespace,
        base64.b64decode(client.keys.private),
        base64.b64decode(site.gateway_key),
        client.gateway_endpoint,
        base64.b64decode(site.secret_of(client) or ""),
    )
    lab.add(peer)
    capture = lab.scratch / "conversation.pcapng"
    dumper = lab.add(
        client.namespace.start(
            *("tshark", "-i", client.link.right.interface, "-f", f"udp port {site.gateway.listen_port}"),
            *("-w", capture),
            folder=lab.scratch,
            label="tshark",
        )
    )
    until(lambda: "Capture started" in dumper.stderr(), "tshark captures")
    for _ in range(SESSIONS):
        peer.initiate()
        peer.ping(client.ipv4, site.inner4)
        peer.send(b"")
    keys = key_log(client, peer, lab.scratch / "keys")
    expected = [
        ("1", site.gateway_key, client.public_key, "", "", ""),
        ("2", client.public_key, "", "1", "", ""),
        ("4", "", "", "", "", "8"),
        ("4", "", "", "", "", "0"),
        ("4", "", "", "", "1", ""),
    ] * SESSIONS
    port = peer.target[1]
    until(lambda: len(dissect(capture, keys, port)) >= len(expected), "the whole conversation", pause=0.5)
    assert dissect(capture, keys, port) == expected
    # Response and data of the gateway leave with AF41 and with nothing, and IPv4 lets the way cut them.
    assert outer(capture, port, family) == {("2", 0x88, False), ("4", 0, False)}


def key_log(client: Client, peer: SoftwarePeer, path: Path) -> Path:
    """Write the client's secrets as tshark reads them."""
    path.touch(mode=0o600)
    lines = [
        f"LOCAL_STATIC_PRIVATE_KEY = {client.keys.private}",
        f"REMOTE_STATIC_PUBLIC_KEY = {client.site.gateway_key}",
    ]
    for key in peer.ephemerals:
        lines.append(f"LOCAL_EPHEMERAL_PRIVATE_KEY = {base64.b64encode(key).decode()}")
        lines.append(f"PRESHARED_KEY = {client.site.secret_of(client)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def outer(capture: Path, port: int, family: int) -> set[tuple[str, int, bool]]:
    """Of the gateway's messages: type, outer TOS or traffic class, and whether DF is set."""
    words = ["tshark", "-r", str(capture), "-d", f"udp.port=={port},wg", "-Y", f"udp.srcport=={port}"]
    words += ["-T", "fields", "-E", "separator=|", "-e", "wg.type"]
    words += ["-e", "ip.dsfield" if family == 4 else "ipv6.tclass", "-e", "ip.flags.df"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    rows = [line.split("|") for line in done.stdout.splitlines()]
    return {(kind, int(tos, 16), df in ("1", "True")) for kind, tos, df in rows}


def dissect(capture: Path, keys: Path, port: int) -> list[tuple[str, ...]]:
    """Give the fields of each message, but for initiations that stayed without an answer: they were repeated."""
    words = ["tshark", "-2", "-r", str(capture), "-o", f"wg.keylog_file:{keys}", "-d", f"udp.port=={port},wg"]
    words += ["-T", "fields", "-E", "separator=|"]
    for field in (
        "wg.response_in",
        "wg.type",
        "wg.receiver_pubkey",
        "wg.static",
        "wg.handshake_ok",
        "wg.keepalive",
        "icmp.type",
    ):
        words += ["-e", field]
    # Its capture may be in the middle of a record.
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    rows = [tuple(line.split("|")) for line in done.stdout.splitlines()]
    return [row[1:] for row in rows if row[0] or row[1] != "1"]

"""The audit log of a whole gateway: what it holds, who can verify it, and what failures of it cost."""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.network import support
from tests.network.support import Lab, ping_until, until
from tests.network.support.log_server import LogServer, make_certificate
from tests.network.support.site import Client, Site
from tests.network.support.wireguard_go import KeyPair, make_psk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.network.support.gateway_token import GatewayToken

AUDIT_KEY = "audit"
FLOOD_SECONDS = float(os.environ.get("WGHSM_FLOOD_SECONDS", "5"))
"""docs/audit.md has the command for ten minutes of it."""


class AuditedSite:
    """A gateway with an audit log in a folder of its own, and a client."""

    def __init__(self, lab: Lab, token: GatewayToken, folder: Path, **settings: object) -> None:
        self.token = token
        self.folder = folder / "log"
        self.site = Site(lab, token)
        self.client: Client = self.site.client("client", psk="derived")
        self.gateway = self.site.gateway
        self.configure(**settings)

    def configure(self, **settings: object) -> None:
        """Write the gateway file with this section `audit`."""
        audit = {"directory": str(self.folder), "key": AUDIT_KEY, "journald": False, **settings}
        self.gateway.sections = {"audit": audit}
        self.gateway.write()

    def connect(self) -> None:
        """Let the client dial, until an echo comes back."""
        self.client.start()
        ping_until(self.client.namespace, self.site.inner4)

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        """The records on the disk, those of one kind."""
        lines = [line for file in sorted(self.folder.glob("gateway.*.jsonl")) for line in file.read_text().splitlines()]
        found = [json.loads(line) for line in lines]
        return [record for record in found if kind in ("", record["kind"])]

    def has(self, kind: str, operation: str, **wanted: object) -> bool:
        """Whether there is such a record."""
        return any(
            record["operation"] == operation and wanted.items() <= record.items() for record in self.records(kind)
        )

    def verify(self, *more: str | Path) -> subprocess.CompletedProcess[str]:
        """`wghsm audit verify` of what is there."""
        public = self.folder.parent / "audit.pem"
        public.write_text(self.token.command("audit", "key", "public", AUDIT_KEY).stdout)
        return self.gateway.command("audit", "verify", self.folder, "--key", public, *more, check=False)

    def state(self) -> str:
        """What status says of it."""
        audit = self.gateway.status().audit
        return "" if audit is None else audit.state


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def audited(lab: Lab, token: GatewayToken, folder: Path) -> AuditedSite:
    if token.command("audit", "key", "public", AUDIT_KEY, check=False).returncode:
        token.command("audit", "key", "generate", AUDIT_KEY)
    return AuditedSite(lab, token, folder)


def test_a_handshake_leaves_records_that_verify_with_the_public_key(audited: AuditedSite) -> None:
    gateway, client = audited.gateway, audited.client
    audited.site.start()
    audited.connect()
    until(lambda: audited.has("key.use", "accept", peer=client.public_key), "the record of a handshake")
    audit = gateway.status().audit
    assert audit is not None
    assert (audit.state, audit.directory, audit.unwritten) == ("ok", str(audited.folder), 0)
    assert "audit log" in gateway.command("status", gateway.name).stdout

    # Who asked is known from the socket: this very process.
    peer = KeyPair.make().public
    gateway.namespace.run("wg", "set", gateway.name, "peer", peer, "allowed-ips", "10.9.9.9/32")
    until(lambda: audited.has("peer.change", "add", peer=peer), "the record of a new peer")
    (added,) = audited.records("peer.change")
    assert added["who"]["uid"] == 0
    assert (added["detail"]["by"], added["detail"]["allowed_ips"]) == ("control", "10.9.9.9/32")
    psk = audited.folder.parent / "psk"
    psk.write_text(make_psk())
    refused = gateway.namespace.run("wg", "set", gateway.name, "peer", peer, "preshared-key", psk, check=False)
    assert refused.returncode
    until(lambda: audited.has("control.refused", "set"), "the record of a refusal")
    gateway.command("reload", gateway.name)
    until(lambda: audited.has("config.change", "reload", result="ok"), "the record of a reload")

    gateway.stop()
    (use,) = audited.records("key.use")
    assert use["key"] == audited.site.gateway_key
    assert use["detail"]["psk"] == "derived:0"
    assert use["latency_us"] > 0
    assert [login["result"] for login in audited.records("pin.login")] == ["ok"]
    assert audited.has("stop", "gateway", result="ok")
    assert audited.records()[-1]["kind"] == "checkpoint"
    assert psk.read_text() not in "".join(file.read_text() for file in audited.folder.glob("*.jsonl"))
    assert {file.stat().st_mode & 0o777 for file in audited.folder.glob("*.jsonl")} == {0o640}
    verdict = audited.verify()
    assert verdict.returncode == 0, verdict
    assert "as it was written" in verdict.stdout


def test_a_full_disk_costs_no_packet_and_stops_handshakes_where_that_is_asked_for(audited: AuditedSite) -> None:
    audited.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "audit", audited.folder], check=True)
    try:
        audited.configure(on_failure="stop-new-handshakes")
        gateway, client = audited.gateway, audited.client
        audited.site.start()
        audited.connect()
        streams = audited.site.streams(client)
        filler = audited.folder / "filler"
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        client.wait_for_age()

        def fails() -> bool:
            peer = KeyPair.make().public
            gateway.namespace.run("wg", "set", gateway.name, "peer", peer, "allowed-ips", "10.9.9.9/32")
            return audited.state() == "failing"

        # What is left of the file's last page takes a few records more, and a short one still where a long one fails.
        until(lambda: all(fails() for _ in range(10)), "the log fails for good", 60.0)

        def refuses() -> bool:
            gateway.command("rekey", gateway.name, client.name)
            return gateway.counter("audit-stopped") > 0

        until(refuses, "a handshake is refused", 60.0, pause=0.5)
        known = client.latest_handshake()

        def says_why() -> bool:
            fails()
            shown = gateway.command("status", gateway.name).stdout
            return "No space left on device" in next(line for line in shown.splitlines() if "audit log" in line)

        until(says_why, "status says why")
        filler.unlink()
        until(lambda: audited.state() == "ok", "the log is kept again")
        client.wait_for_handshake(known)
        for stream in streams:
            stream.wait_for(50, limit=60.0)
        assert [len(stream.finish().lost) for stream in streams] == [0, 0]
        assert "the audit log is not whole" in gateway.log()
        gateway.stop()
        *_, gap = audited.records("gap")
        assert (gap["operation"], "No space left" in gap["detail"]["text"]) == ("unwritten", True)
        assert gap["detail"]["count"] >= 1
        assert audited.verify().returncode == 0
    finally:
        subprocess.run(["umount", "--lazy", audited.folder], check=True)


@pytest.mark.timeout(FLOOD_SECONDS + 600)
def test_a_flood_of_strangers_grows_the_log_by_a_line_a_second_at_most(audited: AuditedSite, lab: Lab) -> None:
    gateway, client = audited.gateway, audited.client
    audited.site.start()
    audited.connect()
    until(lambda: audited.has("key.use", "accept"), "the record of a handshake")
    before = len(audited.records())
    script = Path(support.__file__).with_name("_flood_process.py")
    key, target = audited.site.gateway.public_key, client.link.left.ipv4
    words = (base64.b64decode(key).hex(), target, str(gateway.listen_port), client.link.right.ipv4)
    began = time.monotonic()
    flood = lab.add(client.namespace.start(sys.executable, script, *words, folder=lab.scratch, label="flood"))
    until(lambda: time.monotonic() - began > FLOOD_SECONDS, "the end of the flood", FLOOD_SECONDS + 60)
    flood.stop()
    lasted = time.monotonic() - began
    until(lambda: audited.records("aggregate"), "an aggregate")
    grown = [record["kind"] for record in audited.records()[before:]]
    assert grown.count("aggregate") <= lasted + 2
    assert len(grown) - grown.count("aggregate") <= 4 + lasted / 20
    assert max(len(record["detail"]) for record in audited.records("aggregate")) <= 20
    gateway.stop()


def test_records_stream_to_journald_and_syslog_which_anchor_them(audited: AuditedSite, folder: Path) -> None:
    certificate, key = make_certificate(folder)
    listener = _listener(audited.site)
    server = LogServer(certificate, key, listener=listener)
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        path = folder / "journal"
        journal.bind(str(path))
        path.chmod(0o666)
        datagrams: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(journal, datagrams), daemon=True).start()
        audited.configure(
            journald=str(path), syslog=f"127.0.0.1:{server.port}", syslog_ca=str(certificate), rotate_size="64K"
        )
        audited.site.start()
        audited.connect()
        until(lambda: audited.has("key.use", "accept"), "the record of a handshake")
        # Settings of the log are for a reload, which starts the auditor alone again.
        audited.configure(journald=str(path), syslog=f"127.0.0.1:{server.port}", syslog_ca=str(certificate))
        audited.gateway.command("reload", audited.gateway.name)
        begun = [("start", "auditor"), ("stop", "auditor"), ("start", "auditor")]

        def began_again() -> bool:
            said = [(record["kind"], record["operation"]) for record in audited.records()]
            return [one for one in said if one in begun] == begun

        until(began_again, "another auditor")
        audited.gateway.stop()
        lines = [json.dumps(record, separators=(",", ":")) for record in audited.records()]
        received: list[bytes] = []
        while len(received) < len(lines):
            received.append(server.messages.get(timeout=60))
        anchor = folder / "anchor"
        anchor.write_bytes(b"\n".join(received) + b"\n")
        for line in lines:
            assert f"MESSAGE={line}\n".encode() in datagrams.get(timeout=60)
        verdict = audited.verify("--anchor", anchor)
        assert verdict.returncode == 0, verdict
        # Whoever rewrites the files has not rewritten the anchor.
        newest = max(audited.folder.glob("gateway.*.jsonl"))
        newest.write_text("\n".join(newest.read_text().splitlines()[:-2]) + "\n")
        assert audited.verify("--anchor", anchor).returncode == 1
    finally:
        journal.shutdown(socket.SHUT_RDWR)
        server.close()


def test_an_auditor_that_is_killed_comes_back_and_a_token_that_is_away_leaves_records_unsealed(
    audited: AuditedSite,
) -> None:
    gateway, client = audited.gateway, audited.client
    audited.site.start()
    audited.connect()
    streams = audited.site.streams(client)
    os.kill(gateway.pids()["auditor"], signal.SIGKILL)
    until(lambda: audited.has("recovery", "process"), "another auditor")
    known = client.wait_for_age()
    gateway.command("rekey", gateway.name, client.name)
    client.wait_for_handshake(known)
    until(lambda: len(audited.records("key.use")) >= 3, "the records of a second handshake")

    # No custodian, no seal; records go on.
    os.kill(gateway.pids()["custodian"], signal.SIGSTOP)
    stopped = gateway.pids()["custodian"]
    gateway.namespace.run("wg", "set", gateway.name, "fwmark", "7")
    until(lambda: audited.has("config.change", "fwmark"), "a record while nobody signs")
    os.kill(stopped, signal.SIGCONT)
    for stream in streams:
        stream.wait_for(50, limit=60.0)
    assert [len(stream.finish().lost) for stream in streams] == [0, 0]
    gateway.stop()
    (fault,) = [record for record in audited.records("fault") if record["operation"] == "process"]
    assert fault["detail"]["process"] == "auditor"
    verdict = audited.verify()
    assert verdict.returncode == 0, verdict


def _read(journal: socket.socket, datagrams: queue.SimpleQueue[bytes]) -> None:
    """Play journald until the socket is shut down."""
    with journal:
        while datagram := journal.recv(65536):
            # The commands have a log of their own, which goes there too.
            if b"/commands/" not in datagram:
                datagrams.put(datagram)


def _listener(site: Site) -> socket.socket:
    """A TCP socket that listens on 127.0.0.1 of the gateway's namespace."""
    site.namespace.run("ip", "link", "set", "lo", "up")
    ours, theirs = socket.socketpair()
    code = (
        "import socket,sys; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b'x'], [s.fileno()])"
    )
    with ours, theirs:
        words = site.namespace.argv(sys.executable, "-I", "-c", code, str(theirs.fileno()))
        subprocess.run(words, pass_fds=[theirs.fileno()], check=True, timeout=60)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    return socket.socket(fileno=fds[0])

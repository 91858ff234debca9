"""The audit log of a whole gateway: what it holds, who can verify it, and what failures of it cost."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.network.support import Lab, ping_until, until
from tests.network.support.site import Client, Site
from tests.network.support.wireguard_go import KeyPair, make_psk

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.network.support.gateway_token import GatewayToken

AUDIT_KEY = "audit"


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

    def verify(self) -> subprocess.CompletedProcess[str]:
        """`wghsm audit verify` of what is there."""
        public = self.folder.parent / "audit.pem"
        public.write_text(self.token.command("audit", "key", "public", AUDIT_KEY).stdout)
        return self.gateway.command("audit", "verify", self.folder, "--key", public, check=False)


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

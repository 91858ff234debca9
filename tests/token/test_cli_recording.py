"""The audit log of the commands, with a token in a store of another uid: what is done, who did it, and its seal."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wghsm.audit import AuditLog, PublicKey, Record, decode, verify
from wghsm.exits import ExitCode
from wghsm.softhsm_setup import SoftHsmToken, softhsm_token

if TYPE_CHECKING:
    from collections.abc import Iterator

PEER = base64.b64encode(bytes(31) + b"\x09").decode()
_PSK = {"preshared_key": "derived:0"}


@dataclass
class Site:
    made: SoftHsmToken
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "gw.yaml"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def write(self, **audit: str) -> None:
        self.file.write_text(
            json.dumps(
                {
                    "version": 1,
                    "token": {"uri": self.made.uri, "psk_root": "root", "psk_wrap_key": "wrap"},
                    "interface": {"name": "wgrec", "key": "gateway"},
                    "peers": [{"name": "alice", "public_key": PEER, "allowed_ips": ["10.0.0.2/32"], **_PSK}],
                    "state_directory": str(self.folder / "state"),
                    "audit": {"directory": str(self.log), "key": "audit", **audit},
                }
            )
        )

    def run(self, *words: str, given: bytes = b"", code: int = 0) -> str:
        """Run a command; give standard error."""
        done = subprocess.run(
            [sys.executable, "-m", "wghsm", *words, "-c", str(self.file)],
            env={**os.environ, **self.made.environment, "SUDO_UID": "1017", "SUDO_USER": "carol"},
            input=given,
            capture_output=True,
            check=False,
        )
        said = done.stderr.decode()
        assert "Traceback" not in said, said
        assert done.returncode == code, said
        return said

    def records(self) -> list[Record]:
        files = sorted(self.log.glob("commands.*.jsonl"))
        return [decode(line) for file in files for line in file.read_bytes().splitlines()]


@pytest.fixture
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        with softhsm_token(uid=61100) as made:
            site = Site(made, folder)
            site.write()
            yield site
    finally:
        shutil.rmtree(folder)


def test_each_command_is_recorded_sealed_and_proved_without_the_token(site: Site) -> None:
    site.run("audit", "key", "generate", "audit")
    site.run("key", "generate")
    site.run("psk", "derive-root")
    site.run("psk", "put", "stored", given=base64.b64encode(bytes(range(32))))
    out = site.folder / "alice.psk"
    site.run("psk", "export", "alice", "--out", str(out))
    site.run("psk", "rotate", "alice")
    site.run("psk", "destroy", "stored", "--yes")
    site.run("key", "rotate", "--yes")
    site.run("key", "retire", "--force")
    site.run("key", "destroy", "gateway", "--yes")
    site.run("key", "generate", "gateway-2", code=ExitCode.FAILURE)

    records = [record for record in site.records() if record.kind != "checkpoint"]
    assert [(record.operation, record.result) for record in records] == [
        ("begin_log", "ok"),
        ("audit.key.generate", "ok"),
        ("key.generate", "ok"),
        ("psk.derive-root", "ok"),
        ("psk.put", "ok"),
        ("psk.export", "ok"),
        ("psk.rotate", "ok"),
        ("psk.destroy", "ok"),
        ("key.rotate", "ok"),
        ("key.retire", "ok"),
        ("key.destroy", "ok"),
        ("key.generate", "failed"),
    ]
    made, export = records[2], records[5]
    assert (made.kind, made.key, made.who is not None and made.who.uid) == ("key.change", "gateway", os.getuid())
    assert made.token.startswith(site.made.label)
    assert made.detail["sudo_uid"] == "1017"
    assert len(base64.b64decode(str(made.detail["public_key"]))) == 32
    assert (export.kind, export.peer, export.key) == ("psk.export", PEER, "gateway")
    assert (export.detail["psk"], export.detail["epoch"], export.detail["to"]) == ("derived", 0, "file")
    assert "exists" in str(records[-1].detail["error"])

    pem = subprocess.run(
        [sys.executable, "-m", "wghsm", "audit", "key", "public", "audit", "-c", str(site.file)],
        env={**os.environ, **site.made.environment},
        capture_output=True,
        check=True,
    ).stdout
    report = verify(site.log, [PublicKey(pem)], gateway="wgrec", processes=1)
    assert report.verdict == "proved", report
    destroyed = next(record.seq for record in site.records() if record.operation == "key.destroy")
    assert report.logs[0].proved_to == destroyed
    psk = out.read_bytes().strip()
    assert all(psk not in file.read_bytes() for file in site.log.iterdir())


def test_without_the_audit_key_it_is_recorded_and_said_to_be_unsealed(site: Site) -> None:
    assert "not sealed" in site.run("key", "generate")
    assert [record.operation for record in site.records()] == ["begin_log", "key.generate"]


def test_a_log_that_cannot_be_written_is_one_line_or_stops_the_command(site: Site) -> None:
    site.log.write_text("no folder")
    said = site.run("key", "generate", "first")
    assert "is not in the audit log" in said
    assert len(said.strip().splitlines()) == 1
    site.write(on_failure="stop-new-handshakes")
    said = site.run("key", "generate", "second", code=ExitCode.FAILURE)
    assert "nothing was touched" in said
    assert len(said.strip().splitlines()) == 1
    site.log.unlink()
    site.run("key", "generate", "second")
    site.run("key", "generate", "first", code=ExitCode.FAILURE)


def test_journald_gets_the_records_too(site: Site) -> None:
    path = site.folder / "journal.socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(os.fspath(path))
        journal.settimeout(60)
        site.write(journald=str(path))
        site.run("audit", "key", "generate", "audit")
        taken = [journal.recv(65536) for _ in range(3)]
    files = sorted(site.log.glob("commands.*.jsonl"))
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    assert [message.splitlines()[0] for message in taken] == [b"MESSAGE=" + line for line in lines]


def test_without_an_audit_section_nothing_is_written_and_nothing_said(site: Site) -> None:
    plain = json.loads(site.file.read_text())
    del plain["audit"]
    site.file.write_text(json.dumps(plain))
    assert site.run("key", "generate") == ""
    assert not site.log.exists()


def test_two_commands_do_not_write_at_the_same_time(site: Site) -> None:
    site.log.mkdir()
    with AuditLog(site.log, "wgrec", "commands", 0):
        waiting = subprocess.Popen(
            [sys.executable, "-m", "wghsm", "key", "generate", "-c", str(site.file)],
            env={**os.environ, **site.made.environment},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        assert waiting.stderr is not None
        assert b"waiting for another wghsm command" in waiting.stderr.readline()
        assert waiting.poll() is None
    assert waiting.wait() == 0
    waiting.stderr.close()
    assert [record.operation for record in site.records()] == ["begin_log", "key.generate"]


def test_a_refused_pin_leaves_a_record_and_no_seal(site: Site) -> None:
    """A wrong PIN is the likeliest: the record says so, and nothing is sealed."""
    site.run("audit", "key", "generate", "audit")
    site.made.pin_file.write_text("wrong-pin\n")
    site.run("key", "generate", code=ExitCode.PIN_REFUSED)
    last = site.records()[-1]
    assert (last.operation, last.result, last.key) == ("key.generate", "failed", "gateway")
    assert "PIN" in str(last.detail["error"])
    assert "wrong-pin" not in str(last)

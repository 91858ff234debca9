"""What a command leaves in the audit log where no token is asked."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click
import pytest

from wghsm.audit import AuditLog, Event, Limits, LogReader, Record
from wghsm.cli import _recording
from wghsm.cli._output import CommandError
from wghsm.cli._recording import Deed, recording
from wghsm.config import Gateway, load_text

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400_000_000


def gateway(folder: Path, more: str = "") -> Gateway:
    return load_text(
        "version: 1\ntoken: {uri: 'pkcs11:token=gw?module-path=/m.so'}\ninterface: {name: wg0, key: gateway}\n"
        f"audit: {{directory: {folder}, journald: false{more}}}\npeers: []\n",
        "gw.yaml",
    )


def records(folder: Path) -> list[Record]:
    return [record for _, record in LogReader(folder).new()]


def test_how_it_ended_and_who_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with recording(gateway(folder), Deed("psk.rotate", peer="PEER", detail={"epoch": 2})):
        pass
    with pytest.raises(CommandError), recording(gateway(folder), Deed("key.retire", "gw")):
        raise CommandError("peers still use it")
    with pytest.raises(click.Abort), recording(gateway(folder), Deed("key.retire", "gw")):
        raise click.Abort
    begun, rotated, refused, interrupted = records(folder)
    assert (begun.kind, begun.stream.split("/")[:2]) == ("start", ["wg0", "commands"])
    assert (rotated.result, rotated.peer, rotated.detail["epoch"]) == ("ok", "PEER", 2)
    assert rotated.who is not None
    assert (rotated.who.uid, rotated.who.pid) == (os.getuid(), os.getpid())
    assert (refused.result, refused.detail["error"]) == ("failed", "peers still use it")
    assert interrupted.result == "interrupted"


def test_files_go_when_retention_says_so(tmp_path: Path) -> None:
    old = time.time_ns() // 1000 - 9 * DAY
    with AuditLog(tmp_path, "wg0", "commands", old, limits=Limits(size=1)) as log:
        for number in range(3):
            log.append([Event(kind="key.change", operation="old", detail={"number": number})], old)
    for _ in range(2):
        with recording(gateway(tmp_path, ", retention: 2d"), Deed("psk.rotate")):
            pass
    assert [record.operation for record in records(tmp_path)][-3:] == ["remove", "psk.rotate", "psk.rotate"]
    assert not any(record.detail.get("number") == 0 for record in records(tmp_path))


def test_a_command_without_a_gateway_file_is_recorded_where_the_site_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tokens"
    monkeypatch.setattr(_recording, "WITHOUT_GATEWAY", folder)
    with recording(None, Deed("key.destroy", "old")):
        pass
    assert not folder.exists()
    folder.mkdir()
    with recording(None, Deed("key.destroy", "old")):
        pass
    assert [(record.stream.split("/")[0], record.operation) for record in records(folder)][1:] == [("-", "key.destroy")]

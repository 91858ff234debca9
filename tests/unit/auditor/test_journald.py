"""journald: one datagram a record with its fields, and counting instead of waiting."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from wghsm.audit import Chain, Event, Record, decode, stream_name
from wghsm.auditor.journald import Journald

if TYPE_CHECKING:
    from pathlib import Path


def record(number: int = 0, kind: str = "start") -> tuple[bytes, Record]:
    chain = Chain(stream_name("wg0", "gateway", bytes(16)))
    line = chain.append(Event(kind="start", operation="begin", detail={"number": number}), 0)
    if kind != "start":
        line = chain.append(Event(kind="fault", operation="token", result="away"), 0)
    return line, decode(line)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "socket")


def test_a_record_comes_with_its_fields(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        sink = Journald(path, "wg0", required=True)
        line, decoded = record(kind="fault")
        sink.send([(line, decoded)])
        fields = dict(field.split(b"=", 1) for field in journal.recv(65536).splitlines())
        assert fields == {
            b"MESSAGE": line,
            b"PRIORITY": b"4",
            b"SYSLOG_FACILITY": b"13",
            b"SYSLOG_IDENTIFIER": b"wghsm-audit",
            b"WGHSM_GATEWAY": b"wg0",
            b"WGHSM_KIND": b"fault",
            b"WGHSM_SEQ": b"1",
        }
        assert (sink.state, sink.losing, sink.lost) == ("ok", False, 0)
        sink.close()


def test_what_a_journald_does_not_take_at_once_comes_later(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal.setblocking(False)
        sink = Journald(path, "wg0", required=False, room=5000)
        sent = [record(number) for number in range(4000)]
        sink.send(sent)
        got: list[bytes] = []
        while len(got) < len(sent):
            try:
                got.append(journal.recv(65536))
            except BlockingIOError:
                sink.send(())
        assert all(b"MESSAGE=%s\n" % line in one for (line, _), one in zip(sent, got, strict=True))
        assert (sink.losing, sink.lost) == (False, 0)
        sink.close()


def test_a_journald_that_does_not_read_costs_nothing_but_a_count(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        sink = Journald(path, "wg0", required=False, room=3)
        while not sink.lost:
            sink.send([record()])
        assert (sink.losing, sink.lost) == (True, 1)
        journal.recv(65536)
        sink.send(())
        sink.send([record()])
        assert (sink.losing, sink.lost) == (False, 1)
        sink.close()


@pytest.mark.parametrize("required", [False, True])
def test_a_machine_without_journald_is_a_fault_only_where_one_was_named(path: str, required: bool) -> None:
    sink = Journald(path, "wg0", required=required, room=1)
    sink.send([record()])
    sink.send([record()])
    assert (sink.lost > 0) is required
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        sink.send(())
        sink.send([record()])
        assert (sink.state, sink.losing) == ("ok", False)
    # One that has been there is missed.
    sink.send([record(), record()])
    assert sink.lost > required
    assert "Connection refused" in sink.state
    sink.close()

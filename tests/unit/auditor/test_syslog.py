"""Syslog over TLS: frames by octet counting, a queue that is bounded, and connections that come back."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.network.support.log_server import LogServer, make_certificate
from tests.network.support.process import until
from tests.unit.auditor.test_journald import record
from wghsm.auditor.syslog import Syslog, frame, tls_context
from wghsm.ipc.messages import SyslogServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRAME = re.compile(
    rb"<(?P<priority>\d+)>1 (?P<time>\S+) \S+ wghsm-audit \d+ (?P<kind>\S+) - (?P<line>\{.*\})", re.DOTALL
)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


@pytest.fixture
def server(files: tuple[Path, Path]) -> Iterator[LogServer]:
    made = LogServer(*files)
    yield made
    made.close()


def connect(server: LogServer, ca: Path, room: int = 100) -> Syslog:
    context, trouble = tls_context(SyslogServer("127.0.0.1", server.port, str(ca)))
    return Syslog("127.0.0.1", server.port, context, trouble, room=room, first_pause=0.05)


def test_a_frame_is_counted_in_octets() -> None:
    line, decoded = record()
    length, _, message = frame("host", line, decoded).partition(b" ")
    assert int(length) == len(message)
    found = FRAME.fullmatch(message)
    assert found is not None
    assert (found["priority"], found["kind"], found["line"]) == (b"109", b"start", line)
    assert found["time"] == b"1970-01-01T00:00:00.000000Z"
    assert str(os.getpid()).encode() in message


def test_records_come_whole_and_in_order(server: LogServer, files: tuple[Path, Path]) -> None:
    sink = connect(server, files[0])
    sent = [record(number) for number in range(50)]
    sink.send(sent)
    for line, _ in sent:
        assert server.messages.get(timeout=60).endswith(line)
    assert (sink.state, sink.lost) == ("ok", 0)
    sink.close()


def test_a_server_that_was_away_gets_what_there_was_room_for(files: tuple[Path, Path]) -> None:
    first = LogServer(*files)
    sink = connect(first, files[0], room=10)
    sink.send([record()])
    assert first.messages.get(timeout=60)
    port = first.port
    first.close()
    until(lambda: sink.state != "ok", "the syslog server or its client gets there", 60.0)
    sent = [record(number) for number in range(15)]
    sink.send(sent)
    lost = sink.lost
    assert (sink.losing, lost >= 4) == (True, True)
    second = LogServer(*files, port=port)
    for line, _ in sent[:10]:
        assert second.messages.get(timeout=60).endswith(line)
    sink.send([record(99)])
    assert (sink.losing, sink.lost) == (False, lost)
    sink.close()
    second.close()


def test_a_server_that_nobody_vouches_for_gets_nothing(server: LogServer, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    sink = connect(server, make_certificate(folder)[0])
    sink.send([record()])
    until(lambda: "certificate is not good" in sink.state, "the syslog server or its client gets there", 60.0)
    assert server.messages.empty()
    sink.close()


def test_files_that_cannot_be_used_are_a_fault_that_is_told(tmp_path: Path) -> None:
    context, trouble = tls_context(SyslogServer("logs", 6514, str(tmp_path / "absent.pem")))
    assert context is None
    assert "absent.pem: No such file" in trouble
    sink = Syslog("logs", 6514, context, trouble)
    assert sink.losing
    sink.send([record()])
    assert (sink.lost, sink.state) == (1, trouble)
    sink.close()

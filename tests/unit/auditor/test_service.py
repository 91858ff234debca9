"""The auditor's service: who may tell of what, checkpoints, health and the last words."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from wghsm.audit import AuditLog, Limits, decode
from wghsm.auditor.service import MAY_TELL, Service
from wghsm.auditor.writer import Writer
from wghsm.ipc import ChannelKind, Counter, ProtocolError, Role, StatsFile, create_stats
from wghsm.ipc import messages as m
from wghsm.process import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wghsm.process import Child

HOME, CUSTODIAN, CONTROL = (
    ChannelKind.SUPERVISOR_AUDITOR,
    ChannelKind.CUSTODIAN_AUDITOR,
    ChannelKind.CONTROL_AUDITOR,
)


class FakeChild:
    """Handlers by channel and message, and what was sent."""

    def __init__(self) -> None:
        self.home = HOME
        self.loop = Loop()
        self.fd = create_stats()
        self.stats = StatsFile(self.fd, Role.AUDITOR)
        self.handlers: dict[tuple[ChannelKind, type], Callable[[Any, list[int]], None]] = {}
        self.attached: dict[ChannelKind, Callable[[int], None]] = {}
        self.detached: dict[ChannelKind, Callable[[], None]] = {}
        self.sent: list[tuple[ChannelKind, m.Message]] = []
        self.custodian = True
        self.steps: list[Callable[[], None]] = []

    def on(self, kind: ChannelKind, message: type, handler: Callable[[Any, list[int]], None]) -> None:
        self.handlers[kind, message] = handler

    def on_attach(self, kind: ChannelKind, handler: Callable[[int], None]) -> None:
        self.attached[kind] = handler

    def on_detach(self, kind: ChannelKind, handler: Callable[[], None]) -> None:
        self.detached[kind] = handler

    def send(self, kind: ChannelKind, message: m.Message) -> bool:
        if kind is CUSTODIAN and not self.custodian:
            return False
        self.sent.append((kind, message))
        return True

    def report(self, message: m.Message) -> None:
        self.sent.append((HOME, message))

    def serve(self) -> None:
        """Run the test's steps, with a turn of the loop after each."""
        for step in self.steps:
            step()
            self.loop.run_once(0.001)

    def tell(self, kind: ChannelKind, message: m.Message) -> None:
        self.handlers[kind, type(message)](message, [])

    def last(self, kind: type[m.Message]) -> Any:
        return next(message for _, message in reversed(self.sent) if isinstance(message, kind))


class Sink:
    """Loses records while `full`."""

    name = "syslog"

    def __init__(self) -> None:
        self.lost, self.losing, self.state, self.full = 0, False, "ok", False
        self.lines: list[bytes] = []

    def send(self, lines: Any) -> None:
        self.losing = self.full if lines else self.losing
        self.lost += len(lines) * self.full
        self.lines += [line for line, _ in lines]

    def close(self) -> None:
        self.state = "closed"


class Bench:
    """A service with everything around it played."""

    def __init__(self, folder: Path, *, signed: bool = True) -> None:
        self.folder = folder
        self.child = FakeChild()
        self.sink = Sink()
        settings = m.AuditSettings(str(folder), 86_400, 2**20, 86_400, signed=signed)
        writer = Writer(partial(AuditLog, folder, "wg0", "gateway", limits=Limits()))
        self.service = Service(cast("Child", self.child), settings, writer, [self.sink])

    def run(self, *steps: Callable[[], None]) -> list[Any]:
        """Run the steps; give the records that are on the disk then."""
        self.child.steps = list(steps)
        self.service.run()
        return [decode(line) for file in self.folder.glob("*.jsonl") for line in file.read_bytes().splitlines()]

    def event(self, kind: str = "key.use", sender: ChannelKind = CUSTODIAN, **more: Any) -> Callable[[], None]:
        """The step in which a process tells of something."""
        return lambda: self.child.tell(sender, m.AuditEvent(kind, "accept", "ok", more.pop("at", 0), **more))

    def sign(self, signature: bytes = bytes(64), text: str = "") -> None:
        """The custodian's answer to the last request."""
        asked = self.child.last(m.SignCheckpoint)
        self.child.tell(CUSTODIAN, m.CheckpointSigned(asked.request, signature, "ab" * 32, "ed25519", "t 1", text))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.child.stats.close()
    os.close(made.child.fd)


def test_a_process_that_tells_of_what_is_not_its_own_is_not_believed(bench: Bench) -> None:
    for sender, kind in ((CUSTODIAN, "peer.change"), (CONTROL, "key.use"), (HOME, "key.use"), (HOME, "checkpoint")):
        with pytest.raises(ProtocolError, match="may not tell of"):
            bench.run(bench.event(kind, sender))
    assert not {"aggregate", "gap", "checkpoint", "retention"} & frozenset().union(*MAY_TELL.values())


def test_events_and_holes_become_records(bench: Bench) -> None:
    who = m.Asker(1000, 1000, 4711)
    records = bench.run(
        bench.event(peer=bytes(32), key=b"\1" * 32, token="t 1", latency_us=7),  # noqa: S106  (a label)
        bench.event("control.refused", CONTROL, lost=3, who=who),
    )
    kinds = [(record.kind, record.operation) for record in records]
    assert kinds[:2] == [("start", "begin_log"), ("start", "auditor")]
    assert kinds[-3:] == [("key.use", "accept"), ("gap", "unsent"), ("control.refused", "accept")]
    use, gap, refused = records[-3:]
    assert (use.token, use.latency_us, len(use.peer)) == ("t 1", 7, 44)
    # It comes late: the event was told as of 1970.
    assert use.detail["happened"] == "1970-01-01T00:00:00.000000Z"
    assert gap.detail == {"count": 3, "process": "control"}
    assert (refused.who.uid, refused.who.pid) == (1000, 4711)
    assert [decode(line).seq for line in bench.sink.lines] == [record.seq for record in records]
    assert bench.child.stats.counters(Role.AUDITOR)[Counter.AUDIT_RECORDED] == len(records)


def test_a_checkpoint_is_asked_for_written_and_not_asked_for_again(bench: Bench) -> None:
    records = bench.run(bench.event(), bench.sign, bench.event())
    (checkpoint,) = [record for record in records if record.kind == "checkpoint"]
    assert (checkpoint.key, checkpoint.token, checkpoint.detail["algorithm"]) == ("ab" * 32, "t 1", "ed25519")
    assert [type(message) for kind, message in bench.child.sent if kind is CUSTODIAN] == [m.SignCheckpoint]


def test_without_a_signature_records_go_on_unsealed_and_status_says_why(bench: Bench) -> None:
    refuse = partial(bench.sign, b"", "the token is away")
    records = bench.run(bench.event(), refuse, bench.event(), bench.service._tell_status)
    assert not [record for record in records if record.kind == "checkpoint"]
    status = bench.child.last(m.AuditStatus)
    assert (status.state, status.seal_detail, status.unsealed) == ("ok", "the token is away", len(records))


def test_the_custodian_hears_when_records_are_lost_and_when_that_is_over(bench: Bench) -> None:
    def fill() -> None:
        bench.sink.full = not bench.sink.full

    bench.run(lambda: bench.child.attached[CUSTODIAN](1), fill, bench.event(), bench.event(), fill, bench.event())
    told = [message.whole for _, message in bench.child.sent if isinstance(message, m.AuditHealth)]
    assert told == [True, False, True]
    assert bench.child.stats.counters(Role.AUDITOR)[Counter.AUDIT_SYSLOG_LOST] == 2


def test_the_last_words_are_sealed(bench: Bench) -> None:
    end = partial(bench.child.tell, HOME, m.Shutdown())
    bench.child.custodian = False
    records = bench.run(bench.event("stop", HOME), lambda: setattr(bench.child, "custodian", True), end, bench.sign)
    assert [record.kind for record in records[-3:]] == ["stop", "stop", "checkpoint"]
    assert records[-1].detail["seq"] == records[-2].seq
    assert bench.sink.state == "closed"

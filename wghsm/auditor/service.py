"""The auditor at work: events in, records out, checkpoints asked for, and a word about how it goes.

    AuditEvent ---> batch ---> end of the loop's turn: writer ---> lines ---> sinks
    every second:  aggregates; is a checkpoint due? ask the custodian; can the log be written again? status
    CheckpointSigned ---> a record

What each process may tell is in `MAY_TELL`: one that was taken over cannot write another one's records. Called by
`start`.
"""

from __future__ import annotations

import base64
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from wghsm.audit import Event, Who, decode
from wghsm.audit.record import rfc3339
from wghsm.ipc import ChannelKind, Counter, ProtocolError, Role
from wghsm.ipc import messages as m

from .aggregates import Aggregates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wghsm.audit import Record, Statement
    from wghsm.process import Child, Timer

    from .writer import Writer

__all__ = ["MAY_TELL", "Service", "Sink"]

_log = logging.getLogger(__name__)

_CUSTODIAN = ChannelKind.CUSTODIAN_AUDITOR
_SECOND = 1_000_000_000
_LATE = 2 * _SECOND
_TIDY_EVERY = 60
_SIGN_AGAIN = 10
_SIGN_WITHIN = 30
_LAST_WORDS = 1 * _SECOND

MAY_TELL: dict[Role, frozenset[str]] = {
    Role.CUSTODIAN: frozenset({"key.use", "pin.login", "key.change"}),
    Role.CONTROL: frozenset({"control.refused"}),
    Role.SUPERVISOR: frozenset(
        {"start", "stop", "config.change", "peer.change", "control.refused", "fault", "recovery", "pin.login"}
    ),
}
"""The kinds of records that each process may have written."""


class Sink(Protocol):
    """Where records go besides the files. Nothing blocks, nothing is raised."""

    name: str
    lost: int
    losing: bool
    state: str

    def send(self, lines: Sequence[tuple[bytes, Record]]) -> None:
        """Take records, as they come."""

    def close(self) -> None:
        """The end."""


_LOST = {"journald": Counter.AUDIT_JOURNALD_LOST, "syslog": Counter.AUDIT_SYSLOG_LOST}


class Service:
    """One auditor."""

    def __init__(self, child: Child, settings: m.AuditSettings, writer: Writer, sinks: Sequence[Sink]) -> None:
        self._child = child
        self._settings = settings
        self._writer = writer
        self._sinks = sinks
        self._aggregates = Aggregates(child.stats.counters)
        self._batch: list[Event] = []
        self._flushing = False
        self._request = 0
        self._asked: Statement | None = None
        self._wait = 0
        self._ticks = 0
        self._sealed_unix = 0
        self._seal_detail = "" if settings.signed else "no audit.key is set"
        self._whole = True
        self._since_unix = time.time_ns()
        self._detail = ""
        self._told: m.AuditStatus | None = None
        self._ending: Timer | None = None

    def run(self) -> None:
        """Serve until the supervisor ends it. Raises ProtocolError."""
        child = self._child
        for role, kind in (
            (Role.SUPERVISOR, child.home),
            (Role.CUSTODIAN, _CUSTODIAN),
            (Role.CONTROL, ChannelKind.CONTROL_AUDITOR),
        ):
            child.on(kind, m.AuditEvent, partial(self._on_event, role))
        child.on(_CUSTODIAN, m.CheckpointSigned, self._on_signed)
        child.on(child.home, m.Shutdown, lambda _message, _fds: self._end())
        child.on_attach(_CUSTODIAN, lambda _incarnation: self._custodian_came())
        child.on_detach(_CUSTODIAN, self._custodian_gone)
        # So that a log that cannot be written is known before the first handshake.
        self._record([Event(kind="start", operation="auditor")])
        self._flush()
        child.loop.call_later(_SECOND, self._tick)
        self._tell_status()
        child.report(m.Ready())
        try:
            child.serve()
        finally:
            self._writer.close()
            for sink in self._sinks:
                sink.close()

    # What comes in.

    def _on_event(self, sender: Role, message: m.AuditEvent, _fds: list[int]) -> None:
        if message.kind not in MAY_TELL[sender]:
            raise ProtocolError(f"{sender} may not tell of {message.kind}")
        if message.lost:
            detail: dict[str, str | int] = {"count": message.lost, "process": sender}
            self._record([Event(kind="gap", operation="unsent", detail=detail)])
        self._record([_event(message, time.time_ns())])

    def _record(self, events: list[Event]) -> None:
        self._batch += events
        if not self._flushing:
            # After all that is ready in this turn of the loop: one write, one sync.
            self._flushing = True
            self._child.loop.call_later(0, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        events, self._batch = self._batch, []
        before = self._writer.unwritten
        self._out(self._writer.write(events, _now()))
        if self._writer.unwritten != before:
            self._child.stats.count(Counter.AUDIT_UNWRITTEN, self._writer.unwritten - before)
        self._look_after_health()
        self._seal_if_due()

    def _out(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self._child.stats.count(Counter.AUDIT_RECORDED, len(lines))
        if not self._sinks:
            return
        pairs = [(line, decode(line)) for line in lines]
        for sink in self._sinks:
            lost = sink.lost
            sink.send(pairs)
            if sink.lost != lost:
                self._child.stats.count(_LOST[sink.name], sink.lost - lost)

    # Checkpoints.

    def _seal_if_due(self) -> None:
        if not self._settings.signed or self._asked is not None or self._wait > self._ticks:
            return
        if self._writer.due(_now()):
            self._ask()

    def _ask(self) -> bool:
        statement = self._writer.statement(_now())
        if statement is None:
            return False
        self._request += 1
        message = m.SignCheckpoint(self._request, statement.stream, statement.seq, statement.hash, statement.time)
        if not self._child.send(_CUSTODIAN, message):
            return False
        self._asked = statement
        self._wait = self._ticks + _SIGN_WITHIN
        return True

    def _on_signed(self, message: m.CheckpointSigned, _fds: list[int]) -> None:
        statement = self._asked
        if statement is None or message.request != self._request:
            return
        self._asked, self._wait = None, 0
        if message.signature:
            self._out(
                self._writer.seal(statement, message.signature, message.key, message.algorithm, message.token, _now())
            )
            self._sealed_unix, self._seal_detail = time.time_ns(), ""
        else:
            self._wait = self._ticks + _SIGN_AGAIN
            if message.text != self._seal_detail:
                _log.warning("records go on unsealed: %s", message.text)
            self._seal_detail = message.text
        if self._ending is not None:
            self._child.loop.stop()

    def _custodian_came(self) -> None:
        self._asked, self._wait = None, 0
        self._child.send(_CUSTODIAN, m.AuditHealth(self._whole))

    def _custodian_gone(self) -> None:
        self._asked = None
        if self._ending is not None:
            self._child.loop.stop()

    # Now and then.

    def _tick(self) -> None:
        self._child.loop.call_later(_SECOND, self._tick)
        self._ticks += 1
        if self._asked is not None and self._ticks >= self._wait:
            self._asked = None
        self._batch += self._aggregates.take()
        self._flush()
        for sink in self._sinks:
            # What waits for it may be taken now.
            sink.send(())
        if self._ticks % _TIDY_EVERY == 0:
            self._out(self._writer.tidy(_now(), sealing=self._settings.signed))
        self._tell_status()

    def _look_after_health(self) -> None:
        """Whether records are being lost: told to the custodian, to the log of the process, and to status."""
        faults = [f"{sink.name}: {sink.state}" for sink in self._sinks if sink.losing]
        if self._writer.failing:
            faults.insert(0, self._writer.failing)
        self._detail = "; ".join(faults)
        whole = not faults
        if whole == self._whole:
            return
        self._whole, self._since_unix = whole, time.time_ns()
        if whole:
            _log.warning("the audit log is kept again; %d events were not written so far", self._writer.unwritten)
        else:
            _log.error("the audit log is not whole: %s", self._detail)
        self._child.send(_CUSTODIAN, m.AuditHealth(whole))
        self._tell_status()

    def _tell_status(self) -> None:
        now = m.AuditStatus(
            state="ok" if self._whole else "failing",
            since_unix=self._since_unix,
            detail=self._detail,
            directory=self._settings.directory,
            records=self._writer.records,
            unsealed=self._writer.unsealed,
            sealed_unix=self._sealed_unix,
            unwritten=self._writer.unwritten,
            seal_detail=self._seal_detail,
            sinks={
                sink.name: sink.state + (f", {sink.lost} records lost" if sink.lost else "") for sink in self._sinks
            },
        )
        if now != self._told:
            self._told = now
            self._child.report(now)

    def _end(self) -> None:
        """The last records, under a last checkpoint if the custodian signs it soon."""
        if self._ending is not None:
            return
        self._batch.append(Event(kind="stop", operation="auditor"))
        # Not due any more: the checkpoint to come is about the very last record.
        self._wait = self._ticks + _SIGN_WITHIN
        self._flush()
        self._ending = self._child.loop.call_later(_LAST_WORDS, self._child.loop.stop)
        if not (self._settings.signed and not self._writer.failing and self._ask()):
            self._child.loop.stop()


def _now() -> int:
    return time.time_ns() // 1000


def _event(message: m.AuditEvent, now: int) -> Event:
    """The event as a record has it; one that comes late says when it happened."""
    detail = dict(message.detail)
    if now - message.at_unix > _LATE:
        detail["happened"] = rfc3339(message.at_unix // 1000)
    # Held to MAY_TELL, whose words are the record's.
    kind: Any = message.kind
    return Event(
        kind=kind,
        operation=message.operation,
        result=message.result,
        peer=_text(message.peer),
        key=_text(message.key),
        token=message.token,
        latency_us=message.latency_us or None,
        who=None if message.who is None else Who(message.who.uid, message.who.gid, message.who.pid),
        detail=detail,
    )


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()

"""What the supervisor has to say to the auditor: start and stop, who changed what, what died and what came back.

    _applying      a change is in force      -> peer.change, a record for each peer; config.change for port and mark
    _requests      a change was refused      -> control.refused
    _reload        a reload                  -> config.change, with what it did or why not
    _supervisor    token, children, the end  -> fault, recovery, pin.login (refused), start, stop

Nothing here waits, and without an audit log nothing is told.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wghsm import __version__
from wghsm.exits import ExitCode
from wghsm.ipc import messages as m
from wghsm.process.audit import AuditSender

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.ipc import Seat

    from .model import Model, Peer, Prefix

__all__ = ["Audit"]

_PREFIXES = 8
_PSK = {"PskNone": "none", "PskDerived": "derived", "PskObject": "object", "PskWrapped": "wrapped"}


class Audit:
    """One gateway's. `send` gives a message to the auditor, and says whether it was taken."""

    def __init__(self, send: Callable[[m.AuditEvent], bool], *, wanted: bool) -> None:
        self._sender = AuditSender(send, wanted=wanted)
        self._away: set[Seat] = set()
        self._wanted = wanted

    def attached(self) -> None:
        """An auditor is there again."""
        self._sender.flush()

    def started(self, file: str, peers: int) -> None:
        """The gateway serves for the first time."""
        self._tell("start", "gateway", detail={"version": __version__, "file": file, "peers": peers})

    def stopped(self, exit_code: ExitCode, text: str, who: m.Asker | None) -> None:
        """The gateway ends."""
        detail: dict[str, str | int] = {"exit_code": int(exit_code)}
        if text:
            detail["text"] = text
        if exit_code is ExitCode.PIN_REFUSED:
            self._tell("pin.login", "login", "refused", detail={"text": text})
        self._tell("stop", "gateway", "ok" if exit_code is ExitCode.OK else "failed", who=who, detail=detail)

    # Changes.

    def changed(self, before: Model, after: Model, cause: str, who: m.Asker | None) -> None:
        """Another model is in force. `cause`: control, reload, expiry; empty for what is nobody's decision."""
        if not self._wanted or not cause:
            return
        for name, old, new in (
            ("listen_port", before.listen_port, after.listen_port),
            ("fwmark", before.fwmark, after.fwmark),
        ):
            if old != new:
                self._tell("config.change", name, who=who, detail={"by": cause, "before": old, "after": new})
        allowed_before, allowed_after = before.allowed_ips(), after.allowed_ips()
        for key in before.peers.keys() - after.peers.keys():
            self._peer("remove", before.peers[key], allowed_before.get(key, []), cause, who)
        for key, peer in after.peers.items():
            was, prefixes = before.peers.get(key), allowed_after.get(key, [])
            if was is None:
                self._peer("add", peer, prefixes, cause, who)
            elif was != peer or set(prefixes) != set(allowed_before.get(key, ())):
                self._peer("change", peer, prefixes, cause, who)

    def timestamps_forgotten(self, peers: list[bytes], who: m.Asker | None) -> None:
        """These peers' next handshakes are taken, whatever their time."""
        for public_key in peers:
            self._tell("peer.change", "forget_timestamp", peer=public_key, who=who)

    def refused(self, operation: str, text: str, who: m.Asker | None) -> None:
        """A request of a client of the control process was refused."""
        self._tell("control.refused", operation, "refused", who=who, detail={"text": text})

    def reloaded(self, number: int, text: str, who: m.Asker | None) -> None:
        """A reload has come to its end; `number` is 0 or an errno."""
        by = "control" if who else "SIGHUP"
        result = "refused" if number else "ok"
        self._tell("config.change", "reload", result, who=who, detail={"by": by, "text": text})

    # Faults.

    def token(self, before: m.TokenStatus | None, now: m.TokenStatus) -> None:
        """What the custodian says of the token."""
        was = "ready" if before is None else before.state
        if now.state != was:
            if now.state == "away":
                self._tell("fault", "token", "away", token=now.token, detail={"text": now.detail})
            else:
                self._tell("recovery", "token", token=now.token)
        elif before is not None and before.token and now.token and before.token != now.token:
            self._tell("recovery", "token_switched", token=now.token, detail={"before": before.token})

    def child_left(self, role: Seat, text: str) -> None:
        """A child has ended and is started again."""
        self._away.add(role)
        self._tell("fault", "process", "ended", detail={"process": role, "text": text})

    def child_serves(self, role: Seat) -> None:
        """A child is ready."""
        if role in self._away:
            self._away.discard(role)
            self._tell("recovery", "process", detail={"process": role})

    def _peer(self, operation: str, peer: Peer, prefixes: list[Prefix], cause: str, who: m.Asker | None) -> None:
        shown = " ".join(map(str, prefixes[:_PREFIXES]))
        detail: dict[str, str | int] = {"by": cause, "psk": _PSK[type(peer.psk).__name__], "allowed_ips": shown}
        if peer.name:
            detail["name"] = peer.name
        if len(prefixes) > _PREFIXES:
            detail["prefixes"] = len(prefixes)
        self._tell("peer.change", operation, peer=peer.public_key, who=who, detail=detail)

    def _tell(
        self,
        kind: str,
        operation: str,
        result: str = "ok",
        *,
        peer: bytes = b"",
        token: str = "",
        who: m.Asker | None = None,
        detail: dict[str, str | int] | None = None,
    ) -> None:
        self._sender(
            m.AuditEvent(kind, operation, result, time.time_ns(), peer=peer, token=token, who=who, detail=detail or {})
        )

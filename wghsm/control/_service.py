"""The control process at work: two servers, one policy, and the requests behind them.

    set: parsed -> policy -> PSKs into the token -> change to the supervisor -> errno to the client
    get: device and peers from the supervisor -> text to the client

Sets are done one after the other, each whole or not at all. Called by `__main__`.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hmac
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from wghsm.ipc import admin
from wghsm.ipc import messages as m

from ._policy import holders, names_private_key, psk_label, refusal
from ._status import status
from .uapi import Get, Malformed, Set, format_device, next_operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._server import Connection
    from ._supervisor import Requests

__all__ = ["Service"]

_log = logging.getLogger(__name__)

_ZERO = bytes(32)
_MAX_LINE = 16 * 1024 * 1024
_PATIENCE = 10 * 1_000_000_000
"""How long (ns) a private key waits for the token that it is compared with; then it is refused."""


class Service:
    """Answers the clients of both sockets. `later` calls after so many nanoseconds, as the loop does."""

    def __init__(
        self,
        requests: Requests,
        runtime_psks: bool,
        audit: Callable[[m.AuditEvent], None] = lambda _event: None,
        later: Callable[[int, Callable[[], None]], object] = lambda _delay, _callback: None,
    ) -> None:
        """`audit` is told of what is refused here; what the supervisor refuses it tells itself."""
        self._audit = audit
        self.own_public_key: bytes | None = None
        self._later = later
        self._requests = requests
        self._runtime_psks = runtime_psks
        self._sets: deque[tuple[Connection, Set, bool]] = deque()
        self._waiting: list[tuple[Connection, Set]] = []
        self._setting = False

    def learn(self, public_key: bytes) -> None:
        """The token has said which key is the gateway's."""
        self.own_public_key = public_key
        self._go_on()

    def feed_uapi(self, connection: Connection) -> None:
        """Take the next operation of a client of the configuration protocol, if it is whole."""
        operation = next_operation(connection.received, connection.at_end, connection.searched)
        connection.searched = len(connection.received) if operation is None else 0
        match operation:
            case None:
                return
            case Get():
                connection.busy = True
                self._requests.device(lambda device, peers: connection.reply(format_device(device, peers)))
            case Malformed():
                connection.busy = True
                self._refused("set", "the operation is malformed", connection)
                connection.reply(_errno(operation.errno), last=operation.close)
            case Set():
                connection.busy = True
                self._sets.append((connection, operation, True))
                self._next_set()

    def feed_admin(self, connection: Connection) -> None:
        """Take the next request of the `wghsm` command."""
        end = connection.received.find(b"\n", connection.searched)
        if end < 0:
            connection.searched = len(connection.received)
            if connection.searched > _MAX_LINE:
                connection.close()
            return
        line = connection.received[:end]
        del connection.received[: end + 1]
        connection.searched = 0
        connection.busy = True

        def answer(reply: admin.AdminReply) -> None:
            connection.reply(msgspec.json.encode(reply) + b"\n")

        try:
            request = msgspec.json.decode(line, type=admin.AdminRequest)
            peers = None if request.peers is None else [_public_key(peer) for peer in request.peers]
        except (msgspec.MsgspecError, binascii.Error, ValueError):
            why = "the request makes no sense to this version"
            self._refused("admin", why, connection)
            answer(admin.AdminReply(errno=errno.EINVAL, text=why))
            return
        match request.verb:
            case "status":
                self._status(answer)
            case "rekey":
                self._requests.rekey(peers, lambda code, text: answer(admin.AdminReply(errno=code, text=text)))
            case "stop":
                _log.info("uid %d (pid %d) stops the gateway", connection.credentials.uid, connection.credentials.pid)
                self._requests.stop(
                    lambda code, text: answer(admin.AdminReply(errno=code, text=text)), _asker(connection)
                )
            case "reset-timestamp":
                who = connection.credentials
                _log.warning("uid %d (pid %d) resets timestamps of %d peers", who.uid, who.pid, len(peers or ()))
                self._requests.forget_timestamps(
                    peers or [],
                    lambda code, text: answer(admin.AdminReply(errno=code, text=text)),
                    _asker(connection),
                )
            case "reload":
                _log.info("uid %d (pid %d) reloads the file", connection.credentials.uid, connection.credentials.pid)
                self._requests.reload(
                    request.file,
                    lambda result: answer(_reloaded(result)),
                    _asker(connection),
                    login=request.login,
                )
            case "config":
                self._requests.config(
                    lambda data: answer(admin.AdminReply(config=msgspec.json.decode(data, type=admin.Config)))
                )

    def _status(self, answer: Callable[[admin.AdminReply], None]) -> None:
        def with_device(device: m.DeviceView, peers: list[m.PeerView]) -> None:
            self._requests.status(lambda part: answer(admin.AdminReply(status=status(device, peers, part))))

        self._requests.device(with_device)

    def _next_set(self) -> None:
        if self._setting or not self._sets:
            return
        connection, operation, may_wait = self._sets.popleft()
        if may_wait and self.own_public_key is None and names_private_key(operation):
            # Whether it is the gateway's own key is known as soon as the token is there; others need not wait.
            self._waiting.append((connection, operation))
            self._later(_PATIENCE, self._go_on)
            self._next_set()
            return
        self._setting = True
        who = f"uid {connection.credentials.uid} (pid {connection.credentials.pid})"

        def done(code: int, text: str) -> None:
            _wipe(operation)
            if code:
                _log.warning("a change by %s was refused: %s", who, text or errno.errorcode.get(code, str(code)))
            else:
                _log.info("unattested change by %s: %d peers named", who, len(operation.change.peers))
            self._setting = False
            connection.reply(_errno(code), last=code != 0)
            self._next_set()

        if reason := refusal(operation, self.own_public_key, self._runtime_psks):
            self._refused("set", reason, connection)
            done(errno.EPERM, reason)
        elif self._runtime_psks:
            change, psks = self._without_self(operation.change), operation.preshared_keys
            _RuntimeSet(self._requests, change, psks, done, _asker(connection)).start()
        else:
            self._requests.change(self._without_self(operation.change), done, who=_asker(connection))

    def _refused(self, operation: str, text: str, connection: Connection) -> None:
        self._audit(
            m.AuditEvent(
                "control.refused",
                operation,
                "refused",
                time.time_ns(),
                who=_asker(connection),
                detail={"text": text},
            )
        )

    def _go_on(self) -> None:
        """Decide on private keys that had to wait, with or without the token's word."""
        self._sets.extend((connection, operation, False) for connection, operation in self._waiting)
        self._waiting.clear()
        self._next_set()

    def _without_self(self, change: m.DeviceChange) -> m.DeviceChange:
        """The change without a peer of our own key: accepted and ignored (PROTOCOL.md 14.4)."""
        peers = [peer for peer in change.peers if peer.public_key != self.own_public_key]
        return msgspec.structs.replace(change, peers=peers)


class _RuntimeSet:
    """A set under `authority: runtime`.

        device -> check -> PSKs into the token -> change -> PSKs that nobody has any more out of it -> done

    A change that would be refused is so before the token is asked. Where the token refuses a PSK, those of peers that
    had none before are taken back; one that has replaced another stays.
    """

    def __init__(
        self,
        requests: Requests,
        change: m.DeviceChange,
        preshared_keys: dict[bytes, bytearray],
        done: Callable[[int, str], None],
        who: m.Asker,
    ) -> None:
        self._requests = requests
        self._who = who
        self._psks = {key: psk for key, psk in preshared_keys.items() if not hmac.compare_digest(psk, _ZERO)}
        self._change = change
        self._done = done
        self._before: set[bytes] = set()
        self._after: set[bytes] = set()
        self._puts: deque[bytes] = deque()
        self._written: set[bytes] = set()
        self._deletes: deque[bytes] = deque()

    def start(self) -> None:
        self._requests.device(self._with_device)

    def _with_device(self, _device: m.DeviceView, peers: list[m.PeerView]) -> None:
        self._before = {peer.public_key for peer in peers if peer.psk == "object"}
        self._after = holders(self._change, {peer.public_key for peer in peers}, self._before, self._psks.keys())
        self._puts.extend(key for key in self._psks if key in self._after)
        stored = set(self._puts)
        self._change = msgspec.structs.replace(
            self._change,
            peers=[
                msgspec.structs.replace(peer, psk=m.PskObject(psk_label(peer.public_key)))
                if peer.public_key in stored and not peer.remove
                else peer
                for peer in self._change.peers
            ],
        )
        if stored:
            self._requests.change(self._change, self._checked, check_only=True, who=self._who)
        else:
            self._put_next()

    def _checked(self, code: int, text: str) -> None:
        if code:
            self._done(code, text)
        else:
            self._put_next()

    def _put_next(self) -> None:
        if not self._puts:
            self._requests.change(self._change, self._changed, who=self._who)
            return
        key = self._puts.popleft()

        def put(code: int, text: str) -> None:
            if code:
                self._changed(code, text)
                return
            self._written.add(key)
            self._put_next()

        self._requests.put_psk(psk_label(key), self._psks[key], put)

    def _changed(self, code: int, text: str) -> None:
        self._deletes.extend(self._written - self._before if code else self._before - self._after)
        self._delete_next(code, text)

    def _delete_next(self, code: int, text: str) -> None:
        """The next set waits for these: it may bring a PSK under the same label."""
        if not self._deletes:
            self._done(code, text)
            return

        def deleted(problem: int, why: str) -> None:
            if problem not in (0, errno.ENOENT):
                left = len(self._deletes) + 1
                _log.warning("preshared keys without a peer are still in the token (%d): %s", left, why)
                self._deletes.clear()
            self._delete_next(code, text)

        self._requests.delete_psk(psk_label(self._deletes.popleft()), deleted)


def _asker(connection: Connection) -> m.Asker:
    credentials = connection.credentials
    return m.Asker(credentials.uid, credentials.gid, credentials.pid)


def _errno(code: int) -> bytes:
    # Negative, because wg(8) prints strerror of the negated number.
    return b"errno=%d\n\n" % -code


def _wipe(operation: Set) -> None:
    for key in (operation.private_key, *operation.preshared_keys.values()):
        if key is not None:
            key[:] = bytes(len(key))


def _public_key(text: str) -> bytes:
    key = base64.b64decode(text, validate=True)
    if len(key) != 32:
        raise ValueError("a public key has 32 bytes")
    return key


def _reloaded(result: m.ReloadResult) -> admin.AdminReply:
    problems = [admin.Problem(each.file, each.line, each.message, each.remedy) for each in result.problems]
    return admin.AdminReply(errno=result.errno, text=result.text, problems=problems)

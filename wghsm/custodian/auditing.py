"""What the custodian says to the auditor, and what it does for it.

    Used, logins, PSKs put and deleted  -> AuditEvent
    SignCheckpoint -> a worker: the token's audit key signs -> CheckpointSigned
    AuditHealth, the auditor's end      -> `stopped`: whether handshakes must wait for the log (`audit_required`)

The bytes that are signed are made here from the fields of the request, so that the auditor, were it taken over, could
get nothing signed but checkpoints. Called by `service`, main thread only but for the jobs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wghsm.audit import Statement
from wghsm.ipc import ChannelKind
from wghsm.ipc import messages as m
from wghsm.pkcs11_backend import TokenError, TokenFault
from wghsm.process.audit import AuditSender

from .effects import Effect, Suspect
from .epochs import epoch_of, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.process import Child

    from .effects import Landing, Used
    from .vault import Login, TokenVault
    from .workers import Workers

__all__ = ["Auditing"]

_AUDITOR = ChannelKind.CUSTODIAN_AUDITOR


class Auditing:
    """`available` says whether the token may be asked; `changed` is called when `stopped` has changed."""

    def __init__(
        self,
        child: Child,
        settings: m.TokenSettings,
        vault: TokenVault,
        workers: Workers,
        available: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._child = child
        self._settings = settings
        self._vault = vault
        self._workers = workers
        self._available = available
        self._changed = changed
        self._sender = AuditSender(lambda event: child.try_send(_AUDITOR, event), wanted=settings.audited)
        self._signing = False
        self.stopped = settings.audit_required
        child.on(_AUDITOR, m.SignCheckpoint, self._on_sign)
        child.on(_AUDITOR, m.AuditHealth, self._on_health)
        child.on_attach(_AUDITOR, lambda _incarnation: self._attached())
        child.on_detach(_AUDITOR, lambda: self._set_stopped(whole=False))

    def used(self, use: Used) -> None:
        """A handshake has used the gateway's key."""
        if not self._settings.audited:
            return
        kind = kind_of(use.psk)
        psk = "none" if kind is None else f"{kind}:{epoch_of(use.psk)}"
        self._sender(
            m.AuditEvent(
                "key.use",
                use.operation,
                "ok",
                time.time_ns(),
                peer=use.peer,
                key=use.identity,
                token=self._vault.token_identity,
                latency_us=use.latency // 1000,
                detail={"session": use.session, "psk": psk} if use.session else {},
            )
        )

    def logins(self, logins: list[Login]) -> None:
        """The token was logged in to, or has refused that."""
        for login in logins:
            detail: dict[str, str | int] = {"text": login.text} if login.text else {}
            self._sender(
                m.AuditEvent("pin.login", "login", login.result, login.at_unix, token=login.token, detail=detail)
            )

    def psk_changed(self, operation: str, label: str, result: m.PskResult) -> None:
        """A PSK object was written or removed at run time."""
        detail: dict[str, str | int] = {"label": label}
        if result.text:
            detail["text"] = result.text
        outcome = "failed" if result.errno else "ok"
        self._sender(
            m.AuditEvent(
                "key.change", operation, outcome, time.time_ns(), token=self._vault.token_identity, detail=detail
            )
        )

    def flush(self) -> None:
        """Tell what an auditor that did not read for a while has not heard yet."""
        self._sender.flush()

    # The auditor.

    def _attached(self) -> None:
        self._signing = False
        self._sender.flush()

    def _on_health(self, message: m.AuditHealth, _fds: list[int]) -> None:
        self._set_stopped(whole=message.whole)

    def _set_stopped(self, *, whole: bool) -> None:
        stopped = self._settings.audit_required and not whole
        if stopped != self.stopped:
            self.stopped = stopped
            self._changed()

    def _on_sign(self, message: m.SignCheckpoint, _fds: list[int]) -> None:
        label = self._settings.audit_key
        if label is None:
            self._answer(m.CheckpointSigned(message.request, text="no audit.key is set"))
            return
        if self._signing or not self._available():
            why = "another checkpoint is being signed" if self._signing else "the token is away"
            self._answer(m.CheckpointSigned(message.request, text=why))
            return
        self._signing = True

        def job() -> Landing:
            try:
                statement = Statement(message.stream, message.sequence, message.hash, message.time)
                signature, key, algorithm = self._vault.sign_checkpoint(label, statement.to_bytes())
            except TokenError as error:
                fault = error.with_traceback(None)
                return lambda _now: self._not_signed(message.request, fault)
            except ValueError:
                return lambda _now: self._signed(m.CheckpointSigned(message.request, text="that is no checkpoint"))
            token = self._vault.token_identity
            return lambda _now: self._signed(m.CheckpointSigned(message.request, signature, key, algorithm, token))

        self._workers.submit(job)

    def _signed(self, answer: m.CheckpointSigned) -> list[Effect]:
        self._signing = False
        self._answer(answer)
        return []

    def _not_signed(self, request: int, error: TokenError) -> list[Effect]:
        self._signed(m.CheckpointSigned(request, text=str(error)))
        # A key that is missing or unfit says nothing about the token's health.
        return [Suspect(error)] if isinstance(error, TokenFault) else []

    def _answer(self, answer: m.CheckpointSigned) -> None:
        self._child.send(_AUDITOR, answer)

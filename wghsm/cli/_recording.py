"""The audit log of the commands that touch keys, PSKs and PINs: who did what, and how it ended (docs/audit.md).

    with recording(gateway, Deed(...)) as record:      the log opens, or the command says why not, before any token
        record.on_token(uri, work)                     PIN -> the token works -> the audit key of the same login
                                                       signs what will be the last record -> record, checkpoint
    an error on the way                                a record that says so, unsealed until the next checkpoint

The line is put together twice, where the token is (perhaps in a child of another uid, which may not write the log) and
here; both come out the same.
"""

import contextlib
import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from wghsm.audit import AuditLog, Event, Kind, Limits, LogBusyError, LogError, PublicKey, Who, decode
from wghsm.auditor.journald import Journald
from wghsm.cli._output import CommandError
from wghsm.cli._owner import Answer, on_token
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenError, TokenPool, TokenUri
from wghsm.pkcs11_backend.audit_key import find_audit_key, sign
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["WITHOUT_GATEWAY", "Deed", "Recording", "recording"]

WITHOUT_GATEWAY = Path("/var/log/wghsm/tokens")
"""Where commands are recorded that name a token and no gateway file, if the folder is there."""
_LOG = "commands"
_NOBODY = 0xFFFFFFFF
_JOURNALD = "/run/systemd/journal/socket"


@dataclass(frozen=True)
class Deed:
    """What a command is about to do. `key` is a label, `peer` a public key in base64."""

    operation: str
    key: str = ""
    peer: str = ""
    kind: Kind = "key.change"
    detail: dict[str, str | int] = field(default_factory=dict)


class Recording:
    """The log while a command is at work; it holds the log's lock."""

    def __init__(
        self, log: AuditLog | None, deed: Deed, *, key: str | None, strict: bool, journal: Journald | None
    ) -> None:
        self._log = log
        self._deed = deed
        self._key = key
        self._strict = strict
        self._journal = journal
        self._told = False
        self._token = ""
        # Before anything changes to the uid of the token's store.
        self._who = Who(os.getuid(), os.getgid(), os.getpid())
        self._asker = _asker()
        if log is not None:
            self._copy(log.opening)

    def on_token(self, uri: TokenUri, work: Callable[[TokenPool], Answer], *, read_write: bool = False) -> Answer:
        """As `on_token`, and have it recorded and sealed. Raises CommandError too where it must be, and could not."""
        log = self._log
        if log is None:
            return on_token(uri, work, read_write=read_write)
        self._token = uri.describe_token()
        outer = on_token(uri, lambda pool: self._sealed(log, pool, work(pool)), read_write=read_write)
        try:
            return Answer(self._recorded(log, outer), outer.secret)
        except BaseException:
            wipe(outer.secret)
            raise

    def _recorded(self, log: AuditLog, outer: Answer) -> object:
        said = msgspec.convert(outer.data, _Sealed)
        event = self._event("ok", said.token, said.made)
        with self._writing():
            statement = log.statement_after([event], said.now)
            self._append([event], said.now)
            self._told = True
            if said.signature:
                signature, key = bytes.fromhex(said.signature), PublicKey(said.key.encode())
                if not key.signed(statement, signature):
                    raise LogError("the token's signature is over something else than this record")
                lines = [
                    log.checkpoint(statement, signature, key.fingerprint, said.algorithm, said.now, token=said.token)
                ]
                self._copy([*lines, *log.tidy(said.now, sealing=True)])
        if said.unsealed:
            click.echo(f"wghsm: recorded in the audit log, but not sealed: {said.unsealed}", err=True)
        return said.data

    def finish(self, fault: BaseException | None) -> None:
        """Record how it ended, unless `on_token` has recorded that it went well."""
        if self._log is None or (fault is None and self._told):
            return
        now = time.time_ns() // 1000
        if fault is None:
            with self._writing():
                self._append([self._event("ok", self._token, {})], now)
            return
        interrupted = isinstance(fault, KeyboardInterrupt | click.Abort)
        error: dict[str, str | int] = {} if interrupted else {"error": str(fault) or type(fault).__name__}
        # The command ends with its own error, which must not be hidden by one of the log.
        with contextlib.suppress(LogError, OSError):
            self._append([self._event("interrupted" if interrupted else "failed", self._token, error)], now)

    def _append(self, events: list[Event], now: int) -> None:
        if self._log is not None:
            self._copy(self._log.append(events, now))

    def _copy(self, lines: list[bytes]) -> None:
        """Hand the lines to journald too, whose copy is the anchor. The files are what counts: it may be away."""
        if self._journal is not None:
            self._journal.send([(line, decode(line)) for line in lines])

    def _sealed(self, log: AuditLog, pool: TokenPool, answer: Answer) -> Answer:
        """The answer with the audit key's signature over the record of it. It writes nothing, being at the token."""
        now = time.time_ns() // 1000
        made = _made(answer.data)
        sealed = _Sealed(answer.data, now, pool.token_identity, made)
        if self._key is not None:
            try:
                key = find_audit_key(pool, self._key)
                statement = log.statement_after([self._event("ok", pool.token_identity, made)], now)
                sealed.signature = sign(pool, key, statement.to_bytes()).hex()
                sealed.key, sealed.algorithm = key.pem, key.algorithm
            except TokenError as fault:
                sealed.unsealed = str(fault)
        return Answer(msgspec.to_builtins(sealed), answer.secret)

    def _event(self, result: str, token: str, more: dict[str, str | int]) -> Event:
        deed = self._deed
        return Event(
            kind=deed.kind,
            operation=deed.operation,
            result=result,
            peer=deed.peer,
            key=deed.key,
            token=token,
            who=self._who,
            detail={**deed.detail, **more, **self._asker},
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (LogError, OSError) as fault:
            said = f"it is done, but could not be recorded in the audit log: {fault}"
            if self._strict:
                raise CommandError(said) from None
            click.echo(f"wghsm: {said}", err=True)


@contextmanager
def recording(gateway: "Gateway | None", deed: Deed) -> Iterator[Recording]:
    """Open the log that `gateway` asks for, and record `deed`.

    Where it cannot be opened the command says so in one line and goes on, or with `on_failure: stop-new-handshakes`
    raises CommandError before anything is touched.
    """
    strict = gateway is not None and gateway.audit.enabled and gateway.audit.on_failure != "continue"
    log = None
    try:
        log = _opened(gateway)
    except (LogError, OSError, LookupError) as fault:
        said = f"{fault.filename}: {fault.strerror}" if isinstance(fault, OSError) else str(fault)
        if strict:
            code = ExitCode.NO_PRIVILEGE if isinstance(fault, PermissionError) else ExitCode.FAILURE
            raise CommandError(
                f"the audit log cannot be written, and audit.on_failure wants it: {said}; nothing was touched", code
            ) from None
        click.echo(f"wghsm: this command is not in the audit log, which cannot be written: {said}", err=True)
    journal = None if log is None else _journald(gateway)
    record = Recording(log, deed, key=None if gateway is None else gateway.audit.key, strict=strict, journal=journal)
    try:
        yield record
    except BaseException as fault:
        record.finish(fault)
        raise
    else:
        record.finish(None)
    finally:
        if log is not None:
            log.close()
        if journal is not None:
            journal.close()


class _Sealed(msgspec.Struct):
    """What comes back from where the token is: the work's own answer, and what its record and its seal are made of."""

    data: Any
    now: int
    token: str
    made: dict[str, str | int]
    signature: str = ""
    key: str = ""
    algorithm: str = ""
    unsealed: str = ""


def _opened(gateway: "Gateway | None") -> AuditLog | None:
    now = time.time_ns() // 1000
    if gateway is None:
        return _locked(WITHOUT_GATEWAY, "-", now, Limits()) if WITHOUT_GATEWAY.is_dir() else None
    wanted = gateway.audit
    if not wanted.enabled:
        return None
    folder = wanted.directory
    if not folder.is_dir():
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            user = gateway.users.auditor
            shutil.chown(folder, user, pwd.getpwnam(user).pw_gid if isinstance(user, str) else user)
    limits = Limits(wanted.rotate_size, wanted.rotate_age * 1_000_000, wanted.retention * 1_000_000)
    log = _locked(folder, gateway.interface.name, now, limits)
    try:
        # Here, so that the checkpoint of this command is about it, and the files go with this command.
        log.opening += log.tidy(now, sealing=wanted.key is not None)
    except BaseException:
        log.close()
        raise
    return log


def _journald(gateway: "Gateway | None") -> Journald | None:
    wanted: bool | str = True if gateway is None else gateway.audit.journald
    if not wanted:
        return None
    path = _JOURNALD if wanted is True else str(wanted)
    return Journald(path, "-" if gateway is None else gateway.interface.name, required=False)


def _locked(folder: Path, gateway: str, now: int, limits: Limits) -> AuditLog:
    try:
        return AuditLog(folder, gateway, _LOG, now, limits=limits)
    except LogBusyError:
        click.echo("wghsm: waiting for another wghsm command that is in the audit log just now", err=True)
        return AuditLog(folder, gateway, _LOG, now, limits=limits, wait=True)


def _made(data: object) -> dict[str, str | int]:
    """What a record tells of the work's answer: the public key, where one was made or shown."""
    if not isinstance(data, dict):
        return {}
    return {name: data[name] for name in ("fingerprint", "public_key") if len(str(data.get(name) or "")) in (44, 64)}


def _asker() -> dict[str, str | int]:
    """Who logged in, as the kernel keeps it (loginuid), and who used sudo, as the environment says: unattested."""
    found: dict[str, str | int] = {}
    with contextlib.suppress(OSError, ValueError):
        login = int(Path("/proc/self/loginuid").read_text("ascii"))
        if login != _NOBODY:
            found["loginuid"] = login
    for name in ("SUDO_UID", "SUDO_USER"):
        if value := os.environ.get(name):
            found[name.lower()] = value[:64]
    return found
